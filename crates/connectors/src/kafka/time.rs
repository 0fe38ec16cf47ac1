//! The clock of the connector's own threads. librdkafka has threads and time-outs of its own, so nothing here could be
//! simulated; no decision about rows depends on it.

use std::time::{Duration, Instant};

/// The time, for time-outs.
#[expect(clippy::disallowed_methods, reason = "only how long brokers are waited for")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits, on a thread that may block.
#[expect(clippy::disallowed_methods, reason = "brokers can only be asked again")]
pub(super) fn pause(length: Duration) {
    std::thread::sleep(length);
}
