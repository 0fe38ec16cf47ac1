//! The search for matches in one partition: its matches under way, and those that are complete and wait for earlier
//! ones. Pure; knows rows by their ids and times only, and counts them.

use std::collections::{BTreeMap, VecDeque};

use mainstem_plan::operator::{AfterMatch, PatternMatch as PatternSpec};

use super::elements::Elements;
use crate::row_store::RowId;

/// The search in one partition.
#[derive(Default)]
pub(super) struct Search {
    /// Rows that were handed over, from the first one of the time (ms) at which the oldest match under way began.
    rows: VecDeque<(i64, RowId)>,
    /// Number of the first of them, counted from the first row that the search was given.
    first: u64,
    /// Matches under way, by their first row, then as the pattern prefers them.
    under_way: Vec<Match>,
    /// By their first row, of which each is the beginning of one.
    complete: VecDeque<Match>,
    /// Time of the last row that was handed over.
    last_time: Option<i64>,
    /// Number of rows that wait for the watermark.
    pub(super) waiting: usize,
    /// The deadline under which the operator knows the search.
    pub(super) noted_deadline: Option<i64>,
    /// Whether it is a partition's, not a free slot.
    pub(super) is_used: bool,
    /// Whether the next checkpoint looks at it.
    pub(super) is_touched: bool,
    /// Whether files hold rows of the partition.
    pub(super) in_files: bool,
    /// The beginning that the files know.
    pub(super) written: Option<Beginning>,
    /// Rows that were read from files, with their times.
    pub(super) restored: Vec<(i64, RowId)>,
}

/// Which rows of a partition a search still needs: those from a time (ms) on; with the first so many of this time no
/// match under way begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) time: i64,
    pub(super) skip: i64,
}

#[derive(Debug)]
struct Match {
    /// Number of its first row.
    start: u64,
    /// How many rows each element has taken; see [`Elements`].
    counts: Vec<u32>,
    /// Time of its last row. Only of a complete one.
    end_time: i64,
}

/// A match that is to be given.
pub(super) struct Found {
    /// Its rows, at least one.
    pub(super) rows: Vec<RowId>,
    /// How many of them each element has taken.
    pub(super) counts: Vec<u32>,
}

/// The times at which complete matches end that wait for earlier ones.
#[derive(Default)]
pub(super) struct Held(BTreeMap<i64, usize>);

impl Held {
    /// The least.
    pub(super) fn first(&self) -> Option<i64> {
        self.0.first_key_value().map(|(time, _)| *time)
    }

    fn add(&mut self, time: i64) {
        *self.0.entry(time).or_default() += 1;
    }

    fn remove(&mut self, time: i64) {
        if let Some(count) = self.0.get_mut(&time) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&time);
            }
        }
    }
}

/// That there is no row to skip to behind a match.
pub(super) struct Miss {
    variable: usize,
    /// Whether there is one, but it is the first of the match.
    is_first: bool,
}

impl Miss {
    pub(super) fn message(&self, spec: &PatternSpec) -> String {
        let name = &spec.variables[self.variable].name;
        let end = if matches!(spec.skip, AfterMatch::ToFirst(_)) { "FIRST" } else { "LAST" };
        if self.is_first {
            format!(
                "AFTER MATCH SKIP TO {end} {name} leads to the first row of a match, so that the next match would be the \
                 same; use SKIP TO NEXT ROW"
            )
        } else {
            format!(
                "AFTER MATCH SKIP TO {end} {name} has no row in a match to skip to; skip to a variable that always has one"
            )
        }
    }
}

impl Search {
    /// Bytes of memory beside the place itself, about.
    pub(super) fn bytes(&self) -> usize {
        let of_match = |of: &Match| size_of::<Match>() + of.counts.capacity() * size_of::<u32>();
        let rows = self.rows.capacity() * size_of::<(i64, RowId)>();
        rows + self.under_way.iter().map(of_match).sum::<usize>() + self.complete.iter().map(of_match).sum::<usize>()
    }

    /// Makes it the search of a free slot. The slot stays in the list of those that were touched, once.
    pub(super) fn clear(&mut self) {
        *self = Search { is_touched: self.is_touched, ..Search::default() };
    }

    /// Whether no match is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_gone(&self) -> bool {
        self.rows.is_empty() && self.waiting == 0
    }

    /// Number of rows that are kept for matches under way.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The counts of the matches under way.
    pub(super) fn under_way(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.under_way.iter().map(|candidate| candidate.counts.as_slice())
    }

    /// Row number `position` of a match under way, or of one that begins with the last row.
    pub(super) fn row_of(&self, under_way: usize, position: usize) -> RowId {
        let begin = self.under_way.get(under_way).map_or(self.rows.len() - 1, |of| (of.start - self.first) as usize);
        self.rows[begin + position].1
    }

    /// The counts of a match under way; none of one that begins with the last row.
    pub(super) fn counts_of(&self, under_way: usize) -> &[u32] {
        self.under_way.get(under_way).map_or(&[], |of| of.counts.as_slice())
    }

    fn time_of(&self, number: u64) -> i64 {
        self.rows[(number - self.first) as usize].0
    }

    /// Takes the next row.
    pub(super) fn push(&mut self, time: i64, id: RowId) {
        debug_assert!(self.last_time.is_none_or(|last| last <= time), "rows come in order");
        self.last_time = Some(time);
        self.rows.push_back((time, id));
    }

    /// Takes the next row where no match is under way and none begins.
    pub(super) fn pass(&mut self, time: i64, id: RowId, released: &mut Vec<RowId>) {
        self.push(time, id);
        self.trim(true, released);
    }

    /// Ends the matches under way that began so long before a time that their last row cannot come any more.
    pub(super) fn expire(&mut self, time: i64, within_ms: i64) {
        let is_over = |of: &Match| self.time_of(of.start).saturating_add(within_ms) <= time;
        let over = self.under_way.partition_point(is_over);
        self.under_way.drain(..over);
    }

    /// Ends all matches under way.
    pub(super) fn expire_all(&mut self) {
        self.under_way.clear();
    }

    /// When the oldest match under way is out of time.
    pub(super) fn deadline(&self, within_ms: i64) -> Option<i64> {
        self.under_way.first().map(|oldest| self.time_of(oldest.start).saturating_add(within_ms))
    }

    /// Moves the matches under way by the row that was pushed last, and begins a new one with it. `verdicts`: of each
    /// match under way, then of the new one, whether the conditions of its reachable elements hold.
    pub(super) fn advance(&mut self, elements: &Elements, verdicts: &[bool], held: &mut Held) {
        let number = self.first + self.rows.len() as u64 - 1;
        let end_time = self.time_of(number);
        let before = std::mem::take(&mut self.under_way);
        let begun = Match { start: number, counts: Vec::new(), end_time };
        let mut takers = Vec::new();
        let mut verdicts = verdicts;
        // The match that was completed last, and where those that begin with the same row as the last one lie.
        let (mut completed, mut group) = (None, (u64::MAX, 0));
        for of in before.into_iter().chain([begun]) {
            let reachable = elements.reachable(&of.counts);
            let (own, others) = verdicts.split_at(reachable.len());
            verdicts = others;
            if completed == Some(of.start) {
                continue;
            }
            if group.0 != of.start {
                group = (of.start, self.under_way.len());
            }
            takers.clear();
            elements.takers(&of.counts, &|element| own[element - reachable.start], &mut takers);
            let mut counts = of.counts;
            for (nth, element) in takers.iter().enumerate() {
                // The last one needs no copy.
                let copy = if nth + 1 == takers.len() { std::mem::take(&mut counts) } else { counts.clone() };
                let taken = Match { start: of.start, counts: Elements::taken(copy, *element), end_time };
                if elements.is_complete(&taken.counts) {
                    // Of those that begin with the same row, the first that ends is the match.
                    self.under_way.truncate(group.1);
                    completed = Some(of.start);
                    held.add(end_time);
                    let place = self.complete.partition_point(|other| other.start < of.start);
                    self.complete.insert(place, taken);
                    break;
                }
                self.under_way.push(taken);
            }
        }
    }

    /// Takes out the complete matches that no earlier one holds up, and ends what each of them rules out.
    pub(super) fn release(
        &mut self,
        elements: &Elements,
        skip: AfterMatch,
        held: &mut Held,
        found: &mut Vec<Found>,
    ) -> Result<(), Miss> {
        while let Some(earliest) = self.complete.front()
            && self.under_way.first().is_none_or(|under_way| under_way.start > earliest.start)
        {
            let Some(earliest) = self.complete.pop_front() else { break };
            held.remove(earliest.end_time);
            let length: u64 = earliest.counts.iter().map(|count| u64::from(*count)).sum();
            let next = earliest.start
                + match skip {
                    AfterMatch::PastLastRow => length,
                    AfterMatch::ToNextRow => 1,
                    AfterMatch::ToFirst(variable) | AfterMatch::ToLast(variable) => {
                        let last = matches!(skip, AfterMatch::ToLast(_));
                        position(&earliest.counts, elements, variable, last)?
                    }
                };
            let begin = (earliest.start - self.first) as usize;
            let rows = self.rows.range(begin..begin + length as usize).map(|(_, id)| *id).collect();
            found.push(Found { rows, counts: earliest.counts });
            let ruled_out = self.under_way.partition_point(|other| other.start < next);
            self.under_way.drain(..ruled_out);
            let ruled_out = self.complete.partition_point(|other| other.start < next);
            self.complete.drain(..ruled_out).for_each(|other| held.remove(other.end_time));
        }
        Ok(())
    }

    /// Lets go of the rows that no match under way needs. Those of the time at which the oldest one began are kept
    /// together, so that its beginning can be found again among them. `more`: rows of the time of the last one may
    /// follow, and be such a beginning.
    pub(super) fn trim(&mut self, more: bool, released: &mut Vec<RowId>) {
        let begin = match self.under_way.first() {
            Some(oldest) => (oldest.start - self.first) as usize,
            None if more => self.rows.len().saturating_sub(1),
            None => self.rows.len(),
        };
        let kept = self.rows.get(begin).map_or(begin, |(time, _)| {
            let same = (0..begin).rev().take_while(|row| self.rows[*row].0 == *time);
            same.last().unwrap_or(begin)
        });
        self.first += kept as u64;
        released.extend(self.rows.drain(..kept).map(|(_, id)| id));
    }

    /// Which rows are needed; none: all that there are.
    pub(super) fn beginning(&self) -> Option<Beginning> {
        match self.under_way.first() {
            Some(oldest) => {
                Some(Beginning { time: self.time_of(oldest.start), skip: (oldest.start - self.first) as i64 })
            }
            None => self.last_time.map(|last| Beginning { time: last.saturating_add(1), skip: 0 }),
        }
    }
}

/// The place in a match of a variable's first or last row.
fn position(counts: &[u32], elements: &Elements, variable: usize, last: bool) -> Result<u64, Miss> {
    let mut begin = 0;
    let mut place = None;
    for (element, count) in counts.iter().enumerate() {
        if *count > 0 && elements.variable(element) == variable {
            if last {
                place = Some(begin + u64::from(*count) - 1);
            } else if place.is_none() {
                place = Some(begin);
            }
        }
        begin += u64::from(*count);
    }
    match place {
        Some(place) if place > 0 => Ok(place),
        place => Err(Miss { variable, is_first: place.is_some() }),
    }
}
