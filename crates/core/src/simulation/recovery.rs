//! What comes before an attempt runs, step by step: a checkpoint that can be read, a new generation, what is complete
//! and not visible yet, left-overs, slots, orders. Mirrors the coordinator's own recovery and deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::driver::{Driver, Halt, Stage, Then, failure};
use super::plan::SOURCE;
use super::store::{Effect, Manifest};
use super::world::World;
use crate::bug::{Bug, is_put_back};
use crate::cluster::messages::{AttemptOrder, ToWorker, WorkerId};
use crate::ids::{Epoch, JobId};
use crate::job_record::{EpochRecord, JobRecord, Record};
use crate::protocol::{Failure, SplitState};
use crate::time::Timestamp;

/// Workers have so long to build their subtasks.
const DEPLOY_WITHIN_MS: i64 = 400;

/// The newest checkpoint that can be read.
pub(super) struct Found {
    pub(super) manifest: Option<Rc<Manifest>>,
    pub(super) retained: BTreeMap<Epoch, BTreeSet<String>>,
    pub(super) unreadable: BTreeMap<Epoch, BTreeSet<String>>,
    damaged: bool,
}

impl Found {
    pub(super) fn restored(&self) -> Epoch {
        self.manifest.as_ref().map_or(Epoch(0), |manifest| manifest.barrier.epoch)
    }
}

/// An attempt that is being set up.
pub(super) struct Recovered {
    pub(super) found: Found,
    cleaned: bool,
    orphans_gone: bool,
    fenced: bool,
    pub(super) first_epoch_now: Timestamp,
    pub(super) deployed: Option<Deployed>,
}

/// An attempt whose orders are sent.
pub(super) struct Deployed {
    pub(super) order: AttemptOrder,
    pub(super) outboxes: BTreeMap<WorkerId, u64>,
    missing: BTreeSet<WorkerId>,
    deadline: i64,
}

impl Recovered {
    pub(super) fn new(found: Found) -> Recovered {
        let (cleaned, orphans_gone, fenced, deployed) = (false, found.damaged, false, None);
        // An unreadable manifest says not what it names.
        let orphans_gone = orphans_gone && !is_put_back(Bug::CleanUpBesideDamage);
        Recovered { found, cleaned, orphans_gone, fenced, first_epoch_now: Timestamp(0), deployed }
    }

    /// What is done to the outside next, before the attempt is deployed.
    pub(super) fn next_effect(&self, job: &JobId, log: &JobRecord) -> Option<Effect> {
        let below = log.generation;
        let open = log.epochs.get(&log.committed.next());
        if let Some(EpochRecord { epoch, committables, .. }) = open {
            return Some(Effect::Publish { job: job.clone(), epoch: *epoch, committables: committables.clone() });
        }
        if !self.cleaned {
            return Some(Effect::CleanUp { job: job.clone(), below });
        }
        let named = || Rc::new(self.found.retained.values().flatten().cloned().collect());
        (!self.orphans_gone).then(|| Effect::RemoveOrphans { job: job.clone(), named: named(), below })
    }
}

impl World {
    pub(super) fn find_checkpoint(&mut self, driver: &Driver) -> Result<Found, Failure> {
        let (retained, unreadable) = (BTreeMap::new(), BTreeMap::new());
        let mut found = Found { manifest: None, retained, unreadable, damaged: false };
        for record in driver.log.epochs.values().rev() {
            let path = &record.manifest.path;
            match self.store.manifest(path) {
                Some(manifest) => {
                    let mut objects = manifest.state_paths();
                    objects.insert(path.clone());
                    found.retained.insert(record.epoch, objects);
                    found.manifest.get_or_insert(manifest);
                }
                None => {
                    found.unreadable.insert(record.epoch, BTreeSet::from([path.clone()]));
                    found.damaged = true;
                }
            }
        }
        if found.manifest.is_none() && !driver.log.can_run_again_after(Epoch(0)) {
            let message = "no checkpoint of the job can be read".to_owned();
            return Err(Failure { message, retryable: false, consequence: false });
        }
        let restored = found.restored();
        found.unreadable.retain(|epoch, _| *epoch < restored);
        Ok(found)
    }

    pub(super) fn recover_step(&mut self, at: usize, driver: &mut Driver) {
        if let Some(halt) = driver.attend(self.now) {
            return self.end_attempt(at, driver, Err(halt));
        }
        let Stage::Recovering(recovered) = &mut driver.stage else { return };
        if let Some(effect) = recovered.next_effect(&driver.job, &driver.log) {
            if !matches!(effect, Effect::Publish { .. }) || !is_put_back(Bug::RecoveryDoesNotPublish) {
                self.apply(&effect);
            }
            // It seems to have failed, and has not.
            if self.faults.store && self.random.one_in(8) {
                return;
            }
            let Stage::Recovering(recovered) = &mut driver.stage else { return };
            let generation = driver.log.generation;
            match effect {
                Effect::Publish { epoch, .. } => {
                    self.saw("a recovery published what was complete");
                    let committed = Record::EpochCommitted { generation, epoch };
                    self.record(at, driver, committed, Then::GoOn);
                }
                Effect::CleanUp { .. } => recovered.cleaned = true,
                _ => recovered.orphans_gone = true,
            }
            return;
        }
        if recovered.found.manifest.is_none() && !driver.log.initial_splits.contains_key(&SOURCE) {
            let (generation, splits) = (driver.log.generation, self.plans[&driver.job].source_splits());
            return self.record(
                at,
                driver,
                Record::SplitsDiscovered { generation, operator: SOURCE, splits },
                Then::GoOn,
            );
        }
        let first = driver.log.epochs.range(recovered.found.restored().next()..).next();
        recovered.first_epoch_now = match (&recovered.found.manifest, first) {
            (Some(manifest), _) => manifest.barrier.next_epoch_now,
            (None, Some((_, first))) => first.epoch_now,
            (None, None) => Timestamp(self.now + self.coordinators[at].skew_ms),
        };
        if let Stage::Recovering(recovered) = std::mem::replace(&mut driver.stage, Stage::Over) {
            driver.stage = Stage::Placing(recovered);
        }
    }

    /// The splits that an attempt starts with.
    pub(super) fn initial_splits(driver: &Driver, found: &Found) -> Vec<SplitState> {
        if let Some(manifest) = &found.manifest {
            return manifest.splits.clone();
        }
        let unread = |split: &crate::protocol::SourceSplit| SplitState { split: split.clone(), progress: None };
        driver.log.initial_splits[&SOURCE].iter().map(unread).collect()
    }

    pub(super) fn place_step(&mut self, at: usize, driver: &mut Driver) {
        if let Some(halt) = driver.attend(self.now) {
            return self.end_attempt(at, driver, Err(halt));
        }
        let attempt = driver.attempt();
        let Stage::Placing(recovered) = &mut driver.stage else { return };
        if !recovered.fenced {
            recovered.fenced = true;
            return self.fence(at, &attempt.job, attempt.generation);
        }
        let Some(deployed) = &mut recovered.deployed else {
            return self.deploy(at, driver);
        };
        while let Some((worker, result)) = driver.deployed.pop_front() {
            match result {
                Ok(()) => _ = deployed.missing.remove(&worker),
                Err(failure) => return self.end_attempt(at, driver, Err(Halt::Failed(failure))),
            }
        }
        if deployed.missing.is_empty() {
            return self.start_running(driver);
        }
        if deployed.deadline < self.now {
            let late = failure("workers have not started their subtasks in time");
            self.end_attempt(at, driver, Err(Halt::Failed(late)));
        }
    }

    /// Takes slots, where there are enough, and sends each worker its order.
    fn deploy(&mut self, at: usize, driver: &mut Driver) {
        let attempt = driver.attempt();
        let slots = self.place(at, &attempt, driver.parallelism);
        driver.short = slots.is_none();
        let (Some(slots), Stage::Placing(recovered)) = (slots, &mut driver.stage) else { return };
        let found = &recovered.found;
        let order = AttemptOrder {
            attempt: attempt.clone(),
            graph_json: String::new(),
            parallelism: driver.parallelism,
            key_groups: super::plan::KEY_GROUPS,
            first_epoch_now: recovered.first_epoch_now,
            replay_until: driver.log.epochs.range(found.restored().next()..).next_back().map(|(epoch, _)| *epoch),
            restore: found.manifest.as_ref().map(|manifest| manifest.operators.clone()).unwrap_or_default(),
            working_dir: String::new(),
            store: String::new(),
            aligned_timeout_ms: None,
            markers: crate::latency::MarkerOptions::default(),
            slots,
        };
        let workers: BTreeSet<WorkerId> = order.slots.iter().map(|slot| slot.worker.clone()).collect();
        let leading = self.leading(at);
        leading.routes.insert(attempt.clone(), order.slots.clone());
        let link = |worker: &WorkerId| Some((worker.clone(), *leading.links.get(worker)?));
        let outboxes: BTreeMap<WorkerId, u64> = workers.iter().filter_map(link).collect();
        let all = outboxes.len() == workers.len();
        let deadline = self.now + DEPLOY_WITHIN_MS;
        recovered.deployed =
            Some(Deployed { order: order.clone(), outboxes: outboxes.clone(), missing: workers, deadline });
        if !all {
            return self.end_attempt(at, driver, Err(Halt::Failed(failure("a worker is lost"))));
        }
        self.fence(at, &attempt.job, attempt.generation);
        outboxes.into_values().for_each(|link| self.send(link, ToWorker::Deploy(Box::new(order.clone()))));
    }
}
