//! AVG of integers: the sum is exact, whatever the number of rows; the result is cut off towards zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion_common::Result;
use mainstem_plan::aggregate::INTEGER_SUM as SUM;

use super::accumulator::{Accumulator, Changes};
use crate::memory;

#[derive(Clone, Copy, Default)]
struct Cell {
    sum: i128,
    count: i64,
}

/// See the module.
pub(super) struct IntegerAverage {
    cells: Vec<Cell>,
    output: DataType,
}

impl IntegerAverage {
    /// Results are of type `output`, that of the argument.
    pub(super) fn new(output: DataType) -> Self {
        IntegerAverage { cells: Vec::new(), output }
    }
}

impl Accumulator for IntegerAverage {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.cells)
    }

    fn grow(&mut self, groups: usize) {
        self.cells.resize(groups.max(self.cells.len()), Cell::default());
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let values = compute::cast(&args[0], &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        let numbers = values.values();
        changes.for_each(values.nulls(), |row, group, sign| {
            let cell = &mut self.cells[group];
            cell.sum += i128::from(sign) * i128::from(numbers[row]);
            cell.count += sign;
        });
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let average = |group: &u32| {
            let cell = self.cells[*group as usize];
            // The mean of 64-bit integers is one.
            (cell.count != 0).then(|| (cell.sum / i128::from(cell.count)) as i64)
        };
        Ok(compute::cast(&groups.iter().map(average).collect::<Int64Array>(), &self.output)?)
    }

    fn reset(&mut self, group: u32) {
        self.cells[group as usize] = Cell::default();
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![SUM, DataType::Int64]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let cells = || groups.iter().map(|group| self.cells[*group as usize]);
        let sums = Decimal128Array::from_iter_values(cells().map(|cell| cell.sum)).with_data_type(SUM);
        Ok(vec![Arc::new(sums), Arc::new(Int64Array::from_iter_values(cells().map(|cell| cell.count)))])
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.state(groups)
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let (sums, counts) = (partial[0].as_primitive::<Decimal128Type>(), partial[1].as_primitive::<Int64Type>());
        for (group, (sum, count)) in groups.iter().zip(sums.values().iter().zip(counts.values())) {
            let cell = &mut self.cells[*group as usize];
            cell.sum += sum;
            cell.count += count;
        }
        Ok(())
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (state[0].as_primitive::<Decimal128Type>(), state[1].as_primitive::<Int64Type>());
        for (group, (sum, count)) in groups.iter().zip(sums.values().iter().zip(counts.values())) {
            self.cells[*group as usize] = Cell { sum: *sum, count: *count };
        }
        Ok(())
    }
}
