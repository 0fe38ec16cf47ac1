//! The rows of each group in the order in which they came. A row that is taken away is the oldest of those that are
//! equal to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;
use hashbrown::HashMap;

use super::accumulator::{Changes, Collection};
use super::row_codec::RowCodec;
use crate::memory;

/// Groups that are looked at to tell how much memory all take.
const SAMPLED_GROUPS: usize = 64;

/// A row and its place among all rows that ever came.
struct Arrived {
    place: i64,
    row: Box<[u8]>,
}

/// See the module.
pub(super) struct Arrivals {
    codec: RowCodec,
    /// By group, oldest first.
    groups: Vec<Vec<Arrived>>,
    len: usize,
    next_place: i64,
    /// Rows from this place on are in no checkpoint.
    first_new: i64,
    /// Groups that have such rows.
    appended: BTreeSet<u32>,
    /// Rows of checkpoints that are gone.
    removed: Vec<(u32, i64)>,
}

impl Arrivals {
    /// Without rows; all types can be told apart.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Arrivals {
            codec: RowCodec::new(types)?,
            groups: Vec::new(),
            len: 0,
            next_place: 0,
            first_new: 0,
            appended: BTreeSet::new(),
            removed: Vec::new(),
        })
    }

    /// What turns its rows into columns.
    pub(super) fn codec(&self) -> &RowCodec {
        &self.codec
    }

    /// Makes room for groups.
    pub(super) fn grow(&mut self, groups: usize) {
        self.groups.resize_with(groups.max(self.groups.len()), Vec::new);
    }

    /// Appends and takes away rows.
    pub(super) fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let rows = self.codec.encode(args)?;
        let mut leaving: BTreeMap<usize, HashMap<Box<[u8]>, usize>> = BTreeMap::new();
        changes.for_each(None, |row, group, sign| {
            let row: Box<[u8]> = rows.row(row).as_ref().into();
            if sign < 0 {
                *leaving.entry(group).or_default().entry(row).or_default() += 1;
                return;
            }
            self.groups[group].push(Arrived { place: self.next_place, row });
            self.next_place += 1;
            self.len += 1;
            self.appended.insert(group as u32);
        });
        // Which of several equal rows goes does not depend on what came after them: so all can go at once.
        for (group, mut leaving) in leaving {
            let before = self.groups[group].len();
            self.groups[group].retain(|arrived| {
                let Some(left) = leaving.get_mut(&arrived.row).filter(|left| **left > 0) else { return true };
                *left -= 1;
                if arrived.place < self.first_new {
                    self.removed.push((group as u32, arrived.place));
                }
                false
            });
            self.len -= before - self.groups[group].len();
        }
        Ok(())
    }

    /// The rows of a group, oldest first.
    pub(super) fn rows(&self, group: u32) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.groups[group as usize].iter().map(|arrived| arrived.row.as_ref())
    }

    /// Forgets the rows of a group.
    pub(super) fn clear(&mut self, group: u32) {
        let rows = std::mem::take(&mut self.groups[group as usize]);
        self.len -= rows.len();
        let stored = rows.iter().filter(|arrived| arrived.place < self.first_new);
        self.removed.extend(stored.map(|arrived| (group, arrived.place)));
    }
}

impl Collection for Arrivals {
    fn bytes(&self) -> usize {
        let groups = self.groups.len();
        let of_group = |group: &Vec<Arrived>| {
            let rows = group.iter().map(|arrived| arrived.row.len() + memory::SMALL).sum::<usize>();
            memory::of_vec(group) + rows
        };
        // Groups may differ by much: what the sample says of a row counts for all of them.
        let sampled = self.groups.iter().take(groups).step_by((groups / SAMPLED_GROUPS).max(1));
        let (rows, bytes) = sampled.fold((0, 0), |(rows, bytes), group| (rows + group.len(), bytes + of_group(group)));
        memory::of_vec(&self.groups) + memory::of_vec(&self.removed) + (bytes * self.len).checked_div(rows).unwrap_or(0)
    }

    fn types(&self) -> Vec<DataType> {
        [DataType::Int64, DataType::Boolean].into_iter().chain(self.codec.types().iter().cloned()).collect()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capture(&mut self, whole: bool, alive: &dyn Fn(u32) -> bool) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let first = if whole { 0 } else { self.first_new };
        let appended = std::mem::take(&mut self.appended);
        let removed = std::mem::take(&mut self.removed);
        let groups: Vec<u32> = if whole { (0..self.groups.len() as u32).collect() } else { Vec::from_iter(appended) };
        let mut rows: Vec<(u32, i64, Option<&[u8]>)> = Vec::new();
        if !whole {
            rows.extend(removed.iter().map(|(group, place)| (*group, *place, None)));
        }
        for group in groups {
            let of_group = &self.groups[group as usize];
            let begin = of_group.partition_point(|arrived| arrived.place < first);
            rows.extend(of_group[begin..].iter().map(|arrived| (group, arrived.place, Some(arrived.row.as_ref()))));
        }
        rows.retain(|(group, _, _)| alive(*group));
        self.first_new = self.next_place;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, place, _)| *place))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|(_, _, row)| Some(row.is_some())))),
        ];
        columns.extend(self.codec.decode(rows.iter().map(|(_, _, row)| *row))?);
        Ok((rows.iter().map(|(group, _, _)| *group).collect(), columns))
    }

    fn restore(&mut self, groups: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let (places, present) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_boolean());
        let rows = self.codec.encode(&columns[2..])?;
        for (position, group) in groups.iter().enumerate() {
            let of_group = &mut self.groups[*group as usize];
            let place = places.value(position);
            if present.value(position) {
                of_group.push(Arrived { place, row: rows.row(position).as_ref().into() });
                self.len += 1;
            } else if let Ok(known) = of_group.binary_search_by_key(&place, |arrived| arrived.place) {
                of_group.remove(known);
                self.len -= 1;
            }
            self.next_place = self.next_place.max(place + 1);
        }
        self.first_new = self.next_place;
        Ok(())
    }
}
