//! The files that sinks stage until their epoch is complete, in the job's checkpoint store: there every worker and every
//! coordinator reaches them. Used by sinks here and by committers beside the coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use mainstem_connectors::{ConnectorError, ErrorKind, Staging, StagingStore};
use mainstem_core::ids::JobId;
use mainstem_state::{CheckpointStore, STAGED_DIRECTORY, StateError};

/// The staged files of a job.
#[must_use]
pub fn staging(store: Arc<CheckpointStore>, job: JobId) -> Staging {
    Staging::new(Arc::new(StagedInStore { store, job }))
}

#[derive(Debug)]
struct StagedInStore {
    store: Arc<CheckpointStore>,
    job: JobId,
}

#[async_trait]
impl StagingStore for StagedInStore {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ConnectorError> {
        self.store.put_new(&self.job, &path(name), bytes).await.map_err(|error| failed(&error))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, ConnectorError> {
        match self.store.get(&self.job, &path(name)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StateError::Missing { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), ConnectorError> {
        self.store.delete(&self.job, &path(name)).await.map_err(|error| failed(&error))
    }

    async fn list(&self) -> Result<Vec<String>, ConnectorError> {
        let paths = self.store.list(&self.job, STAGED_DIRECTORY).await.map_err(|error| failed(&error))?;
        let name = |path: String| path.rsplit('/').next().map(str::to_owned);
        Ok(paths.into_iter().filter_map(name).collect())
    }
}

fn path(name: &str) -> String {
    format!("{STAGED_DIRECTORY}/{name}")
}

fn failed(error: &StateError) -> ConnectorError {
    let kind = if error.is_retryable() { ErrorKind::Transient } else { ErrorKind::External };
    ConnectorError::new(kind, error.to_string())
}
