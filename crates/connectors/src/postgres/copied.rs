//! The rows of a query, as they come by COPY.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use tokio_postgres::CopyOutStream;

use super::client::Session;
use super::text::{RowsBuilder, split_line};
use crate::error::ConnectorError;

/// See the module. Keeps its connection.
pub(super) struct CopiedRows {
    session: Session,
    lines: Pin<Box<CopyOutStream>>,
    builder: RowsBuilder,
    without_columns: bool,
    /// Whether all rows have come; the client takes it amiss to be asked again.
    ended: bool,
    /// Bytes of a line whose end has not come.
    rest: Vec<u8>,
    /// Bytes that have come.
    pub(super) bytes: u64,
}

impl CopiedRows {
    /// Begins to read a query that gives the columns of a schema.
    pub(super) async fn begin(session: Session, query: &str, schema: SchemaRef) -> Result<CopiedRows, ConnectorError> {
        let copy = format!("COPY ({query}) TO STDOUT");
        let lines = session.client.copy_out(&copy).await;
        let lines = Box::pin(lines.map_err(|error| session.failed("read rows", &error))?);
        let without_columns = schema.fields().is_empty();
        let builder = RowsBuilder::new(schema)?;
        Ok(CopiedRows { session, lines, builder, without_columns, ended: false, rest: Vec::new(), bytes: 0 })
    }

    /// The next rows, at least so many unless they are the last; none at the end.
    pub(super) async fn next(&mut self, batch_rows: usize) -> Result<Option<RecordBatch>, ConnectorError> {
        while self.builder.len() < batch_rows && !self.ended {
            let received = self.lines.try_next().await;
            let Some(bytes) = received.map_err(|error| self.session.failed("read rows", &error))? else {
                self.ended = true;
                break;
            };
            self.bytes += bytes.len() as u64;
            self.take(&bytes)?;
        }
        if self.builder.len() == 0 { Ok(None) } else { self.builder.finish().map(Some) }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ConnectorError> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.rest.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            // A row without columns is an empty line.
            let fields = if self.without_columns { Vec::new() } else { split_line(&self.rest) };
            self.builder.push(fields.iter().map(|field| field.as_deref()))?;
            self.rest.clear();
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}
