//! Output rows of a join, collected as references to rows of the batch at hand and to kept rows of the other side,
//! and made into batches many at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_core::change::ChangeKind;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::JoinOn;

use super::rings::NONE;
use super::side::Side;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::join::pairs::StepMade;
use crate::operator::{Collector, PIECE_ROWS, PieceRows};

/// About how many references are collected before rows are made of them.
pub(super) const OUTPUT_ROWS: usize = PIECE_ROWS;

/// Makes output of pairs.
pub(super) struct Output {
    name: String,
    schema: SchemaRef,
    /// Columns of both sides, any of which may be NULL.
    both: SchemaRef,
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// Whether only left columns are given.
    left_only: bool,
    piece: PieceRows,
}

/// Rows to be given, in order: a row of the batch, a kept row of the other side (either may be [`NONE`]), the
/// kind of the change, and how often.
#[derive(Default)]
pub(super) struct Changes {
    own: Vec<u32>,
    other: Vec<u32>,
    kinds: Vec<i8>,
    /// None: each is given once.
    copies: Vec<u32>,
    /// The next one to be given, and how many copies of it have been.
    next: usize,
    given: u32,
    made: StepMade,
    piece: Piece,
}

/// Some of the rows.
#[derive(Default)]
struct Piece {
    own: Vec<u32>,
    other: Vec<u32>,
    kinds: Vec<i8>,
}

impl Changes {
    /// Adds a row `copies` times.
    pub(super) fn push(&mut self, own: u32, other: u32, kind: ChangeKind, copies: u32) {
        if copies == 0 {
            return;
        }
        if copies > 1 || !self.copies.is_empty() {
            self.copies.resize(self.own.len(), 1);
            self.copies.push(copies);
        }
        self.own.push(own);
        self.other.push(other);
        self.kinds.push(kind as i8);
    }

    /// Number of references.
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    /// A row of the batch has so many partners.
    pub(super) fn note(&mut self, batch: &StreamBatch, row: usize, partners: usize) {
        self.made.note(&batch.rows, row, partners);
    }

    /// From here on another step is under way.
    pub(super) fn begin_step(&mut self) {
        self.made.begin_step();
    }

    /// All were given.
    fn clear(&mut self) {
        self.own.clear();
        self.other.clear();
        self.kinds.clear();
        self.copies.clear();
        (self.next, self.given) = (0, 0);
        self.made.forget_rows();
    }

    /// Puts the next rows into `piece`, at most so many; false: there are no more.
    fn take_piece(&mut self, rows_max: usize) -> bool {
        let Piece { own, other, kinds } = &mut self.piece;
        own.clear();
        other.clear();
        kinds.clear();
        while self.next < self.own.len() && own.len() < rows_max {
            let (room, at) = (rows_max - own.len(), self.next);
            if self.copies.is_empty() {
                let end = self.own.len().min(at + room);
                own.extend_from_slice(&self.own[at..end]);
                other.extend_from_slice(&self.other[at..end]);
                kinds.extend_from_slice(&self.kinds[at..end]);
                self.next = end;
                continue;
            }
            let copies = ((self.copies[at] - self.given) as usize).min(room);
            own.resize(own.len() + copies, self.own[at]);
            other.resize(other.len() + copies, self.other[at]);
            kinds.resize(kinds.len() + copies, self.kinds[at]);
            self.given += copies as u32;
            if self.given == self.copies[at] {
                (self.next, self.given) = (at + 1, 0);
            }
        }
        self.made.add(self.piece.own.len());
        !self.piece.own.is_empty()
    }

    /// Whether more are to be given, and the step may not make more.
    fn must_wait(&self, out: &mut Collector) -> bool {
        self.next < self.own.len() && self.made.is_enough(out)
    }
}

/// The batch at hand, and which side it is of (0: the left one).
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) side: usize,
}

impl Output {
    /// For the named operator, whose output has these columns.
    pub(super) fn new(
        name: &str,
        on: &JoinOn,
        schema: SchemaRef,
        left_only: bool,
        context: &EvalContext,
    ) -> Result<Output, EngineError> {
        let fields = on.left_schema.fields().iter().chain(on.right_schema.fields());
        let both = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        let both = Arc::new(Schema::new(both));
        let condition = on.condition.as_ref().map(|condition| condition.compile(&both, context)).transpose()?;
        Ok(Output { name: name.to_owned(), schema, both, condition, left_only, piece: PieceRows::default() })
    }

    /// Whether pairs of equal keys must hold a condition beside it.
    pub(super) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Gives those of the pairs that hold the condition, as far as the step goes. Whether all were given.
    pub(super) fn give_pairs(
        &mut self,
        own: Own<'_>,
        other: &Side,
        pairs: &mut Changes,
        out: &mut Collector,
    ) -> Result<bool, EngineError> {
        while !pairs.must_wait(out) {
            if !pairs.take_piece(pairs.made.next_rows(&self.piece)) {
                pairs.clear();
                return Ok(true);
            }
            let count = pairs.piece.own.len();
            let columns = self.columns(own, other, &pairs.piece.own, &pairs.piece.other)?;
            let kinds = Int8Array::from(pairs.piece.kinds.clone());
            let batch = match self.holding(&columns, count)? {
                None => StreamBatch::changelog(self.rows(&self.schema, columns, count)?, kinds),
                Some(mask) if mask.true_count() == 0 => continue,
                Some(mask) => {
                    let failed = |e| EngineError::arrow(&self.name, &e);
                    let columns = columns.iter().map(|column| compute::filter(column, &mask));
                    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
                    let kinds = compute::filter(&kinds, &mask).map_err(failed)?;
                    let rows = self.rows(&self.schema, columns, mask.true_count())?;
                    StreamBatch::changelog(rows, kinds.as_primitive().clone())
                }
            };
            self.piece.learn(&batch);
            out.main.push(batch);
        }
        Ok(false)
    }

    /// For each of the pairs whether it holds the condition; none: all do.
    pub(super) fn test(
        &self,
        own: Own<'_>,
        other: &Side,
        own_rows: &[u32],
        other_rows: &[u32],
    ) -> Result<Option<Vec<bool>>, EngineError> {
        if !self.has_condition() {
            return Ok(None);
        }
        let mut holds = Vec::with_capacity(own_rows.len());
        for (own_rows, other_rows) in own_rows.chunks(OUTPUT_ROWS).zip(other_rows.chunks(OUTPUT_ROWS)) {
            let columns = self.columns(own, other, own_rows, other_rows)?;
            match self.holding(&columns, own_rows.len())? {
                None => holds.resize(holds.len() + own_rows.len(), true),
                Some(mask) => holds.extend(mask.values().iter()),
            }
        }
        Ok(Some(holds))
    }

    /// Gives the changes, in order, as far as the step goes. Whether all were given.
    pub(super) fn give(
        &mut self,
        own: Own<'_>,
        other: &Side,
        changes: &mut Changes,
        out: &mut Collector,
    ) -> Result<bool, EngineError> {
        while !changes.must_wait(out) {
            if !changes.take_piece(changes.made.next_rows(&self.piece)) {
                changes.clear();
                return Ok(true);
            }
            let piece = &changes.piece;
            let columns = match (self.left_only, own.side) {
                (false, _) => self.columns(own, other, &piece.own, &piece.other)?,
                (true, 0) => self.own_columns(own, &piece.own)?,
                (true, _) => self.other_columns(other, &piece.other)?,
            };
            let rows = self.rows(&self.schema, columns, piece.own.len())?;
            let batch = StreamBatch::changelog(rows, Int8Array::from(piece.kinds.clone()));
            self.piece.learn(&batch);
            out.main.push(batch);
        }
        Ok(false)
    }

    /// For which of the pairs the condition holds; none: for all.
    fn holding(&self, columns: &[ArrayRef], rows: usize) -> Result<Option<BooleanArray>, EngineError> {
        let Some(condition) = &self.condition else { return Ok(None) };
        let pairs = self.rows(&self.both, columns.to_vec(), rows)?;
        let holds = condition.evaluate(&pairs).and_then(|value| value.into_array(rows));
        let holds = holds.map_err(|e| EngineError::evaluation(&self.name, &e))?;
        let holds = holds.as_boolean();
        // NULL is not true.
        let holds = if holds.null_count() > 0 { compute::prep_null_mask_filter(holds) } else { holds.clone() };
        Ok((holds.true_count() < rows).then_some(holds))
    }

    /// Columns of the left, then of the right side.
    fn columns(
        &self,
        own: Own<'_>,
        other: &Side,
        own_rows: &[u32],
        other_rows: &[u32],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let own_columns = self.own_columns(own, own_rows)?;
        let other_columns = self.other_columns(other, other_rows)?;
        Ok(match own.side {
            0 => [own_columns, other_columns].concat(),
            _ => [other_columns, own_columns].concat(),
        })
    }

    fn own_columns(&self, own: Own<'_>, rows: &[u32]) -> Result<Vec<ArrayRef>, EngineError> {
        let rows: UInt32Array = match rows.contains(&NONE) {
            false => UInt32Array::from(rows.to_vec()),
            true => rows.iter().map(|row| Some(*row).filter(|row| *row != NONE)).collect(),
        };
        let taken = own.rows.columns().iter().map(|column| compute::take(column, &rows, None));
        taken.collect::<Result<_, _>>().map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn other_columns(&self, other: &Side, rows: &[u32]) -> Result<Vec<ArrayRef>, EngineError> {
        other.columns(rows).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    fn rows(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &count)
            .map_err(|e| EngineError::Bug(format!("{}: joined rows: {e}", self.name)))
    }
}
