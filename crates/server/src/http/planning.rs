//! SQL that comes in: planned apart from the threads that answer, a few at a time, and never run from here.

use mainstem_planner::JobPlan;
use mainstem_rt::run_blocking;
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use crate::figures::model::SqlMistake;
use crate::sql_files::SqlFiles;

/// SQL texts that are planned at a time.
pub(super) const PLANNINGS_MAX: usize = 2;
/// Name of a text that has none.
const UNNAMED: &str = "job.sql";

/// SQL: one text, or several that are read as one.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlText {
    /// The statements.
    #[schema(
        example = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'datagen'); CREATE TABLE s (a BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO s SELECT a FROM t;"
    )]
    pub(super) sql: Option<String>,
    /// Instead of `sql`.
    pub(super) files: Option<Vec<SqlFile>>,
    /// Subtasks of each operator, for what depends on it.
    #[schema(minimum = 1, maximum = 1024)]
    pub(super) parallelism: Option<u32>,
}

/// A SQL file.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlFile {
    /// For messages; the last one names the job where nothing else does.
    #[schema(example = "orders.sql")]
    name: String,
    sql: String,
}

/// The texts by name.
pub(super) fn texts(sql: Option<String>, files: Option<Vec<SqlFile>>) -> Result<Vec<(String, String)>, ApiError> {
    match (sql, files) {
        (Some(sql), None) => Ok(vec![(UNNAMED.to_owned(), sql)]),
        (None, Some(files)) if !files.is_empty() => Ok(files.into_iter().map(|file| (file.name, file.sql)).collect()),
        _ => Err(ApiError::bad_request("give either 'sql' or 'files'")),
    }
}

/// Plans what has come in.
pub(super) async fn plan(app: &App, texts: Vec<(String, String)>) -> Result<Result<JobPlan, SqlMistake>, ApiError> {
    planned(app, texts, SqlFiles::plan_or_mistake).await
}

/// A query of what has come in.
pub(super) struct Planned {
    pub(super) plan: JobPlan,
    /// All of the text.
    pub(super) sql: String,
    /// Where the query begins in the text that it is in.
    pub(super) line: Option<u64>,
}

/// Plans one query of what has come in, chosen by a line of the last text.
pub(super) async fn plan_preview(
    app: &App,
    texts: Vec<(String, String)>,
    line: Option<u64>,
) -> Result<Result<Planned, SqlMistake>, ApiError> {
    let plan = move |files: &SqlFiles| {
        let plan = files.plan_preview(line)?;
        let begins = plan.sinks.first().map(|sink| files.line_in_file(sink.statement_line));
        Ok(Planned { plan, sql: files.text(), line: begins.filter(|line| *line > 0) })
    };
    planned(app, texts, plan).await
}

async fn planned<T: Send + 'static>(
    app: &App,
    texts: Vec<(String, String)>,
    plan: impl FnOnce(&SqlFiles) -> Result<T, (String, u64, u64)> + Send + 'static,
) -> Result<Result<T, SqlMistake>, ApiError> {
    // The semaphore is never closed.
    let _permit = app.plannings.acquire().await.map_err(|_| ApiError::bug("bug: nothing is planned any more"))?;
    let planned = run_blocking(move || {
        let files = SqlFiles::of(texts).map_err(|error| mistake(error.to_string(), 0, 0))?;
        plan(&files).map_err(|(message, line, column)| mistake(message, line, column))
    });
    planned.await.map_err(|error| ApiError::bug(format!("bug: the planner failed: {error}; please report it")))
}

fn mistake(message: String, line: u64, column: u64) -> SqlMistake {
    SqlMistake { message, line: Some(line).filter(|at| *at > 0), column: Some(column).filter(|at| *at > 0) }
}

impl From<SqlMistake> for ApiError {
    fn from(mistake: SqlMistake) -> ApiError {
        ApiError::invalid_sql(mistake.message, mistake.line, mistake.column)
    }
}
