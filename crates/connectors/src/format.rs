//! Row formats: bytes of a file to Arrow rows. The filesystem source cuts a file into blocks of whole records
//! and hands each to a decoder made here; decoding is a pure function of the block's bytes, so that blocks of
//! one file may be decoded in parallel. Must never panic on the bytes that it is given.

mod avro;
mod base64;
mod block;
mod column;
mod csv;
pub(crate) mod encode;
mod fault;
mod json;
mod message;
mod number;
mod offsets;
mod options;
mod parquet;
mod protobuf;
mod raw;
mod registered;
mod time;
mod tree;

pub(crate) use avro::{AvroContainer, AvroOptions, ContainerEncoder, ContainerError, ContainerRows};
pub(crate) use block::{
    BlockBatch, BlockRows, EXCERPT_MAX, RECORD_BYTES_MAX, RecordFault, Reject, Rejects, Span, TextDecoder,
};
pub(crate) use column::{ScalarColumn, type_name};
pub(crate) use csv::CsvDialect;
pub(crate) use fault::excerpt;
pub(crate) use message::MessageRows;
pub use message::decode_messages;
pub(crate) use options::{CsvOptions, FormatOptions, JsonOptions, TimestampFormat};
pub(crate) use parquet::ParquetColumns;
pub(crate) use raw::RawEncoder;
