//! Time, as a value that is handed in. [`SystemClock`] reads the machine's clocks and is the only place that
//! may; [`ManualClock`] stands still until a test moves it.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstem_core::time::Timestamp;
use tokio::sync::watch;

/// A wait for a point in time. Dropping it ends the wait and has no other effect.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Two readings of time. [`Clock::now`] is what users mean by "now" and may step in either direction when the
/// machine's clock is set; [`Clock::monotonic`] never steps and is what every timer goes by.
pub trait Clock: Send + Sync + 'static {
    /// Time of day, in milliseconds since 1970-01-01 UTC.
    fn now(&self) -> Timestamp;

    /// Milliseconds since some fixed point in the life of this clock; never goes back. Comes to no harm when
    /// the time of day is set.
    fn monotonic(&self) -> Timestamp;

    /// Waits until [`Clock::monotonic`] has reached the deadline; at once where it has.
    fn sleep_until(&self, deadline: Timestamp) -> Sleep;
}

/// The clocks of the machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic reading starts at 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        // A clock set to before 1970 reads as 1970: there is nothing better to say.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Timestamp {
        Timestamp(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        // One millisecond more than the difference of the truncated readings, so that the deadline has
        // really been reached when the wait ends.
        let wait_ms = match deadline.since_ms(self.monotonic()) {
            ms if ms <= 0 => 0,
            ms => u64::try_from(ms).unwrap_or(0).saturating_add(1),
        };
        Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms)))
    }
}

/// A clock that a test moves. Clones share the same time. Both readings are the same number.
#[derive(Clone, Debug)]
pub struct ManualClock {
    time: watch::Sender<Timestamp>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { time: watch::Sender::new(now) }
    }

    /// Moves the clock forward and wakes those whose deadline has come.
    pub fn advance_ms(&self, ms: u32) {
        self.time.send_modify(|time| *time = time.plus_ms(i64::from(ms)));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.time.borrow()
    }

    fn monotonic(&self) -> Timestamp {
        *self.time.borrow()
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        let mut time = self.time.subscribe();
        // The sender is kept alive with the wait: without it a wait would end when the last clock is dropped.
        let sender = self.time.clone();
        Box::pin(async move {
            time.wait_for(|now| *now >= deadline).await.expect("the sender lives as long as this future");
            drop(sender);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_at_the_deadline_and_not_before() {
        let clock = ManualClock::new(Timestamp(100));
        let mut sleep = clock.sleep_until(Timestamp(150));
        assert!(futures_now(&mut sleep).await.is_none());
        clock.advance_ms(49);
        assert!(futures_now(&mut sleep).await.is_none());
        clock.advance_ms(1);
        assert!(futures_now(&mut sleep).await.is_some());
        assert_eq!(clock.now(), Timestamp(150));
        clock.sleep_until(Timestamp(150)).await;
    }

    #[tokio::test]
    async fn a_system_sleep_reaches_its_deadline() {
        let clock = SystemClock::new();
        let deadline = clock.monotonic().plus_ms(3);
        clock.sleep_until(deadline).await;
        assert!(clock.monotonic() >= deadline);
        assert!(clock.now() > Timestamp(1_600_000_000_000));
    }

    /// Polls once.
    async fn futures_now(sleep: &mut Sleep) -> Option<()> {
        tokio::select! {
            biased;
            () = sleep => Some(()),
            () = std::future::ready(()) => None,
        }
    }
}
