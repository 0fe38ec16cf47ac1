//! Calls with answers over one connection: many at a time, answered in any order. JSON.
//!
//! A request is a number (u64, little endian) and its JSON; an answer is the same number, one byte that says whether the
//! call succeeded, and JSON. Number 0 is a sign of life and is answered at once, whatever the handlers are busy with, so
//! that a dead connection is told from a slow call.

mod client;
mod server;

pub use client::{RpcClient, RpcError};
pub use server::serve_rpc;

/// The number of a sign of life.
const PING: u64 = 0;
/// Bytes of the number before each message.
const NUMBER_BYTES: usize = 8;
/// The byte of an answer that carries what was asked for.
const SUCCEEDED: u8 = 0;
/// The byte of an answer that carries, as a string, why the call was not done.
const FAILED: u8 = 1;

/// The number at the front of a frame, and what follows it.
fn split_number(frame: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = frame.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_le_bytes(*number), rest))
}
