//! `mainstem why JOB`: why windows have not fired, why a checkpoint was slow, what bounds the throughput, why the job waits, restarts or has failed; from
//! what the cluster tells of it and from its newest checkpoint. Says nothing that it does not know.

mod findings;
mod live;
mod part;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, SystemClock};
use serde_json::{Value, json};

use self::findings::{Finding, of_checkpoint, of_record, of_summary};
use crate::cli::{ClientArgs, NodeArgs};
use crate::cluster::{self, JobSummary, ShellClient};
use crate::figures::{Part, Question};
use crate::state;

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    job: JobId,
    /// Directory or object store (s3://, gs://, az://) of its checkpoints [default: of the cluster that `mainstem cluster` has
    /// started here, else .mainstem].
    #[arg(long, env = "MAINSTEM_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Addresses of the coordinators, where it is a job of a cluster [default: of the cluster that `mainstem cluster` has started
    /// here].
    #[arg(long, value_delimiter = ',', env = "MAINSTEM_COORDINATORS", value_name = "HOST:PORT")]
    coordinators: Vec<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Tells what is known.
pub(crate) fn why(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start threads")?;
    let findings = runtime.block_on(found(args))?;
    if args.json {
        crate::show(&json!(findings).to_string())?;
    } else {
        let lines: Vec<String> =
            findings.iter().map(|finding| format!("{:<12} {}", finding.about, finding.text)).collect();
        crate::show(&lines.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn found(args: &WhyArgs) -> anyhow::Result<Vec<Finding>> {
    let here = cluster::started_here();
    let asked = live(args, here.is_some()).await;
    let state_dir = match (&args.state_dir, here) {
        (Some(named), _) => named.clone(),
        (None, Some(directory)) => directory.join("state"),
        (None, None) => PathBuf::from(".mainstem"),
    };
    let stored = state::stored(&state_dir, &args.job).await;
    let now = SystemClock::default().now();
    let mut findings = Vec::new();
    match &asked {
        Ok(Some(live)) => {
            findings.extend(of_summary(&live.summary, now));
            findings.extend(live.graph.as_ref().map(live::of_graph).unwrap_or_default());
            findings.extend(live.checkpoints.as_ref().map(live::of_checkpoints).unwrap_or_default());
        }
        Ok(None) => {}
        Err(error) => findings.push(Finding::new("cluster", format!("{error:#}"))),
    }
    match &stored {
        Ok(stored) => {
            if let (Some(record), false) = (&stored.record, matches!(asked, Ok(Some(_)))) {
                findings.extend(of_record(record));
            }
            findings.extend(stored.damaged.iter().map(|damaged| Finding::new("damaged", damaged.clone())));
            match &stored.newest {
                Some((manifest, graph)) => findings.extend(of_checkpoint(manifest, graph.as_ref(), now)),
                None if !stored.damaged.is_empty() => {}
                None => findings.push(Finding::new("checkpoints", "there is none yet".to_owned())),
            }
        }
        Err(error) if matches!(asked, Ok(Some(_))) => {
            let place = state::shown(&state_dir);
            let text = format!("cannot be looked at in '{place}' ({error:#}); name their place by --state-dir");
            findings.push(Finding::new("checkpoints", text));
        }
        Err(error) => match asked {
            Err(cluster) => bail!("nothing is known of job '{}': {cluster:#}; {error:#}", args.job),
            Ok(_) => bail!("nothing is known of job '{}': {error:#}", args.job),
        },
    }
    Ok(findings)
}

/// What a cluster tells of a job.
struct Live {
    summary: JobSummary,
    /// Its dataflow with figures, and its newest checkpoints, where a leader answers.
    graph: Option<Value>,
    checkpoints: Option<Value>,
}

/// What the cluster tells, where there is one.
async fn live(args: &WhyArgs, is_here: bool) -> anyhow::Result<Option<Live>> {
    if args.coordinators.is_empty() && !is_here {
        return Ok(None);
    }
    let client = ShellClient::new(&ClientArgs { coordinators: args.coordinators.clone(), node: args.node.clone() })?;
    let summary = client.job(&args.job).await?;
    if !summary.active {
        return Ok(Some(Live { summary, graph: None, checkpoints: None }));
    }
    let part = async |part| client.look(Question::Job { job: args.job.clone(), part }).await.ok().flatten();
    Ok(Some(Live { graph: part(Part::Graph).await, checkpoints: part(Part::Checkpoints).await, summary }))
}

/// How long ago something was, for people.
fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{} ago", length(now.since_ms(at)))
}

/// A length of time for people.
fn length(ms: i64) -> String {
    match ms {
        i64::MIN..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{:.1} s", ms as f64 / 1e3),
        600_000..36_000_000 => format!("{:.1} min", ms as f64 / 6e4),
        _ => format!("{:.1} h", ms as f64 / 3.6e6),
    }
}

fn job_id(text: &str) -> Result<JobId, String> {
    JobId::new(text)
}
