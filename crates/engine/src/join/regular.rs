//! A join of two tables that change. Rows of both sides are kept by the join's keys; each row that comes meets the
//! kept rows of the other side. A row that comes gives `+I`, one that is taken away `-D`: whether the new content of
//! an updated row finds the same partners is not known when the old one goes.
//!
//! Where rows without a partner are given too, each kept row of that side knows how many partners it has. When the
//! first one comes, the row that stood alone is taken back; when the last one goes, it is given again.

mod append;
mod keys;
mod not_in;
mod output;
mod rings;
mod sets;
mod side;
mod table;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Join, JoinKind};

use self::append::AppendSide;
use self::keys::{JoinKeys, types};
pub(crate) use self::not_in::NotIn;
use self::output::{Changes, OUTPUT_ROWS, Output, Own};
use self::rings::NONE;
pub(crate) use self::sets::SetOperation;
use self::side::Side;
use self::table::TableSide;
use super::row_room::RowRoom;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, Restored, STEP_ROWS, TableRows};

/// Names and version of the state tables: see [`table::stored_schema`].
const TABLES: [&str; 2] = ["left", "right"];
const VERSION: u32 = 1;
/// So many partners of one row are collected before rows are made of them.
const PARTNERS_AT_ONCE: usize = STEP_ROWS;
/// What a partner takes before rows are made of it: two references while the condition is tested, then a change.
const PARTNER_BYTES: usize = 21;

/// See the module.
pub(crate) struct RegularJoin {
    name: String,
    kind: JoinKind,
    keys: JoinKeys,
    key_columns: [Vec<usize>; 2],
    sides: [Side; 2],
    /// Of which sides the number of partners of each row is known.
    counted: [bool; 2],
    output: Output,
    room: RowRoom,
    /// Rows that give more than a step may make.
    taking: Option<Taking>,
    files: DeltaFiles,
    context: EvalContext,
    has_ttl: bool,
    /// The time at which the restored state was captured, in milliseconds.
    captured_at: i64,
}

impl RegularJoin {
    /// An operator without state. `retracts`: which inputs take rows away.
    pub(crate) fn new(
        name: &str,
        join: &Join,
        retracts: [bool; 2],
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<RegularJoin, EngineError> {
        let failed = |e| EngineError::arrow(name, &e);
        let on = &join.on;
        let left_only = matches!(join.kind, JoinKind::Semi | JoinKind::Anti { .. });
        let counted = match join.kind {
            JoinKind::Inner => [false, false],
            JoinKind::Left | JoinKind::Semi | JoinKind::Anti { .. } => [true, false],
            JoinKind::Right => [false, true],
            JoinKind::Full => [true, true],
        };
        let side = |side: usize, schema: &SchemaRef, ttl_ms: Option<u64>| {
            // Equal rows on the right of a semi join need not be kept apart.
            let append = !retracts[side] && !counted[side] && ttl_ms.is_none() && !left_only;
            match append {
                true => Ok(Side::Append(AppendSide::new(schema))),
                false => TableSide::new(schema, ttl_ms).map(Side::table).map_err(failed),
            }
        };
        let left = side(0, &on.left_schema, join.left_ttl_ms)?;
        let right = side(1, &on.right_schema, join.right_ttl_ms)?;
        let has_ttl = join.left_ttl_ms.is_some() || join.right_ttl_ms.is_some();
        let files = match has_ttl {
            // What has expired is in the files until the whole state is written.
            true => DeltaFiles::default(),
            false => DeltaFiles::merged_by(vec![
                left.merge_rule(TABLES[0], on.left_keys.clone()),
                right.merge_rule(TABLES[1], on.right_keys.clone()),
            ]),
        };
        let keys = JoinKeys::new(&types(&on.left_schema, &on.left_keys), on.null_equal.clone()).map_err(failed)?;
        Ok(RegularJoin {
            name: name.to_owned(),
            kind: join.kind,
            keys,
            key_columns: [on.left_keys.clone(), on.right_keys.clone()],
            sides: [left, right],
            counted,
            output: Output::new(name, on, schema, left_only, context)?,
            room: RowRoom::new(name, PARTNER_BYTES, context),
            taking: None,
            files,
            context: context.clone(),
            has_ttl,
            captured_at: i64::MIN,
        })
    }

    fn failed(&self) -> impl Fn(arrow::error::ArrowError) -> EngineError + use<> {
        let name = self.name.clone();
        move |e| EngineError::arrow(&name, &e)
    }

    /// The numbers of the keys of rows of a side.
    fn numbers(&mut self, side: usize, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let mut numbers = Vec::new();
        self.keys.intern(rows, &self.key_columns[side], &mut numbers).map_err(self.failed())?;
        let keys = self.keys.len();
        self.sides.iter_mut().for_each(|side| side.reserve_keys(keys));
        Ok(numbers)
    }

    /// Forgets those of the keys that no side has rows of.
    fn release(&mut self, mut keys: Vec<u32>) {
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if key != NONE && self.sides.iter().all(|side| side.rings().is_empty(key)) {
                self.keys.release(key);
            }
        }
    }

    /// Goes on with rows that have come, as far as one step may go.
    fn run(&mut self, mut taking: Taking, out: &mut Collector) -> Result<(), EngineError> {
        let is_inner = self.kind == JoinKind::Inner;
        taking.changes.begin_step();
        loop {
            let other = &self.sides[1 - taking.side];
            let own = Own { rows: &taking.batch.rows, side: taking.side };
            let changes = &mut taking.changes;
            let all_given = match is_inner {
                true => self.output.give_pairs(own, other, changes, out)?,
                false => self.output.give(own, other, changes, out)?,
            };
            if !all_given {
                self.taking = Some(taking);
                return Ok(());
            }
            match taking.next == taking.numbers.len() {
                true => return self.finish(&taking),
                false if is_inner => self.inner(&mut taking)?,
                false => self.counting(&mut taking)?,
            }
        }
    }

    /// The pairs of the next rows with those of the other side that have the same key.
    fn inner(&mut self, taking: &mut Taking) -> Result<(), EngineError> {
        let failed = self.failed();
        let Taking { batch, side, numbers, rows, now, next, partner, changes } = taking;
        while *next < numbers.len() && changes.len() < OUTPUT_ROWS {
            let (row, key) = (*next, numbers[*next]);
            *next += 1;
            if key == NONE {
                continue;
            }
            let adds = batch.is_addition(row);
            let first = partner.take();
            if let (None, Side::Table(table), Some(rows)) = (first, &mut self.sides[*side], &rows) {
                let bytes = rows.row(row);
                if adds {
                    table.add(key, bytes.as_ref(), 0, *now).map_err(&failed)?;
                } else if let Some(known) = table.find(bytes.as_ref()) {
                    table.take(known, *now);
                } else {
                    // It was forgotten: what it gave stays.
                    continue;
                }
            }
            let kind = if adds { ChangeKind::Insert } else { ChangeKind::Delete };
            let (other, before) = (&self.sides[1 - *side], changes.len());
            for found in other.rings().rows_from(key, first) {
                if changes.len() - before == PARTNERS_AT_ONCE {
                    (*next, *partner) = (row, Some(found));
                    break;
                }
                changes.push(row as u32, found, kind, other.count(found));
            }
            changes.note(batch, row, changes.len() - before);
        }
        Ok(())
    }

    /// The next rows, one after another, for joins that give more than pairs.
    fn counting(&mut self, taking: &mut Taking) -> Result<(), EngineError> {
        // What rows of one side find on the other does not depend on each other.
        let (mut own_rows, mut partners) = (Vec::new(), Vec::new());
        let (first, other) = (taking.next, &self.sides[1 - taking.side]);
        while taking.next < taking.numbers.len() && own_rows.len() < OUTPUT_ROWS {
            let (row, before) = (taking.next, partners.len());
            if taking.numbers[row] != NONE {
                partners.extend(other.rings().rows(taking.numbers[row]));
                self.room.check(partners.len() - before)?;
                own_rows.resize(partners.len(), row as u32);
                taking.changes.note(&taking.batch, row, partners.len() - before);
            }
            taking.next += 1;
        }
        let own = Own { rows: &taking.batch.rows, side: taking.side };
        if let Some(holds) = self.output.test(own, other, &own_rows, &partners)? {
            let mut holding = holds.iter();
            own_rows.retain(|_| holding.next() == Some(&true));
            let mut holding = holds.iter();
            partners.retain(|_| holding.next() == Some(&true));
        }
        let mut from = 0;
        let mut changes = std::mem::take(&mut taking.changes);
        for row in first..taking.next {
            let count = own_rows[from..].iter().take_while(|own| **own == row as u32).count();
            self.take(taking, row, &partners[from..from + count], &mut changes)?;
            from += count;
        }
        taking.changes = changes;
        Ok(())
    }

    /// All of the rows have given what they give.
    fn finish(&mut self, taking: &Taking) -> Result<(), EngineError> {
        self.append(taking)?;
        if taking.batch.changes.is_some() {
            let taken = taking.numbers.iter().enumerate().filter(|(row, _)| !taking.batch.is_addition(*row));
            let keys = taken.map(|(_, key)| *key).collect();
            self.release(keys);
        }
        Ok(())
    }

    /// Takes one row that has these partners.
    fn take(
        &mut self,
        taking: &Taking,
        row: usize,
        partners: &[u32],
        changes: &mut Changes,
    ) -> Result<(), EngineError> {
        let failed = self.failed();
        let (side, adds) = (taking.side, taking.batch.is_addition(row));
        let copies =
            partners.iter().fold(0_u32, |sum, partner| sum.saturating_add(self.sides[1 - side].count(*partner)));
        // How many partners the row has, by what was given for it.
        let mut known = copies;
        if taking.numbers[row] != NONE
            && let (Side::Table(table), Some(rows)) = (&mut self.sides[side], &taking.rows)
        {
            let (key, bytes) = (taking.numbers[row], rows.row(row));
            let at = match (adds, table.find(bytes.as_ref())) {
                (true, _) => table.add(key, bytes.as_ref(), copies, taking.now).map_err(&failed)?,
                (false, Some(at)) => at,
                // It was forgotten: what it gave stays.
                (false, None) => return Ok(()),
            };
            if self.counted[side] {
                known = table.partners(at);
            }
            if !adds {
                table.take(at, taking.now);
            }
        }
        let (gives, takes) = (ChangeKind::Insert, ChangeKind::Delete);
        let own = row as u32;
        let now = if adds { gives } else { takes };
        let left_only = match self.kind {
            JoinKind::Semi => Some(true),
            JoinKind::Anti { .. } => Some(false),
            _ => None,
        };
        match (left_only, side) {
            (Some(with_partner), 0) => {
                if (known > 0) == with_partner {
                    changes.push(own, NONE, now, 1);
                }
            }
            (Some(with_partner), _) => {
                for partner in partners {
                    if self.count_partner(side, *partner, adds) {
                        let kind = if adds == with_partner { gives } else { takes };
                        changes.push(NONE, *partner, kind, self.sides[0].count(*partner));
                    }
                }
            }
            (None, _) => {
                for partner in partners {
                    let copies = self.sides[1 - side].count(*partner);
                    let turns = self.counted[1 - side] && self.count_partner(side, *partner, adds);
                    if turns && adds {
                        changes.push(NONE, *partner, takes, copies);
                    }
                    changes.push(own, *partner, now, copies);
                    if turns && !adds {
                        changes.push(NONE, *partner, gives, copies);
                    }
                }
                if self.counted[side] && known == 0 {
                    changes.push(own, NONE, now, 1);
                }
            }
        }
        Ok(())
    }

    /// Counts a partner of a kept row of the other side; whether it is the first to come or the last to go.
    fn count_partner(&mut self, side: usize, row: u32, adds: bool) -> bool {
        let Side::Table(other) = &mut self.sides[1 - side] else { return false };
        let before = other.partners(row);
        let after = if adds { before.saturating_add(1) } else { before.saturating_sub(1) };
        other.set_partners(row, after);
        before != after && (before == 0 || after == 0)
    }

    /// Adds the rows to a side that only grows.
    fn append(&mut self, taking: &Taking) -> Result<(), EngineError> {
        let failed = self.failed();
        let Side::Append(side) = &mut self.sides[taking.side] else { return Ok(()) };
        if taking.batch.changes.is_some() {
            return Err(EngineError::Bug(format!("'{}': an input that only inserts takes rows away", self.name)));
        }
        let numbers = &taking.numbers;
        if !numbers.contains(&NONE) {
            return side.push(&taking.batch.rows, numbers).map_err(failed);
        }
        // A row whose key is NULL finds no partner ever.
        let mask = numbers.iter().map(|key| Some(*key != NONE)).collect();
        let rows = arrow::compute::filter_record_batch(&taking.batch.rows, &mask).map_err(&failed)?;
        let numbers: Vec<u32> = numbers.iter().copied().filter(|key| *key != NONE).collect();
        side.push(&rows, &numbers).map_err(failed)
    }

    /// See [`crate::expiry`].
    fn expire(&mut self, now: i64) {
        if !self.has_ttl {
            return;
        }
        let keys = self.sides.iter_mut().flat_map(|side| side.expire(now)).collect();
        self.release(keys);
    }
}

/// Rows of one input that are being taken.
struct Taking {
    batch: StreamBatch,
    /// 0: of the left one.
    side: usize,
    /// The number of each row's key.
    numbers: Vec<u32>,
    /// The rows as a table keeps them; absent where the side only grows.
    rows: Option<Rows>,
    /// The time of the epoch, in milliseconds.
    now: i64,
    /// The next row, and the partner from which on it is to be joined, if it has been joined with some.
    next: usize,
    partner: Option<u32>,
    /// What the rows before it give.
    changes: Changes,
}

impl Operator for RegularJoin {
    fn state_bytes(&self) -> usize {
        self.keys.bytes() + self.sides.iter().map(Side::bytes).sum::<usize>()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let now = self.context.now_ms();
        self.expire(now);
        let numbers = self.numbers(input, &batch.rows)?;
        let rows = match &self.sides[input] {
            Side::Append(_) => None,
            Side::Table(table) => {
                let rows = table.rows_of(batch.rows.columns(), batch.rows.num_rows());
                Some(rows.map_err(self.failed())?)
            }
        };
        let (next, partner, changes) = (0, None, Changes::default());
        self.run(Taking { batch, side: input, numbers, rows, now, next, partner, changes }, out)
    }

    fn has_more(&self) -> bool {
        self.taking.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.taking.take().map_or(Ok(()), |taking| self.run(taking, out))
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let failed = self.failed();
        let now = self.context.now_ms();
        self.expire(now);
        let whole = self.files.wants_whole_state(self.sides.iter().map(Side::len).sum());
        let mut tables = Vec::new();
        for (index, name) in TABLES.into_iter().enumerate() {
            let rows = self.sides[index].capture(whole).map_err(&failed)?;
            tables.push(TableRows { name, version: VERSION, key: self.key_columns[index].clone(), rows });
        }
        // What has expired is not written down: a restore lets it expire again, at the same time.
        let meta = if self.has_ttl { now.to_string() } else { String::new() };
        Ok(Some(self.files.capture(whole, tables, meta)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.captured_at = metas.iter().filter_map(|meta| meta.parse().ok()).max().unwrap_or(i64::MIN);
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let failed = self.failed();
        let mut count = 0;
        for (index, name) in TABLES.into_iter().enumerate() {
            for stored in state.rows(name, VERSION) {
                let stored = stored?;
                count += stored.num_rows();
                let numbers = self.numbers(index, &stored)?;
                self.sides[index].restore(&stored, &numbers).map_err(&failed)?;
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.expire(self.captured_at);
        self.release((0..self.keys.len() as u32).collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
