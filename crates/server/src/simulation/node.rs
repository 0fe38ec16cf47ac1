//! A host with its process: the real coordinator or the real worker on a runtime of its own, whose clock stands still unless
//! the simulation moves it. To kill the process is to drop the runtime.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mainstem_consensus::simulation::Disk;
use mainstem_consensus::{Options, Timing};
use mainstem_core::cluster::FleetConfig;
use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::time::Timestamp;
use mainstem_engine::MemoryBudget;
use mainstem_net::Transport;
use mainstem_rt::{Clock, Sleep};
use mainstem_state::LocalCopies;
use mainstem_worker::{Counters, WorkerOptions};
use rand::Rng;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checks::Witness;
use super::network::Network;
use super::weather::{Host, Weather};
use crate::cluster::CoordinatorNode;

/// The name of the cluster.
pub(super) const CLUSTER: &str = "simulated";
/// Where the checkpoints lie, for all nodes.
pub(super) const STATE_DIRECTORY: &str = "simulated-state";
/// Where savepoints go, for all nodes: a bucket of the same store.
pub(super) const SAVEPOINT_BUCKET: &str = "simulated-savepoints";
/// Time of day when a run begins: 2026-01-01 00:00:00 UTC, in ms.
const FIRST_DAY_MS: i64 = 1_767_225_600_000;
/// Bytes of local copies on each worker: more than there will be.
const COPIES_BYTES_MAX: u64 = 64 << 20;
/// How long a sync takes.
const DISK_LATENCY: Duration = Duration::from_millis(2);
/// Slots of each worker.
const SLOTS: u32 = 3;

/// What all hosts stand in.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) weather: Weather,
    pub(super) network: Network,
    pub(super) witness: Witness,
}

/// A host. Its disk outlives its process.
pub(super) struct Machine {
    host: Host,
    around: Surroundings,
    process: Option<Process>,
    disk: Disk,
    /// The id of a coordinator.
    id: u64,
    /// Its disk is lost: nothing is started on it before it gets another one.
    is_lost: bool,
    /// By how much its time of day is wrong, in ms.
    skew_ms: Arc<AtomicI64>,
    /// Where a worker keeps local copies of state, on the real disk; none: it keeps none.
    copies: Option<TempDir>,
    /// How many processes there have been.
    lives: u64,
    /// It does not run before this.
    pub(super) stalled_until_ms: u64,
    /// A process is started then, where none runs.
    pub(super) start_at_ms: Option<u64>,
}

/// A process that runs.
struct Process {
    runtime: Runtime,
    root: JoinHandle<anyhow::Result<()>>,
    began: Instant,
    began_ms: u64,
}

impl Machine {
    /// A host on which nothing runs yet.
    pub(super) fn new(host: Host, around: Surroundings, keeps_copies: bool) -> Machine {
        let keeps_copies = keeps_copies && !host.is_coordinator();
        Machine {
            host,
            around,
            process: None,
            disk: Disk::new(DISK_LATENCY),
            id: host.0 as u64 + 1,
            is_lost: false,
            skew_ms: Arc::default(),
            copies: keeps_copies.then(|| tempfile::tempdir().expect("a directory for copies")),
            lives: 0,
            stalled_until_ms: 0,
            start_at_ms: Some(0),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Lets its process run up to this time; starts it where that is due.
    pub(super) fn step(&mut self, now_ms: u64) {
        if self.process.is_none() && !self.is_lost && self.start_at_ms.is_some_and(|at| at <= now_ms) {
            self.start(now_ms);
        }
        if self.stalled_until_ms > now_ms {
            return;
        }
        let Some(process) = &self.process else { return };
        let until = process.began + Duration::from_millis(now_ms - process.began_ms);
        let was_stalled = std::mem::take(&mut self.stalled_until_ms) > 0;
        process.runtime.block_on(async {
            if was_stalled {
                // Its clock went on while it did not.
                tokio::time::advance(until.saturating_duration_since(Instant::now())).await;
            }
            tokio::time::sleep_until(until).await;
        });
        if process.root.is_finished() {
            let Some(process) = self.process.take() else { return };
            let ended = process.runtime.block_on(process.root);
            let reason = match ended {
                Ok(Ok(())) => "its work is done".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(error) => error.to_string(),
            };
            self.around.weather.note(&format!("{} ended by itself: {reason}", self.host));
            self.around.weather.count("processes that ended by themselves");
            self.around.witness.forget(self.host);
            self.disk = self.disk.after_kill();
            drop(process.runtime);
            self.start_at_ms = Some(now_ms + 500);
        }
    }

    /// Ends its process in the midst of whatever it does; the next one is started then.
    pub(super) fn kill(&mut self, start_at_ms: u64) {
        self.around.witness.forget(self.host);
        // First, so that nothing that is dropped can tidy up.
        self.disk = self.disk.after_kill();
        self.process = None;
        self.start_at_ms = Some(start_at_ms);
        self.stalled_until_ms = 0;
    }

    /// Its disk is lost, and its process ends. It gets another one by [`Machine::replace`].
    pub(super) fn lose_disk(&mut self) {
        self.kill(0);
        self.is_lost = true;
    }

    /// Ends its process; a new coordinator with this id and an empty disk is started in its place then.
    pub(super) fn replace(&mut self, id: u64, start_at_ms: u64) {
        self.kill(start_at_ms);
        self.disk = Disk::new(DISK_LATENCY);
        (self.id, self.is_lost) = (id, false);
    }

    /// Takes its power away: nobody is told, and what was not synced is lost.
    pub(super) fn cut_power(&mut self, start_at_ms: u64) {
        self.around.network.set_dark(self.host, true);
        self.around.witness.forget(self.host);
        let seed = self.around.weather.lock().random.random();
        let disk = self.disk.after_power_cut(seed);
        self.process = None;
        self.disk = disk;
        self.spoil_copies();
        self.start_at_ms = Some(start_at_ms);
        self.stalled_until_ms = 0;
    }

    /// Nobody syncs copies: without power some are lost, and some are cut short.
    fn spoil_copies(&self) {
        let Some(directory) = &self.copies else { return };
        let mut copies = Vec::new();
        files_below(directory.path(), &mut copies);
        copies.sort();
        for path in copies.iter().filter(|path| path.extension().is_some_and(|extension| extension == "state")) {
            let (fate, share) = {
                let random = &mut self.around.weather.lock().random;
                (random.random_range(0..4), random.random_range(0..100))
            };
            match fate {
                0 => std::fs::remove_file(path).expect("the test's own directory"),
                1 => {
                    let file = OpenOptions::new().write(true).open(path).expect("the test's own directory");
                    let bytes = file.metadata().expect("the test's own directory").len();
                    file.set_len(bytes * share / 100).expect("the test's own directory");
                }
                _ => continue,
            }
            self.around.weather.count("local copies that a power cut spoilt");
        }
    }

    /// From here on its disk is full, or has room again.
    pub(super) fn set_disk_full(&self, is_full: bool) {
        self.disk.set_full(is_full);
    }

    /// Sets its time of day off by so much.
    pub(super) fn set_clock(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    fn start(&mut self, now_ms: u64) {
        self.start_at_ms = None;
        self.lives += 1;
        self.around.network.set_dark(self.host, false);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime on this thread");
        let began = runtime.block_on(async { Instant::now() });
        let clock = SimulatedClock { began, began_ms: now_ms, skew_ms: self.skew_ms.clone() };
        let root = match self.host.is_coordinator() {
            true => self.coordinator(&runtime, clock),
            false => self.worker(&runtime, clock),
        };
        self.process = Some(Process { runtime, root, began, began_ms: now_ms });
    }

    fn transport(&self) -> Transport {
        Transport::over(self.around.network.seen_from(self.host))
    }

    fn coordinator(&self, runtime: &Runtime, clock: SimulatedClock) -> JoinHandle<anyhow::Result<()>> {
        let (host, witness, transport) = (self.host, self.around.witness.clone(), self.transport());
        let members: BTreeMap<u64, String> = (1..).zip(Host::coordinators().map(Host::address)).collect();
        let mut options = Options::new(self.id, "", members, CLUSTER, transport.clone());
        options.disk = Some(self.disk.clone());
        // Small, so that snapshots are taken and installed.
        options.snapshot_after_entries = 40;
        // openraft draws between the two by chance of its own, so they leave it none.
        let election_ms = self.around.weather.lock().random.random_range(1000..1300) & !1;
        options.timing = Timing {
            election_min: Duration::from_millis(election_ms - 1),
            election_max: Duration::from_millis(election_ms),
            ..Timing::default()
        };
        runtime.spawn(async move {
            let listener = transport.listen(&host.address()).await?.of_cluster(CLUSTER);
            let (fleet, store) = (FleetConfig::default(), PathBuf::from(STATE_DIRECTORY));
            let node = CoordinatorNode::start(options, fleet, Arc::new(clock), store, None).await?;
            witness.watch(host, node.consensus.clone());
            node.run(listener).await.map(|_| ())
        })
    }

    fn worker(&self, runtime: &Runtime, clock: SimulatedClock) -> JoinHandle<anyhow::Result<()>> {
        let (host, transport) = (self.host, self.transport());
        let options = WorkerOptions {
            worker: WorkerId(format!("{host}@{}#{}", host.address(), self.lives)),
            cluster: CLUSTER.to_owned(),
            coordinators: Host::coordinators().map(Host::address).collect(),
            advertise: None,
            slots: SLOTS,
            compress: self.lives.is_multiple_of(2),
            transport: transport.clone(),
            copies: self.copies.as_ref().map(|directory| {
                let opened = LocalCopies::open(directory.path(), COPIES_BYTES_MAX).expect("the test's own directory");
                opened.expect("the process before has ended")
            }),
            memory: MemoryBudget::new(1 << 30, &std::env::temp_dir(), || {}),
            clock: Arc::new(clock),
            data_runtime: runtime.handle().clone(),
            counters: Counters::default(),
        };
        runtime.spawn(async move {
            let listener = transport.listen(&host.address()).await?.of_cluster(CLUSTER);
            mainstem_worker::run(options, listener).await.map_err(anyhow::Error::from)
        })
    }
}

/// All files below a directory.
fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the test's own directory") {
        let path = entry.expect("the test's own directory").path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A host's clock. The time of day may be wrong and step; timers do not go by it.
struct SimulatedClock {
    began: Instant,
    began_ms: u64,
    skew_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let began_ms = FIRST_DAY_MS.saturating_add_unsigned(self.began_ms);
        Timestamp(began_ms + self.elapsed_ms() + self.skew_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Timestamp {
        Timestamp(self.elapsed_ms())
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        let wait_ms = u64::try_from(deadline.since_ms(self.monotonic())).unwrap_or(0);
        Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms)))
    }
}
