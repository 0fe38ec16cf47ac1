//! TLS for a port that others than nodes use: this node shows its certificate, and whoever has one of the same authority may
//! show it too. Without it a client is only not known.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::transport::Tls;

/// A connection, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// See the module. Shares its certificates with the transport that it is of, also those that are read anew.
pub struct Https {
    pub(crate) tls: Arc<Tls>,
}

impl Https {
    /// Sets up TLS, without a bound in time; gives whether the client has shown a certificate of the authority.
    ///
    /// # Errors
    /// What the client did wrong, or that it is gone.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Box<dyn ByteStream>, bool)> {
        let stream = TlsAcceptor::from(self.tls.current().for_clients.clone()).accept(stream).await?;
        // Rustls has checked it, or the handshake would have failed.
        let is_certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        Ok((Box::new(stream), is_certified))
    }
}
