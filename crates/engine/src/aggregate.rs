//! Aggregation without windows: each group's result is a row of a table that changes as rows come and go.
//!
//! A batch is taken in as a whole: its keys become groups, the results of the groups that it touches are noted, the
//! accumulators take its rows, and what has changed leaves as one change a group. With mini-batches this last step
//! is put off for a while.

mod accumulator;
mod arrivals;
mod calls;
mod distinct;
mod emission;
mod extremes;
mod floats;
mod general;
mod groups;
mod integer_average;
mod multiset;
mod partial;
mod row_codec;
mod slots;
mod state;
mod statistics;
mod sums;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::GroupAggregate as Spec;

use self::calls::{Calls, types_of};
use self::emission::Pending;
use self::groups::Groups;
pub(crate) use self::partial::GroupPartial;
use self::slots::SlotIndex;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Restored};

/// Groups that may be changed before their changes are given, where changes are held back.
const HELD_GROUPS_MAX: usize = 1 << 18;

/// See the module.
pub(crate) struct GroupAggregate {
    name: String,
    spec: Spec,
    schema: SchemaRef,
    /// Whether a change comes with the row that it replaces.
    with_before: bool,
    context: EvalContext,
    index: SlotIndex,
    groups: Groups,
    calls: Calls,
    pending: Pending,
    files: DeltaFiles,
    /// Groups of the batch at hand.
    slots: Vec<u32>,
    /// Rows since changes were given last.
    held_rows: u64,
    /// Counts rows that were taken away from groups that were not there.
    unmatched_changes: Arc<AtomicU64>,
}

impl GroupAggregate {
    /// An operator without groups. `schema`: its output; `changes`: which changes the output may hold;
    /// `unmatched_changes`: counts rows that were taken away from groups that were not there.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        schema: SchemaRef,
        changes: ChangeMode,
        context: &EvalContext,
        unmatched_changes: Arc<AtomicU64>,
    ) -> Result<Self, EngineError> {
        let types = types_of(&spec.input_schema, &spec.keys);
        let index = SlotIndex::new(&types).map_err(|e| EngineError::arrow(name, &e))?;
        let mut calls = Calls::new(spec, context)?;
        let files = state::files(spec.keys.len(), calls.collections().next().is_some());
        Ok(GroupAggregate {
            name: name.to_owned(),
            spec: spec.clone(),
            schema,
            with_before: changes != ChangeMode::Upsert,
            context: context.clone(),
            index,
            groups: Groups::new(spec.keys.is_empty(), spec.ttl_ms.is_some()),
            pending: Pending::new(calls.len()),
            calls,
            files,
            slots: Vec::new(),
            held_rows: 0,
            unmatched_changes,
        })
    }

    fn failed(&self, error: &DataFusionError) -> EngineError {
        EngineError::evaluation(&self.name, error)
    }

    /// Takes a batch in.
    fn take(&mut self, batch: &StreamBatch) -> Result<(), EngineError> {
        let rows = batch.rows.num_rows();
        let keys: Vec<ArrayRef> = match self.spec.merges_partials {
            false => self.spec.keys.iter().map(|key| batch.rows.column(*key).clone()).collect(),
            true => batch.rows.columns()[..self.spec.keys.len()].to_vec(),
        };
        let slots = &mut self.slots;
        slots.clear();
        slots.reserve(rows);
        let interned = self.index.intern(&keys, rows, |_| Some(0), |_, slot, _| slots.push(slot));
        interned.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.groups.grow(self.index.slots());
        self.calls.grow(self.index.slots());
        let now = if self.spec.ttl_ms.is_some() { self.context.now_ms() } else { 0 };
        let first_touched = self.pending.len();
        let mut signs = None;
        let mut only = None;
        match &batch.changes {
            None => self.groups.add(&self.slots, now, |slot, present| self.pending.push(slot, present)),
            Some(_) if !self.spec.input_retracts => {
                return Err(EngineError::Bug(format!("{}: rows change that were not to change", self.name)));
            }
            Some(changes) => {
                let taken = self.groups.change(&self.slots, changes.values(), now, |slot, present| {
                    self.pending.push(slot, present);
                });
                if taken.unknown > 0 {
                    self.unmatched_changes.fetch_add(taken.unknown, Ordering::Relaxed);
                    only = Some(BooleanBuffer::from(taken.known));
                }
                signs = Some(taken.signs);
            }
        }
        if self.pending.len() > first_touched {
            let before = self.calls.values(self.pending.since(first_touched));
            self.pending.push_before(before.map_err(|e| self.failed(&e))?);
        }
        if self.spec.merges_partials {
            let merged = self.calls.merge(&batch.rows.columns()[self.spec.keys.len()..], &self.slots);
            return merged.map_err(|e| self.failed(&e));
        }
        let updated = self.calls.update(&batch.rows, &self.slots, signs.as_deref(), only.as_ref());
        updated.map_err(|e| self.failed(&e))
    }

    fn emit(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.held_rows = 0;
        let pending = self.pending.take();
        if pending.is_empty() {
            return Ok(());
        }
        let after = self.calls.values(pending.slots());
        let after = after.map_err(|e| self.failed(&e))?;
        let keys = self.index.columns(pending.slots()).map_err(|e| EngineError::arrow(&self.name, &e))?;
        let ends: Vec<bool> = pending.slots().iter().map(|slot| self.groups.settle(*slot)).collect();
        let given = pending.give(&self.schema, &keys, &after, &ends, self.with_before, &mut out.main);
        given.map_err(|e| self.failed(&e))?;
        // Their results have been read: what is left of groups without rows is of no use.
        for (slot, present) in pending.slots().iter().zip(ends) {
            if !present {
                self.calls.reset(*slot);
            }
        }
        Ok(())
    }
}

impl Operator for GroupAggregate {
    fn state_bytes(&self) -> usize {
        let keys = self.index.bytes() + self.groups.bytes();
        keys + self.calls.bytes() + self.pending.bytes() + memory::of_vec(&self.slots)
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        self.expire();
        self.take(&batch)?;
        self.held_rows += batch.rows.num_rows() as u64;
        let full = self.pending.len() >= HELD_GROUPS_MAX
            || self.spec.mini_batch_rows.is_some_and(|rows_max| self.held_rows >= rows_max);
        if full || self.spec.mini_batch_ms.is_none() { self.emit(out) } else { Ok(()) }
    }

    fn flush_held(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.emit(out)
    }

    fn hold_ms(&self) -> Option<u64> {
        self.spec.mini_batch_ms
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.capture_state().map(Some)
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        self.restore_state(state)
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.forget_changes()
    }
}

#[cfg(test)]
mod tests;
