//! The operators of joins, Top-N and aggregation without windows, as `EXPLAIN` shows them.

use arrow::datatypes::{Schema, SchemaRef};
use mainstem_plan::operator::{JoinKind, JoinOn, LookupByKey, Operator, OperatorKind, OverOrder, SortKey};

use super::{duration, names, pattern};
use crate::lower::joined_schema;

/// What the operator does.
pub(super) fn details(kind: &OperatorKind, op: &Operator, input: Option<&SchemaRef>) -> Vec<String> {
    match kind {
        OperatorKind::GroupAggregate(aggregate) => {
            let input = &aggregate.input_schema;
            let mut lines = vec![format!("group by: {}", columns(&aggregate.keys, input))];
            let calls: Vec<String> = aggregate.aggregates.iter().map(|call| call.display(input)).collect();
            lines.extend((!calls.is_empty()).then(|| format!("aggregates: {}", calls.join(", "))));
            if let Some(call) = aggregate.aggregates.iter().find(|call| call.depends_on_order()) {
                let call = call.display(input);
                lines.push(format!(
                    "careful: {call} depends on the order of rows, which a replay may change; give it an ORDER BY"
                ));
            }
            lines.extend(aggregate.mini_batch_ms.map(|ms| format!("a change of each group every {}", time(ms))));
            lines
        }
        OperatorKind::GroupPartial { aggregate, adaptive } => {
            let input = &aggregate.input_schema;
            let mut lines = vec![format!("group each batch by: {}", columns(&aggregate.keys, input))];
            let calls: Vec<String> = aggregate.aggregates.iter().map(|call| call.display(input)).collect();
            lines.extend((!calls.is_empty()).then(|| format!("partial aggregates: {}", calls.join(", "))));
            lines.extend(adaptive.then(|| "only while keys come often".to_owned()));
            lines
        }
        OperatorKind::Join(join) => join_on(join.kind, &join.on),
        OperatorKind::IntervalJoin(join) => {
            let mut lines = join_on(join.kind, &join.on);
            let left = join.on.left_schema.field(join.left_time).name();
            let right = join.on.right_schema.field(join.right_time).name();
            lines.push(format!(
                "times: left.{left} from right.{right} {} to right.{right} {}",
                signed(join.lower_ms),
                signed(join.upper_ms)
            ));
            lines
        }
        OperatorKind::WindowJoin(join) => join_on(join.kind, &join.on),
        OperatorKind::TemporalJoin(join) => {
            let mut lines = join_on(join.kind, &join.on);
            lines.push(match join.times {
                Some((left, right)) => format!(
                    "versions: as of left.{}, valid from right.{} on",
                    join.on.left_schema.field(left).name(),
                    join.on.right_schema.field(right).name()
                ),
                None => "versions: the newest, by processing time; a replay may meet others".to_owned(),
            });
            lines
        }
        OperatorKind::LookupJoin(join) => {
            let mut lines = join_on(join.kind, &join.on);
            let how = match (&join.by_key, join.reload_ms) {
                (None, Some(ms)) => {
                    format!("held in memory, loaded again when older than {}, where an epoch ends", time(ms))
                }
                (None, None) => "held in memory, loaded once".to_owned(),
                (Some(LookupByKey { cache: None, .. }), _) => "asked for the keys of each batch".to_owned(),
                (Some(LookupByKey { cache: Some(cache), .. }), _) => {
                    let rows = cache.rows_max;
                    let age = cache.expire_after_write_ms.map(|ms| format!(", not older than {}", time(ms)));
                    format!("asked for keys that are not cached (at most {rows} rows{})", age.unwrap_or_default())
                }
            };
            lines.push(format!("looks up: {}, {how}", join.table.name));
            lines
        }
        OperatorKind::Rank(rank) => {
            let input = &rank.input_schema;
            let newest = if rank.newest_first { ", the last first" } else { "" };
            vec![
                format!("partition by: {}", columns(&rank.partition, input)),
                format!("order by: {}{newest}", order(&rank.order, input)),
                format!("keeps: {} from {} to {}", rank.function.name(), rank.from, rank.to),
            ]
        }
        OperatorKind::OverAggregate(over) => {
            let input = &over.input_schema;
            vec![
                format!("partition by: {}", columns(&over.partition, input)),
                format!("order by: {}", order(&over.order, input)),
                format!("adds: {}", names(&Schema::new(op.schema.fields()[input.fields().len()..].to_vec()))),
            ]
        }
        OperatorKind::Sort(sort) => {
            input.map(|input| format!("order by: {}", order(&sort.order, input))).into_iter().collect()
        }
        OperatorKind::Unnest(unnest) => {
            let of = input.map(|input| input.field(unnest.collection).name().clone()).unwrap_or_default();
            let outer = if unnest.outer { "; rows without elements are kept" } else { "" };
            vec![format!("elements of: {of}{outer}"), format!("columns: {}", names(&op.schema))]
        }
        OperatorKind::SetOperation(sets) => {
            let all = if sets.all { " ALL" } else { "" };
            vec![format!("rows of: left {}{all} right", sets.kind.keyword())]
        }
        OperatorKind::Normalize { key } => vec![format!("key: {}", columns(key, &op.schema))],
        OperatorKind::PatternMatch(spec) => pattern::details(spec),
        _ => Vec::new(),
    }
}

/// What the operator keeps, and when it lets go of it.
pub(super) fn state(kind: &OperatorKind) -> String {
    match kind {
        OperatorKind::GroupAggregate(aggregate) => {
            "aggregates of each group, ".to_owned()
                + &kept(aggregate.ttl_ms, "groups that come back start from nothing")
        }
        OperatorKind::Join(join) => format!(
            "rows of the left side, {}; rows of the right side, {}",
            kept(join.left_ttl_ms, "later partners do not find them"),
            kept(join.right_ttl_ms, "later partners do not find them")
        ),
        OperatorKind::IntervalJoin(_) => {
            "rows of both sides, released when the watermark says that no partner can come".to_owned()
        }
        OperatorKind::WindowJoin(_) => {
            "rows of both sides, released when the watermark passes the window's end".to_owned()
        }
        OperatorKind::TemporalJoin(join) => match join.times {
            Some(_) => "left rows until the watermark passes them; versions that such a row may still need".to_owned(),
            None => "the newest row of each key of the right side, for the life of the job".to_owned(),
        },
        OperatorKind::LookupJoin(join) if join.by_key.is_some() => {
            "none; a replay may find other rows in the table".to_owned()
        }
        OperatorKind::LookupJoin(_) => "none; the table is loaded again after a restart, as it is then".to_owned(),
        OperatorKind::Rank(rank) => match rank.window_end {
            Some(_) => "the best rows of each window, released when the watermark passes its end".to_owned(),
            None if !rank.input_retracts && rank.order.is_empty() && !rank.newest_first => {
                "the number of rows that each partition has had, ".to_owned()
                    + &kept(rank.ttl_ms, "partitions start from nothing")
            }
            None if rank.input_retracts => {
                "all rows of each partition, ".to_owned() + &kept(rank.ttl_ms, "partitions start from nothing")
            }
            None => {
                "the best rows of each partition, ".to_owned() + &kept(rank.ttl_ms, "partitions start from nothing")
            }
        },
        OperatorKind::OverAggregate(over) if over.by == OverOrder::Updating => {
            "all rows of each partition, ".to_owned() + &kept(over.ttl_ms, "partitions start from nothing")
        }
        OperatorKind::OverAggregate(over) => {
            "rows of each partition that a frame may still need, ".to_owned()
                + &kept(over.ttl_ms, "partitions start from nothing")
        }
        OperatorKind::Sort(sort) if sort.by_event_time => "rows, released when the watermark passes them".to_owned(),
        OperatorKind::Sort(_) => "all rows, until the input ends".to_owned(),
        OperatorKind::SetOperation(sets) => {
            "each distinct row, with how often either side has it, ".to_owned()
                + &kept(sets.ttl_ms, "rows that come back are new")
        }
        OperatorKind::Normalize { .. } => "rows of each key, for the life of the job".to_owned(),
        OperatorKind::PatternMatch(spec) => pattern::state(spec),
        _ => "none".to_owned(),
    }
}

fn kept(ttl_ms: Option<u64>, given_up: &str) -> String {
    match ttl_ms {
        Some(ttl) => format!("forgotten when unchanged for {} (time to live: {given_up})", time(ttl)),
        None => "for the life of the job".to_owned(),
    }
}

fn join_on(kind: JoinKind, on: &JoinOn) -> Vec<String> {
    let pairs = on.left_keys.iter().zip(&on.right_keys).zip(&on.null_equal);
    let pairs = pairs.map(|((left, right), null_equal)| {
        let equal = if *null_equal { "IS NOT DISTINCT FROM" } else { "=" };
        format!("left.{} {equal} right.{}", on.left_schema.field(*left).name(), on.right_schema.field(*right).name())
    });
    let pairs: Vec<String> = pairs.collect();
    let name = match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
        JoinKind::Semi => "semi",
        JoinKind::Anti { null_aware: false } => "anti",
        JoinKind::Anti { null_aware: true } => "anti, as NOT IN",
    };
    let pairs = if pairs.is_empty() { "every row with every row".to_owned() } else { pairs.join(" AND ") };
    let mut lines = vec![format!("{name}: {pairs}")];
    if let Some(condition) = &on.condition {
        // Of two columns of one name, that of the right side is told apart.
        lines.push(format!("condition: {}", condition.display(&joined_schema(JoinKind::Inner, on))));
    }
    lines
}

pub(super) fn columns(positions: &[usize], schema: &Schema) -> String {
    if positions.is_empty() {
        return "nothing, all rows together".to_owned();
    }
    let names: Vec<&str> = positions.iter().map(|column| schema.field(*column).name().as_str()).collect();
    names.join(", ")
}

pub(super) fn order(order: &[SortKey], schema: &Schema) -> String {
    if order.is_empty() {
        return "arrival".to_owned();
    }
    let key = |key: &SortKey| {
        let direction = if key.descending { " DESC" } else { "" };
        format!("{}{direction}", schema.field(key.column).name())
    };
    order.iter().map(key).collect::<Vec<_>>().join(", ")
}

fn time(ms: u64) -> String {
    duration(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn signed(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    format!("{sign} {}", duration(ms.saturating_abs()))
}
