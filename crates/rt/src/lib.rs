//! The seams to the world. Everything above takes time through [`Clock`], so that a test or the simulator can
//! set it. Nothing here decides anything.

mod clock;

pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub mod failpoint;
