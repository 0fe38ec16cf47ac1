//! The options of the Avro formats, under Flink's names.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

use super::derive::derive;
use super::encode::AvroEncoder;
use super::schema::AvroSchema;
use crate::error::ConnectorError;
use crate::format::encode::Registration;
use crate::schema_registry::{RegistryOptions, SchemaKind, SchemaRegistry};
use crate::table::Options;

/// Settings of `avro`, `avro-confluent` and `debezium-avro-confluent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AvroOptions {
    /// Drop and count records that cannot be decoded, instead of failing.
    pub(crate) ignore_parse_errors: bool,
    /// What records name their schema of; none: they have that of the table.
    pub(crate) registry: Option<Arc<SchemaRegistry>>,
    /// Records are changes in Debezium's envelope.
    pub(crate) envelope: bool,
    /// Debezium, source: rows replace each other by key; what stood before is not asked for.
    pub(crate) upsert: bool,
    /// Columns of the table's primary key; empty without one.
    pub(crate) key: Vec<String>,
    /// How the blocks of files are packed.
    pub(crate) codec: Codec,
    /// The user's own schema: what is registered and written with, and where defaults come from.
    pub(super) schema: Option<String>,
    /// A TIMESTAMP is written as a local one.
    pub(super) local_times: bool,
}

/// How the blocks of a file are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    Null,
    #[default]
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    /// By the name that a file's head has for it.
    pub(super) fn of_name(name: &[u8]) -> Option<Codec> {
        match name {
            b"null" => Some(Codec::Null),
            b"deflate" => Some(Codec::Deflate),
            b"snappy" => Some(Codec::Snappy),
            b"zstandard" => Some(Codec::Zstandard),
            _ => None,
        }
    }

    /// The name in a file's head.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::Null => "null",
            Codec::Deflate => "deflate",
            Codec::Snappy => "snappy",
            Codec::Zstandard => "zstandard",
        }
    }
}

impl AvroOptions {
    /// Reads the options of `avro`.
    pub(crate) fn plain(options: &mut Options<'_>) -> Result<AvroOptions, ConnectorError> {
        let codec = match options.one_of("avro.codec", "deflate", &["null", "deflate", "zstandard"])? {
            "null" => Codec::Null,
            "zstandard" => Codec::Zstandard,
            _ => Codec::Deflate,
        };
        Ok(AvroOptions {
            ignore_parse_errors: options.parse("avro.ignore-parse-errors", false)?,
            local_times: !options.parse("avro.timestamp_mapping.legacy", true)?,
            codec,
            ..AvroOptions::default()
        })
    }

    /// Reads the options of `avro-confluent`, or of `debezium-avro-confluent` with the key of its table.
    pub(crate) fn confluent(
        options: &mut Options<'_>,
        format: &str,
        envelope: Option<Vec<String>>,
    ) -> Result<AvroOptions, ConnectorError> {
        let registry = Some(Arc::new(SchemaRegistry::new(RegistryOptions::read(options, format)?)));
        let ignore_parse_errors = options.parse(&format!("{format}.ignore-parse-errors"), false)?;
        let local_times = !options.parse(&format!("{format}.timestamp_mapping.legacy"), true)?;
        let Some(key) = envelope else {
            let schema = options.get(&format!("{format}.schema")).map(str::to_owned);
            return Ok(AvroOptions { ignore_parse_errors, registry, local_times, schema, ..AvroOptions::default() });
        };
        let upsert = options.parse(&format!("{format}.upsert"), false)?;
        if upsert && key.is_empty() {
            return Err(ConnectorError::option(format!(
                "option '{format}.upsert' of table '{}' lets rows replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED",
                options.table().name
            )));
        }
        let changes = AvroOptions {
            ignore_parse_errors,
            registry,
            local_times,
            envelope: true,
            upsert,
            key,
            ..AvroOptions::default()
        };
        Ok(changes)
    }

    /// The user's own schema.
    pub(super) fn own_schema(&self) -> Result<Option<AvroSchema>, String> {
        let parse = |text: &String| AvroSchema::parse(text, &[]).map_err(|reason| format!("its own schema: {reason}"));
        self.schema.as_ref().map(parse).transpose()
    }

    /// The schema that rows of the table have.
    pub(super) fn table_schema(&self, fields: &Fields) -> Result<AvroSchema, String> {
        AvroSchema::parse(&derive(fields, self.local_times)?, &[])
    }

    /// The schema's text that rows of the table are written with.
    pub(super) fn written_schema(&self, fields: &Fields) -> Result<String, String> {
        match (&self.schema, self.envelope) {
            (Some(own), _) => Ok(own.clone()),
            (None, false) => derive(fields, self.local_times),
            (None, true) => {
                let side = |name: &str| Field::new(name, DataType::Struct(fields.clone()), true);
                let parts = vec![side("before"), side("after"), Field::new("op", DataType::Utf8, false)];
                derive(&parts.into(), self.local_times)
            }
        }
    }

    /// What writes rows with these fields; an error names what does not fit.
    pub(crate) fn encoder(&self, fields: &Fields) -> Result<AvroEncoder, String> {
        let schema = match (&self.schema, self.envelope) {
            (Some(own), _) => AvroSchema::parse(own, &[])?,
            (None, _) => self.table_schema(fields)?,
        };
        AvroEncoder::new(&schema, fields, self.envelope)
    }

    /// What must be registered before rows with these fields are written.
    pub(crate) fn registration(&self, fields: &Fields) -> Result<Option<Registration>, String> {
        let Some(registry) = &self.registry else { return Ok(None) };
        let (registry, schema) = (registry.clone(), self.written_schema(fields)?);
        Ok(Some(Registration { registry, kind: SchemaKind::Avro, schema }))
    }
}
