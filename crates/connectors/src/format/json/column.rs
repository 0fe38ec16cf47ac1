//! Columns that read JSON values: scalars, and the nested types ROW, ARRAY and MAP, which hold columns
//! themselves. The depth of the recursion is that of the declared type.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, NullBufferBuilder, StructArray};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::object::ObjectReader;
use super::scan::{Cursor, unescape};
use crate::format::column::{ScalarColumn, type_name};
use crate::format::fault::{Fault, Faulty};
use crate::format::offsets::{last, length, renew};
use crate::format::options::JsonOptions;

/// A column of any type.
pub(super) enum JsonColumn {
    Scalar(ScalarReader),
    Row(Box<RowColumn>),
    List(Box<ListColumn>),
    Map(Box<MapColumn>),
}

/// A scalar column and the room to unescape strings in.
pub(super) struct ScalarReader {
    column: ScalarColumn,
    unescaped: Vec<u8>,
}

/// Values of type ROW.
pub(super) struct RowColumn {
    fields: Fields,
    nullable: bool,
    object: ObjectReader,
    nulls: NullBufferBuilder,
}

/// Values of type ARRAY.
pub(super) struct ListColumn {
    item: FieldRef,
    nullable: bool,
    items: JsonColumn,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

/// Values of type MAP, whose keys are strings.
pub(super) struct MapColumn {
    entries: FieldRef,
    sorted: bool,
    nullable: bool,
    keys: ScalarColumn,
    values: JsonColumn,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    /// The entries of the map that is being read; kept for their capacity.
    scratch: MapEntries,
}

#[derive(Default)]
struct MapEntries {
    /// Keys without escapes, one after the other.
    bytes: Vec<u8>,
    /// The key's place in `bytes`, and the place of its value in the record.
    entries: Vec<(Range<usize>, usize)>,
}

/// Maps up to this size find their doubled keys by comparing all pairs.
const PAIRWISE_MAX: usize = 16;

impl JsonColumn {
    /// A column of the type; an error says what cannot be read.
    pub(super) fn new(data_type: &DataType, nullable: bool, options: &JsonOptions) -> Result<JsonColumn, String> {
        if let Some(column) = ScalarColumn::new(data_type, nullable, options.timestamps) {
            return Ok(JsonColumn::Scalar(ScalarReader { column, unescaped: Vec::new() }));
        }
        let nulls = NullBufferBuilder::new(0);
        match data_type {
            DataType::Struct(fields) => {
                let object = ObjectReader::new(fields, options)?;
                Ok(JsonColumn::Row(Box::new(RowColumn { fields: fields.clone(), nullable, object, nulls })))
            }
            DataType::List(item) => {
                let items = JsonColumn::new(item.data_type(), item.is_nullable(), options)?;
                Ok(JsonColumn::List(Box::new(ListColumn {
                    item: Arc::clone(item),
                    nullable,
                    items,
                    offsets: vec![0],
                    nulls,
                })))
            }
            DataType::Map(entries, sorted) => {
                let column = MapColumn::new(entries, *sorted, nullable, options)?;
                Ok(JsonColumn::Map(Box::new(column)))
            }
            other => Err(format!("json cannot hold the type {}", type_name(other))),
        }
    }

    /// How many values it holds.
    pub(super) fn len(&self) -> usize {
        match self {
            JsonColumn::Scalar(reader) => reader.column.len(),
            JsonColumn::Row(column) => column.nulls.len(),
            JsonColumn::List(column) => column.nulls.len(),
            JsonColumn::Map(column) => column.nulls.len(),
        }
    }

    /// Reads the value at the cursor and appends it.
    #[inline]
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        match self {
            JsonColumn::Scalar(reader) => reader.read(cursor),
            nested => nested.read_nested(cursor),
        }
    }

    fn read_nested(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        let start = cursor.at;
        if cursor.peek() == b'n' {
            cursor.word(b"null")?;
            return self.append_null().map_err(|fault| fault.located(start));
        }
        match self {
            JsonColumn::Scalar(reader) => reader.read(cursor),
            JsonColumn::Row(column) => {
                expect(cursor, b'{', "an object for ROW")?;
                column.object.read(cursor)?;
                column.nulls.append_non_null();
                Ok(())
            }
            JsonColumn::List(column) => column.read(cursor),
            JsonColumn::Map(column) => column.read(cursor),
        }
    }

    /// Appends NULL, which a NOT NULL column refuses.
    pub(super) fn append_null(&mut self) -> Faulty<()> {
        let nullable = match self {
            JsonColumn::Scalar(reader) => return reader.column.append_null(),
            JsonColumn::Row(column) => column.nullable,
            JsonColumn::List(column) => column.nullable,
            JsonColumn::Map(column) => column.nullable,
        };
        if !nullable {
            return Err(Fault::new(0, "NULL in a NOT NULL column"));
        }
        self.append_masked();
        Ok(())
    }

    /// Appends a value that nobody sees because the row around it is NULL.
    pub(super) fn append_masked(&mut self) {
        match self {
            JsonColumn::Scalar(reader) => reader.column.append_masked(),
            JsonColumn::Row(column) => {
                column.object.append_masked();
                column.nulls.append_null();
            }
            JsonColumn::List(column) => {
                column.offsets.push(last(&column.offsets));
                column.nulls.append_null();
            }
            JsonColumn::Map(column) => {
                column.offsets.push(last(&column.offsets));
                column.nulls.append_null();
            }
        }
    }

    /// Drops all values but the first `rows`, and parts of values.
    pub(super) fn truncate(&mut self, rows: usize) {
        match self {
            JsonColumn::Scalar(reader) => reader.column.truncate(rows),
            JsonColumn::Row(column) => {
                column.object.truncate(rows);
                column.nulls.truncate(rows);
            }
            JsonColumn::List(column) => {
                column.offsets.truncate(rows + 1);
                column.items.truncate(length(&column.offsets));
                column.nulls.truncate(rows);
            }
            JsonColumn::Map(column) => {
                column.offsets.truncate(rows + 1);
                column.keys.truncate(length(&column.offsets));
                column.values.truncate(length(&column.offsets));
                column.nulls.truncate(rows);
            }
        }
    }

    /// The values as an array; the column begins anew.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        match self {
            JsonColumn::Scalar(reader) => reader.column.finish(),
            JsonColumn::Row(column) => {
                let rows = column.nulls.len();
                let arrays = column.object.finish()?;
                let array =
                    StructArray::try_new_with_length(column.fields.clone(), arrays, column.nulls.finish(), rows)?;
                Ok(Arc::new(array))
            }
            JsonColumn::List(column) => {
                let items = column.items.finish()?;
                let array = ListArray::try_new(
                    Arc::clone(&column.item),
                    renew(&mut column.offsets),
                    items,
                    column.nulls.finish(),
                )?;
                Ok(Arc::new(array))
            }
            JsonColumn::Map(column) => column.finish(),
        }
    }
}

impl ScalarReader {
    #[inline]
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        let start = cursor.at;
        let appended = match cursor.peek() {
            b'"' => match cursor.string()? {
                (raw, false) => self.column.append_text(raw),
                (raw, true) => self.append_escaped(raw),
            },
            b'-' | b'0'..=b'9' => self.column.append_number(&cursor.number()?),
            _ => self.read_other(cursor),
        };
        match appended {
            Ok(()) => Ok(()),
            // What comes from the cursor knows its place.
            Err(fault) if fault.at > 0 => Err(fault),
            Err(fault) => Err(fault.located(start)),
        }
    }

    fn append_escaped(&mut self, raw: &[u8]) -> Faulty<()> {
        self.unescaped.clear();
        unescape(raw, &mut self.unescaped).map_err(|reason| Fault::new(0, reason))?;
        self.column.append_text(&self.unescaped)
    }

    fn read_other(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        match cursor.peek() {
            b'n' => {
                cursor.word(b"null")?;
                self.column.append_null()
            }
            b't' => {
                cursor.word(b"true")?;
                self.column.append_boolean(true)
            }
            b'f' => {
                cursor.word(b"false")?;
                self.column.append_boolean(false)
            }
            bracket @ (b'{' | b'[') => {
                let text = cursor.skip_value()?;
                if self.column.is_text() {
                    // A STRING column takes nested JSON as the text that it is.
                    return self.column.append_text(text);
                }
                Err(self.column.mismatch(if bracket == b'{' { "the object" } else { "the array" }, text))
            }
            _ => Err(cursor.unexpected("a value")),
        }
    }
}

impl ListColumn {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        expect(cursor, b'[', "an array for ARRAY")?;
        cursor.at += 1;
        cursor.skip_space();
        let mut count = 0;
        if cursor.peek() == b']' {
            cursor.at += 1;
        } else {
            loop {
                self.items.read(cursor)?;
                count += 1;
                if cursor.next_member(b']')? {
                    break;
                }
            }
        }
        self.offsets.push(last(&self.offsets) + count);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl MapColumn {
    fn new(entries: &FieldRef, sorted: bool, nullable: bool, options: &JsonOptions) -> Result<MapColumn, String> {
        let DataType::Struct(fields) = entries.data_type() else {
            return Err("the type MAP has no entries".to_owned());
        };
        let [key, value] = &fields[..] else { return Err("the type MAP has no key and value".to_owned()) };
        if key.data_type() != &DataType::Utf8 {
            return Err(format!("json needs a MAP with keys of type STRING, not {}", type_name(key.data_type())));
        }
        let keys = ScalarColumn::new(key.data_type(), false, options.timestamps).expect("a string is a scalar");
        Ok(MapColumn {
            entries: Arc::clone(entries),
            sorted,
            nullable,
            keys,
            values: JsonColumn::new(value.data_type(), value.is_nullable(), options)?,
            offsets: vec![0],
            nulls: NullBufferBuilder::new(0),
            scratch: MapEntries::default(),
        })
    }

    /// Reads a map in two passes: the first finds the keys and drops those that come again later, the second
    /// reads the values that are left.
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        expect(cursor, b'{', "an object for MAP")?;
        self.scratch.read(cursor)?;
        let end = cursor.at;
        let mut count = 0;
        for (key, value) in &self.scratch.entries {
            let key = &self.scratch.bytes[key.clone()];
            self.keys.append_text(key)?;
            cursor.at = *value;
            self.values.read(cursor).map_err(|fault| fault.inside(&String::from_utf8_lossy(key)))?;
            count += 1;
        }
        cursor.at = end;
        self.offsets.push(last(&self.offsets) + count);
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let DataType::Struct(fields) = self.entries.data_type() else {
            unreachable!("checked when the column was made")
        };
        let entries = StructArray::try_new(fields.clone(), vec![self.keys.finish()?, self.values.finish()?], None)?;
        let offsets = renew(&mut self.offsets);
        let array = MapArray::try_new(Arc::clone(&self.entries), offsets, entries, self.nulls.finish(), self.sorted)?;
        Ok(Arc::new(array))
    }
}

impl MapEntries {
    /// Finds the entries of the object at the cursor; of a doubled key the last.
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        self.bytes.clear();
        self.entries.clear();
        cursor.at += 1;
        cursor.skip_space();
        if cursor.peek() == b'}' {
            cursor.at += 1;
            return Ok(());
        }
        loop {
            let at = cursor.at;
            let (raw, escaped) = cursor.key()?;
            let start = self.bytes.len();
            if escaped {
                unescape(raw, &mut self.bytes).map_err(|reason| Fault::new(at, reason))?;
            } else {
                self.bytes.extend_from_slice(raw);
            }
            self.entries.push((start..self.bytes.len(), cursor.at));
            cursor.skip_value()?;
            if cursor.next_member(b'}')? {
                break;
            }
        }
        self.drop_doubled();
        Ok(())
    }

    fn drop_doubled(&mut self) {
        let MapEntries { bytes, entries } = self;
        if entries.len() <= PAIRWISE_MAX {
            let mut index = 0;
            while index < entries.len() {
                let again =
                    entries[index + 1..].iter().any(|(key, _)| bytes[key.clone()] == bytes[entries[index].0.clone()]);
                if again {
                    entries.remove(index);
                } else {
                    index += 1;
                }
            }
            return;
        }
        let last: HashMap<&[u8], usize> = entries.iter().map(|(key, value)| (&bytes[key.clone()], *value)).collect();
        entries.retain(|(key, value)| last[&bytes[key.clone()]] == *value);
    }
}

fn expect(cursor: &Cursor<'_>, bracket: u8, what: &str) -> Faulty<()> {
    if cursor.peek() == bracket { Ok(()) } else { Err(cursor.unexpected(what)) }
}
