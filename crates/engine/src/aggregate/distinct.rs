//! DISTINCT: which values each group has seen, and how often. Calls over the same argument share one table, with a
//! number for each call, since they may differ in their FILTER. What comes first and what goes last is handed to
//! the call's accumulator.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;

use super::accumulator::Collection;
use super::slots::{SlotIndex, put};
use crate::memory;

const NONE: u32 = u32::MAX;

/// Neighbours of a value in the list of its group.
#[derive(Clone, Copy)]
struct Links {
    group: u32,
    before: u32,
    after: u32,
    /// Changed since the last checkpoint.
    changed: bool,
}

/// Rows of a batch in which a value comes first or goes last for a call.
#[derive(Default)]
pub(super) struct Turns {
    /// Positions in the batch.
    pub(super) rows: Vec<u32>,
    /// 1: comes, -1: goes. As many as rows.
    pub(super) signs: Vec<i8>,
}

/// See the module.
pub(super) struct DistinctTable {
    of: DataType,
    calls: usize,
    /// Values may be taken away, so how often they came counts.
    counting: bool,
    index: SlotIndex,
    /// By value and call: how often it is there; where rows only come, 1 for ever.
    counts: Vec<i64>,
    links: Vec<Links>,
    /// First value of each group.
    first: Vec<u32>,
    changed: Vec<u32>,
}

impl DistinctTable {
    /// For values of one type that can be told apart, and so many calls. `counting`: values may be taken away.
    pub(super) fn new(of: &DataType, calls: usize, counting: bool) -> Result<Self> {
        let index = SlotIndex::new(std::slice::from_ref(of))?;
        let (counts, links) = (Vec::new(), Vec::new());
        let (first, changed) = (Vec::new(), Vec::new());
        Ok(DistinctTable { of: of.clone(), calls, counting, index, counts, links, first, changed })
    }

    /// Makes room for groups.
    pub(super) fn grow(&mut self, groups: usize) {
        self.first.resize(groups.max(self.first.len()), NONE);
    }

    /// Takes the values of a batch in. `filters`: for each call the rows that it sees; absent: all. Gives for each
    /// call the rows in which it must be told.
    pub(super) fn update(
        &mut self,
        values: &ArrayRef,
        groups: &[u32],
        signs: Option<&[i8]>,
        filters: &[Option<&BooleanBuffer>],
    ) -> Result<Vec<Turns>> {
        let mut turns: Vec<Turns> = filters.iter().map(|_| Turns::default()).collect();
        let nulls = values.logical_nulls();
        let wanted = |row: usize| {
            let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            let seen = || filters.iter().any(|filter| filter.is_none_or(|filter| filter.value(row)));
            (valid && seen()).then(|| groups[row])
        };
        let (calls, counting) = (self.calls, self.counting);
        let (counts, links, first, changed) = (&mut self.counts, &mut self.links, &mut self.first, &mut self.changed);
        self.index.intern(std::slice::from_ref(values), values.len(), wanted, |row, slot, new| {
            let slot_at = slot as usize;
            if new {
                insert(links, first, slot, groups[row]);
                counts.resize(counts.len().max((slot_at + 1) * calls), 0);
            }
            let sign = signs.map_or(1, |signs| signs[row]);
            let counts = &mut counts[slot_at * calls..(slot_at + 1) * calls];
            let mut touched = new;
            for ((count, filter), turns) in counts.iter_mut().zip(filters).zip(&mut turns) {
                if filter.is_some_and(|filter| !filter.value(row)) {
                    continue;
                }
                let before = *count;
                if !counting {
                    if before > 0 {
                        continue;
                    }
                    *count = 1;
                } else {
                    *count += i64::from(sign);
                }
                touched = true;
                if (before > 0) != (*count > 0) {
                    turns.rows.push(row as u32);
                    turns.signs.push(sign);
                }
            }
            let links = &mut links[slot_at];
            if touched && !links.changed {
                links.changed = true;
                changed.push(slot);
            }
        })?;
        Ok(turns)
    }

    /// Forgets the values of a group.
    pub(super) fn clear(&mut self, group: u32) {
        let mut slot = self.first[group as usize];
        while slot != NONE {
            self.counts[slot as usize * self.calls..][..self.calls].fill(0);
            let links = &mut self.links[slot as usize];
            if !links.changed {
                links.changed = true;
                self.changed.push(slot);
            }
            slot = links.after;
        }
    }

    fn is_gone(&self, slot: u32) -> bool {
        self.counts[slot as usize * self.calls..][..self.calls].iter().all(|count| *count == 0)
    }

    /// Frees a value that is gone.
    fn remove(&mut self, slot: u32) {
        let Links { group, before, after, .. } = self.links[slot as usize];
        match before {
            NONE => self.first[group as usize] = after,
            before => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        self.index.remove(slot);
    }

    fn all(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.index.len());
        for first in &self.first {
            let mut slot = *first;
            while slot != NONE {
                slots.push(slot);
                slot = self.links[slot as usize].after;
            }
        }
        slots
    }
}

/// Puts a new value at the head of its group's list.
fn insert(links: &mut Vec<Links>, first: &mut [u32], slot: u32, group: u32) {
    let after = std::mem::replace(&mut first[group as usize], slot);
    if after != NONE {
        links[after as usize].before = slot;
    }
    put(links, slot, Links { group, before: NONE, after, changed: false });
}

impl Collection for DistinctTable {
    fn bytes(&self) -> usize {
        self.index.bytes()
            + memory::of_vec(&self.counts)
            + memory::of_vec(&self.links)
            + memory::of_vec(&self.first)
            + memory::of_vec(&self.changed)
    }

    fn types(&self) -> Vec<DataType> {
        std::iter::once(self.of.clone()).chain(std::iter::repeat_n(DataType::Int64, self.calls)).collect()
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn capture(&mut self, whole: bool, alive: &dyn Fn(u32) -> bool) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let changed = std::mem::take(&mut self.changed);
        let mut written = if whole { self.all() } else { changed.clone() };
        written.retain(|slot| alive(self.links[*slot as usize].group) && !(whole && self.is_gone(*slot)));
        let mut columns = match written.is_empty() {
            true => vec![new_empty_array(&self.of)],
            false => self.index.columns(&written)?,
        };
        for call in 0..self.calls {
            let counts = written.iter().map(|slot| self.counts[*slot as usize * self.calls + call]);
            columns.push(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let groups = written.iter().map(|slot| self.links[*slot as usize].group).collect();
        // Only now: until it is written that a value is gone, its slot must tell which.
        for slot in changed {
            self.links[slot as usize].changed = false;
            if self.is_gone(slot) {
                self.remove(slot);
            }
        }
        Ok((groups, columns))
    }

    fn restore(&mut self, groups: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let mut slots = Vec::with_capacity(groups.len());
        let (links, first) = (&mut self.links, &mut self.first);
        self.index.intern(
            &columns[..1],
            groups.len(),
            |row| Some(groups[row]),
            |row, slot, new| {
                if new {
                    insert(links, first, slot, groups[row]);
                }
                slots.push(slot);
            },
        )?;
        self.counts.resize(self.index.slots() * self.calls, 0);
        for (call, column) in columns[1..].iter().enumerate() {
            let counts = column.as_primitive::<Int64Type>();
            for (slot, count) in slots.iter().zip(counts.values()) {
                self.counts[*slot as usize * self.calls + call] = *count;
            }
        }
        for slot in slots {
            // Those that went with their group go when its changes are forgotten.
            if self.is_gone(slot) && !self.links[slot as usize].changed {
                self.remove(slot);
            }
        }
        Ok(())
    }
}
