//! A real nats-server with JetStream, and a client that writes what jobs read and judges what they wrote.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, Info};
use async_nats::jetstream::{self, Context};
use futures::StreamExt;

use super::ports::free_port;
use super::text;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// Messages that are published without waiting.
const BURST: usize = 500;

/// A server of one process, on loopback. Dropping it kills it.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    port: u16,
    options: async_nats::ConnectOptions,
    process: Mutex<Option<Child>>,
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Server {
    /// The server that tests share while any of them runs.
    pub(crate) fn shared() -> Arc<Server> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Server::start("", async_nats::ConnectOptions::new()));
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of one's own, with more lines for its configuration, and how its clients connect.
    pub(crate) fn start(more: &str, options: async_nats::ConnectOptions) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let store = dir.path().join("store");
        let config = format!(
            "listen: 127.0.0.1:{port}\nserver_name: test\nmax_payload: 4MB\njetstream {{ store_dir: '{}' }}\n{more}\n",
            store.display()
        );
        std::fs::write(dir.path().join("server.conf"), config).unwrap();
        let server = Server { dir, port, options, process: Mutex::new(None) };
        server.go();
        server
    }

    /// Starts the process, which must not run.
    pub(crate) fn go(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).args(["-c", "server.conf"]).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // The death of the thread that has started a process counts as that of the parent, so this one never ends.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = sender.send(command.spawn());
            loop {
                std::thread::park();
            }
        });
        let mut child = receiver.recv().unwrap().expect("the server's program runs");
        let begun = Instant::now();
        while !self.answers() {
            let ended = child.try_wait().unwrap().is_some();
            assert!(!ended && begun.elapsed() < PATIENCE, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        *self.process.lock().unwrap() = Some(child);
    }

    fn answers(&self) -> bool {
        // It answers that there is no such stream, once it can answer at all.
        let asked =
            async |jetstream: Context| jetstream.get_stream("NO-SUCH-STREAM").await.err().map(|error| error.kind());
        matches!(self.try_with(asked), Ok(Some(GetStreamErrorKind::JetStream(_))))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn try_with<T>(&self, act: impl AsyncFnOnce(Context) -> T) -> Result<T, async_nats::ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = self.options.clone().connect(self.address()).await?;
            Ok(act(jetstream::new(client)).await)
        })
    }

    /// Does something with a connection.
    pub(crate) fn with<T>(&self, act: impl AsyncFnOnce(Context) -> T) -> T {
        self.try_with(act).unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// Makes a stream of the subjects that begin with its name in small letters.
    pub(crate) fn create(&self, name: &str) {
        self.create_with(name, |config| config);
    }

    pub(crate) fn create_with(&self, name: &str, change: impl FnOnce(Config) -> Config) {
        let subjects = vec![format!("{}.>", name.to_lowercase())];
        let config = change(Config { name: name.to_owned(), subjects, ..Config::default() });
        self.with(async |jetstream| jetstream.create_stream(config).await.unwrap());
    }

    pub(crate) fn delete(&self, name: &str) {
        self.with(async |jetstream| jetstream.delete_stream(name).await.unwrap());
    }

    pub(crate) fn info(&self, name: &str) -> Info {
        self.with(async |jetstream| jetstream.get_stream(name).await.unwrap().cached_info().clone())
    }

    /// Publishes messages, in order.
    pub(crate) fn publish(&self, messages: impl IntoIterator<Item = (String, String)>) {
        self.publish_with(
            messages.into_iter().map(|(subject, payload)| (subject, HeaderMap::new(), payload.into_bytes())),
        );
    }

    pub(crate) fn publish_with(&self, messages: impl IntoIterator<Item = (String, HeaderMap, Vec<u8>)>) {
        self.with(async |jetstream| {
            let mut sent = Vec::new();
            for (subject, headers, payload) in messages {
                sent.push(jetstream.publish_with_headers(subject, headers, payload.into()).await.unwrap());
                if sent.len() >= BURST {
                    for answer in sent.drain(..) {
                        answer.await.unwrap();
                    }
                }
            }
            for answer in sent {
                answer.await.unwrap();
            }
        });
    }

    /// All messages that a stream holds now.
    pub(crate) fn read(&self, name: &str) -> Vec<Stored> {
        self.with(async |jetstream| {
            let stream = jetstream.get_stream(name).await.unwrap();
            let last = stream.cached_info().state.last_sequence;
            let held = stream.cached_info().state.messages;
            let config = Pull { ack_policy: AckPolicy::None, ..Pull::default() };
            let consumer = stream.create_consumer(config).await.unwrap();
            let mut stored: Vec<Stored> = Vec::new();
            while held > 0 && stored.last().is_none_or(|message| message.sequence < last) {
                let mut batch = consumer.fetch().max_messages(BURST).messages().await.unwrap();
                let before = stored.len();
                while let Some(message) = batch.next().await {
                    let message = message.unwrap();
                    let headers = message.headers.as_ref();
                    let header = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
                        (name.to_string(), values.last().unwrap().as_str().to_owned())
                    };
                    stored.push(Stored {
                        sequence: message.info().unwrap().stream_sequence,
                        subject: message.subject.to_string(),
                        payload: text(&message.payload),
                        headers: headers.map(|headers| headers.iter().map(header).collect()).unwrap_or_default(),
                    });
                }
                if stored.len() == before {
                    break;
                }
            }
            stored
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's program.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = directories.map(|directory| directory.join("nats-server")).find(|program| program.exists());
    found.expect("no nats-server is installed; run scripts/install-nats")
}
