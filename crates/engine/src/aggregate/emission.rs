//! From results before and after to changes: one for each group that was touched and is not as it was.

use arrow::array::{Array, ArrayRef, BooleanArray, Int8Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{self, kernels::cmp};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use mainstem_core::change::ChangeKind;

use super::accumulator::take;
use crate::element::StreamBatch;
use crate::memory;

/// Greatest number of rows of a batch that is given.
const EMIT_ROWS_MAX: usize = 8192;

/// Groups whose changes have not been given yet, in the order in which they were touched, with their results
/// before.
pub(super) struct Pending {
    slots: Vec<u32>,
    /// Whether the group's row stands downstream.
    present: Vec<bool>,
    /// Results before, by call: columns that together have as many rows as `slots`.
    before: Vec<Vec<ArrayRef>>,
}

impl Pending {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let before = self.before.iter().flatten().map(|column| memory::of_column(column.as_ref())).sum::<usize>();
        memory::of_vec(&self.slots) + memory::of_vec(&self.present) + before
    }

    /// No groups, for so many calls.
    pub(super) fn new(calls: usize) -> Self {
        Pending { slots: Vec::new(), present: Vec::new(), before: vec![Vec::new(); calls] }
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The groups.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The groups that were added after the first so many.
    pub(super) fn since(&self, first: usize) -> &[u32] {
        &self.slots[first..]
    }

    /// Adds a group.
    pub(super) fn push(&mut self, slot: u32, present: bool) {
        self.slots.push(slot);
        self.present.push(present);
    }

    /// Adds the results of the groups that were added last.
    pub(super) fn push_before(&mut self, values: Vec<ArrayRef>) {
        self.before.iter_mut().zip(values).for_each(|(before, values)| before.push(values));
    }

    /// All of it; nothing is pending afterwards.
    pub(super) fn take(&mut self) -> Pending {
        let calls = self.before.len();
        std::mem::replace(self, Pending::new(calls))
    }

    /// Gives the changes. `after`: results of the groups now; `ends`: whether their row stands from now on.
    pub(super) fn give(
        &self,
        schema: &SchemaRef,
        keys: &[ArrayRef],
        after: &[ArrayRef],
        ends: &[bool],
        with_before: bool,
        out: &mut Vec<StreamBatch>,
    ) -> Result<()> {
        let before = self.before.iter().zip(after).map(|(parts, after)| one(parts, after));
        let before = before.collect::<Result<Vec<ArrayRef>>>()?;
        let same = same(&before, after, self.len())?;
        let capacity = self.len() * (1 + usize::from(with_before));
        // Which of the results before (0) and after (1), of which group; and what is done with the row.
        let mut picks: Vec<(usize, usize)> = Vec::with_capacity(capacity);
        let mut groups: Vec<u32> = Vec::with_capacity(capacity);
        let mut kinds: Vec<i8> = Vec::with_capacity(capacity);
        let mut give = |which: usize, group: usize, kind: ChangeKind| {
            picks.push((which, group));
            groups.push(group as u32);
            kinds.push(kind as i8);
        };
        for (group, (was, is)) in self.present.iter().zip(ends).enumerate() {
            match (was, is) {
                (false, false) => {}
                (false, true) => give(1, group, ChangeKind::Insert),
                (true, false) => give(0, group, ChangeKind::Delete),
                (true, true) if same.value(group) => {}
                (true, true) => {
                    if with_before {
                        give(0, group, ChangeKind::UpdateBefore);
                    }
                    give(1, group, ChangeKind::UpdateAfter);
                }
            }
        }
        if kinds.is_empty() {
            return Ok(());
        }
        let mut columns = take(keys, &UInt32Array::from(groups))?;
        for (before, after) in before.iter().zip(after) {
            columns.push(compute::interleave(&[before.as_ref(), after.as_ref()], &picks)?);
        }
        let rows = RecordBatch::try_new(schema.clone(), columns)?;
        let kinds = Int8Array::from(kinds);
        for begin in (0..rows.num_rows()).step_by(EMIT_ROWS_MAX) {
            let length = EMIT_ROWS_MAX.min(rows.num_rows() - begin);
            out.push(StreamBatch::changelog(rows.slice(begin, length), kinds.slice(begin, length)));
        }
        Ok(())
    }
}

/// The parts as one column; `like` has its type.
fn one(parts: &[ArrayRef], like: &ArrayRef) -> Result<ArrayRef> {
    Ok(match parts {
        [] => new_empty_array(like.data_type()),
        [one] => one.clone(),
        many => compute::concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    })
}

/// For each group whether all of its results are as they were.
fn same(before: &[ArrayRef], after: &[ArrayRef], groups: usize) -> Result<BooleanBuffer> {
    let mut same = BooleanBuffer::new_set(groups);
    for (before, after) in before.iter().zip(after) {
        let equal = match before.data_type().is_nested() {
            false => cmp::not_distinct(before, after)?,
            // Kernels compare no nested values.
            true => (0..groups).map(|row| Some(before.slice(row, 1) == after.slice(row, 1))).collect::<BooleanArray>(),
        };
        same = &same & equal.values();
    }
    Ok(same)
}
