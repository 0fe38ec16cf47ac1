//! Turns the aggregations of a planned SELECT that are grouped by a window into windowed ones, or says why that
//! cannot be. Called by `query.rs` for each SELECT. After it, neither grouping sets nor window markers are left.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, Result, TableReference};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{Aggregate, Expr, Filter, LogicalPlan, Projection, lit};
use mainstem_plan::operator::WindowProperty;
use mainstem_plan::{functions, sql_type_name};

use super::interval::{is_interval, milliseconds};
use super::marker;
use super::node::{WindowAggregation, Windows, downcast, extension};
use super::strip::{Stripped, strip};
use super::table_function::not_event_time;
use crate::error::{At, ErrorCode, SqlError};
use crate::grouping_sets;
use crate::time_attribute::{Role, field_name, has_processing_time_windows, left_marker, of_expr, roles};

const START: &str = "__window_start";
const END: &str = "__window_end";
const TIME: &str = "__window_time";

/// Where the parts of a SELECT stand in the text, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) select: At,
    /// The first expression of GROUP BY, or the SELECT without one.
    pub(crate) group_by: At,
    /// The first window function, or the SELECT without one.
    pub(crate) window_function: At,
}

/// The plan with its aggregations over windows as nodes of their own; others stay as they are, one for each
/// grouping set.
pub(crate) fn convert(plan: LogicalPlan, places: Places) -> Result<LogicalPlan, SqlError> {
    let converted = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => {
            let converted = match grouping_sets::expand(&aggregate)? {
                Some(expanded) => expanded.union(|one| aggregation(one, places).map_err(SqlError::into_datafusion)),
                None => aggregation(aggregate, places).map_err(SqlError::into_datafusion),
            };
            converted.map(Transformed::yes)
        }
        LogicalPlan::Filter(filter) => match struct_of(&filter.input) {
            None => Ok(Transformed::no(LogicalPlan::Filter(filter))),
            Some(name) => {
                let predicate = unfold(filter.predicate, &name)?;
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
            }
        },
        LogicalPlan::Projection(projection) => match struct_of(&projection.input) {
            None => Ok(Transformed::no(LogicalPlan::Projection(projection))),
            Some(name) => {
                let exprs = projection.expr.into_iter().map(|expr| unfold_named(expr, &name));
                let exprs = exprs.collect::<Result<Vec<_>>>()?;
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?)))
            }
        },
        other => Ok(Transformed::no(other)),
    });
    let plan = converted.map_err(|error| SqlError::from_datafusion(&error, places.group_by))?.data;
    check_markers(&plan, places)?;
    Ok(plan)
}

fn check_markers(plan: &LogicalPlan, places: Places) -> Result<(), SqlError> {
    let mut found = None;
    plan.apply(|node| {
        found = left_marker(node);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|error| SqlError::from_datafusion(&error, places.select))?;
    match found {
        None => Ok(()),
        Some(name) => {
            let message =
                format!("the window function {name} belongs in GROUP BY; elsewhere it must repeat the one there");
            Err(SqlError::new(ErrorCode::Window, places.window_function, message))
        }
    }
}

/// One expression of GROUP BY.
enum Group {
    Key,
    Bound(WindowProperty),
    /// A struct column that came out of another window.
    Struct,
    Function,
}

impl Group {
    /// Whether it says, together with others, by which window rows are grouped.
    fn is_window(&self) -> bool {
        !matches!(self, Group::Key | Group::Bound(WindowProperty::Time))
    }
}

/// One aggregation, without grouping sets: windowed if it is grouped by a window.
fn aggregation(aggregate: Aggregate, places: Places) -> Result<LogicalPlan, SqlError> {
    match windowed(&aggregate, places)? {
        Some(node) => Ok(node),
        None => Ok(LogicalPlan::Aggregate(aggregate)),
    }
}

fn windowed(aggregate: &Aggregate, places: Places) -> Result<Option<LogicalPlan>, SqlError> {
    let input_roles = roles(&aggregate.input);
    let groups: Vec<Group> = aggregate
        .group_expr
        .iter()
        .map(|expr| match marker::as_window(expr) {
            Some(_) => Group::Function,
            None => match of_expr(expr, &aggregate.input, &input_roles) {
                Role::WindowStart => Group::Bound(WindowProperty::Start),
                Role::WindowEnd => Group::Bound(WindowProperty::End),
                Role::WindowTime => Group::Bound(WindowProperty::Time),
                Role::Window => Group::Struct,
                _ => Group::Key,
            },
        })
        .collect();
    let conversion = Conversion { aggregate, groups, input_roles, places };
    let functions: Vec<usize> = conversion.positions(|group| matches!(group, Group::Function));
    let node = match functions.as_slice() {
        [] if conversion.positions(|group| group.is_window()).is_empty() => {
            return Ok(None);
        }
        [] => conversion.over_columns()?,
        [one] => conversion.over_function(*one)?,
        _ => {
            let message = "GROUP BY has two window functions; a row belongs to the windows of one";
            return Err(SqlError::new(ErrorCode::Window, places.window_function, message));
        }
    };
    Ok(Some(extension(node)))
}

struct Conversion<'a> {
    aggregate: &'a Aggregate,
    groups: Vec<Group>,
    input_roles: Vec<Role>,
    places: Places,
}

impl Conversion<'_> {
    fn positions(&self, wanted: impl Fn(&Group) -> bool) -> Vec<usize> {
        (0..self.groups.len()).filter(|position| wanted(&self.groups[*position])).collect()
    }

    fn wrong(&self, at: At, message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorCode::Window, at, message)
    }

    fn datafusion(&self, error: &DataFusionError) -> SqlError {
        SqlError::from_datafusion(error, self.places.group_by)
    }

    /// `GROUP BY TUMBLE(ts, size), ...` or `GROUP BY tumble(size), ...`.
    fn over_function(&self, position: usize) -> Result<WindowAggregation, SqlError> {
        let at = self.places.window_function;
        let (shape, call) = marker::as_window(&self.aggregate.group_expr[position]).expect("the caller found it there");
        let name = call.name().to_uppercase();
        let short = call.args.first().is_some_and(is_interval);
        let (time, intervals) = match call.args.split_first() {
            Some((time, intervals)) if !short => (self.time_argument(time, &name)?, intervals),
            _ => (self.only_event_time(&name)?, call.args.as_slice()),
        };
        if intervals.len() != shape.required() {
            let takes: Vec<String> =
                shape.intervals()[..shape.required()].iter().map(|name| name.to_lowercase()).collect();
            let takes = takes.join(", ");
            let message = format!(
                "{name} in GROUP BY takes the event time, which may be left out, and {takes}; write {name}(ts, {takes}) or {name}({takes})"
            );
            return Err(self.wrong(at, message));
        }
        let lengths = intervals.iter().zip(shape.intervals());
        let lengths =
            lengths.map(|(expr, part)| milliseconds(expr, &format!("the {} of {name}", part.to_lowercase()), at));
        let window = shape.windows(&lengths.collect::<Result<Vec<_>, _>>()?, at)?;
        let properties = [(START, WindowProperty::Start), (END, WindowProperty::End), (TIME, WindowProperty::Time)];
        let properties = properties.into_iter().map(|(name, property)| (None, window_field(name), property)).collect();
        let struct_column = Some(self.aggregate.schema.field(position).name().clone());
        let keys: Vec<usize> = (0..self.groups.len()).filter(|other| *other != position).collect();
        let keys = self.exprs_of(&keys);
        self.node(
            self.aggregate.input.clone(),
            Windows::Assigned { window, time },
            keys,
            self.aggregate.aggr_expr.clone(),
            properties,
            struct_column,
        )
    }

    fn time_argument(&self, time: &Expr, name: &str) -> Result<Column, SqlError> {
        let input = &self.aggregate.input;
        let role = of_expr(time, input, &self.input_roles);
        match time.clone().unalias() {
            Expr::Column(column) if role.is_event_time() || role == Role::ProcessingTime => Ok(column),
            Expr::Column(column) => {
                let index = input.schema().index_of_column(&column).map_err(|error| self.datafusion(&error))?;
                let at = column.spans.first().map_or(self.places.window_function, |span| place(span.start));
                Err(not_event_time(&column.name, role, &sql_type_name(input.schema().field(index).data_type()), at))
            }
            _ if role == Role::ProcessingTime => {
                Err(SqlError::unsupported(self.places.window_function, format!("{name} on PROCTIME() needs it as a column: make it one in a sub-query or view, PROCTIME() AS p_time")))
            }
            _ => Err(self.wrong(self.places.window_function, format!("the first argument of {name} must be an event-time column, not an expression; make it a computed column with a WATERMARK"))),
        }
    }

    fn only_event_time(&self, name: &str) -> Result<Column, SqlError> {
        let schema = self.aggregate.input.schema();
        let found: Vec<usize> =
            (0..self.input_roles.len()).filter(|index| self.input_roles[*index].is_event_time()).collect();
        match found.as_slice() {
            [one] => Ok(Column::from(schema.qualified_field(*one))),
            [] => {
                let message = format!(
                    "{name} without an event-time argument needs an input with event time; declare a WATERMARK in the table, and pass the column on unchanged"
                );
                Err(self.wrong(self.places.window_function, message))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|index| schema.field(*index).name().as_str()).collect();
                let message =
                    format!("{name} without an event-time argument may mean {}; name one", names.join(" or "));
                Err(self.wrong(self.places.window_function, message))
            }
        }
    }

    /// `GROUP BY window_start, window_end, ...`.
    fn over_columns(&self) -> Result<WindowAggregation, SqlError> {
        let structs = self.positions(|group| matches!(group, Group::Struct));
        let bound = |wanted: WindowProperty| {
            self.positions(|group| matches!(group, Group::Bound(property) if *property == wanted))
        };
        let (starts, ends) = (bound(WindowProperty::Start), bound(WindowProperty::End));
        match (structs.as_slice(), starts.as_slice(), ends.as_slice()) {
            ([], [], [_, ..]) => {
                return Err(
                    self.wrong(self.places.group_by, "GROUP BY has window_end but not window_start; it needs both")
                );
            }
            ([], [_, ..], []) => {
                return Err(
                    self.wrong(self.places.group_by, "GROUP BY has window_start but not window_end; it needs both")
                );
            }
            ([_], [], []) | ([], [_], [_]) => {}
            _ => {
                return Err(self.wrong(
                    self.places.group_by,
                    "GROUP BY names the bounds of more than one window; it takes one start and one end",
                ));
            }
        }
        if let Some(stripped) = self.stripped()?
            && let Some(node) = self.fused(&stripped)?
        {
            return Ok(node);
        }
        self.attached(structs.first().copied())
    }

    /// The input without its window, if the bounds in GROUP BY are those of that window.
    fn stripped(&self) -> Result<Option<Stripped>, SqlError> {
        let input = &self.aggregate.input;
        let Some(stripped) = strip(input).map_err(|error| self.datafusion(&error))? else { return Ok(None) };
        let same = self.groups.iter().zip(&self.aggregate.group_expr).all(|(group, expr)| {
            match (group, expr.clone().unalias()) {
                (Group::Key, _) => true,
                (Group::Bound(property), Expr::Column(column)) => {
                    input.schema().maybe_index_of_column(&column).and_then(|index| stripped.property(index))
                        == Some(*property)
                }
                _ => false,
            }
        });
        Ok(same.then_some(stripped))
    }

    /// Window and aggregation in one; none where keys or aggregates read the window's columns.
    fn fused(&self, stripped: &Stripped) -> Result<Option<WindowAggregation>, SqlError> {
        let original = self.aggregate.input.schema();
        let rewrite = |exprs: &[Expr]| -> Result<Option<Vec<Expr>>, SqlError> {
            exprs.iter().map(|expr| stripped.rewrite(expr, original).map_err(|error| self.datafusion(&error))).collect()
        };
        let keys = rewrite(&self.exprs_of(&self.positions(|group| matches!(group, Group::Key))))?;
        let (Some(keys), Some(aggregates)) = (keys, rewrite(&self.aggregate.aggr_expr)?) else { return Ok(None) };
        self.check_session_keys(stripped, &keys)?;
        let windows = Windows::Assigned { window: stripped.window.clone(), time: stripped.time.clone() };
        let input = Arc::new(stripped.plan.clone());
        self.node(input, windows, keys, aggregates, self.bound_fields(), None).map(Some)
    }

    /// The keys of GROUP BY must be those by which the sessions were made: sessions of another key would have
    /// other bounds.
    fn check_session_keys(&self, stripped: &Stripped, keys: &[Expr]) -> Result<(), SqlError> {
        if !matches!(stripped.window, mainstem_plan::operator::WindowKind::Session { .. }) {
            return Ok(());
        }
        let is_partition = |key: &Expr| matches!(key.clone().unalias(), Expr::Column(column) if stripped.partition_by.contains(&column));
        if keys.iter().all(is_partition) && keys.len() == stripped.partition_by.len() {
            return Ok(());
        }
        let message = "a SESSION window is made for each key of its PARTITION BY; GROUP BY must name just these keys besides window_start and window_end";
        Err(SqlError::unsupported(self.places.group_by, message))
    }

    /// Aggregation by the windows that the rows carry.
    fn attached(&self, struct_position: Option<usize>) -> Result<WindowAggregation, SqlError> {
        let bound = |wanted: WindowProperty| {
            let position = self.positions(|group| matches!(group, Group::Bound(property) if *property == wanted))[0];
            self.aggregate.group_expr[position].clone().unalias()
        };
        let (start, end) = match struct_position {
            None => (bound(WindowProperty::Start), bound(WindowProperty::End)),
            Some(position) => {
                let of = self.aggregate.group_expr[position].clone().unalias();
                (call("get_field", vec![of.clone(), lit("start")]), call("get_field", vec![of, lit("end")]))
            }
        };
        let (input, start, end) =
            with_columns(&self.aggregate.input, start, end).map_err(|error| self.datafusion(&error))?;
        let keys = self.exprs_of(&self.positions(|group| matches!(group, Group::Key)));
        let (properties, struct_column) = match struct_position {
            None => (self.bound_fields(), None),
            Some(position) => {
                let mut properties = self.bound_fields();
                properties.push((None, window_field(START), WindowProperty::Start));
                properties.push((None, window_field(END), WindowProperty::End));
                (properties, Some(self.aggregate.schema.field(position).name().clone()))
            }
        };
        self.node(
            input,
            Windows::Attached { start, end },
            keys,
            self.aggregate.aggr_expr.clone(),
            properties,
            struct_column,
        )
    }

    fn exprs_of(&self, positions: &[usize]) -> Vec<Expr> {
        positions.iter().map(|position| self.aggregate.group_expr[*position].clone()).collect()
    }

    /// The bounds in GROUP BY, under the names that they have there.
    fn bound_fields(&self) -> Vec<QualifiedProperty> {
        let named = |position: usize, property: WindowProperty| {
            let (qualifier, field) = self.aggregate.schema.qualified_field(position);
            (qualifier.cloned(), window_field(field.name()), property)
        };
        let groups = self.groups.iter().enumerate();
        groups
            .filter_map(
                |(position, group)| {
                    if let Group::Bound(property) = group { Some(named(position, *property)) } else { None }
                },
            )
            .collect()
    }

    fn node(
        &self,
        input: Arc<LogicalPlan>,
        windows: Windows,
        keys: Vec<Expr>,
        aggregates: Vec<Expr>,
        properties: Vec<QualifiedProperty>,
        struct_column: Option<String>,
    ) -> Result<WindowAggregation, SqlError> {
        let of_schema = |position: usize| {
            let (qualifier, field) = self.aggregate.schema.qualified_field(position);
            (qualifier.cloned(), field.clone())
        };
        let key_positions = self.positions(|group| matches!(group, Group::Key));
        let aggregate_positions = self.aggregate.group_expr.len()..self.aggregate.schema.fields().len();
        let mut fields: Vec<_> = key_positions.into_iter().chain(aggregate_positions).map(of_schema).collect();
        fields.extend(properties.iter().map(|(qualifier, field, _)| (qualifier.clone(), field.clone())));
        let schema =
            DFSchema::new_with_metadata(fields, Default::default()).map_err(|error| self.datafusion(&error))?;
        let processing_time = match &windows {
            Windows::Assigned { time, .. } => {
                let index = input.schema().index_of_column(time).map_err(|error| self.datafusion(&error))?;
                roles(&input)[index] == Role::ProcessingTime
            }
            Windows::Attached { .. } => has_processing_time_windows(&input),
        };
        Ok(WindowAggregation {
            input,
            windows,
            processing_time,
            keys,
            aggregates,
            properties: properties.into_iter().map(|(_, _, property)| property).collect(),
            struct_column,
            at: self.places.group_by,
            schema: Arc::new(schema),
        })
    }
}

type QualifiedProperty = (Option<TableReference>, FieldRef, WindowProperty);

fn window_field(name: &str) -> FieldRef {
    Arc::new(Field::new(name, marker::window_timestamp(), false))
}

fn place(location: datafusion_common::Location) -> At {
    At(datafusion_sql::sqlparser::tokenizer::Location { line: location.line, column: location.column })
}

/// The input with both bounds as columns of their own, where they are not.
fn with_columns(input: &Arc<LogicalPlan>, start: Expr, end: Expr) -> Result<(Arc<LogicalPlan>, Column, Column)> {
    if let (Expr::Column(start), Expr::Column(end)) = (&start, &end) {
        return Ok((input.clone(), start.clone(), end.clone()));
    }
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    exprs.push(start.alias(START));
    exprs.push(end.alias(END));
    let projection = LogicalPlan::Projection(Projection::try_new(exprs, input.clone())?);
    Ok((Arc::new(projection), Column::new_unqualified(START), Column::new_unqualified(END)))
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let function = functions::registry().scalar(name).expect("the function is one of DataFusion's core functions");
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// The name of the struct column that the plan's window stands behind.
fn struct_of(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::Filter(filter) => struct_of(&filter.input),
        LogicalPlan::Extension(_) => downcast::<WindowAggregation>(plan)?.struct_column.clone(),
        _ => None,
    }
}

/// Replaces the struct column by the columns that the aggregation really gives.
fn unfold(expr: Expr, name: &str) -> Result<Expr> {
    let is_struct =
        |expr: &Expr| matches!(expr, Expr::Column(column) if column.relation.is_none() && column.name == name);
    let bound = |name: &str| Expr::Column(Column::new_unqualified(name));
    let unfolded = expr.transform_down(|expr| {
        if marker::as_window_time(&expr).is_some_and(is_struct) {
            return Ok(Transformed::yes(bound(TIME)));
        }
        if let Expr::ScalarFunction(call) = &expr
            && call.name() == "get_field"
            && call.args.len() == 2
            && is_struct(&call.args[0])
        {
            match field_name(&call.args[1]) {
                Some("start") => return Ok(Transformed::yes(bound(START))),
                Some("end") => return Ok(Transformed::yes(bound(END))),
                _ => {}
            }
        }
        if is_struct(&expr) {
            return Ok(Transformed::yes(call(
                "named_struct",
                vec![lit("start"), bound(START), lit("end"), bound(END)],
            )));
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(unfolded.data)
}

fn unfold_named(expr: Expr, name: &str) -> Result<Expr> {
    let old_name = expr.schema_name().to_string();
    let (qualifier, is_alias) = match &expr {
        Expr::Column(column) => (column.relation.clone(), false),
        other => (None, matches!(other, Expr::Alias(_))),
    };
    let unfolded = unfold(expr.clone(), name)?;
    if unfolded == expr || is_alias { Ok(unfolded) } else { Ok(unfolded.alias_qualified(qualifier, old_name)) }
}
