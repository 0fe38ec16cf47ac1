//! The `.proto` text of a table: what is registered where the user names no schema. Fields are numbered from 1 on in the order of
//! the columns, so columns may be added at the end; a scalar that may be NULL is `optional`.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Fields, TimeUnit};

use crate::format::column::type_name;
use crate::format::tree::map_parts;

/// The message's name.
const NAME: &str = "Record";

/// The text for rows with these fields; an error names the column whose type Protobuf cannot hold.
pub(super) fn derive(fields: &Fields) -> Result<String, String> {
    let mut body = String::new();
    let mut uses_time = false;
    message(NAME, fields, 0, &mut body, &mut uses_time)?;
    let import = if uses_time { "import \"google/protobuf/timestamp.proto\";\n" } else { "" };
    Ok(format!("syntax = \"proto3\";\n{import}{body}"))
}

fn message(name: &str, fields: &Fields, depth: usize, out: &mut String, uses_time: &mut bool) -> Result<(), String> {
    let indent = "  ".repeat(depth);
    let written = "a string takes any text";
    writeln!(out, "{indent}message {name} {{").expect(written);
    for (number, field) in (1..).zip(fields) {
        let column = field.name();
        if !is_name(column) {
            return Err(format!(
                "column '{column}': Protobuf has no such name; letters, digits and '_' are allowed, and no digit in front"
            ));
        }
        let inner_name = format!("{column}_row");
        let mut nested = |of: &DataType, out: &mut String| -> Result<String, String> {
            if let DataType::Struct(parts) = of {
                message(&inner_name, parts, depth + 1, out, uses_time)?;
                return Ok(inner_name.clone());
            }
            *uses_time |= matches!(of, DataType::Timestamp(..));
            scalar(of).map(str::to_owned).map_err(|reason| format!("column '{column}': {reason}"))
        };
        let of = match field.data_type() {
            DataType::List(item) => format!("repeated {}", nested(item.data_type(), out)?),
            DataType::Map(entries, _) => {
                let (key, value) = map_parts(entries)?;
                if matches!(
                    key.data_type(),
                    DataType::Float32
                        | DataType::Float64
                        | DataType::Binary
                        | DataType::Struct(_)
                        | DataType::Timestamp(..)
                ) {
                    return Err(format!(
                        "column '{column}': Protobuf has no map with keys of type {}",
                        type_name(key.data_type())
                    ));
                }
                format!("map<{}, {}>", nested(key.data_type(), out)?, nested(value.data_type(), out)?)
            }
            DataType::Struct(_) | DataType::Timestamp(..) => nested(field.data_type(), out)?,
            of if field.is_nullable() => format!("optional {}", nested(of, out)?),
            of => nested(of, out)?,
        };
        writeln!(out, "{indent}  {of} {column} = {number};").expect(written);
    }
    writeln!(out, "{indent}}}").expect(written);
    Ok(())
}

fn scalar(of: &DataType) -> Result<&'static str, String> {
    Ok(match of {
        DataType::Boolean => "bool",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 => "string",
        DataType::Binary => "bytes",
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            _,
        ) => "google.protobuf.Timestamp",
        other => {
            return Err(format!(
                "Protobuf cannot hold the type {}; cast it to STRING or BIGINT in the query",
                type_name(other)
            ));
        }
    })
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}
