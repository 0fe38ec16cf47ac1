//! The FROM clause: tables, views, names of WITH, sub-queries and window table functions. Called for each
//! SELECT.

use datafusion_common::TableReference;
use datafusion_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::sqlparser::ast::{Expr, Ident, ObjectName, Spanned, TableAlias, TableFactor};

use super::{Scope, alias, rename};
use crate::catalog::Relation;
use crate::error::{At, SqlError};
use crate::resolve::unique_without_case;
use crate::window::table_function::{Call, Data};

impl Scope<'_> {
    /// The plan of the one relation in FROM.
    pub(super) fn relation(&self, factor: &TableFactor) -> Result<LogicalPlan, SqlError> {
        let at = At::from(factor.span());
        let (plan, table_alias) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => (self.named(plain_name(name)?)?, alias),
            TableFactor::Table { name, alias, args: Some(args), .. } => match Call::read_bare(name, &args.args)? {
                Some(call) => (self.call(call)?, alias),
                None => return Err(unknown_function(name)),
            },
            TableFactor::Derived { subquery, alias, .. } => (self.plan(subquery)?, alias),
            TableFactor::TableFunction { expr: Expr::Function(function), alias } => match Call::read(function)? {
                Some(call) => (self.call(call)?, alias),
                None => return Err(unknown_function(&function.name)),
            },
            _ => {
                return Err(SqlError::unsupported(
                    at,
                    "TABLE( ) takes a window function: TUMBLE, HOP, CUMULATE or SESSION",
                ));
            }
        };
        match table_alias {
            Some(table_alias) => self.aliased(plan, table_alias),
            None => Ok(plan),
        }
    }

    fn aliased(&self, plan: LogicalPlan, table_alias: &TableAlias) -> Result<LogicalPlan, SqlError> {
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
    fn named(&self, name: &Ident) -> Result<LogicalPlan, SqlError> {
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

fn plain_name(name: &ObjectName) -> Result<&Ident, SqlError> {
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
