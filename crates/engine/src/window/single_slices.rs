//! Windows of one slice each: a group a key, whose results leave when the window closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::aggregation::{Aggregation, Groups};
use super::final_aggregate::{Piece, Slices, WindowOutput, emit};
use super::partial::{SliceKey, partial_batch};
use super::slicing::Span;
use crate::error::EngineError;
use crate::operator::{Collector, Release};

/// See the module.
pub(super) struct SingleSlices {
    aggregation: Arc<Aggregation>,
    output: WindowOutput,
    windows: BTreeMap<Span, Groups>,
}

impl SingleSlices {
    /// Without rows.
    pub(super) fn new(aggregation: Arc<Aggregation>, output: WindowOutput) -> Self {
        SingleSlices { aggregation, output, windows: BTreeMap::new() }
    }
}

impl Slices for SingleSlices {
    fn add(&mut self, key: SliceKey, partial: Piece) -> Result<(), EngineError> {
        let groups = match self.windows.entry(key.span) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(self.aggregation.groups()?),
        };
        groups.merge(&self.aggregation, &partial.to_batch())
    }

    fn restored(&mut self, _watermark: i64) {}

    fn close(&mut self, watermark: i64, out: &mut Collector) -> Result<Release, EngineError> {
        let Some(first) = self.windows.first_entry().filter(|first| first.key().is_closed_at(watermark)) else {
            return Ok(Release::Done);
        };
        let (window, groups) = first.remove_entry();
        let (mut columns, results) = groups.into_results(&self.aggregation)?;
        columns.extend(results);
        emit(&self.aggregation.name, &self.output, columns, &[window], out)?;
        Ok(Release::Continue)
    }

    fn whole(&mut self) -> Result<Vec<(RecordBatch, i64)>, EngineError> {
        let mut whole = Vec::with_capacity(self.windows.len());
        for (span, groups) in &mut self.windows {
            let key = SliceKey { span: *span, one_window: false };
            let rows = partial_batch(&self.aggregation, vec![(key, &mut *groups)])?;
            groups.merge(&self.aggregation, &rows)?;
            whole.push((rows, span.end));
        }
        Ok(whole)
    }

    fn rows(&self) -> usize {
        self.windows.values().map(Groups::len).sum()
    }

    fn bytes(&self) -> usize {
        self.windows.values().map(Groups::bytes).sum()
    }

    fn next_window(&self) -> Option<Span> {
        self.windows.first_key_value().map(|(window, _)| *window)
    }
}
