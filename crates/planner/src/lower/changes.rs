//! What each operator's output is as a changelog: which kinds of changes it holds, and by which columns its rows
//! can be told apart. Derived from the operator and its inputs when it is added to the graph. At the end,
//! operators whose `-U` nobody needs are told so.

use std::collections::BTreeSet;

use mainstem_core::change::ChangeMode;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{
    JobGraph, JoinKind, OperatorKind, OverOrder, Rank, RankFunction, SetKind, WindowProperty,
};

/// The changes that an operator gives over inputs with these changes. For a sink: what it takes.
pub(super) fn derive(kind: &OperatorKind, inputs: &[ChangeMode]) -> ChangeMode {
    let any = inputs.iter().copied().max().unwrap_or_default();
    let if_updating = |append: ChangeMode| if any == ChangeMode::Append { append } else { ChangeMode::Retract };
    match kind {
        // Tables that cannot be read have been refused before.
        OperatorKind::Source(source) => {
            mainstem_connectors::source(&source.table).map_or(ChangeMode::Append, |source| source.changes())
        }
        OperatorKind::Calc { .. } | OperatorKind::Union | OperatorKind::Sink(_) => any,
        OperatorKind::GroupPartial { .. } => any,
        OperatorKind::WindowAssign { .. } | OperatorKind::WindowPartial(_) | OperatorKind::WindowFinal(_) => any,
        OperatorKind::IntervalJoin(_) | OperatorKind::WindowJoin(_) => ChangeMode::Append,
        OperatorKind::Unnest(_) => if_updating(ChangeMode::Append),
        OperatorKind::SetOperation(sets) => match sets.kind {
            SetKind::Intersect => if_updating(ChangeMode::Append),
            SetKind::Except => ChangeMode::Retract,
        },
        OperatorKind::TemporalJoin(_) | OperatorKind::LookupJoin(_) | OperatorKind::Sort(_) => ChangeMode::Append,
        OperatorKind::PatternMatch(_) => ChangeMode::Append,
        OperatorKind::GroupAggregate(aggregate) if aggregate.aggregates.is_empty() => if_updating(ChangeMode::Append),
        OperatorKind::GroupAggregate(_) | OperatorKind::Normalize { .. } => ChangeMode::Retract,
        OperatorKind::Join(join) => match join.kind {
            JoinKind::Inner | JoinKind::Semi => if_updating(ChangeMode::Append),
            _ => ChangeMode::Retract,
        },
        OperatorKind::Rank(rank) => match rank.window_end {
            Some(_) => ChangeMode::Append,
            // The first rows to come are never replaced.
            None if rank.order.is_empty() && !rank.newest_first => if_updating(ChangeMode::Append),
            None => ChangeMode::Retract,
        },
        OperatorKind::OverAggregate(over) => match over.by {
            OverOrder::EventTime(_) | OverOrder::ProcessingTime => ChangeMode::Append,
            OverOrder::Updating => ChangeMode::Retract,
        },
    }
}

/// The name of an operator that only takes inserts on some input, and which input that is.
pub(super) fn inserts_only(kind: &OperatorKind) -> Option<(&'static str, usize)> {
    Some(match kind {
        OperatorKind::WindowPartial(_) => ("an aggregation over windows", 0),
        OperatorKind::TemporalJoin(_) => ("the left side of FOR SYSTEM_TIME AS OF", 0),
        OperatorKind::LookupJoin(_) => ("the left side of FOR SYSTEM_TIME AS OF", 0),
        OperatorKind::PatternMatch(_) => ("MATCH_RECOGNIZE", 0),
        OperatorKind::Rank(rank) if rank.window_end.is_some() => ("a Top-N of windows", 0),
        OperatorKind::OverAggregate(over) if over.by != OverOrder::Updating => ("OVER by time", 0),
        _ => return None,
    })
}

/// Columns of the operator's output of whose values there is never more than one row; none where that is not known.
/// The fewer the better, in ascending order.
pub(super) fn unique_key(graph: &JobGraph, id: OperatorId) -> Option<Vec<usize>> {
    let node = graph.node(id);
    let input = |nth: usize| graph.inputs(id).nth(nth).and_then(|edge| unique_key(graph, edge.from));
    let sorted = |mut columns: Vec<usize>| {
        columns.sort_unstable();
        columns.dedup();
        columns
    };
    match &node.op.kind {
        OperatorKind::GroupAggregate(aggregate) => Some((0..aggregate.keys.len()).collect()),
        // Of a table of changes the key is what makes them changes of the same row; other tables' keys are not checked.
        OperatorKind::Source(source)
            if node.op.changes != ChangeMode::Append && !source.table.primary_key.is_empty() =>
        {
            let position = |name: &String| {
                let physical = source.table.schema.index_of(name).ok()?;
                let read = source.read_columns.iter().position(|column| *column == physical)?;
                source.project.iter().position(|named| named.expr == Expr::Column(read))
            };
            source.table.primary_key.iter().map(position).collect::<Option<Vec<_>>>().map(sorted)
        }
        OperatorKind::Normalize { key } => Some(sorted(key.clone())),
        OperatorKind::WindowFinal(aggregate) => {
            let first = aggregate.keys.len() + aggregate.aggregates.len();
            let window = aggregate.properties.iter().enumerate();
            let mut bounds = window.filter(|(_, (_, property))| match property {
                WindowProperty::End | WindowProperty::Time => true,
                // Windows that grow share their start.
                WindowProperty::Start => false,
            });
            let bound = bounds.next()?.0;
            Some((0..aggregate.keys.len()).chain([first + bound]).collect())
        }
        OperatorKind::Calc { project: None, .. } | OperatorKind::Sort(_) => input(0),
        OperatorKind::Calc { project: Some(project), .. } => {
            let position = |column: usize| project.iter().position(|named| named.expr == Expr::Column(column));
            input(0)?.into_iter().map(position).collect::<Option<Vec<_>>>().map(sorted)
        }
        OperatorKind::Rank(rank) => rank_key(rank),
        // Rows of one key may be in several partitions, and with them in several places.
        OperatorKind::OverAggregate(over) => {
            input(0).map(|unique| sorted(unique.into_iter().chain(over.partition.iter().copied()).collect()))
        }
        OperatorKind::Join(join) => {
            let covered = |unique: &Option<Vec<usize>>, keys: &[usize]| {
                unique.as_ref().is_some_and(|unique| unique.iter().all(|column| keys.contains(column)))
            };
            let width = join.on.left_schema.fields().len();
            let left_once = covered(&join.right_unique, &join.on.right_keys);
            let right_once = covered(&join.left_unique, &join.on.left_keys);
            let shift = |columns: &[usize]| columns.iter().map(|column| column + width).collect::<Vec<_>>();
            match join.kind {
                JoinKind::Semi | JoinKind::Anti { .. } => join.left_unique.clone(),
                JoinKind::Inner | JoinKind::Left if left_once && join.left_unique.is_some() => join.left_unique.clone(),
                JoinKind::Inner | JoinKind::Right if right_once && join.right_unique.is_some() => {
                    join.right_unique.as_deref().map(shift)
                }
                JoinKind::Full => None,
                _ => {
                    let (left, right) = (join.left_unique.as_ref()?, join.right_unique.as_ref()?);
                    Some(left.iter().copied().chain(shift(right)).collect())
                }
            }
        }
        OperatorKind::SetOperation(sets) if !sets.all => Some((0..node.op.schema.fields().len()).collect()),
        OperatorKind::TemporalJoin(_) | OperatorKind::LookupJoin(_) => None,
        _ => None,
    }
}

/// By which columns the rows of a Top-N can be told apart: its changes follow just these.
fn rank_key(rank: &Rank) -> Option<Vec<usize>> {
    let numbered = rank.function == RankFunction::RowNumber;
    let number = rank.input_schema.fields().len();
    let of_partition = |columns: &[usize]| {
        let mut key: Vec<usize> = rank.partition.iter().chain(columns).copied().collect();
        key.sort_unstable();
        key.dedup();
        key
    };
    match &rank.input_unique {
        _ if numbered && rank.to == 1 => Some(of_partition(&[])),
        Some(unique) => Some(of_partition(unique)),
        None => (numbered && rank.rank_column).then(|| of_partition(&[number])),
    }
}

/// Tells operators whose `-U` nobody needs to leave it out: those that reach, through projections only, sinks that
/// replace rows by exactly the key of the operator.
pub(super) fn drop_unneeded_updates(graph: &mut JobGraph, upsert_sinks: &BTreeSet<OperatorId>) {
    let mut free: BTreeSet<OperatorId> = upsert_sinks.clone();
    let ids: Vec<OperatorId> = graph.nodes.iter().rev().map(|node| node.id).collect();
    for id in ids {
        let is_free = free.contains(&id)
            || (graph.outputs(id).next().is_some() && graph.outputs(id).all(|edge| free.contains(&edge.to)));
        if !is_free || graph.node(id).op.changes != ChangeMode::Retract {
            free.remove(&id);
            continue;
        }
        let node = &mut graph.nodes[id.0 as usize];
        // Whether it may leave its own out, and whether it can do without those of its inputs.
        let (leaves_out, passes) = match &node.op.kind {
            // A filter needs the old row to find out that it has gone.
            OperatorKind::Calc { filter, .. } => (filter.is_none(), filter.is_none()),
            OperatorKind::Sink(_) => (true, true),
            // They take the old row out of what they keep.
            OperatorKind::GroupAggregate(_) | OperatorKind::Normalize { .. } => (true, false),
            OperatorKind::Rank(rank) => (rank_key(rank).is_some(), false),
            _ => (false, false),
        };
        if leaves_out {
            node.op.changes = ChangeMode::Upsert;
        }
        if passes {
            free.insert(id);
        } else {
            free.remove(&id);
        }
    }
}
