//! Merging state files into one run beside processing, without the operator: a row of a later file replaces one of an earlier
//! file that is told apart from others by the same columns. Who orders it is [`crate::delta_files`], who runs it the uploader.
//!
//! Memory: the files are merged by ranges of key groups, each of which becomes a file.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_rt::run_blocking;

use crate::error::EngineError;
use crate::keys::KeyIndex;
use crate::operator::{PendingHandle, RestoredRows, TableRows};
use crate::state_files::StateFiles;

/// Encoded bytes that are merged at a time, unless there are too many.
const PIECE_BYTES: u64 = 16 << 20;
/// Files that one merge writes at most.
const PIECES_MAX: u64 = 64;

/// How rows of a table of an operator's state replace each other.
#[derive(Clone, Debug)]
pub(crate) struct MergeRule {
    /// The table, as [`TableRows`] has it.
    pub(crate) name: &'static str,
    /// Version of its layout; files in another are not merged.
    pub(crate) version: u32,
    /// See [`TableRows::key`].
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
            let mut read = Vec::new();
            for input in inputs.iter().filter(|input| input.key_groups.overlaps(&range)) {
                let key_groups = input.key_groups.intersection(&range);
                let (restored, _, _) = files.read(StateHandle { key_groups, ..input.clone() }).await?;
                read.extend(restored.tables);
            }
            let (rules, from_start) = (self.rules.clone(), self.from_start);
            let tables = run_blocking(move || merge(decode(&read)?, &rules, from_start)).await;
            let tables = tables.map_err(|e| EngineError::Bug(format!("merging state files: {e}")))??;
            merged.rows += tables.iter().flat_map(|table| &table.rows).map(RecordBatch::num_rows).sum::<usize>();
            merged.files.extend(files.write(epoch, &format!("m{number}_{piece}"), tables).await?);
        }
        // It was set by nobody else: there is one order.
        let _ = self.merged.set(merged);
        Ok(())
    }
}

/// Name and version of tables, and their rows, oldest first.
pub(crate) type Tables = BTreeMap<(String, u32), Vec<RecordBatch>>;

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

fn decode(read: &[RestoredRows]) -> Result<Tables, EngineError> {
    let mut tables = Tables::new();
    for stored in read {
        let (table, version) = stored.table();
        tables.entry((table.to_owned(), version)).or_default().push(stored.rows()?);
    }
    Ok(tables)
}

/// What is left of the rows of files, oldest first. `from_start`: see [`MergeOrder`].
pub(crate) fn merge(mut rows: Tables, rules: &[MergeRule], from_start: bool) -> Result<Vec<TableRows>, EngineError> {
    let mut tables = Vec::with_capacity(rules.len());
    for rule in rules {
        let of_table = rows.remove(&(rule.name.to_owned(), rule.version)).unwrap_or_default();
        let kept = newest(of_table, rule, from_start).map_err(|e| EngineError::arrow("merging state files", &e))?;
        tables.push(TableRows { name: rule.name, version: rule.version, key: rule.key.clone(), rows: kept });
    }
    match rows.into_keys().next() {
        None => Ok(tables),
        Some((table, version)) => {
            Err(EngineError::Bug(format!("no rule to merge table '{table}' of version {version}")))
        }
    }
}

/// Rows that no later row replaces.
fn newest(batches: Vec<RecordBatch>, rule: &MergeRule, from_start: bool) -> Result<Vec<RecordBatch>, ArrowError> {
    let Some(first) = batches.first() else { return Ok(batches) };
    let mut kept: Vec<Vec<bool>> = match &rule.identity {
        None => batches.iter().map(|batch| vec![true; batch.num_rows()]).collect(),
        Some(identity) => {
            let types: Vec<DataType> =
                identity.iter().map(|column| first.column(*column).data_type().clone()).collect();
            let mut index = KeyIndex::new(&types)?;
            let mut places: Vec<(u32, u32)> = Vec::new();
            let mut ids = Vec::new();
            for (number, batch) in batches.iter().enumerate() {
                let columns: Vec<ArrayRef> = identity.iter().map(|column| batch.column(*column).clone()).collect();
                index.intern(&columns, batch.num_rows(), &mut ids)?;
                places.resize(index.len(), (0, 0));
                for (row, id) in ids.iter().enumerate() {
                    places[*id] = (number as u32, row as u32);
                }
            }
            let mut kept: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.num_rows()]).collect();
            for (batch, row) in places {
                kept[batch as usize][row as usize] = true;
            }
            kept
        }
    };
    if let Some(column) = rule.present.filter(|_| from_start) {
        for (batch, kept) in batches.iter().zip(&mut kept) {
            let present = is_present(batch.column(column));
            kept.iter_mut().enumerate().for_each(|(row, kept)| *kept &= present(row));
        }
    }
    let filtered = batches.iter().zip(kept).map(|(batch, kept)| compute::filter_record_batch(batch, &kept.into()));
    filtered.filter(|batch| !matches!(batch, Ok(batch) if batch.num_rows() == 0)).collect()
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
