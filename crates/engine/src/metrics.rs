//! Counters of a running job, read by whoever shows them. Plain atomics: paid once a batch.

mod subtask;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mainstem_connectors::SplitLags;
use mainstem_core::cluster::messages::{OperatorCounters, StateMemory, SubtaskCounters};
use mainstem_core::ids::OperatorId;
use mainstem_core::latency::LatencyHistogram;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::JobGraph;
use mainstem_state::Origin;

use self::subtask::SubtaskMetrics;
pub(crate) use self::subtask::{Doing, TimeSpent};

/// Counters of one operator over all of its subtasks, since the process started.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Rows that came in; for a source, rows read.
    pub rows_in: AtomicU64,
    /// Rows that went out; for a sink, rows written.
    pub rows_out: AtomicU64,
    /// Rows that were late: dropped, or versions of a temporal join that count later than their times say.
    pub late_rows: Arc<AtomicU64>,
    /// Records that were wrong and were dropped as the user chose.
    pub dropped_records: Arc<AtomicU64>,
    /// Records that were wrong and went to the table that takes them.
    pub dead_letters: AtomicU64,
    /// Changes that were to take away a row that was not there, and were dropped.
    pub unmatched_changes: Arc<AtomicU64>,
    /// Bytes read from outside.
    pub bytes_read: Arc<AtomicU64>,
    /// Bytes of state files that the newest attempt has begun with and read from local copies.
    pub restored_local: AtomicU64,
    /// The same, read from the store.
    pub restored_store: AtomicU64,
    /// Bytes of memory that its state takes now, with rows that wait for state.
    pub memory_bytes: AtomicU64,
    /// Parts of its state that are in memory now,
    pub parts_hot: AtomicU64,
    /// and those that are not.
    pub parts_cold: AtomicU64,
    /// Parts that were read again.
    pub part_loads: AtomicU64,
    /// Rows that had to wait for a part that was not in memory.
    pub deferred_rows: AtomicU64,
    /// For a source: how far its splits are behind.
    pub lags: SplitLags,
    /// For a sink: how long rows took to come there.
    latency: Mutex<LatencyHistogram>,
    /// What is counted of each subtask.
    subtasks: Vec<SubtaskMetrics>,
}

impl OperatorMetrics {
    fn new(parallelism: u32) -> Self {
        let subtasks = (0..parallelism).map(|_| SubtaskMetrics::default()).collect();
        OperatorMetrics { subtasks, ..OperatorMetrics::default() }
    }

    /// The least watermark over the subtasks.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.subtasks.iter().map(|s| s.watermark.load(Ordering::Relaxed)).min().unwrap_or(i64::MIN))
    }

    /// A state file was read to begin with.
    pub(crate) fn count_restored(&self, bytes: u64, origin: Origin) {
        let counter = match origin {
            Origin::LocalCopy => &self.restored_local,
            Origin::Store => &self.restored_store,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_watermark(&self, subtask: u32, watermark: Timestamp) {
        if let Some(shown) = self.shown(subtask) {
            shown.watermark.store(watermark.0, Ordering::Relaxed);
        }
    }

    /// Rows came in to a subtask.
    pub(crate) fn count_in(&self, subtask: u32, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        if let Some(shown) = self.shown(subtask) {
            shown.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    /// Rows went out of a subtask.
    pub(crate) fn count_out(&self, subtask: u32, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Ordering::Relaxed);
        if let Some(shown) = self.shown(subtask) {
            shown.rows_out.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    /// A latency marker has come to a sink after so long.
    pub(crate) fn count_latency(&self, ms: i64) {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).record(ms);
    }

    /// How long rows took to come to a sink; none before the first marker.
    #[must_use]
    pub fn latency(&self) -> Option<LatencyHistogram> {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        (latency.count() > 0).then(|| latency.clone())
    }

    /// Where the task of a subtask notes how it spends its time.
    pub(crate) fn time_spent(&self, subtask: u32) -> Arc<TimeSpent> {
        self.shown(subtask).map(|shown| shown.time.clone()).unwrap_or_default()
    }

    /// An attempt at the parallelism of an earlier checkpoint may have more subtasks than are shown.
    fn shown(&self, subtask: u32) -> Option<&SubtaskMetrics> {
        self.subtasks.get(subtask as usize)
    }
}

/// Counters of all operators of a job.
#[derive(Debug, Default)]
pub struct JobMetrics {
    operators: BTreeMap<OperatorId, Arc<OperatorMetrics>>,
}

impl JobMetrics {
    /// Counters at zero for the operators of a job of this parallelism.
    #[must_use]
    pub fn of(graph: &JobGraph, parallelism: u32) -> Self {
        let counters = |id| Arc::new(OperatorMetrics::new(graph.parallelism(id, parallelism)));
        JobMetrics { operators: graph.nodes.iter().map(|node| (node.id, counters(node.id))).collect() }
    }

    /// Counters of all operators.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorMetrics> {
        self.operators.values().map(Arc::as_ref)
    }

    /// Bytes of state files with which the newest attempt has begun: from local copies, and from the store.
    #[must_use]
    pub fn restored(&self) -> (u64, u64) {
        let sum = |counter: fn(&OperatorMetrics) -> &AtomicU64| {
            self.operators().map(|operator| counter(operator).load(Ordering::Relaxed)).sum()
        };
        (sum(|operator| &operator.restored_local), sum(|operator| &operator.restored_store))
    }

    /// A new attempt begins: nothing was restored yet, and other readers read.
    pub(crate) fn begin_attempt(&self) {
        for counter in self.operators().flat_map(|operator| [&operator.restored_local, &operator.restored_store]) {
            counter.store(0, Ordering::Relaxed);
        }
        for operator in self.operators() {
            operator.lags.clear();
            operator.subtasks.iter().for_each(|subtask| subtask.time.stop());
        }
    }

    /// What the counters say now, with the watermarks of the given subtasks.
    #[must_use]
    pub fn counters(&self, subtasks: &BTreeSet<u32>) -> BTreeMap<OperatorId, OperatorCounters> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let here = |operator: &OperatorMetrics| -> Vec<(SubtaskCounters, Timestamp)> {
            let shown = (0_u32..).zip(&operator.subtasks).filter(|(index, _)| subtasks.contains(index));
            shown.map(|(index, subtask)| subtask.read(index)).collect()
        };
        let of = |operator: &OperatorMetrics| {
            let subtasks = here(operator);
            OperatorCounters {
                rows_in: read(&operator.rows_in),
                rows_out: read(&operator.rows_out),
                late_rows: read(&operator.late_rows),
                dropped_records: read(&operator.dropped_records),
                dead_letters: read(&operator.dead_letters),
                unmatched_changes: read(&operator.unmatched_changes),
                bytes_read: read(&operator.bytes_read),
                restored_local_bytes: read(&operator.restored_local),
                restored_store_bytes: read(&operator.restored_store),
                memory: StateMemory {
                    bytes: read(&operator.memory_bytes),
                    parts_hot: read(&operator.parts_hot),
                    parts_cold: read(&operator.parts_cold),
                    part_loads: read(&operator.part_loads),
                    deferred_rows: read(&operator.deferred_rows),
                },
                watermarks: subtasks.iter().map(|(counted, watermark)| (counted.index, *watermark)).collect(),
                subtasks: subtasks.into_iter().map(|(counted, _)| counted).collect(),
                latency: operator.latency(),
                lag: operator.lags.read(),
            }
        };
        self.operators.iter().map(|(id, operator)| (*id, of(operator))).collect()
    }

    /// Counters of one operator.
    ///
    /// # Panics
    /// Where the job has no such operator.
    #[must_use]
    pub fn operator(&self, id: OperatorId) -> &Arc<OperatorMetrics> {
        &self.operators[&id]
    }
}
