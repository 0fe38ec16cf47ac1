//! The way of sampled rows from a source to a sink, as the latency marker behind them tells it. Nothing of what is in the rows
//! is known here.

use mainstem_coordinator::PassedRecord;
use mainstem_core::ids::SubtaskId;
use mainstem_core::latency::LatencyMarker;
use mainstem_core::time::Timestamp;

use super::{Time, Trace};
use crate::traces::TracedJob;
use crate::traces::otlp::{KeyValue, Value};

impl<'a> Trace<'a> {
    /// A source subtask of an attempt counts its markers; so this names one, for everybody.
    pub(super) fn of_record(job: &'a TracedJob, created_at: Timestamp, record: &PassedRecord) -> Trace<'a> {
        let LatencyMarker { source, number, .. } = &record.arrival.marker;
        let (created_at, generation) = (created_at.0, record.generation.0);
        Trace::new(job, &format!("record {created_at} {generation} {source} {number} {}", job.job))
    }

    pub(super) fn record(&mut self, record: &PassedRecord) {
        let PassedRecord { sink, generation, epoch, arrival, visible_at, .. } = record;
        let marker = &arrival.marker;
        let time = Time { from: marker.read_at.0, to: visible_at.unwrap_or(arrival.at).0 };
        let mut attributes = self.of_epoch(*generation, *epoch);
        attributes.push(KeyValue::new("mainstem.source", u64::from(marker.source.operator.0)));
        attributes.extend(self.name("mainstem.source.name", marker.source));
        attributes.push(KeyValue::new("mainstem.sink", u64::from(sink.0)));
        attributes.extend(self.name("mainstem.sink.name", SubtaskId { operator: *sink, index: 0 }));
        self.add("rows", "", time, attributes, None);
        let mut from = marker.read_at.0;
        for (n, hop) in marker.trace.iter().flatten().enumerate() {
            let to = hop.left_at.0.max(from);
            // A batch that the task took before the marker was sent to it is not the one in front of the marker.
            let began = hop.began_at.0.clamp(from, to);
            let mut attributes = self.of_subtask(hop.subtask);
            let worker = record.workers.get(hop.subtask.index as usize);
            attributes.extend(worker.map(|worker| KeyValue::new("mainstem.worker", worker.0.as_str())));
            let ms = |ms: i64| u64::try_from(ms).unwrap_or(0);
            attributes.push(KeyValue::new("mainstem.wait.ms", ms(began - from)));
            attributes.push(KeyValue::new("mainstem.processing.ms", ms(to - began)));
            self.add_as(&format!("task {n}"), "task", "rows", Time { from, to }, attributes, None);
            from = to;
        }
        if let Some(visible_at) = visible_at {
            self.add("epoch", "rows", Time { from, to: visible_at.0.max(from) }, Vec::new(), None);
        }
    }

    fn name(&self, key: &'static str, of: SubtaskId) -> Option<KeyValue> {
        self.job.names.get(&of.operator).map(|name| KeyValue::new(key, Value::Text(name.clone())))
    }
}
