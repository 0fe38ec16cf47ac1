//! Streams between tasks: channels that count bytes, within a process and between two; the routing of rows to
//! receivers; and the gate through which a task takes from its inputs, aligned by barriers or overtaken by them.

mod channel;
mod cut;
mod data_plane;
mod gate;
mod inbox;
mod output;
mod peer;
mod queue;
#[cfg(test)]
mod remote_tests;
mod wire;

pub(crate) use channel::{ChannelReceiver, ChannelSender, channel};
pub use data_plane::DataPlane;
pub(crate) use gate::{ChannelPlace, GateEvent, GateInput, InFlightChannel, InputGate};
pub(crate) use output::{OutputEdge, Outputs};
pub(crate) use wire::ChannelKey;
