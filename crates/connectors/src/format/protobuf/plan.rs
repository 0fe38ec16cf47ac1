//! From a message type to the columns of a table: which field goes where, and how. Made once a type; an error says all that
//! does not fit. What differs without harm is noted. Pure.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Syntax, Value};

use super::wire::write_varint;
use crate::format::column::type_name;
use crate::format::tree::map_parts;

/// How a message becomes a row.
#[derive(Debug)]
pub(super) struct MessagePlan {
    /// By the number of the field.
    pub(super) slots: Vec<Slot>,
    /// For each small number the slot, counted from 1; 0: nobody wants it.
    pub(super) direct: Vec<u16>,
    /// Columns that the message does not have, which are NULL.
    pub(super) missing: Vec<usize>,
}

/// A field that a column is for.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) column: usize,
    pub(super) name: String,
    pub(super) how: How,
}

/// How often a field comes, and how its values are read.
#[derive(Debug)]
pub(super) enum How {
    /// Once, or not at all.
    One(Item, Absent),
    Many(Item),
    /// Entries with a key and a value.
    Map {
        key: Scalar,
        value: Item,
        absent: Absent,
    },
}

/// What a column gets where the message does not have its field.
#[derive(Debug)]
pub(super) enum Absent {
    Null,
    /// A value on the wire, without its tag.
    Default(Vec<u8>),
}

/// How a value is read.
#[derive(Debug)]
pub(super) enum Item {
    Scalar(Scalar),
    Message(Box<MessagePlan>),
    /// `google.protobuf.Timestamp`, in a unit.
    Time(TimeUnit),
    /// `google.protobuf.Int64Value` and its like: a message with one value in field 1, with the default of that.
    Wrapped(Scalar, Vec<u8>),
}

/// How a scalar lies on the wire.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Bool,
    /// `int32`, `int64`.
    Signed,
    Unsigned32,
    Unsigned64,
    /// `uint64` as a decimal: what it is multiplied with.
    UnsignedDecimal(i128),
    Zigzag,
    Fixed32,
    Fixed64,
    /// `fixed64` as a decimal.
    FixedDecimal(i128),
    SignedFixed32,
    SignedFixed64,
    Float,
    Double,
    Text,
    Bytes,
    /// By the names of its values.
    Enum(BTreeMap<i32, String>),
}

/// Resolves message types.
pub(super) struct Resolver {
    /// What a message of proto2 does not have reads as the default in its type, instead of as NULL.
    pub(super) defaults: bool,
    /// Where the type differs from the table without harm.
    pub(super) notes: Vec<String>,
}

impl MessagePlan {
    /// The slot of a field.
    #[inline]
    pub(super) fn slot(&self, number: u32) -> Option<usize> {
        match self.direct.get(number as usize) {
            Some(slot) => usize::from(*slot).checked_sub(1),
            None => self.slots.binary_search_by_key(&number, |slot| slot.number).ok(),
        }
    }
}

impl Resolver {
    /// A message to the fields of a row; `path` names the row for messages, with a dot behind, and is empty for the table.
    pub(super) fn message(
        &mut self,
        message: &MessageDescriptor,
        columns: &Fields,
        path: &str,
    ) -> Result<MessagePlan, String> {
        let (mut slots, mut missing, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for field in message.fields().filter(|field| columns.find(field.name()).is_none()) {
            self.notes.push(format!("the field '{path}{}' is no column and is ignored", field.name()));
        }
        for (index, column) in columns.iter().enumerate() {
            let name = column.name();
            let Some(field) = message.get_field_by_name(name) else {
                if column.is_nullable() {
                    self.notes.push(format!("the column '{path}{name}' is not in it and reads as NULL"));
                    missing.push(index);
                } else {
                    wrong.push(format!(
                        "column '{path}{name}': it is NOT NULL and not in the message; declare it without NOT NULL"
                    ));
                }
                continue;
            };
            match self.field(&field, column, &format!("{path}{name}")) {
                Ok(how) => slots.push(Slot { number: field.number(), column: index, name: name.clone(), how }),
                Err(reason) => wrong.push(format!("column '{path}{name}': {reason}")),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        slots.sort_by_key(|slot| slot.number);
        const DIRECT_MAX: u32 = 256;
        let numbers = slots.iter().map(|slot| slot.number).filter(|number| *number < DIRECT_MAX);
        let mut direct = vec![0; numbers.max().map_or(0, |number| number as usize + 1)];
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.number < DIRECT_MAX) {
            direct[slot.number as usize] = u16::try_from(index + 1).expect("there are fewer small numbers");
        }
        Ok(MessagePlan { slots, direct, missing })
    }

    fn field(&mut self, field: &FieldDescriptor, column: &Field, path: &str) -> Result<How, String> {
        if field.is_group() {
            return Err("it is a group, which is not supported; use a message".to_owned());
        }
        match column.data_type() {
            DataType::Map(entries, _) => {
                let Kind::Message(entry) = field.kind() else { return Err("it is no map".to_owned()) };
                if !field.is_map() {
                    return Err("it is no map".to_owned());
                }
                let (key, value) = map_parts(entries)?;
                let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
                let key_of = self.item(&key_field, key.data_type(), &format!("{path}[]"))?;
                let Item::Scalar(key) = key_of else { unreachable!("keys of maps are scalars") };
                let value_of = self.item(&value_field, value.data_type(), &format!("{path}[]"))?;
                let absent = match &value_of {
                    Item::Scalar(_) => Absent::Default(default(&value_field)),
                    _ => Absent::Null,
                };
                Ok(How::Map { key, value: value_of, absent })
            }
            _ if field.is_map() => Err("it is a map; declare it as MAP".to_owned()),
            DataType::List(item) if field.is_list() => {
                Ok(How::Many(self.item(field, item.data_type(), &format!("{path}[]"))?))
            }
            DataType::List(_) => Err("it is not repeated, so no ARRAY".to_owned()),
            _ if field.is_list() => Err("it is repeated; declare it as ARRAY".to_owned()),
            data_type => {
                let item = self.item(field, data_type, path)?;
                let proto3 = field.parent_file().syntax() == Syntax::Proto3;
                let is_scalar = matches!(item, Item::Scalar(_));
                let reads_default =
                    is_scalar && !field.is_required() && (!field.supports_presence() || (self.defaults && !proto3));
                Ok(How::One(item, if reads_default { Absent::Default(default(field)) } else { Absent::Null }))
            }
        }
    }

    /// A single value to a column.
    fn item(&mut self, field: &FieldDescriptor, column: &DataType, path: &str) -> Result<Item, String> {
        let kind = field.kind();
        let refused = |help: &str| {
            let shown = match &kind {
                Kind::Message(message) => message.full_name().to_owned(),
                other => format!("{other:?}").to_ascii_lowercase(),
            };
            Err(format!("it is of the type {shown}, which does not fit {}{help}", type_name(column)))
        };
        if let Kind::Message(message) = &kind {
            return match (message.full_name(), column) {
                ("google.protobuf.Timestamp", DataType::Timestamp(unit, _)) => Ok(Item::Time(*unit)),
                (_, DataType::Struct(fields)) => {
                    Ok(Item::Message(Box::new(self.message(message, fields, &format!("{path}."))?)))
                }
                (name, _) if is_wrapper(name) => {
                    let inner = message.get_field(1).ok_or("a wrapper without a value")?;
                    match self.item(&inner, column, path)? {
                        Item::Scalar(scalar) => Ok(Item::Wrapped(scalar, default(&inner))),
                        _ => refused(""),
                    }
                }
                _ => refused(""),
            };
        }
        use DataType::{Binary, Boolean, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Utf8};
        let is_narrow = matches!(column, Int8 | Int16 | Int32);
        let is_whole = is_narrow || *column == Int64;
        let scalar = match &kind {
            Kind::Bool if *column == Boolean => Scalar::Bool,
            Kind::Int32 if is_whole => Scalar::Signed,
            Kind::Sint32 if is_whole => Scalar::Zigzag,
            Kind::Sfixed32 if is_whole => Scalar::SignedFixed32,
            Kind::Uint32 if is_whole => Scalar::Unsigned32,
            Kind::Fixed32 if is_whole => Scalar::Fixed32,
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 if is_narrow => {
                return refused("; declare it as BIGINT");
            }
            Kind::Int64 if is_whole => Scalar::Signed,
            Kind::Sint64 if is_whole => Scalar::Zigzag,
            Kind::Sfixed64 if is_whole => Scalar::SignedFixed64,
            Kind::Uint64 if is_whole => Scalar::Unsigned64,
            Kind::Fixed64 if is_whole => Scalar::Fixed64,
            Kind::Uint64 | Kind::Fixed64 => match column {
                Decimal128(_, scale @ 0..=18) => {
                    let up = 10_i128.pow(u32::try_from(*scale).expect("it is not negative"));
                    if kind == Kind::Uint64 { Scalar::UnsignedDecimal(up) } else { Scalar::FixedDecimal(up) }
                }
                _ => return refused("; declare it as BIGINT, or as DECIMAL(20, 0)"),
            },
            Kind::Float if matches!(column, Float32 | Float64) => Scalar::Float,
            Kind::Double if *column == Float64 => Scalar::Double,
            Kind::Double if *column == Float32 => return refused("; declare it as DOUBLE"),
            Kind::String if *column == Utf8 => Scalar::Text,
            Kind::Bytes if *column == Binary => Scalar::Bytes,
            Kind::Enum(values) if *column == Utf8 => {
                // Of several names of one number the first counts.
                let names = values.values().map(|value| (value.number(), value.name().to_owned()));
                Scalar::Enum(names.rev_unique())
            }
            Kind::Enum(_) if is_whole && *column != Int8 && *column != Int16 => Scalar::Signed,
            _ => return refused(""),
        };
        let is_wide = matches!(kind, Kind::Int32 | Kind::Sint32 | Kind::Sfixed32) && *column == Int64;
        if is_wide || (kind == Kind::Float && *column == Float64) {
            let written = format!("{kind:?}").to_ascii_lowercase();
            self.notes.push(format!("'{path}' is written as {written} and read as {}", type_name(column)));
        }
        Ok(Item::Scalar(scalar))
    }
}

/// Names by number, of which the first of each number counts.
trait FirstOfEach {
    fn rev_unique(self) -> BTreeMap<i32, String>;
}

impl<I: Iterator<Item = (i32, String)>> FirstOfEach for I {
    fn rev_unique(self) -> BTreeMap<i32, String> {
        let mut names = BTreeMap::new();
        for (number, name) in self {
            names.entry(number).or_insert(name);
        }
        names
    }
}

/// Whether a message stands for a scalar that may be absent.
pub(super) fn is_wrapper(name: &str) -> bool {
    let kind = name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    matches!(kind, Some("Double" | "Float" | "Int64" | "UInt64" | "Int32" | "UInt32" | "Bool" | "String" | "Bytes"))
}

/// The default of a scalar field as it would lie on the wire.
fn default(field: &FieldDescriptor) -> Vec<u8> {
    let mut out = Vec::new();
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
    match (field.default_value(), field.kind()) {
        (Value::Bool(value), _) => out.push(value.into()),
        (Value::I32(value), Kind::Sint32) => write_varint(zigzag(value.into()), &mut out),
        (Value::I64(value), Kind::Sint64) => write_varint(zigzag(value), &mut out),
        (Value::I32(value), Kind::Sfixed32) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::I64(value), Kind::Sfixed64) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::U32(value), Kind::Fixed32) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::U64(value), Kind::Fixed64) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::I32(value) | Value::EnumNumber(value), _) => write_varint(i64::from(value) as u64, &mut out),
        (Value::I64(value), _) => write_varint(value as u64, &mut out),
        (Value::U32(value), _) => write_varint(value.into(), &mut out),
        (Value::U64(value), _) => write_varint(value, &mut out),
        (Value::F32(value), _) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::F64(value), _) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::String(value), _) => {
            write_varint(value.len() as u64, &mut out);
            out.extend_from_slice(value.as_bytes());
        }
        (Value::Bytes(value), _) => {
            write_varint(value.len() as u64, &mut out);
            out.extend_from_slice(&value);
        }
        (Value::Message(_) | Value::List(_) | Value::Map(_), _) => {}
    }
    out
}
