//! Conditions and measures of a pattern: what a variable asks of a row alone is evaluated for many rows at once, what
//! it asks of a match so far for all candidates of a wave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{and, concat};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion_expr::EmitTo;
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_plan::aggregate::CompiledAggregate;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{MatchEnd, PatternMatch as PatternSpec, Reference};

use super::elements::Elements;
use super::search::{Found, Search};
use crate::error::EngineError;
use crate::row_store::{RowId, RowStore};

/// Most candidates that are judged at once.
const CANDIDATES: usize = 8192;
/// About how many rows are aggregated at once.
const AGGREGATED_ROWS: usize = 1 << 16;

/// An element that might take a row of a match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The partition.
    pub(super) slot: u32,
    /// The match under way, or their number, for one that begins with the row.
    pub(super) under_way: usize,
    pub(super) element: usize,
    /// Where the verdict goes.
    pub(super) verdict: usize,
}

/// See the module.
pub(super) struct Evaluator {
    name: String,
    /// By variable.
    row_conditions: Vec<Option<Projected>>,
    match_conditions: Vec<Option<Projected>>,
    references: Vec<CompiledReference>,
    measures: Vec<Arc<dyn PhysicalExpr>>,
    /// The references that measures read.
    measured: Inputs,
}

/// Some columns of a schema.
struct Inputs {
    columns: Vec<usize>,
    schema: SchemaRef,
}

/// An expression over some columns of a schema.
struct Projected {
    expr: Arc<dyn PhysicalExpr>,
    inputs: Inputs,
}

enum CompiledReference {
    Column { variable: Option<usize>, from: MatchEnd, offset: usize, column: usize },
    Aggregate { variable: Option<usize>, call: Box<CompiledAggregate>, inputs: Inputs },
}

/// A match, or a part of one with a row that it might take.
struct Subject<'a> {
    rows: Rows<'a>,
    counts: &'a [u32],
    /// The element that might take the row behind those that are counted.
    taker: Option<usize>,
}

enum Rows<'a> {
    UnderWay(&'a Search, usize),
    Found(&'a [RowId]),
}

impl Subject<'_> {
    fn row(&self, position: usize) -> RowId {
        match &self.rows {
            Rows::UnderWay(search, under_way) => search.row_of(*under_way, position),
            Rows::Found(rows) => rows[position],
        }
    }

    /// The stretches of rows of a variable, or of all: place of the first row, number of rows.
    fn stretches<'s>(
        &'s self,
        elements: &'s Elements,
        variable: Option<usize>,
    ) -> impl Iterator<Item = (usize, usize)> + 's {
        let behind = self.taker.filter(|taker| *taker >= self.counts.len()).map(|taker| (taker, 1));
        let grown = move |(element, count): (usize, &u32)| {
            (element, *count as usize + usize::from(self.taker == Some(element)))
        };
        let mut begin = 0;
        let placed = move |(element, count): (usize, usize)| {
            let stretch = (element, begin, count);
            begin += count;
            stretch
        };
        let is_of = move |element: usize| variable.is_none_or(|variable| elements.variable(element) == variable);
        self.counts
            .iter()
            .enumerate()
            .map(grown)
            .chain(behind)
            .map(placed)
            .filter(move |(element, _, count)| *count > 0 && is_of(*element))
            .map(|(_, begin, count)| (begin, count))
    }

    /// The row of a variable, or of all, from one end.
    fn nth(&self, elements: &Elements, variable: Option<usize>, from: MatchEnd, offset: usize) -> Option<RowId> {
        let offset = match from {
            MatchEnd::First => offset,
            MatchEnd::Last => {
                let rows: usize = self.stretches(elements, variable).map(|(_, count)| count).sum();
                rows.checked_sub(offset + 1)?
            }
        };
        let mut left = offset;
        for (begin, count) in self.stretches(elements, variable) {
            if left < count {
                return Some(self.row(begin + left));
            }
            left -= count;
        }
        None
    }
}

impl Inputs {
    fn new(columns: Vec<usize>, schema: &Schema) -> Self {
        let fields: Vec<_> = columns.iter().map(|column| schema.fields()[*column].clone()).collect();
        Inputs { columns, schema: Arc::new(Schema::new(fields)) }
    }

    /// The place of a column among these.
    fn place(&self, column: usize) -> usize {
        self.columns.iter().position(|known| *known == column).expect("all columns of the expression are inputs")
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &count)
    }
}

impl Projected {
    fn new(expr: &Expr, schema: &Schema, context: &EvalContext) -> Result<Self, EngineError> {
        let inputs = Inputs::new(expr.columns().into_iter().collect(), schema);
        let mut expr = expr.clone();
        expr.remap_columns(&|column| inputs.place(column));
        Ok(Projected { expr: expr.compile(&inputs.schema, context)?, inputs })
    }
}

impl Evaluator {
    pub(super) fn new(name: &str, spec: &PatternSpec, context: &EvalContext) -> Result<Self, EngineError> {
        let compiled = |expr: &Option<Expr>, schema: &Schema| {
            expr.as_ref().map(|expr| Projected::new(expr, schema, context)).transpose()
        };
        let input = &spec.input_schema;
        let variables = spec.variables.iter();
        let row_conditions = variables.clone().map(|variable| compiled(&variable.row_condition, input));
        let match_conditions = variables.map(|variable| compiled(&variable.match_condition, &spec.reference_schema));
        let read: BTreeSet<usize> = spec.measures.iter().flat_map(|measure| measure.expr.columns()).collect();
        let measured = Inputs::new(read.into_iter().collect(), &spec.reference_schema);
        let measure = |expr: &Expr| {
            let mut expr = expr.clone();
            expr.remap_columns(&|column| measured.place(column));
            expr.compile(&measured.schema, context)
        };
        let measures = spec.measures.iter().map(|named| measure(&named.expr)).collect::<Result<_, _>>()?;
        let references = spec.references.iter().map(|reference| compiled_reference(reference, input, context));
        Ok(Evaluator {
            name: name.to_owned(),
            row_conditions: row_conditions.collect::<Result<_, _>>()?,
            match_conditions: match_conditions.collect::<Result<_, _>>()?,
            references: references.collect::<Result<_, _>>()?,
            measures,
            measured,
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn evaluate(&self, expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef, EngineError> {
        let value = expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
        value.map_err(|e| EngineError::evaluation(&self.name, &e))
    }

    /// For each variable, for which rows what it asks of a row alone is true; none where it asks nothing.
    pub(super) fn row_conditions(
        &self,
        store: &RowStore,
        ids: &[RowId],
    ) -> Result<Vec<Option<BooleanArray>>, EngineError> {
        let read: BTreeSet<usize> =
            self.row_conditions.iter().flatten().flat_map(|condition| condition.inputs.columns.clone()).collect();
        let read: Vec<usize> = read.into_iter().collect();
        let gathered = store.columns(&read, ids).map_err(|e| self.failed(&e))?;
        let gathered: BTreeMap<usize, ArrayRef> = read.into_iter().zip(gathered).collect();
        let holds = |condition: &Projected| {
            let columns = condition.inputs.columns.iter().map(|column| gathered[column].clone()).collect();
            let rows = condition.inputs.batch(columns, ids.len()).map_err(|e| self.failed(&e))?;
            Ok(is_true(&self.evaluate(&condition.expr, &rows)?))
        };
        self.row_conditions.iter().map(|condition| condition.as_ref().map(holds).transpose()).collect()
    }

    /// Whether a variable asks something of the match so far.
    pub(super) fn has_match_condition(&self, variable: usize) -> bool {
        self.match_conditions[variable].is_some()
    }

    /// For which candidates what the variable asks of the match so far is true.
    pub(super) fn judge(
        &self,
        variable: usize,
        candidates: &[Candidate],
        elements: &Elements,
        searches: &[Search],
        store: &RowStore,
    ) -> Result<Vec<bool>, EngineError> {
        let mut verdicts = Vec::with_capacity(candidates.len());
        let Some(condition) = &self.match_conditions[variable] else {
            return Ok(vec![true; candidates.len()]);
        };
        for piece in candidates.chunks(CANDIDATES) {
            let subject = |candidate: &Candidate| {
                let search = &searches[candidate.slot as usize];
                Subject {
                    rows: Rows::UnderWay(search, candidate.under_way),
                    counts: search.counts_of(candidate.under_way),
                    taker: Some(candidate.element),
                }
            };
            let subjects: Vec<Subject<'_>> = piece.iter().map(subject).collect();
            let rows = self.references_of(&condition.inputs, &subjects, elements, store)?;
            let holds = is_true(&self.evaluate(&condition.expr, &rows)?);
            verdicts.extend(holds.values().iter());
        }
        Ok(verdicts)
    }

    /// The measures of matches.
    pub(super) fn measures(
        &self,
        found: &[Found],
        elements: &Elements,
        store: &RowStore,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let subjects: Vec<Subject<'_>> = found
            .iter()
            .map(|found| Subject { rows: Rows::Found(&found.rows), counts: &found.counts, taker: None })
            .collect();
        let rows = self.references_of(&self.measured, &subjects, elements, store)?;
        self.measures.iter().map(|measure| self.evaluate(measure, &rows)).collect()
    }

    /// The columns of some references, one row for each subject.
    fn references_of(
        &self,
        inputs: &Inputs,
        subjects: &[Subject<'_>],
        elements: &Elements,
        store: &RowStore,
    ) -> Result<RecordBatch, EngineError> {
        let mut columns = Vec::with_capacity(inputs.columns.len());
        for reference in &inputs.columns {
            columns.push(match &self.references[*reference] {
                CompiledReference::Column { variable, from, offset, column } => {
                    let nth = |subject: &Subject<'_>| subject.nth(elements, *variable, *from, *offset);
                    let ids: Vec<Option<RowId>> = subjects.iter().map(nth).collect();
                    store.optional_column(*column, &ids).map_err(|e| self.failed(&e))?
                }
                CompiledReference::Aggregate { variable, call, inputs } => {
                    self.aggregates(*variable, call, inputs, subjects, elements, store)?
                }
            });
        }
        inputs.batch(columns, subjects.len()).map_err(|e| self.failed(&e))
    }

    /// An aggregate over the rows of a variable of each subject.
    fn aggregates(
        &self,
        variable: Option<usize>,
        call: &CompiledAggregate,
        inputs: &Inputs,
        subjects: &[Subject<'_>],
        elements: &Elements,
        store: &RowStore,
    ) -> Result<ArrayRef, EngineError> {
        let mut results: Vec<ArrayRef> = Vec::new();
        let mut begin = 0;
        while begin < subjects.len() || results.is_empty() {
            let (mut ids, mut groups): (Vec<Option<RowId>>, Vec<usize>) = (Vec::new(), Vec::new());
            let mut end = begin;
            while end < subjects.len() && ids.len() < AGGREGATED_ROWS {
                let subject = &subjects[end];
                for (first, count) in subject.stretches(elements, variable) {
                    ids.extend((first..first + count).map(|position| Some(subject.row(position))));
                }
                if ids.len() == groups.len() {
                    // Accumulators expect that each group has a row; this one is filtered out.
                    ids.push(None);
                }
                groups.resize(ids.len(), end - begin);
                end += 1;
            }
            let column = |column: &usize| store.optional_column(*column, &ids);
            let columns = inputs.columns.iter().map(column).collect::<Result<_, _>>();
            let rows = columns.and_then(|columns| inputs.batch(columns, ids.len())).map_err(|e| self.failed(&e))?;
            let args = call.args.iter().map(|arg| self.evaluate(arg, &rows)).collect::<Result<Vec<_>, _>>()?;
            let is_there: BooleanArray = ids.iter().map(|id| Some(id.is_some())).collect();
            let filter = match &call.filter {
                Some(filter) => {
                    and(&is_there, &is_true(&self.evaluate(filter, &rows)?)).map_err(|e| self.failed(&e))?
                }
                None => is_there,
            };
            let mut accumulator = call.groups_accumulator()?;
            let result = accumulator
                .update_batch(&args, &groups, Some(&filter), end - begin)
                .and_then(|()| accumulator.evaluate(EmitTo::All));
            results.push(result.map_err(|e| EngineError::evaluation(&self.name, &e))?);
            begin = end;
        }
        let results: Vec<&dyn Array> = results.iter().map(AsRef::as_ref).collect();
        concat(&results).map_err(|e| self.failed(&e))
    }
}

fn compiled_reference(
    reference: &Reference,
    input: &SchemaRef,
    context: &EvalContext,
) -> Result<CompiledReference, EngineError> {
    Ok(match reference {
        Reference::Column { variable, from, offset, column } => {
            let offset = *offset as usize;
            CompiledReference::Column { variable: *variable, from: *from, offset, column: *column }
        }
        Reference::Aggregate { variable, call } => {
            // A variable may have no row.
            let nullable = input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let input = Schema::new(nullable.collect::<Vec<_>>());
            let inputs = Inputs::new(call.columns().into_iter().collect(), &input);
            let mut call = call.clone();
            call.remap_columns(&|column| inputs.place(column));
            let call = Box::new(call.compile(&inputs.schema, context)?);
            CompiledReference::Aggregate { variable: *variable, call, inputs }
        }
    })
}

/// Where a condition is true: neither false nor NULL.
fn is_true(condition: &ArrayRef) -> BooleanArray {
    let Some(holds) = condition.as_boolean_opt() else {
        // The condition is NULL throughout.
        return BooleanArray::from(vec![false; condition.len()]);
    };
    match holds.nulls() {
        Some(valid) => BooleanArray::new(holds.values() & valid.inner(), None),
        None => holds.clone(),
    }
}
