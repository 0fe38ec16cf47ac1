//! `mainstem coordinator`: one of the coordinators of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use mainstem_consensus::{Consensus, MembershipError, Options, ProposeError, RaftStatus};
use mainstem_coordinator::cluster::{
    Agreed, Answer, ClusterJobs, FleetService, JobView, WorkerStatus, keep_audit_files,
};
use mainstem_coordinator::{AuditFiles, AuditOptions, JobHistory};
use mainstem_core::audit::{AuditRecord, Class};
use mainstem_core::cluster::FleetConfig;
use mainstem_core::cluster::messages::OperatorCounters;
use mainstem_core::cluster::proposal::Note;
use mainstem_core::ids::JobId;
use mainstem_net::{Connection, Listener, Service, serve_rpc};
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_rt::{Clock, SystemClock, run_blocking};

use super::api::{AuditRequest, AuditView, JobSummary, LookView, MembersView, Request, Response};
use super::factory::GraphFactory;
use super::{http_backend, submission};
use crate::cli::CoordinatorArgs;
use crate::figures::{Figures, Question, Watched};
use crate::job;
use crate::lag;
use crate::memory::OperatorMemory;
use crate::traces::Traces;

/// Runs a coordinator until it is told to end.
pub(crate) fn coordinator(args: &CoordinatorArgs) -> anyhow::Result<ExitCode> {
    let runtime = super::control_runtime()?;
    let outcome = runtime.block_on(async {
        let traces = Traces::start(&args.traces, &format!("coordinator {} of {}", args.id, args.node.cluster))?;
        let outcome = tokio::select! {
            outcome = run(args, traces.clone()) => outcome,
            () = super::ended(args.node.with_parent) => super::done(),
        };
        if let Some(traces) = traces {
            traces.end().await;
        }
        outcome
    });
    runtime.shutdown_background();
    outcome
}

/// A coordinator that runs.
pub(crate) struct Node {
    pub(crate) consensus: Arc<Consensus<Agreed>>,
    fleet: Arc<FleetService>,
    pub(crate) jobs: Arc<ClusterJobs<GraphFactory>>,
    pub(crate) figures: Arc<Figures>,
    /// None: nothing is traced.
    pub(crate) traces: Option<Arc<Traces>>,
    clock: Arc<dyn Clock>,
}

impl Watched for ClusterJobs<GraphFactory> {
    fn views(&self) -> Vec<JobView> {
        ClusterJobs::views(self)
    }

    fn view(&self, job: &JobId) -> Option<JobView> {
        ClusterJobs::view(self, job)
    }

    fn history(&self, job: &JobId) -> Option<Arc<JobHistory>> {
        ClusterJobs::history(self, job)
    }
}

async fn run(args: &CoordinatorArgs, traces: Option<Arc<Traces>>) -> anyhow::Result<ExitCode> {
    let transport = super::lasting_transport(&args.node)?;
    let members: BTreeMap<u64, String> = args.members.iter().cloned().collect();
    let Some(listen) = args.node.listen.as_ref().or(members.get(&args.id)) else {
        bail!(
            "--id {} is not among the members {:?}: a coordinator that is to be added to them needs --listen, and then \
             `mainstem add-member {}=HOST:PORT`",
            args.id,
            members.keys().collect::<Vec<_>>(),
            args.id
        );
    };
    let listener = transport.listen(listen).await?.of_cluster(args.node.cluster.clone());
    let store = super::state_dir(&args.state_dir)?;
    let data_dir = super::directory(&args.data_dir)?;
    let audit = AuditOptions {
        directory: data_dir.join("audit"),
        trail: format!("cluster {}", args.node.cluster),
        node: args.id,
        bytes_max: args.audit_size,
    };
    let options = Options::new(args.id, data_dir, members, args.node.cluster.clone(), transport.clone());
    let silence_ms = i64::try_from(args.worker_timeout.as_millis()).unwrap_or(i64::MAX);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let node = Node::start(options, FleetConfig { silence_ms }, clock.clone(), store, traces).await?;
    // Where this is no directory of this coordinator, that was found out above.
    let directory = audit.directory.display().to_string();
    let files = run_blocking(move || AuditFiles::open(audit)).await.context("bug: reading the audit trail failed")?;
    let files = files.with_context(|| format!("cannot write the audit trail in '{directory}'"))?;
    tokio::spawn(keep_audit_files(node.consensus.clone(), clock, files));
    tracing::info!(id = args.id, address = listener.local_address(), "coordinator listens");
    let serving = http_backend::serve(args, &node, transport).await?;
    tokio::spawn(node.figures.clone().keep_sampling());
    tokio::select! {
        outcome = node.clone().run(listener) => outcome,
        outcome = serving => outcome.and_then(|()| super::done()),
    }
}

impl Node {
    /// Starts agreement. `store` is where checkpoints lie, and `traces` where spans go.
    pub(crate) async fn start(
        options: Options,
        fleet: FleetConfig,
        clock: Arc<dyn Clock>,
        store: PathBuf,
        traces: Option<Arc<Traces>>,
    ) -> anyhow::Result<Arc<Node>> {
        let transport = options.transport.clone();
        let consensus = Arc::new(Consensus::<Agreed>::start(options).await?);
        let fleet = FleetService::new(clock.clone(), fleet, transport);
        let factory = GraphFactory { store: store.clone(), traces: traces.clone() };
        let jobs = ClusterJobs::new(consensus.clone(), fleet.clone(), factory, clock.clone(), store);
        let figures = Figures::new(jobs.clone(), clock.clone());
        Ok(Arc::new(Node { consensus, fleet, jobs, figures, traces, clock }))
    }

    /// Serves whoever connects, and drives jobs while it leads. Ends only where it cannot go on.
    pub(crate) async fn run(self: Arc<Self>, mut listener: Listener) -> anyhow::Result<ExitCode> {
        let serving = async {
            loop {
                let connection = listener.accept().await?;
                tokio::spawn(self.clone().serve(connection));
            }
        };
        let mut stopped = self.consensus.stopped();
        tokio::select! {
            reason = stopped.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                bail!("the coordinator has stopped: {reason}")
            }
            () = self.jobs.clone().run() => bail!("bug: the jobs' driver has ended; please report it"),
            result = serving => result,
        }
    }

    async fn serve(self: Arc<Self>, connection: Connection) {
        match connection.hello.service {
            Service::Raft => {
                // The other member tries again.
                if let Err(error) = self.consensus.serve(connection).await {
                    tracing::debug!(%error, "the connection of another coordinator has ended");
                }
            }
            Service::Worker => self.fleet.clone().serve(connection).await,
            Service::Client => {
                let node = self.clone();
                let user = user(&connection);
                // A client that goes away needs no answer.
                let _ = serve_rpc(connection, move |request| {
                    let (node, user) = (node.clone(), user.clone());
                    async move { Ok::<_, String>(node.answer(&user, request).await) }
                })
                .await;
            }
            Service::Data => tracing::warn!(peer = connection.peer, "rows go to workers"),
        }
    }

    /// Does what is asked for, or says why not; `user` is who asks, for the audit trail.
    pub(crate) async fn answer(&self, user: &str, request: Request) -> Response {
        if self.consensus.leadership().borrow().instead.is_some() {
            // What a coordinator that was removed knows is never right again.
            return self.not_leader();
        }
        let outcome = match request {
            Request::Jobs => return self.list(),
            Request::Members => return Response::Members(self.members()),
            Request::Audit(request) => return Response::Audit(self.audit(&request)),
            Request::Look(question) => return self.look(&question),
            // One that led before and has lost the majority must not keep the caller from asking the next one. And jobs
            // are planned where the answer will count; planning takes a while and no decision.
            _ if !self.leads() => return self.not_leader(),
            Request::Submit(request) => {
                let now = self.clock.now();
                let (from, repeat_output) = (request.from_savepoint.clone(), request.repeat_output);
                let planned = run_blocking(move || submission::plan(request, now)).await;
                let (job, mut submission) = match planned.context("bug: the planner failed") {
                    Ok(Ok(planned)) => planned,
                    Ok(Err(error)) | Err(error) => return Response::Refused { reason: format!("{error:#}") },
                };
                if let Some(path) = from {
                    let exists = self.consensus.read_stale(|state| state.jobs.contains_key(&job));
                    let fitted = submission::restore(&job, &mut submission, &path, repeat_output, exists).await;
                    if let Err(error) = fitted {
                        return Response::Refused { reason: format!("{error:#}") };
                    }
                }
                let done = Response::Submitted { job: job.clone() };
                return self.response(self.jobs.submit(user, job, submission).await, done);
            }
            Request::Wish { job, wish } => self.jobs.wish(user, job, wish).await,
            Request::Rescale { job, parallelism } => self.jobs.rescale(user, job, parallelism).await,
            Request::Drain { worker } => self.jobs.drain(user, &worker).await,
            Request::AddMember { id, address } => return self.add_member(user, id, address).await,
            Request::RemoveMember { id } => return self.remove_member(user, id).await,
            Request::Savepoint { job, request } => self.jobs.savepoint(user, job, request).await,
            Request::Remove { job } => self.jobs.remove(user, job).await,
        };
        self.response(outcome, Response::Done)
    }

    fn response(&self, outcome: Result<Answer, ProposeError>, done: Response) -> Response {
        match outcome {
            Ok(Ok(())) => done,
            Ok(Err(reason)) => Response::Refused { reason },
            Err(ProposeError::NotLeader { .. }) => self.not_leader(),
            Err(error @ ProposeError::Refused { .. }) => Response::Refused { reason: error.to_string() },
            // It may come to be, now or later.
            Err(error @ (ProposeError::NoQuorum { .. } | ProposeError::Stopped { .. })) => {
                Response::Unknown { reason: error.to_string() }
            }
        }
    }

    /// Who wants it is agreed on first: Raft's own entry does not say.
    async fn add_member(&self, user: &str, id: u64, address: String) -> Response {
        if !self.consensus.status().members.contains_key(&id) {
            let note = Note::MemberAddAsked { node: id, address: address.clone() };
            match self.jobs.note(user, vec![note]).await {
                Ok(Ok(())) => {}
                outcome => return self.response(outcome, Response::Done),
            }
        }
        self.membership(self.consensus.add_member(id, address).await)
    }

    async fn remove_member(&self, user: &str, id: u64) -> Response {
        if self.consensus.status().members.contains_key(&id) {
            match self.jobs.note(user, vec![Note::MemberRemoveAsked { node: id }]).await {
                Ok(Ok(())) => {}
                outcome => return self.response(outcome, Response::Done),
            }
        }
        self.membership(self.consensus.remove_member(id).await)
    }

    fn audit(&self, request: &AuditRequest) -> AuditView {
        let wanted = |record: &AuditRecord| {
            (request.routine || record.what.class() != Class::Routine)
                && (request.job.is_none() || request.job == record.job)
        };
        let (head, records) = self.jobs.decisions(request.limit, wanted);
        AuditView { leads: self.leads(), leader: self.leader(), head, records }
    }

    fn look(&self, question: &Question) -> Response {
        let (leads, leader) = (self.leads(), self.leader());
        match self.figures.answer(question, leader.clone(), &self.fleet.workers()) {
            Ok(found) => Response::Look(LookView { leads, leader, found }),
            Err(error) => Response::Refused { reason: format!("bug: figures cannot be written: {error}") },
        }
    }

    fn membership(&self, outcome: Result<(), MembershipError>) -> Response {
        match outcome {
            Ok(()) => Response::Done,
            Err(MembershipError::Propose(error)) => self.response(Err(error), Response::Done),
            Err(error @ MembershipError::Refused { .. }) => Response::Refused { reason: error.to_string() },
        }
    }

    fn members(&self) -> MembersView {
        let RaftStatus { term, committed, members, learners, .. } = self.consensus.status();
        let leader = self.consensus.leadership().borrow().leader.clone();
        MembersView { leads: self.leads(), leader, members, learners, term, committed }
    }

    /// The workers that it knows, while it leads.
    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        self.fleet.workers()
    }

    /// Whether it leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_leader
    }

    /// The address of who leads, as far as it knows.
    pub(crate) fn leader(&self) -> Option<String> {
        self.consensus.leadership().borrow().leader.as_ref().map(|(_, address)| address.clone())
    }

    /// The address of who is to be asked instead of it, as far as it knows.
    pub(crate) fn whom_to_ask(&self) -> Option<String> {
        self.consensus.leadership().borrow().whom_to_ask()
    }

    fn not_leader(&self) -> Response {
        Response::NotLeader { leader: self.whom_to_ask() }
    }

    fn list(&self) -> Response {
        let jobs = self.jobs.views().into_iter().map(|view| self.summary(view)).collect();
        Response::Jobs { leads: self.leads(), leader: self.leader(), jobs, workers: self.fleet.workers() }
    }

    fn summary(&self, view: JobView) -> JobSummary {
        // A plan of another version counts nothing here; the driver says why it cannot run.
        let graph: JobGraph = serde_json::from_str(&view.graph_json).unwrap_or_default();
        let counters = &view.counters;
        let rows = |of: fn(&OperatorKind) -> bool, rows: fn(&OperatorCounters) -> u64| {
            let operators = job::operators_of(&graph, of);
            operators.iter().filter_map(|operator| counters.get(operator)).map(rows).sum()
        };
        JobSummary {
            parallelism: view.parallelism,
            active: view.active,
            generation: view.generation,
            complete: view.complete.0,
            committed: view.committed.0,
            rows_in: rows(|kind| matches!(kind, OperatorKind::Source(_)), |c| c.rows_in),
            rows_out: rows(|kind| matches!(kind, OperatorKind::Sink(_)), |c| c.rows_out),
            late_rows: counters.values().map(|c| c.late_rows).sum(),
            dropped_records: counters.values().map(|c| c.dropped_records).sum::<u64>()
                + view.status.as_ref().map_or(0, |status| status.rejected_records),
            latency: self.figures.latency(&view.job),
            dead_letters: counters.values().map(|c| c.dead_letters).sum(),
            lag: lag::of_tables(&lag::tables_read(&graph), |id| counters.get(&id).filter(|_| view.active)?.lag.clone()),
            restored_local_bytes: counters.values().map(|c| c.restored_local_bytes).sum(),
            restored_store_bytes: counters.values().map(|c| c.restored_store_bytes).sum(),
            memory: graph
                .nodes
                .iter()
                .filter_map(|node| OperatorMemory::of(node.id, &node.name, counters.get(&node.id)?.memory))
                .collect(),
            standbys: view.standbys,
            job: view.job,
            savepoint: view.savepoint,
            savepoints: view.savepoints,
            restored: view.restored,
            end: view.end,
            status: view.status,
        }
    }
}

/// Who asks, for the audit trail: what the command says of itself, and where it comes from.
fn user(connection: &Connection) -> String {
    let name: String = connection.hello.node.chars().filter(|letter| !letter.is_control()).take(64).collect();
    format!("{name} at {}", connection.peer)
}
