//! The `print` sink: rows on standard output, for people and for pipes. Called by the registry, and by the
//! planner for a bare SELECT (`'print.style' = 'table'`). Rows are written when they come, so after a failure
//! they may come twice.

mod java;
mod table;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use tokio::task::spawn_blocking;

use crate::error::{ConnectorError, ErrorKind};
use crate::format::encode::{JsonEncoder, check_columns};
use crate::format::{JsonOptions, TimestampFormat};
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

pub(crate) use table::NULL;
use table::TableLayout;
pub use table::{CELL_WIDTH_MAX, table_cell};

/// The table as a printer.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let mut options = table.options();
    let prefix =
        options.get("print-identifier").filter(|id| !id.is_empty()).map(|id| format!("{id}> ")).unwrap_or_default();
    let target = if options.parse("standard-error", false)? { Target::Error } else { Target::Output };
    let style = match options.one_of("print.style", "row", &["row", "table", "json"])? {
        "table" => Style::Table(Arc::new(Mutex::new(None))),
        "json" => Style::Json,
        _ => Style::Row { prefix },
    };
    options.finish()?;
    if table.options.contains_key("print-identifier") && !matches!(style, Style::Row { .. }) {
        return Err(ConnectorError::option(
            "the option 'print-identifier' is for 'print.style' = 'row'; leave one of them out",
        ));
    }
    check_columns(&table.schema, "print", true)?;
    Ok(Arc::new(PrintSink { style, target }))
}

struct PrintSink {
    style: Style,
    target: Target,
}

impl Sink for PrintSink {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Retract
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        (
            Delivery::AtLeastOnce,
            "rows are printed as they come, so those since the last checkpoint are printed again after a failure"
                .to_owned(),
        )
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        let updating = ctx.changes != ChangeMode::Append;
        Box::new(PrintWriter { style: self.style.clone(), target: self.target.clone(), updating })
    }

    fn committer(&self, _ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        None
    }
}

/// What rows look like.
#[derive(Clone)]
enum Style {
    /// `+I[1, foo]`, as Flink prints them.
    Row { prefix: String },
    /// Aligned columns with a header. All writers of the sink share the layout, which the first rows fix.
    Table(Arc<Mutex<Option<TableLayout>>>),
    /// One JSON object a line.
    Json,
}

impl Style {
    fn format(&self, rows: &RecordBatch, kinds: Kinds<'_>, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        match self {
            Style::Row { prefix } => java::write_rows(prefix, rows, kinds, out),
            Style::Json => write_json(rows, kinds, out),
            Style::Table(layout) => {
                let mut layout = layout.lock().unwrap_or_else(PoisonError::into_inner);
                table::write_rows(&mut layout, rows, kinds, out)
            }
        }
    }
}

/// The kinds of the rows of a batch.
#[derive(Clone, Copy)]
struct Kinds<'a> {
    /// Whether any row of the stream may be something other than an insert.
    updating: bool,
    /// None: all rows of the batch are inserts.
    changes: Option<&'a Int8Array>,
}

impl Kinds<'_> {
    /// `+I`, `-U`, `+U` or `-D`.
    fn symbol(&self, row: usize) -> &'static str {
        let number = self.changes.map_or(0, |changes| changes.value(row));
        ChangeKind::from_number(number).expect("operators give kinds that exist").symbol()
    }
}

/// One object a row; of a stream of changes it begins with `op`.
fn write_json(rows: &RecordBatch, kinds: Kinds<'_>, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
    let options = JsonOptions {
        timestamps: TimestampFormat::Sql,
        encode_decimal_as_plain_number: true,
        ..JsonOptions::default()
    };
    let json = JsonEncoder::new(&options);
    let members = JsonEncoder::members(rows, 0..rows.num_columns())?;
    // A column of that name keeps it.
    let op = if rows.schema_ref().index_of("op").is_ok() { "__op" } else { "op" };
    for row in 0..rows.num_rows() {
        out.push(b'{');
        if kinds.updating {
            let comma = if members.is_empty() { "" } else { "," };
            write!(out, "\"{op}\":\"{}\"{comma}", kinds.symbol(row)).expect("a Vec takes all bytes");
        }
        json.write_members(&members, row, out);
        out.extend_from_slice(b"}\n");
    }
    Ok(())
}

/// The values of each row as text, for readers in this process.
pub(crate) fn cells(rows: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, ConnectorError> {
    let columns: Vec<Vec<Option<String>>> =
        rows.columns().iter().map(|column| table::whole_texts(column.as_ref())).collect::<Result<_, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let row = |_| columns.iter_mut().map(|column| column.next().expect("one for each row")).collect();
    Ok((0..rows.num_rows()).map(row).collect())
}

/// One JSON object a row, alone in its list.
pub(crate) fn json_lines(
    rows: &RecordBatch,
    updating: bool,
    changes: Option<&Int8Array>,
) -> Result<Vec<Vec<Option<String>>>, ConnectorError> {
    let mut text = Vec::new();
    write_json(rows, Kinds { updating, changes }, &mut text)?;
    Ok(String::from_utf8_lossy(&text).lines().map(|line| vec![Some(line.to_owned())]).collect())
}

/// Where rows go.
#[derive(Clone)]
enum Target {
    Output,
    Error,
    #[cfg(test)]
    Buffer(Arc<Mutex<Vec<u8>>>),
    #[cfg(test)]
    Closed,
}

impl Target {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        // The lock keeps the lines of several writers whole.
        match self {
            Target::Output => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Target::Error => io::stderr().lock().write_all(bytes),
            #[cfg(test)]
            Target::Buffer(buffer) => buffer.lock().unwrap().write_all(bytes),
            #[cfg(test)]
            Target::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Target::Error => "standard error",
            _ => "standard output",
        }
    }
}

struct PrintWriter {
    style: Style,
    target: Target,
    /// Whether the stream may hold something other than inserts.
    updating: bool,
}

#[async_trait]
impl SinkWriter for PrintWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut text = Vec::new();
        self.style.format(rows, Kinds { updating: self.updating, changes }, &mut text)?;
        let target = self.target.clone();
        // A pager that nobody scrolls blocks the writer; it must not block the other tasks of this thread.
        let written = spawn_blocking(move || target.write(&text)).await;
        let written = written
            .map_err(|e| ConnectorError::new(ErrorKind::Transient, format!("the task that prints was stopped: {e}")))?;
        written.map_err(|e| print_error(self.target.name(), &e))
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        // All rows were flushed when they came.
        Ok(async { Ok(Vec::new()) }.boxed())
    }
}

fn print_error(target: &str, error: &io::Error) -> ConnectorError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let message = format!("cannot print: the program that reads this one's {target} has ended; start both again");
        return ConnectorError::new(ErrorKind::External, message);
    }
    ConnectorError::io("print to", target, error)
}

#[cfg(test)]
mod tests;
