//! The keys of rows: `'key-pattern'`, a text with the columns of the primary key in braces. Different rows have different
//! keys, whatever their values: where there are several columns, a value does not hold the character that begins what
//! stands behind a column.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;

use crate::error::ConnectorError;
use crate::format::encode::{ColumnView, Value, write_plain_value};
use crate::secret;
use crate::table::TableSpec;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    parts: Vec<Part>,
    /// Bytes of values that are written as `%XX`.
    escaped: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A column, by its position in the table.
    Column(usize),
}

impl KeyPattern {
    /// The pattern of a table, by default its name and its primary key, with colons between.
    pub(super) fn read(text: Option<&str>, table: &TableSpec) -> Result<KeyPattern, ConnectorError> {
        let position =
            |name: &str| table.primary_key.iter().any(|key| key == name).then(|| table.schema.index_of(name));
        let key = table.primary_key.iter().map(|name| {
            table.schema.index_of(name).map_err(|_| {
                ConnectorError::option(format!(
                    "the PRIMARY KEY of table '{}' names '{name}', which is computed; it can only name columns that are in \
                     the data",
                    table.name
                ))
            })
        });
        let key = key.collect::<Result<Vec<usize>, _>>()?;
        // What a reference stands for is checked where the connector is made.
        let Some(text) = text.filter(|text| !secret::has_reference(text)) else {
            let mut parts = vec![Part::Text(table.name.clone())];
            parts.extend(key.iter().flat_map(|column| [Part::Text(":".to_owned()), Part::Column(*column)]));
            return Ok(KeyPattern::of(parts));
        };
        let wrong = |what: &str| {
            let message = format!("option 'key-pattern' of table '{}' is '{text}': {what}", table.name);
            Err(ConnectorError::option(message))
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else { return wrong("a '{' has no '}'") };
            match position(name) {
                Some(Ok(column)) if !parts.contains(&Part::Column(column)) => {
                    let is_between = matches!(parts.last(), Some(Part::Column(_)));
                    if is_between
                        && !before.bytes().next().is_some_and(|byte| byte.is_ascii_punctuation() && byte != b'%')
                    {
                        return wrong(
                            "between two columns there must be something that begins with a mark such as ':', or rows could share a key",
                        );
                    }
                    if !before.is_empty() {
                        parts.push(Part::Text(before.to_owned()));
                    }
                    parts.push(Part::Column(column));
                }
                Some(_) => return wrong("it names a column twice"),
                None => {
                    let columns = table.primary_key.join(", ");
                    return wrong(&format!("'{name}' is no column of the PRIMARY KEY, which has {columns}"));
                }
            }
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if let Some(missing) = key.iter().find(|column| !parts.contains(&Part::Column(**column))) {
            let name = table.schema.field(*missing).name();
            return wrong(&format!("it lacks {{{name}}}, so rows with different '{name}' would share a key"));
        }
        Ok(KeyPattern::of(parts))
    }

    fn of(parts: Vec<Part>) -> KeyPattern {
        let between = parts.windows(3).filter_map(|three| match three {
            [Part::Column(_), Part::Text(text), Part::Column(_)] => text.bytes().next(),
            _ => None,
        });
        let mut escaped: BTreeSet<u8> = between.collect();
        if !escaped.is_empty() {
            escaped.insert(b'%');
        }
        KeyPattern { parts, escaped }
    }

    /// The key of a row; `columns` are those of the table.
    pub(super) fn key(
        &self,
        columns: &[ColumnView<'_>],
        row: usize,
        rows: &RecordBatch,
    ) -> Result<Vec<u8>, ConnectorError> {
        let mut key = Vec::new();
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => key.extend_from_slice(text.as_bytes()),
                Part::Column(column) => {
                    value.clear();
                    let cell = columns[*column].value(row);
                    if matches!(cell, Value::Null) {
                        let name = rows.schema_ref().field(*column).name().clone();
                        return Err(ConnectorError::data(format!(
                            "a row has no '{name}', which is part of its key; leave such rows out in the query"
                        )));
                    }
                    write_plain_value(&cell, &mut value);
                    self.escape(&value, &mut key);
                }
            }
        }
        Ok(key)
    }

    fn escape(&self, value: &[u8], key: &mut Vec<u8>) {
        for byte in value {
            if self.escaped.contains(byte) {
                key.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                key.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table() -> TableSpec {
        TableSpec {
            name: "orders".into(),
            schema: Arc::new(Schema::new(vec![
                Field::new("region", DataType::Utf8, true),
                Field::new("n", DataType::Int64, true),
                Field::new("other", DataType::Utf8, true),
            ])),
            primary_key: vec!["region".into(), "n".into()],
            partition_keys: Vec::new(),
            options: [].into(),
        }
    }

    fn key(pattern: Option<&str>, region: Option<&str>, n: i64) -> Result<String, String> {
        let table = table();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![region])),
            Arc::new(Int64Array::from(vec![n])),
            Arc::new(StringArray::from(vec!["x"])),
        ];
        let rows = RecordBatch::try_new(table.schema.clone(), columns).unwrap();
        let views: Vec<_> = rows.columns().iter().map(|column| ColumnView::new(column.as_ref()).unwrap()).collect();
        let made = KeyPattern::read(pattern, &table).and_then(|pattern| pattern.key(&views, 0, &rows));
        made.map(|key| String::from_utf8(key).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn rows_that_differ_have_keys_that_differ() {
        assert_eq!(key(None, Some("north"), 7).unwrap(), "orders:north:7");
        assert_eq!(key(Some("line-{region}-of-{n}-"), Some("line"), 7).unwrap(), "line-line-of-7-");
        let pattern = Some("{region}-{n}");
        assert_eq!(key(pattern, Some("a"), -7).unwrap(), "a-%2D7");
        assert_ne!(key(pattern, Some("a-1"), 7).unwrap(), key(pattern, Some("a"), -17).unwrap());
        assert_eq!(key(pattern, Some("a%b-"), 7).unwrap(), "a%25b%2D-7");
        assert_eq!(key(Some("x{n}/{region}y"), Some("ä"), 7).unwrap(), "x7/äy");
    }

    #[test]
    fn patterns_that_would_mix_rows_are_refused() {
        for (pattern, expected) in [
            ("{region}", "lacks {n}"),
            ("{region}{n}", "between two columns"),
            ("{region}x{n}", "between two columns"),
            ("{region}%{n}", "between two columns"),
            ("{region}:{other}", "'other' is no column of the PRIMARY KEY"),
            ("{region}:{n}:{n}", "twice"),
            ("{region}:{n", "has no '}'"),
        ] {
            let message = key(Some(pattern), Some("a"), 1).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert!(key(None, None, 1).unwrap_err().contains("no 'region'"));
    }
}
