//! What can go wrong between a logical expression and a running one. The planner shows these to the user with
//! the place in the SQL text; the engine meets them only where a stored plan does not fit this version.

use std::fmt;

use datafusion_common::{DataFusionError, Span};

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The SQL uses something that is not supported: the user must write it differently.
    Unsupported,
    /// The SQL is wrong: types do not fit, a function does not take these arguments.
    Invalid,
    /// A stored plan cannot be read or compiled by this version.
    Stored,
}

/// A place in the SQL text. Lines and columns begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl Location {
    /// Where a span begins; empty spans have no place.
    #[must_use]
    pub fn of_span(span: &Span) -> Option<Location> {
        let start = span.start;
        (start.line > 0).then_some(Location { line: start.line, column: start.column })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// An error of this crate: one sentence for the user, and the place in the SQL text where it is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What is wrong, and what to do. Without the place.
    pub message: String,
    /// The place, where the SQL text is at hand.
    pub location: Option<Location>,
}

impl PlanError {
    /// Something that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        PlanError { kind: ErrorKind::Unsupported, message: message.into(), location: None }
    }

    /// Something that is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        PlanError { kind: ErrorKind::Invalid, message: message.into(), location: None }
    }

    /// A stored plan that this version cannot use.
    pub fn stored(message: impl Into<String>) -> Self {
        PlanError { kind: ErrorKind::Stored, message: message.into(), location: None }
    }

    /// The same with a place, unless it has one already: the innermost place is the most exact.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = self.location.or(location);
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location {
            Some(location) => write!(f, "{location}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<DataFusionError> for PlanError {
    fn from(error: DataFusionError) -> Self {
        let span = error.diagnostic().and_then(|d| d.span);
        let kind = match error.find_root() {
            DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Invalid,
        };
        let message = tidy(&error.find_root().strip_backtrace());
        PlanError { kind, message, location: span.and_then(|s| Location::of_span(&s)) }
    }
}

/// Removes what DataFusion puts around a message: prefixes that tell its error kinds apart, and the frame
/// around what a function says about its arguments. They mean nothing to the user.
fn tidy(message: &str) -> String {
    let framed = message.split_once("user-defined coercion failed with: ").map(|(_, inner)| inner);
    let framed = framed.map(|inner| inner.split_once(". No function matches").map_or(inner, |(inner, _)| inner));
    let prefixes = ["Error during planning: ", "This feature is not implemented: ", "Execution error: "];
    let mut text = framed.unwrap_or(message).trim();
    while let Some(rest) = prefixes.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_their_prefix_and_gain_the_place() {
        let error = PlanError::from(DataFusionError::Plan("no such thing".into()));
        assert_eq!(error.to_string(), "no such thing");
        let place = Some(Location { line: 3, column: 7 });
        let error = error.at(place).at(Some(Location { line: 9, column: 9 }));
        assert_eq!(error.to_string(), "line 3, column 7: no such thing");
    }
}
