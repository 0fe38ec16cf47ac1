//! What names mean in DEFINE and MEASURES: `A.x`, `LAST(A.x, 1)`, `SUM(A.x)` and the like become columns of a schema
//! of references, of which each is there once; what is left of an expression is an ordinary one over that schema.

mod aggregate;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion_common::{Column, DFSchema, DFSchemaRef};
use datafusion_expr::{Expr as LogicalExpr, ExprSchemable};
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned, Value,
    VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use mainstem_plan::functions::registry;
use mainstem_plan::operator::MatchEnd;

use super::Scope;
use crate::error::{At, ErrorCode, SqlError};
use crate::node::Reference;
use crate::resolve::{Names, quote_unit, unique_without_case};

/// The references that were found so far.
pub(super) struct References<'a> {
    scope: &'a Scope<'a>,
    /// Columns of the input.
    names: &'a Names,
    variables: &'a [Ident],
    /// The event time.
    time: Column,
    found: Vec<(Reference, Field)>,
}

/// Where an expression stands, and so what a column in it means.
#[derive(Clone, Copy)]
enum Place {
    /// By itself: the value in the last row.
    Condition,
    /// In FIRST or LAST.
    Navigation(MatchEnd, u32),
}

/// Whether a measure is the event time of the match, as it is.
pub(super) fn is_match_time(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_match_time(inner),
        Expr::Function(function) => function.name.to_string().eq_ignore_ascii_case("MATCH_ROWTIME"),
        _ => false,
    }
}

impl<'a> References<'a> {
    pub(super) fn new(scope: &'a Scope<'a>, names: &'a Names, variables: &'a [Ident], time: Column) -> References<'a> {
        References { scope, names, variables, time, found: Vec::new() }
    }

    /// The expression over the references.
    pub(super) fn rewrite(&mut self, expr: &Expr, clause: &'static str) -> Result<Expr, SqlError> {
        let mut expr = expr.clone();
        self.rewrite_in(&mut expr, clause, Place::Condition)?;
        Ok(expr)
    }

    /// The schema of the references, and what they are.
    pub(super) fn finish(self) -> Result<(DFSchemaRef, Vec<Reference>), SqlError> {
        let (references, fields): (Vec<_>, Vec<_>) =
            self.found.into_iter().map(|(reference, field)| (reference, (None, Arc::new(field)))).unzip();
        let schema = DFSchema::new_with_metadata(fields, Default::default());
        let schema = schema.map_err(|error| SqlError::from_datafusion(&error, At::NOWHERE))?;
        Ok((Arc::new(schema), references))
    }

    /// Gives the variables whose columns the expression reads; `None` stands for all rows.
    fn rewrite_in(
        &mut self,
        expr: &mut Expr,
        clause: &'static str,
        place: Place,
    ) -> Result<Vec<Option<usize>>, SqlError> {
        let mut rewriter = Rewriter { references: self, clause, place, done: HashSet::new(), read: Vec::new() };
        match VisitMut::visit(expr, &mut rewriter) {
            ControlFlow::Continue(()) => Ok(rewriter.read),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// The column that stands for a reference, by name. `text`: what the reference is called in messages.
    fn column(&mut self, reference: Reference, text: &str) -> Result<String, SqlError> {
        if let Some((_, field)) = self.found.iter().find(|(known, _)| *known == reference) {
            return Ok(field.name().clone());
        }
        let failed = |error| SqlError::from_datafusion(&error, At::NOWHERE);
        let schema = self.names.schema.as_ref();
        let data_type = mainstem_plan::plain_type(&reference.expr.get_type(schema).map_err(failed)?);
        // There is always a last row of all, and always a first one.
        let is_there = reference.variable.is_none() && matches!(reference.row, Some((_, 0)));
        let nullable = !is_there || reference.expr.nullable(schema).map_err(failed)?;
        let mut name = text.to_owned();
        while self.found.iter().any(|(_, field)| *field.name() == name) {
            name.push('\'');
        }
        self.found.push((reference, Field::new(&name, data_type, nullable)));
        Ok(name)
    }

    /// The position of a variable by its name.
    fn variable(&self, name: &Ident) -> Result<Option<usize>, SqlError> {
        let exact = self.variables.iter().position(|variable| variable.value == name.value);
        if exact.is_some() {
            return Ok(exact);
        }
        let known = self.variables.iter().map(|variable| variable.value.as_str());
        let found = unique_without_case(&name.value, known, name.span)?;
        Ok(found.and_then(|found| self.variables.iter().position(|variable| variable.value == found)))
    }

    /// The column of the input that a name means.
    fn input_column(&self, name: &Ident, clause: &'static str) -> Result<Column, SqlError> {
        match self.scope.resolved(&Expr::Identifier(name.clone()), self.names, clause)? {
            LogicalExpr::Column(column) if self.names.schema.maybe_index_of_column(&column).is_some() => Ok(column),
            _ => Err(SqlError::new(ErrorCode::Name, name.span, format!("'{}' is no column here", name.value))),
        }
    }
}

struct Rewriter<'r, 'a> {
    references: &'r mut References<'a>,
    clause: &'static str,
    place: Place,
    /// Places of names that stand for references already, or for fields.
    done: HashSet<Location>,
    /// The variables whose columns were read.
    read: Vec<Option<usize>>,
}

impl VisitorMut for Rewriter<'_, '_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let message = format!("sub-queries cannot stand in {} of MATCH_RECOGNIZE", self.clause);
        ControlFlow::Break(SqlError::unsupported(query.span(), message))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match self.visit(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Rewriter<'_, '_> {
    fn visit(&mut self, expr: &mut Expr) -> Result<(), SqlError> {
        match expr {
            Expr::Identifier(name) if self.done.contains(&name.span.start) => Ok(()),
            Expr::CompoundIdentifier(parts)
                if parts.first().is_some_and(|part| self.done.contains(&part.span.start)) =>
            {
                Ok(())
            }
            Expr::Identifier(name) => {
                *expr = self.row_value(None, name.clone(), &[])?;
                Ok(())
            }
            Expr::CompoundIdentifier(parts) => {
                let parts = parts.clone();
                *expr = self.compound(&parts)?;
                Ok(())
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                        self.done.insert(field.span.start);
                    }
                }
                Ok(())
            }
            Expr::Function(function) => {
                let function = function.clone();
                if let Some(replacement) = self.function(&function)? {
                    *expr = replacement;
                } else if let Expr::Function(function) = expr {
                    quote_unit(function);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `variable.column.field...` or `column.field...`.
    fn compound(&mut self, parts: &[Ident]) -> Result<Expr, SqlError> {
        match self.references.variable(&parts[0])? {
            Some(variable) => self.row_value(Some(variable), parts[1].clone(), &parts[2..]),
            None if self.is_column(&parts[0]) => self.row_value(None, parts[0].clone(), &parts[1..]),
            None => {
                let known: Vec<&str> = self.references.variables.iter().map(|known| known.value.as_str()).collect();
                let message = format!(
                    "'{}' in '{}.{}' is no variable of the pattern{}",
                    parts[0].value,
                    parts[0].value,
                    parts[1].value,
                    crate::suggest::advice(&parts[0].value, "it has", &known)
                );
                Err(SqlError::new(ErrorCode::Name, parts[0].span, message))
            }
        }
    }

    fn is_column(&self, name: &Ident) -> bool {
        self.references.names.schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(&name.value))
    }

    /// The reference to a column, or a field of it, of the row that the place means.
    fn row_value(&mut self, variable: Option<usize>, column: Ident, fields: &[Ident]) -> Result<Expr, SqlError> {
        let found = self.references.input_column(&column, self.clause)?;
        let (end, offset) = match self.place {
            Place::Condition => (MatchEnd::Last, 0),
            Place::Navigation(end, offset) => (end, offset),
        };
        let owner = variable.map(|variable| format!("{}.", self.references.variables[variable].value));
        let plain = format!("{}{}", owner.unwrap_or_default(), found.name);
        let text = match (end, offset) {
            (MatchEnd::Last, 0) => plain,
            (MatchEnd::Last, offset) => format!("LAST({plain}, {offset})"),
            (MatchEnd::First, 0) => format!("FIRST({plain})"),
            (MatchEnd::First, offset) => format!("FIRST({plain}, {offset})"),
        };
        let reference = Reference { variable, row: Some((end, offset)), expr: LogicalExpr::Column(found) };
        self.read.push(variable);
        let first = self.stand_in(reference, &text, column.span)?;
        if fields.is_empty() {
            return Ok(Expr::Identifier(first));
        }
        Ok(Expr::CompoundIdentifier(std::iter::once(first).chain(fields.iter().cloned()).collect()))
    }

    /// The name that stands for a reference from here on.
    fn stand_in(&mut self, reference: Reference, text: &str, span: Span) -> Result<Ident, SqlError> {
        let value = self.references.column(reference, text).map_err(|error| error.or_at(span))?;
        self.done.insert(span.start);
        Ok(Ident { value, quote_style: Some('`'), span })
    }

    /// What a function of patterns, or an aggregate, is replaced by.
    fn function(&mut self, function: &Function) -> Result<Option<Expr>, SqlError> {
        let name = function.name.to_string().to_lowercase();
        let span = function.name.span();
        let refuse = |message: &str| Err(SqlError::unsupported(span, message));
        if function.over.is_some() {
            return refuse("OVER cannot stand in MATCH_RECOGNIZE; LAST and aggregates see the rows of the match");
        }
        match name.as_str() {
            "first" => self.navigation(function, MatchEnd::First).map(Some),
            "last" => self.navigation(function, MatchEnd::Last).map(Some),
            "prev" => {
                refuse("PREV is not supported, as in Flink; LAST(variable.column, 1) is the row before the last one")
            }
            "next" => refuse("NEXT is not supported, as in Flink: a condition sees the rows up to its own"),
            "classifier" => refuse("CLASSIFIER is not supported, as in Flink; name the variable of each measure"),
            "match_number" => refuse("MATCH_NUMBER is not supported, as in Flink"),
            "match_proctime" => refuse("MATCH_PROCTIME is not supported; select PROCTIME() instead"),
            "match_rowtime" => self.match_time(function).map(Some),
            name if registry().aggregate(name).is_some() => self.aggregate(function).map(Some),
            _ => Ok(None),
        }
    }

    /// `FIRST(x, offset)` and `LAST(x, offset)`: as in Flink, the columns of x, each in that row.
    fn navigation(&mut self, function: &Function, end: MatchEnd) -> Result<Expr, SqlError> {
        let span = function.name.span();
        let name = function.name.to_string().to_uppercase();
        let wrong = |message: String| Err(SqlError::unsupported(span, message));
        if matches!(self.place, Place::Navigation(..)) {
            return wrong(format!("{name} cannot stand in FIRST or LAST"));
        }
        let arguments = arguments(function);
        let (value, offset) = match arguments.as_deref() {
            Some([value]) => (value, 0),
            Some([value, offset]) => match whole_number(offset) {
                Some(offset) => (value, offset),
                None => return wrong(format!("the distance of {name} must be a constant whole number")),
            },
            _ => return wrong(format!("{name} takes a column of a variable, and how many rows are left out")),
        };
        let mut value = value.clone();
        let place = std::mem::replace(&mut self.place, Place::Navigation(end, offset));
        let mut read = std::mem::take(&mut self.read);
        let visited = VisitMut::visit(&mut value, self);
        self.place = place;
        std::mem::swap(&mut self.read, &mut read);
        if let ControlFlow::Break(error) = visited {
            return Err(error);
        }
        match read.first() {
            None => return wrong(format!("{name} takes a column of a variable")),
            Some(first) if read.iter().any(|other| other != first) => {
                return wrong(format!("{name} takes columns of one variable"));
            }
            Some(_) => self.read.extend(read),
        }
        Ok(Expr::Nested(Box::new(value)))
    }

    /// `MATCH_ROWTIME()`.
    fn match_time(&mut self, function: &Function) -> Result<Expr, SqlError> {
        let span = function.name.span();
        let is_time = match arguments(function).as_deref() {
            Some([]) => true,
            Some([Expr::Identifier(name)]) => self.references.input_column(name, self.clause)? == self.references.time,
            _ => false,
        };
        if !is_time {
            let message = "MATCH_ROWTIME() takes nothing, or the event time that the rows are ordered by";
            return Err(SqlError::unsupported(span, message));
        }
        if matches!(self.place, Place::Navigation(..)) {
            return Err(SqlError::unsupported(span, "MATCH_ROWTIME() cannot stand in FIRST or LAST"));
        }
        let expr = LogicalExpr::Column(self.references.time.clone());
        let text = self.references.time.name.clone();
        self.read.push(None);
        let name = self.stand_in(Reference { variable: None, row: Some((MatchEnd::Last, 0)), expr }, &text, span)?;
        Ok(Expr::Identifier(name))
    }
}

/// The arguments of a call, where they are plain expressions.
fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

fn whole_number(expr: &Expr) -> Option<u32> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}
