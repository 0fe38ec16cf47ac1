//! Objects with declared fields: the record itself and values of type ROW. Keys mostly come in the same order
//! in every record, so the text of the next key is predicted from the records before, and compared in one go;
//! only a key that was never seen is looked up by name. Prediction is about speed only: it never changes
//! what a record gives.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use super::column::JsonColumn;
use super::scan::{Cursor, unescape};
use crate::format::fault::{Fault, Faulty};
use crate::format::options::JsonOptions;

/// Keys that are remembered; records with more are decoded without prediction beyond it.
const PREDICTED_MAX: usize = 256;
/// Longest text of a key, with its quotes and colon, that is remembered.
const PREDICTED_BYTES_MAX: usize = 256;

/// Reads the declared fields of objects into columns.
pub(super) struct ObjectReader {
    fields: Vec<Field>,
    by_name: HashMap<Vec<u8>, usize>,
    /// Keys as they were seen, in the order of the records; each text once.
    predicted: Vec<Prediction>,
    /// Number of the object being read.
    object: u64,
    fail_on_missing_field: bool,
    unescaped: Vec<u8>,
}

struct Field {
    name: String,
    column: JsonColumn,
    /// The last object that had this field.
    seen: u64,
}

struct Prediction {
    /// The key with its quotes and its colon, as in the data.
    text: Vec<u8>,
    /// Which field it names; none: a key that nobody wants.
    field: Option<usize>,
}

impl ObjectReader {
    /// A reader of the fields; an error names the field whose type cannot be read.
    pub(super) fn new(fields: &Fields, options: &JsonOptions) -> Result<ObjectReader, String> {
        let by_name = fields.iter().enumerate().map(|(i, field)| (field.name().as_bytes().to_vec(), i)).collect();
        let fields = fields.iter().map(|field| {
            let column = JsonColumn::new(field.data_type(), field.is_nullable(), options)
                .map_err(|reason| format!("column '{}': {reason}", field.name()))?;
            Ok(Field { name: field.name().clone(), column, seen: 0 })
        });
        let fields = fields.collect::<Result<_, String>>()?;
        let fail_on_missing_field = options.fail_on_missing_field;
        Ok(ObjectReader {
            fields,
            by_name,
            predicted: Vec::new(),
            object: 0,
            fail_on_missing_field,
            unescaped: Vec::new(),
        })
    }

    /// Reads the object at the cursor; each field gets one value more.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Faulty<()> {
        let start = cursor.at;
        self.object += 1;
        let mut given = 0;
        let mut slot = 0;
        cursor.at += 1;
        cursor.skip_space();
        if cursor.peek() == b'}' {
            cursor.at += 1;
        } else {
            loop {
                match self.key(cursor, &mut slot)? {
                    Some(index) => given += usize::from(self.read_field(index, cursor)?),
                    None => cursor.skip_value().map(drop)?,
                }
                if cursor.next_member(b'}')? {
                    break;
                }
            }
        }
        if given < self.fields.len() {
            self.fill_missing().map_err(|fault| fault.located(start))?;
        }
        Ok(())
    }

    /// Appends a value to each field that nobody sees, for a row that is NULL.
    pub(super) fn append_masked(&mut self) {
        self.fields.iter_mut().for_each(|field| field.column.append_masked());
    }

    /// Drops all values but those of the first `rows` objects.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.fields.iter_mut().for_each(|field| field.column.truncate(rows));
    }

    /// The columns, in the order of the fields.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.fields.iter_mut().map(|field| field.column.finish()).collect()
    }

    /// Reads one field; true where the object had not had it before.
    #[inline]
    fn read_field(&mut self, index: usize, cursor: &mut Cursor<'_>) -> Faulty<bool> {
        let field = &mut self.fields[index];
        let first = field.seen != self.object;
        if first {
            field.seen = self.object;
        } else {
            // The last of several values of one key counts.
            field.column.truncate(field.column.len() - 1);
        }
        match field.column.read(cursor) {
            Ok(()) => Ok(first),
            Err(fault) => Err(fault.inside(&field.name)),
        }
    }

    #[cold]
    fn fill_missing(&mut self) -> Faulty<()> {
        let (object, fail) = (self.object, self.fail_on_missing_field);
        for field in self.fields.iter_mut().filter(|field| field.seen != object) {
            let filled = if fail { Err(Fault::new(0, "the field is missing")) } else { field.column.append_null() };
            filled.map_err(|fault| fault.inside(&field.name))?;
        }
        Ok(())
    }

    /// Passes over a key, its colon and the space after it; gives the field that it names. `slot` is the
    /// prediction to try first, and becomes the one after the key.
    #[inline]
    fn key(&mut self, cursor: &mut Cursor<'_>, slot: &mut usize) -> Faulty<Option<usize>> {
        let rest = &cursor.bytes[cursor.at..];
        if let Some(prediction) = self.predicted.get(*slot)
            && rest.starts_with(&prediction.text)
        {
            cursor.at += prediction.text.len();
            *slot += 1;
            cursor.skip_space();
            return Ok(prediction.field);
        }
        self.unpredicted_key(cursor, slot)
    }

    fn unpredicted_key(&mut self, cursor: &mut Cursor<'_>, slot: &mut usize) -> Faulty<Option<usize>> {
        let rest = &cursor.bytes[cursor.at..];
        let from = (*slot).min(self.predicted.len());
        // Keys that were left out lie ahead; keys in another order lie anywhere.
        let mut order = (from..self.predicted.len()).chain(0..from);
        if let Some(found) = order.find(|&i| rest.starts_with(&self.predicted[i].text)) {
            *slot = found + 1;
            cursor.at += self.predicted[found].text.len();
            cursor.skip_space();
            return Ok(self.predicted[found].field);
        }
        let start = cursor.at;
        let (raw, escaped) = cursor.key()?;
        let name = if escaped {
            self.unescaped.clear();
            unescape(raw, &mut self.unescaped).map_err(|reason| Fault::new(start, reason))?;
            &self.unescaped
        } else {
            raw
        };
        let field = self.by_name.get(name).copied();
        let text = cursor.bytes[start..cursor.at].trim_ascii_end();
        if self.predicted.len() < PREDICTED_MAX && text.len() <= PREDICTED_BYTES_MAX {
            self.predicted.insert(from, Prediction { text: text.to_vec(), field });
            *slot = from + 1;
        }
        Ok(field)
    }
}
