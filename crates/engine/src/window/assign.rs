//! Window table functions without an aggregation: each row once for each of its windows, with the window's
//! columns added.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use super::slicing::{Slicing, Span};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::operator::{Collector, Operator};

/// See the module.
pub(crate) struct WindowAssign {
    name: String,
    slicing: Slicing,
    time: usize,
    schema: SchemaRef,
}

impl WindowAssign {
    /// An operator that adds start, end and time of the window to the columns of its input.
    pub(crate) fn new(name: &str, slicing: Slicing, time: usize, schema: SchemaRef) -> Self {
        WindowAssign { name: name.to_owned(), slicing, time, schema }
    }
}

impl Operator for WindowAssign {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let arrow = |e| EngineError::arrow(&self.name, &e);
        let times = event_times(&self.name, &batch.rows, self.time)?;
        let mut positions = Vec::with_capacity(times.len());
        let mut windows: Vec<Span> = Vec::with_capacity(times.len());
        for (row, time) in times.values().iter().enumerate() {
            let before = windows.len();
            windows.extend(self.slicing.windows_of(self.slicing.slice_of(*time)));
            positions.extend(std::iter::repeat_n(row as u32, windows.len() - before));
        }
        let expanded = batch.take(&UInt32Array::from(positions)).map_err(arrow)?;
        let property =
            |value: fn(&Span) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(windows.iter().map(value))) };
        let mut columns = expanded.rows.columns().to_vec();
        columns.extend([property(|w| w.start), property(|w| w.end), property(|w| w.end - 1)]);
        // The added columns are counted in milliseconds; the schema says what type they have.
        let added = self.schema.fields().len() - 3;
        for (column, field) in columns.iter_mut().zip(self.schema.fields()).skip(added) {
            *column = compute::cast(
                column,
                &arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None),
            )
            .and_then(|c| compute::cast(&c, field.data_type()))
            .map_err(arrow)?;
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow)?;
        out.main.push(expanded.with_rows(rows));
        Ok(())
    }
}
