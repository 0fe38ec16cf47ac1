//! The aggregates of an operator: their arguments, evaluated once a batch however many calls share them, and their
//! accumulators.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, SchemaRef, UInt64Type};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_plan::aggregate::{AggregateCall, AggregateForm, CompiledAggregate};
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::GroupAggregate;

use super::accumulator::{Accumulator, Changes, Collection, take};
use super::distinct::DistinctTable;
use super::extremes::{Picked, Rule, extreme};
use super::floats::FloatSum;
use super::general::{Merged, Recomputed};
use super::integer_average::IntegerAverage;
use super::multiset::ExtremeOfAll;
use super::statistics::{Boolean, Variance};
use super::sums::{Count, Sum, average_decimal, average_float};
use crate::error::EngineError;

/// See the module.
pub(super) struct Calls {
    /// Everything that is evaluated on a batch.
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// Which of them are conditions.
    conditions: Vec<usize>,
    calls: Vec<Call>,
    tables: Vec<Table>,
    /// Columns of a part of a group, by call; empty where there are no parts.
    partial_widths: Vec<usize>,
}

/// By expression: the rows that it selects, of a condition.
type Selections = Vec<Option<BooleanBuffer>>;

struct Call {
    /// Positions in `exprs`.
    args: Vec<usize>,
    filter: Option<usize>,
    accumulator: Box<dyn Accumulator>,
    /// Whether a table tells it which rows to see.
    by_table: bool,
}

/// The values of one argument, and the calls that want each of them once.
struct Table {
    arg: usize,
    calls: Vec<usize>,
    values: DistinctTable,
}

impl Calls {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let calls = self.calls.iter().map(|call| call.accumulator.bytes());
        calls.chain(self.tables.iter().map(|table| table.values.bytes())).sum()
    }

    /// Compiles the calls of an operator.
    pub(super) fn new(spec: &GroupAggregate, context: &EvalContext) -> std::result::Result<Calls, EngineError> {
        let mut all = Calls {
            exprs: Vec::new(),
            conditions: Vec::new(),
            calls: Vec::new(),
            tables: Vec::new(),
            partial_widths: Vec::new(),
        };
        let mut by_table: Vec<(usize, DataType, Vec<usize>)> = Vec::new();
        for call in &spec.aggregates {
            let compiled = call.compile(&spec.input_schema, context)?;
            let (form, distinct) = call.form(&compiled, &spec.input_schema, spec.input_retracts)?;
            let all_rows = form == AggregateForm::Count && !distinct && is_constant(call);
            let args = if all_rows { &[] } else { compiled.args.as_slice() };
            let args: Vec<usize> = args.iter().map(|arg| all.expr(arg)).collect();
            let filter = compiled.filter.as_ref().map(|filter| all.expr(filter));
            if let Some(filter) = filter.filter(|filter| !all.conditions.contains(filter)) {
                all.conditions.push(filter);
            }
            let types = compiled.args.iter().map(|arg| arg.data_type(&spec.input_schema));
            let failed = |error: DataFusionError| EngineError::evaluation(&call.name, &error);
            let types = types.collect::<Result<Vec<_>>>().map_err(failed)?;
            if let Some(partial) = form.partial_types(&types).filter(|_| !distinct) {
                all.partial_widths.push(partial.len());
            }
            if distinct {
                let nth = all.calls.len();
                match by_table.iter_mut().find(|(arg, _, _)| *arg == args[0]) {
                    Some((_, _, calls)) => calls.push(nth),
                    None => by_table.push((args[0], types[0].clone(), vec![nth])),
                }
            }
            let made = accumulator(call, compiled, form, &types, spec.input_retracts).map_err(failed)?;
            all.calls.push(Call { args, filter, accumulator: made, by_table: distinct });
        }
        for (arg, of, calls) in by_table {
            let values = DistinctTable::new(&of, calls.len(), spec.input_retracts);
            let values = values.map_err(|error| EngineError::evaluation("DISTINCT", &error))?;
            all.tables.push(Table { arg, calls, values });
        }
        Ok(all)
    }

    /// The position of an expression; equal ones are evaluated once.
    fn expr(&mut self, expr: &Arc<dyn PhysicalExpr>) -> usize {
        self.exprs.iter().position(|known| known == expr).unwrap_or_else(|| {
            self.exprs.push(expr.clone());
            self.exprs.len() - 1
        })
    }

    /// Number of calls.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// So many groups are about to come.
    pub(super) fn reserve(&mut self, more: usize) {
        self.calls.iter_mut().for_each(|call| call.accumulator.reserve(more));
    }

    /// Makes room for groups.
    pub(super) fn grow(&mut self, groups: usize) {
        self.calls.iter_mut().for_each(|call| call.accumulator.grow(groups));
        self.tables.iter_mut().for_each(|table| table.values.grow(groups));
    }

    /// Adds and takes away rows. `only`: leaves out the others.
    pub(super) fn update(
        &mut self,
        rows: &RecordBatch,
        groups: &[u32],
        signs: Option<&[i8]>,
        only: Option<&BooleanBuffer>,
    ) -> Result<()> {
        let (columns, selections) = self.evaluate(rows, only)?;
        let seen = |filter: Option<usize>| filter.and_then(|filter| selections[filter].as_ref()).or(only);
        for call in self.calls.iter_mut().filter(|call| !call.by_table) {
            let args: Vec<ArrayRef> = call.args.iter().map(|arg| columns[*arg].clone()).collect();
            call.accumulator.update(&args, &Changes { groups, signs, only: seen(call.filter) })?;
        }
        for table in &mut self.tables {
            let filters: Vec<_> = table.calls.iter().map(|call| seen(self.calls[*call].filter)).collect();
            let turns = table.values.update(&columns[table.arg], groups, signs, &filters)?;
            for (call, turns) in table.calls.iter().zip(turns).filter(|(_, turns)| !turns.rows.is_empty()) {
                let groups: Vec<u32> = turns.rows.iter().map(|row| groups[*row as usize]).collect();
                let args = take(std::slice::from_ref(&columns[table.arg]), &UInt32Array::from(turns.rows))?;
                let signs = signs.is_some().then_some(turns.signs.as_slice());
                self.calls[*call].accumulator.update(&args, &Changes { groups: &groups, signs, only: None })?;
            }
        }
        Ok(())
    }

    /// All expressions, and of conditions also the rows that they select.
    fn evaluate(&self, rows: &RecordBatch, only: Option<&BooleanBuffer>) -> Result<(Vec<ArrayRef>, Selections)> {
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
        let columns = self.exprs.iter().map(evaluate).collect::<Result<Vec<ArrayRef>>>()?;
        let mut selections: Selections = vec![None; columns.len()];
        for condition in &self.conditions {
            let column = columns[*condition].as_boolean();
            let mut selected = match column.nulls() {
                Some(valid) => column.values() & valid.inner(),
                None => column.values().clone(),
            };
            if let Some(only) = only {
                selected = &selected & only;
            }
            selections[*condition] = Some(selected);
        }
        Ok((columns, selections))
    }

    /// Takes in parts of groups: the columns of each call, one behind the other.
    pub(super) fn merge(&mut self, parts: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let mut rest = parts;
        for (call, width) in self.calls.iter_mut().zip(&self.partial_widths) {
            let (part, tail) = rest.split_at(*width);
            call.accumulator.merge(part, groups)?;
            rest = tail;
        }
        Ok(())
    }

    /// The parts of groups that have been taken in, as [`Calls::merge`] takes them.
    pub(super) fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for call in &mut self.calls {
            columns.extend(call.accumulator.partial(groups)?);
        }
        Ok(columns)
    }

    /// The same for each row as a group of its own.
    pub(super) fn partial_of_rows(&mut self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (columns, selections) = self.evaluate(rows, None)?;
        let each: Vec<u32> = (0..rows.num_rows() as u32).collect();
        let mut partial = Vec::new();
        for call in &mut self.calls {
            let args: Vec<ArrayRef> = call.args.iter().map(|arg| columns[*arg].clone()).collect();
            let only = call.filter.and_then(|filter| selections[filter].as_ref());
            match call.accumulator.partial_of_rows(&args, only, rows.num_rows()) {
                Some(quick) => partial.extend(quick?),
                None => {
                    call.accumulator.grow(each.len());
                    call.accumulator.update(&args, &Changes { groups: &each, signs: None, only })?;
                    partial.extend(call.accumulator.partial(&each)?);
                    each.iter().for_each(|group| call.accumulator.reset(*group));
                }
            }
        }
        Ok(partial)
    }

    /// The results of groups, one column for each call.
    pub(super) fn values(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.calls.iter_mut().map(|call| call.accumulator.values(groups)).collect()
    }

    /// Empties a group.
    pub(super) fn reset(&mut self, group: u32) {
        self.calls.iter_mut().for_each(|call| call.accumulator.reset(group));
        self.tables.iter_mut().for_each(|table| table.values.clear(group));
    }

    /// Types of the state columns of all calls.
    pub(super) fn state_types(&self) -> Vec<DataType> {
        self.calls.iter().flat_map(|call| call.accumulator.state_types()).collect()
    }

    /// The state columns of groups.
    pub(super) fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for call in &mut self.calls {
            columns.extend(call.accumulator.state(groups)?);
        }
        Ok(columns)
    }

    /// Takes back the state columns of groups, which are empty.
    pub(super) fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let mut rest = state;
        for call in &mut self.calls {
            let (state, tail) = rest.split_at(call.accumulator.state_types().len());
            call.accumulator.restore(groups, state)?;
            rest = tail;
        }
        Ok(())
    }

    /// What is kept in tables of its own, always in the same order.
    pub(super) fn collections(&mut self) -> impl Iterator<Item = &mut dyn Collection> {
        let tables = self.tables.iter_mut().map(|table| &mut table.values as &mut dyn Collection);
        tables.chain(self.calls.iter_mut().filter_map(|call| call.accumulator.collection()))
    }
}

/// `COUNT(*)` counts a constant.
fn is_constant(call: &AggregateCall) -> bool {
    call.args.iter().all(|arg| matches!(arg, Expr::Literal(literal) if !literal.0.is_null()))
}

fn accumulator(
    call: &AggregateCall,
    compiled: CompiledAggregate,
    form: AggregateForm,
    types: &[DataType],
    retracts: bool,
) -> Result<Box<dyn Accumulator>> {
    let output = compiled.output_field().data_type().clone();
    Ok(match form {
        AggregateForm::Count => Box::new(Count::default()),
        AggregateForm::Sum => match &types[0] {
            DataType::Int64 => Box::new(Sum::<Int64Type>::new(DataType::Int64, output)),
            DataType::UInt64 => Box::new(Sum::<UInt64Type>::new(DataType::UInt64, output)),
            DataType::Float64 if retracts => Box::new(FloatSum::new(false)),
            DataType::Float64 => Box::new(Sum::<Float64Type>::new(DataType::Float64, output)),
            decimal => Box::new(Sum::<Decimal128Type>::new(decimal.clone(), output)),
        },
        AggregateForm::Average => match &types[0] {
            DataType::Float64 if retracts => Box::new(FloatSum::new(true)),
            DataType::Float64 => Box::new(average_float()),
            integer if integer.is_integer() => Box::new(IntegerAverage::new(output)),
            decimal => Box::new(average_decimal(decimal.clone(), output)?),
        },
        AggregateForm::Extreme { greatest } => extreme(&types[0], greatest)?,
        AggregateForm::ExtremeOfAll { greatest } => Box::new(ExtremeOfAll::new(&types[0], greatest)?),
        AggregateForm::Variance { sample, root } => Box::new(Variance::new(sample, root)),
        AggregateForm::Boolean { all } => Box::new(Boolean::new(all)),
        AggregateForm::Picked { last } => {
            let rule = if last { Rule::Last } else { Rule::First };
            Box::new(Picked::new(&types[0], rule, call.ignore_nulls)?)
        }
        AggregateForm::Merged => Box::new(Merged::new(compiled)?),
        AggregateForm::Multiset => Box::new(Recomputed::new(compiled, types, false)?),
        AggregateForm::Arrivals => Box::new(Recomputed::new(compiled, types, true)?),
    })
}

/// A schema for state: columns by number.
pub(super) fn numbered(prefix: &str, types: &[DataType]) -> Vec<arrow::datatypes::Field> {
    let field =
        |(number, of): (usize, &DataType)| arrow::datatypes::Field::new(format!("{prefix} {number}"), of.clone(), true);
    types.iter().enumerate().map(field).collect()
}

/// Types of columns of a schema.
pub(super) fn types_of(schema: &SchemaRef, columns: &[usize]) -> Vec<DataType> {
    columns.iter().map(|column| schema.field(*column).data_type().clone()).collect()
}
