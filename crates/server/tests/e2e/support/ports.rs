//! Ports for servers that tests start, and start again.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports of which nobody else has a use: below those that the system gives to outgoing connections, and those from which
/// `mainstem cluster` chooses.
const FIRST: u16 = 2_000;
const COUNT: u16 = 8_000;

/// A port of loopback on which nobody listens. The system gives none of these to a connection, which would take the port from a
/// server that is just being started, and where one that is down is called again and again even to the caller itself. Of
/// the processes that look for one, each begins somewhere else.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of several such ports in a row, none of which is given to anybody else.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random()));
    for _ in 0..COUNT {
        let first = FIRST + next.fetch_add(count, Ordering::Relaxed) % COUNT;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} ports in a row are free between {FIRST} and {}", FIRST + COUNT);
}
