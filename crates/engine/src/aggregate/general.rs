//! Every other aggregate, by DataFusion's accumulators, one a group. Where rows may be taken away, or their order
//! matters, all arguments are kept and a group's result is computed anew when it has changed; else the
//! accumulator's state is kept and rows are added to it.

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::Accumulator as DataFusionAccumulator;
use mainstem_plan::aggregate::CompiledAggregate;

use super::accumulator::{Accumulator, Changes, Collection, take};
use super::arrivals::Arrivals;
use super::multiset::Multiset;
use crate::keys::typed;
use crate::memory;

/// DataFusion's function and the type in which we give its results.
struct Function {
    call: CompiledAggregate,
    output: DataType,
}

impl Function {
    fn new(call: CompiledAggregate) -> Self {
        let output = call.output_field().data_type().clone();
        Function { call, output }
    }

    fn accumulator(&self) -> Result<Box<dyn DataFusionAccumulator>> {
        self.call.accumulator()
    }

    fn column(&self, values: Vec<ScalarValue>) -> Result<ArrayRef> {
        column(values, &self.output)
    }
}

/// Values as a column of a type that may be another form of theirs.
fn column(values: Vec<ScalarValue>, of: &DataType) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_empty_array(of));
    }
    Ok(typed(&ScalarValue::iter_to_array(values)?, of)?)
}

/// Results that stay until their group changes.
#[derive(Default)]
struct Results(Vec<Option<ScalarValue>>);

impl Results {
    fn bytes(&self) -> usize {
        let beside =
            |value: &Option<ScalarValue>| value.as_ref().map_or(0, |v| v.size().saturating_sub(size_of_val(v)));
        memory::of_vec(&self.0) + memory::of_sampled(self.0.len(), self.0.iter(), beside)
    }

    fn grow(&mut self, groups: usize) {
        self.0.resize(groups.max(self.0.len()), None);
    }

    fn get(&mut self, group: u32, compute: impl FnOnce() -> Result<ScalarValue>) -> Result<ScalarValue> {
        let known = &mut self.0[group as usize];
        if known.is_none() {
            *known = Some(compute()?);
        }
        Ok(known.clone().expect("set just now"))
    }
}

enum Kept {
    Counted(Multiset),
    InOrder(Arrivals),
}

/// Keeps all arguments.
pub(super) struct Recomputed {
    function: Function,
    kept: Kept,
    results: Results,
}

impl Recomputed {
    /// `types`: of the arguments. `in_order`: whether the order of arrival counts.
    pub(super) fn new(call: CompiledAggregate, types: &[DataType], in_order: bool) -> Result<Self> {
        let kept = if in_order { Kept::InOrder(Arrivals::new(types)?) } else { Kept::Counted(Multiset::new(types)?) };
        Ok(Recomputed { function: Function::new(call), kept, results: Results::default() })
    }
}

fn compute(function: &Function, kept: &Kept, group: u32) -> Result<ScalarValue> {
    let columns = match kept {
        Kept::InOrder(arrivals) => arrivals.codec().decode(arrivals.rows(group).map(Some))?,
        Kept::Counted(multiset) => {
            let times = |(row, count)| std::iter::repeat_n(Some(row), usize::try_from(count).unwrap_or(0));
            multiset.codec().decode(multiset.rows(group).flat_map(times))?
        }
    };
    let mut accumulator = function.accumulator()?;
    if columns.first().is_some_and(|column| !column.is_empty()) {
        accumulator.update_batch(&columns)?;
    }
    accumulator.evaluate()
}

impl Accumulator for Recomputed {
    fn bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::Counted(multiset) => multiset.bytes(),
            Kept::InOrder(arrivals) => arrivals.bytes(),
        };
        kept + self.results.bytes()
    }

    fn grow(&mut self, groups: usize) {
        self.results.grow(groups);
        if let Kept::InOrder(arrivals) = &mut self.kept {
            arrivals.grow(groups);
        }
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        changes.for_each(None, |_, group, _| self.results.0[group] = None);
        match &mut self.kept {
            Kept::Counted(multiset) => multiset.update(args, None, changes),
            Kept::InOrder(arrivals) => arrivals.update(args, changes),
        }
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let (function, kept) = (&self.function, &self.kept);
        let values = groups.iter().map(|group| self.results.get(*group, || compute(function, kept, *group)));
        let values = values.collect::<Result<Vec<_>>>()?;
        self.function.column(values)
    }

    fn reset(&mut self, group: u32) {
        self.results.0[group as usize] = None;
        match &mut self.kept {
            Kept::Counted(multiset) => multiset.clear(group),
            Kept::InOrder(arrivals) => arrivals.clear(group),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn state(&mut self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _groups: &[u32], _state: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    fn collection(&mut self) -> Option<&mut dyn Collection> {
        Some(match &mut self.kept {
            Kept::Counted(multiset) => multiset,
            Kept::InOrder(arrivals) => arrivals,
        })
    }
}

/// Keeps the accumulator's state.
pub(super) struct Merged {
    function: Function,
    state_types: Vec<DataType>,
    states: Vec<Option<Vec<ScalarValue>>>,
    results: Results,
}

impl Merged {
    /// For rows that only come.
    pub(super) fn new(call: CompiledAggregate) -> Result<Self> {
        let fields = call.state_fields().map_err(|error| DataFusionError::External(Box::new(error)))?;
        let state_types = fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Merged { function: Function::new(call), state_types, states: Vec::new(), results: Results::default() })
    }
}

fn resumed(function: &Function, state: Option<&Vec<ScalarValue>>) -> Result<Box<dyn DataFusionAccumulator>> {
    let mut accumulator = function.accumulator()?;
    if let Some(state) = state {
        let columns = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        accumulator.merge_batch(&columns)?;
    }
    Ok(accumulator)
}

impl Accumulator for Merged {
    fn bytes(&self) -> usize {
        let of_state = |state: &Option<Vec<ScalarValue>>| state.iter().flatten().map(ScalarValue::size).sum::<usize>();
        let states = &self.states;
        memory::of_vec(states) + memory::of_sampled(states.len(), states.iter(), of_state) + self.results.bytes()
    }

    fn grow(&mut self, groups: usize) {
        self.states.resize(groups.max(self.states.len()), None);
        self.results.grow(groups);
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        if changes.signs.is_some() {
            return Err(DataFusionError::Internal("a row was taken away that cannot be".to_owned()));
        }
        let mut rows: Vec<(u32, u32)> = Vec::with_capacity(changes.groups.len());
        changes.for_each(None, |row, group, _| rows.push((group as u32, row as u32)));
        // By group, and within it in order.
        rows.sort_unstable();
        for run in rows.chunk_by(|left, right| left.0 == right.0) {
            let group = run[0].0 as usize;
            let mut accumulator = resumed(&self.function, self.states[group].as_ref())?;
            let positions = UInt32Array::from_iter_values(run.iter().map(|(_, row)| *row));
            accumulator.update_batch(&take(args, &positions)?)?;
            self.states[group] = Some(accumulator.state()?);
            self.results.0[group] = None;
        }
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let (function, states) = (&self.function, &self.states);
        let compute = |group: u32| resumed(function, states[group as usize].as_ref())?.evaluate();
        let values = groups.iter().map(|group| self.results.get(*group, || compute(*group)));
        let values = values.collect::<Result<Vec<_>>>()?;
        self.function.column(values)
    }

    fn reset(&mut self, group: u32) {
        self.states[group as usize] = None;
        self.results.0[group as usize] = None;
    }

    fn state_types(&self) -> Vec<DataType> {
        self.state_types.clone()
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = vec![Vec::with_capacity(groups.len()); self.state_types.len()];
        for group in groups {
            let state = match &self.states[*group as usize] {
                Some(state) => state.clone(),
                None => self.function.accumulator()?.state()?,
            };
            columns.iter_mut().zip(state).for_each(|(column, value)| column.push(value));
        }
        columns.into_iter().zip(&self.state_types).map(|(values, of)| column(values, of)).collect()
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let values = state.iter().map(|column| ScalarValue::try_from_array(column, row));
            self.states[*group as usize] = Some(values.collect::<Result<Vec<_>>>()?);
            self.results.0[*group as usize] = None;
        }
        Ok(())
    }
}
