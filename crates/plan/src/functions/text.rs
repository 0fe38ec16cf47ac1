//! Flink's functions on strings. Positions and lengths count characters and begin at 1; NULL in, NULL out.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion_common::Result;

use super::base64;
use super::udf::{Arguments, Definition, Kind, boolean, bytes, failed, integer, text};

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "split_index",
        &[&[Kind::Text, Kind::Text, Kind::Integer], &[Kind::Text, Kind::Integer, Kind::Integer]],
        text,
        split_index,
    ),
    Definition::new("split", &[&[Kind::Text, Kind::Text]], strings, split),
    Definition::new(
        "substr",
        &[&[Kind::Text, Kind::Integer], &[Kind::Text, Kind::Integer, Kind::Integer]],
        text,
        substr,
    )
    .also(&["substring"]),
    Definition::new("locate", &[&[Kind::Text, Kind::Text], &[Kind::Text, Kind::Text, Kind::Integer]], integer, locate),
    Definition::new("concat", &[&[Kind::Printable]], text, concat).repeated(),
    Definition::new("to_base64", &[&[Kind::Bytes]], text, to_base64),
    Definition::new("from_base64", &[&[Kind::Text]], text, from_base64),
    Definition::new("encode", &[&[Kind::Text, Kind::Text]], bytes, encode),
    Definition::new("decode", &[&[Kind::Bytes, Kind::Text]], text, decode),
    Definition::new("unhex", &[&[Kind::Text]], bytes, unhex),
    Definition::new("is_digit", &[&[Kind::Text]], boolean, |a| all_chars(a, char::is_numeric)),
    Definition::new("is_alpha", &[&[Kind::Text]], boolean, |a| all_chars(a, char::is_alphabetic)),
    Definition::new("is_decimal", &[&[Kind::Text]], boolean, is_decimal),
];

pub(super) fn strings(_: &[DataType]) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// Bytes of the part after the `characters`-th character.
fn after_chars(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or("", |(at, _)| &text[at..])
}

/// `SPLIT_INDEX(s, delimiter, i)`: the i-th part, from 0; NULL where there is none. The delimiter may be a
/// character code.
fn split_index(args: &Arguments) -> Result<ArrayRef> {
    let (source, index) = (args.text(0), args.integer(2));
    let by_code = *args.data_type(1) == DataType::Int64;
    args.map_text(|row| {
        let (source, index) = (source.get(row)?, usize::try_from(index.get(row)?).ok()?);
        if by_code {
            let delimiter = char::from_u32(u32::try_from(args.integer(1).get(row)?).ok()?)?;
            return source.split(delimiter).nth(index);
        }
        match args.text(1).get(row)? {
            // Flink splits by white space where there is no delimiter.
            "" => source.split_whitespace().nth(index),
            delimiter => source.split(delimiter).nth(index),
        }
    })
}

fn split(args: &Arguments) -> Result<ArrayRef> {
    let (source, delimiter) = (args.text(0), args.text(1));
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows {
        let parts = source.get(row).zip(delimiter.get(row));
        if let Some((source, delimiter)) = parts {
            match delimiter {
                "" => source.chars().for_each(|c| builder.values().append_value(c.encode_utf8(&mut [0; 4]))),
                _ => source.split(delimiter).for_each(|part| builder.values().append_value(part)),
            }
        }
        builder.append(parts.is_some());
    }
    Ok(Arc::new(builder.finish()))
}

/// `SUBSTR(s, start[, length])`: a negative start counts from the end, 0 is taken for 1.
fn substr(args: &Arguments) -> Result<ArrayRef> {
    let (source, start, length) = (args.text(0), args.integer(1), args.optional_integer(2));
    args.map_text(|row| {
        let (source, start) = (source.get(row)?, start.get(row)?);
        let length = match &length {
            Some(length) => usize::try_from(length.get(row)?).ok()?,
            None => usize::MAX,
        };
        let skip = if start >= 0 {
            usize::try_from(start.max(1) - 1).unwrap_or(usize::MAX)
        } else {
            let count = source.chars().count();
            // Begins before the string: nothing, as in Flink.
            match usize::try_from(start.unsigned_abs()) {
                Ok(back) if back <= count => count - back,
                _ => return Some(""),
            }
        };
        let rest = after_chars(source, skip);
        let end = rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at);
        Some(&rest[..end])
    })
}

/// `LOCATE(part, s[, from])`: the position of a part, 0 where it is not.
fn locate(args: &Arguments) -> Result<ArrayRef> {
    let (part, source, from) = (args.text(0), args.text(1), args.optional_integer(2));
    args.map_integer(|row| {
        let (part, source) = (part.get(row)?, source.get(row)?);
        let from = match &from {
            Some(from) => from.get(row)?,
            None => 1,
        };
        let Ok(skip) = usize::try_from(from - 1) else { return Some(0) };
        let rest = after_chars(source, skip);
        let found = rest.find(part).map(|at| skip + rest[..at].chars().count() + 1);
        Some(found.map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX)))
    })
}

/// `CONCAT(..)`: NULL where any part is NULL, as in Flink.
fn concat(args: &Arguments) -> Result<ArrayRef> {
    let parts: Vec<_> = (0..args.len()).map(|i| args.text(i)).collect();
    args.map_text(|row| parts.iter().map(|p| p.get(row)).collect::<Option<String>>())
}

fn to_base64(args: &Arguments) -> Result<ArrayRef> {
    args.map_text(|row| args.bytes(0, row).map(base64::encode))
}

fn from_base64(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    args.try_map_text(|row| {
        let Some(source) = source.get(row) else { return Ok(None) };
        match base64::decode(source).map(String::from_utf8) {
            Some(Ok(decoded)) => Ok(Some(decoded)),
            Some(Err(_)) => failed(format!("FROM_BASE64: '{source}' does not decode to UTF-8 text")),
            None => failed(format!("FROM_BASE64: '{source}' is not base 64")),
        }
    })
}

/// Character sets of `ENCODE` and `DECODE`, as in Flink.
enum Charset {
    Ascii,
    Latin1,
    Utf8,
    Utf16 { little: bool, mark: bool },
}

fn charset(function: &str, name: &str) -> Result<Charset> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "US-ASCII" => Charset::Ascii,
        "ISO-8859-1" => Charset::Latin1,
        "UTF-8" => Charset::Utf8,
        "UTF-16BE" => Charset::Utf16 { little: false, mark: false },
        "UTF-16LE" => Charset::Utf16 { little: true, mark: false },
        "UTF-16" => Charset::Utf16 { little: false, mark: true },
        _ => {
            return failed(format!(
                "{function}: unknown character set '{name}'; known are US-ASCII, ISO-8859-1, UTF-8, UTF-16, UTF-16BE \
                 and UTF-16LE; for base 64 and hexadecimal there are TO_BASE64 and HEX"
            ));
        }
    })
}

fn encode(args: &Arguments) -> Result<ArrayRef> {
    let (source, name) = (args.text(0), args.text(1));
    let row = |row| {
        let Some((source, name)) = source.get(row).zip(name.get(row)) else { return Ok(None) };
        let narrow = |limit: u32| source.chars().map(|c| if u32::from(c) < limit { c as u8 } else { b'?' }).collect();
        Ok(Some(match charset("ENCODE", name)? {
            Charset::Utf8 => source.as_bytes().to_vec(),
            Charset::Ascii => narrow(128),
            Charset::Latin1 => narrow(256),
            Charset::Utf16 { little, mark } => {
                let units = mark.then_some(0xFEFF).into_iter().chain(source.encode_utf16());
                units.flat_map(|u: u16| if little { u.to_le_bytes() } else { u.to_be_bytes() }).collect()
            }
        }))
    };
    let encoded: Vec<Option<Vec<u8>>> = (0..args.rows).map(row).collect::<Result<_>>()?;
    Ok(Arc::new(encoded.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

fn decode(args: &Arguments) -> Result<ArrayRef> {
    let name = args.text(1);
    args.try_map_text(|row| {
        let Some((source, name)) = args.bytes(0, row).zip(name.get(row)) else { return Ok(None) };
        Ok(Some(match charset("DECODE", name)? {
            Charset::Utf8 => String::from_utf8_lossy(source).into_owned(),
            Charset::Ascii => source.iter().map(|b| if *b < 128 { char::from(*b) } else { '\u{FFFD}' }).collect(),
            Charset::Latin1 => source.iter().map(|b| char::from(*b)).collect(),
            Charset::Utf16 { mut little, mark } => {
                let mut units: Vec<[u8; 2]> = source.chunks_exact(2).map(|c| [c[0], c[1]]).collect();
                if mark && matches!(units.first(), Some([0xFE, 0xFF] | [0xFF, 0xFE])) {
                    little = units.remove(0) == [0xFF, 0xFE];
                }
                let units =
                    units.into_iter().map(|u| if little { u16::from_le_bytes(u) } else { u16::from_be_bytes(u) });
                char::decode_utf16(units).map(|c| c.unwrap_or('\u{FFFD}')).collect()
            }
        }))
    })
}

/// `UNHEX(s)`: NULL where the string is not hexadecimal.
fn unhex(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    let row = |row| {
        let source = source.get(row)?;
        // An odd number of digits is one with a leading zero.
        let padded = if source.len() % 2 == 1 { format!("0{source}") } else { source.to_owned() };
        let pairs = padded.as_bytes().chunks_exact(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect::<Option<Vec<u8>>>()
    };
    let decoded: Vec<Option<Vec<u8>>> = (0..args.rows).map(row).collect();
    Ok(Arc::new(decoded.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

/// The tests of Flink on strings answer false for NULL and for the empty string.
fn all_chars(args: &Arguments, test: fn(char) -> bool) -> Result<ArrayRef> {
    let source = args.text(0);
    args.map_boolean(|row| Some(source.get(row).is_some_and(|s| !s.is_empty() && s.chars().all(test))))
}

fn is_decimal(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    let number = |s: &str| {
        let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        !(whole.is_empty() && part.is_empty()) && [whole, part].iter().all(|p| p.bytes().all(|b| b.is_ascii_digit()))
    };
    args.map_boolean(|row| Some(source.get(row).is_some_and(number)))
}
