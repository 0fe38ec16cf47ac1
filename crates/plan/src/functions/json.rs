//! `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS`, `IS_JSON`, `JSON_QUOTE`, `JSON_UNQUOTE`. Text that is not JSON, and
//! paths that lead nowhere, give NULL (FALSE from `JSON_EXISTS`), as Flink's defaults do.

mod path;

use arrow::array::ArrayRef;
use datafusion_common::Result;
use serde::de::IgnoredAny;

use super::udf::{Arguments, Definition, Kind, boolean, failed, text};
use path::Path;

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("json_value", &[&[Kind::Text, Kind::Text]], text, value),
    Definition::new("json_query", &[&[Kind::Text, Kind::Text]], text, query),
    Definition::new("json_exists", &[&[Kind::Text, Kind::Text]], boolean, exists),
    Definition::new("is_json", &[&[Kind::Text]], boolean, |a| {
        a.map_boolean(|row| Some(a.text(0).get(row).is_some_and(is_json)))
    }),
    Definition::new("json_quote", &[&[Kind::Text]], text, |a| {
        a.map_text(|row| a.text(0).get(row).map(|s| serde_json::Value::from(s).to_string()))
    }),
    Definition::new("json_unquote", &[&[Kind::Text]], text, unquote),
];

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The last path that was taken apart: usually the only one of a call.
#[derive(Default)]
struct Paths {
    last: Option<(String, Path)>,
}

impl Paths {
    fn get(&mut self, function: &str, path: &str) -> Result<&Path> {
        if self.last.as_ref().is_none_or(|(known, _)| known != path) {
            let Some(parsed) = Path::parse(path) else {
                return failed(format!("{function}: the path '{path}' is not supported; paths look like '$.a.b[0]'"));
            };
            self.last = Some((path.to_owned(), parsed));
        }
        Ok(&self.last.as_ref().expect("set above").1)
    }
}

/// What the path of each row finds: None where json or path is NULL, Some(None) where there is nothing.
fn found<'a>(args: &'a Arguments, function: &'a str) -> impl FnMut(usize) -> Result<Option<Option<&'a str>>> {
    let mut paths = Paths::default();
    move |row| {
        let (Some(json), Some(path)) = (args.text(0).get(row), args.text(1).get(row)) else { return Ok(None) };
        let path = paths.get(function, path)?;
        Ok(Some(if is_json(json) { path.find(json) } else { None }))
    }
}

/// The text of a scalar; NULL for objects, arrays and `null`.
fn value(args: &Arguments) -> Result<ArrayRef> {
    let mut found = found(args, "JSON_VALUE");
    args.try_map_text(|row| {
        Ok(found(row)?.flatten().and_then(|value| match value.as_bytes().first() {
            Some(b'"') => path::unquoted(value),
            Some(b'{' | b'[') => None,
            _ if value == "null" => None,
            _ => Some(value.to_owned()),
        }))
    })
}

/// The text of an object or an array; NULL for scalars.
fn query(args: &Arguments) -> Result<ArrayRef> {
    let mut found = found(args, "JSON_QUERY");
    args.try_map_text(|row| Ok(found(row)?.flatten().filter(|value| value.starts_with(['{', '[']))))
}

fn exists(args: &Arguments) -> Result<ArrayRef> {
    let mut found = found(args, "JSON_EXISTS");
    let answers = (0..args.rows).map(|row| Ok(found(row)?.map(|value| value.is_some()))).collect::<Result<Vec<_>>>()?;
    args.map_boolean(|row| answers[row])
}

/// The content of a JSON string; anything else as it is.
fn unquote(args: &Arguments) -> Result<ArrayRef> {
    let source = args.text(0);
    args.map_text(|row| {
        let source = source.get(row)?;
        Some(serde_json::from_str::<String>(source).unwrap_or_else(|_| source.to_owned()))
    })
}
