//! Logical plan nodes of our own besides those of windows. Made while a FROM clause is planned, carried through
//! the optimiser, read by the lowering. Expressions name columns of the inputs, never positions, because the
//! optimiser removes columns below.

mod pattern;
mod set_operation;
mod state_ttl;
mod temporal_join;
mod unnest;

pub(crate) use self::pattern::{MatchRules, Measure, OrderColumn, PatternMatch, Reference};
pub(crate) use self::set_operation::SetOperation;
pub(crate) use self::state_ttl::StateTtl;
pub(crate) use self::temporal_join::TemporalJoin;
pub(crate) use self::unnest::Unnest;
