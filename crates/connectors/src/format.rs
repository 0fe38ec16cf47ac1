//! Row formats: bytes of a file to Arrow rows. The filesystem source cuts a file into blocks of whole records
//! and hands each to a decoder made here; decoding is a pure function of the block's bytes, so that blocks of
//! one file may be decoded in parallel. Must never panic on the bytes that it is given.

mod base64;
mod block;
mod column;
mod csv;
pub(crate) mod encode;
mod fault;
mod json;
mod number;
mod options;
mod parquet;
mod time;

pub(crate) use block::{BlockBatch, BlockRows, RECORD_BYTES_MAX, RecordFault, TextDecoder};
pub(crate) use csv::CsvDialect;
pub(crate) use options::{CsvOptions, FormatOptions, JsonOptions, TimestampFormat};
pub(crate) use parquet::ParquetColumns;
