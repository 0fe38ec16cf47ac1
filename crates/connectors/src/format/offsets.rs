//! Where the values of an ARRAY or MAP column under construction end among its items: one number a value, behind a zero.

use arrow::buffer::{OffsetBuffer, ScalarBuffer};

/// Where the last value ends.
pub(super) fn last(offsets: &[i32]) -> i32 {
    *offsets.last().expect("offsets begin with a zero")
}

/// How many items the values have together.
pub(super) fn length(offsets: &[i32]) -> usize {
    usize::try_from(last(offsets)).expect("offsets are not negative")
}

/// Gives what was collected, and begins anew.
pub(super) fn renew(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut empty = Vec::with_capacity(offsets.len());
    empty.push(0);
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, empty)))
}
