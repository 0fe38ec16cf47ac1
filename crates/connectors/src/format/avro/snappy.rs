//! Snappy, unpacking only: the blocks of Avro files that others have written. A block is a raw Snappy stream and the CRC-32 of
//! what it holds. Follows Google's description of the format.

/// Unpacks a block of a file, whose content has at most `most` bytes.
pub(super) fn unpack_checked(packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let Some((stream, checksum)) = packed.split_last_chunk::<4>() else { return Err("it is too short".to_owned()) };
    let bytes = unpack(stream, most)?;
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    match crc.sum() == u32::from_be_bytes(*checksum) {
        true => Ok(bytes),
        false => Err("its checksum is wrong".to_owned()),
    }
}

fn unpack(stream: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let cut = || "it is cut short".to_owned();
    let mut at = 0;
    let mut take = |length: usize| {
        let bytes = stream.get(at..at + length).ok_or_else(cut)?;
        at += length;
        Ok::<_, String>(bytes)
    };
    let mut length = 0_usize;
    for index in 0..5 {
        let byte = take(1)?[0];
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            break;
        }
    }
    if length > most {
        return Err(format!("it has {length} bytes, more than {most}"));
    }
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let tag = take(1)?[0];
        let upper = usize::from(tag >> 2);
        let (count, back) = match tag & 3 {
            0 => {
                let count = match upper {
                    60.. => little(take(upper - 59)?) + 1,
                    _ => upper + 1,
                };
                if count > length - out.len() {
                    return Err("it has more than it says".to_owned());
                }
                out.extend_from_slice(take(count)?);
                continue;
            }
            1 => ((upper & 7) + 4, (upper >> 3) << 8 | usize::from(take(1)?[0])),
            2 => (upper + 1, little(take(2)?)),
            _ => (upper + 1, little(take(4)?)),
        };
        if back == 0 || back > out.len() || count > length - out.len() {
            return Err("it refers to what is not there".to_owned());
        }
        // What is copied may overlap with what it makes.
        for _ in 0..count {
            out.push(out[out.len() - back]);
        }
    }
    Ok(out)
}

fn little(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies() {
        // "Wikipedia" twice and a run: a literal, a copy with a short offset, a copy that overlaps itself.
        let stream = [&[22, 32][..], b"Wikipedia", &[1 | (5 << 2), 9, 0, b'a', 2 | (2 << 2), 1, 0]].concat();
        let out = unpack(&stream, 100).unwrap();
        assert_eq!(out, b"WikipediaWikipediaaaaaa"[..out.len()]);
        assert_eq!(out.len(), 22);
        assert!(unpack(&stream, 10).unwrap_err().contains("more than 10"));
        assert!(unpack(&stream[..8], 100).unwrap_err().contains("cut short"));
        assert!(unpack(&[4, 2, 1, 0], 100).unwrap_err().contains("not there"));
        assert!(unpack_checked(&[&stream[..], &[0; 4]].concat(), 100).unwrap_err().contains("checksum"));
    }
}
