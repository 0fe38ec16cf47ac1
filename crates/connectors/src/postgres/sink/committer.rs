//! Writes complete epochs to PostgreSQL. Called beside the coordinator, and again after any crash: how far an earlier call
//! came is told by the marker.
//!
//! Cancel-safe: a call that is dropped closes its connection, which ends its transaction, and a transaction that was just
//! being committed keeps the sink's lock until it has ended; the next call waits for the lock before it looks at the marker.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_core::protocol::Committable;
use mainstem_rt::failpoint;

use super::Target;
use super::rows::RowsInto;
use crate::error::ConnectorError;
use crate::postgres::client::Session;
use crate::sink::{Committer, CommitterContext};
use crate::staging::{Decision, Marker, StagedFile, decide, sink_name};

/// Name of the table of markers, in the schema of the table that is written.
const MARKER_TABLE: &str = "mainstem_commits";
/// Markers of a sink that are kept: far more epochs than may be under way at once.
const MARKERS_MAX: u64 = 1_000;
/// Epochs that are named where a job has gone on.
const NAMES_MAX: usize = 3;

/// See the module.
pub(super) struct PostgresCommitter {
    target: Arc<Target>,
    ctx: CommitterContext,
    /// Kept from one commit to the next; gone after any failure.
    open: Option<Open>,
}

/// A session that is ready to write.
struct Open {
    session: Session,
    into: RowsInto,
    /// The table of markers, quoted.
    markers: String,
}

impl PostgresCommitter {
    pub(super) fn new(target: Arc<Target>, ctx: CommitterContext) -> PostgresCommitter {
        PostgresCommitter { target, ctx, open: None }
    }

    async fn open(&mut self) -> Result<Open, ConnectorError> {
        if let Some(open) = self.open.take().filter(|open| !open.session.client.is_closed()) {
            return Ok(open);
        }
        let (session, real) = self.target.open().await?;
        let into = RowsInto::new(&self.target, &real);
        into.prepare(&session).await?;
        let markers = format!("{}.{MARKER_TABLE}", real.schema);
        make_markers(&session, &markers).await?;
        Ok(Open { session, into, markers })
    }

    async fn publish(&self, open: &Open, epoch: Epoch, files: &[StagedFile]) -> Result<(), ConnectorError> {
        let Open { session, into, markers } = open;
        let action = format!("publish epoch {epoch}");
        let failed = |error: tokio_postgres::Error| session.failed(&action, &error);
        let job = self.ctx.job.as_str();
        let sink = sink_name(&self.target.declared, self.ctx.operator);
        session.execute(&action, "BEGIN").await?;
        // Before anything is looked at: whoever else publishes for this sink has ended, or waits.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
        session.client.execute(lock, &[&format!("mainstem/{job}/{sink}")]).await.map_err(failed)?;
        let marker = Marker::of(epoch, files);
        let kept = read_markers(session, markers, &self.ctx.job, &sink).await?;
        match decide(&marker, &kept, &self.ctx.job, markers)? {
            Decision::Skip => return session.execute(&action, "ROLLBACK").await,
            Decision::Write => {}
            Decision::WriteAnew => {
                let forget = format!("DELETE FROM {markers} WHERE job = $1 AND sink = $2");
                session.client.execute(&forget, &[&job, &sink]).await.map_err(failed)?;
            }
        }
        let mut copying = into.begin(session).await?;
        for file in files {
            for rows in self.ctx.staging.read(file).await? {
                copying.add(&rows).await?;
            }
        }
        copying.finish().await?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let rows = number(files.iter().map(|file| file.rows).sum());
        let note = format!(
            "INSERT INTO {markers} (job, sink, epoch, generation, digest, row_count) VALUES ($1, $2, $3, $4, $5, $6)"
        );
        let (epoch_number, generation) = (number(epoch.0), number(marker.generation.0));
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&job, &sink, &epoch_number, &generation, &marker.digest, &rows];
        session.client.execute(&note, &values).await.map_err(failed)?;
        let forget = format!("DELETE FROM {markers} WHERE job = $1 AND sink = $2 AND epoch < $3");
        let oldest = number(epoch.0.saturating_sub(MARKERS_MAX));
        session.client.execute(&forget, &[&job, &sink, &oldest]).await.map_err(failed)?;
        failpoint::hit(failpoint::TRANSACTION_WRITTEN);
        session.execute(&action, "COMMIT").await?;
        failpoint::hit(failpoint::TRANSACTION_COMMITTED);
        Ok(())
    }
}

#[async_trait]
impl Committer for PostgresCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        let files = committables.iter().map(StagedFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Ok(());
        }
        // In our hands: dropped with this call, it takes its transaction along.
        let open = self.open().await?;
        self.publish(&open, epoch, &files).await?;
        self.open = Some(open);
        self.ctx.staging.remove(&files).await;
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        self.ctx.staging.clean_up(self.ctx.operator, &generations).await
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        let open = self.open().await?;
        let sink = sink_name(&self.target.declared, self.ctx.operator);
        let kept = read_markers(&open.session, &open.markers, job, &sink).await?;
        let later: Vec<&Marker> = kept.iter().filter(|marker| marker.epoch > epoch).collect();
        let names = later.iter().take(NAMES_MAX).map(|marker| format!("epoch {} in {}", marker.epoch, open.markers));
        Ok((names.collect(), later.len() as u64))
    }
}

/// Makes the table of markers, where there is none.
async fn make_markers(session: &Session, markers: &str) -> Result<(), ConnectorError> {
    let action = format!("look for the table {markers}");
    let failed = |error: tokio_postgres::Error| session.failed(&action, &error);
    let found = session.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&markers]).await.map_err(failed)?;
    if found.get::<_, bool>(0) {
        return Ok(());
    }
    let make = format!(
        "CREATE TABLE IF NOT EXISTS {markers} (job text NOT NULL, sink text NOT NULL, epoch bigint NOT NULL, generation \
         bigint NOT NULL, digest text NOT NULL, row_count bigint NOT NULL, committed_at timestamptz NOT NULL DEFAULT \
         now(), PRIMARY KEY (job, sink, epoch))"
    );
    // Two sinks may find that it is missing at the same time.
    let make =
        format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('mainstem/{MARKER_TABLE}', 0)); {make}; COMMIT");
    let action = format!(
        "create the table {markers}, which notes what is published (grant CREATE on the schema, or create it as in the \
         documentation)"
    );
    session.execute(&action, &make).await
}

/// The markers of a sink, newest epoch first.
async fn read_markers(
    session: &Session,
    markers: &str,
    job: &JobId,
    sink: &str,
) -> Result<Vec<Marker>, ConnectorError> {
    let read =
        format!("SELECT epoch, generation, digest FROM {markers} WHERE job = $1 AND sink = $2 ORDER BY epoch DESC");
    let rows = session.client.query(&read, &[&job.as_str(), &sink]).await;
    let rows = rows.map_err(|error| session.failed("read what is published", &error))?;
    let marker = |row: &tokio_postgres::Row| Marker {
        epoch: Epoch(row.get::<_, i64>(0).unsigned_abs()),
        generation: Generation(row.get::<_, i64>(1).unsigned_abs()),
        digest: row.get(2),
    };
    Ok(rows.iter().map(marker).collect())
}
