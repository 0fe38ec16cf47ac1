//! What a user means by a name or a place: the jobs of a state directory, one of them, or savepoints. Nothing is created
//! by looking.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstem_coordinator::JobRecord;
use mainstem_core::ids::{Epoch, JobId};
use mainstem_objects::{Objects, Place};
use mainstem_plan::operator::JobGraph;
use mainstem_state::{CheckpointStore, Manifest, OpenSavepoint, StateFiles};

use super::shown;

/// See the module.
pub(super) enum Target {
    Jobs(Jobs),
    Job(Box<Job>),
    Savepoints(Vec<Checkpoint>),
}

/// The jobs of a state directory.
pub(super) struct Jobs {
    pub(super) state_dir: PathBuf,
    store: CheckpointStore,
}

/// A job with its checkpoints.
pub(super) struct Job {
    pub(super) job: JobId,
    pub(super) store: CheckpointStore,
    /// What its log says, or what is wrong with that; none where there is none, as in a cluster.
    pub(super) record: Result<Option<JobRecord>, String>,
    /// By epoch and attempt.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Manifests that cannot be read, and why.
    pub(super) unreadable: Vec<String>,
}

/// A checkpoint or a savepoint whose description is sound.
pub(super) struct Checkpoint {
    /// Where it lies.
    pub(super) place: String,
    pub(super) manifest: Manifest,
    pub(super) files: StateFiles,
    /// The dataflow, where it is known.
    pub(super) graph: Option<JobGraph>,
    /// Whether the job's log knows it as complete; none where there is no log, or nobody needs one.
    pub(super) is_recorded: Option<bool>,
}

/// What is meant; without a name, the jobs of the state directory.
pub(super) async fn find(name: Option<&str>, state_dir: &Path) -> anyhow::Result<Target> {
    let Some(name) = name else {
        let store = open(state_dir)?;
        return Ok(Target::Jobs(Jobs { state_dir: state_dir.to_owned(), store }));
    };
    // No job's name begins with a dot, but that of the usual state directory does.
    if name.contains('/') || name.starts_with('.') {
        return at(Path::new(name)).await;
    }
    let job = JobId::new(name).map_err(anyhow::Error::msg)?;
    let jobs = Jobs { state_dir: state_dir.to_owned(), store: open(state_dir)? };
    if !jobs.names().await?.contains(&job) {
        let place = shown(state_dir);
        bail!(
            "there is no job '{job}' in '{place}'; name its state directory by --state-dir, or a place by a path with a slash: './{job}'"
        );
    }
    Ok(Target::Job(Box::new(jobs.of(job).await?)))
}

/// What lies in a place.
async fn at(place: &Path) -> anyhow::Result<Target> {
    let (directories, files) = names(place).await?;
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    if has(&directories, "jobs") {
        return Ok(Target::Jobs(Jobs { state_dir: place.to_owned(), store: open(place)? }));
    }
    if has(&directories, "manifests") || has(&files, "log") {
        let (state_dir, job) = job_at(place)?;
        let store = open(&state_dir)?;
        return Ok(Target::Job(Box::new(Jobs { state_dir, store }.of(job).await?)));
    }
    let mut inner: Vec<PathBuf> =
        directories.iter().filter(|name| name.starts_with("savepoint-")).map(|name| joined(place, name)).collect();
    inner.sort();
    if has(&files, "savepoint") || place_name(place).starts_with("savepoint-") {
        inner = vec![place.to_owned()];
    }
    if inner.is_empty() {
        bail!(
            "'{}' holds no state: expected a state directory (with jobs in it), the directory of a job, a savepoint, or \
             a directory of savepoints",
            shown(place)
        );
    }
    let mut savepoints = Vec::new();
    for path in inner {
        savepoints.push(savepoint(&path).await?);
    }
    Ok(Target::Savepoints(savepoints))
}

async fn savepoint(path: &Path) -> anyhow::Result<Checkpoint> {
    let opened = OpenSavepoint::describe(path).await?;
    let graph = serde_json::from_str(&opened.savepoint().graph_json).ok();
    let manifest = opened.savepoint().manifest.clone();
    let place = shown(opened.directory());
    Ok(Checkpoint { place, manifest, files: StateFiles::Savepoint(Box::new(opened)), graph, is_recorded: None })
}

impl Jobs {
    /// All of them.
    pub(super) async fn names(&self) -> anyhow::Result<Vec<JobId>> {
        Ok(self.store.jobs().await?)
    }

    /// One of them.
    pub(super) async fn of(&self, job: JobId) -> anyhow::Result<Job> {
        let store = self.store.clone();
        let record = mainstem_coordinator::recorded(&self.state_dir, &store, &job).await;
        let record = record.map_err(|error| error.to_string());
        let created = record.as_ref().ok().and_then(|record| record.as_ref()?.created.as_ref());
        let graph: Option<JobGraph> = created.and_then(|created| serde_json::from_str(&created.graph_json).ok());
        let (mut checkpoints, mut unreadable) = (Vec::new(), Vec::new());
        for path in store.list(&job, "manifests").await? {
            let manifest = match store.read_found_manifest(&job, &path).await {
                Ok(manifest) => manifest,
                Err(error) => {
                    unreadable.push(error.to_string());
                    continue;
                }
            };
            let known = record.as_ref().ok().and_then(Option::as_ref);
            let is_recorded =
                known.map(|record| record.epochs.get(&manifest.epoch).is_some_and(|epoch| epoch.manifest.path == path));
            let (place, graph) = (store.shown(&job, &path), graph.clone());
            let files = StateFiles::Checkpoint(store.clone(), job.clone());
            checkpoints.push(Checkpoint { place, manifest, files, graph, is_recorded });
        }
        checkpoints.sort_by_key(|checkpoint| (checkpoint.manifest.epoch, checkpoint.manifest.generation));
        Ok(Job { job, store, record, checkpoints, unreadable })
    }
}

impl Job {
    /// The checkpoint of an epoch, else the newest that a restart would begin with.
    pub(super) fn newest(mut self, epoch: Option<u64>) -> anyhow::Result<Checkpoint> {
        let notes = self.notes();
        let wanted = |checkpoint: &Checkpoint| epoch.is_none_or(|epoch| checkpoint.manifest.epoch == Epoch(epoch));
        let counts = |checkpoint: &Checkpoint| checkpoint.is_recorded != Some(false);
        let chosen = (0..self.checkpoints.len()).rev().filter(|at| wanted(&self.checkpoints[*at]));
        let chosen: Vec<usize> = chosen.collect();
        let best = chosen.iter().find(|at| counts(&self.checkpoints[**at])).or(chosen.first());
        match best {
            Some(at) => Ok(self.checkpoints.swap_remove(*at)),
            None => {
                let which = epoch.map_or("no checkpoint".to_owned(), |epoch| format!("no checkpoint of epoch {epoch}"));
                let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
                bail!("there is {which} of job '{}' in '{}'{notes}", self.job, self.store.place_of(&self.job))
            }
        }
    }

    /// What else a user should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.unreadable.clone();
        match &self.record {
            Ok(Some(_)) => {}
            Ok(None) => notes.push("there is no log here, so which checkpoints are complete is not known".to_owned()),
            Err(error) => notes.push(error.clone()),
        }
        notes
    }
}

/// Opens what is there; a directory is not created.
fn open(state_dir: &Path) -> anyhow::Result<CheckpointStore> {
    if let Place::Local(path) = Place::parse(state_dir).map_err(anyhow::Error::msg)?
        && !path.is_dir()
    {
        bail!("there is no directory '{}'; name the state directory by --state-dir", path.display());
    }
    Ok(CheckpointStore::open(state_dir)?)
}

/// The names of directories and of files in a place.
async fn names(place: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let failed = || format!("cannot list '{}'", shown(place));
    match Place::parse(place).map_err(anyhow::Error::msg)? {
        Place::Objects(url) => {
            let objects = Objects::open(&url).map_err(|error| anyhow::anyhow!("{}", error.message))?;
            objects.names("").await.map_err(|error| anyhow::anyhow!("{}: {}", failed(), error.message))
        }
        Place::Local(path) => {
            let (mut directories, mut files) = (Vec::new(), Vec::new());
            for entry in std::fs::read_dir(&path).with_context(failed)? {
                let entry = entry.with_context(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // Through links.
                if entry.path().is_dir() { directories.push(name) } else { files.push(name) }
            }
            Ok((directories, files))
        }
    }
}

/// The state directory and the job, by the directory of the job: `STATE-DIR/jobs/JOB`.
fn job_at(place: &Path) -> anyhow::Result<(PathBuf, JobId)> {
    let wrong = || format!("'{}' looks like the directory of a job, but does not end in 'jobs/JOB'", shown(place));
    let full = match Place::parse(place).map_err(anyhow::Error::msg)? {
        Place::Local(path) => path.canonicalize().with_context(wrong)?,
        Place::Objects(_) => place.to_owned(),
    };
    let text = full.to_string_lossy().into_owned();
    let (path, parameters) = text.split_once('?').map_or((text.as_str(), None), |(path, rest)| (path, Some(rest)));
    let (rest, job) = path.trim_end_matches('/').rsplit_once('/').with_context(wrong)?;
    let state_dir = rest.strip_suffix("/jobs").with_context(wrong)?;
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    let job = JobId::new(job).map_err(anyhow::Error::msg).with_context(wrong)?;
    Ok((PathBuf::from(format!("{state_dir}{parameters}")), job))
}

/// A name right below a place.
fn joined(place: &Path, name: &str) -> PathBuf {
    match Place::parse(place) {
        Ok(Place::Objects(url)) => PathBuf::from(url.join(name).to_string()),
        _ => place.join(name),
    }
}

fn place_name(place: &Path) -> String {
    let text = shown(place);
    text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}
