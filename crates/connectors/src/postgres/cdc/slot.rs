//! Publication and slot: found, or made, and checked against the position that is to be read from.

use super::CdcTable;
use super::position::{Lsn, Position, parse_lsn, show_lsn};
use crate::error::{ConnectorError, ErrorKind};
use crate::postgres::client::Session;
use crate::postgres::sql::identifier;
use crate::postgres::table::RealTable;

/// The slot as it is.
pub(super) struct Slot {
    /// Up to here the server has been told that all is taken.
    pub(super) confirmed: Lsn,
}

/// Whether the server can tell the changes of the table, with what a row needs to be found.
pub(super) async fn check_server(session: &Session, table: &CdcTable, real: &RealTable) -> Result<(), ConnectorError> {
    let failed = |error: tokio_postgres::Error| session.failed("look at the server's settings", &error);
    let refused = |message: String| Err(ConnectorError::new(ErrorKind::External, message));
    let level = session.client.query_one("SELECT current_setting('wal_level')", &[]).await.map_err(failed)?;
    if level.get::<_, &str>(0) != "logical" {
        return refused(format!(
            "PostgreSQL at {} has wal_level = {}, and changes are only told with 'logical': set wal_level = logical and \
             restart the server",
            session.address.shown(),
            level.get::<_, &str>(0)
        ));
    }
    let identity = "SELECT c.relreplident::text, COALESCE((SELECT array_agg(a.attname::text ORDER BY a.attname) FROM \
                    pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = \
                    c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END), '{}') FROM pg_class \
                    c WHERE c.oid = to_regclass($1)";
    let row = session.client.query_one(identity, &[&real.name]).await.map_err(failed)?;
    let (identity, columns): (String, Vec<String>) = (row.get(0), row.get(1));
    let mut key = table.key.clone();
    key.sort_unstable();
    if identity != "f" && columns != key {
        let known = if columns.is_empty() { "nothing".to_owned() } else { format!("({})", columns.join(", ")) };
        return refused(format!(
            "updates and deletes of PostgreSQL's table {} tell {known} of the old row, and table '{}' has the PRIMARY KEY ({}): \
             declare the same key, or ALTER TABLE {} REPLICA IDENTITY FULL",
            real.name,
            table.declared,
            table.key.join(", "),
            real.name
        ));
    }
    Ok(())
}

/// Sees to it that there is a publication with the table. Before the slot: the server decodes by what was published then.
pub(super) async fn make_publication(
    session: &Session,
    table: &CdcTable,
    real: &RealTable,
) -> Result<(), ConnectorError> {
    let name = &table.options.publication;
    let failed = |error: tokio_postgres::Error| session.failed("look for the publication", &error);
    let found = "SELECT p.puballtables OR EXISTS (SELECT 1 FROM pg_publication_tables t WHERE t.pubname = p.pubname AND \
                 format('%I.%I', t.schemaname, t.tablename)::regclass = to_regclass($2)), p.pubinsert AND p.pubupdate AND \
                 p.pubdelete FROM pg_publication p WHERE p.pubname = $1";
    let row = session.client.query_opt(found, &[name, &real.name]).await.map_err(failed)?;
    let wrong = |what: &str| {
        let message = format!("the publication '{name}' {what}; alter it, or choose another by 'publication.name'");
        Err(ConnectorError::new(ErrorKind::External, message))
    };
    match row.map(|row| (row.get::<_, bool>(0), row.get::<_, bool>(1))) {
        Some((true, true)) => Ok(()),
        Some((false, _)) => wrong(&format!("does not hold the table {}", real.name)),
        Some((true, false)) => wrong("leaves out inserts, updates or deletes"),
        None => {
            let make = format!("CREATE PUBLICATION {} FOR TABLE {}", identifier(name), real.name);
            session.execute(&format!("create the publication '{name}'"), &make).await
        }
    }
}

/// The slot, made where the table is read for the first time. `position`: where to read from; none: nothing is read yet.
pub(super) async fn open_slot(
    session: &Session,
    table: &CdcTable,
    position: Option<&Position>,
) -> Result<Slot, ConnectorError> {
    let name = &table.options.slot;
    let failed = |error: tokio_postgres::Error| session.failed("look for the slot", &error);
    let find = "SELECT COALESCE(plugin, ''), COALESCE(database, ''), active, COALESCE(active_pid, 0), \
                COALESCE(confirmed_flush_lsn::text, '0/0'), COALESCE(wal_status, '') = 'lost' FROM pg_replication_slots WHERE \
                slot_name = $1";
    let Some(row) = session.client.query_opt(find, &[name]).await.map_err(failed)? else {
        if position.is_some() {
            return Err(lost(table, "is not there"));
        }
        let make = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
        let made = session.client.query_one(make, &[name]).await;
        let made = made.map_err(|error| session.failed(&format!("create the slot '{name}'"), &error))?;
        return Ok(Slot { confirmed: lsn(made.get(0))? });
    };
    let (plugin, database, active, pid): (String, String, bool, i32) = (row.get(0), row.get(1), row.get(2), row.get(3));
    if plugin != "pgoutput" || database != session.address.database {
        let message = format!(
            "the slot '{name}' is of database '{database}' and plugin '{plugin}', not of '{}' and 'pgoutput'; choose another \
             'slot.name'",
            session.address.database
        );
        return Err(ConnectorError::new(ErrorKind::External, message));
    }
    if row.get(5) {
        return Err(lost(table, "was given up by the server, whose log grew beyond max_slot_wal_keep_size"));
    }
    if active {
        let message = format!(
            "the slot '{name}' is read by another connection (server process {pid}); an attempt of before may be ending, else \
             choose another 'slot.name' for each table and job"
        );
        return Err(ConnectorError::new(ErrorKind::Transient, message));
    }
    let confirmed = lsn(row.get(4))?;
    match position {
        Some(Position::Streaming { lsn, .. }) if confirmed > *lsn => Err(lost(
            table,
            &format!("has been moved on to {}, and the checkpoint goes on at {}", show_lsn(confirmed), show_lsn(*lsn)),
        )),
        _ => Ok(Slot { confirmed }),
    }
}

fn lost(table: &CdcTable, what: &str) -> ConnectorError {
    let message = format!(
        "the slot '{}' of table '{}' {what}: changes since the checkpoint are lost; start the job anew (--fresh), which reads \
         the table once more",
        table.options.slot, table.declared
    );
    ConnectorError::new(ErrorKind::Lost, message)
}

/// A place as the server says it.
pub(super) fn lsn(text: &str) -> Result<Lsn, ConnectorError> {
    parse_lsn(text).ok_or_else(|| ConnectorError::data(format!("'{text}' is no place in PostgreSQL's log")))
}
