//! Tables that are looked up: read by their connector as a whole, not as a stream.

use arrow::datatypes::SchemaRef;
use datafusion_expr::{Expr, LogicalPlan};
use mainstem_core::change::ChangeMode;

use super::time_join::projected;
use crate::catalog::{ColumnSource, Table};
use crate::error::{At, ErrorCode, SqlError};

const CACHE: &str = "lookup.cache";
const STRATEGY: &str = "lookup.full-cache.reload-strategy";
const INTERVAL: &str = "lookup.full-cache.periodic-reload.interval";

/// A table that is looked up.
pub(super) struct LookupTable<'a> {
    pub(super) table: &'a Table,
    /// Physical columns that are read, ascending.
    pub(super) physical: Vec<usize>,
    /// For each column of the plan the physical one that it is.
    columns: Vec<usize>,
    /// How old what was loaded may get, in milliseconds.
    pub(super) reload_ms: Option<u64>,
}

impl<'a> LookupTable<'a> {
    /// The table behind FOR SYSTEM_TIME AS OF PROCTIME(), if it is one that can be read as a whole: then there is
    /// no stream of it. `at`: the place of the join.
    pub(super) fn of(plan: &'a LogicalPlan, at: At) -> Result<Option<LookupTable<'a>>, SqlError> {
        let Some((table, columns)) = table_columns(plan) else { return Ok(None) };
        let source = mainstem_connectors::source(&table.spec)
            .map_err(|error| SqlError::new(ErrorCode::Option, table.blamed(&error.message), error.message.clone()))?;
        if source.monitor_interval().is_some() || source.changes() != ChangeMode::Append {
            return Ok(None);
        }
        let physical = |column: &usize| match &table.sources[*column] {
            ColumnSource::Physical(position) => Ok(*position),
            ColumnSource::Computed(_) => {
                let message = format!(
                    "'{}' is a computed column, and the rows of '{}' are looked up as they are stored; compute it in \
                     the SELECT",
                    table.schema.field(*column).name(),
                    table.spec.name
                );
                Err(SqlError::unsupported(at, message))
            }
        };
        let columns: Vec<usize> = columns.iter().map(physical).collect::<Result<_, _>>()?;
        let mut physical = columns.clone();
        physical.sort_unstable();
        physical.dedup();
        Ok(Some(LookupTable { table, physical, columns, reload_ms: reload_ms(table)? }))
    }

    /// Where a column of the plan stands among those that are read.
    pub(super) fn position(&self, column: usize) -> usize {
        self.physical.binary_search(&self.columns[column]).expect("made of these columns")
    }

    /// The columns that are read.
    pub(super) fn schema(&self) -> SchemaRef {
        projected(&self.table.spec.schema, &self.physical)
    }
}

/// The table whose columns the plan only chooses and renames, and which those are.
fn table_columns(plan: &LogicalPlan) -> Option<(&Table, Vec<usize>)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.source.downcast_ref::<Table>()?;
            Some((table, scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect())))
        }
        LogicalPlan::SubqueryAlias(alias) => table_columns(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (table, input) = table_columns(&projection.input)?;
            let position = |expr: &Expr| {
                let mut expr = expr;
                while let Expr::Alias(alias) = expr {
                    expr = &alias.expr;
                }
                projection.input.schema().maybe_index_of_column(expr.try_as_col()?).map(|column| input[column])
            };
            Some((table, projection.expr.iter().map(position).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn reload_ms(table: &Table) -> Result<Option<u64>, SqlError> {
    let mut options = table.spec.options();
    let read = options
        .one_of(CACHE, "FULL", &["FULL"])
        .and_then(|_| options.one_of(STRATEGY, "PERIODIC", &["PERIODIC"]))
        .and_then(|_| options.duration(INTERVAL));
    let interval =
        read.map_err(|error| SqlError::new(ErrorCode::Option, table.blamed(&error.message), error.message.clone()))?;
    let ms = |interval: std::time::Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    // Zero would load it again and again.
    Ok(interval.map(ms).filter(|ms| *ms > 0))
}
