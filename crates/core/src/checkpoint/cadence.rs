//! Chooses the time from one barrier to the next, from what checkpoints and failures were measured to cost and from what the
//! user can bear.
//!
//! Least work is lost with `sqrt(2 · cost of a checkpoint · time between failures)` between checkpoints: each costs something,
//! and a failure repeats half an interval on average (J. W. Young, "A first order approximation to the optimum checkpoint
//! interval", CACM 17(9), 1974). As cost counts the whole time that a checkpoint takes, which is more than it costs: most of it
//! passes beside the processing. Bounds of the user make the interval shorter; what a checkpoint takes keeps it from
//! becoming shorter than the machine can follow.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Before anything was measured.
const FIRST_MS: f64 = 1_000.0;
/// No more often than that.
const LEAST_MS: f64 = 50.0;
/// At most this part of the time passes with checkpoints under way.
const BUSY_MAX: f64 = 0.5;
/// What a job is believed to run without a failure, before it has shown otherwise.
const BETWEEN_FAILURES_MS: f64 = 24.0 * 3_600_000.0;
/// As if so many failures had been seen at that rate: few, so that what is measured soon counts for more.
const BELIEF: f64 = 0.1;
/// How much of an average the newest measurement is.
const NEWEST: f64 = 0.2;

/// What the user can bear. Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CadenceBounds {
    /// From a row's arrival until output that follows from it is visible.
    pub visibility_ms: i64,
    /// From a failure until the job is where it was.
    pub recovery_ms: i64,
}

/// See the module. Times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Cadence {
    bounds: CadenceBounds,
    /// From a barrier to the record that the checkpoint is complete.
    duration: Option<f64>,
    /// From a barrier to the record that the output of its epoch is visible.
    visible: Option<f64>,
    /// From a failure to the next attempt.
    restart: Option<f64>,
    failures: u32,
    ran_ms: i64,
    /// Since when an attempt runs.
    running_since: Option<Timestamp>,
    failed_at: Option<Timestamp>,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CadenceChoice {
    /// From one barrier to the next, in milliseconds.
    pub interval_ms: u64,
    /// Why not longer, or not shorter.
    pub reason: String,
}

impl Cadence {
    /// One that has measured nothing.
    #[must_use]
    pub fn new(bounds: CadenceBounds) -> Cadence {
        Cadence {
            bounds,
            duration: None,
            visible: None,
            restart: None,
            failures: 0,
            ran_ms: 0,
            running_since: None,
            failed_at: None,
        }
    }

    /// An attempt runs from now on.
    pub fn on_attempt(&mut self, now: Timestamp) {
        self.running_since = Some(now);
        if let Some(failed_at) = self.failed_at.take() {
            note(&mut self.restart, now.since_ms(failed_at));
        }
    }

    /// An attempt has failed, or could not begin.
    pub fn on_failure(&mut self, now: Timestamp) {
        self.ran_ms = self.ran_ms(now);
        self.running_since = None;
        self.failures = self.failures.saturating_add(1);
        self.failed_at.get_or_insert(now);
    }

    /// A checkpoint has become complete, so long after its barrier.
    pub(super) fn on_complete(&mut self, ms: i64) {
        note(&mut self.duration, ms);
    }

    /// The output of an epoch has become visible, so long after its barrier.
    pub(super) fn on_published(&mut self, ms: i64) {
        note(&mut self.visible, ms);
    }

    /// What to do from now on.
    #[must_use]
    pub fn choice(&self, now: Timestamp) -> CadenceChoice {
        let CadenceBounds { visibility_ms, recovery_ms } = self.bounds;
        let (duration, visible) = (self.duration.unwrap_or(0.0), self.visible.unwrap_or(0.0));
        let restart = self.restart.unwrap_or(0.0);
        let between_failures = self.between_failures(now);
        let least_lost = match self.duration {
            Some(duration) => (
                (2.0 * duration.max(1.0) * between_failures).sqrt(),
                format!(
                    "least is lost so: a checkpoint takes {}, failures are {} apart",
                    shown(duration),
                    shown(between_failures)
                ),
            ),
            None => (FIRST_MS, "no checkpoint has been measured yet".to_owned()),
        };
        let visibility = (
            to_f64(visibility_ms) - visible,
            format!(
                "output is to be visible within {}, of which publishing takes {}",
                shown(to_f64(visibility_ms)),
                shown(visible)
            ),
        );
        // Rows are read again at the speed at which they came: it may be faster, but not slower for long.
        let recovery = (
            to_f64(recovery_ms) - restart - duration,
            format!(
                "a failure is to be over within {}, of which a restart takes {} and a checkpoint {}",
                shown(to_f64(recovery_ms)),
                shown(restart),
                shown(duration)
            ),
        );
        let (wanted, reason) = [least_lost, visibility, recovery]
            .into_iter()
            .min_by(|one, other| one.0.total_cmp(&other.0))
            .expect("three");
        let least = LEAST_MS.max(duration / BUSY_MAX);
        if wanted >= least {
            return CadenceChoice { interval_ms: whole(wanted), reason };
        }
        let takes = shown(duration);
        CadenceChoice {
            interval_ms: whole(least),
            reason: format!(
                "more often is not possible, for a checkpoint takes {takes}; wanted was {}: {reason}",
                shown(wanted)
            ),
        }
    }

    fn ran_ms(&self, now: Timestamp) -> i64 {
        self.ran_ms + self.running_since.map_or(0, |since| now.since_ms(since).max(0))
    }

    fn between_failures(&self, now: Timestamp) -> f64 {
        (to_f64(self.ran_ms(now)) + BELIEF * BETWEEN_FAILURES_MS) / (f64::from(self.failures) + BELIEF)
    }
}

/// Takes a measurement into its average.
fn note(average: &mut Option<f64>, ms: i64) {
    let ms = to_f64(ms.max(0));
    *average = Some(average.map_or(ms, |before| before + NEWEST * (ms - before)));
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of years are exact")]
fn to_f64(ms: i64) -> f64 {
    ms as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(ms: f64) -> u64 {
    ms.round().clamp(1.0, to_f64(i64::MAX / 2)) as u64
}

/// A time as it is told: two units at the most.
fn shown(ms: f64) -> String {
    let ms = whole(ms.max(1.0));
    if ms < 10_000 {
        return format!("{ms} ms");
    }
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn cadence(visibility_ms: i64, recovery_ms: i64) -> Cadence {
        let mut cadence = Cadence::new(CadenceBounds { visibility_ms, recovery_ms });
        cadence.on_attempt(Timestamp(0));
        cadence
    }

    fn measured(mut cadence: Cadence, duration: i64, visible: i64) -> Cadence {
        cadence.on_complete(duration);
        cadence.on_published(visible);
        cadence
    }

    #[track_caller]
    fn assert_chosen(cadence: &Cadence, now: i64, interval_ms: u64, reason: &str) {
        let choice = cadence.choice(Timestamp(now));
        assert_eq!(choice.interval_ms, interval_ms, "{choice:?}");
        assert!(choice.reason.contains(reason), "{choice:?}");
    }

    #[test]
    fn the_first_checkpoint_comes_soon() {
        assert_chosen(&cadence(10_000, 60_000), 0, 1_000, "measured yet");
        assert_chosen(&cadence(300, 60_000), 0, 300, "visible within 300 ms");
    }

    #[test]
    fn bounds_of_the_user_are_kept_with_what_is_measured() {
        assert_chosen(
            &measured(cadence(10_000, 60_000), 100, 400),
            0,
            9_600,
            "visible within 10 s, of which publishing takes 400 ms",
        );
        let mut failed = measured(cadence(HOUR, 60_000), 2_000, 2_000);
        failed.on_failure(Timestamp(100 * HOUR));
        failed.on_failure(Timestamp(100 * HOUR + 1));
        failed.on_attempt(Timestamp(100 * HOUR + 5_000));
        assert_chosen(
            &failed,
            100 * HOUR + 5_000,
            53_000,
            "over within 1 min 0 s, of which a restart takes 5000 ms and a checkpoint 2000 ms",
        );
    }

    #[test]
    fn frequent_failures_make_checkpoints_frequent_and_quiet_makes_them_rare() {
        let mut failing = measured(cadence(100 * HOUR, 100 * HOUR), 500, 500);
        let calm = failing.choice(Timestamp(0)).interval_ms;
        // sqrt(2 * 0.5 s * 1 day)
        assert_eq!(calm, 293_939);
        for minute in 1..=10 {
            failing.on_failure(Timestamp(minute * 60_000));
            failing.on_attempt(Timestamp(minute * 60_000));
        }
        let restless = failing.choice(Timestamp(600_000));
        assert!(restless.interval_ms < calm / 8 && restless.reason.contains("failures are 15 min"), "{restless:?}");
        let later = failing.choice(Timestamp(1_000 * HOUR)).interval_ms;
        assert!(later > 5 * restless.interval_ms, "{later}");
    }

    #[test]
    fn what_the_machine_cannot_follow_is_not_asked_for() {
        let slow = measured(cadence(1_000, 60_000), 4_000, 5_000);
        assert_chosen(
            &slow,
            0,
            8_000,
            "more often is not possible, for a checkpoint takes 4000 ms; wanted was 1 ms: output is to be visible within 1000 ms",
        );
        assert_chosen(&measured(cadence(1, 1), 0, 0), 0, 50, "more often is not possible");
    }

    #[test]
    fn one_slow_checkpoint_does_not_decide() {
        let mut cadence = measured(cadence(10_000, 60_000), 100, 100);
        cadence.on_published(1_100);
        assert_chosen(&cadence, 0, 9_700, "publishing takes 300 ms");
    }
}
