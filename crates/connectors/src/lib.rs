//! Connectors: how tables are read and written. The traits ([`Source`], [`SplitEnumerator`], [`SourceReader`],
//! [`Sink`], [`SinkWriter`], [`Committer`]) are what the engine and the coordinator drive; each system has a
//! module of its own behind them, found by [`source`] and [`sink`] from a table's options.

mod blackhole;
mod datagen;
mod error;
mod filesystem;
mod format;
mod generator;
mod nexmark;
mod print;
mod registry;
#[cfg(feature = "simulation")]
pub mod simulation;
mod sink;
mod source;
mod table;
mod values;

pub use error::{ConnectorError, ErrorKind};
pub use registry::{sink, source};
pub use sink::{Committer, Delivery, Sink, SinkWriter, WriterContext};
pub use source::{EnumeratorContext, ReaderContext, ReaderEvent, Source, SourceReader, SplitEnumerator};
pub use table::{Options, TableSpec, parse_duration, parse_size};
pub use values::values_table;
