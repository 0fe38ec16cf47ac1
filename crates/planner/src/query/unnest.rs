//! UNNEST in a FROM clause: a row for each element of a collection of the row before it. Called by `from.rs` and
//! `join.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::{Column, TableReference};
use datafusion_expr::{ExprSchemable, Filter, JoinType, LogicalPlan, Projection};
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, JoinConstraint, Spanned, TableAlias, TableFactor,
    Value,
};
use mainstem_plan::sql_type_name;

use super::failure::check_condition;
use super::from::From;
use super::{Scope, column_exprs};
use crate::error::{At, ErrorCode, SqlError};
use crate::node::Unnest;
use crate::window::node::extension;

/// The column that WITH ORDINALITY adds.
const ORDINALITY: &str = "ORDINALITY";

/// `UNNEST(collection) [WITH ORDINALITY] [AS alias [(names)]]`.
pub(super) struct Call<'a> {
    collection: &'a Expr,
    ordinality: bool,
    alias: Option<&'a TableAlias>,
    at: At,
}

/// The call, if the factor is one: `UNNEST(x)`, `TABLE(UNNEST(x))` or `LATERAL TABLE(UNNEST(x))`.
pub(super) fn call(factor: &TableFactor) -> Result<Option<Call<'_>>, SqlError> {
    let at = At::from(factor.span());
    let one = |args: &'_ [Expr], at: At| match args.len() {
        1 => Ok(()),
        _ => Err(SqlError::unsupported(at, "UNNEST takes one array or map")),
    };
    match factor {
        TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias, with_ordinality } => {
            let at = array_exprs.first().map_or(at, |array| At::from(array.span()));
            one(array_exprs, at)?;
            if *with_offset || with_offset_alias.is_some() {
                return Err(SqlError::unsupported(at, "WITH OFFSET is not supported; WITH ORDINALITY counts from 1"));
            }
            let (collection, alias) = (&array_exprs[0], alias.as_ref());
            Ok(Some(Call { collection, ordinality: *with_ordinality, alias, at }))
        }
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => {
            Ok(argument(function).map(|collection| Call { collection, ordinality: false, alias: alias.as_ref(), at }))
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. }
            if name.to_string().eq_ignore_ascii_case("TABLE") =>
        {
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(function)))] = args.as_slice() else {
                return Ok(None);
            };
            let ordinality = *with_ordinality;
            Ok(argument(function).map(|collection| Call { collection, ordinality, alias: alias.as_ref(), at }))
        }
        _ => Ok(None),
    }
}

/// The argument of `UNNEST(x)`.
fn argument(function: &Function) -> Option<&Expr> {
    if !function.name.to_string().eq_ignore_ascii_case("UNNEST") {
        return None;
    }
    match &function.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Some(expr),
            _ => None,
        },
        _ => None,
    }
}

impl Scope<'_> {
    /// `left JOIN UNNEST(...)`; no kind: a CROSS JOIN.
    pub(super) fn join_unnest(
        &self,
        left: From,
        call: &Call<'_>,
        kind: Option<JoinType>,
        constraint: &JoinConstraint,
    ) -> Result<From, SqlError> {
        let is_true = |expr: &Expr| matches!(expr, Expr::Value(value) if matches!(value.value, Value::Boolean(true)));
        let condition = match constraint {
            JoinConstraint::On(expr) => Some(expr).filter(|expr| !is_true(expr)),
            JoinConstraint::None => None,
            JoinConstraint::Using(_) | JoinConstraint::Natural => {
                return Err(SqlError::unsupported(
                    call.at,
                    "UNNEST is joined by CROSS JOIN, or by LEFT JOIN ... ON TRUE",
                ));
            }
        };
        match (kind, condition) {
            (None | Some(JoinType::Inner), None) => self.unnest(left, call, false),
            (Some(JoinType::Left), None) => self.unnest(left, call, true),
            (Some(JoinType::Inner), Some(condition)) => {
                let from = self.unnest(left, call, false)?;
                let names = from.names();
                let predicate = self.condition_over(condition, &names, "ON")?;
                let filter = Filter::try_new(predicate, Arc::new(from.plan));
                let plan = filter.map(LogicalPlan::Filter);
                let plan = plan.map_err(|error| SqlError::from_datafusion(&error, condition.span()))?;
                Ok(From { plan, merged: from.merged, several: true })
            }
            _ => {
                let message = "UNNEST can be joined by CROSS JOIN, INNER JOIN, or by LEFT JOIN with ON TRUE";
                Err(SqlError::unsupported(call.at, message))
            }
        }
    }

    /// A row for each element. `outer`: rows without elements are kept.
    pub(super) fn unnest(&self, left: From, call: &Call<'_>, outer: bool) -> Result<From, SqlError> {
        let names = left.names();
        let expr = self.resolved(call.collection, &names, "UNNEST")?;
        let found = expr.get_type(&names.schema).map_err(|error| SqlError::from_datafusion(&error, call.at))?;
        let alias = call.alias.map(|alias| alias.name.value.as_str());
        let mut fields = elements(&found, alias.unwrap_or("EXPR$0")).ok_or_else(|| {
            let message = format!("UNNEST takes an array or a map, this is of type {}", sql_type_name(&found));
            SqlError::new(ErrorCode::Type, call.at, message)
        })?;
        if call.ordinality {
            fields.push(Field::new(ORDINALITY, DataType::Int32, outer));
        }
        if let Some(alias) = call.alias.filter(|alias| !alias.columns.is_empty()) {
            let given = &alias.columns;
            if given.len() != fields.len() {
                let message = format!("{} column names are given for {} columns of UNNEST", given.len(), fields.len());
                return Err(SqlError::new(ErrorCode::Name, given[0].name.span, message));
            }
            let named = fields.into_iter().zip(given);
            fields = named.map(|(field, column)| field.with_name(&column.name.value)).collect();
        }
        let table = match alias {
            Some(alias) => alias.to_owned(),
            None => format!("__relation_{}_{}", call.at.0.line, call.at.0.column),
        };
        let table = TableReference::bare(table);
        if names.schema.iter().any(|(known, _)| known == Some(&table)) {
            let message = format!("two tables of this FROM are called '{table}'; give one of them an alias with AS");
            return Err(SqlError::new(ErrorCode::Name, call.at, message));
        }
        let fields = fields.into_iter().map(|field| {
            let nullable = outer || field.is_nullable();
            (Some(table.clone()), Arc::new(field.with_nullable(nullable)))
        });
        // A column of its own: the array as such need not be kept where nobody else reads it.
        let collection = Column::new_unqualified(format!("__collection_{}_{}", call.at.0.line, call.at.0.column));
        let mut exprs = column_exprs(&left.plan);
        exprs.push(expr.alias(collection.name.clone()));
        let input = Projection::try_new(exprs, Arc::new(left.plan)).map(LogicalPlan::Projection);
        let node = input.and_then(|input| Unnest::new(input, collection, outer, call.ordinality, fields.collect()));
        let plan = node.map(extension).map_err(|error| SqlError::from_datafusion(&error, call.at))?;
        Ok(From { plan, merged: left.merged, several: true })
    }

    /// A condition over these names.
    fn condition_over(
        &self,
        condition: &Expr,
        names: &crate::resolve::Names,
        clause: &'static str,
    ) -> Result<datafusion_expr::Expr, SqlError> {
        let mut resolved = condition.clone();
        self.resolver(names, clause).expr(&mut resolved)?;
        check_condition(&resolved, &names.schema, &self.surroundings(), clause)?;
        self.resolved(condition, names, clause)
    }
}

/// The columns of the elements of a collection; none where it is no collection.
fn elements(collection: &DataType, name: &str) -> Option<Vec<Field>> {
    let of_row = |row: &Field| match row.data_type() {
        DataType::Struct(fields) => {
            let nullable = |field: &Field| field.is_nullable() || row.is_nullable();
            fields.iter().map(|field| field.as_ref().clone().with_nullable(nullable(field))).collect()
        }
        _ => vec![row.clone().with_name(name)],
    };
    match collection {
        DataType::List(item) => Some(of_row(item)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let mut columns = vec![fields[0].as_ref().clone().with_name("KEY")];
                match fields[1].data_type() {
                    DataType::Struct(_) => columns.extend(of_row(&fields[1])),
                    _ => columns.push(fields[1].as_ref().clone().with_name("VALUE")),
                }
                Some(columns)
            }
            _ => None,
        },
        _ => None,
    }
}
