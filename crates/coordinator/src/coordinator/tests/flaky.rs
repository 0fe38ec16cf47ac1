//! A store whose writes of manifests fail as often as the test wants, the last time after the bytes have
//! reached the disk.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::world::World;

#[derive(Debug)]
pub(super) struct FlakyStore {
    pub(super) inner: LocalFileSystem,
    pub(super) world: Arc<Mutex<World>>,
}

impl fmt::Display for FlakyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky store")
    }
}

#[async_trait]
impl ObjectStore for FlakyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let left = {
            let mut world = self.world.lock().unwrap();
            let fails = location.as_ref().contains("/manifests/") && world.failing_manifests > 0;
            world.failing_manifests -= u32::from(fails);
            fails.then_some(world.failing_manifests)
        };
        let Some(left) = left else { return self.inner.put_opts(location, payload, options).await };
        if left == 0 {
            self.inner.put_opts(location, payload, options).await?;
        }
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(Error::Generic { store: "flaky", source: Box::new(source) })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
