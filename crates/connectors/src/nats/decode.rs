//! From messages to rows: payloads by the format, beside them what NATS knows of each message. Called by the reader of a
//! split; a pure function of the messages.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int8Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, RecordBatchOptions, StringArray,
    StringBuilder, TimestampNanosecondArray,
};
use arrow::compute;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::bad_records::BadRecordOptions;
use crate::error::ConnectorError;
use crate::format::RecordFault;
use crate::kafka::PartDecoder;
use crate::table::TableSpec;

use super::layout::{Layout, Metadata};

/// One message of a [`Chunk`].
#[derive(Debug)]
pub(super) struct Message {
    /// Its place in the stream.
    pub(super) sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub(super) stored_ns: i64,
    pub(super) subject: String,
    /// Where its payload lies in the chunk.
    pub(super) payload: Range<usize>,
    /// By name, each once; empty unless the table asks for them.
    pub(super) headers: Vec<(String, String)>,
}

/// Messages of one split, in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) messages: Vec<Message>,
    /// Payloads, to which the messages point.
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
    pub(super) messages: Vec<usize>,
    /// Messages before the broken one that were rejected, by number, and what is wrong with them.
    pub(super) rejects: Vec<(usize, RecordFault)>,
    /// The message that stops the decoder, by number.
    pub(super) fault: Option<(usize, RecordFault)>,
}

/// Where a column that is asked for comes from.
enum Origin {
    /// By position among the decoded columns.
    Payload(usize),
    Metadata(Metadata),
}

/// Decodes the chunks of a table.
pub(super) struct Decoder {
    stream: String,
    schema: SchemaRef,
    origins: Vec<Origin>,
    payload: PartDecoder,
}

impl Decoder {
    /// `wanted` are positions of columns in the table's schema, ascending.
    pub(super) fn new(
        table: &TableSpec,
        layout: &Layout,
        stream: &str,
        wanted: &[usize],
        bad_records: &BadRecordOptions,
    ) -> Result<Decoder, String> {
        let (mut of_payload, mut origins) = (Vec::new(), Vec::new());
        for &column in wanted {
            let metadata = layout.metadata.iter().find(|(of, _)| *of == column);
            match (metadata, layout.value.columns.iter().position(|of| *of == column)) {
                (Some((_, metadata)), _) => origins.push(Origin::Metadata(*metadata)),
                (None, Some(position)) => {
                    origins.push(Origin::Payload(of_payload.len()));
                    of_payload.push(position);
                }
                (None, None) => {
                    return Err(format!("bug: column '{}' is nowhere in a message", table.schema.field(column).name()));
                }
            }
        }
        let schema = Arc::new(table.schema.project(wanted).map_err(|error| error.to_string())?);
        let payload = PartDecoder::new(&layout.value, &of_payload, bad_records)?;
        Ok(Decoder { stream: stream.to_owned(), schema, origins, payload })
    }

    /// Asks the schema registry of the format, where it has one, about schemas that have not come up yet; to be called before
    /// the chunk is decoded.
    pub(super) async fn prepare(&mut self, chunk: &Chunk) -> Result<(), ConnectorError> {
        self.payload.prepare(chunk.messages.iter().map(|message| Some(&chunk.bytes[message.payload.clone()]))).await
    }

    /// Decodes a chunk.
    pub(super) fn decode(&mut self, chunk: &Chunk) -> Result<ChunkRows, String> {
        let payloads = chunk.messages.iter().map(|message| Some(&chunk.bytes[message.payload.clone()]));
        let decoded = self.payload.decode(payloads)?;
        let mut messages = Vec::new();
        for (number, count) in decoded.counts.iter().enumerate() {
            messages.extend(std::iter::repeat_n(number, *count as usize));
        }
        let of_rows = || messages.iter().map(|number| &chunk.messages[*number]);
        let columns = self.origins.iter().zip(self.schema.fields()).map(|(origin, field)| match origin {
            Origin::Payload(position) => Ok(decoded.columns[*position].clone()),
            Origin::Metadata(metadata) => {
                let column = metadata.column(&self.stream, of_rows());
                match metadata {
                    // Its fields may be named and nullable in another way than ours; the content is the same.
                    Metadata::Headers => Ok(with_type_of(&column, field)),
                    _ => compute::cast(&column, field.data_type()).map_err(|error| error.to_string()),
                }
            }
        });
        let columns = columns.collect::<Result<Vec<_>, String>>()?;
        let schema = match &decoded.changes {
            // Formats of changes give rows that know nothing but their key.
            Some(_) => nullable_where_null(&self.schema, &columns),
            None => self.schema.clone(),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(messages.len()));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())?;
        Ok(ChunkRows { rows, changes: decoded.changes, messages, rejects: decoded.rejects, fault: decoded.fault })
    }
}

impl Metadata {
    fn column<'a>(self, stream: &str, messages: impl Iterator<Item = &'a Message>) -> ArrayRef {
        match self {
            Metadata::Subject => Arc::new(StringArray::from_iter_values(messages.map(|message| &message.subject))),
            Metadata::Stream => Arc::new(StringArray::from_iter_values(messages.map(|_| stream))),
            Metadata::Sequence => {
                Arc::new(Int64Array::from_iter_values(messages.map(|message| number(message.sequence))))
            }
            Metadata::Timestamp => {
                let times = TimestampNanosecondArray::from_iter_values(messages.map(|message| message.stored_ns));
                Arc::new(times.with_timezone("UTC"))
            }
            Metadata::Headers => headers(messages),
        }
    }
}

/// A sequence as tables have it.
pub(super) fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn headers<'a>(messages: impl Iterator<Item = &'a Message>) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for message in messages {
        for (name, value) in &message.headers {
            builder.keys().append_value(name);
            builder.values().append_value(value);
        }
        builder.append(true).expect("as many values as keys");
    }
    Arc::new(builder.finish())
}

fn with_type_of(column: &ArrayRef, field: &Field) -> ArrayRef {
    let data = column.to_data().into_builder().data_type(field.data_type().clone()).build();
    data.map_or_else(|_| column.clone(), arrow::array::make_array)
}

fn nullable_where_null(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let fields = schema.fields().iter().zip(columns).map(|(field, column)| {
        let nullable = field.is_nullable() || column.null_count() > 0;
        field.as_ref().clone().with_nullable(nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};

    use super::*;
    use crate::bad_records::bad_record_options;
    use crate::table::METADATA_KEY;

    fn table(options: &[(&str, &str)]) -> TableSpec {
        let of = |name: &str, data_type: DataType| {
            Field::new(name, data_type, true).with_metadata([(METADATA_KEY.to_owned(), name.to_owned())].into())
        };
        let schema = Schema::new(vec![
            of("sequence", DataType::Int64),
            Field::new("a", DataType::Int64, true),
            of("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
            of("subject", DataType::Utf8),
            of("headers", super::super::layout::headers_type()),
        ]);
        let options = [&[("format", "json")], options].concat();
        TableSpec {
            name: "t".to_owned(),
            schema: Arc::new(schema),
            primary_key: vec![],
            partition_keys: vec![],
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn decode(table: &TableSpec, payloads: &[&str]) -> ChunkRows {
        let mut options = table.options();
        let layout = Layout::read(&mut options).unwrap();
        let bad_records = bad_record_options(table).unwrap();
        let mut decoder = Decoder::new(table, &layout, "S", &[0, 1, 2, 3, 4], &bad_records).unwrap();
        let mut chunk = Chunk::default();
        for (number, payload) in payloads.iter().enumerate() {
            let start = chunk.bytes.len();
            chunk.bytes.extend_from_slice(payload.as_bytes());
            chunk.messages.push(Message {
                sequence: 100 + number as u64,
                stored_ns: 1_000_000 * number as i64,
                subject: format!("s.{number}"),
                payload: start..chunk.bytes.len(),
                headers: vec![("h".to_owned(), number.to_string())],
            });
        }
        decoder.decode(&chunk).unwrap()
    }

    #[test]
    fn metadata_stays_beside_its_message_when_others_are_rejected() {
        let payloads = [r#"{"a":1}"#, "broken", "", r#"{"a":4}"#];
        let decoded = decode(&table(&[("bad-records", "drop")]), &payloads);
        assert_eq!((decoded.messages, decoded.rejects.len(), decoded.fault.is_none()), (vec![0, 3], 1, true));
        let rows = decoded.rows;
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[100, 103]);
        assert_eq!(rows.column(1).as_primitive::<Int64Type>().values(), &[1, 4]);
        assert_eq!(rows.column(2).as_primitive::<TimestampMillisecondType>().values(), &[0, 3]);
        assert_eq!(rows.column(3).as_string::<i32>().value(1), "s.3");
        assert_eq!(rows.column(4).as_map().value(1).column(1).as_string::<i32>().value(0), "3");
    }

    #[test]
    fn a_broken_message_ends_the_rows() {
        let decoded = decode(&table(&[]), &[r#"{"a":1}"#, "broken", r#"{"a":3}"#]);
        assert_eq!((decoded.rows.num_rows(), decoded.fault.unwrap().0), (1, 1));
    }

    #[test]
    fn metadata_is_checked() {
        let mut wrong = table(&[]);
        let field = Field::new("x", DataType::Int64, true);
        let field = field.with_metadata([(METADATA_KEY.to_owned(), "colour".to_owned())].into());
        wrong.schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), field]));
        let message = Layout::read(&mut wrong.options()).unwrap_err().message;
        assert!(message.contains("known: subject, sequence, timestamp, headers, stream"), "{message}");
    }
}
