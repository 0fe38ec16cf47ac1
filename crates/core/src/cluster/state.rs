//! What the coordinators agree on: every job with what it is, what its user wants of it, and the records of its
//! metadata log. Pure: applied in the same order on each coordinator, with the same answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bug::{Bug, is_put_back};
use crate::checkpoint::CheckpointOptions;
use crate::ids::{Generation, JobId};
use crate::job_record::{JobEnd, JobRecord, Record};
use crate::time::Timestamp;

/// What a user hands in to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The dataflow, as the planner made it.
    pub graph_json: String,
    /// Of the SQL text.
    pub sql_hash: String,
    /// Key groups; fixed for the life of the job.
    pub key_groups: u16,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// When checkpoints are taken.
    pub options: CheckpointOptions,
    /// Where relative paths of the user start.
    pub working_dir: String,
    /// When it was handed in.
    pub submitted_at: Timestamp,
}

/// What the user wants of a job that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It shall run until it has finished.
    #[default]
    Run,
    /// It shall take a last checkpoint and stop.
    Stop,
    /// It shall stop at once.
    Cancel,
}

/// A job, as the coordinators know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEntry {
    /// What runs.
    pub submission: Submission,
    /// What the user wants.
    pub wish: Wish,
    /// Whether a coordinator has to drive it: from its submission until it has ended.
    pub active: bool,
    /// How often it was submitted.
    pub submissions: u64,
    /// What its records add up to.
    pub record: JobRecord,
}

/// A decision to agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A job is to run: a new one, or one that has stopped or failed and goes on.
    Submit {
        /// The job.
        job: JobId,
        /// What it is.
        submission: Box<Submission>,
    },
    /// The user wants something of a running job.
    Wish {
        /// The job.
        job: JobId,
        /// What.
        wish: Wish,
    },
    /// The job is to run at another parallelism.
    Rescale {
        /// The job.
        job: JobId,
        /// The new one.
        parallelism: u32,
    },
    /// Changes nothing. Once it is applied, so is everything that this coordinator has proposed before.
    Settle,
    /// A record of the job's metadata log.
    Record {
        /// The job.
        job: JobId,
        /// The record.
        record: Box<Record>,
    },
}

/// The answer to a [`Command`]: taken, or why not. What is not taken changes nothing.
pub type Answer = Result<(), String>;

/// All jobs of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// By their names.
    pub jobs: BTreeMap<JobId, JobEntry>,
}

impl ClusterState {
    /// Applies a decision.
    pub fn apply_command(&mut self, command: Command) -> Answer {
        match command {
            Command::Submit { job, submission } => self.submit(job, *submission),
            Command::Wish { job, wish } => {
                let entry = self.active(&job)?;
                // A cancel is stronger than a stop, and neither is taken back.
                entry.wish = match (entry.wish, wish) {
                    (_, wish) if is_put_back(Bug::WishOverwritten) => wish,
                    (Wish::Cancel, _) | (_, Wish::Cancel) => Wish::Cancel,
                    (Wish::Stop, _) | (_, Wish::Stop) => Wish::Stop,
                    (Wish::Run, Wish::Run) => Wish::Run,
                };
                Ok(())
            }
            Command::Rescale { job, parallelism } => {
                let entry = self.active(&job)?;
                if parallelism == 0 || parallelism > u32::from(entry.submission.key_groups) {
                    return Err(format!(
                        "parallelism {parallelism} is not between 1 and the job's {} key groups",
                        entry.submission.key_groups
                    ));
                }
                entry.submission.parallelism = parallelism;
                Ok(())
            }
            Command::Settle => Ok(()),
            Command::Record { job, record } => {
                let entry = self.active(&job)?;
                entry.record.check(&record)?;
                entry.active &= !matches!(*record, Record::Ended { .. });
                entry.record.apply(*record);
                Ok(())
            }
        }
    }

    /// The least generation of each job that may run: the one that was recorded last, or none of a job that has ended.
    #[must_use]
    pub fn fences(&self) -> BTreeMap<JobId, Generation> {
        let least = |entry: &JobEntry| {
            if entry.active { entry.record.generation } else { entry.record.generation.next() }
        };
        self.jobs.iter().map(|(job, entry)| (job.clone(), least(entry))).collect()
    }

    fn submit(&mut self, job: JobId, submission: Submission) -> Answer {
        let Some(entry) = self.jobs.get_mut(&job) else {
            let record = JobRecord::default();
            self.jobs.insert(job, JobEntry { submission, wish: Wish::Run, active: true, submissions: 1, record });
            return Ok(());
        };
        if entry.active {
            return Err(format!(
                "job '{job}' runs already; stop it first, or give the new one another name by --job-id"
            ));
        }
        if entry.record.end == Some(JobEnd::Finished) && !is_put_back(Bug::FinishedJobRunsAgain) {
            return Err(format!("job '{job}' has finished before; give the new one another name by --job-id"));
        }
        if entry.submission.sql_hash != submission.sql_hash && entry.submission.graph_json != submission.graph_json {
            return Err(format!("job '{job}' has state of another query; give the new one another name by --job-id"));
        }
        // The stored dataflow stays: a restore never plans again.
        entry.submission.parallelism = submission.parallelism;
        entry.submission.options = submission.options;
        entry.wish = Wish::Run;
        entry.active = true;
        entry.submissions += 1;
        Ok(())
    }

    fn active(&mut self, job: &JobId) -> Result<&mut JobEntry, String> {
        let entry = self.jobs.get_mut(job).ok_or_else(|| unknown(job))?;
        if entry.active { Ok(entry) } else { Err(format!("job '{job}' does not run")) }
    }
}

fn unknown(job: &JobId) -> String {
    format!("there is no job '{job}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn job() -> JobId {
        JobId::new("j").unwrap()
    }

    fn submit(state: &mut ClusterState, hash: &str, parallelism: u32) -> Answer {
        let submission = Submission {
            graph_json: format!("graph of {hash}"),
            sql_hash: hash.to_owned(),
            key_groups: 8,
            parallelism,
            options: CheckpointOptions::default(),
            working_dir: "/".to_owned(),
            submitted_at: Timestamp(1),
        };
        state.apply_command(Command::Submit { job: job(), submission: Box::new(submission) })
    }

    fn record(state: &mut ClusterState, record: Record) -> Answer {
        state.apply_command(Command::Record { job: job(), record: Box::new(record) })
    }

    fn started(generation: u64) -> Record {
        let (restored_from, reason, at) = (Epoch(0), String::new(), Timestamp(2));
        Record::GenerationStarted { generation: Generation(generation), restored_from, reason, at }
    }

    fn ended(generation: u64, end: JobEnd) -> Record {
        Record::Ended { generation: Generation(generation), end, at: Timestamp(3) }
    }

    #[test]
    fn a_job_runs_once_at_a_time_and_goes_on_with_the_same_query_only() {
        let mut state = ClusterState::default();
        submit(&mut state, "a", 2).unwrap();
        assert!(submit(&mut state, "a", 2).unwrap_err().contains("runs already"));
        record(&mut state, started(1)).unwrap();
        record(&mut state, ended(1, JobEnd::Stopped)).unwrap();
        assert!(record(&mut state, started(2)).unwrap_err().contains("does not run"), "a driver of before");
        assert!(submit(&mut state, "b", 2).unwrap_err().contains("another query"));
        submit(&mut state, "a", 4).unwrap();
        assert_eq!((state.jobs[&job()].submission.parallelism, state.jobs[&job()].active), (4, true));
        record(&mut state, started(2)).unwrap();
        assert!(record(&mut state, ended(1, JobEnd::Stopped)).is_err(), "of an older attempt");
        record(&mut state, ended(2, JobEnd::Finished)).unwrap();
        assert!(submit(&mut state, "a", 2).unwrap_err().contains("finished"));
    }

    #[test]
    fn of_a_job_that_runs_the_newest_attempt_may_run_and_of_one_that_has_ended_none() {
        let mut state = ClusterState::default();
        submit(&mut state, "a", 2).unwrap();
        record(&mut state, started(3)).unwrap();
        assert_eq!(state.fences(), BTreeMap::from([(job(), Generation(3))]));
        record(&mut state, ended(3, JobEnd::Stopped)).unwrap();
        assert_eq!(state.fences(), BTreeMap::from([(job(), Generation(4))]));
    }

    #[test]
    fn records_are_checked_where_they_are_applied() {
        let mut state = ClusterState::default();
        assert!(record(&mut state, started(1)).unwrap_err().contains("no job"));
        submit(&mut state, "a", 2).unwrap();
        record(&mut state, started(2)).unwrap();
        // What a leader of before has proposed arrives late.
        assert!(record(&mut state, started(1)).is_err());
        assert!(record(&mut state, Record::EpochCommitted { generation: Generation(1), epoch: Epoch(1) }).is_err());
    }

    #[test]
    fn a_cancel_outdoes_a_stop_and_only_a_running_job_is_asked() {
        let mut state = ClusterState::default();
        let wish = |state: &mut ClusterState, wish| state.apply_command(Command::Wish { job: job(), wish });
        assert!(wish(&mut state, Wish::Stop).is_err());
        submit(&mut state, "a", 2).unwrap();
        wish(&mut state, Wish::Cancel).unwrap();
        wish(&mut state, Wish::Stop).unwrap();
        assert_eq!(state.jobs[&job()].wish, Wish::Cancel);
        record(&mut state, started(1)).unwrap();
        record(&mut state, ended(1, JobEnd::Stopped)).unwrap();
        assert!(wish(&mut state, Wish::Stop).unwrap_err().contains("does not run"));
        submit(&mut state, "a", 2).unwrap();
        assert_eq!(state.jobs[&job()].wish, Wish::Run);
        let rescale = |parallelism| Command::Rescale { job: job(), parallelism };
        assert!(state.apply_command(rescale(9)).unwrap_err().contains("key groups"));
        state.apply_command(rescale(3)).unwrap();
    }
}
