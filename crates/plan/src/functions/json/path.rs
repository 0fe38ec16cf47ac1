//! Paths into JSON (`$.a.b[0]`, `$['a b']`) and the search for what they name. The search walks the text and
//! builds nothing; it runs only on text that was checked to be JSON.

/// A path, taken apart.
pub(super) struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Member(String),
    Element(usize),
}

impl Path {
    /// Takes a path apart. None where it is not one of the simple paths.
    pub(super) fn parse(text: &str) -> Option<Path> {
        let text = text.trim();
        // Both modes of SQL give NULL here for what is not there.
        let text = text.strip_prefix("lax ").or_else(|| text.strip_prefix("strict ")).unwrap_or(text).trim_start();
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('.') {
                Some(member) => member_step(member)?,
                None => bracket_step(rest.strip_prefix('[')?)?,
            };
            steps.push(step);
            rest = after;
        }
        Some(Path { steps })
    }

    /// The text of the value that the path names in a JSON text, without the white space around it.
    pub(super) fn find<'a>(&self, json: &'a str) -> Option<&'a str> {
        let mut value = json.trim();
        for step in &self.steps {
            value = match step {
                Step::Member(name) => {
                    members(value).find(|(key, _)| unquoted(key).as_deref() == Some(name.as_str()))?.1
                }
                Step::Element(index) => elements(value).nth(*index)?,
            };
        }
        Some(value)
    }
}

fn member_step(text: &str) -> Option<(Step, &str)> {
    if text.starts_with('"') {
        let end = string_end(text.as_bytes(), 0)?;
        return Some((Step::Member(unquoted(&text[..end])?), &text[end..]));
    }
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let name = text[..end].trim_end();
    (!name.is_empty() && !name.contains(['*', '(', ')', '?', '@', ' ']))
        .then(|| (Step::Member(name.to_owned()), &text[end..]))
}

fn bracket_step(text: &str) -> Option<(Step, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    if let Some(quote) = quote {
        let (name, rest) = text[1..].split_once(quote)?;
        return Some((Step::Member(name.to_owned()), rest.strip_prefix(']')?));
    }
    let (index, rest) = text.split_once(']')?;
    Some((Step::Element(index.trim().parse().ok()?), rest))
}

/// What a JSON string says.
pub(super) fn unquoted(string: &str) -> Option<String> {
    let inner = string.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(string).ok() } else { Some(inner.to_owned()) }
}

/// Keys (quoted) and values of an object; nothing for any other value.
fn members(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = value.strip_prefix('{').unwrap_or("");
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
        let key_end = rest.starts_with('"').then(|| string_end(rest.as_bytes(), 0))??;
        let (key, after) = rest.split_at(key_end);
        let after = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = after.split_at(value_end(after.as_bytes())?);
        rest = after;
        Some((key, value))
    })
}

/// Elements of an array; nothing for any other value.
fn elements(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value.strip_prefix('[').unwrap_or("");
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
        if rest.is_empty() || rest.starts_with(']') {
            return None;
        }
        let (value, after) = rest.split_at(value_end(rest.as_bytes())?);
        rest = after;
        Some(value)
    })
}

/// Where the string that begins at `start` ends (after its quote).
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value at the begin of the text ends. Brackets are counted, not matched: the text is JSON.
fn value_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at = string_end(bytes, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') if depth == 1 => return Some(at + 1),
            Some(b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r') if depth == 0 => return Some(at),
            Some(b'}' | b']') => depth -= 1,
            Some(_) => {}
            None => return (depth == 0).then_some(at),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_values() {
        let json = r#" { "a" : {"b":[1, {"c":"x,]}\"y"}, null], "b c": true}, "t\u0041": -1.5e3 } "#;
        let find = |path: &str| Path::parse(path).unwrap().find(json);
        assert_eq!(find("$.a.b[0]"), Some("1"));
        assert_eq!(find("lax $.a.b[1].c"), Some(r#""x,]}\"y""#));
        assert_eq!(find("$.a.b[2]"), Some("null"));
        assert_eq!(find("$.a.b[3]"), None);
        assert_eq!(find("$['a']['b c']"), Some("true"));
        assert_eq!(find("$.tA"), Some("-1.5e3"));
        assert_eq!(find("$.a.\"b c\""), Some("true"));
        assert_eq!(find("$.t.x"), None);
        assert_eq!(find("$.a.b"), Some(r#"[1, {"c":"x,]}\"y"}, null]"#));
        for bad in ["a.b", "$.*", "$[*]", "$..a", "$.a[?(@.x)]", "$[-1]", ""] {
            assert!(Path::parse(bad).is_none(), "{bad}");
        }
    }
}
