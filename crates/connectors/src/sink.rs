//! The traits of the writing side. A [`Sink`] is made from a table's options. Its [`SinkWriter`]s run in sink
//! subtasks; what they make durable for an epoch is published by the [`Committer`], which runs beside the
//! coordinator, after the epoch is complete (I1, I2).

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::future::BoxFuture;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::staging::Staging;

/// What a sink promises about each row of a replayable input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It may be lost or doubled after a failure.
    BestEffort,
    /// It may be doubled after a failure.
    AtLeastOnce,
    /// It becomes visible once.
    ExactlyOnce,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delivery::BestEffort => "best-effort",
            Delivery::AtLeastOnce => "at-least-once",
            Delivery::ExactlyOnce => "exactly-once",
        })
    }
}

/// A table that can be written.
pub trait Sink: Send + Sync {
    /// Which changes it can take. A sink that takes [`ChangeMode::Upsert`] tells rows apart by the table's primary key;
    /// without one it is given [`ChangeMode::Append`] streams only, unless it takes [`ChangeMode::Retract`]. Some of its
    /// rows may be `-U` nevertheless, where an operator cannot leave them out: one without a `+U` of its key right behind
    /// it is a delete.
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Append
    }

    /// The strongest promise that this sink can keep, and in one sentence how, for `EXPLAIN`.
    fn strongest_delivery(&self) -> (Delivery, String);

    /// A writer for one subtask of one attempt.
    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter>;

    /// The committer; none for sinks whose writers make rows visible themselves.
    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>>;
}

/// Who writes. Names of everything durable derive from it.
#[derive(Clone, Debug)]
pub struct WriterContext {
    /// The job.
    pub job: JobId,
    /// The sink operator.
    pub operator: OperatorId,
    /// Index of the subtask.
    pub subtask: u32,
    /// The attempt; two attempts never write under the same name.
    pub generation: Generation,
    /// Relative paths of the user start here.
    pub working_dir: PathBuf,
    /// Which changes the rows may be; at most what the sink accepts.
    pub changes: ChangeMode,
    /// Where output may be staged until its epoch is complete.
    pub staging: Staging,
}

/// Who publishes.
#[derive(Clone, Debug)]
pub struct CommitterContext {
    /// The job.
    pub job: JobId,
    /// The sink operator.
    pub operator: OperatorId,
    /// Where writers stage output.
    pub staging: Staging,
}

/// Writes the rows of one subtask. Owned by one task.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes rows of the current epoch, with the [`ChangeKind`](mainstem_core::change::ChangeKind) of each; absent: all
    /// are inserts, and always so where the sink accepts nothing else. They stay invisible until their epoch is committed (where the sink can
    /// do that). Must hold a bounded amount in memory.
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError>;

    /// Ends the epoch: rows written from here on belong to the next one. The future that is returned makes the
    /// rows of `epoch` durable and gives what the committer needs to publish them; it runs beside further
    /// writes. Nothing to publish gives an empty list.
    async fn seal(
        &mut self,
        epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError>;

    /// Records that the outside has refused and that were dropped, as the user chose, since the writer was made.
    fn dropped_records(&self) -> u64 {
        0
    }
}

/// Publishes what writers have made durable. Lives beside the coordinator; at most one a sink.
#[async_trait]
pub trait Committer: Send + Sync {
    /// Makes the output of an epoch visible. Called only after the epoch is complete, in the order of epochs,
    /// and again after any crash: publishing what is published already has no effect.
    ///
    /// Cancel-safe: the caller drops the future at a time-out or when its attempt ends, and calls again. Work
    /// that such a call left running (a blocking thread, a request on its way) must have ended, or have lost
    /// its effect, before a later call of any method does anything: the outside never sees two at a time.
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError>;

    /// Removes what earlier attempts (those generations, of which the end is not one) left behind and no checkpoint
    /// names. A job that began with a savepoint leaves alone what the job before has: that one may still run. Called at the start of an attempt, after everything that was complete has been committed. Cancel-safe
    /// as [`Committer::commit`] is.
    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError>;

    /// What `job` has made visible of epochs after `epoch`, by name; at most a few, with the number of all. Sinks that
    /// cannot tell give none.
    async fn visible_after(&mut self, _job: &JobId, _epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        Ok((Vec::new(), 0))
    }

    /// A number that grows with what commits achieve. A commit that failed and has got further than the one before does
    /// not count as one more failure in a row: where much is published bit by bit, one call need not be enough.
    fn progress(&self) -> u64 {
        0
    }

    /// As [`SinkWriter::dropped_records`], since the committer was made.
    fn dropped_records(&self) -> u64 {
        0
    }
}
