//! Subjects and patterns of subjects: tokens with dots between them; in a pattern `*` stands for one token, and `>` at
//! the end for one or more.

/// Whether a text is a subject to publish to.
pub(super) fn is_subject(text: &str) -> bool {
    is_pattern(text) && !has_wildcard(text)
}

/// Whether a text is a pattern of subjects; a subject is one.
pub(super) fn is_pattern(text: &str) -> bool {
    let legal = |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        if !legal(token) || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

/// Whether some token stands for others.
pub(super) fn has_wildcard(text: &str) -> bool {
    text.split('.').any(|token| token == "*" || token == ">")
}

/// Whether there is a subject that both patterns match.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_subjects() {
        for legal in ["a", "a.b", "*.b", "a.>", ">", "a.*.c"] {
            assert!(is_pattern(legal), "{legal}");
        }
        for wrong in ["", ".", "a.", ".a", "a..b", "a b", "a.>.b", "a\n"] {
            assert!(!is_pattern(wrong), "{wrong}");
        }
        assert!(is_subject("a.b*") && !is_subject("a.*") && !is_subject(">"));
    }

    #[test]
    fn patterns_overlap_where_a_subject_matches_both() {
        for (a, b) in [("a.b", "a.b"), ("a.*", "*.b"), ("a.>", "a.b.c"), (">", "x"), ("a.*.c", "a.b.>")] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [("a", "b"), ("a.>", "a"), ("a.*", "a.b.c"), ("a.b", "a.c"), ("a.*.c", "a.b.d")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }
}
