//! Arguments of `mainstem state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `state`.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: StateCommand,
}

/// Subcommands of `state`.
#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// List the jobs of a state directory, the checkpoints of a job, or savepoints.
    Ls(StateLsArgs),
    /// Show what a checkpoint or a savepoint holds: sources, operators, tables, rows, keys, key groups, hot keys.
    Inspect(StateInspectArgs),
    /// Read every file of checkpoints or savepoints and name those that are not what was written.
    Verify(StateVerifyArgs),
}

/// Where to look, and how to tell of it.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// Directory or object store (s3://, gs://, az://) of checkpoints, in which a job is looked for by its name.
    #[arg(long, default_value = ".mainstem", env = "MAINSTEM_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `state ls`.
#[derive(Debug, Args)]
pub(super) struct StateLsArgs {
    /// A job of --state-dir, or a place, which has a slash: a state directory, a job's directory in one, a savepoint, a
    /// directory of savepoints; also in object stores. Without it, --state-dir.
    #[arg(value_name = "PATH|JOB")]
    pub(super) target: Option<String>,
    #[command(flatten)]
    pub(super) look: LookArgs,
}

/// Arguments of `state inspect`.
#[derive(Debug, Args)]
pub(super) struct StateInspectArgs {
    /// A job of --state-dir, or a place, which has a slash: a job's directory, a savepoint; also in object stores.
    #[arg(value_name = "PATH|JOB")]
    pub(super) target: String,
    /// The checkpoint of this epoch [default: the newest one].
    #[arg(long)]
    pub(super) epoch: Option<u64>,
    /// Name so many hot keys and full key groups of each table.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000), value_name = "N")]
    pub(super) top: u32,
    #[command(flatten)]
    pub(super) look: LookArgs,
}

/// Arguments of `state verify`.
#[derive(Debug, Args)]
pub(super) struct StateVerifyArgs {
    /// A job of --state-dir, or a place, which has a slash: a state directory, a job's directory, a savepoint, a directory of
    /// savepoints; also in object stores.
    #[arg(value_name = "PATH|JOB")]
    pub(super) target: String,
    /// Only the checkpoint of this epoch [default: all that are kept].
    #[arg(long)]
    pub(super) epoch: Option<u64>,
    #[command(flatten)]
    pub(super) look: LookArgs,
}
