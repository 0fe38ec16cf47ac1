//! A model of the agreement between coordinators: each has a log; a leader is elected by a majority whose logs are
//! not newer than its own, copies its log to the others, and what a majority has in its term is decided. Exchanges
//! between two members are atomic; what a leader has proposed may be decided, or lost, long after it leads no more.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::cluster::state::{Answer, ClusterState, Command};

#[derive(Clone)]
pub(super) struct Entry {
    term: u64,
    /// None: the first entry of a leader.
    pub(super) command: Option<Rc<Command>>,
}

/// A proposal whose outcome somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    index: usize,
    term: u64,
}

pub(super) enum Outcome {
    Pending,
    Answered(Answer),
    /// Decided or not: its proposer cannot know.
    Unknown,
}

#[derive(Default)]
pub(super) struct Member {
    pub(super) up: bool,
    term: u64,
    leads: bool,
    /// Where the first entry of its own term stands.
    first: usize,
    log: Vec<Entry>,
    decided: usize,
    applied: usize,
    pub(super) state: ClusterState,
    answers: BTreeMap<usize, Answer>,
    /// What the others have, as far as the leader knows.
    matched: Vec<usize>,
}

pub(super) struct Raft {
    pub(super) members: Vec<Member>,
    /// Pairs that do not reach each other.
    cuts: Vec<Vec<bool>>,
    /// Everything that is decided, and how much of it the judge has seen.
    decided: Vec<Entry>,
    judged: usize,
    pub(super) leaders: u64,
}

impl Raft {
    pub(super) fn new(members: usize) -> Raft {
        let member = |_| Member { up: true, matched: vec![0; members], ..Member::default() };
        let cuts = vec![vec![false; members]; members];
        Raft { members: (0..members).map(member).collect(), cuts, decided: Vec::new(), judged: 0, leaders: 0 }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize, cut: bool) {
        self.cuts[a][b] = cut;
        self.cuts[b][a] = cut;
    }

    pub(super) fn crash(&mut self, member: usize) {
        let member = &mut self.members[member];
        (member.up, member.leads) = (false, false);
        member.answers.clear();
    }

    /// The member stands for election.
    pub(super) fn elect(&mut self, candidate: usize) {
        if !self.members[candidate].up {
            return;
        }
        let term = self.members[candidate].term + 1;
        let newest = |member: &Member| (member.log.last().map_or(0, |e| e.term), member.log.len());
        let own = newest(&self.members[candidate]);
        let mut votes = 1;
        for other in (0..self.members.len()).filter(|other| *other != candidate) {
            let reached = self.members[other].up && !self.cuts[candidate][other];
            let voter = &mut self.members[other];
            if reached && voter.term < term {
                (voter.term, voter.leads) = (term, false);
                votes += usize::from(newest(voter) <= own);
            }
        }
        let majority = self.members.len() / 2 + 1;
        let member = &mut self.members[candidate];
        (member.term, member.leads) = (term, votes >= majority);
        member.answers.clear();
        if member.leads {
            self.leaders += 1;
            member.first = member.log.len();
            member.matched.iter_mut().for_each(|matched| *matched = 0);
            member.log.push(Entry { term, command: None });
        }
    }

    /// The leader copies its log to another member.
    pub(super) fn replicate(&mut self, leader: usize, other: usize) {
        let (up, leads) = (self.members[leader].up && self.members[other].up, self.members[leader].leads);
        if leader == other || !up || !leads || self.cuts[leader][other] {
            return;
        }
        let mut follower = std::mem::take(&mut self.members[other]);
        let from = &mut self.members[leader];
        if follower.term > from.term {
            (from.term, from.leads) = (follower.term, false);
        } else {
            (follower.term, follower.leads) = (from.term, false);
            let same = |at: &usize| follower.log.get(*at).is_some_and(|e| e.term == from.log[*at].term);
            let shared = (follower.decided..from.log.len()).take_while(same).count() + follower.decided;
            if shared < from.log.len() || follower.log.len() > from.log.len() {
                follower.log.truncate(shared);
                follower.log.extend(from.log[shared..].iter().cloned());
            }
            from.matched[other] = from.log.len();
            let majority = from.matched.len() / 2;
            let mut has: Vec<usize> = from.matched.clone();
            has[leader] = from.log.len();
            has.sort_unstable_by(|a, b| b.cmp(a));
            let decided = has[majority];
            if decided > from.decided && from.log[decided - 1].term == from.term {
                from.decided = decided;
            }
            follower.decided = from.decided.max(follower.decided);
        }
        self.members[other] = follower;
        for member in [leader, other] {
            let Member { log, decided, .. } = &self.members[member];
            let known = self.decided.len();
            let agree = |at: usize| log[at].term == self.decided[at].term;
            assert!((0..*decided.min(&known)).next_back().is_none_or(agree), "a decision was lost");
            self.decided.extend(log[known.min(*decided)..*decided].iter().cloned());
        }
    }

    /// Applies the next decision on a member.
    pub(super) fn apply(&mut self, member: usize) -> bool {
        let member = &mut self.members[member];
        if !member.up || member.applied == member.decided {
            return false;
        }
        let index = member.applied;
        member.applied += 1;
        if let Some(command) = &member.log[index].command {
            let answer = member.state.apply_command((**command).clone());
            if member.leads {
                member.answers.insert(index, answer);
            }
        }
        true
    }

    pub(super) fn propose(&mut self, member: usize, command: Command) -> Option<Ticket> {
        let member = &mut self.members[member];
        if !member.up || !member.leads {
            return None;
        }
        member.log.push(Entry { term: member.term, command: Some(Rc::new(command)) });
        Some(Ticket { index: member.log.len() - 1, term: member.term })
    }

    pub(super) fn outcome(&self, member: usize, ticket: Ticket) -> Outcome {
        let member = &self.members[member];
        if !member.leads || member.term != ticket.term {
            return Outcome::Unknown;
        }
        match member.answers.get(&ticket.index) {
            Some(answer) => Outcome::Answered(answer.clone()),
            None => Outcome::Pending,
        }
    }

    /// The term in which a member leads, as far as it knows, with all decisions of before applied.
    pub(super) fn leads(&self, member: usize) -> Option<u64> {
        let member = &self.members[member];
        (member.up && member.leads && member.applied > member.first).then_some(member.term)
    }

    /// Whether a member holds itself for the leader, whatever it has applied.
    pub(super) fn claims(&self, member: usize) -> bool {
        self.members[member].leads
    }

    /// Whether some leader reaches a majority, so that things move on without an election.
    pub(super) fn is_led(&self) -> bool {
        let newest = self.members.iter().map(|m| m.term).max();
        (0..self.members.len()).any(|at| {
            let member = &self.members[at];
            let reaches = |other: &usize| *other == at || (self.members[*other].up && !self.cuts[at][*other]);
            let reached = (0..self.members.len()).filter(reaches).count();
            member.up && member.leads && Some(member.term) == newest && reached > self.members.len() / 2
        })
    }

    /// A leader that hears nothing of a majority stops to call itself one.
    pub(super) fn give_up_lead(&mut self, member: usize) {
        self.members[member].leads = false;
    }

    /// Decisions that the judge has not seen.
    pub(super) fn fresh(&mut self) -> Vec<Rc<Command>> {
        let fresh = self.decided[self.judged..].iter().filter_map(|entry| entry.command.clone()).collect();
        self.judged = self.decided.len();
        fresh
    }
}
