//! Opening a store. Nothing is asked of the service yet: only what the environment and the URL say is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    StaticCredentialProvider,
};

use crate::answers::Impatient;
use crate::error::{ObjectError, ObjectErrorKind};
use crate::pieces::checksum_of;
use crate::url::{ObjectUrl, Scheme};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of a request that may be repeated as it is: the service is overloaded (429, 503), broken (5xx) or gone.
const RETRIES_MAX: usize = 8;
/// No further try begins so long after the first.
const RETRY_WITHIN: Duration = Duration::from_secs(35);
/// How often an object is read whole from its beginning: what breaks off cannot be gone on with once it is another version.
const READS_MAX: usize = 3;
/// The first wait; the next ones are drawn between it and twice the one before, up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The objects below a URL. Keys are relative to it. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The whole bucket, where it can say which uploads have begun.
    pub(crate) s3: Option<Arc<AmazonS3>>,
    url: ObjectUrl,
}

/// Who uses an S3 store, where it is not who the environment says.
#[derive(Clone)]
pub struct Credentials {
    /// The name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
    /// What comes with a temporary one.
    pub session_token: Option<String>,
}

/// Shows nothing.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Which content of an object is meant. Some stores tell by a tag, others by a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub(crate) tag: Option<String>,
    pub(crate) number: Option<String>,
}

impl Version {
    /// One whose tag was noted before.
    #[must_use]
    pub fn of(tag: String) -> Version {
        Version { tag: Some(tag), number: None }
    }

    /// The tag, to be noted.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    fn found(meta: &ObjectMeta) -> Version {
        Version { tag: meta.e_tag.clone(), number: meta.version.clone() }
    }
}

impl Objects {
    /// Opens the store of a URL, by the environment's credentials.
    ///
    /// # Errors
    /// What of the URL or of the environment makes no sense. Whether the service is there shows at the first use.
    pub fn open(url: &ObjectUrl) -> Result<Objects, ObjectError> {
        Objects::open_as(url, None)
    }

    /// The same, by other credentials.
    pub fn open_as(url: &ObjectUrl, credentials: Option<&Credentials>) -> Result<Objects, ObjectError> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(bucket) = crate::simulation::mounted(&url.bucket) {
            return Objects::over(bucket, url);
        }
        // Others may have chosen it before, which is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let failed = |error: object_store::Error| ObjectError {
            kind: ObjectErrorKind::Refused,
            message: format!("cannot open '{}': {}", url.shown(), ObjectError::of(url, &error).message),
        };
        let bucket: Arc<dyn ObjectStore> = match url.scheme {
            Scheme::S3 => {
                let bucket = Arc::new(s3(url, credentials).build().map_err(failed)?);
                let objects = Objects::over(bucket.clone(), url)?;
                return Ok(Objects { s3: Some(bucket), ..objects });
            }
            _ if credentials.is_some() => {
                return Err(ObjectError::refused("only s3:// takes an access key; others use the environment"));
            }
            Scheme::Gcs => Arc::new(gcs(url).build().map_err(failed)?),
            Scheme::Azure => Arc::new(azure(url).build().map_err(failed)?),
        };
        Objects::over(bucket, url)
    }

    /// The objects of a bucket that is open already, below the URL's key.
    ///
    /// # Errors
    /// Where the key is none.
    pub fn over(bucket: Arc<dyn ObjectStore>, url: &ObjectUrl) -> Result<Objects, ObjectError> {
        let prefix = Path::parse(url.key()).map_err(|error| ObjectError::refused(error.to_string()))?;
        let store: Arc<dyn ObjectStore> =
            if url.key().is_empty() { bucket } else { Arc::new(PrefixStore::new(bucket, prefix)) };
        Ok(Objects { store, s3: None, url: url.clone() })
    }

    /// The objects below a key of these.
    ///
    /// # Errors
    /// Where the key is none.
    pub fn below(&self, key: &str) -> Result<Objects, ObjectError> {
        let prefix = self.path(key)?;
        let store = Arc::new(PrefixStore::new(self.store.clone(), prefix));
        Ok(Objects { store, s3: self.s3.clone(), url: self.url.join(key) })
    }

    /// Where they lie.
    #[must_use]
    pub fn url(&self) -> &ObjectUrl {
        &self.url
    }

    /// An object as messages name it.
    #[must_use]
    pub fn shown(&self, key: &str) -> String {
        self.url.join(key).shown()
    }

    /// The store itself, with keys relative to the URL.
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// Size in bytes and version of an object; none where there is none.
    pub async fn look(&self, key: &str) -> Result<Option<(u64, Version)>, ObjectError> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some((meta.size, Version::found(&meta)))),
            Err(error) => absent(self.error(&error)),
        }
    }

    /// All of an object, with its version; none where there is none.
    pub async fn read(&self, key: &str) -> Result<Option<(Bytes, Version)>, ObjectError> {
        let path = self.path(key)?;
        let mut reads = 1;
        loop {
            let found = match self.store.get(&path).await {
                Ok(found) => found,
                Err(error) => return absent(self.error(&error)),
            };
            let version = Version::found(&found.meta);
            match found.bytes().await.map_err(|error| self.error(&error)) {
                Ok(bytes) => return Ok(Some((bytes, version))),
                Err(error) if error.is_transient() && reads < READS_MAX => reads += 1,
                Err(error) => return absent(error),
            }
        }
    }

    /// The bytes of an object from `start` on, at most `length`, if it is still that version.
    ///
    /// # Errors
    /// [`ObjectErrorKind::Condition`] where it is another one.
    pub async fn read_range(
        &self,
        key: &str,
        start: u64,
        length: u64,
        version: Option<&Version>,
    ) -> Result<Bytes, ObjectError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..start.saturating_add(length))),
            if_match: version.and_then(|version| version.tag.clone()),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&self.path(key)?, options).await.map_err(|error| self.error(&error))?;
        found.bytes().await.map_err(|error| self.error(&error))
    }

    /// The CRC-32C of an object, which is read a piece at a time; none where there is none.
    pub async fn checksum(&self, key: &str) -> Result<Option<(u64, u32)>, ObjectError> {
        let found = match self.store.get(&self.path(key)?).await {
            Ok(found) => found,
            Err(error) => return absent(self.error(&error)),
        };
        checksum_of(found).await.map(Some).map_err(|error| self.error(&error))
    }

    /// Removes an object; one that is not there counts as removed.
    pub async fn remove(&self, key: &str) -> Result<(), ObjectError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) => Ok(()),
            Err(error) => match self.error(&error) {
                error if error.kind == ObjectErrorKind::Missing => Ok(()),
                error => Err(error),
            },
        }
    }

    /// The objects below a key and its `/`, in the order of their keys; at most `most` and one more.
    pub async fn list(&self, below: &str, most: usize) -> Result<Vec<(String, ObjectMeta)>, ObjectError> {
        let prefix = self.path(below)?;
        let mut found = Vec::new();
        let mut listed = self.store.list((!below.is_empty()).then_some(&prefix));
        while let Some(meta) = listed.try_next().await.map_err(|error| self.error(&error))? {
            found.push((meta.location.as_ref().to_owned(), meta));
            if found.len() > most {
                break;
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The names right below a key: first those that have objects below them, then objects.
    pub async fn names(&self, below: &str) -> Result<(Vec<String>, Vec<String>), ObjectError> {
        let prefix = self.path(below)?;
        let prefix = (!below.is_empty()).then_some(&prefix);
        let found = self.store.list_with_delimiter(prefix).await.map_err(|error| self.error(&error))?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        Ok((
            found.common_prefixes.iter().map(name).collect(),
            found.objects.iter().map(|meta| name(&meta.location)).collect(),
        ))
    }

    /// What a store said.
    #[must_use]
    pub fn error(&self, error: &object_store::Error) -> ObjectError {
        ObjectError::of(&self.url, error)
    }

    pub(crate) fn path(&self, key: &str) -> Result<Path, ObjectError> {
        Path::parse(key).map_err(|error| ObjectError::refused(format!("'{key}' is no key of an object: {error}")))
    }
}

/// No secret is among what is shown.
impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url.shown()).finish()
    }
}

/// Turns an error that says that there is nothing into nothing.
fn absent<T>(error: ObjectError) -> Result<Option<T>, ObjectError> {
    if error.kind == ObjectErrorKind::Missing { Ok(None) } else { Err(error) }
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: RETRY_FIRST, max_backoff: RETRY_LONGEST, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_WITHIN }
}

fn client(plain: bool) -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout_disabled().with_allow_http(plain)
}

/// Whoever writes `http://` means it.
fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn s3(url: &ObjectUrl, credentials: Option<&Credentials>) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&url.bucket)
        .with_retry(retries())
        .with_http_connector(Impatient::default());
    if let Some(Credentials { access_key, secret_key, session_token }) = credentials {
        let provided =
            AwsCredential { key_id: access_key.clone(), secret_key: secret_key.clone(), token: session_token.clone() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(provided)));
    }
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = url.parameter("region") {
        builder = builder.with_region(region);
    }
    if let Some(choice) = url.parameter("virtual-hosted") {
        builder = builder.with_config(AmazonS3ConfigKey::VirtualHostedStyleRequest, choice);
    }
    let keys = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = keys.iter().find_map(|key| builder.get_config_value(key));
    builder.with_client_options(client(is_plain(endpoint.as_deref())))
}

fn gcs(url: &ObjectUrl) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&url.bucket)
        .with_retry(retries())
        .with_http_connector(Impatient::default());
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    builder.with_client_options(client(is_plain(url.parameter("endpoint"))))
}

fn azure(url: &ObjectUrl) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&url.bucket)
        .with_retry(retries())
        .with_http_connector(Impatient::default());
    if let Some(account) = url.parameter("account") {
        builder = builder.with_config(AzureConfigKey::AccountName, account);
    }
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    builder.with_client_options(client(is_plain(endpoint.as_deref())))
}
