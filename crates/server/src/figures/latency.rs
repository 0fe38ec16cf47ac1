//! How long rows take, as latency markers have told it: what was counted of each sink at a moment, and what since.

use std::collections::BTreeMap;

use mainstem_coordinator::JobHistory;
use mainstem_coordinator::cluster::JobView;
use mainstem_core::ids::OperatorId;
use mainstem_core::latency::LatencyHistogram;

/// What was counted of a job's sinks until a moment.
#[derive(Default)]
pub(crate) struct Counted {
    /// Until rows had come to a sink.
    arrived: BTreeMap<OperatorId, LatencyHistogram>,
    /// Until they were visible.
    visible: BTreeMap<OperatorId, LatencyHistogram>,
}

/// What was counted of a sink in some time.
pub(crate) struct SinkLatency {
    pub(crate) sink: OperatorId,
    pub(crate) arrived: LatencyHistogram,
    /// None: its output is visible at once.
    pub(crate) visible: Option<LatencyHistogram>,
}

impl Counted {
    /// What is counted now.
    pub(crate) fn of(view: &JobView, history: Option<&JobHistory>) -> Counted {
        let arrived = view.counters.iter().filter_map(|(id, counters)| Some((*id, counters.latency.clone()?)));
        let visible = history.map(|history| history.latency().visible).unwrap_or_default();
        Counted { arrived: arrived.collect(), visible }
    }

    /// What was counted since then, of sinks to which markers came; all, where there is no earlier moment.
    pub(crate) fn since(&self, before: Option<&Counted>) -> Vec<SinkLatency> {
        let nothing = Counted::default();
        let before = before.unwrap_or(&nothing);
        let less = |now: &LatencyHistogram, before: Option<&LatencyHistogram>| {
            before.map_or_else(|| now.clone(), |before| now.since(before))
        };
        let of = |(sink, arrived): (&OperatorId, &LatencyHistogram)| SinkLatency {
            sink: *sink,
            arrived: less(arrived, before.arrived.get(sink)),
            visible: self.visible.get(sink).map(|visible| less(visible, before.visible.get(sink))),
        };
        self.arrived.iter().map(of).collect()
    }
}
