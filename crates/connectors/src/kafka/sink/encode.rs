//! Rows to messages: key and value by their formats, time and headers out of metadata columns. Called by both writers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, MapArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMillisecondType};

use crate::error::ConnectorError;
use crate::format::FormatOptions;
use crate::format::encode::{
    CsvEncoder, DebeziumEncoder, JsonEncoder, Registration, TextEncoder, UpsertEncoder, check_columns, kind, updates,
};
use crate::table::TableSpec;

use super::super::Kind;
use super::super::options::{Layout, MessageFormat, Part};
use super::records::Record;

/// Encodes the rows of a table.
pub(super) struct MessageEncoder {
    table: String,
    kind: Kind,
    key: Option<PartEncoder>,
    value: PartEncoder,
    timestamp: Option<usize>,
    headers: Option<usize>,
}

/// Encodes the keys, or the values, of messages.
pub(crate) struct PartEncoder {
    columns: Vec<usize>,
    schema: SchemaRef,
    encoder: Encoder,
    is_binary: bool,
    /// The texts of a batch, and where each ends with the row that it is of.
    out: Vec<u8>,
    pub(crate) ends: Vec<(usize, usize)>,
}

enum Encoder {
    /// Each record with a line end, which belongs to a file.
    Text(Box<dyn TextEncoder>),
    /// Records as they are, and what must be registered before.
    Binary(Box<dyn TextEncoder>, Option<Registration>),
    Raw,
}

impl MessageEncoder {
    /// For a table; refuses columns that the formats cannot hold and metadata that cannot be written.
    pub(super) fn new(table: &TableSpec, layout: &Layout, kind: Kind) -> Result<MessageEncoder, ConnectorError> {
        let mut encoder = MessageEncoder {
            table: table.name.clone(),
            kind,
            key: layout.key.as_ref().map(|key| PartEncoder::new(key, Vec::new())).transpose()?,
            value: PartEncoder::new(&layout.value, key_in_value(table, &layout.value))?,
            timestamp: None,
            headers: None,
        };
        for (column, key) in &layout.metadata {
            let field = table.schema.field(*column);
            let fits = match key.as_str() {
                "timestamp" => {
                    encoder.timestamp = Some(*column);
                    matches!(field.data_type(), DataType::Timestamp(_, _))
                }
                "headers" => {
                    encoder.headers = Some(*column);
                    matches!(field.data_type(), DataType::Map(entries, _) if is_headers(entries.data_type()))
                }
                other => {
                    return Err(ConnectorError::option(format!(
                        "column '{}' of table '{}' is METADATA FROM '{other}', which cannot be written; declare it VIRTUAL",
                        field.name(),
                        table.name
                    )));
                }
            };
            if !fits {
                let wanted = if key == "headers" { "MAP<STRING, BYTES>" } else { "TIMESTAMP_LTZ(3)" };
                return Err(ConnectorError::option(format!(
                    "column '{}' of table '{}' is METADATA FROM '{key}' and must be of type {wanted} to be written",
                    field.name(),
                    table.name
                )));
            }
        }
        Ok(encoder)
    }

    /// Has the schemas registered that messages of the topic are written with, where a format wants it; to be called before
    /// the first of them.
    pub(super) async fn register(&mut self, topic: &str) -> Result<(), ConnectorError> {
        if let Some(key) = &mut self.key {
            key.register(&format!("{topic}-key")).await?;
        }
        self.value.register(&format!("{topic}-value")).await
    }

    /// Gives each message of the rows to `send`, in order.
    pub(super) fn encode(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        send: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(), ConnectorError> {
        let upsert = self.kind == Kind::Upsert;
        // The planner lets kinds through only where the format or the connector takes them.
        let kinds = changes.filter(|_| !upsert);
        self.value.encode(rows, kinds, changes, &self.table)?;
        if let Some(key) = &mut self.key {
            key.encode(rows, None, None, &self.table)?;
        }
        let replaced = match (&self.key, upsert) {
            (Some(key), true) => updates(rows, changes, &key.columns)?,
            _ => Vec::new(),
        };
        let timestamps = self.timestamp.map(|column| milliseconds(rows.column(column))).transpose()?;
        let headers = self.headers.map(|column| rows.column(column).as_map());
        for index in 0..self.value.ends.len() {
            let row = self.value.ends[index].1;
            if replaced.get(row) == Some(&true) {
                continue;
            }
            // Without a format of changes there is a value for each row, and so for the keys.
            let gone = upsert && !kind(changes, row).is_addition();
            send(&Record {
                key: self.key.as_ref().and_then(|key| key.part(row, rows)),
                value: if gone { None } else { self.value.part(index, rows) },
                timestamp: timestamps.as_ref().and_then(|times| {
                    let times = times.as_primitive::<TimestampMillisecondType>();
                    times.is_valid(row).then(|| times.value(row))
                }),
                headers: headers.map(|headers| headers_of(headers, row)).unwrap_or_default(),
            });
        }
        Ok(())
    }
}

impl PartEncoder {
    /// `changelog_key`: columns of the part by which the two halves of an update are paired.
    pub(crate) fn new(part: &Part, changelog_key: Vec<usize>) -> Result<PartEncoder, ConnectorError> {
        let encoder = match &part.format {
            MessageFormat::Raw => Encoder::Raw,
            MessageFormat::Text(FormatOptions::Avro(options)) => {
                let fields = part.schema.fields();
                let made = options.encoder(fields).and_then(|encoder| Ok((encoder, options.registration(fields)?)));
                let (encoder, registration) = made.map_err(ConnectorError::option)?;
                Encoder::Binary(Box::new(encoder), registration)
            }
            MessageFormat::Text(FormatOptions::Protobuf(options)) => {
                let fields = part.schema.fields();
                let made = options.encoder(fields).and_then(|encoder| Ok((encoder, options.registration(fields)?)));
                let (encoder, registration) = made.map_err(ConnectorError::option)?;
                Encoder::Binary(Box::new(encoder), registration)
            }
            MessageFormat::Text(format) => {
                let (name, nested) = match format {
                    FormatOptions::Csv(_) => ("csv", false),
                    FormatOptions::DebeziumJson(_) => ("debezium-json", true),
                    FormatOptions::UpsertJson(_) => ("upsert-json", true),
                    _ => ("json", true),
                };
                check_columns(&part.schema, name, nested)?;
                Encoder::Text(match format {
                    FormatOptions::Csv(csv) => Box::new(CsvEncoder::new(csv.clone(), part.schema.clone())),
                    FormatOptions::Json(json) => Box::new(JsonEncoder::new(json)),
                    FormatOptions::DebeziumJson(options) => {
                        Box::new(DebeziumEncoder::new(&options.json, changelog_key))
                    }
                    FormatOptions::UpsertJson(options) => Box::new(UpsertEncoder::new(&options.json, changelog_key)),
                    FormatOptions::Avro(_)
                    | FormatOptions::Parquet
                    | FormatOptions::Protobuf(_)
                    | FormatOptions::Raw => {
                        unreachable!("read elsewhere, or refused")
                    }
                })
            }
        };
        let (columns, schema) = (part.columns.clone(), part.schema.clone());
        let is_binary = matches!(encoder, Encoder::Binary(..));
        Ok(PartEncoder { columns, schema, encoder, is_binary, out: Vec::new(), ends: Vec::new() })
    }

    pub(crate) async fn register(&mut self, subject: &str) -> Result<(), ConnectorError> {
        if let Encoder::Binary(encoder, Some(Registration { registry, kind, schema })) = &mut self.encoder {
            let subject = registry.options.subject.as_deref().unwrap_or(subject);
            encoder.registered(registry.register(subject, *kind, schema).await?);
        }
        Ok(())
    }

    /// Encodes this part of all rows. `changes`: their kinds where the format takes them, `kinds`: in any case.
    pub(crate) fn encode(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        kinds: Option<&Int8Array>,
        table: &str,
    ) -> Result<(), ConnectorError> {
        self.out.clear();
        self.ends.clear();
        match &mut self.encoder {
            Encoder::Raw => self.ends.extend((0..rows.num_rows()).map(|row| (0, row))),
            Encoder::Text(encoder) | Encoder::Binary(encoder, _) => {
                let columns: Vec<ArrayRef> = self.columns.iter().map(|&column| rows.column(column).clone()).collect();
                // Rows that go away may know nothing but their key, also where the columns are NOT NULL.
                let fields =
                    self.schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
                let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
                let rows = RecordBatch::try_new(schema, columns).map_err(|error| {
                    ConnectorError::data(format!(
                        "rows for the sink '{table}' do not fit the declared columns: {error}; change the query or the declaration"
                    ))
                })?;
                let ends = &mut self.ends;
                let changes = if self.is_binary { kinds } else { changes };
                encoder.encode_each(&rows, changes, &mut self.out, &mut |row, end| ends.push((end, row)))?;
            }
        }
        Ok(())
    }

    /// The text of the `index`-th record.
    pub(crate) fn part<'a>(&'a self, index: usize, rows: &'a RecordBatch) -> Option<&'a [u8]> {
        let (end, row) = self.ends[index];
        match &self.encoder {
            Encoder::Text(_) | Encoder::Binary(..) => {
                let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
                // A line end is the file's, not the record's.
                Some(&self.out[start..end - usize::from(!self.is_binary)])
            }
            Encoder::Raw => {
                let column = rows.column(self.columns[0]);
                if column.is_null(row) {
                    return None;
                }
                match column.data_type() {
                    DataType::Binary => Some(column.as_binary::<i32>().value(row)),
                    _ => Some(column.as_string::<i32>().value(row).as_bytes()),
                }
            }
        }
    }
}

/// Positions in the value of the primary key's columns, which pair the two halves of an update.
fn key_in_value(table: &TableSpec, value: &Part) -> Vec<usize> {
    table.primary_key.iter().filter_map(|name| value.schema.index_of(name).ok()).collect()
}

fn is_headers(entries: &DataType) -> bool {
    matches!(entries, DataType::Struct(fields) if fields.len() == 2
        && fields[0].data_type() == &DataType::Utf8
        && fields[1].data_type() == &DataType::Binary)
}

fn milliseconds(column: &ArrayRef) -> Result<ArrayRef, ConnectorError> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    compute::cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone))
        .map_err(|error| ConnectorError::data(format!("a timestamp cannot be written in milliseconds: {error}")))
}

fn headers_of(headers: &MapArray, row: usize) -> Vec<(&str, Option<&[u8]>)> {
    if headers.is_null(row) {
        return Vec::new();
    }
    let (names, values) = (headers.keys().as_string::<i32>(), headers.values().as_binary::<i32>());
    let offsets = headers.value_offsets();
    let header = |i: usize| (names.value(i), values.is_valid(i).then(|| values.value(i)));
    (offsets[row] as usize..offsets[row + 1] as usize).map(header).collect()
}
