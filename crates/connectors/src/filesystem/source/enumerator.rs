//! Finds the files of a table: one file, all files below a directory, or those that match a glob. Runs beside
//! the coordinator. Lists only; opens no file.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_core::protocol::SourceSplit;

use super::split::FileSplit;
use super::{FileTable, Location};
use crate::error::{ConnectorError, ErrorKind};
use crate::source::SplitEnumerator;

/// Files that a table may have.
const FILES_MAX: usize = 1_000_000;
/// Directories inside each other that are searched; stops at rings of symbolic links.
const DEPTH_MAX: usize = 64;

/// Finds the files of a table.
pub(super) struct FileEnumerator {
    table: Arc<FileTable>,
    /// Whether the enumerator is asked again and again.
    monitored: bool,
    /// What the last search found; none before the first.
    known: Option<BTreeMap<String, Known>>,
}

struct Known {
    split: FileSplit,
    /// Whether it was given to the coordinator.
    reported: bool,
}

impl FileEnumerator {
    /// For a table; `monitored` where new files are to be found while the job runs.
    pub(super) fn new(table: Arc<FileTable>, monitored: bool) -> FileEnumerator {
        FileEnumerator { table, monitored, known: None }
    }

    /// The files to report. A file that is found while the job runs may still be in the making (`cp` into the
    /// directory): it is reported once two searches in a row found it unchanged. Objects are `whole` when they appear.
    fn settle(&mut self, found: Vec<FileSplit>, whole: bool) -> Vec<SourceSplit> {
        let before = self.known.take();
        let mut known = BTreeMap::new();
        for split in found {
            let settled = match &before {
                _ if whole => true,
                None => true,
                Some(before) => before.get(&split.path).is_some_and(|known| known.reported || known.split == split),
            };
            // What was reported once keeps its payload: the coordinator has it already.
            let earlier = before.as_ref().and_then(|before| before.get(&split.path)).filter(|known| known.reported);
            let split = earlier.map_or(split, |known| known.split.clone());
            known.insert(split.path.clone(), Known { split, reported: settled });
        }
        let splits = known.values().filter(|known| known.reported).map(|known| known.split.to_split()).collect();
        self.known = Some(known);
        splits
    }
}

#[async_trait]
impl SplitEnumerator for FileEnumerator {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        let may_be_empty = self.monitored;
        let path = match &self.table.location {
            Location::Directory(path) => path.clone(),
            Location::Objects(objects) => return Ok(self.settle(objects.find(may_be_empty).await?, true)),
        };
        let shown = path.display().to_string();
        let search = tokio::task::spawn_blocking(move || find(&path, may_be_empty));
        let found = search.await.map_err(|error| {
            let message = format!("the search for files of '{shown}' was stopped: {error}");
            ConnectorError::new(ErrorKind::Transient, message)
        })?;
        Ok(self.settle(found?, false))
    }
}

/// The files of a path, in the order of their names.
fn find(path: &Path, may_be_empty: bool) -> Result<Vec<FileSplit>, ConnectorError> {
    let mut files = Files { found: Vec::new(), root: path };
    let (what, advice) = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            files.add_directory(path, DEPTH_MAX)?;
            ("holds no file", "names that begin with '.' or '_' are skipped")
        }
        Ok(metadata) if metadata.is_file() => {
            files.add(path, &metadata)?;
            ("is no file", "check the path")
        }
        Ok(_) => {
            let message =
                format!("'{}' is neither a file nor a directory: give the path of one, or a glob", path.display());
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_glob(path) => {
            files.add_matches(path)?;
            ("matches no file", "names that begin with '.' or '_' are skipped")
        }
        Err(error) => return Err(ConnectorError::io("read", path.display(), &error)),
    };
    if files.found.is_empty() && !may_be_empty {
        return Err(ConnectorError::new(
            ErrorKind::External,
            format!("the path '{}' {what} to read: check it ({advice})", path.display()),
        ));
    }
    files.found.sort_by(|a, b| a.path.cmp(&b.path));
    files.found.dedup_by(|a, b| a.path == b.path);
    Ok(files.found)
}

struct Files<'a> {
    found: Vec<FileSplit>,
    root: &'a Path,
}

impl Files<'_> {
    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<(), ConnectorError> {
        if self.found.len() >= FILES_MAX {
            let message =
                format!("the path '{}' has more than {FILES_MAX} files: read a part of them", self.root.display());
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        self.found.push(FileSplit::new(path, metadata)?);
        Ok(())
    }

    fn add_directory(&mut self, directory: &Path, depth: usize) -> Result<(), ConnectorError> {
        if depth == 0 {
            let message = format!(
                "the directory '{}' is nested more than {DEPTH_MAX} deep: is there a ring of links?",
                directory.display()
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        let failed = |error: &io::Error| ConnectorError::io("list", directory.display(), error);
        for entry in fs::read_dir(directory).map_err(|error| failed(&error))? {
            let path = entry.map_err(|error| failed(&error))?.path();
            if !is_hidden(&path) {
                self.add_any(&path, depth - 1)?;
            }
        }
        Ok(())
    }

    fn add_matches(&mut self, pattern: &Path) -> Result<(), ConnectorError> {
        let text = pattern
            .to_str()
            .ok_or_else(|| ConnectorError::option(format!("the path '{}' is not valid UTF-8", pattern.display())))?;
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let matches = glob::glob_with(text, options).map_err(|error| {
            ConnectorError::option(format!(
                "the path '{text}' is not a glob (position {}: {}): mend it, or escape its brackets",
                error.pos, error.msg
            ))
        })?;
        for found in matches {
            let path = found.map_err(|error| ConnectorError::io("list", error.path().display(), error.error()))?;
            if !matched_hidden(pattern, &path) {
                self.add_any(&path, DEPTH_MAX)?;
            }
        }
        Ok(())
    }

    /// A file or a directory; anything else (sockets, pipes) is passed over.
    fn add_any(&mut self, path: &PathBuf, depth: usize) -> Result<(), ConnectorError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.add_directory(path, depth),
            Ok(metadata) if metadata.is_file() => self.add(path, &metadata),
            Ok(_) => Ok(()),
            // Somebody removed it since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ConnectorError::io("read", path.display(), &error)),
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(['.', '_']))
}

/// Whether a path has a hidden part where the pattern has a wildcard. Whoever writes the underscore or the
/// point into the pattern itself means it.
fn matched_hidden(pattern: &Path, path: &Path) -> bool {
    let literal = pattern.components().take_while(|part| !is_glob(Path::new(part))).count();
    let hidden = |part: &Component<'_>| is_hidden(Path::new(part));
    path.components().skip(literal).any(|part| hidden(&part))
        && !pattern.components().skip(literal).any(|part| hidden(&part))
}

fn is_glob(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}
