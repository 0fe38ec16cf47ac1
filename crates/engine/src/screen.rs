//! Which rows of a source may go on: those that its table's contracts do not refuse. What is refused is counted, becomes a
//! dead letter or stops the job, as the table's options say; so does what the reader has rejected. Called by the source's task
//! for each batch, before anything else looks at it.
//!
//! A row that breaks a contract is no part of the table. So in a changelog its addition is refused, and whatever takes it
//! away later is passed over without a word: it was never there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, AsArray, BooleanArray, Int8Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::Int8Type;
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_connectors::{
    BAD_RECORD_ADVICE, BadRecordOptions, BadRecordPolicy, ConnectorError, DeadLetter, Origins, Rejected,
    bad_record_options,
};
use mainstem_core::bad_records::{BadRecordBudget, BudgetSpent};
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::graph::Node;
use mainstem_core::ids::SplitId;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{Operator, SourceOperator};

use crate::dead_letters::LetterFormat;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::{is_event_time, is_watermark, says_of_time, to_milliseconds};
use crate::metrics::OperatorMetrics;

/// See the module.
pub(crate) struct Screen {
    operator: String,
    table: String,
    options: BadRecordOptions,
    contracts: Vec<Contract>,
    budget: Option<BadRecordBudget>,
    letters: Option<LetterFormat>,
    /// Rows replace each other by key: a delete may know nothing but its key.
    by_key: bool,
    context: EvalContext,
    metrics: Arc<OperatorMetrics>,
}

/// Something that must hold of each row.
struct Contract {
    expr: Arc<dyn PhysicalExpr>,
    kind: ContractKind,
}

/// Whether a time (ms) may be what it is said to be.
type IsRight = fn(i64) -> bool;

enum ContractKind {
    /// A condition that must not be false; what to say where it is.
    Check(String),
    /// An event time or a watermark, which must be there and be one: what it is, and its expression.
    Time { what: &'static str, of: String, is_right: IsRight },
    /// Any value, which must come about; what to say where it does not.
    Computes(String),
}

/// A batch after the screen.
pub(crate) struct Screened {
    /// The rows that may go on.
    pub(crate) rows: RecordBatch,
    /// Their kinds; none: all are inserts.
    pub(crate) changes: Option<Int8Array>,
    /// Rows of port 1.
    pub(crate) letters: Option<StreamBatch>,
    /// Whether there were records that do not go on.
    pub(crate) has_rejected: bool,
}

impl Screen {
    /// Compiles the contracts of a source operator.
    pub(crate) fn new(
        node: &Node<Operator>,
        source: &SourceOperator,
        context: &EvalContext,
        metrics: Arc<OperatorMetrics>,
    ) -> Result<Screen, EngineError> {
        let operator = node.name.clone();
        let table = source.table.name.clone();
        let failed = |error| EngineError::Connector { table: table.clone(), error };
        let options = bad_record_options(&source.table).map_err(failed)?;
        let read = source.table.schema.project(&source.read_columns);
        let read = Arc::new(read.map_err(|e| EngineError::arrow(&operator, &e))?);
        let mut contracts = Vec::new();
        for check in &source.checks {
            let says = format!("the row breaks the constraint '{}', CHECK ({})", check.name, check.text);
            contracts.push(Contract { expr: check.expr.compile(&read, context)?, kind: ContractKind::Check(says) });
        }
        // Where a wrong record stops the job, so do the expressions themselves, without being computed twice.
        if options.policy != BadRecordPolicy::Fail {
            if let Some(spec) = &source.watermark {
                let time = ("event time", &spec.time, is_event_time as IsRight);
                for (what, expr, is_right) in [time, ("watermark", &spec.watermark, is_watermark)] {
                    let kind = ContractKind::Time { what, of: expr.display(&read).to_string(), is_right };
                    contracts.push(Contract { expr: expr.compile(&read, context)?, kind });
                }
            }
            for named in source.computed.iter().filter(|named| !matches!(named.expr, Expr::Column(_))) {
                let says = format!("the computed column '{}' is {}", named.name, named.expr.display(&read));
                let expr = named.expr.compile(&read, context)?;
                contracts.push(Contract { expr, kind: ContractKind::Computes(says) });
            }
        }
        let budget = options.max_fraction.map(|fraction| BadRecordBudget::new(fraction, options.min_records));
        let letters = source.dead_letters.clone();
        let letters = letters.map(|schema| LetterFormat::new(&operator, &source.table, schema, options.raw_bytes_max));
        let by_key = node.op.changes == ChangeMode::Upsert;
        let context = context.clone();
        Ok(Screen { operator, table, options, contracts, budget, letters, by_key, context, metrics })
    }

    /// Whether it is worth while to know where each row comes from.
    pub(crate) fn wants_origins(&self) -> bool {
        let checked = self.contracts.iter().any(|contract| matches!(contract.kind, ContractKind::Check(_)));
        checked || (!self.contracts.is_empty() && self.options.policy == BadRecordPolicy::DeadLetter)
    }

    /// Takes a batch of one split.
    pub(crate) fn screen(
        &mut self,
        split: &SplitId,
        rows: RecordBatch,
        changes: Option<Int8Array>,
        rejected: Rejected,
        origins: Option<&Origins>,
    ) -> Result<Screened, EngineError> {
        let refused = self.refused(&rows, changes.as_ref())?;
        let looked_at = rows.num_rows() as u64 + rejected.count;
        let has_rejected = rejected.count > 0 || !refused.is_empty();
        let Rejected { count, mut newest, mut letters } = rejected;
        let (rows, changes, bad) = match refused.is_empty() {
            true => (rows, changes, Vec::new()),
            false => {
                let bad = self.take_out(split, &refused, changes.as_ref(), origins, &mut newest)?;
                let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(!refused.contains_key(&row))).collect();
                let failed = |e| EngineError::arrow(&self.operator, &e);
                let rows = compute::filter_record_batch(&rows, &kept).map_err(failed)?;
                let changes = changes.map(|changes| compute::filter(&changes, &kept)).transpose().map_err(failed)?;
                (rows, changes.map(|changes| changes.as_primitive::<Int8Type>().clone()), bad)
            }
        };
        let bad_count = count + bad.len() as u64;
        letters.extend(bad);
        self.judge(looked_at, bad_count, newest)?;
        let letters = self.send_on(split, bad_count, letters)?;
        Ok(Screened { rows, changes, letters, has_rejected })
    }

    /// The rows that break a contract, each with the first that it breaks.
    fn refused(&self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<BTreeMap<usize, String>, EngineError> {
        let mut refused = BTreeMap::new();
        if rows.num_rows() == 0 {
            return Ok(refused);
        }
        for contract in &self.contracts {
            for (row, reason) in contract.broken(rows) {
                let only_key = self.by_key && changes.is_some_and(|c| c.value(row) == ChangeKind::Delete as i8);
                if !only_key {
                    refused.entry(row).or_insert(reason);
                }
            }
        }
        Ok(refused)
    }

    /// The records of refused rows that were to be added; the first of them is the error where it is to stop the job.
    fn take_out(
        &self,
        split: &SplitId,
        refused: &BTreeMap<usize, String>,
        changes: Option<&Int8Array>,
        origins: Option<&Origins>,
        newest: &mut Option<String>,
    ) -> Result<Vec<DeadLetter>, EngineError> {
        let is_addition = |row: usize| {
            let kind = changes.map_or(ChangeKind::Insert as i8, |changes| changes.value(row));
            kind == ChangeKind::Insert as i8 || kind == ChangeKind::UpdateAfter as i8
        };
        let mut letters = Vec::new();
        for (&row, reason) in refused.iter().filter(|(row, _)| is_addition(**row)) {
            let place = origins.map_or_else(|| format!("'{split}'"), |origins| origins.place(&split.0, row));
            if self.options.policy == BadRecordPolicy::Fail {
                let shown = origins.and_then(|origins| origins.excerpt(row));
                let shown = shown.map_or_else(String::new, |shown| format!("; the record is: {shown}"));
                let error = ConnectorError::data(format!("{place}: {reason}{shown} -- {BAD_RECORD_ADVICE}"));
                return Err(EngineError::Connector { table: self.table.clone(), error });
            }
            *newest = Some(format!("{place}: {reason}"));
            let unknown = |reason| DeadLetter { position: -1, line: None, raw: None, raw_key: None, reason };
            letters.push(match origins {
                Some(origins) => origins.letter(row, reason.clone()),
                None => unknown(reason.clone()),
            });
        }
        Ok(letters)
    }

    /// Stops a job whose records are mostly wrong.
    fn judge(&mut self, looked_at: u64, bad: u64, newest: Option<String>) -> Result<(), EngineError> {
        let Some(budget) = self.budget.as_mut().filter(|_| looked_at > 0) else { return Ok(()) };
        let Some(BudgetSpent { bad, seen }) = budget.look(looked_at, bad) else { return Ok(()) };
        let fraction = self.options.max_fraction.unwrap_or_default();
        let newest = newest.map_or_else(String::new, |newest| format!("; the newest is {newest}"));
        let message = format!(
            "{bad} of the last {seen} records that a subtask has read are wrong, more than 'bad-records.max-fraction' = '{fraction}' \
             accepts{newest}; mend what writes them, or the declared table, or raise the option"
        );
        let error = ConnectorError::data(message);
        Err(EngineError::Connector { table: self.table.clone(), error })
    }

    /// Counts rejected records, and makes rows of them where they are wanted.
    fn send_on(
        &self,
        split: &SplitId,
        count: u64,
        mut letters: Vec<DeadLetter>,
    ) -> Result<Option<StreamBatch>, EngineError> {
        if count == 0 {
            return Ok(None);
        }
        let Some(format) = &self.letters else {
            self.metrics.dropped_records.fetch_add(count, Relaxed);
            return Ok(None);
        };
        self.metrics.dead_letters.fetch_add(count, Relaxed);
        letters.sort_by_key(|letter| letter.position);
        Ok(Some(StreamBatch::on_time(format.rows(&split.0, &letters, self.context.now_ms())?)))
    }
}

impl Contract {
    /// The rows that break it, and what to say of each.
    fn broken(&self, rows: &RecordBatch) -> Vec<(usize, String)> {
        match self.evaluate(rows) {
            Ok(broken) => broken,
            // One row's failure is not to blame the others.
            Err(_) => {
                (0..rows.num_rows()).filter_map(|row| Some((row, self.broken_alone(&rows.slice(row, 1))?))).collect()
            }
        }
    }

    fn broken_alone(&self, row: &RecordBatch) -> Option<String> {
        match self.evaluate(row) {
            Ok(broken) => broken.into_iter().next().map(|(_, says)| says),
            Err(error) => {
                let what = match &self.kind {
                    ContractKind::Check(says) | ContractKind::Computes(says) => says.clone(),
                    ContractKind::Time { what, of, .. } => format!("the {what} is {of}"),
                };
                Some(format!("{what}, which fails for it: {error}"))
            }
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<Vec<(usize, String)>, String> {
        let values = self.expr.evaluate(rows).and_then(|values| values.into_array(rows.num_rows()));
        let values = values.map_err(|error| error.strip_backtrace())?;
        Ok(match &self.kind {
            ContractKind::Check(says) => {
                let values = values.as_boolean();
                // NULL passes, as in SQL.
                match values.true_count() + values.null_count() == values.len() {
                    true => Vec::new(),
                    false => {
                        let is_false = |row: &usize| values.is_valid(*row) && !values.value(*row);
                        (0..values.len()).filter(is_false).map(|row| (row, says.clone())).collect()
                    }
                }
            }
            ContractKind::Time { what, of, is_right } => {
                let times = to_milliseconds(&values).map_err(|error| error.to_string())?;
                let broken = times.iter().enumerate().filter(|(_, time)| !time.is_some_and(is_right));
                let says = |time: Option<i64>| match time {
                    None => format!("the {what} '{of}' is NULL"),
                    Some(time) => format!("the {what} '{of}' is {}", says_of_time(time)),
                };
                broken.map(|(row, time)| (row, says(time))).collect()
            }
            ContractKind::Computes(_) => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
