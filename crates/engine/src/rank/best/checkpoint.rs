//! What a checkpoint holds of the best rows, and what is made of it again.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::{BestRows, is_closed};
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::rank::order_key::OrderKey;
use crate::rank::ranked::Ranked;
use crate::row_store::RowId;

impl<K: OrderKey> BestRows<K> {
    pub(super) fn expire(&mut self) -> Result<(), EngineError> {
        let expired = self.expiry.expire(self.context.now_ms());
        if expired.is_empty() {
            return Ok(());
        }
        let mut columns = self.partitions.columns(&expired).map_err(|e| self.failed(&e))?;
        columns.push(Arc::new(BooleanArray::from(vec![true; expired.len()])));
        let mut fields: Vec<Field> =
            self.rank.partition.iter().map(|column| self.stored_schema.field(*column).clone()).collect();
        fields.push(Field::new("__gone", DataType::Boolean, false));
        let gone = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| self.failed(&e))?;
        self.gone.push(gone);
        expired.iter().for_each(|slot| self.forget(*slot));
        Ok(())
    }

    /// Rows with the time at which their partition last changed.
    pub(super) fn with_changed(&self, rows: &RecordBatch, changed: Int64Array) -> Result<RecordBatch, EngineError> {
        let mut fields: Vec<Arc<Field>> = self.stored_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("__changed", DataType::Int64, false)));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(changed));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| self.failed(&e))
    }

    pub(super) fn rows_to_write(&mut self, whole: bool) -> Result<Vec<RecordBatch>, EngineError> {
        let batches = self.store.checkpoint(whole).map_err(|e| self.failed(&e))?;
        if whole && self.expiry.is_on() {
            // Rows of an epoch share its time; in the whole state each partition has its own.
            let of_slot = |(slot, ranked): (usize, &Ranked<K>)| {
                let changed = self.expiry.changed(slot as u32);
                ranked.entries().iter().map(|entry| (entry.row, changed)).collect::<Vec<_>>()
            };
            let (ids, changed): (Vec<RowId>, Vec<i64>) = self.ranked.iter().enumerate().flat_map(of_slot).unzip();
            let rows = self.store.gather(&ids).map_err(|e| self.failed(&e))?;
            return Ok(vec![self.with_changed(&rows, changed.into())?]);
        }
        let now_ms = self.context.now_ms();
        batches.iter().map(|rows| self.with_changed(rows, Int64Array::from_value(now_ms, rows.num_rows()))).collect()
    }

    pub(super) fn restore_gone(&mut self, gone: &RecordBatch) -> Result<(), EngineError> {
        let mut slots = Vec::new();
        let interned =
            self.partitions.intern(&gone.columns()[..self.rank.partition.len()], gone.num_rows(), &mut slots);
        interned.map_err(|e| self.failed(&e))?;
        self.ranked.resize_with(self.partitions.slots(), || Ranked::None);
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().for_each(|slot| self.forget(slot));
        Ok(())
    }

    pub(super) fn restore_rows(&mut self, stored: &RecordBatch) -> Result<(), EngineError> {
        let width = self.stored_schema.fields().len();
        let changed = stored.column(width).as_primitive::<Int64Type>().clone();
        let mut rows = RecordBatch::try_new(self.stored_schema.clone(), stored.columns()[..width].to_vec())
            .map_err(|e| self.failed(&e))?;
        if let Some(column) = self.windows.column {
            let ends = event_times(&self.name, &rows, column)?;
            let open = ends.values().iter().map(|end| !is_closed(*end, self.windows.watermark));
            rows = filter_record_batch(&rows, &open.map(Some).collect()).map_err(|e| self.failed(&e))?;
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if let Some(next) = &mut self.arrival {
            let arrivals = rows.column(width - 1).as_primitive::<Int64Type>();
            *next = (*next).max(arrivals.values().iter().max().map_or(0, |last| last + 1));
        }
        let slots = self.slots(&rows)?;
        self.open_windows(&slots, &rows)?;
        let chunk = self.store.add(rows.clone(), false);
        self.insert_all(&slots, &rows, chunk, false)?;
        for (slot, changed) in slots.iter().zip(changed.values()) {
            self.expiry.touch(*slot, *changed);
        }
        self.release_dropped();
        self.store.settle(chunk).map_err(|e| self.failed(&e))
    }
}
