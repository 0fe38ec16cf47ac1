//! How the trail stands in files, and whether a file is what was written. Each file begins with a [`FileHead`]; then come
//! records, and a [`Gap`] where the node did not see some. `docs/formats/audit.md` holds the form of a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AuditHash, AuditRecord, Head, chain};
use crate::time::Timestamp;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    File(FileHead),
    /// A decision.
    Record(AuditRecord),
    /// Decisions that this node did not see.
    Gap(Gap),
}

/// Which file it is, and behind which record it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHead {
    /// Of what: `cluster NAME` or `job NAME`.
    pub trail: String,
    /// The coordinator that wrote it; 0 for one process.
    pub node: u64,
    /// Counts the node's files, from 1 on.
    pub number: u64,
    /// The chain up to the last record of the files before.
    pub after: Head,
    /// A hash over all of it.
    pub seal: AuditHash,
}

/// Records that the node did not see, because it was down or too far behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The hash of the last of them, behind which the chain goes on.
    pub chain: AuditHash,
    /// When the node wrote this, by its own clock.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// A hash over the record before and all of the above.
    pub seal: AuditHash,
}

impl FileHead {
    /// The head of a file.
    #[must_use]
    pub fn new(trail: &str, node: u64, number: u64, after: Head) -> FileHead {
        let seal = AuditHash::default();
        let head = FileHead { trail: trail.to_owned(), node, number, after, seal };
        FileHead { seal: chain::file_seal(&head), ..head }
    }
}

impl Gap {
    /// A gap behind this record.
    #[must_use]
    pub fn behind(before: Head, last: Head, at: Timestamp, reason: &str) -> Gap {
        let (first, seal) = (before.seq + 1, AuditHash::default());
        let gap = Gap { first, last: last.seq, chain: last.hash, at, reason: reason.to_owned(), seal };
        Gap { seal: chain::gap_seal(&before.hash, &gap), ..gap }
    }
}

/// What is known of the files of one node that were verified so far, in their order.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    /// The file that is being read.
    file: Option<FileHead>,
    at: Head,
    /// Lines of the file so far.
    lines: u64,
    /// Behind which record the first file goes on.
    begins_after: u64,
    records: u64,
    gaps: Vec<(u64, u64)>,
    /// The hash of each record, to compare with other nodes.
    hashes: BTreeMap<u64, AuditHash>,
}

impl Verifier {
    /// Another file follows.
    pub fn begin_file(&mut self) {
        self.lines = 0;
    }

    /// Looks at the next line.
    ///
    /// # Errors
    /// What is wrong with it, naming its record.
    pub fn on(&mut self, line: &Line) -> Result<(), String> {
        self.lines += 1;
        match line {
            Line::File(head) => self.on_file(head),
            _ if self.lines == 1 => Err("the line that a file begins with is missing".to_owned()),
            Line::Record(record) => self.on_record(record),
            Line::Gap(gap) => self.on_gap(gap),
        }
    }

    /// How far the chain has come.
    #[must_use]
    pub fn head(&self) -> Head {
        self.at
    }

    /// The record behind which the first file goes on; those up to it are not in the files.
    #[must_use]
    pub fn begins_after(&self) -> u64 {
        self.begins_after
    }

    /// Records that were verified.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The first and the last record of each declared gap.
    #[must_use]
    pub fn gaps(&self) -> &[(u64, u64)] {
        &self.gaps
    }

    /// The newest file; none before the first.
    #[must_use]
    pub fn file(&self) -> Option<&FileHead> {
        self.file.as_ref()
    }

    /// The first record of which another node has another hash, where both are of one trail.
    #[must_use]
    pub fn disagrees_with(&self, other: &Verifier) -> Option<u64> {
        let (mine, theirs) = (self.file.as_ref()?, other.file.as_ref()?);
        let differs = |(seq, hash): (&u64, &AuditHash)| other.hashes.get(seq).is_some_and(|known| known != hash);
        let mut records = self.hashes.iter();
        let differing = records.find(|(seq, hash)| differs((seq, hash))).map(|(seq, _)| *seq);
        differing.filter(|_| mine.trail == theirs.trail)
    }

    fn on_file(&mut self, head: &FileHead) -> Result<(), String> {
        if self.lines != 1 {
            return Err("a file begins in the middle of another".to_owned());
        }
        if chain::file_seal(head) != head.seal {
            return Err("the line that the file begins with was changed".to_owned());
        }
        if let Some(before) = &self.file {
            if (&before.trail, before.node) != (&head.trail, head.node) {
                return Err(format!(
                    "the file is of node {} of '{}', the one before of node {} of '{}'",
                    head.node, head.trail, before.node, before.trail
                ));
            }
            if head.number != before.number + 1 {
                return Err(format!("file {} follows file {}: files between are missing", head.number, before.number));
            }
            if head.after != self.at {
                return Err(format!(
                    "the file goes on behind record {}, and the one before ends with record {}: lines are missing at its \
                     end, or were changed",
                    head.after.seq, self.at.seq
                ));
            }
        } else {
            self.begins_after = head.after.seq;
            self.hashes.insert(head.after.seq, head.after.hash);
        }
        self.at = head.after;
        self.file = Some(head.clone());
        Ok(())
    }

    fn on_record(&mut self, record: &AuditRecord) -> Result<(), String> {
        let seq = record.seq;
        if !record.is_whole() {
            return Err(format!("record {seq} was changed: its hash is not that of what it says"));
        }
        self.expect_next(seq, &format!("record {seq}"))?;
        if record.before != self.at.hash {
            return Err(format!("record {seq} does not follow this record {}: one of them was replaced", self.at.seq));
        }
        self.at = record.head();
        self.records += 1;
        self.hashes.insert(seq, record.hash);
        Ok(())
    }

    fn on_gap(&mut self, gap: &Gap) -> Result<(), String> {
        let Gap { first, last, chain, .. } = gap;
        let name = format!("the gap of records {first} to {last}");
        if last < first {
            return Err(format!("{name} was changed: it ends before it begins"));
        }
        self.expect_next(*first, &name)?;
        if chain::gap_seal(&self.at.hash, gap) != gap.seal {
            return Err(format!("{name}, or record {} before it, was changed", self.at.seq));
        }
        self.at = Head { seq: *last, hash: *chain };
        self.gaps.push((*first, *last));
        self.hashes.insert(*last, *chain);
        Ok(())
    }

    fn expect_next(&self, seq: u64, name: &str) -> Result<(), String> {
        let last = self.at.seq;
        match seq {
            _ if seq == last + 1 => Ok(()),
            _ if seq > last => Err(format!("{name} follows record {last}: lines between are missing, or were swapped")),
            _ => Err(format!("{name} follows record {last}: lines were swapped, or stand twice")),
        }
    }
}
