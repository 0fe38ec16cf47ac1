//! What the coordinators agree on: every job with what it is, what its user wants of it, and the records of its
//! metadata log. Pure: applied in the same order on each coordinator, with the same answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ended::{JOBS_MAX, forget_finished};
use super::messages::WorkerId;
use super::proposal::{Note, Proposal, Stamp};
use crate::audit::{Trail, decisions};
use crate::bug::{Bug, is_put_back};
use crate::checkpoint::CheckpointOptions;
use crate::ids::{Generation, JobId};
use crate::job_record::{
    JobEnd, JobRecord, Record, RestoreFrom, SavepointOutcome, SavepointRecord, SavepointRequest, note_savepoint,
};
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
    /// The savepoint with which it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreFrom>,
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
    /// The savepoint that the user wants and that has no outcome yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<SavepointRequest>,
    /// Attempts have numbers above this one: a job of the same name may have been removed.
    #[serde(default)]
    pub generation_floor: Generation,
    /// Counts the ends of jobs: which ended later. 0 before its first end.
    #[serde(default)]
    pub ended: u64,
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
    /// The user wants a savepoint of a running job. Said twice, it is one.
    Savepoint {
        /// The job.
        job: JobId,
        /// Which, and where.
        request: SavepointRequest,
    },
    /// A job that has ended is to be known no more, nor its checkpoints kept.
    Remove {
        /// The job.
        job: JobId,
    },
    /// The checkpoints of a job that is known no more are deleted.
    Removed {
        /// The job.
        job: JobId,
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
    /// What is no decision about a job and belongs into the audit trail.
    Notes {
        /// In the order in which they came.
        notes: Vec<Note>,
    },
}

/// The answer to a [`Command`]: taken, or why not. What is not taken changes nothing.
pub type Answer = Result<(), String>;

/// All jobs of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// By their names.
    pub jobs: BTreeMap<JobId, JobEntry>,
    /// Jobs that are known no more, with their last attempts, until their checkpoints are deleted.
    #[serde(default)]
    pub removed: BTreeMap<JobId, Generation>,
    /// The newest attempt of any job that is known no more. New jobs count from here on, so that a name that is used
    /// again never meets what workers or files remember of it.
    #[serde(default)]
    pub generation_floor: Generation,
    /// Ends of jobs so far.
    #[serde(default)]
    pub ends: u64,
    /// Who has decided all of it, when and why.
    #[serde(default)]
    pub audit: Trail,
}

impl ClusterState {
    /// Applies a decision, and notes it in the audit trail where it is taken.
    pub fn apply(&mut self, proposal: Proposal) -> Answer {
        let Proposal { stamp, command } = proposal;
        // One node has it in its log, another in its snapshot, which has no trail: it must leave no trace in either.
        if stamp == Stamp::unknown() {
            return self.apply_command(command);
        }
        self.audit.on_stamp(&stamp);
        let mut events = decisions::of_command(self, &command);
        let may_forget = matches!(&command, Command::Record { record, .. } if record.ends_job());
        let known: Vec<JobId> = if may_forget { self.jobs.keys().cloned().collect() } else { Vec::new() };
        self.apply_command(command)?;
        let gone = known.iter().filter(|job| !self.jobs.contains_key(job));
        events.extend(gone.map(|job| decisions::forgotten(job, "it has finished, as have many jobs after it")));
        let by = stamp.to_string();
        events.into_iter().for_each(|event| self.audit.add(stamp.at, &by, event));
        Ok(())
    }

    /// Applies a decision without a word about it.
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
            Command::Savepoint { job, request } => self.want_savepoint(&job, request),
            Command::Remove { job } => self.remove(&job),
            Command::Removed { job } => {
                self.removed.remove(&job);
                Ok(())
            }
            Command::Settle => Ok(()),
            Command::Record { job, record } => self.record(&job, *record),
            Command::Notes { notes } => {
                self.audit.on_notes(notes);
                Ok(())
            }
        }
    }

    /// The coordinators with a vote are these, with their addresses.
    pub fn on_members(&mut self, members: &BTreeMap<u64, String>) {
        self.audit.on_members(members);
    }

    /// The least generation of each job that may run: the one that was recorded last, or none of a job that has ended.
    #[must_use]
    pub fn fences(&self) -> BTreeMap<JobId, Generation> {
        let least = |entry: &JobEntry| {
            if entry.active { entry.record.generation } else { entry.record.generation.next() }
        };
        self.jobs.iter().map(|(job, entry)| (job.clone(), least(entry))).collect()
    }

    /// The slots of each job whose attempt a new leader may go on with.
    #[must_use]
    pub fn used_slots(&self) -> BTreeMap<JobId, Vec<WorkerId>> {
        let slots = |entry: &JobEntry| {
            let running = entry.record.adoptable().filter(|_| entry.active)?;
            Some(running.deployed.slots.iter().map(|slot| slot.worker.clone()).collect())
        };
        self.jobs.iter().filter_map(|(job, entry)| Some((job.clone(), slots(entry)?))).collect()
    }

    fn want_savepoint(&mut self, job: &JobId, request: SavepointRequest) -> Answer {
        let entry = self.active(job)?;
        let outcomes = &entry.record.savepoints;
        let known = entry.savepoint.as_ref().map(|wanted| &wanted.id).into_iter();
        if known.chain(outcomes.iter().map(|outcome| &outcome.id)).any(|id| *id == request.id) {
            return Ok(());
        }
        if let Some(wanted) = &entry.savepoint {
            let directory = &wanted.directory;
            return Err(format!("a savepoint of job '{job}' is being taken to '{directory}'; wait until it is done"));
        }
        if entry.wish != Wish::Run {
            return Err(format!(
                "job '{job}' is being stopped; its last checkpoint stays, and `submit` goes on from it"
            ));
        }
        entry.savepoint = Some(request);
        Ok(())
    }

    fn remove(&mut self, job: &JobId) -> Answer {
        let entry = self.jobs.get(job).ok_or_else(|| unknown(job))?;
        if entry.active {
            return Err(format!("job '{job}' runs; stop or cancel it first"));
        }
        self.forget(job);
        Ok(())
    }

    /// Takes a job that has ended out of what is known.
    pub(super) fn forget(&mut self, job: &JobId) {
        if let Some(entry) = self.jobs.remove(job) {
            let last = entry.record.generation;
            self.generation_floor = self.generation_floor.max(last);
            self.removed.insert(job.clone(), last);
        }
    }

    fn record(&mut self, job: &JobId, record: Record) -> Answer {
        let this_end = self.ends + 1;
        let entry = self.active(job)?;
        entry.record.check(&record)?;
        let ends = record.ends_job();
        if let Record::Savepoint { savepoint, .. } = &record {
            if entry.savepoint.as_ref().is_none_or(|wanted| wanted.id != savepoint.id) {
                return Err(format!("savepoint {} is recorded, which nobody has asked for", savepoint.id));
            }
            entry.savepoint = None;
        }
        let at = if let Record::Ended { at, .. } = &record { *at } else { Timestamp(0) };
        entry.record.apply(record);
        if ends {
            if let Some(SavepointRequest { id, .. }) = entry.savepoint.take() {
                let reason = "the job ended before it was taken".to_owned();
                let outcome = SavepointOutcome::Failed { reason };
                note_savepoint(&mut entry.record.savepoints, SavepointRecord { id, outcome, at });
            }
            (entry.active, entry.ended) = (false, this_end);
            self.ends = this_end;
            forget_finished(self);
        }
        Ok(())
    }

    fn submit(&mut self, job: JobId, submission: Submission) -> Answer {
        let Some(entry) = self.jobs.get_mut(&job) else {
            return self.begin(job, submission);
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
        if let Some(from) = &submission.restore {
            let before = entry.record.restored.as_ref().map(|restored| &restored.id);
            let wanted = entry.submission.restore.as_ref().filter(|_| entry.record.created.is_none());
            if before.or(wanted.map(|wanted| &wanted.id)) != Some(&from.id) {
                return Err(format!(
                    "job '{job}' exists already and did not begin with this savepoint; `mainstem remove {job}` first, or \
                     give the new one another name by --job-id"
                ));
            }
        }
        // The stored dataflow stays: a restore never plans again.
        entry.submission.parallelism = submission.parallelism;
        entry.submission.options = submission.options;
        entry.wish = Wish::Run;
        entry.active = true;
        entry.submissions += 1;
        Ok(())
    }

    fn begin(&mut self, job: JobId, submission: Submission) -> Answer {
        if self.removed.contains_key(&job) {
            return Err(format!(
                "the checkpoints of the job '{job}' of before are being deleted; try again in a moment"
            ));
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err(format!(
                "the cluster knows {JOBS_MAX} jobs, and no more; remove some that have ended by `mainstem remove JOB`"
            ));
        }
        let entry = JobEntry {
            submission,
            wish: Wish::Run,
            active: true,
            submissions: 1,
            record: JobRecord::default(),
            savepoint: None,
            generation_floor: self.generation_floor,
            ended: 0,
        };
        self.jobs.insert(job, entry);
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
mod tests;
