//! A checkpoint whose snapshots are all there: its manifest, and what the log will record of it.

use std::collections::BTreeMap;

use mainstem_core::checkpoint::End;
use mainstem_core::cluster::messages::SlotFiles;
use mainstem_core::ids::OperatorId;
use mainstem_core::protocol::{Committable, Failure, OperatorSnapshot, SplitState, SubtaskSnapshot};
use mainstem_core::splits::SourceEpoch;
use mainstem_core::time::Timestamp;
use mainstem_state::{CheckpointStore, Manifest, StateSize};

use crate::meta_log::EpochRecord;
use crate::retry::Retry;

/// A checkpoint that is to be made durable.
pub(super) struct Draft {
    pub(super) manifest: Manifest,
    /// How often another coordinator went on with the attempt.
    pub(super) adoptions: u32,
    pub(super) epoch_now: Timestamp,
    pub(super) source_epochs: BTreeMap<OperatorId, SourceEpoch>,
    pub(super) committables: BTreeMap<OperatorId, Vec<Committable>>,
    pub(super) end: Option<End>,
}

/// A checkpoint whose manifest is durable.
pub(super) struct Written {
    pub(super) record: EpochRecord,
    /// All splits of each source.
    pub(super) sources: BTreeMap<OperatorId, Vec<SplitState>>,
    /// State by operator.
    pub(super) sizes: BTreeMap<OperatorId, StateSize>,
    /// The longest that a subtask aligned the barrier.
    pub(super) alignment_ms: Option<u64>,
    /// Bytes of rows in flight; none where the barrier was aligned everywhere.
    pub(super) in_flight_bytes: Option<u64>,
}

/// The parts of every subtask.
pub(super) type Parts = BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>;

/// Sorts what the subtasks reported by operator, and apart from it what waits to be published. Splits and their
/// floors are left out: they are kept a source, not a subtask.
pub(super) fn by_operator(
    snapshots: impl IntoIterator<Item = (u32, SubtaskSnapshot)>,
) -> (Parts, BTreeMap<OperatorId, Vec<Committable>>) {
    let mut operators = Parts::new();
    let mut committables: BTreeMap<OperatorId, Vec<_>> = BTreeMap::new();
    for (index, parts) in snapshots {
        for (operator, mut part) in parts {
            part.splits.clear();
            part.floors.clear();
            if !part.committables.is_empty() {
                committables.entry(operator).or_default().append(&mut part.committables);
            }
            operators.entry(operator).or_default().push((index, part));
        }
    }
    (operators, committables)
}

/// The files that restore each slot: subtask `i` of every task runs on slot `i`.
pub(super) fn files_by_slot(operators: &Parts) -> SlotFiles {
    let mut files = SlotFiles::new();
    for (index, part) in operators.values().flatten() {
        files.entry(*index).or_default().extend(part.files().cloned());
    }
    files
}

impl Draft {
    /// Writes the manifest, with retries: a repeated write finds its own bytes and is content. No time-out: the
    /// checkpoint has one.
    pub(super) async fn write(self, store: &CheckpointStore, retry: &Retry) -> Result<Box<Written>, Failure> {
        let Draft { manifest, adoptions, epoch_now, source_epochs, committables, end } = self;
        let epoch = manifest.epoch;
        let mut tries = retry.tries(format!("complete checkpoint {epoch}"));
        let written = loop {
            match store.write_manifest_after(&manifest, adoptions).await {
                Ok(written) => break written,
                Err(error) => tries.wait(error.into()).await?,
            }
        };
        let record = EpochRecord {
            epoch,
            generation: manifest.generation,
            manifest: written,
            epoch_now,
            next_epoch_now: manifest.next_epoch_now,
            sources: source_epochs,
            committables,
            end,
            state_bytes: manifest.state_bytes(),
            unaligned: manifest.in_flight_bytes().is_some(),
            completed_at: manifest.created_at,
        };
        let sizes = manifest.state_sizes();
        let (alignment_ms, in_flight_bytes) = (manifest.alignment_ms(), manifest.in_flight_bytes());
        Ok(Box::new(Written { record, sources: manifest.sources, sizes, alignment_ms, in_flight_bytes }))
    }
}
