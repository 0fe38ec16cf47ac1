//! Rows in an order: Top-N, OVER, ORDER BY and LIMIT.

use mainstem_core::change::ChangeMode;
use mainstem_plan::operator::{Frame, OverAggregate, OverCall, OverOrder, Rank, RankFunction, Sort};

use super::*;

const TABLES: &str = "CREATE TABLE endless (id BIGINT, k BIGINT, v BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE changes (a BIGINT, b BIGINT, c BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE pairs (a BIGINT, b BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE by_auction (a BIGINT, b BIGINT, PRIMARY KEY (a) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'upsert-json');
";

fn plan_of(sql: &str) -> JobPlan {
    planned(&format!("{TABLES}{sql}"))
}

#[track_caller]
fn refused(sql: &str, expected: &str) {
    let before = format!("{}{TABLES}", super::TABLES);
    let error = match plan(&format!("{before}{sql}")) {
        Ok(plan) => panic!("{sql}\n{}", explain(&plan, 1)),
        Err(error) => error,
    };
    let line = error.line.saturating_sub(u64::try_from(before.lines().count()).unwrap());
    assert_eq!(format!("{} {line}:{} {}", error.code, error.column, error.message), expected, "{sql}");
}

fn ranks(plan: &JobPlan) -> Vec<(&Rank, ChangeMode)> {
    let ranks = plan.graph.nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::Rank(rank) => Some((rank, node.op.changes)),
        _ => None,
    });
    ranks.collect()
}

/// The only Top-N of the plan.
#[track_caller]
fn rank(plan: &JobPlan) -> &Rank {
    match ranks(plan).as_slice() {
        [(rank, _)] => rank,
        other => panic!("{} Top-N", other.len()),
    }
}

fn overs(plan: &JobPlan) -> Vec<&OverAggregate> {
    let overs = plan.graph.nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::OverAggregate(over) => Some(over),
        _ => None,
    });
    overs.collect()
}

fn sort(plan: &JobPlan) -> Option<&Sort> {
    plan.graph.nodes.iter().find_map(|node| match &node.op.kind {
        OperatorKind::Sort(sort) => Some(sort),
        _ => None,
    })
}

#[test]
fn a_condition_on_the_number_of_a_row_is_a_top_n() {
    let sql = format!(
        "{TABLES}INSERT INTO changes SELECT auction, price, place FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid
        ) WHERE place <= 10"
    );
    check(
        &sql,
        "
        [0] source bid
            reads: bid by filesystem, columns auction, price, dateTime
            columns: auction, price
        [1] top 10
            from [0] hash(auction)
            partition by: auction
            order by: price DESC
            keeps: ROW_NUMBER from 1 to 10
            changes: +I, -U, +U, -D
        [2] project
            from [1] forward
            columns: auction AS a, price AS b, row_number AS c
            changes: +I, -U, +U, -D
        [3] sink changes
            from [2] forward
            writes: changes by blackhole, columns a, b, c
            changes: +I, -U, +U, -D
        ",
    );
}

#[test]
fn every_form_of_the_condition_is_found() {
    let forms = [
        ("rn = 1", 1, 1),
        ("1 = rn", 1, 1),
        ("rn <= 5", 1, 5),
        ("rn < 5", 1, 4),
        ("5 >= rn", 1, 5),
        ("rn BETWEEN 2 AND 4", 2, 4),
        ("rn > 1 AND rn < 4", 2, 3),
        ("rn IN (1, 2, 3)", 1, 3),
        ("rn <= 2 + 3", 1, 5),
        ("rn <= 5 AND price > 10", 1, 5),
    ];
    for (condition, from, to) in forms {
        let sql = format!(
            "INSERT INTO pairs SELECT auction, price FROM (SELECT x.auction, x.price, x.n AS rn FROM (
                SELECT *, RANK() OVER (PARTITION BY auction ORDER BY price) AS n FROM bid) AS x) WHERE {condition}"
        );
        let plan = plan_of(&sql);
        let rank = rank(&plan);
        assert_eq!((rank.from, rank.to, rank.function), (from, to, RankFunction::Rank), "{condition}");
    }
}

#[test]
fn what_else_is_asked_for_is_tested_afterwards() {
    let sql = "INSERT INTO pairs SELECT auction, price FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY auction, MOD(bidder, 3) ORDER BY price) AS rn FROM bid
    ) WHERE rn = 1 AND price > 10 AND auction < 7";
    let shown = operators(&format!("{TABLES}{sql}"));
    // The condition on the partition is tested before rows are ranked, the other one afterwards.
    let (before, after) = shown.split_once("first of each").unwrap();
    assert!(before.contains("where: auction < 7"), "{shown}");
    assert!(!before.contains("price > 10") && after.contains("where: price > 10"), "{shown}");
    let plan = plan_of(sql);
    assert_eq!(rank(&plan).partition.len(), 2);
    assert!(!rank(&plan).rank_column, "nobody reads the number");
}

#[test]
fn qualify_and_conditions_above_a_join_are_found_too() {
    let plan = plan_of(
        "INSERT INTO pairs SELECT auction, price FROM bid QUALIFY ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price) <= 2",
    );
    assert_eq!(rank(&plan).to, 2);
    let plan = plan_of(
        "INSERT INTO pairs SELECT p.k, b.price FROM plain p JOIN (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bid
        ) b ON p.k = b.auction WHERE b.rn = 1",
    );
    assert_eq!(rank(&plan).to, 1);
}

#[test]
fn by_processing_time_rows_go_by_their_arrival() {
    let of = |order: &str| {
        plan_of(&format!(
            "INSERT INTO pairs SELECT auction, price FROM (
                SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY {order}) AS rn FROM bid) WHERE rn = 1"
        ))
    };
    let first = of("p_time");
    assert!(rank(&first).order.is_empty() && !rank(&first).newest_first);
    assert_eq!(ranks(&first)[0].1, ChangeMode::Append, "the first row stays");
    let last = of("p_time DESC");
    assert!(rank(&last).order.is_empty() && rank(&last).newest_first);
    assert_eq!(ranks(&last)[0].1, ChangeMode::Retract);
}

#[test]
fn ranks_within_a_window_are_given_once() {
    let sql = "SELECT * FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC) AS rn FROM (
            SELECT auction, COUNT(*) AS n, window_start, window_end
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end)) WHERE rn <= 3";
    let plan = plan_of(sql);
    let (rank, changes) = ranks(&plan)[0];
    let end = rank.window_end.unwrap();
    assert_eq!((rank.input_schema.field(end).name().as_str(), changes), ("window_end", ChangeMode::Append));
    // Behind it, rows still carry their window.
    plan_of(
        "SELECT COUNT(*), window_start, window_end FROM (SELECT * FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction, window_start, window_end ORDER BY price) AS rn
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))) WHERE rn = 1)
        GROUP BY window_start, window_end",
    );
}

#[test]
fn changes_follow_what_rows_can_be_told_apart_by() {
    let newest = "SELECT auction, price FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY `dateTime` DESC) AS rn FROM bid) WHERE rn = 1";
    let plan = plan_of(&format!("INSERT INTO by_auction {newest}"));
    assert_eq!(ranks(&plan)[0].1, ChangeMode::Upsert, "the sink replaces rows by the same key");
    assert!(!plan.graph.nodes.iter().any(|node| matches!(node.op.kind, OperatorKind::Normalize { .. })));
    let top = "SELECT auction, price FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bid) WHERE rn <= 2";
    let plan = plan_of(&format!("INSERT INTO by_auction {top}"));
    assert_eq!(ranks(&plan)[0].1, ChangeMode::Retract, "two rows of an auction");
    assert!(plan.graph.nodes.iter().any(|node| matches!(node.op.kind, OperatorKind::Normalize { .. })));
    let of_counts = "INSERT INTO pairs SELECT auction, n FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY n DESC) AS rn
        FROM (SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction)) WHERE rn <= 2";
    let plan = plan_of(of_counts);
    let aggregate = plan.graph.nodes.iter().find(|node| matches!(node.op.kind, OperatorKind::GroupAggregate(_)));
    assert_eq!(aggregate.unwrap().op.changes, ChangeMode::Retract, "a Top-N needs to know what is replaced");
    assert!(rank(&plan).input_retracts && rank(&plan).input_unique.is_some());
}

#[test]
fn over_by_time_gives_each_result_once() {
    let plan = plan_of(
        "SELECT auction, SUM(price) OVER w AS s, AVG(price) OVER w AS m,
            LAG(price, 2, 0) OVER (PARTITION BY auction ORDER BY `dateTime`) AS before,
            MAX(price) OVER (PARTITION BY auction ORDER BY `dateTime` ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS m10
        FROM bid WINDOW w AS (PARTITION BY auction ORDER BY `dateTime` RANGE BETWEEN INTERVAL '5' SECOND PRECEDING AND CURRENT ROW)",
    );
    // One operator for each frame; LAG, which has none, goes with one of them.
    let mut overs = overs(&plan);
    overs.sort_by_key(|over| over.calls.len());
    let frames: Vec<Frame> = overs.iter().map(|over| over.frame).collect();
    assert_eq!(frames.len(), 2);
    assert!(frames.contains(&Frame::Range { preceding: Some(5_000) }), "{frames:?}");
    assert!(frames.contains(&Frame::Rows { preceding: Some(9) }), "{frames:?}");
    assert!(overs.iter().all(|over| matches!(over.by, OverOrder::EventTime(_))));
    assert_eq!(overs.iter().map(|over| over.calls.len()).sum::<usize>(), 4);
    let lag = overs.iter().flat_map(|over| &over.calls).find(|call| matches!(call, OverCall::Lag { .. }));
    assert!(matches!(lag, Some(OverCall::Lag { offset: 2, default: Some(_), .. })), "{lag:?}");
    // Event time stays what it is.
    let sql = "SELECT COUNT(*) FROM (SELECT *, COUNT(*) OVER (PARTITION BY auction ORDER BY `dateTime`) AS n FROM bid)
        GROUP BY TUMBLE(`dateTime`, INTERVAL '10' SECOND)";
    plan_of(sql);
}

#[test]
fn over_any_other_order_is_an_updating_one() {
    let of = |sql: &str| {
        plan_of(sql).graph.nodes.iter().find_map(|node| match &node.op.kind {
            OperatorKind::OverAggregate(over) => Some((over.by, node.op.changes)),
            _ => None,
        })
    };
    let updating = Some((OverOrder::Updating, ChangeMode::Retract));
    let by_price = "INSERT INTO pairs SELECT auction, SUM(price) OVER (PARTITION BY auction ORDER BY price) FROM bid";
    assert_eq!(of(by_price), updating);
    let lead = "INSERT INTO pairs SELECT auction, LEAD(price) OVER (PARTITION BY auction ORDER BY `dateTime`) FROM bid";
    assert_eq!(of(lead), updating);
    let over_changes = "INSERT INTO pairs SELECT auction, AVG(n) OVER (PARTITION BY auction ORDER BY n) FROM (
        SELECT auction, bidder, COUNT(*) AS n FROM bid GROUP BY auction, bidder)";
    assert_eq!(of(over_changes), updating);
    let by_arrival = "INSERT INTO pairs SELECT auction, COUNT(*) OVER (PARTITION BY auction ORDER BY p_time) FROM bid";
    assert_eq!(of(by_arrival), Some((OverOrder::ProcessingTime, ChangeMode::Append)));
    let numbered =
        "INSERT INTO pairs SELECT auction, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY `dateTime`) FROM bid";
    assert!(matches!(of(numbered), Some((OverOrder::EventTime(_), ChangeMode::Append))));
}

#[test]
fn sorting_goes_by_event_time_or_waits_for_the_end() {
    let by_time = plan_of("SELECT auction FROM bid ORDER BY `dateTime`, price");
    assert!(sort(&by_time).unwrap().by_event_time);
    let at_end = plan_of("SELECT auction, price FROM bid ORDER BY price DESC LIMIT 3 OFFSET 2");
    let sort_at_end = sort(&at_end).unwrap();
    assert!(!sort_at_end.by_event_time);
    assert_eq!((sort_at_end.offset, sort_at_end.limit), (2, Some(3)));
    let fetched = plan_of("SELECT auction FROM bid ORDER BY price OFFSET 1 ROW FETCH FIRST 2 ROWS ONLY");
    assert_eq!(sort(&fetched).map(|sort| (sort.offset, sort.limit)), Some((1, Some(2))));
    // A stream without end: the first rows of those so far.
    let top = plan_of("INSERT INTO pairs SELECT id, v FROM endless ORDER BY v LIMIT 3 OFFSET 1");
    let top = rank(&top);
    assert_eq!((top.from, top.to, top.partition.len(), top.order.len()), (2, 4, 0, 1));
    let first = plan_of("SELECT id FROM endless LIMIT 5");
    assert_eq!((ranks(&first)[0].1, rank(&first).to), (ChangeMode::Append, 5));
    let inside =
        plan_of("INSERT INTO pairs SELECT k, v FROM (SELECT k, v FROM endless ORDER BY v LIMIT 3) WHERE v > 1");
    assert_eq!(rank(&inside).to, 3);
}

#[test]
fn an_order_that_nothing_keeps_is_left_out_of_a_sub_query() {
    let plan = plan_of("SELECT COUNT(*) FROM (SELECT price FROM bid ORDER BY price) AS x GROUP BY x.price");
    let sorts = plan.graph.nodes.iter().filter(|node| matches!(node.op.kind, OperatorKind::Sort(_)));
    assert_eq!(sorts.count(), 0);
}

#[test]
fn what_has_no_meaning_on_a_stream_is_refused() {
    refused(
        "SELECT id FROM endless\nORDER BY v",
        "sql-unsupported 2:10 ORDER BY needs all rows, and 'endless' has no end; order by its event time, ascending, or add LIMIT",
    );
    refused(
        "INSERT INTO pairs SELECT id,\n ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) FROM endless",
        "sql-unsupported 2:45 ROW_NUMBER over all rows of 'endless', which has no end, would be given again for all rows behind each new one; keep the first rows of each partition with a condition such as rn <= 10, or order by event time, ascending",
    );
    refused(
        "SELECT auction FROM bid UNION ALL (SELECT auction FROM bid ORDER BY price)",
        "sql-unsupported 1:69 ORDER BY in a sub-query orders nothing, because what follows does not keep an order; take it out, or add LIMIT",
    );
    refused("SELECT auction FROM bid LIMIT 0", "sql-type 1:1 LIMIT 0 leaves no row");
    refused(
        "SELECT auction FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price) AS rn FROM bid) WHERE rn < 1",
        "sql-type 1:81 this condition asks for rows from number 1 to 0, which there are none of",
    );
    refused(
        "SELECT auction, RANK() OVER (PARTITION BY auction ORDER BY p_time) AS r FROM bid QUALIFY r = 1",
        "sql-unsupported 1:60 RANK and DENSE_RANK over processing time would be ROW_NUMBER, because no two rows come at once; write that",
    );
    refused(
        "SELECT SUM(price) OVER (PARTITION BY auction) FROM bid",
        "sql-unsupported 1:38 OVER needs ORDER BY: without an order every row would see all others, also those to come",
    );
    refused(
        "SELECT SUM(price) OVER (PARTITION BY auction ORDER BY `dateTime` ROWS BETWEEN CURRENT ROW AND 3 FOLLOWING) FROM bid",
        "sql-unsupported 1:55 a frame must end at CURRENT ROW: ROWS or RANGE BETWEEN ... PRECEDING AND CURRENT ROW",
    );
    refused(
        "SELECT NTILE(4) OVER (PARTITION BY auction ORDER BY price) FROM bid",
        "sql-unsupported 1:53 NTILE needs to know how many rows there will be, which a stream does not tell",
    );
    refused(
        "SELECT LEAD(price) OVER (PARTITION BY auction ORDER BY p_time) FROM bid",
        "sql-unsupported 1:56 LEAD over processing time would wait for rows for ever; order by a column of the rows",
    );
    refused(
        "SELECT row_number() FROM bid",
        "sql-type 1:8 row_number needs OVER, such as row_number(...) OVER (PARTITION BY k ORDER BY ts)",
    );
    refused(
        "SELECT auction FROM bid ORDER BY price FETCH FIRST 3 ROWS WITH TIES",
        "sql-unsupported 1:52 FETCH with TIES or PERCENT is not supported; for ties use RANK() OVER (ORDER BY ...)",
    );
    refused(
        "SELECT auction FROM bid ORDER BY prise",
        "sql-name 1:34 unknown column 'prise' in ORDER BY; did you mean 'price'?",
    );
}

#[test]
fn event_time_passes_through_any_frame() {
    for frame in
        ["", "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW"]
    {
        let over = format!("SELECT `dateTime`, SUM(price) OVER (ORDER BY `dateTime` {frame}) AS s FROM bid");
        let window = format!("TABLE(TUMBLE(({over}), DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND))");
        plan_of(&format!("SELECT MAX(s) FROM {window} GROUP BY window_start, window_end"));
    }
}

#[test]
fn calls_with_over_are_told_apart_by_casts_and_equal_ones_made_once() {
    let lines = |calls: &str| {
        let shown = explain(&plan_of(&format!("SELECT {calls} FROM bid")), 1);
        let lines = shown.lines().map(str::trim);
        lines.filter(|line| line.starts_with("adds:") || line.contains(" AS ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let same = "SUM(price + 1) OVER (ORDER BY `dateTime`) AS a, SUM(price + (0 + 1)) OVER (ORDER BY `dateTime`) AS b";
    assert_eq!(lines(same), ["adds: sum", "columns: sum AS a, sum AS b"]);
    let casts =
        "SUM(price) OVER (ORDER BY `dateTime`) AS a, SUM(CAST(price AS DOUBLE)) OVER (ORDER BY `dateTime`) AS b";
    assert_eq!(lines(casts), ["adds: sum, sum 2", "columns: sum AS a, `sum 2` AS b"]);
}
