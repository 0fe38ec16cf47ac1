//! The join of the two sides of one window: the right side is indexed, the left one looked up in it, a batch at a
//! time.

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use mainstem_plan::operator::JoinKind;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::join::kept_rows::KeptRows;
use crate::join::key_index::{KeyFormat, KeyIndex, Keys};
use crate::join::pairs::{EMIT_ROWS_MAX, Found, PairRows, filtered};
use crate::join::row_room::RowRoom;
use crate::operator::{Collector, PieceRows};

/// How rows of a window are joined.
pub(super) struct Joiner {
    pub(super) name: String,
    pub(super) kind: JoinKind,
    pub(super) keys: KeyFormat,
    pub(super) pairs: PairRows,
    pub(super) room: RowRoom,
}

/// A window that is being given out.
pub(super) struct Closing {
    sides: [KeptRows; 2],
    /// Right rows by key, and their numbers.
    index: KeyIndex,
    indexed: Vec<u32>,
    /// Which right rows have had a partner.
    right_matched: Vec<bool>,
    /// The next batch of left rows, then the next right row.
    next_chunk: usize,
    next_right: usize,
    /// Left rows that are being looked up.
    probing: Option<Probing>,
    piece: PieceRows,
}

/// A batch of left rows that is being looked up.
struct Probing {
    left: RecordBatch,
    keys: Keys,
    /// The next row.
    next: usize,
    /// Left row and right row.
    found: Found<(u32, u32)>,
    /// Which rows have had a partner.
    matched: Vec<bool>,
}

impl Joiner {
    /// Begins to give out a window.
    pub(super) fn close(&self, sides: [KeptRows; 2]) -> Result<Closing, EngineError> {
        let mut index = self.keys.index();
        let mut indexed = Vec::new();
        let mut first = 0;
        for chunk in sides[1].chunks() {
            let keys = self.keys.right(chunk)?;
            for row in (0..chunk.num_rows()).filter(|row| !keys.is_never_equal(*row)) {
                index.push(&keys, row);
                indexed.push(first + row as u32);
            }
            first += chunk.num_rows() as u32;
        }
        let right_matched = vec![false; sides[1].len() as usize];
        Ok(Closing {
            sides,
            index,
            indexed,
            right_matched,
            next_chunk: 0,
            next_right: 0,
            probing: None,
            piece: PieceRows::default(),
        })
    }

    /// Gives some rows of the window; true when there are no more.
    pub(super) fn step(&self, closing: &mut Closing, out: &mut Collector) -> Result<bool, EngineError> {
        if closing.probing.is_none()
            && let Some(left) = closing.sides[0].chunks().get(closing.next_chunk).cloned()
        {
            closing.next_chunk += 1;
            let (keys, matched) = (self.keys.left(&left)?, vec![false; left.num_rows()]);
            closing.probing = Some(Probing { left, keys, next: 0, found: Found::none(), matched });
        }
        if let Some(mut probing) = closing.probing.take() {
            if self.probe(closing, &mut probing, out)? {
                self.give_left(&probing, out)?;
            } else {
                closing.probing = Some(probing);
            }
            return Ok(false);
        }
        if !matches!(self.kind, JoinKind::Right | JoinKind::Full) {
            return Ok(true);
        }
        let end = closing.right_matched.len().min(closing.next_right + EMIT_ROWS_MAX);
        let alone = (closing.next_right..end).filter(|row| !closing.right_matched[*row]);
        let alone: Vec<Option<u32>> = alone.map(|row| Some(row as u32)).collect();
        closing.next_right = end;
        if !alone.is_empty() {
            let right = closing.sides[1].columns(&alone).map_err(|e| EngineError::arrow(&self.name, &e))?;
            out.main.push(StreamBatch::on_time(self.pairs.right_alone(right, alone.len())?));
        }
        Ok(end == closing.right_matched.len())
    }

    /// Gives pairs, as far as one step may go. Whether there are no more.
    fn probe(&self, closing: &mut Closing, probing: &mut Probing, out: &mut Collector) -> Result<bool, EngineError> {
        let one_is_enough = self.is_left_only() && !self.pairs.has_condition();
        let rows = probing.left.num_rows();
        probing.found.begin_step();
        loop {
            if probing.found.must_wait(out) {
                return Ok(false);
            }
            if let Some(pairs) = probing.found.piece(&closing.piece) {
                self.give_pairs(closing, &probing.left, &pairs, &mut probing.matched, out)?;
                continue;
            }
            if probing.next == rows {
                return Ok(true);
            }
            let Probing { left, keys, next, found, .. } = &mut *probing;
            found.collect(left, *next..rows, next, &self.room, |row, pairs| {
                if !keys.is_never_equal(row) {
                    let found = closing.index.find(keys, row);
                    let partners = found.map(|at| (row as u32, closing.indexed[at as usize]));
                    pairs.extend(partners.take(if one_is_enough { 1 } else { usize::MAX }));
                }
            })?;
        }
    }

    fn is_left_only(&self) -> bool {
        matches!(self.kind, JoinKind::Semi | JoinKind::Anti { .. })
    }

    /// Gives the left rows that leave once, by whether they had a partner.
    fn give_left(&self, probing: &Probing, out: &mut Collector) -> Result<(), EngineError> {
        let Probing { left, matched, .. } = probing;
        let given = match self.kind {
            JoinKind::Semi => matched.clone(),
            JoinKind::Left | JoinKind::Full | JoinKind::Anti { .. } => matched.iter().map(|matched| !matched).collect(),
            JoinKind::Inner | JoinKind::Right => return Ok(()),
        };
        let given = BooleanArray::from(given);
        let rows = given.true_count();
        if rows > 0 {
            let columns = filtered(&self.name, left.columns().to_vec(), &given)?;
            let alone = match self.is_left_only() {
                true => self.pairs.left_only(columns, rows)?,
                false => self.pairs.left_alone(columns, rows)?,
            };
            out.main.push(StreamBatch::on_time(alone));
        }
        Ok(())
    }

    fn give_pairs(
        &self,
        closing: &mut Closing,
        left: &RecordBatch,
        pairs: &[(u32, u32)],
        matched: &mut [bool],
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        let left_only = self.is_left_only();
        let mut passing = BooleanArray::from(vec![true; pairs.len()]);
        if !pairs.is_empty() && (!left_only || self.pairs.has_condition()) {
            let failed = |e| EngineError::arrow(&self.name, &e);
            let positions = UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row));
            let here = compute::take_record_batch(left, &positions).map_err(failed)?;
            let partners: Vec<Option<u32>> = pairs.iter().map(|(_, partner)| Some(*partner)).collect();
            let mut here = here.columns().to_vec();
            let mut there = closing.sides[1].columns(&partners).map_err(failed)?;
            if let Some(mask) = self.pairs.holding(&here, &there, pairs.len())? {
                here = filtered(&self.name, here, &mask)?;
                there = filtered(&self.name, there, &mask)?;
                passing = mask;
            }
            let rows = passing.true_count();
            if !left_only && rows > 0 {
                let batch = StreamBatch::on_time(self.pairs.pairs(here, there, rows)?);
                closing.piece.learn(&batch);
                out.main.push(batch);
            }
        }
        for ((row, partner), _) in pairs.iter().zip(passing.values()).filter(|(_, passes)| *passes) {
            matched[*row as usize] = true;
            closing.right_matched[*partner as usize] = true;
        }
        Ok(())
    }
}
