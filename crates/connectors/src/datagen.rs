//! The `datagen` source: random or counting rows of any declared schema, with the options of Flink's `datagen`.
//! Called by the registry. Row n is a function of the seed and n alone, so the source is replayable: unlike in
//! Flink, times are not read from the clock but count from `base-time`, `rows-per-second` rows a second.

mod field;
mod options;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use crate::error::ConnectorError;
use crate::generator::{Cursor, GeneratorReader, RowGenerator};
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

use field::{Field, Places};
use options::DatagenOptions;

/// Largest batch, in bytes; bounds the memory of a reader whatever lengths the user asks for.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Largest batch, in rows; bounds how long a reader holds its executor.
const BATCH_ROWS_MAX: usize = 65_536;

/// The table as a generator of rows.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    Ok(Arc::new(DatagenSource { schema: table.schema.clone(), options: DatagenOptions::read(table)? }))
}

struct DatagenSource {
    schema: SchemaRef,
    options: DatagenOptions,
}

impl Source for DatagenSource {
    fn enumerator(&self, ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        self.options.schedule.enumerator(ctx.parallelism)
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        let schema = self.schema.project(&ctx.columns).expect("the planner asks for columns of this table");
        let fields: Vec<_> = ctx.columns.iter().map(|&i| self.options.fields[i].clone()).collect();
        let row_bytes: u64 = fields.iter().map(Field::bytes_max).sum();
        let rows_max =
            usize::try_from(BATCH_BYTES_MAX / row_bytes.max(1)).unwrap_or(BATCH_ROWS_MAX).clamp(1, BATCH_ROWS_MAX);
        let generator = Generator { schema: Arc::new(schema), fields };
        Box::new(GeneratorReader::new(generator, self.options.schedule.clone(), ctx.batch_rows.min(rows_max)))
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn splits_at_once(&self) -> usize {
        // All of them: they advance together in event time.
        usize::MAX
    }

    fn monitor_interval(&self) -> Option<Duration> {
        None
    }

    fn is_bounded(&self) -> bool {
        self.options.schedule.end.is_some()
    }
}

struct Generator {
    schema: SchemaRef,
    fields: Vec<Field>,
}

impl RowGenerator for Generator {
    fn generate(&mut self, cursor: &mut Cursor, rows: usize) -> Result<RecordBatch, ConnectorError> {
        let mut numbers = Vec::with_capacity(rows);
        while numbers.len() < rows {
            let run = cursor.run();
            if run.is_empty() {
                break;
            }
            let end = run.end.min(run.start + (rows - numbers.len()) as u64);
            numbers.extend(run.start..end);
            cursor.advance_to(end);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let places = Places::of_rows(numbers);
        let columns = self.fields.iter().map(|f| f.array(&places)).collect();
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        Ok(batch.expect("columns are made to the schema"))
    }
}

#[cfg(test)]
mod tests;
