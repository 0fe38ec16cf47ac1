//! What Kafka knows of a message beside key and value, as columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, MapBuilder, MapFieldNames, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::ConnectorError;
use crate::table::TableSpec;

use super::super::options::Layout;
use super::{Decoder, Message, Stamp};

/// What Kafka says about a message, under the names of Flink's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Headers,
}

const METADATA: [(&str, Metadata); 6] = [
    ("topic", Metadata::Topic),
    ("partition", Metadata::Partition),
    ("offset", Metadata::Offset),
    ("timestamp", Metadata::Timestamp),
    ("timestamp-type", Metadata::TimestampType),
    ("headers", Metadata::Headers),
];

impl Metadata {
    /// By its name.
    pub(super) fn of_key(key: &str) -> Option<Metadata> {
        METADATA.iter().find(|(name, _)| *name == key).map(|(_, metadata)| *metadata)
    }
}

impl Layout {
    /// Refuses metadata that messages do not have, or that cannot be given the declared type.
    pub(in crate::kafka) fn check_metadata(&self, table: &TableSpec) -> Result<(), ConnectorError> {
        for (column, key) in &self.metadata {
            let field = table.schema.field(*column);
            let Some(metadata) = Metadata::of_key(key) else {
                let known: Vec<&str> = METADATA.iter().map(|(name, _)| *name).collect();
                return Err(ConnectorError::option(format!(
                    "column '{}' of table '{}' is METADATA FROM '{key}', which messages do not have; known: {}",
                    field.name(),
                    table.name,
                    known.join(", ")
                )));
            };
            let from = metadata.data_type();
            if !compute::can_cast_types(&from, field.data_type()) {
                return Err(ConnectorError::option(format!(
                    "column '{}' of table '{}' is METADATA FROM '{key}' and must be of type {}",
                    field.name(),
                    table.name,
                    metadata.sql_type()
                )));
            }
        }
        Ok(())
    }

    /// Whether the table reads or writes headers.
    pub(in crate::kafka) fn has_headers(&self) -> bool {
        self.metadata.iter().any(|(_, key)| key == "headers")
    }
}

impl Metadata {
    fn data_type(self) -> DataType {
        match self {
            Metadata::Topic | Metadata::TimestampType => DataType::Utf8,
            Metadata::Partition => DataType::Int32,
            Metadata::Offset => DataType::Int64,
            Metadata::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Metadata::Headers => headers_type(),
        }
    }

    fn sql_type(self) -> &'static str {
        match self {
            Metadata::Topic | Metadata::TimestampType => "STRING",
            Metadata::Partition => "INT",
            Metadata::Offset => "BIGINT",
            Metadata::Timestamp => "TIMESTAMP_LTZ(3)",
            Metadata::Headers => "MAP<STRING, BYTES>",
        }
    }

    /// The column of all messages.
    pub(super) fn column(self, decoder: &Decoder, messages: &[Message]) -> ArrayRef {
        let count = messages.len();
        let stamp = |message: &Message| match message.stamp {
            Stamp::None => None,
            Stamp::Create(ms) | Stamp::Append(ms) => Some(ms),
        };
        match self {
            Metadata::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&decoder.topic, count))),
            Metadata::Partition => Arc::new(Int32Array::from(vec![decoder.partition; count])),
            Metadata::Offset => Arc::new(Int64Array::from_iter_values(messages.iter().map(|m| m.offset))),
            Metadata::Timestamp => {
                let times: TimestampMillisecondArray = messages.iter().map(stamp).collect();
                Arc::new(times.with_timezone("UTC"))
            }
            Metadata::TimestampType => {
                let word = |message: &Message| match message.stamp {
                    Stamp::None => "NoTimestampType",
                    Stamp::Create(_) => "CreateTime",
                    Stamp::Append(_) => "LogAppendTime",
                };
                Arc::new(StringArray::from_iter_values(messages.iter().map(word)))
            }
            Metadata::Headers => headers(messages),
        }
    }
}

/// `MAP<STRING, BYTES>` as tables have it.
pub(super) fn headers_type() -> DataType {
    let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
}

fn headers(messages: &[Message]) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), BinaryBuilder::new());
    for message in messages {
        for (number, (name, value)) in message.headers.iter().enumerate() {
            // A map has each key once; the last header of a name counts.
            if message.headers[number + 1..].iter().all(|(later, _)| later != name) {
                builder.keys().append_value(name);
                builder.values().append_option(value.as_deref());
            }
        }
        builder.append(true).expect("as many values as keys");
    }
    Arc::new(builder.finish())
}
