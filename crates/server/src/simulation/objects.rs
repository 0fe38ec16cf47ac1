//! The object store of the simulated world: fails before or after the effect, is slow, full, or out of some host's reach.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::weather::{Fate, Weather};

/// The object store.
#[derive(Clone)]
pub(super) struct Objects {
    inner: Arc<InMemory>,
    weather: Weather,
}

impl Objects {
    pub(super) fn new(weather: Weather) -> Objects {
        Objects { inner: Arc::default(), weather }
    }

    /// Waits as the call does, and fails where it has no effect; gives whether its answer is lost.
    async fn call(&self, writes: bool) -> Result<bool> {
        let (fate, latency) = self.weather.fate(|state| &state.store, writes);
        tokio::time::sleep(latency).await;
        match fate {
            Fate::Succeeds => Ok(false),
            Fate::SeemsToFail => {
                self.weather.count("lost answers of the store");
                Ok(true)
            }
            Fate::Fails => Err(failed(io::ErrorKind::ConnectionReset)),
            Fate::TimesOut => Err(failed(io::ErrorKind::TimedOut)),
            Fate::Full => {
                self.weather.count("writes to a full store");
                Err(failed(io::ErrorKind::StorageFull))
            }
        }
    }
}

fn failed(kind: io::ErrorKind) -> Error {
    Error::Generic { store: "simulated", source: Box::new(io::Error::from(kind)) }
}

/// The outcome of a call, unless its answer is lost.
fn answer<T>(is_lost: bool, outcome: Result<T>) -> Result<T> {
    if is_lost { Err(failed(io::ErrorKind::TimedOut)) } else { outcome }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_lost = self.call(true).await?;
        answer(is_lost, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let is_lost = self.call(true).await?;
        answer(is_lost, self.inner.put_multipart_opts(location, options).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_lost = self.call(false).await?;
        answer(is_lost, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let objects = self.clone();
        let deleted = locations.then(move |location| {
            let objects = objects.clone();
            async move {
                let location = location?;
                let is_lost = objects.call(false).await?;
                answer(is_lost, objects.inner.delete(&location).await.map(|()| location))
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (objects, prefix) = (self.clone(), prefix.cloned());
        let listed = futures::stream::once(async move {
            match objects.call(false).await {
                Ok(false) => objects.inner.list(prefix.as_ref()),
                Ok(true) => futures::stream::iter([Err(failed(io::ErrorKind::TimedOut))]).boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            }
        });
        listed.flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let is_lost = self.call(false).await?;
        answer(is_lost, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let is_lost = self.call(true).await?;
        answer(is_lost, self.inner.copy_opts(from, to, options).await)
    }
}
