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
use super::key_index::KeyFormat;
use super::pairs::{EMIT_ROWS_MAX, PairRows, filtered};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator};

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
        })
    }

    fn give_pairs(
        &self,
        table: &LookupTable,
        batch: &StreamBatch,
        pairs: &[(u32, u32)],
        matched: &mut [bool],
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let failed = |e| EngineError::arrow(&self.name, &e);
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
            out.main.push(left.with_rows(self.pairs.pairs(columns, right, count)?));
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
        let table = looked_up.as_ref().or(self.newer.as_ref()).or_else(|| self.first.get());
        let table = table.ok_or_else(|| EngineError::Bug(format!("'{}' has not loaded its table", self.name)))?;
        let rows = batch.rows.num_rows();
        let mut matched = vec![false; rows];
        let mut pairs: Vec<(u32, u32)> = Vec::with_capacity(rows);
        for row in (0..rows).filter(|row| !keys.is_never_equal(*row)) {
            pairs.extend(table.find(&keys, row).map(|found| (row as u32, found)));
            while pairs.len() > EMIT_ROWS_MAX {
                let rest = pairs.split_off(EMIT_ROWS_MAX);
                self.give_pairs(table, &batch, &pairs, &mut matched, out)?;
                pairs = rest;
            }
        }
        self.give_pairs(table, &batch, &pairs, &mut matched, out)?;
        if self.outer && matched.contains(&false) {
            let alone = BooleanArray::from_iter(matched.iter().map(|matched| Some(!matched)));
            let alone = batch.filter(&alone).map_err(|e| EngineError::arrow(&self.name, &e))?;
            let padded = self.pairs.left_alone(alone.rows.columns().to_vec(), alone.rows.num_rows())?;
            out.main.push(alone.with_rows(padded));
        }
        Ok(())
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
