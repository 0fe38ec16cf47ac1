//! Running the binary and reading what it wrote.

pub(crate) mod certificates;
pub(crate) mod changelog;
pub(crate) mod cluster;
pub(crate) mod hosts;
pub(crate) mod http;
pub(crate) mod http_client;
pub(crate) mod kafka;
pub(crate) mod known;
pub(crate) mod nats;
mod network;
pub(crate) mod ports;
pub(crate) mod redis;
pub(crate) mod registry;
pub(crate) mod s3;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Any run of these tests that takes longer hangs.
const RUN_TIME_MAX: Duration = Duration::from_secs(300);

/// What fails is told when it fails: the tests take many minutes, and what the harness keeps until all have ended is lost
/// where somebody ends it before. It keeps only what is printed by macros.
fn failures_are_told_at_once() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        let keep = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let test = std::thread::current().name().unwrap_or("a thread").to_owned();
            let _ = writeln!(std::io::stderr(), "{test}: {panic}");
            keep(panic);
        }));
    });
}

/// A directory of its own, with a SQL file, in which the binary runs.
pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
    /// How long sinks take for each batch beyond what they need, in milliseconds.
    sink_delay_ms: AtomicU64,
    /// Variables of every process.
    pub(crate) environment: Vec<(String, String)>,
}

impl Sandbox {
    pub(crate) fn new(sql: &str) -> Sandbox {
        failures_are_told_at_once();
        let sandbox =
            Sandbox { dir: tempfile::tempdir().unwrap(), sink_delay_ms: AtomicU64::new(0), environment: Vec::new() };
        sandbox.write("job.sql", sql);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstem"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let delay_ms = self.sink_delay_ms.load(Ordering::Relaxed);
        if delay_ms > 0 {
            command.env("MAINSTEM_DELAY", format!("sink-write:{delay_ms}"));
        }
        command
    }

    /// Makes sinks of processes to come slow, see [`Sandbox::sink_delay_ms`].
    pub(crate) fn slow_sinks(&self, delay_ms: u64) {
        self.sink_delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        output_of(self.command(arguments))
    }

    /// Runs the job and expects it to end well.
    pub(crate) fn run_ok(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output
    }

    /// Runs the job and expects an error, whose text is given back.
    pub(crate) fn run_err(&self, arguments: &[&str]) -> String {
        message_of_failure(&self.run(arguments))
    }

    /// Writes `rows` rows with an `id`, a key `k` of so many, and a time `ts` at which so many came each second, in turn
    /// to each of the files `in/part-<n>.json`.
    pub(crate) fn write_events(&self, rows: i64, files: i64, keys: i64, per_second: i64) {
        let mut contents = vec![String::new(); files as usize];
        for id in 0..rows {
            let (seconds, ms) = (id / per_second, id % per_second * 1000 / per_second);
            let (h, m, s, k) = (seconds / 3600, seconds / 60 % 60, seconds % 60, id % keys);
            let content = &mut contents[(id % files) as usize];
            writeln!(content, r#"{{"id":{id},"k":{k},"ts":"2026-01-01 {h:02}:{m:02}:{s:02}.{ms:03}"}}"#).unwrap();
        }
        for (n, content) in contents.iter().enumerate() {
            self.write(&format!("in/part-{n}.json"), content);
        }
    }

    /// Runs a job that writes to Kafka to its end, after killing it so often at most, behind slow sinks, at random instants
    /// and around a commit, at changing parallelisms. Gives how often it was killed.
    pub(crate) fn run_over_kills(&self, seed: u64, rounds: usize) -> usize {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut kills = 0;
        for n in 0..rounds {
            self.slow_sinks(random.random_range(300..500));
            let parallelism = random.random_range(1..=3).to_string();
            let arguments = ["run", "job.sql", "--checkpoint-interval", "60 ms", "--parallelism", &parallelism];
            kills += match n % 3 {
                0 => usize::from(self.kill_at(&arguments, ["epoch-complete", "transaction-written"][n / 3 % 2], 1)),
                _ => usize::from(self.run_and_kill(&arguments, Duration::from_millis(random.random_range(200..900)))),
            };
        }
        self.slow_sinks(0);
        self.run_ok(&["run", "job.sql"]);
        kills
    }

    /// Starts the job and kills it with SIGKILL after a while, or lets it end. True if it was killed.
    pub(crate) fn run_and_kill(&self, arguments: &[&str], after: Duration) -> bool {
        self.run_and_kill_when(arguments, |run_for| run_for >= after)
    }

    /// The same at a moment that is decided by how long it has run, and more.
    pub(crate) fn run_and_kill_when(&self, arguments: &[&str], is_time: impl Fn(Duration) -> bool) -> bool {
        let log = std::fs::File::create(self.path("stderr.log")).unwrap();
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begun = Instant::now();
        while !is_time(begun.elapsed()) {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.path("stderr.log")).unwrap();
                assert!(status.success(), "ended by itself, badly: {log}");
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }

    /// Starts the job with a failpoint and kills it with SIGKILL when it has got there. False if it ended
    /// before.
    pub(crate) fn kill_at(&self, arguments: &[&str], failpoint: &str, count: u64) -> bool {
        let mut child = self
            .command(arguments)
            .env("MAINSTEM_FAILPOINT", format!("{failpoint}:{count}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || said.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let begun = Instant::now();
        let mut log = String::new();
        loop {
            let line = match lines.recv_timeout(RUN_TIME_MAX.saturating_sub(begun.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().unwrap();
                    panic!("it does not get to {failpoint}: {log}");
                }
            };
            if line == format!("failpoint {failpoint}") {
                child.kill().unwrap();
                child.wait().unwrap();
                return true;
            }
            log += &line;
            log.push('\n');
        }
        assert!(child.wait().unwrap().success(), "ended by itself, badly: {log}");
        false
    }

    /// The lines of all visible files below a directory, with how often each occurs.
    pub(crate) fn lines(&self, directory: &str) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for file in visible_files(&self.path(directory)) {
            for line in std::fs::read_to_string(&file).unwrap().lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
        lines
    }
}

/// Files below a directory that are not hidden.
pub(crate) fn visible_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return files };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files.extend(visible_files(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

/// How often processes are killed by a test that usually does it so often: `MAINSTEM_KILLS` asks for more.
pub(crate) fn kills(usual: usize) -> usize {
    let asked = std::env::var("MAINSTEM_KILLS").ok();
    asked.map_or(usual, |asked| asked.parse().expect("MAINSTEM_KILLS is a number"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is missing in: {message}");
    }
}

/// What a process that must have failed, and must not have panicked, said on stderr.
#[track_caller]
pub(crate) fn message_of_failure(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "it should have failed: {}{stderr}", text(&output.stdout));
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Runs a command to its end.
pub(crate) fn output_of(mut command: Command) -> Output {
    wait_with_output(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn wait_with_output(mut child: Child) -> Output {
    // The pipes are drained by threads, so that a full pipe cannot stall the child.
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > RUN_TIME_MAX {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}
