//! Output rows of a join: pairs that hold the condition, and rows padded with NULLs.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::JoinOn;

use super::row_room::RowRoom;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::memory;
use crate::operator::{Collector, PIECE_ROWS, PieceRows, STEP_ROWS};

/// Rows of an emitted batch.
pub(crate) const EMIT_ROWS_MAX: usize = PIECE_ROWS;
/// Bytes of a row are looked at where it has so many partners.
const MANY: usize = 64;

/// How much a step has made, and how large a row is of which many are made.
#[derive(Default)]
pub(crate) struct StepMade {
    /// Rows, whether they hold the condition or not.
    rows: usize,
    /// Most bytes of a row that has many partners.
    row_bytes: usize,
}

impl StepMade {
    /// From here on another step is under way.
    pub(crate) fn begin_step(&mut self) {
        self.rows = 0;
    }

    /// So many rows were made.
    pub(crate) fn add(&mut self, rows: usize) {
        self.rows += rows;
    }

    /// Whether the step may not make more.
    pub(crate) fn is_enough(&self, out: &mut Collector) -> bool {
        self.rows >= STEP_ROWS || out.is_full()
    }

    /// A row has so many partners.
    pub(crate) fn note(&mut self, rows: &RecordBatch, row: usize, partners: usize) {
        if partners >= MANY {
            self.row_bytes = self.row_bytes.max(memory::of_rows(&rows.slice(row, 1)));
        }
    }

    /// Rows of the next batch.
    pub(crate) fn next_rows(&self, piece: &PieceRows) -> usize {
        piece.next(self.row_bytes)
    }

    /// The rows that were noted have given what they give.
    pub(crate) fn forget_rows(&mut self) {
        self.row_bytes = 0;
    }
}

/// Pairs of rows that have the same key, given a piece at a time.
pub(crate) struct Found<P> {
    pairs: Vec<P>,
    /// So many have been given.
    given: usize,
    made: StepMade,
}

impl<P: Copy> Found<P> {
    /// None so far.
    pub(crate) fn none() -> Self {
        Found { pairs: Vec::new(), given: 0, made: StepMade::default() }
    }

    /// Number of those that were found and are not forgotten.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// From here on another step is under way.
    pub(crate) fn begin_step(&mut self) {
        self.made.begin_step();
    }

    /// Whether more are to be given, and the step may not make more.
    pub(crate) fn must_wait(&self, out: &mut Collector) -> bool {
        self.given < self.pairs.len() && self.made.is_enough(out)
    }

    /// Looks the next rows up, until there are enough pairs for a batch or no more of these `positions`. `find` adds those of a row.
    ///
    /// # Errors
    /// Where a row has more than there is room for.
    pub(crate) fn collect(
        &mut self,
        rows: &RecordBatch,
        positions: impl IntoIterator<Item = usize>,
        next: &mut usize,
        room: &RowRoom,
        mut find: impl FnMut(usize, &mut Vec<P>),
    ) -> Result<(), EngineError> {
        let mut positions = positions.into_iter();
        while self.pairs.len() < EMIT_ROWS_MAX
            && let Some(row) = positions.next()
        {
            let before = self.pairs.len();
            *next += 1;
            find(row, &mut self.pairs);
            let partners = self.pairs.len() - before;
            room.check(partners)?;
            self.made.note(rows, row, partners);
        }
        Ok(())
    }

    /// All that have not been given. None: there are none.
    pub(crate) fn rest(&mut self) -> Option<Vec<P>> {
        self.given = 0;
        let rest = std::mem::take(&mut self.pairs);
        self.made.add(rest.len());
        (!rest.is_empty()).then_some(rest)
    }

    /// The next ones to be given. None: all have been, and are forgotten.
    pub(crate) fn piece(&mut self, rows: &PieceRows) -> Option<Vec<P>> {
        if self.given == self.pairs.len() {
            self.pairs.clear();
            self.given = 0;
            self.made.forget_rows();
            return None;
        }
        let end = self.pairs.len().min(self.given + self.made.next_rows(rows));
        let piece = self.pairs[self.given..end].to_vec();
        self.made.add(piece.len());
        self.given = end;
        Some(piece)
    }
}

/// See the module.
pub(crate) struct PairRows {
    name: String,
    output: SchemaRef,
    left: SchemaRef,
    right: SchemaRef,
    /// Columns of both sides, any of which may be NULL.
    both: SchemaRef,
    condition: Option<Arc<dyn PhysicalExpr>>,
}

impl PairRows {
    /// For the named operator, whose output has these columns.
    pub(crate) fn new(name: &str, on: &JoinOn, output: SchemaRef, context: &EvalContext) -> Result<Self, EngineError> {
        let fields = on.left_schema.fields().iter().chain(on.right_schema.fields());
        let fields: Vec<_> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let both = Arc::new(Schema::new(fields));
        let condition = on.condition.as_ref().map(|condition| condition.compile(&both, context)).transpose()?;
        let (left, right) = (on.left_schema.clone(), on.right_schema.clone());
        Ok(PairRows { name: name.to_owned(), output, left, right, both, condition })
    }

    /// Whether there is a condition beside the keys.
    pub(crate) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// For which of the pairs the condition holds; none: for all.
    pub(crate) fn holding(
        &self,
        left: &[ArrayRef],
        right: &[ArrayRef],
        rows: usize,
    ) -> Result<Option<BooleanArray>, EngineError> {
        let Some(condition) = &self.condition else { return Ok(None) };
        let pairs = self.rows(&self.both, left.iter().chain(right).cloned().collect(), rows)?;
        let holds = condition.evaluate(&pairs).and_then(|value| value.into_array(rows));
        let holds = holds.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        let holds = holds.as_boolean();
        // NULL is not true.
        let holds = if holds.null_count() > 0 { compute::prep_null_mask_filter(holds) } else { holds.clone() };
        Ok((holds.true_count() < rows).then_some(holds))
    }

    /// Pairs as output.
    pub(crate) fn pairs(
        &self,
        left: Vec<ArrayRef>,
        right: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<RecordBatch, EngineError> {
        self.rows(&self.output, left.into_iter().chain(right).collect(), rows)
    }

    /// Left rows without a partner as output.
    pub(crate) fn left_alone(&self, left: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        self.pairs(left, nulls(&self.right, rows), rows)
    }

    /// Right rows without a partner as output.
    pub(crate) fn right_alone(&self, right: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        self.pairs(nulls(&self.left, rows), right, rows)
    }

    /// Left rows as output of a join that only gives those.
    pub(crate) fn left_only(&self, left: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        self.rows(&self.output, left, rows)
    }

    fn rows(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &count)
            .map_err(|e| EngineError::Bug(format!("{}: joined rows: {e}", self.name)))
    }
}

fn nulls(schema: &SchemaRef, rows: usize) -> Vec<ArrayRef> {
    schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect()
}

/// The columns, only where the mask is true.
pub(crate) fn filtered(name: &str, columns: Vec<ArrayRef>, mask: &BooleanArray) -> Result<Vec<ArrayRef>, EngineError> {
    let filtered = columns.iter().map(|column| compute::filter(column, mask)).collect::<Result<_, _>>();
    filtered.map_err(|e| EngineError::arrow(name, &e))
}

/// Rows as a batch. `own`: for each row the watermark of its own split, `i64::MIN` where the row is on time.
pub(crate) fn output(rows: RecordBatch, own: Vec<i64>) -> StreamBatch {
    let own_watermark = own.iter().any(|own| *own > i64::MIN).then(|| Int64Array::from(own));
    StreamBatch { rows, own_watermark, changes: None }
}
