//! The values of each group in order, with how often each is there. A value that is taken away before it has come
//! (changes of several origins) counts negatively until it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;

use super::accumulator::{Accumulator, Changes, Collection};
use super::row_codec::RowCodec;
use crate::memory;

type GroupRow = (u32, Box<[u8]>);

/// See the module.
pub(super) struct Multiset {
    codec: RowCodec,
    /// Never 0.
    counts: BTreeMap<GroupRow, i64>,
    /// What has changed since the last checkpoint.
    changed: BTreeSet<GroupRow>,
}

impl Multiset {
    /// Without rows; all types can be put in order.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Multiset { codec: RowCodec::new(types)?, counts: BTreeMap::new(), changed: BTreeSet::new() })
    }

    /// What turns its rows into columns.
    pub(super) fn codec(&self) -> &RowCodec {
        &self.codec
    }

    /// Adds and takes away rows, leaving out those in which `nulls` is null.
    pub(super) fn update(
        &mut self,
        args: &[ArrayRef],
        nulls: Option<&arrow::buffer::NullBuffer>,
        changes: &Changes<'_>,
    ) -> Result<()> {
        let rows = self.codec.encode(args)?;
        changes.for_each(nulls, |row, group, sign| {
            let row: GroupRow = (group as u32, rows.row(row).as_ref().into());
            self.changed.insert(row.clone());
            self.add(row, sign);
        });
        Ok(())
    }

    fn add(&mut self, row: GroupRow, count: i64) {
        match self.counts.entry(row) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(count);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                *known.get_mut() += count;
                if *known.get() == 0 {
                    known.remove();
                }
            }
        }
    }

    /// The rows of a group that are there, in order, with their numbers.
    pub(super) fn rows(&self, group: u32) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        let rows = self.counts.range(of_group(group)).filter(|(_, count)| **count > 0);
        rows.map(|((_, row), count)| (row.as_ref(), *count))
    }

    /// Forgets the rows of a group.
    pub(super) fn clear(&mut self, group: u32) {
        let rows: Vec<GroupRow> = self.counts.range(of_group(group)).map(|(row, _)| row.clone()).collect();
        for row in rows {
            self.counts.remove(&row);
            self.changed.insert(row);
        }
    }
}

fn of_group(group: u32) -> (std::ops::Bound<GroupRow>, std::ops::Bound<GroupRow>) {
    use std::ops::Bound;
    let first = |group| (group, Box::default());
    let end = group.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(first(next)));
    (Bound::Included(first(group)), end)
}

impl Collection for Multiset {
    fn bytes(&self) -> usize {
        let of_row = |row: &GroupRow| row.1.len() + memory::SMALL;
        let counts = memory::of_tree(&self.counts) + memory::of_sampled(self.counts.len(), self.counts.keys(), of_row);
        let changed = self.changed.len();
        counts + memory::of_tree_len::<GroupRow, ()>(changed) + memory::of_sampled(changed, self.changed.iter(), of_row)
    }

    fn types(&self) -> Vec<DataType> {
        self.codec.types().iter().cloned().chain([DataType::Int64]).collect()
    }

    fn len(&self) -> usize {
        self.counts.len()
    }

    fn capture(&mut self, whole: bool, alive: &dyn Fn(u32) -> bool) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let changed = std::mem::take(&mut self.changed);
        let mut rows: Vec<(&GroupRow, i64)> = match whole {
            true => self.counts.iter().map(|(row, count)| (row, *count)).collect(),
            false => changed.iter().map(|row| (row, self.counts.get(row).copied().unwrap_or(0))).collect(),
        };
        rows.retain(|((group, _), _)| alive(*group));
        let mut columns = self.codec.decode(rows.iter().map(|((_, row), _)| Some(row.as_ref())))?;
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, count)| *count))));
        Ok((rows.iter().map(|((group, _), _)| *group).collect(), columns))
    }

    fn restore(&mut self, groups: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let (counts, values) = columns.split_last().expect("the count is the last column");
        let counts = counts.as_primitive::<Int64Type>();
        let rows = self.codec.encode(values)?;
        for ((group, row), count) in groups.iter().zip(&rows).zip(counts.values()) {
            let row = (*group, row.as_ref().into());
            match count {
                0 => self.counts.remove(&row),
                count => self.counts.insert(row, *count),
            };
        }
        Ok(())
    }
}

/// MIN and MAX of rows that may be taken away.
pub(super) struct ExtremeOfAll {
    values: Multiset,
    greatest: bool,
}

impl ExtremeOfAll {
    /// For values of a type that can be put in order.
    pub(super) fn new(of: &DataType, greatest: bool) -> Result<Self> {
        Ok(ExtremeOfAll { values: Multiset::new(std::slice::from_ref(of))?, greatest })
    }
}

impl Accumulator for ExtremeOfAll {
    fn bytes(&self) -> usize {
        self.values.bytes()
    }

    fn grow(&mut self, _groups: usize) {}

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        self.values.update(args, args[0].logical_nulls().as_ref(), changes)
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let best = |group: &u32| {
            let mut rows = self.values.rows(*group);
            let best = if self.greatest { rows.next_back() } else { rows.next() };
            best.map(|(row, _)| row)
        };
        Ok(self.values.codec().decode(groups.iter().map(best))?.remove(0))
    }

    fn reset(&mut self, group: u32) {
        self.values.clear(group);
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn state(&mut self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _groups: &[u32], _state: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    fn collection(&mut self) -> Option<&mut dyn Collection> {
        Some(&mut self.values)
    }
}
