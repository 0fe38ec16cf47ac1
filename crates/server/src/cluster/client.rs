//! The commands that speak to a cluster: `submit`, `jobs`, `status`, `cancel`, `remove`, `rescale`; and how all of them
//! find who answers.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_coordinator::cluster::{Wish, WorkerStatus};
use mainstem_coordinator::{JobEnd, JobStatus};
use mainstem_core::checkpoint::CadenceChoice;
use mainstem_core::cluster::{SlotStandby, StandbyStatus};
use mainstem_core::ids::JobId;
use mainstem_net::{Hello, RpcClient, RpcError, Service, Transport};
use serde_json::json;

use super::api::{JobSummary, Request, Response, SubmitRequest};
use super::{local, savepoints};
use crate::cli::{ClientArgs, JobArgs, ListArgs, RescaleArgs, StatusArgs, SubmitArgs};
use crate::figures::RowLatency;
use crate::sql_files::SqlFiles;

/// How long a coordinator that leads is looked for.
const SEARCH: Duration = Duration::from_secs(15);
/// Wait between two looks at a job, or for a coordinator.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Sends a SQL file to be run.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn submit(args: &SubmitArgs) -> anyhow::Result<ExitCode> {
    let files = SqlFiles::read(&args.files)?;
    // Mistakes are shown without a cluster.
    files.plan()?;
    let working_dir = std::env::current_dir().context("cannot find the current directory")?;
    let interval = args.checkpoint_interval.map(|interval| u64::try_from(interval.as_millis()));
    let request = SubmitRequest {
        files: files.into_parts(),
        job: args.job_id.clone(),
        parallelism: args.parallelism,
        checkpoint_interval_ms: interval.transpose().context("the checkpoint interval is too long")?,
        working_dir: working_dir.display().to_string(),
        from_savepoint: args.restore.from_savepoint.as_ref().map(|path| path.display().to_string()),
        repeat_output: args.restore.repeat_output,
    };
    block_on(async {
        let client = Client::new(&args.client)?;
        let Response::Submitted { job } = client.ask_leader(&Request::Submit(request)).await? else {
            return unexpected();
        };
        if !args.wait {
            eprintln!("job '{job}' submitted");
            return super::done();
        }
        client.wait(&job).await
    })
}

/// Lists jobs and workers.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn jobs(args: &ListArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let answer = Client::new(&args.client)?.ask_any(&Request::Jobs).await?;
        let Response::Jobs { leads, leader, jobs, workers } = answer else { return unexpected() };
        if args.json {
            let all = json!({ "leads": leads, "leader": leader, "jobs": jobs, "workers": workers });
            crate::show(&all.to_string())?;
            return super::done();
        }
        if !leads {
            eprintln!("note: no coordinator that leads was found; what follows may be old");
        }
        crate::show(&(jobs_table(&jobs) + "\n" + &workers_table(&workers)))?;
        super::done()
    })
}

fn jobs_table(jobs: &[JobSummary]) -> String {
    let head = format!(
        "{:<32} {:<11} {:>11} {:>8} {:>9} {:>8} {:>9}\n",
        "JOB", "STATE", "PARALLELISM", "ATTEMPT", "PUBLISHED", "RESTARTS", "SAVEPOINT"
    );
    let line = |job: &JobSummary| {
        let restarts = job.status.as_ref().map_or(0, |status| status.restarts);
        let (id, attempt) = (job.job.as_str(), job.generation.0);
        format!(
            "{id:<32} {:<11} {:>11} {attempt:>8} {:>9} {restarts:>8} {:>9}\n",
            job.state(),
            job.parallelism,
            job.committed,
            savepoints::in_a_word(job)
        )
    };
    jobs.iter().map(line).fold(head, |table, line| table + &line)
}

fn workers_table(workers: &[WorkerStatus]) -> String {
    let head = format!("{:<40} {:<24} {:>5} {:>4}  {}\n", "WORKER", "ADDRESS", "SLOTS", "USED", "STATE");
    let line = |worker: &WorkerStatus| {
        let WorkerStatus { offer, used } = worker;
        let state = if offer.draining { "draining" } else { "ready" };
        format!("{:<40} {:<24} {:>5} {used:>4}  {state}\n", offer.worker.0, offer.data_address, offer.slots)
    };
    workers.iter().map(line).fold(head, |table, line| table + &line)
}

/// Shows one job.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let job = Client::new(&args.client)?.job(&args.job).await?;
        let text = match args.json {
            true => serde_json::to_string(&job).context("bug: the status cannot be written")?,
            false => details(&job),
        };
        crate::show(&text)?;
        super::done()
    })
}

fn details(job: &JobSummary) -> String {
    let mut lines = vec![
        format!("job          {}", job.job),
        format!("state        {}", job.state()),
        format!("parallelism  {}", job.parallelism),
        format!("attempt      {}", job.generation),
        format!("epochs       {} complete, {} published", job.complete, job.committed),
        format!(
            "rows         {} in, {} out, {} late, {} dropped, {} dead letters",
            job.rows_in, job.rows_out, job.late_rows, job.dropped_records, job.dead_letters
        ),
    ];
    lines.extend(job.lag.iter().map(|lag| format!("lag          {lag}")));
    lines.extend(job.latency.iter().filter_map(latency_line));
    lines.extend(savepoints::details(job));
    if job.restored_local_bytes + job.restored_store_bytes > 0 {
        let (local, store) = (job.restored_local_bytes, job.restored_store_bytes);
        lines.push(format!("restored     {local} bytes from local copies, {store} bytes from the store"));
    }
    lines.extend(job.standbys.iter().flat_map(standby_lines));
    lines.extend(job.memory.iter().map(|of| format!("memory       {of}")));
    if let Some(status) = &job.status {
        lines.push(format!("restarts     {}", status.restarts));
        lines.extend(checkpoint_line(status));
        if let Some(CadenceChoice { interval_ms, reason }) = &status.cadence {
            lines.push(format!("interval     {interval_ms} ms: {reason}"));
        }
        lines.extend(status.last_failure.iter().map(|failure| format!("last failure {failure}")));
        lines.extend(status.waiting.iter().map(|waiting| format!("it {waiting}")));
    }
    if let Some(JobEnd::Failed { reason }) = &job.end {
        lines.push(format!("failed       {reason}"));
    }
    lines.join("\n")
}

/// How long rows took to a sink in the last minute.
fn latency_line(of: &RowLatency) -> Option<String> {
    let mut line = format!("latency      {}: p50 {:.0} ms, p99 {:.0} ms", of.table, of.p50_ms?, of.p99_ms?);
    if let (Some(p50), Some(p99)) = (of.visible_p50_ms, of.visible_p99_ms) {
        line += &format!("; until visible p50 {p50:.0} ms, p99 {p99:.0} ms");
    }
    Some(line)
}

/// Who stands by for the job's slots, and what is missing.
fn standby_lines(standbys: &StandbyStatus) -> Vec<String> {
    let line = |standby: &SlotStandby| {
        let SlotStandby { slot, worker, epoch, epochs_behind, files_waiting, bytes_waiting } = standby;
        let at = epoch.map_or_else(|| "no epoch yet".to_owned(), |epoch| format!("epoch {epoch}"));
        format!(
            "standby      slot {slot}: {worker} has {at}, {epochs_behind} behind; \
             {files_waiting} files of {bytes_waiting} bytes to fetch"
        )
    };
    let lacking = standbys.lacking.iter().map(|lacking| format!("no standby   {lacking}"));
    standbys.slots.iter().map(line).chain(lacking).collect()
}

/// How the newest checkpoint went.
fn checkpoint_line(status: &JobStatus) -> Option<String> {
    let mut line = format!("checkpoint   {} ms", status.last_checkpoint_duration_ms?);
    if let Some(aligned_ms) = status.last_checkpoint_alignment_ms {
        line += &format!(", of which at most {aligned_ms} ms to align");
    }
    if let Some(bytes) = status.last_checkpoint_in_flight_bytes {
        line += &format!(", {bytes} bytes in flight");
    }
    if status.unaligned_checkpoints > 0 {
        line += &format!("; {} were not aligned", status.unaligned_checkpoints);
    }
    Some(line)
}

/// Stops a job at once.
pub(crate) fn cancel(args: &JobArgs) -> anyhow::Result<ExitCode> {
    change(&args.client, &args.job, &Request::Wish { job: args.job.clone(), wish: Wish::Cancel }, true)
}

/// Forgets a job that has ended.
pub(crate) fn remove(args: &JobArgs) -> anyhow::Result<ExitCode> {
    change(&args.client, &args.job, &Request::Remove { job: args.job.clone() }, false)
}

/// Runs a job at another parallelism.
pub(crate) fn rescale(args: &RescaleArgs) -> anyhow::Result<ExitCode> {
    let request = Request::Rescale { job: args.job.clone(), parallelism: args.parallelism };
    change(&args.client, &args.job, &request, false)
}

/// Makes a job do something, and waits until it has ended where that is asked for.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(super) fn change(client: &ClientArgs, job: &JobId, request: &Request, wait: bool) -> anyhow::Result<ExitCode> {
    block_on(async {
        let client = Client::new(client)?;
        client.ask_leader(request).await?;
        if wait {
            return client.wait(job).await;
        }
        eprintln!("job '{job}': asked for");
        super::done()
    })
}

pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(work)
}

/// What is said where a question was put and its answer is not known. It must not read as a refusal.
fn unknown(reason: &str) -> String {
    format!(
        "unknown whether this was done, or will be: {reason}; look with `mainstem jobs` before you ask for it once more"
    )
}

pub(super) fn unexpected<T>() -> anyhow::Result<T> {
    bail!("bug: the coordinator's answer does not fit the question; please report it")
}

/// The coordinators, as a command sees them.
pub(super) struct Client {
    addresses: Vec<String>,
    clients: Vec<RpcClient>,
    transport: Transport,
    hello: Hello,
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> anyhow::Result<Client> {
        let found = local::coordinators(Path::new("."));
        let addresses = if args.coordinators.is_empty() { found } else { args.coordinators.clone() };
        if addresses.is_empty() {
            bail!(
                "no coordinators are known: name them by --coordinators HOST:PORT,... or MAINSTEM_COORDINATORS, \
                 or start a cluster here by `mainstem cluster`"
            );
        }
        let transport = super::transport(&args.node)?;
        // Only a claim, for the audit trail.
        let user = std::env::var("USER").unwrap_or_else(|_| "client".to_owned());
        let hello = Hello::new(Service::Client, user, args.node.cluster.clone());
        let clients = addresses.iter().map(|a| RpcClient::new(transport.clone(), a, hello.clone())).collect();
        Ok(Client { addresses, clients, transport, hello })
    }

    /// Asks whoever leads; looks for a while until somebody does.
    pub(super) async fn ask_leader(&self, request: &Request) -> anyhow::Result<Response> {
        let mut reason = String::new();
        // Whom the others name; it may have joined the cluster later than this list was written.
        let mut hinted: Option<RpcClient> = None;
        let search = async {
            for turn in 0_usize.. {
                let taken = hinted.take();
                let client = taken.as_ref().unwrap_or(&self.clients[turn % self.clients.len()]);
                match client.call::<_, Response>(request, request.answer_within()).await {
                    Ok(Response::Refused { reason }) => bail!("{reason}"),
                    Ok(Response::Unknown { reason }) => bail!("{}", unknown(&reason)),
                    Ok(Response::NotLeader { leader }) => {
                        reason = "no coordinator leads at the moment".to_owned();
                        hinted = leader.and_then(|address| self.newcomer(&address));
                    }
                    Ok(response) => return Ok(response),
                    Err(error @ RpcError::Unreachable(_)) => reason = error.to_string(),
                    Err(error) => bail!("{}", unknown(&error.to_string())),
                }
                if turn % self.clients.len() == self.clients.len() - 1 {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
            unreachable!("the search has no end of its own")
        };
        match tokio::time::timeout(SEARCH, search).await {
            Ok(answer) => answer,
            Err(_) => bail!("no coordinator of {} does this: {reason}", self.addresses.join(", ")),
        }
    }

    /// Asks whoever leads, or if nobody does, whoever answers.
    pub(super) async fn ask_any(&self, request: &Request) -> anyhow::Result<Response> {
        let mut old: Option<Response> = None;
        let mut reasons = Vec::new();
        let mut named = BTreeSet::new();
        let mut to_ask: VecDeque<RpcClient> = self.clients.iter().cloned().collect();
        while let Some(client) = to_ask.pop_front() {
            let response: Response = match client.call(request, request.answer_within()).await {
                Ok(response) => response,
                Err(error) => {
                    reasons.push(error.to_string());
                    continue;
                }
            };
            if response.leads() {
                return Ok(response);
            }
            // Everybody's word counts: who was cut off names a leader of old.
            if let Some(address) = response.leader().filter(|address| named.insert((*address).to_owned())) {
                to_ask.extend(self.newcomer(address));
            }
            match response {
                Response::NotLeader { .. } => reasons.push("one answers that is no member".to_owned()),
                response => old = Some(response),
            }
        }
        old.with_context(|| format!("no coordinator answers: {}", reasons.join("; ")))
    }

    /// A client of a coordinator that is not on the list.
    fn newcomer(&self, address: &str) -> Option<RpcClient> {
        let is_known = self.addresses.iter().any(|known| known == address);
        (!is_known).then(|| RpcClient::new(self.transport.clone(), address, self.hello.clone()))
    }

    /// As [`Client::job`], from the coordinator that leads: what another one knows may be of an earlier run.
    pub(super) async fn led_job(&self, job: &JobId) -> anyhow::Result<JobSummary> {
        match self.ask_any(&Request::Jobs).await? {
            Response::Jobs { leads: true, .. } => self.job(job).await,
            _ => bail!("no coordinator leads at the moment"),
        }
    }

    async fn job(&self, job: &JobId) -> anyhow::Result<JobSummary> {
        let Response::Jobs { jobs, .. } = self.ask_any(&Request::Jobs).await? else { return unexpected() };
        jobs.into_iter().find(|summary| summary.job == *job).with_context(|| format!("there is no job '{job}'"))
    }

    /// Waits until a job has ended.
    #[expect(clippy::print_stderr, reason = "the command's output")]
    async fn wait(&self, job: &JobId) -> anyhow::Result<ExitCode> {
        loop {
            let summary = match self.led_job(job).await {
                Ok(summary) => summary,
                Err(error) => {
                    // Coordinators may change while a job runs.
                    tracing::warn!(%error, "waiting for a coordinator");
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
            };
            match &summary.end {
                Some(JobEnd::Failed { reason }) if !summary.active => bail!("job '{job}' failed: {reason}"),
                Some(_) if !summary.active => {
                    eprintln!("job '{job}' {}: {} epochs published", summary.state(), summary.committed);
                    return super::done();
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}
