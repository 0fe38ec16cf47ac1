//! Names in expressions: every identifier is matched with the columns in scope before DataFusion sees it, and
//! rewritten to the exact name where it differs by case only. Constructs in expressions that are not
//! supported are refused here too, because here their place is known. Called by `query.rs` and `catalog.rs`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, TableReference};
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned, Value,
    VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use mainstem_plan::{functions, sql_type_name};

use crate::context::{function_exists, function_names};
use crate::error::{At, ErrorCode, SqlError};
use crate::suggest::advice;
use crate::window::marker;

/// Functions whose first argument is a unit of time, written like a column.
const UNIT_FUNCTIONS: [&str; 2] = ["timestampdiff", "timestampadd"];

/// Resolves names in one clause.
pub(crate) struct Resolver<'a> {
    /// Columns in scope.
    pub(crate) schema: &'a DFSchema,
    /// Names of the SELECT list, where the clause may use them.
    pub(crate) aliases: &'a [String],
    /// What to call the clause in messages.
    pub(crate) clause: &'static str,
}

impl Resolver<'_> {
    /// Resolves all names of an expression.
    pub(crate) fn expr(&self, expr: &mut Expr) -> Result<(), SqlError> {
        let mut visitor = Visitor { resolver: self, fields: HashSet::new() };
        match VisitMut::visit(expr, &mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn identifier(&self, ident: &mut Ident) -> Result<(), SqlError> {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        if names.contains(&ident.value.as_str()) || self.aliases.contains(&ident.value) {
            return Ok(());
        }
        if let Some(name) = unique_without_case(&ident.value, names.iter().copied(), ident.span)? {
            ident.value = name;
            return Ok(());
        }
        if let Some(name) = unique_without_case(&ident.value, self.aliases.iter().map(String::as_str), ident.span)? {
            ident.value = name;
            return Ok(());
        }
        Err(self.unknown_column(ident, &names))
    }

    fn unknown_column(&self, ident: &Ident, names: &[&str]) -> SqlError {
        let message = format!(
            "unknown column '{}' in {}{}",
            ident.value,
            self.clause,
            advice(&ident.value, "known here are", names)
        );
        SqlError::new(ErrorCode::Name, ident.span, message)
    }

    /// `table.column`, `table.column.field...` or `column.field...`.
    fn compound(&self, parts: &mut [Ident]) -> Result<(), SqlError> {
        for exact in [true, false] {
            let same = |name: &str, ident: &Ident| {
                if exact { name == ident.value } else { name.eq_ignore_ascii_case(&ident.value) }
            };
            let qualified = self.schema.iter().find_map(|(qualifier, field)| {
                let qualifier = qualifier.map(TableReference::table)?;
                (same(qualifier, &parts[0]) && same(field.name(), &parts[1]))
                    .then(|| (qualifier.to_owned(), field.clone()))
            });
            if let Some((qualifier, field)) = qualified {
                parts[0].value = qualifier;
                parts[1].value.clone_from(field.name());
                return nested_fields(field.data_type(), &mut parts[1..]);
            }
            if let Some(field) = self.schema.fields().iter().find(|field| same(field.name(), &parts[0])) {
                parts[0].value.clone_from(field.name());
                return nested_fields(field.data_type(), parts);
            }
        }
        let of_table: Vec<&str> = self
            .schema
            .iter()
            .filter(|(qualifier, _)| {
                qualifier.is_some_and(|qualifier| qualifier.table().eq_ignore_ascii_case(&parts[0].value))
            })
            .map(|(_, field)| field.name().as_str())
            .collect();
        if of_table.is_empty() {
            let mut names: Vec<&str> =
                self.schema.iter().filter_map(|(qualifier, _)| Some(qualifier?.table())).collect();
            names.dedup();
            names.extend(self.schema.fields().iter().map(|field| field.name().as_str()));
            let message = format!(
                "'{}' in '{}.{}' is neither a table nor a column in {}{}",
                parts[0].value,
                parts[0].value,
                parts[1].value,
                self.clause,
                advice(&parts[0].value, "known here are", &names)
            );
            return Err(SqlError::new(ErrorCode::Name, parts[0].span, message));
        }
        Err(self.unknown_column(&parts[1], &of_table))
    }

    fn function(&self, function: &mut Function) -> Result<Option<Expr>, SqlError> {
        let at = At::from(function.name.span());
        let name = match function.name.0.as_slice() {
            [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
            _ => None,
        };
        let Some(name) = name else {
            return Err(SqlError::new(ErrorCode::Name, at, format!("unknown function '{}'", function.name)));
        };
        if function.over.is_some() {
            return Err(SqlError::unsupported(at, format!("OVER is not supported yet (in {name}(...) OVER ...)")));
        }
        if let Some(replacement) = marker::replace_auxiliary(function, &name, at)? {
            return Ok(Some(replacement));
        }
        if !function_exists(&name) {
            let names = function_names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let nearest = crate::suggest::nearest(&name, names.iter().copied());
            let suggestion = nearest.map(|known| format!("; did you mean '{known}'?")).unwrap_or_default();
            return Err(SqlError::new(ErrorCode::Name, at, format!("unknown function '{name}'{suggestion}")));
        }
        let registry = functions::registry();
        if registry.window(&name).is_some() && registry.aggregate(&name).is_none() && registry.scalar(&name).is_none() {
            return Err(SqlError::unsupported(at, format!("{name} needs OVER, which is not supported yet")));
        }
        if let Some(reason) = registry.refused(&name) {
            return Err(SqlError::unsupported(at, reason));
        }
        if UNIT_FUNCTIONS.contains(&name.as_str()) {
            quote_unit(function);
        }
        Ok(None)
    }
}

/// Walks along nested fields; the first part is the column.
fn nested_fields(column: &DataType, parts: &mut [Ident]) -> Result<(), SqlError> {
    let mut data_type = column.clone();
    for index in 1..parts.len() {
        let parent = parts[index - 1].value.clone();
        let part = &mut parts[index];
        let DataType::Struct(fields) = &data_type else {
            let message =
                format!("'{parent}' is of type {} and has no field '{}'", sql_type_name(&data_type), part.value);
            return Err(SqlError::new(ErrorCode::Name, part.span, message));
        };
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        if !names.contains(&part.value.as_str()) {
            match unique_without_case(&part.value, names.iter().copied(), part.span)? {
                Some(name) => part.value = name,
                None => {
                    let message =
                        format!("'{parent}' has no field '{}'{}", part.value, advice(&part.value, "it has", &names));
                    return Err(SqlError::new(ErrorCode::Name, part.span, message));
                }
            }
        }
        let field =
            fields.iter().find(|field| *field.name() == part.value).expect("the name was just taken from the fields");
        data_type = field.data_type().clone();
    }
    Ok(())
}

/// The only name that is equal when case is ignored; an error where several are.
pub(crate) fn unique_without_case<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    span: Span,
) -> Result<Option<String>, SqlError> {
    let lower = name.to_lowercase();
    let mut found: Vec<&str> = known.filter(|known| known.to_lowercase() == lower).collect();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).to_owned())),
        several => {
            let message =
                format!("'{name}' may mean {}; write the one that is meant in its own case", several.join(" or "));
            Err(SqlError::new(ErrorCode::Name, span, message))
        }
    }
}

fn quote_unit(function: &mut Function) {
    if let FunctionArguments::List(list) = &mut function.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first_mut()
        && let Expr::Identifier(unit) = first
    {
        let text = Value::SingleQuotedString(unit.value.to_uppercase());
        *first = Expr::Value(text.with_span(unit.span));
    }
}

struct Visitor<'a> {
    resolver: &'a Resolver<'a>,
    /// Places of identifiers that name fields, not columns.
    fields: HashSet<Location>,
}

impl VisitorMut for Visitor<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        ControlFlow::Break(SqlError::unsupported(
            query.span(),
            "sub-queries in expressions are not supported yet; sub-queries in FROM are",
        ))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match self.visit(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Visitor<'_> {
    fn visit(&mut self, expr: &mut Expr) -> Result<(), SqlError> {
        let refuse = |expr: &Expr, what: &str| Err(SqlError::unsupported(expr.span(), what));
        match expr {
            Expr::Identifier(ident) if self.fields.contains(&ident.span.start) => Ok(()),
            Expr::Identifier(ident) => self.resolver.identifier(ident),
            Expr::CompoundIdentifier(parts) if parts.len() >= 2 => self.resolver.compound(parts),
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                        self.fields.insert(field.span.start);
                    }
                }
                Ok(())
            }
            Expr::Function(function) => {
                if let Some(replacement) = self.resolver.function(function)? {
                    *expr = replacement;
                }
                Ok(())
            }
            Expr::InSubquery { .. } => refuse(expr, "IN (SELECT ...) is not supported yet"),
            Expr::Exists { .. } => refuse(expr, "EXISTS is not supported yet"),
            Expr::Subquery(_) => {
                refuse(expr, "sub-queries in expressions are not supported yet; sub-queries in FROM are")
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => refuse(expr, "ANY and ALL are not supported"),
            Expr::GroupingSets(_) => refuse(expr, "GROUPING SETS are not supported yet"),
            Expr::Cube(_) => refuse(expr, "CUBE is not supported yet"),
            Expr::Rollup(_) => refuse(expr, "ROLLUP is not supported yet"),
            Expr::InUnnest { .. } => refuse(expr, "UNNEST is not supported yet"),
            Expr::Lambda(_) => refuse(expr, "lambda functions are not supported"),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                refuse(expr, "placeholders are not supported; write the value")
            }
            _ => Ok(()),
        }
    }
}
