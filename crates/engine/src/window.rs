//! Windows over event time. Rows are aggregated by key and *slice* before the exchange ([`PartialAggregate`])
//! and merged after it ([`FinalAggregate`] for windows made of slices, [`SessionAggregate`] for sessions).
//! Slicing follows Li et al., "No Pane, No Gain" (SIGMOD Record 2005).

mod aggregation;
mod assign;
mod block;
mod combine;
mod final_aggregate;
mod partial;
mod partial_log;
mod processing_time;
mod session;
mod shared_slices;
mod single_slices;
mod slicing;

pub(crate) use aggregation::Aggregation;
pub(crate) use assign::WindowAssign;
pub(crate) use final_aggregate::{FinalAggregate, WindowOutput};
pub(crate) use partial::PartialAggregate;
pub(crate) use partial_log::WindowMeta;
pub(crate) use processing_time::ByProcessingTime;
pub(crate) use session::{PartialSessions, SessionAggregate};
pub(crate) use slicing::Slicing;

#[cfg(test)]
mod tests;
