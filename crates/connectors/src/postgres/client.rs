//! A connection, with the settings under which values are read and written. Dropping it closes the connection, which ends
//! a transaction that is open.

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config};

use super::address::Address;
use super::error::{connect_error, statement_error};
use super::tls::{SslMode, Tls};
use crate::error::{ConnectorError, ErrorKind};

/// Notations that do not depend on how the server is set up, and bounds: a client that vanishes in the middle of a
/// transaction must not keep its locks.
const SETTINGS: &str = "SET DateStyle TO ISO; SET TimeZone TO 'UTC'; SET bytea_output TO hex; SET IntervalStyle TO postgres; \
                        SET extra_float_digits TO 1; SET standard_conforming_strings TO on; \
                        SET idle_in_transaction_session_timeout TO '60s'; SET lock_timeout TO '30s'; \
                        SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 10; SET tcp_keepalives_count TO 3";

/// See the module.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) address: Address,
    /// Moves bytes; ends with the session.
    _connection: JoinSet<()>,
}

impl Session {
    pub(super) async fn open(address: &Address) -> Result<Session, ConnectorError> {
        let opened = tokio::time::timeout(address.connect_timeout, Session::connect(address)).await;
        opened.map_err(|_| {
            let message = format!(
                "cannot connect to PostgreSQL at {}: no answer within {} s; check host and port, and that the server runs \
                 and can be reached from here",
                address.shown(),
                address.connect_timeout.as_secs()
            );
            ConnectorError::new(ErrorKind::Transient, message)
        })?
    }

    async fn connect(address: &Address) -> Result<Session, ConnectorError> {
        let mut config = Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .dbname(&address.database)
            .user(&address.user)
            .application_name("mainstem")
            .ssl_mode(address.ssl_mode.of_client())
            .keepalives_idle(std::time::Duration::from_secs(30))
            .tcp_user_timeout(std::time::Duration::from_secs(30));
        if let Some(password) = &address.password {
            config.password(password);
        }
        let mut connection = JoinSet::new();
        let failed = |error: tokio_postgres::Error| connect_error(address, &error);
        let client = if address.ssl_mode == SslMode::Disable {
            let (client, io) = config.connect(tokio_postgres::NoTls).await.map_err(failed)?;
            connection.spawn(run(io));
            client
        } else {
            let tls = Tls::new(address.ssl_mode, address.ssl_root.as_deref())?;
            let (client, io) = config.connect(tls).await.map_err(failed)?;
            connection.spawn(run(io));
            client
        };
        let session = Session { client, address: address.clone(), _connection: connection };
        session.execute("prepare the connection", SETTINGS).await?;
        Ok(session)
    }

    /// Runs statements without parameters. `action` goes after "cannot".
    pub(super) async fn execute(&self, action: &str, sql: &str) -> Result<(), ConnectorError> {
        self.client.batch_execute(sql).await.map_err(|error| self.failed(action, &error))
    }

    /// The error of a statement.
    pub(super) fn failed(&self, action: &str, error: &tokio_postgres::Error) -> ConnectorError {
        statement_error(&self.address, action, error)
    }
}

async fn run(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    // Whoever waits for an answer is told as well.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection to PostgreSQL ended");
    }
}
