//! A connection to the servers, and what is asked of the stream over it. Called by source and sink. The client connects
//! again by itself; who loses patience drops it and opens another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self};
use async_nats::{Client, ConnectOptions, Event};

use crate::error::{ConnectorError, ErrorKind};

use super::address::{Address, Login};
use super::error::{connect_error, consumer_error, stream_error};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long one answer may take.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Acknowledgements that may be waited for at once; what is published waits for room.
const UNANSWERED_MAX: usize = 4_096;
/// How long a server keeps a consumer that nobody asks for messages. It is made anew where it is gone.
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) address: Arc<Address>,
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// What the server last complained of.
    heard: Arc<Mutex<Option<String>>>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: Arc<Address>) -> Result<Connection, ConnectorError> {
        // The client asks for the process's provider, and another crate may have brought a second one.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let heard = Arc::new(Mutex::new(None));
        let options = options(&address, heard.clone())?;
        let client = options.connect(&address.servers[..]).await.map_err(|error| connect_error(&address, &error))?;
        let jetstream =
            ContextBuilder::new().timeout(ANSWER_MAX).max_ack_inflight(UNANSWERED_MAX).build(client.clone());
        Ok(Connection { address, client, jetstream, heard })
    }

    /// Whether the client has a server just now.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What the server complained of since it was last asked for.
    pub(super) fn heard(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The stream as it is now. `what` is what it is needed for, after "cannot".
    pub(super) async fn stream(&self, what: &str) -> Result<Info, ConnectorError> {
        let found = self.jetstream.get_stream(&self.address.stream).await;
        let stream = found.map_err(|error| stream_error(&self.address, what, &error, self.heard()))?;
        Ok(stream.cached_info().clone())
    }

    /// A consumer that the server forgets, from a place of the stream on.
    pub(super) async fn consumer(
        &self,
        what: &str,
        from: DeliverPolicy,
        filter: Option<&str>,
        headers_only: bool,
    ) -> Result<Consumer<PullConfig>, ConnectorError> {
        let config = PullConfig {
            description: Some(format!("mainstem, table {}", self.address.table)),
            deliver_policy: from,
            // How far it is read stands in checkpoints.
            ack_policy: AckPolicy::None,
            filter_subject: filter.unwrap_or_default().to_owned(),
            inactive_threshold: CONSUMER_IDLE_MAX,
            memory_storage: true,
            num_replicas: 1,
            headers_only,
            ..PullConfig::default()
        };
        let made = self.jetstream.create_consumer_on_stream(config, &self.address.stream).await;
        made.map_err(|error| consumer_error(&self.address, what, &error, self.heard()))
    }
}

/// When a stream was created, in nanoseconds since 1970: tells it from another of the same name.
pub(super) fn created(info: &Info) -> i64 {
    i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

fn options(address: &Address, heard: Arc<Mutex<Option<String>>>) -> Result<ConnectOptions, ConnectorError> {
    let mut options = ConnectOptions::new()
        .name("mainstem")
        .connection_timeout(CONNECT_MAX)
        .request_timeout(Some(ANSWER_MAX))
        .reconnect_delay_callback(|tries| Duration::from_millis(100 * (tries as u64).min(10)))
        .event_callback(move |event| {
            let complaint = match event {
                Event::ServerError(error) => Some(error.to_string()),
                Event::ClientError(error) => Some(error.to_string()),
                _ => None,
            };
            if complaint.is_some() {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
            }
            async {}
        });
    options = match &address.login {
        Login::None => options,
        Login::Password { user, password } => options.user_and_password(user.clone(), password.clone()),
        Login::Token(token) => options.token(token.clone()),
        Login::Key(seed) => options.nkey(seed.clone()),
        Login::Credentials(text) => options.credentials(text).map_err(|_| {
            // What is wrong with them is not repeated: they are a secret.
            ConnectorError::new(
                ErrorKind::External,
                format!("option 'credentials' of table '{}' holds no credentials: give the content of a file that nsc or the server's operator made, as '${{file:/path/user.creds}}'", address.table),
            )
        })?,
    };
    let tls = &address.tls;
    options = options.require_tls(tls.required || tls.ca_file.is_some() || tls.identity.is_some());
    if let Some(file) = &tls.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &tls.identity {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}
