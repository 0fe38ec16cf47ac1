//! What the formats of changes share: finding the parts of a record, and rows that can be told by their key alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::change::ChangeKind;

use super::object::ObjectReader;
use super::scan::{Cursor, unescape};
use crate::format::fault::{Fault, Faulty};
use crate::format::options::JsonOptions;

/// The object of a record, and nothing behind it; none where the record is blank or `null`, which is how a deleted
/// key is followed up in a compacted log.
pub(super) fn open_record<'a>(record: &'a [u8]) -> Faulty<Option<Cursor<'a>>> {
    let mut cursor = Cursor { bytes: record.trim_ascii_end(), at: 0 };
    cursor.skip_space();
    match cursor.peek() {
        b'{' => Ok(Some(cursor)),
        _ if cursor.at == cursor.bytes.len() || &cursor.bytes[cursor.at..] == b"null" => Ok(None),
        _ => Err(cursor.unexpected("a JSON object")),
    }
}

/// Passes over the object at the cursor and gives where the values of some of its keys begin; none for a key that
/// is missing or whose value is null. Of a key that comes twice the last counts.
pub(super) fn locate<const N: usize>(cursor: &mut Cursor<'_>, wanted: [&[u8]; N]) -> Faulty<[Member; N]> {
    let mut found = [Member::Missing; N];
    cursor.at += 1;
    cursor.skip_space();
    if cursor.peek() == b'}' {
        cursor.at += 1;
        return Ok(found);
    }
    let mut unescaped = Vec::new();
    loop {
        let start = cursor.at;
        let (raw, escaped) = cursor.key()?;
        let mut name = raw;
        if escaped {
            unescaped.clear();
            unescape(raw, &mut unescaped).map_err(|reason| Fault::new(start, reason))?;
            name = &unescaped;
        }
        let nth = wanted.iter().position(|key| *key == name);
        let at = cursor.at;
        cursor.skip_value()?;
        if let Some(nth) = nth {
            found[nth] = if cursor.bytes[at] == b'n' { Member::Null } else { Member::At(at) };
        }
        if cursor.next_member(b'}')? {
            return Ok(found);
        }
    }
}

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// It is not there.
    Missing,
    /// Its value is null.
    Null,
    /// Its value begins here.
    At(usize),
}

impl Member {
    /// Where the value begins, unless it is missing or null.
    pub(super) fn value(self) -> Option<usize> {
        match self {
            Member::At(at) => Some(at),
            Member::Missing | Member::Null => None,
        }
    }
}

/// A cursor at the object that is the value of the named member.
pub(super) fn object_at<'a>(bytes: &'a [u8], at: usize, name: &str) -> Faulty<Cursor<'a>> {
    let cursor = Cursor { bytes, at };
    if cursor.peek() == b'{' { Ok(cursor) } else { Err(cursor.unexpected("an object").inside(name)) }
}

/// The kinds of the rows of a batch.
#[derive(Default)]
pub(in crate::format) struct Kinds(Vec<i8>);

impl Kinds {
    /// Appends one.
    pub(in crate::format) fn push(&mut self, kind: ChangeKind) {
        self.0.push(kind as i8);
    }

    /// Drops all but the first.
    pub(in crate::format) fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    /// All of them, unless all are inserts; begins anew.
    pub(in crate::format) fn finish(&mut self) -> Option<Int8Array> {
        let kinds = std::mem::take(&mut self.0);
        let only_inserts = kinds.iter().all(|kind| *kind == ChangeKind::Insert as i8);
        (!only_inserts).then(|| Int8Array::from(kinds))
    }
}

/// Rows of which some are only known by their key, with NULL in all other columns, even in those that are NOT NULL.
pub(super) struct KeyedRows {
    schema: SchemaRef,
    key: ObjectReader,
    rest: ObjectReader,
    /// For each column whether it belongs to the key.
    is_key: Vec<bool>,
}

impl KeyedRows {
    /// A reader of the schema's columns; `key` names those of the key.
    pub(super) fn new(schema: &Schema, key: &[String], options: &JsonOptions) -> Result<KeyedRows, String> {
        let is_key: Vec<bool> = schema.fields().iter().map(|field| key.contains(field.name())).collect();
        let some = |wanted: bool| -> Fields {
            let fields = schema.fields().iter().zip(&is_key);
            fields.filter(|(_, is_key)| **is_key == wanted).map(|(field, _)| Arc::clone(field)).collect()
        };
        let (key, rest) = (ObjectReader::new(&some(true), options)?, ObjectReader::new(&some(false), options)?);
        let fields = schema.fields().iter().zip(&is_key).map(|(field, is_key)| match is_key {
            true => Arc::clone(field),
            false => Arc::new(Field::new(field.name(), field.data_type().clone(), true)),
        });
        Ok(KeyedRows { schema: Arc::new(Schema::new(fields.collect::<Fields>())), key, rest, is_key })
    }

    /// Reads a row: its key out of one object, the other columns out of another; without that one they are NULL.
    pub(super) fn read(&mut self, key: &mut Cursor<'_>, rest: Option<&mut Cursor<'_>>) -> Faulty<()> {
        self.key.read(key)?;
        match rest {
            Some(rest) => self.rest.read(rest),
            None => {
                self.rest.append_masked();
                Ok(())
            }
        }
    }

    /// Drops all but the first `rows` rows, and parts of rows.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.key.truncate(rows);
        self.rest.truncate(rows);
    }

    /// The rows so far; begins anew.
    pub(super) fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let mut key = self.key.finish()?.into_iter();
        let mut rest = self.rest.finish()?.into_iter();
        let columns = self.is_key.iter().map(|is_key| if *is_key { key.next() } else { rest.next() });
        let columns: Option<Vec<ArrayRef>> = columns.collect();
        let columns = columns.expect("each column is read by one of the two");
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }
}
