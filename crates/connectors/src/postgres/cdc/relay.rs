//! An encrypted way to the server for the client of the log, which has no encryption of its own that would keep to our provider
//! of cryptography: it connects to a socket in a directory that only this user may enter, and what it says there is passed on
//! over TLS. The client proves who it is through the relay, so whoever else could reach the socket had gained nothing.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::error::{ConnectorError, ErrorKind};
use crate::postgres::address::Address;
use crate::postgres::tls::{SslMode, Tls};

/// What asks a server for encryption: the length of the message, and a number that is no version of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// See the module. Dropping it ends the connection.
pub(super) struct Relay {
    directory: Directory,
    _passing: JoinSet<()>,
}

impl Relay {
    /// A relay with a connection to the server; none where there is to be no encryption, or the server has none and need not.
    pub(super) async fn open(address: &Address) -> Result<Option<Relay>, ConnectorError> {
        if address.ssl_mode == SslMode::Disable {
            return Ok(None);
        }
        let opened = tokio::time::timeout(address.connect_timeout, encrypted(address)).await;
        let late = || failed(address, ErrorKind::Transient, "no answer in time; check that the server can be reached");
        let Some(server) = opened.map_err(|_| late())?? else { return Ok(None) };
        let directory = Directory::make().map_err(|error| local(address, &error))?;
        let socket = directory.0.join(format!(".s.PGSQL.{}", address.port));
        let listener = UnixListener::bind(socket).map_err(|error| local(address, &error))?;
        let mut passing = JoinSet::new();
        passing.spawn(pass(listener, server, address.shown()));
        Ok(Some(Relay { directory, _passing: passing }))
    }

    /// What the client takes for the server's host.
    pub(super) fn host(&self) -> String {
        self.directory.0.display().to_string()
    }
}

async fn pass(listener: UnixListener, mut server: impl AsyncRead + AsyncWrite + Unpin, shown: String) {
    let Ok((mut client, _)) = listener.accept().await else { return };
    drop(listener);
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "encrypted connection to PostgreSQL at {shown} ended");
    }
}

/// A connection on which nothing was said yet but what begins the encryption.
async fn encrypted(
    address: &Address,
) -> Result<Option<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>, ConnectorError> {
    let passing = |error: &std::io::Error| failed(address, ErrorKind::Transient, &error.to_string());
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await;
    let mut stream = stream.map_err(|error| passing(&error))?;
    stream.set_nodelay(true).map_err(|error| passing(&error))?;
    stream.write_all(&SSL_REQUEST).await.map_err(|error| passing(&error))?;
    match stream.read_u8().await.map_err(|error| passing(&error))? {
        b'S' => {}
        _ if address.ssl_mode == SslMode::Prefer => return Ok(None),
        _ => {
            let why = "the server does not encrypt; set ssl = on there, or sslmode=disable in the option 'url'";
            return Err(failed(address, ErrorKind::External, why));
        }
    }
    let mut tls = Tls::new(address.ssl_mode, address.ssl_root.as_deref())?;
    let refused = |error: &std::io::Error| {
        let why = format!("{error}; check sslmode and sslrootcert in the option 'url'");
        failed(address, ErrorKind::External, &why)
    };
    let connect = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &address.host);
    let connected = connect.map_err(|error| refused(&error))?.connect(stream).await;
    connected.map(Some).map_err(|error| refused(&error))
}

fn failed(address: &Address, kind: ErrorKind, why: &str) -> ConnectorError {
    ConnectorError::new(kind, format!("cannot connect to PostgreSQL at {}: {why}", address.shown()))
}

fn local(address: &Address, error: &std::io::Error) -> ConnectorError {
    let why = format!(
        "no socket can be made in '{}', through which changes are read by TLS: {error}; let TMPDIR name a directory with a \
         short path that can be written",
        std::env::temp_dir().display()
    );
    failed(address, ErrorKind::External, &why)
}

/// A directory for nobody else, which goes with its owner.
struct Directory(PathBuf);

impl Directory {
    fn make() -> std::io::Result<Directory> {
        // The standard library seeds its hashers from the system's source of random numbers.
        let name = format!("mainstem-{:016x}", RandomState::new().hash_one(0_u8));
        let path = Path::new(&std::path::absolute(std::env::temp_dir())?).join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "'{}' cannot be removed", self.0.display());
        }
    }
}
