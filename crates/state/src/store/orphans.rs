//! Removal of what crashed attempts left behind: objects that no retained checkpoint names. Called at the
//! start of an attempt, before any of its subtasks runs, so that nothing of the new attempt exists yet.

use std::collections::BTreeSet;
use std::path::Path;

use mainstem_core::ids::{Generation, JobId};

use super::{CheckpointStore, STAGED_DIRECTORY, mark};
use crate::error::StateError;

/// What a clean-up did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrphanReport {
    /// Objects that were deleted.
    pub deleted: Vec<String>,
    /// Objects that could not be deleted; they are tried again at the next start.
    pub failed: Vec<String>,
}

impl CheckpointStore {
    /// Deletes the objects of generations below `below` that are not `named`. Objects whose name this version
    /// does not understand stay: nothing is deleted in doubt (I4).
    pub async fn remove_orphans(
        &self,
        job: &JobId,
        named: &BTreeSet<String>,
        below: Generation,
    ) -> Result<OrphanReport, StateError> {
        let mut report = OrphanReport::default();
        for directory in ["state", "manifests"] {
            for path in self.list(job, directory).await? {
                let is_old = generation_of(&path).is_some_and(|generation| generation < below);
                if is_old && !named.contains(&path) {
                    match self.delete(job, &path).await {
                        Ok(()) => report.deleted.push(path),
                        Err(error) => {
                            tracing::warn!(job = %job, path, %error, "orphaned checkpoint file cannot be deleted");
                            report.failed.push(path);
                        }
                    }
                }
            }
            if let Some(root) = &self.directory {
                let directory = root.join("jobs").join(job.as_str()).join(directory);
                remove_staged(&directory, below, &mut report);
            }
        }
        // Whole files there are removed by the sinks that know them.
        if let Some(root) = &self.directory {
            remove_staged(&root.join("jobs").join(job.as_str()).join(STAGED_DIRECTORY), below, &mut report);
        }
        if let Some(service) = &self.service {
            let of_job = format!("jobs/{job}");
            let is_old = |key: &str| generation_of(key).is_some_and(|generation| generation < below);
            // They hold nothing that counts, and who may write need not be allowed to list them.
            if let Err(error) = service.abort_uploads(&of_job, is_old).await {
                tracing::info!(job = %job, %error, "uploads of earlier attempts stay until the bucket's rules remove them");
            }
        }
        Ok(report)
    }

    /// Manifests that are not `named`, by coordinators before the one that is the `adoptions`th to go on with the
    /// attempt: one that died was about to delete or to record them, and what they name goes without them.
    pub async fn left_manifests(
        &self,
        job: &JobId,
        named: &BTreeSet<String>,
        generation: Generation,
        adoptions: u32,
    ) -> Result<Vec<String>, StateError> {
        let mut left = self.list(job, "manifests").await?;
        let is_before = |path: &str| writer_of(path).is_some_and(|writer| writer < (generation, adoptions));
        left.retain(|path| is_before(path) && !named.contains(path));
        Ok(left)
    }

    /// Deletes all that attempts up to `last` have written, and the job's directory where nothing is left in it. What
    /// a job of the same name writes later stays, also while this still runs.
    pub async fn delete_up_to(&self, job: &JobId, last: Generation) -> Result<(), StateError> {
        let root = self.directory.as_ref().map(|root| root.join("jobs").join(job.as_str()));
        for directory in ["manifests", "state", STAGED_DIRECTORY, mark::DIRECTORY] {
            for path in self.list(job, directory).await? {
                if generation_of(&path).is_some_and(|generation| generation <= last) {
                    self.delete(job, &path).await?;
                }
            }
            if let Some(root) = &root {
                remove_staged(&root.join(directory), last.next(), &mut OrphanReport::default());
                // Only an empty one goes.
                let _ = std::fs::remove_dir(root.join(directory));
            }
        }
        if let Some(root) = &root {
            let _ = std::fs::remove_dir(root);
        }
        Ok(())
    }
}

/// Removes half-written files: the local store writes beside the target under `<name>#<number>` and does not
/// list those.
fn remove_staged(directory: &Path, below: Generation, report: &mut OrphanReport) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_staged = name.split_once('#').is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
        if is_staged && generation_of(&name).is_some_and(|generation| generation < below) {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => report.deleted.push(name),
                Err(_) => report.failed.push(name),
            }
        }
    }
}

/// The generation in a name such as `state/12-g3-op1-0.state`.
fn generation_of(path: &str) -> Option<Generation> {
    let name = path.rsplit('/').next()?;
    let (epoch, rest) = name.split_once("-g")?;
    epoch.parse::<u64>().ok()?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok().map(Generation)
}

/// Who wrote a manifest such as `manifests/7-g3.manifest` or `manifests/7-g3-a2.manifest`: the generation, and how often a
/// coordinator had gone on with it.
fn writer_of(path: &str) -> Option<(Generation, u32)> {
    let name = path.strip_suffix(".manifest")?;
    let adoptions = name.rsplit_once("-a").map_or(Some(0), |(_, adoptions)| adoptions.parse().ok())?;
    Some((generation_of(path)?, adoptions))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn generations_are_read_from_names() {
        assert_eq!(generation_of("state/12-g3-op1-0.state"), Some(Generation(3)));
        assert_eq!(generation_of("manifests/7-g40.manifest"), Some(Generation(40)));
        assert_eq!(generation_of("manifests/7-g40-a2.manifest"), Some(Generation(40)));
        assert_eq!(generation_of("state/12-g3-op1-0.state#2"), Some(Generation(3)));
        for foreign in ["state/readme", "state/x-g3", "state/12-gx", "state/12-g99999999999999999999"] {
            assert_eq!(generation_of(foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn manifests_that_are_left_are_unnamed_and_by_others_before() {
        let store = CheckpointStore::in_memory();
        let job = JobId::new("j").unwrap();
        let named = ["manifests/6-g2.manifest", "manifests/7-g3-a1.manifest"];
        let left = ["manifests/5-g3.manifest", "manifests/7-g3.manifest", "manifests/8-g3-a1.manifest"];
        let others = ["manifests/8-g3-a2.manifest", "manifests/9-g4.manifest", "manifests/notes"];
        for path in named.iter().chain(&left).chain(&others) {
            store.put_new(&job, path, Bytes::from_static(b"x")).await.unwrap();
        }
        let named = named.map(str::to_owned).into();
        assert_eq!(store.left_manifests(&job, &named, Generation(3), 2).await.unwrap(), left);
    }

    #[tokio::test]
    async fn only_old_and_unnamed_objects_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = CheckpointStore::local(directory.path()).unwrap();
        let job = JobId::new("j").unwrap();
        assert_eq!(store.remove_orphans(&job, &BTreeSet::new(), Generation(9)).await.unwrap(), OrphanReport::default());
        for path in [
            "state/1-g1-op0-0.state",
            "state/2-g1-op0-0.state",
            "state/3-g2-op0-0.state",
            "state/keep",
            "manifests/1-g1.manifest",
        ] {
            store.put_new(&job, path, Bytes::from_static(b"x")).await.unwrap();
        }
        let staged = directory.path().join("jobs/j/state/4-g1-op0-0.state#1");
        std::fs::write(&staged, b"half").unwrap();
        let named = BTreeSet::from(["state/1-g1-op0-0.state".to_owned()]);
        let report = store.remove_orphans(&job, &named, Generation(2)).await.unwrap();
        assert_eq!(report.deleted, vec!["state/2-g1-op0-0.state", "4-g1-op0-0.state#1", "manifests/1-g1.manifest"]);
        let left = store.list(&job, "state").await.unwrap();
        assert_eq!(left, vec!["state/1-g1-op0-0.state", "state/3-g2-op0-0.state", "state/keep"]);
        assert!(!staged.exists());
    }
}
