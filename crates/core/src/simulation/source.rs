//! A source subtask: the real bookkeeping of splits and watermarks, fed as the engine feeds it, with rows made up on
//! the spot.

use std::collections::{BTreeMap, VecDeque};
use std::mem::discriminant;

use super::plan::{Element, KEY_GROUPS, Plan, SOURCE, group_of_key, is_closed, split_number, window_of};
use super::random::Random;
use super::subtask::Upload;
use crate::ids::{Epoch, SplitId, SubtaskId};
use crate::key_group;
use crate::owned_splits::{OwnedSplits, Piece};
use crate::protocol::{Barrier, FromSubtask, ReplayPart, SourceStatus, SplitState, ToSubtask};
use crate::time::Timestamp;

/// Elements that may wait for one receiver.
const WAITING_MAX: usize = 5;
/// Splits that a subtask reads side by side.
const SPLITS_AT_ONCE: usize = 2;

/// A split that is being read, up to a position or to its end.
struct Reading {
    at: u8,
    until: u8,
}

pub(super) struct SourceTask {
    subtask: SubtaskId,
    plan: Plan,
    splits: OwnedSplits,
    reading: BTreeMap<SplitId, Reading>,
    replay_until: Option<Epoch>,
    replaying: Option<Barrier>,
    requested: bool,
    exhausted: bool,
    status: Option<SourceStatus>,
    told: Option<SourceStatus>,
    owes_answer: bool,
    pub(super) ended: bool,
}

/// What a step of a source works on.
pub(super) struct Io<'a> {
    pub(super) random: &'a mut Random,
    /// Elements on their way, by receiver.
    pub(super) out: &'a mut [VecDeque<Element>],
    pub(super) reports: &'a mut Vec<FromSubtask>,
    pub(super) uploads: &'a mut VecDeque<Upload>,
}

impl SourceTask {
    pub(super) fn start(
        subtask: SubtaskId,
        plan: &Plan,
        start: Timestamp,
        replay_until: Option<Epoch>,
        io: &mut Io<'_>,
    ) -> SourceTask {
        let mut task = SourceTask {
            subtask,
            plan: plan.clone(),
            splits: OwnedSplits::new(plan.idle, start, replay_until.is_some()),
            reading: BTreeMap::new(),
            replay_until,
            replaying: None,
            requested: false,
            exhausted: false,
            status: None,
            told: None,
            owes_answer: false,
            ended: false,
        };
        task.advance(io);
        task.request_split(io);
        task
    }

    /// Takes a message, reads, or lets time pass.
    pub(super) fn step(&mut self, control: &mut VecDeque<ToSubtask>, io: &mut Io<'_>) {
        if self.ended {
            return;
        }
        if !control.is_empty() && (self.reading.is_empty() || io.random.one_in(2)) {
            let message = control.pop_front().expect("looked at above");
            return self.on_message(message, io);
        }
        let turn = io.random.below(24);
        match (turn, self.plan.idle) {
            (0, _) => self.flush(io),
            (1, Some(idle)) => {
                self.splits.tick(idle / 2);
                self.advance(io);
            }
            _ if turn.is_multiple_of(3) && io.out.iter().all(|queue| queue.len() < WAITING_MAX) => self.read(io),
            _ => {}
        }
    }

    fn on_message(&mut self, message: ToSubtask, io: &mut Io<'_>) {
        match message {
            ToSubtask::InjectBarrier { barrier, last } => self.barrier(barrier, last, io),
            ToSubtask::AssignSplits { splits, .. } => {
                self.requested = false;
                for state in splits {
                    if self.replay_until.is_none() {
                        self.open(&state, None);
                    }
                    self.splits.add(state);
                }
                self.request_split(io);
                self.after_news(io);
            }
            ToSubtask::UnassignedWatermark { bound } => {
                self.splits.bound_unassigned(bound);
                self.after_news(io);
            }
            ToSubtask::Retired { .. } => {}
            ToSubtask::NoMoreSplits => {
                self.splits.no_more();
                self.after_news(io);
            }
            ToSubtask::FollowWatermark { watermark } => {
                self.splits.follow(watermark);
                self.owes_answer = true;
                self.after_news(io);
            }
            ToSubtask::ReplayTo { barrier, part } => self.replay_to(barrier, part, io),
            // No attempt has a second leader here.
            ToSubtask::Resume => {}
            ToSubtask::Cancel => self.ended = true,
        }
    }

    fn open(&mut self, state: &SplitState, until: Option<&str>) {
        if state.is_finished() {
            return;
        }
        let until = until.map_or(self.plan.rows, |until| until.parse().expect("written by a source"));
        let at = self.plan.position(state);
        assert!(at <= until, "split '{}' is read from {at} back to {until}", state.split.id);
        let before = self.reading.insert(state.split.id.clone(), Reading { at, until });
        assert!(before.is_none(), "split '{}' is read twice", state.split.id);
    }

    fn open_piece(&mut self, piece: &Piece) {
        self.open(&piece.from, piece.until.as_deref());
    }

    /// Reads a row of some split, or finds its end.
    fn read(&mut self, io: &mut Io<'_>) {
        if self.reading.is_empty() {
            return;
        }
        let choice = io.random.below(self.reading.len());
        let (id, reading) = self.reading.iter_mut().nth(choice).expect("below their number");
        let id = id.clone();
        if reading.at < reading.until {
            let mut row = self.plan.row(split_number(&id), reading.at);
            reading.at += 1;
            let position = reading.at.to_string();
            let watermark = self.splits.wake(&id);
            row.late = is_closed(window_of(row.time), watermark);
            self.splits.progress(&id, position, Timestamp(row.time - 1));
            let receivers = u32::try_from(io.out.len()).expect("few");
            let receiver = key_group::owner(group_of_key(row.key), KEY_GROUPS, receivers);
            io.out[receiver as usize].push_back(Element::Row(row));
            return self.advance(io);
        }
        self.reading.remove(&id);
        if self.replaying.is_some() {
            let next = self.splits.piece_read(&id).expect("as recorded");
            next.iter().for_each(|piece| self.open_piece(piece));
            return self.replay_step(io);
        }
        self.splits.finish(&id);
        self.request_split(io);
        self.after_news(io);
    }

    fn barrier(&mut self, barrier: Barrier, last: bool, io: &mut Io<'_>) {
        let part = self.splits.end_epoch();
        io.out.iter_mut().for_each(|queue| queue.push_back(Element::Barrier(barrier, last)));
        let snapshot = BTreeMap::from([(SOURCE, part)]);
        io.uploads.push_back(Upload::new(barrier.epoch, snapshot));
        if last {
            io.out.iter_mut().for_each(|queue| queue.push_back(Element::End));
            self.ended = true;
        }
    }

    fn replay_to(&mut self, barrier: Barrier, part: ReplayPart, io: &mut Io<'_>) {
        let pieces = self.splits.replay(part).expect("as recorded");
        self.replaying = Some(barrier);
        pieces.iter().for_each(|piece| self.open_piece(piece));
        self.replay_step(io);
    }

    fn replay_step(&mut self, io: &mut Io<'_>) {
        let Some(barrier) = self.replaying.filter(|_| self.splits.is_epoch_read()) else { return };
        self.replaying = None;
        self.advance(io);
        self.barrier(barrier, false, io);
        if self.replay_until == Some(barrier.epoch) {
            self.replay_until = None;
            self.splits.end_replay();
            for state in self.splits.states() {
                self.open(&state, None);
            }
            self.request_split(io);
        }
        self.after_news(io);
    }

    fn request_split(&mut self, io: &mut Io<'_>) {
        let room = self.splits.unfinished() < SPLITS_AT_ONCE;
        if room && !self.requested && !self.splits.is_complete() && self.replay_until.is_none() {
            self.requested = true;
            io.reports.push(FromSubtask::RequestSplit { subtask: self.subtask });
        }
    }

    fn after_news(&mut self, io: &mut Io<'_>) {
        self.advance(io);
        if self.splits.is_exhausted() && !self.exhausted && self.replay_until.is_none() {
            self.exhausted = true;
            io.reports.push(FromSubtask::InputExhausted { subtask: self.subtask });
        }
    }

    /// Sends the watermark on when it has advanced, and says at once when the subtask becomes idle or active.
    fn advance(&mut self, io: &mut Io<'_>) {
        if let Some(watermark) = self.splits.advance() {
            io.out.iter_mut().for_each(|queue| queue.push_back(Element::Watermark(watermark)));
        }
        if self.replay_until.is_none() {
            let status = self.splits.status();
            self.status = Some(status);
            if self.told.is_none_or(|told| discriminant(&told) != discriminant(&status)) {
                self.flush(io);
            }
        }
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        let Some(status) = self.status.filter(|status| self.owes_answer || self.told != Some(*status)) else { return };
        io.reports.push(FromSubtask::SourceWatermark { subtask: self.subtask, status });
        self.told = Some(status);
        self.owes_answer = false;
    }
}

/// The watermark that the restored subtasks of a source had reached together.
pub(super) fn restored_watermark(parts: &[(u32, crate::protocol::OperatorSnapshot)]) -> Timestamp {
    if parts.is_empty() { Timestamp::MIN } else { crate::splits::source_watermark(parts.iter().map(|(_, part)| part)) }
}
