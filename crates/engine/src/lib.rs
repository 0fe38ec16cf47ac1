//! The worker side of Mainstem: subtasks that run chains of operators over Arrow batches, the exchange between
//! them, and their part of each checkpoint. Decisions about epochs, splits and generations are not made here:
//! subtasks obey the messages of `mainstem_core::protocol`.

mod aggregate;
mod budget;
mod calc;
mod chain;
#[cfg(test)]
mod checkpointing;
mod counted_rows;
mod dead_letters;
mod delta_files;
mod deploy;
mod element;
mod error;
mod event_time;
mod exchange;
mod expiry;
mod in_flight;
mod join;
mod key_hash;
mod keys;
mod late;
mod markers;
mod memory;
mod merging;
mod metrics;
mod normalize;
mod operator;
mod over;
mod partitions;
mod parts;
mod pattern;
mod rank;
mod row_codec;
mod row_store;
mod screen;
mod slab;
mod slot_table;
mod sort;
mod source;
mod source_task;
mod staging;
mod state_files;
mod task;
mod unnest;
mod uploader;
mod watermark_alignment;
mod window;

pub use budget::MemoryBudget;
pub use deploy::{Deployment, Placement, RunningAttempt, deploy};
pub use error::EngineError;
pub use exchange::DataPlane;
pub use metrics::{JobMetrics, OperatorMetrics};
pub use staging::staging;
