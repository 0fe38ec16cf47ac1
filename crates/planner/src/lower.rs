//! Optimised logical plans to the job's graph of operators. Called by [`crate::plan`] with all INSERTs of a
//! file at once: equal operators over equal inputs become one with several outputs, and each table is read
//! once, with the columns that any query needs.

mod aggregate;
mod changes;
mod dead_letters;
mod join;
mod late;
mod lookup;
mod over;
mod pattern;
mod rank;
mod relation;
mod sink;
mod sort;
mod source;
mod state_ttl;
mod time_join;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Distinct, Expr as LogicalExpr, Filter, LogicalPlan, Projection, Union};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{JobGraph, NamedExpr, Operator, OperatorKind};
use mainstem_plan::{PlanError, plain_schema};

use crate::catalog::Table;
use crate::error::{At, ErrorCode, SqlError};
use crate::node::{PatternMatch, SetOperation, StateTtl, TemporalJoin, Unnest};
use crate::order::TopN;
use crate::window::node::{WindowAggregation, WindowTableFunction, downcast};

pub(crate) use self::aggregate::Steps;
pub(crate) use self::join::joined_schema;
pub(crate) use self::late::late_schema;
pub(crate) use self::sink::PRINT_TABLE_STYLE;

/// Most operators of a job.
const OPERATORS_MAX: usize = 2_000;

/// Builds the graph.
pub(crate) struct Lowering {
    graph: JobGraph,
    /// Columns that any query needs, by table.
    needed: HashMap<String, BTreeSet<usize>>,
    /// What gives the rows of a table: its source operator, or what makes its changes complete.
    sources: BTreeMap<String, OperatorId>,
    /// Idle time-out of sources that set none themselves, in milliseconds.
    idle_timeout_ms: Option<u64>,
    /// How long state is kept that nothing changes, in milliseconds; absent: for ever.
    state_ttl_ms: Option<u64>,
    /// Relations that hints give another time to live, by the place in the hint.
    hints: BTreeMap<At, String>,
    /// Places of those that an operator has heeded.
    hints_heeded: BTreeSet<At>,
    /// How long aggregations hold changes back, in milliseconds, and for how many rows at most.
    mini_batch: Option<(u64, Option<u64>)>,
    /// In how many steps aggregations without a window run.
    steps: Steps,
    /// Sinks that replace rows by exactly the key by which their input's rows can be told apart.
    upsert_sinks: BTreeSet<OperatorId>,
    /// Whether the rows of the plan that is lowered next leave the job as they come: their order is seen.
    outermost: bool,
    /// Where the statement that is being lowered stands.
    at: At,
}

/// Rows that an operator gives, seen as some of its columns.
#[derive(Clone, Debug)]
struct Stream {
    operator: OperatorId,
    /// Which of the operator's columns, in which order.
    columns: Vec<usize>,
}

impl Lowering {
    /// `plans`: everything that will be lowered, so that each source knows its columns.
    pub(crate) fn new<'a>(plans: impl Iterator<Item = &'a LogicalPlan>, idle_timeout_ms: Option<u64>) -> Lowering {
        let mut needed = HashMap::<String, BTreeSet<usize>>::new();
        for plan in plans {
            plan.apply(|node| {
                if let LogicalPlan::TableScan(scan) = node
                    && let Some(table) = scan.source.downcast_ref::<Table>()
                {
                    let all = 0..table.schema.fields().len();
                    let columns = scan.projection.clone().unwrap_or_else(|| all.collect());
                    let key = source::upsert_key(table);
                    needed.entry(table.spec.name.clone()).or_default().extend(columns.into_iter().chain(key));
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .expect("the visitor never fails");
        }
        Lowering {
            graph: JobGraph::default(),
            needed,
            sources: BTreeMap::new(),
            idle_timeout_ms,
            state_ttl_ms: None,
            hints: BTreeMap::new(),
            hints_heeded: BTreeSet::new(),
            mini_batch: None,
            steps: Steps::default(),
            upsert_sinks: BTreeSet::new(),
            outermost: false,
            at: At::NOWHERE,
        }
    }

    /// Sets how long state is kept that nothing changes, in milliseconds; 0: for ever.
    pub(crate) fn with_state_ttl(mut self, ttl_ms: Option<u64>) -> Lowering {
        self.state_ttl_ms = ttl_ms.filter(|ttl| *ttl > 0);
        self
    }

    /// Sets how long aggregations hold changes back (ms), and for how many rows at most.
    pub(crate) fn set_mini_batch(&mut self, mini_batch: Option<(u64, Option<u64>)>) {
        self.mini_batch = mini_batch;
    }

    /// Sets in how many steps aggregations without a window run.
    pub(crate) fn set_steps(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// The finished graph.
    pub(crate) fn finish(mut self) -> JobGraph {
        changes::drop_unneeded_updates(&mut self.graph, &self.upsert_sinks);
        self.graph
    }

    /// Adds a plan; gives the operator whose output has exactly these columns.
    pub(crate) fn output(&mut self, plan: &LogicalPlan, schema: &SchemaRef, at: At) -> Result<OperatorId, SqlError> {
        self.at = at;
        self.outermost = true;
        let stream = match plan {
            // The last projection takes the sink's names and nullability over.
            LogicalPlan::Projection(projection) => self.projection(projection, Some(schema))?,
            other => self.lower(other)?,
        };
        self.materialize(stream, schema, true)
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Stream, SqlError> {
        let outermost = std::mem::take(&mut self.outermost);
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                self.outermost = outermost;
                self.lower(&alias.input)
            }
            LogicalPlan::Projection(projection) => {
                self.outermost = outermost;
                self.projection(projection, None)
            }
            LogicalPlan::Sort(sort) => self.sort(sort, outermost),
            LogicalPlan::Limit(limit) => self.limit(limit, outermost),
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => self.one_row(),
            LogicalPlan::Aggregate(aggregate) => self.group_aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Extension(extension) => {
                if let Some(node) = downcast::<WindowTableFunction>(plan) {
                    return self.window_assign(node);
                }
                if let Some(node) = downcast::<WindowAggregation>(plan) {
                    return self.window_aggregate(node);
                }
                if let Some(node) = downcast::<TemporalJoin>(plan) {
                    return self.temporal_join(node);
                }
                if let Some(node) = downcast::<TopN>(plan) {
                    return self.top_n(node, true);
                }
                if let Some(node) = downcast::<Unnest>(plan) {
                    return self.unnest(node);
                }
                if let Some(node) = downcast::<SetOperation>(plan) {
                    return self.set_operation(node);
                }
                if let Some(node) = downcast::<StateTtl>(plan) {
                    self.hints.insert(node.ttl.at, node.ttl.relation.clone());
                    self.outermost = outermost;
                    return self.lower(&node.input);
                }
                if let Some(node) = downcast::<PatternMatch>(plan) {
                    return self.pattern_match(node);
                }
                Err(self.internal(format!("no operator for {}", extension.node.name())))
            }
            other => Err(SqlError::unsupported(
                self.at,
                format!("this statement needs '{}', which is not supported yet", other.display()),
            )),
        }
    }

    fn internal(&self, message: String) -> SqlError {
        SqlError::new(ErrorCode::Internal, self.at, message)
    }

    /// The expression over the columns of the stream's operator.
    fn expr(&self, expr: &LogicalExpr, schema: &DFSchema, stream: &Stream) -> Result<Expr, SqlError> {
        let mut expr = Expr::from_logical(expr, schema).map_err(|error| self.plan_error(&error))?;
        expr.remap_columns(&|column| stream.columns[column]);
        Ok(expr)
    }

    fn plan_error(&self, error: &PlanError) -> SqlError {
        let code = match error.kind {
            mainstem_plan::ErrorKind::Unsupported => ErrorCode::Unsupported,
            mainstem_plan::ErrorKind::Invalid => ErrorCode::Type,
            mainstem_plan::ErrorKind::Stored => ErrorCode::Internal,
        };
        let at = error.location.map_or(self.at, |place| {
            At(datafusion_sql::sqlparser::tokenizer::Location { line: place.line, column: place.column })
        });
        SqlError::new(code, at, error.message.clone())
    }

    fn filter(&mut self, filter: &Filter) -> Result<Stream, SqlError> {
        let base = self.lower(&filter.input)?;
        let predicate = self.expr(&filter.predicate, filter.input.schema(), &base)?;
        if is_true(&filter.predicate) {
            return Ok(base);
        }
        if self.is_whole(&base) {
            let schema = self.graph.node(base.operator).op.schema.clone();
            let operator = self.calc(&base, Some(predicate), None, schema)?;
            return Ok(Stream { operator, columns: base.columns });
        }
        let schema = arrow_schema(filter.input.schema());
        let project = self.columns_as_exprs(&base, &schema);
        let operator = self.calc(&base, Some(predicate), Some(project), schema)?;
        Ok(self.whole(operator))
    }

    fn projection(&mut self, projection: &Projection, target: Option<&SchemaRef>) -> Result<Stream, SqlError> {
        let (input, predicate) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) if !is_true(&filter.predicate) => (&filter.input, Some(&filter.predicate)),
            _ => (&projection.input, None),
        };
        let readers: Vec<&LogicalExpr> = projection.expr.iter().chain(predicate).collect();
        let base = match self.lower_unnumbered(input, &readers)? {
            Some(base) => base,
            None => self.lower(input)?,
        };
        let schema = target.cloned().unwrap_or_else(|| arrow_schema(&projection.schema));
        let mut project = Vec::new();
        for (expr, field) in projection.expr.iter().zip(schema.fields()) {
            project.push(NamedExpr { name: field.name().clone(), expr: self.expr(expr, input.schema(), &base)? });
        }
        let columns: Option<Vec<usize>> = project
            .iter()
            .map(|named| if let Expr::Column(column) = named.expr { Some(column) } else { None })
            .collect();
        if let (None, Some(columns)) = (predicate, columns) {
            // Only chooses and renames: whoever reads it can do that.
            return Ok(Stream { operator: base.operator, columns });
        }
        let predicate = predicate.map(|predicate| self.expr(predicate, input.schema(), &base)).transpose()?;
        let operator = self.calc(&base, predicate, Some(project), schema)?;
        Ok(self.whole(operator))
    }

    fn union(&mut self, union: &Union) -> Result<Stream, SqlError> {
        let schema = arrow_schema(&union.schema);
        let mut inputs = Vec::<(OperatorId, Exchange)>::new();
        for input in &union.inputs {
            let stream = self.lower(input)?;
            let mut operator = self.materialize(stream, &schema, false)?;
            if inputs.iter().any(|(known, _)| *known == operator) {
                // Two streams between the same two operators could not be told apart.
                operator = self.copy(operator)?;
            }
            inputs.push((operator, Exchange::Forward));
        }
        let operator = self.add("union", Operator::new(schema, OperatorKind::Union), &inputs)?;
        Ok(self.whole(operator))
    }

    /// An operator that gives the same rows.
    fn copy(&mut self, operator: OperatorId) -> Result<OperatorId, SqlError> {
        let schema = self.graph.node(operator).op.schema.clone();
        let op = Operator::new(schema, OperatorKind::Calc { filter: None, project: None });
        self.add_always("copy", op, &[(operator, Exchange::Forward)])
    }

    fn calc(
        &mut self,
        base: &Stream,
        filter: Option<Expr>,
        project: Option<Vec<NamedExpr>>,
        schema: SchemaRef,
    ) -> Result<OperatorId, SqlError> {
        let name = match (&filter, &project) {
            (Some(_), Some(_)) => "filter and project",
            (Some(_), None) => "filter",
            (None, _) => "project",
        };
        let op = Operator::new(schema, OperatorKind::Calc { filter, project });
        self.add(name, op, &[(base.operator, Exchange::Forward)])
    }

    /// The operator whose output is the stream with these columns, by type and, if `exact`, by name and
    /// nullability.
    fn materialize(&mut self, stream: Stream, schema: &SchemaRef, exact: bool) -> Result<OperatorId, SqlError> {
        let given = &self.graph.node(stream.operator).op.schema;
        let same = if exact { given == schema } else { same_types(given, schema) };
        if same && self.is_whole(&stream) {
            return Ok(stream.operator);
        }
        let project = self.columns_as_exprs(&stream, schema);
        self.calc(&stream, None, Some(project), schema.clone())
    }

    fn columns_as_exprs(&self, stream: &Stream, schema: &Schema) -> Vec<NamedExpr> {
        let columns = stream.columns.iter().zip(schema.fields());
        columns.map(|(column, field)| NamedExpr { name: field.name().clone(), expr: Expr::Column(*column) }).collect()
    }

    fn whole(&self, operator: OperatorId) -> Stream {
        let count = self.graph.node(operator).op.schema.fields().len();
        Stream { operator, columns: (0..count).collect() }
    }

    fn is_whole(&self, stream: &Stream) -> bool {
        stream.columns == self.whole(stream.operator).columns
    }

    /// The operator over these inputs; one that is there already is shared.
    fn add(&mut self, name: &str, op: Operator, inputs: &[(OperatorId, Exchange)]) -> Result<OperatorId, SqlError> {
        let mut op = op;
        op.changes = self.changes(&op.kind, inputs)?;
        let known = self.graph.nodes.iter().find(|node| {
            let edges = self.graph.inputs(node.id).map(|edge| (edge.from, &edge.exchange));
            node.op == op && edges.eq(inputs.iter().map(|(from, exchange)| (*from, exchange)))
        });
        match known.map(|node| node.id) {
            Some(id) => Ok(id),
            None => self.add_always(name, op, inputs),
        }
    }

    /// The same without sharing; for sinks.
    pub(crate) fn add_always(
        &mut self,
        name: &str,
        op: Operator,
        inputs: &[(OperatorId, Exchange)],
    ) -> Result<OperatorId, SqlError> {
        if self.graph.nodes.len() >= OPERATORS_MAX {
            let message = format!("the job has more than {OPERATORS_MAX} operators; split it into several jobs");
            return Err(SqlError::new(ErrorCode::Limit, self.at, message));
        }
        let mut op = op;
        op.changes = self.changes(&op.kind, inputs)?;
        let id = self.graph.add(name, None, op);
        for (from, exchange) in inputs {
            self.graph.connect(*from, 0, id, exchange.clone());
        }
        Ok(id)
    }
}

impl Lowering {
    /// The changes that an operator would give over these inputs.
    fn changes(&self, kind: &OperatorKind, inputs: &[(OperatorId, Exchange)]) -> Result<ChangeMode, SqlError> {
        let modes: Vec<ChangeMode> = inputs.iter().map(|(from, _)| self.graph.node(*from).op.changes).collect();
        if let Some((needs, input)) = changes::inserts_only(kind)
            && let Some((from, _)) = inputs.get(input).filter(|_| modes[input] != ChangeMode::Append)
        {
            let message = format!(
                "{needs} needs rows that never change, and '{}' changes rows that it gave before",
                self.origin_of_updates(*from)
            );
            return Err(SqlError::unsupported(self.at, message));
        }
        Ok(changes::derive(kind, &modes))
    }

    /// Gives an operator a single subtask.
    pub(crate) fn run_alone(&mut self, id: OperatorId) {
        self.graph.nodes[id.0 as usize].parallelism = Some(1);
    }
}

/// The Arrow schema of a plan's columns, as streams hold them.
pub(crate) fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_metadata(Default::default())).collect();
    Arc::new(plain_schema(&Schema::new(fields)))
}

fn same_types(left: &Schema, right: &Schema) -> bool {
    let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    types(left) == types(right)
}

fn is_true(expr: &LogicalExpr) -> bool {
    matches!(expr, LogicalExpr::Literal(datafusion_common::ScalarValue::Boolean(Some(true)), _))
}
