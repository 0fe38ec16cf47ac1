//! `input CROSS JOIN UNNEST(collection)`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, TableReference};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

/// The input's columns but the collection, then those of an element of the collection, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unnest {
    pub(crate) input: Arc<LogicalPlan>,
    /// An array or a map among the input's columns.
    pub(crate) collection: Column,
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
        collection: Column,
        outer: bool,
        ordinality: bool,
        added: Vec<(Option<TableReference>, FieldRef)>,
    ) -> Result<Unnest> {
        let position = input.schema().index_of_column(&collection)?;
        let kept = input.schema().iter().enumerate().filter(|(index, _)| *index != position);
        let fields = kept.map(|(_, (table, field))| (table.cloned(), field.clone()));
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
        vec![Expr::Column(self.collection.clone())]
    }

    /// A condition on the element cannot be tested before it is there.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.added.iter().map(|(_, field)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "UnnestCollection: {}", self.collection)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(Expr::Column(collection)), Some(input)) = (exprs.pop().map(Expr::unalias), inputs.pop()) else {
            return Err(DataFusionError::Internal("UNNEST has one expression and one input".to_owned()));
        };
        Unnest::new(input, collection, self.outer, self.ordinality, self.added.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let collection = self.input.schema().maybe_index_of_column(&self.collection)?;
        let kept = self.input.schema().fields().len() - 1;
        let needed = output_columns.iter().copied().filter(|column| *column < kept);
        let mut needed: Vec<usize> =
            needed.map(|column| if column < collection { column } else { column + 1 }).collect();
        needed.push(collection);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
