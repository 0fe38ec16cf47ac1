//! Checkpoints of an interval join: rows that came in the epoch, and rows that had their first partner in it, by
//! which the same row of an earlier file is replaced. What the watermark has released is forgotten with its file.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use hashbrown::HashSet;

use super::IntervalJoin;
use super::side::{Kept, Side};
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::key_hash::hash_rows;
use crate::operator::{Capture, Restored, TableRows};
use crate::window::WindowMeta;

/// Names of the tables of left and right rows. Columns: the side's, then the watermark that the row was behind
/// (Int64, least: none); where matches are noted also its number (Int64) and whether it had a partner (Boolean).
const TABLES: [&str; 2] = ["left", "right"];
const VERSION: u32 = 1;

/// Rows of a file, before it is known which of them later files replace.
pub(super) struct Staged {
    side: usize,
    rows: RecordBatch,
    own: Vec<i64>,
    /// Number and match of each row; empty where matches are not noted.
    ids: Vec<i64>,
    matched: Vec<bool>,
}

impl IntervalJoin {
    pub(super) fn capture_sides(&mut self) -> Result<Capture, EngineError> {
        self.files.forget_released(self.watermark);
        let whole = self.files.wants_whole_state(self.sides[0].len() + self.sides[1].len());
        let mut tables = Vec::new();
        let mut needed_until = i64::MIN;
        for (side, name) in TABLES.into_iter().enumerate() {
            let (rows, until) =
                changed_rows(&mut self.sides[side], whole).map_err(|e| EngineError::arrow(&self.name, &e))?;
            needed_until = needed_until.max(until);
            let key = self.key_columns[side].clone();
            tables.push(TableRows { name, version: VERSION, key, rows });
        }
        let meta = serde_json::to_string(&WindowMeta { watermark: self.watermark }).expect("a number");
        Ok(self.files.capture_until(whole, tables, meta, needed_until))
    }

    pub(super) fn stage(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        let mut needed_until = i64::MIN;
        for (side, name) in TABLES.into_iter().enumerate() {
            for stored in state.rows(name, VERSION) {
                let stored = stored?;
                count += stored.num_rows();
                let width = stored.num_columns() - if self.sides[side].notes_matches { 3 } else { 1 };
                let rows = stored.project(&(0..width).collect::<Vec<_>>());
                let rows = rows.map_err(|e| EngineError::arrow(&self.name, &e))?;
                let times = event_times(&self.name, &rows, self.times[side])?;
                let last = times.values().iter().copied().max().unwrap_or(i64::MIN);
                needed_until = needed_until.max(last.saturating_add(self.sides[side].reach));
                let numbers = |column: usize| stored.column(column).as_primitive::<Int64Type>().values().to_vec();
                let (ids, matched) = match self.sides[side].notes_matches {
                    true => (numbers(width + 1), stored.column(width + 2).as_boolean().values().iter().collect()),
                    false => (Vec::new(), Vec::new()),
                };
                self.staged.push(Staged { side, rows, own: numbers(width), ids, matched });
            }
        }
        self.files.restored_until(state.handle, count, needed_until);
        Ok(())
    }

    pub(super) fn restore_staged(&mut self) -> Result<(), EngineError> {
        let failed = |e| EngineError::arrow(&self.name, &e);
        let staged = std::mem::take(&mut self.staged);
        // Newest first: the first that is seen of a row is what counts.
        let mut seen = HashSet::new();
        let mut chosen = Vec::with_capacity(staged.len());
        for part in staged.iter().rev() {
            let times = event_times(&self.name, &part.rows, self.times[part.side])?;
            let columns: Vec<ArrayRef> =
                self.key_columns[part.side].iter().map(|column| part.rows.column(*column).clone()).collect();
            let hashes = hash_rows(&columns, part.rows.num_rows()).map_err(failed)?;
            let mut positions: Vec<u32> = (0..part.rows.num_rows() as u32).rev().collect();
            positions.retain(|row| {
                let row = *row as usize;
                let newest = part.ids.is_empty() || seen.insert((part.side, hashes[row], part.ids[row]));
                newest && !self.sides[part.side].is_released(times.value(row), self.watermark)
            });
            positions.reverse();
            chosen.push((part, positions, times));
        }
        for (part, positions, times) in chosen.into_iter().rev() {
            let keys = if part.side == 0 { self.keys.left(&part.rows)? } else { self.keys.right(&part.rows)? };
            let times = times.values();
            let kept = Kept { rows: &part.rows, keys: &keys, positions, times, own: &part.own, matched: &part.matched };
            self.sides[part.side].keep(kept, Some(&part.ids), &self.keys).map_err(failed)?;
        }
        for segment in self.sides.iter_mut().flat_map(|side| &mut side.segments) {
            segment.captured = segment.times.len() as u32;
        }
        Ok(())
    }
}

/// The rows of a side that a checkpoint is to hold, and the watermark that releases them.
fn changed_rows(side: &mut Side, whole: bool) -> Result<(Vec<RecordBatch>, i64), arrow::error::ArrowError> {
    let mut batches = Vec::new();
    let mut needed_until = i64::MIN;
    let reach = side.reach;
    for segment in &mut side.segments {
        let noted = segment.noted(whole)?;
        if !noted.own.is_empty() {
            needed_until = needed_until.max(noted.last_time.saturating_add(reach));
        }
        let mut first = 0;
        for rows in noted.rows {
            let range = first..first + rows.num_rows();
            first = range.end;
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(noted.own[range.clone()].to_vec())));
            if side.notes_matches {
                columns.push(Arc::new(Int64Array::from(noted.ids[range.clone()].to_vec())));
                columns.push(Arc::new(BooleanArray::from(noted.matched[range].to_vec())));
            }
            batches.push(RecordBatch::try_new(stored_schema(rows.schema_ref(), side.notes_matches), columns)?);
        }
    }
    Ok((batches, needed_until))
}

fn stored_schema(rows: &SchemaRef, notes_matches: bool) -> SchemaRef {
    let mut fields: Vec<_> = rows.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__own_watermark", DataType::Int64, false)));
    if notes_matches {
        fields.push(Arc::new(Field::new("__number", DataType::Int64, false)));
        fields.push(Arc::new(Field::new("__matched", DataType::Boolean, false)));
    }
    Arc::new(Schema::new(fields))
}
