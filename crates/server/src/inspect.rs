//! `mainstem explain` and `mainstem check`: planning without running.

use std::process::ExitCode;

use anyhow::Context;
use mainstem_planner::JobPlan;

use crate::cli::{ExplainArgs, InspectArgs};
use crate::job::{cores, parallelism};
use crate::sql_files::SqlFiles;

/// Prints the plan of a SQL file, or what it guarantees.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let files = SqlFiles::read(&args.inspect.files)?;
    let mut plan = files.plan()?;
    if args.json {
        let paths = serde_json::to_string(&mainstem_planner::guarantee_paths(&plan));
        crate::show(&paths.context("bug: the guarantees cannot be written")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    plan.explain_guarantees |= args.guarantees;
    show(args.inspect.parallelism, &plan, &files)
}

/// Prints a plan, or what it guarantees where that is asked for.
pub(crate) fn show(flag: Option<u32>, plan: &JobPlan, files: &SqlFiles) -> anyhow::Result<ExitCode> {
    if plan.explain_guarantees {
        crate::show(&mainstem_planner::explain_guarantees(plan, &|line| files.place(line)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let parallelism = parallelism(flag, plan, cores)?;
    crate::show(&mainstem_planner::explain(plan, parallelism))?;
    Ok(ExitCode::SUCCESS)
}

/// Plans a SQL file and says what it would do.
pub(crate) fn check(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let files = SqlFiles::read(&args.files)?;
    let plan = files.plan()?;
    parallelism(args.parallelism, &plan, cores)?;
    let operators = plan.graph.nodes.len();
    crate::show(&format!("{files}: ok, {operators} operators, {} sinks", plan.sinks.len()))?;
    Ok(ExitCode::SUCCESS)
}
