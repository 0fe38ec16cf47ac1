//! The newest row of each key of a changelog, as a complete changelog: `-U` and `+U` with the whole row, nothing where
//! nothing has changed. Serves sources that only say what replaces what, and sinks that replace rows by another
//! key than the one by which the stream's rows are told apart.

mod last;
mod stack;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int8Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{Row, RowConverter, Rows, SortField};
use hashbrown::HashMap;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;

use self::last::LastRows;
use self::stack::RowStacks;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::memory;
use crate::merging::MergeRule;
use crate::operator::{Capture, Collector, Operator, Restored, TableRows};

/// Name and version of the table of rows: the columns, then the row's place among those of its key (Int64), and
/// whether it is there (Boolean; false: the key has no row at this place). No row is left at or behind a place that is
/// told anew.
const TABLE: (&str, u32) = ("rows", 1);

/// A row, or a key, in Arrow's row format.
type RowBytes = Box<[u8]>;

/// See the module.
pub(crate) struct Normalize {
    name: String,
    key: Vec<usize>,
    schema: SchemaRef,
    stored_schema: SchemaRef,
    keys: RowConverter,
    rows: RowConverter,
    table: Table,
    /// Whether what an update replaces is given.
    updates_before: bool,
    /// Whether who takes the rows needs each version of a row and from when it counts: a join with the version of a time.
    versions: bool,
    /// Keys that have changed since the last checkpoint, with a row from which their columns can be told: one that
    /// they had.
    dirty: HashMap<RowBytes, RowBytes>,
    files: DeltaFiles,
}

/// The rows of each key.
enum Table {
    /// The input replaces rows by the key: there is one row of a key, the last.
    ByKey(LastRows),
    /// The input takes away every row that it replaces: several rows of a key may be there at once.
    Whole(RowStacks),
}

/// Rows of a batch with their keys and kinds.
struct Incoming<'a> {
    keys: &'a Rows,
    rows: &'a Rows,
    batch: &'a StreamBatch,
}

/// A change to give: a row that was kept, or the number of one that has come.
enum Given {
    Kept(RowBytes),
    Came(usize),
}

/// A change to give, with the number of the row that has brought it about.
struct Told {
    row: Given,
    kind: ChangeKind,
    by: usize,
}

/// What a batch has done.
#[derive(Default)]
struct Outcome {
    given: Vec<Told>,
    /// Keys of which other rows are there now, each with a row that it had.
    dirty: Vec<(RowBytes, RowBytes)>,
}

impl Outcome {
    fn tell(&mut self, row: Given, kind: ChangeKind, by: usize) {
        self.given.push(Told { row, kind, by });
    }
}

impl Incoming<'_> {
    fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether the row takes another away and it is known from when on, except where the next row comes in its place at the
    /// same time: a filter may have taken away what stood between them.
    fn is_end_of_version(&self, position: usize) -> bool {
        let Some(own) = &self.batch.own_watermark else { return false };
        let next = position + 1;
        let is_replaced = self.kind(position) == ChangeKind::UpdateBefore
            && next < self.len()
            && self.kind(next) == ChangeKind::UpdateAfter
            && self.keys.row(position) == self.keys.row(next)
            && own.value(position) == own.value(next);
        !is_replaced
    }

    fn kind(&self, position: usize) -> ChangeKind {
        let number = self.batch.changes.as_ref().map_or(0, |changes| changes.value(position));
        ChangeKind::from_number(number).expect("operators give kinds that exist")
    }
}

impl Normalize {
    /// An operator over rows of the given columns without state; `key` are the positions of the key.
    /// `changes`: those that come, and those that are given. `versions`: who takes the rows joins with the version of a time.
    /// Rows that are to be taken away and are not there are counted by `unmatched`.
    pub(crate) fn new(
        name: &str,
        key: Vec<usize>,
        schema: SchemaRef,
        changes: (ChangeMode, ChangeMode),
        versions: bool,
        unmatched: Arc<AtomicU64>,
    ) -> Result<Self, EngineError> {
        let failed = |e| EngineError::arrow(name, &e);
        let fields = |columns: &mut dyn Iterator<Item = usize>| -> Vec<SortField> {
            columns.map(|column| SortField::new(schema.field(column).data_type().clone())).collect()
        };
        let keys = RowConverter::new(fields(&mut key.iter().copied())).map_err(failed)?;
        let rows = RowConverter::new(fields(&mut (0..schema.fields().len()))).map_err(failed)?;
        let mut stored: Vec<_> =
            schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        stored.push(Arc::new(Field::new("__place", DataType::Int64, false)));
        stored.push(Arc::new(Field::new("__present", DataType::Boolean, false)));
        let table = match changes.0 {
            ChangeMode::Retract => Table::Whole(RowStacks::new(versions, unmatched)),
            ChangeMode::Append | ChangeMode::Upsert => Table::ByKey(LastRows::default()),
        };
        let stored_schema = Arc::new(Schema::new(stored));
        let (name, dirty) = (name.to_owned(), HashMap::new());
        let files = match table {
            // A key has as many rows as the last of them in the files says.
            Table::Whole(_) => DeltaFiles::default(),
            Table::ByKey(_) => DeltaFiles::merged_by(vec![MergeRule {
                name: TABLE.0,
                version: TABLE.1,
                key: key.clone(),
                identity: Some(key.clone()),
                present: Some(schema.fields().len() + 1),
            }]),
        };
        let updates_before = changes.1 != ChangeMode::Upsert;
        Ok(Normalize { name, key, schema, stored_schema, keys, rows, table, updates_before, versions, dirty, files })
    }

    fn keys_of(&self, rows: &RecordBatch) -> Result<Rows, EngineError> {
        let columns: Vec<ArrayRef> = self.key.iter().map(|column| rows.column(*column).clone()).collect();
        self.keys.convert_columns(&columns).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn batch(&self, given: &[Told], incoming: &Incoming<'_>) -> Result<StreamBatch, EngineError> {
        let failed = |e| EngineError::arrow(&self.name, &e);
        let parser = self.rows.parser();
        let rows = given.iter().map(|told| match &told.row {
            Given::Kept(bytes) => parser.parse(bytes),
            Given::Came(position) => incoming.rows.row(*position),
        });
        let columns = self.rows.convert_rows(rows).map_err(failed)?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)?;
        let kinds = given.iter().map(|told| told.kind as i8);
        let own_watermark = incoming.batch.own_watermark.as_ref().filter(|_| self.versions);
        let own_watermark =
            own_watermark.map(|own| Int64Array::from_iter_values(given.iter().map(|told| own.value(told.by))));
        Ok(StreamBatch { own_watermark, ..StreamBatch::changelog(rows, Int8Array::from_iter_values(kinds)) })
    }

    /// The rows of all keys, or of those that have changed, as the state table holds them.
    fn stored(&self, whole: bool) -> Result<Vec<RecordBatch>, EngineError> {
        // Which row comes first decides nothing, but equal states should give equal files.
        let mut keys: Vec<(&RowBytes, Option<&RowBytes>)> = match whole {
            true => self.table.keys().map(|key| (key, None)).collect(),
            false => self.dirty.iter().map(|(key, sample)| (key, Some(sample))).collect(),
        };
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        keys.sort_unstable();
        let parser = self.rows.parser();
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut places = Vec::new();
        let mut present = Vec::new();
        for (key, sample) in keys {
            let of_key = self.table.rows(key);
            for (place, row) in of_key.iter().enumerate() {
                rows.push(parser.parse(row));
                places.push(place as i64);
                present.push(true);
            }
            // The first row of a key stands for the end of those that it had, unless there is none.
            if let (true, Some(sample)) = (of_key.is_empty(), sample) {
                rows.push(parser.parse(sample));
                places.push(0);
                present.push(false);
            }
        }
        let failed = |e| EngineError::arrow(&self.name, &e);
        let mut columns = self.rows.convert_rows(rows).map_err(failed)?;
        columns.push(Arc::new(Int64Array::from(places)));
        columns.push(Arc::new(BooleanArray::from(present)));
        Ok(vec![RecordBatch::try_new(self.stored_schema.clone(), columns).map_err(failed)?])
    }
}

impl Table {
    fn bytes(&self) -> usize {
        match self {
            Table::ByKey(rows) => rows.bytes(),
            Table::Whole(rows) => rows.bytes(),
        }
    }

    fn keys(&self) -> Box<dyn Iterator<Item = &RowBytes> + '_> {
        match self {
            Table::ByKey(rows) => Box::new(rows.keys()),
            Table::Whole(rows) => Box::new(rows.keys()),
        }
    }

    /// The rows of a key, oldest first.
    fn rows(&self, key: &[u8]) -> &[RowBytes] {
        match self {
            Table::ByKey(rows) => rows.rows(key),
            Table::Whole(rows) => rows.rows(key),
        }
    }

    fn len(&self) -> usize {
        match self {
            Table::ByKey(rows) => rows.keys().len(),
            Table::Whole(rows) => rows.len(),
        }
    }

    /// Leaves a key so many of its rows, then adds one.
    fn put_back(&mut self, key: &[u8], place: usize, row: Option<&[u8]>) {
        match self {
            Table::ByKey(rows) => rows.put_back(key, place, row),
            Table::Whole(rows) => rows.put_back(key, place, row),
        }
    }
}

impl Operator for Normalize {
    fn state_bytes(&self) -> usize {
        let of_dirty = |(key, row): (&RowBytes, &RowBytes)| key.len() + row.len() + 2 * memory::SMALL;
        let dirty = memory::of_sampled(self.dirty.len(), self.dirty.iter(), of_dirty);
        self.table.bytes() + self.dirty.allocation_size() + dirty
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let keys = self.keys_of(&batch.rows)?;
        let rows = self.rows.convert_columns(batch.rows.columns());
        let rows = rows.map_err(|e| EngineError::arrow(&self.name, &e))?;
        let incoming = Incoming { keys: &keys, rows: &rows, batch: &batch };
        let mut outcome = match &mut self.table {
            Table::ByKey(table) => table.apply(&incoming),
            Table::Whole(table) => table.apply(&incoming),
        };
        self.dirty.extend(outcome.dirty);
        if !self.updates_before {
            outcome.given.retain(|told| told.kind != ChangeKind::UpdateBefore);
        }
        if !outcome.given.is_empty() {
            out.main.push(self.batch(&outcome.given, &incoming)?);
        }
        Ok(())
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let whole = self.files.wants_whole_state(self.table.len());
        let rows = self.stored(whole)?;
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
            let keys = self.keys_of(&stored)?;
            let rows = self.rows.convert_columns(&stored.columns()[..width]);
            let rows = rows.map_err(|e| EngineError::arrow(&self.name, &e))?;
            let places = stored.column(width).as_primitive::<Int64Type>();
            let present = stored.column(width + 1).as_boolean();
            for position in 0..stored.num_rows() {
                let place = usize::try_from(places.value(position)).unwrap_or(0);
                let row = present.value(position).then(|| rows.row(position).data());
                self.table.put_back(keys.row(position).data(), place, row);
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
