//! Cuts a stream of text into blocks of whole records. Called from blocking threads only. A block has about
//! the wanted size; a longer record makes a longer block, up to the limit of a record.

use std::io::{self, Read};

use crate::format::{CsvDialect, RECORD_BYTES_MAX};

/// Bytes that are read at once to find the end of a line that is too long.
const SKIPPED_BYTES: usize = 64 << 10;

/// Where a text may be cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cutter {
    /// After each line end.
    Lines,
    /// After line ends that are not quoted.
    Csv(CsvDialect),
}

/// Some whole records.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Offset of the block in the plain text.
    pub(super) start: u64,
    /// Holds the text; may be longer than it.
    buffer: Vec<u8>,
    length: usize,
}

/// Why there is no next block.
#[derive(Debug)]
pub(super) enum BlockError {
    /// The file cannot be read on.
    Io(io::Error),
    /// A record that begins at the end of the blocks so far is longer than a record may be; its first bytes.
    RecordTooLong(Vec<u8>),
}

/// Cuts a stream.
pub(super) struct BlockReader {
    input: Box<dyn Read + Send>,
    cutter: Cutter,
    block_bytes: usize,
    /// Offset of the text that `rest` holds.
    offset: u64,
    /// What was read beyond the last block.
    rest: Vec<u8>,
    ended: bool,
}

impl Cutter {
    /// The end of the last record that ends within `bytes`; 0 where none does.
    fn last_record_end(&self, bytes: &[u8]) -> usize {
        match self {
            Cutter::Lines => memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1),
            Cutter::Csv(dialect) => dialect.last_record_end(bytes),
        }
    }
}

impl Block {
    /// The records.
    pub(super) fn text(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// The buffer, to be used for another block.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl BlockReader {
    /// Cuts `input`, which begins at `offset` of the plain text, into blocks of about `block_bytes`.
    pub(super) fn new(input: Box<dyn Read + Send>, cutter: Cutter, block_bytes: usize, offset: u64) -> BlockReader {
        BlockReader { input, cutter, block_bytes: block_bytes.max(1), offset, rest: Vec::new(), ended: false }
    }

    /// Offset of the text after the blocks so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block, in the given buffer; none at the end of the stream.
    pub(super) fn next(&mut self, mut buffer: Vec<u8>) -> Result<Option<Block>, BlockError> {
        let mut length = self.rest.len();
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        buffer[..length].copy_from_slice(&self.rest);
        self.rest.clear();
        let mut wanted = self.block_bytes.max(length + 1);
        loop {
            length = self.fill(&mut buffer, length, wanted)?;
            let end = if self.ended { length } else { self.cutter.last_record_end(&buffer[..length]) };
            if end > 0 {
                self.rest.extend_from_slice(&buffer[end..length]);
                let block = Block { start: self.offset, buffer, length: end };
                self.offset += end as u64;
                return Ok(Some(block));
            }
            if self.ended {
                return Ok(None);
            }
            if length > RECORD_BYTES_MAX {
                buffer.truncate(length);
                return Err(BlockError::RecordTooLong(buffer));
            }
            wanted = length + self.block_bytes;
        }
    }

    /// Passes over the rest of a line that is too long, of which so many bytes were read.
    pub(super) fn skip_line(&mut self, read: usize) -> Result<(), io::Error> {
        let mut chunk = vec![0; SKIPPED_BYTES];
        self.offset += read as u64;
        while !self.ended {
            let count = match self.input.read(&mut chunk) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.ended = count == 0;
            if let Some(end) = memchr::memchr(b'\n', &chunk[..count]) {
                self.offset += end as u64 + 1;
                self.rest.extend_from_slice(&chunk[end + 1..count]);
                return Ok(());
            }
            self.offset += count as u64;
        }
        Ok(())
    }

    /// Reads until the buffer holds `wanted` bytes or the stream ends; gives how many it holds.
    fn fill(&mut self, buffer: &mut Vec<u8>, mut length: usize, wanted: usize) -> Result<usize, BlockError> {
        // Buffers come back with the length that they had, so that only new room is ever cleared.
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        while length < wanted && !self.ended {
            match self.input.read(&mut buffer[length..wanted]) {
                Ok(0) => self.ended = true,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BlockError::Io(error)),
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &[u8], block_bytes: usize) -> Vec<(u64, Vec<u8>)> {
        let mut reader = BlockReader::new(Box::new(io::Cursor::new(text.to_vec())), Cutter::Lines, block_bytes, 0);
        let mut found = Vec::new();
        let mut buffer = Vec::new();
        while let Some(block) = reader.next(buffer).unwrap() {
            found.push((block.start, block.text().to_vec()));
            buffer = block.into_buffer();
        }
        assert_eq!(reader.offset(), text.len() as u64);
        found
    }

    #[test]
    fn blocks_are_whole_lines_at_every_size() {
        let text = b"a\n\nbcd\nefghijklmnop\nq\nno end";
        for block_bytes in 1..text.len() + 2 {
            let blocks = blocks(text, block_bytes);
            let mut joined = Vec::new();
            for (start, block) in &blocks {
                assert_eq!(*start, joined.len() as u64);
                joined.extend_from_slice(block);
                assert!(block.ends_with(b"\n") || joined.len() == text.len(), "{block_bytes}");
            }
            assert_eq!(joined, text);
        }
        assert_eq!(blocks(b"", 4), []);
    }

    #[test]
    fn a_record_without_end_is_refused_at_the_limit() {
        let endless = Box::new(io::repeat(b'x'));
        let mut reader = BlockReader::new(endless, Cutter::Lines, 4 << 20, 7);
        assert!(matches!(reader.next(Vec::new()), Err(BlockError::RecordTooLong(_))));
        assert_eq!(reader.offset(), 7);
    }

    #[test]
    fn a_line_that_is_too_long_can_be_passed_over() {
        for rest in ["\nab\nc", "\n", ""] {
            let long = RECORD_BYTES_MAX * 5 / 4;
            let text = [vec![b'x'; long], rest.as_bytes().to_vec()].concat();
            let mut reader = BlockReader::new(Box::new(io::Cursor::new(text.clone())), Cutter::Lines, 1 << 20, 0);
            let Err(BlockError::RecordTooLong(head)) = reader.next(Vec::new()) else { panic!("it is not too long") };
            assert!(head.len() > RECORD_BYTES_MAX && head.iter().all(|byte| *byte == b'x'));
            reader.skip_line(head.len()).unwrap();
            assert_eq!(reader.offset() as usize, long + usize::from(!rest.is_empty()));
            let next = reader.next(Vec::new()).unwrap().map(|block| block.text().to_vec());
            assert_eq!(next.unwrap_or_default(), rest.as_bytes().get(1..).unwrap_or_default());
        }
    }
}
