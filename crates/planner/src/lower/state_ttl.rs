//! How long operators keep rows that nothing changes: as a hint says of a relation, else as the job says.

use datafusion_expr::LogicalPlan;

use super::Lowering;
use crate::error::SqlError;
use crate::node::StateTtl;
use crate::window::node::downcast;

impl Lowering {
    /// The time to live (ms) of the state that an operator keeps of these rows; absent: for ever.
    pub(super) fn ttl_of(&mut self, rows: &LogicalPlan) -> Option<u64> {
        let mut plan = rows;
        loop {
            plan = match plan {
                LogicalPlan::Projection(projection) => &projection.input,
                LogicalPlan::Filter(filter) => &filter.input,
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                other => {
                    let Some(node) = downcast::<StateTtl>(other) else { return self.state_ttl_ms };
                    self.hints_heeded.insert(node.ttl.at);
                    return Some(node.ttl.ttl_ms).filter(|ttl| *ttl > 0);
                }
            };
        }
    }

    /// Refuses hints that no operator has heeded.
    pub(crate) fn check_hints(&self) -> Result<(), SqlError> {
        match self.hints.iter().find(|(at, _)| !self.hints_heeded.contains(at)) {
            None => Ok(()),
            Some((at, relation)) => {
                let message = format!(
                    "STATE_TTL has no effect on '{relation}': its rows go to no join, aggregation, Top-N or OVER \
                     that keeps them without a bound in time; leave the hint out"
                );
                Err(SqlError::unsupported(*at, message))
            }
        }
    }
}
