//! What holds from each source to each sink, as text for people.

use std::fmt::Write;

use super::causes::Effect;
use super::paths::{PathGuarantee, paths};
use crate::job::JobPlan;

/// The guarantees of a job, as text of several lines. `place` names a line of the SQL.
#[must_use]
pub fn explain_guarantees(plan: &JobPlan, place: &dyn Fn(u64) -> String) -> String {
    let mut text = String::new();
    for path in paths(plan) {
        write_path(&mut text, &path, place).expect("writing to a string cannot fail");
    }
    if text.is_empty() { "there is no path from a source to a sink".to_owned() } else { text }
}

fn write_path(out: &mut String, path: &PathGuarantee, place: &dyn Fn(u64) -> String) -> std::fmt::Result {
    let named = |table: &str, line: u64| match line {
        0 => table.to_owned(),
        line => format!("{table} ({})", place(line)),
    };
    let (source, sink) = (named(&path.source, path.source_line), named(&path.sink, path.sink_line));
    let statement = place(path.statement_line);
    writeln!(out, "{source} -> {sink}, statement at {statement}: {}", path.delivery)?;
    let limited = path.causes.iter().any(|cause| matches!(cause.effect, Effect::Delivery(_)));
    if !limited {
        writeln!(out, "  how: {}", path.mechanism)?;
    }
    for cause in &path.causes {
        let head = match cause.effect {
            Effect::Delivery(_) => "not more",
            Effect::MayDiffer => "a replay may differ",
            Effect::DependsOnTime => "depends on time",
            Effect::LeavesOut => "leaves out",
        };
        let at = if cause.line > 0 { format!(", {}", place(cause.line)) } else { String::new() };
        writeln!(out, "  {head}: {} ([{}] {}{at})", cause.message, cause.operator.0, cause.name)?;
    }
    let is_function_of_rows =
        path.causes.iter().all(|cause| !matches!(cause.effect, Effect::MayDiffer | Effect::DependsOnTime));
    if is_function_of_rows {
        writeln!(out, "  result: a function of the rows alone, the same in every run")?;
    }
    Ok(())
}
