//! Aggregates over the rows of a variable.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{Expr, Function, Spanned, VisitMut, VisitorMut};
use mainstem_plan::functions::registry;

use super::super::settle;
use super::{Place, Rewriter};
use crate::error::SqlError;
use crate::node::Reference;
use crate::resolve::quote_unit;

impl Rewriter<'_, '_> {
    /// An aggregate over the rows of one variable, or over all.
    pub(super) fn aggregate(&mut self, function: &Function) -> Result<Expr, SqlError> {
        let span = function.name.span();
        let wrong = |message: String| Err(SqlError::unsupported(span, message));
        let name = function.name.to_string().to_uppercase();
        if matches!(self.place, Place::Navigation(..)) {
            return wrong(format!("{name} cannot stand in FIRST or LAST"));
        }
        let text = function.to_string();
        let mut call = Expr::Function(function.clone());
        let mut stripper = Stripper { rewriter: self, variables: Vec::new(), is_outermost: true };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut call, &mut stripper) {
            return Err(error);
        }
        let variables = stripper.variables;
        let variable = variables.first().copied().flatten();
        if variables.iter().any(|other| *other != variable) {
            return wrong(format!("{name} takes columns of one variable, as in Flink"));
        }
        let planned = self.references.scope.resolved(&call, self.references.names, self.clause)?;
        let planned = settle(planned, &self.references.names.schema);
        let planned = planned.map_err(|error| SqlError::from_datafusion(&error, span))?;
        self.read.push(variable);
        let name = self.stand_in(Reference { variable, row: None, expr: planned }, &text, span)?;
        Ok(Expr::Identifier(name))
    }
}

/// Takes the variable off the names in an aggregate.
struct Stripper<'v, 'r, 'a> {
    rewriter: &'v Rewriter<'r, 'a>,
    /// The variables that were taken off; `None` where there was none.
    variables: Vec<Option<usize>>,
    is_outermost: bool,
}

impl VisitorMut for Stripper<'_, '_, '_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let is_outermost = std::mem::take(&mut self.is_outermost);
        match expr {
            Expr::Identifier(_) => self.variables.push(None),
            Expr::CompoundIdentifier(parts) => match self.rewriter.references.variable(&parts[0]) {
                Ok(Some(variable)) => {
                    self.variables.push(Some(variable));
                    let mut rest = parts.split_off(1);
                    *expr = match (rest.pop(), rest.is_empty()) {
                        (Some(column), true) => Expr::Identifier(column),
                        (last, _) => Expr::CompoundIdentifier(rest.into_iter().chain(last).collect()),
                    };
                }
                Ok(None) => self.variables.push(None),
                Err(error) => return ControlFlow::Break(error),
            },
            Expr::Function(function) if !is_outermost => {
                let name = function.name.to_string().to_lowercase();
                if registry().aggregate(&name).is_some()
                    || ["first", "last", "prev", "next", "match_rowtime"].contains(&name.as_str())
                {
                    let message = format!("{} cannot stand in an aggregate", name.to_uppercase());
                    return ControlFlow::Break(SqlError::unsupported(function.name.span(), message));
                }
                quote_unit(function);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
