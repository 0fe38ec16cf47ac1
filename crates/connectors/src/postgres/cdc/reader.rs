//! Reads a table and its changes: the copy, then the log. Owned by one task.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use tokio::sync::watch;

use super::changes::Changes;
use super::lag::LagWatch;
use super::position::{Copied, Lsn, Position, Snapshot};
use super::slot::{self, check_server, make_publication, open_slot};
use super::stream::Stream;
use super::{CdcTable, SchemaRef};
use crate::bad_records::Rejected;
use crate::error::{ConnectorError, ErrorKind};
use crate::postgres::client::Session;
use crate::postgres::copied::CopiedRows;
use crate::postgres::sql::identifiers;
use crate::postgres::table::{Direction, RealTable};
use crate::source::{Phase, ReaderContext, ReaderEvent, Release, SourceReader};

/// So long changes are collected before they are given, while no more come.
const LINGER: Duration = Duration::from_millis(5);
/// How often the position is told while there are no changes: without it a quiet table would hold the log of a busy server.
const QUIET_INTERVAL: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct CdcReader {
    table: Arc<CdcTable>,
    ctx: ReaderContext,
    split: Option<(SplitId, Option<Position>)>,
    /// Where to end, see [`Stream::stop_at`].
    until: Option<(Lsn, u64)>,
    state: State,
    /// While the log is read.
    lag: Option<LagWatch>,
    /// What no restart will go back behind.
    released: watch::Sender<Lsn>,
}

enum State {
    Waiting,
    Copying(Box<Copying>),
    Streaming(Box<Stream>),
}

struct Copying {
    rows: CopiedRows,
    /// Read ahead by one, to know the last.
    next: Option<RecordBatch>,
    copied: Copied,
    /// Where the log is read from afterwards.
    start: Lsn,
    changes: Changes,
    name: (String, String),
}

impl CdcReader {
    pub(super) fn new(table: Arc<CdcTable>, ctx: ReaderContext) -> CdcReader {
        let (split, until, lag) = (None, None, None);
        CdcReader { table, ctx, split, until, state: State::Waiting, lag, released: watch::Sender::new(0) }
    }

    async fn begin(table: &CdcTable, ctx: &ReaderContext, position: Option<Position>) -> Result<State, ConnectorError> {
        let address = table.place.address()?;
        let session = Session::open(address).await?;
        let schema = table.place.schema.as_deref();
        let real = RealTable::find(&session, schema, &table.place.name, &table.place.shown()).await?;
        real.check(&table.declared, &table.schema, &[], Direction::Read)?;
        check_server(&session, table, &real).await?;
        make_publication(&session, table, &real).await?;
        let slot = open_slot(&session, table, position.as_ref()).await?;
        let read: SchemaRef = table
            .schema
            .project(&ctx.columns)
            .map(Arc::new)
            .map_err(|e| ConnectorError::data(format!("columns of '{}': {e}", table.declared)))?;
        let changes = Changes::new(read.clone(), &table.key, &real.name)?;
        let name = (real.plain_schema.clone(), real.plain_name.clone());
        match position {
            Some(Position::Streaming { lsn, changes: given, copied }) => {
                let from = (lsn, given, copied);
                let stream = Stream::open(address, table, name, changes, from, slot.confirmed).await?;
                Ok(State::Streaming(Box::new(stream)))
            }
            None if !table.options.copies => {
                let stream =
                    Stream::open(address, table, name, changes, (slot.confirmed, 0, None), slot.confirmed).await?;
                Ok(State::Streaming(Box::new(stream)))
            }
            Some(Position::Copying { .. }) | None => {
                let before = match position {
                    Some(Position::Copying { snapshot }) => Some(snapshot),
                    _ => None,
                };
                let copying = copy(session, &real, read, before, slot.confirmed, changes, name).await?;
                Ok(State::Copying(Box::new(copying)))
            }
        }
    }
}

async fn copy(
    session: Session,
    real: &RealTable,
    schema: SchemaRef,
    before: Option<Snapshot>,
    start: Lsn,
    changes: Changes,
    name: (String, String),
) -> Result<Copying, ConnectorError> {
    let action = "copy the table";
    session.execute(action, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The place is asked for within the statement that takes the snapshot, so it is not before what the snapshot holds.
    let moment = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text";
    let moment = session.client.query_one(moment, &[]).await.map_err(|error| session.failed(action, &error))?;
    let snapshot = Snapshot::parse(moment.get(0));
    let snapshot = snapshot.ok_or_else(|| ConnectorError::data("PostgreSQL's snapshot cannot be read"))?;
    let copied = Copied { snapshot, until: slot::lsn(moment.get(1))?, before };
    let columns = identifiers(schema.fields().iter().map(|field| field.name().as_str()));
    let mut rows = CopiedRows::begin(session, &format!("SELECT {columns} FROM {}", real.name), schema).await?;
    let next = rows.next(1).await?;
    Ok(Copying { rows, next, copied, start, changes, name })
}

#[async_trait]
impl SourceReader for CdcReader {
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError> {
        let parsed = position.map(|position| serde_json::from_str(&position)).transpose();
        let position = parsed.map_err(|_| {
            ConnectorError::data(format!("the position of table '{}' cannot be read by this version", split.id))
        })?;
        self.split = Some((split.id, position));
        Ok(())
    }

    fn add_split_until(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: String,
    ) -> Result<(), ConnectorError> {
        let places = (position.as_deref().map(serde_json::from_str), serde_json::from_str(&until));
        let (Some(Ok(Position::Streaming { .. })), Ok(Position::Streaming { lsn, changes, .. })) = places else {
            let message = format!(
                "the copy of table '{}' cannot be made again as it was; restore the damaged checkpoint, or start the job anew \
                 (--fresh)",
                split.id
            );
            return Err(ConnectorError::new(ErrorKind::Lost, message));
        };
        self.until = Some((lsn, changes));
        self.add_split(split, position)
    }

    fn release(&self) -> Option<Release> {
        let released = self.released.clone();
        Some(Box::new(move |position: &str| {
            if let Ok(Position::Streaming { lsn, .. }) = serde_json::from_str(position) {
                released.send_if_modified(|released| {
                    let is_newer = *released < lsn;
                    *released = lsn.max(*released);
                    is_newer
                });
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError> {
        loop {
            let Some((split, position)) = &mut self.split else { return Ok(None) };
            match &mut self.state {
                State::Waiting => {
                    let position = position.take();
                    self.state = CdcReader::begin(&self.table, &self.ctx, position).await?;
                }
                State::Copying(copying) => {
                    if let Some(rows) = copying.next.take() {
                        let before = copying.rows.bytes;
                        copying.next = copying.rows.next(self.ctx.batch_rows).await?;
                        self.ctx.bytes_read.fetch_add(copying.rows.bytes - before, Ordering::Relaxed);
                        let first = copying.copied.before.as_ref().unwrap_or(&copying.copied.snapshot);
                        // With the last rows the copy is done.
                        let (phase, position) = match copying.next {
                            Some(_) => (Phase::Copy, Position::Copying { snapshot: first.clone() }),
                            None => {
                                let copied = Some(copying.copied.clone());
                                (Phase::CopyEnd, Position::Streaming { lsn: copying.start, changes: 0, copied })
                            }
                        };
                        return Ok(Some(batch(split, rows, None, Rejected::default(), phase, &position)?));
                    }
                    let State::Copying(copying) = std::mem::replace(&mut self.state, State::Waiting) else { continue };
                    let Copying { copied, start, changes, name, .. } = *copying;
                    let address = self.table.place.address()?;
                    let from = (start, 0, Some(copied));
                    let stream = Stream::open(address, &self.table, name, changes, from, start).await?;
                    self.state = State::Streaming(Box::new(stream));
                }
                State::Streaming(stream) => {
                    if let Some((lsn, changes)) = self.until.take() {
                        stream.stop_at(lsn, changes);
                    }
                    let mut released = self.released.subscribe();
                    if self.lag.is_none() {
                        let shown = self.ctx.lags.split(split);
                        self.lag = Some(LagWatch::start(self.table.place.address()?.clone(), shown));
                    }
                    let event = stream_on(stream, &self.table.options.slot, &mut released, &self.ctx, split).await?;
                    self.lag.iter().for_each(|lag| lag.on_read(stream.lsn()));
                    if matches!(event, ReaderEvent::SplitFinished { .. }) {
                        self.split = None;
                        self.lag = None;
                    }
                    return Ok(Some(event));
                }
            }
        }
    }
}

/// The next rows of the log, or where it stands while there are none.
async fn stream_on(
    stream: &mut Stream,
    slot: &str,
    released: &mut watch::Receiver<Lsn>,
    ctx: &ReaderContext,
    split: &SplitId,
) -> Result<ReaderEvent, ConnectorError> {
    let confirmed = *released.borrow_and_update();
    if confirmed > 0 {
        stream.release(confirmed);
    }
    let quiet = tokio::time::sleep(QUIET_INTERVAL);
    tokio::pin!(quiet);
    loop {
        let ready = stream.ready_rows();
        if ready >= ctx.batch_rows || stream.has_ended() {
            break;
        }
        let linger = tokio::time::sleep(LINGER);
        tokio::select! {
            biased;
            taken = stream.take(slot) => taken?,
            // A transaction is given as a whole, unless it is long.
            () = linger, if (ready > 0 || stream.has_skipped()) && stream.may_pause() => break,
            () = &mut quiet, if ready == 0 && stream.may_pause() => break,
            Ok(()) = released.changed() => stream.release(*released.borrow_and_update()),
        }
    }
    if stream.has_ended() && stream.ready_rows() == 0 && !stream.has_skipped() {
        return Ok(ReaderEvent::SplitFinished { split: split.clone() });
    }
    let position = stream.position();
    let (rows, kinds) = match stream.ready_rows() {
        0 => (RecordBatch::new_empty(stream.schema()), None),
        _ => stream.finish().map(|(rows, kinds)| (rows, Some(kinds)))?,
    };
    batch(split, rows, kinds, stream.skipped(), Phase::Log, &position)
}

fn batch(
    split: &SplitId,
    rows: RecordBatch,
    changes: Option<arrow::array::Int8Array>,
    rejected: Rejected,
    phase: Phase,
    position: &Position,
) -> Result<ReaderEvent, ConnectorError> {
    let position = serde_json::to_string(position)
        .map_err(|e| ConnectorError::data(format!("bug: a position cannot be written: {e}; please report it")))?;
    Ok(ReaderEvent::Batch { split: split.clone(), rows, changes, rejected, origins: None, phase, position })
}
