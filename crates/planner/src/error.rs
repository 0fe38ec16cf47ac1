//! What the planner tells the person who wrote the SQL: one sentence, and where. Made by every part of this
//! crate, shown by the server. Must never show an internal error's stack or a message without a position
//! where one is known.

use std::fmt;

use datafusion_common::{DataFusionError, SchemaError};
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::{Location, Span, TokenizerError};

/// What kind of mistake it is. The text form is stable and has a page in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text is not SQL.
    Syntax,
    /// SQL that is not supported (yet).
    Unsupported,
    /// An unknown, doubled or ambiguous name.
    Name,
    /// Types that do not fit.
    Type,
    /// Windows and event time.
    Window,
    /// Options of a table, or `SET`.
    Option,
    /// A delivery promise that cannot be kept.
    Delivery,
    /// The text is too long or too deep.
    Limit,
    /// A mistake of the planner's own.
    Internal,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorCode::Syntax => "sql-syntax",
            ErrorCode::Unsupported => "sql-unsupported",
            ErrorCode::Name => "sql-name",
            ErrorCode::Type => "sql-type",
            ErrorCode::Window => "sql-window",
            ErrorCode::Option => "sql-option",
            ErrorCode::Delivery => "sql-delivery",
            ErrorCode::Limit => "sql-limit",
            ErrorCode::Internal => "sql-internal",
        })
    }
}

/// SQL that cannot be planned. Shows as `line 3, column 14: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The kind of mistake.
    pub code: ErrorCode,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// Line, from 1; 0 where no place in the text is to blame.
    pub line: u64,
    /// Column in characters, from 1; 0 where no place in the text is to blame.
    pub column: u64,
}

impl std::error::Error for SqlError {}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)
    }
}

impl SqlError {
    pub(crate) fn new(code: ErrorCode, at: impl Into<At>, message: impl Into<String>) -> SqlError {
        let Location { line, column } = at.into().0;
        SqlError { code, message: message.into(), line, column }
    }

    pub(crate) fn unsupported(at: impl Into<At>, message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorCode::Unsupported, at, message)
    }

    /// The same at this place, if it has none yet.
    pub(crate) fn or_at(mut self, at: impl Into<At>) -> SqlError {
        let at = at.into().0;
        if self.line == 0 {
            (self.line, self.column) = (at.line, at.column);
        }
        self
    }

    /// The error with the line that it speaks of and a caret below the place.
    #[must_use]
    pub fn render(&self, sql: &str) -> String {
        /// Longest excerpt, in characters: a generated one-line file must not fill the terminal.
        const EXCERPT: usize = 160;
        let line_index = usize::try_from(self.line).unwrap_or(0).checked_sub(1);
        let Some(line) = line_index.and_then(|index| sql.lines().nth(index)) else { return self.to_string() };
        let column = usize::try_from(self.column).unwrap_or(0).saturating_sub(1);
        let skipped = if column > EXCERPT - 40 { column - 40 } else { 0 };
        let excerpt: String =
            line.chars().skip(skipped).take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let caret = " ".repeat(column - skipped);
        format!("{self}\n{margin} |\n{number} | {excerpt}\n{margin} | {caret}^")
    }

    /// What DataFusion says, in our form. `fallback` is shown where the error knows no place itself.
    pub(crate) fn from_datafusion(error: &DataFusionError, fallback: impl Into<At>) -> SqlError {
        let mut at = fallback.into();
        let mut innermost = error;
        loop {
            match innermost {
                DataFusionError::External(inner) => {
                    if let Some(ours) = inner.downcast_ref::<SqlError>() {
                        return ours.clone().or_at(at.0);
                    }
                    break;
                }
                DataFusionError::Diagnostic(diagnostic, inner) => {
                    if let Some(span) = diagnostic.span {
                        at = At(Location { line: span.start.line, column: span.start.column });
                    }
                    innermost = inner;
                }
                DataFusionError::Context(_, inner) => innermost = inner,
                DataFusionError::Shared(inner) => innermost = inner,
                DataFusionError::Collection(errors) if !errors.is_empty() => innermost = &errors[0],
                _ => break,
            }
        }
        let code = match innermost {
            DataFusionError::SchemaError(..) => ErrorCode::Name,
            DataFusionError::NotImplemented(_) => ErrorCode::Unsupported,
            DataFusionError::SQL(..) => ErrorCode::Syntax,
            DataFusionError::Internal(_) => ErrorCode::Internal,
            _ => ErrorCode::Type,
        };
        SqlError::new(code, at, clean(innermost))
    }

    /// The form in which our errors pass through DataFusion.
    pub(crate) fn into_datafusion(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }
}

/// DataFusion's message without its prefix, its back trace and its advice to report a bug to DataFusion.
fn clean(error: &DataFusionError) -> String {
    let message = match error {
        DataFusionError::SchemaError(schema_error, _) => match schema_error.as_ref() {
            SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
                format!("the column '{name}' appears twice; give one of them another name with AS")
            }
            SchemaError::AmbiguousReference { field } => {
                format!("'{}' may mean several columns here; give them different names with AS", field.name)
            }
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    };
    let prefixes = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Arrow error: ",
        "Schema error: ",
        "Internal error: ",
    ];
    let mut text = message.as_str();
    while let Some(rest) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let text = text.split("\nThis issue was likely caused").next().unwrap_or(text);
    let text = text.split("\n\tCandidate functions").next().unwrap_or(text);
    // What follows is a dump of the parser's tree.
    let text = text.split_once(" {").and_then(|(before, _)| before.rsplit_once(' ')).map_or(text, |(before, _)| before);
    let text = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    in_sql_types(&text)
}

/// The text with Arrow's names of types replaced by SQL's.
fn in_sql_types(text: &str) -> String {
    let names = [
        ("Int8", "TINYINT"),
        ("Int16", "SMALLINT"),
        ("Int32", "INT"),
        ("Int64", "BIGINT"),
        ("Float32", "FLOAT"),
        ("Float64", "DOUBLE"),
        ("Utf8", "STRING"),
        ("Utf8View", "STRING"),
        ("Boolean", "BOOLEAN"),
        ("Binary", "BYTES"),
        ("Date32", "DATE"),
    ];
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        shown.push_str(before);
        shown.push_str(names.iter().find(|(name, _)| *name == word).map_or(word, |(_, sql)| sql));
        rest = after;
    }
    shown + rest
}

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(pub(crate) Location);

impl At {
    /// No place.
    pub(crate) const NOWHERE: At = At(Location { line: 0, column: 0 });

    /// This place, or the other where this one is nowhere.
    pub(crate) fn or(self, other: At) -> At {
        if self == At::NOWHERE { other } else { self }
    }
}

impl From<Span> for At {
    fn from(span: Span) -> At {
        At(span.start)
    }
}

impl From<Location> for At {
    fn from(location: Location) -> At {
        At(location)
    }
}

impl From<TokenizerError> for SqlError {
    fn from(error: TokenizerError) -> SqlError {
        SqlError::new(ErrorCode::Syntax, error.location, error.message)
    }
}

impl From<ParserError> for SqlError {
    fn from(error: ParserError) -> SqlError {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => {
                return SqlError::new(
                    ErrorCode::Limit,
                    At::NOWHERE,
                    "the statement is nested too deeply; split it with CREATE VIEW",
                );
            }
        };
        // The parser gives the place only as the end of its message.
        let (message, place) = text.rsplit_once(" at Line: ").unwrap_or((&text, ""));
        let location = place
            .split_once(", Column: ")
            .and_then(|(line, column)| Some(Location { line: line.parse().ok()?, column: column.parse().ok()? }));
        let message = message.replace("Expected: ", "expected ");
        SqlError::new(ErrorCode::Syntax, location.map_or(At::NOWHERE, At), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_an_excerpt_with_a_caret() {
        let error = SqlError::new(ErrorCode::Name, Location { line: 2, column: 8 }, "unknown column 'prise'");
        assert_eq!(error.to_string(), "line 2, column 8: unknown column 'prise'");
        let rendered = error.render("-- bids\nSELECT prise FROM bid");
        assert_eq!(rendered, "line 2, column 8: unknown column 'prise'\n  |\n2 | SELECT prise FROM bid\n  |        ^");
    }

    #[test]
    fn a_place_outside_of_the_text_does_no_harm() {
        let error = SqlError::new(ErrorCode::Name, Location { line: 9, column: 400 }, "x");
        assert_eq!(error.render("SELECT 1"), "line 9, column 400: x");
        let error = SqlError::new(ErrorCode::Name, Location { line: 1, column: 400 }, "x");
        assert!(error.render("SELECT 1").ends_with('^'));
    }

    #[test]
    fn messages_of_datafusion_speak_sql() {
        let message =
            |text: &str| SqlError::from_datafusion(&DataFusionError::Plan(text.to_owned()), At::NOWHERE).message;
        assert_eq!(message("Cannot coerce Int64 + Utf8 to Int64x"), "Cannot coerce BIGINT + STRING to Int64x");
        assert_eq!(message("x without y is not valid Substring { expr: 1 }"), "x without y is not valid");
    }

    #[test]
    fn the_parsers_place_is_found_in_its_message() {
        let error =
            SqlError::from(ParserError::ParserError("Expected: ), found: bid at Line: 3, Column: 14".to_owned()));
        assert_eq!(error.to_string(), "line 3, column 14: expected ), found: bid");
    }
}
