//! Publishes what writers have staged. Called beside the coordinator, and again after any crash.
//!
//! Files of an epoch go when all of it is published, and its note later: whoever finds neither knows nothing, and whoever finds the
//! note knows where to look ([`publisher`](super::publisher)).
//!
//! Cancel-safe: a call that is dropped may leave messages under way, which their conditions keep in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::protocol::Committable;

use super::NatsTable;
use super::publisher::{NOTE_SUFFIX, Output, Publisher};
use crate::error::ConnectorError;
use crate::nats::connection::Connection;
use crate::sink::{Committer, CommitterContext};
use crate::staging::StagedFile;

/// Notes of published epochs that are kept: more epochs than may be under way between what is published and what is recorded
/// as published.
const NOTES_MAX: usize = 16;

/// See the module.
pub(super) struct NatsCommitter {
    table: Arc<NatsTable>,
    ctx: CommitterContext,
    /// Kept from one commit to the next; gone after any failure.
    connection: Option<Connection>,
    publisher: Publisher,
    /// Notes of epochs whose files are gone, oldest first.
    notes: VecDeque<String>,
}

impl NatsCommitter {
    /// For a sink of a job.
    pub(super) fn new(table: Arc<NatsTable>, ctx: CommitterContext) -> NatsCommitter {
        NatsCommitter { table, ctx, connection: None, publisher: Publisher::new(), notes: VecDeque::new() }
    }

    /// Removes the files of a published epoch, then notes of long ago. What stays goes with the clean-up of the next attempt.
    async fn tidy(&mut self, note: String, files: &[StagedFile]) {
        let store = self.ctx.staging.store();
        for file in files {
            if let Err(error) = store.remove(&file.name).await {
                tracing::warn!(file = file.name, %error, "published output cannot be removed from where it was staged");
                return;
            }
        }
        if self.notes.back() != Some(&note) {
            self.notes.push_back(note);
        }
        while self.notes.len() > NOTES_MAX {
            let oldest = self.notes.pop_front().expect("there are more than the maximum");
            if let Err(error) = store.remove(&oldest).await {
                tracing::debug!(note = oldest, %error, "a note of an epoch cannot be removed yet");
            }
        }
    }
}

#[async_trait]
impl Committer for NatsCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        let files = committables.iter().map(StagedFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Ok(());
        }
        // In our hands: after a failure, or dropped with this call, the next one begins with a new one.
        let held = self.connection.take().filter(Connection::is_connected);
        let mut connection = match held {
            Some(connection) => connection,
            None => self.table.open().await?.0,
        };
        let table = self.table.clone();
        let CommitterContext { job, operator, staging } = self.ctx.clone();
        let names = (table.spec.name.as_str(), table.address.stream.as_str());
        let output = Output::new(names, &job, operator, epoch, &files, &staging, table.options.sends_again);
        self.publisher.publish(&mut connection, &output).await?;
        self.connection = Some(connection);
        self.tidy(output.note(), &files).await;
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        let CommitterContext { operator, staging, .. } = &self.ctx;
        staging.clean_up(*operator, &generations).await?;
        let own = format!("-{operator}{NOTE_SUFFIX}");
        for name in staging.store().list().await? {
            let attempt = name.strip_suffix(&own).and_then(|name| name.split_once("-g")?.1.parse().ok());
            if attempt.is_some_and(|attempt| generations.contains(&Generation(attempt))) {
                staging.store().remove(&name).await?;
            }
        }
        Ok(())
    }
}
