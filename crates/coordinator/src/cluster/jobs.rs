//! The leader's duty: every job that the coordinators have agreed on and that has not ended is driven, by one driver.
//! A coordinator that does not lead drives nothing.

mod asked;
mod trail;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_consensus::Consensus;
use mainstem_core::cluster::messages::AttemptId;
use mainstem_core::cluster::state::{Command, JobEntry, Submission, Wish};
use mainstem_core::ids::{Generation, JobId, SavepointId};
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, failpoint};
use mainstem_state::CheckpointStore;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

pub use self::view::JobView;
use super::agreed::Agreed;
use super::deployer::ClusterDeployer;
use super::fleet::FleetService;
use super::proposer::Proposer;
use super::replicated_log::ReplicatedLog;
use crate::coordinator::JobCoordinator;
use crate::history::JobHistory;
use crate::job_store::JobHome;
use crate::meta_log::{JobEnd, Record};
use crate::spec::{Control, JobOutcome, JobSpec, JobStatus, SavepointRequest};

/// How often silence is looked for, and what could not be done is tried again.
const TICK: Duration = Duration::from_millis(250);

/// Wait before a job whose driver has ended before its time is driven again.
const DRIVE_AGAIN_MS: i64 = 500;

/// Wait before the checkpoints of a removed job that could not be deleted are tried again.
const DELETE_AGAIN_MS: i64 = 5_000;

/// Removed jobs whose checkpoints are deleted at a time.
const DELETIONS_MAX: usize = 4;

/// Makes what a job's driver needs out of what was submitted.
pub trait JobFactory: Send + Sync + 'static {
    /// The job's tasks, sources and committers.
    ///
    /// # Errors
    /// Why this version cannot run it.
    fn spec(&self, job: &JobId, submission: &Submission, history: Arc<JobHistory>) -> Result<JobSpec, String>;

    /// Where the job's driver notes what happens, for as long as this coordinator leads.
    fn history(&self, job: &JobId, submission: &Submission, clock: Arc<dyn Clock>) -> Arc<JobHistory> {
        let _ = (job, submission);
        JobHistory::new(clock)
    }
}

/// All jobs of a cluster, as one coordinator sees and, while it leads, drives them.
pub struct ClusterJobs<F> {
    consensus: Arc<Consensus<Agreed>>,
    proposer: Proposer,
    fleet: Arc<FleetService>,
    factory: F,
    clock: Arc<dyn Clock>,
    /// Where checkpoints lie: a directory, or the URL of an object store.
    store: PathBuf,
    driven: Mutex<BTreeMap<JobId, Driven>>,
    /// Jobs whose driver has ended before its time are not driven again before this; nor is what could not be deleted
    /// tried again.
    not_before: Mutex<BTreeMap<JobId, Timestamp>>,
    /// Deletions of what removed jobs have left, that run.
    deleting: Mutex<BTreeMap<JobId, JoinHandle<()>>>,
    /// What has happened to the jobs since this coordinator leads.
    histories: Mutex<BTreeMap<JobId, Arc<JobHistory>>>,
    /// Notes for the audit trail that are being agreed on.
    noting: Mutex<Option<JoinHandle<()>>>,
    /// Held by each job's driver: one that was told to end may still be about to propose something.
    turns: Mutex<BTreeMap<JobId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A job that is driven here.
struct Driven {
    task: JoinHandle<()>,
    control: mpsc::Sender<Control>,
    status: watch::Receiver<JobStatus>,
    /// What it was told last.
    wish: Wish,
    parallelism: u32,
    /// The attempt that was told to move to other workers.
    moving: Option<Generation>,
    /// The savepoint that it was asked for last.
    savepoint: Option<SavepointId>,
}

/// What the users want of a job that has not ended.
struct Wanted {
    wish: Wish,
    parallelism: u32,
    savepoint: Option<SavepointRequest>,
}

impl<F: JobFactory> ClusterJobs<F> {
    /// Drives nothing yet.
    pub fn new(
        consensus: Arc<Consensus<Agreed>>,
        fleet: Arc<FleetService>,
        factory: F,
        clock: Arc<dyn Clock>,
        store: PathBuf,
    ) -> Arc<ClusterJobs<F>> {
        Arc::new(ClusterJobs {
            proposer: Proposer { consensus: consensus.clone(), clock: clock.clone() },
            consensus,
            fleet,
            factory,
            clock,
            store,
            driven: Mutex::default(),
            not_before: Mutex::default(),
            deleting: Mutex::default(),
            histories: Mutex::default(),
            noting: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// Follows leadership and the agreed state for the life of the process.
    pub async fn run(self: Arc<Self>) {
        let mut leadership = self.consensus.leadership();
        let mut applied = self.consensus.applied();
        let mut workers = self.fleet.changes();
        let ended = Arc::new(Notify::new());
        let mut term = None;
        let mut take_stock_at = None;
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let now = leadership.borrow_and_update().clone();
            let leads = now.is_leader.then_some(now.term);
            if leads != term {
                term = leads;
                // First, so that what is dropped cannot stop anything on the workers: the next leader goes on with it. That may
                // be this coordinator again.
                self.fleet.stand_down(now.whom_to_ask());
                self.drop_all();
                if let Some(term) = term {
                    tracing::info!(term, "this coordinator leads");
                    let (fences, used) = self.consensus.read_stale(|state| (state.fences(), state.used_slots()));
                    self.fleet.lead(term, fences, used);
                    take_stock_at = Some(self.fleet.adopt_until());
                }
            } else if term.is_none() {
                self.fleet.stand_down(now.whom_to_ask());
            }
            if term.is_some() {
                self.reconcile(&ended);
                self.move_drained();
                self.delete_removed();
                if take_stock_at.take_if(|at| *at <= self.clock.monotonic()).is_some() {
                    self.note_missing();
                }
                self.note_news();
            }
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { break },
                changed = applied.changed() => if changed.is_err() { break },
                // The sender lives in the fleet.
                _ = workers.changed() => {}
                _ = ticks.tick() => self.fleet.tick(),
                () = ended.notified() => {}
            }
        }
        self.drop_all();
    }

    /// Starts what is not driven and tells what is driven what has changed.
    fn reconcile(self: &Arc<Self>, ended: &Arc<Notify>) {
        let now = self.clock.monotonic();
        let active = self.consensus.read_stale(|state| {
            let wanted = |entry: &JobEntry| Wanted {
                wish: entry.wish,
                parallelism: entry.submission.parallelism,
                savepoint: entry.savepoint.clone(),
            };
            let active = state.jobs.iter().filter(|(_, entry)| entry.active);
            active.map(|(job, entry)| (job.clone(), wanted(entry))).collect::<Vec<_>>()
        });
        let mut driven = self.lock();
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, _) in driven.extract_if(.., |_, driven| driven.task.is_finished()) {
            not_before.insert(job, now.plus_ms(DRIVE_AGAIN_MS));
        }
        not_before.retain(|_, at| *at > now);
        for (job, Wanted { wish, parallelism, savepoint }) in active {
            let Some(known) = driven.get_mut(&job) else {
                if !not_before.contains_key(&job) {
                    let started = self.start(job.clone(), parallelism, ended.clone());
                    driven.insert(job, started);
                }
                continue;
            };
            known.ask_for(savepoint);
            if known.parallelism != parallelism {
                failpoint::hit(failpoint::RESCALE_AGREED);
                if known.control.try_send(Control::Rescale(parallelism)).is_ok() {
                    known.parallelism = parallelism;
                }
            }
            if known.wish != wish && known.tell(wish) {
                known.wish = wish;
            }
        }
    }

    /// Moves jobs away from workers that are drained: a last checkpoint, and on from it where there is room.
    fn move_drained(&self) {
        let attempts = self.fleet.to_move();
        let mut driven = self.lock();
        for AttemptId { job, generation } in attempts {
            let Some(known) = driven.get_mut(&job).filter(|known| known.moving != Some(generation)) else { continue };
            if known.control.try_send(Control::Rescale(known.parallelism)).is_ok() {
                known.moving = Some(generation);
            }
        }
    }

    fn start(self: &Arc<Self>, job: JobId, parallelism: u32, ended: Arc<Notify>) -> Driven {
        let (control, controls) = mpsc::channel(16);
        let (status_sender, status) = watch::channel(JobStatus::default());
        let jobs = self.clone();
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(job.clone()).or_default().clone()
        };
        let task = tokio::spawn(async move {
            let _turn = turn.lock_owned().await;
            if let Some(entry) = jobs.settled(&job).await {
                let submissions = entry.submissions;
                let end = jobs.drive(job.clone(), entry, controls, status_sender).await;
                jobs.conclude(&job, submissions, end).await;
            }
            jobs.fleet.forget_counters(&job);
            ended.notify_one();
        });
        Driven { task, control, status, wish: Wish::Run, parallelism, moving: None, savepoint: None }
    }

    /// The job with all that drivers of before have proposed: what is on its way is in front of what is proposed now.
    /// None where that is not known, or nothing is left to drive.
    async fn settled(&self, job: &JobId) -> Option<JobEntry> {
        self.proposer.propose(Command::Settle).await.ok()?.ok()?;
        self.consensus.read_stale(|state| state.jobs.get(job).filter(|entry| entry.active).cloned())
    }

    async fn drive(
        &self,
        job: JobId,
        entry: JobEntry,
        controls: mpsc::Receiver<Control>,
        status: watch::Sender<JobStatus>,
    ) -> Ended {
        let spec = match self.factory.spec(&job, &entry.submission, self.history_of(&job, &entry.submission)) {
            Ok(spec) => spec,
            Err(reason) => return Ended::Failed(reason),
        };
        let checkpoints = match CheckpointStore::open(&self.store) {
            Ok(checkpoints) => Arc::new(checkpoints),
            // Another coordinator may reach it.
            Err(error) => return Ended::Lost(error.to_string()),
        };
        let (lost_sender, mut lost) = mpsc::channel(1);
        let deployer = ClusterDeployer {
            job: job.clone(),
            graph_json: spec.graph_json.clone(),
            key_groups: spec.key_groups,
            working_dir: entry.submission.working_dir.clone(),
            store: self.store.display().to_string(),
            standbys: spec.options.standbys,
            tasks: spec.tasks.clone(),
            fleet: self.fleet.clone(),
            status: status.clone(),
        };
        let generation_floor = entry.generation_floor;
        let log = ReplicatedLog::new(job, self.proposer.clone(), entry.record, lost_sender);
        let home = JobHome { log: Box::new(log), checkpoints, generation_floor, lock: None };
        let run = JobCoordinator::new(spec, home, self.clock.clone()).run(deployer, controls, status);
        tokio::select! {
            outcome = run => match outcome {
                JobOutcome::Failed(failure) => Ended::Failed(failure.message),
                JobOutcome::Finished | JobOutcome::AlreadyFinished | JobOutcome::Stopped => Ended::Done,
            },
            Some(reason) = lost.recv() => Ended::Lost(reason),
        }
    }

    /// Sees to it that what the coordinators have agreed on says how a job's drive ended.
    async fn conclude(&self, job: &JobId, submissions: u64, ended: Ended) {
        match ended {
            Ended::Done => tracing::info!(%job, "job ended"),
            Ended::Lost(reason) => {
                tracing::warn!(%job, reason, "the job's driver starts again");
                // What runs of it goes on.
                return;
            }
            Ended::Failed(reason) => {
                tracing::error!(%job, reason, "job failed");
                // Nothing to do where the driver has recorded it, or another leader will.
                let entry = self.settled(job).await;
                if let Some(entry) = entry.filter(|entry| entry.submissions == submissions) {
                    let (generation, at) = (entry.record.generation, self.clock.now());
                    let (end, counters) = (JobEnd::Failed { reason }, self.fleet.final_counters(job));
                    let record = Record::Ended { generation, end, at, counters };
                    let command = Command::Record { job: job.clone(), record: Box::new(record) };
                    let _ = self.proposer.propose(command).await;
                }
            }
        }
        // Also what a leader before this one has left running, where this one did not get so far as to go on with it.
        let newest = self.consensus.read_stale(|state| state.jobs.get(job).map(|entry| entry.record.generation));
        self.fleet.retire(job, newest.unwrap_or_default().next());
    }

    /// Deletes the checkpoints of jobs that are known no more. Their names are taken until that is done and agreed on, so
    /// nothing of a later job of the same name is there; and what an older coordinator may still delete is of older
    /// attempts alone.
    fn delete_removed(self: &Arc<Self>) {
        let removed = self.consensus.read_stale(|state| state.removed.clone());
        let now = self.clock.monotonic();
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deleting = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, _) in deleting.extract_if(.., |_, task| task.is_finished()) {
            if removed.contains_key(&job) {
                not_before.insert(job, now.plus_ms(DELETE_AGAIN_MS));
            }
        }
        let ready: Vec<_> = removed
            .into_iter()
            .filter(|(job, _)| !deleting.contains_key(job) && !not_before.contains_key(job))
            .take(DELETIONS_MAX.saturating_sub(deleting.len()))
            .collect();
        for (job, last) in ready {
            self.fleet.forget(&job);
            let (jobs, name) = (self.clone(), job.clone());
            let delete = async move {
                let deleted = match CheckpointStore::open(&jobs.store) {
                    Ok(store) => store.delete_up_to(&name, last).await,
                    Err(error) => Err(error),
                };
                match deleted {
                    // Where this is not heard of, it is done once more.
                    Ok(()) => _ = jobs.proposer.propose(Command::Removed { job: name }).await,
                    Err(error) => tracing::warn!(job = %name, %error, "checkpoints of a removed job cannot be deleted"),
                }
            };
            deleting.insert(job, tokio::spawn(delete));
        }
    }

    /// Of a job that is driven here; lasts beyond a driver, so that why it ended can be seen.
    fn history_of(&self, job: &JobId, submission: &Submission) -> Arc<JobHistory> {
        let known = self.consensus.read_stale(|state| state.jobs.keys().cloned().collect::<BTreeSet<_>>());
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.retain(|job, _| known.contains(job));
        let begin = || self.factory.history(job, submission, self.clock.clone());
        histories.entry(job.clone()).or_insert_with(begin).clone()
    }

    fn drop_all(&self) {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for (_, driven) in std::mem::take(&mut *self.lock()) {
            driven.task.abort();
        }
        if let Some(noting) = self.noting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            noting.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Driven>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the drive of a job came to its end.
enum Ended {
    /// As it should; recorded.
    Done,
    /// For good, with the cause.
    Failed(String),
    /// Whether the last record was taken is not known; another driver must find out.
    Lost(String),
}

impl Driven {
    /// Hands on a savepoint that the driver has not heard of yet. It is one at a time: the one before has its outcome.
    fn ask_for(&mut self, savepoint: Option<SavepointRequest>) {
        let Some(request) = savepoint.filter(|request| self.savepoint.as_ref() != Some(&request.id)) else { return };
        let id = request.id.clone();
        if self.control.try_send(Control::Savepoint(request)).is_ok() {
            self.savepoint = Some(id);
        }
    }

    fn tell(&self, wish: Wish) -> bool {
        let control = match wish {
            Wish::Run => return true,
            Wish::Stop => Control::Stop,
            Wish::Cancel => Control::Cancel,
        };
        self.control.try_send(control).is_ok()
    }
}
