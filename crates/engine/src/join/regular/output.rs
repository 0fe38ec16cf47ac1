//! Output rows of a join, collected as references to rows of the batch at hand and to kept rows of the other side,
//! and made into batches many at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_core::change::ChangeKind;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::JoinOn;

use super::rings::NONE;
use super::side::Side;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::Collector;

/// About how many rows an output batch has.
pub(super) const OUTPUT_ROWS: usize = 8192;

/// Makes output of pairs.
pub(super) struct Output {
    name: String,
    schema: SchemaRef,
    /// Columns of both sides, any of which may be NULL.
    both: SchemaRef,
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// Whether only left columns are given.
    left_only: bool,
}

/// Rows to be given, in order: a row of the batch, a kept row of the other side (either may be [`NONE`]), and the
/// kind of the change.
#[derive(Default)]
pub(super) struct Changes {
    own: Vec<u32>,
    other: Vec<u32>,
    kinds: Vec<i8>,
}

impl Changes {
    /// Adds a row `copies` times.
    pub(super) fn push(&mut self, own: u32, other: u32, kind: ChangeKind, copies: u32) {
        for _ in 0..copies {
            self.own.push(own);
            self.other.push(other);
            self.kinds.push(kind as i8);
        }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }
}

/// The batch at hand, and which side it is of (0: the left one).
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) side: usize,
}

impl Output {
    /// For the named operator, whose output has these columns.
    pub(super) fn new(
        name: &str,
        on: &JoinOn,
        schema: SchemaRef,
        left_only: bool,
        context: &EvalContext,
    ) -> Result<Output, EngineError> {
        let fields = on.left_schema.fields().iter().chain(on.right_schema.fields());
        let both = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        let both = Arc::new(Schema::new(both));
        let condition = on.condition.as_ref().map(|condition| condition.compile(&both, context)).transpose()?;
        Ok(Output { name: name.to_owned(), schema, both, condition, left_only })
    }

    /// Whether pairs of equal keys must hold a condition beside it.
    pub(super) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Gives those of the pairs that hold the condition.
    pub(super) fn give_pairs(
        &self,
        own: Own<'_>,
        other: &Side,
        pairs: &Changes,
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        for from in (0..pairs.len()).step_by(OUTPUT_ROWS) {
            let piece = from..pairs.len().min(from + OUTPUT_ROWS);
            let count = piece.len();
            let columns = self.columns(own, other, &pairs.own[piece.clone()], &pairs.other[piece.clone()])?;
            let kinds = Int8Array::from(pairs.kinds[piece].to_vec());
            let batch = match self.holding(&columns, count)? {
                None => StreamBatch::changelog(self.rows(&self.schema, columns, count)?, kinds),
                Some(mask) if mask.true_count() == 0 => continue,
                Some(mask) => {
                    let failed = |e| EngineError::arrow(&self.name, &e);
                    let columns = columns.iter().map(|column| compute::filter(column, &mask));
                    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
                    let kinds = compute::filter(&kinds, &mask).map_err(failed)?;
                    let rows = self.rows(&self.schema, columns, mask.true_count())?;
                    StreamBatch::changelog(rows, kinds.as_primitive().clone())
                }
            };
            out.main.push(batch);
        }
        Ok(())
    }

    /// For each of the pairs whether it holds the condition; none: all do.
    pub(super) fn test(
        &self,
        own: Own<'_>,
        other: &Side,
        own_rows: &[u32],
        other_rows: &[u32],
    ) -> Result<Option<Vec<bool>>, EngineError> {
        if !self.has_condition() {
            return Ok(None);
        }
        let mut holds = Vec::with_capacity(own_rows.len());
        for (own_rows, other_rows) in own_rows.chunks(OUTPUT_ROWS).zip(other_rows.chunks(OUTPUT_ROWS)) {
            let columns = self.columns(own, other, own_rows, other_rows)?;
            match self.holding(&columns, own_rows.len())? {
                None => holds.resize(holds.len() + own_rows.len(), true),
                Some(mask) => holds.extend(mask.values().iter()),
            }
        }
        Ok(Some(holds))
    }

    /// Gives all changes, in order.
    pub(super) fn give(
        &self,
        own: Own<'_>,
        other: &Side,
        changes: &Changes,
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        for from in (0..changes.len()).step_by(OUTPUT_ROWS) {
            let piece = from..changes.len().min(from + OUTPUT_ROWS);
            let columns = match (self.left_only, own.side) {
                (false, _) => self.columns(own, other, &changes.own[piece.clone()], &changes.other[piece.clone()])?,
                (true, 0) => self.own_columns(own, &changes.own[piece.clone()])?,
                (true, _) => self.other_columns(other, &changes.other[piece.clone()])?,
            };
            let rows = self.rows(&self.schema, columns, piece.len())?;
            out.main.push(StreamBatch::changelog(rows, Int8Array::from(changes.kinds[piece].to_vec())));
        }
        Ok(())
    }

    /// For which of the pairs the condition holds; none: for all.
    fn holding(&self, columns: &[ArrayRef], rows: usize) -> Result<Option<BooleanArray>, EngineError> {
        let Some(condition) = &self.condition else { return Ok(None) };
        let pairs = self.rows(&self.both, columns.to_vec(), rows)?;
        let holds = condition.evaluate(&pairs).and_then(|value| value.into_array(rows));
        let holds = holds.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        let holds = holds.as_boolean();
        // NULL is not true.
        let holds = if holds.null_count() > 0 { compute::prep_null_mask_filter(holds) } else { holds.clone() };
        Ok((holds.true_count() < rows).then_some(holds))
    }

    /// Columns of the left, then of the right side.
    fn columns(
        &self,
        own: Own<'_>,
        other: &Side,
        own_rows: &[u32],
        other_rows: &[u32],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let own_columns = self.own_columns(own, own_rows)?;
        let other_columns = self.other_columns(other, other_rows)?;
        Ok(match own.side {
            0 => [own_columns, other_columns].concat(),
            _ => [other_columns, own_columns].concat(),
        })
    }

    fn own_columns(&self, own: Own<'_>, rows: &[u32]) -> Result<Vec<ArrayRef>, EngineError> {
        let rows: UInt32Array = match rows.contains(&NONE) {
            false => UInt32Array::from(rows.to_vec()),
            true => rows.iter().map(|row| Some(*row).filter(|row| *row != NONE)).collect(),
        };
        let taken = own.rows.columns().iter().map(|column| compute::take(column, &rows, None));
        taken.collect::<Result<_, _>>().map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn other_columns(&self, other: &Side, rows: &[u32]) -> Result<Vec<ArrayRef>, EngineError> {
        other.columns(rows).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn rows(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &count)
            .map_err(|e| EngineError::Bug(format!("{}: joined rows: {e}", self.name)))
    }
}
