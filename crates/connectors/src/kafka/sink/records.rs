//! Staged messages as bytes: what writers put into the stage and the publisher takes out. The form is private to one version of
//! the program but for its first byte, since a job may be restored by a later version while an epoch waits.
//!
//! `u8` version, then a zstd frame of records: `u8` flags, and for each part that is there its length as `u32` and its bytes; a
//! time as `i64`. Numbers are little-endian.

use crate::error::ConnectorError;

const VERSION: u8 = 1;
/// Fast; the disk and not the size is what costs.
const ZSTD_LEVEL: i32 = 1;
/// Records of one object, unpacked, in bytes; one record may exceed it.
pub(super) const OBJECT_BYTES_MAX: usize = 8 << 20;

const KEY: u8 = 1;
const VALUE: u8 = 2;
const TIMESTAMP: u8 = 4;
const HEADERS: u8 = 8;

/// A header of a message.
pub(super) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: Vec<Header<'a>>,
}

/// Gathers records.
#[derive(Debug, Default)]
pub(super) struct RecordBuffer {
    bytes: Vec<u8>,
    count: u64,
}

impl RecordBuffer {
    /// Appends a record.
    pub(super) fn push(&mut self, record: &Record<'_>) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        self.bytes.push(
            flag(record.key.is_some(), KEY)
                | flag(record.value.is_some(), VALUE)
                | flag(record.timestamp.is_some(), TIMESTAMP)
                | flag(!record.headers.is_empty(), HEADERS),
        );
        record.key.iter().chain(&record.value).for_each(|part| self.push_part(part));
        if let Some(timestamp) = record.timestamp {
            self.bytes.extend_from_slice(&timestamp.to_le_bytes());
        }
        if !record.headers.is_empty() {
            self.push_length(record.headers.len());
            for (name, value) in &record.headers {
                self.push_part(name.as_bytes());
                self.bytes.push(u8::from(value.is_some()));
                value.iter().for_each(|value| self.push_part(value));
            }
        }
        self.count += 1;
    }

    fn push_part(&mut self, part: &[u8]) {
        self.push_length(part.len());
        self.bytes.extend_from_slice(part);
    }

    fn push_length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("a part of a message is far below 4 GB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    /// Records so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The records, for [`Records`].
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether an object of these records is large enough.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= OBJECT_BYTES_MAX
    }

    /// The records as an object.
    pub(super) fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut packed = vec![VERSION];
        zstd::stream::copy_encode(&self.bytes[..], &mut packed, ZSTD_LEVEL)?;
        Ok(packed)
    }
}

/// The unpacked records of an object.
pub(super) fn unpack(object: &[u8], name: &str) -> Result<Vec<u8>, ConnectorError> {
    let damaged = |why: &str| {
        ConnectorError::new(crate::error::ErrorKind::Lost, format!("the staged output '{name}' cannot be read: {why}"))
    };
    match object.split_first() {
        Some((&VERSION, frame)) => {
            zstd::stream::decode_all(frame).map_err(|error| damaged(&format!("it is damaged ({error})")))
        }
        Some((version, _)) => Err(damaged(&format!("its version {version} is of a later program; start that one"))),
        None => Err(damaged("it is empty")),
    }
}

/// Goes through unpacked records. `None` in place of a record: the bytes are none.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Option<Record<'a>>;

    fn next(&mut self) -> Option<Option<Record<'a>>> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<Record<'a>> {
        let flags = self.take(1)?[0];
        let has = |flag: u8| flags & flag != 0;
        let key = if has(KEY) { Some(self.part()?) } else { None };
        let value = if has(VALUE) { Some(self.part()?) } else { None };
        let timestamp = if has(TIMESTAMP) { Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?)) } else { None };
        let mut headers = Vec::new();
        if has(HEADERS) {
            for _ in 0..self.length()? {
                let name = std::str::from_utf8(self.part()?).ok()?;
                let value = if self.take(1)?[0] == 1 { Some(self.part()?) } else { None };
                headers.push((name, value));
            }
        }
        Some(Record { key, value, timestamp, headers })
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn length(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let records = [
            Record {
                key: Some(b"k"),
                value: Some(b"v"),
                timestamp: Some(-5),
                headers: vec![("h", None), ("i", Some(b""))],
            },
            Record { key: Some(b""), value: None, timestamp: None, headers: vec![] },
            Record::default(),
        ];
        let mut buffer = RecordBuffer::default();
        records.iter().for_each(|record| buffer.push(record));
        assert_eq!(buffer.count(), 3);
        let packed = buffer.pack().unwrap();
        let bytes = unpack(&packed, "x").unwrap();
        let read: Vec<Record<'_>> = Records(&bytes).map(Option::unwrap).collect();
        assert_eq!(read, records);
        for end in 1..bytes.len() {
            let cut = Records(&bytes[..end]).last().unwrap();
            assert!(cut.is_none() || cut.as_ref().is_some_and(|record| records.contains(record)), "{end}");
        }
        assert!(unpack(&packed[..packed.len() - 3], "x").is_err());
        assert!(unpack(&[9], "x").unwrap_err().message.contains("later program"));
        assert!(unpack(&[], "x").is_err());
    }
}
