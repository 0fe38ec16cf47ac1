//! The chain and its newest records, of each class so many. Part of what coordinators agree on; the rest lies in files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{AuditHash, AuditRecord, Class, Event, Head, What};
use crate::cluster::messages::WorkerId;
use crate::cluster::proposal::{Note, Stamp};
use crate::time::Timestamp;

/// Records of each class that are kept here. Together they bound what a snapshot of the trail costs (below half a
/// megabyte), and what a node may be behind with its file.
fn kept(class: Class) -> usize {
    match class {
        Class::Asked | Class::Own => 256,
        Class::Routine => 512,
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    head: Head,
    /// The newest records by class, oldest first.
    asked: VecDeque<AuditRecord>,
    own: VecDeque<AuditRecord>,
    routine: VecDeque<AuditRecord>,
    /// The time of the newest decision, in milliseconds since 1970.
    newest_at_ms: i64,
    /// The newest term in which anything was proposed, and by whom; term 0 before the first.
    term: u64,
    leader: u64,
    /// Workers that have come and were not lost.
    pub(crate) workers: BTreeSet<WorkerId>,
    /// Coordinators with a vote, with their addresses.
    members: BTreeMap<u64, String>,
}

/// What a file still lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A record.
    Record(AuditRecord),
    /// Records that are kept no more.
    Gap {
        /// The first of them.
        first: u64,
        /// The chain up to and including the last of them.
        last: Head,
    },
}

impl Trail {
    /// A trail whose records so far are elsewhere.
    #[must_use]
    pub fn going_on_from(head: Head) -> Trail {
        Trail { head, ..Trail::default() }
    }

    /// How far the chain has come.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Workers that have come and of which nobody has said that they are lost.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers.iter()
    }

    /// Whether it was noted who the coordinators are.
    #[must_use]
    pub fn knows_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Adds a decision.
    pub fn add(&mut self, at: Timestamp, by: &str, event: Event) {
        let record = AuditRecord::chained(self.head, at, by, event);
        self.head = record.head();
        self.newest_at_ms = at.0;
        let class = record.what.class();
        let ring = match class {
            Class::Asked => &mut self.asked,
            Class::Own => &mut self.own,
            Class::Routine => &mut self.routine,
        };
        ring.push_back(record);
        while ring.len() > kept(class) {
            ring.pop_front();
        }
    }

    /// Something was proposed: where that is the first word of a leader, it is a decision in itself.
    pub(crate) fn on_stamp(&mut self, stamp: &Stamp) {
        let Stamp { at, node, term, .. } = *stamp;
        if term <= self.term {
            return;
        }
        let (term_before, leader_before) = (self.term, self.leader);
        (self.term, self.leader) = (term, node);
        let reason = match term_before {
            0 => "a majority has elected it; it is the first that this trail knows of".to_owned(),
            _ if leader_before == node => format!("a majority has elected it again, after term {term_before}"),
            _ => format!("a majority has elected it; coordinator {leader_before} led in term {term_before}"),
        };
        let event = Event::new(What::LeaderChanged, None).fact("coordinator", node).fact("term", term);
        self.add(at, &format!("coordinator {node}"), event.because(reason));
    }

    /// Remembers which workers and members there are, so that what is said twice is news once.
    pub(crate) fn on_notes(&mut self, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::WorkerJoined { worker, .. } => _ = self.workers.insert(worker),
                Note::WorkerLost { worker, .. } => _ = self.workers.remove(&worker),
                Note::Members { members } if self.members.is_empty() => self.members = members,
                Note::Members { .. } => {}
                Note::WorkerDrained { .. } | Note::MemberAddAsked { .. } | Note::MemberRemoveAsked { .. } => {}
            }
        }
    }

    /// The coordinators with a vote are these. Raft decides that by an entry of its own, which bears no time and no name:
    /// the record has those of what was decided before. Nothing where no note has said yet who they were: what an older
    /// release has decided is in the log of one node and in the snapshot of another, and must leave no trace in either.
    pub(crate) fn on_members(&mut self, members: &BTreeMap<u64, String>) {
        if self.members.is_empty() {
            return;
        }
        let known = std::mem::replace(&mut self.members, members.clone());
        let (at, by) = (Timestamp(self.newest_at_ms), format!("coordinator {}", self.leader));
        let mut note = |what, id: u64, address: &str| {
            let event = Event::new(what, None).fact("coordinator", id).fact("address", address);
            self.add(at, &by, event.because("a majority of the old and of the new members has agreed"));
        };
        for (id, address) in members.iter().filter(|(id, _)| !known.contains_key(id)) {
            note(What::MemberAdded, *id, address);
        }
        for (id, address) in known.iter().filter(|(id, _)| !members.contains_key(id)) {
            note(What::MemberRemoved, *id, address);
        }
    }

    /// The newest records that are wanted, oldest first; at most so many.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&AuditRecord) -> bool) -> Vec<AuditRecord> {
        let mut newest: Vec<&AuditRecord> = self.kept_records().filter(|record| wanted(record)).collect();
        newest.sort_unstable_by_key(|record| record.seq);
        let surplus = newest.len().saturating_sub(limit);
        newest.drain(..surplus);
        newest.into_iter().cloned().collect()
    }

    /// What comes behind this record, in order; what is kept no more is a gap.
    #[must_use]
    pub fn since(&self, after: u64) -> Vec<Part> {
        let mut records: Vec<&AuditRecord> = self.kept_records().filter(|record| record.seq > after).collect();
        records.sort_unstable_by_key(|record| record.seq);
        let (mut parts, mut next) = (Vec::new(), after + 1);
        let gap = |first: u64, last: u64, hash: AuditHash| Part::Gap { first, last: Head { seq: last, hash } };
        for record in records {
            if record.seq > next {
                parts.push(gap(next, record.seq - 1, record.before));
            }
            next = record.seq + 1;
            parts.push(Part::Record(record.clone()));
        }
        if next <= self.head.seq {
            parts.push(gap(next, self.head.seq, self.head.hash));
        }
        parts
    }

    fn kept_records(&self) -> impl Iterator<Item = &AuditRecord> {
        self.asked.iter().chain(&self.own).chain(&self.routine)
    }
}
