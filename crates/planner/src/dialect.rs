//! How the parser must behave to read Flink's SQL: the generic dialect, plus `TABLE t` as an argument of a
//! window table function. Used by the statement layer only.

use std::any::TypeId;

use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Map, MapEntry,
    ObjectName,
};
use datafusion_sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

/// Name of the function that `TABLE t PARTITION BY a, b` is parsed to; its arguments are `t`, `a` and `b`. It
/// cannot be written by a user: quoted names keep their quotes in the parser's output, and this one has none.
pub(crate) const TABLE_ARGUMENT: &str = "TABLE ARGUMENT";

/// Flink's dialect.
#[derive(Debug)]
pub(crate) struct FlinkDialect(GenericDialect);

/// Flink's dialect.
pub(crate) fn flink() -> FlinkDialect {
    FlinkDialect(GenericDialect {})
}

macro_rules! delegate {
    ($($name:ident),* $(,)?) => { $(fn $name(&self) -> bool { self.0.$name() })* };
}

impl Dialect for FlinkDialect {
    /// Keeps the parser's branches for the generic dialect.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c == '_' || c.is_alphabetic()
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c == '_' || c == '$' || c.is_alphanumeric()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`' || c == '"'
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    // Constructs that are refused are parsed all the same, so that the message can name them.
    delegate!(
        supports_unicode_string_literal,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_match_recognize,
        supports_window_function_null_treatment_arg,
        supports_window_clause_named_window_reference,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_try_convert,
        supports_named_fn_args_with_assignment_operator,
        supports_filter_during_aggregation,
        supports_interval_options,
        supports_comma_separated_trim,
        supports_string_escape_constant,
        supports_select_wildcard_except,
        supports_select_wildcard_exclude,
        supports_comment_optimizer_hint,
    );

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let is_table = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::TABLE);
        match parser.peek_tokens::<2>() {
            [first, Token::Word(_)] if is_table(&first) => Some(parse_table_argument(parser)),
            [first, Token::LParen] if is_table(&first) => {
                parser.advance_token();
                Some(parser.parse_expr())
            }
            [Token::Word(word), Token::LBracket]
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("MAP") =>
            {
                Some(parse_map(parser))
            }
            _ => None,
        }
    }

    /// `a IS [NOT] DISTINCT FROM b AND c` is `(a IS [NOT] DISTINCT FROM b) AND c`; the parser's own branch takes all that
    /// stands behind FROM for the second value.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let negated = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !negated && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        let left = Box::new(left.clone());
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is)).map(Box::new);
        Some(right.map(|right| match negated {
            true => Expr::IsNotDistinctFrom(left, right),
            false => Expr::IsDistinctFrom(left, right),
        }))
    }
}

/// `MAP['key', value, ...]`.
fn parse_map(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.advance_token();
    parser.expect_token(&Token::LBracket)?;
    let mut entries = Vec::new();
    loop {
        let key = Box::new(parser.parse_expr()?);
        parser.expect_token(&Token::Comma)?;
        entries.push(MapEntry { key, value: Box::new(parser.parse_expr()?) });
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RBracket)?;
    Ok(Expr::Map(Map { entries }))
}

fn parse_table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    let table = parser.next_token();
    let name = parser.parse_object_name(false)?;
    let parts = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
    let mut args = vec![Expr::CompoundIdentifier(parts)];
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        let parenthesised = parser.consume_token(&Token::LParen);
        // Outside of parentheses a comma also ends the argument: the list goes on only while no DESCRIPTOR
        // and no named argument comes after it.
        loop {
            args.push(Expr::Identifier(parser.parse_identifier()?));
            let [comma, next, after] = parser.peek_tokens::<3>();
            let ends =
                |next: &Token| matches!(next, Token::Word(word) if word.value.eq_ignore_ascii_case("DESCRIPTOR"));
            if comma != Token::Comma || ends(&next) || matches!(after, Token::RArrow | Token::LParen) {
                break;
            }
            parser.advance_token();
        }
        if parenthesised {
            parser.expect_token(&Token::RParen)?;
        }
    }
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Ok(Expr::Function(Function {
        name: ObjectName::from(Ident::with_span(table.span, TABLE_ARGUMENT)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    }))
}
