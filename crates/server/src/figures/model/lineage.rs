//! What is told of where the columns of a job's sinks come from.

use mainstem_plan::lineage::{Origin, SinkLineage};
use serde::Serialize;
use utoipa::ToSchema;

/// Where the columns of a job's sinks come from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LineageAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) sinks: Vec<SinkOrigins>,
}

/// Where the columns of a sink come from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SinkOrigins {
    /// The operator that writes it.
    pub(crate) operator: u32,
    pub(crate) table: String,
    pub(crate) columns: Vec<ColumnOrigins>,
    /// Columns that decide which rows there are: conditions, keys of joins and groups, orders.
    pub(crate) decided_by: Vec<TableColumn>,
}

/// A column of a sink.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ColumnOrigins {
    #[schema(example = "total")]
    pub(crate) column: String,
    /// What its value is computed of; empty: of no column.
    pub(crate) from: Vec<TableColumn>,
}

/// A column of a table that is read or looked up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TableColumn {
    /// The operator that reads it.
    pub(crate) operator: u32,
    #[schema(example = "orders")]
    pub(crate) table: String,
    #[schema(example = "amount")]
    pub(crate) column: String,
}

impl From<SinkLineage> for SinkOrigins {
    fn from(sink: SinkLineage) -> SinkOrigins {
        let columns = sink.columns.into_iter();
        let columns = columns.map(|column| ColumnOrigins { column: column.column, from: shown(column.from) });
        SinkOrigins {
            operator: sink.operator.0,
            table: sink.table,
            columns: columns.collect(),
            decided_by: shown(sink.decided_by),
        }
    }
}

fn shown(origins: impl IntoIterator<Item = Origin>) -> Vec<TableColumn> {
    let shown =
        |origin: Origin| TableColumn { operator: origin.operator.0, table: origin.table, column: origin.column };
    origins.into_iter().map(shown).collect()
}
