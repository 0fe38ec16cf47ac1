//! How far the reading of a server's log is behind its end, for those who look on: asks the server again and again, over a
//! connection of its own, since the stream of changes tells only how far it has come itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstem_core::lag::LagUnit;
use tokio::task::JoinSet;

use super::position::Lsn;
use super::slot;
use crate::error::ConnectorError;
use crate::lag::SplitLag;
use crate::postgres::address::Address;
use crate::postgres::client::Session;

/// Time between two looks at the end of the log.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The end of the log, also of a server that follows another.
const END: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text";

/// See the module. Dropping it ends the looking.
pub(super) struct LagWatch {
    read: Arc<AtomicU64>,
    _watching: JoinSet<()>,
}

impl LagWatch {
    /// Shows the lag from here on; nothing is read yet.
    pub(super) fn start(address: Address, shown: SplitLag) -> LagWatch {
        let read = Arc::new(AtomicU64::new(0));
        let mut watching = JoinSet::new();
        watching.spawn(watch(address, read.clone(), shown));
        LagWatch { read, _watching: watching }
    }

    /// The log is read up to here.
    pub(super) fn on_read(&self, lsn: Lsn) {
        self.read.store(lsn, Ordering::Relaxed);
    }
}

async fn watch(address: Address, read: Arc<AtomicU64>, shown: SplitLag) {
    loop {
        // Whoever reads the log has more to say about a server that does not answer.
        if let Err(error) = look(&address, &read, &shown).await {
            tracing::debug!(%error, "the lag is not known");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(address: &Address, read: &AtomicU64, shown: &SplitLag) -> Result<(), ConnectorError> {
    let session = Session::open(address).await?;
    loop {
        let row = session.client.query_one(END, &[]).await;
        let row = row.map_err(|error| session.failed("find the end of the log", &error))?;
        let end = slot::lsn(row.get(0))?;
        let read = read.load(Ordering::Relaxed);
        if read > 0 {
            shown.set(LagUnit::Bytes, end.saturating_sub(read));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
