//! Rows in an order: Top-N and OVER. A condition on the number of a row in an order (`rn <= 3`) over a SELECT that
//! computes the number becomes a [`TopN`]; what is left are OVER clauses over all rows.

mod bounds;
mod convert;
mod same_calls;
mod top_n;

pub(crate) use self::convert::{convert, numbering, place_in, place_of, timing, without_alias};
pub(crate) use self::same_calls::SameCalls;
pub(crate) use self::top_n::TopN;
