//! Records that are wrong: poison of twelve kinds under the three policies, from files and from Kafka, counted exactly,
//! whatever is killed.

mod contracts;
mod files;
mod kafka;
mod replay;

use std::collections::BTreeMap;

/// What is in the data, and what is to become of it.
pub(crate) struct Poison {
    name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// A part of the reason for which it is wrong; none: it is not.
    reason: Option<&'static str>,
}

/// The columns that all tests of poison declare.
const COLUMNS: &str = "id BIGINT NOT NULL, v INT, d DOUBLE, s STRING";

/// The twelve kinds. There is no schema registry: a record in its framing is broken JSON.
fn poison() -> Vec<Poison> {
    let deep = format!(r#"{{"id":6,"x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let large = format!(r#"{{"id":3,"s":"{}"#, "x".repeat(8 << 20));
    let kind = |name, bytes: &[u8], reason| Poison { name, bytes: bytes.to_vec(), reason };
    vec![
        kind("broken JSON", br#"{"id":1,"v":"#, Some("the record ends where a value should come")),
        kind("wrong type", br#"{"id":"one","v":1}"#, Some("column 'id': expected BIGINT, found the text 'one'")),
        kind("8 MB record", large.as_bytes(), Some("")),
        kind("NUL", b"{\"id\":4,\0\"v\":1}", Some("")),
        kind("bad UTF-8", b"{\"id\":5,\"s\":\"\xff\xfe\"}", Some("the text is not valid UTF-8")),
        kind("deep nesting", deep.as_bytes(), Some("nested more than 128 deep")),
        kind("overflow", br#"{"id":7,"v":99999999999}"#, Some("column 'v': the number '99999999999' is out of range")),
        kind("NaN", br#"{"id":8,"d":NaN}"#, Some("column 'd'")),
        // The last of several values counts, as in Flink.
        kind("duplicate keys", br#"{"id":1,"id":-9,"v":9}"#, None),
        kind("empty", b"", None),
        kind("wrong magic byte", b"\x01\x00\x00\x00\x07{\"id\":11}", Some("expected a JSON object")),
        kind("unknown schema id", b"\x00\xff\xff\xff\xff{\"id\":12}", Some("")),
    ]
}

/// Those that are wrong.
pub(crate) fn wrong() -> Vec<Poison> {
    poison().into_iter().filter(|poison| poison.reason.is_some()).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().chain(&[0, 0]).take(3).fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for digit in 0..4 {
            let shown = digit <= part.len();
            text.push(if shown { char::from(DIGITS[number >> (18 - 6 * digit) & 63]) } else { '=' });
        }
    }
    text
}

/// The members of JSON lines, and that each comes once.
#[track_caller]
fn objects(lines: &BTreeMap<String, usize>) -> Vec<serde_json::Value> {
    let doubled: Vec<_> = lines.iter().filter(|(_, count)| **count != 1).take(3).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    lines.keys().map(|line| serde_json::from_str(line).unwrap()).collect()
}
