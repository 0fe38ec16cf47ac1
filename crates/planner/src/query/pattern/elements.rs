//! PATTERN to its parts: variables, each with how many rows it takes.

use datafusion_sql::sqlparser::ast::{Ident, MatchRecognizePattern, MatchRecognizeSymbol, RepetitionQuantifier};
use mainstem_plan::operator::PatternElement;

use crate::error::{At, ErrorCode, SqlError};

/// Most parts of a pattern. The search tries them one after the other for each row.
const ELEMENTS_MAX: usize = 100;

/// A pattern that was read.
#[derive(Debug, Default)]
pub(super) struct Elements {
    /// Each once, in the order in which they first stand in the pattern.
    pub(super) variables: Vec<Ident>,
    pub(super) elements: Vec<PatternElement>,
}

/// The parts of a pattern. `at`: where the clause stands.
pub(super) fn read(pattern: &MatchRecognizePattern, at: At) -> Result<Elements, SqlError> {
    let mut reader = Reader { read: Elements::default(), names: Vec::new(), at };
    reader.pattern(pattern)?;
    reader.check()?;
    Ok(reader.read)
}

struct Reader {
    read: Elements,
    /// The name that each element was written with.
    names: Vec<Ident>,
    at: At,
}

impl Reader {
    fn pattern(&mut self, pattern: &MatchRecognizePattern) -> Result<(), SqlError> {
        match pattern {
            MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) => {
                self.add(name, &RepetitionQuantifier::Exactly(1), true)
            }
            MatchRecognizePattern::Concat(parts) => parts.iter().try_for_each(|part| self.pattern(part)),
            MatchRecognizePattern::Group(inner) => self.pattern(inner),
            MatchRecognizePattern::Repetition(inner, quantifier) => self.repetition(inner, quantifier),
            MatchRecognizePattern::Symbol(_)
            | MatchRecognizePattern::Exclude(_)
            | MatchRecognizePattern::Permute(_)
            | MatchRecognizePattern::Alternation(_) => {
                let message = "PATTERN takes variables one after the other, each with a quantifier at most";
                Err(SqlError::unsupported(self.at, message))
            }
        }
    }

    fn repetition(&mut self, inner: &MatchRecognizePattern, quantifier: &RepetitionQuantifier) -> Result<(), SqlError> {
        // The parser takes the `?` of a reluctant quantifier for one of its own.
        let (inner, quantifier, greedy) = match (inner, quantifier) {
            (MatchRecognizePattern::Repetition(inner, first), RepetitionQuantifier::AtMostOne) => {
                (inner.as_ref(), first, false)
            }
            _ => (inner, quantifier, true),
        };
        let place = first_name(inner).map_or(self.at, |name| name.span.into());
        match alone(inner) {
            Some(name) => self.add(name, quantifier, greedy),
            None if matches!(inner, MatchRecognizePattern::Repetition(..)) => {
                Err(SqlError::unsupported(place, "a variable of PATTERN takes one quantifier"))
            }
            None => {
                let message =
                    "a quantifier of several variables is not supported in PATTERN; only that of a single one is";
                Err(SqlError::unsupported(place, message))
            }
        }
    }

    fn add(&mut self, name: &Ident, quantifier: &RepetitionQuantifier, greedy: bool) -> Result<(), SqlError> {
        let (min, max) = match *quantifier {
            RepetitionQuantifier::ZeroOrMore => (0, None),
            RepetitionQuantifier::OneOrMore => (1, None),
            RepetitionQuantifier::AtMostOne => (0, Some(1)),
            RepetitionQuantifier::Exactly(count) => (count, Some(count)),
            RepetitionQuantifier::AtLeast(min) => (min, None),
            RepetitionQuantifier::AtMost(max) => (0, Some(max)),
            RepetitionQuantifier::Range(min, max) => (min, Some(max)),
        };
        let wrong = |message: String| Err(SqlError::new(ErrorCode::Syntax, name.span, message));
        if max == Some(0) {
            return wrong(format!("'{}' would take no row at all; take it out of PATTERN", name.value));
        }
        if max.is_some_and(|max| max < min) {
            return wrong(format!("the least number of rows of '{}' is greater than the greatest", name.value));
        }
        if !greedy && (min, max) == (0, Some(1)) {
            let message = format!("a reluctant '{}??' is not supported in PATTERN; use '{}*?'", name.value, name.value);
            return Err(SqlError::unsupported(name.span, message));
        }
        if self.names.len() == ELEMENTS_MAX {
            let message = format!("PATTERN has more than {ELEMENTS_MAX} variables");
            return Err(SqlError::new(ErrorCode::Limit, name.span, message));
        }
        let known = self.read.variables.iter().position(|variable| variable.value == name.value);
        let variable = known.unwrap_or_else(|| {
            self.read.variables.push(name.clone());
            self.read.variables.len() - 1
        });
        self.names.push(name.clone());
        self.read.elements.push(PatternElement { variable, min, max, greedy });
        Ok(())
    }

    /// Refuses patterns whose matches may be empty, or may never be known to be at their end.
    fn check(&self) -> Result<(), SqlError> {
        let elements = &self.read.elements;
        let Some(last) = elements.iter().rposition(|element| element.min > 0) else {
            let at = self.names.first().map_or(self.at, |name| name.span.into());
            let message = "PATTERN could match no rows at all; at least one variable must take a row";
            return Err(SqlError::unsupported(at, message));
        };
        let open =
            (last..elements.len()).find(|at| elements[*at].greedy && elements[*at].max != Some(elements[*at].min));
        match open {
            None => Ok(()),
            Some(open) => {
                let name = &self.names[open];
                let message = format!(
                    "PATTERN cannot end with the greedy '{}', because a stream always may have one more row for it; end it \
                     with a variable of one row, or a reluctant quantifier such as '+?'",
                    name.value
                );
                Err(SqlError::unsupported(name.span, message))
            }
        }
    }
}

/// The only variable of a pattern, which may stand in parentheses.
fn alone(pattern: &MatchRecognizePattern) -> Option<&Ident> {
    match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) => Some(name),
        MatchRecognizePattern::Group(inner) => alone(inner),
        _ => None,
    }
}

fn first_name(pattern: &MatchRecognizePattern) -> Option<&Ident> {
    match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) => Some(name),
        MatchRecognizePattern::Group(inner) | MatchRecognizePattern::Repetition(inner, _) => first_name(inner),
        MatchRecognizePattern::Concat(parts) | MatchRecognizePattern::Alternation(parts) => {
            parts.iter().find_map(first_name)
        }
        _ => None,
    }
}
