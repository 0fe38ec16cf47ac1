//! Publishes what writers have staged: the async side of [`super::publisher`]. At most one thread works for it at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{Committer, CommitterContext};
use crate::staging::Staging;

use super::KafkaTable;
use super::lineage::Lineage;
use super::progress;
use super::publisher::Publisher;
use super::writer::StagedObject;

/// Epochs that are named to the user where there may be many.
const NAMES_MAX: usize = 3;

/// See the module.
pub(super) struct KafkaCommitter {
    table: Arc<KafkaTable>,
    job: JobId,
    operator: OperatorId,
    staging: Staging,
    lineage: Option<Lineage>,
    /// Made with the first epoch. Held by the one thread that works.
    publisher: Option<Arc<Mutex<Publisher>>>,
    /// The newest call's thread. It goes on when the call is dropped, so the next one waits for it first.
    running: Option<JoinHandle<Result<(), ConnectorError>>>,
}

impl KafkaCommitter {
    /// For a sink of a job.
    pub(super) fn new(table: Arc<KafkaTable>, ctx: CommitterContext) -> KafkaCommitter {
        let CommitterContext { job, operator, staging } = ctx;
        KafkaCommitter { table, job, operator, staging, lineage: None, publisher: None, running: None }
    }

    /// Waits for what an abandoned call has left running. How it ended does not matter: the publisher knows how far it is.
    async fn settle(&mut self) {
        if let Some(abandoned) = &mut self.running {
            let _ = abandoned.await;
            self.running = None;
        }
    }

    /// Who the sink is to the brokers. `generation` is that of the output that is to be published.
    async fn lineage(&mut self, generation: Generation) -> Result<Lineage, ConnectorError> {
        if let Some(lineage) = &self.lineage {
            return Ok(lineage.clone());
        }
        let lineage = match Lineage::find(self.staging.store(), self.operator).await? {
            Some(lineage) => lineage,
            None => {
                let (table, runtime) = (self.table.clone(), Handle::current());
                let prepared = spawn_blocking(move || {
                    let options = &table.options;
                    progress::prepare_topic(&options.cluster, &options.progress_topic, &runtime)
                });
                let partitions = prepared.await.map_err(|error| stopped(&error))??;
                let drawn = Lineage::draw(&self.table.options.progress_topic, partitions);
                drawn.keep(self.staging.store(), self.operator, generation).await?
            }
        };
        Ok(self.lineage.insert(lineage).clone())
    }
}

#[async_trait]
impl Committer for KafkaCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        self.settle().await;
        let objects = committables.iter().map(StagedObject::of_committable).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = objects.first() else { return Ok(()) };
        let lineage = self.lineage(first.generation()).await?;
        let publisher = self.publisher.get_or_insert_with(|| {
            Arc::new(Mutex::new(Publisher {
                table: self.table.clone(),
                job: self.job.clone(),
                staging: self.staging.clone(),
                runtime: Handle::current(),
                session: None,
            }))
        });
        let (publisher, key) = (publisher.clone(), lineage.key(&self.job, self.operator));
        let sent = objects.clone();
        let running = self.running.insert(spawn_blocking(move || {
            publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(&lineage, &key, epoch, &sent)
        }));
        let published = running.await;
        self.running = None;
        published.map_err(|error| stopped(&error))??;
        // What stays behind here goes with the clean-up of the next attempt.
        for object in &objects {
            if let Err(error) = self.staging.store().remove(&object.name).await {
                tracing::debug!(job = %self.job, name = object.name, %error, "staged output cannot be deleted yet");
            }
        }
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        self.settle().await;
        let own = format!("-{}-", self.operator);
        for name in self.staging.store().list().await? {
            let staged = name.strip_suffix(".staged").filter(|name| name.contains(&own));
            let generation = staged.and_then(|name| name.split('-').nth(1)?.strip_prefix('g')?.parse().ok());
            if generation.is_some_and(|generation| generations.contains(&Generation(generation))) {
                self.staging.store().remove(&name).await?;
            }
        }
        Ok(())
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        let (table, prefix) = (self.table.clone(), format!("{job}/{}/", self.operator));
        let looked = spawn_blocking(move || {
            let options = &table.options;
            progress::published_after(&options.cluster, &options.progress_topic, &prefix, epoch.0)
        });
        let found = looked.await.map_err(|error| stopped(&error))??;
        let names = found.iter().take(NAMES_MAX).map(|found| format!("epoch {} in topic {}", found.epoch, found.topic));
        Ok((names.collect(), found.len() as u64))
    }
}

fn stopped(error: &tokio::task::JoinError) -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, format!("the task that publishes messages was stopped: {error}"))
}
