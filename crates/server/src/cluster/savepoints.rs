//! The commands `savepoint` and `stop`, and what is shown of savepoints.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use mainstem_coordinator::cluster::Wish;
use mainstem_coordinator::{RestoredFrom, SavepointOutcome, SavepointRecord, SavepointRequest};
use mainstem_core::ids::{JobId, SavepointId};
use mainstem_objects::Place;

use super::api::{JobSummary, Request};
use super::client::{Client, LOOK_EVERY, block_on, change};
use crate::cli::{ClientArgs, SavepointArgs, StopArgs};

/// Takes a savepoint of a job that goes on.
pub(crate) fn savepoint(args: &SavepointArgs) -> anyhow::Result<ExitCode> {
    take(&args.client, &args.job, &args.to, false)
}

/// Takes a last checkpoint of a job, or a savepoint, and stops it.
pub(crate) fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    match &args.savepoint {
        Some(directory) => take(&args.client, &args.job, directory, true),
        None => change(&args.client, &args.job, &Request::Wish { job: args.job.clone(), wish: Wish::Stop }, true),
    }
}

/// A name for a savepoint that nobody else draws.
pub(crate) fn new_id() -> SavepointId {
    // Seeded by the system for each one.
    SavepointId::of(std::hash::RandomState::new().build_hasher().finish())
}

/// Asks for a savepoint and waits for its outcome, whoever leads.
#[expect(clippy::print_stderr, reason = "the command's output")]
fn take(client: &ClientArgs, job: &JobId, directory: &Path, stop: bool) -> anyhow::Result<ExitCode> {
    let current = std::env::current_dir().context("cannot find the current directory")?;
    let (id, directory) = (new_id(), Place::absolute(&current, directory).display().to_string());
    let request = SavepointRequest { id: id.clone(), directory, stop };
    block_on(async {
        let client = Client::new(client)?;
        client.ask_leader(&Request::Savepoint { job: job.clone(), request }).await?;
        loop {
            let summary = match client.led_job(job).await {
                Ok(summary) => summary,
                Err(error) => {
                    tracing::warn!(%error, "waiting for a coordinator");
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
            };
            match summary.savepoints.iter().find(|outcome| outcome.id == id).map(|outcome| &outcome.outcome) {
                Some(SavepointOutcome::Taken { path, epoch, files, bytes }) => {
                    let stopped = if stop { ", with which it has ended" } else { "" };
                    eprintln!("savepoint of job '{job}' at epoch {epoch}{stopped}: {files} files, {bytes} bytes");
                    crate::show(path)?;
                    return super::done();
                }
                Some(SavepointOutcome::Failed { reason }) => bail!("no savepoint of job '{job}' was taken: {reason}"),
                None if summary.savepoint.as_ref().is_none_or(|wanted| wanted.id != id) => {
                    bail!("nothing is known of the savepoint any more; look with `mainstem status {job}`")
                }
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    })
}

/// How it stands with the savepoints of a job: the epoch of the last one, or that one is being taken.
pub(super) fn in_a_word(job: &JobSummary) -> String {
    match (&job.savepoint, job.savepoints.last()) {
        (Some(_), _) => "taking".to_owned(),
        (None, Some(SavepointRecord { outcome: SavepointOutcome::Taken { epoch, .. }, .. })) => epoch.to_string(),
        (None, Some(_)) => "failed".to_owned(),
        (None, None) => "-".to_owned(),
    }
}

/// Lines about the savepoints of a job.
pub(super) fn details(job: &JobSummary) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(RestoredFrom { job, epoch, path, .. }) = &job.restored {
        lines.push(format!("began with   savepoint '{path}' of job '{job}' at epoch {epoch}"));
    }
    if let Some(SavepointRequest { directory, .. }) = &job.savepoint {
        let live = job.status.as_ref().and_then(|status| status.savepoint.as_ref());
        let step = match live.and_then(|live| Some((live.epoch?, live.copied))) {
            Some((epoch, copied)) => format!(
                "epoch {epoch}: {} of {} files, {} of {} bytes copied",
                copied.files, copied.files_all, copied.bytes, copied.bytes_all
            ),
            None => "waits for its epoch".to_owned(),
        };
        lines.push(format!("savepoint    to '{directory}', {step}"));
    }
    lines.extend(job.savepoints.last().map(|last| match &last.outcome {
        SavepointOutcome::Taken { path, epoch, .. } => format!("last taken   epoch {epoch}: {path}"),
        SavepointOutcome::Failed { reason } => format!("not taken    {reason}"),
    }));
    lines
}
