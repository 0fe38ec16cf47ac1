//! Merging of chosen partial aggregates: rows of any sources, each into a group that the caller has chosen. What the
//! incremental merging of windows that share slices is made of.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute;
use arrow::error::ArrowError;

use super::aggregation::{Aggregation, Groups};
use crate::error::EngineError;

/// Which source, and which row of it.
pub(super) type Place = (usize, usize);

/// What is to be merged with what.
#[derive(Default)]
pub(super) struct Plan {
    places: Vec<Place>,
    groups: Vec<usize>,
    /// Number of groups.
    pub(super) total: usize,
}

impl Plan {
    /// Adds a row to a group. Rows of a group are merged in the order in which they are added.
    pub(super) fn add(&mut self, place: Place, group: usize) {
        self.places.push(place);
        self.groups.push(group);
    }

    /// Merges. `sources`: state columns by source.
    pub(super) fn merge(
        mut self,
        aggregation: &Aggregation,
        sources: &[impl AsRef<[ArrayRef]>],
    ) -> Result<Groups, EngineError> {
        let mut groups = aggregation.groups()?;
        if self.places.is_empty() {
            return Ok(groups);
        }
        let used = self.keep_used(sources.len());
        let width = sources[used[0]].as_ref().len();
        let column = |column: usize| {
            let columns: Vec<&dyn Array> = used.iter().map(|s| sources[*s].as_ref()[column].as_ref()).collect();
            self.gather(&columns)
        };
        let states = (0..width).map(column).collect::<Result<Vec<_>, _>>();
        let states = states.map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        groups.merge_states(aggregation, &states, &self.groups, self.total)?;
        Ok(groups)
    }

    /// Numbers the sources that are used anew, from 0: gathering costs something for each source, and most are of
    /// slices whose keys have all come again since.
    fn keep_used(&mut self, sources: usize) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let mut numbers = vec![NONE; sources];
        let mut used = Vec::new();
        for (source, _) in &mut self.places {
            let number = &mut numbers[*source];
            if *number == NONE {
                *number = used.len();
                used.push(*source);
            }
            *source = *number;
        }
        used
    }

    fn gather(&self, columns: &[&dyn Array]) -> Result<ArrayRef, ArrowError> {
        match columns {
            [only] => {
                let rows = UInt32Array::from_iter_values(self.places.iter().map(|(_, row)| *row as u32));
                compute::take(*only, &rows, None)
            }
            many => compute::interleave(many, &self.places),
        }
    }
}
