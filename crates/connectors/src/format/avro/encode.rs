//! Rows as Avro: each a record by a schema, behind the head that a registry gives it, alone or in the envelope of a change.
//! Called by the Kafka sink for messages, and for the blocks of files.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Fields, TimeUnit};

use super::schema::{AvroSchema, Logical, Shape, TypeId};
use super::wire::{write_bytes, write_long};
use crate::error::ConnectorError;
use crate::format::column::type_name;
use crate::format::encode::{ColumnView, TextEncoder, Value, kind, updates};
use crate::format::tree::map_parts;

/// Writes records.
pub(crate) struct AvroEncoder {
    row: Vec<Put>,
    names: Vec<String>,
    /// What stands before each record.
    head: Vec<u8>,
    envelope: bool,
}

/// How a value is written.
#[derive(Debug)]
enum Put {
    Boolean,
    Whole,
    Float,
    Double,
    /// Into so many bytes, or into as many as it takes.
    Decimal(Option<usize>),
    Text,
    Bytes,
    Fixed(usize),
    Enum(Vec<String>),
    /// Milliseconds of the day, or microseconds.
    Time(i64),
    /// In this unit.
    Timestamp(TimeUnit),
    Row(Vec<(usize, Put)>),
    List(Box<Put>),
    Map(Box<Put>),
    /// A union of two, of which one is null: the branch that is null.
    Nullable(usize, Box<Put>),
}

impl AvroEncoder {
    /// An encoder of rows with these fields by a schema; `envelope`: as changes with what was before and what is after.
    /// An error names the column that the schema does not fit.
    pub(super) fn new(schema: &AvroSchema, fields: &Fields, envelope: bool) -> Result<AvroEncoder, String> {
        let puts = record(schema, schema.root(), fields)?;
        // A record's fields come in the order of its schema, which an encoder of rows follows by column.
        let names = puts.iter().map(|(column, _)| fields[*column].name().clone()).collect();
        let row = vec![Put::Row(puts)];
        Ok(AvroEncoder { row, names, head: Vec::new(), envelope })
    }

    /// Puts the magic byte and the schema's id before each record from now on.
    pub(super) fn with_id(&mut self, id: i32) {
        self.head = [&[0][..], &id.to_be_bytes()].concat();
    }
}

impl TextEncoder for AvroEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn registered(&mut self, id: i32) {
        self.with_id(id);
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
        let [Put::Row(puts)] = &self.row[..] else { unreachable!("a record is a row") };
        let pairs = if self.envelope { updates(rows, changes, &[])? } else { Vec::new() };
        debug_assert!(pairs.is_empty(), "without a key every update is a delete and an insert");
        for row in 0..rows.num_rows() {
            let gone = !kind(changes, row).is_addition();
            out.extend_from_slice(&self.head);
            if self.envelope {
                // Both sides are unions with null, null first.
                out.push(if gone { 2 } else { 0 });
            }
            if self.envelope && !gone {
                out.push(2);
            }
            for ((column, put), name) in puts.iter().zip(&self.names) {
                // What goes away by its key alone may lack all else; nobody sees the rest of it.
                put.write(&columns[*column].value(row), gone && !self.envelope, out).map_err(|reason| {
                    ConnectorError::data(format!("a row cannot be written as Avro: column '{name}': {reason}"))
                })?;
            }
            if self.envelope {
                if gone {
                    out.push(0);
                }
                write_bytes(if gone { b"d" } else { b"c" }, out);
            }
            each(row, out.len());
        }
        Ok(())
    }
}

/// How the fields of a record are written, in the order of the schema, with the column of each.
fn record(schema: &AvroSchema, of: TypeId, columns: &Fields) -> Result<Vec<(usize, Put)>, String> {
    let Shape::Record(fields) = &schema.get(of).shape else {
        return Err(format!("the schema is a {}, and rows need a record", schema.name(of)));
    };
    let mut puts = Vec::with_capacity(fields.len());
    for field in fields {
        let Some((index, column)) = columns.find(&field.name) else {
            return Err(format!("the schema has the field '{}', which is no column", field.name));
        };
        let put = value(schema, field.of, column.data_type(), column.is_nullable());
        puts.push((index, put.map_err(|reason| format!("column '{}': {reason}", field.name))?));
    }
    match columns.iter().find(|column| fields.iter().all(|field| field.name != *column.name())) {
        None => Ok(puts),
        Some(column) => Err(format!("column '{}': the schema has no such field", column.name())),
    }
}

fn value(schema: &AvroSchema, of: TypeId, column: &DataType, nullable: bool) -> Result<Put, String> {
    let to = schema.get(of);
    let refused = || {
        let name = schema.name(of);
        Err(format!("the type {} cannot be written as {name}", type_name(column)))
    };
    if let Shape::Union(branches) = &to.shape {
        let null = branches.iter().position(|branch| schema.get(*branch).shape == Shape::Null);
        return match (null, &branches[..]) {
            (Some(null), [_, _]) => {
                Ok(Put::Nullable(null, Box::new(value(schema, branches[1 - null], column, false)?)))
            }
            _ => Err(format!("a {} can be read, but not written", schema.name(of))),
        };
    }
    if nullable {
        return Err(format!("it may be NULL, which {} cannot be", schema.name(of)));
    }
    Ok(match (&to.shape, column, to.logical) {
        (Shape::Boolean, DataType::Boolean, _) => Put::Boolean,
        (Shape::Int | Shape::Long, DataType::Int8 | DataType::Int16 | DataType::Int32, None) => Put::Whole,
        (Shape::Long, DataType::Int64, None) => Put::Whole,
        (Shape::Float, DataType::Float32, _) => Put::Float,
        (Shape::Double, DataType::Float32 | DataType::Float64, _) => Put::Double,
        (
            Shape::Bytes | Shape::Fixed(_),
            &DataType::Decimal128(precision, scale),
            Some(Logical::Decimal { precision: p, scale: s }),
        ) => {
            if i64::from(scale) != i64::from(s) || u32::from(precision) > p {
                return refused();
            }
            Put::Decimal(if let Shape::Fixed(size) = to.shape { Some(size) } else { None })
        }
        (Shape::String | Shape::Bytes, DataType::Utf8, _) => Put::Text,
        (Shape::Enum(symbols), DataType::Utf8, _) => Put::Enum(symbols.clone()),
        (Shape::Bytes, DataType::Binary, _) => Put::Bytes,
        (Shape::Fixed(size), DataType::Binary, _) => Put::Fixed(*size),
        (Shape::Int, DataType::Date32, Some(Logical::Date)) => Put::Whole,
        (Shape::Int, DataType::Time32(_), Some(Logical::TimeMillis)) => Put::Time(1),
        (Shape::Long, DataType::Time32(_), Some(Logical::TimeMicros)) => Put::Time(1_000),
        (Shape::Long, DataType::Timestamp(_, zone), Some(Logical::Timestamp { unit, local })) => {
            if local && zone.is_some() {
                return refused();
            }
            Put::Timestamp(unit)
        }
        (Shape::Record(_), DataType::Struct(fields), _) => Put::Row(record(schema, of, fields)?),
        (Shape::Array(items), DataType::List(item), _) => {
            Put::List(Box::new(value(schema, *items, item.data_type(), item.is_nullable())?))
        }
        (Shape::Map(values), DataType::Map(entries, _), _) => {
            let (key, of) = map_parts(entries)?;
            if key.data_type() != &DataType::Utf8 {
                return refused();
            }
            Put::Map(Box::new(value(schema, *values, of.data_type(), of.is_nullable())?))
        }
        _ => return refused(),
    })
}

impl Put {
    /// Writes a value. `unseen`: nobody reads it, so that a NULL where none can be is written as nothing in particular.
    fn write(&self, value: &Value<'_, '_>, unseen: bool, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, value) {
            (Put::Nullable(null, _), Value::Null) => write_long(*null as i64, out),
            (Put::Nullable(null, put), value) => {
                write_long(1 - *null as i64, out);
                return put.write(value, unseen, out);
            }
            (_, Value::Null) if unseen => {}
            (_, Value::Null) => return Err("NULL in a NOT NULL column".to_owned()),
            (Put::Boolean, Value::Boolean(v)) => out.push((*v).into()),
            (Put::Whole, Value::Whole(v)) => write_long(*v, out),
            (Put::Whole, Value::Date(days)) => write_long((*days).into(), out),
            (Put::Float, Value::Float32(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (Put::Double, Value::Float32(v)) => out.extend_from_slice(&f64::from(*v).to_le_bytes()),
            (Put::Double, Value::Float64(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (Put::Decimal(size), Value::Decimal(unscaled, _)) => write_unscaled(*unscaled, *size, out)?,
            (Put::Text, Value::Text(v)) => write_bytes(v.as_bytes(), out),
            (Put::Bytes, Value::Bytes(v)) => write_bytes(v, out),
            (Put::Fixed(size), Value::Bytes(v)) => {
                if v.len() != *size {
                    return Err(format!("{} bytes, where the schema has a fixed of {size}", v.len()));
                }
                out.extend_from_slice(v);
            }
            (Put::Enum(symbols), Value::Text(v)) => {
                let index = symbols.iter().position(|symbol| symbol == v);
                write_long(index.ok_or_else(|| format!("'{v}' is none of {}", symbols.join(", ")))? as i64, out);
            }
            (Put::Time(per_ms), Value::Time(ms)) => write_long(i64::from(*ms) * per_ms, out),
            (Put::Timestamp(unit), Value::Timestamp { seconds, nanos, .. }) => {
                write_long(timestamp(*seconds, *nanos, *unit)?, out);
            }
            (Put::Row(puts), Value::Row(parts, row)) => {
                for (column, put) in puts {
                    put.write(&parts[*column].1.value(*row), unseen, out)?;
                }
            }
            (Put::List(put), Value::List(elements, range)) => {
                if !range.is_empty() {
                    write_long(range.len() as i64, out);
                }
                range.clone().try_for_each(|i| put.write(&elements.value(i), unseen, out))?;
                out.push(0);
            }
            (Put::Map(put), Value::Map(keys, values, range)) => {
                if !range.is_empty() {
                    write_long(range.len() as i64, out);
                }
                for i in range.clone() {
                    let Value::Text(key) = keys.value(i) else { return Err("a MAP has a key that is NULL".to_owned()) };
                    write_bytes(key.as_bytes(), out);
                    put.write(&values.value(i), unseen, out)?;
                }
                out.push(0);
            }
            (put, _) => unreachable!("the encoder was made for the columns: {put:?}"),
        }
        Ok(())
    }
}

fn timestamp(seconds: i64, nanos: u32, unit: TimeUnit) -> Result<i64, String> {
    let (per_second, nanos_each) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    let whole = i128::from(seconds) * per_second + i128::from(nanos / nanos_each);
    i64::try_from(whole).map_err(|_| "the timestamp is out of range".to_owned())
}

/// The shortest big-endian two's complement, or one that fills its size.
fn write_unscaled(value: i128, size: Option<usize>, out: &mut Vec<u8>) -> Result<(), String> {
    let wide = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let surplus = wide.windows(2).take_while(|pair| pair[0] == sign && (pair[1] & 0x80) == (sign & 0x80)).count();
    let shortest = &wide[surplus..];
    match size {
        None => write_bytes(shortest, out),
        Some(size) if shortest.len() > size => return Err(format!("the decimal does not fit into {size} bytes")),
        Some(size) => {
            out.extend(std::iter::repeat_n(sign, size - shortest.len()));
            out.extend_from_slice(shortest);
        }
    }
    Ok(())
}
