//! Variance and standard deviation (Welford's method, also backwards), BOOL_AND and BOOL_OR.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::Result;

use super::accumulator::{Accumulator, Changes};
use crate::memory;

#[derive(Clone, Copy, Default)]
struct Moments {
    count: i64,
    mean: f64,
    /// Sum of the squares of the distances from the mean.
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    fn take_away(&mut self, value: f64) {
        self.count -= 1;
        if self.count <= 0 {
            *self = Moments { count: self.count, ..Moments::default() };
            return;
        }
        let before = value - self.mean;
        self.mean -= before / self.count as f64;
        // Rounding may go below what is possible.
        self.squares = (self.squares - before * (value - self.mean)).max(0.0);
    }
}

/// See the module.
pub(super) struct Variance {
    moments: Vec<Moments>,
    sample: bool,
    root: bool,
}

impl Variance {
    /// Of a sample or of all there is; its square root or itself.
    pub(super) fn new(sample: bool, root: bool) -> Self {
        Variance { moments: Vec::new(), sample, root }
    }
}

impl Accumulator for Variance {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.moments)
    }

    fn grow(&mut self, groups: usize) {
        self.moments.resize(groups.max(self.moments.len()), Moments::default());
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let values = args[0].as_primitive::<Float64Type>();
        changes.for_each(values.nulls(), |row, group, sign| {
            let (moments, value) = (&mut self.moments[group], values.value(row));
            if sign > 0 { moments.add(value) } else { moments.take_away(value) }
        });
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let value = |group: &u32| {
            let moments = &self.moments[*group as usize];
            let divisor = moments.count - i64::from(self.sample);
            let variance = (divisor > 0).then(|| moments.squares / divisor as f64)?;
            Some(if self.root { variance.sqrt() } else { variance })
        };
        Ok(Arc::new(groups.iter().map(value).collect::<Float64Array>()))
    }

    fn reset(&mut self, group: u32) {
        self.moments[group as usize] = Moments::default();
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64, DataType::Float64, DataType::Float64]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let moments = || groups.iter().map(|group| self.moments[*group as usize]);
        Ok(vec![
            Arc::new(Int64Array::from_iter_values(moments().map(|m| m.count))),
            Arc::new(Float64Array::from_iter_values(moments().map(|m| m.mean))),
            Arc::new(Float64Array::from_iter_values(moments().map(|m| m.squares))),
        ])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let counts = state[0].as_primitive::<Int64Type>();
        let (means, squares) = (state[1].as_primitive::<Float64Type>(), state[2].as_primitive::<Float64Type>());
        for (row, group) in groups.iter().enumerate() {
            self.moments[*group as usize] =
                Moments { count: counts.value(row), mean: means.value(row), squares: squares.value(row) };
        }
        Ok(())
    }
}

/// How many values are true and how many false; null where there are none.
pub(super) struct Boolean {
    /// False, true.
    counts: Vec<[i64; 2]>,
    all: bool,
}

impl Boolean {
    /// Whether all are true, otherwise whether any is.
    pub(super) fn new(all: bool) -> Self {
        Boolean { counts: Vec::new(), all }
    }
}

impl Accumulator for Boolean {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.counts)
    }

    fn grow(&mut self, groups: usize) {
        self.counts.resize(groups.max(self.counts.len()), [0; 2]);
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let values = args[0].as_boolean();
        let count = |row: usize, group: usize, sign: i64| {
            self.counts[group][usize::from(values.value(row))] += sign;
        };
        changes.for_each(values.nulls(), count);
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let value = |group: &u32| match self.counts[*group as usize] {
            [0, 0] => None,
            [no, _] if self.all => Some(no == 0),
            [_, yes] => Some(yes != 0),
        };
        Ok(Arc::new(groups.iter().map(value).collect::<BooleanArray>()))
    }

    fn reset(&mut self, group: u32) {
        self.counts[group as usize] = [0; 2];
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64, DataType::Int64]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let counts = |which: usize| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| self.counts[*group as usize][which])))
        };
        Ok(vec![counts(0), counts(1)])
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.state(groups)
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        for (which, column) in partial.iter().enumerate() {
            let counts = column.as_primitive::<Int64Type>();
            groups.iter().zip(counts.values()).for_each(|(group, n)| self.counts[*group as usize][which] += n);
        }
        Ok(())
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        for (which, column) in state.iter().enumerate() {
            let counts = column.as_primitive::<Int64Type>();
            groups.iter().zip(counts.values()).for_each(|(group, n)| self.counts[*group as usize][which] = *n);
        }
        Ok(())
    }
}
