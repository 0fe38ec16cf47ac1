//! Statements that are typed: lines with history and completion, until a semicolon.

use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstem_plan::functions::registry;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};

use super::query::Screen;
use super::shell::Shell;
use super::split::split;
use super::statement::{Statement, command};

/// Statements that are kept.
const HISTORY_MAX: usize = 1_000;
const PROMPT: &str = "mainstem> ";

/// Words of statements.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "CREATE",
    "CROSS",
    "CUMULATE",
    "DATE",
    "DECIMAL",
    "DESC",
    "DESCRIBE",
    "DESCRIPTOR",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "ENFORCED",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "FOR",
    "FROM",
    "FULL",
    "FUNCTIONS",
    "GROUP",
    "GUARANTEES",
    "HAVING",
    "HOP",
    "IN",
    "INNER",
    "INSERT",
    "INT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOBS",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATCH_RECOGNIZE",
    "NOT",
    "NULL",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRIMARY",
    "RESET",
    "RIGHT",
    "SECRET",
    "SELECT",
    "SESSION",
    "SET",
    "SHOW",
    "STATEMENT",
    "STOP JOB",
    "STRING",
    "TABLE",
    "TABLES",
    "TEMPORARY",
    "THEN",
    "TIMESTAMP",
    "TUMBLE",
    "UNION",
    "VALUES",
    "VIEW",
    "VIEWS",
    "WATERMARK",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Reads and runs statements until the user has had enough.
pub(super) fn run(shell: &mut Shell, history: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).context("cannot use this terminal")?;
    editor.set_helper(Some(Words { names: Vec::new() }));
    let history = history.map(Path::to_owned).or_else(history_path);
    if let Some(path) = history.as_ref().filter(|path| path.exists())
        && let Err(error) = editor.load_history(path)
    {
        super::note(&format!("note: the history in '{}' cannot be read: {error}", path.display()));
    }
    super::note("statements end with ';', help tells what there is, quit ends");
    loop {
        shell.news().iter().for_each(|news| super::note(news));
        if let Some(words) = editor.helper_mut() {
            words.names = names(shell);
        }
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        if line.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(line.trim_end())?;
        if let Some(path) = &history {
            keep(&mut editor, path);
        }
        let screen = editor
            .dimensions()
            .map(|(columns, rows)| Screen { rows: usize::from(rows), columns: usize::from(columns) });
        shell.set_screen(screen);
        for text in statements(&line) {
            match shell.run(&text) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    super::note(&format!("error: {error:#}"));
                    break;
                }
            }
        }
    }
}

/// The statements of what was typed.
fn statements(line: &str) -> Vec<String> {
    if command(line).is_some() {
        return vec![line.trim().to_owned()];
    }
    let split = split(line);
    split.statements.into_iter().chain(split.rest).map(|piece| piece.text).collect()
}

/// The file of the history, below the user's directory for such things.
fn history_path() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
    Some(base.join("mainstem/sql_history"))
}

/// Adds what was typed to the file. A history that cannot be kept is no reason to stop.
fn keep(editor: &mut Editor<Words, FileHistory>, path: &Path) {
    let created = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let kept = created.map_err(ReadlineError::from).and_then(|()| editor.append_history(path));
    if let Err(error) = kept {
        tracing::info!(path = %path.display(), %error, "the history cannot be kept");
    }
}

/// Names that can be completed: tables, views and their columns.
fn names(shell: &Shell) -> Vec<String> {
    let known = shell.session.known();
    let columns = known.iter().flat_map(|known| known.columns.iter().map(|column| column.name.clone()));
    let mut names: Vec<String> = known.iter().map(|known| known.name.clone()).chain(columns).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Knows what can be typed.
struct Words {
    names: Vec<String>,
}

impl Words {
    /// What a word can become, names first; in the user's case where it is a word of SQL.
    fn completions(&self, word: &str) -> Vec<String> {
        let begins = |text: &str| {
            text.len() > word.len() && text[..].get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word))
        };
        let is_lower = word.chars().all(|c| !c.is_uppercase());
        let cased = |text: String| if is_lower { text.to_lowercase() } else { text.to_uppercase() };
        let mut found: Vec<String> = self.names.iter().filter(|name| begins(name)).cloned().collect();
        let keywords = KEYWORDS.iter().filter(|keyword| begins(keyword));
        let mut words: Vec<String> = keywords.map(|keyword| cased((*keyword).to_owned())).collect();
        let registry = registry();
        let functions = [registry.scalar_names(), registry.aggregate_names(), registry.window_names()].concat();
        words.extend(functions.into_iter().filter(|name| begins(name)).map(|name| cased(name) + "("));
        words.sort_unstable();
        words.dedup();
        found.extend(words);
        found
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..pos];
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        Ok((start, if word.is_empty() { Vec::new() } else { self.completions(word) }))
    }
}

impl Validator for Words {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = ctx.input();
        let is_whole = command(input).is_some_and(|found| matches!(found, Statement::Help | Statement::Quit));
        Ok(match is_whole || split(input).rest.is_none() {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_names_first_and_in_the_case_that_was_begun() {
        let words = Words { names: vec!["orders".to_owned(), "Order_id".to_owned()] };
        let found = words.completions("or");
        assert_eq!(found[..2], ["orders", "Order_id"]);
        assert!(found.contains(&"order".to_owned()), "{found:?}");
        assert!(words.completions("SEL").contains(&"SELECT".to_owned()));
        assert!(words.completions("json_val").contains(&"json_value(".to_owned()));
        assert!(words.completions("xyz").is_empty());
    }
}
