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

use crate::element::StreamBatch;
use crate::error::EngineError;

/// Rows of an emitted batch.
pub(crate) const EMIT_ROWS_MAX: usize = 8192;

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
