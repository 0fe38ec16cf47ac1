//! One operation on the outside, try after try: how long a try may take, what is logged of a failed one, when
//! the next one comes. How often and after what wait is decided by `mainstem_core::retry`.

use std::fmt;
use std::sync::Arc;

use mainstem_connectors::ConnectorError;
use mainstem_core::ids::JobId;
use mainstem_core::protocol::Failure;
use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_rt::{Clock, process_number};
use mainstem_state::{SavepointError, StateError};

/// How the operations of a job are tried. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Retry {
    pub(crate) job: JobId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: RetryPolicy,
    /// How long a try may take.
    pub(crate) timeout_ms: i64,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TryError {
    message: String,
    retryable: bool,
}

/// The tries of one operation.
pub(crate) struct Tries<'a> {
    retry: &'a Retry,
    /// What is tried, after "cannot": `publish epoch 3`.
    what: String,
    backoff: Backoff,
}

impl Retry {
    /// Nothing has been tried yet. `what` goes after "cannot" in messages.
    pub(crate) fn tries(&self, what: impl Into<String>) -> Tries<'_> {
        Tries { retry: self, what: what.into(), backoff: Backoff::new(self.policy) }
    }
}

impl Tries<'_> {
    /// One try. After the time-out its future is dropped, which must leave the way free for another one; the
    /// try then counts as failed in a way that may pass.
    pub(crate) async fn within_timeout<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, TryError>
    where
        TryError: From<E>,
    {
        let clock = &self.retry.clock;
        let deadline = clock.monotonic().plus_ms(self.retry.timeout_ms);
        tokio::select! {
            biased;
            result = work => result.map_err(TryError::from),
            () = clock.sleep_until(deadline) => {
                let seconds = self.retry.timeout_ms as f64 / 1000.0;
                let message = format!("no answer within {seconds} s; check the disk or the service behind it");
                Err(TryError { message, retryable: true })
            }
        }
    }

    /// The try that failed has got further than the one before.
    pub(crate) fn got_further(&mut self) {
        self.backoff.on_progress();
    }

    /// Waits for the next try after a failed one.
    ///
    /// # Errors
    /// Where there is none: the failure of the operation.
    pub(crate) async fn wait(&mut self, error: TryError) -> Result<(), Failure> {
        let clock = &self.retry.clock;
        let what = &self.what;
        let wait = self.backoff.on_failure(clock.monotonic(), random(clock.as_ref())).filter(|_| error.retryable);
        let Some(wait_ms) = wait else {
            let message = match self.backoff.failures() {
                1 => format!("cannot {what}: {error}"),
                tries => format!("cannot {what}: {error} (tried {tries} times)"),
            };
            return Err(Failure { message, retryable: error.retryable, consequence: false });
        };
        let tries = self.backoff.failures();
        tracing::warn!(job = %self.retry.job, %error, tries, wait_ms, "cannot {what}, trying again");
        clock.sleep_until(clock.monotonic().plus_ms(i64::try_from(wait_ms).unwrap_or(i64::MAX))).await;
        Ok(())
    }
}

impl fmt::Display for TryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConnectorError> for TryError {
    fn from(error: ConnectorError) -> TryError {
        TryError { retryable: error.is_retryable(), message: error.message }
    }
}

impl From<StateError> for TryError {
    fn from(error: StateError) -> TryError {
        TryError { retryable: error.is_retryable(), message: error.to_string() }
    }
}

impl From<SavepointError> for TryError {
    fn from(error: SavepointError) -> TryError {
        TryError { retryable: error.is_retryable(), message: error.to_string() }
    }
}

/// A number that differs between processes and tries, to spread waits; nothing else depends on it.
pub(crate) fn random(clock: &dyn Clock) -> u64 {
    (clock.now().0 as u64 ^ u64::from(process_number()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
