//! Joins in a FROM clause: which columns they give, and what their conditions mean. DataFusion plans the condition;
//! names, USING and NATURAL are resolved here. Called by `from.rs`.

use std::sync::Arc;

use datafusion_common::{Column, TableReference};
use datafusion_expr::{Expr as LogicalExpr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Spanned, TableFactor, TableVersion, TableWithJoins,
};
use mainstem_plan::{functions, sql_type_name};

use super::failure::check_condition;
use super::from::{From, plain_name};
use super::{Scope, unnest};
use crate::context::{self, Surroundings};
use crate::error::{At, ErrorCode, SqlError};
use crate::node::TemporalJoin;
use crate::resolve::{Around, Merged, Names, Resolver, is_internal};
use crate::suggest::advice;
use crate::window::node::extension;

impl Scope<'_> {
    /// `left, next`.
    pub(super) fn comma(&self, left: From, next: &TableWithJoins) -> Result<From, SqlError> {
        if version(&next.relation).is_some() {
            let message = "a table FOR SYSTEM_TIME AS OF cannot stand behind a comma; write JOIN ... ON";
            return Err(SqlError::unsupported(next.relation.span(), message));
        }
        let at = At::from(next.relation.span());
        if let Some(call) = unnest::call(&next.relation)? {
            let both_sides = |join: &&Join| {
                matches!(
                    join.join_operator,
                    JoinOperator::FullOuter(_) | JoinOperator::Right(_) | JoinOperator::RightOuter(_)
                )
            };
            if let Some(join) = next.joins.iter().find(both_sides) {
                let message =
                    "behind a comma and UNNEST, RIGHT and FULL JOIN are not supported; write CROSS JOIN UNNEST";
                return Err(SqlError::unsupported(join.relation.span(), message));
            }
            let first = self.unnest(left, &call, false)?;
            return next.joins.iter().try_fold(first, |left, join| self.join(left, join));
        }
        let right = self.tables(next, true)?;
        check_tables(&left, &right, at)?;
        cross(left, right, at)
    }

    /// `left JOIN ...`.
    pub(super) fn join(&self, left: From, join: &Join) -> Result<From, SqlError> {
        let at = At::from(join.relation.span());
        let (kind, constraint) = kind(&join.join_operator, at)?;
        if join.global {
            return Err(SqlError::unsupported(at, "GLOBAL is not supported before JOIN"));
        }
        if let Some(call) = unnest::call(&join.relation)? {
            return self.join_unnest(left, &call, kind, constraint);
        }
        if let Some(time) = version(&join.relation) {
            return self.temporal(left, &join.relation, kind, constraint, time);
        }
        let right = self.relation(&join.relation, true)?;
        check_tables(&left, &right, at)?;
        let Some(kind) = kind else { return cross(left, right, at) };
        let on = self.condition(&left, &right, kind, constraint, at)?;
        let (left_merged, right_merged) = (left.merged, right.merged);
        let plan = LogicalPlanBuilder::from(left.plan)
            .join_on(right.plan, kind, [on.expr])
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| SqlError::from_datafusion(&error, at))?;
        match kind {
            JoinType::LeftSemi | JoinType::LeftAnti => Ok(From { plan, merged: left_merged, several: true }),
            _ => merge(plan, [left_merged, right_merged].concat(), on.using, kind, at),
        }
    }

    /// `left JOIN table FOR SYSTEM_TIME AS OF time ON ...`.
    fn temporal(
        &self,
        left: From,
        factor: &TableFactor,
        kind: Option<JoinType>,
        constraint: &JoinConstraint,
        time: &Expr,
    ) -> Result<From, SqlError> {
        let at = At::from(factor.span());
        let TableFactor::Table { name, alias: table_alias, args: None, .. } = factor else {
            return Err(SqlError::unsupported(at, "FOR SYSTEM_TIME AS OF stands behind the name of a table or view"));
        };
        let kind = kind.filter(|kind| matches!(kind, JoinType::Inner | JoinType::Left)).ok_or_else(|| {
            SqlError::unsupported(at, "a table FOR SYSTEM_TIME AS OF is joined by JOIN or LEFT JOIN with ON")
        })?;
        let mut plan = self.named(plain_name(name)?)?;
        if let Some(table_alias) = table_alias {
            plan = self.aliased(plan, table_alias)?;
        }
        let right = From { plan, merged: Vec::new(), several: false };
        check_tables(&left, &right, at)?;
        let time = self.resolved(time, &left.names(), "FOR SYSTEM_TIME AS OF")?;
        let on = self.condition(&left, &right, kind, constraint, at)?;
        let node = TemporalJoin::new(left.plan, right.plan, kind, on.expr, time, at);
        let plan = extension(node.map_err(|error| SqlError::from_datafusion(&error, at))?);
        merge(plan, left.merged, on.using, kind, at)
    }

    /// An expression of the FROM clause.
    pub(super) fn resolved(&self, expr: &Expr, names: &Names, clause: &'static str) -> Result<LogicalExpr, SqlError> {
        let mut expr = expr.clone();
        let at = At::from(expr.span());
        self.resolver(names, clause).expr(&mut expr)?;
        let planned = context::plan_expr_within(expr, &names.schema, &self.surroundings());
        planned.map_err(|error| SqlError::from_datafusion(&error, at))
    }

    pub(super) fn resolver<'a>(&'a self, names: &'a Names, clause: &'static str) -> Resolver<'a> {
        let around = Around { merged: &names.merged, outer: &self.outer, subqueries: false };
        Resolver { schema: &names.schema, aliases: &[], clause, around }
    }

    pub(super) fn surroundings(&self) -> Surroundings {
        let outer = self.outer.iter().map(|names| names.schema.clone()).collect();
        Surroundings { outer, subqueries: Vec::new() }
    }

    fn condition(
        &self,
        left: &From,
        right: &From,
        kind: JoinType,
        constraint: &JoinConstraint,
        at: At,
    ) -> Result<Condition, SqlError> {
        match constraint {
            JoinConstraint::On(expr) => {
                let schema = left.plan.schema().join(right.plan.schema());
                let schema = Arc::new(schema.map_err(|error| SqlError::from_datafusion(&error, at))?);
                let names = Names { schema, merged: [left.merged.clone(), right.merged.clone()].concat() };
                let mut resolved = expr.clone();
                self.resolver(&names, "ON").expr(&mut resolved)?;
                check_condition(&resolved, &names.schema, &self.surroundings(), "ON")?;
                let planned = context::plan_expr_within(resolved, &names.schema, &self.surroundings());
                let expr = planned.map_err(|error| SqlError::from_datafusion(&error, expr.span()))?;
                Ok(Condition { expr, using: Vec::new() })
            }
            JoinConstraint::Using(names) => {
                let names = names.iter().map(using_name).collect::<Result<Vec<_>, _>>()?;
                equal(left, right, &names)
            }
            JoinConstraint::Natural => {
                let has = |from: &From, name: &str| from.visible().iter().any(|column| column.name == name);
                let common = left.visible().into_iter().filter(|column| has(right, &column.name));
                let span = datafusion_sql::sqlparser::tokenizer::Span::new(at.0, at.0);
                let names: Vec<Ident> = common.map(|column| Ident::with_span(span, column.name)).collect();
                if names.is_empty() {
                    let message = "NATURAL JOIN needs columns of the same name on both sides, and there are none";
                    return Err(SqlError::new(ErrorCode::Name, at, message));
                }
                equal(left, right, &names)
            }
            JoinConstraint::None => {
                let message = match kind {
                    JoinType::Inner => "JOIN needs a condition: ON ... or USING (...); CROSS JOIN has none",
                    _ => "an outer join needs a condition: ON ... or USING (...)",
                };
                Err(SqlError::new(ErrorCode::Syntax, at, message))
            }
        }
    }
}

/// When rows of two relations belong together.
struct Condition {
    expr: LogicalExpr,
    /// The pairs of columns that become one, with its name.
    using: Vec<Pair>,
}

struct Pair {
    name: String,
    left: Column,
    right: Column,
}

/// The join and its condition; no kind: every row meets every row.
fn kind(operator: &JoinOperator, at: At) -> Result<(Option<JoinType>, &JoinConstraint), SqlError> {
    Ok(match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (Some(JoinType::Inner), constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Some(JoinType::Left), constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Some(JoinType::Right), constraint),
        JoinOperator::FullOuter(constraint) => (Some(JoinType::Full), constraint),
        JoinOperator::LeftSemi(constraint) | JoinOperator::Semi(constraint) => (Some(JoinType::LeftSemi), constraint),
        JoinOperator::LeftAnti(constraint) | JoinOperator::Anti(constraint) => (Some(JoinType::LeftAnti), constraint),
        JoinOperator::CrossJoin(JoinConstraint::None) => (None, &JoinConstraint::None),
        JoinOperator::CrossJoin(_) => {
            return Err(SqlError::new(ErrorCode::Syntax, at, "CROSS JOIN has no condition; write JOIN ... ON"));
        }
        _ => {
            let message =
                "this kind of join is not supported; INNER, LEFT, RIGHT, FULL, CROSS, LEFT SEMI and LEFT ANTI are";
            return Err(SqlError::unsupported(at, message));
        }
    })
}

fn version(factor: &TableFactor) -> Option<&Expr> {
    match factor {
        TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } => Some(time),
        _ => None,
    }
}

/// Tables of the same name on both sides could not be told apart.
fn check_tables(left: &From, right: &From, at: At) -> Result<(), SqlError> {
    let tables = |from: &From| -> Vec<TableReference> {
        from.plan.schema().iter().filter_map(|(qualifier, _)| qualifier.cloned()).collect()
    };
    let known = tables(left);
    match tables(right).into_iter().find(|table| known.contains(table) && !is_internal(table.table())) {
        None => Ok(()),
        Some(table) => {
            let message = format!("two tables of this FROM are called '{table}'; give one of them an alias with AS");
            Err(SqlError::new(ErrorCode::Name, at, message))
        }
    }
}

fn cross(left: From, right: From, at: At) -> Result<From, SqlError> {
    let plan = LogicalPlanBuilder::from(left.plan).cross_join(right.plan).and_then(LogicalPlanBuilder::build);
    let plan = plan.map_err(|error| SqlError::from_datafusion(&error, at))?;
    Ok(From { plan, merged: [left.merged, right.merged].concat(), several: true })
}

fn using_name(name: &ObjectName) -> Result<Ident, SqlError> {
    match name.0.as_slice() {
        [part] => part.as_ident().cloned(),
        _ => None,
    }
    .ok_or_else(|| SqlError::new(ErrorCode::Name, name.span(), "USING takes the names of columns, without a table"))
}

/// The condition that the columns of these names are equal on both sides.
fn equal(left: &From, right: &From, names: &[Ident]) -> Result<Condition, SqlError> {
    let mut using = Vec::<Pair>::new();
    for name in names {
        let pair = Pair {
            left: using_column(left, name, "left")?,
            right: using_column(right, name, "right")?,
            name: name.value.clone(),
        };
        let pair = Pair { name: pair.left.name.clone(), ..pair };
        if using.iter().any(|other| other.left == pair.left) {
            let message = format!("USING names the column '{}' twice", name.value);
            return Err(SqlError::new(ErrorCode::Name, name.span, message));
        }
        let type_of = |from: &From, column: &Column| {
            let found = LogicalExpr::Column(column.clone()).get_type(from.plan.schema());
            found.map_err(|error| SqlError::from_datafusion(&error, name.span))
        };
        let (left_type, right_type) = (type_of(left, &pair.left)?, type_of(right, &pair.right)?);
        if left_type.is_string() != right_type.is_string() || left_type.is_nested() != right_type.is_nested() {
            let message = format!(
                "column '{}' is of type {} on the left and of type {} on the right; write ON with a CAST",
                pair.name,
                sql_type_name(&left_type),
                sql_type_name(&right_type)
            );
            return Err(SqlError::new(ErrorCode::Type, name.span, message));
        }
        using.push(pair);
    }
    let equal = |pair: &Pair| LogicalExpr::Column(pair.left.clone()).eq(LogicalExpr::Column(pair.right.clone()));
    let expr = using.iter().map(equal).reduce(LogicalExpr::and).expect("there is at least one name");
    Ok(Condition { expr, using })
}

fn using_column(from: &From, name: &Ident, side: &str) -> Result<Column, SqlError> {
    let visible = from.visible();
    let exact: Vec<&Column> = visible.iter().filter(|column| column.name == name.value).collect();
    let found = match exact.is_empty() {
        false => exact,
        true => visible.iter().filter(|column| column.name.to_lowercase() == name.value.to_lowercase()).collect(),
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let names: Vec<&str> = visible.iter().map(|column| column.name.as_str()).collect();
            let advice = advice(&name.value, "it has", &names);
            let message = format!("the {side} side of the join has no column '{}'{advice}", name.value);
            Err(SqlError::new(ErrorCode::Name, name.span, message))
        }
        _ => {
            let message = format!(
                "the {side} side of the join has several columns '{}'; write ON with the names of their tables",
                name.value
            );
            Err(SqlError::new(ErrorCode::Name, name.span, message))
        }
    }
}

/// The joined relation with the columns of USING made one.
fn merge(plan: LogicalPlan, known: Vec<Merged>, using: Vec<Pair>, kind: JoinType, at: At) -> Result<From, SqlError> {
    let parts_of = |column: &Column| -> Vec<Column> {
        let before = known.iter().filter(|merged| merged.column == *column).flat_map(|merged| merged.parts.clone());
        before.chain([column.clone()]).collect()
    };
    let mut added = Vec::new();
    let mut both = Vec::new();
    for (number, pair) in using.iter().enumerate() {
        let column = match kind {
            JoinType::Right => pair.right.clone(),
            JoinType::Full => {
                // Either side may be missing.
                let table = TableReference::bare(format!("__using_{}_{}", at.0.line, at.0.column));
                both.push((number, table.clone()));
                Column::new(Some(table), pair.name.clone())
            }
            _ => pair.left.clone(),
        };
        let parts = [parts_of(&pair.left), parts_of(&pair.right)].concat();
        added.push(Merged { name: pair.name.clone(), column, parts });
    }
    let replaced = |merged: &Merged| using.iter().any(|pair| pair.left == merged.column || pair.right == merged.column);
    let merged = known.iter().filter(|merged| !replaced(merged)).cloned();
    let merged: Vec<Merged> = added.into_iter().chain(merged).collect();
    if both.is_empty() {
        return Ok(From { plan, merged, several: true });
    }
    let coalesce = functions::registry().scalar("coalesce").expect("COALESCE is always there");
    let mut exprs: Vec<LogicalExpr> = plan.schema().columns().into_iter().map(LogicalExpr::Column).collect();
    exprs.extend(both.into_iter().map(|(number, table)| {
        let pair = &using[number];
        let sides = [&pair.left, &pair.right].map(|column| LogicalExpr::Column(column.clone()));
        coalesce.call(sides.to_vec()).alias_qualified(Some(table), pair.name.clone())
    }));
    let projection = Projection::try_new(exprs, Arc::new(plan));
    let plan = projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))?;
    Ok(From { plan, merged, several: true })
}
