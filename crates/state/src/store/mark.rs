//! A sign in each job's directory that it is the one in which the job's checkpoints were written. A store whose disk
//! is not mounted looks like an empty one, in which every checkpoint is missing; without the sign nobody could tell.

use bytes::Bytes;
use mainstem_core::ids::{Generation, JobId};

use super::CheckpointStore;
use crate::error::StateError;

/// Where signs lie, relative to the job's directory.
pub(super) const DIRECTORY: &str = "store";

impl CheckpointStore {
    /// Whether what the job has written can be here: there is a sign, or, where an older version made the directory,
    /// any file at all.
    pub async fn is_in_place(&self, job: &JobId) -> Result<bool, StateError> {
        for directory in [DIRECTORY, "manifests", "state"] {
            if !self.list(job, directory).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves the sign, where there is none, by an attempt of the job.
    pub async fn mark(&self, job: &JobId, generation: Generation) -> Result<(), StateError> {
        if !self.list(job, DIRECTORY).await?.is_empty() {
            return Ok(());
        }
        let path = format!("{DIRECTORY}/0-g{generation}.mark");
        self.put_new(job, &path, Bytes::from_static(b"checkpoints of this job are kept here\n")).await
    }

    /// Where the job's checkpoints lie, for messages.
    #[must_use]
    pub fn place_of(&self, job: &JobId) -> String {
        self.shown(job, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_directory_is_told_from_the_one_that_was_used() {
        let directory = tempfile::tempdir().unwrap();
        let store = CheckpointStore::local(directory.path()).unwrap();
        let job = JobId::new("j").unwrap();
        assert!(!store.is_in_place(&job).await.unwrap());
        for generation in [3, 4] {
            store.mark(&job, Generation(generation)).await.unwrap();
        }
        assert_eq!(store.list(&job, DIRECTORY).await.unwrap(), vec!["store/0-g3.mark"]);
        assert!(store.is_in_place(&job).await.unwrap());
        store.delete_up_to(&job, Generation(2)).await.unwrap();
        assert!(store.is_in_place(&job).await.unwrap());
        store.delete_up_to(&job, Generation(3)).await.unwrap();
        assert!(!directory.path().join("jobs/j").exists());
    }
}
