//! Which columns of a plan are event time, and which are bounds of a window. Derived bottom-up wherever a
//! window is declared over a relation. A column loses its role as soon as it is computed with.

use arrow::datatypes::Schema;
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, Join, JoinType, LogicalPlan, Window};
use mainstem_plan::expr as plan;
use mainstem_plan::operator::WindowProperty;

use crate::catalog::{ColumnSource, Table};
use crate::node::{PatternMatch, StateTtl, TemporalJoin, Unnest};
use crate::order::{TopN, timing as order_timing, without_alias};
use crate::time_bounds::{self, Sides, TimeBounds};
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
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            // WHERE may say what ON does not.
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => joined(join, Some(&filter.predicate)),
            input => roles(input),
        },
        LogicalPlan::SubqueryAlias(alias) => roles(&alias.input),
        LogicalPlan::Union(union) => union
            .inputs
            .iter()
            .map(|input| roles(input))
            .reduce(|left, right| left.into_iter().zip(right).map(|(left, right)| merge(left, right)).collect())
            .unwrap_or_else(plain),
        LogicalPlan::Join(join) => joined(join, None),
        LogicalPlan::Window(window) => over(window),
        LogicalPlan::Extension(_) => {
            if let Some(node) = downcast::<TemporalJoin>(plan) {
                // A left row leaves in the place that it had in time.
                let mut roles = roles(&node.left);
                roles.resize(node.schema.fields().len(), Role::Plain);
                return roles;
            }
            if let Some(node) = downcast::<TopN>(plan) {
                // Ranks change without regard to time, unless they are those of a window, which are given at its end.
                let keep = |role: Role| match role {
                    Role::EventTime => Role::Plain,
                    Role::WindowTime if node.window_end.is_none() => Role::Plain,
                    role => role,
                };
                let mut roles: Vec<Role> = roles(&node.input).into_iter().map(keep).collect();
                roles.push(Role::Plain);
                return roles;
            }
            if let Some(node) = downcast::<PatternMatch>(plan) {
                let time = |is_time: bool| if is_time { Role::EventTime } else { Role::Plain };
                let partition = node.partition.iter().map(|_| Role::Plain);
                return partition.chain(node.rules.measures.iter().map(|measure| time(measure.is_time))).collect();
            }
            if let Some(node) = downcast::<Unnest>(plan) {
                let mut roles = roles(&node.input);
                if let Some(collection) = node.input.schema().maybe_index_of_column(&node.collection) {
                    roles.remove(collection);
                }
                roles.resize(node.schema.fields().len(), Role::Plain);
                return roles;
            }
            if let Some(node) = downcast::<StateTtl>(plan) {
                return roles(&node.input);
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

/// OVER by time gives each row in its place in time; by any other order, rows are given again.
fn over(window: &Window) -> Vec<Role> {
    // A frame of an INTERVAL has got another type, and so its call an alias that keeps the name.
    let by_time = |expr: &Expr| match without_alias(expr) {
        Expr::WindowFunction(call) => call.fun.name() != "lead" && order_timing(call, &window.input).is_some(),
        _ => false,
    };
    let mut kept = roles(&window.input);
    if !window.window_expr.iter().all(by_time) {
        kept = kept.into_iter().map(without_event_time).collect();
    }
    kept.resize(window.schema.fields().len(), Role::Plain);
    kept
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

/// Which operator a join can be, by the times of its sides.
pub(crate) enum JoinTiming {
    /// The ends of windows are equal: positions in the left and in the right side.
    Windows(usize, usize),
    /// Event times are near each other.
    Interval(TimeBounds),
    /// Rows of all times meet.
    Unbounded,
}

/// What the condition of a join says of time. `schema`: columns of both sides; `equal`: pairs of columns that its
/// keys make equal, by position in their sides.
pub(crate) fn timing(
    (left, right): (&LogicalPlan, &LogicalPlan),
    schema: &Schema,
    left_width: usize,
    equal: &[(usize, usize)],
    condition: Option<&plan::Expr>,
) -> JoinTiming {
    let (left_roles, right_roles) = (roles_by_event_time(left), roles_by_event_time(right));
    let role = |roles: &[Role], column: usize| roles.get(column).copied().unwrap_or(Role::Plain);
    let is_end = |(left, right): &&(usize, usize)| {
        role(&left_roles, *left) == Role::WindowEnd && role(&right_roles, *right) == Role::WindowEnd
    };
    if let Some((left, right)) = equal.iter().find(is_end) {
        return JoinTiming::Windows(*left, *right);
    }
    // A row comes before the watermark has passed the end of its window.
    let is_time = |role: Role| role.is_event_time() || role == Role::WindowEnd;
    let columns = 0..schema.fields().len();
    let is_time: Vec<bool> = columns
        .map(|column| match column.checked_sub(left_width) {
            None => is_time(role(&left_roles, column)),
            Some(column) => is_time(role(&right_roles, column)),
        })
        .collect();
    match time_bounds::find(&Sides { schema, left_width, is_time: &is_time }, equal, condition) {
        Some(bounds) => JoinTiming::Interval(bounds),
        None => JoinTiming::Unbounded,
    }
}

/// The roles of the columns, without those of windows that close by the clock.
fn roles_by_event_time(plan: &LogicalPlan) -> Vec<Role> {
    let by_clock = has_processing_time_windows(plan);
    let by_event_time = |role: Role| match role {
        Role::WindowStart | Role::WindowEnd | Role::WindowTime if by_clock => Role::Plain,
        other => other,
    };
    roles(plan).into_iter().map(by_event_time).collect()
}

/// As in Flink, event time remains what it is behind a join that is bounded in time, and becomes an ordinary
/// timestamp behind any other; and where a row may lack the column it is none. `above`: what a filter right over
/// the join says.
fn joined(join: &Join, above: Option<&Expr>) -> Vec<Role> {
    let (left, right) = match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            return by_clock_only(roles(&join.right), join);
        }
        _ => (roles(&join.left), roles(&join.right)),
    };
    let width = left.len();
    let timing = logical_timing(join, above).unwrap_or(JoinTiming::Unbounded);
    let (keeps_left, keeps_right) = match join.join_type {
        JoinType::Inner => (true, true),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, false),
        JoinType::Right => (false, true),
        _ => (false, false),
    };
    let role = |(column, role): (usize, Role)| {
        let (is_left, column) = if column < width { (true, column) } else { (false, column - width) };
        let kept = if is_left { keeps_left } else { keeps_right };
        match (&timing, role) {
            (_, Role::ProcessingTime) => role,
            (JoinTiming::Windows(..), Role::WindowStart | Role::WindowEnd | Role::WindowTime) if kept => role,
            (JoinTiming::Interval(bounds), Role::EventTime | Role::WindowTime)
                if kept && column == if is_left { bounds.left } else { bounds.right } =>
            {
                Role::EventTime
            }
            _ => Role::Plain,
        }
    };
    let mut joined: Vec<Role> = left.into_iter().chain(right).enumerate().map(role).collect();
    joined.resize(join.schema.fields().len(), Role::Plain);
    joined
}

fn by_clock_only(mut roles: Vec<Role>, join: &Join) -> Vec<Role> {
    roles.resize(join.schema.fields().len(), Role::Plain);
    roles.into_iter().map(|role| if role == Role::ProcessingTime { role } else { Role::Plain }).collect()
}

/// [`timing`] of a plan that is not lowered.
fn logical_timing(join: &Join, above: Option<&Expr>) -> Option<JoinTiming> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let both = left.join(right).ok()?;
    let equal = |(a, b): &(Expr, Expr)| {
        let position = |expr: &Expr, schema: &DFSchema| schema.maybe_index_of_column(expr.try_as_col()?);
        Some((position(a, left)?, position(b, right)?))
    };
    let mut equal: Vec<(usize, usize)> = join.on.iter().filter_map(equal).collect();
    let conjuncts = join.filter.iter().chain(above).flat_map(|filter| split_conjunction(filter));
    // A conjunct that has no stored form says nothing of time.
    let conjuncts: Vec<plan::Expr> = conjuncts.filter_map(|expr| plan::Expr::from_logical(expr, &both).ok()).collect();
    for conjunct in &conjuncts {
        if let plan::Expr::Binary { left: a, op: plan::BinaryOperator::Eq, right: b } = conjunct
            && let (plan::Expr::Column(a), plan::Expr::Column(b)) = (a.as_ref(), b.as_ref())
        {
            let (a, b) = (*a.min(b), *a.max(b));
            equal.extend(
                (a < left.fields().len()).then(|| b.checked_sub(left.fields().len())).flatten().map(|b| (a, b)),
            );
        }
    }
    let and = |left: plan::Expr, right| plan::Expr::Binary {
        left: Box::new(left),
        op: plan::BinaryOperator::And,
        right: Box::new(right),
    };
    let condition = conjuncts.into_iter().reduce(and);
    let width = left.fields().len();
    Some(timing((&join.left, &join.right), both.as_arrow(), width, &equal, condition.as_ref()))
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
