//! Rows as Protobuf messages, by a descriptor. Called by the Kafka sink.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Fields};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::plan::is_wrapper;
use super::wire::{write_tag, write_varint};
use crate::error::ConnectorError;
use crate::format::column::type_name;
use crate::format::encode::{ColumnView, TextEncoder, Value, kind};
use crate::format::tree::map_parts;

const VARINT: u8 = 0;
const EIGHT: u8 = 1;
const SIZED: u8 = 2;
const FOUR: u8 = 5;

/// Writes messages.
pub(crate) struct ProtobufEncoder {
    fields: Vec<Put>,
    /// What stands before each record.
    head: Vec<u8>,
}

/// How a column is written.
#[derive(Debug)]
struct Put {
    column: usize,
    name: String,
    number: u32,
    /// A value that is the default need not be written.
    implicit: bool,
    how: How,
}

#[derive(Debug)]
enum How {
    One(Item),
    Many(Item),
    Map(Item, Item),
}

#[derive(Debug)]
enum Item {
    Scalar(Kind),
    Enum(EnumDescriptor),
    Message(Vec<Put>),
    Time,
    /// A message with one value in field 1.
    Wrapped(Kind),
}

impl ProtobufEncoder {
    /// An encoder of rows with these fields; an error names the column that the message does not fit.
    pub(super) fn new(message: &MessageDescriptor, fields: &Fields) -> Result<ProtobufEncoder, String> {
        Ok(ProtobufEncoder { fields: puts(message, fields)?, head: Vec::new() })
    }
}

impl TextEncoder for ProtobufEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn registered(&mut self, id: i32) {
        // The first message of the schema, which a single 0 stands for.
        self.head = [&[0][..], &id.to_be_bytes(), &[0]].concat();
    }

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        let columns = rows.columns().iter().map(|column| ColumnView::new(column.as_ref()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.num_rows() {
            out.extend_from_slice(&self.head);
            // What goes away by its key alone is not sent.
            if kind(changes, row).is_addition() {
                for put in &self.fields {
                    put.write(&columns[put.column].value(row), out).map_err(|reason| {
                        ConnectorError::data(format!(
                            "a row cannot be written as Protobuf: column '{}': {reason}",
                            put.name
                        ))
                    })?;
                }
            }
            each(row, out.len());
        }
        Ok(())
    }
}

fn puts(message: &MessageDescriptor, fields: &Fields) -> Result<Vec<Put>, String> {
    let required = message.fields().find(|field| field.is_required() && fields.find(field.name()).is_none());
    if let Some(field) = required {
        return Err(format!("the message needs the field '{}', which is no column", field.name()));
    }
    let put = |(column, field): (usize, &arrow::datatypes::FieldRef)| {
        let name = field.name().clone();
        let Some(to) = message.get_field_by_name(&name) else {
            return Err(format!("column '{name}': the message '{}' has no such field", message.full_name()));
        };
        let how = how(&to, field.data_type()).map_err(|reason| format!("column '{name}': {reason}"))?;
        Ok(Put { column, name, number: to.number(), implicit: !to.supports_presence(), how })
    };
    fields.iter().enumerate().map(put).collect()
}

fn how(field: &FieldDescriptor, column: &DataType) -> Result<How, String> {
    match (column, field.kind()) {
        (DataType::Map(entries, _), Kind::Message(entry)) if field.is_map() => {
            let (key, value) = map_parts(entries)?;
            let key = item(&entry.map_entry_key_field(), key.data_type())?;
            Ok(How::Map(key, item(&entry.map_entry_value_field(), value.data_type())?))
        }
        (DataType::List(of), _) if field.is_list() => Ok(How::Many(item(field, of.data_type())?)),
        _ if field.is_list() || field.is_map() => Err(format!("it is repeated, which {} is not", type_name(column))),
        _ => Ok(How::One(item(field, column)?)),
    }
}

fn item(field: &FieldDescriptor, column: &DataType) -> Result<Item, String> {
    use DataType::{Binary, Boolean, Float32, Float64, Int8, Int16, Int32, Int64, Utf8};
    let kind = field.kind();
    let is_narrow = matches!(column, Int8 | Int16 | Int32);
    let fits = match &kind {
        Kind::Message(message) => match (message.full_name(), column) {
            ("google.protobuf.Timestamp", DataType::Timestamp(..)) => return Ok(Item::Time),
            (_, DataType::Struct(fields)) => return Ok(Item::Message(puts(message, fields)?)),
            (name, _) if is_wrapper(name) => {
                let inner = message.get_field(1).ok_or("a wrapper without a value")?;
                return match item(&inner, column)? {
                    Item::Scalar(kind) => Ok(Item::Wrapped(kind)),
                    _ => Err("it is no wrapper of a scalar".to_owned()),
                };
            }
            _ => false,
        },
        Kind::Enum(values) if *column == Utf8 => return Ok(Item::Enum(values.clone())),
        Kind::Bool => *column == Boolean,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => is_narrow,
        Kind::Uint32 | Kind::Fixed32 | Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            is_narrow || *column == Int64
        }
        Kind::Float => *column == Float32,
        Kind::Double => matches!(column, Float32 | Float64),
        Kind::String => *column == Utf8,
        Kind::Bytes => *column == Binary,
    };
    let of = format!("{kind:?}").to_ascii_lowercase();
    if fits { Ok(Item::Scalar(kind)) } else { Err(format!("the type {} cannot be written as {of}", type_name(column))) }
}

impl Put {
    fn write(&self, value: &Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), String> {
        match (&self.how, value) {
            // What is not there is NULL, or the default where that cannot be told from it.
            (_, Value::Null) => Ok(()),
            (How::One(item), value) => item.write(self.number, value, self.implicit, out),
            (How::Many(item), Value::List(elements, range)) => {
                range.clone().try_for_each(|i| match elements.value(i) {
                    Value::Null => Err("an ARRAY holds NULL, which Protobuf cannot".to_owned()),
                    value => item.write(self.number, &value, false, out),
                })
            }
            (How::Map(key, of), Value::Map(keys, values, range)) => range.clone().try_for_each(|i| {
                let mut entry = Vec::new();
                key.write(1, &keys.value(i), false, &mut entry)?;
                match values.value(i) {
                    Value::Null => return Err("a MAP holds NULL, which Protobuf cannot".to_owned()),
                    value => of.write(2, &value, false, &mut entry)?,
                }
                write_sized(self.number, &entry, out);
                Ok(())
            }),
            (how, _) => unreachable!("the encoder was made for the columns: {how:?}"),
        }
    }
}

impl Item {
    fn write(&self, number: u32, value: &Value<'_, '_>, implicit: bool, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, value) {
            (Item::Scalar(kind), value) => scalar(number, kind, value, implicit, out),
            (Item::Enum(values), Value::Text(name)) => {
                let found = values.get_value_by_name(name).map(|value| value.number());
                let found = found
                    .or_else(|| name.parse().ok())
                    .ok_or_else(|| format!("'{name}' is no value of {}", values.full_name()))?;
                if !implicit || found != 0 {
                    write_tag(number, VARINT, out);
                    write_varint(i64::from(found) as u64, out);
                }
                Ok(())
            }
            (Item::Message(puts), Value::Row(parts, row)) => {
                let mut inner = Vec::new();
                for put in puts {
                    put.write(&parts[put.column].1.value(*row), &mut inner)
                        .map_err(|reason| format!("{}: {reason}", put.name))?;
                }
                write_sized(number, &inner, out);
                Ok(())
            }
            (Item::Time, Value::Timestamp { seconds, nanos, .. }) => {
                let mut inner = Vec::new();
                for (number, part) in [(1, *seconds), (2, i64::from(*nanos))] {
                    if part != 0 {
                        write_tag(number, VARINT, &mut inner);
                        write_varint(part as u64, &mut inner);
                    }
                }
                write_sized(number, &inner, out);
                Ok(())
            }
            (Item::Wrapped(kind), value) => {
                let mut inner = Vec::new();
                scalar(1, kind, value, true, &mut inner)?;
                write_sized(number, &inner, out);
                Ok(())
            }
            (item, _) => unreachable!("the encoder was made for the columns: {item:?}"),
        }
    }
}

fn scalar(number: u32, kind: &Kind, value: &Value<'_, '_>, implicit: bool, out: &mut Vec<u8>) -> Result<(), String> {
    match (kind, value) {
        (Kind::Bool, Value::Boolean(v)) => varint(number, u64::from(*v), implicit, out),
        (Kind::Int32 | Kind::Int64 | Kind::Enum(_), Value::Whole(v)) => varint(number, *v as u64, implicit, out),
        (Kind::Sint32 | Kind::Sint64, Value::Whole(v)) => varint(number, ((v << 1) ^ (v >> 63)) as u64, implicit, out),
        (Kind::Uint32 | Kind::Uint64, Value::Whole(v)) => varint(number, unsigned(*v, kind)?, implicit, out),
        (Kind::Fixed32, Value::Whole(v)) => {
            fixed(number, FOUR, &(unsigned(*v, kind)? as u32).to_le_bytes(), implicit, out)
        }
        (Kind::Sfixed32, Value::Whole(v)) => fixed(number, FOUR, &(*v as i32).to_le_bytes(), implicit, out),
        (Kind::Fixed64, Value::Whole(v)) => fixed(number, EIGHT, &unsigned(*v, kind)?.to_le_bytes(), implicit, out),
        (Kind::Sfixed64, Value::Whole(v)) => fixed(number, EIGHT, &v.to_le_bytes(), implicit, out),
        (Kind::Float, Value::Float32(v)) => fixed(number, FOUR, &v.to_le_bytes(), implicit, out),
        (Kind::Double, Value::Float32(v)) => fixed(number, EIGHT, &f64::from(*v).to_le_bytes(), implicit, out),
        (Kind::Double, Value::Float64(v)) => fixed(number, EIGHT, &v.to_le_bytes(), implicit, out),
        (Kind::String, Value::Text(v)) if !implicit || !v.is_empty() => write_sized(number, v.as_bytes(), out),
        (Kind::Bytes, Value::Bytes(v)) if !implicit || !v.is_empty() => write_sized(number, v, out),
        (Kind::String, Value::Text(_)) | (Kind::Bytes, Value::Bytes(_)) => {}
        (kind, _) => unreachable!("the encoder was made for the columns: {kind:?}"),
    }
    Ok(())
}

fn unsigned(value: i64, kind: &Kind) -> Result<u64, String> {
    let is_narrow = matches!(kind, Kind::Uint32 | Kind::Fixed32);
    let fits = u64::try_from(value).ok().filter(|value| !is_narrow || u32::try_from(*value).is_ok());
    fits.ok_or_else(|| format!("the number {value} is out of range for {}", format!("{kind:?}").to_ascii_lowercase()))
}

fn varint(number: u32, value: u64, implicit: bool, out: &mut Vec<u8>) {
    if !implicit || value != 0 {
        write_tag(number, VARINT, out);
        write_varint(value, out);
    }
}

fn fixed(number: u32, wire_type: u8, bytes: &[u8], implicit: bool, out: &mut Vec<u8>) {
    if !implicit || bytes.iter().any(|byte| *byte != 0) {
        write_tag(number, wire_type, out);
        out.extend_from_slice(bytes);
    }
}

fn write_sized(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_tag(number, SIZED, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
