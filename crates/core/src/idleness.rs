//! Whom an idle source subtask follows. A source subtask whose splits are all silent or read to their end has no
//! watermark of its own to give; so that nobody waits for it, it sends on the least watermark of the subtasks
//! that are active: those of its own source, or, where the whole source is idle, those of the other sources of
//! its group (sources that meet at some operator which waits for watermarks). When nobody is active any more, all
//! go to the greatest watermark that any of their splits had: whoever is idle does not hold that one back, in
//! whatever order they fell idle. Then nothing moves. One machine an attempt; driven by the job's coordinator,
//! which sends what it is given.
//!
//! Invariants:
//! - What a subtask is told only grows.
//! - A subtask has at most one message before it: the next one only after it has said again that it is idle. So
//!   a subtask that is slow to take its messages never has its channel filled by them.
//! - A subtask that has not reported yet counts as active and holds its followers back. One that has ended holds
//!   nobody back, and leads nobody further than its splits were.

use std::collections::BTreeMap;

use crate::ids::{OperatorId, SubtaskId};
use crate::protocol::SourceStatus;
use crate::time::Timestamp;

/// A source subtask and whom it may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The subtask.
    pub subtask: SubtaskId,
    /// Its source.
    pub source: OperatorId,
    /// The group of its source.
    pub group: OperatorId,
}

/// A watermark that an idle subtask is to send on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// To whom.
    pub subtask: SubtaskId,
    /// The watermark.
    pub watermark: Timestamp,
}

#[derive(Clone, Debug)]
struct Known {
    member: Member,
    status: SourceStatus,
    /// The greatest watermark that it may follow to.
    target: Timestamp,
    /// The greatest watermark that it was told or has reached itself.
    reached: Timestamp,
    /// Whether it waits for a message.
    ready: bool,
}

impl Known {
    fn is_idle(&self) -> bool {
        matches!(self.status, SourceStatus::Idle { .. })
    }

    fn active(&self) -> Option<Timestamp> {
        match self.status {
            SourceStatus::Active { watermark } => Some(watermark),
            SourceStatus::Idle { .. } | SourceStatus::Ended { .. } => None,
        }
    }

    fn greatest(&self) -> Timestamp {
        match self.status {
            SourceStatus::Active { watermark: greatest }
            | SourceStatus::Idle { greatest }
            | SourceStatus::Ended { greatest } => greatest,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Idleness {
    subtasks: BTreeMap<SubtaskId, Known>,
}

impl Idleness {
    /// A machine for all source subtasks that belong to a group.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = Member>) -> Idleness {
        let unknown = SourceStatus::Active { watermark: Timestamp::MIN };
        let known = |member: Member| {
            let (target, reached) = (Timestamp::MIN, Timestamp::MIN);
            (member.subtask, Known { member, status: unknown, target, reached, ready: false })
        };
        Idleness { subtasks: members.into_iter().map(known).collect() }
    }

    /// Takes what a subtask says and gives what is to be sent. A subtask that is not known is ignored.
    pub fn on_report(&mut self, subtask: SubtaskId, status: SourceStatus) -> Vec<Follow> {
        let Some(known) = self.subtasks.get_mut(&subtask) else { return Vec::new() };
        known.status = status;
        known.ready = known.is_idle();
        known.reached = known.reached.max(known.active().unwrap_or(Timestamp::MIN));
        let group = known.member.group;

        let of_group = || self.subtasks.values().filter(|k| k.member.group == group);
        let mut of_source = BTreeMap::<OperatorId, Timestamp>::new();
        for (source, watermark) in of_group().filter_map(|k| Some((k.member.source, k.active()?))) {
            let least = of_source.entry(source).or_insert(watermark);
            *least = watermark.min(*least);
        }
        let greatest = of_group().map(Known::greatest).max().unwrap_or(Timestamp::MIN);
        let of_all = of_source.values().copied().min().unwrap_or(greatest);

        let mut follows = Vec::new();
        for known in self.subtasks.values_mut().filter(|k| k.member.group == group && k.is_idle()) {
            let leader = of_source.get(&known.member.source).copied().unwrap_or(of_all);
            known.target = known.target.max(leader);
            if known.ready && known.target > known.reached {
                known.ready = false;
                known.reached = known.target;
                follows.push(Follow { subtask: known.member.subtask, watermark: known.target });
            }
        }
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subtask(source: u32, index: u32) -> SubtaskId {
        SubtaskId { operator: OperatorId(source), index }
    }

    fn follow(source: u32, index: u32, watermark: i64) -> Follow {
        Follow { subtask: subtask(source, index), watermark: Timestamp(watermark) }
    }

    /// Sources of three subtasks each; source 9 is in a group of its own.
    fn machine(sources: &[u32]) -> Idleness {
        let members = sources.iter().flat_map(|source| {
            let group = OperatorId(if *source == 9 { 9 } else { 0 });
            (0..3).map(move |index| Member { subtask: subtask(*source, index), source: OperatorId(*source), group })
        });
        Idleness::new(members)
    }

    struct Check(Idleness);

    impl Check {
        fn active(&mut self, source: u32, index: u32, watermark: i64) -> Vec<Follow> {
            self.0.on_report(subtask(source, index), SourceStatus::Active { watermark: Timestamp(watermark) })
        }

        /// Idle without ever having had a split.
        fn idle(&mut self, source: u32, index: u32) -> Vec<Follow> {
            self.0.on_report(subtask(source, index), SourceStatus::Idle { greatest: Timestamp::MIN })
        }

        fn idle_at(&mut self, source: u32, index: u32, greatest: i64) -> Vec<Follow> {
            self.0.on_report(subtask(source, index), SourceStatus::Idle { greatest: Timestamp(greatest) })
        }

        fn end_at(&mut self, source: u32, index: u32, greatest: i64) -> Vec<Follow> {
            self.0.on_report(subtask(source, index), SourceStatus::Ended { greatest: Timestamp(greatest) })
        }
    }

    #[test]
    fn an_idle_subtask_follows_the_least_of_its_own_source() {
        let mut check = Check(machine(&[1, 2, 9]));
        assert_eq!(check.idle(1, 0), vec![], "the others have not reported");
        assert_eq!(check.active(1, 1, 10), vec![]);
        assert_eq!(check.active(1, 2, 5), vec![follow(1, 0, 5)]);
        assert_eq!(check.active(2, 0, 1), vec![], "another source does not count while this one is active");
        assert_eq!(check.active(9, 0, 99), vec![]);
        assert_eq!(check.active(1, 2, 20), vec![], "it has not answered yet");
        assert_eq!(check.idle(1, 0), vec![follow(1, 0, 10)]);
        assert_eq!(check.idle(1, 0), vec![], "nothing is news");
    }

    #[test]
    fn an_idle_source_follows_the_others_of_its_group() {
        let mut check = Check(machine(&[1, 2, 9]));
        for index in 0..3 {
            assert_eq!(check.idle(1, index), vec![]);
            assert_eq!(check.active(9, index, 1_000), vec![]);
        }
        assert_eq!(check.active(2, 0, 7), vec![]);
        assert_eq!(check.active(2, 1, 8), vec![]);
        let all = |watermark| (0..3).map(|index| follow(1, index, watermark)).collect::<Vec<_>>();
        assert_eq!(check.active(2, 2, 9), all(7));
        (0..3).for_each(|index| assert_eq!(check.idle(1, index), vec![]));
        let mut expected = all(8);
        expected.push(follow(2, 0, 8));
        assert_eq!(check.idle(2, 0), expected);
    }

    #[test]
    fn when_all_are_idle_they_go_to_where_one_of_them_had_been() {
        let mut check = Check(machine(&[1]));
        check.active(1, 0, 1);
        check.active(1, 1, 1);
        assert_eq!(check.idle(1, 2), vec![follow(1, 2, 1)]);
        assert_eq!(check.active(1, 0, 50), vec![]);
        assert_eq!(check.active(1, 1, 40), vec![], "not answered");
        assert_eq!(check.idle_at(1, 0, 60), vec![]);
        assert_eq!(check.idle_at(1, 1, 45), vec![follow(1, 0, 60), follow(1, 1, 60)], "nobody is active any more");
        assert_eq!(check.idle(1, 2), vec![follow(1, 2, 60)], "it has answered now");
        assert_eq!(check.idle_at(1, 0, 60), vec![]);
        assert_eq!(check.idle_at(1, 1, 45), vec![]);
    }

    #[test]
    fn it_never_goes_back_and_nobody_follows_to_the_end() {
        let mut check = Check(machine(&[1]));
        check.active(1, 0, 30);
        check.active(1, 1, 30);
        assert_eq!(check.idle(1, 2), vec![follow(1, 2, 30)]);
        assert_eq!(check.active(1, 2, 30), vec![]);
        assert_eq!(check.active(1, 0, 31), vec![], "it is active itself");
        assert_eq!(check.idle(1, 2), vec![], "it has been there");
        assert_eq!(check.end_at(1, 0, 35), vec![]);
        assert_eq!(check.end_at(1, 1, 30), vec![follow(1, 2, 35)]);
        let unknown = SourceStatus::Active { watermark: Timestamp(1) };
        assert_eq!(check.0.on_report(subtask(77, 0), unknown), vec![]);
    }
}
