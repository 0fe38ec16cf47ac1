//! A real S3 server, which keeps its objects on disk and can be stopped and started again, and a client that judges what is in it.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use mainstem_objects::{ObjectUrl, Objects};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::ports::free_port;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);
const BUCKET: &str = "tests";
/// A word that must be found nowhere.
pub(crate) const SECRET: &str = "canary-6f1b2e";

/// A server of one process, on loopback. Dropping it kills it.
pub(crate) struct S3 {
    dir: tempfile::TempDir,
    port: u16,
    process: Mutex<Option<Child>>,
    runtime: Runtime,
    bucket: AmazonS3,
}

impl S3 {
    /// The server that tests share while any of them runs.
    pub(crate) fn shared() -> Arc<S3> {
        static SHARED: Mutex<Weak<S3>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(S3::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of one's own.
    pub(crate) fn start() -> S3 {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        // Chooses the provider of cryptography, without which no client is made.
        Objects::open(&ObjectUrl::parse("s3://any").unwrap().unwrap()).unwrap();
        let bucket = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_access_key_id("judge")
            .with_secret_access_key("judge")
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = S3 { dir, port, process: Mutex::new(None), runtime, bucket };
        server.go();
        server
    }

    /// Starts the process, which must not run.
    pub(crate) fn go(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let setting = |name: &str, value: String| format!("--com.adobe.testing.s3mock.{name}={value}");
        let objects = self.dir.path().join("objects");
        std::fs::create_dir_all(&objects).unwrap();
        let mut command = Command::new("java");
        // It leaves what it has received where temporary files go.
        command.arg(format!("-Djava.io.tmpdir={}", self.dir.path().display()));
        command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-jar"]).arg(jar());
        command.args([
            setting("httpPort", self.port.to_string()),
            setting("store.root", objects.display().to_string()),
            setting("store.retainFilesOnExit", "true".to_owned()),
            setting("store.initialBuckets", BUCKET.to_owned()),
            format!("--server.port={}", free_port()),
        ]);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("java runs");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait().unwrap().is_some();
            assert!(!ended && begun.elapsed() < PATIENCE, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        *self.process.lock().unwrap() = Some(child);
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends the process, by a signal that lets it bring its own books to an end: they do not survive SIGKILL.
    pub(crate) fn stop(&self) {
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
            child.wait().unwrap();
        }
    }

    /// A place in the server's bucket.
    pub(crate) fn url(&self, key: &str) -> String {
        format!("s3://{BUCKET}/{key}")
    }

    /// What processes must be told to find the server.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            of("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", self.port)),
            of("AWS_REGION", "us-east-1"),
            of("AWS_ACCESS_KEY_ID", "mainstem"),
            of("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }

    /// The keys below a key, in order.
    pub(crate) fn keys(&self, below: &str) -> Vec<String> {
        let prefix = ObjectPath::parse(below).unwrap();
        let found: Vec<_> = self.runtime.block_on(self.bucket.list(Some(&prefix)).try_collect()).unwrap();
        let mut keys: Vec<String> = found.iter().map(|meta| meta.location.as_ref().to_owned()).collect();
        keys.sort();
        keys
    }

    pub(crate) fn get(&self, key: &str) -> Bytes {
        let path = ObjectPath::parse(key).unwrap();
        self.runtime.block_on(async { self.bucket.get(&path).await.unwrap().bytes().await.unwrap() })
    }

    pub(crate) fn put(&self, key: &str, content: impl Into<Bytes>) {
        let path = ObjectPath::parse(key).unwrap();
        self.runtime.block_on(self.bucket.put(&path, content.into().into())).unwrap();
    }

    /// Begins an upload in parts, as a process does that dies before its end.
    pub(crate) fn begin_upload(&self, key: &str) -> String {
        let path = ObjectPath::parse(key).unwrap();
        self.runtime.block_on(self.bucket.create_multipart(&path)).unwrap()
    }

    /// Whether the upload still takes parts.
    pub(crate) fn has_upload(&self, key: &str, id: &str) -> bool {
        let path = ObjectPath::parse(key).unwrap();
        self.runtime.block_on(self.bucket.put_part(&path, &id.to_owned(), 0, "part".into())).is_ok()
    }

    /// The lines of all objects below a key that are not hidden, with how often each occurs.
    pub(crate) fn lines(&self, below: &str) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for key in self.keys(below).iter().filter(|key| !is_hidden(key)) {
            for line in super::text(&self.get(key)).lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
        lines
    }
}

/// Whether any part of a key is what readers pass over.
pub(crate) fn is_hidden(key: &str) -> bool {
    key.split('/').any(|part| part.starts_with(['.', '_']))
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The server's program, which the repository's script fetches.
fn jar() -> &'static Path {
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-s3");
        let output = Command::new(script).output().expect("the script runs");
        let said = super::text(&output.stdout);
        assert!(output.status.success(), "no S3 server: {said}{}", super::text(&output.stderr));
        PathBuf::from(said.lines().last().unwrap().trim_start_matches(['\u{1b}', '[', '0', 'm']))
    })
}
