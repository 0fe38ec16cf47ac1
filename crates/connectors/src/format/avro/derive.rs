//! The Avro schema of a table, as Flink derives it: what plain records are written with, what is registered, and what a
//! file of ours says of itself. A record `record`, whose nested records are named after the path to them; what may be NULL is a
//! union with null, and null by default.

use arrow::datatypes::{DataType, Fields, TimeUnit};
use serde_json::{Value, json};

use crate::format::column::type_name;
use crate::format::tree::map_parts;

/// The record's name, with its namespace.
const NAME: &str = "org.apache.flink.avro.generated.record";

/// The schema of rows as JSON text. `local_times`: a TIMESTAMP is written as a local one, instead of as the instant that it is
/// in UTC. An error names the column whose type Avro cannot hold.
pub(super) fn derive(fields: &Fields, local_times: bool) -> Result<String, String> {
    Ok(record(fields, NAME, local_times)?.to_string())
}

fn record(fields: &Fields, name: &str, local_times: bool) -> Result<Value, String> {
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let column = field.name();
        if !is_name(column) {
            return Err(format!(
                "column '{column}': Avro has no such name; letters, digits and '_' are allowed, and no digit in front"
            ));
        }
        let of = value(field.data_type(), &format!("{name}_{column}"), local_times)
            .map_err(|reason| format!("column '{column}': {reason}"))?;
        parts.push(match field.is_nullable() {
            true => json!({"name": column, "type": ["null", of], "default": null}),
            false => json!({"name": column, "type": of}),
        });
    }
    Ok(json!({"type": "record", "name": name, "fields": parts}))
}

fn value(data_type: &DataType, name: &str, local_times: bool) -> Result<Value, String> {
    let nested = |of: &arrow::datatypes::Field| {
        let inner = value(of.data_type(), name, local_times)?;
        Ok::<_, String>(if of.is_nullable() { json!(["null", inner]) } else { inner })
    };
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        &DataType::Decimal128(precision, scale) if scale >= 0 => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("bytes"),
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Time32(TimeUnit::Millisecond) => json!({"type": "int", "logicalType": "time-millis"}),
        DataType::Timestamp(unit, zone) => {
            let local = if local_times && zone.is_none() { "local-" } else { "" };
            let unit = match unit {
                TimeUnit::Second | TimeUnit::Millisecond => "millis",
                TimeUnit::Microsecond => "micros",
                TimeUnit::Nanosecond => "nanos",
            };
            json!({"type": "long", "logicalType": format!("{local}timestamp-{unit}")})
        }
        DataType::Struct(fields) => record(fields, name, local_times)?,
        DataType::List(item) => json!({"type": "array", "items": nested(item)?}),
        DataType::Map(entries, _) => {
            let (key, of) = map_parts(entries)?;
            if key.data_type() != &DataType::Utf8 {
                return Err(format!("Avro needs a MAP with keys of type STRING, not {}", type_name(key.data_type())));
            }
            json!({"type": "map", "values": nested(of)?})
        }
        other => return Err(format!("Avro cannot hold the type {}", type_name(other))),
    })
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.starts_with(|c: char| c.is_ascii_digit())
}
