//! The dataflow of a job, as far as it is shown.

use std::collections::BTreeMap;

use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::lineage::lineage;
use mainstem_plan::operator::{JobGraph, OperatorKind};

use super::model::{Edge, SinkOrigins};

/// See the module. Empty where the stored plan is of a version that cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) operators: Vec<ShapeOperator>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) lineage: Vec<SinkOrigins>,
}

/// An operator of it.
#[derive(Debug)]
pub(crate) struct ShapeOperator {
    pub(crate) id: OperatorId,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// The table that it reads, writes or looks up: its name, and its options.
    pub(crate) table: Option<(String, BTreeMap<String, String>)>,
    /// The first operator of its chain.
    pub(crate) task: OperatorId,
    /// A parallelism of its own.
    pub(crate) parallelism: Option<u32>,
    /// Whether it keeps rows until a watermark comes.
    pub(crate) waits: bool,
}

impl Shape {
    pub(crate) fn parse(graph_json: &str) -> Shape {
        Shape::of(&serde_json::from_str(graph_json).unwrap_or_default())
    }

    pub(crate) fn of(graph: &JobGraph) -> Shape {
        let chains = graph.chains();
        let task_of: BTreeMap<OperatorId, OperatorId> =
            chains.iter().flat_map(|chain| chain.operators.iter().map(|id| (*id, chain.head()))).collect();
        let operator = |node: &mainstem_core::graph::Node<mainstem_plan::operator::Operator>| ShapeOperator {
            id: node.id,
            name: node.name.clone(),
            kind: kind(&node.op.kind),
            table: node.op.kind.table().map(|table| (table.name.clone(), table.options.clone())),
            task: task_of[&node.id],
            parallelism: node.parallelism,
            waits: node.op.kind.waits_for_watermark(),
        };
        let edge = |edge: &mainstem_core::graph::Edge| {
            let (exchange, keys) = match &edge.exchange {
                Exchange::Forward => ("forward", Vec::new()),
                Exchange::Hash { keys } => ("hash", keys.clone()),
                Exchange::Rebalance => ("rebalance", Vec::new()),
            };
            Edge {
                from: edge.from.0,
                to: edge.to.0,
                port: edge.port,
                exchange: exchange.to_owned(),
                keys,
                chained: task_of[&edge.from] == task_of[&edge.to],
            }
        };
        Shape {
            operators: graph.nodes.iter().map(operator).collect(),
            edges: graph.edges.iter().map(edge).collect(),
            lineage: lineage(graph).into_iter().map(SinkOrigins::from).collect(),
        }
    }

    pub(crate) fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &ShapeOperator> {
        self.operators.iter().filter(move |operator| operator.kind == kind)
    }

    pub(crate) fn operator(&self, id: OperatorId) -> Option<&ShapeOperator> {
        self.operators.get(id.0 as usize)
    }
}

impl ShapeOperator {
    pub(crate) fn table_name(&self) -> Option<&str> {
        self.table.as_ref().map(|(name, _)| name.as_str())
    }

    pub(crate) fn connector(&self) -> Option<&str> {
        self.table.as_ref()?.1.get("connector").map(String::as_str)
    }
}

fn kind(kind: &OperatorKind) -> &'static str {
    match kind {
        OperatorKind::Source(_) => "source",
        OperatorKind::Calc { .. } => "calc",
        OperatorKind::Union => "union",
        OperatorKind::WindowAssign { .. } => "window_assign",
        OperatorKind::WindowPartial(_) => "window_partial",
        OperatorKind::WindowFinal(_) => "window_final",
        OperatorKind::GroupPartial { .. } => "aggregate_partial",
        OperatorKind::GroupAggregate(_) => "aggregate",
        OperatorKind::Join(_) => "join",
        OperatorKind::IntervalJoin(_) => "interval_join",
        OperatorKind::WindowJoin(_) => "window_join",
        OperatorKind::TemporalJoin(_) => "temporal_join",
        OperatorKind::LookupJoin(_) => "lookup_join",
        OperatorKind::Rank(_) => "rank",
        OperatorKind::OverAggregate(_) => "over",
        OperatorKind::Sort(_) => "sort",
        OperatorKind::Unnest(_) => "unnest",
        OperatorKind::SetOperation(_) => "set_operation",
        OperatorKind::Normalize { .. } => "normalize",
        OperatorKind::PatternMatch(_) => "match_recognize",
        OperatorKind::Sink(_) => "sink",
    }
}
