//! Why a record cannot be decoded: made deep inside a decoder, completed with the names of the columns on its
//! way out. Only ever built for broken records, so that it may allocate.

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where in the record, in bytes from its start.
    pub(crate) at: usize,
    /// The column and the fields inside it, innermost first; empty where no column is to blame.
    path: Vec<String>,
    /// What is wrong, as the end of a sentence.
    reason: String,
    /// It stops the job whatever else becomes of broken records.
    pub(crate) stops: bool,
}

/// The result of a decoding step. Boxed, so that the good case stays small.
pub(crate) type Faulty<T> = Result<T, Box<Fault>>;

impl Fault {
    /// A fault at a place of the record.
    #[cold]
    pub(crate) fn new(at: usize, reason: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { at, path: Vec::new(), reason: reason.into(), stops: false })
    }

    /// The same fault, found at another place: for steps that do not know where they stand.
    #[cold]
    pub(crate) fn located(mut self: Box<Self>, at: usize) -> Box<Fault> {
        self.at = at;
        self
    }

    /// The same fault, as one that stops the job: not this record is to blame.
    #[cold]
    pub(crate) fn stopping(mut self: Box<Self>) -> Box<Fault> {
        self.stops = true;
        self
    }

    /// The same fault, inside the named column or field.
    #[cold]
    pub(crate) fn inside(mut self: Box<Self>, name: &str) -> Box<Fault> {
        self.path.push(name.to_owned());
        self
    }

    /// Column and reason, for the user.
    pub(crate) fn describe(&self) -> String {
        if self.path.is_empty() {
            return self.reason.clone();
        }
        let names: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        format!("column '{}': {}", names.join("."), self.reason)
    }
}

/// A part of the data for an error message: printable, and at most `characters_max` long. `at` is a byte of
/// the record that the excerpt should show; the excerpt begins with the record unless that byte lies far in.
pub(crate) fn excerpt(record: &[u8], at: usize, characters_max: usize) -> String {
    let at = at.min(record.len());
    let from = if at < characters_max { 0 } else { at - characters_max / 2 };
    // Four bytes a character suffice; a character that is cut in two shows as a replacement character.
    let to = record.len().min(from + characters_max * 4);
    let text = String::from_utf8_lossy(&record[from..to]);
    let shown: String = text.chars().take(characters_max).map(|c| if c.is_control() { '.' } else { c }).collect();
    let cut = to < record.len() || text.chars().nth(characters_max).is_some();
    format!("{}{shown}{}", if from > 0 { "..." } else { "" }, if cut { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_column_from_the_outside_in() {
        let fault = Fault::new(3, "expected INT").inside("x").inside("items");
        assert_eq!(fault.describe(), "column 'items.x': expected INT");
        assert_eq!(fault.located(9).at, 9);
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(b"a\tb\x1b[31m", 0, 120), "a.b.[31m");
        assert_eq!(excerpt(&[b'x'; 200], 0, 120), format!("{}...", "x".repeat(120)));
        let mut long = vec![b'x'; 500];
        long[400] = b'!';
        let shown = excerpt(&long, 400, 120);
        assert!(shown.starts_with("...x") && shown.ends_with("x...") && shown.contains('!'), "{shown}");
        assert_eq!(shown.len(), 126);
        assert_eq!(excerpt(b"\xff\xfe", 0, 120), "\u{fffd}\u{fffd}");
    }
}
