//! `mainstem replay-dead-letters`: a job that writes the records of dead letters back to where they were read.

use std::process::ExitCode;

use anyhow::Context;
use mainstem_core::ids::JobId;
use mainstem_planner::Replay;

use crate::cli::{CopiesArgs, HttpArgs, MemoryArgs, ReplayArgs, RestoreArgs, RunArgs};
use crate::run;
use crate::sql_files::SqlFiles;

/// Runs the job until all letters that are there have been written, or goes on with it where it was.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let files = SqlFiles::read(&args.files)?;
    let plan = files.plan_replay(&Replay { from: &args.from, to: args.to.as_deref() })?;
    let id = match &args.job_id {
        Some(id) => id.clone(),
        None => {
            let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
            let name: String = format!("replay-{}", args.from).chars().map(legal).take(JobId::LENGTH_MAX).collect();
            JobId::new(name).map_err(anyhow::Error::msg).context("no name for the job; give one by --job-id")?
        }
    };
    let run = RunArgs {
        files: args.files.clone(),
        parallelism: args.parallelism,
        state_dir: args.state_dir.clone(),
        checkpoint_interval: None,
        job_id: Some(id.clone()),
        fresh: args.fresh,
        restore: RestoreArgs { from_savepoint: None, repeat_output: false },
        memory: MemoryArgs::default(),
        copies: CopiesArgs { copies_dir: None, copies_max: 0 },
        savepoint_on_stop: None,
        http: HttpArgs { http: None, http_token_file: None },
        traces: args.traces.clone(),
        log: args.log,
        json: args.json,
    };
    run::run_plan(&run, &files, &plan, &id)
}
