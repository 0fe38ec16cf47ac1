//! Flink's functions on regular expressions. Patterns are those of Rust's `regex`, which are Java's without
//! look-around and back references; a pattern is compiled once for as long as it stays the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use datafusion_common::Result;
use regex::Regex;

use super::text::strings;
use super::udf::{Arguments, Definition, Kind, boolean, failed, text};

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "regexp_extract",
        &[&[Kind::Text, Kind::Text], &[Kind::Text, Kind::Text, Kind::Integer]],
        text,
        extract,
    ),
    Definition::new(
        "regexp_extract_all",
        &[&[Kind::Text, Kind::Text], &[Kind::Text, Kind::Text, Kind::Integer]],
        strings,
        extract_all,
    ),
    Definition::new("regexp_substr", &[&[Kind::Text, Kind::Text]], text, extract),
    Definition::new("regexp", &[&[Kind::Text, Kind::Text]], boolean, matches).also(&["rlike"]),
    Definition::new("regexp_replace", &[&[Kind::Text, Kind::Text, Kind::Text]], text, replace),
];

/// The last compiled pattern: usually the only one of a call.
#[derive(Default)]
struct Patterns {
    last: Option<(String, Regex)>,
}

impl Patterns {
    fn get(&mut self, function: &str, pattern: &str) -> Result<&Regex> {
        if self.last.as_ref().is_none_or(|(known, _)| known != pattern) {
            let Ok(regex) = Regex::new(pattern) else {
                return failed(format!(
                    "{function}: '{pattern}' is not a regular expression (look-around and back references do not exist here)"
                ));
            };
            self.last = Some((pattern.to_owned(), regex));
        }
        Ok(&self.last.as_ref().expect("set above").1)
    }
}

/// `REGEXP_EXTRACT(s, pattern[, group])`: group 0, the whole match, unless said otherwise.
fn extract(args: &Arguments) -> Result<ArrayRef> {
    let (source, pattern, group) = (args.text(0), args.text(1), args.optional_integer(2));
    let mut patterns = Patterns::default();
    args.try_map_text(|row| {
        let group = group.as_ref().map_or(Some(0), |g| g.get(row));
        let (Some(source), Some(pattern), Some(group)) = (source.get(row), pattern.get(row), group) else {
            return Ok(None);
        };
        let Ok(group) = usize::try_from(group) else { return Ok(None) };
        let regex = patterns.get("REGEXP_EXTRACT", pattern)?;
        Ok(regex.captures(source).and_then(|c| c.get(group)).map(|m| m.as_str()))
    })
}

/// `REGEXP_EXTRACT_ALL(s, pattern[, group])`: group 1 unless said otherwise, as in Flink.
fn extract_all(args: &Arguments) -> Result<ArrayRef> {
    let (source, pattern, group) = (args.text(0), args.text(1), args.optional_integer(2));
    let mut patterns = Patterns::default();
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows {
        let group = group.as_ref().map_or(Some(1), |g| g.get(row)).and_then(|g| usize::try_from(g).ok());
        let call = source.get(row).zip(pattern.get(row)).zip(group);
        if let Some(((source, pattern), group)) = call {
            for captures in patterns.get("REGEXP_EXTRACT_ALL", pattern)?.captures_iter(source) {
                builder.values().append_option(captures.get(group).map(|m| m.as_str()));
            }
        }
        builder.append(call.is_some());
    }
    Ok(Arc::new(builder.finish()))
}

fn matches(args: &Arguments) -> Result<ArrayRef> {
    let (source, pattern) = (args.text(0), args.text(1));
    let mut patterns = Patterns::default();
    let row = |row| match source.get(row).zip(pattern.get(row)) {
        Some((source, pattern)) => patterns.get("REGEXP", pattern).map(|r| Some(r.is_match(source))),
        None => Ok(None),
    };
    let answers = (0..args.rows).map(row).collect::<Result<arrow::array::BooleanArray>>()?;
    Ok(Arc::new(answers))
}

/// `REGEXP_REPLACE(s, pattern, replacement)`: every match, as in Flink. The replacement refers to groups as in
/// Java: `$1`, and a backslash makes the next character plain.
fn replace(args: &Arguments) -> Result<ArrayRef> {
    let (source, pattern, replacement) = (args.text(0), args.text(1), args.text(2));
    let mut patterns = Patterns::default();
    args.try_map_text(|row| {
        let (Some(source), Some(pattern), Some(replacement)) =
            (source.get(row), pattern.get(row), replacement.get(row))
        else {
            return Ok(None);
        };
        let replacement = java_replacement(replacement);
        Ok(Some(patterns.get("REGEXP_REPLACE", pattern)?.replace_all(source, replacement.as_str()).into_owned()))
    })
}

fn java_replacement(replacement: &str) -> String {
    let mut out = String::with_capacity(replacement.len());
    let mut chars = replacement.chars().peekable();
    let plain = |c: char, out: &mut String| if c == '$' { out.push_str("$$") } else { out.push(c) };
    while let Some(c) = chars.next() {
        match c {
            '\\' => chars.next().into_iter().for_each(|next| plain(next, &mut out)),
            '$' if chars.peek().is_some_and(char::is_ascii_digit) => {
                // One digit, so that `$1st` is group 1 and then "st".
                out.extend(["${", chars.next().expect("peeked").encode_utf8(&mut [0; 4]), "}"].map(str::to_owned));
            }
            c => plain(c, &mut out),
        }
    }
    out
}
