//! Everything durable of one job under a state directory: lock, metadata log, checkpoint files. Opened by the
//! server before it plans, handed to the coordinator to run. Layout: `<state-dir>/jobs/<job>/` with `lock`,
//! `log`, `incarnation`, `audit/`, `state/` and `manifests/`. In an object store the log alone does what lock, log and
//! incarnation do in a directory, and there is no audit trail.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_objects::Place;
use mainstem_rt::Clock;
use mainstem_state::{CheckpointStore, JobLock, LocalCopies};

use crate::error::CoordinatorError;
use crate::meta_log::{
    AuditedLog, Found, JobEnd, JobRecord, LocalMetaLog, MetaLog, MetaLogError, RestoredFrom, ServiceMetaLog,
};

/// A job's durable things.
pub struct JobStore {
    job: JobId,
    checkpoints: Arc<CheckpointStore>,
    clock: Arc<dyn Clock>,
    kept: Kept,
}

/// Where the facts about a job are.
enum Kept {
    /// In a directory, under its lock.
    Local(Box<LocalFiles>),
    /// In an object store: the log, or what is wrong with it. Nothing keeps other processes off before one runs the job.
    Service(Box<ServiceMetaLog>, Option<MetaLogError>),
}

struct LocalFiles {
    directory: PathBuf,
    log: Option<LocalMetaLog>,
    lock: JobLock,
}

/// Where a running job's decisions and checkpoints are kept.
pub struct JobHome {
    /// The decisions.
    pub log: Box<dyn MetaLog>,
    /// The checkpoints.
    pub checkpoints: Arc<CheckpointStore>,
    /// Attempts have numbers above this one.
    pub generation_floor: Generation,
    /// Held while the job runs, where nothing else keeps others from running it.
    pub lock: Option<JobLock>,
}

/// What is stored of a job that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its dataflow. A restore runs this one and never plans again.
    pub graph_json: String,
    /// Of the SQL text that it was planned from.
    pub sql_hash: String,
    /// Its key groups.
    pub key_groups: u16,
    /// The newest epoch whose output is visible; 0 before the first.
    pub committed: Epoch,
    /// How its last run ended; none after a crash.
    pub end: Option<JobEnd>,
    /// The savepoint with which it began, where it did.
    pub restored: Option<RestoredFrom>,
}

/// What is recorded of a job that this process does not run, and that may be run by another one at this moment; none where
/// there is no log, as in a cluster, whose coordinators keep it. Takes no lock and writes nothing.
///
/// # Errors
/// Where the log is damaged or out of reach.
pub async fn recorded(
    state_dir: &Path,
    checkpoints: &CheckpointStore,
    job: &JobId,
) -> Result<Option<JobRecord>, MetaLogError> {
    match (checkpoints.service(), Place::parse(state_dir)) {
        (Some(objects), _) => ServiceMetaLog::look(objects.clone(), job).await,
        (None, Ok(Place::Local(directory))) => {
            LocalMetaLog::look(&directory.join("jobs").join(job.as_str()).join("log"))
        }
        (None, _) => Ok(None),
    }
}

impl JobStore {
    /// Opens what is stored of the job; creates what does not exist. In a directory, takes the job's lock.
    ///
    /// # Errors
    /// Where another process holds the lock; the message names it.
    pub async fn open(state_dir: &Path, job: &JobId, clock: Arc<dyn Clock>) -> Result<JobStore, CoordinatorError> {
        let checkpoints = CheckpointStore::open(state_dir)?;
        let Some(objects) = checkpoints.service().cloned() else {
            let directory = match Place::parse(state_dir) {
                Ok(Place::Local(directory)) => directory,
                _ => state_dir.to_owned(),
            };
            return JobStore::open_with(&directory, job, clock, checkpoints).await;
        };
        let kept = match ServiceMetaLog::find(objects, job).await? {
            Found::Log(log) => Kept::Service(log, None),
            Found::Damaged(error, log) => Kept::Service(log, Some(error)),
        };
        Ok(JobStore { job: job.clone(), checkpoints: Arc::new(checkpoints), clock, kept })
    }

    /// Like [`JobStore::open`] of a directory, with checkpoint files elsewhere.
    pub async fn open_with(
        state_dir: &Path,
        job: &JobId,
        clock: Arc<dyn Clock>,
        checkpoints: CheckpointStore,
    ) -> Result<JobStore, CoordinatorError> {
        let lock = JobLock::acquire(state_dir, job)?;
        let directory = state_dir.join("jobs").join(job.as_str());
        let kept = Kept::Local(Box::new(LocalFiles { directory, log: None, lock }));
        Ok(JobStore { job: job.clone(), checkpoints: Arc::new(checkpoints), clock, kept })
    }

    /// The same, with local copies of its state files.
    #[must_use]
    pub fn with_copies(self, copies: Option<LocalCopies>) -> JobStore {
        let checkpoints = Arc::new(self.checkpoints.as_ref().clone().with_copies(copies));
        JobStore { checkpoints, ..self }
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// Where its checkpoints lie.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<CheckpointStore> {
        self.checkpoints.clone()
    }

    /// What is stored of the job; none where it was never started.
    pub async fn load(&mut self) -> Result<Option<StoredJob>, CoordinatorError> {
        let state = match &mut self.kept {
            Kept::Local(files) => files.log()?.state(),
            Kept::Service(log, damage) => match damage.take() {
                Some(damage) => return Err(damage.into()),
                None => log.state(),
            },
        };
        Ok(state.created.as_ref().map(|created| StoredJob {
            graph_json: created.graph_json.clone(),
            sql_hash: created.sql_hash.clone(),
            key_groups: created.key_groups,
            committed: state.committed,
            end: state.end.clone(),
            restored: state.restored.clone(),
        }))
    }

    /// Gives up all state of the job. Attempts of what comes next have higher numbers than all before, so that
    /// names of files never meet. After a crash midway the job is either whole or gone.
    pub async fn reset(&mut self) -> Result<(), CoordinatorError> {
        // A log that cannot be read gives no number; one that is above any real count is as good.
        let unknown = Generation(self.clock.now().0.unsigned_abs());
        match &mut self.kept {
            Kept::Local(files) => files.reset(unknown)?,
            Kept::Service(log, damage) => {
                let least = if damage.take().is_some() { unknown } else { Generation(0) };
                log.reset(least).await?;
            }
        }
        self.checkpoints.delete_all(&self.job).await?;
        Ok(())
    }

    /// The number that every attempt must be above.
    #[cfg(test)]
    pub(crate) fn generation_floor(&self) -> Result<Generation, CoordinatorError> {
        match &self.kept {
            Kept::Local(files) => files.generation_floor(),
            Kept::Service(log, _) => Ok(log.floor()),
        }
    }

    /// All of it, for the coordinator that runs the job. In an object store, every process that has run it before is
    /// fenced on return.
    pub async fn into_home(self) -> Result<JobHome, CoordinatorError> {
        let checkpoints = self.checkpoints;
        match self.kept {
            Kept::Local(mut files) => {
                files.log()?;
                let log = files.log.take().expect("opened above");
                let generation_floor = files.generation_floor()?;
                let audit = files.directory.join("audit");
                let audited = AuditedLog::open(self.job, log, audit.clone(), self.clock);
                let log = Box::new(audited.map_err(|e| io_error("write the audit trail in", &audit, e))?);
                Ok(JobHome { log, checkpoints, generation_floor, lock: Some(files.lock) })
            }
            Kept::Service(mut log, damage) => {
                if let Some(damage) = damage {
                    return Err(damage.into());
                }
                log.take_over().await?;
                let generation_floor = log.floor();
                Ok(JobHome { log, checkpoints, generation_floor, lock: None })
            }
        }
    }
}

impl LocalFiles {
    fn reset(&mut self, unknown: Generation) -> Result<(), CoordinatorError> {
        let path = self.directory.join("log");
        let last = match self.log() {
            Ok(log) => log.state().generation,
            Err(_) => unknown,
        };
        let floor = last.max(self.generation_floor()?);
        self.write_incarnation(floor)?;
        self.log = None;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io_error("remove", &path, e)),
            _ => {}
        }
        let directory = File::open(&self.directory).and_then(|d| d.sync_all());
        directory.map_err(|e| io_error("sync", &self.directory, e))
    }

    fn generation_floor(&self) -> Result<Generation, CoordinatorError> {
        let path = self.directory.join("incarnation");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Generation).map_err(|_| CoordinatorError::Corrupt {
                path: path.display().to_string(),
                reason: "it should hold one number, the last attempt before the job was started anew".to_owned(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Generation(0)),
            Err(e) => Err(io_error("read", &path, e)),
        }
    }

    fn log(&mut self) -> Result<&mut LocalMetaLog, CoordinatorError> {
        let log = match self.log.take() {
            Some(log) => log,
            None => LocalMetaLog::open(&self.directory.join("log"))?,
        };
        Ok(self.log.insert(log))
    }

    fn write_incarnation(&self, floor: Generation) -> Result<(), CoordinatorError> {
        let (staged, path) = (self.directory.join("incarnation.new"), self.directory.join("incarnation"));
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(format!("{}\n", floor.0).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&staged, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|e| io_error("write", &path, e))
    }
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> CoordinatorError {
    CoordinatorError::Io { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstem_core::time::Timestamp;
    use mainstem_rt::ManualClock;

    use super::*;
    use crate::meta_log::{JobCreated, Record};

    async fn open(directory: &Path) -> JobStore {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        JobStore::open(directory, &JobId::new("j").unwrap(), clock).await.unwrap()
    }

    async fn start(store: &mut JobStore, generation: u64) {
        let Kept::Local(files) = &mut store.kept else { panic!("it lies in a directory") };
        let log = files.log().unwrap();
        let (graph_json, sql_hash) = ("{}".to_owned(), "h".to_owned());
        let created = JobCreated { graph_json, sql_hash, key_groups: 8, created_at: Timestamp(1) };
        log.append(Record::JobCreated(created)).await.unwrap();
        let (generation, reason) = (Generation(generation), String::new());
        let started = Record::GenerationStarted { generation, restored_from: Epoch(0), reason, at: Timestamp(1) };
        log.append(started).await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_removes_everything_and_attempts_go_on_counting() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path()).await;
        assert_eq!(store.load().await.unwrap(), None);
        start(&mut store, 3).await;
        assert_eq!(store.load().await.unwrap().map(|s| s.key_groups), Some(8));
        store.checkpoints().put_new(store.job(), "state/1-g3-op0-0.state", Bytes::from_static(b"x")).await.unwrap();
        store.reset().await.unwrap();
        assert_eq!(store.load().await.unwrap(), None);
        assert_eq!(store.generation_floor().unwrap(), Generation(3));
        assert_eq!(store.checkpoints().list(store.job(), "state").await.unwrap(), Vec::<String>::new());
        start(&mut store, 9).await;
        store.reset().await.unwrap();
        store.reset().await.unwrap();
        assert_eq!(store.generation_floor().unwrap(), Generation(9));
    }

    #[tokio::test]
    async fn a_damaged_log_can_be_given_up_and_the_job_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path()).await;
        start(&mut store, 3).await;
        let Kept::Local(files) = &mut store.kept else { panic!("it lies in a directory") };
        files.log = None;
        let path = directory.path().join("jobs/j/log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[25] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(store.load().await, Err(CoordinatorError::MetaLog(_))));
        store.reset().await.unwrap();
        assert_eq!(store.load().await.unwrap(), None);
        assert_eq!(store.generation_floor().unwrap(), Generation(1_000));
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let second = JobStore::open(directory.path(), &JobId::new("j").unwrap(), clock).await;
        assert!(matches!(second, Err(CoordinatorError::State(_))));
    }
}
