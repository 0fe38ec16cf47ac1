//! The seams to the world. Everything above takes time through [`Clock`], so that a test or the simulator can
//! set it. Nothing here decides anything.

mod blocking;
mod clock;
mod process;

pub use blocking::run_blocking;
pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub mod bug;
pub mod failpoint;
pub use process::process_number;
#[cfg(feature = "simulation")]
pub mod simulation;
