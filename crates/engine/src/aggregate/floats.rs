//! Sums of floats from which values are taken away again. A plain sum would keep the rounding errors of values that
//! are long gone, and one infinity would make it useless for ever: rounding errors are carried along (Neumaier's
//! summation), and values that are not finite are only counted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::Result;

use super::accumulator::{Accumulator, Changes};
use crate::memory;

#[derive(Clone, Copy, Default)]
struct Cell {
    sum: f64,
    /// What rounding has taken from the sum.
    carry: f64,
    /// Values, also those that are not finite.
    count: i64,
    infinities: i64,
    negative_infinities: i64,
    nans: i64,
}

impl Cell {
    fn add(&mut self, value: f64, sign: i64) {
        self.count += sign;
        if self.count == 0 {
            *self = Cell::default();
            return;
        }
        if value.is_nan() {
            self.nans += sign;
        } else if value == f64::INFINITY {
            self.infinities += sign;
        } else if value == f64::NEG_INFINITY {
            self.negative_infinities += sign;
        } else {
            let value = if sign > 0 { value } else { -value };
            let sum = self.sum + value;
            self.carry +=
                if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
            self.sum = sum;
        }
    }

    fn sum(&self) -> f64 {
        match (self.nans, self.infinities, self.negative_infinities) {
            (0, 0, 0) if self.sum.is_finite() => self.sum + self.carry,
            (0, 0, 0) => self.sum,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

/// See the module.
pub(super) struct FloatSum {
    cells: Vec<Cell>,
    average: bool,
}

impl FloatSum {
    /// A sum, or an average.
    pub(super) fn new(average: bool) -> Self {
        FloatSum { cells: Vec::new(), average }
    }
}

impl Accumulator for FloatSum {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.cells)
    }

    fn reserve(&mut self, more: usize) {
        self.cells.reserve_exact(more);
    }

    fn grow(&mut self, groups: usize) {
        self.cells.resize(groups.max(self.cells.len()), Cell::default());
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let values = args[0].as_primitive::<Float64Type>();
        changes.for_each(values.nulls(), |row, group, sign| self.cells[group].add(values.value(row), sign));
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let value = |group: &u32| {
            let cell = &self.cells[*group as usize];
            let divisor = if self.average { cell.count as f64 } else { 1.0 };
            (cell.count != 0).then(|| cell.sum() / divisor)
        };
        Ok(Arc::new(groups.iter().map(value).collect::<Float64Array>()))
    }

    fn reset(&mut self, group: u32) {
        self.cells[group as usize] = Cell::default();
    }

    fn state_types(&self) -> Vec<DataType> {
        let (float, count) = (DataType::Float64, DataType::Int64);
        vec![float.clone(), float, count.clone(), count.clone(), count.clone(), count]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let floats = |of: fn(&Cell) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| of(&self.cells[*group as usize]))))
        };
        let counts = |of: fn(&Cell) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| of(&self.cells[*group as usize]))))
        };
        Ok(vec![
            floats(|cell| cell.sum),
            floats(|cell| cell.carry),
            counts(|cell| cell.count),
            counts(|cell| cell.infinities),
            counts(|cell| cell.negative_infinities),
            counts(|cell| cell.nans),
        ])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let float = |column: usize, row: usize| state[column].as_primitive::<Float64Type>().value(row);
        let count = |column: usize, row: usize| state[column].as_primitive::<Int64Type>().value(row);
        for (row, group) in groups.iter().enumerate() {
            self.cells[*group as usize] = Cell {
                sum: float(0, row),
                carry: float(1, row),
                count: count(2, row),
                infinities: count(3, row),
                negative_infinities: count(4, row),
                nans: count(5, row),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(changes: &[(f64, i64)]) -> f64 {
        let mut cell = Cell::default();
        changes.iter().for_each(|(value, sign)| cell.add(*value, *sign));
        cell.sum()
    }

    #[test]
    fn what_is_gone_leaves_no_trace() {
        assert_eq!(sum_of(&[(0.1, 1), (1e16, 1), (1e16, -1)]), 0.1);
        assert_eq!(sum_of(&[(1.0, 1), (f64::INFINITY, 1), (f64::INFINITY, -1)]), 1.0);
        assert_eq!(sum_of(&[(1.0, 1), (f64::NAN, 1), (f64::NAN, -1)]), 1.0);
        assert_eq!(sum_of(&[(f64::INFINITY, 1), (1.0, 1)]), f64::INFINITY);
        assert!(sum_of(&[(f64::INFINITY, 1), (f64::NEG_INFINITY, 1)]).is_nan());
    }
}
