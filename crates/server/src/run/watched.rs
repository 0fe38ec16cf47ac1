//! The job of `mainstem run`, as the HTTP port shows it, and what may be asked of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_coordinator::cluster::{JobView, Wish};
use mainstem_coordinator::{CheckpointOptions, Control, JobHistory, JobStatus, RestoredFrom, SavepointRequest};
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_engine::{JobMetrics, MemoryBudget};
use mainstem_rt::Clock;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::cluster::api::{LookView, Request, Response};
use crate::figures::{Figures, Watched};
use crate::http::{self, Asked, Backend};
use crate::metrics::Scrape;
use crate::traces::Counts as TraceCounts;

/// What is known of the one job of this process.
pub(super) struct RunningJob {
    pub(super) job: JobId,
    pub(super) graph_json: String,
    pub(super) parallelism: u32,
    pub(super) key_groups: u16,
    pub(super) options: CheckpointOptions,
    pub(super) working_dir: PathBuf,
    pub(super) restored: Option<RestoredFrom>,
    pub(super) began_at: Timestamp,
    pub(super) metrics: Arc<JobMetrics>,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) status: watch::Receiver<JobStatus>,
    pub(super) history: Arc<JobHistory>,
    /// None: nothing is traced.
    pub(super) traces: Option<Arc<TraceCounts>>,
}

impl Watched for RunningJob {
    fn views(&self) -> Vec<JobView> {
        let status = self.status.borrow().clone();
        let complete = status.last_complete.unwrap_or_default();
        let committed = status.last_committed.unwrap_or_default();
        let unpublished = status.last_checkpoint_at.filter(|_| complete > committed).map(|at| (complete, at));
        vec![JobView {
            job: self.job.clone(),
            graph_json: self.graph_json.clone(),
            parallelism: self.parallelism,
            key_groups: self.key_groups,
            options: self.options.clone(),
            working_dir: self.working_dir.display().to_string(),
            submitted_at: self.began_at,
            slots: Vec::new(),
            unpublished: unpublished.into_iter().collect(),
            active: true,
            generation: status.generation,
            complete,
            committed,
            end: None,
            savepoint: status.savepoint.as_ref().map(|savepoint| savepoint.request.clone()),
            savepoints: status.last_savepoint.iter().cloned().collect(),
            restored: self.restored.clone(),
            counters: self.metrics.counters(&(0..self.parallelism).collect::<BTreeSet<u32>>()),
            status: Some(status),
            standbys: None,
        }]
    }

    fn view(&self, job: &JobId) -> Option<JobView> {
        self.views().into_iter().find(|view| view.job == *job)
    }

    fn history(&self, job: &JobId) -> Option<Arc<JobHistory>> {
        (*job == self.job).then(|| self.history.clone())
    }
}

/// Answers for this process.
pub(super) struct RunBackend {
    pub(super) running: Arc<RunningJob>,
    pub(super) figures: Arc<Figures>,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Vec<(String, String)>,
    /// Whether all that is said is JSON.
    pub(super) json: bool,
}

impl RunBackend {
    fn tell(&self, wish: Control) -> Response {
        match self.control.try_send(wish) {
            Ok(()) => Response::Done,
            Err(_) => Response::Refused { reason: format!("job '{}' is ending", self.running.job) },
        }
    }

    fn savepoint(&self, request: SavepointRequest) -> Response {
        if self.running.status.borrow().savepoint.is_some() {
            let reason = format!("a savepoint of job '{}' is being taken; ask again when it is done", self.running.job);
            return Response::Refused { reason };
        }
        self.tell(Control::Savepoint(request))
    }
}

#[async_trait]
impl Backend for RunBackend {
    async fn ask(&self, user: &str, request: Request) -> Asked {
        let not_here = |what: &str| Response::NotHere {
            reason: format!("this process runs the job '{}' and nothing else: {what}", self.running.job),
        };
        let ours = |job: &JobId| *job == self.running.job;
        let unknown = |job: &JobId| Response::Refused { reason: format!("there is no job '{job}'") };
        let response = match request {
            Request::Look(question) => match self.figures.answer(&question, None, &[]) {
                Ok(found) => Response::Look(LookView { leads: true, leader: None, found }),
                Err(error) => Response::Refused { reason: format!("bug: figures cannot be written: {error}") },
            },
            Request::Wish { job, .. }
            | Request::Savepoint { job, .. }
            | Request::Rescale { job, .. }
            | Request::Remove { job }
                if !ours(&job) =>
            {
                unknown(&job)
            }
            Request::Wish { wish, .. } => {
                tracing::info!(user, ?wish, "asked for over HTTP");
                match wish {
                    Wish::Stop => self.tell(Control::Stop),
                    Wish::Cancel => self.tell(Control::Cancel),
                    Wish::Run => Response::Refused { reason: format!("job '{}' runs already", self.running.job) },
                }
            }
            Request::Savepoint { request, .. } => {
                tracing::info!(user, directory = request.directory, "savepoint asked for over HTTP");
                self.savepoint(request)
            }
            Request::Submit(_) => not_here("start a cluster to submit jobs (mainstem cluster)"),
            Request::Rescale { .. } => not_here("stop it, and run it again with another --parallelism"),
            Request::Remove { .. } => not_here("stop it, and begin anew with --fresh"),
            Request::Jobs
            | Request::Drain { .. }
            | Request::Members
            | Request::AddMember { .. }
            | Request::RemoveMember { .. } => not_here("it is no cluster"),
            Request::Audit(_) => {
                not_here("its decisions are in the files of its state directory (mainstem audit verify)")
            }
        };
        Asked { response, stale: false }
    }

    fn mode(&self) -> &'static str {
        "run"
    }

    fn name(&self) -> String {
        format!("run of job '{}'", self.running.job)
    }

    fn is_ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn scrape(&self) -> Scrape {
        let jobs = self.figures.known();
        let running = jobs.iter().map(|known| (known.view.job.clone(), known.view.counters.clone())).collect();
        let (memory, traces) = (Some(self.running.memory.clone()), self.running.traces.clone());
        Scrape { mode: self.mode(), now: self.clock.now(), jobs, running, cluster: None, memory, traces }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    #[expect(clippy::print_stderr, reason = "the output that --json asks for")]
    fn announce(&self, url: &str) {
        match self.json {
            true => eprintln!("{}", json!({ "event": "http", "url": url })),
            false => http::announce("web page and REST API", url),
        }
    }
}
