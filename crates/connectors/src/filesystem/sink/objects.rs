//! Publishes objects by having the store copy them to their final keys. Called beside the coordinator, after an epoch is
//! complete, and again after any crash: it therefore never assumes how far an earlier call came, but looks.
//!
//! A copy is chosen over an upload in parts that is completed here, because nothing that a bucket's rules or a service's
//! time-outs remove may hold output that was promised: what waits for its epoch is a plain object. It costs no data
//! on the way to the store or back.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use mainstem_objects::{ObjectErrorKind, Objects};

use crate::error::{ConnectorError, ErrorKind};
use crate::filesystem::service::Service;
use crate::sink::Committer;

use super::name::{self, PendingFile, TEMPORARY_DIRECTORY};

/// Objects that are copied at a time.
const COPIES_AT_ONCE: usize = 8;
/// Objects that are looked through.
const OBJECTS_MAX: usize = 10_000_000;
/// Objects that are named to the user where there may be many.
const NAMES_MAX: usize = 3;

/// Copies objects.
pub(super) struct ObjectCommitter {
    service: Arc<Service>,
    job: JobId,
    operator: OperatorId,
}

impl ObjectCommitter {
    pub(super) fn new(service: Arc<Service>, job: &JobId, operator: OperatorId) -> ObjectCommitter {
        ObjectCommitter { service, job: job.clone(), operator }
    }

    async fn publish(&self, objects: &Objects, epoch: Epoch, file: &PendingFile) -> Result<(), ConnectorError> {
        let PendingFile { temporary, path, .. } = file;
        if !self.is_published(objects, epoch, file).await? {
            match objects.copy(temporary, path).await {
                Ok(()) => {}
                // Another process that runs the job has been faster, and has removed it.
                Err(error) if error.kind == ObjectErrorKind::Missing => {
                    if !self.is_published(objects, epoch, file).await? {
                        let what =
                            format!("neither it nor its temporary object '{}' is there", objects.shown(temporary));
                        return Err(lost(epoch, &objects.shown(path), &what));
                    }
                }
                Err(error) => return Err(self.service.failed("publish", path, &error)),
            }
        }
        objects.remove(temporary).await.map_err(|e| self.service.failed("remove", temporary, &e))
    }

    /// Whether the object is there under its final key.
    ///
    /// # Errors
    /// Where another one is.
    async fn is_published(&self, objects: &Objects, epoch: Epoch, file: &PendingFile) -> Result<bool, ConnectorError> {
        let PendingFile { temporary, path, size, crc32c, .. } = file;
        let failed = |e| self.service.failed("look at", path, &e);
        let Some((found, _)) = objects.look(path).await.map_err(failed)? else { return Ok(false) };
        // Of an earlier call, or somebody else's.
        if objects.checksum(path).await.map_err(failed)? == Some((*size, *crc32c)) {
            return Ok(true);
        }
        let shown = objects.shown(path);
        Err(match objects.look(temporary).await.map_err(failed)? {
            Some(_) => ConnectorError::new(
                ErrorKind::External,
                format!(
                    "cannot publish '{shown}' of epoch {epoch}: another object has that name, from an earlier job of the same name; move it away, or choose another job name or 'path'"
                ),
            ),
            None => lost(epoch, &shown, &format!("it has {found} bytes instead of {size}, or others")),
        })
    }
}

#[async_trait]
impl Committer for ObjectCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        if committables.is_empty() {
            return Ok(());
        }
        let files = committables.iter().map(PendingFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        let objects = self.service.objects()?;
        let this = &*self;
        let copies: Vec<_> = files.iter().map(|file| this.publish(objects, epoch, file)).collect();
        futures::stream::iter(copies).buffer_unordered(COPIES_AT_ONCE).try_collect().await
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        let objects = self.service.objects()?;
        let failed = |e| self.service.failed("list", TEMPORARY_DIRECTORY, &e);
        let mut removed = 0_u64;
        for (key, _) in objects.list(TEMPORARY_DIRECTORY, OBJECTS_MAX).await.map_err(failed)? {
            let name = key.rsplit('/').next().unwrap_or_default();
            let owner = name::generation_of(name, &self.job, self.operator);
            if owner.is_some_and(|generation| generations.contains(&generation)) {
                objects.remove(&key).await.map_err(|e| self.service.failed("remove", &key, &e))?;
                removed += 1;
            }
        }
        let is_of = |key: &str| {
            let owner = name::generation_of(key.rsplit('/').next().unwrap_or_default(), &self.job, self.operator);
            owner.is_some_and(|generation| generations.contains(&generation))
        };
        let aborted = objects.abort_uploads(TEMPORARY_DIRECTORY, is_of).await;
        // They hold no output, and who may write need not be allowed to list them.
        if let Err(error) = aborted {
            tracing::info!(job = %self.job, operator = %self.operator, %error, "uploads of earlier attempts stay until the bucket's rules remove them");
        }
        if removed > 0 {
            let place = self.service.url().shown();
            tracing::info!(job = %self.job, operator = %self.operator, objects = removed, place, "removed temporary objects of earlier attempts");
        }
        Ok(())
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        let objects = self.service.objects()?;
        let (mut names, mut count) = (Vec::new(), 0);
        let failed = |e| self.service.failed("list", "", &e);
        for (key, _) in objects.list("", OBJECTS_MAX).await.map_err(failed)? {
            let name = key.rsplit('/').next().unwrap_or_default();
            let is_later = name::epoch_of(name, job, self.operator).is_some_and(|of| of > epoch);
            if is_later && !key.split('/').any(|part| part.starts_with('.')) {
                count += 1;
                if names.len() < NAMES_MAX {
                    names.push(objects.shown(&key));
                }
            }
        }
        Ok((names, count))
    }
}

fn lost(epoch: Epoch, path: &str, what: &str) -> ConnectorError {
    ConnectorError::new(
        ErrorKind::Lost,
        format!(
            "the output object '{path}' of epoch {epoch} is lost: {what}; it was removed or changed from outside, restore it or restart the job from an earlier savepoint"
        ),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstem_objects::ObjectUrl;
    use mainstem_objects::simulation::{Fault, FaultyStore, Operation};

    use super::*;

    const CONTENT: &[u8] = b"rows";
    const OPERATOR: OperatorId = OperatorId(4);

    fn job() -> JobId {
        JobId::new("j").unwrap()
    }

    fn service() -> (Arc<FaultyStore>, Arc<Service>) {
        let store = Arc::new(FaultyStore::default());
        let url = ObjectUrl::parse("s3://b/out").unwrap().unwrap();
        (store.clone(), Arc::new(Service::over(Objects::over(store, &url).unwrap())))
    }

    fn pending(number: u64) -> PendingFile {
        PendingFile {
            temporary: format!("{TEMPORARY_DIRECTORY}/j-op4-g1-0-{number}.tmp"),
            path: format!("dt=a%2Fb/part-j-op4-g1-0-1-{number}.json"),
            size: CONTENT.len() as u64,
            rows: 1,
            crc32c: crc32c::crc32c(CONTENT),
        }
    }

    async fn stage(service: &Service, file: &PendingFile) {
        service.objects().unwrap().create(&file.temporary, Bytes::from_static(CONTENT)).await.unwrap();
    }

    async fn keys(service: &Service) -> Vec<String> {
        service.objects().unwrap().list("", 100).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_repeated_without_effect_whatever_becomes_of_its_answer() {
        let (store, service) = service();
        let mut committer = ObjectCommitter::new(service.clone(), &job(), OPERATOR);
        let files = [pending(0), pending(1)];
        for file in &files {
            stage(&service, file).await;
        }
        let committables = files.each_ref().map(PendingFile::to_committable);
        store.plan(Operation::Copy, Fault::LostAnswer);
        store.plan(Operation::Copy, Fault::Overload);
        let failed = committer.commit(Epoch(1), &committables).await.unwrap_err();
        assert!(failed.is_retryable(), "{failed}");
        // Once as a retry, and once as after a crash.
        for _ in 0..2 {
            let answer = committer.commit(Epoch(1), &committables).await;
            if let Err(error) = answer {
                assert!(error.is_retryable(), "{error}");
                committer.commit(Epoch(1), &committables).await.unwrap();
            }
            assert_eq!(keys(&service).await, files.each_ref().map(|file| file.path.clone()));
        }
        let content = service.objects().unwrap().checksum(&files[0].path).await.unwrap();
        assert_eq!(content, Some((files[0].size, files[0].crc32c)));
    }

    #[tokio::test]
    async fn what_is_gone_and_what_is_in_the_way_is_said() {
        let (_, service) = service();
        let mut committer = ObjectCommitter::new(service.clone(), &job(), OPERATOR);
        let gone = committer.commit(Epoch(1), &[pending(0).to_committable()]).await.unwrap_err();
        assert!(gone.kind == ErrorKind::Lost && gone.message.contains("neither it nor"), "{gone}");
        stage(&service, &pending(0)).await;
        service.objects().unwrap().create(&pending(0).path, Bytes::from_static(b"row!")).await.unwrap();
        let taken = committer.commit(Epoch(1), &[pending(0).to_committable()]).await.unwrap_err();
        assert!(!taken.is_retryable() && taken.message.contains("another object has that name"), "{taken}");
        let (names, count) = committer.visible_after(&job(), Epoch(0)).await.unwrap();
        assert_eq!((names, count), (vec!["s3://b/out/dt=a%2Fb/part-j-op4-g1-0-1-0.json".to_owned()], 1));
        assert_eq!(committer.visible_after(&job(), Epoch(1)).await.unwrap().1, 0);
    }

    #[tokio::test]
    async fn only_earlier_attempts_of_the_same_sink_are_cleaned_up() {
        let (_, service) = service();
        let stays = ["k-op4-g1-0-0.tmp", "j-op5-g1-0-0.tmp", "j-op4-g2-0-0.tmp", "mine"];
        for name in stays.iter().chain(&["j-op4-g1-0-7.tmp"]) {
            let key = format!("{TEMPORARY_DIRECTORY}/{name}");
            service.objects().unwrap().create(&key, Bytes::from_static(CONTENT)).await.unwrap();
        }
        let mut committer = ObjectCommitter::new(service.clone(), &job(), OPERATOR);
        committer.clean_up(Generation(1)..Generation(2)).await.unwrap();
        let mut expected = stays.map(|name| format!("{TEMPORARY_DIRECTORY}/{name}"));
        expected.sort();
        assert_eq!(keys(&service).await, expected);
    }
}
