//! Writes complete epochs to Redis. Called beside the coordinator, and again after any crash: how far an earlier call came is
//! told by the marker.
//!
//! Cancel-safe: a call that is dropped leaves at most one script on its way, which either runs before the next call reads the
//! marker, or finds a marker that the next call has moved on.

use std::ops::Range;
use std::sync::Arc;

use ::redis::{Script, cmd};
use async_trait::async_trait;
use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_core::protocol::Committable;
use mainstem_rt::failpoint;

use super::Target;
use super::changes::{Arguments, Changes, FIELDS_MAX, SCRIPT};
use super::marks::Marks;
use crate::error::{ConnectorError, ErrorKind};
use crate::redis::client::Session;
use crate::sink::{Committer, CommitterContext};
use crate::staging::{Marker, StagedFile, sink_name};

/// Bytes and arguments of a script; one change may exceed the first.
const STEP_BYTES_MAX: usize = 16 << 20;
const STEP_ARGUMENTS_MAX: usize = 500_000;
/// Epochs that are named where a job has gone on.
const NAMES_MAX: usize = 3;

/// See the module.
pub(super) struct RedisCommitter {
    target: Arc<Target>,
    ctx: CommitterContext,
    script: Script,
    /// Kept from one commit to the next; gone after any failure.
    open: Option<Session>,
    /// The newest epoch that the server has confirmed to this committer.
    confirmed: Option<Marker>,
    /// Steps that were made, in the life of the committer.
    steps: u64,
}

/// An epoch that is being written.
struct Writing<'a> {
    marker: &'a Marker,
    key: &'a str,
    /// What is in the server, as text and as what it means.
    text: String,
    marks: Marks,
    /// Changes that are written, and that have been encoded or passed over.
    written: u64,
    seen: u64,
    arguments: Arguments,
}

impl RedisCommitter {
    pub(super) fn new(target: Arc<Target>, ctx: CommitterContext) -> RedisCommitter {
        RedisCommitter { target, ctx, script: Script::new(SCRIPT), open: None, confirmed: None, steps: 0 }
    }

    /// The key of the marker of a job's sink.
    fn marker_key(&self, job: &JobId) -> String {
        format!("mainstem:commits:{job}/{}", sink_name(&self.target.name, self.ctx.operator))
    }

    async fn open(&mut self) -> Result<Session, ConnectorError> {
        match self.open.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.target.options).await,
        }
    }

    async fn publish(
        &mut self,
        session: &mut Session,
        epoch: Epoch,
        files: &[StagedFile],
    ) -> Result<(), ConnectorError> {
        let marker = Marker::of(epoch, files);
        let key = self.marker_key(&self.ctx.job);
        let text = read_marker(session, &key).await?;
        let mut marks = Marks::parse(&text, &key)?;
        if let Some(confirmed) = self.confirmed.as_ref().filter(|confirmed| !marks.knows(confirmed)) {
            return Err(self.went_back(session, confirmed));
        }
        let place = format!("the key '{key}' in Redis at {}", session.shown);
        let Some(written) = marks.begin(&marker, &self.ctx.job, &place)? else {
            self.confirmed = Some(marker);
            return Ok(());
        };
        let mut writing =
            Writing { marker: &marker, key: &key, text, marks, written, seen: 0, arguments: Arguments::default() };
        for file in files {
            for rows in self.ctx.staging.read(file).await? {
                let target = self.target.clone();
                let changes = Changes::new(&target, &rows)?;
                for row in 0..rows.num_rows() {
                    writing.seen += 1;
                    if writing.seen <= writing.written {
                        continue;
                    }
                    changes.encode(row, &mut writing.arguments)?;
                    if writing.is_full(&target) {
                        self.step(session, &mut writing, false).await?;
                    }
                }
            }
        }
        self.step(session, &mut writing, true).await?;
        self.confirmed = Some(marker);
        Ok(())
    }

    /// Writes the changes that are collected, and moves the marker on.
    async fn step(
        &mut self,
        session: &mut Session,
        writing: &mut Writing<'_>,
        last: bool,
    ) -> Result<(), ConnectorError> {
        let next = writing.marks.after(writing.marker, writing.seen, last);
        let next_text = next.text();
        let ttl_ms = self.target.options.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let mut call = self.script.key(writing.key);
        call.arg(&writing.text).arg(&next_text).arg(ttl_ms);
        let arguments = std::mem::take(&mut writing.arguments);
        arguments.values.iter().for_each(|value| {
            call.arg(value.as_slice());
        });
        failpoint::hit(failpoint::TRANSACTION_WRITTEN);
        let called = call.invoke_async::<u8>(&mut session.connection).await;
        let action = format!("publish epoch {} of table '{}'", writing.marker.epoch, self.target.name);
        let done = called.map_err(|error| session.failed(&action, &error))?;
        if done != 1 {
            let message = format!(
                "cannot {action}: somebody else has written for this job to Redis at {} meanwhile; what is there is looked at \
                 again",
                session.shown
            );
            return Err(ConnectorError::new(ErrorKind::Transient, message));
        }
        failpoint::hit(failpoint::TRANSACTION_COMMITTED);
        (writing.marks, writing.text, writing.written) = (next, next_text, writing.seen);
        self.steps += 1;
        Ok(())
    }

    fn went_back(&self, session: &Session, confirmed: &Marker) -> ConnectorError {
        let message = format!(
            "Redis at {} has forgotten epoch {} of table '{}', which it had confirmed: it was restarted without all of its \
             data ('appendonly yes' and 'appendfsync always' keep it), a replica that lacked it has taken over, or somebody \
             has deleted keys. Rows of some epochs are missing there; write the table anew with --fresh or from a savepoint, \
             or start the job again as it is to go on without them",
            session.shown, confirmed.epoch, self.target.name
        );
        ConnectorError::new(ErrorKind::Lost, message)
    }
}

impl Writing<'_> {
    fn is_full(&self, target: &Target) -> bool {
        self.seen - self.written >= target.options.batch_changes as u64
            || self.arguments.bytes >= STEP_BYTES_MAX
            || self.arguments.values.len() + 2 * FIELDS_MAX + 4 >= STEP_ARGUMENTS_MAX
    }
}

async fn read_marker(session: &mut Session, key: &str) -> Result<String, ConnectorError> {
    let read = cmd("GET").arg(key).query_async::<Option<String>>(&mut session.connection).await;
    Ok(read.map_err(|error| session.failed("read what is written", &error))?.unwrap_or_default())
}

#[async_trait]
impl Committer for RedisCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        let files = committables.iter().map(StagedFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Ok(());
        }
        // In our hands: dropped with this call, or after a failure, it closes.
        let mut session = self.open().await?;
        self.publish(&mut session, epoch, &files).await?;
        self.open = Some(session);
        self.ctx.staging.remove(&files).await;
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        self.ctx.staging.clean_up(self.ctx.operator, &generations).await
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        let mut session = self.open().await?;
        let key = self.marker_key(job);
        let marks = Marks::parse(&read_marker(&mut session, &key).await?, &key)?;
        let later = marks.after_epoch(epoch);
        let names = later.iter().take(NAMES_MAX).map(|epoch| format!("epoch {epoch} in Redis at {}", session.shown));
        let found = (names.collect(), later.len() as u64);
        self.open = Some(session);
        Ok(found)
    }

    fn progress(&self) -> u64 {
        self.steps
    }
}
