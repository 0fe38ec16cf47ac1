//! Reads messages by the plan that was made for their type, straight into columns. The rules are those of the wire format's
//! description: fields come in any order; of a scalar that comes again the last counts, a message that comes again is merged;
//! numbers of a list come one by one or packed together; of entries of a map with one key the last counts.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::TimeUnit;

use super::plan::{Absent, How, Item, MessagePlan, Scalar, Slot};
use super::wire::{Wire, WireType, unzigzag};
use crate::format::column::ScalarColumn;
use crate::format::fault::{Fault, Faulty};
use crate::format::tree::TreeColumn;

/// What has to wait for the end of a message.
#[derive(Default)]
struct Later {
    /// Slots of messages that came more than once.
    again: Vec<usize>,
    /// Entries of maps: their slot, and where they lie.
    entries: Vec<(usize, Range<usize>)>,
}

impl MessagePlan {
    /// Reads the message in a part of the record; each column, which has `rows` values, gets one.
    pub(super) fn read(
        &self,
        columns: &mut [TreeColumn],
        rows: usize,
        record: &[u8],
        part: Range<usize>,
    ) -> Faulty<()> {
        let mut wire = Wire::new(record, part.clone());
        let mut later = Later::default();
        while !wire.is_empty() {
            let (number, wire_type) = wire.tag()?;
            match self.slot(number) {
                None => wire.skip(number, wire_type)?,
                Some(index) => {
                    let slot = &self.slots[index];
                    slot.read(index, &mut columns[slot.column], rows, record, &mut wire, wire_type, &mut later)
                        .map_err(|fault| fault.inside(&slot.name))?;
                }
            }
        }
        for index in later.again {
            let slot = &self.slots[index];
            let column = &mut columns[slot.column];
            column.truncate(rows);
            slot.merge(column, record, part.clone()).map_err(|fault| fault.inside(&slot.name))?;
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let column = &mut columns[slot.column];
            slot.end(index, column, rows, record, &later.entries).map_err(|fault| fault.inside(&slot.name))?;
        }
        self.missing.iter().try_for_each(|column| columns[*column].append_null())
    }
}

impl Slot {
    #[expect(clippy::too_many_arguments, reason = "what one turn of the loop over a message has at hand")]
    #[inline]
    fn read(
        &self,
        index: usize,
        column: &mut TreeColumn,
        rows: usize,
        record: &[u8],
        wire: &mut Wire<'_>,
        wire_type: WireType,
        later: &mut Later,
    ) -> Faulty<()> {
        match &self.how {
            How::One(item, _) => {
                if column.len() > rows {
                    if !matches!(item, Item::Scalar(_)) {
                        if !later.again.contains(&index) {
                            later.again.push(index);
                        }
                        return wire.skip(self.number, wire_type);
                    }
                    column.truncate(rows);
                }
                item.read(column, record, wire, wire_type)
            }
            How::Many(item) => {
                let TreeColumn::List(list) = column else { unreachable!("a plan is made for its columns") };
                match item {
                    Item::Scalar(scalar) if wire_type == WireType::Sized && scalar.wire_type() != WireType::Sized => {
                        let part = wire.sized()?;
                        let mut packed = Wire::new(record, part);
                        while !packed.is_empty() {
                            scalar.append(&mut list.items, &mut packed)?;
                        }
                        Ok(())
                    }
                    item => item.read(&mut list.items, record, wire, wire_type),
                }
            }
            How::Map { .. } => {
                expect(wire, wire_type, WireType::Sized)?;
                later.entries.push((index, wire.sized()?));
                Ok(())
            }
        }
    }

    /// Reads a message that came in several parts, as one.
    fn merge(&self, column: &mut TreeColumn, record: &[u8], part: Range<usize>) -> Faulty<()> {
        let How::One(item, _) = &self.how else { unreachable!("only single messages are merged") };
        let mut wire = Wire::new(record, part);
        let mut merged = Vec::new();
        while !wire.is_empty() {
            let (number, wire_type) = wire.tag()?;
            if number == self.number && wire_type == WireType::Sized {
                let part = wire.sized()?;
                merged.extend_from_slice(wire.part(part));
            } else {
                wire.skip(number, wire_type)?;
            }
        }
        item.read_message(column, &merged, 0..merged.len())
    }

    /// Gives the column what the end of the message decides.
    fn end(
        &self,
        index: usize,
        column: &mut TreeColumn,
        rows: usize,
        record: &[u8],
        entries: &[(usize, Range<usize>)],
    ) -> Faulty<()> {
        match (&self.how, column) {
            (How::One(item, absent), column) if column.len() == rows => match (item, absent) {
                (Item::Scalar(scalar), Absent::Default(bytes)) => {
                    scalar.append(column, &mut Wire::new(bytes, 0..bytes.len()))
                }
                _ => column.append_null(),
            },
            (How::One(..), _) => Ok(()),
            (How::Many(_), TreeColumn::List(list)) => list.close(),
            (How::Map { key, value, absent }, TreeColumn::Map(map)) => {
                let own = entries.iter().filter(|(slot, _)| *slot == index).map(|(_, part)| part.clone());
                let own = own.map(|part| Entry::find(record, part, key)).collect::<Faulty<Vec<_>>>()?;
                let bytes = |entry: &Entry| entry.key.as_ref().map(|(at, end, _)| &record[*at..*end]);
                let last: BTreeMap<Option<&[u8]>, usize> =
                    own.iter().enumerate().map(|(number, entry)| (bytes(entry), number)).collect();
                for (number, entry) in own.iter().enumerate().filter(|(number, entry)| last[&bytes(entry)] == *number) {
                    debug_assert!(number < own.len());
                    match &entry.key {
                        Some((at, end, _)) => key.append(&mut map.keys, &mut Wire::new(record, *at..*end))?,
                        None => {
                            let zero = [0; 8];
                            key.append(&mut map.keys, &mut Wire::new(&zero, 0..zero.len()))?;
                        }
                    }
                    match (&entry.value, absent) {
                        (Some((at, end, wire_type)), _) => {
                            value.read(&mut map.values, record, &mut Wire::new(record, *at..*end), *wire_type)?;
                        }
                        (None, Absent::Default(bytes)) => match value {
                            Item::Scalar(scalar) => {
                                scalar.append(&mut map.values, &mut Wire::new(bytes, 0..bytes.len()))?;
                            }
                            _ => unreachable!("only scalars have defaults"),
                        },
                        // An entry without a value has an empty one.
                        (None, Absent::Null) => value.read_message(&mut map.values, &[], 0..0)?,
                    }
                }
                map.close()
            }
            _ => unreachable!("a plan is made for its columns"),
        }
    }
}

/// An entry of a map: where key and value lie, and how.
struct Entry {
    key: Option<(usize, usize, WireType)>,
    value: Option<(usize, usize, WireType)>,
}

impl Entry {
    fn find(record: &[u8], part: Range<usize>, key: &Scalar) -> Faulty<Entry> {
        let mut entry = Entry { key: None, value: None };
        let mut wire = Wire::new(record, part);
        while !wire.is_empty() {
            let (number, wire_type) = wire.tag()?;
            let at = wire.at;
            wire.skip(number, wire_type)?;
            match number {
                1 => {
                    if wire_type != key.wire_type() {
                        return Err(Fault::new(at, "the key of a map lies on the wire as another type"));
                    }
                    entry.key = Some((at, wire.at, wire_type));
                }
                2 => entry.value = Some((at, wire.at, wire_type)),
                _ => {}
            }
        }
        Ok(entry)
    }
}

impl Item {
    /// Reads a value behind its tag.
    #[inline]
    fn read(&self, column: &mut TreeColumn, record: &[u8], wire: &mut Wire<'_>, wire_type: WireType) -> Faulty<()> {
        match self {
            Item::Scalar(scalar) => {
                expect(wire, wire_type, scalar.wire_type())?;
                scalar.append(column, wire)
            }
            message => {
                expect(wire, wire_type, WireType::Sized)?;
                let part = wire.sized()?;
                message.read_message(column, record, part)
            }
        }
    }

    /// Reads a value that is a message.
    fn read_message(&self, column: &mut TreeColumn, record: &[u8], part: Range<usize>) -> Faulty<()> {
        let at = part.start;
        match self {
            Item::Message(plan) => {
                let rows = column.len();
                let TreeColumn::Row(row) = column else { unreachable!("a plan is made for its columns") };
                plan.read(&mut row.columns, rows, record, part)?;
                row.close();
                Ok(())
            }
            Item::Time(unit) => {
                let (mut seconds, mut nanos) = (0_i64, 0_i64);
                let mut wire = Wire::new(record, part);
                while !wire.is_empty() {
                    match wire.tag()? {
                        (1, WireType::Varint) => seconds = wire.varint()? as i64,
                        (2, WireType::Varint) => nanos = i64::from(wire.varint()? as i32),
                        (number, wire_type) => wire.skip(number, wire_type)?,
                    }
                }
                let TreeColumn::Scalar(column) = column else { unreachable!("a plan is made for its columns") };
                match in_unit(seconds, nanos, *unit) {
                    Some(time) => column.append_whole(time),
                    None => Err(Fault::new(at, "the timestamp is out of range for its column")),
                }
            }
            Item::Wrapped(scalar, default) => {
                let mut wire = Wire::new(record, part);
                let mut found = None;
                while !wire.is_empty() {
                    let (number, wire_type) = wire.tag()?;
                    let at = wire.at;
                    if number == 1 {
                        expect(&wire, wire_type, scalar.wire_type())?;
                    }
                    wire.skip(number, wire_type)?;
                    if number == 1 {
                        found = Some(at..wire.at);
                    }
                }
                match found {
                    Some(part) => scalar.append(column, &mut Wire::new(record, part)),
                    None => scalar.append(column, &mut Wire::new(default, 0..default.len())),
                }
            }
            Item::Scalar(_) => unreachable!("a scalar is no message"),
        }
    }
}

impl Scalar {
    /// How its values lie on the wire.
    #[inline]
    pub(super) fn wire_type(&self) -> WireType {
        match self {
            Scalar::Fixed32 | Scalar::SignedFixed32 | Scalar::Float => WireType::Four,
            Scalar::Fixed64 | Scalar::FixedDecimal(_) | Scalar::SignedFixed64 | Scalar::Double => WireType::Eight,
            Scalar::Text | Scalar::Bytes => WireType::Sized,
            _ => WireType::Varint,
        }
    }

    /// Reads a value and appends it.
    #[inline]
    fn append(&self, column: &mut TreeColumn, wire: &mut Wire<'_>) -> Faulty<()> {
        let start = wire.at;
        let TreeColumn::Scalar(column) = column else { unreachable!("a plan is made for its columns") };
        let done = match self {
            Scalar::Signed => column.append_whole(wire.varint()? as i64),
            Scalar::Text => {
                let part = wire.sized()?;
                column.append_utf8(wire.part(part))
            }
            other => other.append_other(column, wire),
        };
        done.map_err(|fault| if fault.at == 0 { fault.located(start) } else { fault })
    }

    fn append_other(&self, column: &mut ScalarColumn, wire: &mut Wire<'_>) -> Faulty<()> {
        match self {
            Scalar::Bool => column.append_boolean(wire.varint()? != 0),
            Scalar::Unsigned32 => column.append_whole(i64::from(wire.varint()? as u32)),
            Scalar::Unsigned64 => unsigned(column, wire.varint()?),
            Scalar::UnsignedDecimal(up) => column.append_scaled(i128::from(wire.varint()?) * up),
            Scalar::Zigzag => column.append_whole(unzigzag(wire.varint()?)),
            Scalar::Fixed32 => column.append_whole(u32::from_le_bytes(wire.four()?).into()),
            Scalar::Fixed64 => unsigned(column, u64::from_le_bytes(wire.eight()?)),
            Scalar::FixedDecimal(up) => column.append_scaled(i128::from(u64::from_le_bytes(wire.eight()?)) * up),
            Scalar::SignedFixed32 => column.append_whole(i32::from_le_bytes(wire.four()?).into()),
            Scalar::SignedFixed64 => column.append_whole(i64::from_le_bytes(wire.eight()?)),
            Scalar::Float => column.append_float(f32::from_le_bytes(wire.four()?).into()),
            Scalar::Double => column.append_float(f64::from_le_bytes(wire.eight()?)),
            Scalar::Bytes => {
                let part = wire.sized()?;
                column.append_bytes(wire.part(part))
            }
            Scalar::Enum(names) => {
                let number = wire.varint()? as i32;
                match names.get(&number) {
                    Some(name) => column.append_text(name.as_bytes()),
                    // A value that came later than the type has no name, as in Protobuf's JSON.
                    None => column.append_text(number.to_string().as_bytes()),
                }
            }
            Scalar::Signed | Scalar::Text => unreachable!("appended by the caller"),
        }
    }
}

fn unsigned(column: &mut ScalarColumn, value: u64) -> Faulty<()> {
    match i64::try_from(value) {
        Ok(value) => column.append_whole(value),
        Err(_) => {
            Err(Fault::new(0, format!("the number '{value}' is out of range for BIGINT; declare it as DECIMAL(20, 0)")))
        }
    }
}

fn in_unit(seconds: i64, nanos: i64, unit: TimeUnit) -> Option<i64> {
    let (per_second, nanos_each) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    seconds.checked_mul(per_second)?.checked_add(nanos.div_euclid(nanos_each))
}

#[inline]
fn expect(wire: &Wire<'_>, found: WireType, expected: WireType) -> Faulty<()> {
    if found == expected {
        return Ok(());
    }
    let name = |wire_type| match wire_type {
        WireType::Varint => "a varint",
        WireType::Eight => "eight bytes",
        WireType::Four => "four bytes",
        WireType::Sized => "a value with its length",
        WireType::Group | WireType::GroupEnd => "a group",
    };
    Err(Fault::new(
        wire.at,
        format!("expected {}, found {}: it was written as another type", name(expected), name(found)),
    ))
}
