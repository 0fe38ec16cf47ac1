//! Savepoints that the user takes, and jobs that begin with them. A job that was stopped with a savepoint is removed and
//! handed in with it, or goes on as it is.
//!
//! A command that got no answer may still be carried out later. Most do no harm then: a savepoint has an id, and said
//! twice it is one. But a job that is handed in with nothing begins anew once it is removed, and what is removed late may have
//! been stopped for another reason. So the user removes nothing, and stops nothing, while such a command may be on its way.

use std::collections::BTreeMap;

use mainstem_coordinator::{SavepointOutcome, SavepointRequest};
use mainstem_core::ids::{JobId, SavepointId};
use rand::Rng;

use super::{Asked, CommandLine};
use crate::cluster::{JobSummary, Request};
use crate::simulation::node::SAVEPOINT_BUCKET;
use crate::simulation::workload::Job;

/// A command that got no answer is carried out within so long or never: longer than a coordinator can be held up.
const LATE_MS: u64 = 11_000;

/// What the user has in mind with a job.
#[derive(Default)]
struct Plan {
    /// The savepoint that has no outcome yet, and whether a coordinator has said that it will be taken.
    wanted: Option<(SavepointRequest, bool)>,
    /// The savepoint with which the job is to begin anew.
    begin_with: Option<String>,
    /// Whether it was seen to be removed for that.
    is_removed: bool,
    /// Those that were taken while it ran.
    taken: Vec<String>,
    /// Until then a command of before may be carried out.
    unsettled_until_ms: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Savepoints {
    plans: BTreeMap<JobId, Plan>,
}

impl Savepoints {
    /// What is begun and not at its end.
    pub(super) fn pending(&self) -> Option<String> {
        self.plans.iter().find_map(|(job, plan)| {
            let (wanted, begin_with) = (plan.wanted.is_some(), plan.begin_with.as_ref());
            let begins = || begin_with.map(|path| format!("job '{job}' is to begin with '{path}'"));
            wanted.then(|| format!("a savepoint of job '{job}' has no outcome")).or_else(begins)
        })
    }

    /// Whether a command of before may still come to this job.
    pub(super) fn is_unsettled(&self, desk: &CommandLine, job: &JobId) -> bool {
        self.plans.get(job).is_some_and(|plan| desk.now_ms() < plan.unsettled_until_ms)
    }

    /// A command about the job that may do harm when it comes late was given.
    pub(super) fn note(&mut self, desk: &CommandLine, job: &JobId, asked: &Asked) {
        if asked.may_come {
            self.plans.entry(job.clone()).or_default().unsettled_until_ms = desk.now_ms() + LATE_MS;
        }
    }

    /// Has the job begin with the savepoint that the user has in mind; false: there is none in mind.
    pub(super) async fn begin(&mut self, desk: &CommandLine, job: &Job, seen: Option<&JobSummary>) -> bool {
        let Some(path) = self.plans.get(&job.id).and_then(|plan| plan.begin_with.clone()) else { return false };
        let asked = match seen {
            Some(seen) if seen.active => {
                let plan = self.plan(&job.id);
                plan.begin_with = None;
                if std::mem::take(&mut plan.is_removed) {
                    desk.weather.count("jobs begun with a savepoint");
                }
                return false;
            }
            Some(_) => desk.ask(&Request::Remove { job: job.id.clone() }, &format!("remove '{}'", job.id)).await,
            None => {
                self.plan(&job.id).is_removed = true;
                // An older one is refused where it would give rows twice.
                let older = self.plan(&job.id).taken.first().filter(|_| desk.draw(0, 1) == 0).cloned();
                let path = older.unwrap_or(path);
                let submission = job.submission(desk.draw(1, 3), Some(path.clone()));
                let asked = desk.ask(&submission, &format!("submit '{}' with '{path}'", job.id)).await;
                if asked.refused.as_ref().is_some_and(|reason| reason.contains("its rows come once more")) {
                    desk.weather.count("savepoints refused for output that is there");
                }
                asked
            }
        };
        self.note(desk, &job.id, &asked);
        true
    }

    /// Asks for savepoints now and then, and looks what became of those that were asked for.
    pub(super) async fn take(&mut self, desk: &CommandLine, job: &JobId, seen: Option<&JobSummary>, may_begin: bool) {
        let is_unsettled = self.is_unsettled(desk, job);
        let plan = self.plan(job);
        let Some(seen) = seen else { return };
        match &plan.wanted {
            Some((request, is_agreed)) => {
                let outcome = seen.savepoints.iter().find(|known| known.id == request.id).map(|known| &known.outcome);
                let is_taking = seen.savepoint.as_ref().is_some_and(|taking| taking.id == request.id);
                match outcome {
                    Some(SavepointOutcome::Taken { path, .. }) => {
                        desk.weather.count("savepoints taken");
                        if !request.stop {
                            plan.taken.push(path.clone());
                        } else if !is_unsettled && desk.draw(0, 2) > 0 {
                            plan.begin_with = Some(path.clone());
                        }
                        plan.wanted = None;
                    }
                    Some(SavepointOutcome::Failed { .. }) => {
                        desk.weather.count("savepoints that could not be taken");
                        plan.wanted = None;
                    }
                    None if is_taking => {}
                    // It has not been heard of, and will not be taken.
                    None if !seen.active || *is_agreed => plan.wanted = None,
                    None => self.ask(desk, job).await,
                }
            }
            None if may_begin && seen.active && plan.begin_with.is_none() && desk.draw(0, 7) == 0 => {
                let stop = !is_unsettled && desk.draw(0, 1) == 0;
                let id = SavepointId::of(desk.weather.lock().random.random());
                let directory = format!("s3://{SAVEPOINT_BUCKET}/{job}");
                plan.wanted = Some((SavepointRequest { id, directory, stop }, false));
                desk.weather.count("savepoints asked for");
                self.ask(desk, job).await;
            }
            None => {}
        }
    }

    async fn ask(&mut self, desk: &CommandLine, job: &JobId) {
        let Some((request, _)) = self.plan(job).wanted.clone() else { return };
        let what = format!("savepoint {} of '{job}'{}", request.id, if request.stop { ", and stop" } else { "" });
        let asked = desk.ask(&Request::Savepoint { job: job.clone(), request: request.clone() }, &what).await;
        self.note(desk, job, &asked);
        let plan = self.plan(job);
        if asked.is_done {
            desk.witness.promised(job, &request.id);
            plan.wanted = Some((request, true));
        } else if asked.refused.is_some() && !asked.may_come {
            plan.wanted = None;
        }
    }

    fn plan(&mut self, job: &JobId) -> &mut Plan {
        self.plans.entry(job.clone()).or_default()
    }
}
