//! What the metadata log says of savepoints: those that were asked for, and the one with which a job began.

use serde::{Deserialize, Serialize};

use super::{EpochRecord, JobCreated};
use crate::ids::{Epoch, Generation, JobId, SavepointId};
use crate::time::Timestamp;

/// Outcomes of savepoints that are remembered; the savepoints themselves belong to their users.
const OUTCOMES_MAX: usize = 10;

/// A savepoint that somebody has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointRequest {
    /// Which; drawn by who asks.
    pub id: SavepointId,
    /// Where it shall lie: it becomes a directory in this one.
    pub directory: String,
    /// Whether the job ends with it.
    pub stop: bool,
}

/// What became of a savepoint that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointRecord {
    /// Which.
    pub id: SavepointId,
    /// What became of it.
    pub outcome: SavepointOutcome,
    /// When that was known.
    pub at: Timestamp,
}

/// See [`SavepointRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SavepointOutcome {
    /// It is complete.
    Taken {
        /// Its directory.
        path: String,
        /// The epoch whose state it is; the output up to it was visible before.
        epoch: Epoch,
        /// State files, and their bytes.
        files: u64,
        /// See `files`.
        bytes: u64,
    },
    /// There is none.
    Failed {
        /// Why not, and what to do.
        reason: String,
    },
}

impl SavepointRecord {
    /// The epoch of a savepoint that was taken.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self.outcome {
            SavepointOutcome::Taken { epoch, .. } => Some(epoch),
            SavepointOutcome::Failed { .. } => None,
        }
    }
}

/// Adds an outcome to those that are remembered.
pub fn note_savepoint(savepoints: &mut Vec<SavepointRecord>, savepoint: SavepointRecord) {
    savepoints.push(savepoint);
    let surplus = savepoints.len().saturating_sub(OUTCOMES_MAX);
    savepoints.drain(..surplus);
}

/// A savepoint with which a job is to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFrom {
    /// Its directory, which every coordinator reaches under this path.
    pub path: String,
    /// Which one it was when the job was handed in; another one in its place is refused.
    pub id: SavepointId,
}

/// A job that begins where a savepoint was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRestored {
    /// What the job is.
    pub created: JobCreated,
    /// The savepoint as the job's first checkpoint; its output is visible.
    pub epoch: EpochRecord,
    /// Where it came from.
    pub from: RestoredFrom,
}

/// The savepoint with which a job began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// Which.
    pub id: SavepointId,
    /// The job that it was taken of.
    pub job: JobId,
    /// Of which epoch.
    pub epoch: Epoch,
    /// The directory in which it lay.
    pub path: String,
    /// Attempts of this job have numbers above this one; what lies below is another job's.
    pub base: Generation,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{JobEnd, JobRecord, Record};
    use super::*;
    use crate::protocol::ManifestRef;

    fn restored(epoch: u64, generation: u64, base: u64) -> Record {
        let id = SavepointId::of(1);
        let job = JobId::new("before").unwrap();
        let from = RestoredFrom { id, job, epoch: Epoch(epoch), path: "/s".to_owned(), base: Generation(base) };
        let created = JobCreated {
            graph_json: "{}".to_owned(),
            sql_hash: "h".to_owned(),
            key_groups: 8,
            created_at: Timestamp(1),
        };
        let epoch = EpochRecord {
            epoch: Epoch(epoch),
            generation: Generation(generation),
            manifest: ManifestRef { path: "m".to_owned(), size: 1, crc32c: 2 },
            epoch_now: Timestamp(1),
            next_epoch_now: Timestamp(1),
            sources: BTreeMap::new(),
            committables: BTreeMap::new(),
            end: None,
            state_bytes: 0,
            unaligned: false,
            completed_at: Timestamp(1),
        };
        Record::JobRestored(Box::new(JobRestored { created, epoch, from }))
    }

    fn started(generation: u64) -> Record {
        let (restored_from, reason, at) = (Epoch(0), String::new(), Timestamp(2));
        Record::GenerationStarted { generation: Generation(generation), restored_from, reason, at }
    }

    fn taken(generation: u64, epoch: u64, end: Option<JobEnd>) -> Record {
        let outcome = SavepointOutcome::Taken { path: "/s".to_owned(), epoch: Epoch(epoch), files: 1, bytes: 2 };
        let savepoint = SavepointRecord { id: SavepointId::of(epoch), outcome, at: Timestamp(3) };
        Record::Savepoint { generation: Generation(generation), savepoint, end, counters: BTreeMap::new() }
    }

    fn state(records: Vec<Record>) -> JobRecord {
        let mut state = JobRecord::default();
        for record in records {
            state.check(&record).unwrap();
            let json = serde_json::to_string(&record).unwrap();
            state.apply(serde_json::from_str(&json).unwrap());
        }
        state
    }

    #[test]
    fn a_restored_job_goes_on_counting_where_the_savepoint_was() {
        let state = state(vec![restored(7, 3, 9)]);
        assert_eq!((state.newest(), state.committed, state.generation), (Epoch(7), Epoch(7), Generation(9)));
        state.check(&started(10)).unwrap();
        for refused in [started(9), restored(7, 3, 9)] {
            assert!(state.check(&refused).is_err(), "{refused:?}");
        }
        assert!(JobRecord::default().check(&restored(7, 3, 2)).is_err(), "names would meet");
        let mut run = JobRecord::default();
        run.apply(started(1));
        assert!(run.check(&restored(7, 3, 9)).is_err());
    }

    #[test]
    fn a_savepoint_is_of_a_published_epoch_and_of_the_newest_attempt_and_may_end_the_job() {
        let mut state = state(vec![restored(7, 3, 9), started(10)]);
        for refused in [taken(10, 8, None), taken(9, 7, None)] {
            assert!(state.check(&refused).is_err(), "{refused:?}");
        }
        for _ in 0..12 {
            state.check(&taken(10, 7, None)).unwrap();
            state.apply(taken(10, 7, None));
        }
        assert_eq!((state.savepoints.len(), &state.end), (OUTCOMES_MAX, &None));
        state.apply(taken(10, 7, Some(JobEnd::Stopped)));
        assert_eq!(state.end, Some(JobEnd::Stopped));
    }
}
