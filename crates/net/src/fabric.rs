//! Another way than TCP to carry bytes between nodes, for those who simulate a network. Everything above the bytes (the
//! handshake, frames, calls) is the same over either.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// The two directions of a connection, and who is at its other end.
pub struct Pipe {
    /// What comes in.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes out.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The address of the other side, for messages.
    pub peer: String,
}

/// A connection that is being opened. Dropping it gives it up.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Pipe>> + Send>>;

/// Carries bytes between nodes, as seen from one of them.
pub trait Fabric: Send + Sync {
    /// Opens a connection to `host:port`. Bounded in time by the caller.
    fn connect(&self, address: &str) -> Opening;

    /// Takes the connections that others open to `host:port`, until the receiver is dropped.
    ///
    /// # Errors
    /// The address is in use.
    fn listen(&self, address: &str) -> io::Result<mpsc::Receiver<Pipe>>;
}

/// Where connections come from.
pub(crate) enum Port {
    Tcp(TcpListener),
    Fabric(mpsc::Receiver<Pipe>),
}

/// A connection before its handshake.
pub(crate) enum Incoming {
    Tcp(TcpStream),
    Fabric(Pipe),
}

impl Port {
    /// The next connection, and its other side's address. Cancel safe.
    pub(crate) async fn accept(&mut self) -> io::Result<(Incoming, String)> {
        match self {
            Port::Tcp(tcp) => tcp.accept().await.map(|(stream, peer)| (Incoming::Tcp(stream), peer.to_string())),
            Port::Fabric(pipes) => {
                let pipe = pipes.recv().await.ok_or(io::ErrorKind::NotConnected)?;
                let peer = pipe.peer.clone();
                Ok((Incoming::Fabric(pipe), peer))
            }
        }
    }
}
