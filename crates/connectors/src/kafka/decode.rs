//! From the messages of a partition to rows: keys and values are decoded side by side and put together with what
//! Kafka knows of each message. Called by the reader of a split; a pure function of the messages.

mod metadata;
mod part;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Field, Schema, SchemaRef};
use mainstem_core::change::ChangeKind;

use crate::bad_records::{BadRecordOptions, OnError};
use crate::error::ConnectorError;
use crate::format::RecordFault;
use crate::table::TableSpec;

use super::Kind;
use super::options::Layout;

use metadata::Metadata;
use part::Decoded;
pub(crate) use part::PartDecoder;

/// When a message was made, in milliseconds, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    None,
    Create(i64),
    Append(i64),
}

/// One message of a [`Chunk`].
#[derive(Debug)]
pub(super) struct Message {
    pub(super) offset: i64,
    pub(super) stamp: Stamp,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    /// Empty unless the table asks for them.
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Messages of one partition, in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) messages: Vec<Message>,
    /// Keys and values, to which the messages point.
    pub(super) bytes: Vec<u8>,
}

/// Rows of a chunk.
#[derive(Debug)]
pub(super) struct ChunkRows {
    /// Those of the messages before the broken one.
    pub(super) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(super) changes: Option<Int8Array>,
    /// For each row the number of its message in the chunk.
    pub(super) messages: Vec<u32>,
    /// Messages before the broken one that were rejected: their number in the chunk, and what is wrong with them.
    pub(super) rejects: BTreeMap<usize, String>,
    /// The message that cannot be decoded: its number in the chunk, whether its key is to blame, and why.
    pub(super) fault: Option<(usize, Side, RecordFault)>,
}

/// Which part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Key,
    Value,
}

/// Where a column that is asked for comes from.
enum Origin {
    Key(usize),
    Value(usize),
    Metadata(Metadata),
}

/// Decodes the chunks of a table.
pub(super) struct Decoder {
    kind: Kind,
    topic: String,
    partition: i32,
    /// Of the rows; deletes know nothing but their key, so that other columns of an upsert table may be NULL.
    schema: SchemaRef,
    origins: Vec<Origin>,
    key: Option<PartDecoder>,
    value: PartDecoder,
    /// What is done at a message without the key that it needs.
    on_missing_key: OnError,
}

impl Decoder {
    /// For one partition; `wanted` are positions of columns in the table's schema.
    pub(super) fn new(
        table: &TableSpec,
        layout: &Layout,
        kind: Kind,
        wanted: &[usize],
        (topic, partition): (&str, i32),
        bad_records: &BadRecordOptions,
    ) -> Result<Decoder, String> {
        let mut columns_of_key = Vec::new();
        let mut columns_of_value = Vec::new();
        let mut origins = Vec::new();
        let mut fields = Vec::new();
        for &column in wanted {
            let field = table.schema.field(column);
            let in_key = layout.key.as_ref().and_then(|key| key.columns.iter().position(|&c| c == column));
            let in_value = layout.value.columns.iter().position(|&c| c == column);
            // A delete has a key only, so that an upsert table takes the key from there.
            let from_key = in_key.filter(|_| kind == Kind::Upsert || in_value.is_none());
            let metadata = layout.metadata.iter().find(|(c, _)| *c == column);
            origins.push(match (from_key, in_value, metadata) {
                (Some(position), _, _) => {
                    columns_of_key.push(position);
                    Origin::Key(columns_of_key.len() - 1)
                }
                (None, Some(position), _) => {
                    columns_of_value.push(position);
                    Origin::Value(columns_of_value.len() - 1)
                }
                (None, None, Some((_, key))) => {
                    Origin::Metadata(Metadata::of_key(key).expect("checked with the table"))
                }
                (None, None, None) => return Err(format!("bug: column '{}' is nowhere in a message", field.name())),
            });
            let may_be_null = field.is_nullable() || (kind == Kind::Upsert && from_key.is_none());
            fields.push(Field::new(field.name(), field.data_type().clone(), may_be_null));
        }
        // Keys that nobody asks for are not even looked at.
        let key = layout.key.as_ref().filter(|_| !columns_of_key.is_empty() || kind == Kind::Upsert);
        let of_key = sorted(&mut columns_of_key, &mut origins, true);
        let key = key.map(|key| PartDecoder::new(key, &of_key, bad_records)).transpose()?;
        let of_value = sorted(&mut columns_of_value, &mut origins, false);
        let value = PartDecoder::new(&layout.value, &of_value, bad_records)?;
        let (topic, schema) = (topic.to_owned(), Arc::new(Schema::new(fields)));
        let on_missing_key = bad_records.on_error(false);
        Ok(Decoder { kind, topic, partition, schema, origins, key, value, on_missing_key })
    }

    /// Asks the schema registries of the formats, where they have one, about schemas that have not come up yet; to be called
    /// before the chunk is decoded.
    pub(super) async fn prepare(&mut self, chunk: &Chunk) -> Result<(), ConnectorError> {
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| &chunk.bytes[range]);
        if let Some(key) = &mut self.key {
            key.prepare(chunk.messages.iter().map(|message| part(&message.key))).await?;
        }
        self.value.prepare(chunk.messages.iter().map(|message| part(&message.value))).await
    }

    /// Decodes a chunk.
    pub(super) fn decode(&mut self, chunk: &Chunk) -> Result<ChunkRows, String> {
        let messages = &chunk.messages[..];
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| &chunk.bytes[range]);
        let key = match &mut self.key {
            Some(key) => Some(key.decode(messages.iter().map(|message| part(&message.key)))?),
            None => None,
        };
        let value = self.value.decode(messages.iter().map(|message| part(&message.value)))?;
        let mut without_key = self.without_key(messages);
        let fault_of_key = key.as_ref().and_then(|key| key.fault.clone()).map(|(n, fault)| (n, Side::Key, fault));
        let fault_of_value = value.fault.clone().map(|(n, fault)| (n, Side::Value, fault));
        let keyless = match self.on_missing_key {
            OnError::Stop => without_key.drain(..).next().map(|number| (number, Side::Key, missing_key())),
            OnError::Count | OnError::Keep => None,
        };
        let fault = [keyless, fault_of_key, fault_of_value].into_iter().flatten().min_by_key(|(number, _, _)| *number);
        let until = fault.as_ref().map_or(messages.len(), |(number, _, _)| *number);
        let mut rejects: BTreeMap<usize, String> =
            value.rejects.iter().map(|(number, fault)| (*number, fault.reason.clone())).collect();
        let of_keys = key.iter().flat_map(|key| &key.rejects);
        rejects.extend(of_keys.map(|(number, fault)| (*number, format!("the key: {}", fault.reason))));
        rejects.extend(without_key.into_iter().map(|number| (number, missing_key().reason)));
        rejects.retain(|number, _| *number < until);
        let picked = self.pick(messages, until, key.as_ref(), &value, &rejects);
        let (rows, changes) = self.rows(messages, key.as_ref(), &value, &picked)?;
        let messages = picked.messages.into_iter().flatten().collect();
        Ok(ChunkRows { rows, changes, messages, rejects, fault })
    }

    /// Messages without the key that each row of an upsert table has.
    fn without_key(&self, messages: &[Message]) -> Vec<usize> {
        let has_none = |message: &Message| message.key.as_ref().is_none_or(Range::is_empty);
        let numbers = messages.iter().enumerate().filter(|(_, message)| self.kind == Kind::Upsert && has_none(message));
        numbers.map(|(number, _)| number).collect()
    }

    /// Which message, key and value make up each row.
    fn pick(
        &self,
        messages: &[Message],
        until: usize,
        key: Option<&Decoded>,
        value: &Decoded,
        rejects: &BTreeMap<usize, String>,
    ) -> Picked {
        let mut picked = Picked::default();
        let (mut next_key, mut next_value) = (0, 0);
        for (number, message) in messages.iter().enumerate().take(until) {
            let keys = key.map_or(0, |key| key.counts[number]);
            let values = value.counts[number];
            let key_row = (keys > 0).then_some(next_key);
            if !rejects.contains_key(&number) {
                let place = u32::try_from(number).expect("a chunk is small");
                for row in 0..values {
                    picked.push(place, key_row, Some(next_value + row), ChangeKind::UpdateAfter);
                }
                // A message of a key without a value takes the key's row away.
                if self.kind == Kind::Upsert && message.value.is_none() && key_row.is_some() {
                    picked.push(place, key_row, None, ChangeKind::Delete);
                }
            }
            next_key += keys;
            next_value += values;
        }
        picked
    }

    fn rows(
        &self,
        messages: &[Message],
        key: Option<&Decoded>,
        value: &Decoded,
        picked: &Picked,
    ) -> Result<(RecordBatch, Option<Int8Array>), String> {
        let count = picked.messages.len();
        let all = |rows: usize, places: &[Option<u32>]| {
            rows == count && places.iter().enumerate().all(|(i, place)| *place == Some(i as u32))
        };
        let take = |column: &ArrayRef, places: &[Option<u32>]| match all(column.len(), places) {
            true => Ok(column.clone()),
            false => compute::take(column, &UInt32Array::from(places.to_vec()), None).map_err(|e| e.to_string()),
        };
        let columns = self.origins.iter().zip(self.schema.fields()).map(|(origin, field)| match origin {
            Origin::Key(position) => {
                take(&key.expect("decoded where it is asked for").columns[*position], &picked.keys)
            }
            Origin::Value(position) => take(&value.columns[*position], &picked.values),
            Origin::Metadata(metadata) => {
                let column = take(&metadata.column(self, messages), &picked.messages)?;
                compute::cast(&column, field.data_type()).map_err(|error| error.to_string())
            }
        });
        let columns = columns.collect::<Result<Vec<_>, String>>()?;
        let changes = match (&value.changes, self.kind) {
            (_, Kind::Upsert) => Some(Int8Array::from(picked.changes.clone())),
            (None, Kind::Plain) => None,
            (Some(changes), Kind::Plain) => {
                let places = UInt32Array::from(picked.values.clone());
                let changes = compute::take(changes, &places, None).map_err(|e| e.to_string())?;
                Some(Int8Array::from(changes.to_data()))
            }
        };
        // Formats of changes give rows that know nothing but their key.
        let schema = match &changes {
            Some(_) if self.kind == Kind::Plain => nullable_where_null(&self.schema, &columns),
            _ => self.schema.clone(),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())?;
        Ok((batch, changes))
    }
}

fn missing_key() -> RecordFault {
    let reason = "the message has no key, by which rows of an upsert-kafka table replace each other".to_owned();
    RecordFault { at: 0, lines: 0, reason, excerpt: String::new() }
}

/// Which message, key and value make up each row.
#[derive(Default)]
struct Picked {
    messages: Vec<Option<u32>>,
    keys: Vec<Option<u32>>,
    values: Vec<Option<u32>>,
    changes: Vec<i8>,
}

impl Picked {
    fn push(&mut self, message: u32, key: Option<u32>, value: Option<u32>, change: ChangeKind) {
        self.messages.push(Some(message));
        self.keys.push(key);
        self.values.push(value);
        self.changes.push(change as i8);
    }
}

fn nullable_where_null(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let fields = schema.fields().iter().zip(columns).map(|(field, column)| {
        let nullable = field.is_nullable() || column.null_count() > 0;
        Field::new(field.name(), field.data_type().clone(), nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Sorts the columns of a part and renumbers the origins: a decoder gives them in the order of its schema.
fn sorted(columns: &mut [usize], origins: &mut [Origin], of_key: bool) -> Vec<usize> {
    let mut ascending = columns.to_vec();
    ascending.sort_unstable();
    for origin in origins {
        match origin {
            Origin::Key(position) if of_key => {
                *position = ascending.binary_search(&columns[*position]).expect("it was sorted");
            }
            Origin::Value(position) if !of_key => {
                *position = ascending.binary_search(&columns[*position]).expect("it was sorted");
            }
            _ => {}
        }
    }
    ascending
}

#[cfg(test)]
mod tests;
