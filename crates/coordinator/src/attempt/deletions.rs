//! Checkpoint files that nothing needs any more, deleted beside everything else: one batch at a time, and what
//! comes meanwhile waits.

use std::collections::BTreeSet;

use mainstem_core::ids::{Generation, JobId};
use mainstem_state::CheckpointStore;

/// Files that may wait; what comes beyond is handed back and comes again with later ones.
const WAITING_MAX: usize = 10_000;

/// What is being deleted and what waits for it.
#[derive(Default)]
pub(super) struct Deletions {
    waiting: Vec<String>,
    running: bool,
}

impl Deletions {
    /// Takes paths; gives back those for which there is no room.
    pub(super) fn add(&mut self, mut paths: Vec<String>) -> Vec<String> {
        let room = WAITING_MAX.saturating_sub(self.waiting.len());
        let refused = paths.split_off(room.min(paths.len()));
        self.waiting.append(&mut paths);
        refused
    }

    /// The next batch, unless one runs or nothing waits. Report its end by [`Deletions::done`].
    pub(super) fn next(&mut self) -> Option<Vec<String>> {
        if self.running || self.waiting.is_empty() {
            return None;
        }
        self.running = true;
        Some(std::mem::take(&mut self.waiting))
    }

    /// A batch runs that was not given by [`Deletions::next`], before any that was. Its end is told as that of others.
    pub(super) fn begin(&mut self) {
        self.running = true;
    }

    /// The batch that ran has ended.
    pub(super) fn done(&mut self) {
        self.running = false;
    }

    /// Whether nothing runs and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        !self.running && self.waiting.is_empty()
    }
}

/// Deletes files; gives those that are still there.
pub(super) async fn delete(store: &CheckpointStore, job: &JobId, paths: Vec<String>) -> Vec<String> {
    let mut failed = Vec::new();
    for path in paths {
        if let Err(error) = store.delete(job, &path).await {
            tracing::warn!(%job, path, %error, "checkpoint file cannot be deleted");
            failed.push(path);
        }
    }
    failed
}

/// Deletes manifests that coordinators before have left, see [`CheckpointStore::left_manifests`]; gives those that are still
/// there.
pub(super) async fn delete_left(
    store: &CheckpointStore,
    job: &JobId,
    named: &BTreeSet<String>,
    generation: Generation,
    adoptions: u32,
) -> Vec<String> {
    match store.left_manifests(job, named, generation, adoptions).await {
        Ok(left) => delete(store, job, left).await,
        Err(error) => {
            tracing::info!(%job, %error, "manifests that are left stay until the next attempt or leader");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_at_a_time_and_never_too_many() {
        let mut deletions = Deletions::default();
        assert_eq!(deletions.add(vec!["a".to_owned()]), Vec::<String>::new());
        assert_eq!(deletions.next(), Some(vec!["a".to_owned()]));
        deletions.add(vec!["b".to_owned(), "c".to_owned()]);
        assert_eq!((deletions.next(), deletions.is_idle()), (None, false));
        deletions.done();
        assert_eq!(deletions.next(), Some(vec!["b".to_owned(), "c".to_owned()]));
        let many = (0..=WAITING_MAX).map(|n| n.to_string()).collect();
        assert_eq!(deletions.add(many), vec![WAITING_MAX.to_string()]);
        deletions.done();
        assert_eq!(deletions.next().map(|batch| batch.len()), Some(WAITING_MAX));
        deletions.done();
        assert!(deletions.is_idle());
    }
}
