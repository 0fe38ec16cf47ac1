//! A PostgreSQL server of a test's own: data in a temporary directory, a free port on loopback, stopped with the test.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::certificates::ServerFiles;

/// Who owns the databases.
pub(super) const USER: &str = "tester";
/// Not like anything that could stand in a file by chance.
pub(super) const PASSWORD: &str = "pw-4b1f9e-SECRET";
/// A server that has not started by then never will.
const START_MAX: Duration = Duration::from_secs(180);

pub(crate) struct Server {
    data: TempDir,
    bin: PathBuf,
    /// User and group to run as, where the tests run as root, which PostgreSQL refuses.
    run_as: Option<(u32, u32)>,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Server {
    /// A server that answers.
    pub(crate) fn start() -> Server {
        Server::start_with(None)
    }

    /// A server that also speaks TLS.
    pub(super) fn start_encrypting(files: &ServerFiles) -> Server {
        Server::start_with(Some(files))
    }

    fn start_with(files: Option<&ServerFiles>) -> Server {
        let bin = programs();
        let is_root = std::fs::metadata("/proc/self").unwrap();
        let run_as = (std::os::unix::fs::MetadataExt::uid(&is_root) == 0).then(unprivileged);
        let data = tempfile::tempdir().unwrap();
        if let Some((user, group)) = run_as {
            chown(data.path(), Some(user), Some(group)).unwrap();
        }
        let port = crate::support::ports::free_port();
        let mut server = Server { data, bin, run_as, port, process: None };
        let password_file = server.data.path().join("password");
        std::fs::write(&password_file, PASSWORD).unwrap();
        let mut command = server.command("initdb");
        command.args(["-U", USER, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        command.arg("--pwfile").arg(&password_file).arg("-D").arg(server.directory());
        let made = command.output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if let Some(files) = files {
            server.encrypt(files);
        }
        server.go_on();
        server
    }

    /// In a file, where statements can change it.
    fn encrypt(&self, ServerFiles { certificate, key }: &ServerFiles) {
        let file = |name: &str, content: &str| {
            let path = self.directory().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = self.run_as {
                chown(&path, Some(user), Some(group)).unwrap();
            }
        };
        file("server.crt", certificate);
        file("server.key", key);
        let settings = self.directory().join("postgresql.conf");
        let said = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(settings, said + "\nssl = on\n").unwrap();
    }

    /// Starts a server that was killed.
    pub(super) fn go_on(&mut self) {
        self.spawn();
        let begun = Instant::now();
        while self.try_query("postgres", "SELECT 1").is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap().is_some();
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            // On a busy machine the children of the one before hold its memory for a moment.
            let held = |line: &str| line.contains("pre-existing shared memory block");
            if ended && log.lines().rev().take(3).any(held) {
                self.spawn();
            } else {
                assert!(!ended, "the server has ended: {log}");
            }
            assert!(begun.elapsed() < START_MAX, "the server does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.directory()).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "wal_level=logical",
            "max_connections=60",
            "log_statement=none",
        ] {
            command.args(["-c", setting]);
        }
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Kills the server in the middle of what it does.
    pub(super) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        // Its children notice by themselves, and hold the port and the data until then.
        let pid_file = self.directory().join("postmaster.pid");
        let begun = Instant::now();
        while std::net::TcpListener::bind(("127.0.0.1", self.port)).is_err() && begun.elapsed() < START_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_file(pid_file);
    }

    fn directory(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("log")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir(self.data.path());
        if let Some((user, group)) = self.run_as {
            command.uid(user).gid(group);
        }
        command
    }

    /// A new database; gives the options by which a table of it is declared, with the password in the file `password`.
    pub(crate) fn database(&self, name: &str, sql: &str) -> String {
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        self.query(name, sql);
        format!(
            "'connector' = 'postgres', 'url' = 'jdbc:postgresql://127.0.0.1:{}/{name}', 'username' = '{USER}', \
             'password' = '${{file:password}}'",
            self.port
        )
    }

    /// The rows of a query, as texts; `NULL` for none.
    #[track_caller]
    pub(crate) fn query(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_query(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) fn try_query(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?connect_timeout=60", self.port);
        let rows = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            tokio::spawn(connection);
            client.simple_query(sql).await
        });
        let rows = rows.map_err(|error| format!("{error:?}"))?;
        let text = |row: &tokio_postgres::SimpleQueryRow, column| row.get(column).unwrap_or("NULL").to_owned();
        let rows = rows.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| text(row, column)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The only value of a query.
    #[track_caller]
    pub(super) fn value(&self, database: &str, sql: &str) -> String {
        self.query(database, sql).pop().unwrap().pop().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // At once, and with its children.
            let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

/// Where the server's programs are.
fn programs() -> PathBuf {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = packaged.map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let usable = |directory: &PathBuf| directory.join("initdb").exists() && directory.join("postgres").exists();
    let last = found.iter().rev().find(|directory| usable(directory) && directory.starts_with("/usr/lib"));
    let any = last.or_else(|| found.iter().find(|directory| usable(directory)));
    any.expect("no PostgreSQL server is installed; run scripts/install-postgres").clone()
}

/// A user without rights: the package's, else `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = std::fs::read_to_string(Path::new("/etc/passwd")).unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("there is a user 'postgres' or 'nobody'")
}
