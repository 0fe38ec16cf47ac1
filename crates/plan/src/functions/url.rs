//! `PARSE_URL`, `URL_ENCODE`, `URL_DECODE`.

use arrow::array::ArrayRef;
use datafusion_common::Result;

use super::udf::{Arguments, Definition, Kind, text};

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("parse_url", &[&[Kind::Text, Kind::Text], &[Kind::Text, Kind::Text, Kind::Text]], text, parse_url),
    Definition::new("url_encode", &[&[Kind::Text]], text, url_encode),
    Definition::new("url_decode", &[&[Kind::Text]], text, url_decode),
];

/// The parts of a URL, as slices of it (RFC 3986, appendix B).
#[derive(Default)]
struct Parts<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

fn parts(url: &str) -> Parts<'_> {
    let (rest, fragment) = url.split_once('#').map_or((url, None), |(rest, f)| (rest, Some(f)));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    let scheme = rest.split_once(':').filter(|(s, _)| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let (scheme, rest) = scheme.map_or((None, rest), |(s, rest)| (Some(s), rest));
    match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            Parts { scheme, authority: Some(authority), path, query, fragment }
        }
        None => Parts { scheme, authority: None, path: rest, query, fragment },
    }
}

/// `PARSE_URL(url, part[, key])`; the part is one of HOST, PATH, QUERY, REF, PROTOCOL, AUTHORITY, FILE and
/// USERINFO, and with a key, QUERY gives the value of that key.
fn parse_url(args: &Arguments) -> Result<ArrayRef> {
    let (url, part, key) = (args.text(0), args.text(1), args.optional_text(2));
    args.map_text(|row| {
        let parts = parts(url.get(row)?);
        // Something without a scheme is not a URL.
        let scheme = parts.scheme?;
        let part = part.get(row)?;
        if let Some(key) = &key {
            let key = key.get(row)?;
            let mut pairs = parts.query.filter(|_| part == "QUERY")?.split('&').filter_map(|p| p.split_once('='));
            return pairs.find(|(k, _)| *k == key).map(|(_, value)| value.to_owned());
        }
        let host = |authority: &str| {
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let end = if host.starts_with('[') { host.find(']').map(|e| e + 1) } else { host.find(':') };
            host[..end.unwrap_or(host.len())].to_owned()
        };
        match part {
            "HOST" => parts.authority.map(host),
            "PATH" => Some(parts.path.to_owned()),
            "QUERY" => parts.query.map(str::to_owned),
            "REF" => parts.fragment.map(str::to_owned),
            "PROTOCOL" => Some(scheme.to_owned()),
            "AUTHORITY" => parts.authority.map(str::to_owned),
            "FILE" => Some(parts.query.map_or_else(|| parts.path.to_owned(), |q| format!("{}?{q}", parts.path))),
            "USERINFO" => parts.authority.and_then(|a| a.rsplit_once('@')).map(|(user, _)| user.to_owned()),
            _ => None,
        }
    })
}

/// As Java's `URLEncoder`: a blank becomes `+`.
fn url_encode(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    args.map_text(|row| {
        let mut out = String::new();
        for byte in source.get(row)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        Some(out)
    })
}

/// NULL where an escape is damaged or the result is not UTF-8.
fn url_decode(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    args.map_text(|row| {
        let mut out = Vec::new();
        let mut bytes = source.get(row)?.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let pair = [bytes.next()?, bytes.next()?];
                    let hex = |b: u8| char::from(b).to_digit(16);
                    u8::try_from(hex(pair[0])? * 16 + hex(pair[1])?).ok()?
                }
                byte => byte,
            });
        }
        String::from_utf8(out).ok()
    })
}
