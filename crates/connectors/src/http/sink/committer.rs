//! Sends the staged requests of complete epochs. Called beside the coordinator, and again after any crash: then all requests
//! of the epoch are sent once more, each with the key that it had. So they stay staged until the next epoch is to be sent:
//! only then is it known that this one will not be asked for again.
//!
//! Cancel-safe: a call that is dropped closes the connections of its requests. What the receiver has of them it knows by their
//! keys; of what was answered before, the next call of this process sends nothing again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::protocol::Committable;
use mainstem_rt::failpoint;

use crate::error::ConnectorError;
use crate::sink::{Committer, CommitterContext};
use crate::staging::StagedFile;

use super::super::client::{HttpClient, Sent};
use super::super::options::{HttpOptions, OnRejected};
use super::staged::{Request, requests};

/// See the module.
pub(super) struct HttpCommitter {
    options: Arc<HttpOptions>,
    ctx: CommitterContext,
    client: Option<Arc<HttpClient>>,
    /// The epoch that was sent last, with its files.
    sent: Option<(Epoch, Vec<StagedFile>)>,
    /// What was answered of the epoch that is being sent.
    answered: Mutex<Answered>,
}

/// See [`HttpCommitter::answered`].
#[derive(Default)]
struct Answered {
    epoch: Epoch,
    /// By file: whether each of its requests was.
    requests: BTreeMap<String, Vec<bool>>,
    /// Requests that were answered, in the life of the committer.
    count: u64,
    /// Records that were refused and dropped, in the life of the committer.
    dropped: u64,
}

impl HttpCommitter {
    pub(super) fn new(options: Arc<HttpOptions>, ctx: CommitterContext) -> HttpCommitter {
        HttpCommitter { options, ctx, client: None, sent: None, answered: Mutex::default() }
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the files of an epoch. Files of one writer keep their order where the order of requests counts; then different
    /// writers, whose keys are different, are sent beside each other.
    async fn send_files(&self, client: &HttpClient, epoch: Epoch, files: &[StagedFile]) -> Result<(), ConnectorError> {
        let in_flight = self.options.in_flight;
        if !self.options.is_ordered() {
            for file in files {
                self.send_file(client, epoch, file, in_flight).await?;
            }
            return Ok(());
        }
        let mut writers: BTreeMap<u64, Vec<&StagedFile>> = BTreeMap::new();
        for file in files {
            writers.entry(file.nonce).or_default().push(file);
        }
        let in_order = writers.into_values().map(|files| async move {
            for file in files {
                self.send_file(client, epoch, file, 1).await?;
            }
            Ok(())
        });
        run_at_once(in_order, in_flight).await
    }

    async fn send_file(
        &self,
        client: &HttpClient,
        epoch: Epoch,
        file: &StagedFile,
        in_flight: usize,
    ) -> Result<(), ConnectorError> {
        let requests = requests(&self.ctx.staging, file).await?;
        let answered = self.answered().requests.get(&file.name).cloned().unwrap_or_default();
        let waiting = requests.iter().enumerate().filter(|(number, _)| answered.get(*number) != Some(&true));
        let sending = waiting.map(|(number, request)| self.send(client, epoch, file, number, request));
        run_at_once(sending, in_flight).await?;
        self.answered().requests.insert(file.name.clone(), vec![true; requests.len()]);
        Ok(())
    }

    async fn send(
        &self,
        client: &HttpClient,
        epoch: Epoch,
        file: &StagedFile,
        number: usize,
        request: &Request,
    ) -> Result<(), ConnectorError> {
        let key = self.key(epoch, file, number);
        let sent = client.send(&key, request.body.clone()).await?;
        failpoint::hit(failpoint::REQUEST_ANSWERED);
        let mut answered = self.answered();
        if let Sent::Rejected(error) = sent {
            if self.options.on_rejected == OnRejected::Fail {
                return Err(error);
            }
            answered.dropped += u64::from(request.records);
            let (job, records, dropped) = (&self.ctx.job, request.records, answered.dropped);
            tracing::warn!(%job, table = self.options.table, %error, key, records, dropped, "a request is dropped");
        }
        let of_file = answered.requests.entry(file.name.clone()).or_default();
        if of_file.len() <= number {
            of_file.resize(number + 1, false);
        }
        of_file[number] = true;
        answered.count += 1;
        Ok(())
    }

    /// The key of a request. The random number of the writer that has staged it tells the job from another of the same name
    /// that counts its epochs anew; the number of the file counts from the writer's first.
    fn key(&self, epoch: Epoch, file: &StagedFile, number: usize) -> String {
        let CommitterContext { job, operator, .. } = &self.ctx;
        let (file_number, _) = file.name.split_once('-').unwrap_or((&file.name, ""));
        format!("{job}/{operator}/{epoch}/{:016x}/{file_number}-{number}", file.nonce)
    }
}

/// Lets futures run, so many at a time, until all have ended. After an error no more begin, and those that run are waited
/// for: what they achieve is known then.
async fn run_at_once<F>(futures: impl Iterator<Item = F>, at_once: usize) -> Result<(), ConnectorError>
where
    F: Future<Output = Result<(), ConnectorError>>,
{
    let mut waiting = futures;
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none()
            && running.len() < at_once
            && let Some(next) = waiting.next()
        {
            running.push(next);
        }
        match running.next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => failed = failed.or(Some(error)),
            None => return failed.map_or(Ok(()), Err),
        }
    }
}

#[async_trait]
impl Committer for HttpCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        let files = committables.iter().map(StagedFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        // An epoch is published when the one before is recorded as published.
        if let Some((_, recorded)) = self.sent.take_if(|(sent, _)| *sent != epoch) {
            self.ctx.staging.remove(&recorded).await;
        }
        if files.is_empty() {
            return Ok(());
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(Arc::new(HttpClient::open(self.options.clone())?)).clone(),
        };
        {
            let mut answered = self.answered();
            if answered.epoch != epoch {
                answered.epoch = epoch;
                answered.requests.clear();
            }
            // Another attempt may have made an epoch of the same number; its files have other names.
            answered.requests.retain(|name, _| files.iter().any(|file| file.name == *name));
        }
        self.send_files(&client, epoch, &files).await?;
        self.sent = Some((epoch, files));
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        self.ctx.staging.clean_up(self.ctx.operator, &generations).await
    }

    fn progress(&self) -> u64 {
        self.answered().count
    }

    fn dropped_records(&self) -> u64 {
        self.answered().dropped
    }
}

#[cfg(test)]
mod tests;
