//! What can go wrong while a job runs, and whether trying again can help.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use mainstem_connectors::ConnectorError;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Failure;
use mainstem_plan::PlanError;
use mainstem_state::StateError;

/// An error of a running subtask.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A source or a sink.
    #[error("{table}: {error}")]
    Connector {
        /// The table.
        table: String,
        /// What its connector says.
        #[source]
        error: ConnectorError,
    },
    /// An expression could not be evaluated for some row: a cast, a division, a malformed argument.
    #[error("{operator}: {message}")]
    Evaluation {
        /// The operator.
        operator: String,
        /// What the expression says.
        message: String,
    },
    /// Functions would make more text for a batch than may be there at once; fewer rows may do.
    #[error("{operator}: {message}")]
    TooMuchAtOnce {
        /// The operator.
        operator: String,
        /// What the function says.
        message: String,
    },
    /// A row without event time.
    #[error("{operator}: {message}")]
    Data {
        /// The operator.
        operator: String,
        /// What is wrong with the row, and what to do.
        message: String,
    },
    /// The plan cannot be built by this version.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Checkpoint files.
    #[error(transparent)]
    State(#[from] StateError),
    /// A neighbour is gone; the reason is told elsewhere.
    #[error("a neighbouring subtask has ended")]
    PeerGone,
    /// The worker of a neighbour is gone, or does not know of it any more; the reason is told elsewhere too.
    #[error("{0}")]
    PeerLost(String),
    /// The worker of a neighbour cannot be reached, while the coordinator may well reach both.
    #[error("workers cannot reach each other: {0}")]
    Unreachable(String),
    /// What a barrier has overtaken is too much to be kept.
    #[error(
        "checkpoint {epoch}: more than {bytes_max} bytes have come before the barriers that it did not wait for; give it \
         more time to align (SET 'execution.checkpointing.aligned-checkpoint-timeout')"
    )]
    TooMuchInFlight {
        /// The checkpoint.
        epoch: Epoch,
        /// How much a subtask keeps.
        bytes_max: u64,
    },
    /// State that cannot be put aside does not fit into memory.
    #[error(
        "{operator}: its state takes {bytes} bytes and cannot be put aside on disk ({job_bytes} bytes for all such \
         state of the job); state may take {state_bytes_max} of the {bytes_max} bytes of memory of this worker. Give it \
         more (--memory), run the job with a higher parallelism on more workers, or bound its state by windows or a \
         time to live"
    )]
    OutOfMemory {
        /// The operator.
        operator: String,
        /// What it holds on this subtask.
        bytes: u64,
        /// What its job holds on the worker.
        job_bytes: u64,
        /// What all operators on the worker may hold.
        state_bytes_max: u64,
        /// The worker's memory.
        bytes_max: u64,
    },
    /// A row has more partners than can be joined with it.
    #[error(
        "{operator}: a row has at least {partners} partners, which take {bytes} bytes to be joined with it; one row may take \
         {bytes_max}, a fourth of the memory of this worker. Give it more (--memory), compare more columns in the condition of \
         the join, or bound the rows that it keeps by an interval, windows or a time to live"
    )]
    TooManyPartners {
        /// The operator.
        operator: String,
        /// How many were found.
        partners: u64,
        /// What references to them take.
        bytes: u64,
        /// What they may take.
        bytes_max: u64,
    },
    /// State that this version cannot read.
    #[error(
        "{path}: '{table}' has layout {found}, and this version of Mainstem reads {known}; run the version that wrote it, or \
         begin the job afresh"
    )]
    OtherVersion {
        /// The file.
        path: String,
        /// The table in it, or the channel.
        table: String,
        /// The layout in the file.
        found: u32,
        /// The one that is read.
        known: u32,
    },
    /// The uploader has ended; it says why.
    #[error("bug: the uploader has ended before its subtask; please report it")]
    UploadsEnded,
    /// Rows that were put off on the local disk cannot be written or read.
    #[error("{operator}: cannot {action} the scratch file in '{directory}': {reason}")]
    Scratch {
        /// The operator.
        operator: String,
        /// What was tried.
        action: &'static str,
        /// Where.
        directory: String,
        /// What the system says.
        reason: String,
    },
    /// Our own mistake.
    #[error("bug: {0}; please report it")]
    Bug(String),
}

impl EngineError {
    /// An evaluation error of the named operator, from what the expression engine says.
    pub(crate) fn evaluation(operator: &str, error: &DataFusionError) -> EngineError {
        let (operator, message) = (operator.to_owned(), error.strip_backtrace());
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => EngineError::TooMuchAtOnce { operator, message },
            _ => EngineError::Evaluation { operator, message },
        }
    }

    /// The same for the column kernels.
    pub(crate) fn arrow(operator: &str, error: &ArrowError) -> EngineError {
        EngineError::Evaluation { operator: operator.to_owned(), message: error.to_string() }
    }

    /// What the coordinator is told.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let retryable = match &self {
            EngineError::Connector { error, .. } => error.is_retryable(),
            EngineError::State(error) => error.is_retryable(),
            EngineError::PeerGone | EngineError::PeerLost(_) | EngineError::Unreachable(_) => true,
            EngineError::TooMuchInFlight { .. } | EngineError::Scratch { .. } => true,
            EngineError::TooManyPartners { .. } | EngineError::TooMuchAtOnce { .. } => false,
            EngineError::OutOfMemory { .. } | EngineError::OtherVersion { .. } | EngineError::UploadsEnded => false,
            EngineError::Evaluation { .. } | EngineError::Data { .. } | EngineError::Plan(_) | EngineError::Bug(_) => {
                false
            }
        };
        let consequence = matches!(self, EngineError::PeerGone | EngineError::PeerLost(_));
        Failure { message: self.to_string(), retryable, consequence }
    }
}
