//! Takes connections for the HTTP server: a bounded number of them, each with its TLS where that is on, and none that says
//! nothing for long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use mainstem_net::{ByteStream, Https};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time; others wait to be taken.
const CONNECTIONS_MAX: usize = 256;
/// TLS is set up within this.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A connection over which nothing was sent for so long ends, whatever comes in: a request must be there by then. Longer
/// than the slowest answer takes.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Wait after the system could give no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct HttpListener {
    connections: mpsc::Receiver<(Io, Peer)>,
    local: SocketAddr,
}

/// Who has connected.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether it has shown a certificate of the cluster's authority.
    pub(super) is_certified: bool,
}

/// A connection.
pub(super) struct Io {
    stream: Box<dyn ByteStream>,
    ends: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl HttpListener {
    /// Takes connections from here on.
    pub(super) fn start(listener: TcpListener, local: SocketAddr, https: Option<Https>) -> HttpListener {
        let (sender, connections) = mpsc::channel(16);
        tokio::spawn(accept(listener, https.map(Arc::new), sender));
        HttpListener { connections, local }
    }
}

async fn accept(listener: TcpListener, https: Option<Arc<Https>>, sender: mpsc::Sender<(Io, Peer)>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection at the HTTP port");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
            () = sender.closed() => return,
        };
        let (https, sender) = (https.clone(), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_WITHIN, open(stream, https.as_deref())).await {
                Ok(Ok((stream, is_certified))) => {
                    let io = Io { stream, ends: Box::pin(sleep(SILENCE_MAX)), _permit: permit };
                    let _ = sender.send((io, Peer { address, is_certified })).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "a connection to the HTTP port came to nothing"),
                Err(_) => tracing::debug!(%address, "a connection to the HTTP port said nothing"),
            }
        });
    }
}

async fn open(stream: TcpStream, https: Option<&Https>) -> io::Result<(Box<dyn ByteStream>, bool)> {
    stream.set_nodelay(true)?;
    match https {
        Some(https) => https.accept(stream).await,
        None => Ok((Box::new(stream), false)),
    }
}

impl Listener for HttpListener {
    type Io = Io;
    type Addr = Peer;

    async fn accept(&mut self) -> (Io, Peer) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // Only where the runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.local, is_certified: false })
    }
}

impl Connected<IncomingStream<'_, HttpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, HttpListener>) -> Peer {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(_)) = written {
            self.ends.as_mut().reset(Instant::now() + SILENCE_MAX);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
