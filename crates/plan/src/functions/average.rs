//! `AVG` as Flink has it: the mean of integers is an integer of their type, cut off towards zero. Everything else is
//! DataFusion's. Integers are summed exactly.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::format_state_name;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use super::udf;

/// The type in which sums of 64-bit integers are kept: no number of rows makes it overflow.
const SUM: DataType = DataType::Decimal128(38, 0);

/// The function.
pub(super) fn average() -> Arc<AggregateUDF> {
    let inner = datafusion_functions_aggregate::average::avg_udaf();
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::from(Average { inner, signature, aliases: vec!["mean".to_owned()] }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    inner: Arc<AggregateUDF>,
    signature: Signature,
    aliases: Vec<String>,
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_signed_integer()
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [one] if is_integer(one) || one.is_decimal() || matches!(one, DataType::Duration(_)) => Ok(types.to_vec()),
            [one] if one.is_numeric() || *one == DataType::Null => Ok(vec![DataType::Float64]),
            _ => udf::coerce("avg", &[&[udf::Kind::Number]], false, types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [one] if is_integer(one) => Ok(one.clone()),
            _ => self.inner.return_type(types),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_integer(args.input_fields[0].data_type()) {
            return self.inner.state_fields(args);
        }
        let name = |part: &str| format_state_name(args.name, part);
        if args.is_distinct {
            return Ok(vec![Arc::new(Field::new(name("values"), values_type(), true))]);
        }
        Ok(vec![
            Arc::new(Field::new(name("count"), DataType::UInt64, true)),
            Arc::new(Field::new(name("sum"), SUM, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let result = args.return_type().clone();
        match (is_integer(args.expr_fields[0].data_type()), args.is_distinct) {
            (false, _) => self.inner.accumulator(args),
            (true, true) => Ok(Box::new(DistinctMean { values: BTreeSet::new(), result })),
            (true, false) => Ok(Box::new(Mean { sum: 0, count: 0, result })),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match is_integer(args.expr_fields[0].data_type()) {
            true => !args.is_distinct,
            false => self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match is_integer(args.expr_fields[0].data_type()) {
            true => Ok(Box::new(Means { sums: Vec::new(), counts: Vec::new(), result: args.return_type().clone() })),
            false => self.inner.create_groups_accumulator(args),
        }
    }
}

fn values_type() -> DataType {
    DataType::new_list(DataType::Int64, true)
}

fn mean(sum: i128, count: u64) -> Option<i64> {
    // The mean of 64-bit integers is one.
    (count > 0).then(|| (sum / i128::from(count)) as i64)
}

fn integers(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(compute::cast(values, &DataType::Int64)?)
}

/// The mean of one group.
#[derive(Debug)]
struct Mean {
    sum: i128,
    count: u64,
    result: DataType,
}

impl Mean {
    fn add(&mut self, values: &ArrayRef, sign: i128) -> Result<()> {
        let values = integers(values)?;
        let values = values.as_primitive::<Int64Type>();
        self.sum += sign * values.iter().flatten().map(i128::from).sum::<i128>();
        let count = (values.len() - values.null_count()) as u64;
        self.count = if sign > 0 { self.count + count } else { self.count.saturating_sub(count) };
        Ok(())
    }
}

impl Accumulator for Mean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::Int64(mean(self.sum, self.count)).cast_to(&self.result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::UInt64(Some(self.count)), ScalarValue::Decimal128(Some(self.sum), 38, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += compute::sum(states[0].as_primitive::<UInt64Type>()).unwrap_or(0);
        self.sum += compute::sum(states[1].as_primitive::<Decimal128Type>()).unwrap_or(0);
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The mean of the distinct values of one group.
#[derive(Debug)]
struct DistinctMean {
    values: BTreeSet<i64>,
    result: DataType,
}

impl Accumulator for DistinctMean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = integers(&values[0])?;
        self.values.extend(values.as_primitive::<Int64Type>().iter().flatten());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.values.iter().copied().map(i128::from).sum();
        ScalarValue::Int64(mean(sum, self.values.len() as u64)).cast_to(&self.result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().map(|value| ScalarValue::Int64(Some(*value))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * 2 * size_of::<i64>()
    }
}

/// The means of many groups.
#[derive(Debug)]
struct Means {
    sums: Vec<i128>,
    counts: Vec<u64>,
    result: DataType,
}

impl Means {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
    }

    fn take(&mut self, emit: EmitTo) -> (Vec<i128>, Vec<u64>) {
        (emit.take_needed(&mut self.sums), emit.take_needed(&mut self.counts))
    }
}

impl GroupsAccumulator for Means {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let values = integers(&values[0])?;
        let values = values.as_primitive::<Int64Type>();
        if values.null_count() == 0 && opt_filter.is_none() {
            for (group, value) in group_indices.iter().zip(values.values()) {
                self.sums[*group] += i128::from(*value);
                self.counts[*group] += 1;
            }
            return Ok(());
        }
        for (row, group) in group_indices.iter().enumerate() {
            let passes = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && values.is_valid(row) {
                self.sums[*group] += i128::from(values.value(row));
                self.counts[*group] += 1;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = self.take(emit_to);
        let means: Int64Array = sums.into_iter().zip(counts).map(|(sum, count)| mean(sum, count)).collect();
        Ok(compute::cast(&means, &self.result)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = self.take(emit_to);
        let sums = Decimal128Array::from(sums).with_data_type(SUM);
        Ok(vec![Arc::new(UInt64Array::from(counts)), Arc::new(sums)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        let counts = values[0].as_primitive::<UInt64Type>();
        let sums = values[1].as_primitive::<Decimal128Type>();
        for (row, group) in group_indices.iter().enumerate() {
            self.sums[*group] += sums.value(row);
            self.counts[*group] += counts.value(row);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Means { sums: Vec::new(), counts: Vec::new(), result: self.result.clone() };
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<u64>()
    }
}
