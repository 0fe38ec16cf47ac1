//! Writing and reading the state files of one operator of a subtask.

use std::sync::Arc;

use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::StateHandle;
use mainstem_rt::{failpoint, run_blocking};
use mainstem_state::{CheckpointStore, GroupedTable, Origin, StatePiece};

use crate::error::EngineError;
use crate::operator::{Restored, RestoredRows, TableRows};
use crate::uploader::group_rows;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StateFiles {
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) job: JobId,
    pub(crate) generation: Generation,
    pub(crate) operator: OperatorId,
    /// Index of the subtask.
    pub(crate) subtask: u32,
    /// Key groups of the job.
    pub(crate) key_groups: u16,
}

impl StateFiles {
    /// Writes tables as one file, durable on return; none where there are no rows. `part`: see
    /// [`CheckpointStore::write_state`].
    pub(crate) async fn write(
        &self,
        epoch: Epoch,
        part: &str,
        mut tables: Vec<TableRows>,
    ) -> Result<Option<StateHandle>, EngineError> {
        tables.retain(|table| table.rows.iter().any(|rows| rows.num_rows() > 0));
        if tables.is_empty() {
            return Ok(None);
        }
        let key_groups = self.key_groups;
        let group = move || tables.into_iter().map(|table| group_rows(table, key_groups)).collect::<Result<_, _>>();
        let grouped = run_blocking(group).await;
        let tables: Vec<GroupedTable> =
            grouped.map_err(|e| EngineError::Bug(format!("sorting a checkpoint: {e}")))??;
        self.write_grouped(epoch, part, tables).await
    }

    /// The same of tables in the order of the file.
    pub(crate) async fn write_grouped(
        &self,
        epoch: Epoch,
        part: &str,
        tables: Vec<GroupedTable>,
    ) -> Result<Option<StateHandle>, EngineError> {
        if tables.iter().all(GroupedTable::is_empty) {
            return Ok(None);
        }
        let (generation, operator, subtask) = (self.generation, self.operator, self.subtask);
        failpoint::slow(failpoint::STATE_WRITE).await;
        let written = self.store.write_state(&self.job, generation, epoch, operator, subtask, part, tables).await?;
        Ok(Some(written))
    }

    /// What a file has for the key groups of its handle, as it lies there.
    pub(crate) async fn piece(&self, handle: &StateHandle) -> Result<StatePiece, EngineError> {
        Ok(self.store.read_state_piece(&self.job, handle).await?)
    }

    /// The rows of a file for the key groups of its handle, how many bytes were read, and where.
    pub(crate) async fn read(&self, handle: StateHandle) -> Result<(Restored, u64, Origin), EngineError> {
        let StatePiece { blocks, bytes, origin } = self.piece(&handle).await?;
        let tables = blocks.into_iter().map(RestoredRows::Block).collect();
        Ok((Restored { handle, tables }, bytes, origin))
    }

    /// Deletes a file that no checkpoint names. One that stays is removed by the next attempt.
    pub(crate) async fn delete(&self, path: &str) {
        if let Err(error) = self.store.delete(&self.job, path).await {
            tracing::info!(job = %self.job, path, %error, "a state file of no use stays until the next attempt");
        }
    }
}
