//! The log of a job in one process, with the audit trail beside it. The log is what counts: a record that has come into it
//! and not into the trail, because the process died in between, is declared by the first record of the next process, which
//! says where the log stands.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_core::audit::{Event, Trail, decisions};
use mainstem_core::cluster::state::Wish;
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, run_blocking};

use super::{JobRecord, LocalMetaLog, MetaLog, MetaLogError, Record};
use crate::audit_files::{AuditFiles, AuditOptions};

/// Who decides in one process.
const BY: &str = "mainstem run";
/// Bytes of the trail of a job.
const BYTES_MAX: u64 = 64 << 20;

/// See the module.
pub(crate) struct AuditedLog {
    job: JobId,
    log: LocalMetaLog,
    /// Absent while it is written, and for ever after that has ended by a bug.
    audit: Option<Audit>,
    clock: Arc<dyn Clock>,
}

/// The newest records, and the files of all.
struct Audit {
    trail: Trail,
    files: AuditFiles,
}

impl Audit {
    /// Adds decisions, and writes what the files lack.
    fn add(&mut self, now: Timestamp, events: Vec<Event>, sync: bool) -> io::Result<()> {
        events.into_iter().for_each(|event| self.trail.add(now, BY, event));
        let last = self.files.head()?;
        self.files.append(self.trail.since(last.seq), now)?;
        if sync { self.files.sync() } else { Ok(()) }
    }
}

impl AuditedLog {
    /// The log with its trail in a directory; begins with a record of where the log stands. Blocks.
    ///
    /// # Errors
    /// The system's, about the directory.
    pub(crate) fn open(
        job: JobId,
        log: LocalMetaLog,
        directory: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> io::Result<AuditedLog> {
        let trail = format!("job {job}");
        let mut files = AuditFiles::open(AuditOptions { directory, trail, node: 0, bytes_max: BYTES_MAX })?;
        let mut audit = Audit { trail: Trail::going_on_from(files.head()?), files };
        audit.add(clock.now(), vec![decisions::run_began(&job, log.state())], false)?;
        Ok(AuditedLog { job, log, audit: Some(audit), clock })
    }

    /// Where the disk refuses, it is tried again with the next record: the trail is no reason to stop the job.
    async fn note(&mut self, events: Vec<Event>, sync: bool) {
        let Some(mut audit) = self.audit.take() else { return };
        let now = self.clock.now();
        let work = move || {
            let written = audit.add(now, events, sync);
            (audit, written)
        };
        match run_blocking(work).await {
            Ok((audit, written)) => {
                self.audit = Some(audit);
                if let Err(error) = written {
                    tracing::error!(job = %self.job, %error, "the audit trail cannot be written; it is tried again");
                }
            }
            Err(error) => tracing::error!(job = %self.job, %error, "bug: the audit trail is written no longer"),
        }
    }
}

#[async_trait]
impl MetaLog for AuditedLog {
    fn state(&self) -> &JobRecord {
        self.log.state()
    }

    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        let events = decisions::of_record(&self.job, &record, Wish::Run);
        let ends_job = record.ends_job();
        self.log.append(record).await?;
        if !events.is_empty() {
            self.note(events, ends_job).await;
        }
        Ok(())
    }
}
