//! A row for each element of an array or entry of a map.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::change::ChangeKind;
use mainstem_plan::operator::Unnest as Spec;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::memory;
use crate::operator::{Collector, Operator, PieceRows};

/// The bytes of a row are looked at where it has more elements than this.
const MANY: i32 = 64;

/// See the module.
pub(crate) struct Unnest {
    name: String,
    spec: Spec,
    schema: SchemaRef,
    piece: PieceRows,
    /// Rows that give more than a step may make.
    taking: Option<Taking>,
}

/// Rows that are being taken.
struct Taking {
    batch: StreamBatch,
    offsets: OffsetBuffer<i32>,
    /// The columns of all elements.
    elements: Vec<ArrayRef>,
    /// The next row, and which of its elements is the next.
    row: usize,
    element: i32,
}

/// Output rows: the row that each comes from, and its element; none where there is none.
#[derive(Default)]
struct Picked {
    rows: Vec<u32>,
    elements: Vec<Option<u32>>,
    numbers: Vec<Option<i32>>,
}

impl Picked {
    fn push(&mut self, row: usize, element: Option<(i32, i32)>) {
        self.rows.push(row as u32);
        self.elements.push(element.map(|(at, _)| at as u32));
        self.numbers.push(element.map(|(_, number)| number));
    }
}

impl Unnest {
    /// An operator whose output has these columns.
    pub(crate) fn new(name: &str, spec: Spec, schema: SchemaRef) -> Unnest {
        Unnest { name: name.to_owned(), spec, schema, piece: PieceRows::default(), taking: None }
    }

    /// Where each row's elements are, and the columns of all elements.
    fn elements(&self, collection: &ArrayRef) -> Result<(OffsetBuffer<i32>, Vec<ArrayRef>), EngineError> {
        match collection.data_type() {
            DataType::List(_) => {
                let list = collection.as_list::<i32>();
                Ok((list.offsets().clone(), vec![list.values().clone()]))
            }
            DataType::Map(_, _) => {
                let map = collection.as_map();
                Ok((map.offsets().clone(), vec![map.keys().clone(), map.values().clone()]))
            }
            other => Err(EngineError::Bug(format!("'{}' unnests {other}", self.name))),
        }
    }

    /// Goes on with rows that have come, as far as one step may go.
    fn run(&mut self, mut taking: Taking, out: &mut Collector) -> Result<(), EngineError> {
        loop {
            let picked = self.pick(&mut taking);
            if !picked.rows.is_empty() {
                self.give(&taking.batch, &taking.elements, picked, out)?;
            }
            if taking.row == taking.batch.rows.num_rows() {
                return Ok(());
            }
            if out.is_full() {
                self.taking = Some(taking);
                return Ok(());
            }
        }
    }

    /// The next elements: as many as make a batch.
    fn pick(&self, taking: &mut Taking) -> Picked {
        let collection = taking.batch.rows.column(self.spec.collection);
        let mut picked = Picked::default();
        let mut rows_max = self.piece.next(0);
        while taking.row < collection.len() && picked.rows.len() < rows_max {
            let (row, from, to) = (taking.row, taking.offsets[taking.row], taking.offsets[taking.row + 1]);
            let is_empty = collection.is_null(row) || from == to;
            if is_empty {
                if self.spec.outer {
                    picked.push(row, None);
                }
                taking.row += 1;
                continue;
            }
            if to - from > MANY {
                rows_max = rows_max.min(self.piece.next(self.kept_bytes(&taking.batch, row)));
            }
            let room = i32::try_from(rows_max.saturating_sub(picked.rows.len()).max(1)).unwrap_or(i32::MAX);
            let first = from + taking.element;
            let last = to.min(first.saturating_add(room));
            (first..last).for_each(|at| picked.push(row, Some((at, at - from + 1))));
            (taking.row, taking.element) = if last == to { (row + 1, 0) } else { (row, last - from) };
        }
        picked
    }

    /// Bytes of what is repeated of a row.
    fn kept_bytes(&self, batch: &StreamBatch, row: usize) -> usize {
        let kept = self.spec.keep.iter().map(|column| batch.rows.column(*column).slice(row, 1));
        kept.map(|column| memory::of_column(column.as_ref())).sum()
    }

    fn give(
        &mut self,
        batch: &StreamBatch,
        elements: &[ArrayRef],
        picked: Picked,
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(&self.name, &e);
        let positions = UInt32Array::from(picked.rows);
        let mut batch = batch.take(&positions).map_err(failed)?;
        let mut columns: Vec<ArrayRef> =
            self.spec.keep.iter().map(|column| batch.rows.column(*column).clone()).collect();
        let at = UInt32Array::from(picked.elements);
        for values in elements {
            columns.extend(taken(values, &at).map_err(failed)?);
        }
        if self.spec.ordinality {
            columns.push(Arc::new(Int32Array::from(picked.numbers)));
        }
        batch.rows = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|e| EngineError::Bug(format!("'{}': its rows: {e}", self.name)))?;
        // The elements of an updated row need not be as many as before: what goes and what comes are no pairs.
        batch.changes = batch.changes.map(|changes| {
            let plain = |kind: i8| match kind {
                kind if kind == ChangeKind::UpdateBefore as i8 => ChangeKind::Delete as i8,
                kind if kind == ChangeKind::UpdateAfter as i8 => ChangeKind::Insert as i8,
                kind => kind,
            };
            Int8Array::from_iter_values(changes.values().iter().map(|kind| plain(*kind)))
        });
        self.piece.learn(&batch);
        out.main.push(batch);
        Ok(())
    }
}

/// The elements at these positions; those that are rows, as their fields.
fn taken(values: &ArrayRef, at: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
    let Some(rows) = values.as_struct_opt() else { return Ok(vec![compute::take(values, at, None)?]) };
    // The fields of a row that is NULL are NULL, whatever they hold.
    let at: UInt32Array = at.iter().map(|at| at.filter(|at| rows.is_valid(*at as usize))).collect();
    rows.columns().iter().map(|field| compute::take(field, &at, None)).collect()
}

impl Operator for Unnest {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let collection = batch.rows.column(self.spec.collection);
        let (offsets, elements) = self.elements(collection)?;
        self.run(Taking { batch, offsets, elements, row: 0, element: 0 }, out)
    }

    fn has_more(&self) -> bool {
        self.taking.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.taking.take().map_or(Ok(()), |taking| self.run(taking, out))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListBuilder, MapBuilder, StringBuilder, StructArray};
    use arrow::array::{Int64Builder, NullBufferBuilder};
    use arrow::datatypes::{Field, Fields, Int32Type, Int64Type, Schema};

    use super::*;
    use crate::operator::{PIECE_ROWS, process_whole};

    fn run(spec: Spec, collection: ArrayRef, changes: Option<Vec<i8>>, added: Vec<Field>) -> Vec<StreamBatch> {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(0..collection.len() as i64));
        let input = Schema::new(vec![
            Field::new("collection", collection.data_type().clone(), true),
            Field::new("key", DataType::Int64, true),
        ]);
        let rows = RecordBatch::try_new(Arc::new(input), vec![collection, key]).unwrap();
        let mut fields = vec![Field::new("key", DataType::Int64, true)];
        fields.extend(added);
        let mut unnest = Unnest::new("unnest", spec, Arc::new(Schema::new(fields)));
        let batch = match changes {
            None => StreamBatch::on_time(rows),
            Some(changes) => StreamBatch::changelog(rows, Int8Array::from(changes)),
        };
        process_whole(&mut unnest, 0, batch).main
    }

    fn integers(column: &ArrayRef) -> Vec<Option<i64>> {
        compute::cast(column, &DataType::Int64).unwrap().as_primitive::<Int64Type>().iter().collect()
    }

    fn lists() -> ArrayRef {
        let mut lists = ListBuilder::new(Int64Builder::new());
        lists.append_value([Some(10), None, Some(11)]);
        lists.append_null();
        lists.append_value([]);
        lists.append_value([Some(40)]);
        Arc::new(lists.finish())
    }

    #[test]
    fn arrays_give_their_elements_and_numbers() {
        let added = || vec![Field::new("x", DataType::Int64, true), Field::new("n", DataType::Int32, true)];
        let spec = |outer| Spec { collection: 0, keep: vec![1], outer, ordinality: true };
        let given = run(spec(false), lists(), None, added()).pop().unwrap();
        assert_eq!(integers(given.rows.column(0)), [Some(0), Some(0), Some(0), Some(3)]);
        assert_eq!(integers(given.rows.column(1)), [Some(10), None, Some(11), Some(40)]);
        assert_eq!(given.rows.column(2).as_primitive::<Int32Type>().values(), &[1, 2, 3, 1]);
        let given = run(spec(true), lists().slice(1, 3), None, added()).pop().unwrap();
        assert_eq!(integers(given.rows.column(0)), [Some(0), Some(1), Some(2)]);
        assert_eq!(integers(given.rows.column(1)), [None, None, Some(40)]);
        assert_eq!(integers(given.rows.column(2)), [None, None, Some(1)]);
    }

    #[test]
    fn what_goes_and_what_comes_are_no_pairs() {
        let spec = Spec { collection: 0, keep: vec![1], outer: false, ordinality: false };
        let kinds = [ChangeKind::UpdateBefore, ChangeKind::Insert, ChangeKind::Insert, ChangeKind::UpdateAfter];
        let changes = Some(kinds.map(|kind| kind as i8).to_vec());
        let given = run(spec, lists(), changes, vec![Field::new("x", DataType::Int64, true)]).pop().unwrap();
        let (gone, new) = (ChangeKind::Delete as i8, ChangeKind::Insert as i8);
        assert_eq!(given.changes.unwrap().values(), &[gone, gone, gone, new]);
    }

    #[test]
    fn maps_give_keys_and_values_and_rows_their_fields() {
        let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        maps.keys().append_value("a");
        maps.values().append_value(1);
        maps.keys().append_value("b");
        maps.values().append_null();
        maps.append(true).unwrap();
        let spec = Spec { collection: 0, keep: vec![1], outer: false, ordinality: false };
        let added = vec![Field::new("k", DataType::Utf8, true), Field::new("v", DataType::Int64, true)];
        let given = run(spec.clone(), Arc::new(maps.finish()), None, added).pop().unwrap();
        assert_eq!(given.rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), Some("b")]);
        assert_eq!(integers(given.rows.column(2)), [Some(1), None]);

        let fields = Fields::from(vec![Field::new("a", DataType::Int64, true)]);
        let mut nulls = NullBufferBuilder::new(3);
        [true, false, true].into_iter().for_each(|valid| nulls.append(valid));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = StructArray::new(fields.clone(), vec![values], nulls.finish());
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        let offsets = OffsetBuffer::from_lengths([2, 1]);
        let list = arrow::array::ListArray::new(item, offsets, Arc::new(rows), None);
        let given = run(spec, Arc::new(list), None, vec![Field::new("a", DataType::Int64, true)]).pop().unwrap();
        assert_eq!(integers(given.rows.column(1)), [Some(1), None, Some(3)]);
    }

    #[test]
    fn long_arrays_leave_in_pieces() {
        let mut lists = ListBuilder::new(Int64Builder::new());
        lists.append_value((0..20_000).map(Some));
        let spec = Spec { collection: 0, keep: vec![1], outer: false, ordinality: false };
        let given = run(spec, Arc::new(lists.finish()), None, vec![Field::new("x", DataType::Int64, true)]);
        assert!(given.iter().all(|batch| batch.rows.num_rows() <= PIECE_ROWS), "{} batches", given.len());
        let elements: Vec<Option<i64>> = given.iter().flat_map(|batch| integers(batch.rows.column(1))).collect();
        assert!(elements == (0..20_000).map(Some).collect::<Vec<_>>(), "{} elements", elements.len());
    }
}
