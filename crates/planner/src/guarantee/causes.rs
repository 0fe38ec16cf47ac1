//! What of an operator, a source or a sink limits what holds of the rows that go through it. Everything comes from the plan
//! and from what connectors and functions declare of themselves; there is no list of names here.

use mainstem_connectors::{BadRecordPolicy, Delivery, bad_record_options};
use mainstem_core::ids::OperatorId;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::expr::{Expr, Varies};
use mainstem_plan::operator::{JobGraph, OperatorKind, OverOrder, Rank};
use serde::{Deserialize, Serialize};

/// What a cause does to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// No more than this delivery can hold.
    Delivery(Delivery),
    /// What a row holds, or whether there is one, may be another when its epoch is run again after a failure. What is
    /// visible stays; behind a sink that repeats rows, both may be seen.
    MayDiffer,
    /// The result depends on when the job runs. A replay repeats it.
    DependsOnTime,
    /// Some rows are left out, and counted.
    LeavesOut,
}

/// Of which kind a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// The sink can keep no more.
    Sink,
    /// `'delivery'` asks for less.
    DeliveryOption,
    /// The source cannot be read again.
    Source,
    /// Rows meet those of a source that cannot be read again.
    OtherSource,
    /// A table is looked up.
    LookupJoin,
    /// Windows, orders or versions by processing time.
    ProcessingTime,
    /// A function that reads the clock or the watermark.
    ClockFunction,
    /// A function whose result is a matter of chance.
    RandomFunction,
    /// An aggregate or a rank that depends on the order in which rows come.
    ArrivalOrder,
    /// State is forgotten after a time.
    TimeToLive,
    /// A silent split does not hold the others back.
    IdleTimeout,
    /// Rows that come behind the watermark.
    LateRows,
    /// Records that cannot be read.
    BadRecords,
}

/// Why no more holds than does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Of which kind.
    pub kind: CauseKind,
    /// What it does.
    pub effect: Effect,
    /// The operator.
    pub operator: OperatorId,
    /// Its name.
    pub name: String,
    /// In one sentence.
    pub message: String,
    /// Line of the statement or declaration that asks for it; 0: there is none.
    pub line: u64,
}

/// What an operator between sources and sinks does. `line`: of the statement that it is part of.
pub(super) fn of_operator(graph: &JobGraph, id: OperatorId, line: u64) -> Vec<Cause> {
    let node = graph.node(id);
    let mut causes = Vec::new();
    let mut add = |kind, effect, message: String| {
        causes.push(Cause { kind, effect, operator: id, name: node.name.clone(), message, line });
    };
    let kind = &node.op.kind;
    for (function, varies) in varying(kind) {
        match varies {
            Varies::Clock => {
                let message = format!("{function}() reads the clock of the epoch, which is recorded with it");
                add(CauseKind::ClockFunction, Effect::DependsOnTime, message);
            }
            Varies::Chance => {
                let message = format!("{function}() gives another value each time it is called");
                add(CauseKind::RandomFunction, Effect::MayDiffer, message);
            }
        }
    }
    for call in kind.exprs().1.into_iter().filter(|call| call.depends_on_order() && !has_order(kind)) {
        let message = format!("{}() without ORDER BY depends on the order in which rows come", upper(call));
        add(CauseKind::ArrivalOrder, Effect::MayDiffer, message);
    }
    let by_clock = "rows are taken by the clock when they come; epochs that are run again have the clock that is recorded, \
                    but rows of several splits may come in another order";
    match kind {
        OperatorKind::LookupJoin(join) => {
            let table = &join.table.name;
            let message = match &join.by_key {
                Some(_) => format!(
                    "table '{table}' is looked up as it is at that moment, and may have changed when an epoch is run again"
                ),
                None => format!("table '{table}' is loaded as it is at that moment, and again after a restart"),
            };
            add(CauseKind::LookupJoin, Effect::MayDiffer, message);
        }
        OperatorKind::WindowPartial(window) if window.processing_time => {
            let message = "windows over processing time: which window a row falls in depends on when it is read";
            add(CauseKind::ProcessingTime, Effect::DependsOnTime, message.to_owned());
        }
        OperatorKind::TemporalJoin(join) if join.times.is_none() => {
            let message = "a row meets the version that is there when it comes, and rows may come in another order when an \
                           epoch is run again";
            add(CauseKind::ProcessingTime, Effect::MayDiffer, message.to_owned());
        }
        OperatorKind::OverAggregate(over) if over.by == OverOrder::ProcessingTime => {
            add(CauseKind::ProcessingTime, Effect::MayDiffer, by_clock.to_owned());
        }
        OperatorKind::Rank(rank) if by_arrival(rank) => {
            let message =
                "rows are ranked in the order in which they come, which may be another when an epoch is run again";
            add(CauseKind::ArrivalOrder, Effect::MayDiffer, message.to_owned());
        }
        _ => {}
    }
    if let Some(ttl_ms) = time_to_live(kind) {
        let ttl = crate::explain::duration(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        let message =
            format!("state that has not changed for {ttl} is forgotten, so what comes later does not find it");
        add(CauseKind::TimeToLive, Effect::DependsOnTime, message);
    }
    if drops_late_rows(kind) {
        let message = "rows that come behind the watermark of their split are left out and counted".to_owned();
        add(CauseKind::LateRows, Effect::LeavesOut, message);
    }
    causes
}

/// What a source does. `line`: of its table's declaration.
pub(super) fn of_source(graph: &JobGraph, id: OperatorId, replayable: bool, line: u64) -> Vec<Cause> {
    let node = graph.node(id);
    let OperatorKind::Source(source) = &node.op.kind else { return Vec::new() };
    let mut causes = Vec::new();
    let mut add = |kind, effect, message: String| {
        causes.push(Cause { kind, effect, operator: id, name: node.name.clone(), message, line });
    };
    let table = &source.table.name;
    if !replayable {
        let message = format!("the source '{table}' cannot be read again after a failure");
        add(CauseKind::Source, Effect::Delivery(Delivery::BestEffort), message);
    }
    if let Ok(options) = bad_record_options(&source.table)
        && options.policy == BadRecordPolicy::Drop
    {
        let message = "'bad-records' = 'drop': records that cannot be read are left out and counted".to_owned();
        add(CauseKind::BadRecords, Effect::LeavesOut, message);
    }
    let waits = mainstem_plan::operator::source_groups(graph).contains_key(&id);
    if let Some(idle_ms) = source.watermark.as_ref().and_then(|watermark| watermark.idle_timeout_ms)
        && waits
    {
        let idle = crate::explain::duration(i64::try_from(idle_ms).unwrap_or(i64::MAX));
        let message = format!(
            "a split that is silent for {idle} no longer holds the others back: which of its later rows are late depends \
             on when they come, and is recorded"
        );
        add(CauseKind::IdleTimeout, Effect::DependsOnTime, message);
    }
    causes
}

/// The functions of an operator that vary, without those of aggregates that are named elsewhere.
fn varying(kind: &OperatorKind) -> Vec<(String, Varies)> {
    let (exprs, calls) = kind.exprs();
    let all = exprs.into_iter().chain(calls.into_iter().flat_map(AggregateCall::exprs));
    let mut found: Vec<(String, Varies)> = all.flat_map(Expr::varying_calls).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether rows come to the operator's aggregates in an order that the query fixes.
fn has_order(kind: &OperatorKind) -> bool {
    match kind {
        OperatorKind::OverAggregate(over) => over.by != OverOrder::ProcessingTime,
        OperatorKind::PatternMatch(_) => true,
        _ => false,
    }
}

fn by_arrival(rank: &Rank) -> bool {
    rank.order.is_empty() && !rank.input_retracts
}

fn upper(call: &AggregateCall) -> String {
    call.function.to_uppercase()
}

fn time_to_live(kind: &OperatorKind) -> Option<u64> {
    match kind {
        OperatorKind::GroupAggregate(aggregate) => aggregate.ttl_ms,
        OperatorKind::Join(join) => [join.left_ttl_ms, join.right_ttl_ms].into_iter().flatten().min(),
        OperatorKind::Rank(rank) => rank.ttl_ms,
        OperatorKind::OverAggregate(over) => over.ttl_ms,
        OperatorKind::SetOperation(sets) => sets.ttl_ms,
        _ => None,
    }
}

fn drops_late_rows(kind: &OperatorKind) -> bool {
    match kind {
        // The second step gets what the first has not dropped.
        OperatorKind::WindowPartial(window) => !window.processing_time && !window.late_output,
        OperatorKind::IntervalJoin(_) | OperatorKind::WindowJoin(_) | OperatorKind::PatternMatch(_) => true,
        OperatorKind::TemporalJoin(join) => join.times.is_some(),
        OperatorKind::OverAggregate(over) => matches!(over.by, OverOrder::EventTime(_)),
        OperatorKind::Rank(rank) => rank.window_end.is_some(),
        OperatorKind::Sort(sort) => sort.by_event_time,
        _ => false,
    }
}
