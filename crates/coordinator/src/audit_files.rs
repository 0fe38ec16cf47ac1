//! The audit trail in files: `audit-000001.jsonl` and so on in a directory, one JSON value a line, appended to and never
//! changed. When a file is full the next one is begun, and the oldest go when they are too many. Format:
//! docs/formats/audit.md.
//!
//! What a crash leaves at the end of the newest file, a line without its end, is cut off. A file that is damaged otherwise is
//! left as it is for whoever looks into it, and another one is begun.

mod verify;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mainstem_core::audit::lines::{FileHead, Gap, Line};
use mainstem_core::audit::{Head, Part};
use mainstem_core::time::Timestamp;

pub use self::verify::{AuditFault, AuditVerdict, verify};
use self::verify::{read_line, scan};

/// Files among which the bytes are shared out.
const FILES: u64 = 8;
/// What a gap is there for.
const GAP_REASON: &str = "this node was down or too far behind when these were decided";

/// Where a trail is written, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The directory; created where it is not there.
    pub directory: PathBuf,
    /// Of what: `cluster NAME` or `job NAME`.
    pub trail: String,
    /// The coordinator that writes it; 0 for one process.
    pub node: u64,
    /// Bytes of all files together, about; an eighth of it is what is given up at a time.
    pub bytes_max: u64,
}

/// The files of one trail, for the one that writes them.
#[derive(Debug)]
pub struct AuditFiles {
    options: AuditOptions,
    /// None before the first record of this process, and after a write that has failed.
    newest: Option<Newest>,
}

/// The file that is appended to.
#[derive(Debug)]
struct Newest {
    file: File,
    path: PathBuf,
    number: u64,
    bytes: u64,
    /// How far the chain in it has come.
    head: Head,
    synced: bool,
}

impl AuditFiles {
    /// The files as an earlier process has left them. They are read, and the newest one mended.
    ///
    /// # Errors
    /// The system's.
    pub fn open(options: AuditOptions) -> io::Result<AuditFiles> {
        fs::create_dir_all(&options.directory)?;
        let mut files = AuditFiles { options, newest: None };
        files.newest()?;
        Ok(files)
    }

    /// How far the chain in the files has come.
    ///
    /// # Errors
    /// The system's, where a write has failed before and the files are opened anew.
    pub fn head(&mut self) -> io::Result<Head> {
        Ok(self.newest()?.head)
    }

    /// Adds what is behind [`AuditFiles::head`]. It survives the process, and the machine once [`AuditFiles::sync`] is done.
    ///
    /// # Errors
    /// The system's. The next call begins with what is in the files then.
    pub fn append(&mut self, parts: Vec<Part>, now: Timestamp) -> io::Result<()> {
        let mut text = String::new();
        let bytes_max = self.options.bytes_max / FILES;
        for part in parts {
            let newest = self.newest()?;
            let head = newest.head;
            let (line, head) = match part {
                Part::Record(record) if record.before != head.hash || record.seq != head.seq + 1 => {
                    // Whatever is right, nothing is written as if it went on from there: `verify` finds the break.
                    tracing::error!(
                        path = %newest.path.display(), record = record.seq, last = head.seq,
                        "the audit file does not belong to what is decided; another one is begun"
                    );
                    self.write(&mut text)?;
                    self.begin(Head { seq: record.seq - 1, hash: record.before })?;
                    let head = record.head();
                    (Line::Record(record), head)
                }
                Part::Record(record) => {
                    let head = record.head();
                    (Line::Record(record), head)
                }
                Part::Gap { last, .. } => {
                    tracing::warn!(first = head.seq + 1, last = last.seq, "audit records were missed");
                    (Line::Gap(Gap::behind(head, last, now, GAP_REASON)), last)
                }
            };
            let line = to_text(&line)?;
            let newest = self.newest()?;
            if newest.bytes + (text.len() + line.len()) as u64 > bytes_max {
                let last = newest.head;
                self.write(&mut text)?;
                self.begin(last)?;
            }
            text.push_str(&line);
            self.newest()?.head = head;
        }
        self.write(&mut text)
    }

    /// Makes durable what was added.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.newest {
            Some(newest) if !newest.synced => {
                newest.file.sync_data()?;
                newest.synced = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, text: &mut String) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let Some(mut newest) = self.newest.take() else { return Ok(()) };
        // Given back only where all of it is written: otherwise the file is looked at anew.
        newest.file.write_all(text.as_bytes())?;
        newest.bytes += text.len() as u64;
        newest.synced = false;
        text.clear();
        self.newest = Some(newest);
        Ok(())
    }

    /// The newest file, opened where it is not.
    fn newest(&mut self) -> io::Result<&mut Newest> {
        let newest = match self.newest.take() {
            Some(newest) => newest,
            None => match numbers(&self.options.directory)?.last() {
                Some(number) => self.reopen(*number)?,
                None => self.create(1, Head::default())?,
            },
        };
        Ok(self.newest.insert(newest))
    }

    fn reopen(&self, number: u64) -> io::Result<Newest> {
        let path = self.path(number);
        let mut content = fs::read(&path)?;
        let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let file = OpenOptions::new().append(true).open(&path)?;
        if end < content.len() {
            tracing::warn!(path = %path.display(), bytes = content.len() - end, "incomplete line at the end of the audit file cut off");
            file.set_len(end as u64)?;
            file.sync_all()?;
            content.truncate(end);
        }
        if content.is_empty() {
            // The machine has crashed before its first line was durable.
            let before = fs::read(self.path(number.saturating_sub(1))).unwrap_or_default();
            fs::remove_file(&path)?;
            return self.create(number, last_head(&before).unwrap_or_default());
        }
        match scan(&content) {
            Ok(head) => Ok(Newest { file, path, number, bytes: end as u64, head, synced: true }),
            Err((line, reason)) => {
                tracing::error!(
                    path = %path.display(), line, reason,
                    "the audit file is damaged; it is left as it is, and another one is begun"
                );
                self.create(number + 1, last_head(&content).unwrap_or_default())
            }
        }
    }

    /// Begins the next file, behind this record, and gives up the oldest where they are too many.
    fn begin(&mut self, after: Head) -> io::Result<()> {
        self.sync()?;
        let number = self.newest()?.number;
        self.newest = None;
        self.newest = Some(self.create(number + 1, after)?);
        let numbers = numbers(&self.options.directory)?;
        let surplus = numbers.len().saturating_sub(FILES as usize);
        for number in &numbers[..surplus] {
            fs::remove_file(self.path(*number))?;
        }
        Ok(())
    }

    fn create(&self, number: u64, after: Head) -> io::Result<Newest> {
        let path = self.path(number);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let head = FileHead::new(&self.options.trail, self.options.node, number, after);
        let line = to_text(&Line::File(head))?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        File::open(&self.options.directory)?.sync_all()?;
        Ok(Newest { file, path, number, bytes: line.len() as u64, head: after, synced: true })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.options.directory.join(format!("audit-{number:06}.jsonl"))
    }
}

/// The numbers of the files that there are, in order.
fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How far the chain has come by the last line of a file that can be believed.
fn last_head(content: &[u8]) -> Option<Head> {
    content.split(|byte| *byte == b'\n').rev().find_map(|line| match read_line(line) {
        Ok(Line::Record(record)) if record.is_whole() => Some(record.head()),
        _ => None,
    })
}

fn to_text(line: &Line) -> io::Result<String> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
