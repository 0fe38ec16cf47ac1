//! What expressions read besides their row: the time of the epoch and the watermark. The engine sets both;
//! functions only read them, so that a replay of an epoch sees what the first run saw (I6).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Where nobody says less: half of what Arrow's offsets can address.
const COLUMN_BYTES_MAX: usize = 1 << 30;

/// The cells that compiled functions are bound to. Cloning shares the cells: an expression compiled with a
/// clone follows later changes.
#[derive(Clone, Debug)]
pub struct EvalContext {
    /// What `NOW()` gives, in milliseconds since 1970-01-01 UTC. Fixed for an epoch.
    pub now: Arc<AtomicI64>,
    /// The current watermark, in milliseconds; `i64::MIN` while there is none.
    pub watermark: Arc<AtomicI64>,
    /// Memory of the worker, in bytes: what one step may take follows from it.
    pub memory_bytes: u64,
    /// Most bytes of the text that a function makes for all rows of a batch.
    pub column_bytes_max: usize,
}

impl Default for EvalContext {
    fn default() -> Self {
        EvalContext {
            now: Arc::new(AtomicI64::new(0)),
            watermark: Arc::new(AtomicI64::new(i64::MIN)),
            memory_bytes: u64::MAX,
            column_bytes_max: COLUMN_BYTES_MAX,
        }
    }
}

impl EvalContext {
    /// The time of the epoch, in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        // Relaxed is enough: the task that sets the cell is the one that evaluates.
        self.now.load(Ordering::Relaxed)
    }

    /// The watermark in milliseconds, if there is one.
    #[must_use]
    pub fn watermark_ms(&self) -> Option<i64> {
        Some(self.watermark.load(Ordering::Relaxed)).filter(|ms| *ms != i64::MIN)
    }

    /// Sets the time of the epoch that begins.
    pub fn set_now_ms(&self, ms: i64) {
        self.now.store(ms, Ordering::Relaxed);
    }

    /// Sets the watermark.
    pub fn set_watermark_ms(&self, ms: i64) {
        self.watermark.store(ms, Ordering::Relaxed);
    }
}

impl PartialEq for EvalContext {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.now, &other.now) && Arc::ptr_eq(&self.watermark, &other.watermark)
    }
}

impl Eq for EvalContext {}
