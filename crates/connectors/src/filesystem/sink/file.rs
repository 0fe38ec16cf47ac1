//! One file while it is being written: encodes, packs, counts and checksums. Called by the writer. Writes go to
//! the page cache in large pieces; only [`OpenFile::finish`] waits for the disk, and must run on a thread that
//! may block.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use arrow::array::{Int8Array, RecordBatch};
use flate2::write::GzEncoder;

use crate::error::ConnectorError;
use crate::format::encode::{CsvEncoder, DebeziumEncoder, JsonEncoder, ParquetEncoder, TextEncoder, UpsertEncoder};
use crate::format::{ContainerEncoder, FormatOptions, RawEncoder};

use super::error::{io_error, parquet_error};
use super::{Compression, Encoding, Settings};

/// Bytes that a file holds back before it writes.
const BUFFER_BYTES: usize = 256 << 10;
/// Base-two logarithm of how far back zstd looks; bounds its memory, since many files may be open.
const ZSTD_WINDOW_LOG2: u32 = 19;

/// A file that takes rows.
pub(super) struct OpenFile {
    /// Absolute.
    path: PathBuf,
    /// Relative to the sink's directory.
    temporary: String,
    /// Of its partition, relative to the sink's; empty without partitions.
    directory: String,
    /// Which file of its epoch, in the order of opening.
    number: u64,
    rows: u64,
    body: Body,
}

/// A file that is complete and durable.
#[derive(Clone, Debug)]
pub(super) struct ClosedFile {
    pub(super) temporary: String,
    pub(super) directory: String,
    pub(super) number: u64,
    pub(super) size: u64,
    pub(super) rows: u64,
    pub(super) crc32c: u32,
}

enum Body {
    Text { encoder: Box<dyn TextEncoder>, packed: Box<Packed> },
    Parquet(Box<ParquetEncoder<Buffered>>),
}

type Buffered = BufWriter<CheckedFile>;

enum Packed {
    Plain(Buffered),
    Gzip(GzEncoder<Buffered>),
    Zstd(zstd::Encoder<'static, Buffered>),
}

impl OpenFile {
    /// Begins a file whose directory exists. `scratch` is the caller's buffer.
    pub(super) fn create(
        settings: &Settings,
        root: &Path,
        temporary: String,
        directory: String,
        number: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<OpenFile, CreateError> {
        let path = root.join(&temporary);
        let options = File::options().write(true).create_new(true).open(&path);
        let file = options.map_err(|e| CreateError::Create(path.clone(), e))?;
        OpenFile::begin(settings, file, path, temporary, directory, number, scratch)
    }

    /// Begins a file of which nothing is left when it is closed by whoever has it, however the process ends.
    pub(super) fn nameless(
        settings: &Settings,
        temporary: String,
        directory: String,
        number: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<OpenFile, CreateError> {
        let name = temporary.rsplit('/').next().unwrap_or_default();
        let path = std::env::temp_dir().join(format!("mainstem-{}-{name}", std::process::id()));
        let options = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = options.map_err(|e| CreateError::Create(path.clone(), e))?;
        std::fs::remove_file(&path).map_err(|e| CreateError::Create(path.clone(), e))?;
        OpenFile::begin(settings, file, path, temporary, directory, number, scratch)
    }

    fn begin(
        settings: &Settings,
        file: File,
        path: PathBuf,
        temporary: String,
        directory: String,
        number: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<OpenFile, CreateError> {
        let buffered = BufWriter::with_capacity(BUFFER_BYTES, CheckedFile { file, size: 0, crc32c: 0 });
        let body = Body::new(settings, buffered, &path, scratch).map_err(CreateError::Begin)?;
        Ok(OpenFile { path, temporary, directory, number, rows: 0, body })
    }

    /// Appends rows, which have the columns of the file, with the kind of each; none: all are inserts.
    pub(super) fn write(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        match &mut self.body {
            Body::Text { encoder, packed } => {
                scratch.clear();
                encoder.encode(rows, changes, scratch)?;
                packed.write_all(scratch).map_err(|e| io_error("write", self.path.display(), &e))?;
            }
            Body::Parquet(encoder) => encoder.write(rows).map_err(|e| parquet_error(&self.path, &e))?,
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Writes what is held in memory.
    pub(super) fn flush_rows(&mut self) -> Result<(), ConnectorError> {
        match &mut self.body {
            Body::Text { .. } => Ok(()),
            Body::Parquet(encoder) => encoder.flush().map_err(|e| parquet_error(&self.path, &e)),
        }
    }

    /// Bytes of rows that are held in memory beyond the fixed buffers.
    pub(super) fn buffered_bytes(&self) -> usize {
        match &self.body {
            Body::Text { .. } => 0,
            Body::Parquet(encoder) => encoder.buffered_bytes(),
        }
    }

    /// About how large the file has become.
    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::Text { packed, .. } => {
                let buffered = packed.buffered();
                buffered.get_ref().size + buffered.buffer().len() as u64
            }
            Body::Parquet(encoder) => encoder.file_bytes(),
        }
    }

    /// Completes the file and makes its content durable; its name is made durable by the caller, with the
    /// directory. Blocks.
    pub(super) fn finish(self) -> Result<ClosedFile, ConnectorError> {
        let path = self.path.clone();
        let (closed, file) = self.close()?;
        file.sync_all().map_err(|e| io_error("make durable", path.display(), &e))?;
        Ok(closed)
    }

    /// Completes the file, and gives it too. Blocks.
    pub(super) fn close(self) -> Result<(ClosedFile, File), ConnectorError> {
        let failed = |e: io::Error| io_error("write", self.path.display(), &e);
        let buffered = match self.body {
            Body::Text { packed, .. } => packed.finish().map_err(failed)?,
            Body::Parquet(encoder) => encoder.finish().map_err(|e| parquet_error(&self.path, &e))?,
        };
        let checked = buffered.into_inner().map_err(|e| failed(e.into_error()))?;
        let CheckedFile { file, size, crc32c } = checked;
        let (temporary, directory, number, rows) = (self.temporary, self.directory, self.number, self.rows);
        Ok((ClosedFile { temporary, directory, number, size, rows, crc32c }, file))
    }
}

/// Why a file could not be begun.
pub(super) enum CreateError {
    /// It could not be created at that path.
    Create(PathBuf, io::Error),
    /// It could not be given its beginning.
    Begin(ConnectorError),
}

impl Body {
    fn new(
        settings: &Settings,
        buffered: Buffered,
        path: &Path,
        scratch: &mut Vec<u8>,
    ) -> Result<Body, ConnectorError> {
        let failed = |e: io::Error| io_error("write", path.display(), &e);
        let (format, compression) = match &settings.encoding {
            Encoding::Parquet(packing) => {
                let encoder = ParquetEncoder::new(buffered, settings.file_schema.clone(), *packing)
                    .map_err(|e| parquet_error(path, &e))?;
                return Ok(Body::Parquet(Box::new(encoder)));
            }
            Encoding::Text(format, compression) => (format, compression),
        };
        let encoder: Box<dyn TextEncoder> = match format {
            FormatOptions::Avro(options) => {
                let encoder = ContainerEncoder::new(settings.file_schema.fields(), options);
                Box::new(encoder.map_err(ConnectorError::option)?)
            }
            FormatOptions::Csv(csv) => Box::new(CsvEncoder::new(csv.clone(), settings.file_schema.clone())),
            FormatOptions::Json(json) => Box::new(JsonEncoder::new(json)),
            FormatOptions::DebeziumJson(options) => {
                Box::new(DebeziumEncoder::new(&options.json, settings.file_key.clone()))
            }
            FormatOptions::UpsertJson(options) => {
                Box::new(UpsertEncoder::new(&options.json, settings.file_key.clone()))
            }
            FormatOptions::Raw => Box::new(RawEncoder),
            FormatOptions::Parquet | FormatOptions::Protobuf(_) => unreachable!("no encoding of text, or refused"),
        };
        let mut packed = match compression {
            Compression::None => Packed::Plain(buffered),
            Compression::Gzip => Packed::Gzip(GzEncoder::new(buffered, flate2::Compression::fast())),
            Compression::Zstd => {
                let mut zstd = zstd::Encoder::new(buffered, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?;
                zstd.window_log(ZSTD_WINDOW_LOG2).map_err(failed)?;
                zstd.include_checksum(true).map_err(failed)?;
                Packed::Zstd(zstd)
            }
        };
        scratch.clear();
        encoder.begin_file(scratch);
        packed.write_all(scratch).map_err(failed)?;
        Ok(Body::Text { encoder, packed: Box::new(packed) })
    }
}

impl Packed {
    fn buffered(&self) -> &Buffered {
        match self {
            Packed::Plain(file) => file,
            Packed::Gzip(file) => file.get_ref(),
            Packed::Zstd(file) => file.get_ref(),
        }
    }

    fn finish(self) -> io::Result<Buffered> {
        match self {
            Packed::Plain(file) => Ok(file),
            Packed::Gzip(file) => file.finish(),
            Packed::Zstd(file) => file.finish(),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Packed::Plain(file) => file.write_all(bytes),
            Packed::Gzip(file) => file.write_all(bytes),
            Packed::Zstd(file) => file.write_all(bytes),
        }
    }
}

/// A file with the size and checksum of what was written.
struct CheckedFile {
    file: File,
    size: u64,
    crc32c: u32,
}

impl Write for CheckedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
