//! Aggregation without windows: plans, modes of change, refusals.

use mainstem_core::change::ChangeMode;
use mainstem_plan::operator::GroupAggregate;

use super::*;

const KEYED: &str =
    "CREATE TABLE keyed (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'blackhole');";

/// The query into a table that takes all changes and has these columns.
fn into(columns: &str, query: &str) -> String {
    format!("CREATE TABLE changes ({columns}) WITH ('connector' = 'blackhole'); INSERT INTO changes {query}")
}

fn aggregates(plan: &JobPlan) -> Vec<(&GroupAggregate, ChangeMode)> {
    let nodes = plan.graph.nodes.iter();
    let found = nodes.filter_map(|node| match &node.op.kind {
        OperatorKind::GroupAggregate(aggregate) => Some((aggregate, node.op.changes)),
        _ => None,
    });
    found.collect()
}

#[track_caller]
fn refused(sql: &str, expected: &str) {
    let error = plan(&format!("{TABLES}{sql}")).unwrap_err();
    let line = error.line.saturating_sub(u64::try_from(TABLES.lines().count()).unwrap());
    assert_eq!(format!("{} {line}:{} {}", error.code, error.column, error.message), expected, "{sql}");
}

#[test]
fn keys_become_columns_and_only_what_is_needed_is_exchanged() {
    let query = "SELECT price / 100 AS hundreds, COUNT(*) AS n, MAX(auction) FILTER (WHERE bidder > 3) AS m \
                 FROM bid GROUP BY price / 100 HAVING COUNT(*) > 1";
    check(
        &into("hundreds BIGINT, n BIGINT, m BIGINT", query),
        "
        [0] source bid
            reads: bid by filesystem, columns auction, bidder, price, dateTime
            columns: auction, bidder, price
        [1] project
            from [0] forward
            columns: price / 100, auction, bidder
        [2] partial group aggregate
            from [1] forward
            group each batch by: price / 100
            partial aggregates: COUNT(1), MAX(auction) FILTER (WHERE bidder > 3)
            only while keys come often
        [3] group aggregate
            from [2] hash(price / 100)
            group by: price / 100
            aggregates: COUNT(1), MAX(auction) FILTER (WHERE bidder > 3)
            changes: +I, -U, +U, -D
        [4] filter and project
            from [3] forward
            where: `COUNT(1)` > 1
            columns: `price / 100` AS hundreds, `COUNT(1)` AS n, `MAX(auction) FILTER (WHERE bidder > 3)` AS m
            changes: +I, -U, +U, -D
        [5] sink changes
            from [4] forward
            writes: changes by blackhole, columns hundreds, n, m
            changes: +I, -U, +U, -D
        ",
    );
}

#[test]
fn all_rows_are_one_group() {
    let plan = planned(&into("n BIGINT, s BIGINT", "SELECT COUNT(*), SUM(price) FROM bid HAVING COUNT(*) > 0"));
    let (aggregate, _) = aggregates(&plan)[0];
    assert!(aggregate.keys.is_empty());
    assert_eq!(aggregate.aggregates.len(), 2);
    let exchange = &plan.graph.edges.iter().find(|edge| plan.graph.node(edge.to).name == "aggregate of all rows");
    assert_eq!(exchange.unwrap().exchange, Exchange::Hash { keys: vec![] });
}

#[test]
fn distinct_rows_of_an_insert_only_input_are_never_taken_back() {
    let plan = planned("SELECT DISTINCT auction, bidder FROM bid");
    let (distinct, changes) = aggregates(&plan)[0];
    assert_eq!((distinct.keys.as_slice(), distinct.aggregates.len(), changes), (&[0, 1][..], 0, ChangeMode::Append));
    let plan =
        planned(&into("n BIGINT", "SELECT DISTINCT n FROM (SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction)"));
    assert_eq!(aggregates(&plan)[1].1, ChangeMode::Retract);
    assert!(aggregates(&plan)[1].0.input_retracts);
}

#[test]
fn only_the_last_of_two_aggregations_leaves_out_what_it_replaces() {
    let counts = "SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction";
    let plan = planned(&format!("{KEYED} INSERT INTO keyed SELECT n AS k, COUNT(*) AS n FROM ({counts}) GROUP BY n"));
    let modes: Vec<ChangeMode> = aggregates(&plan).into_iter().map(|(_, changes)| changes).collect();
    assert_eq!(modes.len(), 2);
    assert_eq!(modes[0], ChangeMode::Retract, "the second takes the old row out of its results");
}

#[test]
fn grouping_sets_are_aggregations_of_their_own() {
    let query =
        "SELECT auction, bidder, COUNT(*) AS n, GROUPING(auction) AS g FROM bid GROUP BY ROLLUP (auction, bidder)";
    let sql = &into("a BIGINT, b BIGINT, n BIGINT, g INT", query);
    let keys_of =
        |plan: &JobPlan| -> Vec<usize> { aggregates(plan).iter().map(|(aggregate, _)| aggregate.keys.len()).collect() };
    assert_eq!(keys_of(&planned(sql)), [2, 1, 0]);
    let shown = operators(sql);
    assert!(shown.contains("columns: auction AS __set_column_0, bidder AS __set_column_1, `COUNT(1)` AS __set_column_2, 0 AS __set_column_3"), "{shown}");
    assert!(
        shown.contains("columns: auction AS __set_column_0, NULL AS __set_column_1, `COUNT(1)` AS __set_column_2, 0 AS __set_column_3"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "columns: NULL AS __set_column_0, NULL AS __set_column_1, `COUNT(1)` AS __set_column_2, 1 AS __set_column_3"
        ),
        "{shown}"
    );
    let query = "SELECT auction, bidder, channel, SUM(price) FROM bid GROUP BY CUBE (auction, bidder), channel";
    let cube = planned(&into("a BIGINT, b BIGINT, c STRING, s BIGINT", query));
    assert_eq!(keys_of(&cube), [1, 2, 2, 3]);
    let none = planned(&into("k BIGINT", "SELECT k FROM plain GROUP BY GROUPING SETS ((k), ())"));
    // The empty set without aggregates is one row, whatever the input.
    assert_eq!(keys_of(&none), [1]);
    let windowed = planned(
        "SELECT window_start, auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, GROUPING SETS ((auction), ())",
    );
    let finals = windowed.graph.nodes.iter().filter(|node| matches!(node.op.kind, OperatorKind::WindowFinal(_)));
    assert_eq!(finals.count(), 2);
}

#[test]
fn settings_reach_the_operators_and_are_shown() {
    let settings = "SET 'table.exec.state.ttl' = '1 h'; SET 'table.exec.mini-batch.enabled' = 'true';
        SET 'table.exec.mini-batch.allow-latency' = '2 s'; SET 'table.exec.mini-batch.size' = '5000';";
    let counts = into("k BIGINT, n BIGINT", "SELECT auction, COUNT(*) FROM bid GROUP BY auction");
    let plan = planned(&format!("{settings}{counts}"));
    let (aggregate, _) = aggregates(&plan)[0];
    assert_eq!(
        (aggregate.ttl_ms, aggregate.mini_batch_ms, aggregate.mini_batch_rows),
        (Some(3_600_000), Some(2_000), Some(5_000))
    );
    let shown = explain(&plan, 1);
    assert!(shown.contains("state: aggregates of each group, forgotten when unchanged for 1 h"), "{shown}");
    assert!(shown.contains("a change of each group every 2 s"), "{shown}");
    let never = planned(&format!("SET 'table.exec.state.ttl' = '0';{counts}"));
    assert_eq!(aggregates(&never)[0].0.ttl_ms, None);
    refused(
        "SET 'table.exec.mini-batch.enabled' = 'true'; SELECT k FROM plain",
        "sql-option 1:1 'table.exec.mini-batch.enabled' needs 'table.exec.mini-batch.allow-latency': how long changes may be held back, such as '1 s'",
    );
}

/// The operators of a query but for sources, projections and sinks.
fn steps(settings: &str, query: &str) -> Vec<String> {
    let plan = planned(&format!("{settings} {query}"));
    let names = plan.graph.nodes.iter().map(|node| node.name.clone());
    names.filter(|name| !["source", "project", "sink"].iter().any(|other| name.starts_with(other))).collect()
}

#[test]
fn the_step_before_the_exchange_is_there_only_where_it_changes_nothing() {
    const ONE: &str = "SET 'table.optimizer.agg-phase-strategy' = 'one_phase';";
    let counts = "SELECT auction, COUNT(*) FROM bid GROUP BY auction";
    assert_eq!(steps("", counts), ["partial group aggregate", "group aggregate"]);
    assert_eq!(steps(ONE, counts), ["group aggregate"]);
    assert_eq!(steps("", "SELECT DISTINCT auction, bidder FROM bid"), ["partial distinct", "distinct"]);
    assert_eq!(steps("", "SELECT auction, SUM(CAST(price AS DOUBLE)) FROM bid GROUP BY auction"), ["group aggregate"]);
    assert_eq!(steps("", "SELECT auction, COUNT(DISTINCT bidder) FROM bid GROUP BY auction"), ["group aggregate"]);
    let twice = "SELECT n, COUNT(*) FROM (SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction) GROUP BY n";
    let rows_go = ["partial group aggregate", "group aggregate", "group aggregate"];
    assert_eq!(steps("", twice), rows_go, "the second takes rows back");
    let plan = planned(&format!(
        "SET 'table.optimizer.agg-phase-strategy' = 'TWO_PHASE'; {}",
        into("k BIGINT, n BIGINT", counts)
    ));
    assert!(!explain(&plan, 1).contains("only while keys come often"));
}

#[test]
fn distinct_values_of_one_column_can_be_an_aggregation_of_their_own() {
    const SPLIT: &str = "SET 'table.optimizer.distinct-agg.split.enabled' = 'true';";
    let distinct = "SELECT auction, COUNT(DISTINCT bidder) FROM bid GROUP BY auction";
    assert_eq!(steps(SPLIT, distinct), ["partial distinct", "distinct", "partial group aggregate", "group aggregate"]);
    let beside = "SELECT COUNT(DISTINCT bidder), COUNT(*) FROM bid GROUP BY auction";
    let two = ["partial group aggregate by value", "group aggregate by value", "group aggregate"];
    assert_eq!(steps(SPLIT, beside), two);
    for one in [
        "SELECT COUNT(DISTINCT bidder), COUNT(DISTINCT price) FROM bid GROUP BY auction",
        "SELECT COUNT(DISTINCT bidder), AVG(price) FROM bid GROUP BY auction",
        "SELECT COUNT(DISTINCT bidder) FILTER (WHERE price > 1), 1 FROM bid GROUP BY auction",
        "SELECT auction, COUNT(DISTINCT auction) FROM bid GROUP BY auction",
    ] {
        assert_eq!(steps(SPLIT, one), ["group aggregate"], "{one}");
    }
    let forgets = format!("{SPLIT} SET 'table.exec.state.ttl' = '1 h';");
    assert_eq!(steps(&forgets, distinct), ["group aggregate"], "a value that is forgotten would be counted again");
}

#[test]
fn what_cannot_be_answered_is_refused() {
    refused(
        "SELECT labels, COUNT(*) FROM events GROUP BY labels",
        "sql-unsupported 1:1 rows cannot be grouped by 'labels': values of type MAP<STRING, BIGINT> cannot be compared with each other; CAST it or use a field of it",
    );
    refused(
        "SELECT DISTINCT ON (k) k FROM plain",
        "sql-unsupported 1:1 SELECT DISTINCT ON is not supported; ROW_NUMBER() with a bound says which row is meant",
    );
    refused(
        "SELECT auction FROM bid WHERE GROUPING(auction) = 0",
        "sql-type 1:31 aggregates are not allowed in WHERE; conditions on them belong in HAVING",
    );
}

#[test]
fn calls_that_differ_in_casts_only_are_two_calls() {
    let calls = |query: &str| {
        let sql = format!("{TABLES}{}", into("a DOUBLE, b DOUBLE, c DOUBLE", query));
        let plan = plan(&sql).unwrap_or_else(|error| panic!("{query}: {error}"));
        let found = plan.graph.nodes.iter().find_map(|node| match &node.op.kind {
            OperatorKind::GroupAggregate(aggregate) => Some(aggregate.clone()),
            _ => None,
        });
        let found = found.expect("there is an aggregation");
        found.aggregates.iter().map(|call| call.display(&found.input_schema)).collect::<Vec<_>>()
    };
    let casts = calls("SELECT SUM(price), SUM(CAST(price AS DOUBLE)), SUM(CAST(price AS INT)) FROM bid");
    assert_eq!(casts.len(), 3, "{casts:?}");
    let having = calls("SELECT SUM(price), 1, 2 FROM bid HAVING SUM(CAST(price AS DOUBLE)) > 0 AND SUM(price) > 0");
    assert_eq!(having.len(), 2, "{having:?}");
    let filters =
        "SELECT COUNT(*) FILTER (WHERE price > 1), COUNT(*) FILTER (WHERE CAST(price AS DOUBLE) > 1), 0 FROM bid";
    assert_eq!(calls(filters).len(), 2, "{:?}", calls(filters));
    let keys =
        "SELECT MAX(p), 1, CAST(CAST(p AS INT) AS DOUBLE) FROM (SELECT price AS p FROM bid) GROUP BY p, CAST(p AS INT)";
    assert_eq!(calls(keys).len(), 1, "{:?}", calls(keys));
    let ones = calls("SELECT COUNT(*), COUNT(1), COUNT(CAST(1 AS BIGINT)) FROM bid HAVING COUNT(1.0) > 0");
    assert!(ones.iter().all(|call| call.starts_with("COUNT(")), "{ones:?}");
}
