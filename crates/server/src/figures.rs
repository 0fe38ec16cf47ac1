//! The figures of jobs, as the REST API and the metrics show them: put together from what a coordinator that leads, or
//! `mainstem run`, knows of its jobs. Rates come from samples that are taken every two seconds.

mod latency;
pub(crate) mod model;
mod parts;
mod samples;
mod shape;
mod summary;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mainstem_coordinator::JobHistory;
use mainstem_coordinator::cluster::{JobView, WorkerStatus};
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::latency::{Counted, SinkLatency};
pub(crate) use self::model::RowLatency;
use self::model::{JobAnswer, JobsAnswer, Worker, WorkersAnswer};
pub(crate) use self::parts::planned_graph;
pub(crate) use self::samples::Rates;
use self::samples::{SAMPLE_EVERY, Samples};
pub(crate) use self::shape::{Shape, ShapeOperator};

/// Where the jobs are.
pub(crate) trait Watched: Send + Sync {
    /// Every job.
    fn views(&self) -> Vec<JobView>;
    /// One of them.
    fn view(&self, job: &JobId) -> Option<JobView>;
    /// What has happened to it, where it is driven here.
    fn history(&self, job: &JobId) -> Option<Arc<JobHistory>>;
}

/// What is asked for. Answered by JSON that is handed on unread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    Jobs,
    Workers,
    Job { job: JobId, part: Part },
}

/// What is asked for of one job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Summary,
    Graph,
    Lineage,
    Checkpoints,
    Commits,
    Lag,
    BadRecords,
    Exceptions,
    Timeline,
    Configuration,
    /// Events after that one of the history that began then.
    Events {
        began_at: Timestamp,
        after: u64,
    },
}

/// See the module.
pub(crate) struct Figures {
    watched: Arc<dyn Watched>,
    clock: Arc<dyn Clock>,
    /// Dataflows that were read, with the text that they were read from.
    shapes: Mutex<BTreeMap<JobId, (String, Arc<Shape>)>>,
    samples: Mutex<BTreeMap<JobId, Samples>>,
}

/// A job with all that is known of it.
pub(crate) struct Known {
    pub(crate) view: JobView,
    pub(crate) shape: Arc<Shape>,
    pub(crate) history: Option<Arc<JobHistory>>,
    pub(crate) rates: Rates,
    pub(crate) latency: Vec<SinkLatency>,
}

impl Figures {
    pub(crate) fn new(watched: Arc<dyn Watched>, clock: Arc<dyn Clock>) -> Arc<Figures> {
        Arc::new(Figures { watched, clock, shapes: Mutex::default(), samples: Mutex::default() })
    }

    /// Takes samples for the life of the process.
    pub(crate) async fn keep_sampling(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample();
        }
    }

    fn sample(&self) {
        let jobs = self.known();
        let (at, now) = (self.clock.monotonic(), self.clock.now());
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|job, _| jobs.iter().any(|known| known.view.job == *job));
        for known in jobs.into_iter().filter(|known| known.view.active) {
            let point = summary::point(&known, now);
            let of_job = samples.entry(known.view.job.clone()).or_default();
            let counted = Counted::of(&known.view, known.history.as_deref());
            of_job.add(at, point, known.view, counted);
        }
    }

    /// All jobs.
    pub(crate) fn known(&self) -> Vec<Known> {
        let views = self.watched.views();
        self.shapes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|job, _| views.iter().any(|view| view.job == *job));
        views.into_iter().map(|view| self.complete(view)).collect()
    }

    fn complete(&self, view: JobView) -> Known {
        let shape = self.shape(&view);
        let history = self.watched.history(&view.job);
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = samples.get(&view.job);
        let rates = of_job.map(|samples| samples.rates(self.clock.monotonic(), &view)).unwrap_or_default();
        let counted = Counted::of(&view, history.as_deref());
        let latency = counted.since(of_job.and_then(|samples| samples.counted(&view)));
        drop(samples);
        Known { shape, history, rates, latency, view }
    }

    /// How long rows of a job have taken lately.
    pub(crate) fn latency(&self, job: &JobId) -> Vec<RowLatency> {
        self.watched.view(job).map(|view| summary::latency(&self.complete(view))).unwrap_or_default()
    }

    fn shape(&self, view: &JobView) -> Arc<Shape> {
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shape)) = shapes.get(&view.job).filter(|(text, _)| *text == view.graph_json) {
            return shape.clone();
        }
        let shape = Arc::new(Shape::parse(&view.graph_json));
        shapes.insert(view.job.clone(), (view.graph_json.clone(), shape.clone()));
        shape
    }

    /// What is known; none where there is no such job. `leads`: whether live figures can be expected.
    pub(crate) fn answer(
        &self,
        question: &Question,
        leader: Option<String>,
        workers: &[WorkerStatus],
    ) -> Result<Option<Value>, serde_json::Error> {
        let now_ms = self.clock.now().0;
        match question {
            Question::Jobs => {
                let jobs = self.known().iter().map(|known| summary::job(known, self.clock.now())).collect();
                serde_json::to_value(JobsAnswer { stale: false, leader, now_ms, jobs }).map(Some)
            }
            Question::Workers => {
                let views = self.watched.views();
                let workers = workers.iter().map(|worker| shown(worker, &views)).collect();
                serde_json::to_value(WorkersAnswer { stale: false, leader, now_ms, workers }).map(Some)
            }
            Question::Job { job, part } => {
                let Some(view) = self.watched.view(job) else { return Ok(None) };
                let known = self.complete(view);
                self.part(&known, *part).map(Some)
            }
        }
    }

    fn part(&self, known: &Known, part: Part) -> Result<Value, serde_json::Error> {
        let now = self.clock.now();
        match part {
            Part::Summary => {
                let job = summary::job(known, now);
                serde_json::to_value(JobAnswer { stale: false, now_ms: now.0, job })
            }
            Part::Graph => serde_json::to_value(parts::graph(known, now)),
            Part::Lineage => serde_json::to_value(parts::lineage(known, now)),
            Part::Checkpoints => serde_json::to_value(parts::checkpoints(known, now)),
            Part::Commits => serde_json::to_value(parts::commits(known, now)),
            Part::Lag => serde_json::to_value(parts::lag(known, now)),
            Part::BadRecords => serde_json::to_value(parts::bad_records(known, now)),
            Part::Exceptions => serde_json::to_value(parts::exceptions(known, now)),
            Part::Timeline => {
                let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
                let points = samples.get(&known.view.job).map(Samples::points).unwrap_or_default();
                drop(samples);
                serde_json::to_value(parts::timeline(known, now, points))
            }
            Part::Configuration => parts::configuration(known, now).and_then(serde_json::to_value),
            Part::Events { began_at, after } => serde_json::to_value(parts::events(known, now, began_at, after)),
        }
    }
}

fn shown(worker: &WorkerStatus, views: &[JobView]) -> Worker {
    let WorkerStatus { offer, used } = worker;
    let id = &offer.worker;
    let runs = views.iter().filter(|view| view.slots.contains(id));
    Worker {
        worker: id.0.clone(),
        name: id.0.split_once('@').map_or(id.0.as_str(), |(name, _)| name).to_owned(),
        address: offer.data_address.clone(),
        slots: offer.slots,
        used: *used,
        draining: offer.draining,
        jobs: runs.map(|view| view.job.to_string()).collect(),
    }
}
