//! A connection to the server, and what went wrong with it in the words of the person who has to mend it.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind as RedisErrorKind, InfoDict, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, cmd,
};

use crate::error::{ConnectorError, ErrorKind};

use super::options::{Address, RedisOptions};

/// An open connection.
pub(super) struct Session {
    pub(super) connection: MultiplexedConnection,
    /// The server as messages show it.
    pub(super) shown: String,
    request_timeout: Duration,
}

impl Session {
    /// Connects, and makes sure that the server is one that can be written in one step.
    pub(super) async fn open(options: &RedisOptions) -> Result<Session, ConnectorError> {
        // Others may have chosen it before, which is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let address = options.address()?;
        let shown = address.shown();
        let client = client(options, address)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.request_timeout));
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = connected.map_err(|error| failed(&shown, "connect", &error, options.connect_timeout))?;
        let mut session = Session { connection, shown, request_timeout: options.request_timeout };
        session.check().await?;
        Ok(session)
    }

    /// Refuses a cluster: its keys lie on several nodes, none of which can write all of an epoch in one step.
    async fn check(&mut self) -> Result<(), ConnectorError> {
        let asked = cmd("INFO").arg("cluster").query_async::<InfoDict>(&mut self.connection).await;
        let info = asked.map_err(|error| self.failed("ask what server this is", &error))?;
        if info.get::<u8>("cluster_enabled") != Some(1) {
            return Ok(());
        }
        let message = format!(
            "the Redis server at {} is part of a cluster, whose keys lie on several nodes; the marker of an epoch could not \
             be written together with its rows. Use a server that is not (with replicas, if it is to survive the loss of one)",
            self.shown
        );
        Err(ConnectorError::new(ErrorKind::External, message))
    }

    /// An error of this connection. `action` goes after "cannot".
    pub(super) fn failed(&self, action: &str, error: &RedisError) -> ConnectorError {
        failed(&self.shown, action, error, self.request_timeout)
    }
}

fn client(options: &RedisOptions, address: &Address) -> Result<Client, ConnectorError> {
    let host = address.host.clone();
    let place = match address.tls {
        false => ConnectionAddr::Tcp(host, address.port),
        true => ConnectionAddr::TcpTls { host, port: address.port, insecure: false, tls_params: None },
    };
    let mut who = RedisConnectionInfo::default().set_db(address.database);
    if let Some(username) = &address.username {
        who = who.set_username(username);
    }
    if let Some(password) = &address.password {
        who = who.set_password(password);
    }
    let refused = |error: RedisError| ConnectorError::option(format!("the Redis client cannot be set up: {error}"));
    let info = place.into_connection_info().map_err(refused)?.set_redis_settings(who);
    let Some(path) = &options.ca_file else { return Client::open(info).map_err(refused) };
    let pem = std::fs::read(path).map_err(|error| ConnectorError::io("read", path.display(), &error))?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) }).map_err(|error| {
        ConnectorError::option(format!("'tls.ca-file' '{}' cannot be used: {error}; check the file", path.display()))
    })
}

fn failed(shown: &str, action: &str, error: &RedisError, timeout: Duration) -> ConnectorError {
    let (kind, advice) = match error.kind() {
        RedisErrorKind::Io if error.is_timeout() => (ErrorKind::Transient, format!("no answer within {timeout:?}")),
        RedisErrorKind::Io => (ErrorKind::Transient, "check that the server runs and can be reached".to_owned()),
        RedisErrorKind::AuthenticationFailed => (ErrorKind::External, "check 'username' and 'password'".to_owned()),
        RedisErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::NotBusy,
        ) => (ErrorKind::Transient, "it may pass".to_owned()),
        RedisErrorKind::Server(ServerErrorKind::ReadOnly) => {
            (ErrorKind::Transient, "the server is a replica; give the address of the primary".to_owned())
        }
        RedisErrorKind::Server(ServerErrorKind::NoPerm) => {
            let needed = "the user needs the commands evalsha, script|load, info, get, set, hset, hdel, del, pexpire";
            (ErrorKind::External, format!("{needed} on the keys of the table and on mainstem:commits:*"))
        }
        _ => match error.code() {
            Some("OOM") => (ErrorKind::Transient, "the server's memory is full ('maxmemory')".to_owned()),
            Some("MISCONF" | "NOREPLICAS") => (ErrorKind::Transient, "the server refuses to write for now".to_owned()),
            Some("WRONGTYPE") => (
                ErrorKind::External,
                "a key holds something else; choose another 'key-pattern', or delete it".to_owned(),
            ),
            Some("NOAUTH" | "WRONGPASS") => (ErrorKind::External, "check 'username' and 'password'".to_owned()),
            _ if error.is_connection_dropped() || error.is_timeout() => {
                (ErrorKind::Transient, "check that the server runs and can be reached".to_owned())
            }
            _ => (ErrorKind::External, "see the server's message".to_owned()),
        },
    };
    ConnectorError::new(kind, format!("cannot {action} (Redis at {shown}): {error}; {advice}"))
}
