//! UNION, INTERSECT and EXCEPT. Called by `query.rs`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_expr::logical_plan::builder;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, cast};
use datafusion_sql::sqlparser::ast::{SetExpr, SetOperator, SetQuantifier, Spanned};
use mainstem_plan::operator::SetKind;
use mainstem_plan::sql_type_name;

use super::{Scope, column_exprs, select};
use crate::common_types;
use crate::error::{At, ErrorCode, SqlError};
use crate::node::SetOperation;
use crate::window::node::extension;

impl Scope<'_> {
    /// Two queries or more whose rows are put together.
    pub(super) fn set_operation(&self, body: &SetExpr) -> Result<LogicalPlan, SqlError> {
        let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return self.set_expr(body) };
        let at = At::from(right.span());
        let all = match set_quantifier {
            SetQuantifier::All => true,
            SetQuantifier::None | SetQuantifier::Distinct => false,
            SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
                return Err(SqlError::unsupported(
                    at,
                    format!("{op} BY NAME is not supported; name the columns in order"),
                ));
            }
        };
        let kind = match op {
            SetOperator::Union => return self.union(body, all),
            SetOperator::Intersect => SetKind::Intersect,
            SetOperator::Except | SetOperator::Minus => SetKind::Except,
        };
        let keyword = if all { format!("{} ALL", kind.keyword()) } else { kind.keyword().to_owned() };
        let left_at = At::from(left.span());
        let plans = vec![(self.set_expr(left)?, left_at), (self.set_expr(right)?, at)];
        let united = unite(plans.clone(), &keyword)?;
        let types: Vec<DataType> = united.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let mut inputs = plans.into_iter().map(|(plan, at)| with_types(plan, &types, at));
        let (Some(left), Some(right)) = (inputs.next(), inputs.next()) else { unreachable!("there are two") };
        let node = SetOperation::new(left?, right?, kind, all, at);
        node.map(extension).map_err(|error| SqlError::from_datafusion(&error, at))
    }

    /// A chain of UNION, as one operator. The parser makes a left-deep tree of it.
    fn union(&self, body: &SetExpr, all: bool) -> Result<LogicalPlan, SqlError> {
        let mut members = Vec::new();
        let mut rest = body;
        while let SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right } = rest {
            // What removes equal rows at the end does so for the unions inside of it too.
            let joins = match set_quantifier {
                SetQuantifier::All => true,
                SetQuantifier::None | SetQuantifier::Distinct => !all,
                _ => false,
            };
            if !joins {
                break;
            }
            members.push(right.as_ref());
            rest = left;
        }
        members.push(rest);
        members.reverse();
        let mut plans = Vec::new();
        for member in &members {
            plans.push((self.set_expr(member)?, At::from(member.span())));
        }
        let at = plans[0].1;
        let united = unite(plans, if all { "UNION ALL" } else { "UNION" })?;
        if all {
            return Ok(united);
        }
        let distinct = LogicalPlanBuilder::from(united).distinct().and_then(LogicalPlanBuilder::build);
        distinct.map_err(|error| SqlError::from_datafusion(&error, at))
    }
}

/// All rows of the queries; `keyword` is what stands between them.
fn unite(plans: Vec<(LogicalPlan, At)>, keyword: &str) -> Result<LogicalPlan, SqlError> {
    let width = plans[0].0.schema().fields().len();
    if let Some((plan, at)) = plans.iter().find(|(plan, _)| plan.schema().fields().len() != width) {
        let message =
            format!("this query of the {keyword} has {} columns, the first has {width}", plan.schema().fields().len());
        return Err(SqlError::new(ErrorCode::Type, *at, message));
    }
    for column in 0..width {
        check_column(&plans, column, keyword)?;
    }
    let plans = made_common(plans, width)?;
    let at = plans[0].1;
    let inputs: Vec<LogicalPlan> = plans.into_iter().map(|(plan, _)| plan).collect();
    let united =
        inputs.into_iter().map(Ok).reduce(|left, right| builder::union(left?, right?)).expect("a union has members");
    let united = united.and_then(|plan| select::settle_types(plan).map_err(SqlError::into_datafusion));
    united.map(flatten).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// DECIMAL beside DOUBLE is DOUBLE.
fn made_common(plans: Vec<(LogicalPlan, At)>, width: usize) -> Result<Vec<(LogicalPlan, At)>, SqlError> {
    let type_of = |plan: &LogicalPlan, column: usize| plan.schema().field(column).data_type().clone();
    let of_column = |column| -> Vec<DataType> {
        common_types::common(&plans.iter().map(|(plan, _)| type_of(plan, column)).collect::<Vec<_>>())
    };
    let columns: Vec<Vec<DataType>> = (0..width).map(of_column).collect();
    let plans = plans.into_iter().enumerate().map(|(number, (plan, at))| {
        let types: Vec<DataType> = columns.iter().map(|column| column[number].clone()).collect();
        with_types(plan, &types, at).map(|plan| (plan, at))
    });
    plans.collect()
}

/// DataFusion would turn numbers beside texts into texts.
fn check_column(plans: &[(LogicalPlan, At)], column: usize, keyword: &str) -> Result<(), SqlError> {
    let type_of = |plan: &LogicalPlan| plan.schema().field(column).data_type().clone();
    let first = type_of(&plans[0].0);
    let differs = |other: &DataType| {
        *other != DataType::Null && first != DataType::Null && other.is_string() != first.is_string()
    };
    match plans.iter().find(|(plan, _)| differs(&type_of(plan))) {
        None => Ok(()),
        Some((plan, at)) => {
            let (name, found) = (plan.schema().field(column).name(), sql_type_name(&type_of(plan)));
            let first = sql_type_name(&first);
            let number = column + 1;
            let message = format!(
                "column {number} ('{name}') of this query of the {keyword} is of type {found}, in the first query it is {first}; write a CAST"
            );
            Err(SqlError::new(ErrorCode::Type, *at, message))
        }
    }
}

/// Unions of unions as one.
fn flatten(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Union(mut union) = plan else { return plan };
    let mut inputs = Vec::new();
    for input in std::mem::take(&mut union.inputs) {
        match flatten(Arc::unwrap_or_clone(input)) {
            LogicalPlan::Union(inner) if inner.schema.fields() == union.schema.fields() => inputs.extend(inner.inputs),
            other => inputs.push(Arc::new(other)),
        }
    }
    union.inputs = inputs;
    LogicalPlan::Union(union)
}

/// The plan with its columns cast to these types where they are of others.
fn with_types(plan: LogicalPlan, types: &[DataType], at: At) -> Result<LogicalPlan, SqlError> {
    let same = plan.schema().fields().iter().zip(types).all(|(field, wanted)| field.data_type() == wanted);
    if same {
        return Ok(plan);
    }
    let fields = plan.schema().fields().iter().zip(types);
    let exprs = column_exprs(&plan).into_iter().zip(fields).map(|(expr, (field, wanted))| {
        let name = field.name().clone();
        if field.data_type() == wanted { expr } else { cast(expr, wanted.clone()).alias(name) }
    });
    let exprs: Vec<Expr> = exprs.collect();
    let projection = Projection::try_new(exprs, Arc::new(plan));
    projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))
}
