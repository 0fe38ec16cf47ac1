//! Decodes the keys, or the values, of messages.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int8Array, StringBuilder};
use arrow::datatypes::DataType;

use crate::bad_records::{BadRecordOptions, OnError};
use crate::error::ConnectorError;
use crate::format::{MessageRows, RecordFault, TextDecoder};

use super::super::options::{MessageFormat, Part};

/// Decodes one part of messages.
pub(crate) enum PartDecoder {
    Text(Box<TextDecoder>),
    /// The one column as it is, where it is asked for.
    Raw(Option<DataType>, OnError),
}

/// A part of all messages.
pub(crate) struct Decoded {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) changes: Option<Int8Array>,
    pub(crate) counts: Vec<u32>,
    /// Broken ones that did not stop the decoder, by their number.
    pub(crate) rejects: Vec<(usize, RecordFault)>,
    pub(crate) fault: Option<(usize, RecordFault)>,
}

impl PartDecoder {
    /// `columns` are positions in the part's schema, ascending.
    pub(crate) fn new(part: &Part, columns: &[usize], bad_records: &BadRecordOptions) -> Result<PartDecoder, String> {
        match &part.format {
            MessageFormat::Text(format) => {
                let on_error = bad_records.on_error(format.ignores_errors());
                let decoder = TextDecoder::new(format, &part.schema, columns, None)?.with(on_error, false);
                Ok(PartDecoder::Text(Box::new(decoder)))
            }
            MessageFormat::Raw => {
                let wanted = columns.first().map(|&column| part.schema.field(column).data_type().clone());
                Ok(PartDecoder::Raw(wanted, bad_records.on_error(false)))
            }
        }
    }

    /// Asks the schema registry, where the format has one, what it needs to know of this part of the messages.
    pub(crate) async fn prepare<'a>(
        &mut self,
        messages: impl Iterator<Item = Option<&'a [u8]>> + Clone,
    ) -> Result<(), ConnectorError> {
        match self {
            PartDecoder::Text(decoder) => decoder.prepare(messages).await,
            PartDecoder::Raw(..) => Ok(()),
        }
    }

    /// Decodes this part of all messages, or of those before the first broken one.
    pub(crate) fn decode<'a>(&mut self, messages: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Decoded, String> {
        match self {
            PartDecoder::Text(decoder) => {
                let MessageRows { rows, changes, counts, rejects, fault } = decoder.decode_messages(messages)?;
                Ok(Decoded { columns: rows.columns().to_vec(), changes, counts, rejects, fault })
            }
            PartDecoder::Raw(wanted, on_error) => {
                let messages: Vec<Option<&[u8]>> = messages.collect();
                raw(wanted.as_ref(), *on_error, &messages)
            }
        }
    }
}

fn raw(wanted: Option<&DataType>, on_error: OnError, messages: &[Option<&[u8]>]) -> Result<Decoded, String> {
    let mut counts: Vec<u32> = messages.iter().map(|message| u32::from(message.is_some())).collect();
    let (mut rejects, mut fault) = (Vec::new(), None);
    let column: Option<ArrayRef> = match wanted {
        None => None,
        Some(DataType::Binary) => Some(Arc::new(BinaryArray::from_iter_values(messages.iter().flatten().copied()))),
        Some(_) => {
            let mut texts = StringBuilder::new();
            for (number, message) in messages.iter().enumerate() {
                match message.map(std::str::from_utf8) {
                    None => {}
                    Some(Ok(text)) => texts.append_value(text),
                    Some(Err(error)) => {
                        let reason = "the text is not valid UTF-8; declare the column as BYTES".to_owned();
                        let broken = RecordFault { at: error.valid_up_to(), lines: 0, reason, excerpt: String::new() };
                        if on_error == OnError::Stop {
                            counts.truncate(number);
                            fault = Some((number, broken));
                            break;
                        }
                        counts[number] = 0;
                        rejects.push((number, broken));
                    }
                }
            }
            Some(Arc::new(texts.finish()))
        }
    };
    Ok(Decoded { columns: column.into_iter().collect(), changes: None, counts, rejects, fault })
}
