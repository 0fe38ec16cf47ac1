//! Builds the operators of one subtask from the plan.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use mainstem_connectors::{ConnectorError, LookupContext, ReaderContext, WriterContext};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::{Chain as ChainShape, Node};
use mainstem_core::ids::{OperatorId, SubtaskId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::{FromSubtask, ToSubtask};
use mainstem_core::splits::source_watermark;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{
    Join, JoinKind, LookupJoin as LookupSpec, Operator as Spec, OperatorKind, SinkOperator, SourceOperator,
    WindowAggregate, WindowKind,
};
use tokio::sync::mpsc;

use super::wiring::Wiring;
use super::{Deployment, TaskState, restore};
use crate::aggregate::{GroupAggregate, GroupPartial};
use crate::calc::{Calc, Rename};
use crate::chain::{Chain, ChainEnd, Link, SinkEnd};
use crate::error::EngineError;
use crate::exchange::{InputGate, Outputs};
use crate::in_flight;
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
use crate::source::SourceStage;
use crate::source_task::{SourceInput, SourceTask};
use crate::staging::staging;
use crate::task::{self, Uploads};
use crate::unnest::Unnest;
use crate::uploader::Uploader;
use crate::watermark_alignment::{AlignmentGroups, Member};
use crate::window::{
    Aggregation, ByProcessingTime, FinalAggregate, PartialAggregate, PartialSessions, SessionAggregate, Slicing,
    WindowAssign, WindowOutput,
};

/// About how many rows a batch that a source reads should have.
const BATCH_ROWS: usize = 8192;

/// Builds one subtask.
pub(crate) struct Builder<'a> {
    pub(crate) deployment: &'a Arc<Deployment>,
    pub(crate) chain: &'a ChainShape,
    pub(crate) subtask: SubtaskId,
    pub(crate) parallelism: u32,
    /// Sources whose subtasks tell the coordinator their watermarks.
    pub(crate) reporting: &'a BTreeSet<OperatorId>,
    /// Sources that keep together.
    pub(crate) aligned: &'a AlignmentGroups,
}

/// A subtask that is ready to run.
pub(crate) struct BuiltTask {
    subtask: SubtaskId,
    key_groups: KeyGroupRange,
    chain: Chain,
    kind: TaskKind,
}

enum TaskKind {
    Source { stage: Box<SourceStage>, input: Arc<SourceInput>, reports_watermark: bool, aligned: Option<Member> },
    Inner(Box<InputGate>),
}

impl BuiltTask {
    /// Restores and runs the subtask. True when it has ended as it should, false when it was cancelled.
    pub(crate) async fn run(
        mut self,
        deployment: &Arc<Deployment>,
        control: mpsc::Receiver<ToSubtask>,
        events: mpsc::Sender<FromSubtask>,
        TaskState { restores, restoring }: TaskState,
    ) -> Result<bool, EngineError> {
        for state in restores {
            if let Some(link) = self.chain.links.iter_mut().find(|l| l.id == state.operator) {
                restore(deployment, link.operator.as_mut(), state).await?;
            }
        }
        let uploads = Uploads::start(Uploader {
            job: deployment.job.clone(),
            generation: deployment.generation,
            subtask: self.subtask,
            key_groups: deployment.key_groups,
            own_key_groups: self.key_groups,
            store: deployment.store.clone(),
            events: events.clone(),
        });
        match self.kind {
            TaskKind::Inner(mut gate) => {
                in_flight::resume(deployment, &mut gate, self.subtask).await?;
                restoring.done(deployment);
                task::run(*gate, self.chain, uploads, control).await
            }
            TaskKind::Source { stage, input, reports_watermark, aligned } => {
                restoring.done(deployment);
                let before = deployment.restore.get(&self.subtask.operator).into_iter().flatten();
                let task = SourceTask {
                    subtask: self.subtask,
                    stage: *stage,
                    chain: self.chain,
                    uploads,
                    control,
                    events,
                    input,
                    replay_until: deployment.replay_until,
                    start_watermark: source_watermark(before.map(|(_, part)| part)),
                    reports_watermark,
                    aligned,
                    resume: deployment.resume(),
                };
                task.run().await
            }
        }
    }
}

impl Builder<'_> {
    /// Builds the operators and takes the subtask's channels.
    pub(crate) fn build(&self, wiring: &mut Wiring) -> Result<BuiltTask, EngineError> {
        let context = EvalContext::default();
        context.now.store(self.deployment.first_epoch_now.0, Ordering::Relaxed);
        let mut links = Vec::new();
        let mut source = None;
        let mut sink = None;
        for id in &self.chain.operators {
            let node = self.deployment.graph.node(*id);
            let metrics = self.deployment.metrics.operator(*id).clone();
            match &node.op.kind {
                OperatorKind::Source(spec) => source = Some(self.source(node, spec, &context)?),
                OperatorKind::Sink(spec) => sink = Some(self.sink(node, spec)?),
                _ => links.push(Link { id: *id, operator: self.operator(node, &context)?, metrics }),
            }
        }
        let outputs = wiring.outputs.remove(&self.subtask).unwrap_or_default();
        let end = match sink {
            Some(sink) => ChainEnd::Sink(sink),
            None => ChainEnd::Outputs(Outputs { edges: outputs, key_groups: self.deployment.key_groups }),
        };
        let SubtaskId { operator, index } = self.subtask;
        let time = self.deployment.metrics.operator(operator).time_spent(index);
        let chain = Chain { links, end, context, subtask: index, time };
        let kind = match source {
            Some((stage, input)) => TaskKind::Source {
                stage: Box::new(stage),
                input: Arc::new(input),
                reports_watermark: self.reporting.contains(&self.subtask.operator),
                aligned: self.aligned.join(self.subtask.operator, self.subtask.index),
            },
            None => {
                let inputs = wiring.inputs.remove(&self.subtask).unwrap_or_default();
                TaskKind::Inner(Box::new(InputGate::new(inputs, self.deployment.alignment())))
            }
        };
        let (groups, subtask) = (self.deployment.key_groups, self.subtask);
        let key_groups = KeyGroupRange::of_subtask(groups, self.parallelism, subtask.index);
        Ok(BuiltTask { subtask, key_groups, chain, kind })
    }

    fn source(
        &self,
        node: &Node<Spec>,
        spec: &SourceOperator,
        context: &EvalContext,
    ) -> Result<(SourceStage, SourceInput), EngineError> {
        let metrics = self.deployment.metrics.operator(node.id).clone();
        let table = spec.table.name.clone();
        let source = mainstem_connectors::open_source(&spec.table).map_err(|error| connector(&table, error))?;
        let (bytes_read, lags) = (metrics.bytes_read.clone(), metrics.lags.clone());
        let stage = SourceStage::new(node, spec, context, self.subtask.index, metrics)?;
        let reader = ReaderContext {
            columns: spec.read_columns.clone(),
            batch_rows: BATCH_ROWS,
            with_origins: stage.screen.wants_origins(),
            bytes_read,
            lags,
        };
        Ok((stage, SourceInput { table, source, context: reader }))
    }

    fn sink(&self, node: &Node<Spec>, spec: &SinkOperator) -> Result<SinkEnd, EngineError> {
        let id = node.id;
        let table = spec.table.name.clone();
        let sink = mainstem_connectors::open_sink(&spec.table).map_err(|error| connector(&table, error))?;
        let writer = sink.writer(WriterContext {
            job: self.deployment.job.clone(),
            operator: id,
            subtask: self.subtask.index,
            generation: self.deployment.generation,
            working_dir: self.deployment.working_dir.clone(),
            changes: node.op.changes,
            staging: staging(self.deployment.store.clone(), self.deployment.job.clone()),
        });
        Ok(SinkEnd { id, table, writer, metrics: self.deployment.metrics.operator(id).clone(), dropped_records: 0 })
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

    fn operator(&self, node: &Node<Spec>, context: &EvalContext) -> Result<Box<dyn Operator>, EngineError> {
        let schema = node.op.schema.clone();
        let name = node.name.as_str();
        Ok(match &node.op.kind {
            OperatorKind::Source(_) | OperatorKind::Sink(_) => {
                return Err(EngineError::Bug(format!("'{name}' inside a chain of {}", self.parallelism)));
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

fn connector(table: &str, error: ConnectorError) -> EngineError {
    EngineError::Connector { table: table.to_owned(), error }
}
