//! `NOT IN` over a sub-query, where NULLs may come: as long as the other side has no rows, all rows pass; as soon as it
//! has a NULL, none; in between those that are not NULL and that it does not have. All rows are on one subtask.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::Join;

use super::keys::{JoinKeys, types};
use super::output::{Changes, OUTPUT_ROWS, Output, Own};
use super::rings::NONE;
use super::side::Side;
use super::table::TableSide;
use super::{TABLES, VERSION};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, Restored, TableRows};

/// See the module.
pub(crate) struct NotIn {
    name: String,
    keys: JoinKeys,
    /// The only key column of either side.
    key_columns: [usize; 2],
    /// The number of NULL.
    null: u32,
    left: Side,
    right: Side,
    seen: Seen,
    output: Output,
    /// Rows that give more than a step may make.
    taking: Option<Taking>,
    files: DeltaFiles,
    context: EvalContext,
    has_ttl: bool,
    captured_at: i64,
}

/// Rows of one input that are being taken.
struct Taking {
    batch: StreamBatch,
    side: usize,
    numbers: Vec<u32>,
    rows: Rows,
    next: usize,
    /// What the rows before the next one give.
    changes: Changes,
}

/// What is known of the right side as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    rows: u64,
    nulls: u64,
}

impl Seen {
    /// Whether a row passes.
    fn lets_pass(self, is_null: bool, partners: u32) -> bool {
        self.rows == 0 || (!is_null && self.nulls == 0 && partners == 0)
    }

    /// Whether rows may pass by one and not by the other, whatever their partners.
    fn differs(self, other: Seen) -> bool {
        (self.rows == 0) != (other.rows == 0) || (self.nulls == 0) != (other.nulls == 0)
    }

    fn change(&mut self, is_null: bool, adds: bool, rows: u64) {
        let change = |number: &mut u64| *number = if adds { *number + rows } else { number.saturating_sub(rows) };
        change(&mut self.rows);
        if is_null {
            change(&mut self.nulls);
        }
    }
}

impl NotIn {
    /// An operator without state. The join has one pair of keys and no condition.
    pub(crate) fn new(name: &str, join: &Join, schema: SchemaRef, context: &EvalContext) -> Result<NotIn, EngineError> {
        let failed = |e| EngineError::arrow(name, &e);
        let on = &join.on;
        let ([left_key], [right_key], None) = (on.left_keys.as_slice(), on.right_keys.as_slice(), &on.condition) else {
            return Err(EngineError::Bug(format!("'{name}' compares more than one pair of columns")));
        };
        let table = |schema: &SchemaRef, ttl_ms| TableSide::new(schema, ttl_ms).map(Side::table).map_err(failed);
        Ok(NotIn {
            name: name.to_owned(),
            keys: JoinKeys::new(&types(&on.left_schema, &on.left_keys), vec![true]).map_err(failed)?,
            key_columns: [*left_key, *right_key],
            null: NONE,
            left: table(&on.left_schema, join.left_ttl_ms)?,
            right: table(&on.right_schema, join.right_ttl_ms)?,
            seen: Seen::default(),
            output: Output::new(name, on, schema, true, context)?,
            taking: None,
            files: DeltaFiles::default(),
            context: context.clone(),
            has_ttl: join.left_ttl_ms.is_some() || join.right_ttl_ms.is_some(),
            captured_at: i64::MIN,
        })
    }

    fn failed(&self) -> impl Fn(arrow::error::ArrowError) -> EngineError + use<> {
        let name = self.name.clone();
        move |e| EngineError::arrow(&name, &e)
    }

    fn numbers(&mut self, side: usize, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let mut numbers = Vec::new();
        let column = self.key_columns[side];
        self.keys.intern(rows, &[column], &mut numbers).map_err(self.failed())?;
        let nulls = rows.column(column).logical_nulls();
        if let Some(row) = nulls.and_then(|nulls| (0..rows.num_rows()).find(|row| nulls.is_null(*row))) {
            self.null = numbers[row];
        }
        let keys = self.keys.len();
        [&mut self.left, &mut self.right].into_iter().for_each(|side| side.reserve_keys(keys));
        Ok(numbers)
    }

    fn left_row(&mut self, key: u32, row: &[u8], adds: bool) -> Result<bool, EngineError> {
        let failed = self.failed();
        let now = self.context.now_ms();
        let is_null = key == self.null;
        let Side::Table(left) = &mut self.left else { return Ok(false) };
        let at = match (adds, left.find(row)) {
            (true, _) => {
                let partners =
                    self.right.rings().rows(key).fold(0_u32, |sum, at| sum.saturating_add(self.right.count(at)));
                left.add(key, row, if is_null { 0 } else { partners }, now).map_err(failed)?
            }
            (false, Some(at)) => at,
            (false, None) => return Ok(false),
        };
        let partners = left.partners(at);
        if !adds {
            left.take(at, now);
        }
        Ok(self.seen.lets_pass(is_null, partners))
    }

    fn right_row(&mut self, key: u32, row: &[u8], adds: bool, changes: &mut Changes) -> Result<(), EngineError> {
        let failed = self.failed();
        let now = self.context.now_ms();
        let Side::Table(right) = &mut self.right else { return Ok(()) };
        if adds {
            right.add(key, row, 0, now).map_err(failed)?;
        } else if let Some(at) = right.find(row) {
            right.take(at, now);
        } else {
            // It was forgotten: what it kept back stays so.
            return Ok(());
        }
        let before = self.seen;
        self.seen.change(key == self.null, adds, 1);
        let Side::Table(left) = &mut self.left else { return Ok(()) };
        let affected: Vec<u32> = match before.differs(self.seen) {
            true => left.rings.keys().flat_map(|key| left.rings.rows(key)).collect(),
            false => left.rings.rows(key).collect(),
        };
        for at in affected {
            let is_null = left.key(at) == self.null;
            let partners = left.partners(at);
            let passed = before.lets_pass(is_null, partners);
            let mut after = partners;
            if left.key(at) == key && !is_null {
                after = if adds { partners.saturating_add(1) } else { partners.saturating_sub(1) };
                left.set_partners(at, after);
            }
            let passes = self.seen.lets_pass(is_null, after);
            if passed != passes {
                let kind = if passes { ChangeKind::Insert } else { ChangeKind::Delete };
                changes.push(NONE, at, kind, left.count(at));
            }
        }
        Ok(())
    }

    /// Goes on with rows that have come, as far as one step may go.
    fn run(&mut self, mut taking: Taking, out: &mut Collector) -> Result<(), EngineError> {
        taking.changes.begin_step();
        loop {
            let own = Own { rows: &taking.batch.rows, side: taking.side };
            if !self.output.give(own, &self.left, &mut taking.changes, out)? {
                self.taking = Some(taking);
                return Ok(());
            }
            if taking.next == taking.numbers.len() {
                break;
            }
            while taking.next < taking.numbers.len() && taking.changes.len() < OUTPUT_ROWS {
                self.take(&mut taking)?;
            }
        }
        if taking.batch.changes.is_some() {
            self.release(taking.numbers);
        }
        Ok(())
    }

    fn take(&mut self, taking: &mut Taking) -> Result<(), EngineError> {
        let (row, adds) = (taking.next, taking.batch.is_addition(taking.next));
        let (key, bytes) = (taking.numbers[row], taking.rows.row(row));
        taking.next += 1;
        if taking.side == 1 {
            return self.right_row(key, bytes.as_ref(), adds, &mut taking.changes);
        }
        if self.left_row(key, bytes.as_ref(), adds)? {
            let kind = if adds { ChangeKind::Insert } else { ChangeKind::Delete };
            taking.changes.push(row as u32, NONE, kind, 1);
        }
        Ok(())
    }

    fn release(&mut self, mut keys: Vec<u32>) {
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            // The number of NULL stays what it is.
            if key != self.null && self.left.rings().is_empty(key) && self.right.rings().is_empty(key) {
                self.keys.release(key);
            }
        }
    }

    /// Rows that expire are still counted in `seen`: what they keep back stays so.
    fn expire(&mut self, now: i64) {
        let mut keys = self.left.expire(now);
        keys.extend(self.right.expire(now));
        self.release(keys);
    }
}

impl Operator for NotIn {
    fn state_bytes(&self) -> usize {
        self.keys.bytes() + self.left.bytes() + self.right.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let numbers = self.numbers(input, &batch.rows)?;
        let side = if input == 0 { &self.left } else { &self.right };
        let Side::Table(table) = side else { return Ok(()) };
        let rows = table.rows_of(batch.rows.columns(), batch.rows.num_rows()).map_err(self.failed())?;
        self.run(Taking { batch, side: input, numbers, rows, next: 0, changes: Changes::default() }, out)
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
        if self.has_ttl {
            self.expire(now);
        }
        let whole = self.files.wants_whole_state(self.left.len() + self.right.len());
        let mut tables = Vec::new();
        for (name, side) in TABLES.into_iter().zip([&mut self.left, &mut self.right]) {
            let rows = side.capture(whole).map_err(&failed)?;
            // Its rows are all on one subtask.
            tables.push(TableRows { name, version: VERSION, key: vec![], rows });
        }
        let meta = format!("{now} {} {}", self.seen.rows, self.seen.nulls);
        Ok(Some(self.files.capture(whole, tables, meta)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        for meta in metas {
            let mut parts = meta.split(' ');
            let mut next = || parts.next().and_then(|part| part.parse::<i64>().ok());
            let (Some(now), Some(rows), Some(nulls)) = (next(), next(), next()) else {
                return Err(EngineError::Bug(format!("'{}': its state says '{meta}'", self.name)));
            };
            self.captured_at = now;
            // All subtasks but one have seen nothing; the one that has the rows now has to know.
            self.seen.rows += u64::try_from(rows).unwrap_or(0);
            self.seen.nulls += u64::try_from(nulls).unwrap_or(0);
        }
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
                let side = if index == 0 { &mut self.left } else { &mut self.right };
                side.restore(&stored, &numbers).map_err(&failed)?;
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        if self.has_ttl {
            self.expire(self.captured_at);
        }
        if self.left.len() + self.right.len() == 0 {
            // The rows are on another subtask, which knows what it has seen.
            self.seen = Seen::default();
        }
        self.release((0..self.keys.len() as u32).collect());
        Ok(())
    }
}
