//! The log of changes from a position on: transactions in the order in which they were committed.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use pgwire_replication::{Lsn as WireLsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};

use super::CdcTable;
use super::changes::{Change, Changes};
use super::pgoutput::{Message, decode};
use super::position::{Copied, Lsn, Position, show_lsn};
use super::relay::Relay;
use crate::bad_records::Rejected;
use crate::error::{ConnectorError, ErrorKind};
use crate::postgres::address::Address;

/// Notations as over any other connection.
const SETTINGS: &str =
    "-c DateStyle=ISO -c TimeZone=UTC -c bytea_output=hex -c IntervalStyle=postgres -c extra_float_digits=1";
/// Messages that wait to be taken.
const EVENTS_MAX: usize = 1024;
/// Largest change of one row.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// See the module.
pub(super) struct Stream {
    client: ReplicationClient,
    /// Through which the client speaks, if the connection is encrypted.
    _relay: Option<Relay>,
    address: Address,
    /// Schema and name of the table.
    table: (String, String),
    changes: Changes,
    /// Behind everything that is collected, and where it may be left: between transactions.
    lsn: Lsn,
    /// Set while there may be transactions that the copy holds.
    copied: Option<Copied>,
    transaction: Option<Transaction>,
    /// The transaction of which a part was given before, and how many of its changes.
    begun: Option<(Lsn, u64)>,
    /// Where to end, and how far into the transaction that was committed there.
    until: Option<(Lsn, u64)>,
    ended: bool,
    skips_truncate: bool,
    /// What was passed over since this was asked for last.
    skipped: Rejected,
}

struct Transaction {
    /// Where it was committed.
    committed: Lsn,
    /// Changes of the table so far.
    changes: u64,
    /// Changes that were given before.
    given: u64,
    treatment: Treatment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Its rows are given.
    Apply,
    /// The copy holds it.
    Skip,
    /// The copy holds it, but an earlier one, of which rows may have been given, does not: rows that it removed must go.
    Fold,
}

impl Stream {
    /// Opens the slot from a position on. `confirmed`: what the server has been told; it is told no more by this.
    pub(super) async fn open(
        address: &Address,
        table: &CdcTable,
        name: (String, String),
        changes: Changes,
        (lsn, given, copied): (Lsn, u64, Option<Copied>),
        confirmed: Lsn,
    ) -> Result<Stream, ConnectorError> {
        let password = address.password.clone().unwrap_or_default();
        let CdcTable { options, .. } = table;
        let relay = Relay::open(address).await?;
        let mut config = ReplicationConfig::new(
            relay.as_ref().map_or_else(|| address.host.clone(), Relay::host),
            address.user.clone(),
            password,
            address.database.clone(),
            options.slot.clone(),
            options.publication.clone(),
        );
        config.port = address.port;
        let mut config = config
            .with_start_lsn(WireLsn(lsn))
            .with_ack_lsn(WireLsn(confirmed))
            .with_options(SETTINGS)
            .with_max_message_size(MESSAGE_BYTES_MAX)
            .with_buffer_size(EVENTS_MAX)
            .with_application_name("mainstem");
        config.status_interval = std::time::Duration::from_secs(1);
        let failed = |error: PgWireError| stream_error(address, &options.slot, &error);
        let mut client = ReplicationClient::connect(config).await.map_err(failed)?;
        client.wait_started().await.map_err(failed)?;
        let begun = (given > 0).then_some((lsn, given));
        let (until, ended) = (None, false);
        let (skips_truncate, skipped) = (options.skips_truncate, Rejected::default());
        let table = name;
        Ok(Stream {
            client,
            _relay: relay,
            address: address.clone(),
            table,
            changes,
            lsn,
            copied,
            transaction: None,
            begun,
            until,
            ended,
            skips_truncate,
            skipped,
        })
    }

    /// Tells the server that it need not keep what was committed before.
    pub(super) fn release(&self, lsn: Lsn) {
        self.client.update_applied_lsn(WireLsn(lsn));
    }

    /// Takes the next message. Cancel-safe.
    pub(super) async fn take(&mut self, slot: &str) -> Result<(), ConnectorError> {
        let received = self.client.recv().await.map_err(|error| stream_error(&self.address, slot, &error))?;
        let Some(event) = received else {
            let message = format!("PostgreSQL at {} has ended the stream of changes", self.address.shown());
            return Err(ConnectorError::new(ErrorKind::Transient, message));
        };
        match event {
            ReplicationEvent::Begin { final_lsn, xid, .. } => self.begin(final_lsn.0, xid),
            ReplicationEvent::XLogData { data, .. } => match decode(data) {
                Some(message) => self.message(message),
                None => Err(ConnectorError::data("a message of PostgreSQL's stream of changes cannot be read")),
            },
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction = None;
                self.lsn = self.lsn.max(end_lsn.0);
                Ok(())
            }
            // All before has been sent.
            ReplicationEvent::KeepAlive { wal_end, .. } if self.transaction.is_none() => {
                self.lsn = self.lsn.max(wal_end.0);
                self.ended |= self.until.is_some_and(|(until, _)| wal_end.0 >= until);
                self.pass(wal_end.0)
            }
            ReplicationEvent::KeepAlive { .. }
            | ReplicationEvent::Message { .. }
            | ReplicationEvent::StoppedAt { .. } => Ok(()),
        }
    }

    fn begin(&mut self, committed: Lsn, xid: u32) -> Result<(), ConnectorError> {
        self.pass(committed)?;
        self.ended |=
            self.until.is_some_and(|(until, changes)| committed > until || committed == until && changes == 0);
        let treatment = match &self.copied {
            _ if committed < self.lsn || self.ended => Treatment::Skip,
            Some(copied) if copied.snapshot.holds(xid) => match &copied.before {
                Some(before) if !before.holds(xid) => Treatment::Fold,
                _ => Treatment::Skip,
            },
            _ => Treatment::Apply,
        };
        let given = self.begun.take().filter(|(begun, _)| *begun == committed).map_or(0, |(_, given)| given);
        self.transaction = Some(Transaction { committed, changes: 0, given, treatment });
        Ok(())
    }

    /// Everything that was committed before has come.
    fn pass(&mut self, lsn: Lsn) -> Result<(), ConnectorError> {
        if self.copied.as_ref().is_some_and(|copied| copied.until <= lsn) {
            self.copied = None;
            self.changes.unfold()?;
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<(), ConnectorError> {
        let change = match message {
            Message::Relation(relation) => {
                if (&relation.schema, &relation.name) == (&self.table.0, &self.table.1) {
                    self.changes.describe(&relation)?;
                }
                return Ok(());
            }
            Message::Insert { relation, new } if self.changes.is_of(relation) => Change::Insert(new),
            Message::Update { relation, old, new } if self.changes.is_of(relation) => Change::Update(old, new),
            Message::Delete { relation, old } if self.changes.is_of(relation) => Change::Delete(old),
            Message::Truncate { relations } if relations.iter().any(|relation| self.changes.is_of(*relation)) => {
                return self.truncate();
            }
            _ => return Ok(()),
        };
        let Some(transaction) = &mut self.transaction else {
            return Err(ConnectorError::data("PostgreSQL sent a change outside of a transaction"));
        };
        let (committed, done) = (transaction.committed, transaction.changes);
        self.ended |= self.until.is_some_and(|(until, changes)| committed == until && done >= changes);
        if self.ended {
            return Ok(());
        }
        transaction.changes += 1;
        match transaction.treatment {
            Treatment::Apply if transaction.changes > transaction.given => self.changes.add(&change),
            Treatment::Fold => {
                self.changes.fold(&change);
                Ok(())
            }
            Treatment::Apply | Treatment::Skip => Ok(()),
        }
    }

    /// The table was emptied, which names no rows that could go.
    fn truncate(&mut self) -> Result<(), ConnectorError> {
        let Some(Transaction { committed, changes, given, treatment }) = &self.transaction else {
            return Err(ConnectorError::data("PostgreSQL sent a change outside of a transaction"));
        };
        let is_behind_end =
            self.until.is_some_and(|(until, until_changes)| *committed == until && *changes >= until_changes);
        if *treatment == Treatment::Skip || *changes < *given || is_behind_end {
            return Ok(());
        }
        let ((schema, name), place) = (&self.table, show_lsn(*committed));
        if !self.skips_truncate {
            return Err(ConnectorError::data(format!(
                "PostgreSQL's table {schema}.{name} was truncated (TRUNCATE, in the transaction committed at {place} of its log), \
                 which names no rows that could go: start the job anew (--fresh), which reads the table as it is now; \
                 'scan.truncate' = 'skip' passes over it, and the rows of before stay in what the job has; DELETE is followed \
                 as any other change"
            )));
        }
        tracing::warn!(table = %format!("{schema}.{name}"), lsn = %place, "TRUNCATE passed over: rows of before stay");
        self.skipped.count += 1;
        self.skipped.newest = Some(format!("'{schema}.{name}', {place}: TRUNCATE"));
        Ok(())
    }

    /// Whether something was passed over that nobody was told of.
    pub(super) fn has_skipped(&self) -> bool {
        self.skipped.count > 0
    }

    /// What was passed over; begins anew.
    pub(super) fn skipped(&mut self) -> Rejected {
        std::mem::take(&mut self.skipped)
    }

    /// How many rows may be given now. While transactions that the copy holds may come, none: a position would not know of
    /// them.
    pub(super) fn ready_rows(&self) -> usize {
        if self.copied.as_ref().is_some_and(|copied| copied.before.is_some()) { 0 } else { self.changes.len() }
    }

    /// Whether what is collected may be left here: between transactions, and with none of those before that the copy holds.
    pub(super) fn may_pause(&self) -> bool {
        self.transaction.is_none() && self.copied.as_ref().is_none_or(|copied| copied.before.is_none())
    }

    /// Nothing is read from here on; a place that [`Stream::position`] gave.
    pub(super) fn stop_at(&mut self, lsn: Lsn, changes: u64) {
        self.until = Some((lsn, changes));
    }

    /// Whether that place is reached.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Behind everything that is collected.
    pub(super) fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Where to go on behind what is collected.
    pub(super) fn position(&self) -> Position {
        let copied = self.copied.clone();
        match &self.transaction {
            Some(transaction) if transaction.treatment == Treatment::Apply => {
                let changes = transaction.changes.max(transaction.given);
                // Nothing of it is given before its first change.
                let lsn = if changes == 0 { self.lsn } else { transaction.committed };
                Position::Streaming { lsn, changes, copied }
            }
            _ => match self.begun {
                Some((lsn, changes)) => Position::Streaming { lsn, changes, copied },
                None => Position::Streaming { lsn: self.lsn, changes: 0, copied },
            },
        }
    }

    /// The columns that are read.
    pub(super) fn schema(&self) -> SchemaRef {
        self.changes.schema()
    }

    /// What is collected; begins anew.
    pub(super) fn finish(&mut self) -> Result<(RecordBatch, Int8Array), ConnectorError> {
        self.changes.finish()
    }
}

fn stream_error(address: &Address, slot: &str, error: &PgWireError) -> ConnectorError {
    let text = error.to_string();
    let gone = text.contains("has already been removed") || text.contains("no longer available");
    let kind = match error {
        _ if gone => ErrorKind::Lost,
        PgWireError::Server(_) if text.contains("is active for PID") => ErrorKind::Transient,
        PgWireError::Server(_) if ["57P0", "53"].iter().any(|code| text.contains(code)) => ErrorKind::Transient,
        PgWireError::Server(_) | PgWireError::Auth(_) | PgWireError::Tls(_) | PgWireError::MessageTooLarge { .. } => {
            ErrorKind::External
        }
        _ => ErrorKind::Transient,
    };
    let message =
        format!("cannot read the changes of the slot '{slot}' from PostgreSQL at {}: {text}", address.shown());
    ConnectorError::new(kind, message)
}
