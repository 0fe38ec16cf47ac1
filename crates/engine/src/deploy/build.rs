//! Builds the operators of one subtask from the plan.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_connectors::{ConnectorError, ReaderContext, WriterContext};
use mainstem_core::graph::{Chain as ChainShape, Node};
use mainstem_core::ids::{OperatorId, SubtaskId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::latency::Arrivals;
use mainstem_core::protocol::{FromSubtask, ToSubtask};
use mainstem_core::splits::source_watermark;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, OperatorKind, SinkOperator, SourceOperator};
use tokio::sync::mpsc;

use super::operators::{Operators, needs_versions};
use super::wiring::Wiring;
use super::{Deployment, TaskState, restore};
use crate::chain::{Chain, ChainEnd, Link, SinkEnd};
use crate::error::EngineError;
use crate::exchange::{InputGate, Outputs};
use crate::in_flight;
use crate::markers::{Markers, Stamp};
use crate::metrics::OperatorMetrics;
use crate::parts::{Parts, PartsOf};
use crate::source::SourceStage;
use crate::source_task::{SourceInput, SourceTask};
use crate::staging::staging;
use crate::state_files::StateFiles;
use crate::task::{self, Uploads};
use crate::uploader::Uploader;
use crate::watermark_alignment::{AlignmentGroups, Member};

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
                match link.operator.parts() {
                    Some(parts) => parts.begin(state.metas, state.handles, state.memory_bytes).await?,
                    None => restore(deployment, link.operator.as_mut(), state).await?,
                }
            }
        }
        let restored = FromSubtask::Restored { subtask: self.subtask };
        let uploads = Uploads::start(Uploader {
            job: deployment.job.clone(),
            generation: deployment.generation,
            subtask: self.subtask,
            key_groups: deployment.key_groups,
            own_key_groups: self.key_groups,
            store: deployment.store.clone(),
            events: events.clone(),
            uploaded: self.chain.parts().and_then(Parts::uploads),
            clock: deployment.clock.clone(),
        });
        match self.kind {
            TaskKind::Inner(mut gate) => {
                in_flight::resume(deployment, &mut gate, self.subtask).await?;
                restoring.done(deployment);
                let _ = events.send(restored).await;
                task::run(*gate, self.chain, uploads, control).await
            }
            TaskKind::Source { stage, input, reports_watermark, aligned } => {
                restoring.done(deployment);
                let _ = events.send(restored).await;
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
                    markers: Markers::new(self.subtask, deployment.markers),
                    clock: deployment.clock.clone(),
                };
                task.run().await
            }
        }
    }
}

impl Builder<'_> {
    /// Builds the operators and takes the subtask's channels.
    pub(crate) fn build(&self, wiring: &mut Wiring) -> Result<BuiltTask, EngineError> {
        let memory_bytes = self.deployment.memory.bytes_max();
        let context = EvalContext { memory_bytes, ..EvalContext::default() };
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
                _ => {
                    let is_head = links.is_empty() && source.is_none();
                    links.push(self.link(node, &context, metrics, is_head)?);
                }
            }
        }
        let outputs = wiring.outputs.remove(&self.subtask).unwrap_or_default();
        let end = match sink {
            Some(sink) => ChainEnd::Sink(sink),
            None => {
                let (key_groups, marker_turn) = (self.deployment.key_groups, self.subtask.index as usize);
                ChainEnd::Outputs(Outputs { edges: outputs, key_groups, marker_turn })
            }
        };
        let SubtaskId { operator, index } = self.subtask;
        let time = self.deployment.metrics.operator(operator).time_spent(index);
        let stamp = Stamp::new(self.subtask, self.deployment.clock.clone());
        let chain = Chain { links, end, context, subtask: index, steps: Vec::new(), unmeasured: 0, time, stamp };
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

    /// An operator of the chain. State that is partitioned by what comes in may be in parts.
    fn link(
        &self,
        node: &Node<Spec>,
        context: &EvalContext,
        metrics: Arc<OperatorMetrics>,
        is_head: bool,
    ) -> Result<Link, EngineError> {
        let deployment = self.deployment;
        let (id, operators) = (node.id, Operators { deployment: deployment.clone() });
        let keys = if is_head { operators.keys_of_parts(node) } else { None };
        let account = deployment.memory.open(&deployment.job, &node.name, keys.is_some(), &metrics);
        let Some(keys) = keys else {
            let operator = operators.operator(node, context)?;
            return Ok(Link { id, operator, metrics, account: Some(account) });
        };
        let files = StateFiles {
            store: deployment.store.clone(),
            job: deployment.job.clone(),
            generation: deployment.generation,
            operator: id,
            subtask: self.subtask.index,
            key_groups: deployment.key_groups,
        };
        let context = context.clone();
        let of = PartsOf {
            name: node.name.clone(),
            keys,
            own: KeyGroupRange::of_subtask(deployment.key_groups, self.parallelism, self.subtask.index),
            make: Box::new(move || operators.operator(operators.deployment.graph.node(id), &context)),
            files,
            account,
            metrics: metrics.clone(),
        };
        let operator = Box::new(Parts::new(of, deployment.memory.scratch())?);
        Ok(Link { id, operator, metrics, account: None })
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
        let stage = SourceStage::new(
            node,
            spec,
            needs_versions(&self.deployment.graph, node.id),
            context,
            self.subtask.index,
            metrics,
        )?;
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
        let (metrics, arrivals) = (self.deployment.metrics.operator(id).clone(), Arrivals::default());
        Ok(SinkEnd { id, table, writer, metrics, dropped_records: 0, arrivals })
    }
}

pub(super) fn connector(table: &str, error: ConnectorError) -> EngineError {
    EngineError::Connector { table: table.to_owned(), error }
}
