//! A subtask on a worker: a source or a counter, what it was told and has not read, what it has sent and nobody has
//! taken yet, and the parts of checkpoints that are being uploaded.

use std::collections::VecDeque;

use super::counter::CounterTask;
use super::plan::Element;
use super::source::SourceTask;
use super::store::Effect;
use crate::ids::{Epoch, SubtaskId};
use crate::protocol::{SubtaskSnapshot, ToSubtask};

/// A part of a checkpoint that is made durable, then reported.
pub(super) struct Upload {
    pub(super) epoch: Epoch,
    pub(super) snapshot: SubtaskSnapshot,
    /// What is still to be written.
    pub(super) effects: Vec<Effect>,
}

impl Upload {
    pub(super) fn new(epoch: Epoch, snapshot: SubtaskSnapshot) -> Upload {
        Upload { epoch, snapshot, effects: Vec::new() }
    }
}

pub(super) enum Role {
    Source(Box<SourceTask>),
    Counter(Box<CounterTask>),
}

pub(super) struct Subtask {
    pub(super) id: SubtaskId,
    pub(super) control: VecDeque<ToSubtask>,
    /// Elements for each receiver that are still on this side.
    pub(super) out: Vec<VecDeque<Element>>,
    pub(super) uploads: VecDeque<Upload>,
    pub(super) role: Role,
    /// It has failed, or has said that it has ended.
    pub(super) gone: bool,
}

impl Subtask {
    /// Whether nothing more comes of it.
    pub(super) fn is_done(&self) -> bool {
        let ended = match &self.role {
            Role::Source(source) => source.ended,
            Role::Counter(counter) => counter.ended,
        };
        ended && self.uploads.is_empty()
    }
}
