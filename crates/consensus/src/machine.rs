//! The caller's state, to which the log is applied. It lives in memory; on disk there is its last snapshot and the log
//! behind that.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use openraft::storage::RaftStateMachine;
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use crate::blocking::run_blocking;
use crate::consensus::Replicated;
use crate::error::StoreError;
use crate::raft_types::{
    Entry, LogId, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership, TypeConfig,
};
use crate::store::{SnapshotRecord, Store};

type Membership = openraft::Membership<u64, BasicNode>;

/// The state and how far it has come.
struct Applied<S> {
    state: S,
    last: Option<LogId>,
    membership: StoredMembership,
}

/// The state, shared by the log that changes it and everybody who reads it.
pub(crate) struct SharedState<S> {
    applied: RwLock<Applied<S>>,
    index: watch::Sender<u64>,
}

impl<S: Replicated> SharedState<S> {
    /// The state as the snapshot has it; empty without one.
    pub(crate) fn restore(snapshot: Option<SnapshotRecord>) -> Result<SharedState<S>, String> {
        let applied = match snapshot {
            Some(snapshot) => Applied::of(&snapshot.meta, &snapshot.bytes)?,
            None => Applied { state: S::default(), last: None, membership: StoredMembership::default() },
        };
        let index = watch::Sender::new(applied.last.map_or(0, |id| id.index));
        Ok(SharedState { applied: RwLock::new(applied), index })
    }

    /// Looks at the state as it is now.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.applied.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// Who belongs to the group, as it is decided: an entry that is only in the log may come to nothing.
    pub(crate) fn membership(&self) -> Membership {
        self.applied.read().unwrap_or_else(PoisonError::into_inner).membership.membership().clone()
    }

    /// The index of the last entry in the state.
    pub(crate) fn index(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// Applies one entry; the answer as JSON, where it is a command. The error is why it cannot be applied.
    fn apply(&self, entry: Entry) -> Result<Option<String>, String> {
        let id = entry.log_id;
        let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
        let answer = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                if let [voters] = membership.get_joint_config().as_slice() {
                    let address = |id: &u64| membership.get_node(id).map(|node| node.addr.clone()).unwrap_or_default();
                    let members: BTreeMap<u64, String> = voters.iter().map(|id| (*id, address(id))).collect();
                    catch_unwind(AssertUnwindSafe(|| applied.state.on_members(&members)))
                        .map_err(|_| "applying it ended by a bug".to_owned())?;
                }
                applied.membership = StoredMembership::new(Some(id), membership);
                None
            }
            EntryPayload::Normal(command) => {
                let command = serde_json::from_str(&command).map_err(|error| {
                    format!("it cannot be understood ({error}); run the newest release on all nodes")
                })?;
                let state = &mut applied.state;
                let reply = catch_unwind(AssertUnwindSafe(|| state.apply(id.index, command)))
                    .map_err(|_| "applying it ended by a bug".to_owned())?;
                Some(serde_json::to_string(&reply).map_err(|error| error.to_string())?)
            }
        };
        applied.last = Some(id);
        Ok(answer)
    }

    fn publish(&self) {
        let last = self.applied.read().unwrap_or_else(PoisonError::into_inner).last;
        self.index.send_replace(last.map_or(0, |id| id.index));
    }

    fn install(&self, installed: Applied<S>) {
        *self.applied.write().unwrap_or_else(PoisonError::into_inner) = installed;
        self.publish();
    }
}

impl<S: Replicated> Applied<S> {
    fn of(meta: &SnapshotMeta, bytes: &[u8]) -> Result<Applied<S>, String> {
        let state = serde_json::from_slice(bytes).map_err(|error| {
            format!("the snapshot cannot be understood ({error}); run the release that wrote it or a newer one")
        })?;
        Ok(Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() })
    }
}

/// openraft's view of the state.
pub(crate) struct Machine<S> {
    pub(crate) shared: Arc<SharedState<S>>,
    pub(crate) store: Store,
}

fn reading(error: &StoreError) -> StorageError {
    StorageIOError::read_snapshot(None, error).into()
}

impl<S: Replicated> Machine<S> {
    /// Makes a snapshot last, then hands it on.
    async fn keep(&self, meta: SnapshotMeta, bytes: Vec<u8>) -> Result<Snapshot, StorageError> {
        let bytes = Arc::new(bytes);
        let (kept_meta, kept) = (meta.clone(), bytes.clone());
        let failed = |error: StoreError| StorageIOError::write_snapshot(Some(meta.signature()), &error);
        self.store.run(move |file| file.set_snapshot(&kept_meta, &kept)).await.map_err(failed)?;
        let bytes = Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.as_ref().clone());
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl<S: Replicated> RaftSnapshotBuilder<TypeConfig> for Machine<S> {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (state, last_log_id, last_membership) = {
            let applied = self.shared.applied.read().unwrap_or_else(PoisonError::into_inner);
            (applied.state.clone(), applied.last, applied.membership.clone())
        };
        let at = last_log_id.map_or_else(|| "empty".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index));
        // Two snapshots of one entry may differ in their bytes, so each has a name of its own.
        let snapshot_id = format!("{at}-{:016x}", rand::random::<u64>());
        let failed = |reason: String| StorageIOError::write_snapshot(None, openraft::AnyError::error(reason));
        // A large state takes a while to write down, and the timers of this runtime must not wait for it.
        let bytes = run_blocking(move || serde_json::to_vec(&state))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        self.keep(SnapshotMeta { last_log_id, last_membership, snapshot_id }, bytes).await
    }
}

impl<S: Replicated> RaftStateMachine<TypeConfig> for Machine<S> {
    type SnapshotBuilder = Machine<S>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.shared.applied.read().unwrap_or_else(PoisonError::into_inner);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<String>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let id = entry.log_id;
            let failed = |reason| StorageIOError::apply(id, openraft::AnyError::error(reason));
            answers.push(self.shared.apply(entry).map_err(failed)?);
        }
        self.shared.publish();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine<S> {
        Machine { shared: self.shared.clone(), store: self.store.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let kept = self.keep(meta.clone(), snapshot.into_inner()).await?.snapshot.into_inner();
        let failed = |reason| StorageIOError::read_snapshot(Some(meta.signature()), openraft::AnyError::error(reason));
        // As in building one: the timers must not wait for a large state.
        let of = meta.clone();
        let parsed = run_blocking(move || Applied::of(&of, &kept)).await;
        self.shared.install(parsed.map_err(|error| failed(error.to_string()))?.map_err(failed)?);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let record = self.store.run(|file| file.snapshot()).await.map_err(|error| reading(&error))?;
        Ok(record.map(|record| Snapshot { meta: record.meta, snapshot: Box::new(Cursor::new(record.bytes)) }))
    }
}
