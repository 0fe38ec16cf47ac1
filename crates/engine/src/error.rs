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
    /// Our own mistake.
    #[error("bug: {0}; please report it")]
    Bug(String),
}

impl EngineError {
    /// An evaluation error of the named operator, from what the expression engine says.
    pub(crate) fn evaluation(operator: &str, error: &DataFusionError) -> EngineError {
        EngineError::Evaluation { operator: operator.to_owned(), message: error.strip_backtrace() }
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
            EngineError::TooMuchInFlight { .. } => true,
            EngineError::Evaluation { .. } | EngineError::Data { .. } | EngineError::Plan(_) | EngineError::Bug(_) => {
                false
            }
        };
        let consequence = matches!(self, EngineError::PeerGone | EngineError::PeerLost(_));
        Failure { message: self.to_string(), retryable, consequence }
    }
}
