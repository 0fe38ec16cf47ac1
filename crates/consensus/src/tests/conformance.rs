//! What openraft expects of every storage, as its own suite has it.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};

use super::Lines;
use crate::disk::Disk;
use crate::machine::{Machine, SharedState};
use crate::raft_types::{StorageError, TypeConfig};
use crate::store::{LogFile, Store};

struct InMemory;

impl StoreBuilder<TypeConfig, Store, Machine<Lines>> for InMemory {
    async fn build(&self) -> Result<((), Store, Machine<Lines>), StorageError> {
        let file = LogFile::open_backend(Disk::default()).expect("a new file");
        let store = Store::over(file, "disk".into()).expect("a thread");
        let shared = Arc::new(SharedState::restore(None).expect("nothing to read"));
        Ok(((), store.clone(), Machine { shared, store }))
    }
}

#[test]
fn the_storage_is_what_raft_expects() {
    Suite::test_all(InMemory).expect("every test of the suite passes");
}
