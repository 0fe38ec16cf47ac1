//! Names in expressions: every identifier is matched with the columns in scope before DataFusion sees it, and
//! rewritten to the exact name where it differs by case only. Constructs in expressions that are not
//! supported are refused here too, because here their place is known. Called by `query.rs` and `catalog.rs`.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion_common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned, Value,
    VisitMut, VisitorMut, WindowSpec,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use mainstem_plan::{functions, sql_type_name};

use crate::context::{function_exists, function_names};
use crate::error::{At, ErrorCode, SqlError};
use crate::forms;
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
    /// What else names can mean.
    pub(crate) around: Around<'a>,
}

/// What names can mean besides columns of the FROM clause and of the SELECT list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Around<'a> {
    /// Columns that USING and NATURAL have made one.
    pub(crate) merged: &'a [Merged],
    /// Columns of the queries around this one, outermost first.
    pub(crate) outer: &'a [Names],
    /// Whether sub-queries may stand in the expression; they are planned already, placeholders stand for them.
    pub(crate) subqueries: bool,
}

/// A column that USING or NATURAL has made of two.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    /// Its name, which is that of the column on the left.
    pub(crate) name: String,
    /// The column that holds its values.
    pub(crate) column: Column,
    /// The columns that it was made of: `*` does not show them.
    pub(crate) parts: Vec<Column>,
}

/// Columns that names in a query can mean.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The columns.
    pub(crate) schema: DFSchemaRef,
    /// Those of them that USING and NATURAL have made one.
    pub(crate) merged: Vec<Merged>,
}

/// A column by its full name, as an expression.
pub(crate) fn full_name(column: &Column, span: Span) -> Expr {
    let ident = |name: &str| Ident { value: name.to_owned(), quote_style: Some('`'), span };
    match &column.relation {
        Some(table) => Expr::CompoundIdentifier(vec![ident(table.table()), ident(&column.name)]),
        None => Expr::Identifier(ident(&column.name)),
    }
}

impl Resolver<'_> {
    /// Resolves all names of an expression.
    pub(crate) fn expr(&self, expr: &mut Expr) -> Result<(), SqlError> {
        let mut visitor = Visitor { resolver: self };
        match VisitMut::visit(expr, &mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Resolves all names of a window that WINDOW defines.
    pub(crate) fn window(&self, window: &mut WindowSpec) -> Result<(), SqlError> {
        let mut visitor = Visitor { resolver: self };
        match VisitMut::visit(window, &mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// A plain name; gives the expression that is to stand for it, where that is another.
    fn identifier(&self, ident: &mut Ident) -> Result<Option<Expr>, SqlError> {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some(found) = in_columns(ident, self.schema, self.around.merged, true, self.aliases)? {
            return Ok(found.full);
        }
        if self.aliases.contains(&ident.value) {
            return Ok(None);
        }
        if let Some(found) = in_columns(ident, self.schema, self.around.merged, false, self.aliases)? {
            ident.value = found.name;
            return Ok(found.full);
        }
        if let Some(name) = unique_without_case(&ident.value, self.aliases.iter().map(String::as_str), ident.span)? {
            ident.value = name;
            return Ok(None);
        }
        for outer in self.around.outer.iter().rev() {
            for exact in [true, false] {
                if let Some(found) = in_columns(ident, &outer.schema, &outer.merged, exact, &[])? {
                    ident.value = found.name;
                    return Ok(found.full);
                }
            }
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
        if in_tables(parts, self.schema)? {
            return Ok(());
        }
        // A table of this query hides one of the same name around it.
        let known = |schema: &DFSchema| {
            let mut qualifiers = schema.iter().filter_map(|(qualifier, _)| qualifier);
            qualifiers.any(|qualifier| qualifier.table().eq_ignore_ascii_case(&parts[0].value))
        };
        if !known(self.schema) {
            for outer in self.around.outer.iter().rev() {
                if in_tables(parts, &outer.schema)? {
                    return Ok(());
                }
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
            names.retain(|name| !is_internal(name));
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
        let is_plain = registry.aggregate(&name).is_some() || registry.scalar(&name).is_some();
        if function.over.is_none() && registry.window(&name).is_some() && !is_plain {
            let message = format!("{name} needs OVER, such as {name}(...) OVER (PARTITION BY k ORDER BY ts)");
            return Err(SqlError::new(ErrorCode::Type, at, message));
        }
        if let Some(reason) = registry.refused(&name) {
            return Err(SqlError::unsupported(at, reason));
        }
        quote_unit(function);
        Ok(None)
    }
}

/// What a plain name means.
struct Found {
    /// The column's own name.
    name: String,
    /// The column by its full name, where the plain name does not tell.
    full: Option<Expr>,
}

/// The column of that name. Several of the same name are a mistake, unless the name is one of `aliases`.
fn in_columns(
    ident: &Ident,
    schema: &DFSchema,
    merged: &[Merged],
    exact: bool,
    aliases: &[String],
) -> Result<Option<Found>, SqlError> {
    let same = |name: &str| match exact {
        true => name == ident.value,
        false => name.to_lowercase() == ident.value.to_lowercase(),
    };
    let mut merged = merged.iter().rev();
    if let Some(merged) = merged.find(|merged| same(&merged.name)) {
        let full = Some(full_name(&merged.column, ident.span));
        return Ok(Some(Found { name: merged.name.clone(), full }));
    }
    let found: Vec<Column> =
        schema.iter().filter(|(_, field)| same(field.name())).map(|(table, field)| (table, field).into()).collect();
    let Some(first) = found.first() else { return Ok(None) };
    if !exact {
        let names = found.iter().map(|column| column.name.as_str());
        unique_without_case(&ident.value, names, ident.span)?;
    }
    if found.len() == 1 || aliases.contains(&ident.value) {
        return Ok(Some(Found { name: first.name.clone(), full: None }));
    }
    let tables = found.iter().filter_map(|column| Some(column.relation.as_ref()?.table()));
    let named: Vec<String> =
        tables.filter(|table| !is_internal(table)).map(|table| format!("{table}.{}", first.name)).collect();
    let message = format!(
        "'{}' may mean a column of several tables here{}{}; write it with its table's name",
        ident.value,
        if named.is_empty() { "" } else { ": " },
        named.join(" or ")
    );
    Err(SqlError::new(ErrorCode::Name, ident.span, message))
}

/// Resolves `table.column...` or `column.field...`; false where there is neither such a table's column nor such a
/// column.
fn in_tables(parts: &mut [Ident], schema: &DFSchema) -> Result<bool, SqlError> {
    for exact in [true, false] {
        let same = |name: &str, ident: &Ident| {
            if exact { name == ident.value } else { name.eq_ignore_ascii_case(&ident.value) }
        };
        let qualified = schema.iter().find_map(|(qualifier, field)| {
            let qualifier = qualifier.map(TableReference::table)?;
            (same(qualifier, &parts[0]) && same(field.name(), &parts[1])).then(|| (qualifier.to_owned(), field.clone()))
        });
        if let Some((qualifier, field)) = qualified {
            parts[0].value = qualifier;
            parts[1].value.clone_from(field.name());
            nested_fields(field.data_type(), &mut parts[1..])?;
            return Ok(true);
        }
        let mut columns = schema.fields().iter().filter(|field| same(field.name(), &parts[0]));
        if let Some(field) = columns.next() {
            if columns.next().is_some() {
                let message = format!(
                    "'{}' may mean a column of several tables here; write it with its table's name",
                    parts[0].value
                );
                return Err(SqlError::new(ErrorCode::Name, parts[0].span, message));
            }
            parts[0].value.clone_from(field.name());
            nested_fields(field.data_type(), parts)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the planner has made the name.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with("__")
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

/// Makes the unit that is the first argument of some functions, written like a column, a text.
pub(crate) fn quote_unit(function: &mut Function) {
    let name = function.name.to_string().to_lowercase();
    if UNIT_FUNCTIONS.contains(&name.as_str())
        && let FunctionArguments::List(list) = &mut function.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first_mut()
        && let Expr::Identifier(unit) = first
    {
        let text = Value::SingleQuotedString(unit.value.to_uppercase());
        *first = Expr::Value(text.with_span(unit.span));
    }
}

struct Visitor<'a> {
    resolver: &'a Resolver<'a>,
}

impl VisitorMut for Visitor<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if self.resolver.around.subqueries {
            return ControlFlow::Continue(());
        }
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
        forms::call(expr);
        match expr {
            Expr::Identifier(ident) => {
                if let Some(full) = self.resolver.identifier(ident)? {
                    *expr = full;
                }
                Ok(())
            }
            Expr::CompoundIdentifier(parts) if parts.len() >= 2 => self.resolver.compound(parts),
            Expr::CompoundFieldAccess { root, access_chain } => {
                // The first names are those of a table, a column and its fields.
                let mut names = match root.as_ref() {
                    Expr::Identifier(name) => vec![name.clone()],
                    Expr::CompoundIdentifier(names) => names.clone(),
                    _ => Vec::new(),
                };
                while let (false, Some(AccessExpr::Dot(Expr::Identifier(name)))) =
                    (names.is_empty(), access_chain.first())
                {
                    names.push(name.clone());
                    access_chain.remove(0);
                }
                if names.len() > 1 {
                    **root = Expr::CompoundIdentifier(names);
                }
                // DataFusion reads others from a text.
                for access in access_chain {
                    if let AccessExpr::Dot(field) = access
                        && let Expr::Identifier(name) = &*field
                    {
                        *field = Expr::Value(Value::SingleQuotedString(name.value.clone()).with_span(name.span));
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
            Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) if self.resolver.around.subqueries => {
                Ok(())
            }
            Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) => {
                let message = format!(
                    "sub-queries cannot stand in {}; those in FROM, WHERE, HAVING and the SELECT list can",
                    self.resolver.clause
                );
                Err(SqlError::unsupported(expr.span(), message))
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => refuse(expr, "ANY and ALL are not supported"),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) if self.resolver.clause != "GROUP BY" => {
                refuse(expr, "GROUPING SETS, CUBE and ROLLUP belong in GROUP BY")
            }
            Expr::InUnnest { .. } => refuse(expr, "UNNEST is not supported yet"),
            Expr::Lambda(_) => refuse(expr, "lambda functions are not supported"),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                refuse(expr, "placeholders are not supported; write the value")
            }
            _ => Ok(()),
        }
    }
}
