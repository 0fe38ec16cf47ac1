//! What each kind of operator does to lineage: a match without a default, so that a new kind cannot be forgotten.

use std::collections::BTreeSet;

use mainstem_core::graph::Node;

use super::Origin;
use crate::aggregate::AggregateCall;
use crate::expr::Expr;
use crate::operator::{
    JoinKind, JoinOn, LookupJoin, NamedExpr, Operator, OperatorKind, OverCall, PatternMatch, Reference, SortKey,
    SourceOperator, WindowAggregate, WindowKind,
};

type Origins = BTreeSet<Origin>;

/// The origins of a stream's columns, and of what decides which rows are in it.
#[derive(Clone, Default)]
pub(super) struct Flow {
    columns: Vec<Origins>,
    pub(super) deciding: Origins,
}

impl Flow {
    /// The origins of the column at a position.
    pub(super) fn column(&self, at: usize) -> Origins {
        self.columns.get(at).cloned().unwrap_or_default()
    }

    /// Streams with the same columns, as one.
    pub(super) fn together(flows: Vec<Flow>) -> Flow {
        let mut whole = Flow::default();
        for flow in flows {
            whole.deciding.extend(flow.deciding);
            for (at, origins) in flow.columns.into_iter().enumerate() {
                if at == whole.columns.len() {
                    whole.columns.push(Origins::new());
                }
                whole.columns[at].extend(origins);
            }
        }
        whole
    }

    fn at(&self, positions: impl IntoIterator<Item = usize>) -> Origins {
        positions.into_iter().flat_map(|at| self.column(at)).collect()
    }

    fn of(&self, expr: &Expr) -> Origins {
        self.at(expr.columns())
    }

    fn all(&self) -> Origins {
        self.columns.iter().flatten().cloned().collect()
    }

    fn decide(&mut self, origins: Origins) {
        self.deciding.extend(origins);
    }

    fn project(&self, columns: &[NamedExpr]) -> Flow {
        Flow { columns: columns.iter().map(|column| self.of(&column.expr)).collect(), deciding: self.deciding.clone() }
    }

    /// What an aggregate's value comes from; its filter and order decide over it.
    fn call(&mut self, call: &AggregateCall) -> Origins {
        let order = call.order_by.iter().map(|(expr, ..)| expr);
        let deciding = call.filter.iter().chain(order).flat_map(|expr| self.of(expr)).collect();
        self.decide(deciding);
        call.args.iter().flat_map(|arg| self.of(arg)).collect()
    }

    fn decide_order(&mut self, partition: &[usize], order: &[SortKey]) {
        let origins = self.at(partition.iter().copied().chain(order.iter().map(|key| key.column)));
        self.decide(origins);
    }
}

/// The main output of an operator, and its side output if it may have one.
pub(super) fn flow(node: &Node<Operator>, inputs: Vec<Flow>) -> (Flow, Option<Flow>) {
    let both = |inputs: Vec<Flow>| {
        let mut inputs = inputs.into_iter();
        (inputs.next().unwrap_or_default(), inputs.next().unwrap_or_default())
    };
    let main = match &node.op.kind {
        OperatorKind::Source(source) => return read(node, source),
        OperatorKind::Union | OperatorKind::Sink(_) => Flow::together(inputs),
        OperatorKind::Calc { filter, project } => {
            let mut input = Flow::together(inputs);
            let deciding = filter.as_ref().map(|filter| input.of(filter)).unwrap_or_default();
            input.decide(deciding);
            project.as_ref().map_or_else(|| input.clone(), |project| input.project(project))
        }
        OperatorKind::WindowAssign { time, .. } => {
            let mut input = Flow::together(inputs);
            let time = input.column(*time);
            input.columns.extend([time.clone(), time.clone(), time]);
            input
        }
        OperatorKind::WindowPartial(window) => return first_step(window, Flow::together(inputs)),
        OperatorKind::WindowFinal(window) => second_step(window, Flow::together(inputs)),
        // The second step has its calls over the input of the first.
        OperatorKind::GroupPartial { .. } => Flow::together(inputs),
        OperatorKind::GroupAggregate(aggregate) => {
            let mut input = Flow::together(inputs);
            let mut columns: Vec<Origins> = aggregate.keys.iter().map(|key| input.column(*key)).collect();
            columns.extend(aggregate.aggregates.iter().map(|call| input.call(call)).collect::<Vec<_>>());
            input.decide_order(&aggregate.keys, &[]);
            Flow { columns, ..input }
        }
        OperatorKind::Join(join) => joined(join.kind, &join.on, both(inputs), &[], &[]),
        OperatorKind::IntervalJoin(join) => {
            joined(join.kind, &join.on, both(inputs), &[join.left_time], &[join.right_time])
        }
        OperatorKind::WindowJoin(join) => joined(join.kind, &join.on, both(inputs), &[], &[]),
        OperatorKind::TemporalJoin(join) => {
            let (left, right) = join.times.map(|(left, right)| (vec![left], vec![right])).unwrap_or_default();
            joined(join.kind, &join.on, both(inputs), &left, &right)
        }
        OperatorKind::LookupJoin(join) => {
            joined(join.kind, &join.on, (Flow::together(inputs), looked_up(node, join)), &[], &[])
        }
        OperatorKind::Rank(rank) => {
            let mut input = Flow::together(inputs);
            input.decide_order(&rank.partition, &rank.order);
            if rank.rank_column {
                let order = input.at(rank.order.iter().map(|key| key.column));
                input.columns.push(order);
            }
            input
        }
        OperatorKind::OverAggregate(over) => {
            let mut input = Flow::together(inputs);
            input.decide_order(&over.partition, &over.order);
            for call in &over.calls {
                let origins = match call {
                    OverCall::Aggregate(call) => input.call(call),
                    OverCall::Rank(_) => input.at(over.order.iter().map(|key| key.column)),
                    OverCall::Lag { column, default, .. } => input.at(std::iter::once(*column).chain(*default)),
                };
                input.columns.push(origins);
            }
            input
        }
        OperatorKind::Sort(sort) => {
            let mut input = Flow::together(inputs);
            if sort.limit.is_some() || sort.offset > 0 {
                input.decide_order(&[], &sort.order);
            }
            input
        }
        OperatorKind::Unnest(unnest) => {
            let mut input = Flow::together(inputs);
            let collection = input.column(unnest.collection);
            let mut columns: Vec<Origins> = unnest.keep.iter().map(|at| input.column(*at)).collect();
            columns.resize(node.op.schema.fields().len(), collection.clone());
            input.decide(collection);
            Flow { columns, ..input }
        }
        OperatorKind::SetOperation(_) => {
            let (mut left, right) = both(inputs);
            let deciding = left.all().into_iter().chain(right.all()).chain(right.deciding).collect();
            left.decide(deciding);
            left
        }
        OperatorKind::Normalize { key } => {
            let mut input = Flow::together(inputs);
            input.decide_order(key, &[]);
            input
        }
        OperatorKind::PatternMatch(pattern) => matched(pattern, Flow::together(inputs)),
    };
    (main, None)
}

fn read(node: &Node<Operator>, source: &SourceOperator) -> (Flow, Option<Flow>) {
    let fields = source.table.schema.fields();
    let origin = |at: usize| {
        let column = fields.get(at)?.name().clone();
        Some(Origin { operator: node.id, table: source.table.name.clone(), column })
    };
    let columns = source.read_columns.iter().map(|at| origin(*at).into_iter().collect()).collect();
    let read = Flow { columns, deciding: Origins::new() };
    // A record that could not be used is given as it was: all of its columns.
    let whole: Origins = (0..fields.len()).filter_map(origin).collect();
    let letters = source.dead_letters.as_ref();
    let side = letters.map(|letters| Flow { columns: vec![whole; letters.fields().len()], deciding: Origins::new() });
    (read.project(&source.project), side)
}

/// The second step speaks of the columns that the first one reads, and the two stand next to each other: so what leaves the first
/// step is shown as what came to it. Late rows hold the whole row, and its time.
fn first_step(window: &WindowAggregate, mut input: Flow) -> (Flow, Option<Flow>) {
    let time = times(window, &input);
    input.decide(time.clone());
    let row = input.all();
    let late = Flow { columns: vec![Origins::new(), time.clone(), time, row], deciding: input.deciding.clone() };
    (input, Some(late))
}

fn second_step(window: &WindowAggregate, mut input: Flow) -> Flow {
    let time = times(window, &input);
    let keys: Vec<Origins> = window.keys.iter().map(|key| input.of(&key.expr)).collect();
    input.decide(keys.iter().flatten().cloned().collect());
    let mut columns = keys;
    columns.extend(window.aggregates.iter().map(|call| input.call(call)).collect::<Vec<_>>());
    columns.extend(window.properties.iter().map(|_| time.clone()));
    Flow { columns, ..input }
}

/// What says in which windows a row falls. Processing time is no column's.
fn times(window: &WindowAggregate, input: &Flow) -> Origins {
    match window.window {
        WindowKind::Attached { start, end } => input.at([start, end]),
        _ if window.processing_time => Origins::new(),
        _ => input.column(window.time),
    }
}

fn joined(kind: JoinKind, on: &JoinOn, sides: (Flow, Flow), left_also: &[usize], right_also: &[usize]) -> Flow {
    let (mut left, right) = sides;
    let mut deciding = left.at(on.left_keys.iter().chain(left_also).copied());
    deciding.extend(right.at(on.right_keys.iter().chain(right_also).copied()));
    deciding.extend(right.deciding);
    let width = left.columns.len();
    left.columns.extend(right.columns);
    deciding.extend(on.condition.iter().flat_map(|condition| left.of(condition)));
    left.decide(deciding);
    if matches!(kind, JoinKind::Semi | JoinKind::Anti { .. }) {
        left.columns.truncate(width);
    }
    left
}

fn looked_up(node: &Node<Operator>, join: &LookupJoin) -> Flow {
    let origin = |at: &usize| {
        let column = join.table.schema.fields().get(*at)?.name().clone();
        Some(Origin { operator: node.id, table: join.table.name.clone(), column })
    };
    Flow { columns: join.columns.iter().map(|at| origin(at).into_iter().collect()).collect(), deciding: Origins::new() }
}

fn matched(pattern: &PatternMatch, mut input: Flow) -> Flow {
    let references = pattern.references.iter().map(|reference| match reference {
        Reference::Column { column, .. } => input.column(*column),
        Reference::Aggregate { call, .. } => input.call(call),
    });
    let references = Flow { columns: references.collect(), deciding: Origins::new() };
    input.decide_order(&pattern.partition, &pattern.order);
    for variable in &pattern.variables {
        let row = variable.row_condition.iter().flat_map(|condition| input.of(condition));
        let so_far = variable.match_condition.iter().flat_map(|condition| references.of(condition));
        let deciding = row.chain(so_far).collect();
        input.decide(deciding);
    }
    let mut columns: Vec<Origins> = pattern.partition.iter().map(|at| input.column(*at)).collect();
    columns.extend(pattern.measures.iter().map(|measure| references.of(&measure.expr)));
    Flow { columns, ..input }
}
