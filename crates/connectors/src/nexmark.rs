//! The `nexmark` source: the events of the Nexmark benchmark (people, auctions and bids of an auction house),
//! made on the fly after the public generator of Apache Beam and of Flink's Nexmark. Called by the registry.
//! Every field of event n is a function of the seed and n alone, so the source is replayable and any reader
//! can begin anywhere; nothing here may keep a state from one event to the next.

mod columns;
mod declared;
mod options;
mod stream;
mod text;

use std::sync::Arc;
use std::time::Duration;

use crate::error::ConnectorError;
use crate::generator::GeneratorReader;
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

use columns::EventGenerator;
use declared::Column;
use options::NexmarkOptions;

/// Largest batch, in bytes of text; bounds the memory of a reader whatever sizes the user asks for.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// How far its splits may be apart in event time; some ten batches of each at the usual rate of events.
const MAX_DRIFT: Duration = Duration::from_secs(10);
/// Largest batch, in rows; bounds how long a reader holds its executor.
const BATCH_ROWS_MAX: usize = 65_536;

/// The table as a Nexmark source.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    let options = NexmarkOptions::read(table)?;
    let columns = declared::columns(table, options.kind)?;
    Ok(Arc::new(NexmarkSource { table: table.clone(), options, columns }))
}

struct NexmarkSource {
    table: TableSpec,
    options: NexmarkOptions,
    /// What each physical column of the table holds.
    columns: Vec<Column>,
}

impl Source for NexmarkSource {
    fn enumerator(&self, ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        self.options.schedule.enumerator(ctx.parallelism)
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        let schema = self.table.schema.project(&ctx.columns).expect("the planner asks for columns of this table");
        let columns = ctx.columns.iter().map(|&i| self.columns[i].clone()).collect();
        let generator = EventGenerator::new(self.options.stream.clone(), self.options.kind, Arc::new(schema), columns);
        let bytes = self.options.stream.row_bytes_max();
        let rows_max = usize::try_from(BATCH_BYTES_MAX / bytes).unwrap_or(BATCH_ROWS_MAX).clamp(1, BATCH_ROWS_MAX);
        Box::new(GeneratorReader::new(generator, self.options.schedule.clone(), ctx.batch_rows.min(rows_max)))
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn splits_at_once(&self) -> usize {
        // All of them: they advance together in event time.
        usize::MAX
    }

    fn max_drift(&self) -> Option<Duration> {
        Some(MAX_DRIFT)
    }

    fn monitor_interval(&self) -> Option<Duration> {
        None
    }

    fn is_bounded(&self) -> bool {
        self.options.schedule.end.is_some()
    }
}

#[cfg(test)]
mod tests;
