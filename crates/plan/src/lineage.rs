//! From which columns of which tables each column of a sink comes, read off the stored graph. The server shows it for jobs and
//! for SQL that is only explained. It decides nothing and never fails: a graph that is damaged gives less.
//!
//! A column *comes from* the columns that its value is computed of. Which rows there are is *decided by* further ones: conditions,
//! keys of joins and groups, orders. A constant or a count of rows comes from no column.

mod operators;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_core::ids::OperatorId;
use serde::Serialize;

use self::operators::{Flow, flow};
use crate::operator::{JobGraph, OperatorKind};

/// A column of a table that a job reads or looks up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// The operator that reads it.
    pub operator: OperatorId,
    /// The table.
    pub table: String,
    /// The physical column.
    pub column: String,
}

/// What a column of a sink comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkColumn {
    /// Its name in the table that is written.
    pub column: String,
    /// Ascending; empty: its value depends on no column.
    pub from: BTreeSet<Origin>,
}

/// Where the rows of a sink come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkLineage {
    /// The sink.
    pub operator: OperatorId,
    /// The table that it writes.
    pub table: String,
    /// Its columns, as they are declared.
    pub columns: Vec<SinkColumn>,
    /// What decides which rows there are, besides what their values come from.
    pub decided_by: BTreeSet<Origin>,
}

/// The lineage of each sink of a job.
#[must_use]
pub fn lineage(graph: &JobGraph) -> Vec<SinkLineage> {
    let mut flows = BTreeMap::<(OperatorId, u8), Flow>::new();
    let mut sinks = Vec::new();
    // Edges go from lower to higher ids, so what comes in is known.
    for node in &graph.nodes {
        let inputs = graph.inputs(node.id).map(|edge| flows.get(&(edge.from, edge.port)).cloned().unwrap_or_default());
        let inputs: Vec<Flow> = inputs.collect();
        if let OperatorKind::Sink(sink) = &node.op.kind {
            let input = Flow::together(inputs);
            let columns = sink.table.schema.fields().iter().enumerate();
            let columns =
                columns.map(|(at, field)| SinkColumn { column: field.name().clone(), from: input.column(at) });
            sinks.push(SinkLineage {
                operator: node.id,
                table: sink.table.name.clone(),
                columns: columns.collect(),
                decided_by: input.deciding,
            });
            continue;
        }
        let (main, side) = flow(node, inputs);
        flows.insert((node.id, 0), main);
        if let Some(side) = side {
            flows.insert((node.id, 1), side);
        }
    }
    sinks
}
