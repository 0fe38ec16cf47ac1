//! The rows of each partition whose rank lies in a range. [`FirstRows`] where the order is that of arrival,
//! [`BestRows`] for other inputs that only insert, [`AllRows`] where the input takes rows away. Changes are those
//! of a whole batch: what moves within it and back again is not given.

mod all;
mod best;
mod changes;
mod first;
mod order_key;
mod ranked;

use arrow::datatypes::DataType;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, Rank, RankFunction};

use self::all::AllRows;
use self::best::BestRows;
use self::first::FirstRows;
use self::order_key::{Word, fits_word};
use crate::error::EngineError;
use crate::late::DroppedRows;
use crate::operator::Operator;

pub(crate) use self::order_key::sort_options;

/// The operator for the specification `rank` of the plan's operator `op`.
pub(crate) fn operator(
    name: &str,
    rank: &Rank,
    op: &Spec,
    dropped: DroppedRows,
    context: &EvalContext,
) -> Result<Box<dyn Operator>, EngineError> {
    if rank.input_retracts {
        return Ok(Box::new(AllRows::new(name, rank, op, dropped.unmatched, context)?));
    }
    let by_arrival = rank.order.is_empty();
    if by_arrival && !rank.newest_first && rank.window_end.is_none() && rank.function == RankFunction::RowNumber {
        return Ok(Box::new(FirstRows::new(name, rank, op, context)?));
    }
    let types: Vec<DataType> = rank.input_schema.fields().iter().map(|field| field.data_type().clone()).collect();
    // A number of arrival is a word as well.
    if by_arrival || fits_word(&rank.order, &types) {
        Ok(Box::new(BestRows::<Word>::new(name, rank, op, dropped.late, context)?))
    } else {
        Ok(Box::new(BestRows::<Box<[u8]>>::new(name, rank, op, dropped.late, context)?))
    }
}

#[cfg(test)]
mod tests;
