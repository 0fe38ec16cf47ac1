//! Joins whose state time releases: by window, by an interval of event time, and with a table as it was at a time.
//! Everything else is a regular join.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr as LogicalExpr, JoinType, LogicalPlan, Operator as LogicalOperator};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{
    IntervalJoin, JoinKind, JoinOn, LookupJoin, Operator, OperatorKind, RankFunction, TemporalJoin, WindowJoin,
};

use super::join::{JoinInputs, joined_schema};
use super::{Lowering, Stream, changes};
use crate::catalog::Table;
use crate::error::{At, ErrorCode, SqlError};
use crate::lower::lookup::LookupTable;
use crate::node::TemporalJoin as TemporalNode;
use crate::time_attribute::{JoinTiming, Role, of_expr, roles, timing};

/// An equality of a condition: an expression over the left side, and one over the right side.
type Pair<'a> = (&'a LogicalExpr, &'a LogicalExpr);

impl Lowering {
    /// A window join or an interval join, if the condition makes it one and neither side changes rows.
    pub(super) fn bounded_join(&mut self, inputs: &JoinInputs<'_>) -> Result<Option<OperatorId>, SqlError> {
        let JoinInputs { left, right, kind, on, .. } = inputs;
        let appends = |id: &OperatorId| self.graph.node(*id).op.changes == ChangeMode::Append;
        if !appends(left) || !appends(right) || *kind == (JoinKind::Anti { null_aware: true }) {
            return Ok(None);
        }
        let fields = on.left_schema.fields().iter().chain(on.right_schema.fields());
        let both = Schema::new(fields.cloned().collect::<Vec<_>>());
        let equal: Vec<(usize, usize)> = on.left_keys.iter().copied().zip(on.right_keys.iter().copied()).collect();
        let left_width = on.left_schema.fields().len();
        let plans = (inputs.left_plan, inputs.right_plan);
        let keeps_time = |left_column: usize, right_column: usize| {
            self.keeps_time(*left, left_column) && self.keeps_time(*right, right_column)
        };
        let (name, operator) = match timing(plans, &both, left_width, &equal, on.condition.as_ref()) {
            JoinTiming::Windows(left_end, right_end) if keeps_time(left_end, right_end) => (
                "window join",
                OperatorKind::WindowJoin(WindowJoin { kind: *kind, on: on.clone(), left_end, right_end }),
            ),
            JoinTiming::Interval(bounds) if keeps_time(bounds.left, bounds.right) => {
                let on = JoinOn { condition: bounds.rest, ..on.clone() };
                let join = IntervalJoin {
                    kind: *kind,
                    on,
                    left_time: bounds.left,
                    right_time: bounds.right,
                    lower_ms: bounds.lower_ms,
                    upper_ms: bounds.upper_ms,
                };
                ("interval join", OperatorKind::IntervalJoin(join))
            }
            _ => return Ok(None),
        };
        let op = Operator::new(joined_schema(*kind, on), operator);
        self.add(name, op, &partitioned(inputs)).map(Some)
    }

    /// Whether a column that is event time by the text of the query is so in the graph: a join whose inputs change
    /// rows is not bounded in time, whatever its condition says.
    fn keeps_time(&self, id: OperatorId, column: usize) -> bool {
        let input = |nth: usize| self.graph.inputs(id).nth(nth).map(|edge| edge.from);
        let through = |nth: usize, column: usize| input(nth).is_none_or(|from| self.keeps_time(from, column));
        let either = |on: &JoinOn| match column.checked_sub(on.left_schema.fields().len()) {
            None => through(0, column),
            Some(column) => through(1, column),
        };
        match &self.graph.node(id).op.kind {
            OperatorKind::Join(_) => false,
            OperatorKind::Calc { project: None, .. } => through(0, column),
            OperatorKind::Calc { project: Some(project), .. } => match &project[column].expr {
                Expr::Column(column) => through(0, *column),
                _ => true,
            },
            OperatorKind::Union => self.graph.inputs(id).all(|edge| self.keeps_time(edge.from, column)),
            OperatorKind::IntervalJoin(join) => either(&join.on),
            OperatorKind::WindowJoin(join) => either(&join.on),
            OperatorKind::TemporalJoin(join) => either(&join.on),
            OperatorKind::LookupJoin(join) => column >= join.on.left_schema.fields().len() || through(0, column),
            _ => true,
        }
    }

    /// Refuses windows on a time that a join has made an ordinary column.
    pub(super) fn check_time(&self, id: OperatorId, column: usize, at: At) -> Result<(), SqlError> {
        if self.keeps_time(id, column) {
            return Ok(());
        }
        let name = self.graph.node(id).op.schema.field(column).name();
        let message = format!(
            "'{name}' is no event time here: it comes out of a join whose inputs change rows that they gave before, so \
             that its rows come in no order of time; make the windows below the join"
        );
        Err(SqlError::new(ErrorCode::Window, at, message))
    }

    pub(super) fn temporal_join(&mut self, node: &TemporalNode) -> Result<Stream, SqlError> {
        let statement = std::mem::replace(&mut self.at, node.at);
        let joined = self.as_of(node);
        self.at = statement;
        joined
    }

    fn as_of(&mut self, node: &TemporalNode) -> Result<Stream, SqlError> {
        let left_roles = roles(&node.left);
        let role = of_expr(&node.time, &node.left, &left_roles);
        if role == Role::ProcessingTime {
            return match LookupTable::of(&node.right, self.at)? {
                Some(table) => self.lookup(node, &table),
                None => self.versions(node, None),
            };
        }
        let left_time = node.time.try_as_col().and_then(|column| node.left.schema().maybe_index_of_column(column));
        let Some(left_time) = left_time.filter(|_| role.is_event_time()) else {
            let message = "FOR SYSTEM_TIME AS OF takes the event time of the left side (a column with a WATERMARK, as it \
                           is) or a PROCTIME() of it";
            return Err(SqlError::unsupported(self.at, message));
        };
        let Some(right_time) = roles(&node.right).into_iter().position(Role::is_event_time) else {
            let message = "the table behind FOR SYSTEM_TIME AS OF has no event time that says from when a row is valid; \
                           declare a WATERMARK for it (a view with ROW_NUMBER() or GROUP BY has none: name the table \
                           itself, with a PRIMARY KEY), or join it as of PROCTIME()";
            return Err(SqlError::unsupported(self.at, message));
        };
        self.versions(node, Some((left_time, right_time)))
    }

    /// A join with a table that streams.
    fn versions(&mut self, node: &TemporalNode, times: Option<(usize, usize)>) -> Result<Stream, SqlError> {
        let kind = kind(node.kind);
        let right = self.lower(&node.right)?;
        let key = self.version_key(right.operator).ok_or_else(|| {
            let message = match declared_key(&node.right) {
                [] => "the table behind FOR SYSTEM_TIME AS OF has no primary key that says which rows are versions of \
                       one another; declare PRIMARY KEY (...) NOT ENFORCED"
                    .to_owned(),
                key => incomplete(key.join(", ")),
            };
            SqlError::unsupported(self.at, message)
        })?;
        let (equal, rest) = self.equalities(node);
        let mut pairs = Vec::new();
        let mut used = Vec::new();
        for column in &key {
            let compared = |(_, right_expr): &Pair<'_>| {
                let position = right_expr.try_as_col().and_then(|c| node.right.schema().maybe_index_of_column(c));
                position.is_some_and(|position| right.columns[position] == *column)
            };
            let Some(found) = equal.iter().position(|(pair, _)| compared(pair)) else {
                let name = |column: &usize| self.graph.node(right.operator).op.schema.field(*column).name().clone();
                let names: Vec<String> = key.iter().map(name).collect();
                let message = incomplete(names.join(", "));
                return Err(SqlError::unsupported(self.at, message));
            };
            let ((left_expr, right_expr), _) = equal[found];
            pairs.push((left_expr.clone(), right_expr.clone(), false));
            used.push(found);
        }
        let unused = equal.iter().enumerate().filter(|(at, _)| !used.contains(at)).map(|(_, (_, whole))| *whole);
        let filter = conjunction(unused.chain(rest).cloned());
        let mut inputs = self.join_inputs(&node.left, &node.right, kind, &pairs, filter.as_ref())?;
        if let Some((left_time, right_time)) = times {
            self.check_time(inputs.left, left_time, node.at)?;
            self.check_time(inputs.right, right_time, node.at)?;
        }
        if !self.updates_by(inputs.right, &inputs.on.right_keys) {
            inputs.right = self.normalized(inputs.right, &inputs.on.right_keys)?;
        }
        let columns = inputs.columns();
        let schema = joined_schema(kind, &inputs.on);
        let edges = partitioned(&inputs);
        let op = Operator::new(schema, OperatorKind::TemporalJoin(TemporalJoin { kind, on: inputs.on, times }));
        Ok(Stream { operator: self.add("temporal join", op, &edges)?, columns })
    }

    /// A join with a table that is read as a whole.
    fn lookup(&mut self, node: &TemporalNode, table: &LookupTable<'_>) -> Result<Stream, SqlError> {
        let kind = kind(node.kind);
        let (equal, rest) = self.equalities(node);
        let position = |expr: &LogicalExpr| {
            let column = expr.try_as_col().and_then(|column| node.right.schema().maybe_index_of_column(column))?;
            Some(table.position(column))
        };
        let (mut keys, mut right_keys, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for ((left, right), whole) in &equal {
            match position(right) {
                Some(position) => {
                    keys.push(*left);
                    right_keys.push(position);
                }
                None => others.push(*whole),
            }
        }
        if keys.is_empty() {
            let message = "ON must compare a column of the table that is looked up by =, as it is, with a value of the left \
                           side";
            return Err(SqlError::unsupported(self.at, message));
        }
        let (left, left_keys) = self.join_side(&node.left, keys)?;
        let left_schema = self.graph.node(left).op.schema.clone();
        let (plan_width, width) = (node.left.schema().fields().len(), left_schema.fields().len());
        let condition = conjunction(others.into_iter().chain(rest).cloned()).map(|condition| {
            let both = node.left.schema().join(node.right.schema());
            let both = both.map_err(|error| SqlError::from_datafusion(&error, self.at))?;
            let mut expr = Expr::from_logical(&condition, &both).map_err(|error| self.plan_error(&error))?;
            expr.remap_columns(&|column| match column.checked_sub(plan_width) {
                None => column,
                Some(column) => width + table.position(column),
            });
            Ok::<_, SqlError>(expr)
        });
        let null_equal = vec![false; left_keys.len()];
        let right_schema = table.schema();
        let on =
            JoinOn { left_keys, right_keys, null_equal, condition: condition.transpose()?, left_schema, right_schema };
        let schema = joined_schema(kind, &on);
        let spec = table.table.spec.clone();
        let join = LookupJoin {
            kind,
            on,
            table: spec,
            columns: table.physical.clone(),
            reload_ms: table.reload_ms,
            by_key: table.by_key.clone(),
        };
        let op = Operator::new(schema, OperatorKind::LookupJoin(join));
        let operator = self.add("lookup join", op, &[(left, Exchange::Forward)])?;
        let right = (0..node.right.schema().fields().len()).map(|column| width + table.position(column));
        Ok(Stream { operator, columns: (0..plan_width).chain(right).collect() })
    }

    /// The equalities between the two sides in the condition, each with the whole of its text, and what else it
    /// says.
    fn equalities<'a>(&self, node: &'a TemporalNode) -> (Vec<(Pair<'a>, &'a LogicalExpr)>, Vec<&'a LogicalExpr>) {
        let within = |expr: &LogicalExpr, plan: &LogicalPlan| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.iter().all(|column| plan.schema().has_column(column))
        };
        let mut equal = Vec::new();
        let mut rest = Vec::new();
        for conjunct in split_conjunction(&node.on) {
            let pair = match conjunct {
                LogicalExpr::BinaryExpr(BinaryExpr { left, op: LogicalOperator::Eq, right }) => {
                    match (within(left, &node.left), within(right, &node.right)) {
                        (true, true) => Some((left.as_ref(), right.as_ref())),
                        _ if within(right, &node.left) && within(left, &node.right) => {
                            Some((right.as_ref(), left.as_ref()))
                        }
                        _ => None,
                    }
                }
                _ => None,
            };
            match pair {
                Some(pair) => equal.push((pair, conjunct)),
                None => rest.push(conjunct),
            }
        }
        (equal, rest)
    }

    /// The columns by which rows are versions of one another: those of a unique key, or the declared primary key of a
    /// table whose rows only replace each other.
    fn version_key(&self, id: OperatorId) -> Option<Vec<usize>> {
        changes::unique_key(&self.graph, id).or_else(|| self.primary_key(id))
    }

    fn primary_key(&self, id: OperatorId) -> Option<Vec<usize>> {
        let node = self.graph.node(id);
        match &node.op.kind {
            OperatorKind::Source(source) if !source.table.primary_key.is_empty() => {
                let is = |expr: &Expr, name: &String| match expr {
                    Expr::Column(column) => source.table.schema.field(source.read_columns[*column]).name() == name,
                    _ => false,
                };
                let position = |name: &String| source.project.iter().position(|named| is(&named.expr, name));
                source.table.primary_key.iter().map(position).collect()
            }
            OperatorKind::Calc { project, .. } => {
                let key = self.primary_key(self.graph.inputs(id).next()?.from)?;
                let Some(project) = project else { return Some(key) };
                let position = |column: usize| project.iter().position(|named| named.expr == Expr::Column(column));
                key.into_iter().map(position).collect()
            }
            _ => None,
        }
    }

    /// Whether the changes of an operator come as updates of rows with this key, not as deletions of one and
    /// insertions of another.
    fn updates_by(&self, id: OperatorId, key: &[usize]) -> bool {
        let node = self.graph.node(id);
        let same = |columns: &[usize]| columns.len() == key.len() && key.iter().all(|column| columns.contains(column));
        match &node.op.kind {
            _ if node.op.changes == ChangeMode::Append => true,
            OperatorKind::Normalize { key } => same(key),
            OperatorKind::Calc { filter: None, project: Some(project) } => {
                let origin = |column: &usize| match &project[*column].expr {
                    Expr::Column(column) => Some(*column),
                    _ => None,
                };
                let key: Option<Vec<usize>> = key.iter().map(origin).collect();
                key.is_some_and(|key| self.graph.inputs(id).next().is_some_and(|edge| self.updates_by(edge.from, &key)))
            }
            OperatorKind::GroupAggregate(aggregate) => same(&(0..aggregate.keys.len()).collect::<Vec<_>>()),
            OperatorKind::Rank(rank) => {
                rank.to == 1 && rank.function == RankFunction::RowNumber && same(&rank.partition)
            }
            _ => false,
        }
    }

    fn normalized(&mut self, id: OperatorId, key: &[usize]) -> Result<OperatorId, SqlError> {
        let schema = self.graph.node(id).op.schema.clone();
        let op = Operator::new(schema, OperatorKind::Normalize { key: key.to_vec() });
        self.add("newest row of each key", op, &[(id, Exchange::Hash { keys: key.to_vec() })])
    }
}

fn incomplete(key: String) -> String {
    format!("ON must compare every column of the key of the table behind FOR SYSTEM_TIME AS OF ({key}) by =, as it is")
}

/// The primary key of the table that a plan reads.
fn declared_key(plan: &LogicalPlan) -> &[String] {
    match (plan, plan.inputs().as_slice()) {
        (LogicalPlan::TableScan(scan), _) => {
            scan.source.downcast_ref::<Table>().map_or(&[], |table| table.spec.primary_key.as_slice())
        }
        (_, [input]) => declared_key(input),
        _ => &[],
    }
}

fn partitioned(inputs: &JoinInputs<'_>) -> [(OperatorId, Exchange); 2] {
    let hash = |keys: &[usize]| Exchange::Hash { keys: keys.to_vec() };
    [(inputs.left, hash(&inputs.on.left_keys)), (inputs.right, hash(&inputs.on.right_keys))]
}

fn kind(kind: JoinType) -> JoinKind {
    if kind == JoinType::Left { JoinKind::Left } else { JoinKind::Inner }
}

/// The schema of some columns.
pub(super) fn projected(schema: &Schema, columns: &[usize]) -> Arc<Schema> {
    let fields: Vec<_> = columns.iter().map(|column| schema.field(*column).clone()).collect();
    Arc::new(mainstem_plan::plain_schema(&Schema::new(fields)))
}
