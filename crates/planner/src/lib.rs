//! SQL in Flink's dialect to the plan of a job. [`plan`] reads a whole file: tables, views, settings, and all
//! of its INSERTs and SELECTs as one job; [`explain`] shows the result. Called by the server and by tests.
//! Opens nothing, runs nothing, knows no clock: the same text always gives the same plan.

mod catalog;
mod common_types;
mod context;
mod dialect;
mod error;
mod explain;
mod forms;
mod grouping_sets;
mod guarantee;
mod hint;
mod insert;
mod job;
mod lower;
mod node;
mod optimize;
mod order;
mod preview;
mod query;
mod replay;
mod resolve;
mod secrets;
mod settings;
mod statement;
mod suggest;
mod time_attribute;
mod time_bounds;
mod types;
mod window;

pub use catalog::{Declaration, DeclarationKind, DeclaredColumn};
pub use error::{ErrorCode, SqlError};
pub use explain::explain;
pub use guarantee::{
    Cause, CauseKind, Effect, PathGuarantee, SinkInfo, SourceInfo, explain_guarantees, paths as guarantee_paths,
};
pub use job::{JobPlan, declared, plan, plan_preview, plan_replay};
pub use replay::Replay;
pub use settings::{SETTINGS, Setting, SettingKind};
