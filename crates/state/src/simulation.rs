//! Lets a simulation put an object store of its own in the place of a directory, for the code of its thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;

thread_local! {
    static MOUNTED: RefCell<BTreeMap<PathBuf, Arc<dyn ObjectStore>>> = const { RefCell::new(BTreeMap::new()) };
}

/// From here on [`CheckpointStore::local`](crate::CheckpointStore::local) of this directory gives this store.
pub fn mount(directory: impl Into<PathBuf>, objects: Arc<dyn ObjectStore>) {
    MOUNTED.with_borrow_mut(|mounted| mounted.insert(directory.into(), objects));
}

/// What was put in the place of the directory.
pub(crate) fn mounted(directory: &Path) -> Option<Arc<dyn ObjectStore>> {
    MOUNTED.with_borrow(|mounted| mounted.get(directory).cloned())
}
