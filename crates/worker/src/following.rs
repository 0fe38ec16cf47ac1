//! Stands by for slots that run on other workers: fetches the state files of each complete epoch into the local copies, so
//! that an attempt that is placed here finds them. What is to be there is said by the leader, all of it each time; nothing
//! waits for it, and what cannot be fetched is told and read from the store when it is needed.
//!
//! Copies that are out of use go with the files in the store, as all copies do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_core::cluster::messages::{FollowOrder, Followed, FollowedSlot};
use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_core::protocol::StateHandle;
use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use mainstem_rt::process_number;
use mainstem_state::{CheckpointStore, Copying, StateError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Files that are fetched at a time.
const FETCHES_MAX: usize = 4;
/// Bytes a second that are fetched at most, over all files, so that rows between workers have the network.
const BYTES_PER_SECOND_MAX: u64 = 64 << 20;
/// How often copies that are out of use are looked for while there is nothing to fetch.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What this worker follows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Following {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// The newest order of each job, of which no newer attempt is known.
    orders: BTreeMap<JobId, Order>,
    fences: BTreeMap<JobId, Generation>,
    /// Stores in which something was followed, by their directory.
    stores: BTreeMap<String, Arc<CheckpointStore>>,
    /// Whether the last file had no room among the copies, which is said once in a row.
    is_full: bool,
}

struct Order {
    order: FollowOrder,
    store: Arc<CheckpointStore>,
    /// The newest epoch of which each slot has had every file.
    reached: BTreeMap<u32, Epoch>,
    /// Files of this order that could not be fetched.
    given_up: BTreeSet<String>,
}

/// A file to fetch.
struct Fetch {
    job: JobId,
    store: Arc<CheckpointStore>,
    handle: StateHandle,
}

impl Following {
    /// Takes an order, unless a newer one or a newer attempt is known.
    pub(crate) fn follow(&self, order: FollowOrder, store: Arc<CheckpointStore>) {
        let (job, generation) = (order.attempt.job.clone(), order.attempt.generation);
        let mut inner = self.lock();
        let newest = |order: &FollowOrder| (order.attempt.generation, order.epoch);
        let is_old = inner.orders.get(&job).is_some_and(|known| newest(&known.order) > newest(&order));
        let is_fenced = inner.fences.get(&job).is_some_and(|least| generation < *least);
        if is_old || is_fenced {
            tracing::debug!(%job, %generation, epoch = %order.epoch, "an old order to stand by is not followed");
            return;
        }
        let before = inner.orders.remove(&job);
        let is_same = |before: &Order| before.order.slots.keys().eq(order.slots.keys());
        if !before.as_ref().is_some_and(is_same) {
            let slots: Vec<u32> = order.slots.keys().copied().collect();
            tracing::info!(%job, %generation, ?slots, "stands by for slots of other workers");
        }
        if order.slots.is_empty() {
            return;
        }
        let mut reached = before.map(Order::into_reached).unwrap_or_default();
        reached.retain(|slot, _| order.slots.contains_key(slot));
        inner.stores.insert(order.store.clone(), store.clone());
        inner.orders.insert(job, Order { order, store, reached, given_up: BTreeSet::new() });
        drop(inner);
        self.shared.changed.notify_one();
    }

    /// Nothing of the job below the generation counts any more.
    pub(crate) fn fence(&self, job: &JobId, generation: Generation) {
        let mut inner = self.lock();
        let least = inner.fences.entry(job.clone()).or_default();
        *least = generation.max(*least);
        let least = *least;
        if inner.orders.get(job).is_some_and(|known| known.order.attempt.generation < least) {
            inner.orders.remove(job);
        }
    }

    /// How far it is.
    pub(crate) fn report(&self) -> Vec<Followed> {
        self.lock().orders.values_mut().map(Order::report).collect()
    }

    /// Fetches what is missing, for the life of the worker.
    pub(crate) async fn run(self) {
        let mut free_at = Instant::now();
        loop {
            let mut fetches = JoinSet::new();
            for fetch in self.missing() {
                if fetches.len() >= FETCHES_MAX {
                    fetches.join_next().await;
                }
                tokio::time::sleep_until(free_at).await;
                let takes = Duration::from_secs_f64(fetch.handle.size as f64 / BYTES_PER_SECOND_MAX as f64);
                free_at = Instant::now() + takes;
                fetches.spawn(self.clone().fetch(fetch));
            }
            while fetches.join_next().await.is_some() {}
            let stores: Vec<_> = self.lock().stores.values().cloned().collect();
            for store in stores {
                store.sweep_copies().await;
            }
            // Too long a wait is as good as a change.
            let _ = tokio::time::timeout(SWEEP_EVERY, self.shared.changed.notified()).await;
        }
    }

    /// The files of all orders that are not here, each once.
    fn missing(&self) -> Vec<Fetch> {
        let inner = self.lock();
        let mut missing = Vec::new();
        for (job, order) in &inner.orders {
            let all = order.order.slots.values().flatten();
            let wanted: BTreeMap<&str, &StateHandle> = all.map(|handle| (handle.path.as_str(), handle)).collect();
            for handle in wanted.into_values().filter(|handle| order.lacks(handle)) {
                missing.push(Fetch { job: job.clone(), store: order.store.clone(), handle: handle.clone() });
            }
        }
        missing
    }

    async fn fetch(self, fetch: Fetch) {
        let Fetch { job, store, handle } = fetch;
        let mut backoff = Backoff::new(RetryPolicy::OPERATION);
        while self.is_wanted(&job, &handle) {
            let error = match store.fetch_copy(&job, &handle).await {
                Ok(Copying::There) => {
                    self.lock().is_full = false;
                    return;
                }
                Ok(Copying::NoRoom) => return self.has_no_room(&job, &handle),
                Err(error) => error,
            };
            // Tries of one file follow each other, so the time does not matter.
            let random = u64::from(process_number()).wrapping_mul(handle.size | 1);
            let wait = backoff.on_failure(Timestamp(0), random).filter(|_| may_pass(&error));
            let path = &handle.path;
            let Some(wait_ms) = wait else {
                tracing::warn!(%job, path, %error, "a state file of another worker cannot be followed");
                self.give_up(&job, path);
                return;
            };
            tracing::debug!(%job, path, %error, wait_ms, "cannot follow a state file, trying again");
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Whether the newest order still asks for the file.
    fn is_wanted(&self, job: &JobId, handle: &StateHandle) -> bool {
        let inner = self.lock();
        let Some(order) = inner.orders.get(job) else { return false };
        order.order.slots.values().flatten().any(|wanted| wanted.path == handle.path) && order.lacks(handle)
    }

    fn has_no_room(&self, job: &JobId, handle: &StateHandle) {
        self.give_up(job, &handle.path);
        if !std::mem::replace(&mut self.lock().is_full, true) {
            let (path, bytes) = (&handle.path, handle.size);
            tracing::warn!(
                %job,
                path,
                bytes,
                "no room among the local copies for state that this worker stands by for; raise --copies-max"
            );
        }
    }

    fn give_up(&self, job: &JobId, path: &str) {
        if let Some(order) = self.lock().orders.get_mut(job) {
            order.given_up.insert(path.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Whether a file is to be fetched.
    fn lacks(&self, handle: &StateHandle) -> bool {
        !self.given_up.contains(&handle.path) && !self.store.has_copy(&self.order.attempt.job, handle)
    }

    /// How far it has come, at its end.
    fn into_reached(mut self) -> BTreeMap<u32, Epoch> {
        self.report();
        self.reached
    }

    fn report(&mut self) -> Followed {
        let Order { order, store, reached, .. } = self;
        let mut slots = BTreeMap::new();
        for (slot, files) in &order.slots {
            let mut followed = FollowedSlot::default();
            for handle in files.iter().filter(|handle| !store.has_copy(&order.attempt.job, handle)) {
                followed.files_waiting += 1;
                followed.bytes_waiting += handle.size;
            }
            if followed.files_waiting == 0 {
                reached.insert(*slot, order.epoch);
            }
            followed.epoch = reached.get(slot).copied();
            slots.insert(*slot, followed);
        }
        Followed { attempt: order.attempt.clone(), slots }
    }
}

/// Whether another try can help: a file that is gone was of a checkpoint that is gone, and the next order says so.
fn may_pass(error: &StateError) -> bool {
    error.is_retryable() && !error.is_damage()
}

#[cfg(test)]
mod tests;
