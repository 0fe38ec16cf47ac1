//! How often and after what wait something is tried again: restarts of a job, writes to a store, commits of a
//! sink. Called by the job life cycle and by the coordinator's driver. Draws no random number: the caller
//! passes one in.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Exponential backoff with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Wait after the first failure, in milliseconds.
    pub first_delay_ms: u64,
    /// Longest wait, in milliseconds.
    pub delay_ms_max: u64,
    /// Failures in a row that are followed by another attempt; the one after them is final.
    pub retries_max: u32,
    /// After so many milliseconds without a failure the count starts anew.
    pub quiet_ms: u64,
}

impl RetryPolicy {
    /// For restarts of a job: half a second, doubling up to a minute, ten in a row, forgiven after ten
    /// minutes.
    pub const RESTART: RetryPolicy =
        RetryPolicy { first_delay_ms: 500, delay_ms_max: 60_000, retries_max: 10, quiet_ms: 600_000 };
    /// For one operation on a store or a sink: 100 ms, doubling up to five seconds, eight in a row.
    pub const OPERATION: RetryPolicy =
        RetryPolicy { first_delay_ms: 100, delay_ms_max: 5_000, retries_max: 8, quiet_ms: 600_000 };
}

/// The count of failures of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    last_failure: Option<Timestamp>,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Backoff {
        Backoff { policy, failures: 0, last_failure: None }
    }

    /// Failures in a row so far.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What is tried has got further though it failed: failures are counted anew.
    pub fn on_progress(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure at `now`. Gives the milliseconds to wait before the next attempt, or nothing when the
    /// limit is reached. `random` is any number: it spreads the wait over the upper half of its length, so
    /// that many that failed together do not come back together.
    pub fn on_failure(&mut self, now: Timestamp, random: u64) -> Option<u64> {
        let quiet_ms = i64::try_from(self.policy.quiet_ms).unwrap_or(i64::MAX);
        if self.last_failure.is_some_and(|last| now.since_ms(last) >= quiet_ms) {
            self.failures = 0;
        }
        self.last_failure = Some(now);
        self.failures = self.failures.saturating_add(1);
        if self.failures > self.policy.retries_max {
            return None;
        }
        let doublings = (self.failures - 1).min(40);
        let delay_ms = self.policy.first_delay_ms.saturating_mul(1 << doublings).min(self.policy.delay_ms_max);
        let fixed_ms = delay_ms - delay_ms / 2;
        Some(fixed_ms + random % (delay_ms / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { first_delay_ms: 100, delay_ms_max: 1_000, retries_max: 5, quiet_ms: 60_000 };

    #[test]
    fn waits_double_up_to_the_longest_and_end_at_the_limit() {
        for (random, share) in [(0, 2), (u64::MAX, 1), (12_345, 0)] {
            let mut backoff = Backoff::new(POLICY);
            for full_ms in [100, 200, 400, 800, 1_000] {
                let wait_ms = backoff.on_failure(Timestamp(0), random).expect("below the limit");
                assert!((full_ms / 2..=full_ms).contains(&wait_ms), "{wait_ms} of {full_ms}");
                if share == 2 {
                    assert_eq!(wait_ms, full_ms / 2);
                }
            }
            assert_eq!(backoff.on_failure(Timestamp(0), random), None);
            assert_eq!(backoff.failures(), 6);
        }
    }

    #[test]
    fn a_quiet_time_forgives() {
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..6 {
            backoff.on_failure(Timestamp(1_000), 0);
        }
        assert_eq!(backoff.on_failure(Timestamp(60_999), 0), None);
        assert_eq!(backoff.on_failure(Timestamp(120_999), 0), Some(50));
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn progress_forgives() {
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..20 {
            assert!(backoff.on_failure(Timestamp(0), 0).is_some());
            backoff.on_progress();
        }
        assert_eq!(backoff.failures(), 0);
    }

    #[test]
    fn no_wait_and_no_retry_are_legal() {
        let mut backoff = Backoff::new(RetryPolicy { first_delay_ms: 0, retries_max: 1, ..POLICY });
        assert_eq!(backoff.on_failure(Timestamp::MIN, 7), Some(0));
        assert_eq!(backoff.on_failure(Timestamp::MAX, 7), Some(0));
        assert_eq!(Backoff::new(RetryPolicy { retries_max: 0, ..POLICY }).on_failure(Timestamp(0), 7), None);
    }
}
