//! What can be concluded from the live figures of a cluster's leader: what bounds the throughput, and where the time of the
//! newest checkpoint went. Pure, so that it can be tested.

use mainstem_core::protocol::PartTimes;
use serde::Deserialize;
use serde_json::Value;

use super::findings::Finding;
use super::{length, part};

/// Part of its time from which on a task counts as busy, or as held up by its receivers.
const MUCH: f64 = 0.5;
/// How much busier than the mean of its task a subtask is that has more to do than the others.
const SKEW: f64 = 1.5;

/// Of the answer to the graph of a job, what is needed here.
#[derive(Deserialize)]
struct Graph {
    operators: Vec<Operator>,
}

#[derive(Deserialize)]
struct Operator {
    id: u32,
    name: String,
    kind: String,
    task: u32,
    busy: Option<f64>,
    backpressured: Option<f64>,
    idle: Option<f64>,
    rows_in_per_second: Option<f64>,
    subtasks: Vec<Subtask>,
}

#[derive(Deserialize)]
struct Subtask {
    index: u32,
    busy: Option<f64>,
}

/// The same of its checkpoints, newest first.
#[derive(Deserialize)]
struct Checkpoints {
    checkpoints: Vec<Checkpoint>,
}

#[derive(Deserialize)]
struct Checkpoint {
    epoch: u64,
    duration_ms: Option<i64>,
    snapshot_ms: Option<i64>,
    manifest_ms: Option<i64>,
    record_ms: Option<i64>,
    publish_ms: Option<i64>,
    slowest: Option<Slowest>,
}

#[derive(Deserialize)]
struct Slowest {
    operator: u32,
    name: Option<String>,
    subtask: u32,
    ms: i64,
    alignment_ms: Option<u64>,
    capture_ms: Option<u64>,
    wait_ms: Option<u64>,
    upload_ms: Option<u64>,
    uploaded_bytes: Option<u64>,
}

/// Why its throughput is what it is. Nothing where the leader has not looked twice yet.
pub(super) fn of_graph(graph: &Value) -> Vec<Finding> {
    let Ok(Graph { operators }) = Graph::deserialize(graph) else { return Vec::new() };
    // Operators of one chain share their time; the first one stands for it.
    let tasks: Vec<&Operator> = operators.iter().filter(|operator| operator.task == operator.id).collect();
    let held_up: Vec<&&Operator> = tasks.iter().filter(|task| task.backpressured >= Some(MUCH)).collect();
    let Some(busiest) =
        tasks.iter().filter(|task| task.busy.is_some()).max_by(|a, b| share(a.busy).total_cmp(&share(b.busy)))
    else {
        return Vec::new();
    };
    let waiting = || {
        let names: Vec<String> =
            held_up.iter().map(|task| format!("{} for {}", task.shown(), percent(task.backpressured))).collect();
        format!("held up by what follows: {}", names.join(", "))
    };
    let text = if share(busiest.busy) >= MUCH {
        let mut text = format!("{} works {} of its time, more than any other", busiest.shown(), percent(busiest.busy));
        text += &busiest.skew().unwrap_or_default();
        if !held_up.is_empty() {
            text += &format!("; {}", waiting());
        }
        text
    } else if !held_up.is_empty() {
        format!("nothing works half of its time; {}: the outside takes rows no faster", waiting())
    } else {
        let sources = tasks.iter().filter(|task| task.kind == "source");
        let rows: f64 = sources.clone().filter_map(|source| source.rows_in_per_second).sum();
        let idle = sources.filter_map(|source| source.idle).fold(0.0, f64::max);
        format!(
            "the job keeps up: rows come at {rows:.0} a second, its sources wait {} of their time, and {} works most, {}",
            percent(Some(idle)),
            busiest.shown(),
            percent(busiest.busy)
        )
    };
    vec![Finding::new("throughput", text)]
}

/// Where the time of the newest complete checkpoint went.
pub(super) fn of_checkpoints(checkpoints: &Value) -> Vec<Finding> {
    let Ok(Checkpoints { checkpoints }) = Checkpoints::deserialize(checkpoints) else { return Vec::new() };
    let newest = checkpoints.iter().find_map(|one| Some((one, one.duration_ms?, one.snapshot_ms?)));
    let Some((newest, duration_ms, snapshot_ms)) = newest else { return Vec::new() };
    let mut text = format!(
        "epoch {} took {}: {} until the state of all subtasks was stored",
        newest.epoch,
        length(duration_ms),
        length(snapshot_ms)
    );
    text += &newest.slowest.as_ref().map(Slowest::shown).unwrap_or_default();
    for (ms, what) in [(newest.manifest_ms, "its manifest"), (newest.record_ms, "agreement")] {
        text += &ms.map(|ms| format!(", {} for {what}", length(ms))).unwrap_or_default();
    }
    text += &newest.publish_ms.map(|ms| format!("; publishing took {}", length(ms))).unwrap_or_default();
    vec![Finding::new("phases", text)]
}

impl Slowest {
    fn shown(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let spent = self.times().and_then(|times| part::spent(self.alignment_ms, &times));
        let spent = spent.map(|spent| format!(": {spent}")).unwrap_or_default();
        format!(" (last [{}]{name} subtask {}, after {}{spent})", self.operator, self.subtask, length(self.ms))
    }

    /// A coordinator or a worker of before tells none.
    fn times(&self) -> Option<PartTimes> {
        let (capture_ms, wait_ms) = (self.capture_ms?, self.wait_ms?);
        Some(PartTimes { capture_ms, wait_ms, upload_ms: self.upload_ms?, uploaded_bytes: self.uploaded_bytes? })
    }
}

impl Operator {
    fn shown(&self) -> String {
        format!("[{}] {}", self.id, self.name)
    }

    /// Of one subtask that has more to do than the others.
    fn skew(&self) -> Option<String> {
        let most = self.subtasks.iter().max_by(|a, b| share(a.busy).total_cmp(&share(b.busy)))?;
        let is_skewed = self.subtasks.len() > 1 && share(most.busy) > SKEW * share(self.busy);
        is_skewed.then(|| {
            format!(
                "; its subtask {} works {}: some keys or splits have more rows than others",
                most.index,
                percent(most.busy)
            )
        })
    }
}

fn share(part: Option<f64>) -> f64 {
    part.unwrap_or(0.0)
}

fn percent(part: Option<f64>) -> String {
    format!("{:.0} %", share(part) * 100.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operator(id: u32, kind: &str, shares: [f64; 3], subtasks: &[f64]) -> Value {
        let [busy, backpressured, idle] = shares;
        let subtasks: Vec<Value> =
            subtasks.iter().enumerate().map(|(index, busy)| json!({ "index": index, "busy": busy })).collect();
        json!({
            "id": id, "name": kind, "kind": kind, "task": id, "busy": busy, "backpressured": backpressured, "idle": idle,
            "rows_in_per_second": 50.0, "subtasks": subtasks,
        })
    }

    #[track_caller]
    fn assert_told(operators: &[Value], text: &str) {
        let found = of_graph(&json!({ "operators": operators }));
        assert_eq!(found, [Finding::new("throughput", text.to_owned())]);
    }

    #[test]
    fn what_bounds_the_throughput_is_named() {
        let source = operator(0, "source", [0.2, 0.7, 0.1], &[]);
        assert_told(
            &[source.clone(), operator(1, "join", [0.6, 0.1, 0.3], &[0.99, 0.21])],
            "[1] join works 60 % of its time, more than any other; its subtask 0 works 99 %: some keys or splits have more rows than \
             others; held up by what follows: [0] source for 70 %",
        );
        assert_told(
            &[source, operator(1, "sink", [0.1, 0.0, 0.9], &[])],
            "nothing works half of its time; held up by what follows: [0] source for 70 %: the outside takes rows no faster",
        );
        assert_told(
            &[operator(0, "source", [0.1, 0.0, 0.9], &[]), operator(1, "sink", [0.2, 0.0, 0.8], &[])],
            "the job keeps up: rows come at 50 a second, its sources wait 90 % of their time, and [1] sink works most, 20 %",
        );
        let unknown = json!({ "id": 0, "name": "s", "kind": "source", "task": 0, "busy": null, "backpressured": null,
            "idle": null, "rows_in_per_second": null, "subtasks": [] });
        assert_eq!(of_graph(&json!({ "operators": [unknown] })), []);
    }

    #[test]
    fn phases_of_the_newest_complete_checkpoint_are_told() {
        let running = json!({ "epoch": 9, "duration_ms": null, "snapshot_ms": null, "manifest_ms": null, "record_ms": null,
            "publish_ms": null, "slowest": null });
        let done = json!({ "epoch": 8, "duration_ms": 350, "snapshot_ms": 300, "manifest_ms": 40, "record_ms": 10,
            "publish_ms": 25, "slowest": { "operator": 2, "name": "sink", "subtask": 1, "ms": 299 } });
        assert_eq!(
            of_checkpoints(&json!({ "checkpoints": [running, done] })),
            [Finding::new(
                "phases",
                "epoch 8 took 350 ms: 300 ms until the state of all subtasks was stored (last [2] sink subtask 1, after 299 ms), 40 ms for \
                 its manifest, 10 ms for agreement; publishing took 25 ms"
                    .to_owned()
            )]
        );
        assert_eq!(of_checkpoints(&json!({ "checkpoints": [] })), []);
        let slowest = json!({ "operator": 2, "name": "sink", "subtask": 1, "ms": 299, "alignment_ms": 20, "capture_ms": 0,
            "wait_ms": 40, "upload_ms": 230, "uploaded_bytes": 512 });
        let told = of_checkpoints(
            &json!({ "checkpoints": [{ "epoch": 8, "duration_ms": 300, "snapshot_ms": 300, "slowest": slowest }] }),
        );
        let spent = "(last [2] sink subtask 1, after 299 ms: 230 ms writing and uploading (state: 512 bytes), 40 ms waiting for its part of \
                     the checkpoint before, or for rows that were overtaken, 20 ms aligning the barrier)";
        assert!(told[0].text.ends_with(spent), "{told:?}");
    }
}
