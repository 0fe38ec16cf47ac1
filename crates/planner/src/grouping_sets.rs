//! GROUPING SETS, CUBE and ROLLUP: one aggregation for each set, and the union of their rows with NULL where a set
//! lacks a column. Called by `window/aggregate.rs` for each aggregation.

use std::sync::Arc;

use datafusion_common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::utils::grouping_set_to_exprlist;
use datafusion_expr::{Aggregate, Expr, ExprFunctionExt, GroupingSet, LogicalPlan, Projection, Union, lit};
use mainstem_plan::functions;

/// Most sets of one GROUP BY: each is an aggregation of its own.
const SETS_MAX: usize = 64;

/// An aggregation as several.
pub(crate) struct Expanded {
    aggregate: Aggregate,
    /// All columns that any set groups by.
    columns: Vec<Expr>,
    sets: Vec<Vec<Expr>>,
}

/// The sets of an aggregation; none where it is a plain one.
pub(crate) fn expand(aggregate: &Aggregate) -> Result<Option<Expanded>> {
    let sets = match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(set)] => sets_of(set)?,
        // GROUPING() of a plain GROUP BY is 0 everywhere.
        plain if aggregate.aggr_expr.iter().any(|call| grouping(call).is_some()) => vec![plain.to_vec()],
        _ => return Ok(None),
    };
    let columns = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    Ok(Some(Expanded { aggregate: aggregate.clone(), columns, sets }))
}

fn sets_of(set: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    let sets: Vec<Vec<Expr>> = match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(columns) => (0..=columns.len()).rev().map(|length| columns[..length].to_vec()).collect(),
        GroupingSet::Cube(columns) if columns.len() < usize::BITS as usize && 1 << columns.len() <= SETS_MAX => {
            let chosen = |mask: usize| {
                let columns = columns.iter().enumerate().filter(move |(bit, _)| mask & (1 << bit) != 0);
                columns.map(|(_, column)| column.clone()).collect()
            };
            (0..1_usize << columns.len()).rev().map(chosen).collect()
        }
        GroupingSet::Cube(_) => return Err(too_many()),
    };
    if sets.len() > SETS_MAX { Err(too_many()) } else { Ok(sets) }
}

fn too_many() -> DataFusionError {
    DataFusionError::Plan(format!("GROUP BY has more than {SETS_MAX} grouping sets; name fewer with GROUPING SETS"))
}

/// The arguments of GROUPING.
fn grouping(call: &Expr) -> Option<&[Expr]> {
    match call {
        Expr::Alias(alias) => grouping(&alias.expr),
        Expr::AggregateFunction(AggregateFunction { func, params }) if func.name() == "grouping" => Some(&params.args),
        _ => None,
    }
}

/// Name of a column among the rows of all sets.
fn column_name(position: usize) -> String {
    format!("__set_column_{position}")
}

impl Expanded {
    /// The rows of all sets; `plan` makes a plan of an aggregation.
    pub(crate) fn union(&self, plan: impl Fn(Aggregate) -> Result<LogicalPlan>) -> Result<LogicalPlan> {
        let mut inputs = Vec::new();
        for set in &self.sets {
            inputs.push(Arc::new(self.one(set, &plan)?));
        }
        let rows = if inputs.len() == 1 {
            inputs.remove(0)
        } else {
            let width = self.columns.len();
            let fields = inputs[0].schema().fields().iter().enumerate().map(|(position, field)| {
                let nullable = position < width || field.is_nullable();
                (None, Arc::new(field.as_ref().clone().with_nullable(nullable)))
            });
            let schema = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
            Arc::new(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) }))
        };
        // The optimiser makes unions anew, and then they do not know whose columns they had.
        let names = self.aggregate.schema.iter().filter(|(_, field)| field.name() != Aggregate::INTERNAL_GROUPING_ID);
        let named = names.enumerate().map(|(position, (qualifier, field))| {
            Expr::Column(Column::new_unqualified(column_name(position)))
                .alias_qualified(qualifier.cloned(), field.name())
        });
        Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), rows)?))
    }

    /// The rows of one set, with the columns of all.
    fn one(&self, set: &[Expr], plan: impl Fn(Aggregate) -> Result<LogicalPlan>) -> Result<LogicalPlan> {
        let whole = &self.aggregate;
        let mut calls: Vec<Expr> = whole.aggr_expr.iter().filter(|call| grouping(call).is_none()).cloned().collect();
        if calls.is_empty() && set.is_empty() {
            // The row of all rows together is there as soon as there is any.
            let count = functions::registry().aggregate("count").expect("COUNT is one of DataFusion's functions");
            calls.push(count.call(vec![lit(1_i64)]).order_by(vec![]).build()?);
        }
        let mut keys: Vec<Expr> = Vec::new();
        set.iter().for_each(|key| {
            if !keys.contains(key) {
                keys.push(key.clone())
            }
        });
        let aggregate = Aggregate::try_new(whole.input.clone(), keys.clone(), calls)?;
        let schema = aggregate.schema.clone();
        let input = plan(aggregate)?;
        let column = |position: usize| Expr::Column(Column::from(schema.qualified_field(position)));
        let mut exprs = Vec::new();
        for (position, key) in self.columns.iter().enumerate() {
            let field = whole.schema.field(position);
            let value = match keys.iter().position(|known| known == key) {
                Some(known) => column(known),
                None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
            };
            exprs.push(value.alias(column_name(exprs.len())));
        }
        let mut next = keys.len();
        for call in &whole.aggr_expr {
            let value = match grouping(call) {
                Some(args) => self.missing(args, &keys)?,
                None => {
                    next += 1;
                    column(next - 1)
                }
            };
            exprs.push(value.alias(column_name(exprs.len())));
        }
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
    }

    /// `GROUPING(a, b)`: a bit for each argument, the last one lowest, set where the row's set lacks it.
    fn missing(&self, args: &[Expr], keys: &[Expr]) -> Result<Expr> {
        if let Some(other) = args.iter().find(|arg| !self.columns.contains(arg)) {
            return Err(DataFusionError::Plan(format!("GROUPING({other}): {other} is not in GROUP BY")));
        }
        let bits = args.iter().fold(0_i32, |bits, arg| (bits << 1) | i32::from(!keys.contains(arg)));
        Ok(lit(bits))
    }
}
