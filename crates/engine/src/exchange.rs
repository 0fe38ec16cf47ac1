//! Streams between tasks: bounded channels that count bytes, the routing of rows to receivers, and the gate
//! through which a task takes from its inputs, aligned by barriers.

mod channel;
mod gate;
mod output;

pub(crate) use channel::channel;
pub(crate) use gate::{GateEvent, GateInput, InputGate};
pub(crate) use output::{OutputEdge, Outputs};
