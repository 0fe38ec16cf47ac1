//! One set of tables in both engines: the product and DataFusion's batch engine. A query runs as a job, straight; as a job
//! that is killed at an edge of durability and goes on at another parallelism; and as a batch query. All must agree,
//! after the changelog is folded.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::prelude::{SessionConfig, SessionContext};
use mainstem_plan::operator::OperatorKind;
use serde_json::Value;

use crate::support::changelog::ChangelogFold;
use crate::support::{Sandbox, text};

/// The rows of a table are spread over so many files, so that a job takes several epochs to read them.
const FILES: usize = 6;

/// Where the job is killed; the number of the epoch keeps it in the middle of the input.
const FAILPOINTS: [(&str, u64); 4] =
    [("snapshots-durable", 2), ("epoch-complete", 1), ("published", 2), ("manifest-durable", 1)];

/// Says when barriers overtake what is in flight.
const ALIGNED_TIMEOUT: &str = "execution.checkpointing.aligned-checkpoint-timeout";

/// Subtasks before and after the kill.
const PARALLELISMS: [[&str; 2]; 5] = [["2", "3"], ["1", "2"], ["3", "1"], ["2", "2"], ["4", "3"]];

/// What stands between a query and its form for the batch engine, where that needs another.
pub(crate) const BATCH_FORM: &str = "-- batch:";

/// A mistake in a query, or a difference between two ways to run it.
#[derive(Debug)]
pub(crate) struct CaseError(pub(crate) String);

impl std::fmt::Display for CaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaseError {}

pub(crate) fn failed(error: impl std::fmt::Display) -> CaseError {
    CaseError(error.to_string())
}

/// Rows as text, sorted.
pub(crate) type Rows = Vec<Vec<String>>;

/// A query that the planner takes.
pub(crate) struct Select {
    pub(crate) sql: String,
    pub(crate) schema: SchemaRef,
}

/// One file of cases: its tables, in both engines.
pub(crate) struct Engines {
    sandbox: Sandbox,
    batch: SessionContext,
    /// Statements that stand before each query: tables, views, settings.
    pub(crate) preamble: String,
    /// Tables whose rows are given in the file.
    tables: Vec<String>,
    written: bool,
    /// Jobs that have run.
    pub(crate) runs: usize,
    /// Queries that have run in them.
    pub(crate) queries: usize,
    /// Those of them whose first run was killed.
    pub(crate) kills: usize,
}

impl Engines {
    /// No tables.
    pub(crate) fn new() -> Engines {
        Engines {
            sandbox: Sandbox::new(""),
            batch: SessionContext::new_with_config(nulls_least()),
            preamble: String::new(),
            tables: Vec::new(),
            written: false,
            runs: 0,
            queries: 0,
            kills: 0,
        }
    }

    /// A table without WITH: its rows are inserted into the batch engine, and written to files for the job.
    pub(crate) async fn create_table(&mut self, sql: &str) -> Result<(), CaseError> {
        if sql.contains("WITH (") {
            let _ = writeln!(self.preamble, "{sql};");
            return Ok(());
        }
        let name = sql.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let lines = sql.lines().filter(|line| {
            let line = line.trim_start();
            !line.starts_with("WATERMARK FOR") && !line.starts_with("PRIMARY KEY") && !line.contains(" AS PROCTIME()")
        });
        let plain = lines.collect::<Vec<_>>().join("\n").replace('`', "\"").replace(" STRING", " VARCHAR");
        self.batch.sql(&plain.replace(",\n)", "\n)")).await.map_err(failed)?.collect().await.map_err(failed)?;
        let path = format!("'path' = 'in/{name}'");
        let _ = writeln!(self.preamble, "{sql} WITH ('connector' = 'filesystem', {path}, 'format' = 'json');");
        self.tables.push(name);
        Ok(())
    }

    /// Writes the rows of all tables to the files that jobs read.
    pub(crate) async fn write_tables(&mut self) -> Result<(), CaseError> {
        if std::mem::replace(&mut self.written, true) {
            return Ok(());
        }
        for name in &self.tables {
            let batches = self.collect(&format!("SELECT * FROM {name}")).await?;
            let lines: Vec<String> = batches.iter().flat_map(json_lines).collect();
            let share = lines.len().div_ceil(FILES).max(1);
            for (number, chunk) in lines.chunks(share).enumerate() {
                self.sandbox.write(&format!("in/{name}/{number}.json"), chunk.join("\n") + "\n");
            }
            if lines.is_empty() {
                self.sandbox.write(&format!("in/{name}/0.json"), "");
            }
        }
        Ok(())
    }

    /// What the batch engine says of a statement.
    pub(crate) async fn collect(&self, sql: &str) -> Result<Vec<RecordBatch>, CaseError> {
        let sql = sql.replace('`', "\"");
        self.batch.sql(&sql).await.map_err(failed)?.collect().await.map_err(failed)
    }

    /// The rows of a query, which all ways to run it agree on.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Rows, CaseError> {
        let (streaming, batch) = sql.split_once(BATCH_FORM).unwrap_or((sql, sql));
        self.write_tables().await?;
        let select =
            Select { sql: streaming.trim_end().trim_end_matches(';').to_owned(), schema: self.schema(streaming)? };
        let expected = self.collect(batch).await;
        let selects = [select];
        let [straight, resumed] = self.run(&selects)?;
        let rows = agreed(&straight[0], &resumed[0], &answer(&expected?, &selects[0].schema))?;
        Ok(rows.clone())
    }

    /// The columns of a query; what the planner has against it.
    pub(crate) fn schema(&self, query: &str) -> Result<SchemaRef, CaseError> {
        let select = format!("{}{}", self.preamble, query.trim_end().trim_end_matches(';'));
        let plan = mainstem_planner::plan(&select).map_err(|error| CaseError(error.to_string()))?;
        let sink = plan.graph.nodes.iter().rfind(|node| matches!(node.op.kind, OperatorKind::Sink(_)));
        sink.map(|node| node.op.schema.clone()).ok_or_else(|| failed("the query has no result"))
    }

    /// The rows of queries that run as one job: straight, and killed and resumed.
    pub(crate) fn run(&mut self, selects: &[Select]) -> Result<[Vec<Rows>; 2], CaseError> {
        self.sandbox.write("job.sql", self.job(selects));
        self.queries += selects.len();
        self.runs += 1;
        let straight = self.straight(selects)?;
        Ok([straight, self.killed(selects)?])
    }

    fn job(&self, selects: &[Select]) -> String {
        let mut job = self.preamble.clone();
        for (number, select) in selects.iter().enumerate() {
            let columns = select.schema.fields().iter().enumerate();
            let columns = columns.map(|(n, field)| format!("c{n} {}", mainstem_plan::sql_type_name(field.data_type())));
            let _ = writeln!(
                job,
                "CREATE TABLE results_{number} ({}) WITH ('connector' = 'filesystem', 'path' = 'out/{number}', \
                 'format' = 'debezium-json');\nINSERT INTO results_{number} {};",
                columns.collect::<Vec<_>>().join(", "),
                select.sql
            );
        }
        job
    }

    fn straight(&self, selects: &[Select]) -> Result<Vec<Rows>, CaseError> {
        self.clear();
        let output = self.sandbox.run(&["run", "job.sql", "-p", "1"]);
        match output.status.success() {
            true => self.results(selects),
            false => Err(CaseError(text(&output.stderr))),
        }
    }

    fn killed(&mut self, selects: &[Select]) -> Result<Vec<Rows>, CaseError> {
        self.clear();
        // About every other time barriers overtake whatever is in flight, and sinks are slow, so that something is.
        let overtakes = (self.runs + self.runs / FAILPOINTS.len()) % 2 == 1;
        if overtakes {
            let job = self.job(selects);
            self.sandbox.write("job.sql", format!("SET '{ALIGNED_TIMEOUT}' = '0 ms';\n{job}"));
        }
        self.sandbox.slow_sinks(u64::from(overtakes));
        let interval = ["--checkpoint-interval", "1 ms"];
        let [first, second] = PARALLELISMS[self.runs % PARALLELISMS.len()];
        let (failpoint, count) = FAILPOINTS[self.runs % FAILPOINTS.len()];
        let killed =
            self.sandbox.kill_at(&[&["run", "job.sql", "-p", first], &interval[..]].concat(), failpoint, count);
        self.kills += if killed { selects.len() } else { 0 };
        self.sandbox.slow_sinks(0);
        let output = self.sandbox.run(&[&["run", "job.sql", "-p", second], &interval[..]].concat());
        match output.status.success() {
            true => self.results(selects),
            false => Err(CaseError(format!("after a kill: {}", text(&output.stderr)))),
        }
    }

    fn clear(&self) {
        for directory in ["out", ".mainstem"] {
            // Not there before the first run.
            let _ = std::fs::remove_dir_all(self.sandbox.path(directory));
        }
    }

    fn results(&self, selects: &[Select]) -> Result<Vec<Rows>, CaseError> {
        let results = selects.iter().enumerate().map(|(number, select)| {
            let path = self.sandbox.path(&format!("out/{number}"));
            if !path.exists() {
                return Ok(Vec::new());
            }
            let folded = ChangelogFold::debezium(&path).map_err(CaseError)?.rows();
            let cells = |line: &str| cells(line, &select.schema);
            let rows = folded.iter().flat_map(|(line, count)| std::iter::repeat_n(cells(line), *count));
            Ok(sorted(rows.collect()))
        });
        results.collect()
    }

    /// The operators of a plan, one a line, with what tells them apart.
    pub(crate) fn explain(&self, query: &str) -> Result<Vec<Vec<String>>, CaseError> {
        let plan = mainstem_planner::plan(&format!("{}{query}", self.preamble));
        let plan = plan.map_err(|error| CaseError(error.to_string()))?;
        let shown = mainstem_planner::explain(&plan, 1);
        let operators = shown.lines().skip(1).take_while(|line| *line != "guarantees");
        let left_out = ["state:", "reads:", "writes:", "event time:"];
        let wanted = operators.filter(|line| left_out.iter().all(|prefix| !line.trim_start().starts_with(prefix)));
        Ok(wanted.map(|line| vec![line.trim_start().replace(", parallelism 1", "")]).collect())
    }
}

/// The rows on which all agree.
pub(crate) fn agreed<'a>(straight: &'a Rows, resumed: &Rows, expected: &Rows) -> Result<&'a Rows, CaseError> {
    if straight != resumed {
        return Err(failed(format!("straight: {straight:?}\nkilled and resumed: {resumed:?}")));
    }
    if straight != expected {
        return Err(failed(format!("streaming: {straight:?}\nbatch: {expected:?}")));
    }
    Ok(straight)
}

/// What the batch engine has answered, in the form of a job's results.
pub(crate) fn answer(batches: &[RecordBatch], schema: &SchemaRef) -> Rows {
    let lines: Vec<String> = batches.iter().flat_map(|rows| json_lines(&renamed(rows, schema))).collect();
    sorted(lines.iter().map(|line| cells(line, schema)).collect())
}

/// NULL is the least value, as in Flink.
fn nulls_least() -> SessionConfig {
    SessionConfig::new().set_str("datafusion.sql_parser.default_null_ordering", "nulls_min")
}

fn renamed(rows: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let columns = rows.columns().iter().zip(schema.fields()).enumerate();
    let columns = columns.map(|(n, (column, field))| {
        let cast = arrow::compute::cast(column, field.data_type()).unwrap();
        (format!("c{n}"), cast, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn json_lines(rows: &RecordBatch) -> Vec<String> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_format("%Y-%m-%d %H:%M:%S%.3f".to_owned())
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    std::str::from_utf8(&writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

/// The values of a row (JSON) as text, in one form for both engines.
fn cells(line: &str, schema: &SchemaRef) -> Vec<String> {
    let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
    let fields = schema.fields().iter().enumerate();
    fields.map(|(n, field)| cell(row.get(&format!("c{n}")).unwrap_or(&Value::Null), field.data_type())).collect()
}

fn cell(value: &Value, data_type: &DataType) -> String {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    match (value, data_type) {
        (Value::Null, _) => "NULL".to_owned(),
        (Value::String(text), DataType::Timestamp(..)) => {
            let text = text.trim_end_matches('Z').replace('T', " ");
            let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            short.to_owned()
        }
        (value, DataType::Float32 | DataType::Float64 | DataType::Decimal128(..)) if number(value).is_some() => {
            // Sums of floats depend on their order.
            let rounded = format!("{:.4}", number(value).unwrap_or_default());
            rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        (Value::String(text), _) if text.is_empty() => "(empty)".to_owned(),
        (Value::String(text), _) => text.clone(),
        (other, _) => other.to_string(),
    }
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort_unstable();
    rows
}
