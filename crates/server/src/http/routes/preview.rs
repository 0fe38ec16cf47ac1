//! The first rows of a query, before it becomes a job.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use mainstem_core::change::ChangeMode;
use mainstem_plan::operator::OperatorKind;
use mainstem_plan::sql_type_name;
use mainstem_planner::JobPlan;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::access::User;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::input::Input;
use crate::http::planning::{Planned, SqlFile, plan_preview, texts};
use crate::preview::{self, End, Query};

/// Previews at a time.
pub(in crate::http) const PREVIEWS_MAX: usize = 2;
const ROWS_DEFAULT: usize = 20;
const ROWS_MAX: usize = 1_000;
const TIME_MS_DEFAULT: u64 = 5_000;
const TIME_MS_MAX: u64 = 30_000;

/// What is to be shown.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewWish {
    /// The statements, of which one query is shown.
    #[schema(
        example = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3'); CREATE TABLE s (a BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO s SELECT a FROM t;"
    )]
    sql: Option<String>,
    /// Instead of `sql`: several texts that are read as one.
    files: Option<Vec<SqlFile>>,
    /// Shows the query that begins last at or above this line of the (last) text, or its first one; otherwise its last one.
    #[schema(minimum = 1)]
    line: Option<u64>,
    /// Rows at most; 20 where nothing is said.
    #[schema(minimum = 1, maximum = 1000)]
    rows: Option<usize>,
    /// Time at most; 5000 where nothing is said.
    #[schema(minimum = 1, maximum = 30000)]
    time_ms: Option<u64>,
}

/// The first rows of a query.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PreviewAnswer {
    /// The table that the rows would be written to; made up for a SELECT.
    #[schema(example = "counts")]
    table: String,
    /// Line of the query in its text.
    line: Option<u64>,
    columns: Vec<PreviewColumn>,
    /// In the order in which they came.
    rows: Vec<PreviewRow>,
    /// Whether rows change that were given before.
    updating: bool,
    /// Why there are no more: `finished` (the query has no more), `rows`, `time` or `bytes` (so much was wanted or is given).
    #[schema(example = "rows")]
    end: &'static str,
    duration_ms: u64,
    /// Rows that the sources have given so far.
    rows_read: u64,
    /// Rows that came too late for their windows.
    late_rows: u64,
    /// Records that were left out as wrong, as their tables ask.
    dropped_records: u64,
    /// Values that were cut, with `…` at their end.
    cut_values: u64,
}

/// A column of the rows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PreviewColumn {
    #[schema(example = "page")]
    name: String,
    /// As SQL has it.
    #[schema(example = "BIGINT")]
    r#type: String,
}

/// A row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PreviewRow {
    /// `+I`, `-U`, `+U` or `-D`.
    #[schema(example = "+I")]
    kind: &'static str,
    /// As `mainstem sql` shows them; null is NULL.
    values: Vec<Option<String>>,
}

/// Shows the first rows of a query, with nothing written: those of a SELECT, or those that an INSERT would write. Sources are
/// read from where a new job would begin.
#[utoipa::path(
    post, path = "/api/v1/preview", tag = "sql", request_body = PreviewWish,
    responses(
        (status = 200, body = PreviewAnswer), (status = 409, body = ErrorBody),
        (status = 422, description = "The SQL is wrong, or the query failed.", body = ErrorBody),
        (status = 429, body = ErrorBody),
    ),
)]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    Input(wish): Input<PreviewWish>,
) -> Result<Json<PreviewAnswer>, ApiError> {
    let rows_max = wish.rows.unwrap_or(ROWS_DEFAULT);
    if !(1..=ROWS_MAX).contains(&rows_max) {
        return Err(ApiError::bad_request(format!("'rows' is {rows_max}, it must be between 1 and {ROWS_MAX}")));
    }
    let time_ms = wish.time_ms.unwrap_or(TIME_MS_DEFAULT);
    if !(1..=TIME_MS_MAX).contains(&time_ms) {
        return Err(ApiError::bad_request(format!("'time_ms' is {time_ms}, it must be between 1 and {TIME_MS_MAX}")));
    }
    let texts = texts(wish.sql, wish.files)?;
    let Ok(permit) = app.previews.clone().try_acquire_owned() else {
        return Err(ApiError::too_many(format!("{PREVIEWS_MAX} previews run at this node already; try again soon")));
    };
    let Planned { plan, sql, line } = plan_preview(&app, texts, wish.line).await??;
    check_sources(&plan)?;
    let sink = plan.sinks.first().ok_or_else(|| ApiError::bug("bug: the query has no end"))?;
    let (table, op) = (sink.table.clone(), &plan.graph.node(sink.operator).op);
    let fields = op.schema.fields().iter();
    let columns =
        fields.map(|field| PreviewColumn { name: field.name().clone(), r#type: sql_type_name(field.data_type()) });
    let (columns, updating) = (columns.collect(), op.changes != ChangeMode::Append);
    let query = Query { plan, sql, rows_max, time_max: Duration::from_millis(time_ms) };
    let shown = preview::preview(query, permit).await.map_err(|error| ApiError::failed(format!("{error:#}")))?;
    let end = end_word(shown.end);
    tracing::info!(user = user.said, table, rows = shown.rows.len(), end, "rows were previewed");
    let rows = shown.rows.into_iter().map(|(kind, values)| PreviewRow { kind: kind.symbol(), values }).collect();
    Ok(Json(PreviewAnswer {
        table,
        line,
        columns,
        rows,
        updating,
        end,
        duration_ms: shown.duration_ms,
        rows_read: shown.totals.rows_in,
        late_rows: shown.totals.late,
        dropped_records: shown.totals.dropped + shown.totals.dead_letters,
        cut_values: shown.cut_values,
    }))
}

/// Refuses tables that cannot be read without a trace.
fn check_sources(plan: &JobPlan) -> Result<(), ApiError> {
    for node in &plan.graph.nodes {
        let OperatorKind::Source(source) = &node.op.kind else { continue };
        let name = &source.table.name;
        let opened = mainstem_connectors::source(&source.table);
        let opened = opened.map_err(|error| ApiError::bug(format!("bug: table '{name}' was planned: {error}")))?;
        if let Some(left) = opened.leaves() {
            return Err(ApiError::refused(format!(
                "table '{name}' cannot be previewed: whoever reads it makes {left} where it is, and a preview changes nothing"
            )));
        }
    }
    Ok(())
}

fn end_word(end: End) -> &'static str {
    match end {
        End::Finished => "finished",
        End::Rows => "rows",
        End::Time => "time",
        End::Bytes => "bytes",
    }
}
