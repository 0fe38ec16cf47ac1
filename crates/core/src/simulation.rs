//! A whole cluster in a test, made of the machines of this crate and driven by one seeded scheduler: three coordinators
//! that agree by a model of Raft, three workers, sources that read splits, an exchange, counts by key and window, a sink
//! with hidden output. Any process dies, stands still or is cut off at any step; connections end, and each side learns of
//! it when it does; writes seem to fail and have taken place, or take place long after their process was given up; reports
//! come twice or from older attempts; checkpoints are damaged; leaders change while records are on their way; users
//! stop, cancel and change the parallelism. After the faults everything must come to its end within a bound.
//!
//! What must hold is checked at every step, by [`judge`]'s own books: see there.
//!
//! `MAINSTEM_SIM_SEEDS` sets how many seeds are run, `MAINSTEM_SIM_FIRST` with which they begin. A seed that fails is named
//! with the command that replays it alone and shows what happened. What is mirrored here instead of driven, because it lies
//! in other crates among I/O: the coordinator's event loop, recovery and deployment, the worker's session, the tasks of the
//! engine.

mod checkpointing;
mod connection;
mod counter;
mod dataflow;
mod driver;
mod faults;
mod judge;
mod leader;
mod plan;
mod raft;
mod random;
mod recovery;
mod running;
mod source;
mod store;
mod subtask;
mod tests;
mod worker;
mod world;
