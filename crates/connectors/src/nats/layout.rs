//! How the columns of a table lie in messages: the payload by the format, the rest out of what NATS knows of a message.
//! Read by both sides.

use std::sync::Arc;

use arrow::compute;
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::ConnectorError;
use crate::kafka::{Part, message_format};
use crate::table::{Options, TableSpec};

/// Names that only the source reads. The sink accepts them, since one declaration may serve both.
pub(super) const SOURCE_OPTIONS: &[&str] = &[
    "subjects",
    "scan.startup.mode",
    "scan.startup.sequence",
    "scan.startup.timestamp-millis",
    "scan.bounded.mode",
    "scan.bounded.sequence",
    "scan.missing-messages",
];

/// Names that only the sink reads. The source accepts them, since one declaration may serve both.
pub(super) const SINK_OPTIONS: &[&str] = &["subject", "sink.delivery-guarantee", "sink.unknown-progress"];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) value: Part,
    /// Metadata columns: position in the table's schema and which metadata.
    pub(super) metadata: Vec<(usize, Metadata)>,
}

/// What NATS says about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    Subject,
    Sequence,
    Timestamp,
    Headers,
    Stream,
}

const METADATA: [(&str, Metadata); 5] = [
    ("subject", Metadata::Subject),
    ("sequence", Metadata::Sequence),
    ("timestamp", Metadata::Timestamp),
    ("headers", Metadata::Headers),
    ("stream", Metadata::Stream),
];

impl Layout {
    /// Reads the format. Refuses metadata that messages do not have, or that cannot have the declared type.
    pub(super) fn read(options: &mut Options<'_>) -> Result<Layout, ConnectorError> {
        let table = options.table();
        if !table.partition_keys.is_empty() {
            return Err(ConnectorError::option(format!(
                "table '{}' is PARTITIONED BY columns, which a stream is not; name the subject of each row by a column 'subject STRING METADATA'",
                table.name
            )));
        }
        let (mut columns, mut metadata) = (Vec::new(), Vec::new());
        for column in 0..table.schema.fields().len() {
            match table.metadata_of(column) {
                None => columns.push(column),
                Some(key) => metadata.push((column, Metadata::checked(table, column, key)?)),
            }
        }
        if columns.is_empty() {
            return Err(ConnectorError::option(format!(
                "table '{}' has no column for what messages hold: declare one, such as 'line STRING' with 'format' = 'raw'",
                table.name
            )));
        }
        let schema = Arc::new(table.schema.project(&columns).expect("positions in this schema"));
        let format = message_format(options, "", &schema)?;
        Ok(Layout { value: Part { format, columns, schema }, metadata })
    }

    /// The column of some metadata.
    pub(super) fn column_of(&self, metadata: Metadata) -> Option<usize> {
        self.metadata.iter().find(|(_, of)| *of == metadata).map(|(column, _)| *column)
    }
}

impl Metadata {
    fn checked(table: &TableSpec, column: usize, key: &str) -> Result<Metadata, ConnectorError> {
        let field = table.schema.field(column);
        let wrong = |what: String| {
            ConnectorError::option(format!(
                "column '{}' of table '{}' is METADATA FROM '{key}' {what}",
                field.name(),
                table.name
            ))
        };
        let Some((_, metadata)) = METADATA.iter().find(|(name, _)| *name == key) else {
            let known: Vec<&str> = METADATA.iter().map(|(name, _)| *name).collect();
            return Err(wrong(format!(", which messages do not have; known: {}", known.join(", "))));
        };
        let (from, sql) = metadata.data_type();
        let fits = match metadata {
            Metadata::Headers => matches!(field.data_type(), DataType::Map(entries, _) if is_text_map(entries)),
            _ => compute::can_cast_types(&from, field.data_type()),
        };
        if fits { Ok(*metadata) } else { Err(wrong(format!("and must be of type {sql}"))) }
    }

    /// The type as it comes, and its name in SQL.
    fn data_type(self) -> (DataType, &'static str) {
        match self {
            Metadata::Subject | Metadata::Stream => (DataType::Utf8, "STRING"),
            Metadata::Sequence => (DataType::Int64, "BIGINT"),
            Metadata::Timestamp => (DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), "TIMESTAMP_LTZ(3)"),
            Metadata::Headers => (headers_type(), "MAP<STRING, STRING>"),
        }
    }
}

/// `MAP<STRING, STRING>` as tables have it.
pub(super) fn headers_type() -> DataType {
    let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
}

fn is_text_map(entries: &Field) -> bool {
    matches!(entries.data_type(), DataType::Struct(fields)
        if fields.len() == 2 && fields.iter().all(|field| field.data_type() == &DataType::Utf8))
}
