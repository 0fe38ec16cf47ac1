//! Reads files: finds them ([`enumerator`]), and reads each in order while decoding its blocks in parallel
//! ([`reader`]). A split is one file, whose size and time of change are part of it: a file must not change
//! while a job depends on positions in it. Must never deliver a row twice or leave one out without an error
//! or a count.

mod avro;
mod blocks;
mod enumerator;
mod objects;
mod open;
mod parquet;
mod reader;
mod split;
mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeMode;
use mainstem_objects::Place;

use self::objects::ObjectTable;
use super::options::{Compression, SINK_OPTIONS, location};
use crate::bad_records::{BadRecordOptions, OnError};
use crate::error::ConnectorError;
use crate::format::{FormatOptions, TextDecoder};
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

/// Plain text that is decoded in one piece, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// The table as files to read. Checks all of its options; opens nothing.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    Ok(Arc::new(FileSource::new(table)?))
}

/// A table of files.
struct FileSource {
    table: Arc<FileTable>,
    monitor_interval: Option<Duration>,
}

/// What enumerator and readers know of the table.
#[derive(Debug)]
struct FileTable {
    name: String,
    location: Location,
    schema: SchemaRef,
    format: FormatOptions,
    /// What is done at a record that is wrong.
    on_error: OnError,
    /// Bytes of it that are kept where it is longer than a record may be.
    raw_bytes_max: usize,
    /// How files are packed; none: their names say.
    compression: Option<Compression>,
    /// Size of a block of plain text.
    block_bytes: usize,
    /// Blocks or row groups of one file that are in memory at once.
    in_flight_max: usize,
}

impl FileSource {
    fn new(table: &TableSpec) -> Result<FileSource, ConnectorError> {
        let mut options = table.options();
        let location = match location(&mut options)? {
            (Place::Local(path), _) => Location::Directory(path),
            (Place::Objects(url), credentials) => Location::Objects(Arc::new(ObjectTable::new(&url, credentials))),
        };
        let format = FormatOptions::read(&mut options)?;
        let bad_records = BadRecordOptions::read(&mut options)?;
        let compression = Compression::option(&mut options)?;
        let monitor_interval = options.duration("source.monitor-interval")?;
        options.accept(SINK_OPTIONS);
        options.finish()?;
        if monitor_interval.is_some_and(|interval| interval.is_zero()) {
            return Err(ConnectorError::option(format!(
                "option 'source.monitor-interval' of table '{}' is zero: give a duration such as '10 s'",
                table.name
            )));
        }
        // One block is being decoded on each core while another is read.
        let in_flight_max = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        let schema = Arc::clone(&table.schema);
        let name = table.name.clone();
        let table = FileTable {
            name,
            location,
            schema,
            format,
            on_error: bad_records.on_error(true),
            raw_bytes_max: bad_records.raw_bytes_max,
            compression,
            block_bytes: BLOCK_BYTES,
            in_flight_max,
        };
        if let Some(reason) = table.format.refused_for_files(&table.name) {
            return Err(ConnectorError::option(reason));
        }
        table.check_types()?;
        Ok(FileSource { table: Arc::new(table), monitor_interval })
    }
}

/// Where files lie.
#[derive(Clone, Debug)]
enum Location {
    /// In the local file system: a file, a directory or a glob.
    Directory(PathBuf),
    /// In an object store.
    Objects(Arc<ObjectTable>),
}

impl FileTable {
    /// Refuses columns whose types the format cannot hold.
    fn check_types(&self) -> Result<(), ConnectorError> {
        if self.format == FormatOptions::Parquet {
            return Ok(());
        }
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        let checked = TextDecoder::new(&self.format, &self.schema, &columns, None).map(drop);
        checked.map_err(|reason| ConnectorError::option(format!("table '{}', {reason}", self.name)))
    }
}

impl Source for FileSource {
    fn enumerator(&self, _ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        Box::new(enumerator::FileEnumerator::new(Arc::clone(&self.table), self.monitor_interval.is_some()))
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        Box::new(reader::FileReader::new(Arc::clone(&self.table), ctx))
    }

    fn changes(&self) -> ChangeMode {
        self.table.format.source_changes()
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.monitor_interval
    }
}

#[cfg(test)]
mod tests;
