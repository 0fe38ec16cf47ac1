//! Arguments of `mainstem sql`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{ClientArgs, NodeArgs};

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// Run these statements and end.
    #[arg(long, short = 'e', value_name = "SQL")]
    pub(super) execute: Vec<String>,
    /// Run the statements of these files, before those of --execute, and end.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Vec<PathBuf>,
    /// Run the statements of these files first: declarations to begin with.
    #[arg(long, short = 'i', value_name = "FILE")]
    pub(super) init: Vec<PathBuf>,
    /// Hand INSERTs to the cluster of these coordinators, and list its jobs [default: they run in this process].
    #[arg(long, value_delimiter = ',', env = "MAINSTEM_COORDINATORS", value_name = "HOST:PORT")]
    pub(super) coordinators: Vec<String>,
    /// Subtasks of each operator of what runs in this process [default: the number of cores, or SET 'parallelism.default'].
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) parallelism: Option<u32>,
    /// Directory or object store (s3://, gs://, az://) for the state of INSERTs that run in this process.
    #[arg(long, default_value = ".mainstem", env = "MAINSTEM_STATE_DIR")]
    pub(super) state_dir: PathBuf,
    /// Show the rows of queries as JSON, one object a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Where the lines that were typed are kept [default: mainstem/sql_history in $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

impl SqlArgs {
    /// How the cluster is found; none: everything runs here.
    pub(super) fn client(&self) -> Option<ClientArgs> {
        let coordinators = self.coordinators.clone();
        (!coordinators.is_empty()).then(|| ClientArgs { coordinators, node: self.node.clone() })
    }
}
