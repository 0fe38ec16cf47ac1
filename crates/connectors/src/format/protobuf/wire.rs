//! The bytes of Protobuf's wire format. Never trusts a length or a number.

use std::ops::Range;

use crate::format::fault::{Fault, Faulty};

/// How deep groups that nobody wants may be nested.
const DEPTH_MAX: usize = 64;
/// How deep a message may be nested within its file, as its indexes say, and how many there may be beside it.
const INDEXES_MAX: usize = 7;
const INDEX_MAX: u64 = u16::MAX as u64 - 1;

/// How a value lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Eight,
    Sized,
    Group,
    GroupEnd,
    Four,
}

/// A part of a record that is being read.
pub(super) struct Wire<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    end: usize,
}

impl<'a> Wire<'a> {
    /// At the beginning of a part of a record.
    pub(super) fn new(bytes: &'a [u8], part: Range<usize>) -> Wire<'a> {
        Wire { bytes: &bytes[..part.end], at: part.start, end: part.end }
    }

    /// Whether nothing is left.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// The next bytes, as places in the record.
    #[inline]
    pub(super) fn take(&mut self, length: u64) -> Faulty<Range<usize>> {
        let left = (self.end - self.at) as u64;
        if length > left {
            let reason = format!("the message is cut short: {length} bytes are wanted, {left} are left");
            return Err(Fault::new(self.at, reason));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    /// The bytes of a part.
    #[inline]
    pub(super) fn part(&self, part: Range<usize>) -> &'a [u8] {
        &self.bytes[part]
    }

    /// A varint.
    #[inline]
    pub(super) fn varint(&mut self) -> Faulty<u64> {
        let mut value = 0_u64;
        for (index, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(match self.end - self.at {
            0..10 => Fault::new(self.at, "the message is cut short within a number"),
            _ => Fault::new(self.at, "a number is longer than ten bytes"),
        })
    }

    /// Four bytes.
    pub(super) fn four(&mut self) -> Faulty<[u8; 4]> {
        let part = self.take(4)?;
        Ok(self.part(part).try_into().expect("four bytes were taken"))
    }

    /// Eight bytes.
    pub(super) fn eight(&mut self) -> Faulty<[u8; 8]> {
        let part = self.take(8)?;
        Ok(self.part(part).try_into().expect("eight bytes were taken"))
    }

    /// A value whose length is written before it.
    #[inline]
    pub(super) fn sized(&mut self) -> Faulty<Range<usize>> {
        let length = self.varint()?;
        self.take(length)
    }

    /// The number of the next field, and how its value lies on the wire.
    #[inline]
    pub(super) fn tag(&mut self) -> Faulty<(u32, WireType)> {
        let at = self.at;
        let tag = self.varint()?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Eight,
            2 => WireType::Sized,
            3 => WireType::Group,
            4 => WireType::GroupEnd,
            5 => WireType::Four,
            other => return Err(Fault::new(at, format!("a field has the wire type {other}, which does not exist"))),
        };
        match u32::try_from(tag >> 3) {
            Ok(number @ 1..0x2000_0000) => Ok((number, wire_type)),
            _ => Err(Fault::new(at, format!("a field has the number {}, which none can have", tag >> 3))),
        }
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, number: u32, wire_type: WireType) -> Faulty<()> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Eight => self.take(8).map(drop),
            WireType::Four => self.take(4).map(drop),
            WireType::Sized => self.sized().map(drop),
            WireType::Group => self.skip_group(number),
            WireType::GroupEnd => Err(Fault::new(self.at, format!("the group {number} ends without having begun"))),
        }
    }

    fn skip_group(&mut self, number: u32) -> Faulty<()> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            match self.tag()? {
                (ended, WireType::GroupEnd) if ended == innermost => drop(open.pop()),
                (begun, WireType::Group) if open.len() < DEPTH_MAX => open.push(begun),
                (begun, WireType::Group) => {
                    return Err(Fault::new(self.at, format!("the group {begun} is nested more than {DEPTH_MAX} deep")));
                }
                (number, wire_type) => self.skip(number, wire_type)?,
            }
        }
        Ok(())
    }
}

/// A signed number of `sint32` and `sint64`.
#[inline]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a varint.
#[inline]
pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the number of a field with its wire type.
#[inline]
pub(super) fn write_tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3 | u64::from(wire_type), out);
}

/// The path to a message within its file, as a registry's framing has it, packed into a number; and where it ends. A path is its
/// length and the index on each level, or a single 0 for the first message.
pub(super) fn indexes(record: &[u8], start: usize) -> Faulty<(u128, usize)> {
    let mut wire = Wire::new(record, start..record.len());
    let wrong = |at: usize, what: String| Fault::new(at, format!("the indexes of the message are wrong: {what}"));
    let at = wire.at;
    let count = unzigzag(wire.varint().map_err(|_| wrong(at, "the record is too short".to_owned()))?);
    if count == 0 {
        return Ok((1, wire.at));
    }
    if count < 0 || count > INDEXES_MAX as i64 {
        return Err(wrong(at, format!("there are {count}, at most {INDEXES_MAX} are read")));
    }
    let mut packed = 0_u128;
    for level in 0..count as u32 {
        let at = wire.at;
        let index = wire.varint().ok().map(unzigzag).and_then(|index| u64::try_from(index).ok());
        let index = index.filter(|index| *index <= INDEX_MAX);
        let index = index.ok_or_else(|| wrong(at, "one of them is no index".to_owned()))?;
        packed |= u128::from(index + 1) << (16 * level);
    }
    Ok((packed, wire.at))
}

/// The path that was packed.
pub(super) fn unpack_indexes(mut packed: u128) -> Vec<usize> {
    let mut path = Vec::new();
    while packed > 0 {
        path.push((packed & 0xffff) as usize - 1);
        packed >>= 16;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tags_and_groups() {
        for value in [0, 1, 127, 128, 300, u64::MAX] {
            let mut out = Vec::new();
            write_varint(value, &mut out);
            assert_eq!(Wire::new(&out, 0..out.len()).varint().unwrap(), value);
        }
        assert_eq!((unzigzag(0), unzigzag(1), unzigzag(2), unzigzag(u64::MAX)), (0, -1, 1, i64::MIN));
        let read = |bytes: &[u8]| {
            let mut wire = Wire::new(bytes, 0..bytes.len());
            while !wire.is_empty() {
                let (number, wire_type) = wire.tag()?;
                wire.skip(number, wire_type)?;
            }
            Ok::<(), Box<Fault>>(())
        };
        // A group 1 with a group 2 and a number in it.
        assert!(read(&[0x0b, 0x13, 0x18, 5, 0x14, 0x0c]).is_ok());
        for (bytes, part) in [
            (&[0x0b][..], "cut short"),
            (&[0x0b, 0x14], "ends without having begun"),
            (&[0x0c], "ends without having begun"),
            (&[0x0f], "the wire type 7"),
            (&[0x00], "the number 0"),
            (&[0x0a, 5, 1], "5 bytes are wanted, 1 are left"),
            (&[0x08, 0xff], "cut short within a number"),
        ] {
            assert!(read(bytes).unwrap_err().describe().contains(part), "{part}");
        }
        assert!(read(&[0x0b; 100]).unwrap_err().describe().contains("64 deep"));
    }

    #[test]
    fn indexes_lead_to_a_message() {
        assert_eq!(indexes(&[0, 9], 0).unwrap(), (1, 1));
        assert_eq!(unpack_indexes(1), [0]);
        // Two levels: the message 1 and within it the message 0.
        let (packed, end) = indexes(&[4, 2, 0, 9], 0).unwrap();
        assert_eq!((unpack_indexes(packed), end), (vec![1, 0], 3));
        for wrong in [&[][..], &[1], &[40], &[2], &[2, 1]] {
            assert!(indexes(wrong, 0).is_err(), "{wrong:?}");
        }
    }
}
