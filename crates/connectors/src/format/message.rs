//! Messages to rows: each message is one record, with no search for its end. Called by the Kafka source. A pure
//! function of the messages.

use std::collections::BTreeSet;

use arrow::array::{Int8Array, RecordBatch};
use futures::StreamExt;

use super::block::{EXCERPT_MAX, Format, RecordDecoder, RecordFault, TextDecoder, check_utf8, without_return};
use super::fault::{Fault, excerpt};
use super::registered::SchemaKey;
use crate::bad_records::OnError;
use crate::error::ConnectorError;
use crate::format::FormatOptions;
use crate::schema_registry::{RegisteredSchema, SchemaRegistry};
use crate::table::TableSpec;

/// Requests to a schema registry that are under way at once.
const ASKED_AT_ONCE: usize = 8;

/// The rows of some messages.
#[derive(Debug)]
pub(crate) struct MessageRows {
    /// The rows of all messages before the broken one, in order.
    pub(crate) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(crate) changes: Option<Int8Array>,
    /// How many rows each message has given, broken ones that were dropped none.
    pub(crate) counts: Vec<u32>,
    /// Broken messages that were not to stop the decoder, by their number in the call, in order.
    pub(crate) rejects: Vec<(usize, RecordFault)>,
    /// The message at which decoding stopped, by its number in the call.
    pub(crate) fault: Option<(usize, RecordFault)>,
}

impl TextDecoder {
    /// Decodes messages, one record each; a message without content gives no row. The error is of rows that make
    /// no batch.
    pub(crate) fn decode_messages<'a>(
        &mut self,
        messages: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<MessageRows, String> {
        let on_error = self.on_error;
        match &mut self.format {
            Format::Avro(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Protobuf(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Json(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Csv(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Debezium(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Upsert(decoder) => decode_all(decoder.as_mut(), messages, on_error),
            Format::Raw(decoder) => decode_all(decoder.as_mut(), messages, on_error),
        }
    }
}

impl TextDecoder {
    /// Asks the schema registry, where the format has one, about all schemas that the messages name and that have not come
    /// up yet. To be called before [`TextDecoder::decode_messages`]; may wait for the registry.
    ///
    /// # Errors
    /// Where the registry does not answer, or refuses. That it does not know a schema is found with the message.
    pub(crate) async fn prepare<'a>(
        &mut self,
        messages: impl Iterator<Item = Option<&'a [u8]>> + Clone,
    ) -> Result<(), ConnectorError> {
        match &mut self.format {
            Format::Avro(decoder) => match decoder.registry() {
                Some(registry) => learn_all(decoder.as_mut(), &registry, messages).await,
                None => Ok(()),
            },
            Format::Protobuf(decoder) => match decoder.registry() {
                Some(registry) => learn_all(decoder.as_mut(), &registry, messages).await,
                None => Ok(()),
            },
            Format::Json(_) | Format::Csv(_) | Format::Debezium(_) | Format::Upsert(_) | Format::Raw(_) => Ok(()),
        }
    }
}

/// A decoder of records that name their schema.
pub(super) trait LearningDecoder {
    /// The schema that a record names, if it is not known yet.
    fn unknown(&self, record: &[u8]) -> Option<SchemaKey>;

    /// Forgets schemas where there are too many for some more.
    fn make_room(&mut self, wanted: usize);

    /// Takes note of what the registry says of a schema; none: it does not know it.
    fn learn(&mut self, registry: &SchemaRegistry, key: SchemaKey, found: Option<&RegisteredSchema>);
}

async fn learn_all<'a, D: LearningDecoder>(
    decoder: &mut D,
    registry: &SchemaRegistry,
    messages: impl Iterator<Item = Option<&'a [u8]>> + Clone,
) -> Result<(), ConnectorError> {
    let unknown =
        |decoder: &D| messages.clone().flatten().filter_map(|record| decoder.unknown(record)).collect::<BTreeSet<_>>();
    let mut keys = unknown(decoder);
    if keys.is_empty() {
        return Ok(());
    }
    decoder.make_room(keys.len());
    // What was forgotten may be named here too.
    keys.append(&mut unknown(decoder));
    let asked =
        keys.into_iter().map(|key| async move { Ok::<_, ConnectorError>((key, registry.schema(key.id).await?)) });
    let mut answers = futures::stream::iter(asked).buffered(ASKED_AT_ONCE);
    while let Some(answer) = answers.next().await {
        let (key, found) = answer?;
        decoder.learn(registry, key, found.as_deref());
    }
    Ok(())
}

/// Decodes messages of the format of a table, as a reader of messages does, some thousands at once, and gives the number of rows.
/// For measurements: nothing waits for a registry, and nothing is delivered.
///
/// # Errors
/// Options that are wrong, and the first message that is.
pub fn decode_messages(table: &TableSpec, messages: &[Vec<u8>]) -> Result<usize, ConnectorError> {
    const CHUNK: usize = 8_192;
    let format = FormatOptions::read(&mut table.options())?;
    let columns: Vec<usize> = (0..table.schema.fields().len()).collect();
    let mut decoder = TextDecoder::new(&format, &table.schema, &columns, None).map_err(ConnectorError::option)?;
    let mut rows = 0;
    for chunk in messages.chunks(CHUNK) {
        let decoded = decoder.decode_messages(chunk.iter().map(|message| Some(&message[..])));
        let decoded = decoded.map_err(ConnectorError::data)?;
        if let Some((number, fault)) = decoded.fault {
            return Err(ConnectorError::data(format!("message {number} of a chunk: {}", fault.reason)));
        }
        rows += decoded.rows.num_rows();
    }
    Ok(rows)
}

fn decode_all<'a, D: RecordDecoder>(
    decoder: &mut D,
    messages: impl Iterator<Item = Option<&'a [u8]>>,
    on_error: OnError,
) -> Result<MessageRows, String> {
    let mut counts = Vec::with_capacity(messages.size_hint().0);
    let (mut rows, mut rejects, mut fault) = (0, Vec::new(), None);
    for (number, message) in messages.enumerate() {
        let (record, decoded) = match message {
            Some(message) if decoder.is_binary() => (message, decoder.decode(message)),
            other => {
                let record = other.map_or(&[][..], without_line_end);
                let nothing = record.is_empty();
                (record, if nothing { Ok(0) } else { check_utf8(record).and_then(|()| decoder.decode(record)) })
            }
        };
        match decoded {
            Ok(appended) => {
                rows += appended;
                counts.push(u32::try_from(appended).expect("a record gives a few rows"));
            }
            Err(broken) if on_error != OnError::Stop && !broken.stops => {
                decoder.truncate(rows);
                rejects.push((number, report(record, &broken)));
                counts.push(0);
            }
            Err(broken) => {
                decoder.truncate(rows);
                fault = Some((number, report(record, &broken)));
                break;
            }
        }
    }
    let changes = decoder.finish_changes();
    let rows = decoder.finish(rows).map_err(|error| format!("the messages do not make a batch of rows: {error}"))?;
    Ok(MessageRows { rows, changes, counts, rejects, fault })
}

/// A producer that writes lines may have left their ends.
fn without_line_end(message: &[u8]) -> &[u8] {
    match message.strip_suffix(b"\n") {
        Some(line) => &line[..without_return(line)],
        None => message,
    }
}

#[cold]
fn report(record: &[u8], fault: &Fault) -> RecordFault {
    let excerpt = excerpt(record, fault.at, EXCERPT_MAX);
    RecordFault { at: fault.at, lines: 0, reason: fault.describe(), excerpt }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;
    use crate::format::JsonOptions;

    fn decode(messages: &[Option<&[u8]>], ignore_parse_errors: bool) -> MessageRows {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        let options = JsonOptions { ignore_parse_errors, ..JsonOptions::default() };
        let mut decoder = TextDecoder::json(schema, &options).unwrap();
        decoder.decode_messages(messages.iter().copied()).unwrap()
    }

    fn values(rows: &MessageRows) -> Vec<i32> {
        rows.rows.column(0).as_primitive::<Int32Type>().values().to_vec()
    }

    #[test]
    fn a_message_is_a_record_whatever_line_ends_it_holds() {
        let messages = [Some(&b"{\"a\":\n1}"[..]), None, Some(b""), Some(b"{\"a\":2}\r\n"), Some(b"{\"a\":3}")];
        let rows = decode(&messages, false);
        assert_eq!(values(&rows), [1, 2, 3]);
        assert_eq!((rows.counts, rows.rejects, rows.fault), (vec![1, 0, 0, 1, 1], vec![], None));
    }

    #[test]
    fn a_broken_message_is_named_by_its_number_or_dropped() {
        let messages = [Some(&b"{\"a\":1}"[..]), Some(b"{\"a\":1}{"), Some(b"\xff"), Some(b"{\"a\":2}")];
        let rows = decode(&messages, false);
        assert_eq!((values(&rows), rows.counts.clone()), (vec![1], vec![1]));
        let (number, fault) = rows.fault.unwrap();
        assert_eq!((number, fault.at, fault.excerpt.as_str()), (1, 7, "{\"a\":1}{"));
        let rows = decode(&messages, true);
        let rejects: Vec<usize> = rows.rejects.iter().map(|(number, _)| *number).collect();
        assert_eq!((values(&rows), rejects, rows.counts), (vec![1, 2], vec![1, 2], vec![1, 0, 0, 1]));
    }
}
