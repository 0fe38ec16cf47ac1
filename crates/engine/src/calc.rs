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
use crate::operator::{Collector, Operator};

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
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &count)
            .map_err(|e| EngineError::Evaluation { operator: self.name.clone(), message: e.to_string() })
    }
}

/// See the module.
pub(crate) struct Calc {
    name: String,
    filter: Option<Arc<dyn PhysicalExpr>>,
    projection: Option<Projection>,
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
        let filter = filter.map(|f| f.compile(input, context)).transpose()?;
        let projection = project.map(|p| Projection::new(name, p, input, schema, context)).transpose()?;
        Ok(Calc { name: name.to_owned(), filter, projection })
    }

    fn filtered(&self, batch: StreamBatch) -> Result<StreamBatch, EngineError> {
        let Some(filter) = &self.filter else { return Ok(batch) };
        let rows = batch.rows.num_rows();
        let mask = filter.evaluate(&batch.rows).and_then(|v| v.into_array(rows));
        let mask = mask.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        // NULL is not true.
        let mask = mask.as_boolean();
        let mask = if mask.null_count() > 0 { compute::prep_null_mask_filter(mask) } else { mask.clone() };
        match mask.true_count() {
            n if n == rows => Ok(batch),
            _ => batch.filter(&mask).map_err(|e| EngineError::arrow(&self.name, &e)),
        }
    }
}

impl Operator for Calc {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let batch = self.filtered(batch)?;
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        let batch = match &self.projection {
            Some(projection) => batch.with_rows(projection.apply(&batch.rows)?),
            None => batch,
        };
        out.main.push(batch);
        Ok(())
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
