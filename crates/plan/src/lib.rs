//! The plan of a job as it is stored and shipped: operators, expressions, aggregate calls, and the functions
//! that SQL may name. The planner makes plans, the engine compiles them into DataFusion's physical
//! expressions; neither this crate nor a restore ever plans SQL.

mod error;
mod types;

pub mod eval;
pub mod expr;

pub mod aggregate;
pub mod functions;
pub mod lineage;
pub mod operator;

pub use error::{ErrorKind, Location, PlanError};
pub use types::{plain_schema, plain_type, sql_type_name};
