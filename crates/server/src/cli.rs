//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mainstem_core::ids::JobId;

/// Runs SQL over streams and delivers every result exactly once.
#[derive(Debug, Parser)]
#[command(name = "mainstem", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Whether logs are written as JSON.
    pub(crate) fn json_logs(&self) -> bool {
        matches!(&self.command, Command::Run(args) if args.json)
    }
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a SQL file as one job in this process, or go on with it where it was.
    Run(RunArgs),
    /// Show the dataflow of a SQL file: operators, parallelism, state, and the guarantee of each sink.
    Explain(InspectArgs),
    /// Check a SQL file without running it.
    Check(InspectArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The SQL file; several are read as one, and the last one names the job.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Subtasks of each operator [default: the number of cores, or SET 'parallelism.default'].
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) parallelism: Option<u32>,
    /// Directory for checkpoints and the job's log.
    #[arg(long, default_value = ".mainstem", env = "MAINSTEM_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
    /// Time between checkpoints, such as '1 s' or '500 ms' [default: 10 s, or SET 'execution.checkpointing.interval'].
    #[arg(long, value_parser = duration)]
    pub(crate) checkpoint_interval: Option<Duration>,
    /// Name under which the job's state is kept [default: SET 'pipeline.name', or the name of the SQL file].
    #[arg(long, value_parser = job_id)]
    pub(crate) job_id: Option<JobId>,
    /// Forget the job's state and begin again. Files that it has already published stay.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Report progress and the outcome on stderr as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `explain` and `check`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The SQL file; several are read as one, and the last one names the job.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Subtasks of each operator [default: the number of cores, or SET 'parallelism.default'].
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) parallelism: Option<u32>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = mainstem_connectors::parse_duration(text).filter(|d| !d.is_zero());
    parsed.ok_or_else(|| "expected a duration such as '1 s' or '500 ms'".to_owned())
}

fn job_id(text: &str) -> Result<JobId, String> {
    JobId::new(text)
}
