//! How nodes speak to each other: framed TCP, plain or under mutual TLS, with a handshake that refuses strangers, and
//! calls with answers on top ([`RpcClient`], [`serve_rpc`]). Knows frames and names, never what they mean; has no part in
//! any decision.
//!
//! A connection begins with a [`Hello`] that says who calls and for what. The listening side answers it or refuses it
//! with a reason, and the reason is what [`Transport::connect`] fails with.

mod error;
mod fabric;
mod frame;
mod hello;
mod https;
mod listener;
mod rpc;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use error::{NetError, Side};
pub use fabric::{Fabric, Opening, Pipe};
pub use frame::{FRAME_BYTES_MAX, FrameReader, FrameWriter};
pub use hello::{Hello, PROTOCOL_VERSION, Service};
pub use https::{ByteStream, Https};
pub use listener::Listener;
pub use rpc::{RpcClient, RpcError, serve_rpc};
pub use tls::TlsFiles;
pub use transport::{CONNECT_TIMEOUT, Connection, Transport};
