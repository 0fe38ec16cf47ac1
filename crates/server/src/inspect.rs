//! `mainstem explain` and `mainstem check`: planning without running.

use std::process::ExitCode;

use mainstem_planner::JobPlan;

use crate::cli::InspectArgs;
use crate::job::{cores, parallelism};
use crate::sql_files::SqlFiles;

/// Prints the plan of a SQL file.
pub(crate) fn explain(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let plan = SqlFiles::read(&args.files)?.plan()?;
    show(args.parallelism, &plan)
}

/// Prints a plan.
pub(crate) fn show(flag: Option<u32>, plan: &JobPlan) -> anyhow::Result<ExitCode> {
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
