//! An accumulator whose columns have exactly the declared types, also when it holds no group. DataFusion's
//! are close, not exact: results may be large strings, states may be views, and the adapter for one
//! accumulator a group gives no columns where there are no groups.

use arrow::array::{Array, ArrayRef, BooleanArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};

use crate::types::plain_type;

/// See the module.
pub(super) struct PlainAccumulator {
    inner: Box<dyn GroupsAccumulator>,
    output: DataType,
    states: Vec<DataType>,
    /// Groups that `inner` holds.
    groups: usize,
}

impl PlainAccumulator {
    pub(super) fn new(inner: Box<dyn GroupsAccumulator>, output: DataType, states: Vec<DataType>) -> Self {
        PlainAccumulator { inner, output, states, groups: 0 }
    }

    fn emitted(&mut self, emit_to: &EmitTo) {
        self.groups = match emit_to {
            EmitTo::All => 0,
            EmitTo::First(n) => self.groups.saturating_sub(*n),
        };
    }

    fn typed(&self, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        columns.into_iter().zip(&self.states).map(|(column, to)| typed(column, to)).collect()
    }
}

/// Only the form of strings and bytes may differ: any other difference is a state of another kind, and a cast
/// would make wrong results of it.
fn typed(column: ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(column);
    }
    if plain_type(column.data_type()) != plain_type(to) {
        let message = format!("an aggregate gave a column of type {} instead of {to}", column.data_type());
        return Err(DataFusionError::Internal(message));
    }
    Ok(cast(&column, to)?)
}

impl GroupsAccumulator for PlainAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = total_num_groups;
        self.inner.update_batch(values, group_indices, filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups = total_num_groups;
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if self.groups == 0 {
            return Ok(new_empty_array(&self.output));
        }
        self.emitted(&emit_to);
        typed(self.inner.evaluate(emit_to)?, &self.output)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        if self.groups == 0 {
            return Ok(self.states.iter().map(new_empty_array).collect());
        }
        self.emitted(&emit_to);
        let columns = self.inner.state(emit_to)?;
        self.typed(columns)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.typed(self.inner.convert_to_state(values, filter)?)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
