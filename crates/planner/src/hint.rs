//! Hints (`SELECT /*+ STATE_TTL('a' = '1 h') */`): where they may stand, and what they say. The parser keeps a hint as its
//! text and forgets its place, so the place is written into the text before the parser gets it. Used by the statement
//! layer and by the planning of a SELECT.

use datafusion_sql::sqlparser::ast::{Expr, OptimizerHintStyle, Select, TableFactor, TableWithJoins};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::dialect::flink;
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::unique_without_case;
use crate::settings::duration_ms;
use crate::suggest::advice;

/// The only hint that is known.
const STATE_TTL: &str = "STATE_TTL";
/// What it looks like.
const FORM: &str = "a hint looks like /*+ STATE_TTL('table' = '1 h', 'other' = '30 min') */";

/// How long the rows of a relation are kept that nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateTtl {
    /// The relation's alias or name.
    pub(crate) relation: String,
    /// In milliseconds; 0: for ever.
    pub(crate) ttl_ms: u64,
    /// Where the relation is named in the hint.
    pub(crate) at: At,
}

/// Writes the place of each hint to its front, as `line:column:`.
///
/// # Errors
/// Where a hint does not stand right behind SELECT: it would be taken for a comment, and silently not be heeded.
pub(crate) fn place(tokens: &mut [TokenWithSpan]) -> Result<(), SqlError> {
    let mut behind_select = false;
    for token in tokens {
        let at = token.span;
        match &mut token.token {
            Token::Whitespace(Whitespace::MultiLineComment(comment)) => {
                let Some(text) = comment.strip_prefix('+') else { continue };
                if !behind_select {
                    let message = "a hint (/*+ ... */) stands right behind SELECT, or is OPTIONS right behind a table";
                    return Err(SqlError::unsupported(at, message));
                }
                *comment = format!("+{}:{}:{text}", at.start.line, at.start.column);
            }
            Token::Whitespace(_) => {}
            Token::Word(word) => behind_select = word.quote_style.is_none() && word.keyword == Keyword::SELECT,
            _ => behind_select = false,
        }
    }
    Ok(())
}

/// Takes the hints of a SELECT. What `place` has not marked is a comment.
pub(crate) fn take(select: &mut Select) -> Result<Vec<StateTtl>, SqlError> {
    let mut ttls = Vec::<StateTtl>::new();
    for hint in std::mem::take(&mut select.optimizer_hints) {
        if hint.style != OptimizerHintStyle::MultiLine || !hint.prefix.is_empty() {
            continue;
        }
        let mut parts = hint.text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(line), Some(column)) = (number(), number()) else { continue };
        let text = parts.next().unwrap_or_default();
        // Behind the three signs that begin the comment.
        let start = Location { line, column: column + 3 };
        for ttl in Reader::new(text, start)?.hints()? {
            if ttls.iter().any(|known| known.relation == ttl.relation) {
                let message = format!("{STATE_TTL} names '{}' twice", ttl.relation);
                return Err(SqlError::new(ErrorCode::Name, ttl.at, message));
            }
            ttls.push(ttl);
        }
    }
    check_names(&mut ttls, &select.from)?;
    Ok(ttls)
}

/// Gives the names the case of the relations; refuses those that mean none.
fn check_names(ttls: &mut [StateTtl], from: &[TableWithJoins]) -> Result<(), SqlError> {
    let mut known = Vec::new();
    from.iter().for_each(|tables| relations(tables, &mut known));
    for ttl in ttls {
        if known.contains(&ttl.relation) {
            continue;
        }
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let place = datafusion_sql::sqlparser::tokenizer::Span::new(ttl.at.0, ttl.at.0);
        let Some(found) = unique_without_case(&ttl.relation, names.iter().copied(), place)? else {
            let advice = advice(&ttl.relation, "there are", &names);
            let message =
                format!("{STATE_TTL} names '{}', which is no table or alias of this FROM{advice}", ttl.relation);
            return Err(SqlError::new(ErrorCode::Name, ttl.at, message));
        };
        ttl.relation = found.to_owned();
    }
    Ok(())
}

/// The names of the relations whose rows may be kept.
fn relations(tables: &TableWithJoins, names: &mut Vec<String>) {
    let factors = std::iter::once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation));
    for factor in factors {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => relations(table_with_joins, names),
            other => names.extend(name(other).map(str::to_owned)),
        }
    }
}

/// The name by which a hint means a relation.
pub(crate) fn name(factor: &TableFactor) -> Option<&str> {
    match factor {
        TableFactor::TableFunction { expr: Expr::Function(call), .. }
            if call.name.to_string().eq_ignore_ascii_case("UNNEST") =>
        {
            None
        }
        // Versions are kept as long as a row may need them.
        TableFactor::Table { version: Some(_), .. } => None,
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } => Some(&alias.name.value),
        TableFactor::Table { name, alias: None, args: None, .. } => match name.0.as_slice() {
            [part] => part.as_ident().map(|ident| ident.value.as_str()),
            _ => None,
        },
        _ => None,
    }
}

/// Reads the text of one comment.
struct Reader {
    /// Without spaces; the last first.
    tokens: Vec<(Token, At)>,
    end: At,
}

impl Reader {
    fn new(text: &str, start: Location) -> Result<Reader, SqlError> {
        let moved = |place: Location| match place.line {
            1 => Location { line: start.line, column: start.column + place.column - 1 },
            line => Location { line: start.line + line - 1, column: place.column },
        };
        let tokens = Tokenizer::new(&flink(), text).tokenize_with_location();
        let tokens = tokens.map_err(|error| SqlError::new(ErrorCode::Syntax, moved(error.location), error.message))?;
        let spaces = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_) | Token::EOF);
        let tokens = tokens.into_iter().filter(|token| !spaces(token));
        let tokens: Vec<_> = tokens.map(|token| (token.token, At(moved(token.span.start)))).collect();
        Ok(Reader { tokens: tokens.into_iter().rev().collect(), end: At(start) })
    }

    fn next(&mut self) -> Option<(Token, At)> {
        let next = self.tokens.pop();
        self.end = next.as_ref().map_or(self.end, |(_, at)| *at);
        next
    }

    fn next_is(&self, token: &Token) -> bool {
        self.tokens.last().is_some_and(|(next, _)| next == token)
    }

    fn expect(&mut self, token: &Token) -> Result<(), SqlError> {
        match self.next() {
            Some((found, _)) if found == *token => Ok(()),
            found => Err(self.unexpected(found)),
        }
    }

    fn unexpected(&self, found: Option<(Token, At)>) -> SqlError {
        let (found, at) = found.map_or(("its end".to_owned(), self.end), |(found, at)| (format!("'{found}'"), at));
        SqlError::new(ErrorCode::Syntax, at, format!("{FORM}; here is {found}"))
    }

    fn hints(mut self) -> Result<Vec<StateTtl>, SqlError> {
        let mut ttls = Vec::new();
        while let Some(next) = self.next() {
            match &next.0 {
                Token::Comma if !ttls.is_empty() => continue,
                Token::Word(word) if word.value.eq_ignore_ascii_case(STATE_TTL) => {}
                Token::Word(word) => {
                    let message = format!("the hint '{}' is not supported; {STATE_TTL} is", word.value);
                    return Err(SqlError::unsupported(next.1, message));
                }
                _ => return Err(self.unexpected(Some(next))),
            }
            self.expect(&Token::LParen)?;
            loop {
                ttls.push(self.pair()?);
                if !self.next_is(&Token::Comma) {
                    break;
                }
                self.next();
            }
            self.expect(&Token::RParen)?;
        }
        Ok(ttls)
    }

    /// `'table' = '1 h'`.
    fn pair(&mut self) -> Result<StateTtl, SqlError> {
        let (relation, at) = match self.next() {
            Some((Token::SingleQuotedString(name), at)) => (name, at),
            Some((Token::Word(word), at)) => (word.value, at),
            found => return Err(self.unexpected(found)),
        };
        self.expect(&Token::Eq)?;
        match self.next() {
            Some((Token::SingleQuotedString(text), at_duration)) => match duration_ms(&text) {
                Some(ttl_ms) => Ok(StateTtl { relation, ttl_ms, at }),
                None => {
                    let message =
                        format!("{STATE_TTL} of '{relation}' is '{text}': expected a duration such as '1 h' or '7 d'");
                    Err(SqlError::new(ErrorCode::Option, at_duration, message))
                }
            },
            found => Err(self.unexpected(found)),
        }
    }
}
