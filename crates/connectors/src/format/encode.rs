//! Row formats, writing: Arrow rows to bytes. Called by the filesystem and print sinks, which own the files.
//! What is written here the decoders of this module read back, with the same options. All formats work a batch
//! at a time, on the arrays themselves, with no value boxed.

mod changelog;
mod csv;
mod json;
mod parquet;
mod text;
mod view;

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::error::ConnectorError;
use crate::format::{FormatOptions, RawEncoder};
use crate::schema_registry::{SchemaKind, SchemaRegistry};

pub(crate) use changelog::{DebeziumEncoder, UpsertEncoder, kind, updates};
pub(crate) use csv::{CsvEncoder, write_plain_value};
pub(crate) use json::{JsonEncoder, JsonMember};
pub(crate) use parquet::{ParquetEncoder, ParquetPacking};
pub(crate) use text::{
    Fraction, write_date, write_decimal, write_float, write_float32, write_time_of_day, write_timestamp,
    write_unsigned, write_whole,
};
pub(crate) use view::{ColumnView, Value};

/// What must be registered before records are written.
pub(crate) struct Registration {
    pub(crate) registry: Arc<SchemaRegistry>,
    pub(crate) kind: SchemaKind,
    /// Its text.
    pub(crate) schema: String,
}

/// Writes rows as records: lines of text, messages or blocks of a file.
pub(crate) trait TextEncoder: Send {
    /// The id that the registry has for the schema of the records, where one is to be told of it.
    fn registered(&mut self, _id: i32) {}

    /// What stands at the beginning of each file.
    fn begin_file(&self, out: &mut Vec<u8>);

    /// Appends the rows to `out`. The rows have the schema that the encoder was made for. `changes`: the kind of each
    /// row; none, and always so for formats that cannot tell: all are inserts.
    fn encode(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        self.encode_each(rows, changes, out, &mut |_, _| {})
    }

    /// As [`TextEncoder::encode`]; behind each record, which ends with a line end, `each` is given the row with which it
    /// began and the length of `out`. A row may have no record of its own.
    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError>;
}

/// The encoder of a format whose records are texts; none for others. `key`: positions of the primary key's columns, which
/// pair the two halves of an update.
pub(crate) fn text_encoder(
    format: &FormatOptions,
    schema: &SchemaRef,
    key: Vec<usize>,
) -> Option<Box<dyn TextEncoder>> {
    Some(match format {
        FormatOptions::Json(json) => Box::new(JsonEncoder::new(json)),
        FormatOptions::Csv(csv) => Box::new(CsvEncoder::new(csv.clone(), schema.clone())),
        FormatOptions::Raw => Box::new(RawEncoder),
        FormatOptions::DebeziumJson(options) => Box::new(DebeziumEncoder::new(&options.json, key)),
        FormatOptions::UpsertJson(options) => Box::new(UpsertEncoder::new(&options.json, key)),
        _ => return None,
    })
}

/// Refuses columns that text formats cannot hold: of types that no table has, and, unless `nested`, rows,
/// arrays and maps. `format` is for the message.
pub(crate) fn check_columns(schema: &Schema, format: &str, nested: bool) -> Result<(), ConnectorError> {
    for field in schema.fields() {
        if !can_hold(field.data_type(), nested) {
            let kind = match field.data_type() {
                DataType::Struct(_) => "ROW".to_owned(),
                DataType::List(_) => "ARRAY".to_owned(),
                DataType::Map(_, _) => "MAP".to_owned(),
                other => other.to_string(),
            };
            return Err(ConnectorError::option(format!(
                "column '{}' has the type {kind}, which the format '{format}' cannot hold; use another format or cast the column",
                field.name()
            )));
        }
    }
    Ok(())
}

fn can_hold(data_type: &DataType, nested: bool) -> bool {
    match data_type {
        DataType::Struct(fields) => nested && fields.iter().all(|f| can_hold(f.data_type(), true)),
        DataType::List(element) => nested && can_hold(element.data_type(), true),
        DataType::Map(entries, _) => nested && can_hold(entries.data_type(), true),
        other => view::is_plain(other),
    }
}

#[cfg(test)]
mod tests;
