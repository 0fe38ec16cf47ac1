//! A plan as text for people: every operator with its inputs, what it does and what it remembers, then every
//! sink with its guarantee. Called by the server for `EXPLAIN` and by tests.

mod pattern;
mod updating;

use std::fmt::{self, Write};

use arrow::datatypes::{Schema, SchemaRef};
use mainstem_connectors::{BadRecordPolicy, bad_record_options};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::{Edge, Exchange, Node};
use mainstem_plan::operator::{
    LATE_ROW_COLUMNS, NamedExpr, Operator, OperatorKind, SourceOperator, WindowAggregate, WindowKind,
};

use crate::guarantee::SinkInfo;
use crate::job::JobPlan;

/// The plan at a parallelism, as text of several lines.
#[must_use]
pub fn explain(plan: &JobPlan, parallelism: u32) -> String {
    let mut text = String::new();
    write_plan(&mut text, plan, parallelism).expect("writing to a string cannot fail");
    text
}

fn write_plan(out: &mut String, plan: &JobPlan, parallelism: u32) -> fmt::Result {
    writeln!(out, "operators")?;
    for node in &plan.graph.nodes {
        writeln!(out, "  [{}] {}, parallelism {}", node.id.0, node.name, plan.graph.parallelism(node.id, parallelism))?;
        for edge in plan.graph.inputs(node.id) {
            writeln!(out, "      from [{}] {}", edge.from.0, exchange(edge, plan.graph.node(edge.from)))?;
        }
        let input = plan.graph.inputs(node.id).next().map(|edge| input_schema(edge, plan.graph.node(edge.from)));
        for line in details(&node.op, input.as_ref()) {
            writeln!(out, "      {line}")?;
        }
        if node.op.changes != ChangeMode::Append {
            writeln!(out, "      changes: {}", node.op.changes.symbols())?;
        }
        writeln!(out, "      state: {}", state(&node.op.kind))?;
    }
    writeln!(out, "guarantees")?;
    for sink in &plan.sinks {
        write_guarantee(out, sink)?;
    }
    if !plan.settings.is_empty() {
        writeln!(out, "settings")?;
        for (key, value) in &plan.settings {
            writeln!(out, "  {key} = {value}")?;
        }
    }
    Ok(())
}

fn input_schema(edge: &Edge, from: &Node<Operator>) -> SchemaRef {
    match (&from.op.kind, edge.port) {
        (_, 0) => from.op.schema.clone(),
        (OperatorKind::Source(source), _) => source.dead_letters.clone().unwrap_or_else(|| from.op.schema.clone()),
        _ => crate::lower::late_schema(),
    }
}

fn exchange(edge: &Edge, from: &Node<Operator>) -> String {
    let port = match (&from.op.kind, edge.port) {
        (_, 0) => "",
        (OperatorKind::Source(_), _) => " (bad records)",
        _ => " (late rows)",
    };
    let how = match &edge.exchange {
        Exchange::Forward => "forward".to_owned(),
        Exchange::Rebalance => "rebalance".to_owned(),
        Exchange::Hash { keys } if keys.is_empty() => "to one subtask".to_owned(),
        Exchange::Hash { keys } => {
            let names: Vec<&str> = keys.iter().map(|key| from.op.schema.field(*key).name().as_str()).collect();
            format!("hash({})", names.join(", "))
        }
    };
    how + port
}

fn details(op: &Operator, input: Option<&SchemaRef>) -> Vec<String> {
    match &op.kind {
        OperatorKind::Source(source) => source_details(source),
        OperatorKind::Calc { filter, project } => {
            let empty = Schema::empty();
            let input = input.map_or(&empty, AsRef::as_ref);
            let mut lines = Vec::new();
            lines.extend(filter.iter().map(|filter| format!("where: {}", filter.display(input))));
            lines.extend(project.iter().map(|project| format!("columns: {}", columns(project, input))));
            lines
        }
        OperatorKind::Union => Vec::new(),
        OperatorKind::WindowAssign { window, time } => {
            let time = input.map(|input| input.field(*time).name().clone()).unwrap_or_default();
            vec![format!("windows: {} on {time}", display_window(window, input))]
        }
        OperatorKind::WindowPartial(aggregate) => aggregate_details(aggregate),
        OperatorKind::WindowFinal(aggregate) => {
            let properties: Vec<&str> = aggregate.properties.iter().map(|(name, _)| name.as_str()).collect();
            if properties.is_empty() { Vec::new() } else { vec![format!("adds: {}", properties.join(", "))] }
        }
        OperatorKind::Sink(sink) => {
            let connector = sink.table.options.get("connector").map_or("?", String::as_str);
            vec![format!("writes: {} by {connector}, columns {}", sink.table.name, names(&op.schema))]
        }
        other => updating::details(other, op, input),
    }
}

fn source_details(source: &SourceOperator) -> Vec<String> {
    let physical = &source.table.schema;
    let read: Vec<_> = source.read_columns.iter().map(|column| physical.field(*column).clone()).collect();
    let read = Schema::new(read);
    let connector = source.table.options.get("connector").map_or("?", String::as_str);
    let mut lines = vec![
        format!("reads: {} by {connector}, columns {}", source.table.name, names(&read)),
        format!("columns: {}", columns(&source.project, &read)),
    ];
    if let Some(watermark) = &source.watermark {
        let idle = match watermark.idle_timeout_ms {
            Some(timeout) => format!("a split is idle after {}", duration(i64::try_from(timeout).unwrap_or(i64::MAX))),
            None => "a split is never idle".to_owned(),
        };
        let alignment = watermark.alignment.as_ref().map_or_else(String::new, |alignment| {
            let drift = duration(i64::try_from(alignment.max_drift_ms).unwrap_or(i64::MAX));
            let group = alignment.group.as_ref().map_or_else(String::new, |group| format!(" of group '{group}'"));
            format!(", at most {drift} ahead of the slowest{group}")
        });
        lines.push(format!(
            "event time: {}, watermark {}, {idle}{alignment}",
            watermark.time.display(&read),
            watermark.watermark.display(&read)
        ));
    }
    lines.extend(source.checks.iter().map(|check| format!("checks {}: {}", check.name, check.expr.display(&read))));
    lines.extend(bad_records(source));
    lines
}

/// What becomes of wrong records, where that is not the default.
fn bad_records(source: &SourceOperator) -> Option<String> {
    let options = bad_record_options(&source.table).ok()?;
    let fraction = options.max_fraction.map_or_else(String::new, |fraction| {
        format!(", accepted up to {fraction} of {} or more records", options.min_records)
    });
    match options.policy {
        BadRecordPolicy::Fail => None,
        BadRecordPolicy::Drop => Some(format!("bad records: counted and dropped{fraction}")),
        BadRecordPolicy::DeadLetter => {
            Some(format!("bad records: sent on to {}{fraction}", options.table.unwrap_or_default()))
        }
    }
}

fn aggregate_details(aggregate: &WindowAggregate) -> Vec<String> {
    let input = &aggregate.input_schema;
    let mut window = display_window(&aggregate.window, Some(input));
    if aggregate.processing_time {
        window += " of processing time";
    }
    if !matches!(aggregate.window, WindowKind::Attached { .. }) {
        window = format!("{window} on {}", input.field(aggregate.time).name());
    }
    let mut lines = vec![format!("windows: {window}")];
    if !aggregate.keys.is_empty() {
        lines.push(format!("keys: {}", columns(&aggregate.keys, input)));
    }
    if !aggregate.aggregates.is_empty() {
        let calls: Vec<String> = aggregate.aggregates.iter().map(|call| call.display(input)).collect();
        lines.push(format!("aggregates: {}", calls.join(", ")));
        if let Some(call) = aggregate.aggregates.iter().find(|call| call.depends_on_order()) {
            let call = call.display(input);
            lines.push(format!(
                "careful: {call} depends on the order of rows, which a replay may change; give it an ORDER BY"
            ));
        }
    }
    if aggregate.late_output {
        lines.push(format!("late rows: sent on as {}", LATE_ROW_COLUMNS.join(", ")));
    } else {
        lines.push("late rows: counted and dropped".to_owned());
    }
    lines
}

fn columns(exprs: &[NamedExpr], input: &Schema) -> String {
    if exprs.is_empty() {
        return "none".to_owned();
    }
    let shown = exprs.iter().map(|named| {
        let expr = named.expr.display(input).to_string();
        if expr == named.name { expr } else { format!("{expr} AS {}", named.name) }
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn names(schema: &Schema) -> String {
    if schema.fields().is_empty() {
        return "none".to_owned();
    }
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn display_window(window: &WindowKind, input: Option<&SchemaRef>) -> String {
    let with_offset = |text: String, offset_ms: i64| {
        if offset_ms == 0 { text } else { format!("{text}, offset {}", duration(offset_ms)) }
    };
    match window {
        WindowKind::Tumble { size_ms, offset_ms } => {
            with_offset(format!("tumble, size {}", duration(*size_ms)), *offset_ms)
        }
        WindowKind::Hop { slide_ms, size_ms, offset_ms } => {
            with_offset(format!("hop, slide {}, size {}", duration(*slide_ms), duration(*size_ms)), *offset_ms)
        }
        WindowKind::Cumulate { step_ms, size_ms, offset_ms } => {
            with_offset(format!("cumulate, step {}, size {}", duration(*step_ms), duration(*size_ms)), *offset_ms)
        }
        WindowKind::Session { gap_ms } => format!("session, gap {}", duration(*gap_ms)),
        WindowKind::Attached { start, end } => {
            let name = |column: usize| input.map(|input| input.field(column).name().clone()).unwrap_or_default();
            format!("those of the rows, {} to {}", name(*start), name(*end))
        }
    }
}

/// Milliseconds in the largest unit that divides them.
pub(crate) fn duration(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.into_iter().find(|(length, _)| ms != 0 && ms % length == 0) {
        Some((length, unit)) => format!("{} {unit}", ms / length),
        None => format!("{ms} ms"),
    }
}

/// What an operator keeps from one epoch to the next, and when it lets go of it.
fn state(kind: &OperatorKind) -> String {
    let text = match kind {
        OperatorKind::Source(source) if source.watermark.is_some() => {
            "position and watermark of each split, for the life of the job"
        }
        OperatorKind::Source(_) => "position of each split, for the life of the job",
        OperatorKind::Calc { .. } | OperatorKind::Union | OperatorKind::WindowAssign { .. } => "none",
        OperatorKind::WindowPartial(_) => "none; what is aggregated is sent on before each checkpoint",
        OperatorKind::WindowFinal(aggregate) => match aggregate.window {
            WindowKind::Session { .. } => {
                "aggregates of each key and open session, released when the watermark passes the session's end"
            }
            WindowKind::Tumble { .. } | WindowKind::Attached { .. } => {
                "aggregates of each key and window, released when the watermark passes the window's end"
            }
            WindowKind::Hop { .. } | WindowKind::Cumulate { .. } => {
                "aggregates of each key and slice, released when the watermark passes the end of the last window over it"
            }
        },
        OperatorKind::Sink(_) => "output of epochs that are not committed yet",
        other => return updating::state(other),
    };
    text.to_owned()
}

fn write_guarantee(out: &mut String, sink: &SinkInfo) -> fmt::Result {
    writeln!(out, "  [{}] {}: {}", sink.operator.0, sink.table, sink.delivery)?;
    let requested =
        sink.requested.map_or("nothing, so the strongest there is".to_owned(), |requested| requested.to_string());
    writeln!(out, "      asked for: {requested}")?;
    writeln!(out, "      sink: {} at most; {}", sink.strongest, sink.mechanism)?;
    for source in &sink.sources {
        let replay = if source.replayable { "can be read again" } else { "cannot be read again" };
        writeln!(out, "      source {}: {replay}", source.table)?;
    }
    writeln!(out, "      why: {}", sink.reason)
}
