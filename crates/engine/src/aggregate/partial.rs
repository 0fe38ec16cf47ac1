//! First step of an aggregation without windows, on the sending side of the exchange: one row for each key of a batch, so
//! that a hot key does not go to one subtask row by row. Where keys come less than twice in a batch it would cost more than
//! it saves, and rows are sent as groups of one row each: whether they do is looked at again now and then. Which way rows go
//! changes nothing in what the parts add up to. Holds nothing back.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::DataFusionError;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::GroupAggregate as Spec;

use super::calls::{Calls, types_of};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::keys::KeyIndex;
use crate::operator::{Collector, Operator};

/// Batches that are passed on row by row before it is tried again how often keys come.
const PASSED_BATCHES: u32 = 31;
/// Rows of a batch from which on what it says about keys counts.
const SAMPLE_ROWS_MIN: usize = 256;

/// See the module.
pub(crate) struct GroupPartial {
    name: String,
    spec: Spec,
    schema: SchemaRef,
    key_types: Vec<DataType>,
    calls: Calls,
    adaptive: bool,
    /// So many batches are passed on row by row.
    pub(super) passing: u32,
}

impl GroupPartial {
    /// `adaptive`: rows may be sent as groups of their own; `schema`: its output.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        adaptive: bool,
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<GroupPartial, EngineError> {
        Ok(GroupPartial {
            name: name.to_owned(),
            key_types: types_of(&spec.input_schema, &spec.keys),
            calls: Calls::new(spec, context)?,
            spec: spec.clone(),
            schema,
            adaptive,
            passing: 0,
        })
    }

    fn failed(&self, error: &DataFusionError) -> EngineError {
        EngineError::evaluation(&self.name, error)
    }

    fn key_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.spec.keys.iter().map(|key| rows.column(*key).clone()).collect()
    }

    fn give(&self, keys: Vec<ArrayRef>, parts: Vec<ArrayRef>, rows: usize) -> Result<StreamBatch, EngineError> {
        let columns = keys.into_iter().chain(parts).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &count);
        let batch = batch.map_err(|e| EngineError::Bug(format!("{}: partial aggregates: {e}", self.name)))?;
        Ok(StreamBatch::on_time(batch))
    }

    /// One row for each key.
    fn grouped(&mut self, rows: &RecordBatch) -> Result<StreamBatch, EngineError> {
        let arrow = |e| EngineError::arrow(&self.name, &e);
        let mut index = KeyIndex::new(&self.key_types).map_err(arrow)?;
        let mut slots = Vec::new();
        index.intern(&self.key_columns(rows), rows.num_rows(), &mut slots).map_err(arrow)?;
        let slots: Vec<u32> = slots.into_iter().map(|slot| slot as u32).collect();
        let groups: Vec<u32> = (0..index.len() as u32).collect();
        let keys = index.columns().map_err(arrow)?;
        self.calls.grow(groups.len());
        let updated = self.calls.update(rows, &slots, None, None);
        let parts = updated.and_then(|()| self.calls.partial(&groups)).map_err(|e| self.failed(&e))?;
        groups.iter().for_each(|group| self.calls.reset(*group));
        let in_vain = rows.num_rows() >= SAMPLE_ROWS_MIN && groups.len() * 2 > rows.num_rows();
        if self.adaptive && in_vain {
            self.passing = PASSED_BATCHES;
        }
        self.give(keys, parts, groups.len())
    }

    /// Each row as a group of its own.
    fn ungrouped(&mut self, rows: &RecordBatch) -> Result<StreamBatch, EngineError> {
        let parts = self.calls.partial_of_rows(rows).map_err(|e| self.failed(&e))?;
        self.give(self.key_columns(rows), parts, rows.num_rows())
    }
}

impl Operator for GroupPartial {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        if batch.changes.is_some() {
            return Err(EngineError::Bug(format!("{}: rows change that were not to change", self.name)));
        }
        let parts = match self.passing.checked_sub(1) {
            Some(left) => {
                self.passing = left;
                self.ungrouped(&batch.rows)?
            }
            None => self.grouped(&batch.rows)?,
        };
        out.main.push(parts);
        Ok(())
    }
}
