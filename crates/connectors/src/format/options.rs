//! The options of the row formats, such as `json.*` and `csv.*`, under Flink's names where Flink has the format. Read once from a table by the
//! source and by the sink; plain data afterwards. A table's declaration may serve both sides, so both read the
//! whole set.

use mainstem_core::change::ChangeMode;

use super::avro::AvroOptions;
use super::protobuf::ProtobufOptions;
use crate::error::ConnectorError;
use crate::table::Options;

/// The names of all formats, for messages.
const KNOWN: &str = "json, csv, parquet, debezium-json, upsert-json, raw, avro, avro-confluent, debezium-avro-confluent, protobuf, protobuf-confluent";

/// The format of a table, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormatOptions {
    /// Avro: messages, files, changes in Debezium's envelope.
    Avro(AvroOptions),
    /// Protobuf: messages.
    Protobuf(ProtobufOptions),
    /// One JSON object a line.
    Json(JsonOptions),
    /// Separated values, one record a line unless a quoted field holds line ends.
    Csv(CsvOptions),
    /// Parquet files.
    Parquet,
    /// One value a line, as it is.
    Raw,
    /// One change a line, in Debezium's envelope: the row before and after it.
    DebeziumJson(ChangelogOptions),
    /// One change a line: a key, and the row that is now there, or null.
    UpsertJson(ChangelogOptions),
}

/// How times are written in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimestampFormat {
    /// `yyyy-MM-dd HH:mm:ss[.f]`.
    #[default]
    Sql,
    /// `yyyy-MM-ddTHH:mm[:ss[.f]]`.
    Iso8601,
}

/// Settings of `'format' = 'json'`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JsonOptions {
    /// Drop and count records that cannot be decoded, instead of failing.
    pub(crate) ignore_parse_errors: bool,
    /// Refuse records that lack a declared column, instead of reading NULL.
    pub(crate) fail_on_missing_field: bool,
    /// How times are written.
    pub(crate) timestamps: TimestampFormat,
    /// Sink: write decimals without exponent.
    pub(crate) encode_decimal_as_plain_number: bool,
    /// Sink: leave out columns that are NULL.
    pub(crate) encode_ignore_null_fields: bool,
}

/// Settings of the formats that hold changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangelogOptions {
    /// How rows are written. A column that is missing always reads as NULL.
    pub(crate) json: JsonOptions,
    /// Columns of the table's primary key; empty without one.
    pub(crate) key: Vec<String>,
    /// Debezium, source: the envelope is the field `payload` of a record that also has its schema.
    pub(crate) schema_include: bool,
    /// Debezium, source: rows replace each other by key; what stood before is not asked for.
    pub(crate) upsert: bool,
}

/// Settings of `'format' = 'csv'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvOptions {
    /// Between fields.
    pub(crate) delimiter: u8,
    /// Round fields that hold delimiters; none: quotes are text.
    pub(crate) quote: Option<u8>,
    /// Before a character that stands for itself.
    pub(crate) escape: Option<u8>,
    /// Whether lines that begin with `#` are skipped.
    pub(crate) allow_comments: bool,
    /// Drop and count records that cannot be decoded, instead of failing.
    pub(crate) ignore_parse_errors: bool,
    /// The unquoted text that stands for NULL.
    pub(crate) null_literal: Option<String>,
    /// Whether the first record of a file names the fields.
    pub(crate) header: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            allow_comments: false,
            ignore_parse_errors: false,
            null_literal: None,
            header: false,
        }
    }
}

impl FormatOptions {
    /// Reads `'format'` and the options of that format.
    pub(crate) fn read(options: &mut Options<'_>) -> Result<FormatOptions, ConnectorError> {
        let text = options.required("format")?;
        match text.to_ascii_lowercase().as_str() {
            "avro" => Ok(FormatOptions::Avro(AvroOptions::plain(options)?)),
            "avro-confluent" => Ok(FormatOptions::Avro(AvroOptions::confluent(options, "avro-confluent", None)?)),
            "debezium-avro-confluent" => {
                let key = Some(primary_key(options)?);
                Ok(FormatOptions::Avro(AvroOptions::confluent(options, "debezium-avro-confluent", key)?))
            }
            "protobuf" => Ok(FormatOptions::Protobuf(ProtobufOptions::plain(options)?)),
            "protobuf-confluent" => Ok(FormatOptions::Protobuf(ProtobufOptions::confluent(options)?)),
            "json" => Ok(FormatOptions::Json(json(options)?)),
            "csv" => Ok(FormatOptions::Csv(csv(options)?)),
            "parquet" => Ok(FormatOptions::Parquet),
            "raw" => {
                super::raw::check(&options.table().name, &options.table().schema)?;
                Ok(FormatOptions::Raw)
            }
            "debezium-json" => Ok(FormatOptions::DebeziumJson(debezium_json(options)?)),
            "upsert-json" => Ok(FormatOptions::UpsertJson(upsert_json(options)?)),
            _ => {
                Err(ConnectorError::option(format!("option 'format' has the value '{text}': expected one of {KNOWN}")))
            }
        }
    }

    /// Why files cannot be of it.
    pub(crate) fn refused_for_files(&self, table: &str) -> Option<String> {
        match self {
            FormatOptions::Protobuf(_) => Some(format!(
                "option 'format' of table '{table}' is of Protobuf, whose messages have no end of their own: it is for messages; files can be of avro, parquet, json or csv"
            )),
            FormatOptions::Avro(AvroOptions { registry: Some(registry), .. }) => Some(format!(
                "option 'format' of table '{table}' has the value '{}', whose records name a schema in a registry, as messages do; a file has its own: use 'avro'",
                registry.options.format
            )),
            _ => None,
        }
    }

    /// Whether its records are changes by themselves.
    pub(crate) fn is_changelog(&self) -> bool {
        match self {
            FormatOptions::Avro(options) => options.envelope,
            FormatOptions::DebeziumJson(_) | FormatOptions::UpsertJson(_) => true,
            FormatOptions::Json(_)
            | FormatOptions::Csv(_)
            | FormatOptions::Parquet
            | FormatOptions::Protobuf(_)
            | FormatOptions::Raw => false,
        }
    }

    /// Whether the format's own option drops records that cannot be decoded.
    pub(crate) fn ignores_errors(&self) -> bool {
        match self {
            FormatOptions::Avro(options) => options.ignore_parse_errors,
            FormatOptions::Protobuf(options) => options.ignore_parse_errors,
            FormatOptions::Json(options) => options.ignore_parse_errors,
            FormatOptions::Csv(options) => options.ignore_parse_errors,
            FormatOptions::Parquet | FormatOptions::Raw => false,
            FormatOptions::DebeziumJson(options) | FormatOptions::UpsertJson(options) => {
                options.json.ignore_parse_errors
            }
        }
    }

    /// The changes that a table of this format can be read as.
    pub(crate) fn source_changes(&self) -> ChangeMode {
        match self {
            FormatOptions::Avro(options) if options.upsert => ChangeMode::Upsert,
            FormatOptions::Avro(options) if options.envelope => ChangeMode::Retract,
            FormatOptions::Avro(_) | FormatOptions::Protobuf(_) => ChangeMode::Append,
            FormatOptions::Json(_) | FormatOptions::Csv(_) | FormatOptions::Parquet | FormatOptions::Raw => {
                ChangeMode::Append
            }
            FormatOptions::DebeziumJson(options) if options.upsert => ChangeMode::Upsert,
            FormatOptions::DebeziumJson(_) => ChangeMode::Retract,
            FormatOptions::UpsertJson(_) => ChangeMode::Upsert,
        }
    }

    /// The changes that can be written to a table of this format.
    pub(crate) fn sink_changes(&self) -> ChangeMode {
        match self {
            FormatOptions::Avro(options) if options.envelope => ChangeMode::Retract,
            FormatOptions::Avro(_) | FormatOptions::Protobuf(_) => ChangeMode::Append,
            FormatOptions::Json(_) | FormatOptions::Csv(_) | FormatOptions::Parquet | FormatOptions::Raw => {
                ChangeMode::Append
            }
            FormatOptions::DebeziumJson(_) => ChangeMode::Retract,
            FormatOptions::UpsertJson(_) => ChangeMode::Upsert,
        }
    }
}

fn json(options: &mut Options<'_>) -> Result<JsonOptions, ConnectorError> {
    let fail_on_missing_field = options.parse("json.fail-on-missing-field", false)?;
    let rows = json_rows(options, "json")?;
    if rows.ignore_parse_errors && fail_on_missing_field {
        return Err(ConnectorError::option(
            "the options 'json.ignore-parse-errors' and 'json.fail-on-missing-field' cannot both be true: choose one",
        ));
    }
    Ok(JsonOptions { fail_on_missing_field, ..rows })
}

/// The options that all formats on top of JSON have, each under its own name.
fn json_rows(options: &mut Options<'_>, format: &str) -> Result<JsonOptions, ConnectorError> {
    let timestamps = format!("{format}.timestamp-format.standard");
    let timestamps = match options.one_of(&timestamps, "SQL", &["SQL", "ISO-8601"])? {
        "ISO-8601" => TimestampFormat::Iso8601,
        _ => TimestampFormat::Sql,
    };
    Ok(JsonOptions {
        ignore_parse_errors: options.parse(&format!("{format}.ignore-parse-errors"), false)?,
        fail_on_missing_field: false,
        timestamps,
        encode_decimal_as_plain_number: options.parse(&format!("{format}.encode.decimal-as-plain-number"), false)?,
        encode_ignore_null_fields: options.parse(&format!("{format}.encode.ignore-null-fields"), false)?,
    })
}

fn debezium_json(options: &mut Options<'_>) -> Result<ChangelogOptions, ConnectorError> {
    let key = primary_key(options)?;
    let upsert = options.parse("debezium-json.upsert", false)?;
    if upsert && key.is_empty() {
        return Err(ConnectorError::option(format!(
            "option 'debezium-json.upsert' of table '{}' lets rows replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED",
            options.table().name
        )));
    }
    Ok(ChangelogOptions {
        json: json_rows(options, "debezium-json")?,
        key,
        schema_include: options.parse("debezium-json.schema-include", false)?,
        upsert,
    })
}

fn upsert_json(options: &mut Options<'_>) -> Result<ChangelogOptions, ConnectorError> {
    let key = primary_key(options)?;
    if key.is_empty() {
        return Err(ConnectorError::option(format!(
            "option 'format' of table '{}' has the value 'upsert-json', whose rows replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED",
            options.table().name
        )));
    }
    Ok(ChangelogOptions { json: json_rows(options, "upsert-json")?, key, ..ChangelogOptions::default() })
}

/// The columns of the primary key, which must be in the data.
fn primary_key(options: &Options<'_>) -> Result<Vec<String>, ConnectorError> {
    let table = options.table();
    match table.primary_key.iter().find(|name| table.schema.index_of(name).is_err()) {
        None => Ok(table.primary_key.clone()),
        Some(name) => Err(ConnectorError::option(format!(
            "the PRIMARY KEY of table '{}' names '{name}', which is computed; it can only name columns that are in the data",
            table.name
        ))),
    }
}

fn csv(options: &mut Options<'_>) -> Result<CsvOptions, ConnectorError> {
    let default = CsvOptions::default();
    let delimiter = character(options, "csv.field-delimiter")?.unwrap_or(default.delimiter);
    let quote = character(options, "csv.quote-character")?;
    let disable_quote: bool = options.parse("csv.disable-quote-character", false)?;
    if disable_quote && quote.is_some() {
        return Err(ConnectorError::option(
            "the options 'csv.quote-character' and 'csv.disable-quote-character' exclude each other: give one of them",
        ));
    }
    let quote = if disable_quote { None } else { quote.or(default.quote) };
    let escape = character(options, "csv.escape-character")?.filter(|&escape| Some(escape) != quote);
    if quote == Some(delimiter) || escape == Some(delimiter) {
        return Err(ConnectorError::option(
            "the option 'csv.field-delimiter' must differ from the quote and the escape character",
        ));
    }
    Ok(CsvOptions {
        delimiter,
        quote,
        escape,
        allow_comments: options.parse("csv.allow-comments", false)?,
        ignore_parse_errors: options.parse("csv.ignore-parse-errors", false)?,
        null_literal: options.get("csv.null-literal").map(str::to_owned),
        header: options.parse("csv.header", false)?,
    })
}

/// An option that is one ASCII character, or the escape `\t`.
fn character(options: &mut Options<'_>, key: &str) -> Result<Option<u8>, ConnectorError> {
    let Some(text) = options.get(key) else { return Ok(None) };
    match text.as_bytes() {
        b"\\t" => Ok(Some(b'\t')),
        b"\\\\" => Ok(Some(b'\\')),
        &[byte] if byte.is_ascii() && byte != b'\n' && byte != b'\r' => Ok(Some(byte)),
        _ => Err(ConnectorError::option(format!(
            "option '{key}' has the value '{text}': expected one ASCII character, or \\t"
        ))),
    }
}
