//! A Redis server of a test's own: data in a temporary directory, a free port on loopback, stopped with the test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::ports::free_port;

/// A server that has not started by then never will.
const START_MAX: Duration = Duration::from_secs(180);
/// Not like anything that could stand in a file by chance.
pub(crate) const PASSWORD: &str = "pw-71d03c-SECRET";

/// See the module.
pub(crate) struct Redis {
    data: tempfile::TempDir,
    pub(crate) port: u16,
    /// Settings beyond those that all servers have.
    settings: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// A server that answers, and keeps what it has confirmed.
    pub(crate) fn start() -> Redis {
        Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with other settings.
    pub(crate) fn start_with(settings: &[&str]) -> Redis {
        let port = free_port();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Redis { data: tempfile::tempdir().unwrap(), port, settings, process: None };
        server.go_on();
        server
    }

    /// Starts a server that was killed.
    pub(crate) fn go_on(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(program());
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.args(["--requirepass", PASSWORD, "--dir"]).arg(self.data.path()).args(&self.settings);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while self.try_ask::<String>(&["PING"]).is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(ended.is_none(), "the server has ended: {}", log());
            assert!(begun.elapsed() < START_MAX, "the server does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server in the middle of what it does.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("log")
    }

    /// The options by which a table is declared, with the password in the file `password`.
    pub(crate) fn options(&self) -> String {
        format!("'connector' = 'redis', 'url' = 'redis://127.0.0.1:{}', 'password' = '${{file:password}}'", self.port)
    }

    /// The answer to a command.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    pub(crate) fn try_ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query(&mut connection)
    }

    /// All hashes whose keys begin so.
    pub(crate) fn hashes(&self, prefix: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let keys: Vec<String> = self.ask(&["KEYS", &format!("{prefix}*")]);
        let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let hash = |key: String| {
            let hash = redis::cmd("HGETALL").arg(&key).query(&mut connection).unwrap();
            (key, hash)
        };
        keys.into_iter().map(hash).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The server's program, which the repository's script finds or installs.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-redis");
        let output = Command::new(script).output().expect("the script runs");
        let said = super::text(&output.stdout);
        assert!(output.status.success(), "no Redis server: {said}{}", super::text(&output.stderr));
        PathBuf::from(said.lines().last().unwrap())
    })
}
