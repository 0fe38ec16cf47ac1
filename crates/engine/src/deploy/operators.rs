//! Makes the operators of a subtask from the plan, and says of which there may be parts.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_connectors::LookupContext;
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::{Exchange, Node, StreamGraph};
use mainstem_core::ids::OperatorId;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{
    Join, JoinKind, LookupJoin as LookupSpec, Operator as Spec, OperatorKind, WindowAggregate, WindowKind,
};

use super::Deployment;
use super::build::connector;
use crate::aggregate::{GroupAggregate, GroupPartial};
use crate::calc::{Calc, Rename};
use crate::error::EngineError;
use crate::join::{
    IntervalJoin, KeyFormat, KeyedLookup, LOOKUP_BYTES_MAX, LookupJoin, LookupLoader, NotIn, RegularJoin, SetOperation,
    TemporalJoin, WindowJoin,
};
use crate::late::{DroppedRows, LateRows};
use crate::normalize::Normalize;
use crate::operator::Operator;
use crate::over;
use crate::pattern::PatternMatch;
use crate::rank;
use crate::sort::Sort;
use crate::unnest::Unnest;
use crate::window::{
    Aggregation, ByProcessingTime, FinalAggregate, PartialAggregate, PartialSessions, SessionAggregate, Slicing,
    WindowAssign, WindowOutput,
};

/// Makes operators of a job. Cheap to clone.
#[derive(Clone)]
pub(super) struct Operators {
    pub(super) deployment: Arc<Deployment>,
}

impl Operators {
    /// The columns by which the rows of each input are partitioned, where the operator's state may be cut by key groups
    /// and each part put aside; none where it may not: its state is not keyed, or what it gives depends on when time
    /// passed (processing time, matches under way), which a part that is not in memory would not notice.
    pub(super) fn keys_of_parts(&self, node: &Node<Spec>) -> Option<Vec<Vec<usize>>> {
        let may_be_cut = match &node.op.kind {
            OperatorKind::WindowFinal(spec) => !spec.processing_time,
            // Its rows that wait for the watermark are not old, however long that takes.
            OperatorKind::OverAggregate(spec) => spec.ttl_ms.is_none(),
            // `NOT IN` counts all rows of a side, whatever their key.
            OperatorKind::Join(Join { kind: JoinKind::Anti { null_aware: true }, .. }) => false,
            OperatorKind::GroupAggregate(_)
            | OperatorKind::Rank(_)
            | OperatorKind::Join(_)
            | OperatorKind::SetOperation(_)
            | OperatorKind::Normalize { .. }
            | OperatorKind::IntervalJoin(_)
            | OperatorKind::WindowJoin(_)
            | OperatorKind::TemporalJoin(_) => true,
            _ => false,
        };
        let keys = self.deployment.graph.inputs(node.id).map(|edge| match &edge.exchange {
            Exchange::Hash { keys } if !keys.is_empty() => Some(keys.clone()),
            _ => None,
        });
        if may_be_cut { keys.collect() } else { None }
    }

    /// Changes that come from the operator's first input.
    fn input_changes(&self, node: &Node<Spec>) -> Result<ChangeMode, EngineError> {
        let graph = &self.deployment.graph;
        let input = graph.inputs(node.id).next();
        let input = input.ok_or_else(|| EngineError::Bug(format!("'{}' has no input", node.name)))?;
        Ok(graph.node(input.from).op.changes)
    }

    /// Columns of the operator's first input.
    fn input_schema(&self, node: &Node<Spec>) -> Result<SchemaRef, EngineError> {
        let graph = &self.deployment.graph;
        let missing = || EngineError::Bug(format!("'{}' has no input", node.name));
        let input = graph.inputs(node.id).next().ok_or_else(missing)?;
        Ok(graph.node(input.from).op.schema.clone())
    }

    /// An operator without state.
    pub(super) fn operator(&self, node: &Node<Spec>, context: &EvalContext) -> Result<Box<dyn Operator>, EngineError> {
        let schema = node.op.schema.clone();
        let name = node.name.as_str();
        Ok(match &node.op.kind {
            OperatorKind::Source(_) | OperatorKind::Sink(_) => {
                return Err(EngineError::Bug(format!("'{name}' inside a chain of operators")));
            }
            OperatorKind::Calc { filter, project } => {
                let input = self.input_schema(node)?;
                Box::new(Calc::new(name, filter.as_ref(), project.as_deref(), &input, schema, context)?)
            }
            OperatorKind::Union => Box::new(Rename { schema }),
            OperatorKind::WindowAssign { window, time } => {
                Box::new(WindowAssign::new(name, slicing(name, window)?, *time, schema))
            }
            OperatorKind::WindowPartial(spec) => {
                let late = self.late(node, spec.late_output);
                let aggregation = Arc::new(Aggregation::new(name, spec, schema, context)?);
                match spec.window {
                    WindowKind::Session { gap_ms } => {
                        by_time(spec, PartialSessions::new(aggregation, gap_ms, spec.time, late))
                    }
                    _ => {
                        let slicing = slicing(name, &spec.window)?;
                        let window = spec.window.clone();
                        by_time(spec, PartialAggregate::new(aggregation, slicing, window, spec.time, late))
                    }
                }
            }
            OperatorKind::WindowFinal(spec) => self.window_final(node, spec, context)?,
            OperatorKind::Normalize { key } => {
                let unmatched = self.deployment.metrics.operator(node.id).unmatched_changes.clone();
                Box::new(Normalize::new(
                    name,
                    key.clone(),
                    schema,
                    (self.input_changes(node)?, node.op.changes),
                    needs_versions(&self.deployment.graph, node.id),
                    unmatched,
                )?)
            }
            OperatorKind::Rank(rank) => rank::operator(name, rank, &node.op, self.counters(node), context)?,
            OperatorKind::IntervalJoin(spec) => {
                Box::new(IntervalJoin::new(name, spec, schema, self.late(node, false), context)?)
            }
            OperatorKind::WindowJoin(spec) => {
                Box::new(WindowJoin::new(name, spec, schema, self.late(node, false), context)?)
            }
            OperatorKind::TemporalJoin(spec) => {
                Box::new(TemporalJoin::new(name, spec, schema, self.late(node, false), context)?)
            }
            OperatorKind::LookupJoin(spec) => {
                let keyed = self.keyed_lookup(node, spec)?;
                Box::new(LookupJoin::new(name, spec, schema, self.lookup_loader(node, spec)?, keyed, context)?)
            }
            OperatorKind::Unnest(spec) => Box::new(Unnest::new(name, spec.clone(), schema)),
            OperatorKind::SetOperation(spec) => Box::new(SetOperation::new(name, spec, schema, context)?),
            OperatorKind::Join(join) => self.join(node, join, schema, context)?,
            OperatorKind::GroupPartial { aggregate, adaptive } => {
                Box::new(GroupPartial::new(name, aggregate, *adaptive, schema, context)?)
            }
            OperatorKind::GroupAggregate(spec) => {
                let unmatched = self.deployment.metrics.operator(node.id).unmatched_changes.clone();
                Box::new(GroupAggregate::new(name, spec, schema, node.op.changes, context, unmatched)?)
            }
            OperatorKind::OverAggregate(over) => over::operator(name, over, &node.op, self.counters(node), context)?,
            OperatorKind::PatternMatch(spec) => {
                Box::new(PatternMatch::new(name, spec, &node.op, self.late(node, false), context)?)
            }
            OperatorKind::Sort(sort) => Box::new(Sort::new(name, sort, schema, self.counters(node))?),
        })
    }

    fn lookup_loader(&self, node: &Node<Spec>, spec: &LookupSpec) -> Result<LookupLoader, EngineError> {
        let metrics = self.deployment.metrics.operator(node.id);
        let table = spec.table.name.clone();
        Ok(LookupLoader {
            source: mainstem_connectors::open_source(&spec.table).map_err(|error| connector(&table, error))?,
            columns: spec.columns.clone(),
            schema: spec.on.right_schema.clone(),
            keys: Arc::new(KeyFormat::new(&node.name, &spec.on)?),
            dropped_records: metrics.dropped_records.clone(),
            bytes_read: metrics.bytes_read.clone(),
            bytes_max: LOOKUP_BYTES_MAX,
            table,
        })
    }

    fn keyed_lookup(&self, node: &Node<Spec>, spec: &LookupSpec) -> Result<Option<KeyedLookup>, EngineError> {
        let Some(by_key) = &spec.by_key else { return Ok(None) };
        let table = spec.table.name.clone();
        let source = mainstem_connectors::open_source(&spec.table).map_err(|error| connector(&table, error))?;
        let context = LookupContext { columns: spec.columns.clone(), keys: spec.on.right_keys.clone() };
        let lookup = source.lookup(context);
        let lookup = lookup.ok_or_else(|| EngineError::Bug(format!("table '{table}' cannot be looked up by key")))?;
        Ok(Some(KeyedLookup::new(&node.name, &table, spec, by_key, lookup)?))
    }

    fn window_final(
        &self,
        node: &Node<Spec>,
        spec: &WindowAggregate,
        context: &EvalContext,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let aggregation = Arc::new(Aggregation::new(&node.name, spec, self.input_schema(node)?, context)?);
        let properties = spec.properties.iter().map(|(_, property)| *property).collect();
        let output = WindowOutput { schema: node.op.schema.clone(), properties };
        Ok(match spec.window {
            WindowKind::Session { .. } => by_time(spec, SessionAggregate::new(aggregation, output)?),
            _ => by_time(spec, FinalAggregate::new(aggregation, slicing(&node.name, &spec.window)?, output)),
        })
    }

    fn join(
        &self,
        node: &Node<Spec>,
        join: &Join,
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<Box<dyn Operator>, EngineError> {
        if join.kind == (JoinKind::Anti { null_aware: true }) {
            return Ok(Box::new(NotIn::new(&node.name, join, schema, context)?));
        }
        let graph = &self.deployment.graph;
        let mut retracts = graph.inputs(node.id).map(|edge| graph.node(edge.from).op.changes != ChangeMode::Append);
        let mut next =
            || retracts.next().ok_or_else(|| EngineError::Bug(format!("'{}' has fewer than two inputs", node.name)));
        let retracts = [next()?, next()?];
        Ok(Box::new(RegularJoin::new(&node.name, join, retracts, schema, context)?))
    }

    fn counters(&self, node: &Node<Spec>) -> DroppedRows {
        let unmatched = self.deployment.metrics.operator(node.id).unmatched_changes.clone();
        DroppedRows { late: self.late(node, false), unmatched }
    }

    fn late(&self, node: &Node<Spec>, wanted: bool) -> LateRows {
        LateRows::new(&node.name, self.deployment.metrics.operator(node.id).late_rows.clone(), wanted)
    }
}

/// The operator, driven by the time that its windows are over.
fn by_time(spec: &WindowAggregate, operator: impl Operator + 'static) -> Box<dyn Operator> {
    if spec.processing_time { Box::new(ByProcessingTime(operator)) } else { Box::new(operator) }
}

fn slicing(name: &str, window: &WindowKind) -> Result<Slicing, EngineError> {
    Slicing::of(window).ok_or_else(|| EngineError::Bug(format!("'{name}': sessions have no slices")))
}

/// Whether rows of the operator get to a join with the version of a time, as its versions.
pub(super) fn needs_versions(graph: &StreamGraph<Spec>, id: OperatorId) -> bool {
    graph.outputs(id).any(|edge| match &graph.node(edge.to).op.kind {
        OperatorKind::TemporalJoin(_) => graph.inputs(edge.to).nth(1).is_some_and(|right| right.from == id),
        OperatorKind::Calc { .. } | OperatorKind::Normalize { .. } | OperatorKind::Union => {
            needs_versions(graph, edge.to)
        }
        _ => false,
    })
}
