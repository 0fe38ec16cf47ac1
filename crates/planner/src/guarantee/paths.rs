//! What holds from each source to each sink, and all that limits it on the way.

use std::collections::BTreeSet;

use mainstem_connectors::Delivery;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use serde::{Deserialize, Serialize};

use super::causes::{self, Cause, CauseKind, Effect};
use super::{SinkInfo, SourceInfo};
use crate::job::JobPlan;

/// What holds of the rows of a source in a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathGuarantee {
    /// The table that is read.
    pub source: String,
    /// Line of its declaration; 0: there is none.
    pub source_line: u64,
    /// The table that is written.
    pub sink: String,
    /// Line of its declaration; 0: there is none.
    pub sink_line: u64,
    /// Line of the statement.
    pub statement_line: u64,
    /// How often a row of the source has its effect in the sink.
    pub delivery: Delivery,
    /// How the sink keeps that.
    pub mechanism: String,
    /// Operators between the two, in their order.
    pub operators: Vec<OperatorId>,
    /// Why no more holds; those that limit the delivery first. Empty: every run over the same rows gives the same, once.
    pub causes: Vec<Cause>,
}

/// All paths of a job: for each sink, in the order of their statements, each source that feeds it.
#[must_use]
pub fn paths(plan: &JobPlan) -> Vec<PathGuarantee> {
    let sinks = plan.sinks.iter();
    sinks.flat_map(|sink| sink.sources.iter().map(move |source| path(plan, source, sink))).collect()
}

fn path(plan: &JobPlan, source: &SourceInfo, sink: &SinkInfo) -> PathGuarantee {
    let graph = &plan.graph;
    let behind = reached(graph, source.operator, |graph, id| graph.outputs(id).map(|edge| edge.to).collect());
    let before = reached(graph, sink.operator, |graph, id| graph.inputs(id).map(|edge| edge.from).collect());
    let between: Vec<OperatorId> =
        behind.intersection(&before).copied().filter(|id| *id != source.operator && *id != sink.operator).collect();
    let mut all = causes::of_source(graph, source.operator, source.replayable, source.line);
    all.extend(causes::of_operator(graph, source.operator, source.line));
    for id in &between {
        all.extend(causes::of_operator(graph, *id, sink.statement_line));
    }
    for other in sink.sources.iter().filter(|other| !other.replayable && other.operator != source.operator) {
        let message = format!("rows meet those of '{}', which cannot be read again after a failure", other.table);
        all.push(Cause {
            kind: CauseKind::OtherSource,
            effect: Effect::MayDiffer,
            operator: other.operator,
            name: graph.node(other.operator).name.clone(),
            message,
            line: other.line,
        });
    }
    all.extend(of_sink(graph, sink));
    all.sort_by_key(|cause| (cause.effect, cause.operator));
    all.dedup();
    let limits =
        all.iter().filter_map(|cause| if let Effect::Delivery(most) = cause.effect { Some(most) } else { None });
    PathGuarantee {
        source: source.table.clone(),
        source_line: source.line,
        sink: sink.table.clone(),
        sink_line: sink.table_line,
        statement_line: sink.statement_line,
        delivery: limits.min().unwrap_or(Delivery::ExactlyOnce),
        mechanism: sink.mechanism.clone(),
        operators: between,
        causes: all,
    }
}

/// What of the sink limits the delivery.
fn of_sink(graph: &JobGraph, sink: &SinkInfo) -> Option<Cause> {
    let OperatorKind::Sink(operator) = &graph.node(sink.operator).op.kind else { return None };
    let (kind, most, message) = match sink.requested {
        Some(requested) if requested < Delivery::ExactlyOnce => {
            let message = format!("'delivery' = '{requested}' is asked for: {}", sink.mechanism);
            (CauseKind::DeliveryOption, requested, message)
        }
        _ if sink.strongest < Delivery::ExactlyOnce => {
            let connector = operator.table.options.get("connector").map_or("?", String::as_str);
            let message = format!("the connector '{connector}' can keep no more: {}", sink.mechanism);
            (CauseKind::Sink, sink.strongest, message)
        }
        _ => return None,
    };
    Some(Cause {
        kind,
        effect: Effect::Delivery(most),
        operator: sink.operator,
        name: graph.node(sink.operator).name.clone(),
        message,
        line: if sink.table_line > 0 { sink.table_line } else { sink.statement_line },
    })
}

fn reached(
    graph: &JobGraph,
    from: OperatorId,
    next: impl Fn(&JobGraph, OperatorId) -> Vec<OperatorId>,
) -> BTreeSet<OperatorId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(operator) = open.pop() {
        if seen.insert(operator) {
            open.extend(next(graph, operator));
        }
    }
    seen
}

#[cfg(test)]
mod tests;
