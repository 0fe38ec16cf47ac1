//! A real schema registry (Apicurio, by Confluent's protocol), and requests to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kafka::spawn;
use super::ports::free_port;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/apis/ccompat/v7";

/// A registry of one process, on loopback, which keeps everything in memory. Dropping it kills it.
pub(crate) struct Registry {
    dir: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Registry {
    /// The registry that tests share while any of them runs.
    pub(crate) fn shared() -> Arc<Registry> {
        static SHARED: Mutex<Weak<Registry>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = shared.upgrade() {
            return registry;
        }
        let registry = Arc::new(Registry::start());
        *shared = Arc::downgrade(&registry);
        registry
    }

    /// A registry of one's own.
    pub(crate) fn start() -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["-Dquarkus.http.host=127.0.0.1".to_owned(), format!("-Dquarkus.http.port={port}")]);
        command.arg(format!("-Djava.io.tmpdir={}", dir.path().display()));
        command.arg("-jar").arg(jar()).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut registry = Registry { dir, port, process: spawn(command) };
        let begun = Instant::now();
        while registry.ask("GET", "/subjects", None).is_none_or(|(status, _)| status != 200) {
            let ended = registry.process.try_wait().unwrap().is_some();
            assert!(!ended && begun.elapsed() < PATIENCE, "the registry does not start:\n{}", registry.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        registry
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its address, for the option `url`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// A request's status and answer; none where nobody answers yet.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {PATH}{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    /// Registers an Avro schema and gives its id.
    pub(crate) fn register(&self, subject: &str, schema: &Value) -> u32 {
        let body = json!({ "schema": schema.to_string() });
        let (status, answer) = self.ask("POST", &format!("/subjects/{subject}/versions"), Some(&body)).unwrap();
        assert_eq!(status, 200, "{answer}");
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    }

    /// The newest schema of a subject: its text and its kind.
    pub(crate) fn newest(&self, subject: &str) -> (String, String) {
        let (status, answer) = self.ask("GET", &format!("/subjects/{subject}/versions/latest"), None).unwrap();
        assert_eq!(status, 200, "{answer}");
        (answer["schema"].as_str().unwrap().to_owned(), answer["schemaType"].as_str().unwrap_or("AVRO").to_owned())
    }

    /// What schemas of a subject must be to those before them.
    pub(crate) fn require(&self, subject: &str, compatibility: &str) {
        let body = json!({ "compatibility": compatibility });
        let (status, answer) = self.ask("PUT", &format!("/config/{subject}"), Some(&body)).unwrap();
        assert_eq!(status, 200, "{answer}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, fetched if it is not there.
fn jar() -> &'static Path {
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-registry");
        let output = Command::new(script).output().expect("scripts/install-registry runs");
        assert!(output.status.success(), "the registry cannot be installed: {}", super::text(&output.stderr));
        let said = super::text(&output.stdout);
        let directory = Path::new(said.lines().last().expect("the directory of the jars"));
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_string_lossy().ends_with("-runner.jar")).expect("a program")
    })
}
