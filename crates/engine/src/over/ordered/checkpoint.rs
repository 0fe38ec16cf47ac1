//! What a checkpoint holds of an OVER by time, and what is made of it again.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::OrderedOver;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::over::frames::distance_values;
use crate::row_store::RowId;

impl OrderedOver {
    pub(super) fn expire(&mut self) -> Vec<u32> {
        let now_ms = self.context.now_ms();
        let mut expired = self.expiry.expire(now_ms);
        // Rows that wait are not old.
        expired.retain(|slot| {
            let waits = self.states[*slot as usize].waiting > 0;
            if waits {
                self.expiry.touch(*slot, now_ms);
            }
            !waits
        });
        expired
    }

    pub(super) fn forget(&mut self, slot: u32) {
        let state = std::mem::take(&mut self.states[slot as usize]);
        state.given.iter().for_each(|(row, _)| self.store.release(*row));
        self.carried.forget(slot);
        self.partitions.remove(slot);
        self.expiry.forget(slot);
    }

    pub(super) fn rows_to_write(&mut self, whole: bool) -> Result<Vec<RecordBatch>, EngineError> {
        let batches = self.store.checkpoint(whole).map_err(|e| self.failed(&e))?;
        let mut fields: Vec<Arc<Field>> = self.stored_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("__changed", DataType::Int64, false)));
        let schema = Arc::new(Schema::new(fields));
        let mut written = Vec::new();
        for rows in batches {
            let mut columns = rows.columns().to_vec();
            let mut changed = vec![self.context.now_ms(); rows.num_rows()];
            if whole && self.expiry.is_on() {
                let slots = self.slots(&rows)?;
                changed = slots.into_iter().map(|slot| self.expiry.changed(slot)).collect();
            }
            columns.push(Arc::new(Int64Array::from(changed)));
            written.push(RecordBatch::try_new(schema.clone(), columns).map_err(|e| self.failed(&e))?);
        }
        Ok(written)
    }

    pub(super) fn restore_rows(&mut self, stored: &RecordBatch) -> Result<(), EngineError> {
        let width = self.stored_schema.fields().len();
        let changed = stored.column(width).as_primitive::<Int64Type>();
        let rows = RecordBatch::try_new(self.stored_schema.clone(), stored.columns()[..width].to_vec());
        let rows = rows.map_err(|e| self.failed(&e))?;
        let slots = self.slots(&rows)?;
        let times = self.time.map(|time| event_times(&self.name, &rows, time)).transpose()?;
        let values = match self.keeps.distance {
            Some(_) => Some(distance_values(&self.over.order[0], &rows).map_err(|e| self.failed(&e))?),
            None => None,
        };
        if self.time.is_none() {
            let arrivals = rows.column(width - 1).as_primitive::<Int64Type>();
            self.next_arrival = self.next_arrival.max(arrivals.values().iter().max().map_or(0, |last| last + 1));
        }
        let keeps_given = self.keeps.last > 0 || self.keeps.distance.is_some();
        let chunk = self.store.add(rows, false);
        for (row, slot) in slots.iter().enumerate() {
            let waits = times.as_ref().is_some_and(|times| times.value(row) > self.watermark);
            self.expiry.touch(*slot, changed.value(row));
            if !waits && !keeps_given {
                continue;
            }
            let id = self.store.keep((chunk, row as u32));
            let state = &mut self.states[*slot as usize];
            if let (true, Some(times)) = (waits, &times) {
                state.waiting += 1;
                self.waiting.entry(times.value(row)).or_default().push((*slot, id));
            } else {
                let value = values.as_ref().and_then(|v| arrow::array::Array::is_valid(v, row).then(|| v.value(row)));
                state.given.push((id, value));
            }
        }
        self.store.settle(chunk).map_err(|e| self.failed(&e))
    }

    /// Puts the rows that were given in order, and lets go of those that were let go of before the restart.
    pub(super) fn order_given(&mut self) -> Result<(), EngineError> {
        let mut known: Vec<u32> = self.partitions.known().collect();
        known.sort_unstable();
        for slot in known {
            let given = std::mem::take(&mut self.states[slot as usize].given);
            let ids: Vec<RowId> = given.iter().map(|(row, _)| *row).collect();
            let rows = self.store.gather(&ids).map_err(|e| self.failed(&e))?;
            let encoded = self.codec.encode(&rows).map_err(|e| self.failed(&e))?;
            let mut order: Vec<usize> = (0..given.len()).collect();
            order.sort_by(|left, right| encoded[*left].cmp(&encoded[*right]));
            self.states[slot as usize].given = order.into_iter().map(|row| given[row]).collect();
            self.forget_unseen(slot, None);
        }
        let ms = if self.time.is_some() { self.watermark } else { self.context.now_ms() };
        let now = self.clock(ms);
        self.forget_passed(now);
        Ok(())
    }
}
