//! Splits batches by the values of the `PARTITIONED BY` columns and names the directory of each partition, as
//! Hive does: `dt=2026-01-01/hm=12-00`. Called by the writer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int8Array, RecordBatch, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Int8Type, SchemaRef};
use arrow::row::{RowConverter, SortField};

use crate::error::ConnectorError;
use crate::format::encode::{ColumnView, Value, write_plain_value};

/// The longest directory name that file systems take, in bytes.
const DIRECTORY_NAME_BYTES_MAX: usize = 255;

/// Splits batches.
#[derive(Clone, Debug)]
pub(super) struct Partitioner {
    /// Position and escaped name of each partition column.
    columns: Vec<(usize, String)>,
    /// Stands for NULL and for the empty text.
    default_name: String,
    schema: SchemaRef,
}

/// Rows of one partition.
pub(super) struct Part {
    /// The partition's directory relative to the sink's; empty without partitions.
    pub(super) directory: String,
    /// The rows, with all columns, in the order in which they came.
    pub(super) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(super) changes: Option<Int8Array>,
}

impl Partitioner {
    /// Checks the partition columns of a table.
    pub(super) fn new(schema: &SchemaRef, keys: &[String], default_name: &str) -> Result<Partitioner, ConnectorError> {
        let mut columns = Vec::new();
        for key in keys {
            let position = schema.index_of(key).map_err(|_| {
                ConnectorError::option(format!("PARTITIONED BY names '{key}', which is no column of the table"))
            })?;
            if matches!(
                schema.field(position).data_type(),
                DataType::Struct(_) | DataType::List(_) | DataType::Map(_, _)
            ) {
                return Err(ConnectorError::option(format!(
                    "PARTITIONED BY names '{key}', which is a ROW, ARRAY or MAP; use a column with plain values"
                )));
            }
            columns.push((position, escape(key)));
        }
        if default_name.is_empty() {
            return Err(ConnectorError::option("option 'sink.partition-name.default' must not be empty"));
        }
        Ok(Partitioner { columns, default_name: escape(default_name), schema: schema.clone() })
    }

    /// The rows of each partition, in the order of their first rows.
    pub(super) fn split(&self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<Vec<Part>, ConnectorError> {
        if self.columns.is_empty() {
            return Ok(vec![Part { directory: String::new(), rows: rows.clone(), changes: changes.cloned() }]);
        }
        let groups = self.group(rows)?;
        let views: Vec<_> =
            self.columns.iter().map(|(i, _)| ColumnView::new(rows.column(*i).as_ref())).collect::<Result<_, _>>()?;
        let one = groups.len() == 1;
        let partition = |group: Vec<u32>| {
            let directory = self.directory(&views, group[0] as usize)?;
            if one {
                return Ok(Part { directory, rows: rows.clone(), changes: changes.cloned() });
            }
            let group = UInt32Array::from(group);
            let rows = take_record_batch(rows, &group).map_err(|e| wrong_rows(&e))?;
            let changes = changes.map(|changes| take(changes, &group, None)).transpose().map_err(|e| wrong_rows(&e))?;
            Ok(Part { directory, rows, changes: changes.map(|changes| changes.as_primitive::<Int8Type>().clone()) })
        };
        groups.into_iter().map(partition).collect()
    }

    /// Row numbers by equal partition values; no group is empty.
    fn group(&self, rows: &RecordBatch) -> Result<Vec<Vec<u32>>, ConnectorError> {
        let sort_fields =
            self.columns.iter().map(|(i, _)| SortField::new(self.schema.field(*i).data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields).map_err(|e| wrong_rows(&e))?;
        let columns: Vec<_> = self.columns.iter().map(|(i, _)| Arc::clone(rows.column(*i))).collect();
        let keys = converter.convert_columns(&columns).map_err(|e| wrong_rows(&e))?;
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut group_of_key: HashMap<&[u8], usize> = HashMap::new();
        let mut previous: Option<(&[u8], usize)> = None;
        for row in 0..rows.num_rows() {
            let key = keys.row(row).data();
            // Rows of a partition mostly come together.
            let group = match previous {
                Some((same, group)) if same == key => group,
                _ => *group_of_key.entry(key).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                }),
            };
            groups[group].push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
            previous = Some((key, group));
        }
        Ok(groups)
    }

    fn directory(&self, views: &[ColumnView<'_>], row: usize) -> Result<String, ConnectorError> {
        let mut directory = String::new();
        for ((_, name), view) in self.columns.iter().zip(views) {
            let value = view.value(row);
            let mut text = Vec::new();
            write_plain_value(&value, &mut text);
            let text = String::from_utf8_lossy(&text);
            let value =
                if text.is_empty() || matches!(value, Value::Null) { self.default_name.clone() } else { escape(&text) };
            if name.len() + 1 + value.len() > DIRECTORY_NAME_BYTES_MAX {
                return Err(ConnectorError::data(format!(
                    "the partition column '{name}' has a value of {} bytes, too long for the name of a directory; partition by something shorter",
                    text.len()
                )));
            }
            if !directory.is_empty() {
                directory.push('/');
            }
            directory.push_str(name);
            directory.push('=');
            directory.push_str(&value);
        }
        Ok(directory)
    }
}

fn wrong_rows(error: &arrow::error::ArrowError) -> ConnectorError {
    ConnectorError::data(format!(
        "cannot split rows by partition: {error}; check the types of the PARTITIONED BY columns"
    ))
}

/// Writes characters that mean something in a path as `%` and their hexadecimal code, as Hive does.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            escaped.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn rows_go_to_the_directories_of_hive() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int32Array::from_iter_values(0..6))),
            (
                "dt",
                Arc::new(StringArray::from(vec![
                    Some("2026-01-01"),
                    Some("a/b"),
                    Some("2026-01-01"),
                    None,
                    Some(""),
                    Some("../x"),
                ])),
            ),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![0; 6]))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let keys = ["dt".to_owned(), "at".to_owned()];
        let kinds = Int8Array::from_iter_values(0..6);
        let parts = Partitioner::new(&rows.schema(), &keys, "none").unwrap().split(&rows, Some(&kinds)).unwrap();
        assert_eq!(parts[0].changes.as_ref().unwrap().values().as_ref(), [0_i8, 2]);
        let names: Vec<_> = parts.iter().map(|part| (part.directory.as_str(), part.rows.num_rows())).collect();
        assert_eq!(
            names,
            [
                ("dt=2026-01-01/at=1970-01-01 00%3A00%3A00", 2),
                ("dt=a%2Fb/at=1970-01-01 00%3A00%3A00", 1),
                ("dt=none/at=1970-01-01 00%3A00%3A00", 1),
                ("dt=none/at=1970-01-01 00%3A00%3A00", 1),
                ("dt=..%2Fx/at=1970-01-01 00%3A00%3A00", 1),
            ]
        );
        let error = Partitioner::new(&rows.schema(), &["x".to_owned()], "none").unwrap_err();
        assert!(error.message.contains("'x'"), "{error}");
    }
}
