//! Merging state files into one run beside processing, without the operator: a row of a later file replaces one of an earlier
//! file that is told apart from others by the same columns. Who orders it is [`crate::delta_files`], who runs it the uploader.
//!
//! Memory: the files are merged by ranges of key groups, each of which becomes a file.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_rt::run_blocking;
use mainstem_state::{GroupedTable, StateBlock, TableDelta};

use crate::error::EngineError;
use crate::keys::KeyIndex;
use crate::operator::PendingHandle;
use crate::state_files::StateFiles;

/// Encoded bytes that are merged at a time, unless there are too many.
const PIECE_BYTES: u64 = 8 << 20;
/// Files that one merge writes at most.
const PIECES_MAX: u64 = 64;

/// How rows of a table of an operator's state replace each other.
#[derive(Clone, Debug)]
pub(crate) struct MergeRule {
    /// The table, as [`crate::operator::TableRows`] has it.
    pub(crate) name: &'static str,
    /// Version of its layout; files in another are not merged.
    pub(crate) version: u32,
    /// See [`crate::operator::TableRows::key`].
    pub(crate) key: Vec<usize>,
    /// Columns that tell a row from others; none: rows only come, and all of them stay.
    pub(crate) identity: Option<Vec<usize>>,
    /// Column of a row that is false or 0 where the row says that what it is about is gone.
    pub(crate) present: Option<usize>,
}

/// Files to merge.
pub(crate) struct MergeOrder {
    /// Oldest first. All of them are written.
    pub(crate) inputs: Vec<PendingHandle>,
    /// One for each table.
    pub(crate) rules: Arc<[MergeRule]>,
    /// Nothing is older than the first of them: rows that are gone need not be spoken of.
    pub(crate) from_start: bool,
    /// Where the outcome is put. Dropped without one: the files stay as they are.
    pub(crate) merged: Arc<OnceLock<Merged>>,
}

/// Files that stand for those that were merged.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) files: Vec<StateHandle>,
    pub(crate) rows: usize,
}

impl MergeOrder {
    /// Merges. `number` tells merges of the attempt apart; durable on return.
    pub(crate) async fn carry_out(self, files: &StateFiles, number: u64) -> Result<(), EngineError> {
        let inputs: Option<Vec<StateHandle>> = self.inputs.iter().map(|input| input.get().cloned()).collect();
        let inputs = inputs.ok_or_else(|| EngineError::Bug("a state file is merged before it is written".into()))?;
        // Its place is that of the newest: whatever comes after that came after all of them.
        let Some(epoch) = inputs.iter().map(|input| input.epoch).max() else { return Ok(()) };
        let mut merged = Merged { files: Vec::new(), rows: 0 };
        for (piece, range) in pieces(&inputs).into_iter().enumerate() {
            let mut blocks = Vec::new();
            for input in inputs.iter().filter(|input| input.key_groups.overlaps(&range)) {
                let key_groups = input.key_groups.intersection(&range);
                blocks.extend(files.piece(&StateHandle { key_groups, ..input.clone() }).await?.blocks);
            }
            let (rules, from_start) = (self.rules.clone(), self.from_start);
            let tables = run_blocking(move || merge(decode(&blocks)?, &rules, from_start)).await;
            let tables = tables.map_err(|e| EngineError::Bug(format!("merging state files: {e}")))??;
            merged.rows += tables.iter().map(GroupedTable::len).sum::<usize>();
            merged.files.extend(files.write_grouped(epoch, &format!("m{number}_{piece}"), tables).await?);
        }
        // It was set by nobody else: there is one order.
        let _ = self.merged.set(merged);
        Ok(())
    }
}

/// Rows of tables by name and version, oldest first.
pub(crate) type Tables = BTreeMap<(String, u32), Vec<TableDelta>>;

/// The key groups of the files, in ranges that are merged one after the other.
fn pieces(inputs: &[StateHandle]) -> Vec<KeyGroupRange> {
    let start = inputs.iter().map(|input| input.key_groups.start).min().unwrap_or(0);
    let end = inputs.iter().map(|input| input.key_groups.end).max().unwrap_or(start);
    let bytes: u64 = inputs.iter().map(|input| input.size).sum();
    let groups = u64::from(end - start);
    let pieces = bytes.div_ceil(PIECE_BYTES).clamp(1, PIECES_MAX).min(groups.max(1));
    let bound = |piece: u64| start + u16::try_from(piece * groups / pieces).expect("at most the number of groups");
    (0..pieces).map(|piece| KeyGroupRange { start: bound(piece), end: bound(piece + 1) }).collect()
}

fn decode(blocks: &[StateBlock]) -> Result<Tables, EngineError> {
    let mut tables = Tables::new();
    for block in blocks {
        if let Some(rows) = block.decode_grouped()? {
            tables.entry((rows.table.clone(), rows.version)).or_default().push(rows);
        }
    }
    Ok(tables)
}

/// What is left of the rows of files, oldest first. `from_start`: see [`MergeOrder`].
pub(crate) fn merge(mut rows: Tables, rules: &[MergeRule], from_start: bool) -> Result<Vec<GroupedTable>, EngineError> {
    let mut tables = Vec::with_capacity(rules.len());
    for rule in rules {
        if let Some(deltas) = rows.remove(&(rule.name.to_owned(), rule.version)) {
            let kept = newest(deltas, rule, from_start);
            tables.push(kept.map_err(|e| EngineError::arrow("merging state files", &e))?);
        }
    }
    match rows.into_keys().next() {
        None => Ok(tables),
        Some((table, version)) => {
            Err(EngineError::Bug(format!("no rule to merge table '{table}' of version {version}")))
        }
    }
}

/// Rows that no later row replaces. A key group at a time: what is told apart at once fits into the caches.
fn newest(deltas: Vec<TableDelta>, rule: &MergeRule, from_start: bool) -> Result<GroupedTable, ArrowError> {
    let mut table = GroupedTable {
        table: rule.name.to_owned(),
        version: rule.version,
        key: rule.key.clone(),
        key_groups: Vec::new(),
        batches: deltas.iter().map(|delta| delta.rows.clone()).collect(),
        places: None,
    };
    let batches = &table.batches;
    let Some(first) = batches.first() else { return Ok(table) };
    let mut told_apart = match &rule.identity {
        None => None,
        Some(identity) => {
            let types = identity.iter().map(|column| first.column(*column).data_type().clone());
            Some((identity, KeyIndex::new(&types.collect::<Vec<_>>())?))
        }
    };
    let present = rule.present.filter(|_| from_start);
    let present: Option<Vec<_>> =
        present.map(|column| batches.iter().map(|batch| is_present(batch.column(column))).collect());
    let mut places = Vec::new();
    // Where the rows of the next group begin, in each batch.
    let mut begins = vec![0; deltas.len()];
    let (mut of_group, mut ids, mut of_batch) = (Vec::new(), Vec::new(), Vec::new());
    let next = |begins: &[usize]| deltas.iter().zip(begins).filter_map(|(delta, at)| delta.key_groups.get(*at)).min();
    while let Some(group) = next(&begins).copied() {
        of_group.clear();
        ids.clear();
        for (number, (delta, begin)) in deltas.iter().zip(&mut begins).enumerate() {
            let rows = delta.key_groups[*begin..].partition_point(|of_row| *of_row == group);
            if let Some((identity, index)) = &mut told_apart {
                let columns = identity.iter().map(|column| delta.rows.column(*column).slice(*begin, rows));
                index.intern(&columns.collect::<Vec<_>>(), rows, &mut of_batch)?;
                ids.extend_from_slice(&of_batch);
            }
            of_group.extend((*begin..*begin + rows).map(|row| (number as u32, row as u32)));
            *begin += rows;
        }
        if let Some((_, index)) = &mut told_apart {
            keep_last(&mut of_group, &ids, index.len());
            index.clear();
        }
        if let Some(present) = &present {
            of_group.retain(|(number, row)| present[*number as usize](*row as usize));
        }
        table.key_groups.resize(table.key_groups.len() + of_group.len(), group);
        places.extend_from_slice(&of_group);
    }
    drop(present);
    table.places = Some(places);
    Ok(table)
}

/// Leaves the last row of each id, at its place.
fn keep_last(rows: &mut Vec<(u32, u32)>, ids: &[usize], count: usize) {
    let mut last = vec![0; count];
    ids.iter().enumerate().for_each(|(position, id)| last[*id] = position);
    let mut ids = ids.iter().enumerate();
    rows.retain(|_| ids.next().is_some_and(|(position, id)| last[*id] == position));
}

fn is_present(column: &ArrayRef) -> Box<dyn Fn(usize) -> bool + '_> {
    match column.data_type() {
        DataType::Boolean => {
            let flags: &BooleanArray = column.as_boolean();
            Box::new(|row| flags.value(row))
        }
        _ => {
            let counts = column.as_primitive::<Int64Type>();
            Box::new(|row| counts.value(row) != 0)
        }
    }
}

#[cfg(test)]
mod tests;
