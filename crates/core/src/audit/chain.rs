//! The canonical bytes of what stands in the trail, and their SHA-256. `docs/formats/audit.md` holds the same in words; a
//! change here makes every file of before unverifiable.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::AuditRecord;
use super::lines::{FileHead, Gap};

/// A SHA-256; sixty-four hexadecimal digits in small letters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuditHash([u8; 32]);

/// How far a chain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    pub hash: AuditHash,
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<AuditHash> for String {
    fn from(hash: AuditHash) -> String {
        hash.to_string()
    }
}

impl TryFrom<String> for AuditHash {
    type Error = String;

    fn try_from(text: String) -> Result<AuditHash, String> {
        let wrong = || format!("'{text}' is no hash, which has 64 hexadecimal digits in small letters");
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(AuditHash(bytes))
    }
}

/// Bytes that are hashed as they come: numbers in eight bytes, the highest first; texts behind their length.
struct Canonical(Sha256);

impl Canonical {
    /// What is hashed, so that a thing of one kind never has the hash of one of another.
    fn of(kind: &str, before: &AuditHash) -> Canonical {
        let mut hash = Sha256::new();
        hash.update(kind.as_bytes());
        hash.update(b"\n");
        hash.update(before.0);
        Canonical(hash)
    }

    fn number(mut self, number: u64) -> Canonical {
        self.0.update(number.to_be_bytes());
        self
    }

    fn text(self, text: &str) -> Canonical {
        let mut with_length = self.number(text.len() as u64);
        with_length.0.update(text.as_bytes());
        with_length
    }

    fn end(self) -> AuditHash {
        AuditHash(self.0.finalize().into())
    }
}

/// The hash of a record, whatever it says its hash is.
pub(super) fn record_hash(record: &AuditRecord) -> AuditHash {
    let AuditRecord { seq, at, by, job, what, facts, reason, before, hash: _ } = record;
    let job = job.as_ref().map_or("", |job| job.as_str());
    let front = Canonical::of("mainstem-audit-record-1", before).number(*seq).number(at.0.cast_unsigned());
    let front = front.text(by).text(job).text(what.name()).number(facts.len() as u64);
    facts.iter().fold(front, |bytes, (name, value)| bytes.text(name).text(value)).text(reason).end()
}

/// The seal of a gap behind this record.
pub(super) fn gap_seal(before: &AuditHash, gap: &Gap) -> AuditHash {
    let Gap { first, last, chain, at, reason, seal: _ } = gap;
    let mut bytes = Canonical::of("mainstem-audit-gap-1", before).number(*first).number(*last);
    bytes.0.update(chain.0);
    bytes.number(at.0.cast_unsigned()).text(reason).end()
}

/// The seal of the head of a file.
pub(super) fn file_seal(head: &FileHead) -> AuditHash {
    let FileHead { trail, node, number, after, seal: _ } = head;
    let bytes = Canonical::of("mainstem-audit-file-1", &after.hash).text(trail).number(*node);
    bytes.number(*number).number(after.seq).end()
}
