//! Kinds of changes in a changelog, as Flink names them. A stream without kinds only inserts.

use serde::{Deserialize, Serialize};

/// What a row of a changelog does to the table that the stream describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ChangeKind {
    /// A new row (`+I`).
    Insert = 0,
    /// The old content of a row that is updated (`-U`). Followed by its [`ChangeKind::UpdateAfter`].
    UpdateBefore = 1,
    /// The new content of a row that is updated (`+U`).
    UpdateAfter = 2,
    /// A row that goes away (`-D`), with its last content.
    Delete = 3,
}

impl ChangeKind {
    /// The kind of a number, as batches carry it.
    #[must_use]
    pub fn from_number(number: i8) -> Option<ChangeKind> {
        [ChangeKind::Insert, ChangeKind::UpdateBefore, ChangeKind::UpdateAfter, ChangeKind::Delete]
            .into_iter()
            .find(|kind| *kind as i8 == number)
    }

    /// Whether the row is added to the table; otherwise it is taken away.
    #[must_use]
    pub fn is_addition(self) -> bool {
        matches!(self, ChangeKind::Insert | ChangeKind::UpdateAfter)
    }

    /// `+I`, `-U`, `+U` or `-D`.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            ChangeKind::Insert => "+I",
            ChangeKind::UpdateBefore => "-U",
            ChangeKind::UpdateAfter => "+U",
            ChangeKind::Delete => "-D",
        }
    }
}

/// Which kinds of changes a stream may hold. Ordered by how much a receiver must be able to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChangeMode {
    /// Only `+I`.
    #[default]
    Append,
    /// `+I`, `+U`, `-D` by a key: a row replaces the one before it of the same key. No `-U`.
    Upsert,
    /// All four: every row that goes away or is replaced comes again, with its whole content.
    Retract,
}

impl ChangeMode {
    /// The kinds, as `EXPLAIN` shows them.
    #[must_use]
    pub fn symbols(self) -> &'static str {
        match self {
            ChangeMode::Append => "+I",
            ChangeMode::Upsert => "+I, +U, -D",
            ChangeMode::Retract => "+I, -U, +U, -D",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_part_of_stored_formats() {
        let numbers: Vec<_> = (0..4).map(|n| ChangeKind::from_number(n).unwrap().symbol()).collect();
        assert_eq!(numbers, ["+I", "-U", "+U", "-D"]);
        assert_eq!(ChangeKind::from_number(4), None);
    }
}
