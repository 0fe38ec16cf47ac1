//! COUNT, SUM and AVG of numbers that can be added and taken away exactly.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Float64Type, Int64Type};
use datafusion_common::{DataFusionError, Result};
use mainstem_plan::aggregate::does_not_fit;

use super::accumulator::{Accumulator, Changes, only_selected};
use crate::memory;

/// Counts the rows in which no argument is null.
#[derive(Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Accumulator for Count {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.counts)
    }

    fn reserve(&mut self, more: usize) {
        self.counts.reserve_exact(more);
    }

    fn grow(&mut self, groups: usize) {
        self.counts.resize(groups.max(self.counts.len()), 0);
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let nulls =
            args.iter().fold(None, |nulls, arg| NullBuffer::union(nulls.as_ref(), arg.logical_nulls().as_ref()));
        changes.for_each(nulls.as_ref(), |_, group, sign| self.counts[group] += sign);
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| self.counts[*group as usize]))))
    }

    fn reset(&mut self, group: u32) {
        self.counts[group as usize] = 0;
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let counts = state[0].as_primitive::<Int64Type>();
        groups.iter().zip(counts.values()).for_each(|(group, count)| self.counts[*group as usize] = *count);
        Ok(())
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn partial_of_rows(
        &self,
        args: &[ArrayRef],
        only: Option<&BooleanBuffer>,
        rows: usize,
    ) -> Option<Result<Vec<ArrayRef>>> {
        let mut counted = only.map(|only| NullBuffer::new(only.clone()));
        for arg in args {
            counted = NullBuffer::union(counted.as_ref(), arg.logical_nulls().as_ref());
        }
        let counts = match counted {
            None => Int64Array::from_value(1, rows),
            Some(counted) => Int64Array::from_iter_values(counted.iter().map(i64::from)),
        };
        Some(Ok(vec![Arc::new(counts)]))
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let counts = partial[0].as_primitive::<Int64Type>();
        groups.iter().zip(counts.values()).for_each(|(group, count)| self.counts[*group as usize] += count);
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct Cell<T> {
    sum: T,
    /// Values in the sum; none: the sum is null.
    count: i64,
}

/// What is made of a sum and its count, which is not 0.
type Finish<P> =
    Box<dyn Fn(<P as ArrowPrimitiveType>::Native, i64) -> Result<<P as ArrowPrimitiveType>::Native> + Send>;

/// Sums of values of one type. Integers wrap round where they overflow, as in a windowed sum; a decimal that has more digits than
/// its type is an error.
pub(super) struct Sum<P: ArrowPrimitiveType> {
    cells: Vec<Cell<P::Native>>,
    /// Type of the argument, and of the sum in the state.
    summed: DataType,
    output: DataType,
    finish: Option<Finish<P>>,
}

impl<P: ArrowPrimitiveType> Sum<P> {
    /// A sum; `output` is its type.
    pub(super) fn new(summed: DataType, output: DataType) -> Self {
        Sum { cells: Vec::new(), summed, output, finish: None }
    }

    fn too_large(&self) -> DataFusionError {
        does_not_fit(if self.finish.is_some() { "AVG" } else { "SUM" }, &self.output)
    }
}

/// The average of floats.
pub(super) fn average_float() -> Sum<Float64Type> {
    let finish: Finish<Float64Type> = Box::new(|sum, count| Ok(sum / count as f64));
    Sum { finish: Some(finish), ..Sum::new(DataType::Float64, DataType::Float64) }
}

/// The average of decimals of type `summed`, as a decimal of type `output`, cut off behind its last digit.
pub(super) fn average_decimal(summed: DataType, output: DataType) -> Result<Sum<Decimal128Type>> {
    let (DataType::Decimal128(_, from), DataType::Decimal128(precision, scale)) = (&summed, &output) else {
        return Err(DataFusionError::Internal(format!("an average of {summed} as {output}")));
    };
    let (precision, scale) = (*precision, *scale);
    let digits = u32::try_from(i32::from(scale) - i32::from(*from))
        .map_err(|_| DataFusionError::Internal(format!("an average of {summed} as {output}")))?;
    let factor = 10_i128.pow(digits);
    let finish: Finish<Decimal128Type> = Box::new(move |sum, count| {
        let average = sum.mul_checked(factor).map(|sum| sum / i128::from(count));
        let average = average.and_then(|average| {
            Decimal128Type::validate_decimal_precision(average, precision, scale).map(|()| average)
        });
        average.map_err(|_| DataFusionError::Execution(format!("AVG does not fit into DECIMAL({precision}, {scale})")))
    });
    Ok(Sum { finish: Some(finish), ..Sum::new(summed, output) })
}

impl<P: ArrowPrimitiveType> Accumulator for Sum<P> {
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
        let values = args[0].as_primitive::<P>();
        let (numbers, nulls) = (values.values(), values.nulls());
        if P::DATA_TYPE.is_decimal() {
            let mut fits = true;
            changes.for_each(nulls, |row, group, sign| {
                let cell = &mut self.cells[group];
                let (sum, number) = (cell.sum, numbers[row]);
                let sum = if sign > 0 { sum.add_checked(number) } else { sum.sub_checked(number) };
                fits &= sum.map(|sum| cell.sum = sum).is_ok();
                cell.count += sign;
            });
            return if fits { Ok(()) } else { Err(self.too_large()) };
        }
        if changes.signs.is_none() {
            changes.for_each(nulls, |row, group, _| {
                let cell = &mut self.cells[group];
                cell.sum = cell.sum.add_wrapping(numbers[row]);
                cell.count += 1;
            });
            return Ok(());
        }
        changes.for_each(nulls, |row, group, sign| {
            let cell = &mut self.cells[group];
            let (sum, number) = (cell.sum, numbers[row]);
            cell.sum = if sign > 0 { sum.add_wrapping(number) } else { sum.sub_wrapping(number) };
            cell.count += sign;
        });
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let cells = || groups.iter().map(|group| self.cells[*group as usize]);
        let valid = |row: usize| self.cells[groups[row] as usize].count != 0;
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(groups.len(), valid));
        let values: Vec<P::Native> = match &self.finish {
            None => cells().map(|cell| cell.sum).collect(),
            Some(finish) => {
                let finish = |cell: Cell<P::Native>| match cell.count {
                    0 => Ok(P::Native::default()),
                    count => finish(cell.sum, count),
                };
                cells().map(finish).collect::<Result<_>>()?
            }
        };
        let nulls = Some(valid).filter(|valid| valid.null_count() > 0);
        let values: ArrayRef =
            Arc::new(PrimitiveArray::<P>::new(values.into(), nulls).with_data_type(self.output.clone()));
        if let Some(decimals) = values.as_primitive_opt::<Decimal128Type>() {
            let precision = decimals.precision();
            let mut decimals = decimals.values().iter();
            if !decimals.all(|value| Decimal128Type::is_valid_decimal_precision(*value, precision)) {
                return Err(self.too_large());
            }
        }
        Ok(values)
    }

    fn reset(&mut self, group: u32) {
        self.cells[group as usize] = Cell::default();
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.summed.clone(), DataType::Int64]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let cells = || groups.iter().map(|group| self.cells[*group as usize]);
        let sums = PrimitiveArray::<P>::from_iter_values(cells().map(|cell| cell.sum));
        let counts = Int64Array::from_iter_values(cells().map(|cell| cell.count));
        Ok(vec![Arc::new(sums.with_data_type(self.summed.clone())), Arc::new(counts)])
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        if self.finish.is_some() {
            return self.state(groups);
        }
        let valid = |row: usize| self.cells[groups[row] as usize].count != 0;
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(groups.len(), valid));
        let sums: Vec<P::Native> = groups.iter().map(|group| self.cells[*group as usize].sum).collect();
        let sums = PrimitiveArray::<P>::new(sums.into(), Some(valid).filter(|valid| valid.null_count() > 0));
        Ok(vec![Arc::new(sums.with_data_type(self.summed.clone()))])
    }

    fn partial_of_rows(
        &self,
        args: &[ArrayRef],
        only: Option<&BooleanBuffer>,
        _rows: usize,
    ) -> Option<Result<Vec<ArrayRef>>> {
        self.finish.is_none().then(|| only_selected(&args[0], only).map(|values| vec![values]))
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        if self.finish.is_none() {
            // A part of a sum is added like a value: what counts is that there is one.
            return self.update(partial, &Changes { groups, signs: None, only: None });
        }
        let (sums, counts) = (partial[0].as_primitive::<P>(), partial[1].as_primitive::<Int64Type>());
        for (group, (sum, count)) in groups.iter().zip(sums.values().iter().zip(counts.values())) {
            let before = self.cells[*group as usize];
            let sum = match P::DATA_TYPE.is_decimal() {
                true => before.sum.add_checked(*sum).map_err(|_| self.too_large())?,
                false => before.sum.add_wrapping(*sum),
            };
            self.cells[*group as usize] = Cell { sum, count: before.count + count };
        }
        Ok(())
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (state[0].as_primitive::<P>(), state[1].as_primitive::<Int64Type>());
        for (group, (sum, count)) in groups.iter().zip(sums.values().iter().zip(counts.values())) {
            self.cells[*group as usize] = Cell { sum: *sum, count: *count };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_sum_that_does_not_fit_is_an_error_and_never_another_number() {
        let nines = |digits: u32| 10_i128.pow(digits) - 1;
        let of = DataType::Decimal128(38, 2);
        let sum = |numbers: &[i128], signs: Option<&[i8]>| {
            let mut sum = Sum::<Decimal128Type>::new(of.clone(), of.clone());
            sum.grow(1);
            let numbers: ArrayRef = Arc::new(
                PrimitiveArray::<Decimal128Type>::from_iter_values(numbers.to_vec()).with_data_type(of.clone()),
            );
            let groups = vec![0; numbers.len()];
            sum.update(&[numbers], &Changes { groups: &groups, signs, only: None })?;
            Ok::<_, DataFusionError>(sum.values(&[0])?.as_primitive::<Decimal128Type>().value(0))
        };
        assert_eq!(sum(&[nines(38), -nines(38), 7], None).unwrap(), 7);
        assert_eq!(sum(&[nines(38), 1, 1], Some(&[1, 1, -1])).unwrap(), nines(38), "it fits in the end");
        let says = "SUM does not fit into DECIMAL(38, 2)";
        // One digit too many; and so many that the number would wrap round, to a wrong one that fits after four.
        for numbers in [vec![nines(38), 1], vec![nines(38), nines(38)], vec![nines(38); 4]] {
            let error = sum(&numbers, None).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
