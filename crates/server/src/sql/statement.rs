//! What a statement of the shell asks for, by its first words. The planner reads the rest of it.

use super::split::{Token, tokens};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `CREATE`.
    Create(Declared),
    /// `DROP`.
    Drop(Declared),
    /// `SET`: a key and its value, or all of them.
    Set(Option<(String, String)>),
    /// `RESET`: a key, or all of them.
    Reset(Option<String>),
    /// `SHOW`.
    Show(Show),
    /// `DESCRIBE`.
    Describe(String),
    /// `EXPLAIN`.
    Explain,
    /// A query, whose rows are shown.
    Query,
    /// `INSERT`, or a set of them; with the first table that is written.
    Insert(String),
    /// `STOP JOB`.
    Stop(String),
    /// What is there.
    Help,
    /// The end.
    Quit,
}

/// What is declared, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// `IF NOT EXISTS`, or `IF EXISTS`.
    pub(super) leniently: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    View,
    Secret,
}

impl Kind {
    fn of(word: &str) -> Option<Kind> {
        match word {
            "TABLE" => Some(Kind::Table),
            "VIEW" => Some(Kind::View),
            "SECRET" => Some(Kind::Secret),
            _ => None,
        }
    }

    /// As messages name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::View => "view",
            Kind::Secret => "secret",
        }
    }
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Tables,
    Views,
    Jobs,
    Functions,
    /// The declaration of a table or a view.
    Create(String),
}

/// What a command without a semicolon asks for (`\q`, `!help`, `quit`), if it is one.
pub(super) fn command(line: &str) -> Option<Statement> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let is_marked = line.starts_with(['\\', '!']);
    match line.trim_start_matches(['\\', '!']).to_ascii_lowercase().as_str() {
        "q" | "quit" | "exit" if is_marked => Some(Statement::Quit),
        "h" | "?" | "help" if is_marked => Some(Statement::Help),
        "quit" | "exit" => Some(Statement::Quit),
        "help" => Some(Statement::Help),
        _ => None,
    }
}

/// What a statement asks for.
///
/// # Errors
/// What is wrong with it, and what is known instead.
pub(super) fn statement(text: &str) -> Result<Statement, String> {
    if let Some(command) = command(text) {
        return Ok(command);
    }
    let all = tokens(text, 64);
    let words: Vec<String> = all.iter().map(word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["SELECT" | "WITH" | "(", ..] => Ok(Statement::Query),
        ["INSERT", ..] | ["EXECUTE", ..] | ["BEGIN", ..] => Ok(Statement::Insert(target(&all, &words))),
        ["EXPLAIN", ..] => Ok(Statement::Explain),
        ["CREATE", ..] => Ok(Statement::Create(declared(&all, &words, &["IF", "NOT", "EXISTS"])?)),
        ["DROP", ..] => Ok(Statement::Drop(declared(&all, &words, &["IF", "EXISTS"])?)),
        ["SET"] => Ok(Statement::Set(None)),
        ["SET", ..] => setting(text).map(|setting| Statement::Set(Some(setting))),
        ["RESET"] => Ok(Statement::Reset(None)),
        ["RESET", ..] => Ok(Statement::Reset(Some(all[1..].iter().map(plain).collect()))),
        ["SHOW", "TABLES"] => Ok(Statement::Show(Show::Tables)),
        ["SHOW", "VIEWS"] => Ok(Statement::Show(Show::Views)),
        ["SHOW", "JOBS"] => Ok(Statement::Show(Show::Jobs)),
        ["SHOW", "FUNCTIONS"] => Ok(Statement::Show(Show::Functions)),
        ["SHOW", "CREATE", "TABLE" | "VIEW", _] => Ok(Statement::Show(Show::Create(plain(&all[3])))),
        ["SHOW", ..] => {
            Err("SHOW knows TABLES, VIEWS, JOBS, FUNCTIONS, CREATE TABLE name, CREATE VIEW name".to_owned())
        }
        ["DESCRIBE" | "DESC", _] => Ok(Statement::Describe(plain(&all[1]))),
        ["DESCRIBE" | "DESC", "TABLE" | "VIEW", _] => Ok(Statement::Describe(plain(&all[2]))),
        ["DESCRIBE" | "DESC", ..] => Err("DESCRIBE takes the name of a table or a view".to_owned()),
        ["STOP", "JOB", _] => Ok(Statement::Stop(plain(&all[2]))),
        ["STOP", ..] => Err("STOP takes JOB and a job's name: STOP JOB 'name'".to_owned()),
        _ => Err(format!(
            "'{}' begins no statement that the shell knows: SELECT, INSERT, CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, SET, \
             RESET, STOP JOB; \\help tells more",
            all.first().map(plain).unwrap_or_default()
        )),
    }
}

/// A word in upper case; other tokens as nothing that could be mistaken for one.
fn word(token: &Token) -> String {
    match token {
        Token::Word(word) => word.to_ascii_uppercase(),
        Token::Sign(sign) => sign.to_string(),
        Token::Name(_) | Token::Text(_) => "'".to_owned(),
    }
}

fn plain(token: &Token) -> String {
    match token {
        Token::Word(text) | Token::Name(text) | Token::Text(text) => text.clone(),
        Token::Sign(sign) => sign.to_string(),
    }
}

/// `CREATE [TEMPORARY] TABLE|VIEW|SECRET [IF NOT EXISTS] name`, and DROP in the same form.
fn declared(all: &[Token], words: &[&str], leniently: &[&str]) -> Result<Declared, String> {
    let at = if words.get(1) == Some(&"TEMPORARY") { 2 } else { 1 };
    let wanted = || format!("expected TABLE, VIEW or SECRET and a name after {}", words[0]);
    let kind = words.get(at).and_then(|word| Kind::of(word)).ok_or_else(wanted)?;
    let is_lenient = words.get(at + 1..at + 1 + leniently.len()) == Some(leniently);
    let at = if is_lenient { at + 1 + leniently.len() } else { at + 1 };
    match all.get(at) {
        Some(Token::Word(name) | Token::Name(name)) => Ok(Declared { kind, name: name.clone(), leniently: is_lenient }),
        _ => Err(wanted()),
    }
}

/// The first table that is written.
fn target(all: &[Token], words: &[&str]) -> String {
    let at = words.iter().position(|word| *word == "INTO").map_or(0, |at| at + 1);
    let at = if words.get(at) == Some(&"TABLE") { at + 1 } else { at };
    all.get(at).map(plain).unwrap_or_default()
}

/// `SET 'key' = 'value'`, with or without quotes.
fn setting(text: &str) -> Result<(String, String), String> {
    let all = tokens(text, 1_000);
    let at = all
        .iter()
        .position(|token| *token == Token::Sign('='))
        .ok_or("SET needs a key and a value: SET 'key' = 'value'")?;
    // Dots and hyphens belong to keys and are signs of their own to the scanner.
    let joined = |tokens: &[Token]| tokens.iter().map(plain).collect::<String>();
    let value = match &all[at + 1..] {
        [one] => plain(one),
        several => several.iter().map(plain).collect::<Vec<_>>().join(" "),
    };
    Ok((joined(&all[1..at]), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_known_by_their_first_words() {
        let known = |text: &str| statement(text).unwrap();
        let declared = |kind, name: &str, leniently| Declared { kind, name: name.to_owned(), leniently };
        assert_eq!(
            known("create table if not exists `my t` (a INT)"),
            Statement::Create(declared(Kind::Table, "my t", true))
        );
        assert_eq!(known("CREATE TEMPORARY VIEW v AS SELECT 1"), Statement::Create(declared(Kind::View, "v", false)));
        assert_eq!(known("drop view if exists v"), Statement::Drop(declared(Kind::View, "v", true)));
        assert_eq!(known("(SELECT 1)"), Statement::Query);
        assert_eq!(known("INSERT INTO TABLE o SELECT 1"), Statement::Insert("o".to_owned()));
        assert_eq!(known("SHOW CREATE TABLE t"), Statement::Show(Show::Create("t".to_owned())));
        assert_eq!(known("desc `a b`"), Statement::Describe("a b".to_owned()));
        assert_eq!(known("STOP JOB 'a-b'"), Statement::Stop("a-b".to_owned()));
        let set = |key: &str, value: &str| Statement::Set(Some((key.to_owned(), value.to_owned())));
        assert_eq!(known("SET 'a.b-c' = 'x y'"), set("a.b-c", "x y"));
        assert_eq!(known("SET a.b-c = 10 s"), set("a.b-c", "10 s"));
        assert_eq!(known("\\q"), Statement::Quit);
        assert_eq!(command("quit"), Some(Statement::Quit));
        assert!(statement("ALTER TABLE t").unwrap_err().contains("'ALTER' begins no statement"));
        assert!(statement("SHOW nothing").unwrap_err().contains("SHOW knows TABLES"));
    }
}
