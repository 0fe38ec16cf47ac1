//! References to secrets in the options of a table: `${env:NAME}` and `${file:PATH}`. What is stored and shown (graph,
//! plans, `EXPLAIN`, checkpoints) holds the reference; the value is read where a connector is made, on the node that runs
//! it, and goes nowhere else. Called by the registry and by whoever makes relative paths absolute.
//!
//! Invariants:
//! - A value that was read is known to [`redact`], through which the message of every
//!   [`ConnectorError`](crate::ConnectorError) goes: a message shows the reference in its place.
//! - Nothing of a value is parsed for references again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use crate::error::{ConnectorError, ErrorKind};
use crate::table::TableSpec;

/// Largest file that is taken for a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Values below so many bytes are not looked for in messages: they would be found in ordinary words.
const REDACTED_BYTES_MIN: usize = 4;

/// Options that are read where a job is planned, or that become part of what a checkpoint stores.
const WITHOUT_REFERENCES: [&str; 10] = [
    "connector",
    "path",
    "format",
    "delivery",
    "scan.watermark.alignment.group",
    "scan.watermark.alignment.max-drift",
    "scan.watermark.idle-timeout",
    "late-rows.table",
    "print.style",
    "sink.delivery-guarantee",
];

/// Values that were read in this process, with the reference that each stands for.
static KNOWN: RwLock<BTreeMap<String, String>> = RwLock::new(BTreeMap::new());

/// Where a value is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference<'a> {
    Env(&'a str),
    File(&'a str),
}

/// A part of an option's text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<'a> {
    Plain(&'a str),
    /// With its text.
    Reference(Reference<'a>, &'a str),
}

/// Whether a text refers to a secret. Any other `${` is plain text.
pub(crate) fn has_reference(text: &str) -> bool {
    parts(text).iter().any(|part| matches!(part, Part::Reference(..)))
}

/// Whether a text is one reference to a secret and nothing else.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    matches!(parts(text)[..], [Part::Reference(..)])
}

/// The text with the paths of its `${file:PATH}` made absolute.
#[must_use]
pub fn absolute_references(text: &str, working_dir: &Path) -> String {
    let absolute = |part: &Part<'_>| match part {
        Part::Reference(Reference::File(path), _) => format!("${{file:{}}}", working_dir.join(path).display()),
        Part::Plain(text) | Part::Reference(_, text) => (*text).to_owned(),
    };
    parts(text).iter().map(absolute).collect()
}

/// Refuses references where the value would be stored or is needed to plan.
pub(crate) fn check_places(table: &TableSpec) -> Result<(), ConnectorError> {
    let wrong = table.options.iter().find(|(key, value)| {
        has_reference(value)
            && (WITHOUT_REFERENCES.contains(&key.as_str())
                || key.starts_with("lookup.")
                || key.starts_with("bad-records"))
    });
    match wrong {
        None => Ok(()),
        Some((key, _)) => Err(ConnectorError::option(format!(
            "option '{key}' of table '{}' cannot refer to a secret: it is needed to plan the job, or stored in its \
             checkpoints; write its value out",
            table.name
        ))),
    }
}

/// The table with the values in place of the references.
pub(crate) fn resolved(table: &TableSpec) -> Result<TableSpec, ConnectorError> {
    check_places(table)?;
    let mut table = table.clone();
    let name = table.name.clone();
    for (key, value) in &mut table.options {
        if has_reference(value) {
            *value = resolve(value, &format!("option '{key}' of table '{name}'"))?;
        }
    }
    Ok(table)
}

fn resolve(text: &str, whose: &str) -> Result<String, ConnectorError> {
    let mut resolved = String::new();
    for part in parts(text) {
        match part {
            Part::Plain(text) => resolved += text,
            Part::Reference(reference, text) => {
                let value = read(&reference, text, whose)?;
                if has_reference(&value) {
                    let message =
                        format!("{whose} refers to {text}, whose value holds a reference again; write it out");
                    return Err(ConnectorError::option(message));
                }
                remember(&value, text);
                resolved += &value;
            }
        }
    }
    Ok(resolved)
}

fn read(reference: &Reference<'_>, text: &str, whose: &str) -> Result<String, ConnectorError> {
    let refused = |what: String| ConnectorError::new(ErrorKind::External, format!("{whose} refers to {text}, {what}"));
    match reference {
        Reference::Env(name) => std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => {
                refused(format!("but the environment variable '{name}' is not set where it is needed; set it for every process of Mainstem"))
            }
            std::env::VarError::NotUnicode(_) => refused("which is not UTF-8 text".to_owned()),
        }),
        Reference::File(path) => {
            let path = PathBuf::from(path);
            let shown = path.display();
            let unreadable =
                |error: std::io::Error| refused(format!("but the file '{shown}' cannot be read: {error}; check path and permissions"));
            let size = std::fs::metadata(&path).map_err(unreadable)?.len();
            if size > FILE_BYTES_MAX {
                return Err(refused(format!("but the file has {size} bytes, at most {FILE_BYTES_MAX} are read")));
            }
            let mut value = std::fs::read_to_string(&path).map_err(unreadable)?;
            // Editors end a file with a line end, which is no part of a password.
            value.truncate(value.trim_end_matches(['\n', '\r']).len());
            Ok(value)
        }
    }
}

fn remember(value: &str, reference: &str) {
    if value.len() >= REDACTED_BYTES_MIN {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(value.to_owned(), reference.to_owned());
    }
}

/// A message without the secrets that were read in this process.
pub(crate) fn redact(message: String) -> String {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    // One secret may be the beginning of another: the longest first.
    let mut found: Vec<_> = known.iter().filter(|(value, _)| message.contains(value.as_str())).collect();
    found.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    found.into_iter().fold(message, |message, (value, reference)| message.replace(value.as_str(), reference))
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut plain, mut at) = (0, 0);
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        let Some(end) = text[start..].find('}').map(|end| start + end) else { break };
        let reference = match text[start + 2..end].split_once(':') {
            Some(("env", name)) if !name.is_empty() => Reference::Env(name),
            Some(("file", path)) if !path.is_empty() => Reference::File(path),
            _ => {
                at = start + 2;
                continue;
            }
        };
        if plain < start {
            parts.push(Part::Plain(&text[plain..start]));
        }
        parts.push(Part::Reference(reference, &text[start..=end]));
        (plain, at) = (end + 1, end + 1);
    }
    if plain < text.len() {
        parts.push(Part::Plain(&text[plain..]));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    fn table(key: &str, value: &str) -> TableSpec {
        TableSpec {
            name: "t".into(),
            schema: Arc::new(Schema::empty()),
            primary_key: Vec::new(),
            partition_keys: Vec::new(),
            options: [(key.to_owned(), value.to_owned())].into(),
        }
    }

    #[test]
    fn references_are_found_within_a_text() {
        let found = parts("a${env:A}${file:b c}d${x}${env:}${e");
        let expected = [
            Part::Plain("a"),
            Part::Reference(Reference::Env("A"), "${env:A}"),
            Part::Reference(Reference::File("b c"), "${file:b c}"),
            Part::Plain("d${x}${env:}${e"),
        ];
        assert_eq!(found, expected);
        assert!(!has_reference("${x} $env:A {file:b}"));
        assert!(is_reference("${env:A}") && !is_reference("a${env:A}") && !is_reference("hunter2"));
        assert_eq!(absolute_references("x${file:a/b}${env:E}", Path::new("/w")), "x${file:/w/a/b}${env:E}");
        assert_eq!(absolute_references("${file:/a}", Path::new("/w")), "${file:/a}");
    }

    #[test]
    fn values_come_from_files_and_do_not_get_into_messages() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter-and-gatherer\n").unwrap();
        let reference = format!("${{file:{}}}", path.display());
        let spec = resolved(&table("url", &format!("x:{reference}@h"))).unwrap();
        assert_eq!(spec.options["url"], "x:hunter-and-gatherer@h");
        let error = ConnectorError::option("'hunter-and-gatherer' is wrong");
        assert_eq!(error.message, format!("'{reference}' is wrong"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |key, value| resolved(&table(key, value)).unwrap_err().message;
        let missing = message("password", "${env:MAINSTEM_NO_SUCH_VARIABLE}");
        assert!(missing.contains("'MAINSTEM_NO_SUCH_VARIABLE' is not set"), "{missing}");
        assert!(missing.contains("option 'password' of table 't'"), "{missing}");
        let missing = message("password", "${file:/no/such/file}");
        assert!(missing.contains("'/no/such/file' cannot be read"), "{missing}");
        let stored = message("path", "${env:HOME}");
        assert!(stored.contains("option 'path' of table 't' cannot refer to a secret"), "{stored}");
    }
}
