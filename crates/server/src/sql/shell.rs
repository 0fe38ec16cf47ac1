//! The shell: takes one statement after the other and does what it asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use mainstem_engine::MemoryBudget;
use mainstem_plan::functions::registry;
use mainstem_planner::{Declaration, DeclarationKind};
use tokio::sync::watch;

use super::args::SqlArgs;
use super::jobs::Jobs;
use super::query::{self, Screen};
use super::result;
use super::session::{OWN_SETTINGS, Session, quoted};
use super::split::{Token, tokens};
use super::statement::{Show, Statement, statement};
use crate::cli::MemoryArgs;
use crate::cluster::ShellClient;
use crate::hidden;
use crate::job;
use crate::memory;
use crate::run::Runtimes;

/// Threads of the jobs' coordinators.
const CONTROL_THREADS: usize = 2;

/// See the module.
pub(super) struct Shell {
    pub(super) runtimes: Runtimes,
    pub(super) session: Session,
    pub(super) parallelism: Option<u32>,
    pub(super) state_dir: PathBuf,
    pub(super) json: bool,
    pub(super) interrupts: Interrupts,
    /// Whether somebody types: then jobs run beside the shell.
    pub(super) is_typed: bool,
    /// Where INSERTs go; none: they run here.
    pub(super) cluster: Option<ShellClient>,
    /// What all jobs of this shell share.
    pub(super) memory: Arc<MemoryBudget>,
    screen: Option<Screen>,
    jobs: Jobs,
}

impl Shell {
    /// A shell without declarations.
    pub(super) fn new(args: &SqlArgs, is_typed: bool) -> anyhow::Result<Shell> {
        let runtimes = Runtimes::start(CONTROL_THREADS)?;
        let interrupts = Interrupts::listen(&runtimes);
        // Its connections are tasks.
        let connect = async { args.client().map(|client| ShellClient::new(&client)).transpose() };
        let cluster = runtimes.control.block_on(connect)?;
        Ok(Shell {
            runtimes,
            session: Session::default(),
            parallelism: args.parallelism,
            state_dir: args.state_dir.clone(),
            json: args.json,
            interrupts,
            is_typed,
            cluster,
            memory: memory::budget(&MemoryArgs::default()),
            screen: None,
            jobs: Jobs::default(),
        })
    }

    /// The terminal, where results can be drawn again.
    pub(super) fn screen(&self) -> Option<Screen> {
        self.screen
    }

    /// Tells of the terminal's size.
    pub(super) fn set_screen(&mut self, screen: Option<Screen>) {
        self.screen = screen;
    }

    /// Does what a statement asks for. False: that is the end.
    pub(super) fn run(&mut self, text: &str) -> anyhow::Result<bool> {
        match statement(text).map_err(anyhow::Error::msg)? {
            Statement::Create(declared) => {
                if !self.session.create(&declared, text)? {
                    super::note(&format!("{} '{}' is there already", declared.kind.word(), declared.name));
                }
            }
            Statement::Drop(declared) => {
                if !self.session.drop(&declared)? {
                    super::note(&format!("there is no {} '{}'", declared.kind.word(), declared.name));
                }
            }
            Statement::Set(Some((key, value))) => self.session.set(&key, &value)?,
            Statement::Set(None) => crate::show(&self.settings())?,
            Statement::Reset(key) => {
                if !self.session.reset(key.as_deref()) {
                    super::note(&format!("'{}' was not set", key.unwrap_or_default()));
                }
            }
            Statement::Show(show) => self.show(&show)?,
            Statement::Describe(name) => crate::show(&described(self.session.describe(&name)?))?,
            Statement::Explain => self.explain(text)?,
            Statement::Query => query::run(self, text)?,
            Statement::Insert(table) => {
                let mut jobs = std::mem::take(&mut self.jobs);
                let done = jobs.insert(self, text, &table);
                self.jobs = jobs;
                done?;
            }
            Statement::Stop(job) => {
                let mut jobs = std::mem::take(&mut self.jobs);
                let done = jobs.stop(self, &job);
                self.jobs = jobs;
                done?;
            }
            Statement::Help => crate::show(HELP)?,
            Statement::Quit => return Ok(false),
        }
        Ok(true)
    }

    /// What has become of jobs since the last time.
    pub(super) fn news(&mut self) -> Vec<String> {
        self.jobs.news(&self.runtimes)
    }

    /// Stops what runs here, with a last checkpoint, and ends.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        let ended = self.jobs.end(&self.runtimes, &mut self.interrupts);
        self.runtimes.end();
        ended
    }

    fn settings(&self) -> String {
        let set: Vec<(&String, &String)> = self.session.settings().collect();
        let mut rows: Vec<Vec<String>> =
            set.iter().map(|(key, value)| vec![(*key).clone(), (*value).clone()]).collect();
        for (key, value, help) in OWN_SETTINGS {
            if !set.iter().any(|(known, _)| *known == key) {
                rows.push(vec![key.to_owned(), format!("{value} (default: {help})")]);
            }
        }
        result::table(&["setting", "value"], &rows)
    }

    fn show(&mut self, show: &Show) -> anyhow::Result<()> {
        let names = |kind: DeclarationKind| {
            let known = self.session.known().iter().filter(move |known| known.kind == kind);
            known.map(|known| vec![known.name.clone(), known.connector.clone().unwrap_or_default()]).collect::<Vec<_>>()
        };
        let text = match show {
            Show::Tables => result::table(&["table", "connector"], &names(DeclarationKind::Table)),
            Show::Views => {
                let names: Vec<_> = names(DeclarationKind::View).into_iter().map(|row| vec![row[0].clone()]).collect();
                result::table(&["view"], &names)
            }
            Show::Functions => result::table(&["function", "kind"], &functions()),
            Show::Create(name) => format!("{};", redacted(self.session.text_of(name)?)),
            Show::Jobs => {
                let jobs = std::mem::take(&mut self.jobs);
                let listed = jobs.list(self);
                self.jobs = jobs;
                result::table(&["job", "state", "parallelism", "epochs", "rows in", "rows out"], &listed?)
            }
        };
        crate::show(&text)
    }

    fn explain(&mut self, text: &str) -> anyhow::Result<()> {
        let script = self.session.script(text);
        let plan = self.session.plan(&script)?;
        if !plan.explain_only {
            bail!("bug: this is no EXPLAIN");
        }
        if plan.explain_guarantees {
            let place = |line: u64| self.session.place(&script, line);
            return crate::show(&mainstem_planner::explain_guarantees(&plan, &place));
        }
        let parallelism = job::parallelism(self.parallelism, &plan, job::cores)?;
        crate::show(&mainstem_planner::explain(&plan, parallelism))
    }
}

fn described(declaration: &Declaration) -> String {
    let row = |column: &mainstem_planner::DeclaredColumn| {
        let null = if column.nullable { "NULL" } else { "NOT NULL" };
        let key = if column.is_key { "PRIMARY KEY" } else { "" };
        vec![column.name.clone(), column.data_type.clone(), null.to_owned(), key.to_owned(), column.extras.clone()]
    };
    result::table(
        &["column", "type", "null", "key", "extras"],
        &declaration.columns.iter().map(row).collect::<Vec<_>>(),
    )
}

/// All functions by name.
fn functions() -> Vec<Vec<String>> {
    let of = |names: Vec<String>, kind: &str| -> Vec<Vec<String>> {
        names.into_iter().map(|name| vec![name.to_uppercase(), kind.to_owned()]).collect()
    };
    let registry = registry();
    let mut all = of(registry.scalar_names(), "scalar");
    all.extend(of(registry.aggregate_names(), "aggregate"));
    all.extend(of(registry.window_names(), "window"));
    all.sort();
    all
}

/// A declaration without what is secret in its options. References to secrets stay.
fn redacted(text: &str) -> String {
    let mut redacted = text.to_owned();
    for window in tokens(text, usize::MAX).windows(3) {
        let [Token::Text(key), Token::Sign('='), Token::Text(value)] = window else { continue };
        let is_secret_by_name = value.starts_with("${secret:") && value.find('}') == Some(value.len() - 1);
        let shown = hidden::shown(key, value);
        if !is_secret_by_name && shown != *value {
            redacted = redacted.replace(&quoted(value), &quoted(&shown));
        }
    }
    redacted
}

/// Wishes to end what runs: Ctrl-C.
pub(super) struct Interrupts {
    seen: watch::Receiver<u64>,
    is_busy: Arc<AtomicBool>,
    is_asked: Arc<AtomicBool>,
}

impl Interrupts {
    /// Takes the signal over. While nothing runs, and at the second one, it ends the process.
    fn listen(runtimes: &Runtimes) -> Interrupts {
        use tokio::signal::unix::{SignalKind, signal};
        let (sender, seen) = watch::channel(0_u64);
        let is_busy = Arc::new(AtomicBool::new(false));
        let is_asked = Arc::new(AtomicBool::new(false));
        let (busy, asked) = (is_busy.clone(), is_asked.clone());
        runtimes.control.spawn(async move {
            let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
                tracing::warn!("cannot listen for signals; Ctrl-C will end the shell at once");
                return;
            };
            while interrupt.recv().await.is_some() {
                // Idle, or asked before and still at it.
                if !busy.load(Ordering::Acquire) || asked.swap(true, Ordering::AcqRel) {
                    std::process::exit(130);
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Interrupts { seen, is_busy, is_asked }
    }

    /// Something runs that can be ended, until this is dropped.
    pub(super) fn busy(&mut self) -> Busy<'_> {
        self.seen.mark_unchanged();
        self.is_asked.store(false, Ordering::Release);
        self.is_busy.store(true, Ordering::Release);
        Busy(self)
    }
}

/// While it is there, the first Ctrl-C is a wish and does not end the process.
pub(super) struct Busy<'a>(&'a mut Interrupts);

impl Busy<'_> {
    /// Waits for the wish. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        if self.0.seen.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Release);
    }
}

const HELP: &str = "\
SELECT ..;                        show the rows of a query; Ctrl-C ends it
INSERT INTO t SELECT ..;          run a job
SHOW TABLES | VIEWS | JOBS | FUNCTIONS | CREATE TABLE t;
DESCRIBE t;                       columns and types
CREATE TABLE | VIEW | SECRET ..;  declare; DROP takes it back
EXPLAIN ..;  EXPLAIN GUARANTEES ..;
SET 'key' = 'value';              SET alone lists, RESET 'key' sets back
STOP JOB 'name';                  take a last checkpoint and stop it
help, quit                        also as \\h, \\q, !help, !quit";
