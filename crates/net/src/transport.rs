//! Opening connections, and what both ends do before the first frame of their own.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{NetError, Side};
use crate::fabric::{Fabric, Incoming};
use crate::frame::{FRAME_BYTES_MAX, FrameReader, FrameWriter};
use crate::hello::{Admission, Answer, HELLO_BYTES_MAX, Hello};
use crate::https::Https;
use crate::listener::Listener;
use crate::tls::{TlsConfig, TlsFiles, explain, looks_like_tls};

/// How long connecting and the handshake may take together, unless a transport is told otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer to [`Transport::is_refused`] is waited for.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// A connection without traffic is probed after this time, at this distance. For connections without heartbeats of their
/// own, such as those over which rows go: each side must notice that the network between is cut.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent, or a probe, must be acknowledged within this time. Without it the system repeats for a quarter of an hour
/// what it has to send, and only then says that nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// How long, and for how many bytes, a refused peer is listened to, so that the refusal reaches it: closing a socket that
/// holds unread bytes takes back what was sent last.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// How this node speaks to others: in the clear or under mutual TLS. Cheap to clone; clones share one configuration.
#[derive(Clone)]
pub struct Transport {
    tls: Option<Arc<Tls>>,
    /// Carries the bytes in the place of TCP, where set.
    fabric: Option<Arc<dyn Fabric>>,
    connect_timeout: Duration,
}

/// The files and what was read from them last.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<TlsConfig>>,
}

impl Tls {
    pub(crate) fn current(&self) -> Arc<TlsConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection after its handshake.
pub struct Connection {
    /// What the connecting side said.
    pub hello: Hello,
    /// The address of the other side.
    pub peer: String,
    /// What comes in.
    pub reader: FrameReader,
    /// What goes out.
    pub writer: FrameWriter,
}

impl Transport {
    /// In the clear: for one host, or a network that nobody else can reach.
    #[must_use]
    pub fn plain() -> Transport {
        Transport { tls: None, fabric: None, connect_timeout: CONNECT_TIMEOUT }
    }

    /// Under mutual TLS.
    ///
    /// # Errors
    /// A file that is missing or is not what it should be.
    pub fn tls(files: &TlsFiles) -> Result<Transport, NetError> {
        let current = RwLock::new(Arc::new(TlsConfig::read(files)?));
        let tls = Tls { files: files.clone(), current };
        Ok(Transport { tls: Some(Arc::new(tls)), fabric: None, connect_timeout: CONNECT_TIMEOUT })
    }

    /// In the clear over something else than TCP.
    #[must_use]
    pub fn over(fabric: Arc<dyn Fabric>) -> Transport {
        Transport { fabric: Some(fabric), ..Transport::plain() }
    }

    /// The same, with another bound for connecting and the handshake.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Transport {
        Transport { connect_timeout, ..self }
    }

    /// Whether this transport is under TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The same certificates for a port of clients; none in the clear.
    #[must_use]
    pub fn https(&self) -> Option<Https> {
        self.tls.clone().map(|tls| Https { tls })
    }

    /// Reads the files of TLS again, for new connections in both directions; those that stand are left alone.
    ///
    /// # Errors
    /// As [`Transport::tls`]; the old certificates stay in use.
    pub fn reload(&self) -> Result<(), NetError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let fresh = Arc::new(TlsConfig::read(&tls.files)?);
        *tls.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Listens on `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`NetError::Listen`].
    pub async fn listen(&self, address: &str) -> Result<Listener, NetError> {
        Listener::bind(self.clone(), address).await
    }

    /// Whether the host of an address (`host:port`) says that nobody listens there. False where it says nothing in time,
    /// which proves nothing.
    pub async fn is_refused(&self, address: &str) -> bool {
        let connect = async {
            match &self.fabric {
                Some(fabric) => fabric.connect(address).await.map(|_| ()),
                None => TcpStream::connect(address).await.map(|_| ()),
            }
        };
        let connected = timeout(PROBE_TIMEOUT, connect).await;
        matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Connects to `host:port` and says hello.
    ///
    /// # Errors
    /// Nobody there, no trust, a refusal with the other side's reason, or no answer in time.
    pub async fn connect(&self, address: &str, hello: &Hello) -> Result<Connection, NetError> {
        match timeout(self.connect_timeout, self.connect_without_bound(address, hello)).await {
            Ok(connected) => connected,
            Err(_) => Err(self.timed_out(Side::Connecting, address, "answer")),
        }
    }

    async fn connect_without_bound(&self, address: &str, hello: &Hello) -> Result<Connection, NetError> {
        let failed = |source| NetError::Connect { peer: address.to_owned(), source };
        if let Some(fabric) = &self.fabric {
            let pipe = fabric.connect(address).await.map_err(failed)?;
            let (reader, writer) = framed(pipe.reader, pipe.writer, address);
            return introduce(hello, address, reader, writer).await;
        }
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        set_options(&stream).map_err(failed)?;
        let (reader, writer) = match self.tls_config() {
            None => {
                let (read, write) = stream.into_split();
                framed(read, write, address)
            }
            Some(config) => {
                let stream = TlsConnector::from(config.client.clone())
                    .connect(server_name(address)?, stream)
                    .await
                    .map_err(|error| handshake_error(Side::Connecting, address, error))?;
                let (read, write) = tokio::io::split(stream);
                framed(read, write, address)
            }
        };
        introduce(hello, address, reader, writer).await
    }

    /// The listening side's part; bounded in time like the other's.
    pub(crate) async fn admit(
        &self,
        stream: Incoming,
        peer: &str,
        admission: &Admission,
    ) -> Result<Connection, NetError> {
        match timeout(self.connect_timeout, self.admit_without_bound(stream, peer, admission)).await {
            Ok(admitted) => admitted,
            Err(_) => Err(self.timed_out(Side::Accepting, peer, "hello")),
        }
    }

    async fn admit_without_bound(
        &self,
        stream: Incoming,
        peer: &str,
        admission: &Admission,
    ) -> Result<Connection, NetError> {
        let stream = match stream {
            Incoming::Tcp(stream) => stream,
            Incoming::Fabric(pipe) => {
                let (reader, writer) = framed(pipe.reader, pipe.writer, peer);
                return answer(admission, peer, reader, writer).await;
            }
        };
        set_options(&stream).map_err(|error| handshake_error(Side::Accepting, peer, error))?;
        let (reader, writer) = match self.tls_config() {
            None => {
                let (read, write) = stream.into_split();
                framed(read, write, peer)
            }
            Some(config) => {
                let accepting = TlsAcceptor::from(config.server.clone()).accept(stream).into_fallible();
                let stream = match accepting.await {
                    Ok(stream) => stream,
                    Err((error, stream)) => {
                        linger(stream).await;
                        return Err(handshake_error(Side::Accepting, peer, error));
                    }
                };
                let (read, write) = tokio::io::split(stream);
                framed(read, write, peer)
            }
        };
        answer(admission, peer, reader, writer).await
    }

    pub(crate) fn fabric(&self) -> Option<&dyn Fabric> {
        self.fabric.as_deref()
    }

    fn tls_config(&self) -> Option<Arc<TlsConfig>> {
        self.tls.as_ref().map(|tls| tls.current())
    }

    fn timed_out(&self, side: Side, peer: &str, what: &'static str) -> NetError {
        let timeout_ms = u64::try_from(self.connect_timeout.as_millis()).unwrap_or(u64::MAX);
        NetError::TimedOut { side, peer: peer.to_owned(), what, timeout_ms }
    }
}

/// The connecting side's first frame, and its answer.
async fn introduce(
    hello: &Hello,
    peer: &str,
    mut reader: FrameReader,
    mut writer: FrameWriter,
) -> Result<Connection, NetError> {
    reader.set_frame_bytes_max(HELLO_BYTES_MAX);
    writer.set_frame_bytes_max(HELLO_BYTES_MAX);
    let said = writer.write_message(hello).await;
    if let Err(error @ (NetError::FrameTooLarge { .. } | NetError::Message { .. })) = said {
        return Err(error);
    }
    // Where writing failed, the reason lies ready to be read: the other side has refused before it read the hello.
    match reader.read_message::<Answer>().await {
        Ok(Some(Answer::Ok)) => said?,
        Ok(Some(Answer::Refused(reason))) => return Err(NetError::Refused { peer: peer.to_owned(), reason }),
        Err(NetError::Io { source, .. }) => return Err(handshake_error(Side::Connecting, peer, source)),
        Err(_) if looks_like_tls(reader.unread()) => {
            let reason =
                "the other side speaks TLS, this node does not; turn TLS on for all nodes or for none".to_owned();
            return Err(NetError::Tls { side: Side::Connecting, peer: peer.to_owned(), reason });
        }
        Err(error @ NetError::Message { .. } | error @ NetError::FrameTooLarge { .. }) => {
            let reason = format!("it answers the hello with something else ({error}); is the port the right one?");
            return Err(NetError::Message { peer: peer.to_owned(), reason });
        }
        Ok(None) | Err(_) => {
            let place = "before it answered the hello; check the port, and that TLS is on for all nodes or for none";
            return Err(NetError::Closed { peer: peer.to_owned(), place });
        }
    }
    reader.set_frame_bytes_max(FRAME_BYTES_MAX);
    writer.set_frame_bytes_max(FRAME_BYTES_MAX);
    Ok(Connection { hello: hello.clone(), peer: peer.to_owned(), reader, writer })
}

/// The listening side reads the hello and says yes or no.
async fn answer(
    admission: &Admission,
    peer: &str,
    mut reader: FrameReader,
    mut writer: FrameWriter,
) -> Result<Connection, NetError> {
    reader.set_frame_bytes_max(HELLO_BYTES_MAX);
    let checked = match reader.read().await {
        Ok(Some(frame)) => admission.check(&frame),
        Ok(None) => return Err(NetError::Closed { peer: peer.to_owned(), place: "before it said hello" }),
        Err(NetError::FrameTooLarge { .. }) if looks_like_tls(reader.unread()) => {
            Err("it does not speak TLS, the caller does; turn TLS on for all nodes or for none".to_owned())
        }
        Err(NetError::FrameTooLarge { .. }) => {
            Err("the first frame is no hello of Mainstem; is the port the right one?".to_owned())
        }
        Err(NetError::Io { source, .. }) => return Err(handshake_error(Side::Accepting, peer, source)),
        Err(error) => return Err(error),
    };
    match checked {
        Ok(hello) => {
            writer.write_message(&Answer::Ok).await?;
            reader.set_frame_bytes_max(FRAME_BYTES_MAX);
            Ok(Connection { hello, peer: peer.to_owned(), reader, writer })
        }
        Err(reason) => {
            // Whether the refusal arrives does not change it.
            let _ = writer.write_message(&Answer::Refused(reason.clone())).await;
            let _ = writer.close().await;
            reader.discard(LINGER, LINGER_BYTES_MAX).await;
            Err(NetError::Unwanted { peer: peer.to_owned(), reason })
        }
    }
}

fn framed(
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    peer: &str,
) -> (FrameReader, FrameWriter) {
    (FrameReader::new(read, peer), FrameWriter::new(write, peer))
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Lets the last words on a socket reach its other side before it is closed.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

fn handshake_error(side: Side, peer: &str, error: io::Error) -> NetError {
    if let Some(explained) = explain(side, peer, &error) {
        return explained;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            let place = "during the handshake; check the port, and that TLS is on for all nodes or for none";
            NetError::Closed { peer: peer.to_owned(), place }
        }
        _ => NetError::Io { action: "shake hands with", peer: peer.to_owned(), source: error },
    }
}

/// The host of `host:port`, as a certificate names it.
fn server_name(address: &str) -> Result<ServerName<'static>, NetError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| NetError::Tls {
        side: Side::Connecting,
        peer: address.to_owned(),
        reason: format!("'{host}' is no host that a certificate can name; give the address as host:port"),
    })
}
