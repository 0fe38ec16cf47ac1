//! Options of a table for one use of it: `t /*+ OPTIONS('key' = 'value') */`, in FROM or behind INSERT INTO. What is used
//! is a table of its own, LIKE the named one, under a name that no user has. Called with the tokens of a text before
//! they are parsed, since the parser takes such a hint for a comment.

use datafusion_sql::sqlparser::ast::Ident;
use datafusion_sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use super::create_table::{CreateTable, TableOption, parse_options};
use super::like::Like;
use super::{Statement, StatementKind, expect_word};
use crate::dialect::flink;
use crate::error::{At, ErrorCode, SqlError};

/// The word of the hint.
const OPTIONS: &str = "OPTIONS";

/// The tables that a text uses with options.
#[derive(Default)]
pub(super) struct Uses {
    /// In the order of their places.
    tables: Vec<(At, CreateTable)>,
}

/// What is known of the tokens before one, spaces left out.
#[derive(Default)]
struct Before {
    /// Where the last one stands.
    last: Option<usize>,
    /// Whether the one before it says that a table has no alias.
    is_alone: bool,
    /// The table that needs its own name as an alias unless another one follows.
    unnamed: Option<Ident>,
}

/// The tokens with the names of the tables that are used, and these.
pub(super) fn take(tokens: Vec<TokenWithSpan>) -> Result<(Vec<TokenWithSpan>, Uses), SqlError> {
    let mut uses = Uses::default();
    let mut taken: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut before = Before::default();
    for token in tokens {
        match &token.token {
            Token::Whitespace(Whitespace::MultiLineComment(comment)) if is_options(comment) => {
                let name = before.last.and_then(|last| named(&taken[last]));
                let Some(name) = name.filter(|_| before.unnamed.is_none()) else {
                    let message = "OPTIONS stands right behind the name of a table: t /*+ OPTIONS('key' = 'value') */";
                    return Err(SqlError::unsupported(token.span, message));
                };
                let used = uses.add(&name, read(&comment[1..], token.span.start)?);
                taken[before.last.expect("it has the name")].token = word(&used);
                before.unnamed = Some(name).filter(|_| !before.is_alone);
            }
            Token::Whitespace(_) => taken.push(token),
            _ => {
                if let Some(name) = before.unnamed.take().filter(|_| !names_or_follows(&token.token)) {
                    taken.extend(alias(&name));
                }
                let last = before.last.map(|last| &taken[last].token);
                before.is_alone =
                    matches!(last, Some(Token::Word(last)) if matches!(last.keyword, Keyword::INTO | Keyword::TABLE));
                before.last = Some(taken.len());
                taken.push(token);
            }
        }
    }
    taken.extend(before.unnamed.iter().flat_map(alias));
    Ok((taken, uses))
}

fn is_options(comment: &str) -> bool {
    let text = comment.strip_prefix('+').map(str::trim_start);
    text.and_then(|text| text.get(..OPTIONS.len())).is_some_and(|begin| begin.eq_ignore_ascii_case(OPTIONS))
}

fn named(token: &TokenWithSpan) -> Option<Ident> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword) => {
            Some(Ident { value: word.value.clone(), quote_style: word.quote_style, span: token.span })
        }
        _ => None,
    }
}

/// Whether a token behind a table gives it an alias, or is a clause before which none may stand.
fn names_or_follows(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    word.quote_style.is_some()
        || matches!(word.keyword, Keyword::AS | Keyword::FOR | Keyword::MATCH_RECOGNIZE)
        || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
}

fn word(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: Some('`'), keyword: Keyword::NoKeyword })
}

fn alias(name: &Ident) -> [TokenWithSpan; 4] {
    let keyword = Word { value: "AS".to_owned(), quote_style: None, keyword: Keyword::AS };
    let space = || Token::Whitespace(Whitespace::Space);
    let tokens = [space(), Token::Word(keyword), space(), word(&name.value)];
    tokens.map(|token| TokenWithSpan { token, span: name.span })
}

/// The options of a comment whose text, behind the sign of a hint, begins three signs behind `start`.
fn read(text: &str, start: Location) -> Result<Vec<TableOption>, SqlError> {
    let moved = |place: Location| match place.line {
        1 => Location { line: start.line, column: start.column + 3 + place.column - 1 },
        line => Location { line: start.line + line - 1, column: place.column },
    };
    let dialect = flink();
    let mut tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| SqlError::new(ErrorCode::Syntax, moved(error.location), error.message))?;
    for token in &mut tokens {
        token.span = Span::new(moved(token.span.start), moved(token.span.end));
    }
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    expect_word(&mut parser, OPTIONS)?;
    let options = parse_options(&mut parser)?;
    match parser.next_token() {
        TokenWithSpan { token: Token::EOF, .. } => Ok(options),
        other => Err(SqlError::unsupported(other.span, format!("only OPTIONS stands here, found '{}'", other.token))),
    }
}

impl Uses {
    /// The name of the table with these options; the same one for the same options.
    fn add(&mut self, table: &Ident, options: Vec<TableOption>) -> String {
        let pairs = |options: &[TableOption]| -> Vec<(String, String)> {
            options.iter().map(|option| (option.key.clone(), option.value.clone())).collect()
        };
        let is_same = |known: &CreateTable| {
            known.like.as_ref().is_some_and(|like| like.source.value == table.value)
                && pairs(&known.options) == pairs(&options)
        };
        let known = self.tables.iter().find(|(_, known)| is_same(known)).map(|(_, known)| known.name.value.clone());
        let name = known.unwrap_or_else(|| {
            let keys: Vec<&str> = options.iter().map(|option| option.key.as_str()).collect();
            let name = format!("{} with {}", table.value, keys.join(", "));
            let others = self.tables.iter().filter(|(_, known)| known.name.value.starts_with(&name)).count();
            if others == 0 { name } else { format!("{name} ({})", others + 1) }
        });
        let used = Ident { value: name.clone(), quote_style: Some('`'), span: table.span };
        self.tables.push((At::from(table.span), CreateTable::used(used, Like::all(table.clone()), options)));
        name
    }

    /// Declares each table before the statement that uses it.
    pub(super) fn declare(self, statements: &mut Vec<Statement>) {
        for (at, table) in self.tables {
            let place = |at: At| (at.0.line, at.0.column);
            let user = statements.iter().rposition(|statement| place(statement.at) <= place(at)).unwrap_or(0);
            statements.insert(user, Statement { at, kind: StatementKind::CreateTable(Box::new(table)) });
        }
    }
}
