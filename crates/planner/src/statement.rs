//! SQL text to statements: the layer above the parser that knows Flink's own statements. Called by
//! [`crate::plan`] first. Resolves no names; refuses what can be refused by its first words.

mod create_table;
mod guard;
mod like;
mod match_recognize;
mod set;
mod table_options;

use datafusion_sql::sqlparser::ast::{Ident, Query};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserOptions};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

pub(crate) use self::create_table::{CheckDefinition, ColumnDefinition, ColumnKind, CreateTable, TableOption};
pub(crate) use self::match_recognize::{QUERY_INPUT, WITHIN};
use crate::dialect::flink;
use crate::error::{At, ErrorCode, SqlError};
use crate::hint;

/// Longest text, in bytes.
const SQL_BYTES_MAX: usize = 1 << 20;
/// Most tokens of a text, not counting spaces and comments.
const TOKENS_MAX: usize = 100_000;
/// How deep expressions and queries may be nested.
const NESTING_MAX: usize = 200;

/// A statement and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) at: At,
    pub(crate) kind: StatementKind,
}

#[derive(Clone, Debug)]
pub(crate) enum StatementKind {
    CreateTable(Box<CreateTable>),
    CreateView(CreateView),
    CreateSecret {
        name: Ident,
        if_not_exists: bool,
        /// Where the value is to be found.
        reference: String,
        reference_at: At,
    },
    /// `INSERT INTO` or, without a target, a bare query whose rows are printed.
    Output {
        target: Option<InsertTarget>,
        query: Box<Query>,
        explain: Explain,
    },
    /// `EXPLAIN GUARANTEES` alone: of all outputs of the file, none of which is run.
    ExplainGuarantees,
    Set {
        key: String,
        value: String,
    },
}

/// What is wanted of an output instead of running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Explain {
    /// It is to be run.
    Nothing,
    /// Its operators.
    Plan,
    /// What is guaranteed.
    Guarantees,
}

#[derive(Clone, Debug)]
pub(crate) struct CreateView {
    pub(crate) name: Ident,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<Ident>,
    pub(crate) query: Box<Query>,
}

#[derive(Clone, Debug)]
pub(crate) struct InsertTarget {
    pub(crate) table: Ident,
    /// Empty: all columns of the table.
    pub(crate) columns: Vec<Ident>,
}

/// All statements of a text, in order.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    if sql.len() > SQL_BYTES_MAX {
        let message = format!("the SQL text has {} bytes, at most {SQL_BYTES_MAX} are accepted", sql.len());
        return Err(SqlError::new(ErrorCode::Limit, At::NOWHERE, message));
    }
    let dialect = flink();
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location()?;
    check_tokens(&tokens)?;
    let (mut tokens, uses) = table_options::take(tokens)?;
    hint::place(&mut tokens)?;
    let tokens = match_recognize::rewrite(tokens)?;
    let parser = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_trailing_commas(false))
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens);
    let mut statements = StatementParser { parser, statements: Vec::new() };
    statements.parse_all()?;
    let mut statements = statements.statements;
    uses.declare(&mut statements);
    Ok(statements)
}

fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut count = 0;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => {}
            _ => count += 1,
        }
        if count > TOKENS_MAX {
            let message =
                format!("the SQL text has more than {TOKENS_MAX} words and signs; split it into several jobs");
            return Err(SqlError::new(ErrorCode::Limit, token.span, message));
        }
    }
    Ok(())
}

struct StatementParser<'a> {
    parser: Parser<'a>,
    statements: Vec<Statement>,
}

impl StatementParser<'_> {
    fn parse_all(&mut self) -> Result<(), SqlError> {
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            if self.parser.peek_token_ref().token == Token::EOF {
                return Ok(());
            }
            self.parse_statement().map_err(|error| self.placed(error))?;
            self.expect_end()?;
        }
    }

    /// Errors that know no place get that of the next token.
    fn placed(&self, mut error: SqlError) -> SqlError {
        if error.line == 0 {
            let next = self.parser.peek_token_ref().span.start;
            let (line, column) = if next.line > 0 { (next.line, next.column) } else { last_place(&self.parser) };
            (error.line, error.column) = (line, column);
        }
        error
    }

    fn expect_end(&mut self) -> Result<(), SqlError> {
        let next = self.parser.peek_token_ref();
        match next.token {
            Token::SemiColon | Token::EOF => Ok(()),
            _ => {
                let message = format!("expected ';' or the end of the statement, found '{}'", next.token);
                Err(SqlError::new(ErrorCode::Syntax, next.span, message))
            }
        }
    }

    fn parse_statement(&mut self) -> Result<(), SqlError> {
        let first = self.parser.peek_token();
        let at = At::from(first.span);
        if first.token == Token::LParen {
            return self.parse_output(at, Explain::Nothing);
        }
        let Token::Word(word) = &first.token else {
            return Err(SqlError::new(ErrorCode::Syntax, at, format!("expected a statement, found '{}'", first.token)));
        };
        match word.value.to_ascii_uppercase().as_str() {
            "CREATE" => self.parse_create(at),
            "SELECT" | "WITH" | "INSERT" => self.parse_output(at, Explain::Nothing),
            "SET" => {
                let kind = set::parse(&mut self.parser)?;
                self.push(at, kind);
                Ok(())
            }
            "EXPLAIN" => self.parse_explain(at),
            "EXECUTE" => self.parse_execute(at),
            "BEGIN" => {
                self.parser.advance_token();
                self.expect_words(&["STATEMENT", "SET"])?;
                self.parser.expect_token(&Token::SemiColon)?;
                self.parse_statement_set(at, Explain::Nothing)
            }
            _ => Err(refused_statement(word, at)),
        }
    }

    fn push(&mut self, at: At, kind: StatementKind) {
        self.statements.push(Statement { at, kind });
    }

    fn parse_create(&mut self, at: At) -> Result<(), SqlError> {
        self.parser.advance_token();
        let temporary = self.parser.parse_keyword(Keyword::TEMPORARY);
        let next = self.parser.peek_token();
        let Token::Word(word) = &next.token else {
            return Err(SqlError::new(ErrorCode::Syntax, next.span, "expected TABLE, VIEW or SECRET after CREATE"));
        };
        match word.value.to_ascii_uppercase().as_str() {
            "TABLE" => {
                self.parser.advance_token();
                let kind = StatementKind::CreateTable(Box::new(create_table::parse(&mut self.parser)?));
                self.push(at, kind);
                Ok(())
            }
            "VIEW" => {
                self.parser.advance_token();
                let kind = StatementKind::CreateView(self.parse_view()?);
                self.push(at, kind);
                Ok(())
            }
            "SECRET" => {
                self.parser.advance_token();
                let kind = self.parse_secret()?;
                self.push(at, kind);
                Ok(())
            }
            "OR" => {
                Err(SqlError::unsupported(at, "CREATE OR REPLACE is not supported; a name is declared once in a file"))
            }
            other => {
                let temporary = if temporary { "TEMPORARY " } else { "" };
                Err(SqlError::unsupported(
                    at,
                    format!(
                        "CREATE {temporary}{other} is not supported; CREATE TABLE, CREATE VIEW and CREATE SECRET are"
                    ),
                ))
            }
        }
    }

    fn parse_view(&mut self) -> Result<CreateView, SqlError> {
        let if_not_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = parse_name(&mut self.parser)?;
        let columns = if self.parser.peek_token_ref().token == Token::LParen {
            parse_name_list(&mut self.parser)?
        } else {
            Vec::new()
        };
        if self.parser.parse_keyword(Keyword::COMMENT) {
            self.parser.parse_literal_string()?;
        }
        self.parser.expect_keyword(Keyword::AS)?;
        let query = self.parse_query()?;
        Ok(CreateView { name, if_not_exists, columns, query })
    }

    fn parse_secret(&mut self) -> Result<StatementKind, SqlError> {
        let if_not_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = parse_name(&mut self.parser)?;
        self.parser.expect_keyword(Keyword::AS)?;
        let reference_at = At::from(self.parser.peek_token_ref().span);
        let reference = self.parser.parse_literal_string()?;
        Ok(StatementKind::CreateSecret { name, if_not_exists, reference, reference_at })
    }

    fn parse_explain(&mut self, at: At) -> Result<(), SqlError> {
        self.parser.advance_token();
        let mut explain = Explain::Plan;
        if self.next_is("GUARANTEES") {
            self.parser.advance_token();
            explain = Explain::Guarantees;
            if matches!(self.parser.peek_token_ref().token, Token::SemiColon | Token::EOF) {
                self.push(at, StatementKind::ExplainGuarantees);
                return Ok(());
            }
            if self.next_is("FOR") {
                self.parser.advance_token();
            }
        }
        if self.next_is("PLAN") {
            self.parser.advance_token();
            self.parser.expect_keyword(Keyword::FOR)?;
        }
        if self.next_is("EXECUTE") {
            self.parser.advance_token();
        }
        if self.next_is("STATEMENT") {
            self.expect_words(&["STATEMENT", "SET"])?;
            self.expect_words(&["BEGIN"])?;
            return self.parse_statement_set(at, explain);
        }
        let next = self.parser.peek_token();
        let known = next.token == Token::LParen || ["SELECT", "WITH", "INSERT"].iter().any(|word| self.next_is(word));
        if !known {
            let message =
                format!("EXPLAIN takes a SELECT or an INSERT, or GUARANTEES and one of these, found '{}'", next.token);
            return Err(SqlError::unsupported(next.span, message));
        }
        self.parse_output(at, explain)
    }

    fn parse_execute(&mut self, at: At) -> Result<(), SqlError> {
        self.parser.advance_token();
        if self.next_is("STATEMENT") {
            self.expect_words(&["STATEMENT", "SET", "BEGIN"])?;
            return self.parse_statement_set(at, Explain::Nothing);
        }
        if self.next_is("INSERT") || self.next_is("SELECT") {
            return self.parse_output(at, Explain::Nothing);
        }
        let next = self.parser.peek_token();
        Err(SqlError::unsupported(
            at,
            format!("EXECUTE {} is not supported; EXECUTE STATEMENT SET BEGIN ... END is", next.token),
        ))
    }

    /// The statements between `BEGIN` and `END`.
    fn parse_statement_set(&mut self, at: At, explain: Explain) -> Result<(), SqlError> {
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            let next = self.parser.peek_token();
            if self.next_is("END") {
                self.parser.advance_token();
                return Ok(());
            }
            if next.token == Token::EOF {
                return Err(SqlError::new(ErrorCode::Syntax, at, "this statement set has no END"));
            }
            if !self.next_is("INSERT") {
                let message = format!("a statement set holds only INSERT statements, found '{}'", next.token);
                return Err(SqlError::unsupported(next.span, message));
            }
            self.parse_output(next.span.into(), explain)?;
            if !self.next_is("END") {
                self.expect_end()?;
            }
        }
    }

    fn parse_output(&mut self, at: At, explain: Explain) -> Result<(), SqlError> {
        let target = if self.next_is("INSERT") { Some(self.parse_insert_target(at)?) } else { None };
        let query = self.parse_query()?;
        self.push(at, StatementKind::Output { target, query, explain });
        Ok(())
    }

    fn parse_insert_target(&mut self, at: At) -> Result<InsertTarget, SqlError> {
        self.parser.advance_token();
        if self.next_is("OVERWRITE") {
            return Err(SqlError::unsupported(
                at,
                "INSERT OVERWRITE is not supported: a stream only adds rows; use INSERT INTO",
            ));
        }
        self.parser.expect_keyword(Keyword::INTO)?;
        if self.next_is("TABLE") {
            self.parser.advance_token();
        }
        let table = parse_name(&mut self.parser)?;
        let next = self.parser.peek_token();
        if self.next_is("PARTITION") {
            return Err(SqlError::unsupported(
                next.span,
                "INSERT INTO ... PARTITION is not supported; select the partition's columns in the query",
            ));
        }
        let column_list = match self.parser.peek_tokens::<2>() {
            [Token::LParen, Token::Word(word)] => !matches!(word.keyword, Keyword::SELECT | Keyword::WITH),
            _ => false,
        };
        let columns = if column_list { parse_name_list(&mut self.parser)? } else { Vec::new() };
        Ok(InsertTarget { table, columns })
    }

    fn parse_query(&mut self) -> Result<Box<Query>, SqlError> {
        let at = At::from(self.parser.peek_token_ref().span);
        let mut query = self.parser.parse_query()?;
        guard::check_query(&mut query).map_err(|error| error.or_at(at))?;
        Ok(query)
    }

    fn next_is(&self, text: &str) -> bool {
        next_is(&self.parser, text)
    }

    fn expect_words(&mut self, words: &[&str]) -> Result<(), SqlError> {
        words.iter().try_for_each(|word| expect_word(&mut self.parser, word))
    }
}

/// Whether the next token is this unquoted word, in any case.
fn next_is(parser: &Parser, text: &str) -> bool {
    matches!(&parser.peek_token_ref().token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn expect_word(parser: &mut Parser, text: &str) -> Result<(), SqlError> {
    let next = parser.next_token();
    match &next.token {
        Token::Word(word) if word.value.eq_ignore_ascii_case(text) => Ok(()),
        other => Err(SqlError::new(ErrorCode::Syntax, next.span, format!("expected {text}, found '{other}'"))),
    }
}

/// A table's or view's name; catalogs and databases do not exist here.
fn parse_name(parser: &mut Parser) -> Result<Ident, SqlError> {
    let name = parser.parse_identifier()?;
    if parser.peek_token_ref().token == Token::Period {
        let message = format!(
            "the name that begins with '{}' has several parts; there are no catalogs and databases here, use a plain name",
            name.value
        );
        return Err(SqlError::unsupported(name.span, message));
    }
    Ok(name)
}

fn parse_name_list(parser: &mut Parser) -> Result<Vec<Ident>, SqlError> {
    parser.expect_token(&Token::LParen)?;
    let names = parser.parse_comma_separated(Parser::parse_identifier)?;
    parser.expect_token(&Token::RParen)?;
    Ok(names)
}

/// The place of the last token, for errors at the end of the text.
fn last_place(parser: &Parser) -> (u64, u64) {
    let index = parser.index();
    let places = (0..index).rev().map(|i| parser.token_at(i).span.start);
    places.map(|place| (place.line, place.column)).find(|place| place.0 > 0).unwrap_or((0, 0))
}

fn refused_statement(word: &Word, at: At) -> SqlError {
    let verb = word.value.to_ascii_uppercase();
    let advice = match verb.as_str() {
        "DROP" | "ALTER" => "a file declares the tables of one job; change the declaration instead",
        "SHOW" | "DESCRIBE" | "DESC" => "EXPLAIN shows a job's tables and operators",
        "RESET" => "leave the SET out instead",
        "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" => "a stream only adds rows; use INSERT INTO",
        "USE" | "LOAD" | "UNLOAD" | "ADD" | "REMOVE" => "there are no catalogs, databases, modules and jars here",
        "VALUES" | "TABLE" => "write a SELECT from a table",
        "ANALYZE" | "CALL" | "STOP" => "use the command line or the REST interface",
        _ => {
            let message = format!(
                "'{}' begins no statement that is known here; expected SELECT, INSERT, CREATE, SET or EXPLAIN",
                word.value
            );
            return SqlError::new(ErrorCode::Syntax, at, message);
        }
    };
    SqlError::unsupported(at, format!("{verb} is not supported: {advice}"))
}

#[cfg(test)]
mod tests;
