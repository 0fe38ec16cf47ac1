//! Joins rows whose event times are near each other. A row is kept until the watermark says that no partner can
//! come; an outer row that never had one leaves then, with NULLs.
//!
//! **Release.** Partners are those with `right + lower <= left <= right + upper`. A left row's last partner has the
//! time `left - lower`, a right row's `right + upper`. Rows still to come have times above the watermark, so a row is
//! released when the watermark is at the time of its last partner.
//!
//! **Late rows** (I6). A row behind the watermark `w` of its own split may find its partners released or not, as the
//! race between the splits has it; all that is sure is that the operator's watermark is at most `w`. So it is
//! joined with exactly those partners that `w` would not have released, whether they are there already or come
//! later; and where there can be none, it is dropped and counted. For a row on time that changes nothing.
//!
//! **Watermark.** A pair leaves when its later row comes, so the columns of the earlier one lag behind the watermark:
//! a left time by up to `-lower`, a right time by up to `upper`. The watermark that is passed on is held back by
//! the greater of both, so that either column is still event time behind the join.

mod side;
mod state;
#[cfg(test)]
mod tests;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{IntervalJoin as Spec, JoinKind};

use self::side::{Kept, Side};
use self::state::Staged;
use super::key_index::{KeyFormat, Keys};
use super::pairs::{EMIT_ROWS_MAX, Found, PairRows, filtered, output};
use super::row_room::RowRoom;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::late::LateRows;
use crate::operator::{Capture, Collector, Operator, PieceRows, Release, Restored, held_back};
use crate::window::WindowMeta;

/// See the module.
pub(crate) struct IntervalJoin {
    name: String,
    kind: JoinKind,
    times: [usize; 2],
    key_columns: [Vec<usize>; 2],
    /// Length of the interval (ms); negative: nothing matches.
    length_ms: i64,
    hold_back_ms: i64,
    keys: KeyFormat,
    pairs: PairRows,
    late: LateRows,
    watermark: i64,
    sides: [Side; 2],
    files: DeltaFiles,
    staged: Vec<Staged>,
    room: RowRoom,
    piece: PieceRows,
    /// Rows that give more than a step may make.
    taking: Option<Incoming>,
}

/// Rows of one input that are being taken.
struct Incoming {
    side: usize,
    rows: RecordBatch,
    keys: Keys,
    times: Int64Array,
    /// For each row the watermark of its split where the row is behind it, else `i64::MIN`.
    own: Vec<i64>,
    /// Positions of the rows that are not dropped.
    positions: Vec<u32>,
    /// How many of them have been joined.
    joined: usize,
    found: Found<Pair>,
    matched: Vec<bool>,
}

/// A row of a batch, and the segment and row of its partner.
type Pair = (u32, (usize, u32));

impl IntervalJoin {
    /// An operator without rows, whose output has the columns of `output`.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        output: SchemaRef,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        if spec.kind == (JoinKind::Anti { null_aware: true }) {
            return Err(EngineError::Bug(format!("'{name}': NOT IN has no interval join")));
        }
        let length_ms = spec.upper_ms.saturating_sub(spec.lower_ms);
        let notes_left = !matches!(spec.kind, JoinKind::Inner | JoinKind::Right);
        let notes_right = matches!(spec.kind, JoinKind::Right | JoinKind::Full);
        let left = Side::new(spec.on.left_schema.clone(), length_ms, spec.lower_ms.saturating_neg(), notes_left);
        let right = Side::new(spec.on.right_schema.clone(), length_ms, spec.upper_ms, notes_right);
        Ok(IntervalJoin {
            name: name.to_owned(),
            kind: spec.kind,
            times: [spec.left_time, spec.right_time],
            key_columns: [spec.on.left_keys.clone(), spec.on.right_keys.clone()],
            length_ms,
            hold_back_ms: 0.max(spec.lower_ms.saturating_neg()).max(spec.upper_ms),
            keys: KeyFormat::new(name, &spec.on)?,
            pairs: PairRows::new(name, &spec.on, output, context)?,
            late,
            watermark: i64::MIN,
            sides: [left, right],
            files: DeltaFiles::default(),
            staged: Vec::new(),
            room: RowRoom::new(name, size_of::<Pair>(), context),
            piece: PieceRows::default(),
            taking: None,
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    /// Whether rows of the side leave without a partner.
    fn gives_alone(&self, side: usize) -> bool {
        match self.kind {
            JoinKind::Full => true,
            JoinKind::Left | JoinKind::Anti { .. } => side == 0,
            JoinKind::Right => side == 1,
            JoinKind::Inner | JoinKind::Semi => false,
        }
    }

    /// Whether only left rows leave.
    fn is_left_only(&self) -> bool {
        matches!(self.kind, JoinKind::Semi | JoinKind::Anti { .. })
    }

    /// The watermark beside rows that leave, out of those of the rows that they are made of.
    fn own_out(&self, own: i64) -> i64 {
        if own == i64::MIN { own } else { own.saturating_sub(self.hold_back_ms) }
    }

    /// Goes on to join the rows with those of the other side, as far as one step may go. In the end they are kept.
    fn run(&mut self, mut incoming: Incoming, out: &mut Collector) -> Result<(), EngineError> {
        incoming.found.begin_step();
        loop {
            if incoming.found.must_wait(out) {
                self.taking = Some(incoming);
                return Ok(());
            }
            if let Some(pairs) = incoming.found.piece(&self.piece) {
                self.give_pairs(&mut incoming, &pairs, out)?;
                continue;
            }
            if incoming.joined == incoming.positions.len() || self.sides[1 - incoming.side].segments.is_empty() {
                return self.settle(&incoming, out);
            }
            self.find_some(&mut incoming)?;
        }
    }

    fn find_some(&self, incoming: &mut Incoming) -> Result<(), EngineError> {
        let (mut found, mut joined) = (std::mem::replace(&mut incoming.found, Found::none()), incoming.joined);
        let positions = incoming.positions[joined..].iter().map(|row| *row as usize);
        let find = |row: usize, pairs: &mut Vec<Pair>| self.find(incoming, row as u32, pairs);
        let collected = found.collect(&incoming.rows, positions, &mut joined, &self.room, find);
        (incoming.found, incoming.joined) = (found, joined);
        collected
    }

    /// The partners of a row, but for the condition.
    fn find(&self, incoming: &Incoming, row: u32, pairs: &mut Vec<Pair>) {
        let (this, other) = (&self.sides[incoming.side], &self.sides[1 - incoming.side]);
        let at = row as usize;
        if incoming.keys.is_never_equal(at) {
            return;
        }
        let (own, last) = (incoming.own[at], incoming.times.value(at).saturating_add(this.reach));
        let first = last.saturating_sub(self.length_ms);
        let one_is_enough = self.is_left_only() && incoming.side == 0 && !self.pairs.has_condition();
        let partner_once = self.is_left_only() && incoming.side == 1;
        for number in other.between(first, last) {
            let segment = &other.segments[number];
            for partner in segment.index.find(&incoming.keys, at) {
                let index = partner as usize;
                let time = segment.times[index];
                let in_reach = (first..=last).contains(&time);
                let late_for_it = own >= time.saturating_add(other.reach) || segment.own[index] >= last;
                if !in_reach || late_for_it || (partner_once && segment.matched[index]) {
                    continue;
                }
                pairs.push((row, (number, partner)));
                if one_is_enough {
                    return;
                }
            }
        }
    }

    /// Tests the condition, notes matches, and gives the pairs or the left rows that had no partner before.
    fn give_pairs(&mut self, incoming: &mut Incoming, pairs: &[Pair], out: &mut Collector) -> Result<(), EngineError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut columns = None;
        let mut passing = pairs.to_vec();
        if !self.is_left_only() || self.pairs.has_condition() {
            let (left, right) = self.pair_columns(incoming, pairs)?;
            let mask = self.pairs.holding(&left, &right, pairs.len())?;
            columns = Some(match &mask {
                Some(mask) => {
                    passing = kept_pairs(pairs, mask);
                    (filtered(&self.name, left, mask)?, filtered(&self.name, right, mask)?)
                }
                None => (left, right),
            });
        }
        let other = 1 - incoming.side;
        let mut first_matches = Vec::new();
        for (row, partner) in &passing {
            incoming.matched[*row as usize] = true;
            if self.sides[other].notes_matches && self.sides[other].note_match(partner.0, partner.1) {
                first_matches.push(*partner);
            }
        }
        match (self.kind, columns) {
            (JoinKind::Anti { .. }, _) => Ok(()),
            (JoinKind::Semi, _) if other == 0 => self.give_stored(0, &first_matches, out),
            (JoinKind::Semi, _) => Ok(()),
            (_, Some((left, right))) if !passing.is_empty() => {
                let own_of = |(row, (segment, partner)): &Pair| {
                    let partner = self.sides[other].segments[*segment].own[*partner as usize];
                    self.own_out(incoming.own[*row as usize].max(partner))
                };
                let own = passing.iter().map(own_of).collect();
                let batch = output(self.pairs.pairs(left, right, passing.len())?, own);
                self.piece.learn(&batch);
                out.main.push(batch);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pair_columns(&self, incoming: &Incoming, pairs: &[Pair]) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), EngineError> {
        let positions = UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row));
        let here = compute::take_record_batch(&incoming.rows, &positions).map_err(|e| self.failed(&e))?;
        let partners: Vec<(usize, u32)> = pairs.iter().map(|(_, partner)| *partner).collect();
        let there = self.sides[1 - incoming.side].columns(&partners).map_err(|e| self.failed(&e))?;
        let here = here.columns().to_vec();
        Ok(if incoming.side == 0 { (here, there) } else { (there, here) })
    }

    /// Keeps the rows that may still find partners, and gives those that are done with.
    fn settle(&mut self, incoming: &Incoming, out: &mut Collector) -> Result<(), EngineError> {
        let side = incoming.side;
        let (mut kept, mut given) = (Vec::new(), Vec::new());
        for row in &incoming.positions {
            let at = *row as usize;
            let released = self.sides[side].is_released(incoming.times.value(at), self.watermark);
            let over = released || incoming.keys.is_never_equal(at);
            match (self.kind, incoming.matched[at]) {
                (JoinKind::Semi, true) if side == 0 => given.push(*row),
                (JoinKind::Anti { .. }, true) if side == 0 => {}
                (_, matched) if over => given.extend((!matched && self.gives_alone(side)).then_some(*row)),
                _ => kept.push(*row),
            }
        }
        if !given.is_empty() {
            let own = given.iter().map(|row| self.own_out(incoming.own[*row as usize])).collect();
            let rows = compute::take_record_batch(&incoming.rows, &UInt32Array::from(given));
            let rows = rows.map_err(|e| self.failed(&e))?;
            out.main.push(output(self.alone(side, rows.columns().to_vec(), rows.num_rows())?, own));
        }
        let Incoming { rows, keys, times, own, matched, .. } = incoming;
        let kept = Kept { rows, keys, positions: kept, times: times.values(), own, matched };
        self.sides[side].keep(kept, None, &self.keys).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// Rows that leave without a partner, or of which only the left columns leave.
    fn alone(&self, side: usize, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        match side {
            0 if self.is_left_only() => self.pairs.left_only(columns, rows),
            0 => self.pairs.left_alone(columns, rows),
            _ => self.pairs.right_alone(columns, rows),
        }
    }

    fn give_stored(&self, side: usize, rows: &[(usize, u32)], out: &mut Collector) -> Result<(), EngineError> {
        if rows.is_empty() {
            return Ok(());
        }
        let own_of = |(segment, row): &(usize, u32)| self.sides[side].segments[*segment].own[*row as usize];
        let own = rows.iter().map(|row| self.own_out(own_of(row))).collect();
        let columns = self.sides[side].columns(rows).map_err(|e| self.failed(&e))?;
        out.main.push(output(self.alone(side, columns, rows.len())?, own));
        Ok(())
    }
}

fn kept_pairs(pairs: &[Pair], mask: &BooleanArray) -> Vec<Pair> {
    pairs.iter().zip(mask.values()).filter(|(_, holds)| *holds).map(|(pair, _)| *pair).collect()
}

impl Operator for IntervalJoin {
    fn state_bytes(&self) -> usize {
        self.sides.iter().map(Side::bytes).sum()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.sides.iter().map(Side::next_due).min()
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let times = event_times(&self.name, &batch.rows, self.times[input])?;
        let keys = if input == 0 { self.keys.left(&batch.rows)? } else { self.keys.right(&batch.rows)? };
        let rows = batch.rows.num_rows();
        let mut own = vec![i64::MIN; rows];
        let mut positions: Vec<u32> = (0..rows as u32).collect();
        if let Some(own_watermark) = &batch.own_watermark {
            let behind = times.values().iter().zip(own_watermark.values()).map(|(time, own)| (time <= own, *own));
            own.iter_mut().zip(behind).filter(|(_, (behind, _))| *behind).for_each(|(to, (_, own))| *to = own);
            // Not even the last partner would still wait for it.
            let too_late = |row: &u32| {
                let row = *row as usize;
                own[row] > i64::MIN && own[row] >= times.value(row).saturating_add(self.length_ms)
            };
            let (late, rest) = positions.into_iter().partition::<Vec<u32>, _>(too_late);
            self.late.take(&batch, self.times[input], own_watermark, &late, out)?;
            positions = rest;
        }
        let matched = vec![false; rows];
        let (rows, found) = (batch.rows, Found::none());
        let incoming = Incoming { side: input, rows, keys, times, own, positions, joined: 0, found, matched };
        self.run(incoming, out)
    }

    fn has_more(&self) -> bool {
        self.taking.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.taking.take().map_or(Ok(()), |incoming| self.run(incoming, out))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        for side in 0..2 {
            if self.gives_alone(side) {
                let released = self.sides[side].release(self.watermark, EMIT_ROWS_MAX);
                if !released.is_empty() {
                    self.give_stored(side, &released, out)?;
                    return Ok(Release::Continue);
                }
            }
            self.sides[side].drop_released(self.watermark);
        }
        Ok(Release::Done)
    }

    fn watermark_out(&self, watermark: Timestamp) -> Timestamp {
        held_back(watermark, self.hold_back_ms)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.capture_sides().map(Some)
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        self.stage(state)
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.restore_staged()
    }
}
