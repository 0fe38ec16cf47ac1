//! The memory of a worker, shared by all operators of all jobs on it: each has an account and says what it holds; what it
//! has to do about it is decided by `mainstem_core::memory`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use mainstem_core::ids::JobId;
use mainstem_core::memory::{self, Holder, StateShare, Verdict};

use crate::error::EngineError;
use crate::metrics::OperatorMetrics;

/// See the module.
#[derive(Debug)]
pub struct MemoryBudget {
    /// Of the worker.
    bytes_max: u64,
    /// Where rows are put off that do not fit.
    scratch: PathBuf,
    /// Called once, when state is put aside for the first time.
    on_pressure: fn(),
    pressed: Once,
    /// What all accounts hold.
    used: AtomicU64,
    /// What they may hold before state is put aside.
    state_bytes_max: AtomicU64,
    share: Mutex<StateShare>,
    accounts: Mutex<Vec<Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    job: JobId,
    can_put_aside: bool,
    bytes: AtomicU64,
}

impl MemoryBudget {
    /// For a worker that may use so many bytes of memory, and the directory `scratch` for rows that do not fit.
    /// `on_pressure` is called once, when state is put aside for the first time: from then on memory is scarce.
    #[must_use]
    pub fn new(bytes_max: u64, scratch: &Path, on_pressure: fn()) -> Arc<MemoryBudget> {
        let (share, scratch) = (StateShare::new(bytes_max), scratch.to_owned());
        let state_bytes_max = AtomicU64::new(share.bytes_max());
        let (used, accounts, pressed) = (AtomicU64::new(0), Mutex::new(Vec::new()), Once::new());
        let share = Mutex::new(share);
        Arc::new(MemoryBudget { bytes_max, scratch, on_pressure, pressed, used, state_bytes_max, share, accounts })
    }

    /// Bytes of memory of the worker.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that operators hold.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that operators may hold before they put state aside.
    #[must_use]
    pub fn state_bytes_max(&self) -> u64 {
        self.state_bytes_max.load(Ordering::Relaxed)
    }

    /// The same for what cannot be put aside: what the rest of the process takes for a while ends no job.
    fn fixed_bytes_max(&self) -> u64 {
        self.share.lock().unwrap_or_else(PoisonError::into_inner).bytes_max()
    }

    /// The process has so many bytes in memory. Told a few times a second, where the system says it.
    pub fn note_resident(&self, resident_bytes: u64) {
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        self.state_bytes_max.store(share.sample(resident_bytes, self.used_bytes()), Ordering::Relaxed);
    }

    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// An account for one operator of a subtask, until it is dropped.
    pub(crate) fn open(
        self: &Arc<Self>,
        job: &JobId,
        operator: &str,
        can_put_aside: bool,
        metrics: &Arc<OperatorMetrics>,
    ) -> Account {
        let entry = Arc::new(Entry { job: job.clone(), can_put_aside, bytes: AtomicU64::new(0) });
        self.lock().push(entry.clone());
        Account { budget: self.clone(), operator: operator.to_owned(), entry, metrics: metrics.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks with what all of them hold, and which of them is `me`.
    fn ask<T>(&self, me: &Arc<Entry>, question: impl FnOnce(u64, &[Holder], usize) -> T) -> T {
        let accounts = self.lock();
        let holder = |entry: &Arc<Entry>| Holder {
            job: entry.job.clone(),
            bytes: entry.bytes.load(Ordering::Relaxed),
            can_put_aside: entry.can_put_aside,
        };
        let at = accounts.iter().position(|entry| Arc::ptr_eq(entry, me)).expect("open until it is dropped");
        let holders: Vec<Holder> = accounts.iter().map(holder).collect();
        drop(accounts);
        let max = if me.can_put_aside { self.state_bytes_max() } else { self.fixed_bytes_max() };
        question(max, &holders, at)
    }
}

/// What one operator of a subtask holds.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<MemoryBudget>,
    operator: String,
    entry: Arc<Entry>,
    metrics: Arc<OperatorMetrics>,
}

impl Account {
    /// It holds so many bytes now.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.entry.bytes.swap(bytes as u64, Ordering::Relaxed);
        // Wraps to the difference, whatever its sign.
        let change = (bytes as u64).wrapping_sub(before);
        self.budget.used.fetch_add(change, Ordering::Relaxed);
        self.metrics.memory_bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// State is put aside.
    pub(crate) fn press(&self) {
        self.budget.pressed.call_once(self.budget.on_pressure);
    }

    /// Bytes that are still free for all; less than nothing where too many are taken.
    pub(crate) fn room(&self) -> i64 {
        let (max, used) = (self.budget.state_bytes_max(), self.budget.used_bytes());
        i64::try_from(max).unwrap_or(i64::MAX).saturating_sub(i64::try_from(used).unwrap_or(i64::MAX))
    }

    /// What all may hold together.
    pub(crate) fn all_bytes_max(&self) -> u64 {
        self.budget.state_bytes_max()
    }

    /// What one key group, which cannot be cut, may take.
    pub(crate) fn fixed_bytes_max(&self) -> u64 {
        self.budget.fixed_bytes_max()
    }

    /// What the operator may hold where all of those hold as much that can put state aside.
    pub(crate) fn share(&self) -> u64 {
        self.budget.ask(&self.entry, |max, holders, _| memory::share(max, holders))
    }

    /// Bytes that the operator has to put aside.
    ///
    /// # Errors
    /// Where it cannot, and too much is held.
    pub(crate) fn must_put_aside(&self) -> Result<u64, EngineError> {
        if self.room() >= 0 {
            return Ok(0);
        }
        match self.budget.ask(&self.entry, memory::verdict) {
            Verdict::Fits => Ok(0),
            Verdict::PutAside { bytes } => Ok(bytes),
            Verdict::Fail { job_bytes } => Err(self.too_much(job_bytes)),
        }
    }

    /// The operator holds what cannot be put aside, and it is too much.
    pub(crate) fn too_much(&self, job_bytes: u64) -> EngineError {
        EngineError::OutOfMemory {
            operator: self.operator.clone(),
            bytes: self.entry.bytes.load(Ordering::Relaxed),
            job_bytes,
            state_bytes_max: self.budget.fixed_bytes_max(),
            bytes_max: self.budget.bytes_max,
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
        self.budget.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_that_is_too_large_is_told_and_its_neighbour_is_not() {
        let budget = MemoryBudget::new(2000, Path::new("/nowhere"), || {});
        let job = |name| JobId::new(name).unwrap();
        let metrics = Arc::new(OperatorMetrics::default());
        let open = |name, operator, aside| budget.open(&job(name), operator, aside, &metrics);
        let (large, small) = (open("a", "join", false), open("b", "count", false));
        large.set(900);
        small.set(90);
        assert_eq!((large.must_put_aside().unwrap(), small.must_put_aside().unwrap()), (0, 0));
        small.set(101);
        assert_eq!((budget.used_bytes(), small.room()), (1001, -1));
        assert_eq!(small.must_put_aside().unwrap(), 0);
        let refused = large.must_put_aside().unwrap_err().to_string();
        assert!(refused.contains("join: its state takes 900 bytes") && refused.contains("--memory"), "{refused}");
        drop(large);
        assert_eq!(budget.used_bytes(), 101);
        let spread = open("a", "join", true);
        spread.set(1000);
        assert_eq!(spread.must_put_aside().unwrap(), 301);
    }

    #[test]
    fn what_the_process_takes_beside_state_is_put_aside_for_but_ends_no_job() {
        let (mib, metrics) = (1 << 20, Arc::new(OperatorMetrics::default()));
        let budget = MemoryBudget::new(1000 * mib, Path::new("/nowhere"), || {});
        let open = |aside| budget.open(&JobId::new("a").unwrap(), "join", aside, &metrics);
        let (fixed, spread) = (open(false), open(true));
        fixed.set(300 << 20);
        spread.set(100 << 20);
        assert_eq!(spread.must_put_aside().unwrap(), 0);
        (0..20).for_each(|_| budget.note_resident(1250 * mib));
        assert!(budget.state_bytes_max() < 101 * mib, "{}", budget.state_bytes_max());
        assert!(spread.must_put_aside().unwrap() > 0);
        assert_eq!(fixed.must_put_aside().unwrap(), 0);
        budget.note_resident(600 * mib);
        assert!(budget.state_bytes_max() > 490 * mib);
    }
}
