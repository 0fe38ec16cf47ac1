//! Joins rows with a table that its connector reads as a whole: loaded before the first row, kept in memory by key,
//! and loaded again, beside the work, when it is older than it may be. A newer version counts from the next epoch on,
//! so that all rows of an epoch meet the same one. Or with a table that is asked for the keys of each batch
//! ([`KeyedLookup`]). What no version can promise: that a replay finds the table as
//! the first run found it.

mod by_key;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{JoinKind, LookupJoin as Spec};
use tokio::task::JoinSet;

pub(crate) use self::by_key::KeyedLookup;
use self::table::LookupTable;
pub(crate) use self::table::{LOOKUP_BYTES_MAX, Loader as LookupLoader};
use super::key_index::{KeyFormat, Keys};
use super::pairs::{Found, PairRows, filtered};
use super::row_room::RowRoom;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, PieceRows};

/// See the module.
pub(crate) struct LookupJoin {
    name: String,
    outer: bool,
    keys: Arc<KeyFormat>,
    pairs: PairRows,
    loader: LookupLoader,
    reload_ms: Option<u64>,
    context: EvalContext,
    /// What was loaded first.
    first: Arc<OnceLock<LookupTable>>,
    /// What was loaded last, if that was not the first time.
    newer: Option<LookupTable>,
    /// The time of the epoch in which loading began.
    loaded_at_ms: i64,
    loading: JoinSet<Result<LookupTable, EngineError>>,
    /// Set where rows are asked for by key; then nothing is loaded.
    keyed: Option<KeyedLookup>,
    room: RowRoom,
    piece: PieceRows,
    /// Rows that give more than a step may make.
    taking: Option<Taking>,
}

/// Rows that are being taken.
struct Taking {
    batch: StreamBatch,
    keys: Keys,
    /// What was found by key for these rows.
    table: Option<LookupTable>,
    /// The next row.
    next: usize,
    found: Found<(u32, u32)>,
    matched: Vec<bool>,
}

impl LookupJoin {
    /// An operator that has not loaded its table, and whose output has the columns of `output`.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        output: SchemaRef,
        loader: LookupLoader,
        keyed: Option<KeyedLookup>,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let outer = match spec.kind {
            JoinKind::Inner => false,
            JoinKind::Left => true,
            other => return Err(EngineError::Bug(format!("'{name}': a lookup join cannot be {other:?}"))),
        };
        Ok(LookupJoin {
            name: name.to_owned(),
            outer,
            keys: loader.keys.clone(),
            pairs: PairRows::new(name, &spec.on, output, context)?,
            loader,
            reload_ms: spec.reload_ms,
            context: context.clone(),
            first: Arc::default(),
            newer: None,
            loaded_at_ms: i64::MIN,
            loading: JoinSet::new(),
            keyed,
            room: RowRoom::new(name, size_of::<(u32, u32)>(), context),
            piece: PieceRows::default(),
            taking: None,
        })
    }

    /// Goes on with rows that have come, as far as one step may go.
    fn run(&mut self, mut taking: Taking, out: &mut Collector) -> Result<(), EngineError> {
        let (newer, first) = (self.newer.take(), self.first.clone());
        let all_given = match taking.table.take() {
            Some(table) => {
                let all_given = self.join(&mut taking, &table, out);
                taking.table = Some(table);
                all_given
            }
            None => match newer.as_ref().or_else(|| first.get()) {
                Some(table) => self.join(&mut taking, table, out),
                None => Err(EngineError::Bug(format!("'{}' has not loaded its table", self.name))),
            },
        };
        self.newer = newer;
        if all_given? {
            return self.give_alone(&taking, out);
        }
        self.taking = Some(taking);
        Ok(())
    }

    /// Gives pairs, as far as one step may go. Whether there are no more.
    fn join(&mut self, taking: &mut Taking, table: &LookupTable, out: &mut Collector) -> Result<bool, EngineError> {
        taking.found.begin_step();
        let rows = taking.batch.rows.num_rows();
        loop {
            if taking.found.must_wait(out) {
                return Ok(false);
            }
            // What is not more than has come leaves as it came.
            let is_few = taking.next == rows && taking.found.len() <= rows;
            let piece = if is_few { taking.found.rest() } else { taking.found.piece(&self.piece) };
            if let Some(pairs) = piece {
                self.give_pairs(table, &taking.batch, &pairs, &mut taking.matched, out)?;
                continue;
            }
            if taking.next == rows {
                return Ok(true);
            }
            let Taking { batch, keys, next, found, .. } = &mut *taking;
            found.collect(&batch.rows, *next..rows, next, &self.room, |row, pairs| {
                if !keys.is_never_equal(row) {
                    pairs.extend(table.find(keys, row).map(|found| (row as u32, found)));
                }
            })?;
        }
    }

    /// Gives the rows without a partner.
    fn give_alone(&self, taking: &Taking, out: &mut Collector) -> Result<(), EngineError> {
        let Taking { batch, matched, .. } = taking;
        if self.outer && matched.contains(&false) {
            let alone = BooleanArray::from_iter(matched.iter().map(|matched| Some(!matched)));
            let alone = batch.filter(&alone).map_err(|e| EngineError::arrow(&self.name, &e))?;
            let padded = self.pairs.left_alone(alone.rows.columns().to_vec(), alone.rows.num_rows())?;
            out.main.push(alone.with_rows(padded));
        }
        Ok(())
    }

    fn give_pairs(
        &mut self,
        table: &LookupTable,
        batch: &StreamBatch,
        pairs: &[(u32, u32)],
        matched: &mut [bool],
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        let name = self.name.clone();
        let failed = |e| EngineError::arrow(&name, &e);
        let rows = batch.rows.num_rows();
        let every_row_once = pairs.len() == rows && pairs.iter().enumerate().all(|(at, (row, _))| at == *row as usize);
        let mut left = match every_row_once {
            true => batch.clone(),
            false => batch.take(&UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row))).map_err(failed)?,
        };
        let mut right = table.columns(pairs.iter().map(|(_, row)| *row)).map_err(failed)?;
        let holds = self.pairs.holding(left.rows.columns(), &right, pairs.len())?;
        if let Some(holds) = &holds {
            left = left.filter(holds).map_err(failed)?;
            right = filtered(&self.name, right, holds)?;
        }
        for (at, (row, _)) in pairs.iter().enumerate() {
            matched[*row as usize] |= holds.as_ref().is_none_or(|holds| holds.value(at));
        }
        let count = left.rows.num_rows();
        if count > 0 {
            let columns: Vec<ArrayRef> = left.rows.columns().to_vec();
            let batch = left.with_rows(self.pairs.pairs(columns, right, count)?);
            self.piece.learn(&batch);
            out.main.push(batch);
        }
        Ok(())
    }
}

impl Operator for LookupJoin {
    fn prepare(&mut self) -> Option<BoxFuture<'static, Result<(), EngineError>>> {
        if let Some(keyed) = &self.keyed {
            return Some(keyed.check().boxed());
        }
        self.loaded_at_ms = self.context.now_ms();
        let (loader, first) = (self.loader.clone(), self.first.clone());
        let load = async move {
            let table = loader.load().await?;
            first.set(table).map_err(|_| EngineError::Bug("a table is loaded for the first time twice".into()))
        };
        Some(load.boxed())
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let keys = self.keys.left(&batch.rows)?;
        let now_ms = self.context.now_ms();
        let looked_up = match &mut self.keyed {
            Some(keyed) => Some(keyed.look_up(&batch.rows, &keys, &self.keys, now_ms)?),
            None => None,
        };
        let matched = vec![false; batch.rows.num_rows()];
        self.run(Taking { batch, keys, table: looked_up, next: 0, found: Found::none(), matched }, out)
    }

    fn has_more(&self) -> bool {
        self.taking.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.taking.take().map_or(Ok(()), |taking| self.run(taking, out))
    }

    /// There is no state. The end of the epoch is where a newer version of the table is taken over.
    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let Some(reload_ms) = self.reload_ms else { return Ok(None) };
        if let Some(loaded) = self.loading.try_join_next() {
            let loaded = loaded.map_err(|e| EngineError::Bug(format!("'{}': loading its table: {e}", self.name)))?;
            self.newer = Some(loaded?);
        }
        let now = self.context.now_ms();
        let age = u64::try_from(now.saturating_sub(self.loaded_at_ms)).unwrap_or(0);
        if self.first.get().is_some() && self.loading.is_empty() && age >= reload_ms {
            self.loaded_at_ms = now;
            let loader = self.loader.clone();
            self.loading.spawn(async move { loader.load().await });
        }
        Ok(None)
    }
}
