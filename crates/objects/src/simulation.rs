//! A store in memory that does what services do on bad days, as a test tells it: answers that are lost after the
//! operation took place, conflicts without a cause, overload, delay. And a way to put any store in the place of a bucket.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

thread_local! {
    static MOUNTED: RefCell<BTreeMap<String, Arc<dyn ObjectStore>>> = const { RefCell::new(BTreeMap::new()) };
}

/// From here on [`Objects::open`](crate::Objects::open) of a URL with this bucket gives this store, on this thread.
pub fn mount(bucket: &str, objects: Arc<dyn ObjectStore>) {
    MOUNTED.with_borrow_mut(|mounted| mounted.insert(bucket.to_owned(), objects));
}

/// What was put in the place of the bucket.
pub(crate) fn mounted(bucket: &str) -> Option<Arc<dyn ObjectStore>> {
    MOUNTED.with_borrow(|mounted| mounted.get(bucket).cloned())
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes place, and the answer is lost.
    LostAnswer,
    /// It does not take place: 503.
    Overload,
    /// It does not take place: 409, which the client takes for "exists already".
    Conflict,
    /// It does not take place: 403.
    Denied,
    /// It takes place after a while.
    Delay(Duration),
    /// Nothing happens to it.
    None,
}

/// Which operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing an object.
    Put,
    /// Reading one, or looking at it.
    Get,
    /// Copying one.
    Copy,
    /// Beginning an upload in parts.
    Multipart,
}

/// See the module.
#[derive(Debug, Default)]
pub struct FaultyStore {
    inner: InMemory,
    /// In order, for the next operations of each kind.
    faults: Mutex<VecDeque<(Operation, Fault)>>,
    calls: Mutex<Vec<(Operation, String)>>,
}

impl FaultyStore {
    /// What happens to the next operation of a kind for which nothing is planned yet.
    pub fn plan(&self, operation: Operation, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push_back((operation, fault));
    }

    /// How many operations of a kind there were.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(of, _)| *of == operation).count()
    }

    /// What happens now; an error where the operation does not take place.
    async fn begin(&self, operation: Operation, path: &Path) -> Result<Fault> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((operation, path.to_string()));
        let fault = {
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            let position = faults.iter().position(|(of, _)| *of == operation);
            position.and_then(|position| faults.remove(position)).map_or(Fault::None, |(_, fault)| fault)
        };
        let path = path.to_string();
        match fault {
            Fault::Overload => Err(broken("503 Service Unavailable")),
            Fault::Conflict => {
                Err(Error::AlreadyExists { path, source: "status code: 409 <Code>OperationAborted</Code>".into() })
            }
            Fault::Denied => Err(Error::PermissionDenied {
                path,
                source: "status code: 403 <Code>AccessDenied</Code><Message>Access Denied</Message>".into(),
            }),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(fault)
            }
            Fault::LostAnswer | Fault::None => Ok(fault),
        }
    }
}

fn broken(what: &str) -> Error {
    Error::Generic { store: "faulty", source: format!("status code: {what}").into() }
}

fn end<T>(fault: Fault, result: Result<T>) -> Result<T> {
    if fault == Fault::LostAnswer && result.is_ok() { Err(broken("none, the connection was reset")) } else { result }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.begin(Operation::Put, location).await?;
        end(fault, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.begin(Operation::Multipart, location).await?;
        end(fault, self.inner.put_multipart_opts(location, options).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.begin(Operation::Get, location).await?;
        end(fault, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.begin(Operation::Copy, to).await?;
        end(fault, self.inner.copy_opts(from, to, options).await)
    }
}
