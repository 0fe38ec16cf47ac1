//! Files as something to write: `'connector' = 'filesystem'`. Rows go to hidden temporary files; at each
//! barrier the files of the epoch are closed and made durable; after the epoch is complete the committer renames
//! them into place. In an object store, which renames nothing, the store itself copies them. Called by the registry.
//!
//! Invariants:
//! - A file under its final name is complete, durable and never touched again.
//! - Final names derive from job, operator, attempt, subtask and epoch, so no two files ever want the same one.
//! - A commit can be repeated: a rename, or a copy, that has happened is recognised by its result.
//! - Clean-up removes only temporary files of the same job and operator and of earlier attempts.

mod committer;
mod error;
mod file;
mod name;
mod objects;
mod partition;
mod target;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mainstem_core::change::ChangeMode;
use mainstem_objects::Place;

use crate::error::ConnectorError;
use crate::format::encode::{ParquetPacking, check_columns};
use crate::format::{ContainerEncoder, FormatOptions};
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::options::{self, Compression};
use super::service::Service;

use committer::FileCommitter;
use objects::ObjectCommitter;
use partition::Partitioner;
use target::Target;
use writer::FileWriter;

/// Size at which a file is closed and another begun, as in Flink.
const FILE_SIZE_DEFAULT: u64 = 128 << 20;
/// Smallest file size that can be asked for, so that a typing error does not make millions of files.
const FILE_SIZE_MIN: u64 = 64 << 10;

/// The largest in an object store: what services copy in one request, with room for one more batch.
const OBJECT_SIZE_MAX: u64 = 4 << 30;

/// The table as a directory of files to write.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let current =
        std::env::current_dir().map_err(|e| ConnectorError::io("find the working directory for", &table.name, &e))?;
    let settings = Settings::read(table)?;
    let accepts = match &settings.encoding {
        Encoding::Text(format, _) => format.sink_changes(),
        Encoding::Parquet(_) => ChangeMode::Append,
    };
    Ok(Arc::new(FileSink { settings: Arc::new(settings), accepts, current }))
}

/// What the writers of a table need to know.
#[derive(Debug)]
struct Settings {
    location: Location,
    encoding: Encoding,
    /// Columns of the files: the table's without those of the partitions.
    file_columns: Vec<usize>,
    file_schema: SchemaRef,
    /// Positions in the files of the primary key's columns, without those of the partitions.
    file_key: Vec<usize>,
    partitioner: Partitioner,
    file_size_max: u64,
}

/// Where the files go.
#[derive(Clone, Debug)]
enum Location {
    /// As the user gave it; may be relative.
    Directory(PathBuf),
    /// In an object store.
    Objects(Arc<Service>),
}

/// What a file holds, and how it is packed.
#[derive(Clone, Debug)]
enum Encoding {
    /// JSON, CSV and what is made of them.
    Text(FormatOptions, Compression),
    Parquet(ParquetPacking),
}

impl Encoding {
    /// The end of a file's name.
    fn extension(&self) -> &'static str {
        match self {
            Encoding::Parquet(_) => ".parquet",
            Encoding::Text(FormatOptions::Avro(_), _) => ".avro",
            Encoding::Text(FormatOptions::Csv(_), Compression::None) => ".csv",
            Encoding::Text(FormatOptions::Csv(_), Compression::Gzip) => ".csv.gz",
            Encoding::Text(FormatOptions::Csv(_), Compression::Zstd) => ".csv.zst",
            Encoding::Text(FormatOptions::Raw, Compression::None) => ".txt",
            Encoding::Text(FormatOptions::Raw, Compression::Gzip) => ".txt.gz",
            Encoding::Text(FormatOptions::Raw, Compression::Zstd) => ".txt.zst",
            Encoding::Text(_, Compression::None) => ".json",
            Encoding::Text(_, Compression::Gzip) => ".json.gz",
            Encoding::Text(_, Compression::Zstd) => ".json.zst",
        }
    }
}

impl Settings {
    fn read(table: &TableSpec) -> Result<Settings, ConnectorError> {
        let mut options = table.options();
        let location = match options::location(&mut options)? {
            (Place::Local(path), _) => Location::Directory(path),
            (Place::Objects(url), credentials) => Location::Objects(Arc::new(Service::new(url, credentials))),
        };
        let format = FormatOptions::read(&mut options)?;
        let compression = Compression::option(&mut options)?;
        let flink = options.get("partition.default-name");
        let default_name = options.get("sink.partition-name.default").or(flink).unwrap_or("__DEFAULT_PARTITION__");
        let file_size_max = options.size("sink.rolling-policy.file-size")?.unwrap_or(FILE_SIZE_DEFAULT);
        if file_size_max < FILE_SIZE_MIN {
            return Err(ConnectorError::option(format!(
                "option 'sink.rolling-policy.file-size' must be at least {FILE_SIZE_MIN} bytes, not {file_size_max}"
            )));
        }
        if matches!(location, Location::Objects(_)) && file_size_max > OBJECT_SIZE_MAX {
            return Err(ConnectorError::option(format!(
                "option 'sink.rolling-policy.file-size' must be at most {OBJECT_SIZE_MAX} bytes in an object store, not {file_size_max}"
            )));
        }
        if options.parse("auto-compaction", false)? {
            return Err(ConnectorError::option(format!(
                "table '{}' asks for 'auto-compaction', which is not supported; leave it out",
                table.name
            )));
        }
        // Files end with their epoch, so the checkpoint interval bounds their age more tightly than these.
        options.accept(&[
            "sink.rolling-policy.rollover-interval",
            "sink.rolling-policy.check-interval",
            "compaction.file-size",
        ]);
        options.accept(options::SOURCE_OPTIONS);
        options.accept(crate::bad_records::BAD_RECORDS_OPTIONS);
        options.finish()?;

        let partitioner = Partitioner::new(&table.schema, &table.partition_keys, default_name)?;
        let is_file_column = |name: &String| !table.partition_keys.contains(name);
        let file_columns: Vec<_> =
            (0..table.schema.fields().len()).filter(|&i| is_file_column(table.schema.field(i).name())).collect();
        if file_columns.is_empty() {
            let name = &table.name;
            return Err(ConnectorError::option(format!(
                "table '{name}' has no columns besides those of PARTITIONED BY; a file needs at least one"
            )));
        }
        let file_schema: Schema = table.schema.project(&file_columns).expect("the columns were counted in this schema");
        let file_key = table.primary_key.iter().filter_map(|name| file_schema.index_of(name).ok()).collect();
        check_changelog(table, &format)?;
        check_avro(table, &format, compression)?;
        let encoding = match format {
            FormatOptions::Parquet => Encoding::Parquet(match compression {
                Some(Compression::None) => ParquetPacking::None,
                Some(Compression::Gzip) => ParquetPacking::Gzip,
                Some(Compression::Zstd) | None => ParquetPacking::Zstd,
            }),
            text => Encoding::Text(text, compression.unwrap_or(Compression::None)),
        };
        match &encoding {
            Encoding::Text(FormatOptions::Csv(_), _) => check_columns(&file_schema, "csv", false)?,
            Encoding::Text(FormatOptions::DebeziumJson(_), _) => check_columns(&file_schema, "debezium-json", true)?,
            Encoding::Text(FormatOptions::UpsertJson(_), _) => check_columns(&file_schema, "upsert-json", true)?,
            Encoding::Text(FormatOptions::Avro(options), _) => {
                ContainerEncoder::new(file_schema.fields(), options).map_err(ConnectorError::option)?;
            }
            Encoding::Text(FormatOptions::Raw, _) => {}
            Encoding::Text(_, _) => check_columns(&file_schema, "json", true)?,
            Encoding::Parquet(_) => check_columns(&file_schema, "parquet", true)?,
        }
        let file_schema = Arc::new(file_schema);
        Ok(Settings { location, encoding, file_columns, file_schema, file_key, partitioner, file_size_max })
    }
}

/// Refuses what files of Avro are not.
fn check_avro(
    table: &TableSpec,
    format: &FormatOptions,
    compression: Option<Compression>,
) -> Result<(), ConnectorError> {
    let name = &table.name;
    match format.refused_for_files(name) {
        Some(reason) => Err(ConnectorError::option(reason)),
        None if matches!(format, FormatOptions::Avro(_)) && !matches!(compression, None | Some(Compression::None)) => {
            Err(ConnectorError::option(format!(
                "option 'compression' of table '{name}' has no place in Avro, which packs its blocks by itself: set 'avro.codec' = 'deflate', 'zstandard' or 'null'"
            )))
        }
        None => Ok(()),
    }
}

/// Refuses what a format of changes cannot write.
fn check_changelog(table: &TableSpec, format: &FormatOptions) -> Result<(), ConnectorError> {
    match format {
        FormatOptions::DebeziumJson(options) if options.schema_include => Err(ConnectorError::option(format!(
            "option 'debezium-json.schema-include' of table '{}' is for reading; a table that is written cannot set it",
            table.name
        ))),
        // A row that moves from one partition to another would stay in the first: nobody is told its old place.
        FormatOptions::UpsertJson(options)
            if table.partition_keys.iter().any(|name| !options.key.contains(name))
                || options.key.iter().all(|name| table.partition_keys.contains(name)) =>
        {
            Err(ConnectorError::option(format!(
                "table '{}' with 'format' = 'upsert-json' can only be PARTITIONED BY some of the columns of its PRIMARY KEY, not by others nor by all of them",
                table.name
            )))
        }
        _ => Ok(()),
    }
}

struct FileSink {
    settings: Arc<Settings>,
    accepts: ChangeMode,
    /// The working directory at the time when the sink was made; the committer resolves against it.
    current: PathBuf,
}

impl Sink for FileSink {
    fn accepts(&self) -> ChangeMode {
        self.accepts
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let how = match &self.settings.location {
            Location::Directory(_) => {
                "files stay hidden until their epoch is complete and are then renamed into place; a rename can be repeated without effect"
            }
            Location::Objects(_) => {
                "objects stay under hidden names until their epoch is complete and are then copied into place by the store; a copy can be repeated without effect"
            }
        };
        (Delivery::ExactlyOnce, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        let target = match &self.settings.location {
            Location::Directory(path) => Target::Directory(ctx.working_dir.join(path)),
            Location::Objects(service) => Target::Objects(service.clone()),
        };
        Box::new(FileWriter::new(self.settings.clone(), target, ctx))
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        Some(match &self.settings.location {
            Location::Directory(path) => Box::new(FileCommitter::new(self.current.join(path), &ctx.job, ctx.operator)),
            Location::Objects(service) => Box::new(ObjectCommitter::new(service.clone(), &ctx.job, ctx.operator)),
        })
    }
}

#[cfg(test)]
mod tests;
