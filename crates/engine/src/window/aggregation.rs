//! The aggregates of a windowed aggregation, compiled, and their accumulators for one slice or window.
//! Shared by the operators of both steps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use mainstem_plan::aggregate::CompiledAggregate;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{SLICE_COLUMNS, WindowAggregate};

use crate::error::EngineError;
use crate::keys::KeyIndex;
use crate::memory;

/// Keys and aggregates of one windowed aggregation, ready to evaluate.
pub(crate) struct Aggregation {
    /// Name of the operator, for messages.
    pub(crate) name: String,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_types: Vec<DataType>,
    aggregates: Vec<CompiledAggregate>,
    /// Number of state columns of each aggregate.
    state_widths: Vec<usize>,
    /// Whether some state holds values that came, so that it grows with them.
    pub(crate) collects: bool,
    /// Columns of partial aggregates: keys, slice columns, states.
    pub(crate) partial_schema: SchemaRef,
}

/// The evaluated inputs of a batch: key columns, and arguments and filter of each aggregate.
pub(crate) struct AggregateInput {
    keys: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
    rows: usize,
}

impl Aggregation {
    /// Compiles a specification. `partial_schema` is the output schema of the first step.
    pub(crate) fn new(
        name: &str,
        spec: &WindowAggregate,
        partial_schema: SchemaRef,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let input = &spec.input_schema;
        let keys = spec.keys.iter().map(|k| k.expr.compile(input, context)).collect::<Result<Vec<_>, _>>()?;
        let compile = |call: &mainstem_plan::aggregate::AggregateCall| call.compile(input, context);
        let aggregates = spec.aggregates.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let state_widths =
            aggregates.iter().map(|a| a.state_fields().map(|fields| fields.len())).collect::<Result<Vec<_>, _>>()?;
        let width = spec.keys.len() + SLICE_COLUMNS.len() + state_widths.iter().sum::<usize>();
        if partial_schema.fields().len() != width {
            let found = partial_schema.fields().len();
            return Err(EngineError::Bug(format!("{name}: {found} columns of partial aggregates, expected {width}")));
        }
        let key_types = partial_schema.fields()[..keys.len()].iter().map(|f| f.data_type().clone()).collect();
        let states = &partial_schema.fields()[keys.len() + SLICE_COLUMNS.len()..];
        let collects = states.iter().any(|state| state.data_type().is_nested())
            || spec.aggregates.iter().any(|call| ["listagg", "string_agg"].contains(&call.function.as_str()));
        Ok(Aggregation { name: name.to_owned(), keys, key_types, aggregates, state_widths, collects, partial_schema })
    }

    /// Number of key columns.
    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Types of the key columns.
    pub(crate) fn key_types(&self) -> &[DataType] {
        &self.key_types
    }

    /// Evaluates keys, arguments and filters on rows.
    pub(crate) fn evaluate(&self, rows: &RecordBatch) -> Result<AggregateInput, EngineError> {
        let failed = |e| EngineError::evaluation(&self.name, &e);
        let column = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
        let keys = self.keys.iter().map(column).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut arguments = Vec::with_capacity(self.aggregates.len());
        let mut filters = Vec::with_capacity(self.aggregates.len());
        for aggregate in &self.aggregates {
            arguments.push(aggregate.args.iter().map(column).collect::<Result<Vec<_>, _>>().map_err(failed)?);
            let filter = aggregate.filter.as_ref().map(column).transpose().map_err(failed)?;
            filters.push(filter.map(|f| f.as_boolean().clone()));
        }
        Ok(AggregateInput { keys, arguments, filters, rows: rows.num_rows() })
    }

    /// Empty accumulators.
    pub(crate) fn groups(&self) -> Result<Groups, EngineError> {
        let failed = |e: &dyn std::fmt::Display| EngineError::Bug(format!("{}: {e}", self.name));
        let keys = KeyIndex::new(&self.key_types).map_err(|e| failed(&e))?;
        let accumulators = self.aggregates.iter().map(CompiledAggregate::groups_accumulator);
        let accumulators = accumulators.collect::<Result<Vec<_>, _>>()?;
        Ok(Groups { keys, accumulators, indices: Vec::new() })
    }

    /// The columns of a partial batch that are aggregate states.
    pub(crate) fn state_columns<'a>(&self, partial: &'a RecordBatch) -> &'a [ArrayRef] {
        &partial.columns()[self.keys.len() + SLICE_COLUMNS.len()..]
    }

    /// State columns by aggregate.
    fn states<'a>(&self, columns: &'a [ArrayRef]) -> Vec<&'a [ArrayRef]> {
        let mut rest = columns;
        let mut states = Vec::with_capacity(self.state_widths.len());
        for width in &self.state_widths {
            let (state, tail) = rest.split_at(*width);
            states.push(state);
            rest = tail;
        }
        states
    }

    fn failed(&self, error: &DataFusionError) -> EngineError {
        EngineError::evaluation(&self.name, error)
    }
}

impl AggregateInput {
    /// The inputs of the rows at the given positions, in that order.
    pub(crate) fn take(&self, positions: &UInt32Array) -> Result<AggregateInput, ArrowError> {
        self.map(positions.len(), |column| compute::take(column, positions, None))
    }

    /// The inputs of a run of rows.
    pub(crate) fn slice(&self, begin: usize, rows: usize) -> AggregateInput {
        self.map(rows, |column| Ok(column.slice(begin, rows))).expect("a slice cannot fail")
    }

    fn map(
        &self,
        rows: usize,
        one: impl Fn(&dyn Array) -> Result<ArrayRef, ArrowError>,
    ) -> Result<AggregateInput, ArrowError> {
        let keys = self.keys.iter().map(|c| one(c)).collect::<Result<Vec<_>, _>>()?;
        let all = |columns: &Vec<ArrayRef>| columns.iter().map(|c| one(c)).collect::<Result<Vec<_>, _>>();
        let arguments = self.arguments.iter().map(all).collect::<Result<Vec<_>, _>>()?;
        let filter = |f: &BooleanArray| one(f).map(|f| f.as_boolean().clone());
        let filters = self.filters.iter().map(|f| f.as_ref().map(filter).transpose()).collect::<Result<_, _>>()?;
        Ok(AggregateInput { keys, arguments, filters, rows })
    }

    /// The key columns.
    pub(crate) fn keys(&self) -> &[ArrayRef] {
        &self.keys
    }
}

/// What an accumulator takes whatever it holds.
const ACCUMULATOR_BYTES: usize = 128;

/// The accumulators of a slice or a window: one group a key.
pub(crate) struct Groups {
    keys: KeyIndex,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    indices: Vec<usize>,
}

impl Groups {
    /// Bytes of memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        let accumulators =
            self.accumulators.iter().map(|accumulator| accumulator.size() + ACCUMULATOR_BYTES).sum::<usize>();
        self.keys.bytes() + accumulators + memory::of_vec(&self.indices) + size_of::<Groups>()
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds rows.
    pub(crate) fn update(&mut self, aggregation: &Aggregation, input: &AggregateInput) -> Result<(), EngineError> {
        let interned = self.keys.intern(&input.keys, input.rows, &mut self.indices);
        interned.map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        let total = self.keys.len();
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&input.arguments).zip(&input.filters)
        {
            let updated = accumulator.update_batch(arguments, &self.indices, filter.as_ref(), total);
            updated.map_err(|e| aggregation.failed(&e))?;
        }
        Ok(())
    }

    /// Adds rows whose groups the caller has chosen; `total` groups exist. For groups without keys of their own.
    pub(crate) fn update_groups(
        &mut self,
        aggregation: &Aggregation,
        input: &AggregateInput,
        groups: &[usize],
        total: usize,
    ) -> Result<(), EngineError> {
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&input.arguments).zip(&input.filters)
        {
            let updated = accumulator.update_batch(arguments, groups, filter.as_ref(), total);
            updated.map_err(|e| aggregation.failed(&e))?;
        }
        Ok(())
    }

    /// Adds partial aggregates (columns of the partial schema).
    pub(crate) fn merge(&mut self, aggregation: &Aggregation, partial: &RecordBatch) -> Result<(), EngineError> {
        let keys = &partial.columns()[..aggregation.key_count()];
        let interned = self.keys.intern(keys, partial.num_rows(), &mut self.indices);
        interned.map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        let total = self.keys.len();
        let indices = std::mem::take(&mut self.indices);
        self.merge_groups(aggregation, partial, &indices, total)?;
        self.indices = indices;
        Ok(())
    }

    /// Adds partial aggregates whose groups the caller has chosen; `total` groups exist.
    pub(crate) fn merge_groups(
        &mut self,
        aggregation: &Aggregation,
        partial: &RecordBatch,
        groups: &[usize],
        total: usize,
    ) -> Result<(), EngineError> {
        self.merge_states(aggregation, aggregation.state_columns(partial), groups, total)
    }

    /// The same for state columns alone.
    pub(crate) fn merge_states(
        &mut self,
        aggregation: &Aggregation,
        states: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<(), EngineError> {
        for (accumulator, state) in self.accumulators.iter_mut().zip(aggregation.states(states)) {
            accumulator.merge_batch(state, groups, total).map_err(|e| aggregation.failed(&e))?;
        }
        Ok(())
    }

    /// The keys and the aggregate states of all groups. There are none afterwards, and the memory for keys is kept.
    pub(crate) fn drain_state(
        &mut self,
        aggregation: &Aggregation,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), EngineError> {
        let keys = self.keys.columns().map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        self.keys.clear();
        Ok((keys, self.take_states(aggregation)?))
    }

    /// The keys and the results of all groups.
    pub(crate) fn into_results(
        mut self,
        aggregation: &Aggregation,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), EngineError> {
        let keys = self.keys.columns().map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        Ok((keys, self.take_results(aggregation)?))
    }

    /// The results of all groups, in the order of the groups. For groups without keys of their own.
    pub(crate) fn results(mut self, aggregation: &Aggregation) -> Result<Vec<ArrayRef>, EngineError> {
        self.take_results(aggregation)
    }

    /// The aggregate states of all groups, in the order of the groups.
    pub(crate) fn take_states(&mut self, aggregation: &Aggregation) -> Result<Vec<ArrayRef>, EngineError> {
        let mut states = Vec::new();
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All).map_err(|e| aggregation.failed(&e))?);
        }
        Ok(states)
    }

    /// The results of all groups, in the order of the groups.
    pub(crate) fn take_results(&mut self, aggregation: &Aggregation) -> Result<Vec<ArrayRef>, EngineError> {
        let evaluate = |a: &mut Box<dyn GroupsAccumulator>| a.evaluate(EmitTo::All).map_err(|e| aggregation.failed(&e));
        self.accumulators.iter_mut().map(evaluate).collect()
    }
}
