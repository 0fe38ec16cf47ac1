//! Where statements begin and end in a text, and their first words. Knows quotes, comments and statement sets, and no
//! more of SQL than that: whether a statement makes sense is the planner's business.

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An unquoted word, as it is written.
    Word(String),
    /// A name in backquotes or double quotes, without them.
    Name(String),
    /// A text in single quotes, without them.
    Text(String),
    /// Any other sign.
    Sign(char),
}

/// The statements of a text, in order, and what is left behind the last semicolon.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Without semicolons.
    pub(super) statements: Vec<Piece>,
    /// What is not finished; spaces and comments do not count.
    pub(super) rest: Option<Piece>,
}

/// A statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// As it is written.
    pub(super) text: String,
    /// The line of the whole text in which it begins, from 1.
    pub(super) line: usize,
}

/// Takes a text apart at its semicolons. Those of a statement set (`BEGIN STATEMENT SET; .. END`) do not part it.
pub(super) fn split(text: &str) -> Split {
    let mut split = Split::default();
    let mut scanner = Scanner::new(text);
    let mut block = Block::default();
    // Where the statement begins: at its first token.
    let mut begin: Option<usize> = None;
    while let Some((at, token)) = scanner.next() {
        let is_end = token == Token::Sign(';') && !block.is_open;
        if is_end {
            if let Some(begin) = begin.take() {
                split.statements.push(piece(text, begin, at));
            }
            block = Block::default();
            continue;
        }
        begin.get_or_insert(at);
        block.take(&token);
    }
    split.rest = begin.map(|begin| piece(text, begin, text.len()));
    split
}

/// The tokens of a statement, at most so many.
pub(super) fn tokens(text: &str, most: usize) -> Vec<Token> {
    let mut scanner = Scanner::new(text);
    std::iter::from_fn(|| scanner.next()).map(|(_, token)| token).take(most).collect()
}

fn piece(text: &str, begin: usize, end: usize) -> Piece {
    let line = text[..begin].matches('\n').count() + 1;
    Piece { text: text[begin..end].trim_end().to_owned(), line }
}

/// Whether the text is within a statement set.
#[derive(Default)]
struct Block {
    is_open: bool,
    cases: usize,
    last: String,
}

impl Block {
    fn take(&mut self, token: &Token) {
        let Token::Word(word) = token else { return };
        let word = word.to_ascii_uppercase();
        match word.as_str() {
            "SET" if self.last == "STATEMENT" => self.is_open = true,
            "CASE" => self.cases += 1,
            "END" if self.cases > 0 => self.cases -= 1,
            "END" => self.is_open = false,
            _ => {}
        }
        self.last = word;
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    /// The next token with where it begins. One that is not closed goes to the end of the text.
    fn next(&mut self) -> Option<(usize, Token)> {
        self.skip();
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let begin = self.at;
        let token = match first {
            '\'' => Token::Text(self.quoted('\'')),
            '`' => Token::Name(self.quoted('`')),
            '"' => Token::Name(self.quoted('"')),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                self.at += length;
                Token::Word(rest[..length].to_owned())
            }
            sign => {
                self.at += sign.len_utf8();
                Token::Sign(sign)
            }
        };
        Some((begin, token))
    }

    /// Spaces and comments. The hints of a query (`/*+ .. */`) are read as a comment too: nothing in them ends a statement.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(inner) = trimmed.strip_prefix("/*") {
                self.at += inner.find("*/").map_or(trimmed.len(), |end| end + 4);
            } else {
                return;
            }
        }
    }

    /// What stands between quotes, of which a double one means the sign itself.
    fn quoted(&mut self, quote: char) -> String {
        let mut content = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find(quote) else {
                self.at = self.text.len();
                return content + rest;
            };
            content += &rest[..end];
            self.at += end + 1;
            if !self.text[self.at..].starts_with(quote) {
                return content;
            }
            content.push(quote);
            self.at += 1;
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> (Vec<String>, Option<String>) {
        let split = split(sql);
        (split.statements.into_iter().map(|piece| piece.text).collect(), split.rest.map(|piece| piece.text))
    }

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_quoted_or_a_comment() {
        let (statements, rest) =
            texts("SELECT ';''', `a;b`, \"c;d\" -- one; more\n, /* ; */ 1;;\n  SELECT 2 ;\n-- end; of it\n");
        assert_eq!(statements, ["SELECT ';''', `a;b`, \"c;d\" -- one; more\n, /* ; */ 1", "SELECT 2"]);
        assert_eq!(rest, None);
        assert_eq!(texts("SELECT 'open;\n"), (vec![], Some("SELECT 'open;".to_owned())));
        assert_eq!(texts("SELECT 1"), (vec![], Some("SELECT 1".to_owned())));
        assert_eq!(split("\n-- x\nSELECT 1;\nSELECT\n2").rest.unwrap().line, 4);
    }

    #[test]
    fn a_statement_set_is_one_statement() {
        let set = "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT CASE WHEN x THEN 1 END FROM t; INSERT INTO b SELECT 2; END";
        assert_eq!(texts(&format!("{set}; SELECT 1;")).0, [set, "SELECT 1"]);
        let begun = "BEGIN STATEMENT SET; INSERT INTO a SELECT 1; END";
        assert_eq!(texts(&format!("{begun};SET 'a' = 'b';")).0, [begun, "SET 'a' = 'b'"]);
        assert!(texts("BEGIN STATEMENT SET; INSERT INTO a SELECT 1;").1.is_some());
    }

    #[test]
    fn words_and_names_are_told_apart() {
        let found = tokens("create /* x */ TABLE `a b` ('k' = 'it''s')", 9);
        let word = |text: &str| Token::Word(text.to_owned());
        let expected = [
            word("create"),
            word("TABLE"),
            Token::Name("a b".to_owned()),
            Token::Sign('('),
            Token::Text("k".to_owned()),
            Token::Sign('='),
            Token::Text("it's".to_owned()),
            Token::Sign(')'),
        ];
        assert_eq!(found, expected);
    }
}
