//! The lexer of the JSON decoder: a cursor over one record, which finds the ends of strings, numbers and
//! values. Called by the columns and the objects. Recursion is bounded by [`DEPTH_MAX`]; no byte is read
//! beyond the record.

use crate::format::fault::{Fault, Faulty, excerpt};
use crate::format::number::{self, Number};

/// Objects and arrays inside each other that a value may have.
pub(super) const DEPTH_MAX: usize = 128;

/// A place in a record.
pub(super) struct Cursor<'a> {
    /// The record, of valid UTF-8.
    pub(super) bytes: &'a [u8],
    /// The next byte.
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte; 0, which no JSON text has outside of a string, at the end of the record.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Passes over white space.
    #[inline]
    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    /// Passes over a string and gives what stands between its quotes, and whether it has escapes.
    #[inline]
    pub(super) fn string(&mut self) -> Faulty<(&'a [u8], bool)> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            match find_quote_or_backslash(self.bytes, at) {
                Some(hit) if self.bytes[hit] == b'"' => {
                    self.at = hit + 1;
                    return Ok((&self.bytes[start..hit], escaped));
                }
                Some(hit) => {
                    escaped = true;
                    at = hit + 2;
                }
                None => return Err(Fault::new(self.at, "a string that begins here has no end")),
            }
        }
    }

    /// Passes over a number.
    #[inline]
    pub(super) fn number(&mut self) -> Faulty<Number<'a>> {
        match number::scan(&self.bytes[self.at..]) {
            Some(number) => {
                self.at += number.text.len();
                Ok(number)
            }
            None => Err(self.unexpected("a number")),
        }
    }

    /// Passes over a word such as `null`.
    #[inline]
    pub(super) fn word(&mut self, word: &[u8]) -> Faulty<()> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.unexpected("a value"))
        }
    }

    /// Passes over any value and gives its text.
    pub(super) fn skip_value(&mut self) -> Faulty<&'a [u8]> {
        let start = self.at;
        self.skip(DEPTH_MAX)?;
        Ok(&self.bytes[start..self.at])
    }

    fn skip(&mut self, depth: usize) -> Faulty<()> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'n' => self.word(b"null"),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'{' | b'[' if depth == 0 => {
                Err(Fault::new(self.at, format!("objects and arrays are nested more than {DEPTH_MAX} deep")))
            }
            b'{' => self.skip_members(b'}', depth - 1),
            b'[' => self.skip_members(b']', depth - 1),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Passes over the members of an object or the items of an array, from the opening bracket to the
    /// closing one.
    fn skip_members(&mut self, close: u8, depth: usize) -> Faulty<()> {
        self.at += 1;
        self.skip_space();
        if self.peek() == close {
            self.at += 1;
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.key()?;
            }
            self.skip(depth)?;
            if self.next_member(close)? {
                return Ok(());
            }
        }
    }

    /// Passes over the key of a member, its colon and the space round it; gives what stands between the
    /// quotes, and whether it has escapes.
    pub(super) fn key(&mut self) -> Faulty<(&'a [u8], bool)> {
        if self.peek() != b'"' {
            return Err(self.unexpected("a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != b':' {
            return Err(self.unexpected("':' after the key"));
        }
        self.at += 1;
        self.skip_space();
        Ok(key)
    }

    /// After a member or item: passes over the comma before the next one and gives false, or over the closing
    /// bracket and gives true.
    #[inline]
    pub(super) fn next_member(&mut self, close: u8) -> Faulty<bool> {
        self.skip_space();
        let byte = self.peek();
        if byte == b',' {
            self.at += 1;
            self.skip_space();
            Ok(false)
        } else if byte == close {
            self.at += 1;
            Ok(true)
        } else {
            Err(self.unexpected(if close == b'}' { "',' or '}'" } else { "',' or ']'" }))
        }
    }

    /// The error for something that does not belong here.
    #[cold]
    pub(super) fn unexpected(&self, expected: &str) -> Box<Fault> {
        if self.at >= self.bytes.len() {
            return Fault::new(
                self.at,
                format!("the record ends where {expected} should come; is the line cut short?"),
            );
        }
        let found = excerpt(&self.bytes[self.at..], 0, 20);
        Fault::new(self.at, format!("expected {expected}, found '{found}'"))
    }
}

/// The bytes that a raw string stands for, appended to `out`.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let escape = rest.get(at + 1).copied().unwrap_or(0);
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            b'"' | b'\\' | b'/' => out.push(escape),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => rest = unicode_escape(rest, out)?,
            other => return Err(format!("the escape '\\{}' does not exist in JSON", excerpt(&[other], 0, 1))),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Appends the character of a `\u` escape, of which `rest` begins with the digits; gives what follows it.
fn unicode_escape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let (high, rest) = four_hex_digits(rest)?;
    let lone = || format!("the escape '\\u{high:04x}' is half of a surrogate pair");
    let (code, rest) = match high {
        0xd800..=0xdbff => {
            let low = rest.strip_prefix(b"\\u").ok_or_else(lone)?;
            let (low, rest) = four_hex_digits(low)?;
            if !(0xdc00..=0xdfff).contains(&low) {
                return Err(lone());
            }
            (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), rest)
        }
        _ => (high, rest),
    };
    let character = char::from_u32(code).ok_or_else(lone)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

fn four_hex_digits(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    let digits = bytes.split_first_chunk::<4>();
    let value = digits.and_then(|(digits, rest)| {
        let value = digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))?;
        Some((value, rest))
    });
    value.ok_or_else(|| "an escape '\\u' lacks its four hexadecimal digits".to_owned())
}

/// The position of the next quote or backslash.
#[inline]
fn find_quote_or_backslash(bytes: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    // Marks the lowest zero byte of a word; bytes above it may be marked wrongly, so only the lowest counts.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = from;
    // Most strings are short: a few words are searched here, which is cheaper than a call.
    for _ in 0..4 {
        let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        let word = u64::from_le_bytes(*word);
        let hits = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if hits != 0 {
            return Some(at + (hits.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    memchr::memchr2(b'"', b'\\', bytes.get(at..)?).map(|hit| at + hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(raw: &str) -> Result<String, String> {
        let mut out = Vec::new();
        unescape(raw.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(unescaped(r#"a\"b\\c\/\b\f\n\r\td"#).unwrap(), "a\"b\\c/\u{8}\u{c}\n\r\td");
        assert_eq!(unescaped(r"\u0041\u00e4\u20AC\ud83d\ude00").unwrap(), "Aä€😀");
        for bad in [r"\x", r"\u12", r"\u12g4", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00", r"\u+123"] {
            assert!(unescaped(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_at_every_distance() {
        for length in 0..100 {
            for stop in ['"', '\\'] {
                let text = format!("{}{stop}{}", "\u{a2}x".repeat(length), "x".repeat(length % 9));
                assert_eq!(find_quote_or_backslash(text.as_bytes(), 0), Some(length * 3), "{text}");
            }
            assert_eq!(find_quote_or_backslash("x".repeat(length).as_bytes(), 0), None);
        }
        assert_eq!(find_quote_or_backslash(b"x", 5), None);
    }

    #[test]
    fn skipping_accepts_and_refuses_what_the_reference_does() {
        let texts = [
            "1",
            "-1.5e3",
            "null",
            "true",
            "false",
            "\"\"",
            "\"a\\\"b\"",
            "{}",
            "[]",
            "[1,2,[3]]",
            "{\"a\":{\"b\":[]}}",
            " ",
            "nul",
            "tru",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "\"abc",
            "\"abc\\",
            "01",
            "1.",
            "[}",
            "{]",
            "{ \"a\" : [ 1 , 2 ] }",
        ];
        for text in texts {
            let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
            let accepted = cursor.skip_value().is_ok() && cursor.at == text.len();
            assert_eq!(accepted, serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let skip = |text: String| Cursor { bytes: text.as_bytes(), at: 0 }.skip_value().map(drop);
        assert!(skip(nested(DEPTH_MAX)).is_ok());
        assert!(skip(nested(DEPTH_MAX + 1)).unwrap_err().describe().contains("128 deep"));
        assert!(skip("[".repeat(1_000_000)).is_err());
    }
}
