//! What happened in a run, in words and as a number that tells two runs apart.

use std::collections::{BTreeMap, VecDeque};

/// Lines that are kept to be shown when a run fails.
const SHOWN_MAX: usize = 400;

/// The trace of a run.
#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    last: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
    /// What must never happen and did; the first one.
    violation: Option<String>,
    /// Whether each line is shown as it comes.
    pub(super) is_loud: bool,
}

impl Trace {
    /// Adds a line.
    pub(super) fn note(&mut self, now_ms: u64, line: &str) {
        let line = format!("{now_ms:>6} {line}");
        self.mix(&line);
        if self.is_loud {
            eprintln!("{line}");
        }
        if self.last.len() == SHOWN_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Adds to the number without words.
    pub(super) fn mix(&mut self, text: &str) {
        for byte in text.bytes() {
            // FNV-1a, over 64 bits.
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Counts that something interesting was reached.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Something happened that must never happen.
    pub(super) fn violation(&mut self, now_ms: u64, what: String) {
        self.note(now_ms, &format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// What must never happen and did.
    pub(super) fn violated(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Tells two runs apart.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How often each interesting thing was reached.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The last lines.
    pub(super) fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
