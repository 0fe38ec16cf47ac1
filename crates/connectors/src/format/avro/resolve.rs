//! From the schema that records are written with to the columns of a table: which field goes where, and how. Made once a
//! schema; an error says all that does not fit. What differs without harm is noted, for the user and for those who want
//! no difference at all. Pure.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde_json::Value;

use super::schema::{AvroSchema, Logical, RecordField, Shape, TypeId};
use super::wire::{write_bytes, write_long};
use crate::format::column::type_name;
use crate::format::tree::map_parts;

/// How a value is read.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Null,
    Boolean,
    Whole(Convert),
    Float,
    Double,
    /// Of so many bytes, or of a length that is written before; what the unscaled value is multiplied with.
    Decimal(Option<usize>, i128),
    Text,
    Bytes,
    Fixed(usize),
    Enum(Vec<String>),
    Row(Box<RowPlan>),
    List(Box<Step>),
    Map(Box<Step>),
    /// A union of two, of which one is null: the branch that is null.
    Nullable(usize, Box<Step>),
    /// Any other union: for each branch how it is read, or why it cannot be.
    Union(Vec<Result<Step, String>>),
}

/// From one unit of time to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convert {
    Same,
    Times(i64),
    Divided(i64),
}

/// How a record becomes a row.
#[derive(Debug, PartialEq)]
pub(super) struct RowPlan {
    /// For each field, in the order of the wire.
    pub(super) reads: Vec<FieldPlan>,
    /// Columns that the record does not have.
    pub(super) fills: Vec<(usize, Fill)>,
}

#[derive(Debug, PartialEq)]
pub(super) enum FieldPlan {
    /// Into a column.
    Column(usize, Step),
    /// Nobody wants it.
    Skip(TypeId),
}

/// What a column gets that records do not have.
#[derive(Debug, PartialEq)]
pub(super) enum Fill {
    Null,
    /// The default of the reader's own schema, as a value on the wire.
    Default(Vec<u8>, Step),
}

/// What a schema is resolved against.
pub(super) struct Resolver<'a> {
    pub(super) writer: &'a AvroSchema,
    /// The reader's own schema, where the user has given one: it has defaults.
    pub(super) reader: Option<&'a AvroSchema>,
    /// Where the writer's schema differs from the table without harm.
    pub(super) notes: Vec<String>,
}

impl Resolver<'_> {
    /// A record to the fields of a row; `path` names the row for messages, with a dot behind, and is empty for the table.
    pub(super) fn record(
        &mut self,
        fields: &[RecordField],
        columns: &Fields,
        reader: Option<TypeId>,
        path: &str,
    ) -> Result<RowPlan, String> {
        let mut wrong = Vec::new();
        let mut reads = Vec::with_capacity(fields.len());
        for field in fields {
            let Some((index, column)) = columns.find(&field.name) else {
                self.notes.push(format!("the field '{path}{}' is no column and is ignored", field.name));
                reads.push(FieldPlan::Skip(field.of));
                continue;
            };
            let inner = reader.and_then(|reader| self.reader_field(reader, &field.name)).map(|field| field.of);
            match self.value(field.of, column.data_type(), inner, &format!("{path}{}", field.name)) {
                Ok(step) => reads.push(FieldPlan::Column(index, step)),
                Err(reason) => wrong.push(format!("column '{path}{}': {reason}", field.name)),
            }
        }
        let mut fills = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            if fields.iter().any(|field| field.name == *column.name()) {
                continue;
            }
            match self.fill(column, reader) {
                Ok(fill) => {
                    let what = if fill == Fill::Null { "NULL" } else { "its default" };
                    self.notes.push(format!("the column '{path}{}' is not in it and reads as {what}", column.name()));
                    fills.push((index, fill));
                }
                Err(reason) => wrong.push(format!("column '{path}{}': {reason}", column.name())),
            }
        }
        if wrong.is_empty() { Ok(RowPlan { reads, fills }) } else { Err(wrong.join("; ")) }
    }

    /// A value to a column.
    pub(super) fn value(
        &mut self,
        of: TypeId,
        column: &DataType,
        reader: Option<TypeId>,
        path: &str,
    ) -> Result<Step, String> {
        let writer = self.writer;
        let written = writer.get(of);
        let refused = |help: &str| {
            let name = writer.name(of);
            Err(format!("it is written as {name}, which does not fit {}{help}", type_name(column)))
        };
        let step = match (&written.shape, column) {
            (Shape::Union(branches), _) => return self.union(branches, column, reader, path),
            (Shape::Boolean, DataType::Boolean) => Step::Boolean,
            (Shape::Int | Shape::Long, _) => match whole(&written.shape, written.logical, column) {
                Ok(convert) => Step::Whole(convert),
                Err(help) => return refused(help),
            },
            (Shape::Float, DataType::Float32 | DataType::Float64) => Step::Float,
            (Shape::Double, DataType::Float64) => Step::Double,
            (Shape::Double, DataType::Float32) => return refused("; declare it as DOUBLE"),
            (Shape::Bytes | Shape::Fixed(_), &DataType::Decimal128(_, scale)) => {
                let Some(Logical::Decimal { scale: written_scale, .. }) = written.logical else {
                    return refused("; declare it as BYTES");
                };
                let up = u32::try_from(scale).ok().and_then(|scale| scale.checked_sub(written_scale));
                let Some(up) = up else { return refused(": digits would be lost") };
                let size = if let Shape::Fixed(size) = written.shape { Some(size) } else { None };
                Step::Decimal(size, 10_i128.pow(up))
            }
            (Shape::String | Shape::Bytes, DataType::Utf8) => Step::Text,
            (Shape::Enum(symbols), DataType::Utf8) => Step::Enum(symbols.clone()),
            (Shape::Bytes | Shape::String, DataType::Binary) => Step::Bytes,
            (Shape::Fixed(size), DataType::Binary) => Step::Fixed(*size),
            (Shape::Record(fields), DataType::Struct(parts)) => {
                let inner = self.reader_inner(reader, |shape| matches!(shape, Shape::Record(_)));
                Step::Row(Box::new(self.record(fields, parts, inner, &format!("{path}."))?))
            }
            (Shape::Array(items), DataType::List(item)) => {
                let inner = self.reader_element(reader);
                Step::List(Box::new(self.value(*items, item.data_type(), inner, &format!("{path}[]"))?))
            }
            (Shape::Map(values), DataType::Map(entries, _)) => {
                let (key, value) = map_parts(entries)?;
                if key.data_type() != &DataType::Utf8 {
                    return refused("; its keys are of type STRING");
                }
                let inner = self.reader_element(reader);
                Step::Map(Box::new(self.value(*values, value.data_type(), inner, &format!("{path}[]"))?))
            }
            _ => return refused(""),
        };
        if adapts(&written.shape, column) {
            self.notes.push(format!("'{path}' is written as {} and read as {}", writer.name(of), type_name(column)));
        }
        Ok(step)
    }

    fn union(
        &mut self,
        branches: &[TypeId],
        column: &DataType,
        reader: Option<TypeId>,
        path: &str,
    ) -> Result<Step, String> {
        let mut steps = Vec::with_capacity(branches.len());
        for branch in branches {
            steps.push(match self.writer.get(*branch).shape {
                Shape::Null => Ok(Step::Null),
                _ => self.value(*branch, column, reader, path),
            });
        }
        let is_null = |step: &Result<Step, String>| matches!(step, Ok(Step::Null));
        if !steps.iter().any(|step| step.is_ok() && !is_null(step)) {
            let reason = steps.into_iter().find_map(Result::err);
            return Err(reason.unwrap_or_else(|| "it is always null".to_owned()));
        }
        match <[_; 2]>::try_from(steps) {
            Ok([first, second]) => match (first, second) {
                (Ok(Step::Null), Ok(step)) => Ok(Step::Nullable(0, Box::new(step))),
                (Ok(step), Ok(Step::Null)) => Ok(Step::Nullable(1, Box::new(step))),
                (first, second) => Ok(Step::Union(vec![first, second])),
            },
            Err(steps) => Ok(Step::Union(steps)),
        }
    }

    fn fill(&self, column: &Field, reader: Option<TypeId>) -> Result<Fill, String> {
        let own = reader.and_then(|reader| self.reader_field(reader, column.name()));
        if let (Some(field), Some(schema)) = (own, self.reader)
            && let Some(default) = &field.default
        {
            let mut bytes = Vec::new();
            write_default(schema, field.of, default, &mut bytes)?;
            let mut own = Resolver { writer: schema, reader: None, notes: Vec::new() };
            return Ok(Fill::Default(bytes, own.value(field.of, column.data_type(), None, "")?));
        }
        match column.is_nullable() {
            true => Ok(Fill::Null),
            false => Err("it is NOT NULL and not in the schema; declare it without NOT NULL".to_owned()),
        }
    }

    /// The field of that name of the reader's record.
    fn reader_field(&self, reader: TypeId, name: &str) -> Option<&RecordField> {
        match &self.reader?.get(reader).shape {
            Shape::Record(fields) => fields.iter().find(|field| field.name == name),
            _ => None,
        }
    }

    /// The reader's type itself, or the branch of its union, of a shape.
    fn reader_inner(&self, reader: Option<TypeId>, wanted: impl Fn(&Shape) -> bool) -> Option<TypeId> {
        let (schema, reader) = (self.reader?, reader?);
        match &schema.get(reader).shape {
            Shape::Union(branches) => branches.iter().copied().find(|branch| wanted(&schema.get(*branch).shape)),
            shape => wanted(shape).then_some(reader),
        }
    }

    fn reader_element(&self, reader: Option<TypeId>) -> Option<TypeId> {
        let list = self.reader_inner(reader, |shape| matches!(shape, Shape::Array(_) | Shape::Map(_)))?;
        match self.reader?.get(list).shape {
            Shape::Array(element) | Shape::Map(element) => Some(element),
            _ => None,
        }
    }
}

/// An int or a long to a column; an error helps where it does not fit.
fn whole(shape: &Shape, logical: Option<Logical>, column: &DataType) -> Result<Convert, &'static str> {
    match (column, logical) {
        // What counts days or milliseconds can be had as the number that it is.
        (DataType::Int8 | DataType::Int16 | DataType::Int32, _) if *shape == Shape::Int => Ok(Convert::Same),
        (DataType::Int8 | DataType::Int16 | DataType::Int32, _) => Err("; declare it as BIGINT"),
        (DataType::Int64, _) => Ok(Convert::Same),
        (DataType::Float32 | DataType::Float64, None) => Ok(Convert::Same),
        (DataType::Date32, Some(Logical::Date)) => Ok(Convert::Same),
        (DataType::Time32(TimeUnit::Millisecond), Some(Logical::TimeMillis)) => Ok(Convert::Same),
        (DataType::Time32(TimeUnit::Millisecond), Some(Logical::TimeMicros)) => Ok(Convert::Divided(1_000)),
        (DataType::Timestamp(_, Some(_)), Some(Logical::Timestamp { local: true, .. })) => {
            Err("; declare it as TIMESTAMP")
        }
        (DataType::Timestamp(wanted, _), Some(Logical::Timestamp { unit, .. })) => Ok(convert(unit, *wanted)),
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Time32(_), None) => {
            Err("; declare it as the number that it is and convert it in the query")
        }
        _ => Err(""),
    }
}

fn convert(from: TimeUnit, to: TimeUnit) -> Convert {
    let per_second = |unit| match unit {
        TimeUnit::Second => 1_i64,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let (from, to) = (per_second(from), per_second(to));
    match from.cmp(&to) {
        std::cmp::Ordering::Equal => Convert::Same,
        std::cmp::Ordering::Less => Convert::Times(to / from),
        std::cmp::Ordering::Greater => Convert::Divided(from / to),
    }
}

/// Whether a value is read as something else than it is written.
fn adapts(shape: &Shape, column: &DataType) -> bool {
    match shape {
        Shape::Int => matches!(column, DataType::Int64 | DataType::Float32 | DataType::Float64),
        Shape::Long => matches!(column, DataType::Float32 | DataType::Float64),
        Shape::Float => matches!(column, DataType::Float64),
        Shape::Bytes => matches!(column, DataType::Utf8),
        Shape::String => matches!(column, DataType::Binary),
        _ => false,
    }
}

/// Writes the default of a field, which is JSON, as a value on the wire. That of a union is of its first branch.
fn write_default(schema: &AvroSchema, of: TypeId, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("the default '{value}' in its schema is none of type {}", schema.name(of));
    match &schema.get(of).shape {
        Shape::Null => value.is_null().then_some(()).ok_or_else(wrong)?,
        Shape::Boolean => out.push(value.as_bool().ok_or_else(wrong)?.into()),
        Shape::Int | Shape::Long => write_long(value.as_i64().ok_or_else(wrong)?, out),
        Shape::Float => out.extend_from_slice(&(value.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
        Shape::Double => out.extend_from_slice(&value.as_f64().ok_or_else(wrong)?.to_le_bytes()),
        Shape::String => write_bytes(value.as_str().ok_or_else(wrong)?.as_bytes(), out),
        Shape::Bytes => write_bytes(&latin(value).ok_or_else(wrong)?, out),
        Shape::Fixed(size) => {
            out.extend_from_slice(&latin(value).filter(|bytes| bytes.len() == *size).ok_or_else(wrong)?);
        }
        Shape::Enum(symbols) => {
            let found = symbols.iter().position(|symbol| value.as_str() == Some(symbol));
            write_long(found.ok_or_else(wrong)? as i64, out);
        }
        Shape::Array(items) => {
            let values = value.as_array().ok_or_else(wrong)?;
            if !values.is_empty() {
                write_long(values.len() as i64, out);
                values.iter().try_for_each(|value| write_default(schema, *items, value, out))?;
            }
            write_long(0, out);
        }
        Shape::Map(of_values) => {
            let values = value.as_object().ok_or_else(wrong)?;
            if !values.is_empty() {
                write_long(values.len() as i64, out);
            }
            for (key, value) in values {
                write_bytes(key.as_bytes(), out);
                write_default(schema, *of_values, value, out)?;
            }
            write_long(0, out);
        }
        Shape::Record(fields) => {
            let values = value.as_object().ok_or_else(wrong)?;
            for field in fields {
                let value = values.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                write_default(schema, field.of, value, out)?;
            }
        }
        Shape::Union(branches) => {
            write_long(0, out);
            write_default(schema, *branches.first().ok_or_else(wrong)?, value, out)?;
        }
    }
    Ok(())
}

/// The bytes of a text whose characters stand for one each.
fn latin(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
