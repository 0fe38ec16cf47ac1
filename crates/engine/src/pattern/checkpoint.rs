//! What a checkpoint holds of the searches, and how they are brought back. Rows are written when they come. Where a
//! search begins (the first row of its oldest match under way) is written when it has moved, because the files hold
//! rows before it. The matches under way themselves are found again by searching the rows from there on: nothing that was
//! given began with one of these, so nothing is given twice.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::search::Beginning;
use super::turns::Due;
use super::{PatternMatch, TURN_ROWS};
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::operator::{Collector, Restored, TableRows};

/// Name and version of the table of rows: the input's columns.
const ROWS: (&str, u32) = ("rows", 1);
/// Name and version of the table of beginnings: the partition's columns, then the beginning (two Int64).
const BEGINNINGS: (&str, u32) = ("beginnings", 1);

impl PatternMatch {
    /// What has changed since the last checkpoint, or everything.
    pub(super) fn state_to_write(&mut self, whole: bool) -> Result<Vec<TableRows>, EngineError> {
        let rows = self.store.checkpoint(whole).map_err(|e| self.failed(&e))?;
        let mut slots = std::mem::take(&mut self.touched);
        slots.iter().for_each(|slot| self.searches[*slot as usize].is_touched = false);
        match whole {
            true => slots = self.partitions.known().collect(),
            false => slots.retain(|slot| self.searches[*slot as usize].is_used),
        }
        slots.sort_unstable();
        let (mut moved, mut gone) = (Vec::<(u32, Beginning)>::new(), Vec::new());
        for slot in slots {
            let search = &mut self.searches[slot as usize];
            if whole {
                search.in_files = false;
                search.written = None;
            }
            let is_gone = search.is_gone();
            if let Some(beginning) = search.beginning()
                && (search.in_files || (!is_gone && beginning.skip > 0))
                && search.written != Some(beginning)
            {
                moved.push((slot, beginning));
                search.written = Some(beginning);
            }
            search.in_files |= !is_gone;
            if is_gone {
                gone.push(slot);
            }
        }
        let beginnings = self.beginnings(&moved)?;
        gone.into_iter().for_each(|slot| self.free(slot));
        let key = (0..self.spec.partition.len()).collect();
        Ok(vec![
            TableRows { name: ROWS.0, version: ROWS.1, key: self.spec.partition.clone(), rows },
            TableRows { name: BEGINNINGS.0, version: BEGINNINGS.1, key, rows: beginnings },
        ])
    }

    fn beginnings(&self, moved: &[(u32, Beginning)]) -> Result<Vec<RecordBatch>, EngineError> {
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let schema = self.beginnings_schema();
        let slots: Vec<u32> = moved.iter().map(|(slot, _)| *slot).collect();
        let mut columns = self.partitions.columns(&slots).map_err(|e| self.failed(&e))?;
        columns.push(Arc::new(Int64Array::from_iter_values(moved.iter().map(|(_, beginning)| beginning.time))));
        columns.push(Arc::new(Int64Array::from_iter_values(moved.iter().map(|(_, beginning)| beginning.skip))));
        let rows = RecordBatch::try_new(schema, columns).map_err(|e| self.failed(&e))?;
        Ok(vec![rows])
    }

    fn beginnings_schema(&self) -> SchemaRef {
        let field = |(place, column): (usize, &usize)| {
            let data_type = self.spec.input_schema.field(*column).data_type().clone();
            Field::new(format!("key{place}"), data_type, true)
        };
        let keys = self.spec.partition.iter().enumerate().map(field);
        let own = ["__time", "__skip"].map(|name| Field::new(name, DataType::Int64, false));
        Arc::new(Schema::new(keys.chain(own).collect::<Vec<_>>()))
    }

    /// Takes back the rows of a file; gives their number.
    pub(super) fn take_back(&mut self, state: &Restored) -> Result<usize, EngineError> {
        let mut count = 0;
        for rows in state.rows(ROWS.0, ROWS.1) {
            let rows = rows?;
            count += rows.num_rows();
            let rows = RecordBatch::try_new(self.spec.input_schema.clone(), rows.columns().to_vec());
            let rows = rows.map_err(|e| self.failed(&e))?;
            let times = event_times(&self.name, &rows, self.time)?;
            let slots = self.slots(&rows)?;
            let chunk = self.store.add(rows, false);
            for (row, slot) in slots.into_iter().enumerate() {
                let id = self.store.keep((chunk, row as u32));
                self.searches[slot as usize].restored.push((times.value(row), id));
            }
        }
        let width = self.spec.partition.len();
        for rows in state.rows(BEGINNINGS.0, BEGINNINGS.1) {
            let rows = rows?;
            count += rows.num_rows();
            let keys: Vec<ArrayRef> = rows.columns()[..width].to_vec();
            let slots = self.slots_of(&keys, rows.num_rows())?;
            let number = |column: usize, row: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
            for (row, slot) in slots.into_iter().enumerate() {
                let beginning = Beginning { time: number(width, row), skip: number(width + 1, row) };
                self.searches[slot as usize].written = Some(beginning);
            }
        }
        Ok(count)
    }

    /// Searches the rows that were taken back again, up to the watermark; the others wait.
    pub(super) fn search_again(&mut self) -> Result<(), EngineError> {
        let mut known: Vec<u32> = self.partitions.known().collect();
        known.sort_unstable();
        let mut due: Vec<Due> = Vec::new();
        for slot in known {
            let search = &mut self.searches[slot as usize];
            let mut rows = std::mem::take(&mut search.restored);
            rows.sort_by_key(|(time, _)| *time);
            let begin = search.written.map_or(0, |written| rows.partition_point(|(time, _)| *time < written.time));
            rows.drain(..begin).for_each(|(_, id)| self.store.release(id));
            let waits = rows.split_off(rows.partition_point(|(time, _)| *time <= self.watermark));
            search.waiting = waits.len();
            for (time, id) in waits {
                self.waiting.entry(time).or_default().push((slot, id));
            }
            search.in_files = true;
            let skip = search.written.map_or(0, |written| usize::try_from(written.skip).unwrap_or(0));
            let passed = rows.into_iter().map(|(time, id)| Due { slot, time, id }).collect();
            let mut passed = self.in_order(passed)?;
            let search = &mut self.searches[slot as usize];
            passed.drain(..skip.min(passed.len())).for_each(|row| search.push(row.time, row.id));
            if passed.is_empty() && search.is_gone() {
                // The files hold only rows of it that are not needed.
                self.free(slot);
            }
            due.extend(passed);
            if due.len() >= TURN_ROWS {
                self.repeat(&mut due)?;
            }
        }
        self.repeat(&mut due)
    }

    fn repeat(&mut self, due: &mut Vec<Due>) -> Result<(), EngineError> {
        let mut out = Collector::default();
        self.turns(due, &mut out)?;
        due.clear();
        if out.main.is_empty() {
            return Ok(());
        }
        Err(EngineError::Bug(format!("{}: a match was found again after a restart", self.name)))
    }
}
