//! The bytes of the metadata log: how records are framed, and how a record that was being written when the
//! machine stopped is told from one that was damaged later. Pure; see docs/formats/metadata-log.md.

/// First bytes of every log: a name and the version of the format.
pub(super) const HEADER: [u8; 8] = *b"MSMLOG\0\x01";
/// Before each record: length (u32), CRC-32C of the record (u32), CRC-32C of these eight bytes (u32).
const FRAME_BYTES: usize = 12;
/// Longest record.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// The good part of a log.
#[derive(Debug, PartialEq)]
pub(super) struct Scan<'a> {
    /// Each record, with the offset of its frame.
    pub(super) records: Vec<(usize, &'a [u8])>,
    /// Where the next record goes; what lies behind was never acknowledged. 0: not even the header is there.
    pub(super) end: usize,
}

/// A record with its frame.
pub(super) fn encode(record: &[u8]) -> Result<Vec<u8>, String> {
    if record.len() > RECORD_BYTES_MAX {
        return Err(format!("a record of {} bytes is above the limit of {RECORD_BYTES_MAX}", record.len()));
    }
    let length = u32::try_from(record.len()).expect("below the limit");
    let mut bytes = Vec::with_capacity(FRAME_BYTES + record.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend_from_slice(record);
    Ok(bytes)
}

/// Reads a log. An error gives the offset and what is wrong there.
///
/// A record at the very end counts as never acknowledged only where the machine can have stopped while it was
/// written: bytes are missing, or what is there ends in zeros (the file had grown before its content came).
/// Anything else is damage: cutting it off could undo a recorded completion.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan<'_>, (usize, String)> {
    if !bytes.starts_with(&HEADER) {
        let is_unfinished = HEADER.starts_with(bytes) || bytes.iter().all(|b| *b == 0);
        return if is_unfinished && bytes.len() <= HEADER.len() {
            Ok(Scan { records: Vec::new(), end: 0 })
        } else {
            Err((0, "it does not begin as a log of this version does".to_owned()))
        };
    }
    let mut records = Vec::new();
    let mut offset = HEADER.len();
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let Some((frame, after)) = rest.split_first_chunk::<FRAME_BYTES>() else { break };
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        if crc32c::crc32c(&frame[..8]) != word(8) {
            if rest.iter().all(|b| *b == 0) {
                break;
            }
            return Err((offset, "wrong checksum of a record's frame".to_owned()));
        }
        let length = word(0) as usize;
        let Some(record) = after.get(..length) else { break };
        if crc32c::crc32c(record) != word(4) {
            let is_last = after.len() == length;
            // Records are JSON, which holds no zero byte.
            if is_last && record.ends_with(&[0]) {
                break;
            }
            return Err((offset, "wrong checksum of a record".to_owned()));
        }
        records.push((offset, record));
        offset += FRAME_BYTES + length;
    }
    Ok(Scan { records, end: offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: &[&str]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for record in records {
            bytes.extend(encode(record.as_bytes()).unwrap());
        }
        bytes
    }

    #[test]
    fn every_truncation_keeps_the_whole_records_before_it() {
        let bytes = log(&["one", "second", "3"]);
        let ends = [8, 8 + 15, 8 + 15 + 18, 8 + 15 + 18 + 13];
        assert_eq!(bytes.len(), ends[3]);
        for length in 0..=bytes.len() {
            let scan = scan(&bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(scan.records.len(), whole.saturating_sub(1), "{length}");
            assert_eq!(scan.end, if whole == 0 { 0 } else { ends[whole - 1] });
        }
    }

    #[test]
    fn every_changed_bit_is_damage_and_never_a_shorter_log() {
        let bytes = log(&["one", "second", "3"]);
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(scan(&damaged).is_err(), "byte {position}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_tail_of_zeros_was_never_acknowledged() {
        let good = log(&["one"]);
        for zeros in [1, 12, 13, 4096] {
            let mut bytes = good.clone();
            bytes.resize(good.len() + zeros, 0);
            assert_eq!(scan(&bytes).unwrap().end, good.len());
        }
        let mut half = good.clone();
        let record = encode(b"a record whose second half never came").unwrap();
        half.extend(&record[..30]);
        half.resize(good.len() + record.len(), 0);
        assert_eq!(scan(&half).unwrap().end, good.len());
        // The same in the middle of the log is damage.
        half.extend(encode(b"later").unwrap());
        assert!(scan(&half).is_err());
        assert_eq!(scan(&[0; 8]).unwrap().end, 0);
        assert!(scan(b"something else").is_err());
    }
}
