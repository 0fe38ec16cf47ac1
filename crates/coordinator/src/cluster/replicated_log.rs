//! The metadata log of one job among the coordinators: a record is durable when a majority has it.

use async_trait::async_trait;
use mainstem_consensus::ProposeError;
use mainstem_core::cluster::state::{Command, JobEntry};
use mainstem_core::ids::JobId;
use mainstem_rt::bug;
use tokio::sync::mpsc;

use super::proposer::Proposer;
use crate::meta_log::{JobRecord, MetaLog, MetaLogError, Record};

/// The log of one job, for the coordinator that leads.
pub(crate) struct ReplicatedLog {
    job: JobId,
    proposer: Proposer,
    state: JobRecord,
    /// Told when this coordinator cannot know any more whether its record was taken.
    lost: mpsc::Sender<String>,
}

impl ReplicatedLog {
    /// The log as of `state`, which was read while leading.
    pub(crate) fn new(job: JobId, proposer: Proposer, state: JobRecord, lost: mpsc::Sender<String>) -> ReplicatedLog {
        ReplicatedLog { job, proposer, state, lost }
    }

    /// Whether the records of the job that are agreed on are those that this driver knows.
    fn is_up_to_date(&self) -> bool {
        let is_same = |entry: &JobEntry| entry.record == self.state;
        self.proposer.consensus.read_stale(|state| state.jobs.get(&self.job).is_some_and(is_same))
    }

    async fn lose(&self, reason: String) -> Result<(), MetaLogError> {
        // One word is enough.
        let _ = self.lost.try_send(reason);
        std::future::pending().await
    }
}

#[async_trait]
impl MetaLog for ReplicatedLog {
    fn state(&self) -> &JobRecord {
        &self.state
    }

    /// Never returns where leadership is lost, or the majority: what became of the record is then for the next
    /// leader to find, who starts from what was agreed on. Nor where another driver has written meanwhile: this
    /// coordinator has then led no more for a while, and leads again before this driver was dropped. Whoever drives
    /// the job must drop it.
    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        let command = Command::Record { job: self.job.clone(), record: Box::new(record.clone()) };
        if bug::is_put_back(bug::RECORDED_BY_HOPE) {
            let proposer = self.proposer.clone();
            tokio::spawn(async move { proposer.propose(command).await });
            self.state.apply(record);
            return Ok(());
        }
        match self.proposer.propose(command).await {
            Ok(Ok(())) => {
                self.state.apply(record);
                Ok(())
            }
            Ok(Err(reason)) if self.is_up_to_date() => Err(MetaLogError::Refused(reason)),
            Ok(Err(reason)) => self.lose(format!("another leader has driven the job meanwhile: {reason}")).await,
            Err(error @ ProposeError::Refused { .. }) => Err(MetaLogError::Unacceptable(error.to_string())),
            Err(error) => {
                let reason = match error {
                    ProposeError::NotLeader { .. } => "this coordinator leads no longer".to_owned(),
                    other => other.to_string(),
                };
                self.lose(reason).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use mainstem_consensus::{Consensus, Options};
    use mainstem_core::checkpoint::CheckpointOptions;
    use mainstem_core::cluster::state::Submission;
    use mainstem_core::ids::{Epoch, Generation};
    use mainstem_core::time::Timestamp;
    use mainstem_net::Transport;
    use mainstem_rt::SystemClock;

    use super::super::agreed::Agreed;
    use super::*;

    fn started(generation: u64) -> Record {
        let (restored_from, reason, at) = (Epoch(0), String::new(), Timestamp(0));
        Record::GenerationStarted { generation: Generation(generation), restored_from, reason, at }
    }

    fn submission() -> Box<Submission> {
        Box::new(Submission {
            graph_json: String::new(),
            sql_hash: String::new(),
            key_groups: 8,
            parallelism: 1,
            options: CheckpointOptions::default(),
            working_dir: String::new(),
            submitted_at: Timestamp(0),
            restore: None,
        })
    }

    #[tokio::test]
    async fn a_driver_that_others_have_overtaken_is_lost_and_its_job_does_not_fail() {
        let directory = tempfile::tempdir().unwrap();
        let members = BTreeMap::from([(1, "127.0.0.1:1".to_owned())]);
        let options = Options::new(1, directory.path(), members, "test", Transport::plain());
        let consensus = Arc::new(Consensus::<Agreed>::start(options).await.unwrap());
        let mut leadership = consensus.leadership();
        leadership.wait_for(|leadership| leadership.is_leader).await.unwrap();
        let job = JobId::new("j").unwrap();
        let submit = Command::Submit { job: job.clone(), submission: submission() };
        let proposer = Proposer { consensus: consensus.clone(), clock: Arc::new(SystemClock::default()) };
        proposer.propose(submit).await.unwrap().unwrap();

        let (lost, mut reasons) = mpsc::channel(1);
        let mut log = ReplicatedLog::new(job.clone(), proposer.clone(), JobRecord::default(), lost);
        log.append(started(1)).await.unwrap();
        let again = log.append(started(1)).await;
        assert!(matches!(again, Err(MetaLogError::Refused(_))), "its own mistake: {again:?}");

        let other = Command::Record { job, record: Box::new(started(2)) };
        proposer.propose(other).await.unwrap().unwrap();
        let reason = tokio::select! {
            appended = log.append(started(2)) => panic!("{appended:?}"),
            reason = reasons.recv() => reason.unwrap(),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nobody is told"),
        };
        assert!(reason.contains("another leader"), "{reason}");
        consensus.shutdown().await;
    }
}
