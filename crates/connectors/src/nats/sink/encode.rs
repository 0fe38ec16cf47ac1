//! Rows to messages: the payload by the format, subject and headers out of metadata columns. What the stream or the server would
//! not take is refused here, before it is staged: a complete epoch must be one that can be published.

use arrow::array::{Array, AsArray, Int8Array, MapArray, RecordBatch, StringArray};
use async_nats::jetstream::stream::Info;
use async_nats::{HeaderName, HeaderValue};

use crate::error::ConnectorError;
use crate::kafka::PartEncoder;
use crate::table::TableSpec;

use super::super::layout::{Layout, Metadata};
use super::super::subject::{is_subject, overlap};
use super::outgoing::OutgoingBuilder;

/// Headers whose names begin so are the server's, and ours.
const RESERVED: &str = "nats-";
/// What older servers look for anywhere in a message's headers, also in the values of others.
const SOUGHT: [&str; 2] = ["Nats-Msg-Id", "Nats-Expected-"];
/// Bytes of the headers that the publisher adds to a message, at most.
const OWN_HEADERS_BYTES: usize = 1_024;

/// What a stream takes.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    stream: String,
    /// Patterns of its subjects.
    subjects: Vec<String>,
    /// Bytes of a message with its headers.
    message_bytes_max: usize,
}

impl Limits {
    /// Those of a stream on a server that takes payloads of so many bytes; `adds_headers`: whether they are published with
    /// headers of ours.
    pub(super) fn of(info: &Info, max_payload: usize, adds_headers: bool) -> Limits {
        let of_stream = usize::try_from(info.config.max_message_size).ok().filter(|bytes| *bytes > 0);
        let most = of_stream.map_or(max_payload, |bytes| bytes.min(max_payload));
        let message_bytes_max = most.saturating_sub(if adds_headers { OWN_HEADERS_BYTES } else { 0 });
        Limits { stream: info.config.name.clone(), subjects: info.config.subjects.clone(), message_bytes_max }
    }

    fn takes(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| overlap(pattern, subject))
    }
}

/// Encodes the rows of a table.
pub(super) struct MessageEncoder {
    table: String,
    payload: PartEncoder,
    /// For rows that do not say it themselves.
    subject: Option<String>,
    subjects: Option<usize>,
    headers: Option<usize>,
    /// The subject that was found to be one that the stream takes, last.
    checked: String,
}

impl MessageEncoder {
    /// For a table; refuses columns that the format cannot hold and metadata that cannot be written.
    pub(super) fn new(
        table: &TableSpec,
        layout: &Layout,
        subject: Option<&str>,
    ) -> Result<MessageEncoder, ConnectorError> {
        for (column, metadata) in &layout.metadata {
            if !matches!(metadata, Metadata::Subject | Metadata::Headers) {
                return Err(ConnectorError::option(format!(
                    "column '{}' of table '{}' is METADATA that cannot be written, only 'subject' and 'headers' can; declare it VIRTUAL",
                    table.schema.field(*column).name(),
                    table.name
                )));
            }
        }
        let key = table.primary_key.iter().filter_map(|name| layout.value.schema.index_of(name).ok()).collect();
        Ok(MessageEncoder {
            table: table.name.clone(),
            payload: PartEncoder::new(&layout.value, key)?,
            subject: subject.map(str::to_owned),
            subjects: layout.column_of(Metadata::Subject),
            headers: layout.column_of(Metadata::Headers),
            checked: String::new(),
        })
    }

    /// Has the schema registered that messages of the stream are written with, where the format wants it; to be called before
    /// the first of them.
    pub(super) async fn register(&mut self, limits: &Limits) -> Result<(), ConnectorError> {
        self.payload.register(&format!("{}-value", limits.stream)).await
    }

    /// The messages of the rows, in order, as they are staged.
    pub(super) fn encode(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        limits: &Limits,
    ) -> Result<RecordBatch, ConnectorError> {
        self.payload.encode(rows, changes, changes, &self.table)?;
        let subjects = self.subjects.map(|column| rows.column(column).as_string::<i32>());
        let headers = self.headers.map(|column| rows.column(column).as_map());
        let mut messages = OutgoingBuilder::new();
        let failed = |error| ConnectorError::data(format!("rows do not make messages: {error}"));
        for index in 0..self.payload.ends.len() {
            let row = self.payload.ends[index].1;
            let subject = self.subject_of(subjects, row, limits)?;
            let headers = headers.map(|headers| headers_of(headers, row)).unwrap_or_default();
            self.check_headers(&headers)?;
            let payload = self.payload.part(index, rows).unwrap_or_default();
            let of_headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
            let size = payload.len() + of_headers;
            if size > limits.message_bytes_max {
                return Err(self.wrong(format!(
                    "a message of {size} bytes for the subject '{subject}' is larger than stream and server take ({}); raise 'max_payload' of the server and 'max_msg_size' of the stream, or make the rows smaller",
                    limits.message_bytes_max
                )));
            }
            messages.push(&subject, headers.into_iter(), payload).map_err(failed)?;
            self.checked = subject;
        }
        messages.finish().map_err(failed)
    }

    fn subject_of(
        &self,
        subjects: Option<&StringArray>,
        row: usize,
        limits: &Limits,
    ) -> Result<String, ConnectorError> {
        let own = subjects.filter(|subjects| subjects.is_valid(row)).map(|subjects| subjects.value(row));
        let Some(subject) = own.or(self.subject.as_deref()) else {
            return Err(self.wrong(
                "a row has no subject (NULL); fill the column, or give the option 'subject' for such rows".to_owned(),
            ));
        };
        if subject == self.checked {
            return Ok(subject.to_owned());
        }
        if !is_subject(subject) {
            return Err(self.wrong(format!(
                "'{}' is no subject to publish to: it may hold no spaces, wildcards or empty parts",
                subject.escape_debug()
            )));
        }
        if !limits.takes(subject) {
            return Err(self.wrong(format!(
                "the stream '{}' does not take the subject '{subject}', only {}; change the subject or the stream",
                limits.stream,
                limits.subjects.join(", ")
            )));
        }
        Ok(subject.to_owned())
    }

    fn check_headers(&self, headers: &[(&str, &str)]) -> Result<(), ConnectorError> {
        for (name, value) in headers {
            let is_reserved = name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
            let is_legal = !name.is_empty()
                && !name.contains(' ')
                && name.parse::<HeaderName>().is_ok()
                && value.parse::<HeaderValue>().is_ok();
            let is_mistakable = SOUGHT.iter().any(|text| name.contains(text) || value.contains(text));
            if is_reserved || is_mistakable || !is_legal {
                let (name, value) = (name.escape_debug(), value.escape_debug());
                return Err(self.wrong(format!(
                    "'{name}: {value}' is no header that a row can have: names are ASCII without spaces and ':' and do not begin with 'Nats-', values have no line ends and hold neither 'Nats-Msg-Id' nor 'Nats-Expected-'"
                )));
            }
        }
        Ok(())
    }

    fn wrong(&self, what: String) -> ConnectorError {
        ConnectorError::data(format!("table '{}' cannot write a row: {what}", self.table))
    }
}

/// A row's headers; of several of a name the last is written, one without value is left out.
fn headers_of(headers: &MapArray, row: usize) -> Vec<(&str, &str)> {
    if headers.is_null(row) {
        return Vec::new();
    }
    let (names, values) = (headers.keys().as_string::<i32>(), headers.values().as_string::<i32>());
    let offsets = headers.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    range.filter(|i| values.is_valid(*i)).map(|i| (names.value(i), values.value(i))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::table::METADATA_KEY;

    fn encoded(subjects: Vec<Option<&str>>, texts: Vec<&str>) -> Result<Vec<(String, Vec<u8>)>, String> {
        let subject = Field::new("subject", DataType::Utf8, true);
        let subject = subject.with_metadata([(METADATA_KEY.to_owned(), "subject".to_owned())].into());
        let schema = Arc::new(Schema::new(vec![subject, Field::new("line", DataType::Utf8, true)]));
        let table = TableSpec {
            name: "t".to_owned(),
            schema: schema.clone(),
            primary_key: vec![],
            partition_keys: vec![],
            options: [("format".to_owned(), "raw".to_owned())].into(),
        };
        let layout = Layout::read(&mut table.options()).unwrap();
        let mut encoder = MessageEncoder::new(&table, &layout, Some("in.x")).unwrap();
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(subjects)), Arc::new(StringArray::from(texts))];
        let rows = RecordBatch::try_new(schema, columns).unwrap();
        let limits = Limits { stream: "S".to_owned(), subjects: vec!["in.*".to_owned()], message_bytes_max: 5 };
        let messages = encoder.encode(&rows, None, &limits).map_err(|error| error.message)?;
        let payloads: &BinaryArray = messages.column_by_name("payload").unwrap().as_binary();
        let subjects = messages.column_by_name("subject").unwrap().as_string::<i32>();
        Ok((0..messages.num_rows()).map(|i| (subjects.value(i).to_owned(), payloads.value(i).to_vec())).collect())
    }

    #[test]
    fn what_nobody_would_take_is_refused_before_it_is_staged() {
        let good = encoded(vec![Some("in.a"), None], vec!["1", "2"]).unwrap();
        assert_eq!(good, [("in.a".to_owned(), b"1".to_vec()), ("in.x".to_owned(), b"2".to_vec())]);
        for (subject, text, part) in [
            ("in.*", "1", "is no subject to publish to"),
            ("out.a", "1", "does not take the subject 'out.a', only in.*"),
            ("in.a", "123456", "a message of 6 bytes"),
        ] {
            let message = encoded(vec![Some(subject)], vec![text]).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
