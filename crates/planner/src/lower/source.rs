//! Table scans to source operators: one for each table of the job.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr as LogicalExpr, TableScan};
use mainstem_connectors::{BadRecordPolicy, bad_record_options};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{CheckConstraint, NamedExpr, Operator, OperatorKind, SourceOperator, WatermarkSpec};

use super::{Lowering, Stream};
use crate::catalog::{ColumnSource, Table};
use crate::error::{ErrorCode, SqlError};

impl Lowering {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Stream, SqlError> {
        let Some(table) = scan.source.downcast_ref::<Table>() else {
            return Err(self.internal(format!("'{}' is no table of this file", scan.table_name)));
        };
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return Err(self.internal("a filter was pushed into a source".to_owned()));
        }
        let columns: Vec<usize> = self.needed[&table.spec.name].iter().copied().collect();
        let operator = match self.sources.get(&table.spec.name) {
            Some(operator) => *operator,
            None => {
                let operator = self.read(table, &columns)?;
                self.sources.insert(table.spec.name.clone(), operator);
                operator
            }
        };
        let wanted = scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect());
        let position =
            |column: &usize| columns.binary_search(column).expect("needed columns include those of every scan");
        Ok(Stream { operator, columns: wanted.iter().map(position).collect() })
    }

    /// The operator that gives these columns of a table, as a complete changelog if it is one.
    fn read(&mut self, table: &Table, columns: &[usize]) -> Result<OperatorId, SqlError> {
        let op = self.source(table, columns)?;
        let source = self.add_always(&format!("source {}", table.spec.name), op, &[])?;
        if self.graph.node(source).op.changes != ChangeMode::Upsert {
            return Ok(source);
        }
        let key = upsert_key(table);
        let key: Vec<usize> = (0..columns.len()).filter(|position| key.contains(&columns[*position])).collect();
        let exchange = Exchange::Hash { keys: key.clone() };
        let normalize = Operator::new(declared_schema(table, columns), OperatorKind::Normalize { key });
        self.add_always("newest row of each key", normalize, &[(source, exchange)])
    }

    fn source(&self, table: &Table, columns: &[usize]) -> Result<Operator, SqlError> {
        let source = mainstem_connectors::source(&table.spec)
            .map_err(|error| SqlError::new(ErrorCode::Option, table.blamed(&error.message), error.message.clone()))?;
        if table.alignment.is_some() && source.splits_at_once() < usize::MAX {
            // A split that waits for its turn would wait for those that are held.
            let key = "scan.watermark.alignment.max-drift";
            let message = format!(
                "option '{key}' needs a table of which all splits are read side by side; the files of '{}' are read one after another",
                table.spec.name
            );
            return Err(SqlError::new(ErrorCode::Option, table.option_at(key), message));
        }
        let physical =
            DFSchema::try_from(table.spec.schema.clone()).expect("column names are unique, that was checked");
        let convert =
            |expr: &LogicalExpr| Expr::from_logical(expr, &physical).map_err(|error| self.table_error(table, &error));
        let column = |column: usize| match &table.sources[column] {
            ColumnSource::Physical(position) => Ok(Expr::Column(*position)),
            ColumnSource::Computed(expr) => convert(expr),
        };
        let mut project = columns
            .iter()
            .map(|index| Ok(NamedExpr { name: table.schema.field(*index).name().clone(), expr: column(*index)? }))
            .collect::<Result<Vec<_>, SqlError>>()?;
        let mut watermark = match &table.watermark {
            Some(watermark) => Some(WatermarkSpec {
                time: column(watermark.column)?,
                watermark: convert(&watermark.expr)?,
                // Zero is how Flink says never.
                idle_timeout_ms: table.idle_timeout_ms.or(self.idle_timeout_ms).filter(|timeout| *timeout > 0),
                alignment: table.alignment.clone(),
            }),
            None => None,
        };
        let mut checks = table
            .checks
            .iter()
            .map(|check| {
                let (name, text) = (check.name.clone(), check.text.clone());
                Ok(CheckConstraint { name, text, expr: convert(&check.expr)? })
            })
            .collect::<Result<Vec<_>, SqlError>>()?;
        let bad_records = bad_record_options(&table.spec)
            .map_err(|error| SqlError::new(ErrorCode::Option, table.blamed(&error.message), error.message.clone()))?;
        // One that has no form here cannot be asked for either.
        let form =
            |(name, expr): (&String, &LogicalExpr)| Some(NamedExpr { name: name.clone(), expr: convert(expr).ok()? });
        let is_wanted = bad_records.policy != BadRecordPolicy::Fail;
        let mut computed: Vec<NamedExpr> = table.computed().filter(|_| is_wanted).filter_map(form).collect();
        let mut exprs: Vec<&mut Expr> = project.iter_mut().map(|named| &mut named.expr).collect();
        exprs.extend(watermark.iter_mut().flat_map(|watermark| [&mut watermark.time, &mut watermark.watermark]));
        exprs.extend(checks.iter_mut().map(|check| &mut check.expr));
        exprs.extend(computed.iter_mut().map(|named| &mut named.expr));
        // Which records are wrong must not depend on what is asked of the others.
        let always = if bad_records.explicit { data_columns(table) } else { Vec::new() };
        let read_columns = read_columns(exprs, &always);
        let table_spec = table.spec.clone();
        let source = SourceOperator {
            table: table_spec,
            read_columns,
            watermark,
            project,
            checks,
            computed,
            dead_letters: None,
        };
        let mut schema = declared_schema(table, columns);
        let key = upsert_key(table);
        if !key.is_empty() {
            // A delete may know nothing but its key.
            let fields = columns.iter().zip(schema.fields()).map(|(index, field)| {
                if key.contains(index) { field.clone() } else { Arc::new(field.as_ref().clone().with_nullable(true)) }
            });
            schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        Ok(Operator::new(schema, OperatorKind::Source(source)))
    }

    fn table_error(&self, table: &Table, error: &mainstem_plan::PlanError) -> SqlError {
        let mut error = self.plan_error(error);
        if (error.line, error.column) == (self.at.0.line, self.at.0.column) {
            (error.line, error.column) = (table.at.0.line, table.at.0.column);
        }
        error
    }
}

/// The columns by which rows of the table replace each other, where its source tells changes by key; else none.
pub(super) fn upsert_key(table: &Table) -> Vec<usize> {
    match mainstem_connectors::source(&table.spec) {
        Ok(source) if source.changes() == ChangeMode::Upsert => {
            table.spec.primary_key.iter().filter_map(|name| table.schema.index_of(name).ok()).collect()
        }
        // A table that cannot be read is refused when its source is made.
        _ => Vec::new(),
    }
}

fn declared_schema(table: &Table, columns: &[usize]) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|index| table.schema.field(*index).clone()).collect();
    Arc::new(mainstem_plan::plain_schema(&Schema::new(fields)))
}

/// Physical columns that are part of the data.
fn data_columns(table: &Table) -> Vec<usize> {
    (0..table.spec.schema.fields().len()).filter(|column| table.spec.metadata_of(*column).is_none()).collect()
}

/// The physical columns that the expressions read, and those that are read in any case; afterwards they are over just these.
fn read_columns(exprs: Vec<&mut Expr>, always: &[usize]) -> Vec<usize> {
    let found = exprs.iter().flat_map(|expr| expr.columns()).chain(always.iter().copied());
    let found: std::collections::BTreeSet<usize> = found.collect();
    let found: Vec<usize> = found.into_iter().collect();
    let position = |column: usize| found.binary_search(&column).expect("collected from these expressions");
    exprs.into_iter().for_each(|expr| expr.remap_columns(&position));
    found
}
