//! Rows that an operator keeps, as the batches in which they came: nothing is converted, a row is an id. Batches
//! of which few rows are left are rewritten, so that what is held stays within about twice of what is alive.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, make_comparator, new_empty_array, new_null_array};
use arrow::compute::{SortOptions, interleave, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::memory;

/// Names a row of a store while it is kept.
pub(crate) type RowId = u32;

/// Stands for the id of a row that is not kept.
const NOBODY: RowId = RowId::MAX;
/// Rows of a rewritten chunk.
const CHUNK_ROWS: usize = 8192;
/// Rows that may be dead beside as many as are alive.
const DEAD_ROWS_MAX: usize = 1 << 15;
/// Chunks that there may be beside one for each so many rows.
const CHUNKS_MIN: usize = 64;
const CHUNK_ROWS_MIN: usize = 512;

/// Where a row lies: number of the chunk, position in it.
pub(crate) type Place = (u32, u32);

/// See the module.
pub(crate) struct RowStore {
    schema: SchemaRef,
    chunks: Vec<Option<Chunk>>,
    free_chunks: Vec<u32>,
    places: Vec<Place>,
    free_ids: Vec<RowId>,
    live: usize,
    held: usize,
    /// What the rows of all chunks take.
    held_bytes: usize,
}

struct Chunk {
    rows: RecordBatch,
    /// What the rows take.
    bytes: usize,
    /// The id of each row.
    ids: Vec<RowId>,
    live: usize,
    /// Whether its rows have come since the last checkpoint.
    is_fresh: bool,
}

impl RowStore {
    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.held_bytes
            + self.held * size_of::<RowId>()
            + memory::of_vec(&self.chunks)
            + memory::of_vec(&self.places)
            + memory::of_vec(&self.free_ids)
    }

    /// An empty store of rows with these columns.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        RowStore {
            schema,
            chunks: Vec::new(),
            free_chunks: Vec::new(),
            places: Vec::new(),
            free_ids: Vec::new(),
            live: 0,
            held: 0,
            held_bytes: 0,
        }
    }

    /// Number of rows that are kept.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Adds rows of which none is kept yet; gives the number of their chunk. `is_fresh`: the next checkpoint must
    /// write them.
    pub(crate) fn add(&mut self, rows: RecordBatch, is_fresh: bool) -> u32 {
        let count = rows.num_rows();
        let bytes = memory::of_rows(&rows);
        self.held += count;
        self.held_bytes += bytes;
        let chunk = Chunk { rows, bytes, ids: vec![NOBODY; count], live: 0, is_fresh };
        match self.free_chunks.pop() {
            Some(free) => {
                self.chunks[free as usize] = Some(chunk);
                free
            }
            None => {
                self.chunks.push(Some(chunk));
                self.chunks.len() as u32 - 1
            }
        }
    }

    /// Keeps a row that was added.
    pub(crate) fn keep(&mut self, place: Place) -> RowId {
        let id = match self.free_ids.pop() {
            Some(id) => {
                self.places[id as usize] = place;
                id
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1
            }
        };
        let chunk = self.chunks[place.0 as usize].as_mut().expect("places are those of chunks that are there");
        chunk.ids[place.1 as usize] = id;
        chunk.live += 1;
        self.live += 1;
        id
    }

    /// Lets go of a row that is kept.
    pub(crate) fn release(&mut self, id: RowId) {
        let (number, row) = self.places[id as usize];
        let slot = &mut self.chunks[number as usize];
        let chunk = slot.as_mut().expect("a kept row holds its chunk");
        debug_assert_eq!(chunk.ids[row as usize], id);
        chunk.ids[row as usize] = NOBODY;
        chunk.live -= 1;
        self.live -= 1;
        self.free_ids.push(id);
        if chunk.live == 0 {
            self.held -= chunk.ids.len();
            self.held_bytes -= chunk.bytes;
            *slot = None;
            self.free_chunks.push(number);
        }
    }

    /// Ends the work on a chunk that was added: of few rows only those are held, of none nothing.
    pub(crate) fn settle(&mut self, number: u32) -> Result<(), ArrowError> {
        let Some(chunk) = self.chunks[number as usize].as_ref() else { return Ok(()) };
        if chunk.live == 0 {
            self.held -= chunk.ids.len();
            self.held_bytes -= chunk.bytes;
            self.chunks[number as usize] = None;
            self.free_chunks.push(number);
        } else if chunk.live * 2 < chunk.ids.len() {
            self.rewrite(&[number])?;
        }
        let chunks = self.chunks.len() - self.free_chunks.len();
        if self.held > 2 * self.live + DEAD_ROWS_MAX || chunks > CHUNKS_MIN + self.live / CHUNK_ROWS_MIN {
            self.compact()?;
        }
        Ok(())
    }

    fn chunk(&self, number: u32) -> &Chunk {
        self.chunks[number as usize].as_ref().expect("a kept row holds its chunk")
    }

    /// Rewrites the chunks that are small or hold few rows.
    fn compact(&mut self) -> Result<(), ArrowError> {
        for is_fresh in [false, true] {
            let is_sparse = |chunk: &Chunk| chunk.live * 4 < chunk.ids.len() * 3 || chunk.live < CHUNK_ROWS_MIN;
            let numbered = self.chunks.iter().enumerate();
            let sparse = numbered.filter_map(|(number, chunk)| Some((number as u32, chunk.as_ref()?)));
            let sparse = sparse.filter(|(_, chunk)| chunk.is_fresh == is_fresh && is_sparse(chunk));
            let sparse: Vec<u32> = sparse.map(|(number, _)| number).collect();
            let mut begin = 0;
            let mut rows = 0;
            for end in 0..sparse.len() {
                rows += self.chunk(sparse[end]).live;
                if rows >= CHUNK_ROWS || end + 1 == sparse.len() {
                    self.rewrite(&sparse[begin..=end])?;
                    (begin, rows) = (end + 1, 0);
                }
            }
        }
        Ok(())
    }

    /// One new chunk out of the kept rows of several, which are equally fresh.
    fn rewrite(&mut self, numbers: &[u32]) -> Result<(), ArrowError> {
        let mut ids = Vec::new();
        for number in numbers {
            ids.extend(self.chunk(*number).ids.iter().copied().filter(|id| *id != NOBODY));
        }
        let rows = match numbers {
            [one] => {
                let chunk = self.chunk(*one);
                let kept = (0..chunk.ids.len() as u32).filter(|row| chunk.ids[*row as usize] != NOBODY);
                take_record_batch(&chunk.rows, &UInt32Array::from_iter_values(kept))?
            }
            _ => self.gather(&ids)?,
        };
        let is_fresh = self.chunk(numbers[0]).is_fresh;
        for number in numbers {
            let (rows, bytes) = (self.chunk(*number).ids.len(), self.chunk(*number).bytes);
            self.held -= rows;
            self.held_bytes -= bytes;
            self.chunks[*number as usize] = None;
            self.free_chunks.push(*number);
        }
        let live = ids.len();
        let number = self.add(rows, is_fresh);
        for (row, id) in ids.iter().enumerate() {
            self.places[*id as usize] = (number, row as u32);
        }
        let chunk = self.chunks[number as usize].as_mut().expect("just added");
        (chunk.ids, chunk.live) = (ids, live);
        Ok(())
    }

    /// Kept rows, in the given order.
    pub(crate) fn gather(&self, ids: &[RowId]) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.columns(&columns, ids)?;
        RecordBatch::try_new(self.schema.clone(), columns)
    }

    /// Columns of kept rows, in the given order.
    pub(crate) fn columns(&self, columns: &[usize], ids: &[RowId]) -> Result<Vec<ArrayRef>, ArrowError> {
        let (numbers, places) = self.places_among(ids.iter().copied());
        if numbers.is_empty() {
            let empty = |column: &usize| new_empty_array(self.schema.field(*column).data_type());
            return Ok(columns.iter().map(empty).collect());
        }
        columns.iter().map(|column| interleave(&self.arrays(*column, &numbers), &places)).collect()
    }

    /// A column of kept rows, in the given order; NULL where there is no row.
    pub(crate) fn optional_column(&self, column: usize, ids: &[Option<RowId>]) -> Result<ArrayRef, ArrowError> {
        let (numbers, found) = self.places_among(ids.iter().flatten().copied());
        let null = new_null_array(self.schema.field(column).data_type(), 1);
        let mut arrays = self.arrays(column, &numbers);
        arrays.push(&null);
        let nowhere = (numbers.len(), 0);
        let mut found = found.into_iter();
        let places: Vec<_> = ids.iter().map(|id| id.and_then(|_| found.next()).unwrap_or(nowhere)).collect();
        interleave(&arrays, &places)
    }

    /// The chunks in which kept rows lie, and the place of each row among these.
    fn places_among(&self, ids: impl Iterator<Item = RowId>) -> (Vec<u32>, Vec<(usize, usize)>) {
        let mut numbers: Vec<u32> = Vec::new();
        let mut seen: Vec<u32> = vec![NOBODY; self.chunks.len()];
        let mut places = Vec::with_capacity(ids.size_hint().0);
        for id in ids {
            let (number, row) = self.places[id as usize];
            let nth = &mut seen[number as usize];
            if *nth == NOBODY {
                *nth = numbers.len() as u32;
                numbers.push(number);
            }
            places.push((*nth as usize, row as usize));
        }
        (numbers, places)
    }

    fn arrays(&self, column: usize, numbers: &[u32]) -> Vec<&dyn Array> {
        numbers.iter().map(|number| self.chunk(*number).rows.column(column).as_ref()).collect()
    }

    /// Where a kept row lies now.
    pub(crate) fn place(&self, id: RowId) -> Place {
        self.places[id as usize]
    }

    /// The order of two rows by all of their columns, one after the other; the same on every machine.
    pub(crate) fn compare(&self, left: Place, right: Place) -> Result<Ordering, ArrowError> {
        let (left_rows, right_rows) = (&self.chunk(left.0).rows, &self.chunk(right.0).rows);
        for (left_column, right_column) in left_rows.columns().iter().zip(right_rows.columns()) {
            let compare = make_comparator(left_column, right_column, SortOptions::default())?;
            let order = compare(left.1 as usize, right.1 as usize);
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }

    /// Kept rows: all of them, or only those that no checkpoint has written. Afterwards none is fresh.
    pub(crate) fn checkpoint(&mut self, whole: bool) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::new();
        for chunk in self.chunks.iter_mut().flatten() {
            if !whole && !chunk.is_fresh {
                continue;
            }
            chunk.is_fresh = false;
            if chunk.live == chunk.ids.len() {
                batches.push(chunk.rows.clone());
                continue;
            }
            let kept = (0..chunk.ids.len() as u32).filter(|row| chunk.ids[*row as usize] != NOBODY);
            batches.push(take_record_batch(&chunk.rows, &UInt32Array::from_iter_values(kept))?);
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn what_is_held_is_near_to_what_is_kept() {
        let mut store = RowStore::new(batch(0..0).schema());
        let mut kept = std::collections::VecDeque::new();
        for round in 0..3_000_i64 {
            // Sometimes a few rows, sometimes many; of some batches little is kept.
            let rows = if round % 3 == 0 { 300 } else { 7 };
            let chunk = store.add(batch(round * 1_000..round * 1_000 + rows), true);
            for row in 0..rows {
                if row % (round % 5 + 1) == 0 {
                    kept.push_back((store.keep((chunk, row as u32)), round * 1_000 + row));
                }
            }
            while kept.len() > 20_000 {
                let position = (round as usize * 7) % kept.len();
                store.release(kept.swap_remove_back(position).unwrap().0);
            }
            store.settle(chunk).unwrap();
            if round % 100 == 0 {
                let fresh: usize = store.checkpoint(false).unwrap().iter().map(RecordBatch::num_rows).sum();
                assert!(fresh <= store.len());
            }
        }
        assert_eq!(store.len(), kept.len());
        assert!(store.held <= 2 * store.len() + DEAD_ROWS_MAX, "{} of {}", store.len(), store.held);
        assert!(store.chunks.len() - store.free_chunks.len() <= CHUNKS_MIN + store.len() / CHUNK_ROWS_MIN);
        let ids: Vec<RowId> = kept.iter().map(|(id, _)| *id).collect();
        let rows = store.gather(&ids).unwrap();
        let numbers = rows.column(0).as_primitive::<Int64Type>().values().iter();
        assert!(numbers.eq(kept.iter().map(|(_, number)| number)));
        let all: usize = store.checkpoint(true).unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(all, kept.len());
        assert!(store.checkpoint(false).unwrap().is_empty());
    }
}
