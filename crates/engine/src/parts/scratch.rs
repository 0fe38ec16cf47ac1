//! A file on the local disk for rows that have to wait. It has no name, so it goes with the process whatever becomes of
//! it, and nothing in it is ever read by another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use mainstem_rt::run_blocking;

use crate::error::EngineError;

/// Tells the files of a process apart, for the moment in which they have a name.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Where a batch lies in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    at: u64,
    length: u64,
}

/// See the module. Made when it is needed first.
pub(super) struct Scratch {
    operator: String,
    directory: PathBuf,
    file: Option<Arc<Mutex<File>>>,
    end: u64,
}

impl Scratch {
    pub(super) fn new(operator: &str, directory: &Path) -> Self {
        Scratch { operator: operator.to_owned(), directory: directory.to_owned(), file: None, end: 0 }
    }

    /// Bytes that the file has.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Writes batches behind what there is.
    pub(super) async fn write(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<Block>, EngineError> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(Arc::new(Mutex::new(self.create().await?))).clone(),
        };
        let from = self.end;
        let written = run_blocking(move || write_all(&file, from, &batches)).await;
        let blocks = written.map_err(|e| EngineError::Bug(format!("writing rows that wait: {e}")))?;
        let blocks = blocks.map_err(|e| self.failed("write to", &e))?;
        self.end = blocks.last().map_or(self.end, |last| last.at + last.length);
        Ok(blocks)
    }

    /// A batch again.
    pub(super) async fn read(&self, block: Block) -> Result<RecordBatch, EngineError> {
        let missing = || EngineError::Bug("rows that wait lie in a file that is not there".to_owned());
        let file = self.file.clone().ok_or_else(missing)?;
        let read = run_blocking(move || read(&file, block)).await;
        let read = read.map_err(|e| EngineError::Bug(format!("reading rows that wait: {e}")))?;
        read.map_err(|e| self.failed("read", &e))
    }

    /// Forgets all that is in the file.
    pub(super) fn clear(&mut self) -> Result<(), EngineError> {
        self.end = 0;
        let Some(file) = &self.file else { return Ok(()) };
        let cleared = file.lock().unwrap_or_else(PoisonError::into_inner).set_len(0);
        cleared.map_err(|e| self.failed("shorten", &e.into()))
    }

    async fn create(&self) -> Result<File, EngineError> {
        let directory = self.directory.clone();
        let created = run_blocking(move || create(&directory)).await;
        let created = created.map_err(|e| EngineError::Bug(format!("making a scratch file: {e}")))?;
        created.map_err(|e| self.failed("create", &e.into()))
    }

    fn failed(&self, action: &'static str, error: &ArrowError) -> EngineError {
        let reason = match error {
            ArrowError::IoError(_, error) => error.to_string(),
            other => other.to_string(),
        };
        let (operator, directory) = (self.operator.clone(), self.directory.display().to_string());
        EngineError::Scratch { operator, action, directory, reason }
    }
}

fn create(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("mainstem-scratch-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn write_all(file: &Mutex<File>, from: u64, batches: &[RecordBatch]) -> Result<Vec<Block>, ArrowError> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(from))?;
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let (mut at, mut blocks, mut bytes) = (from, Vec::with_capacity(batches.len()), Vec::new());
    for batch in batches {
        bytes.clear();
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, batch.schema_ref(), options.clone())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        file.write_all(&bytes)?;
        blocks.push(Block { at, length: bytes.len() as u64 });
        at += bytes.len() as u64;
    }
    Ok(blocks)
}

fn read(file: &Mutex<File>, block: Block) -> Result<RecordBatch, ArrowError> {
    let mut bytes = vec![0; usize::try_from(block.length).expect("was in memory before")];
    {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(block.at))?;
        file.read_exact(&mut bytes)?;
    }
    let mut batches = StreamReader::try_new(Cursor::new(bytes), None)?;
    batches.next().unwrap_or_else(|| Err(ArrowError::IpcError("no rows where there were some".to_owned())))
}
