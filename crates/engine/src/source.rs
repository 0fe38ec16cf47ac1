//! What happens to the rows of a split right after they are read: event time, the split's watermark, lateness
//! marks, computed columns.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, BooleanArray, Int8Array, Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::graph::Node;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{Operator, SourceOperator};

use crate::calc::Projection;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::{is_event_time, is_watermark, milliseconds, says_of_time};
use crate::metrics::OperatorMetrics;
use crate::screen::Screen;

/// See the module.
pub(crate) struct SourceStage {
    /// Takes the rows first.
    pub(crate) screen: Screen,
    name: String,
    times: Option<EventTime>,
    projection: Projection,
    /// Rows replace each other by key: a delete may know nothing but its key.
    by_key: bool,
    /// Rows become versions of which each counts from a time on.
    versions: bool,
    subtask: u32,
    metrics: Arc<OperatorMetrics>,
}

struct EventTime {
    /// Where it is not a column that is read: it becomes one behind those, so that it is computed once for the watermark and all
    /// columns that are made of it.
    computed: Option<(Arc<dyn PhysicalExpr>, SchemaRef)>,
    time: Arc<dyn PhysicalExpr>,
    watermark: Arc<dyn PhysicalExpr>,
    idle_timeout: Option<Duration>,
}

/// The watermark of a split while its rows are gone through (ms).
#[derive(Clone, Copy)]
struct SplitTime {
    /// Against which the next row is judged.
    current: i64,
    /// What the rows so far have brought.
    reached: i64,
    /// Whether that is the same.
    passes: bool,
}

impl SplitTime {
    /// A row has brought a watermark.
    fn pass(&mut self, watermark: i64) {
        self.reached = self.reached.max(watermark);
        self.current = if self.passes { self.reached } else { self.current };
    }
}

/// Rows after the stage.
pub(crate) struct Staged {
    /// The rows; none where the table has none to give.
    pub(crate) batch: Option<StreamBatch>,
    /// The split's watermark after them.
    pub(crate) watermark: Timestamp,
}

impl SourceStage {
    /// Compiles the expressions of a source operator.
    pub(crate) fn new(
        node: &Node<Operator>,
        source: &SourceOperator,
        versions: bool,
        context: &EvalContext,
        subtask: u32,
        metrics: Arc<OperatorMetrics>,
    ) -> Result<Self, EngineError> {
        let name = node.name.as_str();
        let read =
            Arc::new(source.table.schema.project(&source.read_columns).map_err(|e| EngineError::arrow(name, &e))?);
        let mut project = source.project.clone();
        let mut input = read.clone();
        let mut times = None;
        if let Some(spec) = &source.watermark {
            let (mut time, mut watermark, mut computed) = (spec.time.clone(), spec.watermark.clone(), None);
            if !matches!(time, Expr::Column(_)) {
                let (position, expr) = (Expr::Column(read.fields().len()), time.compile(&read, context)?);
                let column = Field::new("__event_time", spec.time.data_type(&read)?, true);
                input = Arc::new(Schema::new(read.fields().iter().cloned().chain([column.into()]).collect::<Fields>()));
                let exprs = project.iter_mut().map(|named| &mut named.expr).chain([&mut time, &mut watermark]);
                exprs.for_each(|expr| expr.replace(&spec.time, &position));
                computed = Some((expr, input.clone()));
            }
            times = Some(EventTime {
                computed,
                time: time.compile(&input, context)?,
                watermark: watermark.compile(&input, context)?,
                idle_timeout: spec.idle_timeout_ms.map(Duration::from_millis),
            });
        }
        let projection = Projection::new(name, &project, &input, node.op.schema.clone(), context)?;
        let by_key = node.op.changes == ChangeMode::Upsert;
        let screen = Screen::new(node, source, context, metrics.clone())?;
        // Rows of which none replaces another say with their times when they count.
        let versions = versions && node.op.changes != ChangeMode::Append;
        Ok(SourceStage { screen, name: name.to_owned(), times, projection, by_key, versions, subtask, metrics })
    }

    /// The time-out after which a silent split is idle.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.times.as_ref().and_then(|t| t.idle_timeout)
    }

    /// The watermark that is sent from here.
    pub(crate) fn show_watermark(&self, watermark: Timestamp) {
        self.metrics.set_watermark(self.subtask, watermark);
    }

    /// Takes rows of one split that the screen has let through; the split's watermark is given. `passes`: each row is judged
    /// against those before it, not against the given watermark alone.
    pub(crate) fn process(
        &mut self,
        rows: &RecordBatch,
        changes: Option<Int8Array>,
        watermark: Timestamp,
        passes: bool,
    ) -> Result<Staged, EngineError> {
        self.metrics.count_in(self.subtask, rows.num_rows());
        let rows = &self.with_time(rows)?;
        let mut time = SplitTime { current: watermark.0, reached: watermark.0, passes };
        let own_watermark = match &changes {
            _ if self.versions => self.counted_after(rows, changes.as_ref(), &mut time)?,
            // What stands behind such a source looks at its keys, not at its times.
            Some(changes) if self.by_key => {
                self.lateness(&self.without_deletes(rows, changes)?, &mut time)?;
                None
            }
            _ => self.lateness(rows, &mut time)?,
        };
        let batch = self.projection.apply(rows)?;
        self.metrics.count_out(self.subtask, batch.num_rows());
        let batch = (batch.num_rows() > 0).then_some(StreamBatch { rows: batch, own_watermark, changes });
        Ok(Staged { batch, watermark: Timestamp(time.reached) })
    }

    /// The rows, with their time where that is computed.
    fn with_time(&self, rows: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let Some((expr, schema)) = self.times.as_ref().and_then(|times| times.computed.as_ref()) else {
            return Ok(rows.clone());
        };
        let time = expr.evaluate(rows).and_then(|time| time.into_array(rows.num_rows()));
        let time = time.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        let columns = rows.columns().iter().cloned().chain([time]).collect();
        RecordBatch::try_new(schema.clone(), columns).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// The time (ms) after which each row counts: just before its own, or where its split's watermark stands if that is later.
    /// What an update replaces goes when that comes; what is deleted tells no time, and goes behind the watermark.
    fn counted_after(
        &self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        time: &mut SplitTime,
    ) -> Result<Option<Int64Array>, EngineError> {
        let kind = |row: usize| changes.map_or(ChangeKind::Insert as i8, |changes| changes.value(row));
        let timed = match changes {
            Some(changes) if self.by_key => self.without_deletes(rows, changes)?,
            _ => rows.clone(),
        };
        let Some((times, watermarks)) = self.times_of(&timed)? else { return Ok(None) };
        let mut of_timed = times.values().iter().copied().zip(watermarks.values().iter().copied());
        let is_timed = |row: usize| !self.by_key || kind(row) != ChangeKind::Delete as i8;
        let of_rows: Vec<_> =
            (0..rows.num_rows()).map(|row| if is_timed(row) { of_timed.next() } else { None }).collect();
        let is = |row: usize, of: ChangeKind| row < rows.num_rows() && kind(row) == of as i8;
        let mut after = Vec::with_capacity(of_rows.len());
        for (row, of_row) in of_rows.iter().enumerate() {
            let by = match () {
                () if is(row, ChangeKind::UpdateBefore) && is(row + 1, ChangeKind::UpdateAfter) => Some(row + 1),
                () if is(row, ChangeKind::UpdateBefore) || is(row, ChangeKind::Delete) => None,
                () => Some(row),
            };
            let begins = by.and_then(|row| of_rows[row]).map(|(begins, _)| begins);
            after.push(begins.map_or(time.current, |begins| time.current.max(begins - 1)));
            of_row.iter().for_each(|(_, watermark)| time.pass(*watermark));
        }
        Ok(Some(Int64Array::from(after)))
    }

    /// The rows that have a time to tell.
    fn without_deletes(&self, rows: &RecordBatch, changes: &Int8Array) -> Result<RecordBatch, EngineError> {
        let kept = changes.values().iter().map(|kind| *kind != ChangeKind::Delete as i8);
        let kept = BooleanArray::from_iter(kept.map(Some));
        compute::filter_record_batch(rows, &kept).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// The watermark before each row, where some row is at or behind it.
    fn lateness(&self, rows: &RecordBatch, time: &mut SplitTime) -> Result<Option<Int64Array>, EngineError> {
        let Some((times, watermarks)) = self.times_of(rows)? else { return Ok(None) };
        let mut before = *time;
        let mut behind = false;
        for (of_row, watermark) in times.values().iter().zip(watermarks.values()) {
            behind |= *of_row <= time.current;
            time.pass(*watermark);
        }
        if !behind {
            return Ok(None);
        }
        let own = watermarks.values().iter().map(|watermark| {
            let own = before.current;
            before.pass(*watermark);
            own
        });
        let own = Int64Array::from_iter_values(own);
        debug_assert_eq!(own.len(), rows.num_rows());
        Ok(Some(own))
    }

    /// The event time of each row and the watermark that it brings (ms); none where the table has no event time.
    fn times_of(&self, rows: &RecordBatch) -> Result<Option<(Int64Array, Int64Array)>, EngineError> {
        let Some(spec) = &self.times else { return Ok(None) };
        let evaluate = |expr: &Arc<dyn PhysicalExpr>, what: &str| {
            let values = expr.evaluate(rows).and_then(|v| v.into_array(rows.num_rows()));
            let values = values.map_err(|e| EngineError::evaluation(&self.name, &e))?;
            if values.null_count() > 0 {
                let (nulls, rows) = (values.null_count(), values.len());
                let message = format!(
                    "the {what} is NULL in {nulls} of {rows} rows; set 'bad-records' = 'drop' for the table to drop and count such records, or 'dead-letter' to keep them in a table, or declare WATERMARK FOR a computed column with COALESCE"
                );
                return Err(EngineError::Data { operator: self.name.clone(), message });
            }
            milliseconds(&self.name, what, &values)
        };
        let check = |times: &Int64Array, is_right: fn(i64) -> bool, what: &str| {
            let Some(wrong) = times.values().iter().find(|time| !is_right(**time)) else { return Ok(()) };
            let message = format!(
                "{what} is {} Set 'bad-records' = 'drop' for the table to drop and count such records, or 'dead-letter' to keep them in a table",
                says_of_time(*wrong)
            );
            Err(EngineError::Data { operator: self.name.clone(), message })
        };
        let times = evaluate(&spec.time, "event time")?;
        check(&times, is_event_time, "an event time")?;
        let watermarks = evaluate(&spec.watermark, "watermark")?;
        check(&watermarks, is_watermark, "a watermark")?;
        Ok(Some((times, watermarks)))
    }
}
