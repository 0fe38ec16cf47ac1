//! SQL in two dialects at once: that of the product and that of the batch engine.

/// A piece of SQL, as a job and as a batch query write it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sql {
    pub(crate) job: String,
    pub(crate) batch: String,
}

/// What can stand in a piece of SQL.
pub(crate) trait Piece {
    fn job(&self) -> &str;
    fn batch(&self) -> &str;
}

impl Piece for Sql {
    fn job(&self) -> &str {
        &self.job
    }

    fn batch(&self) -> &str {
        &self.batch
    }
}

impl Piece for String {
    fn job(&self) -> &str {
        self
    }

    fn batch(&self) -> &str {
        self
    }
}

impl<T: Piece + ?Sized> Piece for &T {
    fn job(&self) -> &str {
        (**self).job()
    }

    fn batch(&self) -> &str {
        (**self).batch()
    }
}

impl Piece for str {
    fn job(&self) -> &str {
        self
    }

    fn batch(&self) -> &str {
        self
    }
}

impl Sql {
    /// The text with the pieces in place of each `{}`.
    pub(crate) fn assembled(text: &str, pieces: &[&dyn Piece]) -> Sql {
        let mut assembled = Sql::default();
        let mut pieces = pieces.iter();
        for (number, part) in text.split("{}").enumerate() {
            if number > 0 {
                let piece = pieces.next().expect("a piece for each {}");
                assembled.job += piece.job();
                assembled.batch += piece.batch();
            }
            assembled.job += part;
            assembled.batch += part;
        }
        assert!(pieces.next().is_none(), "more pieces than places: {text}");
        assembled
    }

    pub(crate) fn differing(job: impl Into<String>, batch: impl Into<String>) -> Sql {
        Sql { job: job.into(), batch: batch.into() }
    }

    pub(crate) fn join(pieces: &[Sql], between: &str) -> Sql {
        let joined = |dialect: fn(&Sql) -> &str| pieces.iter().map(dialect).collect::<Vec<_>>().join(between);
        Sql { job: joined(|piece| &piece.job), batch: joined(|piece| &piece.batch) }
    }
}

impl<T: Into<String>> From<T> for Sql {
    fn from(text: T) -> Sql {
        let text = text.into();
        Sql { job: text.clone(), batch: text }
    }
}

/// As `format!`, of pieces in both dialects that stand for `{}`. Each piece is evaluated once.
macro_rules! sql {
    ($text:literal $(, $piece:expr)* $(,)?) => {
        $crate::fuzz::sql::Sql::assembled($text, &[$(&$piece as &dyn $crate::fuzz::sql::Piece),*])
    };
}
pub(crate) use sql;
