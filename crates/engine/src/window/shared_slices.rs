//! Windows that share slices. What has come for a slice is kept as rows until its last window has closed; windows are
//! merged of them by [`Block`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::aggregation::Aggregation;
use super::block::{Block, Closing};
use super::final_aggregate::{EMIT_ROWS_MAX, Piece, Slices, WindowOutput, emit};
use super::partial::{SliceKey, partial_batch};
use super::slicing::{Slicing, Span};
use crate::error::EngineError;
use crate::memory;
use crate::operator::{Collector, Release};

/// Rows of a slice from which on it is worth while to merge them before its first window closes.
const SETTLE_ROWS_MIN: usize = 1024;

/// See the module.
pub(super) struct SharedSlices {
    aggregation: Arc<Aggregation>,
    slicing: Slicing,
    output: WindowOutput,
    /// Windows are closed up to this watermark.
    closed: i64,
    slices: BTreeMap<Span, Partials>,
    /// What counts for one window only.
    alone: BTreeMap<Span, Partials>,
    /// Bytes of both.
    bytes: usize,
    /// Made of slices, for the windows that are being closed.
    block: Option<Block>,
}

/// What has come for a slice or a window, as rows of the partial schema.
#[derive(Default)]
struct Partials {
    parts: Vec<Piece>,
    rows: usize,
    /// Of memory, about.
    bytes: usize,
    /// Rows when they were merged last.
    settled_rows: usize,
}

impl Partials {
    fn add(&mut self, aggregation: &Aggregation, key: SliceKey, partial: Piece) -> Result<(), EngineError> {
        self.rows += partial.rows;
        self.bytes += partial.bytes;
        self.parts.push(partial);
        // Each key is there once for each subtask that sends, and again for each time that it was sent early.
        if self.parts.len() > 1 && self.rows > 2 * self.settled_rows.max(SETTLE_ROWS_MIN) {
            let mut groups = aggregation.groups()?;
            for part in std::mem::take(&mut self.parts) {
                groups.merge(aggregation, &part.to_batch())?;
            }
            self.rows = groups.len();
            self.settled_rows = groups.len();
            let merged = partial_batch(aggregation, vec![(key, &mut groups)])?;
            self.bytes = memory::of_rows(&merged);
            self.parts = vec![Piece::whole(merged)];
        }
        Ok(())
    }
}

impl SharedSlices {
    /// Without rows.
    pub(super) fn new(aggregation: Arc<Aggregation>, slicing: Slicing, output: WindowOutput) -> Self {
        SharedSlices {
            aggregation,
            slicing,
            output,
            closed: i64::MIN,
            slices: BTreeMap::new(),
            alone: BTreeMap::new(),
            bytes: 0,
            block: None,
        }
    }

    /// Where a window is divided. States that hold all values would take the square of their room as suffixes: such windows
    /// have none.
    fn split_of(&self, window: Span) -> i64 {
        if self.aggregation.collects { window.start } else { self.slicing.split_of(window) }
    }

    /// The block of a window.
    fn block_of(&self, window: Span, block: Option<Block>) -> Result<Block, EngineError> {
        let split = self.split_of(window);
        match block {
            Some(block) if block.split == split => Ok(block),
            _ => {
                let slices = ending_in(&self.slices, window.start, split);
                Block::new(&self.aggregation, split, slices.rev().map(|(slice, rows)| (slice.start, &rows.parts[..])))
            }
        }
    }

    /// Drops the slices that no window needs any more.
    fn drop_closed(&mut self) {
        while let Some(first) = self.slices.first_entry() {
            if self.slicing.last_end(*first.key()) - 1 > self.closed {
                break;
            }
            self.bytes -= first.remove().bytes;
        }
    }
}

/// The slices within `from..to`.
fn ending_in(
    slices: &BTreeMap<Span, Partials>,
    from: i64,
    to: i64,
) -> impl DoubleEndedIterator<Item = (&Span, &Partials)> {
    let behind = |end: i64| Span { end, start: i64::MAX };
    // A range that ends before it begins is an error.
    slices.range((std::ops::Bound::Excluded(behind(from)), std::ops::Bound::Included(behind(to.max(from)))))
}

impl Slices for SharedSlices {
    fn add(&mut self, key: SliceKey, partial: Piece) -> Result<(), EngineError> {
        let kept = if key.one_window { &mut self.alone } else { &mut self.slices };
        let partials = kept.entry(key.span).or_default();
        let before = partials.bytes;
        partials.add(&self.aggregation, key, partial)?;
        self.bytes = self.bytes - before + partials.bytes;
        Ok(())
    }

    fn restored(&mut self, watermark: i64) {
        self.closed = watermark;
    }

    fn close(&mut self, watermark: i64, out: &mut Collector) -> Result<Release, EngineError> {
        let due = |slices: &SharedSlices| slices.next_window().filter(|window| window.is_closed_at(watermark));
        let Some(mut window) = due(self) else {
            self.closed = self.closed.max(watermark);
            return Ok(Release::Done);
        };
        let block = self.block.take();
        let mut block = self.block_of(window, block)?;
        let mut closing = Closing::default();
        loop {
            let alone = self.alone.remove(&window).unwrap_or_default();
            self.bytes -= alone.bytes;
            let slices = ending_in(&self.slices, block.reached, window.end).map(|(_, rows)| &rows.parts[..]);
            block.close(&self.aggregation, window, slices, &alone.parts, &mut closing)?;
            self.closed = window.end - 1;
            self.drop_closed();
            match due(self) {
                Some(next) if self.split_of(next) == block.split && !closing.is_full(EMIT_ROWS_MAX) => {
                    window = next;
                }
                _ => break,
            }
        }
        let (mut columns, groups) = block.merge(&self.aggregation, &mut closing)?;
        columns.extend(groups.results(&self.aggregation)?);
        emit(&self.aggregation.name, &self.output, columns, &closing.windows, out)?;
        if self.split_of(self.slicing.after(window)) == block.split {
            block.extend_prefix(&self.aggregation, &closing)?;
            self.block = Some(block);
        }
        Ok(Release::Continue)
    }

    fn whole(&mut self) -> Result<Vec<(RecordBatch, i64)>, EngineError> {
        let shared = self.slices.iter().map(|(slice, rows)| (self.slicing.last_end(*slice), rows));
        let all = shared.chain(self.alone.iter().map(|(window, rows)| (window.end, rows)));
        Ok(all.flat_map(|(end, rows)| rows.parts.iter().map(move |part| (part.to_batch(), end))).collect())
    }

    fn rows(&self) -> usize {
        self.slices.values().chain(self.alone.values()).map(|partials| partials.rows).sum()
    }

    fn bytes(&self) -> usize {
        self.bytes + self.block.as_ref().map_or(0, Block::bytes)
    }

    fn next_window(&self) -> Option<Span> {
        let shared = self.slices.first_key_value().map(|(slice, _)| self.slicing.first_open(*slice, self.closed));
        let alone = self.alone.first_key_value().map(|(window, _)| *window);
        shared.into_iter().chain(alone).min()
    }
}
