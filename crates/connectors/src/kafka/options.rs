//! What both sides of the connector read from a table's options: which columns are in the key, in the value and in
//! neither, and how keys and values are written. Opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::error::ConnectorError;
use crate::format::{FormatOptions, TextDecoder};
use crate::table::{Options, TableSpec};

use super::Kind;

/// Names that only the source reads. The sink accepts them, since one declaration may serve both.
pub(super) const SOURCE_OPTIONS: &[&str] = &[
    "topic-pattern",
    "scan.startup.mode",
    "scan.startup.timestamp-millis",
    "scan.startup.specific-offsets",
    "scan.bounded.mode",
    "scan.bounded.timestamp-millis",
    "scan.bounded.specific-offsets",
    "scan.topic-partition-discovery.interval",
    "scan.parallelism",
];

/// Names that only the sink reads. The source accepts them, since one declaration may serve both.
pub(super) const SINK_OPTIONS: &[&str] = &[
    "sink.delivery-guarantee",
    "sink.transactional-id-prefix",
    "sink.progress-topic",
    "sink.partitioner",
    "sink.parallelism",
];

/// How a key or a value is written.
#[derive(Clone, Debug)]
pub(crate) enum MessageFormat {
    /// One record of a text format.
    Text(FormatOptions),
    /// One column, as it is.
    Raw,
}

/// A key or a value: its columns, in the order of the format, and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) format: MessageFormat,
    /// Positions in the table's schema.
    pub(crate) columns: Vec<usize>,
    /// The columns under the names that they have in the data.
    pub(crate) schema: SchemaRef,
}

/// How the columns of a table lie in messages.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// None where the table does not read or write keys.
    pub(super) key: Option<Part>,
    pub(super) value: Part,
    /// Metadata columns: position in the table's schema and which metadata.
    pub(super) metadata: Vec<(usize, String)>,
}

impl Layout {
    /// Reads the formats and the options that say which columns are where.
    pub(super) fn read(options: &mut Options<'_>, kind: Kind) -> Result<Layout, ConnectorError> {
        let table = options.table();
        let name = &table.name;
        let physical: Vec<usize> =
            (0..table.schema.fields().len()).filter(|&i| table.metadata_of(i).is_none()).collect();
        let metadata =
            (0..table.schema.fields().len()).filter_map(|i| Some((i, table.metadata_of(i)?.to_owned()))).collect();
        let key_columns = key_columns(options, kind, &physical)?;
        let prefix = options.get("key.fields-prefix").unwrap_or_default();
        let include = options.one_of("value.fields-include", "ALL", &["ALL", "EXCEPT_KEY"])?;
        if !prefix.is_empty() && include == "ALL" && !key_columns.is_empty() {
            return Err(ConnectorError::option(format!(
                "option 'key.fields-prefix' of table '{name}' needs 'value.fields-include' = 'EXCEPT_KEY': the value has no columns with the prefix"
            )));
        }
        let key = match key_columns.is_empty() {
            true => None,
            false => {
                let schema = key_schema(table, &key_columns, prefix)?;
                let format = format(options, "key.", &schema)?;
                Some(Part { format, columns: key_columns.clone(), schema })
            }
        };
        let in_value = |column: &usize| include == "ALL" || !key_columns.contains(column);
        let columns: Vec<usize> = physical.into_iter().filter(in_value).collect();
        if columns.is_empty() {
            return Err(ConnectorError::option(format!(
                "no column of table '{name}' is left for the value: declare another one, or set 'value.fields-include' = 'ALL'"
            )));
        }
        let schema = Arc::new(table.schema.project(&columns).expect("positions in this schema"));
        let value_format = value_format(options, kind, &schema)?;
        Ok(Layout { key, value: Part { format: value_format, columns, schema }, metadata })
    }
}

/// The columns of the key, by `'key.fields'` or the primary key.
fn key_columns(options: &mut Options<'_>, kind: Kind, physical: &[usize]) -> Result<Vec<usize>, ConnectorError> {
    let table = options.table();
    let name = &table.name;
    let position = |column: &str, what: &str| {
        let found = physical.iter().copied().find(|&i| table.schema.field(i).name() == column);
        found.ok_or_else(|| {
            ConnectorError::option(format!(
                "{what} of table '{name}' names '{column}', which is no column of the data; columns: {}",
                physical.iter().map(|&i| table.schema.field(i).name().as_str()).collect::<Vec<_>>().join(", ")
            ))
        })
    };
    let fields = options.get("key.fields");
    if kind == Kind::Upsert {
        if fields.is_some() {
            return Err(ConnectorError::option(format!(
                "option 'key.fields' of table '{name}' has no place in 'upsert-kafka': the key is the PRIMARY KEY"
            )));
        }
        if table.primary_key.is_empty() {
            return Err(ConnectorError::option(format!(
                "table '{name}' with 'connector' = 'upsert-kafka' has rows that replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED"
            )));
        }
        return table.primary_key.iter().map(|column| position(column, "the PRIMARY KEY")).collect();
    }
    let has_format = options.get("key.format").is_some();
    match fields {
        Some(_) if !has_format => Err(ConnectorError::option(format!(
            "option 'key.fields' of table '{name}' needs 'key.format', such as 'key.format' = 'json'"
        ))),
        None if has_format => Err(ConnectorError::option(format!(
            "option 'key.format' of table '{name}' needs 'key.fields', the columns of the key, such as 'key.fields' = 'id;region'"
        ))),
        None => Ok(Vec::new()),
        Some(text) => {
            let mut seen = BTreeSet::new();
            let columns = text.split(';').map(str::trim).filter(|column| !column.is_empty());
            let columns: Result<Vec<usize>, _> =
                columns.map(|column| position(column, "option 'key.fields'")).collect();
            let columns = columns?;
            if columns.is_empty() || columns.iter().any(|column| !seen.insert(*column)) {
                return Err(ConnectorError::option(format!(
                    "option 'key.fields' of table '{name}' has the value '{text}': expected different columns, separated by ';'"
                )));
            }
            Ok(columns)
        }
    }
}

/// The key's columns, without the prefix that tells them from those of the value.
fn key_schema(table: &TableSpec, columns: &[usize], prefix: &str) -> Result<SchemaRef, ConnectorError> {
    let fields = columns.iter().map(|&column| {
        let field = table.schema.field(column);
        let name = field.name().strip_prefix(prefix).ok_or_else(|| {
            ConnectorError::option(format!(
                "column '{}' of the key of table '{}' does not begin with the prefix of 'key.fields-prefix', '{prefix}'",
                field.name(),
                table.name
            ))
        })?;
        Ok(field.clone().with_name(name))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, ConnectorError>>()?)))
}

fn value_format(options: &mut Options<'_>, kind: Kind, schema: &SchemaRef) -> Result<MessageFormat, ConnectorError> {
    let name = &options.table().name;
    let prefix = match (options.get("format"), options.get("value.format")) {
        (Some(_), Some(_)) => {
            return Err(ConnectorError::option(format!(
                "the options 'format' and 'value.format' of table '{name}' mean the same: give one of them"
            )));
        }
        (None, None) => {
            return Err(ConnectorError::option(format!(
                "table '{name}' needs the option 'value.format' (or 'format'), such as 'json'"
            )));
        }
        (Some(_), None) => "",
        (None, Some(_)) => "value.",
    };
    let format = format(options, prefix, schema)?;
    let changes = matches!(&format, MessageFormat::Text(format) if format.is_changelog());
    if changes && kind == Kind::Upsert {
        return Err(ConnectorError::option(format!(
            "option '{prefix}format' of table '{name}' holds changes by itself; 'upsert-kafka' needs one of json, csv, avro, avro-confluent, protobuf, protobuf-confluent, raw"
        )));
    }
    Ok(format)
}

/// Reads a format whose options have a prefix, for the columns of a schema.
pub(crate) fn format(
    options: &mut Options<'_>,
    prefix: &str,
    schema: &SchemaRef,
) -> Result<MessageFormat, ConnectorError> {
    let table = options.table();
    let name = &table.name;
    let named = format!("{prefix}format");
    let text = options.required(&named)?;
    if text.eq_ignore_ascii_case("raw") {
        return raw(name, &named, schema);
    }
    let of_key = prefix == "key.";
    // The format reads its options from a table of its own, which has them without the prefix.
    let stripped: BTreeMap<String, String> =
        table.options.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect();
    let primary_key = if of_key { Vec::new() } else { table.primary_key.clone() };
    let part = TableSpec {
        name: name.clone(),
        schema: schema.clone(),
        primary_key,
        partition_keys: Vec::new(),
        options: stripped,
    };
    let mut own = part.options();
    let read = FormatOptions::read(&mut own);
    let asked: Vec<String> = own.asked().map(str::to_owned).collect();
    for option in &asked {
        options.accept(&[&format!("{prefix}{option}")]);
    }
    let read = read.map_err(|mut error| {
        for option in &asked {
            error.message = error.message.replace(&format!("'{option}'"), &format!("'{prefix}{option}'"));
        }
        error
    })?;
    let refused = match &read {
        FormatOptions::Parquet => Some(
            "is a format of files; a message takes one of json, csv, avro, avro-confluent, protobuf, protobuf-confluent, debezium-json, debezium-avro-confluent, upsert-json, raw",
        ),
        FormatOptions::Csv(csv) if csv.header => Some("cannot have 'csv.header' = 'true': a message has no header"),
        format if of_key && format.is_changelog() => Some(
            "holds changes, which a key does not; use one of json, csv, avro, avro-confluent, protobuf, protobuf-confluent, raw",
        ),
        _ => None,
    };
    if let Some(why) = refused {
        return Err(ConnectorError::option(format!("option '{named}' of table '{name}': '{text}' {why}")));
    }
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    TextDecoder::new(&read, schema, &columns, None)
        .map_err(|reason| ConnectorError::option(format!("table '{name}', {reason}")))?;
    Ok(MessageFormat::Text(read))
}

fn raw(table: &str, option: &str, schema: &SchemaRef) -> Result<MessageFormat, ConnectorError> {
    match schema.fields().as_ref() {
        [field] if matches!(field.data_type(), DataType::Utf8 | DataType::Binary) => Ok(MessageFormat::Raw),
        _ => Err(ConnectorError::option(format!(
            "option '{option}' of table '{table}' has the value 'raw', which holds one column of type STRING or BYTES and no other"
        ))),
    }
}
