//! Which columns of a plan are event time, and which are bounds of a window. Derived bottom-up wherever a
//! window is declared over a relation. A column loses its role as soon as it is computed with.

use datafusion_common::ScalarValue;
use datafusion_common::tree_node::TreeNode;
use datafusion_expr::{Expr, Join, JoinType, LogicalPlan};
use mainstem_plan::operator::WindowProperty;

use crate::catalog::{ColumnSource, Table};
use crate::node::TemporalJoin;
use crate::window::marker;
use crate::window::node::{WindowAggregation, WindowTableFunction, downcast};

/// The role of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// None.
    Plain,
    /// The watermark of the stream follows it.
    EventTime,
    /// `PROCTIME()`.
    ProcessingTime,
    /// Start of the window that the row carries.
    WindowStart,
    /// End of it.
    WindowEnd,
    /// Its last millisecond, which is also the row's event time.
    WindowTime,
    /// A struct of start and end.
    Window,
}

impl Role {
    /// Whether windows can be made on it.
    pub(crate) fn is_event_time(self) -> bool {
        matches!(self, Role::EventTime | Role::WindowTime)
    }

    fn of_property(property: WindowProperty) -> Role {
        match property {
            WindowProperty::Start => Role::WindowStart,
            WindowProperty::End => Role::WindowEnd,
            WindowProperty::Time => Role::WindowTime,
        }
    }
}

/// The role of each output column.
pub(crate) fn roles(plan: &LogicalPlan) -> Vec<Role> {
    let plain = || vec![Role::Plain; plan.schema().fields().len()];
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(table) = scan.source.downcast_ref::<Table>() else { return plain() };
            let all = 0..table.schema.fields().len();
            let columns = scan.projection.clone().unwrap_or_else(|| all.collect());
            columns.into_iter().map(|column| of_table_column(table, column)).collect()
        }
        LogicalPlan::Projection(projection) => {
            let input = roles(&projection.input);
            projection.expr.iter().map(|expr| of_expr(expr, &projection.input, &input)).collect()
        }
        LogicalPlan::Filter(filter) => roles(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => roles(&alias.input),
        LogicalPlan::Union(union) => union
            .inputs
            .iter()
            .map(|input| roles(input))
            .reduce(|left, right| left.into_iter().zip(right).map(|(left, right)| merge(left, right)).collect())
            .unwrap_or_else(plain),
        LogicalPlan::Join(join) => joined(join),
        LogicalPlan::Extension(_) => {
            if let Some(node) = downcast::<TemporalJoin>(plan) {
                // A left row leaves in the place that it had in time.
                let mut roles = roles(&node.left);
                roles.resize(node.schema.fields().len(), Role::Plain);
                return roles;
            }
            if let Some(node) = downcast::<WindowTableFunction>(plan) {
                // As in Flink, the column that the window was made on is an ordinary timestamp from here on.
                let mut roles: Vec<Role> = roles(&node.input).into_iter().map(without_event_time).collect();
                let time = if node.processing_time { Role::ProcessingTime } else { Role::WindowTime };
                roles.extend([Role::WindowStart, Role::WindowEnd, time]);
                return roles;
            }
            if let Some(node) = downcast::<WindowAggregation>(plan) {
                let mut roles = vec![Role::Plain; node.keys.len() + node.aggregates.len()];
                roles.extend(node.properties.iter().map(|property| match Role::of_property(*property) {
                    Role::WindowTime if node.processing_time => Role::ProcessingTime,
                    role => role,
                }));
                return roles;
            }
            plain()
        }
        _ => plain(),
    }
}

/// Whether the windows that the plan's rows carry are over processing time: they close by the clock, not by the
/// watermark.
pub(crate) fn has_processing_time_windows(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        let function = downcast::<WindowTableFunction>(node).is_some_and(|node| node.processing_time);
        Ok(function || downcast::<WindowAggregation>(node).is_some_and(|node| node.processing_time))
    })
    .expect("the visitor never fails")
}

/// A join gives rows in no order of time: as in Flink, only processing time remains what it was.
fn joined(join: &Join) -> Vec<Role> {
    let mut joined: Vec<Role> = match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => roles(&join.right),
        _ => roles(&join.left).into_iter().chain(roles(&join.right)).collect(),
    };
    joined.resize(join.schema.fields().len(), Role::Plain);
    let keep = |role: Role| if role == Role::ProcessingTime { role } else { Role::Plain };
    joined.into_iter().map(keep).collect()
}

/// The role of an expression over an input whose columns have these roles.
pub(crate) fn of_expr(expr: &Expr, input: &LogicalPlan, roles: &[Role]) -> Role {
    match expr {
        Expr::Alias(alias) => of_expr(&alias.expr, input, roles),
        Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
            Some(index) => roles[index],
            None => Role::Plain,
        },
        Expr::ScalarFunction(call) if call.name() == "proctime" => Role::ProcessingTime,
        Expr::ScalarFunction(call) if call.name() == "get_field" && call.args.len() == 2 => {
            let of = of_expr(&call.args[0], input, roles);
            match (of, field_name(&call.args[1])) {
                (Role::Window, Some("start")) => Role::WindowStart,
                (Role::Window, Some("end")) => Role::WindowEnd,
                _ => Role::Plain,
            }
        }
        Expr::ScalarFunction(call) if call.name() == "named_struct" && call.args.len() == 4 => {
            let is = |index: usize, role| of_expr(&call.args[index], input, roles) == role;
            if is(1, Role::WindowStart) && is(3, Role::WindowEnd) { Role::Window } else { Role::Plain }
        }
        _ => Role::Plain,
    }
}

/// The text of a literal that names a field.
pub(crate) fn field_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _) => Some(name),
        _ => None,
    }
}

fn of_table_column(table: &Table, column: usize) -> Role {
    if table.watermark.as_ref().is_some_and(|watermark| watermark.column == column) {
        return Role::EventTime;
    }
    match &table.sources[column] {
        ColumnSource::Computed(expr) if matches!(expr.as_ref(), Expr::ScalarFunction(call) if call.name() == "proctime") => {
            Role::ProcessingTime
        }
        _ => Role::Plain,
    }
}

fn merge(left: Role, right: Role) -> Role {
    match (left, right) {
        (left, right) if left == right => left,
        // Both are event time of their stream; what the window was is lost.
        (left, right) if left.is_event_time() && right.is_event_time() => Role::EventTime,
        _ => Role::Plain,
    }
}

fn without_event_time(role: Role) -> Role {
    match role {
        Role::EventTime | Role::WindowTime => Role::Plain,
        other => other,
    }
}

/// `TUMBLE` and its like are only allowed where `aggregate.rs` replaces them; anything left is a mistake of
/// the user's. Gives the name of the first that is left in the plan's own expressions.
pub(crate) fn left_marker(plan: &LogicalPlan) -> Option<String> {
    plan.expressions().iter().find_map(marker::find)
}
