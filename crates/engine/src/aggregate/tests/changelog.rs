//! Folds what an operator gives, and checks that its changes fit together.

use std::collections::BTreeMap;

use mainstem_core::change::ChangeKind;

use super::super::*;
use super::oracle::text_of;

/// Rows by how often they are there, and the number of changes of each kind.
#[derive(Default)]
pub(super) struct Fold {
    rows: BTreeMap<Vec<String>, usize>,
    pub(super) kinds: BTreeMap<&'static str, usize>,
}

impl Fold {
    pub(super) fn take(&mut self, out: Collector) {
        for batch in out.main {
            assert!(batch.rows.num_rows() <= 8192, "batches are bounded");
            let mut before: Option<Vec<String>> = None;
            for row in 0..batch.rows.num_rows() {
                let number = batch.changes.as_ref().map_or(0, |changes| changes.value(row));
                let kind = ChangeKind::from_number(number).unwrap();
                *self.kinds.entry(kind.symbol()).or_default() += 1;
                let text = text_of(&batch.rows, row);
                if kind == ChangeKind::UpdateAfter
                    && let Some(before) = before.take()
                {
                    assert_ne!(before, text, "an update changes something");
                }
                if kind == ChangeKind::UpdateBefore {
                    before = Some(text.clone());
                }
                if kind.is_addition() {
                    *self.rows.entry(text).or_default() += 1;
                } else {
                    let there = self.rows.get_mut(&text).unwrap_or_else(|| panic!("{text:?} goes and was not there"));
                    *there -= 1;
                    if *there == 0 {
                        self.rows.remove(&text);
                    }
                }
            }
        }
    }

    /// The rows that are there, in order.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        assert!(self.rows.values().all(|count| *count == 1), "a group has one row");
        self.rows.keys().cloned().collect()
    }

    pub(super) fn kinds(&self) -> Vec<(&'static str, usize)> {
        self.kinds.iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}
