//! The bytes of Avro's binary encoding, one value after the other. Never trusts a length: what is asked for must be there,
//! and no more elements are read than the record's bytes can hold.

use super::schema::{AvroSchema, Shape, TypeId};
use crate::format::fault::{Fault, Faulty};

/// Elements that a record may have beside its bytes: those of types that take no room.
const EMPTY_ITEMS_MAX: u64 = 1 << 16;
/// How deep values that nobody wants may be nested.
const DEPTH_MAX: usize = 64;

/// A record that is being read.
pub(super) struct Wire<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Elements that may still come.
    items: u64,
}

impl<'a> Wire<'a> {
    /// At the beginning of a record, or of several.
    pub(super) fn new(bytes: &'a [u8]) -> Wire<'a> {
        Wire { bytes, at: 0, items: bytes.len() as u64 + EMPTY_ITEMS_MAX }
    }

    /// The next bytes.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Faulty<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..length)) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => Err(self.cut(length as u64)),
        }
    }

    #[cold]
    fn cut(&self, length: u64) -> Box<Fault> {
        let left = self.bytes.len().saturating_sub(self.at);
        Fault::new(self.at, format!("the record is cut short: {length} bytes are wanted, {left} are left"))
    }

    /// An int or a long.
    #[inline]
    pub(super) fn long(&mut self) -> Faulty<i64> {
        let mut value = 0_u64;
        for (index, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index == 9 && *byte > 1 {
                    break;
                }
                self.at += index + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(self.no_number())
    }

    #[cold]
    fn no_number(&self) -> Box<Fault> {
        match self.bytes.len() - self.at {
            0..10 => self.cut(self.bytes.len() as u64 - self.at as u64 + 1),
            _ => Fault::new(self.at, "a number is longer than ten bytes"),
        }
    }

    /// A string, or bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Faulty<&'a [u8]> {
        let at = self.at;
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Fault::new(at, format!("a value has the length {length}"))),
        }
    }

    /// A boolean.
    pub(super) fn boolean(&mut self) -> Faulty<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(Fault::new(self.at - 1, format!("a boolean has the byte {}", other[0]))),
        }
    }

    /// Which branch of a union, or which symbol of an enum.
    #[inline]
    pub(super) fn index(&mut self, of: usize, what: &str) -> Faulty<usize> {
        let at = self.at;
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(index) if index < of => Ok(index),
            _ => Err(Fault::new(at, format!("a value has the {what} {index}, of {of}"))),
        }
    }

    /// How many elements the next block of an array or a map has, 0 at the end, and its bytes where they are known.
    pub(super) fn block(&mut self) -> Faulty<(u64, Option<usize>)> {
        let at = self.at;
        let count = self.long()?;
        let mut size = None;
        if count < 0 {
            let bytes = self.long()?;
            size = Some(usize::try_from(bytes).map_err(|_| Fault::new(at, format!("a block has {bytes} bytes")))?);
        }
        let count = count.unsigned_abs();
        self.spend(count).map_err(|fault| fault.located(at))?;
        Ok((count, size))
    }

    fn spend(&mut self, count: u64) -> Faulty<()> {
        match self.items.checked_sub(count) {
            Some(left) => {
                self.items = left;
                Ok(())
            }
            None => Err(Fault::new(self.at, format!("{count} elements are more than the record can hold"))),
        }
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, schema: &AvroSchema, of: TypeId) -> Faulty<()> {
        self.skip_within(schema, of, DEPTH_MAX)
    }

    fn skip_within(&mut self, schema: &AvroSchema, of: TypeId, depth: usize) -> Faulty<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Fault::new(self.at, format!("values are nested more than {DEPTH_MAX} deep")));
        };
        match &schema.get(of).shape {
            Shape::Null => Ok(()),
            Shape::Boolean => self.boolean().map(drop),
            Shape::Int | Shape::Long => self.long().map(drop),
            Shape::Float => self.take(4).map(drop),
            Shape::Double => self.take(8).map(drop),
            Shape::Bytes | Shape::String => self.bytes().map(drop),
            Shape::Fixed(size) => self.take(*size).map(drop),
            Shape::Enum(symbols) => self.index(symbols.len(), "symbol").map(drop),
            Shape::Union(branches) => {
                let branch = self.index(branches.len(), "branch")?;
                self.skip_within(schema, branches[branch], depth)
            }
            Shape::Record(fields) => {
                // Records of records of nothing take no bytes, however many there are.
                self.spend(1)?;
                fields.iter().try_for_each(|field| self.skip_within(schema, field.of, depth))
            }
            Shape::Array(items) => self.skip_blocks(|wire| wire.skip_within(schema, *items, depth)),
            Shape::Map(values) => self.skip_blocks(|wire| {
                wire.bytes()?;
                wire.skip_within(schema, *values, depth)
            }),
        }
    }

    fn skip_blocks(&mut self, mut item: impl FnMut(&mut Self) -> Faulty<()>) -> Faulty<()> {
        loop {
            match self.block()? {
                (0, _) => return Ok(()),
                (_, Some(size)) => {
                    self.take(size)?;
                }
                (count, None) => {
                    for _ in 0..count {
                        item(self)?;
                    }
                }
            }
        }
    }
}

/// Appends an int or a long.
#[inline]
pub(super) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string, or bytes.
#[inline]
pub(super) fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    write_long(value.len() as i64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_broken_ones_do_not() {
        for value in [0, 1, -1, 63, 64, -64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_long(value, &mut out);
            let mut wire = Wire::new(&out);
            assert_eq!((wire.long().unwrap(), wire.at), (value, out.len()));
        }
        assert!(Wire::new(&[0x80; 3]).long().unwrap_err().describe().contains("cut short"));
        assert!(Wire::new(&[0x80; 12]).long().unwrap_err().describe().contains("longer than ten bytes"));
        let too_great = [[0xff; 9].as_slice(), &[2]].concat();
        assert!(Wire::new(&too_great).long().is_err());
        assert!(Wire::new(&[3]).bytes().unwrap_err().describe().contains("the length -2"));
        assert!(Wire::new(&[8, 1]).bytes().unwrap_err().describe().contains("4 bytes are wanted, 1 are left"));
    }

    #[test]
    fn what_claims_to_be_huge_or_deep_is_refused_at_once() {
        let schema = AvroSchema::parse(r#"{"type":"array","items":"null"}"#, &[]).unwrap();
        let mut out = Vec::new();
        write_long(i64::MAX, &mut out);
        assert!(
            Wire::new(&out)
                .skip(&schema, schema.root())
                .unwrap_err()
                .describe()
                .contains("more than the record can hold")
        );
        let node = r#"{"type":"record","name":"n","fields":[{"name":"next","type":["null","n"]}]}"#;
        let schema = AvroSchema::parse(node, &[]).unwrap();
        let deep = vec![2_u8; 1_000];
        assert!(Wire::new(&deep).skip(&schema, schema.root()).unwrap_err().describe().contains("64 deep"));
        let mut wire = Wire::new(&[2, 2, 0]);
        wire.skip(&schema, schema.root()).unwrap();
        assert_eq!(wire.at, 3);
    }
}
