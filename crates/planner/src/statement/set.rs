//! `SET 'key' = 'value'`, with or without quotes. Called by the statement layer. Knows no keys: see
//! `settings.rs` for those.

use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;

use super::StatementKind;
use crate::error::{ErrorCode, SqlError};

/// From the word `SET` to before the semicolon.
pub(super) fn parse(parser: &mut Parser) -> Result<StatementKind, SqlError> {
    let at = parser.next_token().span;
    let key = parse_text(parser, &|token| *token == Token::Eq)?;
    if key.is_empty() {
        return Err(SqlError::unsupported(at, "SET needs a key and a value: SET 'key' = 'value'"));
    }
    parser.expect_token(&Token::Eq)?;
    let value = parse_text(parser, &|_| false)?;
    Ok(StatementKind::Set { key, value })
}

/// One quoted text, or the words and signs up to the end, spaces between them reduced to one.
fn parse_text(parser: &mut Parser, ends: &dyn Fn(&Token) -> bool) -> Result<String, SqlError> {
    let mut text = String::new();
    let mut last_end = None;
    loop {
        let next = parser.peek_token();
        if ends(&next.token) || matches!(next.token, Token::SemiColon | Token::EOF) {
            return Ok(text);
        }
        parser.advance_token();
        if let Token::SingleQuotedString(quoted) = &next.token {
            if !text.is_empty() {
                return Err(SqlError::new(
                    ErrorCode::Syntax,
                    next.span,
                    format!("expected '=' or ';', found '{}'", next.token),
                ));
            }
            return Ok(quoted.clone());
        }
        if last_end.is_some_and(|end| end != next.span.start) {
            text.push(' ');
        }
        text.push_str(&next.token.to_string());
        last_end = Some(next.span.end);
    }
}
