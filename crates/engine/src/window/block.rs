//! Merging of windows that share slices, at a cost for each window that does not depend on how many slices it has.
//!
//! Time is divided into blocks as long as a window, so a window reaches over the end of at most one block, its *split*.
//! Left of it stands what the window has in common with the windows before it: *suffixes*, the merge of each slice with
//! all that follow it in the block, made once from the last to the first. Right of it stands the *prefix*, to which each
//! slice is added as it closes. A window is its suffix merged with the prefix. This is the two-stacks algorithm of
//! sliding-window aggregation (Tangwongsan, Hirzel, Schneider, "In-Order Sliding-Window Aggregation in Worst-Case
//! Constant Time", VLDB Journal 2021), turned over where a block ends as by van Herk and Gil and Werman, so that what is
//! merged with what follows from event time alone. It needs of an aggregate no more than that states can be merged.
//!
//! It is made for many keys at once. A suffix has a state only for the keys of its own slice; for the others the suffix
//! behind it counts. So the suffixes together have no more rows than the slices, and a window that moves on looks at the
//! keys of the slice that it leaves. Several windows that close at once are merged in one go.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute;

use super::aggregation::{Aggregation, Groups};
use super::combine::{Place, Plan};
use super::final_aggregate::Piece;
use super::slicing::Span;
use crate::error::EngineError;
use crate::keys::KeyIndex;
use crate::memory;

const NONE: u32 = u32::MAX;
const NOWHERE: Place = (usize::MAX, 0);
/// Slices or windows that are merged in one go.
const AT_ONCE_MAX: usize = 64;
/// Rows of slices, times slices: what is merged in one go again for each of them. About what it costs to begin anew.
const AT_ONCE_ROWS_MAX: usize = 4096;

/// Whether so many slices with so many rows should be merged before more are taken.
pub(super) fn is_enough(slices: usize, rows: usize) -> bool {
    slices >= AT_ONCE_MAX || slices * rows >= AT_ONCE_ROWS_MAX
}

/// See the module.
pub(super) struct Block {
    /// Where the windows are divided.
    pub(super) split: i64,
    /// Up to where slices are in the prefix.
    pub(super) reached: i64,
    index: KeyIndex,
    /// The keys of the index, as far as they have been asked for.
    keys: Vec<ArrayRef>,
    keys_known: usize,
    /// States of suffixes.
    states: Vec<Vec<ArrayRef>>,
    /// Oldest last.
    suffixes: Vec<Suffix>,
    /// Bytes of the two, of which there are too many to be looked at each time that somebody asks.
    suffix_bytes: usize,
    /// By key: the suffix that counts.
    heads: Vec<Place>,
    /// States of the prefix, and the key of each.
    prefix: Vec<ArrayRef>,
    prefix_keys: Vec<u32>,
    /// By key: its row in the prefix.
    prefix_rows: Vec<u32>,
    /// By key: its place among the groups at hand; `NONE` between uses.
    positions: Vec<u32>,
}

/// A slice left of the split.
struct Suffix {
    start: i64,
    keys: Vec<u32>,
    /// For each key the suffix that counts when this one is left.
    next: Vec<Place>,
}

impl Suffix {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.keys) + memory::of_vec(&self.next)
    }
}

/// Partial aggregates of a slice whose keys have numbers.
pub(super) struct Part {
    keys: Vec<usize>,
    piece: Piece,
}

impl Part {
    /// The place of each row where the states are this source, with the row's key.
    fn places(&self, source: usize) -> impl Iterator<Item = (Place, usize)> {
        self.keys.iter().zip(self.piece.begin..).map(move |(key, row)| ((source, row), *key))
    }
}

/// Windows that are closed in one go.
#[derive(Default)]
pub(super) struct Closing {
    plan: Plan,
    /// Key and window of each group.
    keys: Vec<u32>,
    pub(super) windows: Vec<Span>,
    parts: Vec<Part>,
    /// Those that are new in the prefix.
    added: Vec<usize>,
    added_rows: usize,
    slices: usize,
}

impl Block {
    /// A block whose windows are divided at `split`. `slices`: start and partial aggregates of those left of it that
    /// have not been left yet, newest first.
    pub(super) fn new<'a>(
        aggregation: &Aggregation,
        split: i64,
        slices: impl Iterator<Item = (i64, &'a [Piece])>,
    ) -> Result<Block, EngineError> {
        let index = KeyIndex::new(aggregation.key_types()).map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        let mut block = Block {
            split,
            reached: split,
            index,
            keys: Vec::new(),
            keys_known: 0,
            states: Vec::new(),
            suffixes: Vec::new(),
            suffix_bytes: 0,
            heads: Vec::new(),
            prefix: Vec::new(),
            prefix_keys: Vec::new(),
            prefix_rows: Vec::new(),
            positions: Vec::new(),
        };
        let mut run = Vec::new();
        let mut rows = 0;
        for (start, partials) in slices {
            let parts = partials.iter().map(|partial| block.part(aggregation, partial));
            let parts = parts.collect::<Result<Vec<Part>, _>>()?;
            rows += parts.iter().map(|part| part.keys.len()).sum::<usize>();
            run.push((start, parts));
            if is_enough(run.len(), rows) {
                block.put_in_front(aggregation, &std::mem::take(&mut run))?;
                rows = 0;
            }
        }
        if !run.is_empty() {
            block.put_in_front(aggregation, &run)?;
        }
        Ok(block)
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let columns = self.prefix.iter().chain(&self.keys);
        let by_key = memory::of_vec(&self.heads) + memory::of_vec(&self.prefix_rows) + memory::of_vec(&self.positions);
        self.index.bytes()
            + columns.map(|column| memory::of_column(column)).sum::<usize>()
            + self.suffix_bytes
            + memory::of_vec(&self.prefix_keys)
            + by_key
    }

    fn part(&mut self, aggregation: &Aggregation, piece: &Piece) -> Result<Part, EngineError> {
        let mut keys = Vec::new();
        let columns = piece.keys(aggregation.key_count());
        let interned = self.index.intern(&columns, piece.rows, &mut keys);
        interned.map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        let known = self.index.len();
        self.heads.resize(known, NOWHERE);
        self.prefix_rows.resize(known, NONE);
        self.positions.resize(known, NONE);
        Ok(Part { keys, piece: piece.clone() })
    }

    /// Makes the suffixes of slices that stand in front of those that there are; newest first.
    fn put_in_front(&mut self, aggregation: &Aggregation, run: &[(i64, Vec<Part>)]) -> Result<(), EngineError> {
        let mut sources: Vec<&[ArrayRef]> = self.states.iter().map(Vec::as_slice).collect();
        let mut plan = Plan::default();
        let mut made: Vec<(i64, Vec<u32>, usize)> = Vec::new();
        // Source of the first part of each slice.
        let mut firsts: Vec<usize> = Vec::new();
        for (nth, (start, parts)) in run.iter().enumerate() {
            let (first, begin) = (sources.len(), plan.total);
            let mut keys = Vec::new();
            for (source, part) in (first..).zip(parts) {
                for (place, key) in part.places(source) {
                    plan.add(place, begin + position(&mut self.positions, key, &mut keys));
                }
            }
            // Older rows are merged before newer ones.
            for (first, (_, parts)) in firsts.iter().zip(&run[..nth]).rev() {
                for (source, part) in (*first..).zip(parts) {
                    for (place, key) in part.places(source).filter(|(_, key)| self.positions[*key] != NONE) {
                        plan.add(place, begin + self.positions[key] as usize);
                    }
                }
            }
            for (position, key) in keys.iter().enumerate() {
                let head = self.heads[*key as usize];
                if head != NOWHERE {
                    plan.add(head, begin + position);
                }
                self.positions[*key as usize] = NONE;
            }
            plan.total += keys.len();
            firsts.push(first);
            sources.extend(parts.iter().map(|part| part.piece.states(aggregation)));
            made.push((*start, keys, begin));
        }
        let states = plan.merge(aggregation, &sources)?.take_states(aggregation)?;
        let source = self.states.len();
        self.suffix_bytes += states.iter().map(|column| memory::of_column(column)).sum::<usize>();
        self.states.push(states);
        for (start, keys, begin) in made {
            let places = keys.iter().zip(begin..);
            let next = places.map(|(key, row)| std::mem::replace(&mut self.heads[*key as usize], (source, row)));
            let next = next.collect();
            let suffix = Suffix { start, keys, next };
            self.suffix_bytes += suffix.bytes();
            self.suffixes.push(suffix);
        }
        Ok(())
    }

    /// Adds a window to those that are closed in one go. Windows come in order. `slices`: partial aggregates of the
    /// slices behind [`Block::reached`], in order; `alone`: partial aggregates of this window only.
    pub(super) fn close<'a>(
        &mut self,
        aggregation: &Aggregation,
        window: Span,
        slices: impl Iterator<Item = &'a [Piece]>,
        alone: &[Piece],
        closing: &mut Closing,
    ) -> Result<(), EngineError> {
        while let Some(left) = self.suffixes.pop_if(|suffix| suffix.start < window.start) {
            self.suffix_bytes -= left.bytes();
            left.keys.iter().zip(left.next).for_each(|(key, next)| self.heads[*key as usize] = next);
        }
        for partial in slices.flatten() {
            closing.added.push(closing.parts.len());
            closing.added_rows += partial.rows;
            closing.parts.push(self.part(aggregation, partial)?);
        }
        self.reached = window.end;
        closing.slices += 1;
        let first_alone = closing.parts.len();
        for partial in alone {
            closing.parts.push(self.part(aggregation, partial)?);
        }
        let begin = closing.plan.total;
        let mut keys = Vec::new();
        if !self.suffixes.is_empty() {
            for (key, head) in self.heads.iter().enumerate().filter(|(_, head)| **head != NOWHERE) {
                closing.plan.add(*head, begin + position(&mut self.positions, key, &mut keys));
            }
        }
        let prefix = self.states.len();
        for (row, key) in self.prefix_keys.iter().enumerate() {
            let position = position(&mut self.positions, *key as usize, &mut keys);
            closing.plan.add((prefix, row), begin + position);
        }
        for part in closing.added.iter().copied().chain(first_alone..closing.parts.len()) {
            for (place, key) in closing.parts[part].places(prefix + 1 + part) {
                closing.plan.add(place, begin + position(&mut self.positions, key, &mut keys));
            }
        }
        keys.iter().for_each(|key| self.positions[*key as usize] = NONE);
        closing.plan.total += keys.len();
        closing.windows.resize(closing.windows.len() + keys.len(), window);
        closing.keys.extend(keys);
        Ok(())
    }

    /// The key columns and the aggregates of the windows' groups.
    pub(super) fn merge(
        &mut self,
        aggregation: &Aggregation,
        closing: &mut Closing,
    ) -> Result<(Vec<ArrayRef>, Groups), EngineError> {
        let plan = std::mem::take(&mut closing.plan);
        let groups = plan.merge(aggregation, &self.sources(aggregation, closing))?;
        let arrow = |e| EngineError::arrow(&aggregation.name, &e);
        if self.keys_known < self.index.len() {
            let new = self.index.columns_from(self.keys_known).map_err(arrow)?;
            self.keys = match self.keys_known {
                0 => new,
                _ => {
                    let both = self.keys.iter().zip(&new).map(|(known, new)| compute::concat(&[known, new]));
                    both.collect::<Result<_, _>>().map_err(arrow)?
                }
            };
            self.keys_known = self.index.len();
        }
        let rows = UInt32Array::from(std::mem::take(&mut closing.keys));
        let keys = self.keys.iter().map(|column| compute::take(column, &rows, None));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(arrow)?;
        Ok((keys, groups))
    }

    /// Keeps the merge of the slices that these windows have added, for those behind them.
    pub(super) fn extend_prefix(&mut self, aggregation: &Aggregation, closing: &Closing) -> Result<(), EngineError> {
        if closing.added.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::default();
        let source = self.states.len();
        (0..self.prefix_keys.len()).for_each(|row| plan.add((source, row), row));
        for part in &closing.added {
            for (place, key) in closing.parts[*part].places(source + 1 + part) {
                plan.add(place, position(&mut self.prefix_rows, key, &mut self.prefix_keys));
            }
        }
        plan.total = self.prefix_keys.len();
        self.prefix = plan.merge(aggregation, &self.sources(aggregation, closing))?.take_states(aggregation)?;
        Ok(())
    }

    /// States of suffixes, the prefix, the parts.
    fn sources<'a>(&'a self, aggregation: &Aggregation, closing: &'a Closing) -> Vec<&'a [ArrayRef]> {
        let own = self.states.iter().map(Vec::as_slice).chain([self.prefix.as_slice()]);
        own.chain(closing.parts.iter().map(|part| part.piece.states(aggregation))).collect()
    }
}

impl Closing {
    /// Whether no more windows should be added.
    pub(super) fn is_full(&self, groups_max: usize) -> bool {
        is_enough(self.slices, self.added_rows) || self.plan.total >= groups_max
    }
}

/// The place of a key in `keys`, to which it is added where it is new.
fn position(positions: &mut [u32], key: usize, keys: &mut Vec<u32>) -> usize {
    let position = &mut positions[key];
    if *position == NONE {
        *position = keys.len() as u32;
        keys.push(key as u32);
    }
    *position as usize
}
