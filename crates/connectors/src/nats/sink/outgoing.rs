//! Messages to be published, as they are staged: a batch with a column each for subject, headers and payload. What a later
//! version of the program reads after an upgrade, so columns may be added, never changed.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BinaryBuilder, MapArray, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::super::layout::headers_type;

/// Gathers messages.
pub(super) struct OutgoingBuilder {
    subjects: StringBuilder,
    headers: MapBuilder<StringBuilder, StringBuilder>,
    payloads: BinaryBuilder,
}

impl OutgoingBuilder {
    /// No messages yet.
    pub(super) fn new() -> OutgoingBuilder {
        let names = MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        let headers = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        OutgoingBuilder { subjects: StringBuilder::new(), headers, payloads: BinaryBuilder::new() }
    }

    /// Adds a message. Subject and headers are such as NATS takes.
    pub(super) fn push<'a>(
        &mut self,
        subject: &str,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        payload: &[u8],
    ) -> Result<(), ArrowError> {
        self.subjects.append_value(subject);
        for (name, value) in headers {
            self.headers.keys().append_value(name);
            self.headers.values().append_value(value);
        }
        self.headers.append(true)?;
        self.payloads.append_value(payload);
        Ok(())
    }

    /// The messages so far.
    pub(super) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let schema = Schema::new(vec![
            Field::new("subject", DataType::Utf8, false),
            Field::new("headers", headers_type(), false),
            Field::new("payload", DataType::Binary, false),
        ]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(self.subjects.finish()), Arc::new(self.headers.finish()), Arc::new(self.payloads.finish())];
        RecordBatch::try_new(Arc::new(schema), columns)
    }
}

/// The messages of a batch.
pub(super) struct Outgoing<'a> {
    subjects: &'a StringArray,
    headers: &'a MapArray,
    payloads: &'a BinaryArray,
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct OutgoingMessage {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl<'a> Outgoing<'a> {
    /// Looks at a batch. None: it holds no messages.
    pub(super) fn of(batch: &'a RecordBatch) -> Option<Outgoing<'a>> {
        let column = |name: &str| batch.column_by_name(name);
        Some(Outgoing {
            subjects: column("subject")?.as_string_opt()?,
            headers: column("headers")?.as_map_opt()?,
            payloads: column("payload")?.as_binary_opt()?,
        })
    }

    /// A message, by its number. Headers that NATS does not take were refused before they were staged.
    pub(super) fn message(&self, number: usize) -> OutgoingMessage {
        let mut headers = HeaderMap::new();
        let entries = self.headers.value(number);
        let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        for at in 0..entries.len() {
            if let (Ok(name), Ok(value)) =
                (names.value(at).parse::<HeaderName>(), values.value(at).parse::<HeaderValue>())
            {
                headers.insert(name, value);
            }
        }
        OutgoingMessage {
            subject: self.subjects.value(number).to_owned(),
            headers,
            payload: Bytes::copy_from_slice(self.payloads.value(number)),
        }
    }

    /// About how many bytes a message takes.
    pub(super) fn size(&self, number: usize) -> usize {
        self.payloads.value_length(number) as usize + self.subjects.value_length(number) as usize
    }
}
