//! Rows that stand in the SQL text (`VALUES`). The planner makes such tables, with [`values_table`]; a user cannot
//! declare one, since their rows are in the table's options.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::ConnectorError;
use crate::generator::{Cursor, GeneratorReader, RowGenerator, Schedule};
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

/// The table of these rows.
///
/// # Errors
/// Where a column's type has no form in Arrow's stream format.
pub fn values_table(name: &str, rows: &RecordBatch) -> Result<TableSpec, ConnectorError> {
    let failed = |e: arrow::error::ArrowError| ConnectorError::data(format!("the rows of VALUES: {e}"));
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    let bytes = writer.into_inner().map_err(failed)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let option = |key: &str, value: String| (key.to_owned(), value);
    Ok(TableSpec {
        name: name.to_owned(),
        schema: rows.schema(),
        primary_key: vec![],
        partition_keys: vec![],
        options: BTreeMap::from([option("connector", "values".to_owned()), option("rows", hex)]),
    })
}

/// The table as a source.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    let wrong = || ConnectorError::option(format!("table '{}': the connector 'values' is for VALUES only", table.name));
    let hex = table.options.get("rows").ok_or_else(wrong)?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let bytes = bytes.ok_or_else(wrong)?;
    let rows = StreamReader::try_new(bytes.as_slice(), None).and_then(|mut reader| reader.next().transpose());
    let rows = rows.ok().flatten().filter(|rows| rows.schema().fields() == table.schema.fields()).ok_or_else(wrong)?;
    Ok(Arc::new(Values { rows }))
}

struct Values {
    rows: RecordBatch,
}

impl Values {
    fn schedule(&self) -> Schedule {
        Schedule { end: Some(self.rows.num_rows() as u64), pace_per_second: None, due_from_ms: None, splits: Some(1) }
    }
}

impl Source for Values {
    fn enumerator(&self, ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        self.schedule().enumerator(ctx.parallelism)
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        let rows = self.rows.project(&ctx.columns).expect("the planner asks for columns of this table");
        Box::new(GeneratorReader::new(Values { rows }, self.schedule(), ctx.batch_rows))
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn monitor_interval(&self) -> Option<Duration> {
        None
    }
}

impl RowGenerator for Values {
    fn generate(&mut self, cursor: &mut Cursor, rows: usize) -> Result<RecordBatch, ConnectorError> {
        let run = cursor.run();
        let end = run.end.min(run.start.saturating_add(rows as u64));
        cursor.advance_to(end);
        Ok(self.rows.slice(run.start as usize, (end - run.start) as usize))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::lag::SplitLags;
    use crate::source::ReaderEvent;

    fn rows() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..2500).map(|n| (n % 7 != 0).then_some(n))));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..2500).map(|n| n.to_string())));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("name", names, true)]).unwrap()
    }

    #[tokio::test]
    async fn rows_are_read_again_from_any_position() {
        let table = values_table("values", &rows()).unwrap();
        let source = source(&table).unwrap();
        let split = source.enumerator(EnumeratorContext { parallelism: 3 }).discover().await.unwrap().pop().unwrap();
        let context = |columns| ReaderContext {
            columns,
            batch_rows: 700,
            with_origins: false,
            bytes_read: Arc::default(),
            lags: SplitLags::default(),
        };
        let mut seen = Vec::new();
        let mut position = None;
        loop {
            // A new reader goes on where the one before has stopped.
            let mut reader = source.reader(context(vec![0]));
            reader.add_split(split.clone(), position.clone()).unwrap();
            match reader.next().await.unwrap().unwrap() {
                ReaderEvent::Batch { rows, position: next, .. } => {
                    seen.extend(rows.column(0).as_primitive::<Int64Type>().iter());
                    position = Some(next);
                }
                ReaderEvent::SplitFinished { .. } => break,
            }
        }
        assert_eq!(seen, rows().column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>());
        let mut reader = source.reader(context(vec![]));
        reader.add_split(split, None).unwrap();
        let ReaderEvent::Batch { rows, .. } = reader.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!((rows.num_columns(), rows.num_rows()), (0, 700));
    }

    #[test]
    fn no_user_can_declare_it() {
        let mut table = values_table("values", &rows()).unwrap();
        table.options.insert("rows".to_owned(), "00".to_owned());
        let Err(error) = source(&table) else { panic!("accepted") };
        assert_eq!(error.message, "table 'values': the connector 'values' is for VALUES only");
    }
}
