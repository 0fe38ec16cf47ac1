//! Windows: the table functions of FROM, the functions of GROUP BY, and the logical nodes that both become.
//! Called by `query.rs`; the nodes are read by the lowering.

pub(crate) mod aggregate;
pub(crate) mod interval;
pub(crate) mod marker;
pub(crate) mod node;
pub(crate) mod strip;
pub(crate) mod table_function;

/// Columns that a window table function adds.
pub(crate) const WINDOW_START: &str = "window_start";
/// See [`WINDOW_START`].
pub(crate) const WINDOW_END: &str = "window_end";
/// See [`WINDOW_START`].
pub(crate) const WINDOW_TIME: &str = "window_time";
