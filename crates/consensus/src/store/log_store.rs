//! openraft's view of the file: votes and the log.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::atomic::Ordering;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::Store;
use crate::error::StoreError;
use crate::options::APPEND_BYTES_MAX;
use crate::raft_types::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote};

fn reading(error: StoreError) -> StorageError {
    StorageIOError::read_logs(&error).into()
}

fn writing(error: StoreError) -> StorageError {
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        self.run(move |file| file.entries(bounds, usize::MAX)).await.map_err(reading)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.run(move |file| file.entries(start..end, APPEND_BYTES_MAX)).await.map_err(reading)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let ends = self.run(|file| file.ends()).await.map_err(reading)?;
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.run(move |file| file.set_vote(&vote)).await.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.run(|file| file.vote()).await.map_err(|error| StorageIOError::read_vote(&error).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.run(move |file| file.set_committed(committed)).await.map_err(writing)?;
        self.shared.committed_end.fetch_max(committed.map_or(0, |id| id.index + 1), Ordering::Relaxed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.run(|file| file.committed()).await.map_err(reading)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        match self.run(move |file| file.append(&entries)).await {
            Ok(bytes) => {
                self.shared.log_bytes.fetch_add(bytes, Ordering::Relaxed);
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(writing(error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.run(move |file| file.truncate(log_id.index)).await.map_err(writing)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.run(move |file| file.purge(log_id)).await.map_err(writing)?;
        self.shared.log_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }
}
