//! Tables that are looked up: read by their connector as a whole, not as a stream.

use arrow::datatypes::SchemaRef;
use datafusion_expr::{Expr, LogicalPlan};
use mainstem_core::change::ChangeMode;
use mainstem_plan::operator::{LookupByKey, LookupCache};

use super::time_join::projected;
use crate::catalog::{ColumnSource, Table};
use crate::error::{At, ErrorCode, SqlError};

/// Rows of a cache, unless the user says otherwise.
const CACHE_ROWS_DEFAULT: u64 = 100_000;
/// How often a lookup is tried again, as in Flink.
const RETRIES_DEFAULT: u32 = 3;

const CACHE: &str = "lookup.cache";
const PARTIAL: [&str; 4] = [CACHE_ROWS, CACHE_AGE, CACHE_MISSING, RETRIES];
const CACHE_ROWS: &str = "lookup.partial-cache.max-rows";
const CACHE_AGE: &str = "lookup.partial-cache.expire-after-write";
const CACHE_MISSING: &str = "lookup.partial-cache.cache-missing-key";
const RETRIES: &str = "lookup.max-retries";
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
    /// Set where rows are asked for by key.
    pub(super) by_key: Option<LookupByKey>,
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
        super::dead_letters::check_lookup(table, at)?;
        let by_key = by_key(table, source.looks_up())?;
        let reload_ms = if by_key.is_some() { None } else { reload_ms(table)? };
        Ok(Some(LookupTable { table, physical, columns, reload_ms, by_key }))
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

/// How rows are looked up by key; none where the table is loaded as a whole. `possible`: whether its connector can.
fn by_key(table: &Table, possible: bool) -> Result<Option<LookupByKey>, SqlError> {
    let refused = |message: String| SqlError::new(ErrorCode::Option, table.blamed(&message), message);
    if !possible {
        let misplaced = PARTIAL.iter().find(|name| table.spec.options.contains_key(**name));
        return match misplaced {
            None => Ok(None),
            Some(name) => Err(refused(format!(
                "option '{name}' of table '{}' is for tables that are looked up by key; this one is loaded as a whole",
                table.spec.name
            ))),
        };
    }
    let mut options = table.spec.options();
    let mut read = || -> Result<Option<LookupByKey>, mainstem_connectors::ConnectorError> {
        let cache = options.one_of(CACHE, "NONE", &["NONE", "PARTIAL", "FULL"])?;
        let rows_max = options.parse(CACHE_ROWS, CACHE_ROWS_DEFAULT)?;
        let age = options.duration(CACHE_AGE)?;
        let missing_keys = options.parse(CACHE_MISSING, true)?;
        let retries_max = options.parse(RETRIES, RETRIES_DEFAULT)?;
        let expire_after_write_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let kept = LookupCache { rows_max, expire_after_write_ms, missing_keys };
        Ok(match cache {
            "FULL" => None,
            "PARTIAL" => Some(LookupByKey { cache: Some(kept), retries_max }),
            _ => Some(LookupByKey { cache: None, retries_max }),
        })
    };
    read().map_err(|error| refused(error.message))
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
