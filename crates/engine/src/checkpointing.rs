//! For tests of operators: checkpoints that are held in memory, and operators restored from them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use mainstem_core::ids::Epoch;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_state::TableDelta;

use crate::merging::{self, MergeOrder, Merged, Tables};
use crate::operator::{Operator, Restored};

/// The files that an operator has written, and which of them its newest checkpoint needs.
#[derive(Default)]
pub(crate) struct Checkpoints {
    files: BTreeMap<String, Vec<(String, u32, RecordBatch)>>,
    needed: Vec<StateHandle>,
    meta: String,
    epoch: u64,
}

impl Checkpoints {
    /// Takes a checkpoint. Gives the number of rows that it wrote.
    pub(crate) fn take(&mut self, operator: &mut dyn Operator) -> usize {
        self.epoch += 1;
        let capture = operator.capture(Epoch(self.epoch)).unwrap().expect("the operator has state");
        self.needed = capture.retained.iter().map(|handle| handle.get().expect("written before").clone()).collect();
        let rows = |table: crate::operator::TableRows| {
            table.rows.into_iter().map(move |rows| (table.name.to_owned(), table.version, rows))
        };
        let rows: Vec<_> = capture.tables.into_iter().flat_map(rows).filter(|(_, _, r)| r.num_rows() > 0).collect();
        let written = rows.iter().map(|(_, _, rows)| rows.num_rows()).sum();
        if !rows.is_empty() {
            let path = format!("file {}", self.epoch);
            let handle = StateHandle {
                path: path.clone(),
                size: 0,
                epoch: Epoch(self.epoch),
                key_groups: KeyGroupRange { start: 0, end: 256 },
                crc32c: 0,
            };
            capture.handle.set(handle.clone()).expect("set once");
            self.files.insert(path, rows);
            self.needed.push(handle);
        }
        if let Some(order) = capture.merge {
            self.merge(order);
        }
        self.meta = capture.meta;
        written
    }

    /// What the uploader does with files.
    fn merge(&mut self, order: MergeOrder) {
        let inputs: Vec<_> = order.inputs.iter().map(|input| input.get().expect("written before")).collect();
        let mut rows = Tables::new();
        for (table, version, batch) in inputs.iter().flat_map(|input| &self.files[&input.path]) {
            // As if there were one key group.
            let key_groups = vec![0; batch.num_rows()];
            let (table, version, rows_of) = (table.clone(), *version, batch.clone());
            let delta = TableDelta { table: table.clone(), version, key: Vec::new(), key_groups, rows: rows_of };
            rows.entry((table, version)).or_default().push(delta);
        }
        let tables = merging::merge(rows, &order.rules, order.from_start).unwrap();
        let tables = tables.into_iter().filter(|table| !table.is_empty());
        let rows: Vec<_> =
            tables.map(|table| (table.table.clone(), table.version, table.rows(0..table.len()).unwrap())).collect();
        let newest = (*inputs.last().expect("some")).clone();
        let handle = StateHandle { path: format!("merged {}", self.epoch), ..newest };
        let count = rows.iter().map(|(_, _, rows)| rows.num_rows()).sum();
        self.files.insert(handle.path.clone(), rows);
        order.merged.set(Merged { files: vec![handle], rows: count }).expect("set once");
    }

    /// Gives a new operator the state of the newest checkpoint.
    pub(crate) fn restore(&self, operator: &mut dyn Operator) {
        if self.epoch > 0 {
            operator.restore_meta(std::slice::from_ref(&self.meta)).unwrap();
        }
        for handle in &self.needed {
            let tables = self.files[&handle.path].clone();
            operator.restore(Restored::decoded(handle.clone(), tables)).unwrap();
        }
        operator.restored().unwrap();
    }

    /// Rows in the files that the newest checkpoint needs.
    pub(crate) fn rows(&self) -> usize {
        self.needed.iter().flat_map(|handle| &self.files[&handle.path]).map(|(_, _, rows)| rows.num_rows()).sum()
    }
}
