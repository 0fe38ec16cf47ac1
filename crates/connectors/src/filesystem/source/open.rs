//! Opens a file of a split as a stream of plain text: checks that it is the file that was found, goes to a
//! position, unpacks, and counts what is read. Called from blocking threads only.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;

use super::objects::ObjectFile;
use super::split::FileSplit;
use super::{FileTable, Location};
use crate::error::{ConnectorError, ErrorKind};
use crate::filesystem::options::Compression;

/// Packed bytes that are read from the file at once.
const PACKED_BYTES: usize = 256 << 10;

/// Opens the file and checks that it is the one that was found.
pub(super) fn open_file(split: &FileSplit) -> Result<File, ConnectorError> {
    let file = File::open(&split.path).map_err(|error| ConnectorError::io("open", &split.path, &error))?;
    check_unchanged(&file, split)?;
    Ok(file)
}

/// Checks that an open file is still the one that was found.
pub(super) fn check_unchanged(file: &File, split: &FileSplit) -> Result<(), ConnectorError> {
    let metadata = file.metadata().map_err(|error| ConnectorError::io("inspect", &split.path, &error))?;
    split.check_unchanged(&metadata)
}

/// The plain text of a file from some offset on.
pub(super) struct OpenText {
    /// The text.
    pub(super) input: Box<dyn Read + Send>,
    /// The file itself, for [`check_unchanged`] at the end; none where each read checks it.
    pub(super) file: Option<File>,
}

/// Opens the file's plain text at an offset.
pub(super) fn open_text(
    table: &FileTable,
    split: &FileSplit,
    offset: u64,
    runtime: &Handle,
    bytes_read: Arc<AtomicU64>,
) -> Result<OpenText, ConnectorError> {
    let compression = table.compression.unwrap_or_else(|| Compression::of_name(Path::new(&split.path)));
    if compression == Compression::None && offset > split.size {
        return Err(too_short(split, offset));
    }
    let start = if compression == Compression::None { offset } else { 0 };
    let (bytes, file): (Box<dyn Read + Send>, _) = match &table.location {
        Location::Objects(objects) => {
            let stream = ObjectFile::new(objects, split, runtime).stream(start, split.size);
            (Box::new(Counted { inner: stream, bytes_read }), None)
        }
        Location::Directory(_) => {
            let failed = |error| ConnectorError::io("read", &split.path, &error);
            let file = open_file(split)?;
            let mut bytes = file.try_clone().map_err(failed)?;
            bytes.seek(SeekFrom::Start(start)).map_err(failed)?;
            // What is appended while the file is read is noticed at its end, and never read as a half line.
            (Box::new(Counted { inner: bytes.take(split.size - start), bytes_read }), Some(file))
        }
    };
    if compression == Compression::None {
        return Ok(OpenText { input: bytes, file });
    }
    let packed = BufReader::with_capacity(PACKED_BYTES, bytes);
    let mut text: Box<dyn Read + Send> = match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        _ => Box::new(zstd::Decoder::with_buffer(packed).map_err(|error| read_error(split, &error))?),
    };
    let skipped =
        io::copy(&mut text.as_mut().take(offset), &mut io::sink()).map_err(|error| read_error(split, &error))?;
    if skipped < offset {
        return Err(too_short(split, offset));
    }
    Ok(OpenText { input: text, file })
}

/// The error for a failed read: bad packing is the data's fault, the rest the system's.
pub(super) fn read_error(split: &FileSplit, error: &io::Error) -> ConnectorError {
    use io::ErrorKind as Io;
    if let Some(said) = error.get_ref().and_then(|cause| cause.downcast_ref::<ConnectorError>()) {
        return said.clone();
    }
    match error.kind() {
        Io::InvalidData | Io::InvalidInput | Io::UnexpectedEof | Io::Other => ConnectorError::data(format!(
            "the file '{}' cannot be unpacked ({error}): it is damaged, cut short, or not packed as its name or the option 'compression' says",
            split.path
        )),
        _ => ConnectorError::io("read", &split.path, error),
    }
}

fn too_short(split: &FileSplit, offset: u64) -> ConnectorError {
    ConnectorError::new(
        ErrorKind::External,
        format!(
            "the file '{}' ends before byte {offset}, up to which it was read: it has been replaced; restore it, or start the job afresh",
            split.path
        ),
    )
}

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
