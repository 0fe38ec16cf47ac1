//! Time as the protocols see it: milliseconds since 1970-01-01 UTC, handed in by the caller. Nothing in this
//! crate reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since the Unix epoch. Used for event time, for watermarks and for the
/// processing time that drivers pass into state machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before everything: the watermark of a stream that has shown nothing yet.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After everything: the watermark of a stream that has ended.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// This time plus a number of milliseconds; stays at the ends of the range.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; negative where it is later.
    #[must_use]
    pub fn since_ms(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MIN => f.write_str("-inf"),
            Timestamp::MAX => f.write_str("+inf"),
            Timestamp(ms) => write!(f, "{ms}ms"),
        }
    }
}
