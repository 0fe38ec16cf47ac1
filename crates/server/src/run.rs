//! `mainstem run`: one coordinator and one worker in this process, for one job.

mod watched;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use mainstem_coordinator::{
    Control, JobCoordinator, JobHistory, JobOutcome, JobSpec, JobStatus, JobStore, SavepointOutcome, SavepointRecord,
    SavepointRequest, StoredJob,
};
use mainstem_core::ids::JobId;
use mainstem_engine::JobMetrics;
use mainstem_objects::Place;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_planner::JobPlan;
use mainstem_rt::{Clock, SystemClock};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::watched::{RunBackend, RunningJob};
use crate::cli::RunArgs;
use crate::cluster;
use crate::copies;
use crate::deployer::LocalDeployer;
use crate::figures::Figures;
use crate::http;
use crate::inspect;
use crate::job;
use crate::lag;
use crate::memory;
use crate::restore::{self, Restored};
use crate::sql_files::SqlFiles;
use crate::status::{StatusReporter, Totals};
use crate::traces::Traces;

/// Runs the job of a SQL file until it has finished, failed or been stopped.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let files = SqlFiles::read(&args.files)?;
    let plan = files.plan()?;
    if plan.explain_only {
        return inspect::show(args.parallelism, &plan, &files);
    }
    let id = job::job_id(args.job_id.as_ref(), &plan, files.last())?;
    run_plan(args, &files, &plan, &id)
}

/// Runs a job that has been planned.
pub(crate) fn run_plan(args: &RunArgs, files: &SqlFiles, plan: &JobPlan, id: &JobId) -> anyhow::Result<ExitCode> {
    let runtimes = Runtimes::start(1)?;
    let outcome = runtimes.control.block_on(run_job(args, files, plan, id, &runtimes));
    runtimes.end();
    outcome
}

/// Subtasks have threads of their own: a busy operator must not keep the coordinator from its timers.
pub(crate) struct Runtimes {
    pub(crate) control: Runtime,
    pub(crate) data: Runtime,
}

impl Runtimes {
    /// Starts the threads.
    pub(crate) fn start(control_threads: usize) -> anyhow::Result<Runtimes> {
        let control =
            Builder::new_multi_thread().worker_threads(control_threads).thread_name("control").enable_all().build();
        let data = Builder::new_multi_thread().thread_name("data").enable_all().build();
        Ok(Runtimes { control: control.context("cannot start threads")?, data: data.context("cannot start threads")? })
    }

    /// Ends them. Blocking reads that nobody waits for any more must not hold up the exit.
    pub(crate) fn end(self) {
        self.control.shutdown_background();
        self.data.shutdown_background();
    }
}

async fn run_job(
    args: &RunArgs,
    files: &SqlFiles,
    plan: &JobPlan,
    id: &JobId,
    runtimes: &Runtimes,
) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let sql = files.text();
    let parallelism = job::parallelism(args.parallelism, plan, job::cores)?;
    let working_dir = std::env::current_dir().context("cannot find the current directory")?;
    let store = JobStore::open(&args.state_dir, id, clock.clone()).await?;
    let mut store = store.with_copies(copies::of_run(&args.copies)?);
    let stored = if args.fresh { None } else { store.load().await? };
    let restored = restored(args, plan, stored.as_ref(), &sql, id, &working_dir).await?;
    // Nothing is given up for a savepoint that cannot be used.
    if args.fresh {
        store.reset().await?;
    }
    let planned = restored.as_ref().map_or(&plan.graph, |restored| &restored.graph);
    let graph_json = serde_json::to_string(planned).context("bug: the plan cannot be written")?;
    let graph = Arc::new(graph_to_run(planned, &graph_json, stored.as_ref(), &sql, id, files)?);
    let of_savepoint = restored.as_ref().map(|restored| restored.key_groups);
    let key_groups = match stored.as_ref().map(|stored| stored.key_groups).or(of_savepoint) {
        Some(key_groups) => key_groups,
        None => job::key_groups(plan)?,
    };
    if parallelism > u32::from(key_groups) {
        bail!("parallelism {parallelism} is not between 1 and the job's {key_groups} key groups");
    }
    let metrics = Arc::new(JobMetrics::of(&graph, parallelism));
    let (control_sender, control) = mpsc::channel(4);
    let (status_sender, status) = watch::channel(JobStatus::default());

    let traces = Traces::start(&args.traces, &format!("run {id}"))?;
    let history = match &traces {
        Some(traces) => traces.history(id, &graph, clock.clone()),
        None => JobHistory::new(clock.clone()),
    };
    let before = stored.as_ref().and_then(|stored| stored.restored.clone());
    let spec = JobSpec {
        history: history.clone(),
        job: id.clone(),
        graph_json: stored.map_or(graph_json, |s| s.graph_json),
        sql_hash: job::hash(&sql),
        key_groups,
        parallelism,
        tasks: job::tasks(&graph, parallelism),
        sources: job::sources(&graph, parallelism)?,
        committers: job::committers(&graph, id, &mainstem_engine::staging(store.checkpoints(), id.clone()))?,
        options: job::checkpoint_options(args.checkpoint_interval, plan)?,
        restore: restored.map(|restored| restored.from),
    };
    let memory = memory::budget(&args.memory);
    let shown = RunningJob {
        job: id.clone(),
        graph_json: spec.graph_json.clone(),
        parallelism,
        key_groups,
        options: spec.options.clone(),
        working_dir: working_dir.clone(),
        restored: before,
        began_at: clock.now(),
        metrics: metrics.clone(),
        memory: memory.clone(),
        status: status.clone(),
        history,
        traces: traces.as_ref().map(|traces| traces.counts()),
    };
    let data_runtime = runtimes.data.handle().clone();
    let deployer = LocalDeployer::new(
        &spec,
        graph.clone(),
        metrics.clone(),
        store.checkpoints(),
        memory,
        clock.clone(),
        data_runtime,
    )?;
    let reporter = reporter(&graph, metrics, clock.clone(), status.clone(), args.json);
    let on_stop = args.savepoint_on_stop.as_ref();
    let on_stop = on_stop.map(|directory| Place::absolute(&working_dir, directory).display().to_string());
    let started = clock.now();
    // A second sender: the job must not take the end of the signal task for a wish to stop.
    let serving = serve(args, shown, control_sender.clone(), clock.clone()).await?;
    let signals = tokio::spawn(forward_signals(control_sender.clone(), on_stop, status.clone()));
    let reporting = tokio::spawn(reporter.clone().run());
    let outcome =
        JobCoordinator::new(spec, store.into_home().await?, clock.clone()).run(deployer, control, status_sender).await;
    signals.abort();
    serving.abort();
    drop(control_sender);
    reporting.abort();
    let _ = reporting.await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    let seconds = clock.now().since_ms(started) as f64 / 1000.0;
    let savepoint = status.borrow().last_savepoint.clone();
    finish(args, id, outcome, savepoint, reporter.totals(), seconds)
}

/// Serves the HTTP port, where that is wanted, beside the job.
async fn serve(
    args: &RunArgs,
    shown: RunningJob,
    control: mpsc::Sender<Control>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<JoinHandle<()>> {
    let running = Arc::new(shown);
    let figures = Figures::new(running.clone(), clock.clone());
    let settings = vec![
        ("state-dir".to_owned(), args.state_dir.display().to_string()),
        ("http".to_owned(), args.http.http.clone().unwrap_or_default()),
    ];
    let backend = RunBackend { running, figures: figures.clone(), control, clock, settings, json: args.json };
    let serving = http::serve(&args.http, None, Arc::new(backend)).await?;
    let samples = args.http.http.is_some();
    Ok(tokio::spawn(async move {
        tokio::select! {
            outcome = serving => if let Err(error) = outcome {
                tracing::error!(%error, "the HTTP port is closed; the job goes on");
            },
            () = figures.keep_sampling(), if samples => {}
        }
    }))
}

/// The savepoint with which the job begins, where it is to and has not before.
async fn restored(
    args: &RunArgs,
    plan: &JobPlan,
    stored: Option<&StoredJob>,
    sql: &str,
    id: &JobId,
    working_dir: &Path,
) -> anyhow::Result<Option<Restored>> {
    let Some(path) = &args.restore.from_savepoint else { return Ok(None) };
    let sql_hash = job::hash(sql);
    let opened = restore::restore(restore::Wanted {
        path,
        job: id,
        planned: &plan.graph,
        sql_hash: &sql_hash,
        working_dir,
        repeat_output: stored.is_none().then_some(args.restore.repeat_output),
    });
    let Some(stored) = stored else { return Ok(Some(opened.await?)) };
    // The same command once more, after the job was stopped or killed: the savepoint need not be there any more.
    if let Some(before) = &stored.restored {
        match opened.await {
            Ok(restored) if restored.from.id == before.id => return Ok(None),
            Err(_) if Path::new(&before.path).starts_with(Place::absolute(working_dir, path)) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    bail!(
        "job '{id}' has state already and did not begin with this savepoint; run it under another name (--job-id NAME), \
         or give up its state (--fresh)"
    )
}

/// The stored plan where the job has one: a restore never plans again. Refused where the SQL means another job.
fn graph_to_run(
    planned: &JobGraph,
    graph_json: &str,
    stored: Option<&StoredJob>,
    sql: &str,
    id: &JobId,
    files: &SqlFiles,
) -> anyhow::Result<JobGraph> {
    let Some(stored) = stored else { return Ok(planned.clone()) };
    if stored.sql_hash != job::hash(sql) && stored.graph_json != graph_json {
        bail!(
            "job '{id}' has state of another query than '{files}' now holds; run it as a new job (--job-id NAME) or give up the state (--fresh)"
        );
    }
    serde_json::from_str(&stored.graph_json)
        .with_context(|| format!("the stored plan of job '{id}' cannot be read by this version"))
}

fn reporter(
    graph: &JobGraph,
    metrics: Arc<JobMetrics>,
    clock: Arc<dyn Clock>,
    status: watch::Receiver<JobStatus>,
    json: bool,
) -> StatusReporter {
    StatusReporter {
        clock,
        metrics,
        sources: job::operators_of(graph, |k| matches!(k, OperatorKind::Source(_))),
        tables: lag::tables_read(graph),
        sinks: job::operators_of(graph, |k| matches!(k, OperatorKind::Sink(_))),
        windows: job::operators_of(graph, |k| {
            matches!(k, OperatorKind::WindowPartial(_) | OperatorKind::WindowFinal(_))
        }),
        names: graph.nodes.iter().map(|node| (node.id, node.name.clone())).collect(),
        status,
        json,
        live_line: !(prints(graph) && std::io::stdout().is_terminal()),
    }
}

/// Whether the job prints rows; a live line between them on one terminal would tear both.
fn prints(graph: &JobGraph) -> bool {
    let is_print = |kind: &OperatorKind| match kind {
        OperatorKind::Sink(sink) => sink.table.options.get("connector").is_some_and(|c| c == "print"),
        _ => false,
    };
    graph.nodes.iter().any(|node| is_print(&node.op.kind))
}

/// The first signal asks for a last checkpoint, or a savepoint as the last thing; the second ends the process at once.
async fn forward_signals(
    control: mpsc::Sender<Control>,
    savepoint: Option<String>,
    status: watch::Receiver<JobStatus>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("cannot listen for signals; Ctrl-C will stop without a last checkpoint");
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if asked {
            std::process::exit(130);
        }
        asked = true;
        let wish = match savepoint.clone() {
            Some(directory) => Control::Savepoint(SavepointRequest { id: cluster::new_id(), directory, stop: true }),
            None => Control::Stop,
        };
        if control.send(wish).await.is_err() {
            return;
        }
        if savepoint.is_some() {
            let control = control.clone();
            let mut status = status.clone();
            // Without the savepoint the job goes on, which is not what was asked for.
            tokio::spawn(async move {
                let known = status.wait_for(|status| status.last_savepoint.is_some()).await.is_ok();
                if known {
                    // A job that has ended does not hear it.
                    let _ = control.send(Control::Stop).await;
                }
            });
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command's own output")]
fn finish(
    args: &RunArgs,
    id: &JobId,
    outcome: JobOutcome,
    savepoint: Option<SavepointRecord>,
    totals: Totals,
    seconds: f64,
) -> anyhow::Result<ExitCode> {
    let (savepoint, not_taken) = match savepoint.map(|savepoint| savepoint.outcome) {
        Some(SavepointOutcome::Taken { path, .. }) => (Some(path), None),
        Some(SavepointOutcome::Failed { reason }) => (None, Some(reason)),
        None => (None, None),
    };
    let (word, failure) = match &outcome {
        JobOutcome::Finished => ("finished", None),
        JobOutcome::AlreadyFinished => ("already finished", None),
        JobOutcome::Stopped => ("stopped", None),
        JobOutcome::Failed(failure) => ("failed", Some(failure.message.clone())),
    };
    if args.json {
        let line = json!({
            "event": "outcome", "job": id.as_str(), "outcome": word, "error": failure,
            "rows_in": totals.rows_in, "rows_out": totals.rows_out, "late_rows": totals.late,
            "dropped_records": totals.dropped, "dead_letters": totals.dead_letters, "unmatched_changes": totals.unmatched, "bytes_in": totals.bytes_in, "seconds": seconds,
            "savepoint": savepoint, "savepoint_error": not_taken,
        });
        eprintln!("{line}");
    } else if let JobOutcome::AlreadyFinished = outcome {
        eprintln!("job '{id}' has finished before; nothing to do (run it again from the beginning with --fresh)");
    } else if failure.is_none() {
        let mut lost = if totals.late + totals.dropped > 0 {
            format!(", {} late, {} dropped", totals.late, totals.dropped)
        } else {
            String::new()
        };
        if totals.dead_letters > 0 {
            lost += &format!(", {} dead letters", totals.dead_letters);
        }
        if totals.unmatched > 0 {
            lost += &format!(", {} deletes or updates of rows that were not there", totals.unmatched);
        }
        eprintln!("job '{id}' {word}: {} rows in, {} rows out{lost}, {seconds:.1} s", totals.rows_in, totals.rows_out);
        if let Some(path) = &savepoint {
            eprintln!("savepoint: {path}");
        }
        if let JobOutcome::Stopped = outcome {
            eprintln!("run the same command to go on");
        }
    }
    match (failure, not_taken) {
        (Some(_), _) | (None, Some(_)) if args.json => Ok(ExitCode::FAILURE),
        (Some(message), _) => bail!("job '{id}' failed: {message}"),
        (None, Some(reason)) => bail!("no savepoint of job '{id}' was taken: {reason}"),
        (None, None) => Ok(ExitCode::SUCCESS),
    }
}
