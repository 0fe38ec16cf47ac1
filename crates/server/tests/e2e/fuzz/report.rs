//! What random queries have come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Verdict;

/// Counts of queries.
#[derive(Debug, Default)]
pub(super) struct Report {
    right: usize,
    pub(super) wrong: usize,
    /// Of those that ran, how many were killed and went on.
    pub(super) kills: usize,
    refused: BTreeMap<String, usize>,
    unanswered: BTreeMap<String, usize>,
    /// How many queries that ran had what in them.
    seen: BTreeMap<&'static str, usize>,
    /// Descriptions of what went wrong.
    pub(super) failures: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, verdict: &Verdict, seen: BTreeSet<&'static str>) {
        let first_line = |message: &str| {
            let line = message.lines().next().unwrap_or_default();
            // Where in the text it is does not matter.
            line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned()
        };
        match verdict {
            Verdict::Right => self.right += 1,
            Verdict::Wrong(_) => self.wrong += 1,
            Verdict::Refused(message) => *self.refused.entry(first_line(message)).or_default() += 1,
            Verdict::Unanswered(message) => *self.unanswered.entry(first_line(message)).or_default() += 1,
        }
        if *verdict == Verdict::Right {
            seen.into_iter().for_each(|what| *self.seen.entry(what).or_default() += 1);
        }
    }

    /// Queries that ran.
    pub(super) fn queries(&self) -> usize {
        self.right + self.wrong
    }

    pub(super) fn refusals(&self) -> usize {
        self.refused.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanswered: usize = self.unanswered.values().sum();
        writeln!(f, "{} queries: {} right, {} wrong", self.queries(), self.right, self.wrong)?;
        writeln!(f, "{} of them killed and resumed", self.kills)?;
        writeln!(f, "with {:?}", self.seen)?;
        for (what, counts, total) in [
            ("refused", &self.refused, self.refusals()),
            ("without an answer of the batch engine", &self.unanswered, unanswered),
        ] {
            writeln!(f, "{total} {what}")?;
            for (message, count) in counts {
                writeln!(f, "  {count} {message}")?;
            }
        }
        Ok(())
    }
}
