//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND))` and its relatives, positional or with named
//! arguments. Called for FROM by `query.rs`, which also plans the data argument.

use std::sync::Arc;

use datafusion_common::{Column, DFSchema};
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, Spanned,
};
use mainstem_plan::sql_type_name;

use super::interval::{self, Shape, milliseconds};
use super::node::{WindowTableFunction, extension};
use super::{WINDOW_END, WINDOW_START, WINDOW_TIME};
use crate::context;
use crate::dialect::TABLE_ARGUMENT;
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::{Around, Resolver};
use crate::time_attribute::{Role, roles};

/// What the windows are made over.
pub(crate) enum Data {
    Table(Ident),
    Query(Box<Query>),
}

/// The parts of a call.
pub(crate) struct Call {
    pub(crate) data: Data,
    at: At,
    shape: Shape,
    partition_by: Vec<Ident>,
    time: Ident,
    intervals: Vec<Expr>,
}

impl Call {
    /// Reads the arguments of a window table function; none where the function is no window.
    pub(crate) fn read(function: &Function) -> Result<Option<Call>, SqlError> {
        let Some(shape) = shape_of(&function.name) else { return Ok(None) };
        let at = At::from(function.name.span());
        let args = match &function.args {
            FunctionArguments::List(list) => list.args.as_slice(),
            _ => &[],
        };
        read_call(shape, args, at).map(Some)
    }

    /// The same for a function in FROM without `TABLE( )` around it.
    pub(crate) fn read_bare(name: &ObjectName, args: &[FunctionArg]) -> Result<Option<Call>, SqlError> {
        match shape_of(name) {
            Some(shape) => read_call(shape, args, name.span().into()).map(Some),
            None => Ok(None),
        }
    }

    /// The window over its planned data.
    pub(crate) fn plan(self, input: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        let schema = input.schema().clone();
        for name in [WINDOW_START, WINDOW_END, WINDOW_TIME] {
            if schema.fields().iter().any(|field| field.name() == name) {
                let message = format!(
                    "the data of {} have a column '{name}' already; give it another name in a sub-query",
                    self.name()
                );
                return Err(SqlError::new(ErrorCode::Window, self.at, message));
            }
        }
        let time = self.column(&self.time, &schema, "DESCRIPTOR")?;
        let processing_time = self.check_time(&time, &input)?;
        let partition_by = self.partition_by.iter().map(|name| self.column(name, &schema, "PARTITION BY"));
        let partition_by = partition_by.collect::<Result<Vec<_>, _>>()?;
        if self.shape != Shape::Session && !partition_by.is_empty() {
            let message = format!("PARTITION BY belongs to SESSION; {} takes keys from GROUP BY", self.name());
            return Err(SqlError::new(ErrorCode::Window, self.at, message));
        }
        let mut lengths = Vec::new();
        for (expr, name) in self.intervals.iter().zip(self.shape.intervals()) {
            let at = At::from(expr.span()).or(self.at);
            let what = format!("the {} of {}", name.to_lowercase(), self.name());
            let planned = context::plan_expr(expr.clone(), &DFSchema::empty());
            let planned = planned.map_err(|error| match SqlError::from_datafusion(&error, at) {
                // A column: there are none in scope.
                unknown if unknown.code == ErrorCode::Name => interval::not_constant(&what, at),
                other => other,
            });
            lengths.push(milliseconds(&planned?, &what, at)?);
        }
        let window = self.shape.windows(&lengths, self.at)?;
        let schema =
            WindowTableFunction::output_schema(&schema).map_err(|error| SqlError::from_datafusion(&error, self.at))?;
        Ok(extension(WindowTableFunction {
            input: Arc::new(input),
            window,
            time,
            processing_time,
            partition_by,
            at: self.at,
            schema,
        }))
    }

    fn name(&self) -> String {
        format!("{:?}", self.shape).to_uppercase()
    }

    fn column(&self, name: &Ident, schema: &DFSchema, clause: &'static str) -> Result<Column, SqlError> {
        let mut expr = Expr::Identifier(name.clone());
        Resolver { schema, aliases: &[], clause, around: Around::default() }.expr(&mut expr)?;
        let Expr::Identifier(name) = expr else { unreachable!("an identifier is resolved to an identifier") };
        let found = schema.qualified_field_with_unqualified_name(&name.value);
        found.map(Column::from).map_err(|error| SqlError::from_datafusion(&error, name.span))
    }

    /// Whether the column is processing time; an error where it is no time attribute at all.
    fn check_time(&self, time: &Column, input: &LogicalPlan) -> Result<bool, SqlError> {
        let index =
            input.schema().index_of_column(time).map_err(|error| SqlError::from_datafusion(&error, self.time.span))?;
        let role = roles(input)[index];
        if role.is_event_time() || role == Role::ProcessingTime {
            return Ok(role == Role::ProcessingTime);
        }
        Err(not_event_time(
            &time.name,
            role,
            &sql_type_name(input.schema().field(index).data_type()),
            self.time.span.into(),
        ))
    }
}

/// The error for a window on a column that is no event time.
pub(crate) fn not_event_time(name: &str, role: Role, type_name: &str, at: At) -> SqlError {
    let message = match role {
        Role::WindowStart | Role::WindowEnd | Role::Window => {
            format!(
                "'{name}' is a bound of a window, not event time; use window_time, and add it to GROUP BY where the rows are grouped"
            )
        }
        _ if type_name.starts_with("TIMESTAMP") => {
            format!(
                "'{name}' is not event time here; declare WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND in its table, and pass the column on unchanged"
            )
        }
        _ => format!(
            "'{name}' is of type {type_name}; a window needs an event-time column, which is a TIMESTAMP with a WATERMARK in its table"
        ),
    };
    SqlError::new(ErrorCode::Window, at, message)
}

fn shape_of(name: &ObjectName) -> Option<Shape> {
    match name.0.as_slice() {
        [part] => Shape::from_name(&part.as_ident()?.value),
        _ => None,
    }
}

fn read_call(shape: Shape, args: &[FunctionArg], at: At) -> Result<Call, SqlError> {
    let name = format!("{shape:?}").to_uppercase();
    let usage = usage(shape);
    let wrong = |at: At, what: String| SqlError::new(ErrorCode::Window, at, format!("{what}; write {usage}"));
    let names: Vec<&str> = ["DATA", "TIMECOL"].iter().chain(shape.intervals()).copied().collect();
    let mut slots = vec![None::<&Expr>; names.len()];
    for (position, arg) in args.iter().enumerate() {
        let (slot, arg) = match arg {
            FunctionArg::Unnamed(arg) => (Some(position), arg),
            FunctionArg::Named { name: key, arg, .. } => {
                (names.iter().position(|name| key.value.eq_ignore_ascii_case(name)), arg)
            }
            FunctionArg::ExprNamed { name: key, arg, .. } => {
                let key = key.to_string();
                (names.iter().position(|name| key.eq_ignore_ascii_case(name)), arg)
            }
        };
        let (Some(slot), FunctionArgExpr::Expr(expr)) = (slot.filter(|slot| *slot < slots.len()), arg) else {
            return Err(wrong(at, format!("{name} does not take the argument '{arg}'")));
        };
        if slots[slot].replace(expr).is_some() {
            return Err(wrong(
                At::from(expr.span()).or(at),
                format!("{name} is given the argument {} twice", names[slot]),
            ));
        }
    }
    let required = 2 + shape.required();
    if let Some(missing) = slots[..required].iter().position(Option::is_none) {
        return Err(wrong(at, format!("{name} lacks the argument {}", names[missing])));
    }
    let mut slots = slots.into_iter().flatten();
    let mut next = || slots.next().expect("the required arguments are there");
    let (data, partition_by) = read_data(next())
        .ok_or_else(|| wrong(at, format!("the first argument of {name} must be a table or a sub-query")))?;
    let descriptor = next();
    let time = read_descriptor(descriptor).ok_or_else(|| {
        wrong(
            At::from(descriptor.span()).or(at),
            format!("the second argument of {name} must be DESCRIPTOR with one column"),
        )
    })?;
    Ok(Call { data, at, shape, partition_by, time, intervals: slots.cloned().collect() })
}

fn usage(shape: Shape) -> &'static str {
    match shape {
        Shape::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(ts), size)",
        Shape::Hop => "HOP(TABLE t, DESCRIPTOR(ts), slide, size)",
        Shape::Cumulate => "CUMULATE(TABLE t, DESCRIPTOR(ts), step, size)",
        Shape::Session => "SESSION(TABLE t PARTITION BY key, DESCRIPTOR(ts), gap)",
    }
}

fn read_data(expr: &Expr) -> Option<(Data, Vec<Ident>)> {
    match expr {
        Expr::Function(function) => {
            let name = function.name.0.first()?.as_ident()?;
            let FunctionArguments::List(list) = &function.args else { return None };
            if name.value != TABLE_ARGUMENT || name.quote_style.is_some() {
                return None;
            }
            let mut idents = list.args.iter().filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts))) if parts.len() == 1 => {
                    Some(parts[0].clone())
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident))) => Some(ident.clone()),
                _ => None,
            });
            let table = idents.next()?;
            Some((Data::Table(table), idents.collect()))
        }
        Expr::Identifier(name) => Some((Data::Table(name.clone()), Vec::new())),
        Expr::Subquery(query) => Some((Data::Query(query.clone()), Vec::new())),
        Expr::Nested(inner) => read_data(inner),
        _ => None,
    }
}

fn read_descriptor(expr: &Expr) -> Option<Ident> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_descriptor = function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR");
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] if is_descriptor => Some(name.clone()),
        _ => None,
    }
}
