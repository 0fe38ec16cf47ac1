//! SQL's patterns in the forms that are evaluated. Called when an expression is taken over from the planner.

/// A LIKE pattern with another escape character than the backslash, written with the backslash.
pub(crate) fn like_with_backslash(pattern: &str, escape: char) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => {
                out.push('\\');
                out.extend(chars.next());
            }
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

/// A SIMILAR TO pattern as an anchored regular expression: `%` and `_` as in LIKE, the rest as in regular
/// expressions.
pub fn similar_to_regex(pattern: &str, escape: Option<char>) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    out.push_str("(?s)^(?:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape || (c == '\\' && escape.is_none()) => match chars.next() {
                Some(next) => out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4]))),
                None => return Err(format!("the SIMILAR TO pattern '{pattern}' ends with its escape character")),
            },
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            // Special in regular expressions, plain in SIMILAR TO.
            '.' | '^' | '$' | '\\' => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            c => out.push(c),
        }
    }
    out.push_str(")$");
    // Checked here, so that a wrong pattern is a planning error and not a failed job.
    regex::Regex::new(&out).map_err(|_| format!("'{pattern}' is not a SIMILAR TO pattern"))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_backslashes() {
        assert_eq!(like_with_backslash("50!%_x\\", '!'), "50\\%_x\\\\");
    }

    #[test]
    fn similar_to_is_anchored_and_dots_are_plain() {
        let regex = regex::Regex::new(&similar_to_regex("(a|b)_%.x", None).unwrap()).unwrap();
        assert!(regex.is_match("aq123.x") && !regex.is_match("aq123yx") && !regex.is_match(" aq.x"));
        assert!(similar_to_regex("(a", None).is_err());
    }
}
