//! The metadata log in one object of an object store. Format: docs/formats/metadata-log.md. An object cannot be appended
//! to, so each record writes the whole object anew, on the condition that it is still the version that this process has
//! written last. That is what keeps two processes off one job (I3): whoever begins to run it writes the object first,
//! and from then on every other one is refused. The object is never removed, so no version comes back.
//!
//! Unlike with a disk, what became of a write whose answer was lost can be found out, by reading.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mainstem_core::ids::{Generation, JobId};
use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use mainstem_objects::{CreateError, ObjectError, Objects, Version};
use mainstem_state::{seal, this_process, unseal};
use serde::{Deserialize, Serialize};

use super::{JobRecord, MetaLog, MetaLogError, Record};

/// First word of the object and the version of its format.
const MAGIC: &str = "mainstem-log 1";

/// How often a record is written anew while the service fails. Each time the client tries for half a minute.
const POLICY: RetryPolicy =
    RetryPolicy { first_delay_ms: 500, delay_ms_max: 10_000, retries_max: 15, quiet_ms: 3_600_000 };

/// How often what it is to take over may have been written anew between its reading and its writing. The process that
/// runs the job still writes several times a second.
const CATCH_UPS_MAX: usize = 100;

/// What the object holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    /// Writes so far.
    sequence: u64,
    /// Who wrote it, for people.
    owner: String,
    /// Who wrote it; drawn by each process. With the sequence, no two writes ever have the same bytes.
    writer: u64,
    /// Attempts have numbers above this one.
    floor: Generation,
    /// What the records so far add up to.
    record: JobRecord,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ServiceMetaLog {
    objects: Objects,
    key: String,
    /// What is there; none where nothing is.
    version: Option<Version>,
    kept: Kept,
    /// After a write of which nobody knows what became, or that another process has overtaken.
    is_closed: bool,
}

/// What was found in the place of a log.
pub(crate) enum Found {
    /// A log, or nothing.
    Log(Box<ServiceMetaLog>),
    /// Something that does not read as a log; it can be given up.
    Damaged(MetaLogError, Box<ServiceMetaLog>),
}

impl ServiceMetaLog {
    /// Reads the log of a job. Writes nothing.
    pub(crate) async fn find(objects: Objects, job: &JobId) -> Result<Found, MetaLogError> {
        let key = format!("jobs/{job}/log");
        let kept = Kept {
            sequence: 0,
            owner: this_process(),
            writer: std::hash::RandomState::new().build_hasher().finish(),
            floor: Generation(0),
            record: JobRecord::default(),
        };
        let read = objects.read(&key).await.map_err(|error| failed("read", &objects.shown(&key), &error))?;
        let mut log = ServiceMetaLog { objects, key, version: None, kept, is_closed: false };
        let Some((bytes, version)) = read else { return Ok(Found::Log(Box::new(log))) };
        log.version = Some(version);
        match parse(&bytes) {
            Ok(found) => {
                log.go_on_from(found);
                Ok(Found::Log(Box::new(log)))
            }
            Err(reason) => {
                let path = log.objects.shown(&log.key);
                Ok(Found::Damaged(MetaLogError::Corrupt { path, offset: 0, reason }, Box::new(log)))
            }
        }
    }

    /// What the records add up to; none where there is no log. Writes nothing.
    pub(crate) async fn look(objects: Objects, job: &JobId) -> Result<Option<JobRecord>, MetaLogError> {
        match ServiceMetaLog::find(objects, job).await? {
            Found::Log(log) => Ok(log.version.is_some().then_some(log.kept.record)),
            Found::Damaged(error, _) => Err(error),
        }
    }

    /// Attempts have numbers above this one.
    pub(crate) fn floor(&self) -> Generation {
        self.kept.floor
    }

    fn go_on_from(&mut self, found: Kept) {
        self.kept = Kept { owner: self.kept.owner.clone(), writer: self.kept.writer, ..found };
    }

    /// From here on no other process can write, until one takes it over as this one does now. What the one before has
    /// recorded since this one has read is taken over too, as long as the job is the same.
    pub(crate) async fn take_over(&mut self) -> Result<(), MetaLogError> {
        let is_new = self.version.is_none();
        let created = self.kept.record.created.clone();
        self.write_over(|kept| (kept.record.created == created).then(|| kept.clone())).await?;
        if is_new { self.check_conditions().await } else { Ok(()) }
    }

    /// Makes sure that the service takes notice of conditions: without them two processes could run one job.
    async fn check_conditions(&mut self) -> Result<(), MetaLogError> {
        let probe = Bytes::from_static(b"whether this takes the place of the log");
        let path = self.objects.shown(&self.key);
        match self.objects.create(&self.key, probe).await {
            Err(CreateError::Taken) => Ok(()),
            Err(CreateError::Failed(error)) => Err(failed("check", &path, &error)),
            Ok(()) => {
                let message = "the service takes no notice of conditions (If-None-Match), so it cannot keep two \
                               processes off one job; use another service, or a directory as --state-dir";
                Err(MetaLogError::Service { action: "keep", path, message: message.to_owned() })
            }
        }
    }

    /// Forgets all records; attempts have numbers above `least` and above all before from here on.
    pub(crate) async fn reset(&mut self, least: Generation) -> Result<(), MetaLogError> {
        self.write_over(|kept| {
            let floor = least.max(kept.floor).max(kept.record.generation);
            Some(Kept { floor, record: JobRecord::default(), ..kept.clone() })
        })
        .await
    }

    /// Writes what becomes of the newest version, whoever has written that.
    async fn write_over(&mut self, mut change: impl FnMut(&Kept) -> Option<Kept>) -> Result<(), MetaLogError> {
        for _ in 0..CATCH_UPS_MAX {
            let Some(kept) = change(&self.kept) else { break };
            match self.write(kept).await {
                Err(MetaLogError::TakenOver { .. }) => self.catch_up().await?,
                written => return written,
            }
        }
        self.is_closed = true;
        Err(self.overtaken().await)
    }

    /// Reads what another process has written since.
    async fn catch_up(&mut self) -> Result<(), MetaLogError> {
        let path = self.objects.shown(&self.key);
        let read = self.objects.read(&self.key).await.map_err(|error| failed("read", &path, &error))?;
        let Some((bytes, version)) = read else {
            let message = "it was removed while it was being written; stop what removes objects there".to_owned();
            return Err(MetaLogError::Service { action: "write", path, message });
        };
        self.go_on_from(parse(&bytes).map_err(|reason| MetaLogError::Corrupt { path, offset: 0, reason })?);
        self.version = Some(version);
        self.is_closed = false;
        Ok(())
    }

    async fn write(&mut self, kept: Kept) -> Result<(), MetaLogError> {
        if self.is_closed {
            return Err(MetaLogError::Closed { path: self.objects.shown(&self.key) });
        }
        // Whoever drops this does not use the log again.
        self.is_closed = true;
        let kept = Kept { sequence: self.kept.sequence + 1, ..kept };
        let json =
            serde_json::to_vec(&kept).map_err(|e| MetaLogError::Refused(format!("a record cannot be encoded: {e}")))?;
        let bytes = Bytes::from(seal(MAGIC, &json));
        let mut backoff = Backoff::new(POLICY);
        let version = loop {
            let written = match &self.version {
                Some(version) => self.objects.replace(&self.key, bytes.clone(), version).await,
                None => self.objects.create_versioned(&self.key, bytes.clone()).await,
            };
            let error = match written {
                Ok(version) => break version,
                Err(CreateError::Taken) => return Err(self.overtaken().await),
                Err(CreateError::Failed(error)) => error,
            };
            let path = self.objects.shown(&self.key);
            let wait = backoff.on_failure(Timestamp(0), kept.writer ^ kept.sequence);
            let Some(wait_ms) = wait.filter(|_| error.is_transient()) else {
                return Err(failed("write", &path, &error));
            };
            tracing::warn!(path, %error, wait_ms, "cannot write the metadata log, trying again");
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        };
        self.version = Some(version);
        self.kept = kept;
        self.is_closed = false;
        Ok(())
    }

    /// Who has written since.
    async fn overtaken(&self) -> MetaLogError {
        let there = self.objects.read(&self.key).await;
        let kept = there.ok().flatten().and_then(|(bytes, _)| parse(&bytes).ok());
        let owner = kept.map_or_else(|| "an unknown process".to_owned(), |kept| kept.owner);
        MetaLogError::TakenOver { path: self.objects.shown(&self.key), owner }
    }
}

#[async_trait]
impl MetaLog for ServiceMetaLog {
    fn state(&self) -> &JobRecord {
        &self.kept.record
    }

    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        self.kept.record.check(&record).map_err(MetaLogError::Refused)?;
        let mut kept = self.kept.clone();
        kept.record.apply(record);
        self.write(kept).await
    }
}

fn parse(bytes: &[u8]) -> Result<Kept, String> {
    let json = unseal(MAGIC, bytes)?;
    serde_json::from_slice(json).map_err(|error| format!("unreadable: {error}"))
}

fn failed(action: &'static str, path: &str, error: &ObjectError) -> MetaLogError {
    MetaLogError::Service { action, path: path.to_owned(), message: error.message.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstem_core::ids::Epoch;
    use mainstem_objects::ObjectUrl;
    use mainstem_objects::simulation::{Fault, FaultyStore, Operation};

    use super::*;
    use crate::meta_log::JobCreated;
    use crate::meta_log::golden::{assert_still_written, golden};

    fn started(generation: u64) -> Record {
        let (restored_from, reason, at) = (Epoch(0), String::new(), Timestamp(0));
        Record::GenerationStarted { generation: Generation(generation), restored_from, reason, at }
    }

    fn objects(store: &Arc<FaultyStore>) -> Objects {
        let url = ObjectUrl::parse("s3://b/state").unwrap().unwrap();
        Objects::over(store.clone(), &url).unwrap()
    }

    async fn find(store: &Arc<FaultyStore>) -> ServiceMetaLog {
        match ServiceMetaLog::find(objects(store), &JobId::new("j").unwrap()).await.unwrap() {
            Found::Log(log) => *log,
            Found::Damaged(error, _) => panic!("{error}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_process_writes_and_every_other_one_is_refused() {
        let store = Arc::new(FaultyStore::default());
        let mut first = find(&store).await;
        first.take_over().await.unwrap();
        first.append(started(1)).await.unwrap();
        let mut second = find(&store).await;
        assert_eq!(second.state().generation, Generation(1));
        // Until another one takes it over, the first one goes on; the other takes over that too.
        first.append(started(2)).await.unwrap();
        second.take_over().await.unwrap();
        assert_eq!(second.state().generation, Generation(2));
        let refused = first.append(started(3)).await.unwrap_err();
        assert!(matches!(&refused, MetaLogError::TakenOver { owner, .. } if *owner == this_process()), "{refused}");
        assert!(matches!(first.append(started(3)).await, Err(MetaLogError::Closed { .. })));
        second.append(started(3)).await.unwrap();
        assert_eq!(find(&store).await.state().generation, Generation(3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_has_begun_since_is_not_taken_over_unseen() {
        let store = Arc::new(FaultyStore::default());
        let (mut first, mut second, mut third) = (find(&store).await, find(&store).await, find(&store).await);
        first.take_over().await.unwrap();
        let (graph_json, sql_hash) = ("{}".to_owned(), "h".to_owned());
        let created = JobCreated { graph_json, sql_hash, key_groups: 8, created_at: Timestamp(1) };
        first.append(Record::JobCreated(created)).await.unwrap();
        first.append(started(5)).await.unwrap();
        let refused = second.take_over().await.unwrap_err();
        assert!(matches!(refused, MetaLogError::TakenOver { .. }), "{refused}");
        assert!(matches!(second.append(started(6)).await, Err(MetaLogError::Closed { .. })));
        // Whoever gives it all up need not know what it was, but counts on.
        third.reset(Generation(0)).await.unwrap();
        assert_eq!((third.floor(), third.state()), (Generation(5), &JobRecord::default()));
        assert!(matches!(first.append(started(6)).await, Err(MetaLogError::TakenOver { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_taken_once_whatever_becomes_of_the_answers() {
        let store = Arc::new(FaultyStore::default());
        let mut log = find(&store).await;
        let faults = [Fault::LostAnswer, Fault::Overload, Fault::Conflict, Fault::Delay(Duration::from_secs(40))];
        for generation in 1..=12 {
            store.plan(Operation::Put, faults[generation as usize % faults.len()]);
            log.append(started(generation)).await.unwrap();
        }
        // Down for some minutes.
        for _ in 0..60 {
            store.plan(Operation::Put, Fault::Overload);
        }
        log.append(started(13)).await.unwrap();
        assert_eq!(find(&store).await.kept.record, log.kept.record);
        let wrong = log.append(started(13)).await.unwrap_err();
        assert!(matches!(wrong, MetaLogError::Refused(_)), "an own mistake");
        log.append(started(14)).await.unwrap();
        store.plan(Operation::Put, Fault::Denied);
        let denied = log.append(started(15)).await.unwrap_err().to_string();
        assert!(denied.contains("s3://b/state/jobs/j/log") && denied.contains("permission denied"), "{denied}");
        assert_eq!(find(&store).await.state().generation, Generation(14));
    }

    #[tokio::test]
    async fn a_damaged_log_is_refused_and_can_be_given_up() {
        let store = Arc::new(FaultyStore::default());
        let mut log = find(&store).await;
        log.append(started(1)).await.unwrap();
        let (bytes, version) = objects(&store).read("jobs/j/log").await.unwrap().unwrap();
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        objects(&store).replace("jobs/j/log", damaged.into(), &version).await.unwrap();
        let found = ServiceMetaLog::find(objects(&store), &JobId::new("j").unwrap()).await.unwrap();
        let Found::Damaged(error, mut log) = found else { panic!("it is damaged") };
        assert!(matches!(error, MetaLogError::Corrupt { .. }));
        log.reset(Generation(77)).await.unwrap();
        let log = find(&store).await;
        assert_eq!((log.floor(), log.state()), (Generation(77), &JobRecord::default()));
    }

    #[test]
    fn the_first_version_is_read_and_written_as_ever() {
        let (graph_json, sql_hash) = ("{}".to_owned(), "h".to_owned());
        let created = JobCreated { graph_json, sql_hash, key_groups: 8, created_at: Timestamp(1) };
        let record = JobRecord { created: Some(created), generation: Generation(3), ..JobRecord::default() };
        let (owner, writer) = ("pid 7 on host".to_owned(), u64::MAX);
        let kept = Kept { sequence: 9, owner, writer, floor: Generation(2), record };
        let written = seal(MAGIC, &serde_json::to_vec(&kept).unwrap());
        let golden = golden("metadata-log-object-1", &written);
        let found = parse(&golden).unwrap();
        let head = (found.sequence, &found.owner, found.writer, found.floor);
        assert_eq!((head, &found.record), ((9, &kept.owner, u64::MAX, Generation(2)), &kept.record));
        assert_still_written("metadata-log-object-1", &golden, &written, "docs/formats/metadata-log.md");
    }
}
