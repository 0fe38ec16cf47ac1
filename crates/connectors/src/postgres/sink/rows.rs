//! Puts rows into a table, within a transaction of the caller's: new ones by COPY, changes by COPY into a temporary table
//! and two statements, of which one deletes and one inserts or replaces.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int8Type;
use bytes::Bytes;
use futures::SinkExt;
use mainstem_core::change::ChangeKind;
use tokio_postgres::CopyInSink;

use super::Target;
use crate::error::ConnectorError;
use crate::postgres::client::Session;
use crate::postgres::sql::{identifier, identifiers, joined};
use crate::postgres::table::RealTable;
use crate::postgres::text::CopyEncoder;

/// The temporary table of a session, into which changes are copied. Its rows go with each transaction.
const CHANGES: &str = "pg_temp.mainstem_changes";
/// The position of a change among those of its transaction, and whether it takes its row away.
const ORDER: &str = "mainstem order";
const GONE: &str = "mainstem gone";
/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 128 << 10;

/// How rows get into a table, over one session.
pub(super) struct RowsInto {
    /// The statement of COPY.
    copy: String,
    upsert: Option<Upsert>,
}

struct Upsert {
    prepare: String,
    delete: String,
    insert: String,
}

/// Rows on their way.
pub(super) struct Copying<'a> {
    into: &'a RowsInto,
    session: &'a Session,
    sink: std::pin::Pin<Box<CopyInSink<Bytes>>>,
    encoder: CopyEncoder,
    buffer: Vec<u8>,
    /// Changes so far.
    count: u64,
}

impl RowsInto {
    pub(super) fn new(target: &Target, real: &RealTable) -> RowsInto {
        let names: Vec<&str> = target.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = identifiers(names.iter().copied());
        if target.key.is_empty() {
            return RowsInto { copy: format!("COPY {} ({columns}) FROM STDIN", real.name), upsert: None };
        }
        let (order, gone) = (identifier(ORDER), identifier(GONE));
        let key = identifiers(target.key.iter().map(String::as_str));
        // The last change of each key is the one that counts.
        let newest =
            format!("SELECT DISTINCT ON ({key}) {columns}, {gone} FROM {CHANGES} ORDER BY {key}, {order} DESC");
        let same = |name: &String| format!("t.{0} = c.{0}", identifier(name));
        let others = names.iter().filter(|name| !target.key.iter().any(|key| key == *name));
        let set = joined(others.map(|name| format!("{0} = EXCLUDED.{0}", identifier(name))), ", ");
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        let upsert = Upsert {
            prepare: format!(
                "CREATE TEMPORARY TABLE IF NOT EXISTS mainstem_changes ON COMMIT DELETE ROWS AS SELECT {columns}, \
                 0::bigint AS {order}, false AS {gone} FROM {} WITH NO DATA",
                real.name
            ),
            delete: format!(
                "DELETE FROM {} t USING ({newest}) c WHERE c.{gone} AND {}",
                real.name,
                joined(target.key.iter().map(same), " AND ")
            ),
            insert: format!(
                "INSERT INTO {} ({columns}) SELECT {columns} FROM ({newest}) c WHERE NOT {gone} ON CONFLICT ({key}) DO \
                 {action}",
                real.name
            ),
        };
        let copy = format!("COPY {CHANGES} ({columns}, {order}, {gone}) FROM STDIN");
        RowsInto { copy, upsert: Some(upsert) }
    }

    /// Prepares a session, outside of a transaction.
    pub(super) async fn prepare(&self, session: &Session) -> Result<(), ConnectorError> {
        match &self.upsert {
            Some(upsert) => session.execute("make a temporary table", &upsert.prepare).await,
            None => Ok(()),
        }
    }

    /// Begins to write rows, within a transaction.
    pub(super) async fn begin<'a>(&'a self, session: &'a Session) -> Result<Copying<'a>, ConnectorError> {
        let sink = session.client.copy_in(&self.copy).await.map_err(|error| session.failed("write rows", &error))?;
        let (encoder, sink) = (CopyEncoder::new(), Box::pin(sink));
        Ok(Copying { into: self, session, sink, encoder, buffer: Vec::new(), count: 0 })
    }
}

impl Copying<'_> {
    /// Adds rows; with their kinds as the last column, where the table is written by key.
    pub(super) async fn add(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        // Slices, so that one batch cannot make a large text of all at once.
        let step = 1024;
        for start in (0..rows.num_rows()).step_by(step) {
            let part = rows.slice(start, step.min(rows.num_rows() - start));
            self.encode(&part)?;
            if self.buffer.len() >= CHUNK_BYTES {
                self.send().await?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        if self.into.upsert.is_none() {
            return self.encoder.write(rows, |_, _| {}, &mut self.buffer);
        }
        let width = rows.num_columns() - 1;
        let kinds = rows.column(width).as_primitive::<Int8Type>().clone();
        let columns: Vec<usize> = (0..width).collect();
        let values = rows.project(&columns).map_err(|e| ConnectorError::data(format!("staged rows: {e}")))?;
        let first = self.count;
        self.count += rows.num_rows() as u64;
        let extra = |row: usize, out: &mut Vec<u8>| {
            let kind = ChangeKind::from_number(kinds.value(row));
            let gone = !kind.is_some_and(ChangeKind::is_addition);
            out.extend_from_slice(format!("\t{}\t{}", first + row as u64, if gone { 't' } else { 'f' }).as_bytes());
        };
        self.encoder.write(&values, extra, &mut self.buffer)
    }

    async fn send(&mut self) -> Result<(), ConnectorError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.sink.send(bytes).await;
        sent.map_err(|error| self.session.failed("write rows", &error))
    }

    /// Ends: the rows are in the table, as soon as the transaction is committed.
    pub(super) async fn finish(mut self) -> Result<(), ConnectorError> {
        self.send().await?;
        let ended = self.sink.as_mut().finish().await;
        ended.map_err(|error| self.session.failed("write rows", &error))?;
        if let Some(upsert) = &self.into.upsert {
            self.session.execute("delete rows", &upsert.delete).await?;
            self.session.execute("insert or replace rows", &upsert.insert).await?;
        }
        Ok(())
    }
}
