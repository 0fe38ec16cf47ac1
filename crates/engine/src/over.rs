//! Functions over the rows around a row. [`OrderedOver`] where rows are put in order by time and each result is
//! given once, [`UpdatingOver`] for every other order and for inputs that change.

mod carried;
mod evaluator;
mod frames;
mod ordered;
mod updating;

use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, OverAggregate, OverOrder};

use self::ordered::OrderedOver;
use self::updating::UpdatingOver;
use crate::error::EngineError;
use crate::late::DroppedRows;
use crate::operator::Operator;

/// The operator for the specification `over` of the plan's operator `op`.
pub(crate) fn operator(
    name: &str,
    over: &OverAggregate,
    op: &Spec,
    dropped: DroppedRows,
    context: &EvalContext,
) -> Result<Box<dyn Operator>, EngineError> {
    Ok(match over.by {
        OverOrder::EventTime(_) | OverOrder::ProcessingTime => {
            Box::new(OrderedOver::new(name, over, op, dropped.late, context)?)
        }
        OverOrder::Updating => Box::new(UpdatingOver::new(name, over, op, dropped.unmatched, context)?),
    })
}

#[cfg(test)]
mod tests;
