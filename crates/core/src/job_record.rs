//! The records of a job's metadata log and what they add up to. Pure: checked before they are written, applied
//! after. The checks are the last line of I1 to I3: whatever a confused caller asks for, a completed epoch is
//! never overtaken, published twice, or written by an older attempt.

mod running;
mod savepoint;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adoption::Decision;
use crate::bug::{Bug, is_put_back};
use crate::checkpoint::End;
use crate::cluster::messages::OperatorCounters;
use crate::ids::{Epoch, Generation, OperatorId};
use crate::protocol::{Barrier, Committable, ManifestRef, SourceSplit};
use crate::splits::SourceEpoch;
use crate::time::Timestamp;

pub use self::running::{DeployedAttempt, RunningAttempt};
pub use self::savepoint::{
    JobRestored, RestoreFrom, RestoredFrom, SavepointOutcome, SavepointRecord, SavepointRequest, note_savepoint,
};

/// What a job is; fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCreated {
    /// Its dataflow, as the planner made it.
    pub graph_json: String,
    /// Of the SQL text.
    pub sql_hash: String,
    /// Its key groups.
    pub key_groups: u16,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which.
    pub epoch: Epoch,
    /// The attempt that took it.
    pub generation: Generation,
    /// Its manifest.
    pub manifest: ManifestRef,
    /// What the clock said within the epoch.
    pub epoch_now: Timestamp,
    /// What it says in the next one.
    pub next_epoch_now: Timestamp,
    /// What the epoch did to each source: from this it can be run again over the same ranges when its own
    /// checkpoint is unreadable.
    pub sources: BTreeMap<OperatorId, SourceEpoch>,
    /// Output that waits for its commit, by sink. Here and not only in the manifest, so that a damaged
    /// manifest cannot keep a complete epoch from being published. Dropped when the epoch is committed.
    pub committables: BTreeMap<OperatorId, Vec<Committable>>,
    /// Set where the job ended with this checkpoint.
    pub end: Option<End>,
    /// Bytes of state that the checkpoint refers to.
    pub state_bytes: u64,
    /// Whether its barrier has overtaken anything. Which output the epoch had is then a matter of chance, so it cannot be
    /// run again.
    #[serde(default)]
    pub unaligned: bool,
    /// When it became complete.
    pub completed_at: Timestamp,
}

impl EpochRecord {
    /// The barrier that ended the epoch.
    #[must_use]
    pub fn barrier(&self) -> Barrier {
        Barrier { epoch: self.epoch, next_epoch_now: self.next_epoch_now }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEnd {
    /// All input read, all output visible. It never runs again.
    Finished,
    /// On request; the next start goes on.
    Stopped,
    /// With a cause; the next start tries again.
    Failed {
        /// The cause.
        reason: String,
    },
}

/// A fact about the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The job exists.
    JobCreated(JobCreated),
    /// An attempt begins; every earlier one is fenced.
    GenerationStarted {
        /// The attempt.
        generation: Generation,
        /// The checkpoint that it starts from; 0: from nothing.
        restored_from: Epoch,
        /// Why there is a new attempt.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// What a source consists of, found at the first start. Durable before anything of it is read, so that an
    /// attempt that starts over before the first checkpoint reads the same.
    SplitsDiscovered {
        /// The attempt that found it.
        generation: Generation,
        /// The source.
        operator: OperatorId,
        /// Its splits.
        splits: Vec<SourceSplit>,
    },
    /// Every subtask of an attempt runs, on workers that outlive who drives it: another coordinator may go on with it.
    AttemptDeployed(DeployedAttempt),
    /// What was decided about such an attempt, before it is carried out.
    Decided {
        /// The attempt.
        generation: Generation,
        /// The decision.
        decision: Decision,
    },
    /// Another coordinator goes on with such an attempt.
    AttemptAdopted {
        /// The attempt.
        generation: Generation,
        /// When.
        at: Timestamp,
    },
    /// A checkpoint is complete: its output will be published whatever happens.
    EpochComplete(EpochRecord),
    /// The output of an epoch is visible.
    EpochCommitted {
        /// The attempt that published it.
        generation: Generation,
        /// The epoch.
        epoch: Epoch,
    },
    /// Checkpoints that can no longer be restored.
    EpochsRetired {
        /// The attempt that retires them.
        generation: Generation,
        /// The epochs.
        epochs: Vec<Epoch>,
    },
    /// The job exists, and begins where a savepoint was taken.
    JobRestored(Box<JobRestored>),
    /// What became of a savepoint that was asked for.
    Savepoint {
        /// The attempt that took it, or did not.
        generation: Generation,
        /// What became of it.
        savepoint: SavepointRecord,
        /// Set where the job has ended with it.
        end: Option<JobEnd>,
        /// As in `Ended`, where it has ended.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        counters: BTreeMap<OperatorId, OperatorCounters>,
    },
    /// The job has ended.
    Ended {
        /// The attempt that ended it; 0 where there was none, or where an older version wrote the record.
        #[serde(default)]
        generation: Generation,
        /// How.
        end: JobEnd,
        /// When.
        at: Timestamp,
        /// What the last attempt had counted.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        counters: BTreeMap<OperatorId, OperatorCounters>,
    },
    /// All that the records before it add up to; the first record of a log that was compacted.
    Snapshot(Box<JobRecord>),
}

impl Record {
    /// Whether the job ends with it.
    #[must_use]
    pub fn ends_job(&self) -> bool {
        matches!(self, Record::Ended { .. } | Record::Savepoint { end: Some(_), .. })
    }
}

/// What the records of a job add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// What the job is; none before it was created.
    pub created: Option<JobCreated>,
    /// The newest attempt; 0 before the first.
    pub generation: Generation,
    /// What was found of each source at the first start.
    pub initial_splits: BTreeMap<OperatorId, Vec<SourceSplit>>,
    /// Complete checkpoints that are not retired.
    pub epochs: BTreeMap<Epoch, EpochRecord>,
    /// The newest epoch whose output is visible; 0 before the first.
    pub committed: Epoch,
    /// How the last attempt ended; none while one runs or after a crash.
    pub end: Option<JobEnd>,
    /// What the last attempt had counted when the job ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<OperatorId, OperatorCounters>,
    /// The savepoint with which the job began, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoredFrom>,
    /// The newest outcomes of savepoints that were asked for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub savepoints: Vec<SavepointRecord>,
    /// The newest attempt as a successor needs it; none where nobody could go on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningAttempt>,
}

impl JobRecord {
    /// The newest complete epoch; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> Epoch {
        // Retiring never takes the newest one.
        self.epochs.keys().next_back().copied().unwrap_or_default()
    }

    /// Whether every epoch behind the given one is recorded, so that all of them can be run again.
    #[must_use]
    pub fn can_run_again_after(&self, epoch: Epoch) -> bool {
        (epoch.0 + 1..).zip(self.epochs.range(epoch.next()..)).all(|(expected, (found, _))| found.0 == expected)
    }

    /// The newest attempt, where another coordinator may go on with it: not while it still runs recorded epochs again.
    #[must_use]
    pub fn adoptable(&self) -> Option<&RunningAttempt> {
        let running = self.running.as_ref()?;
        let is_again = |epoch: Epoch| self.epochs.get(&epoch).is_some_and(|record| record.generation < self.generation);
        (!running.deployed.replay_until.is_some_and(is_again)).then_some(running)
    }

    /// Whether the record may follow.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, record: &Record) -> Result<(), String> {
        let current = |generation: &Generation| {
            let fenced = || format!("attempt {generation} writes while attempt {} runs", self.generation);
            let newest = *generation == self.generation || is_put_back(Bug::OlderDriverWrites);
            if newest { Ok(()) } else { Err(fenced()) }
        };
        match record {
            Record::JobCreated(_) | Record::JobRestored(_) if self.created.is_some() => {
                Err("the job exists already".to_owned())
            }
            Record::JobRestored(_) if self.generation != Generation(0) || self.newest() != Epoch(0) => {
                Err("a job that has run is restored from a savepoint".to_owned())
            }
            Record::JobRestored(restored) if restored.from.base < restored.epoch.generation => {
                Err("attempts would be counted from below those of the savepoint".to_owned())
            }
            Record::JobCreated(_) | Record::JobRestored(_) => Ok(()),
            Record::GenerationStarted { generation, .. } if *generation <= self.generation => {
                Err(format!("attempt {generation} starts after attempt {}", self.generation))
            }
            Record::GenerationStarted { .. }
                if self.end == Some(JobEnd::Finished) && !is_put_back(Bug::FinishedJobRunsAgain) =>
            {
                Err("a finished job starts again".to_owned())
            }
            Record::GenerationStarted { .. } => Ok(()),
            Record::SplitsDiscovered { generation, operator, .. } => {
                current(generation)?;
                let twice = self.initial_splits.contains_key(operator);
                if twice { Err(format!("the splits of {operator} are recorded twice")) } else { Ok(()) }
            }
            Record::AttemptDeployed(deployed) => {
                current(&deployed.generation)?;
                let twice = self.running.is_some();
                if twice { Err(format!("attempt {} is deployed twice", self.generation)) } else { Ok(()) }
            }
            Record::Decided { generation, decision } => {
                current(generation)?;
                self.expect_running()?.journal.check(decision)
            }
            Record::AttemptAdopted { generation, .. } => {
                current(generation)?;
                self.expect_running().map(|_| ())
            }
            Record::EpochComplete(epoch) => {
                current(&epoch.generation)?;
                self.check_complete(epoch)
            }
            Record::EpochCommitted { generation, epoch } => {
                current(generation)?;
                if *epoch != self.committed.next() {
                    return Err(format!("epoch {epoch} is published after epoch {}", self.committed));
                }
                let complete = self.epochs.contains_key(epoch);
                if complete { Ok(()) } else { Err(format!("epoch {epoch} is published and not complete")) }
            }
            Record::EpochsRetired { generation, epochs } => {
                current(generation)?;
                let needed = epochs.iter().find(|epoch| **epoch > self.committed || **epoch >= self.newest());
                needed.map_or(Ok(()), |epoch| Err(format!("epoch {epoch} is retired while it is needed")))
            }
            Record::Savepoint { generation, savepoint, .. } => {
                current(generation)?;
                match savepoint.epoch() {
                    Some(epoch) if epoch > self.committed => {
                        Err(format!("savepoint {} is of epoch {epoch}, which is not published", savepoint.id))
                    }
                    _ => Ok(()),
                }
            }
            Record::Ended { generation: Generation(0), .. } => Ok(()),
            Record::Ended { generation, .. } => current(generation),
            Record::Snapshot(_) if *self == JobRecord::default() => Ok(()),
            Record::Snapshot(_) => Err("a snapshot that is not the first record".to_owned()),
        }
    }

    /// Adds a record that was checked.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::JobCreated(created) => self.created = Some(created),
            Record::GenerationStarted { generation, .. } => {
                self.generation = generation;
                self.end = None;
                self.counters.clear();
                self.running = None;
            }
            Record::SplitsDiscovered { operator, splits, .. } => {
                self.initial_splits.insert(operator, splits);
            }
            Record::AttemptDeployed(deployed) => self.running = Some(RunningAttempt::new(deployed)),
            Record::Decided { decision, .. } => {
                if let Some(running) = &mut self.running {
                    running.journal.record(decision);
                }
            }
            Record::AttemptAdopted { .. } => {
                if let Some(running) = &mut self.running {
                    running.adoptions += 1;
                }
            }
            Record::EpochComplete(epoch) => {
                if let Some(running) = &mut self.running {
                    running.journal.complete(epoch.epoch, &epoch.sources);
                }
                self.epochs.insert(epoch.epoch, epoch);
            }
            Record::EpochCommitted { epoch, .. } => {
                self.committed = epoch;
                if let Some(record) = self.epochs.get_mut(&epoch) {
                    record.committables.clear();
                }
            }
            Record::EpochsRetired { epochs, .. } => {
                for epoch in epochs {
                    self.epochs.remove(&epoch);
                }
            }
            Record::JobRestored(restored) => {
                let JobRestored { created, epoch, from } = *restored;
                self.created = Some(created);
                self.generation = from.base;
                self.committed = epoch.epoch;
                self.epochs.insert(epoch.epoch, epoch);
                self.restored = Some(from);
            }
            Record::Savepoint { savepoint, end, counters, .. } => {
                note_savepoint(&mut self.savepoints, savepoint);
                if let Some(end) = end {
                    self.end_with(end, counters);
                }
            }
            Record::Ended { end, counters, .. } => self.end_with(end, counters),
            Record::Snapshot(snapshot) => *self = *snapshot,
        }
    }

    fn end_with(&mut self, end: JobEnd, counters: BTreeMap<OperatorId, OperatorCounters>) {
        self.end = Some(end);
        self.counters = counters;
        self.running = None;
    }

    fn expect_running(&self) -> Result<&RunningAttempt, String> {
        self.running.as_ref().ok_or_else(|| format!("attempt {} is not known to run", self.generation))
    }

    /// A new epoch follows the newest one; one that exists is replayed by a later attempt, published already
    /// and with nothing to publish.
    fn check_complete(&self, record: &EpochRecord) -> Result<(), String> {
        let epoch = record.epoch;
        if epoch == self.newest().next() {
            return Ok(());
        }
        match self.epochs.get(&epoch) {
            Some(old) if old.generation < record.generation && epoch <= self.committed => {
                let silent = record.committables.is_empty() || is_put_back(Bug::ReplayPublishedAgain);
                if silent { Ok(()) } else { Err(format!("epoch {epoch} is replayed and would be published again")) }
            }
            Some(_) => Err(format!("epoch {epoch} is complete already")),
            None => Err(format!("epoch {epoch} is complete after epoch {}", self.newest())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SavepointId, SplitId};
    use crate::protocol::Floor;

    fn epoch(epoch: u64, generation: u64) -> Record {
        Record::EpochComplete(EpochRecord {
            epoch: Epoch(epoch),
            generation: Generation(generation),
            manifest: ManifestRef { path: format!("m{epoch}"), size: 1, crc32c: 2 },
            epoch_now: Timestamp(1),
            next_epoch_now: Timestamp(2),
            sources: BTreeMap::new(),
            committables: BTreeMap::new(),
            end: None,
            state_bytes: 0,
            unaligned: false,
            completed_at: Timestamp(3),
        })
    }

    fn generation(generation: u64) -> Record {
        let (reason, at) = (String::new(), Timestamp(0));
        Record::GenerationStarted { generation: Generation(generation), restored_from: Epoch(0), reason, at }
    }

    fn committed(epoch: u64, generation: u64) -> Record {
        Record::EpochCommitted { generation: Generation(generation), epoch: Epoch(epoch) }
    }

    fn retired(epochs: &[u64], generation: u64) -> Record {
        Record::EpochsRetired {
            generation: Generation(generation),
            epochs: epochs.iter().copied().map(Epoch).collect(),
        }
    }

    fn state(records: Vec<Record>) -> JobRecord {
        let mut state = JobRecord::default();
        for record in records {
            state.check(&record).unwrap();
            state.apply(record);
        }
        state
    }

    #[test]
    fn epochs_complete_and_commit_in_their_order_and_by_the_newest_attempt() {
        let state = state(vec![generation(1), epoch(1, 1), committed(1, 1), epoch(2, 1), generation(2), epoch(3, 2)]);
        assert_eq!((state.newest(), state.committed), (Epoch(3), Epoch(1)));
        for refused in [
            epoch(4, 1),
            epoch(3, 2),
            epoch(5, 2),
            epoch(2, 2),
            committed(1, 2),
            committed(3, 2),
            committed(2, 1),
            retired(&[2], 2),
            generation(2),
            Record::Snapshot(Box::default()),
        ] {
            assert!(state.check(&refused).is_err(), "{refused:?}");
        }
        for accepted in [epoch(4, 2), committed(2, 2), retired(&[1], 2), generation(3)] {
            state.check(&accepted).unwrap();
        }
    }

    #[test]
    fn a_replayed_epoch_replaces_its_record_and_publishes_nothing() {
        let state =
            state(vec![generation(1), epoch(1, 1), epoch(2, 1), committed(1, 1), committed(2, 1), generation(2)]);
        state.check(&epoch(2, 2)).unwrap();
        let Record::EpochComplete(mut loud) = epoch(2, 2) else { unreachable!() };
        loud.committables.insert(OperatorId(1), vec![Committable { payload: "x".to_owned() }]);
        assert!(state.check(&Record::EpochComplete(loud)).is_err());
        assert!(state.check(&retired(&[2], 2)).is_err(), "the newest one");
    }

    #[test]
    fn epochs_are_run_again_without_a_gap_or_not_at_all() {
        let mut records = vec![generation(1)];
        for number in 1..=5 {
            records.extend([epoch(number, 1), committed(number, 1)]);
        }
        records.push(retired(&[2, 3], 1));
        let state = state(records);
        assert!(JobRecord::default().can_run_again_after(Epoch(0)));
        assert!(!state.can_run_again_after(Epoch(0)) && !state.can_run_again_after(Epoch(1)));
        assert!([3, 4, 5].iter().all(|epoch| state.can_run_again_after(Epoch(*epoch))));
    }

    #[test]
    fn a_finished_job_stays_finished() {
        let end = |end| Record::Ended { generation: Generation(1), end, at: Timestamp(0), counters: BTreeMap::new() };
        let finished = state(vec![generation(1), end(JobEnd::Finished)]);
        assert!(finished.check(&generation(2)).is_err());
        let stopped = state(vec![generation(1), end(JobEnd::Stopped), generation(2)]);
        assert_eq!(stopped.end, None);
    }

    fn deployed(generation: u64, restored: u64) -> Record {
        Record::AttemptDeployed(DeployedAttempt {
            generation: Generation(generation),
            restored: Epoch(restored),
            parallelism: 2,
            first_epoch_now: Timestamp(1),
            replay_until: None,
            slots: Vec::new(),
        })
    }

    fn begun(epoch: u64, generation: u64) -> Record {
        let barrier = Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(2) };
        Record::Decided { generation: Generation(generation), decision: Decision::EpochBegun { barrier, end: None } }
    }

    #[test]
    fn decisions_are_taken_from_the_newest_attempt_once_it_runs() {
        let adopted = Record::AttemptAdopted { generation: Generation(1), at: Timestamp(3) };
        let mut state = state(vec![generation(1)]);
        for early in [begun(1, 1), adopted.clone()] {
            assert!(state.check(&early).unwrap_err().contains("not known to run"));
        }
        for record in [deployed(1, 0), begun(1, 1), adopted.clone()] {
            state.check(&record).unwrap();
            state.apply(record);
        }
        assert_eq!(state.running.as_ref().unwrap().adoptions, 1);
        for refused in [deployed(1, 0), begun(1, 1), begun(2, 2)] {
            assert!(state.check(&refused).is_err(), "{refused:?}");
        }
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<JobRecord>(&json).unwrap(), state);
        state.apply(epoch(1, 1));
        state.check(&begun(2, 1)).unwrap();
        state.apply(generation(2));
        assert_eq!(state.running, None);
        assert!(state.check(&adopted).is_err() && state.check(&begun(2, 1)).is_err());
    }

    #[test]
    fn an_attempt_that_still_runs_epochs_again_is_not_adopted() {
        let mut state = state(vec![generation(1), epoch(1, 1), epoch(2, 1), committed(1, 1), committed(2, 1)]);
        assert!(state.adoptable().is_none());
        state.apply(generation(2));
        let Record::AttemptDeployed(mut replaying) = deployed(2, 1) else { unreachable!() };
        replaying.replay_until = Some(Epoch(2));
        for record in [Record::AttemptDeployed(replaying), begun(2, 2)] {
            state.check(&record).unwrap();
            state.apply(record);
        }
        assert!(state.adoptable().is_none());
        state.apply(epoch(2, 2));
        assert!(state.adoptable().is_some());
        let (generation, at, counters) = (Generation(2), Timestamp(0), BTreeMap::new());
        let savepoint = |end| {
            let outcome = SavepointOutcome::Failed { reason: "full".to_owned() };
            let savepoint = SavepointRecord { id: SavepointId::of(1), outcome, at };
            Record::Savepoint { generation, savepoint, end, counters: BTreeMap::new() }
        };
        state.apply(savepoint(None));
        assert!(state.adoptable().is_some());
        let mut with_savepoint = state.clone();
        with_savepoint.apply(savepoint(Some(JobEnd::Stopped)));
        state.apply(Record::Ended { generation, end: JobEnd::Stopped, at, counters });
        for ended in [state, with_savepoint] {
            assert!(ended.adoptable().is_none(), "nobody goes on with a job that has ended");
        }
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let floor = Floor { split: SplitId("a".to_owned()), position: Some("7".to_owned()), watermark: Timestamp(5) };
        let (floors, watermark, bound) = (vec![floor], Timestamp(9), Some(Timestamp::MIN));
        let source = SourceEpoch { changed: Vec::new(), floors, watermark, bound, no_more: true };
        let Record::EpochComplete(mut full) = epoch(2, 2) else { unreachable!() };
        full.sources.insert(OperatorId(4), source);
        full.committables.insert(OperatorId(1), vec![Committable { payload: "{\"a\":1}".to_owned() }]);
        full.end = Some(End::InputEnd);
        full.unaligned = true;
        let mut state = state(vec![generation(1), epoch(1, 1)]);
        state.initial_splits.insert(OperatorId(4), Vec::new());
        for record in
            [Record::EpochComplete(full), committed(1, 1), retired(&[1], 1), Record::Snapshot(Box::new(state))]
        {
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
        }
    }
}
