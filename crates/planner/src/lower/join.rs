//! Joins to operators: both sides are partitioned by their keys, computed as columns where they are expressions.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{DFSchema, NullEquality};
use datafusion_expr::{Expr as LogicalExpr, Join as LogicalJoin, JoinType, LogicalPlan, lit};
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::{BinaryOperator, Expr, Test};
use mainstem_plan::operator::{Join, JoinKind, JoinOn, NamedExpr, Operator, OperatorKind};

use super::relation::distinct_names;
use super::{Lowering, Stream, arrow_schema, changes};
use crate::error::SqlError;

/// A join whose inputs are lowered. Each input has the columns of its plan, then those of computed keys.
pub(super) struct JoinInputs<'a> {
    pub(super) left_plan: &'a LogicalPlan,
    pub(super) right_plan: &'a LogicalPlan,
    pub(super) left: OperatorId,
    pub(super) right: OperatorId,
    pub(super) kind: JoinKind,
    pub(super) on: JoinOn,
}

impl JoinInputs<'_> {
    /// Where the operator's output has the columns of the plan's join: computed keys stand between them.
    pub(super) fn columns(&self) -> Vec<usize> {
        let width = |plan: &LogicalPlan| plan.schema().fields().len();
        let right = match self.kind {
            JoinKind::Semi | JoinKind::Anti { .. } => 0,
            _ => width(self.right_plan),
        };
        let first_right = self.on.left_schema.fields().len();
        (0..width(self.left_plan)).chain(first_right..first_right + right).collect()
    }
}

impl Lowering {
    pub(super) fn join(&mut self, join: &LogicalJoin) -> Result<Stream, SqlError> {
        let kind = match join.join_type {
            JoinType::LeftMark => return self.mark_join(join),
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::Semi,
            JoinType::LeftAnti => JoinKind::Anti { null_aware: join.null_aware },
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                return Err(self.internal(format!("a {} join was planned", join.join_type)));
            }
        };
        let mut inputs = self.plan_inputs(join, kind)?;
        not_in(&mut inputs).map_err(|message| SqlError::unsupported(self.at, message))?;
        let columns = inputs.columns();
        Ok(Stream { operator: self.join_operator(inputs)?, columns })
    }

    fn plan_inputs<'a>(&mut self, join: &'a LogicalJoin, kind: JoinKind) -> Result<JoinInputs<'a>, SqlError> {
        let null_equal = join.null_equality == NullEquality::NullEqualsNull;
        let pairs: Vec<_> = join.on.iter().map(|(left, right)| (left.clone(), right.clone(), null_equal)).collect();
        self.join_inputs(&join.left, &join.right, kind, &pairs, join.filter.as_ref())
    }

    /// Left rows with whether they have a partner: those that have one, and those that have none.
    fn mark_join(&mut self, join: &LogicalJoin) -> Result<Stream, SqlError> {
        let schema = arrow_schema(&join.schema);
        let mut parts = Vec::new();
        for (kind, mark) in [(JoinKind::Semi, true), (JoinKind::Anti { null_aware: false }, false)] {
            let inputs = self.plan_inputs(join, kind)?;
            let columns = inputs.columns();
            let stream = Stream { operator: self.join_operator(inputs)?, columns };
            let mut project = self.columns_as_exprs(&stream, &schema);
            let mark = Expr::from_logical(&lit(mark), &DFSchema::empty()).map_err(|error| self.plan_error(&error))?;
            let name = schema.field(schema.fields().len() - 1).name().clone();
            project.push(NamedExpr { name, expr: mark });
            let part = self.calc(&stream, None, Some(project), schema.clone())?;
            parts.push((part, Exchange::Forward));
        }
        let operator = self.add("union", Operator::new(schema, OperatorKind::Union), &parts)?;
        Ok(self.whole(operator))
    }

    /// Lowers both sides of a join; `pairs` are the expressions that must be equal, with whether NULL equals NULL.
    pub(super) fn join_inputs<'a>(
        &mut self,
        left_plan: &'a LogicalPlan,
        right_plan: &'a LogicalPlan,
        kind: JoinKind,
        pairs: &[(LogicalExpr, LogicalExpr, bool)],
        filter: Option<&LogicalExpr>,
    ) -> Result<JoinInputs<'a>, SqlError> {
        let exprs = |left: bool| pairs.iter().map(move |(l, r, _)| if left { l } else { r });
        let (left, left_keys) = self.join_side(left_plan, exprs(true).collect())?;
        let (mut right, right_keys) = self.join_side(right_plan, exprs(false).collect())?;
        if right == left {
            // Two streams between the same two operators could not be told apart.
            right = self.copy(right)?;
        }
        let schema = |id: OperatorId| self.graph.node(id).op.schema.clone();
        let (left_schema, right_schema) = (schema(left), schema(right));
        let condition = filter.map(|filter| {
            let both = left_plan.schema().join(right_plan.schema());
            let both = both.map_err(|error| SqlError::from_datafusion(&error, self.at))?;
            let mut expr = Expr::from_logical(filter, &both).map_err(|error| self.plan_error(&error))?;
            // Computed keys stand between the columns of the two plans.
            let width = left_plan.schema().fields().len();
            let shift = left_schema.fields().len() - width;
            expr.remap_columns(&|column| if column < width { column } else { column + shift });
            Ok::<_, SqlError>(expr)
        });
        let condition = condition.transpose()?;
        let null_equal = pairs.iter().map(|(_, _, null_equal)| *null_equal).collect();
        let on = JoinOn { left_keys, right_keys, null_equal, condition, left_schema, right_schema };
        Ok(JoinInputs { left_plan, right_plan, left, right, kind, on })
    }

    /// An operator with the columns of the plan and those keys that are no columns; with the keys' positions.
    pub(super) fn join_side(
        &mut self,
        plan: &LogicalPlan,
        keys: Vec<&LogicalExpr>,
    ) -> Result<(OperatorId, Vec<usize>), SqlError> {
        let stream = self.lower(plan)?;
        let schema = arrow_schema(plan.schema());
        let plain = |key: &LogicalExpr| match key {
            LogicalExpr::Column(column) => plan.schema().maybe_index_of_column(column),
            _ => None,
        };
        let mut positions = Vec::new();
        let mut computed = Vec::new();
        for key in keys {
            match plain(key) {
                Some(position) => positions.push(position),
                None => {
                    positions.push(schema.fields().len() + computed.len());
                    computed.push(key);
                }
            }
        }
        if computed.is_empty() {
            return Ok((self.materialize(stream, &schema, false)?, positions));
        }
        let mut project = self.columns_as_exprs(&stream, &schema);
        let mut fields = schema.fields().to_vec();
        for (number, key) in computed.into_iter().enumerate() {
            let name = format!("__key_{number}");
            fields.push(Arc::new(self.key_field(&name, key, plan.schema())?));
            project.push(NamedExpr { name, expr: self.expr(key, plan.schema(), &stream)? });
        }
        let schema = Arc::new(Schema::new(fields));
        Ok((self.calc(&stream, None, Some(project), schema)?, positions))
    }

    fn key_field(&self, name: &str, key: &LogicalExpr, schema: &DFSchema) -> Result<Field, SqlError> {
        use datafusion_expr::ExprSchemable;
        let (_, found) = key.to_field(schema).map_err(|error| SqlError::from_datafusion(&error, self.at))?;
        let field = Field::new(name, found.data_type().clone(), found.is_nullable());
        let plain = mainstem_plan::plain_schema(&Schema::new(vec![field]));
        Ok(plain.field(0).clone())
    }

    /// Which operator joins these inputs: here it is decided what may be forgotten, and when.
    fn join_operator(&mut self, inputs: JoinInputs<'_>) -> Result<OperatorId, SqlError> {
        match self.bounded_join(&inputs)? {
            Some(operator) => Ok(operator),
            None => self.regular_join(inputs),
        }
    }

    /// A join of tables that change.
    fn regular_join(&mut self, inputs: JoinInputs<'_>) -> Result<OperatorId, SqlError> {
        let JoinInputs { left_plan, right_plan, left, right, kind, on } = inputs;
        let schema = joined_schema(kind, &on);
        // Whether NOT IN holds depends on all rows of the other side: they must be in one place.
        let alone = kind == JoinKind::Anti { null_aware: true };
        let keys = |keys: &[usize]| Exchange::Hash { keys: if alone { vec![] } else { keys.to_vec() } };
        let edges = [(left, keys(&on.left_keys)), (right, keys(&on.right_keys))];
        let join = Join {
            kind,
            on,
            left_unique: changes::unique_key(&self.graph, left),
            right_unique: changes::unique_key(&self.graph, right),
            left_ttl_ms: self.ttl_of(left_plan),
            right_ttl_ms: self.ttl_of(right_plan),
        };
        self.add(join_name(kind), Operator::new(schema, OperatorKind::Join(join)), &edges)
    }
}

/// Columns of both inputs; those that may be missing are nullable.
pub(crate) fn joined_schema(kind: JoinKind, on: &JoinOn) -> SchemaRef {
    let mut fields = Vec::<Field>::new();
    let (left_missing, right_missing) = match kind {
        JoinKind::Inner | JoinKind::Semi | JoinKind::Anti { .. } => (false, false),
        JoinKind::Left => (false, true),
        JoinKind::Right => (true, false),
        JoinKind::Full => (true, true),
    };
    let only_left = matches!(kind, JoinKind::Semi | JoinKind::Anti { .. });
    let left = on.left_schema.fields().iter().map(|field| (field, left_missing));
    let right = on.right_schema.fields().iter().map(|field| (field, right_missing));
    for (field, missing) in left.chain(right.filter(|_| !only_left)) {
        fields.push(field.as_ref().clone().with_nullable(missing || field.is_nullable()));
    }
    distinct_names(&Arc::new(Schema::new(fields)))
}

/// `NOT IN` over a sub-query that depends on the row, or with further conditions: the row is kept back by those
/// rows only that belong to it, for which the comparison is not false. What remains of the pairs are keys.
fn not_in(inputs: &mut JoinInputs<'_>) -> Result<(), &'static str> {
    let on = &mut inputs.on;
    if inputs.kind != (JoinKind::Anti { null_aware: true }) || (on.left_keys.len() == 1 && on.condition.is_none()) {
        return Ok(());
    }
    if on.left_keys.is_empty() {
        return Err("this NOT IN compares values that cannot be a key of a join; write NOT EXISTS");
    }
    inputs.kind = JoinKind::Anti { null_aware: false };
    // The comparison of IN comes first, then what the sub-query says of the row.
    let width = on.left_schema.fields().len();
    let (left, right) = (on.left_keys.remove(0), on.right_keys.remove(0));
    on.null_equal.remove(0);
    let binary = |left, op, right| Expr::Binary { left: Box::new(left), op, right: Box::new(right) };
    let equal = binary(Expr::Column(left), BinaryOperator::Eq, Expr::Column(width + right));
    let not_false = Expr::Is { expr: Box::new(equal), test: Test::False, negated: true };
    on.condition = Some(match on.condition.take() {
        None => not_false,
        Some(condition) => binary(not_false, BinaryOperator::And, condition),
    });
    Ok(())
}

fn join_name(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner join",
        JoinKind::Left => "left join",
        JoinKind::Right => "right join",
        JoinKind::Full => "full join",
        JoinKind::Semi => "semi join",
        JoinKind::Anti { .. } => "anti join",
    }
}
