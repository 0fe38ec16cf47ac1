//! The newest row of each key of a changelog, as a complete changelog: `-U` and `+U` with the whole row, nothing where
//! nothing has changed. Serves sources that only say what replaces what, and sinks that replace rows by another
//! key than the one by which the stream's rows are told apart.
//!
//! A row is added by `+I` and `+U` and taken away by `-U` and `-D`. Where several rows of a key are there at once,
//! because changes of different origin come mixed, the one that came last counts, and when it goes the one
//! before it counts again.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int8Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{OwnedRow, Row, RowConverter, SortField};
use hashbrown::HashMap;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;

use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::keys::KeyConverter;
use crate::operator::{Capture, Collector, Operator, Restored, TableRows};

/// Name and version of the table of rows: the columns, then the row's place among those of its key (Int64), and
/// whether it is there (Boolean; false: the key has no row at this place or behind it).
const TABLE: (&str, u32) = ("rows", 1);

/// See the module.
pub(crate) struct Normalize {
    name: String,
    key: Vec<usize>,
    schema: SchemaRef,
    stored_schema: SchemaRef,
    keys: KeyConverter,
    rows: RowConverter,
    /// The rows of each key, oldest first; never empty.
    table: HashMap<OwnedRow, Vec<OwnedRow>>,
    /// Keys that have changed since the last checkpoint, with a row from which their columns can be told.
    dirty: HashMap<OwnedRow, OwnedRow>,
    files: DeltaFiles,
}

impl Normalize {
    /// An operator over rows of the given columns without state; `key` are the positions of the key.
    pub(crate) fn new(name: &str, key: Vec<usize>, schema: SchemaRef) -> Result<Self, EngineError> {
        let failed = |e| EngineError::arrow(name, &e);
        let types = |columns: &mut dyn Iterator<Item = usize>| -> Vec<DataType> {
            columns.map(|column| schema.field(column).data_type().clone()).collect()
        };
        let keys = KeyConverter::new(&types(&mut key.iter().copied())).map_err(failed)?;
        let all = types(&mut (0..schema.fields().len()));
        let rows = RowConverter::new(all.into_iter().map(SortField::new).collect()).map_err(failed)?;
        let mut fields: Vec<_> =
            schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        fields.push(Arc::new(Field::new("__place", DataType::Int64, false)));
        fields.push(Arc::new(Field::new("__present", DataType::Boolean, false)));
        let stored_schema = Arc::new(Schema::new(fields));
        let (table, dirty) = (HashMap::new(), HashMap::new());
        let name = name.to_owned();
        Ok(Normalize { name, key, schema, stored_schema, keys, rows, table, dirty, files: DeltaFiles::default() })
    }

    fn keys_of(&self, rows: &RecordBatch) -> Result<Vec<OwnedRow>, EngineError> {
        let columns: Vec<ArrayRef> = self.key.iter().map(|column| rows.column(*column).clone()).collect();
        self.keys.keys(&columns, rows.num_rows()).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn batch(&self, rows: &[&OwnedRow]) -> Result<RecordBatch, EngineError> {
        let failed = |e| EngineError::arrow(&self.name, &e);
        let columns = self.rows.convert_rows(rows.iter().map(|row| row.row())).map_err(failed)?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)
    }

    /// The rows of the keys as the state table holds them: each row with its place, then the end.
    fn stored<'a>(
        &self,
        entries: impl Iterator<Item = (&'a OwnedRow, &'a OwnedRow)>,
    ) -> Result<Vec<RecordBatch>, EngineError> {
        // The order of files decides nothing, but equal states should give equal files.
        let entries: BTreeSet<(Row<'_>, Row<'_>)> = entries.map(|(key, sample)| (key.row(), sample.row())).collect();
        let mut rows = Vec::new();
        let mut places = Vec::new();
        let mut present = Vec::new();
        for (key, sample) in entries {
            let of_key = self.table.get(&key.owned()).map(Vec::as_slice).unwrap_or_default();
            for (place, row) in of_key.iter().enumerate() {
                rows.push(row.row());
                places.push(place as i64);
                present.push(true);
            }
            rows.push(sample);
            places.push(of_key.len() as i64);
            present.push(false);
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |e| EngineError::arrow(&self.name, &e);
        let mut columns = self.rows.convert_rows(rows).map_err(failed)?;
        columns.push(Arc::new(Int64Array::from(places)));
        columns.push(Arc::new(BooleanArray::from(present)));
        Ok(vec![RecordBatch::try_new(self.stored_schema.clone(), columns).map_err(failed)?])
    }
}

impl Operator for Normalize {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let keys = self.keys_of(&batch.rows)?;
        let converted = self.rows.convert_columns(batch.rows.columns());
        let converted = converted.map_err(|e| EngineError::arrow(&self.name, &e))?;
        // The newest row of each key before the batch, in the order in which the keys first occur.
        let mut touched: Vec<(OwnedRow, Option<OwnedRow>)> = Vec::new();
        let mut seen = hashbrown::HashSet::new();
        for (position, (key, row)) in keys.into_iter().zip(&converted).enumerate() {
            let of_key = self.table.entry(key.clone()).or_default();
            if seen.insert(key.clone()) {
                touched.push((key.clone(), of_key.last().cloned()));
            }
            let known = of_key.iter().rposition(|other| other.row() == row);
            if batch.is_addition(position) {
                of_key.push(row.owned());
            } else if let Some(known) = known {
                of_key.remove(known);
            } else if batch.changes.as_ref().is_some_and(|c| c.value(position) == ChangeKind::Delete as i8) {
                // A delete that only knows the key.
                of_key.pop();
            }
            self.dirty.entry(key).or_insert_with(|| row.owned());
        }
        let mut rows: Vec<OwnedRow> = Vec::new();
        let mut changes = Vec::new();
        for (key, before) in touched {
            let after = self.table.get(&key).and_then(|of_key| of_key.last()).cloned();
            if after.is_none() {
                self.table.remove(&key);
            }
            let mut give = |row: OwnedRow, kind: ChangeKind| {
                rows.push(row);
                changes.push(kind as i8);
            };
            match (before, after) {
                (None, None) => {}
                (None, Some(after)) => give(after, ChangeKind::Insert),
                (Some(before), None) => give(before, ChangeKind::Delete),
                (Some(before), Some(after)) if before == after => {}
                (Some(before), Some(after)) => {
                    give(before, ChangeKind::UpdateBefore);
                    give(after, ChangeKind::UpdateAfter);
                }
            }
        }
        if !rows.is_empty() {
            let rows = self.batch(&rows.iter().collect::<Vec<_>>())?;
            out.main.push(StreamBatch::changelog(rows, Int8Array::from(changes)));
        }
        Ok(())
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let whole = self.files.wants_whole_state(self.table.len());
        let rows = match whole {
            true => self.stored(self.table.iter().map(|(key, rows)| (key, &rows[0])))?,
            false => self.stored(self.dirty.iter())?,
        };
        self.dirty.clear();
        let table = TableRows { name: TABLE.0, version: TABLE.1, key: self.key.clone(), rows };
        Ok(Some(self.files.capture(whole, vec![table], String::new())))
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        for stored in state.rows(TABLE.0, TABLE.1) {
            let stored = stored?;
            count += stored.num_rows();
            let width = self.schema.fields().len();
            let keys = self.keys_of(stored)?;
            let rows = self.rows.convert_columns(&stored.columns()[..width]);
            let rows = rows.map_err(|e| EngineError::arrow(&self.name, &e))?;
            let places = stored.column(width).as_primitive::<Int64Type>();
            let present = stored.column(width + 1).as_boolean();
            for (position, (key, row)) in keys.into_iter().zip(&rows).enumerate() {
                let place = usize::try_from(places.value(position)).unwrap_or(0);
                let of_key = self.table.entry(key.clone()).or_default();
                of_key.truncate(place);
                if present.value(position) {
                    of_key.push(row.owned());
                } else if of_key.is_empty() {
                    self.table.remove(&key);
                }
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }
}
