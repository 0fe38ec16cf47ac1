//! Aligning barriers over the inputs of a subtask (aligned checkpoints, after Chandy and Lamport; Carbone et
//! al., "Lightweight Asynchronous Snapshots for Distributed Dataflows"). Called by the engine's input gate.
//!
//! Invariant: between the first and the last barrier of an epoch, no element is taken from an input that has
//! delivered its barrier, so that a snapshot holds exactly the effects of everything before the barriers.

use crate::bug::{Bug, is_put_back};
use crate::protocol::Barrier;

/// What the caller does after a barrier or an end has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Other inputs have still to deliver: take nothing more from this one until then.
    Wait,
    /// Every input has delivered: snapshot now, pass the barrier on, then take from all inputs again.
    Complete(Barrier),
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

/// Tracks which inputs have delivered the barrier of the epoch that is being aligned.
#[derive(Clone, Debug)]
pub struct BarrierAligner {
    inputs: Vec<Input>,
    aligning: Option<Barrier>,
}

impl BarrierAligner {
    /// An aligner for so many inputs.
    #[must_use]
    pub fn new(inputs: usize) -> Self {
        BarrierAligner { inputs: vec![Input::Flowing; inputs], aligning: None }
    }

    /// Whether elements may be taken from the input.
    #[must_use]
    pub fn may_take(&self, input: usize) -> bool {
        let input = self.inputs[input];
        input == Input::Flowing || (input == Input::Blocked && is_put_back(Bug::RowsOvertakeBarrier))
    }

    /// A barrier has come from an input.
    pub fn on_barrier(&mut self, input: usize, barrier: Barrier) -> Alignment {
        if self.aligning.is_some_and(|running| running != barrier) || self.inputs[input] != Input::Flowing {
            return Alignment::Violation(barrier);
        }
        self.aligning = Some(barrier);
        self.inputs[input] = Input::Blocked;
        self.resolve()
    }

    /// An input has ended; it counts as having delivered every later barrier.
    pub fn on_end(&mut self, input: usize) -> Alignment {
        self.inputs[input] = Input::Ended;
        self.resolve()
    }

    fn resolve(&mut self) -> Alignment {
        if self.inputs.contains(&Input::Flowing) {
            return Alignment::Wait;
        }
        let Some(barrier) = self.aligning.take() else { return Alignment::Ended };
        for input in &mut self.inputs {
            if *input == Input::Blocked {
                *input = Input::Flowing;
            }
        }
        Alignment::Complete(barrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::time::Timestamp;

    fn barrier(epoch: u64) -> Barrier {
        Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(0) }
    }

    #[test]
    fn inputs_block_until_the_last_barrier() {
        let mut aligner = BarrierAligner::new(3);
        assert_eq!(aligner.on_barrier(1, barrier(1)), Alignment::Wait);
        assert!(aligner.may_take(0) && !aligner.may_take(1) && aligner.may_take(2));
        assert_eq!(aligner.on_barrier(0, barrier(1)), Alignment::Wait);
        assert_eq!(aligner.on_barrier(2, barrier(1)), Alignment::Complete(barrier(1)));
        assert!((0..3).all(|i| aligner.may_take(i)));
    }

    #[test]
    fn an_ended_input_does_not_hold_back_the_rest() {
        let mut aligner = BarrierAligner::new(2);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Alignment::Wait);
        assert_eq!(aligner.on_end(1), Alignment::Complete(barrier(1)));
        assert_eq!(aligner.on_barrier(0, barrier(2)), Alignment::Complete(barrier(2)));
        assert_eq!(aligner.on_end(0), Alignment::Ended);
    }

    #[test]
    fn a_foreign_epoch_is_a_violation() {
        let mut aligner = BarrierAligner::new(2);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Alignment::Wait);
        assert_eq!(aligner.on_barrier(1, barrier(2)), Alignment::Violation(barrier(2)));
    }
}
