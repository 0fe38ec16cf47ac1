//! Avro's object container files: a head with the schema and how blocks are packed, then blocks of records, each with its
//! number of records and a mark behind it. Read as a stream, block by block; written a batch of rows a block. A record whose values
//! do not fit the table is passed over by its schema; where even that fails the file is damaged, and nothing that follows in
//! it can be trusted.

use std::hash::BuildHasher;
use std::io::{self, Read};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Fields, SchemaRef};

use super::encode::AvroEncoder;
use super::options::{AvroOptions, Codec};
use super::schema::AvroSchema;
use super::wire::{Wire, write_bytes, write_long};
use super::{AvroDecoder, LearnedSchemas, RecordPlan};
use crate::error::ConnectorError;
use crate::format::block::RecordDecoder;
use crate::format::encode::TextEncoder;
use crate::format::json::Kinds;
use crate::format::tree::TreeColumn;

/// What a file begins with.
const MAGIC: &[u8; 4] = b"Obj\x01";
/// Length of the mark behind the head and each block.
const SYNC: usize = 16;
/// Largest head and largest block, packed and unpacked, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 20;
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// A file that is read.
pub(crate) struct AvroContainer {
    input: Box<dyn Read + Send>,
    codec: Codec,
    sync: [u8; SYNC],
    decoder: AvroDecoder,
}

/// Some rows of a file.
#[derive(Debug)]
pub(crate) struct ContainerRows {
    /// Records that they are made of, wrong ones included.
    pub(crate) count: u64,
    /// Those that fit the table.
    pub(crate) rows: RecordBatch,
    /// Which do not, counted from the first of these, and why.
    pub(crate) bad: Vec<(u64, String)>,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum ContainerError {
    Io(io::Error),
    /// What is wrong with it, as the end of a sentence.
    Damaged(String),
    /// Its schema does not fit the table.
    Misfit(String),
}

impl From<io::Error> for ContainerError {
    fn from(error: io::Error) -> Self {
        ContainerError::Io(error)
    }
}

/// Records of a block.
pub(crate) struct Block {
    /// How many.
    pub(crate) count: u64,
    bytes: Vec<u8>,
}

impl AvroContainer {
    /// Reads the head; `columns` are those that are wanted.
    pub(crate) fn open(
        mut input: Box<dyn Read + Send>,
        columns: &SchemaRef,
        options: &AvroOptions,
    ) -> Result<AvroContainer, ContainerError> {
        let damaged = |what: &str| ContainerError::Damaged(what.to_owned());
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(|error| cut(error, "its first bytes"))?;
        if &magic != MAGIC {
            return Err(damaged("it does not begin as an Avro file does"));
        }
        let (mut schema, mut codec) = (None, Codec::Null);
        loop {
            let mut count = read_long(&mut input)?;
            if count < 0 {
                read_long(&mut input)?;
                count = count.checked_neg().ok_or_else(|| damaged("its head has a wrong length"))?;
            }
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let key = read_sized(&mut input, HEAD_BYTES_MAX)?;
                let value = read_sized(&mut input, HEAD_BYTES_MAX)?;
                match &key[..] {
                    b"avro.schema" => schema = Some(value),
                    b"avro.codec" => {
                        codec = Codec::of_name(&value).ok_or_else(|| {
                            let name = String::from_utf8_lossy(&value).into_owned();
                            ContainerError::Misfit(format!(
                                "its blocks are packed by '{name}'; known are null, deflate, snappy, zstandard"
                            ))
                        })?;
                    }
                    _ => {}
                }
            }
        }
        let mut sync = [0; SYNC];
        input.read_exact(&mut sync).map_err(|error| cut(error, "its head"))?;
        let text =
            schema.and_then(|schema| String::from_utf8(schema).ok()).ok_or_else(|| damaged("it has no schema"))?;
        let writer = AvroSchema::parse(&text, &[]).map_err(ContainerError::Damaged)?;
        let (plan, notes) =
            RecordPlan::new(Arc::new(writer), None, columns.fields(), options).map_err(ContainerError::Misfit)?;
        if !notes.is_empty() {
            tracing::debug!(differences = notes.join("; "), "an Avro file of another schema is adapted");
        }
        let decoder = AvroDecoder {
            schema: columns.clone(),
            columns: TreeColumn::of_fields(columns.fields()).map_err(ContainerError::Misfit)?,
            options: options.clone(),
            plain: Some(plan),
            learned: LearnedSchemas::default(),
            kinds: Kinds::default(),
        };
        Ok(AvroContainer { input, codec, sync, decoder })
    }

    /// The next block; none at the end of the file. With `skip` its records are only counted, where that is asked.
    pub(crate) fn next_block(&mut self, skip: impl Fn(u64) -> bool) -> Result<Option<Block>, ContainerError> {
        let mut first = [0; 1];
        if self.input.read(&mut first)? == 0 {
            return Ok(None);
        }
        let count = read_long_after(first[0], &mut self.input)?;
        let count =
            u64::try_from(count).map_err(|_| ContainerError::Damaged(format!("a block has {count} records")))?;
        let packed = read_sized(&mut self.input, BLOCK_BYTES_MAX)?;
        let mut sync = [0; SYNC];
        self.input.read_exact(&mut sync).map_err(|error| cut(error, "a block"))?;
        if sync != self.sync {
            return Err(ContainerError::Damaged("the mark behind a block is not that of the file".to_owned()));
        }
        let bytes = if skip(count) { Vec::new() } else { unpack(self.codec, packed)? };
        Ok(Some(Block { count, bytes }))
    }

    /// Decodes a block from its record `from` on, and gives each about `batch_rows` records to `take`, until that says no.
    /// Records that do not fit stop at the first one unless `go_on`; it is in the rows that are given last.
    pub(crate) fn decode(
        &mut self,
        block: &Block,
        from: u64,
        batch_rows: usize,
        go_on: bool,
        take: &mut dyn FnMut(ContainerRows) -> bool,
    ) -> Result<(), ContainerError> {
        let plan = self.decoder.plain.as_ref().expect("a file has one schema");
        let (schema, mut wire) = (Arc::clone(&plan.schema), Wire::new(&block.bytes));
        let damaged = |reason: String| ContainerError::Damaged(reason);
        for _ in 0..from.min(block.count) {
            wire.skip(&schema, schema.root()).map_err(|fault| damaged(fault.describe()))?;
        }
        let (mut number, mut rows, mut bad) = (0, 0, Vec::new());
        for _ in from..block.count {
            let start = wire.at;
            match self.decoder.read_from(&block.bytes, &mut wire) {
                Ok(appended) => rows += appended,
                Err(fault) => {
                    self.decoder.truncate(rows);
                    wire.at = start;
                    wire.skip(&schema, schema.root()).map_err(|_| damaged(fault.describe()))?;
                    bad.push((number, fault.describe()));
                }
            }
            number += 1;
            let stops = !bad.is_empty() && !go_on;
            let full = stops || number >= batch_rows as u64;
            if full && (!take(self.flush(&mut number, &mut rows, &mut bad)?) || stops) {
                return Ok(());
            }
        }
        if wire.at < block.bytes.len() {
            return Err(damaged(format!(
                "{} bytes come after the last record of a block",
                block.bytes.len() - wire.at
            )));
        }
        if number > 0 {
            take(self.flush(&mut number, &mut rows, &mut bad)?);
        }
        Ok(())
    }

    fn flush(
        &mut self,
        number: &mut u64,
        rows: &mut usize,
        bad: &mut Vec<(u64, String)>,
    ) -> Result<ContainerRows, ContainerError> {
        let batch = self.decoder.finish(std::mem::take(rows));
        let rows = batch.map_err(|error| ContainerError::Damaged(error.to_string()))?;
        Ok(ContainerRows { count: std::mem::take(number), rows, bad: std::mem::take(bad) })
    }
}

/// Writes files: the head at their beginning, and each batch of rows as a block.
pub(crate) struct ContainerEncoder {
    encoder: AvroEncoder,
    schema: String,
    codec: Codec,
    sync: [u8; SYNC],
    block: Vec<u8>,
}

impl ContainerEncoder {
    /// For rows with these fields; an error names what Avro cannot hold.
    pub(crate) fn new(fields: &Fields, options: &AvroOptions) -> Result<ContainerEncoder, String> {
        // It need not be secret, only unlikely to come up within a block.
        let half = || std::hash::RandomState::new().hash_one(0_u8).to_le_bytes();
        let mut sync = [0; SYNC];
        sync[..8].copy_from_slice(&half());
        sync[8..].copy_from_slice(&half());
        let schema = options.written_schema(fields)?;
        Ok(ContainerEncoder {
            encoder: options.encoder(fields)?,
            schema,
            codec: options.codec,
            sync,
            block: Vec::new(),
        })
    }
}

impl TextEncoder for ContainerEncoder {
    fn begin_file(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        write_long(2, out);
        write_bytes(b"avro.schema", out);
        write_bytes(self.schema.as_bytes(), out);
        write_bytes(b"avro.codec", out);
        write_bytes(self.codec.name().as_bytes(), out);
        write_long(0, out);
        out.extend_from_slice(&self.sync);
    }

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.block.clear();
        self.encoder.encode_each(rows, changes, &mut self.block, &mut |_, _| {})?;
        let packed = pack(self.codec, &self.block)
            .map_err(|error| ConnectorError::io("pack", "a block of an Avro file", &error))?;
        write_long(rows.num_rows() as i64, out);
        write_bytes(&packed, out);
        out.extend_from_slice(&self.sync);
        each(0, out.len());
        Ok(())
    }
}

fn pack(codec: Codec, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::Deflate => {
            let mut packed = Vec::new();
            flate2::read::DeflateEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut packed)?;
            Ok(packed)
        }
        Codec::Zstandard => zstd::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
        Codec::Null | Codec::Snappy => Ok(bytes.to_vec()),
    }
}

fn unpack(codec: Codec, packed: Vec<u8>) -> Result<Vec<u8>, ContainerError> {
    let mut bytes = Vec::new();
    let mut read = |input: &mut dyn Read| match input.take(BLOCK_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        Ok(length) if length > BLOCK_BYTES_MAX => {
            Err(ContainerError::Damaged(format!("a block has more than {BLOCK_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(ContainerError::Damaged(format!("a block cannot be unpacked: {error}"))),
    };
    match codec {
        Codec::Null => return Ok(packed),
        Codec::Deflate => read(&mut flate2::read::DeflateDecoder::new(&packed[..]))?,
        Codec::Zstandard => match zstd::Decoder::with_buffer(&packed[..]) {
            Ok(mut decoder) => read(&mut decoder)?,
            Err(error) => return Err(ContainerError::Damaged(format!("a block cannot be unpacked: {error}"))),
        },
        Codec::Snappy => {
            let unpacked = super::snappy::unpack_checked(&packed, BLOCK_BYTES_MAX);
            return unpacked.map_err(|reason| ContainerError::Damaged(format!("a block cannot be unpacked: {reason}")));
        }
    }
    Ok(bytes)
}

fn cut(error: io::Error, what: &str) -> ContainerError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if error.get_ref().is_none_or(|inner| !inner.is::<ConnectorError>()) => {
            ContainerError::Damaged(format!("it ends within {what}"))
        }
        _ => ContainerError::Io(error),
    }
}

fn read_long(input: &mut dyn Read) -> Result<i64, ContainerError> {
    let mut first = [0; 1];
    input.read_exact(&mut first).map_err(|error| cut(error, "a number"))?;
    read_long_after(first[0], input)
}

fn read_long_after(first: u8, input: &mut dyn Read) -> Result<i64, ContainerError> {
    let mut bytes = vec![first];
    while bytes.last().is_some_and(|byte| byte & 0x80 != 0) && bytes.len() < 10 {
        let mut next = [0; 1];
        input.read_exact(&mut next).map_err(|error| cut(error, "a number"))?;
        bytes.push(next[0]);
    }
    Wire::new(&bytes).long().map_err(|fault| ContainerError::Damaged(fault.describe()))
}

fn read_sized(input: &mut dyn Read, most: usize) -> Result<Vec<u8>, ContainerError> {
    let length = read_long(input)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= most);
    let length = length.ok_or_else(|| ContainerError::Damaged(format!("a part of it is longer than {most} bytes")))?;
    let mut bytes = Vec::new();
    // What is not there is not allocated, whatever the file says.
    if input.take(length as u64).read_to_end(&mut bytes)? < length {
        return Err(ContainerError::Damaged("it ends within a block".to_owned()));
    }
    Ok(bytes)
}
