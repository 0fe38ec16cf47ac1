//! Changes as JSON lines, in the two forms that the decoders of this module read back: Debezium's envelope, and key
//! with value. Called by the filesystem sink.
//!
//! A `-U` and the `+U` of the same key right behind it are one update. A `-U` alone (a filter has dropped its other
//! half, or it comes later) takes its row away, a `+U` alone adds one: so every line is true by itself.

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::row::{RowConverter, SortField};
use mainstem_core::change::ChangeKind;

use crate::error::ConnectorError;
use crate::format::JsonOptions;

use super::TextEncoder;
use super::json::JsonEncoder;

/// Writes Debezium's envelopes.
pub(crate) struct DebeziumEncoder {
    json: JsonEncoder,
    key: Vec<usize>,
}

/// Writes keys with the row that is now there, or null.
pub(crate) struct UpsertEncoder {
    json: JsonEncoder,
    key: Vec<usize>,
}

impl DebeziumEncoder {
    /// An encoder with the user's settings; `key` are the columns of the primary key. Without one every update is
    /// written as a delete and an insert, as Flink does always.
    pub(crate) fn new(options: &JsonOptions, key: Vec<usize>) -> DebeziumEncoder {
        DebeziumEncoder { json: JsonEncoder::new(options), key }
    }
}

impl UpsertEncoder {
    /// An encoder with the user's settings; `key` are the columns of the primary key.
    pub(crate) fn new(options: &JsonOptions, key: Vec<usize>) -> UpsertEncoder {
        UpsertEncoder { json: JsonEncoder::new(options), key }
    }
}

impl TextEncoder for DebeziumEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        let members = JsonEncoder::members(rows, 0..rows.num_columns())?;
        let updates = updates(rows, changes, &self.key)?;
        let object = |row: usize, out: &mut Vec<u8>| {
            out.push(b'{');
            self.json.write_members(&members, row, out);
            out.push(b'}');
        };
        let mut row = 0;
        while row < rows.num_rows() {
            let addition = kind(changes, row).is_addition();
            let update = updates.get(row) == Some(&true);
            out.extend_from_slice(b"{\"before\":");
            if addition {
                out.extend_from_slice(b"null")
            } else {
                object(row, out)
            }
            out.extend_from_slice(b",\"after\":");
            match (addition, update) {
                (true, _) => object(row, out),
                (false, true) => object(row + 1, out),
                (false, false) => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(match (addition, update) {
                (true, _) => b",\"op\":\"c\"}\n",
                (false, true) => b",\"op\":\"u\"}\n",
                (false, false) => b",\"op\":\"d\"}\n",
            });
            each(row, out.len());
            row += if update { 2 } else { 1 };
        }
        Ok(())
    }
}

impl TextEncoder for UpsertEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        let key = JsonEncoder::members(rows, self.key.iter().copied())?;
        let value = JsonEncoder::members(rows, 0..rows.num_columns())?;
        let updates = updates(rows, changes, &self.key)?;
        for row in 0..rows.num_rows() {
            // What an update replaces needs no line of its own.
            if updates.get(row) == Some(&true) {
                continue;
            }
            out.extend_from_slice(b"{\"key\":{");
            self.json.write_members(&key, row, out);
            out.extend_from_slice(b"},\"value\":");
            if kind(changes, row).is_addition() {
                out.push(b'{');
                self.json.write_members(&value, row, out);
                out.extend_from_slice(b"}}\n");
            } else {
                out.extend_from_slice(b"null}\n");
            }
            each(row, out.len());
        }
        Ok(())
    }
}

/// The kind of a row.
pub(crate) fn kind(changes: Option<&Int8Array>, row: usize) -> ChangeKind {
    let number = changes.map_or(0, |changes| changes.value(row));
    ChangeKind::from_number(number).expect("operators give kinds that exist")
}

/// For each row whether it is a `-U` whose `+U` comes right behind it; empty where none is.
pub(crate) fn updates(
    rows: &RecordBatch,
    changes: Option<&Int8Array>,
    key: &[usize],
) -> Result<Vec<bool>, ConnectorError> {
    let Some(changes) = changes else { return Ok(Vec::new()) };
    let is_pair = |kinds: &[i8]| kinds == [ChangeKind::UpdateBefore as i8, ChangeKind::UpdateAfter as i8];
    if key.is_empty() || !changes.values().windows(2).any(is_pair) {
        return Ok(Vec::new());
    }
    let columns: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
    let types = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converted = RowConverter::new(types).and_then(|converter| converter.convert_columns(&columns));
    let keys = converted.map_err(|error| {
        ConnectorError::data(format!("the rows of the primary key cannot be compared: {error}; choose another key"))
    })?;
    let pairs = changes.values().windows(2).enumerate();
    Ok(pairs.map(|(row, kinds)| is_pair(kinds) && keys.row(row) == keys.row(row + 1)).collect())
}

#[cfg(test)]
mod tests;
