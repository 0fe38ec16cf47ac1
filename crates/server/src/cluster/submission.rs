//! From the SQL that a user sends to what the coordinators agree on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_connectors::{TableSpec, absolute_references, is_path_option};
use mainstem_coordinator::cluster::Submission;
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::JobGraph;

use super::api::SubmitRequest;
use crate::job;
use crate::restore;
use crate::sql_files::SqlFiles;

/// Plans a job. Errors are for the user who sent it, with places in the files as the user named them.
pub(crate) fn plan(request: SubmitRequest, now: Timestamp) -> anyhow::Result<(JobId, Submission)> {
    let files = SqlFiles::of(request.files)?;
    let plan = files.plan()?;
    if plan.explain_only {
        bail!("the file only explains; run it by `mainstem explain`");
    }
    let id = job::job_id(request.job.as_ref(), &plan, files.last())?;
    // As in Flink; slots are shared by all jobs of the cluster.
    let parallelism = job::parallelism(request.parallelism, &plan, || 1)?;
    let interval = request.checkpoint_interval_ms.map(Duration::from_millis);
    let options = job::checkpoint_options(interval, &plan)?;
    let key_groups = job::key_groups(&plan)?;
    let mut graph = plan.graph;
    let working_dir = request.working_dir;
    make_paths_absolute(&mut graph, Path::new(&working_dir));
    let graph_json = serde_json::to_string(&graph).context("bug: the plan cannot be written")?;
    let sql_hash = job::hash(&files.text());
    let submission = Submission {
        graph_json,
        sql_hash,
        key_groups,
        parallelism,
        options,
        working_dir,
        submitted_at: now,
        restore: None,
    };
    Ok((id, submission))
}

/// Fits a planned job to the savepoint with which it is to begin. `exists`: the job is known, and does not begin now.
pub(crate) async fn restore(
    job: &JobId,
    submission: &mut Submission,
    path: &str,
    repeat_output: bool,
    exists: bool,
) -> anyhow::Result<()> {
    let planned: JobGraph = serde_json::from_str(&submission.graph_json).context("bug: the plan cannot be read")?;
    let restored = restore::restore(restore::Wanted {
        path: Path::new(path),
        job,
        planned: &planned,
        sql_hash: &submission.sql_hash,
        working_dir: Path::new(&submission.working_dir),
        repeat_output: (!exists).then_some(repeat_output),
    });
    let restored = restored.await?;
    if submission.parallelism > u32::from(restored.key_groups) {
        bail!(
            "parallelism {} is not between 1 and the {} key groups of the savepoint",
            submission.parallelism,
            restored.key_groups
        );
    }
    submission.graph_json = serde_json::to_string(&restored.graph).context("bug: the plan cannot be written")?;
    submission.key_groups = restored.key_groups;
    submission.restore = Some(restored.from);
    Ok(())
}

/// Files are looked for by coordinators and read by workers, wherever those were started.
fn make_paths_absolute(graph: &mut JobGraph, working_dir: &Path) {
    for node in &mut graph.nodes {
        let Some(TableSpec { options, .. }) = node.op.kind.table_mut() else { continue };
        for value in options.values_mut() {
            *value = absolute_references(value, working_dir);
        }
        let paths = options.iter_mut().filter(|(name, path)| is_path_option(name) && !path.contains("://"));
        for (_, path) in paths {
            *path = working_dir.join(&*path).display().to_string();
        }
    }
}
