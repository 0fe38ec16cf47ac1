//! What the user sets of checkpoints and of how failures are met, as it is stored with the job.

use serde::{Deserialize, Serialize};

use super::{CadenceBounds, CheckpointConfig};
use crate::retry::RetryPolicy;

/// When checkpoints are taken, what is kept, and how failures are met. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointOptions {
    /// From one barrier to the next. Default 10 s.
    pub interval_ms: i64,
    /// Instead, it is chosen within these bounds.
    #[serde(default)]
    pub auto: Option<CadenceBounds>,
    /// Least time between the end of a checkpoint and the next barrier. Default 0.
    pub min_pause_ms: i64,
    /// A checkpoint that takes longer fails the attempt. Default 10 min.
    pub timeout_ms: i64,
    /// So long after it has left the sources a barrier no longer waits for what is in flight, which is stored with the
    /// checkpoint instead; none: it always waits. Default 1 min.
    #[serde(default = "aligned_timeout_default")]
    pub aligned_timeout_ms: Option<u64>,
    /// Least time between two latency markers of a source subtask; 0: there are none. Default 200 ms.
    #[serde(default = "latency_interval_default")]
    pub latency_interval_ms: u64,
    /// Checkpoints that may run at a time. Default 1.
    pub in_flight_max: u32,
    /// Checkpoints that are kept. Default 2: one unreadable file does not stop the job.
    pub retained: u32,
    /// Other workers of a cluster that follow the state of each slot, so that they can take it over. Default 0.
    #[serde(default)]
    pub standbys: u32,
    /// After a failed attempt.
    pub restart: RetryPolicy,
    /// After a failed write, commit or discovery, within an attempt.
    pub operation: RetryPolicy,
    /// One try of a commit or a discovery that takes longer counts as failed. Default 60 s.
    pub operation_timeout_ms: i64,
}

/// Long enough for every job that is not stuck behind a slow receiver, and far below the time-out of a checkpoint.
#[expect(clippy::unnecessary_wraps, reason = "the default of an option")]
fn aligned_timeout_default() -> Option<u64> {
    Some(60_000)
}

/// Often enough for the 99th percentile of a minute, and nothing beside the rows.
fn latency_interval_default() -> u64 {
    200
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        CheckpointOptions {
            interval_ms: 10_000,
            auto: None,
            min_pause_ms: 0,
            timeout_ms: 600_000,
            aligned_timeout_ms: aligned_timeout_default(),
            latency_interval_ms: latency_interval_default(),
            in_flight_max: 1,
            retained: 2,
            standbys: 0,
            restart: RetryPolicy::RESTART,
            operation: RetryPolicy::OPERATION,
            operation_timeout_ms: 60_000,
        }
    }
}

impl CheckpointOptions {
    /// The options in the form of the checkpoint machine.
    ///
    /// # Errors
    /// Names the option that is out of range.
    pub fn validate(&self) -> Result<CheckpointConfig, String> {
        let positive = |name: &str, value: i64| {
            u64::try_from(value)
                .ok()
                .filter(|v| *v > 0)
                .ok_or_else(|| format!("{name} must be positive, it is {value} ms"))
        };
        positive("the time-out of an operation", self.operation_timeout_ms)?;
        if let Some(CadenceBounds { visibility_ms, recovery_ms }) = self.auto {
            positive("the time until output is visible", visibility_ms)?;
            positive("the time of a recovery", recovery_ms)?;
        }
        if self.in_flight_max == 0 || self.retained == 0 {
            return Err("checkpoints in flight and checkpoints retained must be at least 1".to_owned());
        }
        Ok(CheckpointConfig {
            interval_ms: positive("the checkpoint interval", self.interval_ms)?,
            min_pause_ms: u64::try_from(self.min_pause_ms)
                .map_err(|_| "the pause between checkpoints is negative".to_owned())?,
            timeout_ms: positive("the checkpoint time-out", self.timeout_ms)?,
            in_flight_max: self.in_flight_max as usize,
            retained: self.retained as usize,
        })
    }
}
