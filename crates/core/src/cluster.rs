//! What a cluster decides beyond one job: which workers there are, where subtasks run, and whose word a worker
//! obeys. [`Fleet`] is the leader's view, [`Fences`] a worker's; [`messages`] is what they say to each other, [`state`]
//! what the coordinators agree on.

mod cuts;
mod ended;
mod fences;
mod fleet;
pub mod messages;
pub mod state;

pub use self::fences::{FenceCommand, Fences};
pub use self::fleet::{Fleet, FleetConfig, Lost, Shortage};
