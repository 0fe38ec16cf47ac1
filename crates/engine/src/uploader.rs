//! Makes a subtask's part of a checkpoint durable beside further processing, and reports it. One a subtask;
//! checkpoints are taken in order, so that files named by a later one have been written by an earlier one.

use std::sync::Arc;

use arrow::array::ArrayRef;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId, SubtaskId};
use mainstem_core::key_group::{KeyGroupRange, group_of_hash};
use mainstem_core::protocol::{FromSubtask, InFlight, OperatorSnapshot, PartTimes, SubtaskSnapshot};
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, run_blocking};
use mainstem_state::{CheckpointStore, GroupedTable};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, error_span};

use crate::chain::ChainCapture;
use crate::error::EngineError;
use crate::exchange::InFlightChannel;
use crate::in_flight;
use crate::key_hash::hash_rows;
use crate::merging::MergeOrder;
use crate::operator::{Capture, TableRows};
use crate::state_files::StateFiles;

/// Captures that may wait to be uploaded; the coordinator keeps fewer checkpoints in flight.
pub(crate) const UPLOADS_MAX: usize = 4;

/// Part of the name of the file that holds what was in flight.
const IN_FLIGHT_PART: &str = "in_flight";

/// A checkpoint part to upload.
pub(crate) struct Upload {
    /// The checkpoint.
    pub(crate) epoch: Epoch,
    /// State and sink output.
    pub(crate) chain: ChainCapture,
    /// What the source has to say, where the subtask has one.
    pub(crate) source: Option<(OperatorId, OperatorSnapshot)>,
    /// How long the barrier was aligned, where the subtask has inputs.
    pub(crate) alignment_ms: Option<u64>,
    /// When it was captured.
    pub(crate) times: CaptureTimes,
    /// What the barrier has overtaken, as soon as all of it has come; none where it was aligned.
    pub(crate) overtaken: Option<oneshot::Receiver<Vec<InFlightChannel>>>,
}

/// When a subtask has captured a checkpoint part, by the clock that only goes forward.
#[derive(Clone, Copy)]
pub(crate) struct CaptureTimes {
    /// Before anything was done for it.
    pub(crate) began: Timestamp,
    /// When the subtask goes on, and the rest is up to the uploader.
    pub(crate) ended: Timestamp,
}

/// See the module.
pub(crate) struct Uploader {
    pub(crate) job: JobId,
    pub(crate) generation: Generation,
    pub(crate) subtask: SubtaskId,
    pub(crate) key_groups: u16,
    /// Key groups of the subtask.
    pub(crate) own_key_groups: KeyGroupRange,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) events: mpsc::Sender<FromSubtask>,
    /// Who waits for what was written, is told here.
    pub(crate) uploaded: Option<watch::Sender<()>>,
    /// The one by which parts are captured.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Uploader {
    /// Uploads until no more come. Ends early with the first error.
    pub(crate) async fn run(self, mut uploads: mpsc::Receiver<Upload>) -> Result<(), EngineError> {
        // They end with the subtask: what they leave behind is found by the next attempt.
        let mut merges = Merges { running: JoinSet::new(), started: 0 };
        while let Some(upload) = uploads.recv().await {
            let epoch = upload.epoch;
            // Without what was overtaken: the subtask has ended in the middle of it, and says why.
            let uploading = self.upload(upload, &mut merges).instrument(error_span!("checkpoint", epoch = epoch.0));
            let Some(snapshot) = uploading.await? else { return Ok(()) };
            let done =
                FromSubtask::SnapshotDone { subtask: self.subtask, generation: self.generation, epoch, snapshot };
            // Without a coordinator nobody waits for it; the task will be cancelled.
            let _ = self.events.send(done).await;
        }
        Ok(())
    }

    async fn upload(&self, upload: Upload, merges: &mut Merges) -> Result<Option<SubtaskSnapshot>, EngineError> {
        let (epoch, captured, begun) = (upload.epoch, upload.times, self.clock.monotonic());
        let mut waited_ms = ms(captured.ended, begun);
        let mut snapshot = SubtaskSnapshot::new();
        let sink = upload.chain.sealed.as_ref().map(|(operator, ..)| *operator);
        if let Some(sink) = sink.filter(|_| !upload.chain.arrivals.kept.is_empty()) {
            let (subtask, generation, arrivals) = (self.subtask, self.generation, upload.chain.arrivals);
            let arrived = FromSubtask::MarkersArrived { subtask, generation, epoch, sink, arrivals };
            let _ = self.events.send(arrived).await;
        }
        for (operator, mut capture) in upload.chain.captures {
            let merge = capture.merge.take();
            let part = self.upload_state(epoch, operator, capture).await?;
            snapshot.insert(operator, part);
            if let Some(order) = merge {
                merges.start(self.files(operator), order);
            }
        }
        if let Some(uploaded) = &self.uploaded {
            // Before the wait for what was overtaken: the subtask may be what is waited for.
            uploaded.send_replace(());
        }
        snapshot.extend(upload.source);
        if let Some((operator, table, sealed)) = upload.chain.sealed {
            let committables = sealed.await.map_err(|error| EngineError::Connector { table, error })?;
            snapshot.entry(operator).or_default().committables = committables;
        }
        let mut in_flight = None;
        if let Some(overtaken) = upload.overtaken {
            let since = self.clock.monotonic();
            let Ok(channels) = overtaken.await else { return Ok(None) };
            waited_ms += ms(since, self.clock.monotonic());
            if !channels.is_empty() {
                in_flight = Some(self.upload_in_flight(epoch, channels).await?);
            }
        }
        let first = snapshot.entry(self.subtask.operator).or_default();
        (first.alignment_ms, first.in_flight) = (upload.alignment_ms, in_flight);
        let files = snapshot.values().flat_map(OperatorSnapshot::files).filter(|file| file.epoch == epoch);
        let times = PartTimes {
            capture_ms: ms(captured.began, captured.ended),
            wait_ms: waited_ms,
            upload_ms: ms(captured.ended, self.clock.monotonic()).saturating_sub(waited_ms),
            uploaded_bytes: files.map(|file| file.size).sum(),
        };
        snapshot.entry(self.subtask.operator).or_default().times = Some(times);
        Ok(Some(snapshot))
    }

    fn files(&self, operator: OperatorId) -> StateFiles {
        StateFiles {
            store: self.store.clone(),
            job: self.job.clone(),
            generation: self.generation,
            operator,
            subtask: self.subtask.index,
            key_groups: self.key_groups,
        }
    }

    async fn upload_in_flight(&self, epoch: Epoch, channels: Vec<InFlightChannel>) -> Result<InFlight, EngineError> {
        let key_groups = self.own_key_groups;
        let tables = run_blocking(move || in_flight::tables(&channels, key_groups)).await;
        let tables = tables.map_err(|e| EngineError::Bug(format!("collecting what is in flight: {e}")))??;
        if tables.is_empty() {
            return Ok(InFlight::default());
        }
        let SubtaskId { operator, index } = self.subtask;
        let part = IN_FLIGHT_PART;
        let tables = tables.into_iter().map(GroupedTable::from).collect();
        let written = self.store.write_state(&self.job, self.generation, epoch, operator, index, part, tables).await?;
        Ok(InFlight { files: vec![written] })
    }

    async fn upload_state(
        &self,
        epoch: Epoch,
        operator: OperatorId,
        capture: Capture,
    ) -> Result<OperatorSnapshot, EngineError> {
        let mut state = Vec::with_capacity(capture.retained.len() + 1);
        for handle in &capture.retained {
            let handle =
                handle.get().ok_or_else(|| EngineError::Bug("a state file is named before it is written".into()))?;
            state.push(handle.clone());
        }
        if let Some(handle) = self.files(operator).write(epoch, "", capture.tables).await? {
            capture.handle.set(handle.clone()).map_err(|_| EngineError::Bug("a state file is written twice".into()))?;
            state.push(handle);
        }
        let (meta, state_rows, memory_bytes) =
            (Some(capture.meta), Some(capture.live_rows), Some(capture.memory_bytes));
        Ok(OperatorSnapshot { state, meta, state_rows, memory_bytes, ..OperatorSnapshot::default() })
    }
}

/// From then until then, in milliseconds.
fn ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since_ms(from)).unwrap_or(0)
}

/// Merges of state files that run; each operator orders one at a time.
struct Merges {
    running: JoinSet<()>,
    started: u64,
}

impl Merges {
    fn start(&mut self, files: StateFiles, order: MergeOrder) {
        while self.running.try_join_next().is_some() {}
        self.started += 1;
        let number = self.started;
        let merging = async move {
            if let Err(error) = order.carry_out(&files, number).await {
                let (job, operator) = (&files.job, files.operator);
                tracing::warn!(%job, %operator, %error, "state files are not merged; the whole state is written when they are too many");
            }
        };
        self.running.spawn(merging.in_current_span());
    }
}

/// The rows of a table in the order of a state file: by key group, and within one in the order in which they came.
pub(crate) fn group_rows(table: TableRows, key_groups: u16) -> Result<GroupedTable, EngineError> {
    let TableRows { name, version, key, rows: batches } = table;
    let mut groups = Vec::with_capacity(batches.len());
    let mut ends = vec![0; usize::from(key_groups)];
    for rows in &batches {
        let keys: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
        let hashes = hash_rows(&keys, rows.num_rows()).map_err(|e| EngineError::arrow("checkpoint", &e))?;
        let of_batch: Vec<u16> = hashes.iter().map(|hash| group_of_hash(*hash, key_groups).0).collect();
        of_batch.iter().for_each(|group| ends[usize::from(*group)] += 1);
        groups.push(of_batch);
    }
    let counts = (0..key_groups).zip(ends.iter().copied());
    let sorted = counts.flat_map(|(group, count)| std::iter::repeat_n(group, count)).collect();
    // From here on where the next row of a group goes.
    let mut count = 0;
    for end in &mut ends {
        count += std::mem::replace(end, count);
    }
    let mut places = vec![(0, 0); count];
    for (batch, of_batch) in groups.iter().enumerate() {
        for (row, group) in of_batch.iter().enumerate() {
            let next = &mut ends[usize::from(*group)];
            places[*next] = (batch as u32, row as u32);
            *next += 1;
        }
    }
    Ok(GroupedTable { table: name.to_owned(), version, key, key_groups: sorted, batches, places: Some(places) })
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use futures::FutureExt;
    use mainstem_core::latency::EpochArrivals;
    use mainstem_rt::ManualClock;

    use super::*;

    #[tokio::test]
    async fn capturing_waiting_and_writing_are_told_apart() {
        let clock = ManualClock::new(Timestamp(1_000));
        let (events, mut told) = mpsc::channel(1);
        let subtask = SubtaskId { operator: OperatorId(2), index: 0 };
        let uploader = Uploader {
            job: JobId::new("j").unwrap(),
            generation: Generation(1),
            subtask,
            key_groups: 8,
            own_key_groups: KeyGroupRange { start: 0, end: 8 },
            store: Arc::new(CheckpointStore::in_memory()),
            events,
            uploaded: None,
            clock: Arc::new(clock.clone()),
        };
        let began = clock.monotonic();
        clock.advance_ms(5);
        let times = CaptureTimes { began, ended: clock.monotonic() };
        let (uploads, queue) = mpsc::channel(UPLOADS_MAX);
        let (all_came, overtaken) = oneshot::channel();
        let writing = clock.clone();
        let sealed = async move {
            writing.advance_ms(11);
            Ok(Vec::new())
        };
        let sealed = Some((OperatorId(3), "t".to_owned(), sealed.boxed()));
        let chain = ChainCapture { captures: Vec::new(), sealed, arrivals: EpochArrivals::default() };
        let (alignment_ms, overtaken) = (Some(4), Some(overtaken));
        let upload = Upload { epoch: Epoch(1), chain, source: None, alignment_ms, times, overtaken };
        assert!(uploads.try_send(upload).is_ok());
        // The uploader has something else to do.
        clock.advance_ms(7);
        drop(uploads);
        let rows_come = async {
            clock.advance_ms(13);
            assert!(all_came.send(Vec::new()).is_ok());
        };
        let (ended, ()) = tokio::join!(biased; uploader.run(queue), rows_come);
        ended.unwrap();
        let Some(FromSubtask::SnapshotDone { snapshot, .. }) = told.recv().await else { panic!("it is done") };
        let first = &snapshot[&subtask.operator];
        let times = PartTimes { capture_ms: 5, wait_ms: 20, upload_ms: 11, uploaded_bytes: 0 };
        assert_eq!((first.alignment_ms, first.times), (Some(4), Some(times)));
    }

    #[test]
    fn rows_are_sorted_by_group_and_keep_their_order_within_one() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..500).map(|i| i % 50)));
        let order: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500));
        let rows = RecordBatch::try_from_iter([("k", keys), ("n", order)]).unwrap();
        let table =
            TableRows { name: "t", version: 1, key: vec![0], rows: vec![rows.slice(0, 200), rows.slice(200, 300)] };
        let grouped = group_rows(table, 16).unwrap();
        assert!(grouped.key_groups.is_sorted());
        let written = grouped.rows(0..500).unwrap();
        let group_of = |key: i64| {
            let key: ArrayRef = Arc::new(Int64Array::from(vec![key]));
            group_of_hash(hash_rows(&[key], 1).unwrap()[0], 16).0
        };
        let keys = written.column(0).as_primitive::<Int64Type>();
        assert!(keys.values().iter().zip(&grouped.key_groups).all(|(key, group)| group_of(*key) == *group));
        let order = written.column(1).as_primitive::<Int64Type>();
        for group in 0..16 {
            let of_group = grouped.key_groups.iter().zip(order.values()).filter(|(g, _)| **g == group).map(|(_, n)| *n);
            assert!(of_group.is_sorted());
        }
        let mut all = order.values().to_vec();
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
    }
}
