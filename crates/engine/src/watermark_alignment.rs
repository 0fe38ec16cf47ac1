//! Watermark alignment: sources that are to keep together in event time, so that what waits for the slowest of them does
//! not grow without bound. A split that is ahead of the slowest source subtask by more than the greatest drift is not read
//! on until that has caught up. Nothing but the pace depends on it.
//!
//! Each process keeps what it knows of the subtasks of a group: of its own at once, of those of other workers from the
//! watermarks that come through the channels from them. What it knows is never ahead of the truth, so the slowest
//! subtask of a group is never held, and the others are not for longer than watermarks are on their way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mainstem_core::ids::OperatorId;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::{JobGraph, OperatorKind, SourceOperator, WatermarkAlignment};
use tokio::sync::watch;

use crate::error::EngineError;

/// The groups of a job that run in this process.
#[derive(Default)]
pub(crate) struct AlignmentGroups {
    /// Of each source that is aligned: its group, and where its first subtask stands in that.
    sources: BTreeMap<OperatorId, (Arc<Group>, usize)>,
}

struct Group {
    max_drift_ms: i64,
    /// The watermark of each subtask as far as it is known here; the end of time for those that nobody waits for.
    shown: Vec<AtomicI64>,
    news: watch::Sender<()>,
}

/// A source subtask in its group.
#[derive(Clone)]
pub(crate) struct Member {
    group: Arc<Group>,
    index: usize,
}

/// A group that is being put together.
#[derive(Default)]
struct Planned {
    /// What each of its sources says; the least counts.
    max_drifts_ms: Vec<u64>,
    /// Its sources, with the number of their subtasks.
    sources: Vec<(OperatorId, usize)>,
}

impl AlignmentGroups {
    /// The groups of a job of which an operator has so many subtasks.
    pub(crate) fn of(graph: &JobGraph, parallelism: u32) -> Result<AlignmentGroups, EngineError> {
        // By the name of the group, or by the source that has none.
        let mut planned: BTreeMap<Result<String, OperatorId>, Planned> = BTreeMap::new();
        for node in &graph.nodes {
            let OperatorKind::Source(spec) = &node.op.kind else { continue };
            let Some(alignment) = alignment(spec)? else { continue };
            let group = planned.entry(alignment.group.ok_or(node.id)).or_default();
            group.max_drifts_ms.push(alignment.max_drift_ms);
            group.sources.push((node.id, graph.parallelism(node.id, parallelism) as usize));
        }
        let mut groups = AlignmentGroups::default();
        for Planned { max_drifts_ms, sources } in planned.into_values() {
            let max_drift_ms = max_drifts_ms.into_iter().min().unwrap_or(u64::MAX);
            let subtasks: usize = sources.iter().map(|(_, subtasks)| subtasks).sum();
            let group = Arc::new(Group::new(max_drift_ms, subtasks));
            let mut first = 0;
            for (operator, subtasks) in sources {
                groups.sources.insert(operator, (group.clone(), first));
                first += subtasks;
            }
        }
        Ok(groups)
    }

    /// A subtask that shows here how far it is, be it from elsewhere; the others wait for it from now on. None where its
    /// source is not aligned.
    pub(crate) fn join(&self, source: OperatorId, subtask: u32) -> Option<Member> {
        let (group, first) = self.sources.get(&source)?;
        let member = Member { group: group.clone(), index: first + subtask as usize };
        member.shown().store(i64::MIN, Ordering::Relaxed);
        Some(member)
    }
}

/// How a source is aligned: as its table says, or else as its connector wants it.
fn alignment(spec: &SourceOperator) -> Result<Option<WatermarkAlignment>, EngineError> {
    let Some(watermark) = &spec.watermark else { return Ok(None) };
    if watermark.alignment.is_some() {
        return Ok(watermark.alignment.clone());
    }
    let source = mainstem_connectors::source(&spec.table)
        .map_err(|error| EngineError::Connector { table: spec.table.name.clone(), error })?;
    let wanted = source.max_drift().map(|drift| u64::try_from(drift.as_millis()).unwrap_or(u64::MAX));
    Ok(wanted.map(|max_drift_ms| WatermarkAlignment { group: None, max_drift_ms }))
}

impl Group {
    fn new(max_drift_ms: u64, subtasks: usize) -> Group {
        Group {
            max_drift_ms: i64::try_from(max_drift_ms).unwrap_or(i64::MAX),
            shown: (0..subtasks).map(|_| AtomicI64::new(i64::MAX)).collect(),
            news: watch::Sender::new(()),
        }
    }
}

impl Member {
    /// The subtask, which runs here, has got so far; none: nobody is to wait for it now.
    pub(crate) fn show(&self, watermark: Option<Timestamp>) {
        let shown = watermark.map_or(i64::MAX, |watermark| watermark.0);
        if self.shown().swap(shown, Ordering::Relaxed) != shown {
            self.group.news.send_replace(());
        }
    }

    /// The subtask, which runs elsewhere, has got so far at least.
    pub(crate) fn heard(&self, watermark: Timestamp) {
        if self.shown().fetch_max(watermark.0, Ordering::Relaxed) < watermark.0 {
            self.group.news.send_replace(());
        }
    }

    /// No split of the group is read on ahead of this.
    pub(crate) fn bound(&self) -> Timestamp {
        let slowest = self.group.shown.iter().map(|shown| shown.load(Ordering::Relaxed)).min();
        Timestamp(slowest.unwrap_or(i64::MAX).saturating_add(self.group.max_drift_ms))
    }

    /// Changes whenever another member has got on.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.group.news.subscribe()
    }

    fn shown(&self) -> &AtomicI64 {
        &self.group.shown[self.index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(subtasks: usize) -> AlignmentGroups {
        let group = Arc::new(Group::new(10, subtasks));
        AlignmentGroups { sources: BTreeMap::from([(OperatorId(7), (group, 0))]) }
    }

    #[test]
    fn the_slowest_that_shows_itself_here_holds_the_others() {
        let groups = group(3);
        assert!(groups.join(OperatorId(1), 0).is_none(), "it is not aligned");
        let first = groups.join(OperatorId(7), 0).unwrap();
        first.show(Some(Timestamp(100)));
        assert_eq!(first.bound(), Timestamp(110), "of the others nobody here hears");
        let second = groups.join(OperatorId(7), 1).unwrap();
        assert!(first.bound() < Timestamp(0), "the second has shown nothing yet");
        let mut news = first.news();
        second.heard(Timestamp(50));
        assert!(news.has_changed().unwrap());
        assert_eq!((first.bound(), second.bound()), (Timestamp(60), Timestamp(60)));
        news.mark_unchanged();
        second.heard(Timestamp(40));
        assert!(!news.has_changed().unwrap(), "it came by a slower way");
        assert_eq!(first.bound(), Timestamp(60));
        first.show(None);
        assert_eq!(second.bound(), Timestamp(60), "it holds itself together");
        first.show(Some(Timestamp(120)));
        second.heard(Timestamp::MAX);
        assert_eq!(first.bound(), Timestamp(130), "who has ended holds nobody");
    }
}
