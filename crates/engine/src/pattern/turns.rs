//! Rows that the watermark has passed, in order, handed to the searches of their partitions: one row of each partition
//! at a time, so that conditions on matches are evaluated for many of them at once.

use std::ops::Range;

use arrow::array::BooleanArray;

use super::evaluator::Candidate;
use super::{FOUND_ROWS, MATCHES_MAX, PatternMatch, ROWS_MAX};
use crate::error::EngineError;
use crate::operator::Collector;
use crate::row_store::RowId;

/// A row whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) slot: u32,
    pub(super) time: i64,
    pub(super) id: RowId,
}

impl PatternMatch {
    /// Puts rows in order: partition by partition, in each by time and the order. `due` are in order of time.
    pub(super) fn in_order(&self, mut due: Vec<Due>) -> Result<Vec<Due>, EngineError> {
        let mut slots: Vec<u32> = due.iter().map(|row| row.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut place = slots.clone();
        place.sort_by(|left, right| self.partitions.key(*left).cmp(self.partitions.key(*right)));
        let mut ranks: Vec<(u32, u32)> = place.into_iter().zip(0..).collect();
        ranks.sort_unstable();
        let rank = |row: &Due| ranks[slots.binary_search(&row.slot).expect("collected from these rows")].1;
        due.sort_by_cached_key(|row| (rank(row), row.time));
        let is_tie = |left: &Due, right: &Due| left.slot == right.slot && left.time == right.time;
        let ties: Vec<RowId> = due.chunk_by(is_tie).filter(|run| run.len() > 1).flatten().map(|row| row.id).collect();
        if ties.is_empty() {
            return Ok(due);
        }
        let rows = self.store.gather(&ties).map_err(|e| self.failed(&e))?;
        let mut encoded = self.codec.encode(&rows).map_err(|e| self.failed(&e))?.into_iter();
        for run in due.chunk_by_mut(is_tie).filter(|run| run.len() > 1) {
            let mut keyed: Vec<_> = encoded.by_ref().take(run.len()).zip(run.iter().copied()).collect();
            keyed.sort_by(|(left, _), (right, _)| left.cmp(right));
            keyed.into_iter().zip(run).for_each(|((_, row), place)| *place = row);
        }
        Ok(due)
    }

    /// Hands rows, which lie in order, to the searches of their partitions.
    pub(super) fn turns(&mut self, due: &[Due], out: &mut Collector) -> Result<(), EngineError> {
        let ids: Vec<RowId> = due.iter().map(|row| row.id).collect();
        let conditions = self.evaluator.row_conditions(&self.store, &ids)?;
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut begin = 0;
        for run in due.chunk_by(|left, right| left.slot == right.slot) {
            runs.push(begin..begin + run.len());
            begin += run.len();
        }
        let slots: Vec<u32> = runs.iter().map(|run| due[run.start].slot).collect();
        while !runs.is_empty() {
            self.wave(due, &runs, &conditions)?;
            self.give_found(FOUND_ROWS, out)?;
            runs.iter_mut().for_each(|run| run.start += 1);
            runs.retain(|run| !run.is_empty());
        }
        self.give_found(0, out)?;
        slots.into_iter().for_each(|slot| self.settle(slot));
        self.let_go();
        Ok(())
    }

    /// One row of each of several partitions.
    fn wave(
        &mut self,
        due: &[Due],
        runs: &[Range<usize>],
        conditions: &[Option<BooleanArray>],
    ) -> Result<(), EngineError> {
        let holds = |variable: usize, row: usize| conditions[variable].as_ref().is_none_or(|holds| holds.value(row));
        let mut verdicts: Vec<bool> = Vec::new();
        let mut candidates: Vec<Vec<Candidate>> = vec![Vec::new(); self.spec.variables.len()];
        // The rows that some match may take, with the place of their verdicts.
        let mut turns: Vec<(Due, usize)> = Vec::new();
        for run in runs {
            let row = due[run.start];
            if let Some(within_ms) = self.spec.within_ms {
                self.searches[row.slot as usize].expire(row.time, within_ms);
                self.release(row.slot)?;
            }
            let search = &mut self.searches[row.slot as usize];
            let begins = self.elements.reachable(&[]).any(|element| holds(self.elements.variable(element), run.start));
            if !begins && search.is_idle() {
                search.pass(row.time, row.id, &mut self.released);
                continue;
            }
            search.push(row.time, row.id);
            turns.push((row, verdicts.len()));
            for (under_way, counts) in search.under_way().chain(std::iter::once(&[][..])).enumerate() {
                for element in self.elements.reachable(counts) {
                    let variable = self.elements.variable(element);
                    let holds = holds(variable, run.start);
                    if holds && self.evaluator.has_match_condition(variable) {
                        let candidate = Candidate { slot: row.slot, under_way, element, verdict: verdicts.len() };
                        candidates[variable].push(candidate);
                    }
                    verdicts.push(holds);
                }
            }
        }
        for (variable, candidates) in candidates.iter().enumerate().filter(|(_, candidates)| !candidates.is_empty()) {
            let judged = self.evaluator.judge(variable, candidates, &self.elements, &self.searches, &self.store)?;
            for (candidate, holds) in candidates.iter().zip(judged) {
                verdicts[candidate.verdict] = holds;
            }
        }
        for (row, begin) in turns {
            let search = &mut self.searches[row.slot as usize];
            search.advance(&self.elements, &verdicts[begin..], &mut self.held);
            if search.under_way().len() > MATCHES_MAX || search.rows() > ROWS_MAX {
                return Err(self.too_many(row.slot));
            }
            self.release(row.slot)?;
        }
        Ok(())
    }

    /// Takes the matches of a partition that nothing earlier holds up, and lets go of rows.
    pub(super) fn release(&mut self, slot: u32) -> Result<(), EngineError> {
        let search = &mut self.searches[slot as usize];
        let found = search.release(&self.elements, self.spec.skip, &mut self.held, &mut self.found);
        found.map_err(|miss| EngineError::Data { operator: self.name.clone(), message: miss.message(&self.spec) })?;
        search.trim(true, &mut self.released);
        Ok(())
    }

    fn too_many(&self, slot: u32) -> EngineError {
        let key = self.partitions.columns(&[slot]).ok().map(|columns| {
            let shown =
                columns.iter().map(|column| arrow::util::display::array_value_to_string(column, 0).unwrap_or_default());
            shown.collect::<Vec<_>>().join(", ")
        });
        let message = format!(
            "the partition ({}) has more than {MATCHES_MAX} matches under way or keeps more than {ROWS_MAX} rows for them; \
             bound them by WITHIN, or by conditions in DEFINE that fewer rows fulfil",
            key.unwrap_or_default()
        );
        EngineError::Data { operator: self.name.clone(), message }
    }
}
