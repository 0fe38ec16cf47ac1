//! Connectors: how tables are read and written. The traits ([`Source`], [`SplitEnumerator`], [`SourceReader`],
//! [`Sink`], [`SinkWriter`], [`Committer`]) are what the engine and the coordinator drive; each system has a
//! module of its own behind them, found by [`source`] and [`sink`] from a table's options.

mod bad_records;
mod blackhole;
mod collect;
mod datagen;
mod error;
mod filesystem;
mod format;
mod generator;
mod http;
mod kafka;
mod kept;
mod lag;
mod nats;
mod nexmark;
mod postgres;
mod print;
mod redis;
mod registry;
mod schema_registry;
mod secret;
#[cfg(feature = "simulation")]
pub mod simulation;
mod sink;
mod source;
mod staging;
mod table;
mod values;

pub use bad_records::{
    BAD_RECORD_ADVICE, BAD_RECORDS, BAD_RECORDS_TABLE, BadRecordOptions, BadRecordPolicy, DeadLetter, Origin, Origins,
    PositionUnit, Rejected, bad_record_options, record_place,
};
pub use collect::{CollectedRows, Collector, RowForm, collect};
pub use error::{ConnectorError, ErrorKind};
pub use format::decode_messages;
pub use lag::{SplitLag, SplitLags};
pub use print::{CELL_WIDTH_MAX, table_cell};
pub use registry::{open_sink, open_source, sink, source};
pub use secret::{absolute_references, is_reference};
pub use sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
pub use source::{
    CheckpointListener, EnumeratorContext, Lookup, LookupContext, Phase, ReaderContext, ReaderEvent, Release, Source,
    SourceReader, SplitEnumerator,
};
pub use staging::{Staging, StagingStore};
pub use table::{METADATA_KEY, Options, TableSpec, is_path_option, parse_duration, parse_size};
pub use values::values_table;
