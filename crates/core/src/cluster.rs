//! What a cluster decides beyond one job: which workers there are, where subtasks run, and whose word a worker
//! obeys. [`Fleet`] is the leader's view, [`Fences`] a worker's; [`messages`] is what they say to each other, [`state`]
//! what the coordinators agree on, [`proposal`] how that is said. [`Adoption`] decides whether a new leader goes on with an
//! attempt, [`KeptReports`] is what a worker repeats to it. [`standby`] chooses who
//! follows the state of slots that run elsewhere.

mod adoption;
mod cuts;
mod ended;
mod fences;
mod fleet;
mod kept_reports;
pub mod messages;
mod placement;
pub mod proposal;
mod standby;
pub mod state;

pub use self::adoption::{Adoption, AdoptionCommand, AdoptionEvent};
pub use self::fences::{FenceCommand, Fences};
pub use self::fleet::{Fleet, FleetConfig, Lost, Shortage};
pub use self::kept_reports::KeptReports;
pub use self::standby::{STANDBYS_MAX, SlotStandby, StandbyStatus};
