//! What an aggregate remembers of each group, for aggregations whose results are asked for again and again.
//! Groups are slots: small numbers that are used again when a group is gone.

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute;
use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};

/// The rows of a batch that an aggregate is to see.
pub(super) struct Changes<'a> {
    /// Group of each row.
    pub(super) groups: &'a [u32],
    /// 1 where the row is added, -1 where it is taken away. Absent: all are added.
    pub(super) signs: Option<&'a [i8]>,
    /// Only these rows; absent: all.
    pub(super) only: Option<&'a BooleanBuffer>,
}

impl Changes<'_> {
    /// Calls `each` with position, group and sign of the rows, in order; rows that are null are left out.
    pub(super) fn for_each(&self, nulls: Option<&NullBuffer>, mut each: impl FnMut(usize, usize, i64)) {
        let valid = nulls.filter(|nulls| nulls.null_count() > 0).map(NullBuffer::inner);
        let both;
        let selected = match (self.only, valid) {
            (Some(only), Some(valid)) => {
                both = only & valid;
                Some(&both)
            }
            (one, other) => one.or(other),
        };
        match (selected, self.signs) {
            (None, None) => self.groups.iter().enumerate().for_each(|(row, group)| each(row, *group as usize, 1)),
            (None, Some(signs)) => {
                let rows = self.groups.iter().zip(signs).enumerate();
                rows.for_each(|(row, (group, sign))| each(row, *group as usize, i64::from(*sign)));
            }
            (Some(selected), None) => {
                selected.set_indices().for_each(|row| each(row, self.groups[row] as usize, 1));
            }
            (Some(selected), Some(signs)) => {
                selected.set_indices().for_each(|row| each(row, self.groups[row] as usize, i64::from(signs[row])));
            }
        }
    }
}

/// One aggregate over all groups.
pub(super) trait Accumulator: Send {
    /// Bytes of memory that it takes, about.
    fn bytes(&self) -> usize;

    /// So many groups are about to come.
    fn reserve(&mut self, _more: usize) {}

    /// Makes room, so that there are so many groups at least. New ones are empty.
    fn grow(&mut self, groups: usize);

    /// Adds and takes away rows.
    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()>;

    /// The results of groups, which stay as they are.
    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef>;

    /// Empties a group.
    fn reset(&mut self, group: u32);

    /// Types of the columns of [`Accumulator::state`].
    fn state_types(&self) -> Vec<DataType>;

    /// What is stored of groups beside their keys, one row each.
    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Takes back what is stored of groups; they are empty.
    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// What is sent of groups, as part of theirs, of an aggregate that has
    /// [`AggregateForm::partial_types`](mainstem_plan::aggregate::AggregateForm::partial_types).
    fn partial(&mut self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        internal_err!("an aggregate that needs all rows in one place was asked for a part")
    }

    /// The same for each row of a batch alone, without keeping it. `only`: what is sent of other rows is nothing. None:
    /// it has no quicker way than by groups of one row each.
    fn partial_of_rows(
        &self,
        _args: &[ArrayRef],
        _only: Option<&BooleanBuffer>,
        _rows: usize,
    ) -> Option<Result<Vec<ArrayRef>>> {
        None
    }

    /// Takes in what [`Accumulator::partial`] gave.
    fn merge(&mut self, _partial: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        internal_err!("an aggregate that needs all rows in one place was given a part")
    }

    /// What it keeps of each group in any number of rows, if it does.
    fn collection(&mut self) -> Option<&mut dyn Collection> {
        None
    }
}

/// Rows that are kept of each group, stored in a table of their own. A row that is stored again replaces the one
/// before it.
pub(super) trait Collection {
    /// Bytes of memory that it takes, about.
    fn bytes(&self) -> usize;

    /// Types of the columns.
    fn types(&self) -> Vec<DataType>;

    /// Number of rows.
    fn len(&self) -> usize;

    /// The group of each row and its columns: all rows, or those that have changed since the last call, with
    /// rows that say what is gone. Leaves out groups that are not alive.
    fn capture(&mut self, whole: bool, alive: &dyn Fn(u32) -> bool) -> Result<(Vec<u32>, Vec<ArrayRef>)>;

    /// Takes rows back, oldest first.
    fn restore(&mut self, groups: &[u32], columns: &[ArrayRef]) -> Result<()>;
}

/// The values, null where they are not to be seen.
pub(super) fn only_selected(values: &ArrayRef, only: Option<&BooleanBuffer>) -> Result<ArrayRef> {
    Ok(match only {
        None => values.clone(),
        Some(only) => compute::nullif(values, &BooleanArray::new(!only, None))?,
    })
}

/// The rows at the given positions.
pub(super) fn take(columns: &[ArrayRef], positions: &UInt32Array) -> Result<Vec<ArrayRef>> {
    Ok(columns.iter().map(|column| compute::take(column, positions, None)).collect::<Result<Vec<_>, _>>()?)
}
