//! One run: a cluster, a user, a phase in which things go wrong and only safety is asked for, and a phase in which nothing
//! does and the jobs must finish.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstem_coordinator::JobEnd;
use mainstem_core::cluster::state::JobEntry;
use mainstem_core::ids::JobId;
use mainstem_state::{CheckpointStore, StateError};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::checks::Witness;
use super::faults::{self, Cut, Fault, Whom};
use super::network::Network;
use super::node::{Machine, SAVEPOINT_BUCKET, STATE_DIRECTORY, Surroundings};
use super::objects::Objects;
use super::sink::Outlet;
use super::user::{Errand, Habits, Progress, User};
use super::weather::{Host, Outside, State, Weather};
use super::workload::{self, Job};
use crate::state;

/// What runs at the same time runs one after another, in steps of so much.
const STEP_MS: u64 = 4;
/// Things go wrong for so long.
const FAULTS_MS: u64 = 13_000;
/// Afterwards the jobs must finish within so long.
const HEALING_MS: u64 = 60_000;
/// When they have, followers may take so long to hear of it.
const CATCHING_UP_MS: u64 = 3_000;

/// A panic in any task, of which tokio keeps the simulation from hearing.
pub(super) static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// How a run went.
pub(super) struct Outcome {
    /// The same for the same seed.
    pub(super) hash: u64,
    /// Simulated time until all jobs had finished.
    pub(super) took_ms: u64,
    /// How often interesting things happened.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// What must never happen and did.
    pub(super) violation: Option<String>,
    /// The last of what happened.
    pub(super) trace: Vec<String>,
}

/// What happens later.
type Later = Box<dyn FnOnce(&mut Run)>;

/// A run in progress.
pub(super) struct Run {
    around: Surroundings,
    outlet: Outlet,
    machines: Vec<Machine>,
    /// The order in which hosts take their turns.
    turns: SmallRng,
    faults: VecDeque<(u64, Fault)>,
    later: BTreeMap<(u64, u64), Later>,
    laters: u64,
    now_ms: u64,
}

/// Runs a seed on this thread, of which nothing else may be asked afterwards.
pub(super) fn run(seed: u64, bug: &str, is_loud: bool) -> Outcome {
    mainstem_rt::simulation::begin(bug);
    mainstem_consensus::simulation::begin(bug == super::FORGOTTEN_SYNCS);
    let weather = Weather::new(seed);
    weather.lock().trace.is_loud = is_loud;
    let witness = Witness::new(weather.clone());
    let network = Network::new(weather.clone());
    let outlet = Outlet::new(weather.clone(), witness.clone());
    mainstem_state::simulation::mount(STATE_DIRECTORY, Arc::new(Objects::new(weather.clone())));
    mainstem_objects::simulation::mount(SAVEPOINT_BUCKET, Arc::new(Objects::new(weather.clone())));
    let offered = outlet.clone();
    mainstem_connectors::simulation::offer_sink(move |_| offered.sink());
    let mut random = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let faults = faults::draw(&mut random, FAULTS_MS).into();
    let around = Surroundings { weather, network, witness };
    let keeps_copies = random.random_bool(0.8);
    let machines = Host::nodes().map(|host| Machine::new(host, around.clone(), keeps_copies)).collect();
    let (later, turns) = (BTreeMap::new(), SmallRng::seed_from_u64(random.random()));
    let run = Run { around, outlet, machines, turns, faults, later, laters: 0, now_ms: 0 };
    let jobs = Arc::new(workload::jobs(&mut random));
    run.complete(&jobs, Habits::draw(&mut random))
}

impl Run {
    fn complete(mut self, jobs: &Arc<Vec<Job>>, habits: Habits) -> Outcome {
        let progress = Progress::default();
        let user = Desk::new(&self.around, progress.clone(), jobs.clone(), habits);
        let mut finished_at = None;
        while finished_at.is_none_or(|at| self.now_ms < at + CATCHING_UP_MS) {
            self.step(&user);
            progress.take_errands().into_iter().for_each(|errand| self.run_errand(errand));
            if self.now_ms == FAULTS_MS {
                self.heal();
            }
            let has_finished = |job: &Job| progress.end(&job.id) == Some(JobEnd::Finished);
            let pending = progress.pending();
            if finished_at.is_none() && pending.is_none() && jobs.iter().all(has_finished) {
                finished_at = Some(self.now_ms.max(FAULTS_MS));
                self.around.weather.note("all jobs have finished");
            }
            if self.now_ms > FAULTS_MS + HEALING_MS && finished_at.is_none() {
                let pending = pending.map_or_else(String::new, |pending| format!("; {pending}"));
                self.around
                    .weather
                    .violation(format!("the jobs have not finished {HEALING_MS} ms after the last fault{pending}"));
            }
            if self.around.weather.lock().trace.violated().is_some() {
                break;
            }
        }
        if finished_at.is_some() {
            self.check_output(jobs);
            self.check_state(&user, jobs);
        }
        for job in jobs.iter() {
            // Those of a job that began with a savepoint count from another number.
            let count = |entry: JobEntry| {
                let base = entry.record.restored.map_or(0, |from| from.base.0);
                entry.record.generation.0.saturating_sub(base)
            };
            let attempts = self.around.witness.job(&job.id).map_or(0, count);
            (1..attempts).for_each(|_| self.around.weather.count("attempts beyond the first"));
        }
        let state = self.around.weather.lock();
        let trace = &state.trace;
        Outcome {
            hash: trace.hash(),
            took_ms: finished_at.unwrap_or(self.now_ms),
            counts: trace.counts().clone(),
            violation: trace.violated().map(str::to_owned),
            trace: trace.last().map(str::to_owned).collect(),
        }
    }

    /// Lets a little time pass, everywhere.
    fn step(&mut self, user: &Desk) {
        self.now_ms += STEP_MS;
        self.around.weather.lock().now_ms = self.now_ms;
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let later = entry.remove();
            later(self);
        }
        while let Some((_, fault)) = self.faults.pop_front_if(|(at, _)| *at <= self.now_ms) {
            self.begin(fault);
        }
        self.around.network.advance(self.now_ms);
        let mut order: Vec<usize> = (0..=self.machines.len()).collect();
        order.shuffle(&mut self.turns);
        for turn in order {
            self.around.weather.lock().current = Host(turn);
            match self.machines.get_mut(turn) {
                Some(machine) => machine.step(self.now_ms),
                None => user.step(self.now_ms),
            }
        }
        self.around.witness.look();
        let writes = self.around.network.writes();
        self.around.weather.lock().trace.mix(&writes.to_string());
        if let Some(panic) = PANICKED.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.around.weather.violation(format!("a task panicked: {panic}"));
        }
    }

    fn check_output(&self, jobs: &[Job]) {
        for job in jobs {
            let rows = self.outlet.rows(&job.id);
            if rows != job.expected {
                let extra: Vec<&String> = rows.iter().filter(|row| !job.expected.contains(row)).collect();
                let missing: Vec<&String> = job.expected.iter().filter(|row| !rows.contains(row)).collect();
                let (came, due) = (rows.len(), job.expected.len());
                self.around.weather.violation(format!(
                    "job '{}' gave {came} rows instead of {due}; not expected: {extra:?}; missing: {missing:?}",
                    job.id
                ));
            }
        }
    }

    /// Reads every checkpoint that is retained, and every savepoint that was taken.
    fn check_state(&self, user: &Desk, jobs: &[Job]) {
        self.around.weather.lock().current = Host::CLIENT;
        for Job { id, .. } in jobs {
            if let Err(error) = user.runtime.block_on(self.read_checkpoints(id)) {
                self.around.weather.violation(format!("a checkpoint of job '{id}' cannot be read: {error}"));
            }
        }
        for place in self.around.witness.savepoints() {
            match user.runtime.block_on(state::damage(&place)) {
                Ok((1, damaged)) if damaged.is_empty() => {}
                Ok((_, damaged)) => self.around.weather.violation(format!("'{place}' is damaged: {damaged:?}")),
                Err(error) => self.around.weather.violation(format!("'{place}' cannot be read: {error:#}")),
            }
        }
    }

    async fn read_checkpoints(&self, job: &JobId) -> Result<(), StateError> {
        let store = CheckpointStore::open(Path::new(STATE_DIRECTORY))?;
        let epochs = self.around.witness.job(job).map(|entry| entry.record.epochs).unwrap_or_default();
        for record in epochs.values() {
            store.read_manifest(job, &record.manifest).await?.verify_files(&store).await?;
        }
        Ok(())
    }

    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Restart(host) => {
                let in_ms = self.turns.random_range(100..800);
                self.machines[host.0].kill(self.now_ms + in_ms);
            }
            Errand::LoseDisk(host) => self.machines[host.0].lose_disk(),
            Errand::Replace(host, id) => {
                let in_ms = self.turns.random_range(100..800);
                self.machines[host.0].replace(id, self.now_ms + in_ms);
            }
        }
    }

    fn later(&mut self, in_ms: u64, what: impl FnOnce(&mut Run) + 'static) {
        self.laters += 1;
        self.later.insert((self.now_ms + in_ms, self.laters), Box::new(what));
    }

    fn host(&mut self, whom: Whom) -> Host {
        match whom {
            Whom::This(host) => host,
            Whom::Leader => match self.around.witness.leader() {
                Some(leader) => {
                    self.around.weather.count("faults of the leader");
                    leader
                }
                None => Host(self.turns.random_range(0..super::weather::COORDINATORS)),
            },
        }
    }

    /// Nothing goes wrong from here on.
    fn heal(&mut self) {
        self.around.weather.note("all is well from here on");
        self.faults.clear();
        self.later.clear();
        self.around.network.mend_all();
        let now_ms = self.now_ms;
        for machine in &mut self.machines {
            machine.set_disk_full(false);
            machine.stalled_until_ms = machine.stalled_until_ms.min(now_ms);
            machine.start_at_ms = machine.start_at_ms.map(|at| at.min(now_ms));
        }
        let mut state = self.around.weather.lock();
        state.store = Outside { latency_ms: 8, ..Outside::default() };
        state.sink = Outside { latency_ms: 20, ..Outside::default() };
    }

    fn begin(&mut self, fault: Fault) {
        self.around.weather.note(&format!("fault: {fault:?}"));
        self.around.weather.count("faults");
        let now_ms = self.now_ms;
        match fault {
            Fault::Kill(whom, ms) => {
                let host = self.host(whom);
                self.machines[host.0].kill(now_ms + ms);
            }
            Fault::PowerCut(whom, ms) => {
                let host = self.host(whom);
                self.machines[host.0].cut_power(now_ms + ms);
                self.around.weather.count("power cuts");
            }
            Fault::KillAll(ms) => {
                for host in Host::nodes() {
                    let in_ms = self.turns.random_range(100..=ms);
                    self.machines[host.0].kill(now_ms + in_ms);
                }
            }
            Fault::Stall(whom, ms) => {
                let host = self.host(whom);
                if self.machines[host.0].runs() {
                    self.machines[host.0].stalled_until_ms = now_ms + ms;
                }
            }
            Fault::Cut(cut, ms) => {
                let links = self.links(&cut);
                self.cut(links, ms);
            }
            Fault::Flap(cut, ms) => {
                let links = self.links(&cut);
                let mut at = 0;
                while at < ms {
                    let (down, up) = (self.turns.random_range(50..500), self.turns.random_range(50..500));
                    let links = links.clone();
                    self.later(at, move |run| run.cut(links, down));
                    at += down + up;
                }
            }
            Fault::Slow(host, delay_ms, ms) => {
                self.slow(host, delay_ms);
                self.later(ms, move |run| run.slow(host, 0));
            }
            Fault::Reset(one, other) => self.around.network.reset(one, other),
            Fault::Store(failures, lost_answers, ms) => {
                self.outside(
                    |state| &mut state.store,
                    ms,
                    move |store, begins| {
                        (store.failures, store.lost_answers) = if begins { (failures, lost_answers) } else { (0, 0) };
                    },
                );
            }
            Fault::SlowStore(latency_ms, ms) => {
                self.outside(
                    |state| &mut state.store,
                    ms,
                    move |store, begins| {
                        store.latency_ms = if begins { latency_ms } else { 8 };
                    },
                );
            }
            Fault::FullStore(ms) => {
                self.outside(|state| &mut state.store, ms, |store, begins| store.is_full = begins);
            }
            Fault::NoStore(host, ms) => {
                self.outside(
                    |state| &mut state.store,
                    ms,
                    move |store, begins| {
                        _ = if begins { store.out_of_reach.insert(host) } else { store.out_of_reach.remove(&host) };
                    },
                );
            }
            Fault::Sink(failures, lost_answers, ms) => {
                self.outside(
                    |state| &mut state.sink,
                    ms,
                    move |sink, begins| {
                        (sink.failures, sink.lost_answers) = if begins { (failures, lost_answers) } else { (0, 0) };
                    },
                );
            }
            Fault::FullDisk(whom, ms) => {
                let host = self.host(whom);
                self.machines[host.0].set_disk_full(true);
                self.later(ms, move |run| run.machines[host.0].set_disk_full(false));
            }
            Fault::Clock(host, skew_ms) => self.machines[host.0].set_clock(skew_ms),
        }
    }

    /// Changes something outside of the cluster, and changes it back after so long.
    fn outside(&mut self, of: fn(&mut State) -> &mut Outside, ms: u64, change: impl Fn(&mut Outside, bool) + 'static) {
        change(of(&mut self.around.weather.lock()), true);
        self.later(ms, move |run| change(of(&mut run.around.weather.lock()), false));
    }

    fn cut(&mut self, links: Vec<(Host, Host)>, ms: u64) {
        for (from, to) in &links {
            self.around.network.cut(*from, *to);
        }
        self.later(ms, move |run| {
            for (from, to) in links {
                run.around.network.mend(from, to);
            }
        });
    }

    fn slow(&self, host: Host, delay_ms: u64) {
        for other in Host::nodes().filter(|other| *other != host) {
            self.around.network.slow(host, other, delay_ms);
            self.around.network.slow(other, host, delay_ms);
        }
    }

    /// The links that are cut, in their directions.
    fn links(&mut self, cut: &Cut) -> Vec<(Host, Host)> {
        let both = |one: Host, other: Host| [(one, other), (other, one)];
        match cut {
            Cut::Alone(whom) => {
                let alone = self.host(*whom);
                Host::nodes().filter(|other| *other != alone).flat_map(|other| both(alone, other)).collect()
            }
            Cut::OneWay(whom, to) => vec![(self.host(*whom), *to)],
            Cut::Pair(one, other) => both(*one, *other).to_vec(),
            Cut::Sides(side) => {
                let others = || Host::nodes().filter(|host| !side.contains(host));
                side.iter().flat_map(|one| others().flat_map(move |other| both(*one, other))).collect()
            }
        }
    }
}

/// Where the user sits: a host that does not fail.
struct Desk {
    runtime: Runtime,
    began: Instant,
}

impl Desk {
    fn new(around: &Surroundings, progress: Progress, jobs: Arc<Vec<Job>>, habits: Habits) -> Desk {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime on this thread");
        let began = runtime.block_on(async {
            let clock = around.weather.clone();
            let user = User::new(around, progress, jobs, habits);
            tokio::spawn(user.run(move || clock.lock().now_ms < FAULTS_MS));
            Instant::now()
        });
        Desk { runtime, began }
    }

    fn step(&self, now_ms: u64) {
        let until = self.began + Duration::from_millis(now_ms);
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }
}
