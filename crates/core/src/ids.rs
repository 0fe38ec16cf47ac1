//! The identities that every crate speaks of. Newtypes, so that an epoch can never be passed where a
//! generation is meant. Used by every crate; knows nothing of any of them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number_id!(
    /// Number of a barrier and of the checkpoint that it makes. The first epoch of a job is 1; it only grows.
    Epoch(u64), ""
);
number_id!(
    /// Number of an attempt to run a job. A later generation fences every earlier one (I3).
    Generation(u64), ""
);
number_id!(
    /// An operator of a [`crate::graph::StreamGraph`], stable for the life of the job.
    OperatorId(u32), "op"
);
number_id!(
    /// The unit of state placement; a job has a fixed number of them.
    KeyGroup(u16), "kg"
);

impl OperatorId {
    /// No operator: where something is about a place and not about what runs there.
    pub const NONE: OperatorId = OperatorId(u32::MAX);
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// A job, by the name under which its state is kept. Only letters, digits, `-`, `_` and `.`, so that it can
/// be part of a path and of an object name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// Longest accepted name, in bytes; leaves room for suffixes within the 255 bytes of a file name.
    pub const LENGTH_MAX: usize = 128;

    /// Accepts a name, or says what is wrong with it.
    pub fn new(name: impl Into<String>) -> Result<JobId, String> {
        let name = name.into();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > Self::LENGTH_MAX {
            return Err(format!("a job id has 1 to {} characters, this one has {}", Self::LENGTH_MAX, name.len()));
        }
        if name.starts_with('.') || !name.chars().all(legal) {
            return Err(format!(
                "job id '{name}' may hold only letters, digits, '-', '_' and '.', and not start with '.'"
            ));
        }
        Ok(JobId(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A savepoint that somebody has asked for: a random name, so that no two requests of any cluster ever share one.
/// Sixteen hexadecimal digits; part of file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SavepointId(String);

impl SavepointId {
    /// The id of a random number.
    #[must_use]
    pub fn of(random: u64) -> SavepointId {
        SavepointId(format!("{random:016x}"))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SavepointId {
    type Error = String;

    fn try_from(text: String) -> Result<SavepointId, String> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 16 && text.bytes().all(legal) {
            Ok(SavepointId(text))
        } else {
            Err(format!("'{text}' is not the id of a savepoint, which has 16 hexadecimal digits"))
        }
    }
}

impl From<SavepointId> for String {
    fn from(id: SavepointId) -> String {
        id.0
    }
}

impl fmt::Display for SavepointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the parallel instances of an operator (of the first operator of a chain, where operators are chained).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskId {
    /// The operator; the head of its chain.
    pub operator: OperatorId,
    /// 0 to parallelism - 1.
    pub index: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.operator, self.index)
    }
}

/// A part of a source that is read in order by one reader at a time: a file, a partition of a log, one
/// generator. Unique within its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(pub String);

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoint_ids_are_sixteen_digits() {
        assert_eq!(SavepointId::of(255).as_str(), "00000000000000ff");
        for bad in ["", "../../0000000000", "00000000000000FF", "0"] {
            assert!(SavepointId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn job_ids_are_safe_as_path_parts() {
        assert!(JobId::new("fraud-1.v2").is_ok());
        for bad in ["", "..", ".hidden", "a/b", "a b", "ä", "%s", &"x".repeat(129)] {
            assert!(JobId::new(bad).is_err(), "{bad}");
        }
    }
}
