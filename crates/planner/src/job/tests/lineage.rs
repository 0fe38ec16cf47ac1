//! Lineage of columns: what the sinks of whole files come from.

use std::collections::BTreeSet;

use mainstem_plan::lineage::{Origin, lineage};

use super::*;

fn names(origins: &BTreeSet<Origin>) -> String {
    let names: BTreeSet<String> = origins.iter().map(|o| format!("{}.{}", o.table, o.column)).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// A line for each column of each sink, and one for what decides over its rows.
#[track_caller]
fn check(sql: &str, expected: &str) {
    let mut lines = Vec::new();
    for sink in lineage(&planned(sql).graph) {
        lines.extend(
            sink.columns.iter().map(|column| format!("{}.{}: {}", sink.table, column.column, names(&column.from))),
        );
        lines.push(format!("rows of {}: {}", sink.table, names(&sink.decided_by)));
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(lines, expected, "{sql}");
}

#[test]
fn a_window_gives_keys_counts_and_times_and_late_rows_are_whole() {
    check(
        "SET 'late-rows.table' = 'out_late';
        INSERT INTO out_counts SELECT auction, COUNT(*) FILTER (WHERE bidder > 3), window_start, window_end
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) WHERE price > 100
        GROUP BY auction, window_start, window_end",
        "out_counts.auction: bid.auction
        out_counts.n:
        out_counts.w_start: bid.dateTime
        out_counts.w_end: bid.dateTime
        rows of out_counts: bid.auction bid.bidder bid.dateTime bid.price
        out_late.operator:
        out_late.event_time: bid.dateTime
        out_late.row: bid.auction bid.bidder bid.dateTime bid.price
        rows of out_late: bid.dateTime bid.price",
    );
}

#[test]
fn an_aggregate_in_two_steps_comes_from_what_it_comes_from_in_one() {
    for strategy in ["ONE_PHASE", "TWO_PHASE"] {
        check(
            &format!(
                "SET 'table.optimizer.agg-phase-strategy' = '{strategy}';
                CREATE TABLE most (a BIGINT, p BIGINT) WITH ('connector' = 'blackhole');
                INSERT INTO most SELECT auction, MAX(price) FILTER (WHERE bidder > 3) FROM bid GROUP BY auction"
            ),
            "most.a: bid.auction
            most.p: bid.price
            rows of most: bid.auction bid.bidder",
        );
    }
}

#[test]
fn joins_have_both_sides_and_semi_joins_the_left_alone() {
    check(
        "INSERT INTO out_small SELECT 1, b.price * p.v FROM bid AS b JOIN plain AS p ON b.auction = p.k AND b.bidder > p.d",
        "out_small.k:
        out_small.v: bid.price plain.v
        rows of out_small: bid.auction bid.bidder plain.d plain.k",
    );
    check(
        "INSERT INTO out_files SELECT auction, price FROM bid WHERE bidder IN (SELECT k FROM plain WHERE s = 'x')",
        "out_files.auction: bid.auction
        out_files.price: bid.price
        rows of out_files: bid.bidder plain.k plain.s",
    );
}

#[test]
fn unions_computed_columns_and_ranks_are_followed() {
    check(
        "INSERT INTO out_files SELECT auction, 7 FROM bid UNION ALL SELECT bidder, price + 1 FROM bid",
        "out_files.auction: bid.auction bid.bidder
        out_files.price: bid.price
        rows of out_files:",
    );
    check(
        "CREATE TABLE best (a BIGINT, p BIGINT, rn BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO best SELECT auction, price, rn FROM (
          SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder ORDER BY price DESC) AS rn FROM bid) WHERE rn <= 3",
        "best.a: bid.auction
        best.p: bid.price
        best.rn: bid.price
        rows of best: bid.bidder bid.price",
    );
    check(
        "CREATE TABLE times (ts TIMESTAMP(3), tag STRING) WITH ('connector' = 'blackhole');
        INSERT INTO times SELECT ts, tag FROM events CROSS JOIN UNNEST(tags) AS t (tag)",
        "times.ts: events.auction events.bid events.event_type events.person
        times.tag: events.tags
        rows of times: events.tags",
    );
}
