//! What was looked up, by key: bounded in rows, the oldest first to go, and by the clock of the epochs.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::row::OwnedRow;
use hashbrown::HashMap;
use mainstem_plan::operator::LookupCache;

/// See the module.
pub(super) struct Cache {
    limits: LookupCache,
    entries: HashMap<OwnedRow, Entry>,
    /// Keys in the order in which they were put.
    by_age: BTreeMap<u64, OwnedRow>,
    puts: u64,
    /// Rows of all entries.
    rows: u64,
}

struct Entry {
    rows: RecordBatch,
    put: u64,
    at_ms: i64,
}

impl Entry {
    fn weight(&self) -> u64 {
        (self.rows.num_rows() as u64).max(1)
    }
}

impl Cache {
    pub(super) fn new(limits: LookupCache) -> Cache {
        Cache { limits, entries: HashMap::new(), by_age: BTreeMap::new(), puts: 0, rows: 0 }
    }

    /// The rows of a key, where they are known and not too old.
    pub(super) fn get(&mut self, key: &OwnedRow, now_ms: i64) -> Option<RecordBatch> {
        let entry = self.entries.get(key)?;
        let age_ms = u64::try_from(now_ms.saturating_sub(entry.at_ms)).unwrap_or(0);
        if self.limits.expire_after_write_ms.is_some_and(|most| age_ms >= most) {
            let put = entry.put;
            self.remove(put);
            return None;
        }
        Some(entry.rows.clone())
    }

    pub(super) fn put(&mut self, key: OwnedRow, rows: RecordBatch, now_ms: i64) {
        if rows.num_rows() == 0 && !self.limits.missing_keys {
            return;
        }
        if let Some(put) = self.entries.get(&key).map(|entry| entry.put) {
            self.remove(put);
        }
        self.puts += 1;
        let entry = Entry { rows, put: self.puts, at_ms: now_ms };
        self.rows += entry.weight();
        self.by_age.insert(self.puts, key.clone());
        self.entries.insert(key, entry);
        while self.rows > self.limits.rows_max {
            let Some(oldest) = self.by_age.keys().next().copied() else { return };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, put: u64) {
        let entry = self.by_age.remove(&put).and_then(|key| self.entries.remove(&key));
        self.rows -= entry.map_or(0, |entry| entry.weight());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use arrow::row::{RowConverter, SortField};

    use super::*;

    fn keys(count: i64) -> Vec<OwnedRow> {
        let converter = RowConverter::new(vec![SortField::new(DataType::Int64)]).unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        let rows = converter.convert_columns(&[column]).unwrap();
        rows.iter().map(|row| row.owned()).collect()
    }

    fn rows(count: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn the_oldest_go_when_there_are_many_and_all_by_their_age() {
        let keys = keys(4);
        let limits = LookupCache { rows_max: 5, expire_after_write_ms: Some(100), missing_keys: true };
        let mut cache = Cache::new(limits);
        cache.put(keys[0].clone(), rows(2), 0);
        cache.put(keys[1].clone(), rows(0), 10);
        cache.put(keys[2].clone(), rows(2), 20);
        assert_eq!(cache.get(&keys[0], 50).map(|rows| rows.num_rows()), Some(2));
        assert_eq!(cache.get(&keys[1], 50).map(|rows| rows.num_rows()), Some(0), "known not to be there");
        cache.put(keys[3].clone(), rows(1), 60);
        assert!(cache.get(&keys[0], 60).is_none(), "the oldest made room");
        assert!(cache.get(&keys[1], 110).is_none(), "too old");
        assert!(cache.get(&keys[2], 110).is_some());
        cache.put(keys[2].clone(), rows(9), 120);
        assert_eq!((cache.rows, cache.entries.len(), cache.by_age.len()), (0, 0, 0), "too large to keep");
        let mut cache = Cache::new(LookupCache { rows_max: 5, expire_after_write_ms: None, missing_keys: false });
        cache.put(keys[0].clone(), rows(0), 0);
        assert!(cache.get(&keys[0], 0).is_none());
    }
}
