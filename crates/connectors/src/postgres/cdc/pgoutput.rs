//! Messages of the output plugin `pgoutput`, protocol version 1, as they stand in the stream of a slot. Begin and commit are
//! told by the transport; here are the changes between them. Format: "Logical Replication Message Formats" in PostgreSQL's
//! documentation. Never panics on the bytes that it is given.

use bytes::{Buf, Bytes};

/// A message that matters for changes of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// What tuples of a table hold; comes before the first of them, and again when it changes.
    Relation(Relation),
    Insert {
        relation: u32,
        new: Tuple,
    },
    Update {
        relation: u32,
        /// The old key, or the whole old row, where it is needed to find the row.
        old: Option<Old>,
        new: Tuple,
    },
    Delete {
        relation: u32,
        old: Old,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Nothing about rows.
    Other,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) id: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

/// What is known of a row before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// The columns of the replica identity; the others are NULL.
    Key(Tuple),
    /// The whole row.
    Row(Tuple),
}

impl Old {
    pub(super) fn tuple(&self) -> &Tuple {
        match self {
            Old::Key(tuple) | Old::Row(tuple) => tuple,
        }
    }
}

/// The values of a row, by the columns of its relation.
pub(super) type Tuple = Vec<Value>;

/// A value, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    /// A long value that the change has left as it was, and that is not sent again.
    Unchanged,
    Text(Bytes),
}

/// Reads a message. None where the bytes are none.
pub(super) fn decode(mut bytes: Bytes) -> Option<Message> {
    let kind = number8(&mut bytes)?;
    Some(match kind {
        b'R' => Message::Relation(relation(&mut bytes)?),
        b'I' => {
            let relation = number32(&mut bytes)?;
            (number8(&mut bytes)? == b'N').then_some(())?;
            Message::Insert { relation, new: tuple(&mut bytes)? }
        }
        b'U' => {
            let relation = number32(&mut bytes)?;
            let (old, marker) = match number8(&mut bytes)? {
                b'K' => (Some(Old::Key(tuple(&mut bytes)?)), number8(&mut bytes)?),
                b'O' => (Some(Old::Row(tuple(&mut bytes)?)), number8(&mut bytes)?),
                marker => (None, marker),
            };
            (marker == b'N').then_some(())?;
            Message::Update { relation, old, new: tuple(&mut bytes)? }
        }
        b'D' => {
            let relation = number32(&mut bytes)?;
            let old = match number8(&mut bytes)? {
                b'K' => Old::Key(tuple(&mut bytes)?),
                b'O' => Old::Row(tuple(&mut bytes)?),
                _ => return None,
            };
            Message::Delete { relation, old }
        }
        b'T' => {
            let count = number32(&mut bytes)?;
            number8(&mut bytes)?;
            Message::Truncate { relations: (0..count).map(|_| number32(&mut bytes)).collect::<Option<_>>()? }
        }
        // Types, origins, messages of users; begin and commit.
        b'Y' | b'O' | b'M' | b'B' | b'C' => Message::Other,
        _ => return None,
    })
}

fn relation(bytes: &mut Bytes) -> Option<Relation> {
    let (id, schema, name) = (number32(bytes)?, text(bytes)?, text(bytes)?);
    let _identity = number8(bytes)?;
    let count = number16(bytes)?;
    let column = |_| {
        let _flags = number8(bytes)?;
        let name = text(bytes)?;
        let (_data_type, _modifier) = (number32(bytes)?, number32(bytes)?);
        Some(name)
    };
    let columns = (0..count).map(column).collect::<Option<_>>()?;
    // No name stands for the catalog.
    let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
    Some(Relation { id, schema, name, columns })
}

fn tuple(bytes: &mut Bytes) -> Option<Tuple> {
    let count = number16(bytes)?;
    let value = |_| {
        Some(match number8(bytes)? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let length = usize::try_from(number32(bytes)?).ok()?;
                (bytes.remaining() >= length).then_some(())?;
                Value::Text(bytes.split_to(length))
            }
            _ => return None,
        })
    };
    (0..count).map(value).collect()
}

fn text(bytes: &mut Bytes) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
    bytes.advance(end + 1);
    Some(text)
}

fn number8(bytes: &mut Bytes) -> Option<u8> {
    bytes.try_get_u8().ok()
}

fn number16(bytes: &mut Bytes) -> Option<u16> {
    bytes.try_get_u16().ok()
}

fn number32(bytes: &mut Bytes) -> Option<u32> {
    bytes.try_get_u32().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[&[u8]]) -> Bytes {
        Bytes::from(parts.concat())
    }

    fn text_value(text: &str) -> Value {
        Value::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn changes_are_read() {
        let id = &[0, 0, 0x40, 1][..];
        let column = |name: &[u8]| [&[1], name, &[0, 0, 0, 0, 23, 0xff, 0xff, 0xff, 0xff]].concat();
        let relation = message(&[b"R", id, b"public\0t\0d\0\x02", &column(b"id"), &column(b"note")]);
        let expected = Relation {
            id: 16385,
            schema: "public".into(),
            name: "t".into(),
            columns: vec!["id".into(), "note".into()],
        };
        assert_eq!(decode(relation), Some(Message::Relation(expected)));
        let new = &b"N\0\x02t\0\0\0\x0242n"[..];
        let row = vec![text_value("42"), Value::Null];
        assert_eq!(decode(message(&[b"I", id, new])), Some(Message::Insert { relation: 16385, new: row.clone() }));
        let update = decode(message(&[b"U", id, b"K\0\x02t\0\0\0\x0141n".as_slice(), b""]));
        assert_eq!(update, None, "cut off");
        let update = decode(message(&[b"U", id, b"K\0\x02t\0\0\0\x017n", b"N\0\x02t\0\0\0\x018u"]));
        let old = Some(Old::Key(vec![text_value("7"), Value::Null]));
        let new = vec![text_value("8"), Value::Unchanged];
        assert_eq!(update, Some(Message::Update { relation: 16385, old, new }));
        let delete = decode(message(&[b"D", id, b"O\0\x02t\0\0\0\x0242n"]));
        assert_eq!(delete, Some(Message::Delete { relation: 16385, old: Old::Row(row) }));
        let truncate = decode(message(&[b"T", &[0, 0, 0, 1, 0], id]));
        assert_eq!(truncate, Some(Message::Truncate { relations: vec![16385] }));
    }

    #[test]
    fn broken_bytes_are_no_message() {
        let whole = message(&[b"U", &[0, 0, 0, 1], b"O\0\x02t\0\0\0\x0242nN\0\x02t\0\0\0\x0242n"]);
        for end in 0..whole.len() {
            assert_eq!(decode(whole.slice(..end)), None, "{end}");
        }
        assert_eq!(decode(Bytes::from_static(b"?")), None);
        assert_eq!(decode(Bytes::from_static(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff")), None);
    }
}
