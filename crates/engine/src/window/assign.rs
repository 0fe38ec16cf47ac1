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
use crate::operator::{Collector, Operator, PieceRows};

/// See the module.
pub(crate) struct WindowAssign {
    name: String,
    slicing: Slicing,
    time: usize,
    schema: SchemaRef,
    piece: PieceRows,
    /// Rows that give more than a step may make.
    taking: Option<Taking>,
}

/// Rows that are being taken.
struct Taking {
    batch: StreamBatch,
    times: Int64Array,
    /// The next row, and how many of its windows it was given for.
    row: usize,
    given: usize,
}

impl WindowAssign {
    /// An operator that adds start, end and time of the window to the columns of its input.
    pub(crate) fn new(name: &str, slicing: Slicing, time: usize, schema: SchemaRef) -> Self {
        WindowAssign { name: name.to_owned(), slicing, time, schema, piece: PieceRows::default(), taking: None }
    }
}

impl WindowAssign {
    /// Goes on with rows that have come, as far as one step may go.
    fn run(&mut self, mut taking: Taking, out: &mut Collector) -> Result<(), EngineError> {
        while taking.row < taking.times.len() {
            if out.is_full() {
                self.taking = Some(taking);
                return Ok(());
            }
            let (positions, windows) = self.pick(&mut taking);
            let batch = self.rows(&taking.batch, positions, &windows)?;
            self.piece.learn(&batch);
            out.main.push(batch);
        }
        Ok(())
    }

    /// The next rows and their windows: as many as make a batch.
    fn pick(&self, taking: &mut Taking) -> (Vec<u32>, Vec<Span>) {
        // Where each row has one window, what leaves is as large as what came.
        let rows_max = if self.slicing.is_single() { usize::MAX } else { self.piece.next(0) };
        let mut positions = Vec::with_capacity(taking.times.len().min(rows_max));
        let mut windows: Vec<Span> = Vec::with_capacity(positions.capacity());
        while taking.row < taking.times.len() && windows.len() < rows_max {
            let before = windows.len();
            let mut of_row = self.slicing.windows_of(self.slicing.slice_of(taking.times.value(taking.row)));
            windows.extend(of_row.by_ref().skip(taking.given).take(rows_max - before));
            let given = windows.len() - before;
            positions.extend(std::iter::repeat_n(taking.row as u32, given));
            if windows.len() == rows_max && of_row.next().is_some() {
                taking.given += given;
            } else {
                (taking.row, taking.given) = (taking.row + 1, 0);
            }
        }
        (positions, windows)
    }

    fn rows(&self, batch: &StreamBatch, positions: Vec<u32>, windows: &[Span]) -> Result<StreamBatch, EngineError> {
        let arrow = |e| EngineError::arrow(&self.name, &e);
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
        Ok(expanded.with_rows(rows))
    }
}

impl Operator for WindowAssign {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let times = event_times(&self.name, &batch.rows, self.time)?;
        self.run(Taking { batch, times, row: 0, given: 0 }, out)
    }

    fn has_more(&self) -> bool {
        self.taking.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.taking.take().map_or(Ok(()), |taking| self.run(taking, out))
    }
}
