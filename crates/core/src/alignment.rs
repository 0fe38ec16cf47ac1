//! Aligning barriers over the inputs of a subtask (aligned checkpoints, after Chandy and Lamport; Carbone et
//! al., "Lightweight Asynchronous Snapshots for Distributed Dataflows"), and no longer waiting for it where it takes too
//! long: then the barrier overtakes what is in flight, which becomes part of the checkpoint. Called by the engine's
//! input gate, which moves the elements.
//!
//! Invariants:
//! - Between the first and the last barrier of an epoch that is aligned, no element is taken from an input that has
//!   delivered its barrier, so that a snapshot holds exactly the effects of everything before the barriers.
//! - Of an epoch whose barrier overtakes, the effects of everything before the barriers lie in the snapshot or in what
//!   is in flight on the inputs that still owe their barrier, and nowhere twice.
//! - At most one overtaken epoch at a time has inputs that owe their barrier: the next one waits for that.
//! - The last epoch of a job, epochs that are run again, and [`RESUME`] are aligned, however long it takes.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::bug::{Bug, is_put_back};
use crate::ids::Epoch;
use crate::protocol::Barrier;
use crate::time::Timestamp;

/// The epoch of the barrier that an attempt begins with where it goes on from a checkpoint with elements in flight: it
/// ends them. It takes no snapshot; being aligned, it keeps every new row behind all of those.
pub const RESUME: Epoch = Epoch(0);

/// When an epoch is no longer aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlignmentConfig {
    /// So long after the barrier has left the sources, in milliseconds; none: never.
    pub timeout_ms: Option<u64>,
    /// Epochs up to this one are aligned in any case.
    pub aligned_until: Epoch,
}

impl AlignmentConfig {
    /// Every epoch is aligned.
    pub const ALWAYS: AlignmentConfig = AlignmentConfig { timeout_ms: None, aligned_until: RESUME };
}

/// A barrier on its way from a subtask to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierMark {
    /// The barrier.
    pub barrier: Barrier,
    /// Whether nothing but the end of the stream follows.
    pub last: bool,
    /// How long it has been held up on its way from the sources, in milliseconds. With it a time-out counts from the
    /// sources on, and not anew at each subtask.
    pub waited_ms: u64,
}

impl BarrierMark {
    /// A barrier that leaves the sources.
    #[must_use]
    pub fn new(barrier: Barrier, last: bool) -> BarrierMark {
        BarrierMark { barrier, last, waited_ms: 0 }
    }
}

/// A barrier that a subtask acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    /// To be passed on.
    pub mark: BarrierMark,
    /// From its arrival at the first input until now, in milliseconds.
    pub took_ms: u64,
}

/// What the caller does after something has come in, or time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Go on, with the inputs from which elements may be taken.
    Wait,
    /// Every input has delivered: snapshot now, pass the barrier on, then take from all inputs again.
    Complete(Aligned),
    /// Snapshot now and pass the barrier on. On the inputs that still owe their barrier, everything before it is
    /// stored with the epoch, and taken as ever; a barrier is told by [`BarrierAligner::on_barrier`] as soon as it has
    /// arrived, whatever stands before it.
    Overtake {
        /// The barrier.
        barrier: Aligned,
        /// Inputs that have not delivered it.
        owing: Vec<usize>,
    },
    /// Every input has delivered the barrier of the epoch that overtook: what is stored is all of it.
    Stored(Epoch),
    /// Every input has ended.
    Ended,
    /// The peer broke the protocol: an epoch that does not follow the running one.
    Violation(Barrier),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Flowing,
    Blocked,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Aligning {
    barrier: Barrier,
    last: bool,
    /// When the barrier came into sight at the first input.
    since: Timestamp,
    /// When it left the sources, by the input on whose way it was held up the longest.
    left_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Overtaken {
    barrier: Barrier,
    owing: BTreeSet<usize>,
}

/// Tracks which inputs have delivered the barrier of the epoch that is being aligned.
#[derive(Clone, Debug)]
pub struct BarrierAligner {
    config: AlignmentConfig,
    inputs: Vec<Input>,
    aligning: Option<Aligning>,
    overtaken: Option<Overtaken>,
}

impl BarrierAligner {
    /// An aligner for so many inputs.
    #[must_use]
    pub fn new(inputs: usize, config: AlignmentConfig) -> Self {
        BarrierAligner { config, inputs: vec![Input::Flowing; inputs], aligning: None, overtaken: None }
    }

    /// Whether elements may be taken from the input.
    #[must_use]
    pub fn may_take(&self, input: usize) -> bool {
        let input = self.inputs[input];
        input == Input::Flowing || (input == Input::Blocked && is_put_back(Bug::RowsOvertakeBarrier))
    }

    /// Whether some epoch may overtake at all.
    #[must_use]
    pub fn may_overtake(&self) -> bool {
        self.config.timeout_ms.is_some()
    }

    /// Whether the input still owes the barrier of an epoch that overtook.
    #[must_use]
    pub fn owes(&self, input: usize) -> bool {
        self.overtaken.as_ref().is_some_and(|overtaken| overtaken.owing.contains(&input))
    }

    /// When [`BarrierAligner::overtake`] gives something, if nothing comes before; none: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let aligning = self.aligning.filter(|a| !a.last && a.barrier.epoch > self.config.aligned_until)?;
        let timeout_ms = i64::try_from(self.config.timeout_ms?).unwrap_or(i64::MAX);
        self.overtaken.is_none().then(|| aligning.left_at.plus_ms(timeout_ms))
    }

    /// A barrier has come to an input, behind elements that have not been taken. Told as often as one likes.
    pub fn on_announced(&mut self, now: Timestamp, input: usize, mark: BarrierMark) -> Alignment {
        // What stands behind a barrier that was delivered belongs to a later epoch.
        if self.inputs[input] != Input::Flowing {
            return Alignment::Wait;
        }
        if self.owes(input) {
            return Alignment::Violation(mark.barrier);
        }
        if self.see(now, mark) { Alignment::Wait } else { Alignment::Violation(mark.barrier) }
    }

    /// A barrier has come from an input: it was taken in its turn, or the input owes it and it has arrived.
    pub fn on_barrier(&mut self, now: Timestamp, input: usize, mark: BarrierMark) -> Alignment {
        if let Some(overtaken) = self.overtaken.as_mut().filter(|overtaken| overtaken.owing.contains(&input)) {
            if overtaken.barrier != mark.barrier {
                return Alignment::Violation(mark.barrier);
            }
            overtaken.owing.remove(&input);
            return self.stored().unwrap_or(Alignment::Wait);
        }
        if self.inputs[input] != Input::Flowing || !self.see(now, mark) {
            return Alignment::Violation(mark.barrier);
        }
        self.inputs[input] = Input::Blocked;
        self.resolve(now)
    }

    /// An input has ended; it counts as having delivered every later barrier.
    pub fn on_end(&mut self, now: Timestamp, input: usize) -> Alignment {
        if let Some(overtaken) = self.overtaken.as_ref().filter(|overtaken| overtaken.owing.contains(&input)) {
            return Alignment::Violation(overtaken.barrier);
        }
        self.inputs[input] = Input::Ended;
        self.resolve(now)
    }

    /// Stops waiting where the time is over; [`Alignment::Wait`] where it is not.
    pub fn overtake(&mut self, now: Timestamp) -> Alignment {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Alignment::Wait;
        }
        let aligning = self.aligning.take().expect("it has a deadline");
        let owing: Vec<usize> = (0..self.inputs.len()).filter(|input| self.may_take(*input)).collect();
        self.overtaken = Some(Overtaken { barrier: aligning.barrier, owing: owing.iter().copied().collect() });
        self.unblock();
        Alignment::Overtake { barrier: aligning.ends(now), owing }
    }

    /// Notes a barrier of the epoch that is being aligned, or of the next one. False: it is of another.
    fn see(&mut self, now: Timestamp, mark: BarrierMark) -> bool {
        let left_at = now.plus_ms(-i64::try_from(mark.waited_ms).unwrap_or(i64::MAX));
        let BarrierMark { barrier, last, .. } = mark;
        let aligning = self.aligning.get_or_insert(Aligning { barrier, last, since: now, left_at });
        aligning.left_at = aligning.left_at.min(left_at);
        aligning.barrier == barrier && aligning.last == last
    }

    /// Ends the epoch that overtook, when nobody owes its barrier any more.
    fn stored(&mut self) -> Option<Alignment> {
        let overtaken = self.overtaken.take_if(|overtaken| overtaken.owing.is_empty())?;
        Some(Alignment::Stored(overtaken.barrier.epoch))
    }

    fn resolve(&mut self, now: Timestamp) -> Alignment {
        if self.inputs.contains(&Input::Flowing) {
            return Alignment::Wait;
        }
        let Some(aligning) = self.aligning.take() else { return Alignment::Ended };
        self.unblock();
        Alignment::Complete(aligning.ends(now))
    }

    fn unblock(&mut self) {
        for input in &mut self.inputs {
            if *input == Input::Blocked {
                *input = Input::Flowing;
            }
        }
    }
}

impl Aligning {
    fn ends(&self, now: Timestamp) -> Aligned {
        let ms = |since: Timestamp| u64::try_from(now.since_ms(since)).unwrap_or(0);
        let (barrier, last) = (self.barrier, self.last);
        Aligned { mark: BarrierMark { barrier, last, waited_ms: ms(self.left_at) }, took_ms: ms(self.since) }
    }
}
