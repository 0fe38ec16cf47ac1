//! SUM of decimals which is an error where it does not fit: DataFusion's wraps round.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

use crate::types::sql_type_name;

/// A sum that has not fitted into 128 bits is this from then on.
const LOST: i128 = i128::MAX;

/// What to say of an aggregate (`SUM`) whose value has more digits than its type.
#[must_use]
pub fn does_not_fit(what: &str, output: &DataType) -> DataFusionError {
    let name = sql_type_name(output);
    DataFusionError::Execution(format!(
        "{what} does not fit into {name}; give its argument fewer digits by a CAST, or take its sum as a DOUBLE"
    ))
}

fn fits(sum: i128, of: &DataType) -> bool {
    matches!(of, DataType::Decimal128(precision, _) if Decimal128Type::is_valid_decimal_precision(sum, *precision))
}

fn decimals(column: &ArrayRef) -> Result<&PrimitiveArray<Decimal128Type>> {
    let of = column.data_type();
    column.as_primitive_opt().ok_or_else(|| DataFusionError::Internal(format!("a sum of decimals of type {of}")))
}

/// The sums of many groups.
pub(super) struct DecimalSums {
    inner: PrimitiveGroupsAccumulator<Decimal128Type, fn(&mut i128, i128)>,
    output: DataType,
}

impl DecimalSums {
    pub(super) fn new(output: DataType) -> DecimalSums {
        let add: fn(&mut i128, i128) = |sum, value| {
            let is_lost = *sum == LOST || value == LOST;
            *sum = if is_lost { LOST } else { sum.checked_add(value).unwrap_or(LOST) };
        };
        DecimalSums { inner: PrimitiveGroupsAccumulator::new(&output, add), output }
    }

    fn check(&self, sums: &ArrayRef, is_right: impl Fn(i128) -> bool) -> Result<()> {
        let are_right = decimals(sums)?.iter().flatten().all(is_right);
        if are_right { Ok(()) } else { Err(does_not_fit("SUM", &self.output)) }
    }
}

impl GroupsAccumulator for DecimalSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, group_indices, filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.inner.evaluate(emit_to)?;
        self.check(&sums, |sum| fits(sum, &self.output))?;
        Ok(sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let state = self.inner.state(emit_to)?;
        // A part may have more digits than the whole.
        state.iter().try_for_each(|sums| self.check(sums, |sum| sum != LOST))?;
        Ok(state)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// The sum of one group, from which values may go again.
#[derive(Debug)]
pub(super) struct DecimalSum {
    sum: i128,
    /// Values in it; none: it is NULL.
    count: u64,
    output: DataType,
}

impl DecimalSum {
    pub(super) fn new(output: DataType) -> DecimalSum {
        DecimalSum { sum: 0, count: 0, output }
    }

    fn each(&mut self, values: &[ArrayRef], step: impl Fn(&mut DecimalSum, i128) -> Option<()>) -> Result<()> {
        for value in decimals(&values[0])?.iter().flatten() {
            step(self, value).ok_or_else(|| does_not_fit("SUM", &self.output))?;
        }
        Ok(())
    }

    fn value(&self) -> Result<ScalarValue> {
        let DataType::Decimal128(precision, scale) = self.output else {
            return Err(DataFusionError::Internal(format!("a sum of decimals as {}", self.output)));
        };
        Ok(ScalarValue::Decimal128((self.count > 0).then_some(self.sum), precision, scale))
    }
}

impl Accumulator for DecimalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |of, value| {
            of.sum = of.sum.checked_add(value)?;
            of.count += 1;
            Some(())
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        // A part of a sum is added like a value: what counts is that there is one.
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |of, value| {
            of.sum = of.sum.checked_sub(value)?;
            of.count = of.count.checked_sub(1)?;
            Some(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count > 0 && !fits(self.sum, &self.output) {
            return Err(does_not_fit("SUM", &self.output));
        }
        self.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const OF: DataType = DataType::Decimal128(38, 2);

    fn column(values: &[i128]) -> ArrayRef {
        Arc::new(PrimitiveArray::<Decimal128Type>::from_iter_values(values.to_vec()).with_data_type(OF))
    }

    fn sums(batches: &[&[i128]]) -> Result<i128> {
        let mut parts = DecimalSums::new(OF);
        for batch in batches {
            parts.update_batch(&[column(batch)], &vec![0; batch.len()], None, 1)?;
        }
        let mut whole = DecimalSums::new(OF);
        whole.merge_batch(&parts.state(EmitTo::All)?, &[0], 1)?;
        Ok(whole.evaluate(EmitTo::All)?.as_primitive::<Decimal128Type>().value(0))
    }

    fn sum(come: &[&[i128]], go: &[i128]) -> Result<ScalarValue> {
        let mut of = DecimalSum::new(OF);
        come.iter().try_for_each(|batch| of.update_batch(&[column(batch)]))?;
        of.retract_batch(&[column(go)])?;
        let mut whole = DecimalSum::new(OF);
        whole.merge_batch(&[of.state()?[0].to_array()?])?;
        assert_eq!(whole.evaluate().is_ok(), of.evaluate().is_ok());
        of.evaluate()
    }

    #[test]
    fn a_sum_that_does_not_fit_is_an_error_and_never_another_number() {
        let nines = 10_i128.pow(38) - 1;
        let message = "SUM does not fit into DECIMAL(38, 2); give its argument fewer digits by a CAST, or take its sum as a DOUBLE";
        let says = |error: DataFusionError| assert!(error.to_string().ends_with(message), "{error}");
        assert_eq!(sums(&[&[nines, -nines, 7]]).unwrap(), 7);
        // What is too much in the middle may fit in the end, within 128 bits.
        assert_eq!(sums(&[&[nines, 1, -1]]).unwrap(), nines);
        says(sums(&[&[nines, 1]]).unwrap_err());
        says(sums(&[&[nines; 4], &[-nines; 3]]).unwrap_err());
        says(sums(&[&[-nines; 2]]).unwrap_err());
        let value = |sum: i128| ScalarValue::Decimal128(Some(sum), 38, 2);
        assert_eq!(sum(&[&[nines], &[1]], &[1]).unwrap(), value(nines));
        assert_eq!(sum(&[&[5, 6]], &[5]).unwrap(), value(6));
        assert_eq!(sum(&[&[5, 6]], &[5, 6]).unwrap(), ScalarValue::Decimal128(None, 38, 2));
        says(sum(&[&[nines, 1]], &[]).unwrap_err());
        says(sum(&[&[nines; 2]], &[nines; 2]).unwrap_err());
    }
}
