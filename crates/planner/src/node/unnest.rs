//! `input CROSS JOIN UNNEST(collection)`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result, TableReference};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::window::node::positions;

/// The input's columns, then those of an element of the collection, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unnest {
    pub(crate) input: Arc<LogicalPlan>,
    /// An array or a map, over the input.
    pub(crate) collection: Expr,
    /// Whether rows without elements are kept.
    pub(crate) outer: bool,
    pub(crate) ordinality: bool,
    /// The columns that it adds.
    pub(crate) added: Vec<(Option<TableReference>, FieldRef)>,
    pub(crate) schema: DFSchemaRef,
}

impl Unnest {
    /// The node over a planned input.
    pub(crate) fn new(
        input: LogicalPlan,
        collection: Expr,
        outer: bool,
        ordinality: bool,
        added: Vec<(Option<TableReference>, FieldRef)>,
    ) -> Result<Unnest> {
        let fields = input.schema().iter().map(|(table, field)| (table.cloned(), field.clone()));
        let fields = fields.chain(added.iter().cloned()).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Unnest { input: Arc::new(input), collection, outer, ordinality, added, schema })
    }
}

impl Hash for Unnest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.collection, self.outer, self.ordinality).hash(state);
    }
}

impl PartialOrd for Unnest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Unnest {
    fn name(&self) -> &str {
        "UnnestCollection"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.collection.clone()]
    }

    /// A condition on the element cannot be tested before it is there.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.added.iter().map(|(_, field)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "UnnestCollection: {}", self.collection)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(collection), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return Err(DataFusionError::Internal("UNNEST has one expression and one input".to_owned()));
        };
        Unnest::new(input, collection, self.outer, self.ordinality, self.added.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let mut needed = positions(&self.expressions(), input);
        needed.extend(output_columns.iter().copied().filter(|column| *column < input.fields().len()));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
