//! `CREATE TABLE` in Flink's form, which the parser's own does not cover: computed columns, `WATERMARK FOR`,
//! `ROW<...>`, `LIKE`. Called by the statement layer. Resolves no names.

use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{Expr, Ident};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;

use super::like::{self, Like};
use super::{guard, next_is, parse_name, parse_name_list};
use crate::error::{At, ErrorCode, SqlError};
use crate::types;

#[derive(Clone, Debug)]
pub(crate) struct CreateTable {
    pub(crate) name: Ident,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnDefinition>,
    pub(crate) watermark: Option<WatermarkDefinition>,
    pub(crate) checks: Vec<CheckDefinition>,
    pub(crate) primary_key: Vec<Ident>,
    pub(crate) partition_keys: Vec<Ident>,
    pub(crate) options: Vec<TableOption>,
    pub(crate) like: Option<Like>,
}

#[derive(Clone, Debug)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: Ident,
    pub(crate) kind: ColumnKind,
    /// Only of physical columns.
    pub(crate) metadata: Option<MetadataDefinition>,
}

/// `METADATA [FROM 'key'] [VIRTUAL]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataDefinition {
    /// Which metadata of a record.
    pub(crate) key: String,
    /// Whether it can only be read.
    pub(crate) is_virtual: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum ColumnKind {
    /// The connector delivers it.
    Physical { data_type: DataType, nullable: bool },
    /// `name AS expr`.
    Computed(Box<Expr>),
}

#[derive(Clone, Debug)]
pub(crate) struct WatermarkDefinition {
    pub(crate) at: At,
    pub(crate) column: Ident,
    pub(crate) expr: Expr,
}

/// `[CONSTRAINT name] CHECK (expr)`.
#[derive(Clone, Debug)]
pub(crate) struct CheckDefinition {
    pub(crate) at: At,
    /// Absent: the table's name and a number make one.
    pub(crate) name: Option<Ident>,
    pub(crate) expr: Expr,
}

/// An option of the `WITH` clause.
#[derive(Clone, Debug)]
pub(crate) struct TableOption {
    pub(crate) at: At,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl CreateTable {
    /// Without columns.
    fn new(name: Ident, if_not_exists: bool) -> CreateTable {
        CreateTable {
            name,
            if_not_exists,
            columns: Vec::new(),
            watermark: None,
            checks: Vec::new(),
            primary_key: Vec::new(),
            partition_keys: Vec::new(),
            options: Vec::new(),
            like: None,
        }
    }

    /// One that is like another with some other options; it may be there already.
    pub(super) fn used(name: Ident, like: Like, options: Vec<TableOption>) -> CreateTable {
        CreateTable { options, like: Some(like), ..CreateTable::new(name, true) }
    }
}

/// After the word `TABLE`, to the end of the statement.
pub(super) fn parse(parser: &mut Parser) -> Result<CreateTable, SqlError> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let mut table = CreateTable::new(parse_name(parser)?, if_not_exists);
    let next = parser.peek_token();
    if parser.consume_token(&Token::LParen) {
        parse_items(parser, &mut table)?;
    }
    parse_clauses(parser, &mut table)?;
    if next.token != Token::LParen && table.like.is_none() {
        let message = format!("expected the columns in parentheses, found '{}'", next.token);
        return Err(SqlError::new(ErrorCode::Syntax, next.span, message));
    }
    Ok(table)
}

/// Behind the opening parenthesis, to the closing one.
fn parse_items(parser: &mut Parser, table: &mut CreateTable) -> Result<(), SqlError> {
    loop {
        parse_item(parser, table)?;
        let next = parser.next_token();
        match next.token {
            Token::Comma => {}
            Token::RParen => return Ok(()),
            other => {
                return Err(SqlError::new(
                    ErrorCode::Syntax,
                    next.span,
                    format!("expected ',' or ')' after a column, found '{other}'"),
                ));
            }
        }
    }
}

fn refuse_as(parser: &Parser) -> Result<(), SqlError> {
    if next_is(parser, "AS") {
        return Err(SqlError::unsupported(
            parser.peek_token().span,
            "CREATE TABLE ... AS SELECT is not supported; declare the table and use INSERT INTO",
        ));
    }
    Ok(())
}

fn parse_clauses(parser: &mut Parser, table: &mut CreateTable) -> Result<(), SqlError> {
    if parser.parse_keyword(Keyword::COMMENT) {
        parser.parse_literal_string()?;
    }
    if next_is(parser, "DISTRIBUTED") {
        return Err(SqlError::unsupported(parser.peek_token().span, "DISTRIBUTED BY is not supported"));
    }
    if parser.parse_keywords(&[Keyword::PARTITIONED, Keyword::BY]) {
        table.partition_keys = parse_name_list(parser)?;
    }
    if parser.parse_keyword(Keyword::WITH) {
        table.options = parse_options(parser)?;
    }
    table.like = like::parse(parser)?;
    refuse_as(parser)
}

fn parse_item(parser: &mut Parser, table: &mut CreateTable) -> Result<(), SqlError> {
    let at = At::from(parser.peek_token_ref().span);
    if let [Token::Word(first), Token::Word(second)] = parser.peek_tokens::<2>()
        && first.quote_style.is_none()
    {
        match (first.value.to_ascii_uppercase().as_str(), second.keyword) {
            ("WATERMARK", Keyword::FOR) => return parse_watermark(parser, table, at),
            ("PRIMARY", Keyword::KEY) => return parse_primary_key(parser, table, at),
            ("CONSTRAINT", _) => {
                parser.advance_token();
                let name = parser.parse_identifier()?;
                if next_is(parser, "CHECK") {
                    return parse_check(parser, table, Some(name), at);
                }
                return parse_primary_key(parser, table, at);
            }
            ("LIKE", _) => {
                let message = "LIKE stands at the end: CREATE TABLE t (...) WITH (...) LIKE table";
                return Err(SqlError::unsupported(at, message));
            }
            _ => {}
        }
    }
    if next_is(parser, "CHECK") && parser.peek_nth_token(1).token == Token::LParen {
        return parse_check(parser, table, None, at);
    }
    if next_is(parser, "UNIQUE") && parser.peek_nth_token(1).token == Token::LParen {
        return Err(SqlError::unsupported(at, "UNIQUE is not supported; PRIMARY KEY (...) NOT ENFORCED is"));
    }
    parse_column(parser, table)
}

fn parse_watermark(parser: &mut Parser, table: &mut CreateTable, at: At) -> Result<(), SqlError> {
    parser.advance_token();
    parser.advance_token();
    let column = parser.parse_identifier()?;
    if parser.peek_token_ref().token == Token::Period {
        let message = "WATERMARK FOR takes a column, not a nested field; declare a computed column for the field first";
        return Err(SqlError::unsupported(column.span, message));
    }
    parser.expect_keyword(Keyword::AS)?;
    let expr = parse_expr(parser)?;
    if table.watermark.is_some() {
        return Err(SqlError::new(ErrorCode::Window, at, "a table has at most one WATERMARK"));
    }
    table.watermark = Some(WatermarkDefinition { at, column, expr });
    Ok(())
}

fn parse_expr(parser: &mut Parser) -> Result<Expr, SqlError> {
    let at = At::from(parser.peek_token_ref().span);
    let mut expr = parser.parse_expr()?;
    guard::check_expr(&mut expr).map_err(|error| error.or_at(at))?;
    Ok(expr)
}

fn parse_primary_key(parser: &mut Parser, table: &mut CreateTable, at: At) -> Result<(), SqlError> {
    parser.expect_keyword(Keyword::PRIMARY)?;
    parser.expect_keyword(Keyword::KEY)?;
    let columns = parse_name_list(parser)?;
    set_primary_key(parser, table, columns, at)
}

/// From the word `CHECK` on.
fn parse_check(parser: &mut Parser, table: &mut CreateTable, name: Option<Ident>, at: At) -> Result<(), SqlError> {
    parser.advance_token();
    parser.expect_token(&Token::LParen)?;
    let expr = parse_expr(parser)?;
    parser.expect_token(&Token::RParen)?;
    if parser.parse_keywords(&[Keyword::NOT, Keyword::ENFORCED]) {
        return Err(SqlError::unsupported(at, "a CHECK is checked for each row that is read; leave NOT ENFORCED away"));
    }
    let _ = parser.parse_keyword(Keyword::ENFORCED);
    table.checks.push(CheckDefinition { at, name, expr });
    Ok(())
}

fn set_primary_key(parser: &mut Parser, table: &mut CreateTable, columns: Vec<Ident>, at: At) -> Result<(), SqlError> {
    if !parser.parse_keywords(&[Keyword::NOT, Keyword::ENFORCED]) {
        return Err(SqlError::unsupported(
            at,
            "a PRIMARY KEY is not checked against the data; write PRIMARY KEY (...) NOT ENFORCED",
        ));
    }
    if !table.primary_key.is_empty() {
        return Err(SqlError::new(ErrorCode::Name, at, "a table has at most one PRIMARY KEY"));
    }
    table.primary_key = columns;
    Ok(())
}

fn parse_column(parser: &mut Parser, table: &mut CreateTable) -> Result<(), SqlError> {
    let name = parser.parse_identifier()?;
    if parser.parse_keyword(Keyword::AS) {
        let expr = parse_expr(parser)?;
        if parser.parse_keyword(Keyword::COMMENT) {
            parser.parse_literal_string()?;
        }
        table.columns.push(ColumnDefinition { name, kind: ColumnKind::Computed(Box::new(expr)), metadata: None });
        return Ok(());
    }
    let (data_type, mut nullable) = types::parse(parser)?;
    let mut is_key = false;
    let mut metadata = None;
    loop {
        let next = parser.peek_token();
        if metadata.is_none() && next_is(parser, "METADATA") {
            parser.next_token();
            metadata = Some(parse_metadata(parser, &name)?);
        } else if parser.parse_keyword(Keyword::COMMENT) {
            parser.parse_literal_string()?;
        } else if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            set_primary_key(parser, table, vec![name.clone()], next.span.into())?;
            is_key = true;
        } else if next_is(parser, "CHECK") {
            parse_check(parser, table, None, next.span.into())?;
        } else if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            nullable = false;
        } else if parser.parse_keyword(Keyword::NULL) {
            nullable = true;
        } else if let Token::Word(word) = &next.token {
            let message = format!("'{}' is not supported in the declaration of column '{}'", word.value, name.value);
            return Err(SqlError::unsupported(next.span, message));
        } else {
            break;
        }
    }
    let kind = ColumnKind::Physical { data_type, nullable: nullable && !is_key };
    table.columns.push(ColumnDefinition { name, kind, metadata });
    Ok(())
}

/// What follows `METADATA`. Without `FROM` the column has the name of the metadata.
fn parse_metadata(parser: &mut Parser, column: &Ident) -> Result<MetadataDefinition, SqlError> {
    let key = match parser.parse_keyword(Keyword::FROM) {
        true => parse_quoted(parser, "the name of the metadata")?,
        false => column.value.clone(),
    };
    let is_virtual = next_is(parser, "VIRTUAL");
    if is_virtual {
        parser.next_token();
    }
    Ok(MetadataDefinition { key, is_virtual })
}

/// A list in parentheses.
pub(super) fn parse_options(parser: &mut Parser) -> Result<Vec<TableOption>, SqlError> {
    parser.expect_token(&Token::LParen)?;
    let mut options = Vec::<TableOption>::new();
    if parser.consume_token(&Token::RParen) {
        return Ok(options);
    }
    loop {
        let at = At::from(parser.peek_token_ref().span);
        let key = parse_quoted(parser, "an option's name")?;
        parser.expect_token(&Token::Eq)?;
        let value = parse_quoted(parser, "an option's value")?;
        if options.iter().any(|option| option.key == key) {
            return Err(SqlError::new(ErrorCode::Option, at, format!("the option '{key}' is given twice")));
        }
        options.push(TableOption { at, key, value });
        let next = parser.next_token();
        match next.token {
            Token::Comma => {}
            Token::RParen => return Ok(options),
            other => {
                return Err(SqlError::new(
                    ErrorCode::Syntax,
                    next.span,
                    format!("expected ',' or ')' after an option, found '{other}'"),
                ));
            }
        }
    }
}

fn parse_quoted(parser: &mut Parser, what: &str) -> Result<String, SqlError> {
    let next = parser.next_token();
    match next.token {
        Token::SingleQuotedString(text) => Ok(text),
        other => Err(SqlError::new(
            ErrorCode::Syntax,
            next.span,
            format!("expected {what} in single quotes, found '{other}'"),
        )),
    }
}
