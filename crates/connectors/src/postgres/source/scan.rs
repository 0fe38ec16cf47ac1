//! Reads a table as a whole: one SELECT, whose rows are those of one moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;

use super::Origin;
use crate::error::ConnectorError;
use crate::postgres::copied::CopiedRows;
use crate::postgres::sql::identifiers;
use crate::source::{ReaderContext, ReaderEvent, SourceReader};

/// See the module.
pub(super) struct ScanReader {
    origin: Arc<Origin>,
    ctx: ReaderContext,
    /// Splits to read, with how many rows of each are read already.
    waiting: VecDeque<(SplitId, u64)>,
    reading: Option<Reading>,
}

struct Reading {
    split: SplitId,
    copied: CopiedRows,
    rows: u64,
}

impl ScanReader {
    pub(super) fn new(origin: Arc<Origin>, ctx: ReaderContext) -> ScanReader {
        ScanReader { origin, ctx, waiting: VecDeque::new(), reading: None }
    }
}

impl Reading {
    /// Begins to read behind so many rows.
    async fn begin(origin: &Origin, columns: &[usize], split: SplitId, rows: u64) -> Result<Reading, ConnectorError> {
        let (session, real) = origin.open(columns).await?;
        let schema = origin.projected(columns)?;
        let columns = identifiers(schema.fields().iter().map(|field| field.name().as_str()));
        // In the same order as before, at least, where an earlier attempt has read a part of it.
        let order = match origin.key.as_slice() {
            [] => String::new(),
            key => format!(" ORDER BY {}", identifiers(key.iter().map(String::as_str))),
        };
        let rest = if rows > 0 { format!(" OFFSET {rows}") } else { String::new() };
        let query = format!("SELECT {columns} FROM {}{order}{rest}", real.name);
        Ok(Reading { split, copied: CopiedRows::begin(session, &query, schema).await?, rows })
    }
}

#[async_trait]
impl SourceReader for ScanReader {
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError> {
        let rows = position.map_or(Some(0), |position| position.parse().ok()).ok_or_else(|| {
            ConnectorError::data(format!("the position of table '{}' cannot be read by this version", split.id))
        })?;
        self.waiting.push_back((split.id, rows));
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError> {
        let reading = match self.reading.take() {
            Some(reading) => self.reading.insert(reading),
            None => {
                let Some((split, rows)) = self.waiting.pop_front() else { return Ok(None) };
                let begun = Reading::begin(&self.origin, &self.ctx.columns, split, rows).await?;
                self.reading.insert(begun)
            }
        };
        let before = reading.copied.bytes;
        let next = reading.copied.next(self.ctx.batch_rows).await?;
        self.ctx.bytes_read.fetch_add(reading.copied.bytes - before, Ordering::Relaxed);
        let split = reading.split.clone();
        match next {
            Some(rows) => {
                reading.rows += rows.num_rows() as u64;
                let position = reading.rows.to_string();
                Ok(Some(ReaderEvent::rows(split, rows, None, position)))
            }
            None => {
                self.reading = None;
                Ok(Some(ReaderEvent::SplitFinished { split }))
            }
        }
    }
}
