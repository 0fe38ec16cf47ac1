//! The vocabulary of Mainstem and every decision of its protocols, as plain data and pure state machines:
//! events in, commands out. No async, no clock, no random numbers, no I/O and no Arrow, so that the simulator
//! drives exactly the code that runs in production.

pub mod adoption;
pub mod alignment;
pub mod audit;
pub mod bad_records;
mod bug;
pub mod change;
pub mod checkpoint;
pub mod cluster;
pub mod graph;
pub mod idleness;
pub mod ids;
pub mod job;
pub mod job_record;
pub mod key_group;
pub mod lag;
pub mod latency;
pub mod memory;
pub mod owned_splits;
pub mod protocol;
pub mod retry;
#[cfg(test)]
mod simulation;
pub mod splits;
pub mod time;
pub mod watermark;
