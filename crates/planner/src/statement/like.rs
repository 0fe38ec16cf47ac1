//! `LIKE` at the end of `CREATE TABLE`: parts of a table that is declared already become parts of the new one. What is
//! taken, and what happens where both have something, is as in Flink.

use datafusion_sql::sqlparser::ast::Ident;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;

use super::create_table::{ColumnDefinition, ColumnKind, CreateTable};
use super::{next_is, parse_name};
use crate::error::{At, ErrorCode, SqlError};
use crate::suggest::advice;

/// `LIKE source [(strategy part ...)]`.
#[derive(Clone, Debug)]
pub(crate) struct Like {
    /// The table whose parts are taken.
    pub(crate) source: Ident,
    /// What is said of parts; `ALL` is `None`.
    said: Vec<(Option<Part>, Strategy)>,
}

/// What a table consists of, besides its physical columns, which are always taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Constraints,
    Partitions,
    Generated,
    Metadata,
    Watermarks,
    Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// It is taken; both must not have it.
    Including,
    /// It is not taken.
    Excluding,
    /// It is taken unless the new table has it.
    Overwriting,
}

const PARTS: [(&str, Option<Part>); 7] = [
    ("ALL", None),
    ("CONSTRAINTS", Some(Part::Constraints)),
    ("PARTITIONS", Some(Part::Partitions)),
    ("GENERATED", Some(Part::Generated)),
    ("METADATA", Some(Part::Metadata)),
    ("WATERMARKS", Some(Part::Watermarks)),
    ("OPTIONS", Some(Part::Options)),
];
const STRATEGIES: [(&str, Strategy); 3] =
    [("INCLUDING", Strategy::Including), ("EXCLUDING", Strategy::Excluding), ("OVERWRITING", Strategy::Overwriting)];

impl Part {
    fn can_be_overwritten(part: Option<Part>) -> bool {
        matches!(part, Some(Part::Generated | Part::Metadata | Part::Watermarks | Part::Options))
    }
}

/// From the word `LIKE` on, if it is there.
pub(super) fn parse(parser: &mut Parser) -> Result<Option<Like>, SqlError> {
    if !next_is(parser, "LIKE") {
        return Ok(None);
    }
    parser.advance_token();
    let mut like = Like::all(parse_name(parser)?);
    if !parser.consume_token(&Token::LParen) {
        return Ok(Some(like));
    }
    while !parser.consume_token(&Token::RParen) {
        let at = At::from(parser.peek_token_ref().span);
        let strategy = parse_word(parser, &STRATEGIES)?;
        let part = parse_word(parser, &PARTS)?;
        if strategy == Strategy::Overwriting && !Part::can_be_overwritten(part) {
            let message = "only GENERATED, METADATA, WATERMARKS and OPTIONS can be OVERWRITING; INCLUDING or EXCLUDING";
            return Err(SqlError::new(ErrorCode::Syntax, at, message));
        }
        if like.said.iter().any(|(known, _)| *known == part) {
            return Err(SqlError::new(ErrorCode::Syntax, at, "each part of LIKE is named once at most"));
        }
        like.said.push((part, strategy));
    }
    Ok(Some(like))
}

fn parse_word<T: Copy>(parser: &mut Parser, known: &[(&str, T)]) -> Result<T, SqlError> {
    let next = parser.next_token();
    let text = next.token.to_string();
    if let Some((_, meant)) = known.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)) {
        return Ok(*meant);
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let message = format!("LIKE does not know '{text}'{}", advice(&text.to_ascii_uppercase(), "it takes", &words));
    Err(SqlError::new(ErrorCode::Syntax, next.span, message))
}

impl Like {
    /// All of a table, where its options are not overwritten.
    pub(super) fn all(source: Ident) -> Like {
        Like { source, said: Vec::new() }
    }

    fn strategy(&self, part: Part) -> Strategy {
        let said = |of| self.said.iter().find(|(known, _)| *known == of).map(|(_, strategy)| *strategy);
        let unsaid = if part == Part::Options { Strategy::Overwriting } else { Strategy::Including };
        said(Some(part)).or(said(None)).unwrap_or(unsaid)
    }

    /// Whether a part is taken, and one of the new table's own, at `own`, may stand in its place.
    fn takes(&self, part: Part, what: &str, own: Option<At>) -> Result<bool, SqlError> {
        match (self.strategy(part), own) {
            (Strategy::Excluding, _) | (Strategy::Overwriting, Some(_)) => Ok(false),
            (Strategy::Including, Some(at)) => {
                let (word, _) = PARTS.iter().find(|(_, known)| *known == Some(part)).expect("all are listed");
                let or = if Part::can_be_overwritten(Some(part)) { " or OVERWRITING" } else { "" };
                let message = format!(
                    "table '{}' has {what} already; add (EXCLUDING{or} {word}) to LIKE, or leave this one away",
                    self.source.value
                );
                Err(SqlError::new(ErrorCode::Name, at, message))
            }
            (_, None) => Ok(true),
        }
    }

    /// Adds the parts of `source`, in front of those that the new table has of its own.
    ///
    /// # Errors
    /// Both have what only one of them may.
    pub(crate) fn merge(&self, source: &CreateTable, own: &mut CreateTable) -> Result<(), SqlError> {
        own.columns = self.columns(source, std::mem::take(&mut own.columns))?;
        let start = |names: &[Ident]| names.first().map(|name| At::from(name.span));
        if !source.primary_key.is_empty() && self.takes(Part::Constraints, "a PRIMARY KEY", start(&own.primary_key))? {
            own.primary_key = source.primary_key.clone();
        }
        if self.strategy(Part::Constraints) == Strategy::Including {
            own.checks.splice(0..0, source.checks.iter().cloned());
        }
        if !source.partition_keys.is_empty()
            && self.takes(Part::Partitions, "partitions", start(&own.partition_keys))?
        {
            own.partition_keys = source.partition_keys.clone();
        }
        if let Some(watermark) = &source.watermark
            && self.takes(Part::Watermarks, "a WATERMARK", own.watermark.as_ref().map(|own| own.at))?
        {
            own.watermark = Some(watermark.clone());
        }
        let mut options = Vec::new();
        for option in &source.options {
            let same = own.options.iter().find(|own| own.key == option.key).map(|own| own.at);
            if self.takes(Part::Options, &format!("the option '{}'", option.key), same)? {
                options.push(option.clone());
            }
        }
        own.options.splice(0..0, options);
        Ok(())
    }

    fn columns(&self, source: &CreateTable, own: Vec<ColumnDefinition>) -> Result<Vec<ColumnDefinition>, SqlError> {
        let part_of = |column: &ColumnDefinition| match (&column.kind, &column.metadata) {
            (ColumnKind::Computed(_), _) => Some(Part::Generated),
            (_, Some(_)) => Some(Part::Metadata),
            _ => None,
        };
        let is_taken =
            |column: &&ColumnDefinition| part_of(column).is_none_or(|part| self.strategy(part) != Strategy::Excluding);
        let mut columns: Vec<ColumnDefinition> = source.columns.iter().filter(is_taken).cloned().collect();
        for column in &mut columns {
            // As a column of the key it cannot be null, also where the key is left out.
            if let ColumnKind::Physical { nullable, .. } = &mut column.kind
                && source.primary_key.iter().any(|key| key.value == column.name.value)
            {
                *nullable = false;
            }
        }
        for column in own {
            let Some(taken) = columns.iter_mut().find(|taken| taken.name.value == column.name.value) else {
                columns.push(column);
                continue;
            };
            let what = format!("a column '{}'", column.name.value);
            match part_of(&column) {
                Some(part) if part_of(taken) == Some(part) => {
                    self.takes(part, &what, Some(column.name.span.into()))?;
                    *taken = column;
                }
                _ => {
                    let message =
                        format!("table '{}' has {what} already; give this one another name", self.source.value);
                    return Err(SqlError::new(ErrorCode::Name, column.name.span, message));
                }
            }
        }
        Ok(columns)
    }
}
