//! `mainstem state`: what lies in checkpoints and savepoints, and whether it is what was written. Works on directories and
//! object stores, whether or not the job runs, and never writes.

mod args;
mod content;
mod target;
mod text;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use mainstem_coordinator::JobRecord;
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::JobGraph;
use mainstem_state::Manifest;
use serde_json::json;

pub(crate) use self::args::StateArgs;
use self::args::{StateCommand, StateInspectArgs, StateLsArgs, StateVerifyArgs};
use self::target::{Checkpoint, Jobs, Target};

/// Does what a subcommand asks for.
pub(crate) fn state(args: &StateArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        match &args.command {
            StateCommand::Ls(args) => ls(args).await,
            StateCommand::Inspect(args) => inspect(args).await,
            StateCommand::Verify(args) => verify(args).await,
        }
    })
}

/// Lists jobs, or the checkpoints of one, or savepoints.
async fn ls(args: &StateLsArgs) -> anyhow::Result<ExitCode> {
    match target::find(args.target.as_deref(), &args.look.state_dir).await? {
        Target::Jobs(jobs) => {
            let mut listed = Vec::new();
            for job in jobs.names().await? {
                listed.push(content::job(&jobs.of(job).await?));
            }
            show(args.look.json, || json!(listed), || text::jobs(&listed))
        }
        Target::Job(job) => {
            let listed: Vec<_> = job.checkpoints.iter().map(content::listed).collect();
            let notes = job.notes();
            show(args.look.json, || json!(listed), || text::checkpoints(&job.job, &listed, &notes))
        }
        Target::Savepoints(savepoints) => {
            let listed: Vec<_> = savepoints.iter().map(content::listed).collect();
            show(args.look.json, || json!(listed), || text::savepoints(&listed))
        }
    }
}

/// Shows what one checkpoint or savepoint holds.
async fn inspect(args: &StateInspectArgs) -> anyhow::Result<ExitCode> {
    let chosen = match target::find(Some(&args.target), &args.look.state_dir).await? {
        Target::Jobs(jobs) => only(jobs).await?.newest(args.epoch)?,
        Target::Job(job) => job.newest(args.epoch)?,
        Target::Savepoints(mut savepoints) => match (savepoints.pop(), savepoints.len()) {
            (Some(one), 0) => one,
            (one, others) => anyhow::bail!(
                "'{}' holds {} savepoints; name one of them",
                args.target,
                others + usize::from(one.is_some())
            ),
        },
    };
    let content = content::of(&chosen, args.top as usize).await?;
    show(args.look.json, || json!(content), || text::content(&content))
}

/// Reads every file and says which are not what was written.
#[expect(clippy::print_stderr, reason = "the command's output")]
async fn verify(args: &StateVerifyArgs) -> anyhow::Result<ExitCode> {
    let report = report(&args.target, &args.look.state_dir, args.epoch).await?;
    show(args.look.json, || json!(report), || text::report(&report))?;
    if report.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.look.json {
        report.damaged.iter().for_each(|damaged| eprintln!("error: {damaged}"));
    }
    Ok(ExitCode::FAILURE)
}

/// What is found where every file of a job, a savepoint or a place is read.
async fn report(target: &str, state_dir: &Path, epoch: Option<u64>) -> anyhow::Result<verify::Report> {
    let mut report = verify::Report::default();
    match target::find(Some(target), state_dir).await? {
        Target::Jobs(jobs) => {
            for job in jobs.names().await? {
                verify::job(&jobs.of(job).await?, epoch, &mut report).await?;
            }
        }
        Target::Job(job) => verify::job(&job, epoch, &mut report).await?,
        Target::Savepoints(savepoints) => report = verify::savepoints(&savepoints).await,
    }
    Ok(report)
}

/// How many checkpoints or savepoints `mainstem state verify` finds in a place, and what of them is damaged.
#[cfg(test)]
pub(crate) async fn damage(place: &str) -> anyhow::Result<(usize, Vec<String>)> {
    let report = report(place, Path::new(""), None).await?;
    Ok((report.verified.len(), report.damaged))
}

/// The only job of a state directory.
async fn only(jobs: Jobs) -> anyhow::Result<target::Job> {
    let names = jobs.names().await?;
    match names.as_slice() {
        [one] => jobs.of(one.clone()).await,
        [] => anyhow::bail!("'{}' holds no jobs", shown(&jobs.state_dir)),
        several => {
            let names: Vec<&str> = several.iter().take(5).map(|job| job.as_str()).collect();
            let (place, names) = (shown(&jobs.state_dir), names.join(", "));
            anyhow::bail!("'{place}' holds {} jobs, among them {names}; name one: '{place}/jobs/NAME'", several.len())
        }
    }
}

fn show(
    as_json: bool,
    value: impl FnOnce() -> serde_json::Value,
    text: impl FnOnce() -> String,
) -> anyhow::Result<ExitCode> {
    crate::show(&if as_json { value().to_string() } else { text() })?;
    Ok(ExitCode::SUCCESS)
}

/// A place as messages name it.
pub(crate) fn shown(place: &Path) -> String {
    mainstem_objects::Place::shown(place)
}

/// A moment for people.
pub(crate) fn time(at: Timestamp) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at.0);
    time.map_or_else(|| at.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// What is listed about a checkpoint: none of its files is read.
fn describe(checkpoint: &Checkpoint) -> String {
    let manifest = &checkpoint.manifest;
    format!("epoch {} of job '{}', attempt {}", manifest.epoch, manifest.job, manifest.generation)
}

/// What is stored of a job.
pub(crate) struct Stored {
    /// What its log says; none where it is kept elsewhere.
    pub(crate) record: Option<JobRecord>,
    /// The newest checkpoint that a restart would begin with, and the dataflow, where it is known.
    pub(crate) newest: Option<(Manifest, Option<JobGraph>)>,
    /// Checkpoints whose description cannot be read, and why.
    pub(crate) damaged: Vec<String>,
}

/// Looks a job up in a state directory.
pub(crate) async fn stored(state_dir: &Path, job: &JobId) -> anyhow::Result<Stored> {
    let Target::Job(found) = target::find(Some(job.as_str()), state_dir).await? else {
        anyhow::bail!("bug: a name is no place")
    };
    let record = found.record.clone().map_err(anyhow::Error::msg)?;
    let damaged = found.unreadable.clone();
    let newest = if found.checkpoints.is_empty() { None } else { Some(found.newest(None)?) };
    Ok(Stored { record, damaged, newest: newest.map(|checkpoint| (checkpoint.manifest, checkpoint.graph)) })
}
