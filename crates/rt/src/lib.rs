//! The seams to the world. Everything above takes time through [`Clock`], so that a test or the simulator can
//! set it. Nothing here decides anything.

mod blocking;
mod clock;

pub use blocking::run_blocking;
pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub mod bug;
pub mod failpoint;
#[cfg(feature = "simulation")]
pub mod simulation;
