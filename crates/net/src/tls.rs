//! Mutual TLS between nodes: both sides show a certificate of one authority, and the listening side's names the host that
//! was called. What rustls says is put into words that say which side refuses what.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore, ServerConfig,
};

use crate::error::{NetError, Side};

/// The files of one node, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, followed by those between it and the authority, if any. It must be good for both ends of
    /// a connection and name the host under which others call the node.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The certificate of the authority, or several; whoever has a certificate of theirs belongs to the cluster.
    pub authority: PathBuf,
}

/// What the files come to.
pub(crate) struct TlsConfig {
    /// For connections to other nodes.
    pub(crate) client: Arc<ClientConfig>,
    /// For those of other nodes.
    pub(crate) server: Arc<ServerConfig>,
    /// For those of clients that need no certificate; one that is shown must be of the authority.
    pub(crate) for_clients: Arc<ServerConfig>,
}

impl TlsConfig {
    /// Reads the files. The provider of cryptography is named here, so the process needs no default.
    pub(crate) fn read(files: &TlsFiles) -> Result<TlsConfig, NetError> {
        let authority = Authority::read(files)?;
        let identity = Identity::read(files)?;
        let for_clients = authority.client_verifier().allow_unauthenticated();
        let for_clients = server(files, &authority, &identity, for_clients)?;
        let server = server(files, &authority, &identity, authority.client_verifier())?;
        let mismatch = |error| mismatch(files, error);
        let client = ClientConfig::builder_with_provider(authority.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(mismatch)?
            .with_webpki_verifier(authority.server_verifier(files)?)
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(mismatch)?;
        Ok(TlsConfig { client: Arc::new(client), server: Arc::new(server), for_clients: Arc::new(for_clients) })
    }
}

fn server(
    files: &TlsFiles,
    authority: &Authority,
    identity: &Identity,
    clients: ClientCertVerifierBuilder,
) -> Result<ServerConfig, NetError> {
    let clients = clients.build().map_err(|error| fault("authority", &files.authority, error.to_string()))?;
    let mismatch = |error| mismatch(files, error);
    ServerConfig::builder_with_provider(authority.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(mismatch)
}

fn mismatch(files: &TlsFiles, error: Error) -> NetError {
    fault("key", &files.key, format!("{error}; it must be the key of the certificate"))
}

/// What this node shows.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn read(files: &TlsFiles) -> Result<Identity, NetError> {
        let chain = certificates("certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read("key", &files.key)?)
            .map_err(|error| fault("key", &files.key, format!("it holds no private key in PEM form ({error})")))?;
        Ok(Identity { chain, key })
    }
}

/// Whom this node trusts.
struct Authority {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn read(files: &TlsFiles) -> Result<Authority, NetError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authority", &files.authority)? {
            roots.add(certificate).map_err(|error| fault("authority", &files.authority, error.to_string()))?;
        }
        Ok(Authority { provider: Arc::new(ring::default_provider()), roots: Arc::new(roots) })
    }

    fn client_verifier(&self) -> ClientCertVerifierBuilder {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
    }

    fn server_verifier(&self, files: &TlsFiles) -> Result<Arc<WebPkiServerVerifier>, NetError> {
        WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(|error| fault("authority", &files.authority, error.to_string()))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let pem = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| fault(what, path, format!("it is no certificate in PEM form ({error})")))?;
    if found.is_empty() {
        return Err(fault(what, path, "it holds no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, NetError> {
    std::fs::read(path).map_err(|error| fault(what, path, error.to_string()))
}

fn fault(what: &'static str, path: &Path, reason: String) -> NetError {
    NetError::TlsFile { what, path: path.display().to_string(), reason }
}

/// Says what became of TLS; `None` when the error has nothing to do with it.
pub(crate) fn explain(side: Side, peer: &str, error: &io::Error) -> Option<NetError> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let reason = match error {
        Error::InvalidCertificate(reason) => {
            format!("this node refuses the other's certificate: {}", certificate_reason(reason))
        }
        Error::NoCertificatesPresented => {
            "this node refuses the other, which shows no certificate; set its certificate and key".to_owned()
        }
        Error::AlertReceived(alert) => alert_reason(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS; turn TLS on for all nodes or for none".to_owned()
        }
        other => other.to_string(),
    };
    Some(NetError::Tls { side, peer: peer.to_owned(), reason })
}

fn certificate_reason(error: &CertificateError) -> String {
    let advice = match error {
        CertificateError::UnknownIssuer => "it is not from this cluster's authority; check both authority files",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew it, or set the clock of this host if the certificate is still good"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "set the clock of this host, or issue the certificate again"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "add the host of the node's address to the certificate as subject alternative name"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "issue it for both client and server authentication"
        }
        _ => "issue another from the cluster's authority",
    };
    format!("{error}; {advice}")
}

fn alert_reason(alert: AlertDescription) -> String {
    let what = match alert {
        AlertDescription::CertificateRequired => {
            "the other side wants a certificate of this node; set certificate and key here"
        }
        AlertDescription::UnknownCA => {
            "the other side refuses this node's certificate: it is not from the other's authority; check both authority \
             files"
        }
        AlertDescription::CertificateExpired => {
            "the other side refuses this node's certificate: expired or not yet valid by the other's clock; renew it, or \
             set the clock"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => "the other side refuses this node's certificate; its log says why",
        _ => "the other side ended the handshake; its log says why",
    };
    format!("{what} (alert {alert:?})")
}

/// Whether bytes look like the beginning of a record of TLS: kind, then version 3.x.
pub(crate) fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x14..=0x17, 0x03, ..])
}
