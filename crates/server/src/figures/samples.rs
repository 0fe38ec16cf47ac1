//! Samples of a job's counters, from which rates come, and its figures of the last minutes. Bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mainstem_coordinator::cluster::JobView;
use mainstem_core::cluster::messages::{OperatorCounters, SubtaskCounters};
use mainstem_core::ids::{Generation, OperatorId};
use mainstem_core::time::Timestamp;

use super::latency::Counted;
use super::model::Point;

/// Time between two samples.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Samples over which a rate is an average.
const SAMPLES_MAX: usize = 3;
/// Samples over which latencies are told: those of a minute.
const COUNTED_MAX: usize = 30;
/// Points of the time line.
const POINTS_MAX: usize = 300;
/// A rate over less is noise: workers tell their counters now and then.
const SPAN_MS_MIN: i64 = 900;

/// The newest samples of a job.
#[derive(Default)]
pub(crate) struct Samples {
    recent: VecDeque<Sample>,
    points: VecDeque<Point>,
    counted: VecDeque<(Generation, Counted)>,
}

struct Sample {
    /// By the clock that only goes forward.
    at: Timestamp,
    generation: Generation,
    counters: BTreeMap<OperatorId, OperatorCounters>,
}

/// What has changed since a sample.
#[derive(Default)]
pub(crate) struct Rates {
    /// None: nothing to compare with.
    seconds: Option<f64>,
    before: BTreeMap<OperatorId, OperatorCounters>,
}

/// How subtasks have spent their time, 0 to 1 each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    pub(crate) busy: Option<f64>,
    pub(crate) backpressured: Option<f64>,
    pub(crate) idle: Option<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, at: Timestamp, point: Point, view: JobView, counted: Counted) {
        if self.counted.len() == COUNTED_MAX {
            self.counted.pop_front();
        }
        self.counted.push_back((view.generation, counted));
        if self.recent.len() == SAMPLES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Sample { at, generation: view.generation, counters: view.counters });
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// What latency markers had told a minute ago, or since the attempt began.
    pub(crate) fn counted(&self, view: &JobView) -> Option<&Counted> {
        self.counted.iter().find(|(generation, _)| *generation == view.generation).map(|(_, counted)| counted)
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        self.points.iter().cloned().collect()
    }

    pub(crate) fn rates(&self, now: Timestamp, view: &JobView) -> Rates {
        let of_attempt = |sample: &&Sample| {
            sample.generation == view.generation && now.since_ms(sample.at) >= SPAN_MS_MIN && view.active
        };
        let Some(sample) = self.recent.iter().find(of_attempt) else { return Rates::default() };
        Rates { seconds: Some(now.since_ms(sample.at) as f64 / 1000.0), before: sample.counters.clone() }
    }
}

impl Rates {
    /// How much a counter of an operator has grown a second.
    pub(crate) fn of(
        &self,
        now: &OperatorCounters,
        id: OperatorId,
        counter: fn(&OperatorCounters) -> u64,
    ) -> Option<f64> {
        let before = self.before.get(&id).map_or(0, counter);
        Some(rounded(counter(now).saturating_sub(before) as f64 / self.seconds?, 10.0))
    }

    /// The same of a subtask.
    pub(crate) fn of_subtask(
        &self,
        now: &SubtaskCounters,
        id: OperatorId,
        counter: fn(&SubtaskCounters) -> u64,
    ) -> Option<f64> {
        let before = self.subtask_before(id, now.index).map_or(0, counter);
        Some(rounded(counter(now).saturating_sub(before) as f64 / self.seconds?, 10.0))
    }

    /// How a subtask of a task's first operator has spent its time.
    pub(crate) fn shares(&self, now: &SubtaskCounters, task: OperatorId) -> Shares {
        let before = self.subtask_before(task, now.index).copied().unwrap_or_default();
        let spent = [
            now.busy_us.saturating_sub(before.busy_us),
            now.backpressured_us.saturating_sub(before.backpressured_us),
            now.idle_us.saturating_sub(before.idle_us),
        ];
        let all: u64 = spent.iter().sum();
        if all == 0 || self.seconds.is_none() {
            return Shares::default();
        }
        let [busy, backpressured, idle] = spent.map(|part| Some(rounded(part as f64 / all as f64, 1000.0)));
        Shares { busy, backpressured, idle }
    }

    fn subtask_before(&self, id: OperatorId, index: u32) -> Option<&SubtaskCounters> {
        self.before.get(&id)?.subtasks.iter().find(|subtask| subtask.index == index)
    }
}

impl Shares {
    /// The average of several.
    pub(crate) fn mean(of: &[Shares]) -> Shares {
        let mean = |part: fn(&Shares) -> Option<f64>| {
            let known: Vec<f64> = of.iter().filter_map(part).collect();
            (!known.is_empty()).then(|| rounded(known.iter().sum::<f64>() / known.len() as f64, 1000.0))
        };
        Shares { busy: mean(|s| s.busy), backpressured: mean(|s| s.backpressured), idle: mean(|s| s.idle) }
    }
}

fn rounded(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}
