//! The FROM clause: tables, views, names of WITH, sub-queries and window table functions. Called for each
//! SELECT. How they are joined is in `join.rs`.

use std::sync::Arc;

use datafusion_common::{Column, TableReference};
use datafusion_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion_sql::sqlparser::ast::{Expr, Ident, ObjectName, Spanned, TableAlias, TableFactor, TableWithJoins};

use super::{Scope, alias, rename, unnest};
use crate::catalog::Relation;
use crate::error::{At, SqlError};
use crate::hint;
use crate::node::StateTtl;
use crate::resolve::{Merged, Names, unique_without_case};
use crate::window::node::extension;
use crate::window::table_function::{Call, Data};

/// A planned FROM clause, or a part of it.
pub(super) struct From {
    pub(super) plan: LogicalPlan,
    /// Columns that USING and NATURAL have made one; later ones go before earlier ones.
    pub(super) merged: Vec<Merged>,
    /// Whether there is more than one relation. Then each column has a table's name.
    pub(super) several: bool,
}

impl From {
    /// A single relation.
    fn one(plan: LogicalPlan) -> From {
        From { plan, merged: Vec::new(), several: false }
    }

    /// What names can mean over it.
    pub(super) fn names(&self) -> Names {
        Names { schema: self.plan.schema().clone(), merged: self.merged.clone() }
    }

    /// The columns of `*`.
    pub(super) fn visible(&self) -> Vec<Column> {
        let is_merged = |column: &Column| {
            self.merged.iter().any(|merged| merged.column == *column || merged.parts.contains(column))
        };
        let merged = self.merged.iter().map(|merged| merged.column.clone());
        merged.chain(self.plan.schema().columns().into_iter().filter(|column| !is_merged(column))).collect()
    }
}

impl Scope<'_> {
    /// The plan of a FROM clause.
    pub(super) fn from(&self, tables: &[TableWithJoins]) -> Result<From, SqlError> {
        let joined = |tables: &TableWithJoins| {
            !tables.joins.is_empty() || matches!(tables.relation, TableFactor::NestedJoin { .. })
        };
        let several = tables.len() > 1 || tables.iter().any(joined);
        let Some((first, rest)) = tables.split_first() else { return one_row(At::NOWHERE) };
        let mut from = self.tables(first, several)?;
        for next in rest {
            from = self.comma(from, next)?;
        }
        Ok(From { several, ..from })
    }

    /// A relation with what is joined to it.
    pub(super) fn tables(&self, tables: &TableWithJoins, several: bool) -> Result<From, SqlError> {
        let first = self.relation(&tables.relation, several)?;
        tables.joins.iter().try_fold(first, |left, join| self.join(left, join))
    }

    /// The plan of one relation. `several`: it is not the only one, so that its columns need its name.
    pub(super) fn relation(&self, factor: &TableFactor, several: bool) -> Result<From, SqlError> {
        let from = self.relation_without_hint(factor, several)?;
        let ttl = hint::name(factor).and_then(|name| self.hints.iter().find(|ttl| ttl.relation == name));
        Ok(match ttl {
            None => from,
            Some(ttl) => {
                let plan = extension(StateTtl { input: Arc::new(from.plan), ttl: ttl.clone() });
                From { plan, ..from }
            }
        })
    }

    fn relation_without_hint(&self, factor: &TableFactor, several: bool) -> Result<From, SqlError> {
        let at = At::from(factor.span());
        if let Some(call) = unnest::call(factor)? {
            return self.unnest(one_row(at)?, &call, false);
        }
        let (plan, table_alias) = match factor {
            TableFactor::Table { version: Some(_), .. } => {
                let message = "FOR SYSTEM_TIME AS OF belongs to a table that is joined: \
                               FROM a JOIN b FOR SYSTEM_TIME AS OF a.ts ON ...";
                return Err(SqlError::unsupported(at, message));
            }
            TableFactor::Table { name, alias, args: None, .. } => {
                let plan = self.named(plain_name(name)?)?;
                return Ok(From::one(match alias {
                    Some(table_alias) => self.aliased(plan, table_alias)?,
                    None => plan,
                }));
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => match Call::read_bare(name, &args.args)? {
                Some(call) => (self.call(call)?, alias),
                None => return Err(unknown_function(name)),
            },
            TableFactor::Derived { subquery, alias, .. } => (self.plan(subquery)?, alias),
            TableFactor::MatchRecognize { alias, .. } => (self.match_recognize(factor)?, alias),
            TableFactor::TableFunction { expr: Expr::Function(function), alias } => match Call::read(function)? {
                Some(call) => (self.call(call)?, alias),
                None => return Err(unknown_function(&function.name)),
            },
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let nested = self.tables(table_with_joins, several)?;
                match alias {
                    None => return Ok(nested),
                    Some(_) => (visible_only(&nested, at)?, alias),
                }
            }
            _ => {
                return Err(SqlError::unsupported(
                    at,
                    "TABLE( ) takes a window function: TUMBLE, HOP, CUMULATE or SESSION",
                ));
            }
        };
        let plan = match table_alias {
            Some(table_alias) => self.aliased(plan, table_alias)?,
            // Columns of two such relations could not be told apart.
            None if several => alias(plan, &format!("__relation_{}_{}", at.0.line, at.0.column), at)?,
            None => plan,
        };
        Ok(From::one(plan))
    }

    /// The relation under its alias.
    pub(super) fn aliased(&self, plan: LogicalPlan, table_alias: &TableAlias) -> Result<LogicalPlan, SqlError> {
        let at = At::from(table_alias.name.span);
        if table_alias.at.is_some() {
            return Err(SqlError::unsupported(at, "AT is not supported in a table's alias"));
        }
        let columns: Vec<Ident> = table_alias.columns.iter().map(|column| column.name.clone()).collect();
        alias(rename(plan, &columns, at)?, &table_alias.name.value, at)
    }

    fn call(&self, call: Call) -> Result<LogicalPlan, SqlError> {
        let data = match &call.data {
            Data::Table(name) => self.named(name)?,
            Data::Query(query) => self.plan(query)?,
        };
        call.plan(data)
    }

    /// A table, a view or a name of WITH.
    pub(super) fn named(&self, name: &Ident) -> Result<LogicalPlan, SqlError> {
        let at = At::from(name.span);
        let names = || self.with.iter().map(|(known, _)| known.as_str());
        let with = match names().any(|known| known == name.value) {
            true => Some(name.value.clone()),
            // An exact match among the tables goes before one without case in WITH.
            false if self.catalog.contains(&name.value) => None,
            false => unique_without_case(&name.value, names(), name.span)?,
        };
        if let Some(with) = with {
            let (_, plan) = self.with.iter().rev().find(|(known, _)| *known == with).expect("found among these");
            return alias(plan.as_ref().clone(), &with, at);
        }
        match self.catalog.find(name)? {
            (known, Relation::View(plan)) => alias(plan.as_ref().clone(), known, at),
            (known, Relation::Table(table)) => {
                let scan = LogicalPlanBuilder::scan(TableReference::bare(known.to_owned()), table.clone(), None);
                scan.and_then(LogicalPlanBuilder::build).map_err(|error| SqlError::from_datafusion(&error, at))
            }
        }
    }
}

/// What there is without a FROM clause.
fn one_row(at: At) -> Result<From, SqlError> {
    let plan = LogicalPlanBuilder::empty(true).build().map_err(|error| SqlError::from_datafusion(&error, at))?;
    Ok(From::one(plan))
}

/// The columns of `*`, under their own names.
fn visible_only(from: &From, at: At) -> Result<LogicalPlan, SqlError> {
    let exprs = from.visible().into_iter().map(|column| {
        let name = column.name.clone();
        LogicalExpr::Column(column).alias(name)
    });
    let projection = Projection::try_new(exprs.collect(), Arc::new(from.plan.clone()));
    projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// A name without parts.
pub(super) fn plain_name(name: &ObjectName) -> Result<&Ident, SqlError> {
    let ident = match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    };
    ident.ok_or_else(|| {
        let message =
            format!("the name '{name}' has several parts; there are no catalogs and databases here, use a plain name");
        SqlError::unsupported(name.span(), message)
    })
}

fn unknown_function(name: &ObjectName) -> SqlError {
    SqlError::unsupported(
        name.span(),
        format!("the table function {name} is not supported; TUMBLE, HOP, CUMULATE and SESSION are"),
    )
}
