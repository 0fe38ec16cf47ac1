//! What partitions carry instead of rows, as a table of state.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use mainstem_plan::operator::OverAggregate;

use super::evaluator::{Carry, Evaluator};
use crate::error::EngineError;
use crate::expiry::Expiry;
use crate::operator::TableRows;
use crate::partitions::Partitions;

/// Name and version of the table: the partition's columns; number of its rows and of different values of the order
/// (Int64); the time of the epoch in which it last changed (Int64, ms); states of aggregates.
const CARRIED: (&str, u32) = ("carried", 1);
/// Name and version of the table of partitions that were forgotten before what else the file holds: their columns,
/// then TRUE.
const GONE: (&str, u32) = ("gone", 1);

/// Which partitions carry something, and which of them have changed.
pub(super) struct CarriedTable {
    name: String,
    keys: Vec<Field>,
    states: Vec<Vec<DataType>>,
    all: BTreeSet<u32>,
    changed: BTreeSet<u32>,
}

impl CarriedTable {
    pub(super) fn new(over: &OverAggregate, states: Vec<Vec<DataType>>) -> Self {
        let key = |column: &usize| over.input_schema.field(*column).clone();
        let keys = over.partition.iter().map(key).collect();
        CarriedTable { name: "OVER".to_owned(), keys, states, all: BTreeSet::new(), changed: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn add(&mut self, slot: u32) {
        self.all.insert(slot);
    }

    pub(super) fn note_change(&mut self, slot: u32) {
        self.all.insert(slot);
        self.changed.insert(slot);
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.all.remove(&slot);
        self.changed.remove(&slot);
    }

    /// The table, without rows.
    pub(super) fn table(&self) -> TableRows {
        let key = (0..self.keys.len()).collect();
        TableRows { name: CARRIED.0, version: CARRIED.1, key, rows: Vec::new() }
    }

    /// The table of partitions that were forgotten, without rows.
    pub(super) fn gone_table(&self) -> TableRows {
        TableRows { name: GONE.0, version: GONE.1, ..self.table() }
    }

    /// The rows of that table.
    pub(super) fn gone(
        &self,
        over: &OverAggregate,
        partitions: &Partitions,
        slots: &[u32],
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let mut columns = partitions.columns(slots)?;
        columns.push(Arc::new(BooleanArray::from(vec![true; slots.len()])));
        let mut fields: Vec<Field> =
            over.partition.iter().map(|column| over.input_schema.field(*column).clone()).collect();
        fields.push(Field::new("__gone", DataType::Boolean, false));
        Ok(vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?])
    }

    /// What all partitions, or those that have changed, carry; and what they carry on, because reading an
    /// aggregate's state may use it up.
    #[expect(clippy::type_complexity, reason = "rows to write, and what is put back")]
    pub(super) fn checkpoint(
        &mut self,
        whole: bool,
        evaluator: &Evaluator,
        partitions: &Partitions,
        expiry: &Expiry,
        mut carry: impl FnMut(u32) -> Option<Carry>,
    ) -> Result<(Vec<RecordBatch>, Vec<(u32, Carry)>), EngineError> {
        let changed = std::mem::take(&mut self.changed);
        let slots: Vec<u32> = if whole { self.all.iter().copied().collect() } else { changed.into_iter().collect() };
        if slots.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let types: Vec<&DataType> = self.states.iter().flatten().collect();
        let (mut rows, mut distinct, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut states: Vec<Vec<ScalarValue>> = vec![Vec::new(); types.len()];
        for slot in &slots {
            let mut carry = carry(*slot).ok_or_else(|| EngineError::Bug("a partition carries nothing".to_owned()))?;
            rows.push(carry.rows);
            distinct.push(carry.distinct);
            times.push(expiry.changed(*slot));
            let mut columns = states.iter_mut();
            for accumulator in carry.accumulators.iter_mut().flatten() {
                let state = accumulator.state().map_err(|e| EngineError::evaluation(&self.name, &e))?;
                state.into_iter().zip(columns.by_ref()).for_each(|(value, column)| column.push(value));
            }
        }
        let mut columns = partitions.columns(&slots).map_err(|e| EngineError::arrow(&self.name, &e))?;
        let mut fields = self.keys.clone();
        let numbers = [("__rows", rows), ("__distinct", distinct), ("__changed", times)];
        for (name, values) in numbers {
            fields.push(Field::new(name, DataType::Int64, false));
            columns.push(Arc::new(Int64Array::from(values)));
        }
        for (nth, (values, data_type)) in states.into_iter().zip(types).enumerate() {
            let column = ScalarValue::iter_to_array(values).map_err(|e| EngineError::evaluation(&self.name, &e))?;
            let column = compute::cast(&column, data_type).map_err(|e| EngineError::arrow(&self.name, &e))?;
            fields.push(Field::new(format!("__state_{nth}"), data_type.clone(), true));
            columns.push(column);
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        let batch = batch.map_err(|e| EngineError::arrow(&self.name, &e))?;
        let again = slots.into_iter().enumerate().map(|(row, slot)| {
            let (carry, _) = self.restore(evaluator, &batch, row)?;
            Ok((slot, carry))
        });
        let again = again.collect::<Result<Vec<_>, EngineError>>()?;
        Ok((vec![batch], again))
    }

    /// What a row of the table says, and when its partition last changed (ms).
    pub(super) fn restore(
        &self,
        evaluator: &Evaluator,
        rows: &RecordBatch,
        row: usize,
    ) -> Result<(Carry, i64), EngineError> {
        let width = self.keys.len();
        let number = |nth: usize| rows.column(width + nth).as_primitive::<Int64Type>().value(row);
        let mut columns = rows.columns()[width + 3..].iter();
        let states: Vec<Vec<ArrayRef>> = self
            .states
            .iter()
            .map(|types| columns.by_ref().take(types.len()).map(|column| column.slice(row, 1)).collect())
            .collect();
        Ok((evaluator.carried(number(0), number(1), &states)?, number(2)))
    }
}
