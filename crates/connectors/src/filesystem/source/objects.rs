//! Files that are objects of an object store: found by listing, read in ranges with some of them ahead. Every range is
//! read on the condition that the object is the one that was found, so what was read is never of two versions.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use mainstem_objects::{Credentials, ObjectErrorKind, ObjectUrl, Version};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::split::FileSplit;
use crate::error::{ConnectorError, ErrorKind};
use crate::filesystem::service::Service;

/// Objects that a table may have.
const OBJECTS_MAX: usize = 1_000_000;
/// Bytes that are read in one request.
const RANGE_BYTES: u64 = 4 << 20;
/// Requests that are on their way for one file at a time.
const RANGES_AHEAD: usize = 3;
/// Columns of a row group with a gap of at most so many bytes between them are read in one request.
const GAP_BYTES_MAX: u64 = 256 << 10;

/// Where a table's objects lie.
#[derive(Debug)]
pub(super) struct ObjectTable {
    /// The whole bucket.
    bucket: Service,
    /// As the user gave it: an object, what keys begin with, or a glob.
    url: ObjectUrl,
}

/// An object that is read.
#[derive(Clone, Debug)]
pub(super) struct ObjectFile {
    table: Arc<ObjectTable>,
    key: String,
    path: String,
    version: Option<Version>,
    runtime: Handle,
    /// What was read before it is asked for.
    ahead: Arc<Vec<(u64, Bytes)>>,
}

impl ObjectTable {
    pub(super) fn new(url: &ObjectUrl, credentials: Option<Credentials>) -> ObjectTable {
        ObjectTable { bucket: Service::new(url.bucket_url(), credentials), url: url.clone() }
    }

    #[cfg(test)]
    pub(super) fn over(bucket: Service, url: &ObjectUrl) -> ObjectTable {
        ObjectTable { bucket, url: url.clone() }
    }

    pub(super) fn shown(&self) -> String {
        self.url.shown()
    }

    /// The objects of the table, in the order of their keys.
    pub(super) async fn find(&self, may_be_empty: bool) -> Result<Vec<FileSplit>, ConnectorError> {
        let objects = self.bucket.objects()?;
        let key = self.url.key();
        let failed = |error| self.bucket.failed("look for objects at", key, &error);
        let matcher = Matcher::new(key)?;
        if !key.is_empty()
            && matcher.pattern.is_none()
            && let Some((size, version)) = objects.look(key).await.map_err(failed)?
            && size > 0
        {
            return Ok(vec![self.split(key, size, 0, version.tag())]);
        }
        let listed = objects.list(&matcher.literal, OBJECTS_MAX).await.map_err(failed)?;
        if listed.len() > OBJECTS_MAX {
            let message =
                format!("the path '{}' has more than {OBJECTS_MAX} objects: read a part of them", self.shown());
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        let mut found = Vec::new();
        for (position, (key, meta)) in listed.iter().enumerate() {
            // What some tools leave where they show a directory.
            let next = listed.get(position + 1).map_or("", |(next, _)| next.as_str());
            let is_mark = meta.size == 0 && next.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('/'));
            if !is_mark && matcher.matches(key) {
                found.push(self.split(key, meta.size, meta.last_modified.timestamp_micros(), meta.e_tag.as_deref()));
            }
        }
        if found.is_empty() && !may_be_empty {
            return Err(ConnectorError::new(
                ErrorKind::External,
                format!(
                    "the path '{}' has no object to read: check it (names that begin with '.' or '_' are skipped)",
                    self.shown()
                ),
            ));
        }
        Ok(found)
    }

    fn split(&self, key: &str, size: u64, modified_us: i64, tag: Option<&str>) -> FileSplit {
        FileSplit { path: self.url.bucket_url().join(key).shown(), size, modified_us, tag: tag.map(str::to_owned) }
    }
}

/// Which keys a path means.
struct Matcher {
    /// The parts before the first wildcard.
    literal: String,
    pattern: Option<glob::Pattern>,
    /// Whether the pattern itself names something hidden.
    means_hidden: bool,
}

impl Matcher {
    fn new(key: &str) -> Result<Matcher, ConnectorError> {
        let is_glob = |part: &str| part.contains(['*', '?', '[']);
        if !is_glob(key) {
            return Ok(Matcher { literal: key.to_owned(), pattern: None, means_hidden: false });
        }
        let literal: Vec<&str> = key.split('/').take_while(|part| !is_glob(part)).collect();
        let means_hidden = key.split('/').skip(literal.len()).any(is_hidden);
        let pattern = glob::Pattern::new(key).map_err(|error| {
            ConnectorError::option(format!(
                "the path '{key}' is not a glob (position {}: {}): mend it, or escape its brackets",
                error.pos, error.msg
            ))
        })?;
        Ok(Matcher { literal: literal.join("/"), pattern: Some(pattern), means_hidden })
    }

    /// Whether the key, or something above it, is meant, and nothing below what the user wrote is hidden.
    fn matches(&self, key: &str) -> bool {
        let below = key.strip_prefix(self.literal.as_str()).unwrap_or(key);
        if !self.means_hidden && below.split('/').any(is_hidden) {
            return false;
        }
        let Some(pattern) = &self.pattern else { return true };
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let mut ends = key.match_indices('/').map(|(at, _)| at).chain([key.len()]);
        ends.any(|end| pattern.matches_with(&key[..end], options))
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

impl ObjectFile {
    /// The object of a split. Must be called on a runtime, or on a thread of one.
    pub(super) fn new(table: &Arc<ObjectTable>, split: &FileSplit, runtime: &Handle) -> ObjectFile {
        let bucket = format!("{}/", table.url.bucket_url().shown());
        ObjectFile {
            table: Arc::clone(table),
            key: split.path.strip_prefix(&bucket).unwrap_or(&split.path).to_owned(),
            path: split.path.clone(),
            version: split.tag.clone().map(Version::of),
            runtime: runtime.clone(),
            ahead: Arc::default(),
        }
    }

    async fn range(&self, range: Range<u64>) -> Result<Bytes, ConnectorError> {
        let length = range.end - range.start;
        let read = self.table.bucket.objects()?.read_range(&self.key, range.start, length, self.version.as_ref()).await;
        match read {
            Ok(bytes) if bytes.len() as u64 == length => Ok(bytes),
            Ok(_) => Err(self.changed("it is shorter than it was")),
            Err(error) if error.kind == ObjectErrorKind::Condition => Err(self.changed("its content is another one")),
            Err(error) if error.kind == ObjectErrorKind::Missing => Err(self.changed("it is gone")),
            Err(error) => Err(self.table.bucket.failed("read", &self.key, &error)),
        }
    }

    fn changed(&self, how: &str) -> ConnectorError {
        ConnectorError::new(
            ErrorKind::External,
            format!(
                "the object '{}' has changed since the job found it ({how}): restore it, or start the job afresh; new \
                 data belongs in new objects",
                self.path
            ),
        )
    }

    /// The bytes of a range. Blocks; not to be called on a runtime's own threads.
    pub(super) fn read_at(&self, start: u64, length: u64) -> Result<Bytes, ConnectorError> {
        let end = start + length;
        let inside = |(at, bytes): &&(u64, Bytes)| *at <= start && end <= at + bytes.len() as u64;
        if let Some((at, bytes)) = self.ahead.iter().find(inside) {
            // Within a buffer in memory.
            return Ok(bytes.slice((start - at) as usize..(end - at) as usize));
        }
        self.runtime.block_on(self.range(start..end))
    }

    /// Some bytes from `start` on, at most `most`: as many as are in memory, or all. Blocks as [`ObjectFile::read_at`].
    pub(super) fn read_some(&self, start: u64, most: u64) -> Result<Bytes, ConnectorError> {
        let ahead = self.ahead.iter().find(|(at, bytes)| *at <= start && start < at + bytes.len() as u64);
        let most = ahead.map_or(most, |(at, bytes)| most.min(at + bytes.len() as u64 - start));
        self.read_at(start, most)
    }

    /// The same object with some ranges of it in memory. Blocks.
    pub(super) fn with_ahead(&self, mut ranges: Vec<Range<u64>>) -> Result<ObjectFile, ConnectorError> {
        ranges.retain(|range| range.start < range.end);
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end + GAP_BYTES_MAX => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let read = futures::stream::iter(merged).map(|range| async move {
            let start = range.start;
            self.range(range).await.map(|bytes| (start, bytes))
        });
        let read: Vec<_> = self.runtime.block_on(read.buffered(RANGES_AHEAD).collect());
        let ahead = read.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(ObjectFile { ahead: Arc::new(ahead), ..self.clone() })
    }

    /// The bytes from `start` up to `end`, in order, of which some are always on their way.
    pub(super) fn stream(&self, start: u64, end: u64) -> ObjectStream {
        let (sender, ranges) = mpsc::channel(1);
        let file = self.clone();
        self.runtime.spawn(async move {
            let starts = (start..end).step_by(RANGE_BYTES as usize);
            let file = &file;
            let read = futures::stream::iter(starts).map(|at| file.range(at..(at + RANGE_BYTES).min(end)));
            let mut read = read.buffered(RANGES_AHEAD);
            while let Some(range) = read.next().await {
                let ended = range.is_err();
                // Nobody reads on.
                if sender.send(range).await.is_err() || ended {
                    return;
                }
            }
        });
        ObjectStream { ranges, current: Bytes::new(), left: end.saturating_sub(start) }
    }
}

/// The bytes of an object, for threads that may block.
pub(super) struct ObjectStream {
    ranges: mpsc::Receiver<Result<Bytes, ConnectorError>>,
    current: Bytes,
    /// Bytes that are to come.
    left: u64,
}

impl Read for ObjectStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.ranges.blocking_recv() {
                None if self.left == 0 => return Ok(0),
                None => return Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
                Some(Ok(bytes)) => {
                    self.left -= bytes.len() as u64;
                    self.current = bytes;
                }
                // Taken out again by whoever reports it.
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use mainstem_objects::Objects;
    use mainstem_objects::simulation::FaultyStore;

    use super::*;

    async fn table(path: &str, keys: &[&str]) -> Arc<ObjectTable> {
        let url = ObjectUrl::parse(&format!("s3://b/{path}")).unwrap().unwrap();
        let objects = Objects::over(Arc::new(FaultyStore::default()), &url.bucket_url()).unwrap();
        for key in keys {
            let content = if key.ends_with("mark") { Bytes::new() } else { Bytes::from(vec![7; 9 << 20]) };
            objects.create(key, content).await.unwrap();
        }
        Arc::new(ObjectTable::over(Service::over(objects), &url))
    }

    async fn found(path: &str, keys: &[&str]) -> Vec<String> {
        let splits = table(path, keys).await.find(true).await.unwrap();
        splits.into_iter().map(|split| split.path.strip_prefix("s3://b/").unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn what_is_meant_is_found_and_what_is_hidden_is_not() {
        let keys = ["in/a.json", "in/b/c.json", "in/b/_x/d.json", "in/.tmp/e.json", "in/mark", "in/mark/f", "inn/g"];
        assert_eq!(found("in", &keys).await, ["in/a.json", "in/b/c.json", "in/mark/f"]);
        assert_eq!(found("in/a.json", &keys).await, ["in/a.json"]);
        assert_eq!(found("in/*.json", &keys).await, ["in/a.json"]);
        assert_eq!(found("in/*", &keys).await, ["in/a.json", "in/b/c.json", "in/mark/f"]);
        assert_eq!(found("in/?/c*", &keys).await, ["in/b/c.json"]);
        assert_eq!(found("in/b/_*", &keys).await, ["in/b/_x/d.json"]);
        assert_eq!(found("", &["x"]).await, ["x"]);
        let error = table("none", &keys).await.find(false).await.unwrap_err();
        assert!(error.message.contains("'s3://b/none' has no object"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_is_read_in_ranges_and_never_in_two_versions() {
        let table = table("in", &["in/a"]).await;
        let split = table.find(false).await.unwrap().remove(0);
        let file = ObjectFile::new(&table, &split, &Handle::current());
        let (reader, size) = (file.clone(), split.size);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            reader.stream(5, size).read_to_end(&mut text).unwrap();
            let part = reader.with_ahead(vec![10..20, 0..4, 1 << 20..2 << 20]).unwrap();
            assert_eq!(part.ahead.len(), 2, "what is near goes together");
            assert_eq!(part.read_at(12, 6).unwrap().len(), 6);
            assert_eq!(part.read_at(19, 6).unwrap().len(), 6, "a part of it is not in memory");
            text.len() as u64
        });
        assert_eq!(read.await.unwrap(), split.size - 5);
        let objects = table.bucket.objects().unwrap();
        objects.remove("in/a").await.unwrap();
        objects.create("in/a", Bytes::from(vec![8; 9 << 20])).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let changed = file.stream(0, size).read_to_end(&mut Vec::new()).unwrap_err();
            changed.get_ref().unwrap().downcast_ref::<ConnectorError>().unwrap().clone()
        });
        let error = read.await.unwrap();
        assert!(!error.is_retryable() && error.message.contains("has changed since the job found it"), "{error}");
    }
}
