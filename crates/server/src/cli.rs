//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mainstem_core::ids::JobId;

use crate::logs::LogFormat;
use crate::traces::TracesArgs;

/// Runs SQL over streams and delivers every result exactly once.
#[derive(Debug, Parser)]
#[command(name = "mainstem", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// How log lines are written.
    pub(crate) fn log_format(&self) -> LogFormat {
        let (wanted, json) = match &self.command {
            Command::Run(args) => (args.log.log_format, args.json),
            Command::ReplayDeadLetters(args) => (args.log.log_format, args.json),
            Command::Coordinator(args) => (args.log.log_format, false),
            Command::Worker(args) => (args.log.log_format, false),
            _ => (LogFormat::Text, false),
        };
        if json { LogFormat::Json } else { wanted }
    }
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a SQL file as one job in this process, or go on with it where it was.
    Run(RunArgs),
    /// Show the dataflow of a SQL file: operators, parallelism, state, and the guarantee of each sink.
    Explain(ExplainArgs),
    /// Check a SQL file without running it.
    Check(InspectArgs),
    /// Write the records of dead letters, corrected or not, back to where they were read; a job, which goes on where it was.
    ReplayDeadLetters(ReplayArgs),
    /// Type SQL: declare tables, look at live results, start jobs; also reads files and pipes.
    Sql(crate::sql::SqlArgs),
    /// Run a cluster of several processes on this machine, for trying out.
    Cluster(ClusterArgs),
    /// Run one of the coordinators of a cluster.
    Coordinator(CoordinatorArgs),
    /// Run a worker of a cluster.
    Worker(WorkerArgs),
    /// Run a SQL file as a job of a cluster, or go on with it where it was.
    Submit(SubmitArgs),
    /// List the jobs and the workers of a cluster.
    Jobs(ListArgs),
    /// Show a job of a cluster.
    Status(StatusArgs),
    /// Tell why a job is as it is: what holds its windows back, what its checkpoints wait for, why it waits or has failed.
    Why(crate::why::WhyArgs),
    /// Take a last checkpoint of a job, or a savepoint, and stop it; `submit` goes on from there.
    Stop(StopArgs),
    /// Stop a job at once; `submit` goes on from its last checkpoint.
    Cancel(JobArgs),
    /// Run a job at another parallelism, from a checkpoint that is taken for it.
    Rescale(RescaleArgs),
    /// Move the work of a worker to others, so that it can be stopped.
    Drain(DrainArgs),
    /// List the coordinators of a cluster.
    Members(ListArgs),
    /// Add a coordinator, which runs and waits for it, to those of a cluster.
    AddMember(AddMemberArgs),
    /// Leave a coordinator, which may be lost, out of a cluster.
    RemoveMember(RemoveMemberArgs),
    /// Take a savepoint of a running job, with which another job can begin; prints its directory.
    Savepoint(SavepointArgs),
    /// Forget a job that has ended, with its checkpoints. Savepoints and output stay.
    Remove(JobArgs),
    /// Look into checkpoints and savepoints, or verify them, without the job that they are of.
    State(crate::state::StateArgs),
    /// Show who has decided what, when and why; or verify the files in which that stands.
    Audit(AuditArgs),
    /// Print the script with which a shell completes commands and options.
    Completions(crate::shipped::CompletionsArgs),
    /// Print the manual, or write a page for each command into a directory.
    Man(crate::shipped::ManArgs),
}

/// What all nodes of a cluster are told.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Name of the cluster; nodes of others are refused.
    #[arg(long, default_value = "mainstem", env = "MAINSTEM_CLUSTER")]
    pub(crate) cluster: String,
    /// Where to listen [default: a coordinator at its member's address, a worker at any port of 127.0.0.1].
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// This node's certificate (PEM); with the key and the authority, all traffic between nodes is by mutual TLS.
    #[arg(long, value_name = "FILE", env = "MAINSTEM_TLS_CERTIFICATE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", env = "MAINSTEM_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Who signed the certificates of all nodes (PEM).
    #[arg(long, value_name = "FILE", env = "MAINSTEM_TLS_AUTHORITY")]
    pub(crate) tls_authority: Option<PathBuf>,
    /// End when stdin ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// Arguments of `cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Coordinators: one, or three or five so that some may fail.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub(crate) coordinators: u32,
    /// Workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) workers: u32,
    /// Slots of each worker.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
    /// Memory of each worker, such as '2 gb' [default: 60 % of the machine's memory for all of them].
    #[arg(long, value_parser = memory_size, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,
    /// Serve the web page, the REST API and metrics of the first coordinator at this port of 127.0.0.1, of the second one at
    /// the next port, and so on [default: not at all].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(crate) http: Option<u16>,
    /// Directory for state and logs [default: .mainstem-cluster].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Directory or object store (s3://, gs://, az://) for checkpoints [default: state in --dir].
    #[arg(long)]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) traces: TracesArgs,
    /// End when stdin ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// Arguments of `coordinator`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// This coordinator's number among the members.
    #[arg(long)]
    pub(crate) id: u64,
    /// The coordinators with which the cluster began, such as 1=host1:7071,2=host2:7071,3=host3:7071.
    #[arg(long, required = true, value_delimiter = ',', value_parser = member, value_name = "ID=HOST:PORT")]
    pub(crate) members: Vec<(u64, String)>,
    /// Directory for what the coordinators agree on; on a disk of this machine.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Directory or object store (s3://, gs://, az://) for checkpoints, which every node of the cluster reaches there.
    #[arg(long, env = "MAINSTEM_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
    /// A worker that is silent for so long is given up.
    #[arg(long, default_value = "3 s", value_parser = duration)]
    pub(crate) worker_timeout: Duration,
    /// Bytes of the audit trail that are kept in files under the data directory, such as '64 MB'; at least 1 MB.
    #[arg(long, default_value = "64 MB", value_parser = audit_size, value_name = "SIZE")]
    pub(crate) audit_size: u64,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) traces: TracesArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Arguments of `worker`.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Addresses of the coordinators.
    #[arg(long, required = true, value_delimiter = ',', env = "MAINSTEM_COORDINATORS", value_name = "HOST:PORT")]
    pub(crate) coordinators: Vec<String>,
    /// Subtasks of each task of a job that run here at a time, over all jobs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
    /// A name for messages [default: worker].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where other workers reach this one, where that is not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Compress rows between workers (LZ4); worth it where the network is slower than the cores.
    #[arg(long)]
    pub(crate) compress: bool,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) copies: CopiesArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// How much memory a worker uses.
#[derive(Debug, Args, Default)]
pub(crate) struct MemoryArgs {
    /// Memory of the worker, such as '2 gb'; half of it is for state, and state that does not fit is put aside on disk
    /// [default: 60 % of the machine's memory or of the container's limit].
    #[arg(long, value_parser = memory_size, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,
    /// Directory on a local disk for rows that have to wait for state that was put aside [default: TMPDIR, or /var/tmp].
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch_dir: Option<PathBuf>,
    /// Workers on this machine that use that much together, where nobody says how much.
    #[arg(long, hide = true, default_value_t = 1)]
    pub(crate) memory_shared_by: u32,
}

/// Where local copies of state files are kept.
#[derive(Debug, Args)]
pub(crate) struct CopiesArgs {
    /// Directory for local copies of state files, from which the next attempt reads them [default: a worker's own below
    /// /var/tmp; `run` keeps none].
    #[arg(long, value_name = "DIR")]
    pub(crate) copies_dir: Option<PathBuf>,
    /// Bytes of local copies at most, such as '4 gb'; 0: none are kept.
    #[arg(long, default_value = "4 gb", value_parser = size, value_name = "SIZE")]
    pub(crate) copies_max: u64,
}

/// How a process that runs for long logs.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LogArgs {
    /// How log lines are written to stderr: text, or json for an object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// The port for browsers, scripts and Prometheus.
#[derive(Clone, Debug, Args)]
pub(crate) struct HttpArgs {
    /// Serve the web page, the REST API and metrics here, such as 8080 (of 127.0.0.1) or 0.0.0.0:8080 [default: not at all].
    #[arg(long, value_name = "[HOST:]PORT")]
    pub(crate) http: Option<String>,
    /// Who may do what there: a line `NAME ROLE TOKEN` for each user, with the role viewer, operator or admin. Needed where
    /// others than this machine reach the port.
    #[arg(long, value_name = "FILE")]
    pub(crate) http_token_file: Option<PathBuf>,
}

/// How a command finds its cluster.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Addresses of the coordinators [default: of the cluster that `mainstem cluster` has started here].
    #[arg(long, value_delimiter = ',', env = "MAINSTEM_COORDINATORS", value_name = "HOST:PORT")]
    pub(crate) coordinators: Vec<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Arguments of `submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The SQL file; several are read as one, and the last one names the job.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Subtasks of each operator [default: SET 'parallelism.default', or 1].
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) parallelism: Option<u32>,
    /// Time between checkpoints, such as '1 s' or '500 ms' [default: 10 s, or SET 'execution.checkpointing.interval'].
    #[arg(long, value_parser = duration)]
    pub(crate) checkpoint_interval: Option<Duration>,
    /// Name of the job [default: SET 'pipeline.name', or the name of the SQL file].
    #[arg(long, value_parser = job_id)]
    pub(crate) job_id: Option<JobId>,
    /// Wait until the job has ended.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) restore: RestoreArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `jobs` and `members`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    pub(crate) job: JobId,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    pub(crate) job: JobId,
    /// Take a savepoint in this directory as the last thing that the job does, and print where it lies.
    #[arg(long, value_name = "DIR")]
    pub(crate) savepoint: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `savepoint`.
#[derive(Debug, Args)]
pub(crate) struct SavepointArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    pub(crate) job: JobId,
    /// The directory, or prefix of an object store, in which the savepoint becomes one; coordinators reach it there.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// With what a job begins.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Begin with this savepoint instead of with nothing.
    #[arg(long, value_name = "DIR")]
    pub(crate) from_savepoint: Option<PathBuf>,
    /// Begin with the savepoint though output of later epochs is there: those rows come once more.
    #[arg(long, requires = "from_savepoint")]
    pub(crate) repeat_output: bool,
}

/// Arguments of `cancel` and `remove`.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    pub(crate) job: JobId,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `rescale`.
#[derive(Debug, Args)]
pub(crate) struct RescaleArgs {
    /// The job.
    #[arg(value_parser = job_id)]
    pub(crate) job: JobId,
    /// Subtasks of each operator from here on.
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) parallelism: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The worker's name, or its whole id as `mainstem jobs` shows it.
    pub(crate) worker: String,
    /// Do not wait until it runs nothing any more.
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `add-member`.
#[derive(Debug, Args)]
pub(crate) struct AddMemberArgs {
    /// An id that no coordinator ever had, and the address of the new one.
    #[arg(value_parser = member, value_name = "ID=HOST:PORT")]
    pub(crate) member: (u64, String),
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `remove-member`.
#[derive(Debug, Args)]
pub(crate) struct RemoveMemberArgs {
    /// The coordinator's id.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    /// What to do with files; without it, the leader is asked.
    #[command(subcommand)]
    pub(crate) files: Option<AuditCommand>,
    /// Only decisions about this job.
    #[arg(long, value_parser = job_id)]
    pub(crate) job: Option<JobId>,
    /// The newest decisions, at most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(crate) limit: u32,
    /// Also show what is decided with every checkpoint.
    #[arg(long)]
    pub(crate) routine: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Subcommands of `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that audit files are what was written: names the file, the line and the record of a change.
    Verify(AuditVerifyArgs),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// Audit files; those of one directory are one trail, several directories are compared.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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
    /// Directory or object store (s3://, gs://, az://) for checkpoints and the job's log.
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
    #[command(flatten)]
    pub(crate) restore: RestoreArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) copies: CopiesArgs,
    /// When asked to stop (Ctrl-C), take a savepoint in this directory as the last thing.
    #[arg(long, value_name = "DIR")]
    pub(crate) savepoint_on_stop: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) traces: TracesArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Report progress and the outcome on stderr as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `replay-dead-letters`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The SQL file that declares the tables; several are read as one. Its queries are not run.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The table that holds the letters: its column 'raw' is written back.
    #[arg(long, value_name = "TABLE")]
    pub(crate) from: String,
    /// The table whose file or topic they go back to [default: the one whose 'bad-records.table' is that of --from].
    #[arg(long, value_name = "TABLE")]
    pub(crate) to: Option<String>,
    /// Subtasks of each operator [default: the number of cores, or SET 'parallelism.default'].
    #[arg(long, short = 'p', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) parallelism: Option<u32>,
    /// Directory for checkpoints and the job's log.
    #[arg(long, default_value = ".mainstem", env = "MAINSTEM_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
    /// Name under which the job's state is kept [default: replay- and the name of the table].
    #[arg(long, value_parser = job_id)]
    pub(crate) job_id: Option<JobId>,
    /// Forget that letters were written back and write all of them again.
    #[arg(long)]
    pub(crate) fresh: bool,
    #[command(flatten)]
    pub(crate) traces: TracesArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Report progress and the outcome on stderr as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Show what is guaranteed from each source to each sink, and why not more, as `EXPLAIN GUARANTEES` does.
    #[arg(long)]
    pub(crate) guarantees: bool,
    /// As JSON; with --guarantees.
    #[arg(long, requires = "guarantees")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
}

/// Arguments of `check`, and of `explain` among others.
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

fn audit_size(text: &str) -> Result<u64, String> {
    let parsed = mainstem_connectors::parse_size(text).filter(|size| *size >= 1 << 20);
    parsed.ok_or_else(|| "expected a size of at least '1 MB'".to_owned())
}

fn memory_size(text: &str) -> Result<u64, String> {
    let parsed = mainstem_connectors::parse_size(text).filter(|size| *size >= 16 << 20);
    parsed.ok_or_else(|| "expected a size of at least '16 mb', such as '2 gb'".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    mainstem_connectors::parse_size(text).ok_or_else(|| "expected a size such as '4 gb' or '512 mb', or 0".to_owned())
}

fn member(text: &str) -> Result<(u64, String), String> {
    let wanted = || "expected ID=HOST:PORT, such as 1=127.0.0.1:7071".to_owned();
    let (id, address) = text.split_once('=').ok_or_else(wanted)?;
    Ok((id.trim().parse().map_err(|_| wanted())?, address.trim().to_owned()))
}

fn job_id(text: &str) -> Result<JobId, String> {
    JobId::new(text)
}
