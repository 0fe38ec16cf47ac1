//! What random queries have come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Verdict;
use super::sql::Sql;

/// Counts of queries.
#[derive(Debug, Default)]
pub(super) struct Report {
    right: usize,
    pub(super) wrong: usize,
    /// Of those that ran, how many were killed and went on.
    pub(super) kills: usize,
    /// Of those that were right, how many gave no row.
    empty: usize,
    /// By message, with one of the queries.
    refused: BTreeMap<String, (usize, String)>,
    unanswered: BTreeMap<String, (usize, String)>,
    /// How many queries that ran had what in them.
    seen: BTreeMap<&'static str, usize>,
    /// Descriptions of what went wrong.
    pub(super) failures: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, query: &Sql, verdict: &Verdict, seen: BTreeSet<&'static str>) {
        let first_line = |message: &str| {
            let line = message.lines().next().unwrap_or_default();
            // Where in the text it is does not matter.
            line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned()
        };
        match verdict {
            Verdict::Right { rows } => {
                self.right += 1;
                self.empty += usize::from(*rows == 0);
                seen.into_iter().for_each(|what| *self.seen.entry(what).or_default() += 1);
            }
            Verdict::Wrong(_) => self.wrong += 1,
            Verdict::Refused(message) => {
                self.refused.entry(first_line(message)).or_insert((0, query.job.clone())).0 += 1;
            }
            Verdict::Unanswered(message) => {
                self.unanswered.entry(first_line(message)).or_insert((0, query.batch.clone())).0 += 1;
            }
        }
    }

    /// Queries that ran.
    pub(super) fn queries(&self) -> usize {
        self.right + self.wrong
    }

    pub(super) fn refusals(&self) -> usize {
        total(&self.refused)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} queries: {} right ({} of them without rows), {} wrong",
            self.queries(),
            self.right,
            self.empty,
            self.wrong
        )?;
        writeln!(f, "{} of them killed and resumed", self.kills)?;
        writeln!(f, "with {:?}", self.seen)?;
        for (what, counts) in [("refused", &self.refused), ("without an answer of the batch engine", &self.unanswered)]
        {
            writeln!(f, "{} {what}", total(counts))?;
            for (message, (count, query)) in counts {
                writeln!(f, "  {count} {message}\n    {query}")?;
            }
        }
        Ok(())
    }
}

fn total(counts: &BTreeMap<String, (usize, String)>) -> usize {
    counts.values().map(|(count, _)| count).sum()
}
