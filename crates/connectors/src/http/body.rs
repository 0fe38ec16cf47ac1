//! Rows to the bodies of requests. A pure function of the rows and of where batches end. Called by both writers.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::ConnectorError;
use crate::format::FormatOptions;
use crate::format::encode::{TextEncoder, check_columns, text_encoder};
use crate::table::TableSpec;

use super::options::{HttpOptions, Shape};

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Records in it.
    pub(super) records: u32,
}

/// Collects records until a body is full.
pub(super) struct Bodies {
    encoder: Box<dyn TextEncoder>,
    /// The columns; any may be NULL, since rows that go away may know nothing but their key.
    schema: SchemaRef,
    table: String,
    shape: Shape,
    records_max: u32,
    bytes_max: usize,
    /// What stands at the beginning of each body.
    head: Vec<u8>,
    /// The body that is being filled.
    body: Body,
    /// The texts of a batch of rows.
    texts: Vec<u8>,
}

impl Bodies {
    /// For the rows of a table; refuses columns that its format cannot hold.
    pub(super) fn new(table: &TableSpec, options: &HttpOptions) -> Result<Bodies, ConnectorError> {
        let nested = !matches!(options.format, FormatOptions::Csv(_));
        check_columns(&table.schema, if nested { "json" } else { "csv" }, nested)?;
        let key = table.primary_key.iter().filter_map(|name| table.schema.index_of(name).ok()).collect();
        let encoder = text_encoder(&options.format, &table.schema, key)
            .ok_or_else(|| ConnectorError::option("bug: a format without text was let through; please report it"))?;
        let mut head = Vec::new();
        encoder.begin_file(&mut head);
        let nullable = table.schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        Ok(Bodies {
            encoder,
            schema: Arc::new(Schema::new(nullable.collect::<Vec<_>>())),
            table: table.name.clone(),
            shape: options.shape,
            records_max: u32::try_from(options.batch_records).unwrap_or(u32::MAX),
            bytes_max: options.batch_bytes,
            body: Body { bytes: head.clone(), records: 0 },
            head,
            texts: Vec::new(),
        })
    }

    /// Adds rows; gives the bodies that have become full, in order.
    pub(super) fn add(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        full: &mut Vec<Body>,
    ) -> Result<(), ConnectorError> {
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec()).map_err(|error| {
            ConnectorError::data(format!(
                "rows for the sink '{}' do not fit the declared columns: {error}; change the query or the declaration",
                self.table
            ))
        })?;
        let mut texts = std::mem::take(&mut self.texts);
        texts.clear();
        let mut ends = Vec::with_capacity(rows.num_rows());
        let encoded = self.encoder.encode_each(&rows, changes, &mut texts, &mut |_, end| ends.push(end));
        let mut start = 0;
        for end in ends.into_iter().filter(|_| encoded.is_ok()) {
            // The line end is the file's, not the record's.
            self.add_record(&texts[start..end - 1], full);
            start = end;
        }
        self.texts = texts;
        encoded
    }

    /// The last body, which is not full; none where it has no records.
    pub(super) fn finish(&mut self) -> Option<Body> {
        if self.body.records == 0 {
            return None;
        }
        if self.shape == Shape::Array {
            self.body.bytes.push(b']');
        }
        Some(std::mem::replace(&mut self.body, Body { bytes: self.head.clone(), records: 0 }))
    }

    fn add_record(&mut self, record: &[u8], full: &mut Vec<Body>) {
        // With what stands between two records, and behind the last.
        if self.body.records > 0 && self.body.bytes.len() + record.len() + 2 > self.bytes_max {
            full.extend(self.finish());
        }
        let Body { bytes, records } = &mut self.body;
        if self.shape == Shape::Array {
            bytes.push(if *records == 0 { b'[' } else { b',' });
        }
        bytes.extend_from_slice(record);
        if self.shape == Shape::Lines {
            bytes.push(b'\n');
        }
        *records += 1;
        if *records >= self.records_max {
            full.extend(self.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    /// The bodies of the rows, given in batches of the given sizes.
    fn bodies(options: &[(&str, &str)], values: &[&str], batch: usize) -> Vec<(String, u32)> {
        let defaults = [("connector", "http"), ("url", "http://h/"), ("format", "json")];
        let table = TableSpec {
            name: "t".into(),
            schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)])),
            primary_key: Vec::new(),
            partition_keys: Vec::new(),
            options: defaults.iter().chain(options).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let mut maker = Bodies::new(&table, &HttpOptions::read(&table).unwrap()).unwrap();
        let mut made = Vec::new();
        for values in values.chunks(batch) {
            let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
            let rows = RecordBatch::try_new(table.schema.clone(), vec![column]).unwrap();
            maker.add(&rows, None, &mut made).unwrap();
        }
        made.extend(maker.finish());
        assert_eq!(maker.finish(), None);
        made.into_iter().map(|body| (String::from_utf8(body.bytes).unwrap(), body.records)).collect()
    }

    #[test]
    fn bodies_hold_as_many_records_as_asked_for() {
        let body = |text: &str, records| (text.to_owned(), records);
        let values = ["x", "y", "z"];
        assert_eq!(
            bodies(&[], &values[..2], 2),
            [body(r#"{"a":"x"}"#, 1), body(r#"{"a":"y"}"#, 1)],
            "one record is no array"
        );
        for batch in 1..=3 {
            let array = bodies(&[("batch-size", "2")], &values, batch);
            assert_eq!(array, [body(r#"[{"a":"x"},{"a":"y"}]"#, 2), body(r#"[{"a":"z"}]"#, 1)]);
            let lines = bodies(&[("batch-size", "2"), ("batch-format", "lines")], &values, batch);
            assert_eq!(lines, [body("{\"a\":\"x\"}\n{\"a\":\"y\"}\n", 2), body("{\"a\":\"z\"}\n", 1)]);
            let csv = bodies(&[("batch-size", "9"), ("format", "csv"), ("csv.header", "true")], &values, batch);
            assert_eq!(csv, [body("a\nx\ny\nz\n", 3)]);
        }
        assert_eq!(bodies(&[("format", "raw")], &values[..1], 1), [body("x", 1)]);
        assert_eq!(bodies(&[], &[], 1), []);
    }

    #[test]
    fn bodies_have_no_more_bytes_than_asked_for_unless_a_record_has() {
        let long = "y".repeat(50);
        let made = bodies(&[("batch-size", "100"), ("batch-bytes", "30")], &["1", "2", "3", &long, "4"], 5);
        let sizes: Vec<(usize, u32)> = made.iter().map(|(text, records)| (text.len(), *records)).collect();
        assert_eq!(sizes, [(21, 2), (11, 1), (60, 1), (11, 1)]);
    }
}
