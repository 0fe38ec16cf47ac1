//! The metadata log of one job among the coordinators: a record is durable when a majority has it.

use std::sync::Arc;

use async_trait::async_trait;
use mainstem_consensus::{Consensus, ProposeError};
use mainstem_core::cluster::state::Command;
use mainstem_core::ids::JobId;
use tokio::sync::mpsc;

use super::agreed::Agreed;
use crate::meta_log::{JobRecord, MetaLog, MetaLogError, Record};

/// The log of one job, for the coordinator that leads.
pub(crate) struct ReplicatedLog {
    job: JobId,
    consensus: Arc<Consensus<Agreed>>,
    state: JobRecord,
    /// Told when this coordinator cannot know any more whether its record was taken.
    lost: mpsc::Sender<String>,
}

impl ReplicatedLog {
    /// The log as of `state`, which was read while leading.
    pub(crate) fn new(
        job: JobId,
        consensus: Arc<Consensus<Agreed>>,
        state: JobRecord,
        lost: mpsc::Sender<String>,
    ) -> ReplicatedLog {
        ReplicatedLog { job, consensus, state, lost }
    }
}

#[async_trait]
impl MetaLog for ReplicatedLog {
    fn state(&self) -> &JobRecord {
        &self.state
    }

    /// Never returns where leadership is lost, or the majority: what became of the record is then for the next
    /// leader to find, who starts from what was agreed on. Whoever drives the job must drop it.
    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        let command = Command::Record { job: self.job.clone(), record: Box::new(record.clone()) };
        match self.consensus.propose(command).await {
            Ok(Ok(())) => {
                self.state.apply(record);
                Ok(())
            }
            Ok(Err(reason)) => Err(MetaLogError::Refused(reason)),
            Err(error @ ProposeError::Refused { .. }) => Err(MetaLogError::Unacceptable(error.to_string())),
            Err(error) => {
                let reason = match error {
                    ProposeError::NotLeader { .. } => "this coordinator leads no longer".to_owned(),
                    other => other.to_string(),
                };
                // One word is enough.
                let _ = self.lost.try_send(reason);
                std::future::pending().await
            }
        }
    }
}
