//! Notices when the last subtask of an attempt here has its state back, and says from where it came.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Deployment;

/// Subtasks that do not have their state back yet.
pub(crate) struct Restoring {
    left: AtomicUsize,
}

impl Restoring {
    /// So many subtasks.
    pub(crate) fn of(subtasks: usize) -> Restoring {
        Restoring { left: AtomicUsize::new(subtasks) }
    }

    /// One of them has it.
    pub(crate) fn done(&self, deployment: &Deployment) {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let (local_bytes, store_bytes) = deployment.metrics.restored();
        if local_bytes + store_bytes > 0 {
            let (job, generation) = (&deployment.job, deployment.generation);
            tracing::info!(%job, %generation, local_bytes, store_bytes, "state restored from local copies and the store");
        }
    }
}
