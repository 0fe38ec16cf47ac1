//! INTERSECT and EXCEPT: for each distinct row how often either input has it.

use arrow::array::{Int8Array, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{SetKind, SetOperation as Spec};

use super::output::OUTPUT_ROWS;
use super::table::TableSide;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, Restored, TableRows};

/// Name and version of the state table: see [`super::table::stored_schema`]. `__count` is how often both inputs
/// together have the row, `__partners` how often the right one has it.
const TABLE: (&str, u32) = ("rows", 1);

/// See the module.
pub(crate) struct SetOperation {
    name: String,
    spec: Spec,
    schema: SchemaRef,
    /// All rows have one key.
    table: TableSide,
    files: DeltaFiles,
    context: EvalContext,
    captured_at: i64,
}

impl SetOperation {
    /// An operator without state, over rows of the given columns.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<SetOperation, EngineError> {
        let mut table = TableSide::new(&schema, spec.ttl_ms).map_err(|e| EngineError::arrow(name, &e))?;
        table.rings.reserve_keys(1);
        Ok(SetOperation {
            name: name.to_owned(),
            spec: spec.clone(),
            schema,
            table,
            files: DeltaFiles::default(),
            context: context.clone(),
            captured_at: i64::MIN,
        })
    }

    fn failed(&self) -> impl Fn(arrow::error::ArrowError) -> EngineError + use<> {
        let name = self.name.clone();
        move |e| EngineError::arrow(&name, &e)
    }

    /// How often the output has a row.
    fn times(&self, left: u32, right: u32) -> u32 {
        match (self.spec.kind, self.spec.all) {
            (SetKind::Intersect, true) => left.min(right),
            (SetKind::Intersect, false) => left.min(right).min(1),
            (SetKind::Except, true) => left.saturating_sub(right),
            (SetKind::Except, false) => u32::from(left > 0 && right == 0),
        }
    }

    /// Counts a row; gives how often the output had it before and has it now.
    fn count(&mut self, input: usize, row: &[u8], adds: bool) -> Result<(u32, u32), EngineError> {
        let failed = self.failed();
        let now = self.context.now_ms();
        let known = self.table.find(row);
        let (total, right) = known.map_or((0, 0), |at| (self.table.count(at), self.table.partners(at)));
        let before = self.times(total - right, right);
        let is_right = input == 1;
        if adds {
            let at = self.table.add(0, row, u32::from(is_right), now).map_err(failed)?;
            if is_right && known.is_some() {
                self.table.set_partners(at, right + 1);
            }
            let (left, right) = if is_right { (total - right, right + 1) } else { (total - right + 1, right) };
            return Ok((before, self.times(left, right)));
        }
        let Some(at) = known.filter(|_| if is_right { right > 0 } else { total > right }) else {
            // It was forgotten.
            return Ok((before, before));
        };
        if is_right {
            self.table.set_partners(at, right - 1);
        }
        self.table.take(at, now);
        let (left, right) = if is_right { (total - right, right - 1) } else { (total - right - 1, right) };
        Ok((before, self.times(left, right)))
    }

    fn give(
        &self,
        batch: &StreamBatch,
        rows: &mut Vec<u32>,
        kinds: &mut Vec<i8>,
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        let rows = UInt32Array::from(std::mem::take(rows));
        let taken = arrow::compute::take_record_batch(&batch.rows, &rows).map_err(self.failed())?;
        // The columns of the right input may have other names.
        let taken = RecordBatch::try_new(self.schema.clone(), taken.columns().to_vec()).map_err(self.failed())?;
        out.main.push(StreamBatch::changelog(taken, Int8Array::from(std::mem::take(kinds))));
        Ok(())
    }
}

impl Operator for SetOperation {
    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        self.table.expire(self.context.now_ms());
        let rows = self.table.rows_of(batch.rows.columns(), batch.rows.num_rows()).map_err(self.failed())?;
        let (mut positions, mut kinds) = (Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let (before, after) = self.count(input, row.as_ref(), batch.is_addition(position))?;
            // A single row changes the result by one at most.
            if before != after {
                positions.push(position as u32);
                kinds.push(if after > before { ChangeKind::Insert } else { ChangeKind::Delete } as i8);
            }
            if positions.len() >= OUTPUT_ROWS {
                self.give(&batch, &mut positions, &mut kinds, out)?;
            }
        }
        if positions.is_empty() { Ok(()) } else { self.give(&batch, &mut positions, &mut kinds, out) }
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let now = self.context.now_ms();
        self.table.expire(now);
        let whole = self.files.wants_whole_state(self.table.len());
        let rows = self.table.capture(whole).map_err(self.failed())?;
        let key = (0..self.schema.fields().len()).collect();
        let table = TableRows { name: TABLE.0, version: TABLE.1, key, rows };
        let meta = if self.spec.ttl_ms.is_some() { now.to_string() } else { String::new() };
        Ok(Some(self.files.capture(whole, vec![table], meta)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.captured_at = metas.iter().filter_map(|meta| meta.parse().ok()).max().unwrap_or(i64::MIN);
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let failed = self.failed();
        let mut count = 0;
        for stored in state.rows(TABLE.0, TABLE.1) {
            let stored = stored?;
            count += stored.num_rows();
            self.table.restore(&stored, &vec![0; stored.num_rows()]).map_err(&failed)?;
        }
        self.files.restored(state.handle, count);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.table.expire(self.captured_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn rows_of_the_second_query_leave_under_the_names_of_the_first() {
        let rows = |name: &str| {
            let values: ArrayRef = Arc::new(Int64Array::from(vec![7]));
            RecordBatch::try_from_iter_with_nullable([(name, values, true)]).unwrap()
        };
        let spec = Spec { kind: SetKind::Except, all: false, ttl_ms: None };
        let left = rows("n");
        let mut except = SetOperation::new("except", &spec, left.schema(), &EvalContext::default()).unwrap();
        let of_kind = |rows: RecordBatch, kind: ChangeKind| StreamBatch::changelog(rows, vec![kind as i8].into());
        let mut out = Collector::default();
        except.process(0, of_kind(left.clone(), ChangeKind::Insert), &mut out).unwrap();
        except.process(1, of_kind(rows("m"), ChangeKind::Insert), &mut out).unwrap();
        except.process(1, of_kind(rows("m"), ChangeKind::Delete), &mut out).unwrap();
        let additions: Vec<bool> = out.main.iter().map(|batch| batch.is_addition(0)).collect();
        assert_eq!(additions, [true, false, true]);
        for batch in &out.main {
            assert_eq!(batch.rows.schema(), left.schema());
            assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().value(0), 7);
        }
    }
}
