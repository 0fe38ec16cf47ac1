//! Which copies there are and which of them goes first. Pure bookkeeping: the files are somebody else's.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Copies of which the index knows, however small they are.
const COPIES_MAX: usize = 65_536;

/// The copies by name, and the order in which they were used.
#[derive(Debug)]
pub(super) struct Index {
    bytes_max: u64,
    bytes: u64,
    copies: BTreeMap<String, Kept>,
    /// Names by when they were used last.
    by_use: BTreeMap<u64, String>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: u64,
    used: u64,
}

impl Index {
    /// Knows of none, and takes at most so many bytes.
    pub(super) fn new(bytes_max: u64) -> Index {
        Index { bytes_max, bytes: 0, copies: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// Takes note of a copy that is there now. Gives the names of those that have to go for it, least recently used first.
    pub(super) fn insert(&mut self, name: &str, bytes: u64) -> Vec<String> {
        self.remove(name);
        self.uses += 1;
        self.copies.insert(name.to_owned(), Kept { bytes, used: self.uses });
        self.by_use.insert(self.uses, name.to_owned());
        self.bytes += bytes;
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max || self.copies.len() > COPIES_MAX {
            let Some(oldest) = self.by_use.values().next().cloned() else { break };
            self.remove(&oldest);
            gone.push(oldest);
        }
        gone
    }

    /// Whether there is such a copy, which counts as used then.
    pub(super) fn touch(&mut self, name: &str) -> bool {
        let Some(copy) = self.copies.get_mut(name) else { return false };
        self.by_use.remove(&copy.used);
        self.uses += 1;
        copy.used = self.uses;
        self.by_use.insert(self.uses, name.to_owned());
        true
    }

    /// Whether there is such a copy.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.copies.contains_key(name)
    }

    /// Whether a copy can be taken in without another one having to go.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.bytes_max && self.copies.len() < COPIES_MAX
    }

    /// Forgets a copy; whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(copy) = self.copies.remove(name) else { return false };
        self.by_use.remove(&copy.used);
        self.bytes -= copy.bytes;
        true
    }

    /// Whether a file is so large that no copy of it can be kept.
    pub(super) fn is_too_large(&self, bytes: u64) -> bool {
        bytes > self.bytes_max
    }

    /// Names of the copies that begin so, in order.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.copies.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(name, _)| name.as_str()).take_while(move |name| name.starts_with(prefix))
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_at_the_bound() {
        let mut index = Index::new(100);
        for name in ["a", "b", "c"] {
            assert_eq!(index.insert(name, 30), Vec::<String>::new());
        }
        assert!(index.touch("a"));
        assert!(!index.touch("d"));
        assert_eq!(index.insert("d", 60), ["b", "c"]);
        assert_eq!(index.names("").collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(index.bytes(), 90);
        assert_eq!(index.insert("a", 40), Vec::<String>::new(), "the same once more, in another size");
        assert!(index.remove("d") && !index.remove("d"));
        assert_eq!((index.bytes(), index.by_use.len()), (40, 1));
        assert!(index.is_too_large(101) && !index.is_too_large(100));
    }

    #[test]
    fn names_of_a_job_are_found_by_how_they_begin() {
        let mut index = Index::new(100);
        for name in ["s/j/1", "s/j/2", "s/jj/1", "t/j/1"] {
            index.insert(name, 1);
        }
        assert_eq!(index.names("s/j/").collect::<Vec<_>>(), ["s/j/1", "s/j/2"]);
        assert_eq!(index.names("s/").count(), 3);
        assert_eq!(index.names("u").count(), 0);
    }
}
