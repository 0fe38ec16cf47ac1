//! Whether audit files are what was written. What makes a line right is decided by [`mainstem_core::audit::lines`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mainstem_core::audit::Head;
use mainstem_core::audit::lines::{Line, Verifier};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// A file cannot be read.
    #[error("cannot read '{path}': {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A line is not what was written there.
    #[error("{path}: line {line}: {reason}")]
    Line {
        /// The file.
        path: String,
        /// From 1 on.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Two nodes have another record in one place. Each has files without a fault, so those of one were made anew.
    #[error(
        "record {seq} of '{one}' is another one than that of '{other}': one of them was made anew, or they are of two clusters"
    )]
    Disagree {
        /// The first such record.
        seq: u64,
        /// A directory.
        one: String,
        /// Another one.
        other: String,
    },
}

/// The files of one directory, which were found right.
#[derive(Clone, Debug)]
pub struct AuditVerdict {
    /// The directory.
    pub directory: PathBuf,
    /// Files in it that were given.
    pub files: usize,
    /// What was found.
    pub found: Verifier,
}

/// Verifies files: those of one directory as one trail in the order of their names, and those of several directories against
/// each other.
///
/// # Errors
/// The first fault of each directory, and of each two that disagree.
pub fn verify(paths: &[PathBuf]) -> Result<Vec<AuditVerdict>, Vec<AuditFault>> {
    let mut by_directory = BTreeMap::<PathBuf, Vec<&PathBuf>>::new();
    for path in paths {
        by_directory.entry(path.parent().unwrap_or(Path::new("")).to_owned()).or_default().push(path);
    }
    let (mut verdicts, mut faults) = (Vec::new(), Vec::new());
    for (directory, mut files) in by_directory {
        files.sort();
        files.dedup();
        match verify_trail(&files) {
            Ok(found) => verdicts.push(AuditVerdict { directory, files: files.len(), found }),
            Err(fault) => faults.push(fault),
        }
    }
    for (index, one) in verdicts.iter().enumerate() {
        for other in &verdicts[index + 1..] {
            let (one_name, other_name) = (one.directory.display().to_string(), other.directory.display().to_string());
            let seq = one.found.disagrees_with(&other.found);
            faults.extend(seq.map(|seq| AuditFault::Disagree { seq, one: one_name, other: other_name }));
        }
    }
    if faults.is_empty() { Ok(verdicts) } else { Err(faults) }
}

fn verify_trail(files: &[&PathBuf]) -> Result<Verifier, AuditFault> {
    let mut verifier = Verifier::default();
    for path in files {
        let name = path.display().to_string();
        let content =
            fs::read(path).map_err(|error| AuditFault::Unreadable { path: name.clone(), reason: error.to_string() })?;
        verifier.begin_file();
        let found = verify_content(&mut verifier, &content);
        found.map_err(|(line, reason)| AuditFault::Line { path: name, line, reason })?;
    }
    Ok(verifier)
}

/// The error is the number of a line, and what is wrong with it.
fn verify_content(verifier: &mut Verifier, content: &[u8]) -> Result<(), (u64, String)> {
    let mut number = 0;
    let mut rest = content;
    while !rest.is_empty() {
        number += 1;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            let reason = "it has no end: a node that is writing or has died leaves such a line at the end of its newest \
                          file, and cuts it off at its next start";
            return Err((number, reason.to_owned()));
        };
        let line = read_line(&rest[..end]).map_err(|reason| (number, reason))?;
        verifier.on(&line).map_err(|reason| (number, reason))?;
        rest = &rest[end + 1..];
    }
    if number == 0 { Err((1, "the file is empty".to_owned())) } else { Ok(()) }
}

/// A line, which must be exactly as it is written: what means the same is a change all the same.
pub(super) fn read_line(text: &[u8]) -> Result<Line, String> {
    let line: Line =
        serde_json::from_slice(text).map_err(|error| format!("it is no line of an audit file ({error})"))?;
    match serde_json::to_vec(&line) {
        Ok(written) if written == text => Ok(line),
        _ => Err(format!("{} was changed: it is not written as Mainstem writes it", name(&line))),
    }
}

fn name(line: &Line) -> String {
    match line {
        Line::File(_) => "the line that a file begins with".to_owned(),
        Line::Record(record) => format!("record {}", record.seq),
        Line::Gap(gap) => format!("the gap of records {} to {}", gap.first, gap.last),
    }
}

/// Looks at the whole lines of a file; gives how far the chain has come, or the number of a line and what is wrong with it.
pub(super) fn scan(content: &[u8]) -> Result<Head, (u64, String)> {
    let mut verifier = Verifier::default();
    verifier.begin_file();
    verify_content(&mut verifier, content)?;
    Ok(verifier.head())
}
