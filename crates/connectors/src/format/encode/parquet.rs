//! Rows as Parquet files. Called by the filesystem sink, which gives the file to write to and bounds how much
//! is held in memory by [`ParquetEncoder::flush`].

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// Rows of a row group, at most.
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// Bytes of a row group, about, at most; what one file holds in memory.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// How pages are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParquetPacking {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By zstd; the default.
    Zstd,
}

/// Writes one Parquet file.
pub(crate) struct ParquetEncoder<W: Write + Send> {
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> ParquetEncoder<W> {
    /// Begins a file.
    pub(crate) fn new(file: W, schema: SchemaRef, packing: ParquetPacking) -> Result<ParquetEncoder<W>, ParquetError> {
        let compression = match packing {
            ParquetPacking::None => Compression::UNCOMPRESSED,
            ParquetPacking::Gzip => Compression::GZIP(GzipLevel::default()),
            ParquetPacking::Zstd => Compression::ZSTD(ZstdLevel::default()),
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_created_by(concat!("mainstem ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        Ok(ParquetEncoder { writer: ArrowWriter::try_new(file, schema, Some(properties))? })
    }

    /// Takes rows; most stay in memory until their row group is full.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        self.writer.write(rows)?;
        if self.buffered_bytes() >= ROW_GROUP_BYTES_MAX {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Ends the row group at hand and writes it.
    pub(crate) fn flush(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()
    }

    /// Bytes of memory that the row group at hand takes.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.writer.memory_size()
    }

    /// Bytes of the file so far, with about those that are to come from the row group at hand.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Writes what is left and the footer, and gives back the file.
    pub(crate) fn finish(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}
