//! Each coordinator writes the decisions that it has applied into its own files, a moment after they were applied. What it
//! could not write waits among the newest records of the agreed state; what is not even there any more is a gap in the files.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstem_consensus::Consensus;
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, run_blocking};

use super::agreed::Agreed;
use crate::audit_files::AuditFiles;

/// How long what is written may not be durable, in milliseconds.
const SYNC_AFTER_MS: i64 = 250;
/// How often that is looked at, where nothing is decided.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Wait after the disk has refused.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Writes for the life of the process. Where the disk refuses, that is said, and tried again.
pub async fn keep_audit_files(consensus: Arc<Consensus<Agreed>>, clock: Arc<dyn Clock>, files: AuditFiles) {
    let mut applied = consensus.applied();
    let mut keeper = Keeper { consensus, synced_at: clock.monotonic(), clock, files };
    loop {
        applied.mark_unchanged();
        let written = run_blocking(move || {
            let mut keeper = keeper;
            let written = keeper.write();
            (keeper, written)
        });
        // A bug, or the end of the process; the next start goes on from what is written.
        let Ok((back, written)) = written.await else {
            tracing::error!("bug: the audit trail is written no longer; please report it");
            return;
        };
        keeper = back;
        if let Err(error) = written {
            tracing::error!(%error, "the audit trail cannot be written; it is tried again");
            tokio::time::sleep(TRY_AGAIN).await;
            continue;
        }
        let changed = tokio::time::timeout(LOOK_EVERY, applied.changed());
        if let Ok(Err(_)) = changed.await {
            return;
        }
    }
}

struct Keeper {
    consensus: Arc<Consensus<Agreed>>,
    clock: Arc<dyn Clock>,
    files: AuditFiles,
    synced_at: Timestamp,
}

impl Keeper {
    fn write(&mut self) -> io::Result<()> {
        let last = self.files.head()?;
        let parts = self.consensus.read_stale(|state| state.audit.since(last.seq));
        if !parts.is_empty() {
            self.files.append(parts, self.clock.now())?;
        }
        let now = self.clock.monotonic();
        if now.since_ms(self.synced_at) >= SYNC_AFTER_MS {
            self.files.sync()?;
            self.synced_at = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
