//! Rows that have come for parts that are not in memory, in their order: first in memory, beyond a bound on the local
//! disk. They are worked off before the epoch ends, so they are in no checkpoint.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute;
use arrow::error::ArrowError;

use super::scratch::{Block, Scratch};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::in_flight::{to_batches, to_rows};
use crate::memory;

/// Bytes and rows that come together before they are sorted by part.
const SORT_BYTES: usize = 2 << 20;
const SORT_ROWS: usize = 1 << 16;

/// Rows of one part that came over one input.
pub(super) struct Slice {
    input: usize,
    rows: u64,
    place: Place,
}

enum Place {
    Memory(RecordBatch),
    Disk(Block),
}

/// Rows that are not sorted yet.
struct Unsorted {
    input: usize,
    rows: RecordBatch,
    /// The part of each row.
    parts: Vec<u16>,
}

/// See the module. A part is known by its first key group.
pub(super) struct Deferred {
    name: String,
    unsorted: Vec<Unsorted>,
    unsorted_bytes: usize,
    unsorted_rows: usize,
    queues: BTreeMap<u16, VecDeque<Slice>>,
    /// Rows of each part, sorted or not.
    rows: BTreeMap<u16, u64>,
    /// Of sorted rows.
    memory_bytes: usize,
    scratch: Scratch,
}

impl Deferred {
    pub(super) fn new(name: &str, scratch: &Path) -> Self {
        Deferred {
            name: name.to_owned(),
            unsorted: Vec::new(),
            unsorted_bytes: 0,
            unsorted_rows: 0,
            queues: BTreeMap::new(),
            rows: BTreeMap::new(),
            memory_bytes: 0,
            scratch: Scratch::new(name, scratch),
        }
    }

    /// Whether no rows wait.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether rows wait for the part.
    pub(super) fn waits(&self, part: u16) -> bool {
        self.rows.contains_key(&part)
    }

    /// The part for which most rows wait.
    pub(super) fn longest(&self) -> Option<u16> {
        self.rows.iter().max_by_key(|(_, rows)| **rows).map(|(part, _)| *part)
    }

    /// Bytes of memory that the rows take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes + self.unsorted_bytes
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    /// Puts rows off; `parts` has the part of each.
    pub(super) fn put_off(&mut self, input: usize, batch: &StreamBatch, parts: Vec<u16>) -> Result<(), EngineError> {
        let rows = to_rows(batch).map_err(|e| EngineError::arrow(&self.name, &e))?;
        for part in &parts {
            *self.rows.entry(*part).or_default() += 1;
        }
        self.unsorted_bytes += memory::of_rows(&rows);
        self.unsorted_rows += rows.num_rows();
        self.unsorted.push(Unsorted { input, rows, parts });
        if self.unsorted_bytes >= SORT_BYTES || self.unsorted_rows >= SORT_ROWS {
            self.sort()?;
        }
        Ok(())
    }

    /// What waits for a part, in order; from here on nothing does.
    pub(super) fn take(&mut self, part: u16) -> Result<VecDeque<Slice>, EngineError> {
        self.sort()?;
        self.rows.remove(&part);
        let slices = self.queues.remove(&part).unwrap_or_default();
        for slice in &slices {
            if let Place::Memory(rows) = &slice.place {
                self.memory_bytes -= memory::of_rows(rows).min(self.memory_bytes);
            }
        }
        Ok(slices)
    }

    /// The rows of a slice, and over which input they came.
    pub(super) async fn read(&self, slice: Slice) -> Result<(usize, Vec<StreamBatch>), EngineError> {
        let rows = match slice.place {
            Place::Memory(rows) => rows,
            Place::Disk(block) => self.scratch.read(block).await?,
        };
        if rows.num_rows() as u64 != slice.rows {
            let (found, name) = (rows.num_rows(), &self.name);
            return Err(EngineError::Bug(format!("{name}: {found} of {} rows that were put off", slice.rows)));
        }
        let batches = to_batches(&rows).map_err(|e| EngineError::arrow(&self.name, &e))?;
        Ok((slice.input, batches))
    }

    /// Moves all that is in memory to the disk.
    pub(super) async fn move_to_disk(&mut self) -> Result<(), EngineError> {
        self.sort()?;
        let slices = || self.queues.values().flatten();
        let batches = slices().filter_map(|slice| match &slice.place {
            Place::Memory(rows) => Some(rows.clone()),
            Place::Disk(_) => None,
        });
        let batches: Vec<RecordBatch> = batches.collect();
        let blocks = self.scratch.write(batches).await?;
        let in_memory = self.queues.values_mut().flatten().filter(|slice| matches!(slice.place, Place::Memory(_)));
        in_memory.zip(blocks).for_each(|(slice, block)| slice.place = Place::Disk(block));
        self.memory_bytes = 0;
        Ok(())
    }

    /// Nothing waits and nothing is being worked off: gives the disk back.
    pub(super) fn clear(&mut self) -> Result<(), EngineError> {
        assert!(self.is_empty(), "rows that wait are worked off first");
        if self.scratch.bytes() > 0 { self.scratch.clear() } else { Ok(()) }
    }

    fn sort(&mut self) -> Result<(), EngineError> {
        let unsorted = std::mem::take(&mut self.unsorted);
        (self.unsorted_bytes, self.unsorted_rows) = (0, 0);
        let inputs = unsorted.iter().map(|unsorted| unsorted.input + 1).max().unwrap_or(0);
        for input in 0..inputs {
            let of_input: Vec<&Unsorted> = unsorted.iter().filter(|unsorted| unsorted.input == input).collect();
            if !of_input.is_empty() {
                self.sort_input(input, &of_input).map_err(|e| EngineError::arrow(&self.name, &e))?;
            }
        }
        Ok(())
    }

    fn sort_input(&mut self, input: usize, unsorted: &[&Unsorted]) -> Result<(), ArrowError> {
        let schema = unsorted[0].rows.schema();
        let all = compute::concat_batches(&schema, unsorted.iter().map(|unsorted| &unsorted.rows))?;
        let parts: Vec<u16> = unsorted.iter().flat_map(|unsorted| unsorted.parts.iter().copied()).collect();
        let mut order: Vec<u32> = (0..parts.len() as u32).collect();
        // Stable: the rows of a part stay in order.
        order.sort_by_key(|row| parts[*row as usize]);
        let sorted = compute::take_record_batch(&all, &UInt32Array::from(order.clone()))?;
        let mut from = 0;
        for run in order.chunk_by(|left, right| parts[*left as usize] == parts[*right as usize]) {
            let rows = sorted.slice(from, run.len());
            from += run.len();
            self.memory_bytes += memory::of_rows(&rows);
            let slice = Slice { input, rows: run.len() as u64, place: Place::Memory(rows) };
            self.queues.entry(parts[run[0] as usize]).or_default().push_back(slice);
        }
        Ok(())
    }
}
