//! Filters rows and computes columns.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::NamedExpr;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Collector, Operator, STEP_BYTES};

/// Most bytes of text that a function makes for one batch; the rows of a larger one go in pieces.
const COLUMN_BYTES_MAX: usize = 2 * STEP_BYTES;

/// Computed columns.
pub(crate) struct Projection {
    name: String,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Projection {
    /// Compiles the expressions over `input`; `schema` is that of the result.
    pub(crate) fn new(
        name: &str,
        exprs: &[NamedExpr],
        input: &SchemaRef,
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let exprs = exprs.iter().map(|e| e.expr.compile(input, context)).collect::<Result<_, _>>()?;
        Ok(Projection { name: name.to_owned(), exprs, schema })
    }

    /// The computed columns of rows.
    pub(crate) fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let mut columns = Vec::with_capacity(self.exprs.len());
        for expr in &self.exprs {
            let column = expr.evaluate(rows).and_then(|v| v.into_array(rows.num_rows()));
            columns.push(column.map_err(|e| EngineError::evaluation(&self.name, &e))?);
        }
        let failed = |message| EngineError::Evaluation { operator: self.name.clone(), message };
        let fields = self.schema.fields().iter().zip(&columns);
        if let Some((field, _)) = fields.into_iter().find(|(f, c)| !f.is_nullable() && c.logical_null_count() > 0) {
            let column = field.name();
            return Err(failed(format!(
                "column '{column}' is NULL, and the table that it is written to has it NOT NULL or in its PRIMARY KEY; leave such rows out with WHERE ... IS NOT NULL, or give another value with COALESCE"
            )));
        }
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &count).map_err(|e| failed(e.to_string()))
    }
}

/// See the module. Where functions would make too much text for a batch, it is computed in pieces.
pub(crate) struct Calc {
    name: String,
    filter: Option<Arc<dyn PhysicalExpr>>,
    projection: Option<Projection>,
    /// Pieces that are still to be computed, the next one last.
    rest: Vec<StreamBatch>,
}

impl Calc {
    /// Compiles filter and columns over `input`.
    pub(crate) fn new(
        name: &str,
        filter: Option<&Expr>,
        project: Option<&[NamedExpr]>,
        input: &SchemaRef,
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let context = &EvalContext { column_bytes_max: COLUMN_BYTES_MAX, ..context.clone() };
        let filter = filter.map(|f| f.compile(input, context)).transpose()?;
        let projection = project.map(|p| Projection::new(name, p, input, schema, context)).transpose()?;
        Ok(Calc { name: name.to_owned(), filter, projection, rest: Vec::new() })
    }

    /// Computes pieces, as far as one step may go.
    fn run(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        while !out.is_full()
            && let Some(batch) = self.rest.pop()
        {
            let rows = batch.rows.num_rows();
            match self.computed(&batch) {
                Ok(computed) => out.main.extend(computed),
                Err(EngineError::TooMuchAtOnce { .. }) if rows > 1 => {
                    self.rest.push(batch.slice(rows / 2, rows - rows / 2));
                    self.rest.push(batch.slice(0, rows / 2));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What a batch gives; none: no row passes.
    fn computed(&self, batch: &StreamBatch) -> Result<Option<StreamBatch>, EngineError> {
        let filtered = self.filtered(batch)?;
        let passing = filtered.as_ref().unwrap_or(batch);
        if passing.rows.num_rows() == 0 {
            return Ok(None);
        }
        let computed = match &self.projection {
            Some(projection) => Some(passing.with_rows(projection.apply(&passing.rows)?)),
            None => None,
        };
        Ok(computed.or(filtered).or_else(|| Some(batch.clone())))
    }

    /// The rows that pass; none: all do.
    fn filtered(&self, batch: &StreamBatch) -> Result<Option<StreamBatch>, EngineError> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let rows = batch.rows.num_rows();
        let mask = filter.evaluate(&batch.rows).and_then(|v| v.into_array(rows));
        let mask = mask.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        // NULL is not true.
        let mask = mask.as_boolean();
        let mask = if mask.null_count() > 0 { compute::prep_null_mask_filter(mask) } else { mask.clone() };
        match mask.true_count() {
            n if n == rows => Ok(None),
            _ => batch.filter(&mask).map(Some).map_err(|e| EngineError::arrow(&self.name, &e)),
        }
    }
}

impl Operator for Calc {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        self.rest.push(batch);
        self.run(out)
    }

    fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.run(out)
    }
}

/// Gives the rows of a union the names of its output.
pub(crate) struct Rename {
    /// Columns of the output.
    pub(crate) schema: SchemaRef,
}

impl Operator for Rename {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let columns = batch.rows.columns().to_vec();
        let count = RecordBatchOptions::new().with_row_count(Some(batch.rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &count)
            .map_err(|e| EngineError::Bug(format!("union: {e}")))?;
        out.main.push(batch.with_rows(rows));
        Ok(())
    }
}
