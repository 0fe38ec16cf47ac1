//! The user at the command line, who submits the jobs, changes them and the cluster on their way, and wants them to finish.
//! Asks as the commands do: whoever leads, again where no answer came, and looks what became of it.

mod operator;
mod savepoints;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_coordinator::JobEnd;
use mainstem_coordinator::cluster::{Wish, WorkerStatus};
use mainstem_core::ids::{Generation, JobId};
use mainstem_net::{Hello, RpcClient, RpcError, Service, Transport};
use rand::Rng;
use rand::rngs::SmallRng;

pub(super) use self::operator::Errand;
use self::operator::Operator;
use self::savepoints::Savepoints;
use super::checks::Witness;
use super::node::{CLUSTER, Surroundings};
use super::weather::{Host, Weather};
use super::workload::Job;
use crate::cluster::api::MembersView;
use crate::cluster::{JobSummary, Request, Response};

/// How long a coordinator may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Wait between two looks at the jobs.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What a user does beside having jobs run; drawn, so that each is wholly off in some runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Stops jobs and changes their parallelism.
    changes: bool,
    /// Drains workers.
    drains: bool,
    /// Removes coordinators and adds others.
    replaces: bool,
    /// Takes savepoints, and has jobs begin with them.
    savepoints: bool,
}

impl Habits {
    pub(super) fn draw(random: &mut SmallRng) -> Habits {
        Habits {
            changes: random.random_bool(0.7),
            drains: random.random_bool(0.4),
            replaces: random.random_bool(0.4),
            savepoints: random.random_bool(0.5),
        }
    }
}

/// What the user sees and wants done, for those who look at the run.
#[derive(Clone, Default)]
pub(super) struct Progress {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    ended: BTreeMap<JobId, JobEnd>,
    errands: Vec<Errand>,
    /// What the user has begun and not brought to its end.
    pending: Option<String>,
}

impl Progress {
    /// How a job has ended, where the coordinator that leads says so.
    pub(super) fn end(&self, job: &JobId) -> Option<JobEnd> {
        self.lock().ended.get(job).cloned()
    }

    /// What has to be done to machines.
    pub(super) fn take_errands(&self) -> Vec<Errand> {
        std::mem::take(&mut self.lock().errands)
    }

    /// What the user has begun and not brought to its end.
    pub(super) fn pending(&self) -> Option<String> {
        self.lock().pending.clone()
    }

    fn set_end(&self, job: &JobId, end: Option<&JobEnd>) {
        let mut shared = self.lock();
        match end {
            Some(end) => _ = shared.ended.insert(job.clone(), end.clone()),
            None => _ = shared.ended.remove(job),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a request.
struct Asked {
    /// Whether a coordinator said that it is done.
    is_done: bool,
    /// Why it was not done, where a coordinator said so.
    refused: Option<String>,
    /// Whether one that gave no answer may still do it.
    may_come: bool,
}

/// What the coordinator that leads tells.
struct View {
    jobs: BTreeMap<JobId, JobSummary>,
    workers: Vec<WorkerStatus>,
}

/// The user at the command line.
pub(super) struct User {
    desk: CommandLine,
    jobs: Arc<Vec<Job>>,
    habits: Habits,
    operator: Operator,
    savepoints: Savepoints,
    /// Attempts that were seen to have read local copies.
    copies_read: BTreeSet<(JobId, Generation)>,
}

impl User {
    /// Must be made within the runtime on which the user's commands run.
    pub(super) fn new(around: &Surroundings, progress: Progress, jobs: Arc<Vec<Job>>, habits: Habits) -> User {
        let desk = CommandLine::new(around, progress);
        User {
            desk,
            jobs,
            habits,
            operator: Operator::default(),
            savepoints: Savepoints::default(),
            copies_read: BTreeSet::new(),
        }
    }

    /// Submits all jobs, changes this and that now and then while `may_change` says so, and has the jobs run until they have
    /// finished.
    pub(super) async fn run(mut self, may_change: impl Fn() -> bool) {
        let mut seen = View { jobs: BTreeMap::new(), workers: Vec::new() };
        loop {
            for job in self.jobs.clone().iter() {
                // First what became of a savepoint with which it was to stop.
                let may_take = self.habits.savepoints && may_change();
                self.savepoints.take(&self.desk, &job.id, seen.jobs.get(&job.id), may_take).await;
                self.see_to(job, seen.jobs.get(&job.id)).await;
            }
            if self.habits.changes && may_change() && self.desk.draw(0, 9) == 0 {
                self.change().await;
            }
            let may_drain = self.habits.drains && may_change();
            self.operator.drain(&self.desk, &seen.workers, may_drain).await;
            let may_replace = self.habits.replaces && may_change();
            self.operator.replace(&self.desk, may_replace).await;
            if let Some(view) = self.desk.look().await {
                self.take_in(&view);
                seen = view;
            }
            self.desk.progress.lock().pending = self.operator.pending().or_else(|| self.savepoints.pending());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has a job run that neither runs nor has finished.
    async fn see_to(&mut self, job: &Job, seen: Option<&JobSummary>) {
        let is_seen_to = |seen: &JobSummary| seen.active || seen.end == Some(JobEnd::Finished);
        if self.savepoints.begin(&self.desk, job, seen).await || seen.is_some_and(is_seen_to) {
            return;
        }
        let submission = job.submission(self.desk.draw(1, 3), None);
        let asked = self.desk.ask(&submission, &format!("submit '{}'", job.id)).await;
        self.savepoints.note(&self.desk, &job.id, &asked);
    }

    async fn change(&self) {
        let job = &self.jobs[self.desk.draw(0, self.jobs.len() as u32 - 1) as usize].id;
        let (request, what) = match self.desk.draw(0, 3) {
            0 if self.savepoints.is_unsettled(&self.desk, job) => return,
            0 => (Request::Wish { job: job.clone(), wish: Wish::Stop }, format!("stop '{job}'")),
            _ => {
                let parallelism = self.desk.draw(1, 4);
                (Request::Rescale { job: job.clone(), parallelism }, format!("rescale '{job}' to {parallelism}"))
            }
        };
        self.desk.weather.count("changes by the user");
        self.desk.ask(&request, &what).await;
    }

    fn take_in(&mut self, view: &View) {
        for (job, summary) in &view.jobs {
            self.desk.progress.set_end(job, summary.end.as_ref().filter(|_| !summary.active));
            if let (false, Some(JobEnd::Failed { reason })) = (summary.active, &summary.end) {
                self.desk.weather.violation(format!("job '{job}' failed for good: {reason}"));
            }
            let standbys = summary.standbys.iter().flat_map(|status| &status.slots);
            for standby in standbys.filter(|standby| standby.epoch.is_some()) {
                self.desk.witness.stands_by(job, standby.slot, &standby.worker);
            }
            let attempt = (job.clone(), summary.generation);
            if summary.restored_local_bytes > 0 && self.copies_read.insert(attempt) {
                self.desk.weather.count("attempts that read local copies");
            }
        }
    }
}

/// Asks coordinators.
struct CommandLine {
    weather: Weather,
    witness: Witness,
    progress: Progress,
    clients: Vec<RpcClient>,
}

impl CommandLine {
    fn new(around: &Surroundings, progress: Progress) -> CommandLine {
        let transport = Transport::over(around.network.seen_from(Host::CLIENT));
        let hello = Hello::new(Service::Client, "client", CLUSTER);
        let client = |host: Host| RpcClient::new(transport.clone(), &host.address(), hello.clone());
        let (weather, witness) = (around.weather.clone(), around.witness.clone());
        CommandLine { weather, witness, progress, clients: Host::coordinators().map(client).collect() }
    }

    /// How things stand, where a coordinator that leads tells.
    async fn look(&self) -> Option<View> {
        for client in &self.clients {
            let answer = client.call::<_, Response>(&Request::Jobs, ANSWER_WITHIN).await;
            let Ok(Response::Jobs { leads: true, jobs, workers, .. }) = answer else { continue };
            let jobs = jobs.into_iter().map(|summary| (summary.job.clone(), summary)).collect();
            return Some(View { jobs, workers });
        }
        None
    }

    /// Who belongs to the coordinators, where one that leads tells.
    async fn members(&self) -> Option<BTreeMap<u64, String>> {
        for client in &self.clients {
            let answer = client.call::<_, Response>(&Request::Members, ANSWER_WITHIN).await;
            if let Ok(Response::Members(MembersView { leads: true, members, .. })) = answer {
                return Some(members);
            }
        }
        None
    }

    /// Asks whoever leads.
    async fn ask(&self, request: &Request, what: &str) -> Asked {
        let mut asked = Asked { is_done: false, refused: None, may_come: false };
        for client in &self.clients {
            match client.call::<_, Response>(request, ANSWER_WITHIN).await {
                Ok(Response::NotLeader { .. }) | Err(RpcError::Unreachable(_)) => {}
                Ok(Response::Refused { reason }) => {
                    self.note(what, &format!("refused: {reason}"));
                    asked.refused = Some(reason);
                    break;
                }
                Ok(Response::Unknown { reason }) => {
                    self.note(what, &reason);
                    asked.may_come = true;
                }
                Ok(_) => {
                    self.note(what, "done");
                    asked.is_done = true;
                    break;
                }
                // Whether it was done is not known.
                Err(error) => {
                    self.note(what, &error.to_string());
                    asked.may_come = true;
                }
            }
        }
        asked
    }

    fn note(&self, what: &str, answer: &str) {
        self.weather.note(&format!("user: {what}: {answer}"));
    }

    fn draw(&self, from: u32, to: u32) -> u32 {
        self.weather.lock().random.random_range(from..=to)
    }

    fn now_ms(&self) -> u64 {
        self.weather.lock().now_ms
    }

    /// Wants something done to a machine.
    fn send(&self, errand: Errand) {
        self.weather.note(&format!("user: {errand:?}"));
        self.progress.lock().errands.push(errand);
    }
}
