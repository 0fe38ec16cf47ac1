//! MATCH_RECOGNIZE: plans, and what is refused.

use mainstem_plan::operator::{AfterMatch, MatchEnd, PatternElement, PatternMatch, Reference};

use super::*;

const TABLES: &str = "CREATE TABLE changes (a BIGINT, b BIGINT, c BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE counts (auction BIGINT, n BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'blackhole');
";

fn plan_of(sql: &str) -> JobPlan {
    planned(&format!("{TABLES}{sql}"))
}

/// The clause over bids, with parts that matter.
fn clause(parts: &str) -> String {
    format!("SELECT * FROM bid MATCH_RECOGNIZE ({parts})")
}

/// The only MATCH_RECOGNIZE of the plan.
#[track_caller]
fn spec(sql: &str) -> PatternMatch {
    let plan = plan_of(&format!("EXPLAIN {sql}"));
    let mut specs = plan.graph.nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::PatternMatch(spec) => Some(spec.clone()),
        _ => None,
    });
    let spec = specs.next().expect("there is one");
    assert!(specs.next().is_none());
    spec
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

const CHARGES: &str = "SELECT * FROM bid MATCH_RECOGNIZE (
    PARTITION BY auction
    ORDER BY `dateTime`, price DESC
    MEASURES A.price AS first_price, COUNT(B.price) AS n, SUM(price) AS total, MATCH_ROWTIME() AS at
    ONE ROW PER MATCH
    AFTER MATCH SKIP TO LAST C
    PATTERN (A B{2,}? C) WITHIN INTERVAL '10' MINUTE
    DEFINE
        A AS price < 10,
        B AS B.price > 5 AND B.price < LAST(B.price, 1) + A.price AND AVG(B.price) < 100,
        C AS C.price > 1000)";

#[test]
fn the_plan_shows_pattern_conditions_and_what_is_kept() {
    let text = explain(&plan_of(&format!("EXPLAIN {CHARGES}")), 2);
    let from = text.find("[1] match").unwrap_or_else(|| panic!("{text}"));
    let shown: Vec<&str> = text[from..].lines().map(str::trim).take_while(|line| !line.starts_with("[2]")).collect();
    assert_eq!(
        shown.join("\n"),
        "\
[1] match, parallelism 2
from [0] hash(auction)
partition by: auction
order by: dateTime, price DESC
pattern: A B{2,}? C within 10 min
define: A AS price < 10
define: B AS price > 5 AND (B.price < (LAST(B.price, 1) + A.price)) AND (AVG(B.price) < 100)
define: C AS price > 1000
measures: A.price AS first_price, COUNT(B.price) AS n, SUM(price) AS total, dateTime AS at
after match: to the last C
state: rows until the watermark passes them; rows from the first of the oldest match under way on, released when the \
watermark is 10 min behind that row"
    );
}

#[test]
fn without_within_the_plan_says_that_there_is_no_bound() {
    let pattern = |pattern: &str| {
        let sql =
            clause(&format!("ORDER BY `dateTime` MEASURES A.price AS p PATTERN ({pattern}) DEFINE A AS price > 1"));
        explain(&plan_of(&format!("EXPLAIN {sql}")), 2)
    };
    assert!(pattern("A+ B").contains("careful: without WITHIN there is no bound in time"));
    assert!(pattern("A{1,5} B").contains("released when the next rows do not match"));
    // All rows are of one partition.
    assert!(pattern("A B").contains("to one subtask"));
}

#[test]
fn quantifiers_are_read_greedy_and_reluctant() {
    let pattern = "A B* C*? D+ E+? F? G{3} H{2,} I{2,}? J{,4} K{1,2}? L";
    let sql = clause(&format!("ORDER BY `dateTime` MEASURES A.price AS p PATTERN ({pattern}) DEFINE A AS price > 1"));
    let element = |(variable, (min, max, greedy))| PatternElement { variable, min, max, greedy };
    let expected = [
        (1, Some(1), true),
        (0, None, true),
        (0, None, false),
        (1, None, true),
        (1, None, false),
        (0, Some(1), true),
        (3, Some(3), true),
        (2, None, true),
        (2, None, false),
        (0, Some(4), true),
        (1, Some(2), false),
        (1, Some(1), true),
    ];
    assert_eq!(spec(&sql).elements, expected.into_iter().enumerate().map(element).collect::<Vec<_>>());
    let grouped = clause("ORDER BY `dateTime` MEASURES A.price AS p PATTERN ((A (B)+) A) DEFINE A AS price > 1");
    assert_eq!(spec(&grouped).elements.iter().map(|element| element.variable).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn conditions_on_the_row_alone_are_told_from_those_on_the_match() {
    let spec = spec(CHARGES);
    let kinds: Vec<(bool, bool)> = spec
        .variables
        .iter()
        .map(|variable| (variable.row_condition.is_some(), variable.match_condition.is_some()))
        .collect();
    assert_eq!(kinds, [(true, false), (true, true), (true, false)]);
    assert_eq!(spec.skip, AfterMatch::ToLast(2));
    assert_eq!(spec.within_ms, Some(600_000));
    let columns = spec.references.iter().filter_map(|reference| match reference {
        Reference::Column { variable, from, offset, .. } => Some((*variable, *from, *offset)),
        Reference::Aggregate { .. } => None,
    });
    let expected = [
        (None, MatchEnd::Last, 0),
        (Some(1), MatchEnd::Last, 0),
        (Some(1), MatchEnd::Last, 1),
        (Some(0), MatchEnd::Last, 0),
        (Some(2), MatchEnd::Last, 0),
        (None, MatchEnd::Last, 0),
    ];
    assert_eq!(columns.collect::<Vec<_>>(), expected, "price once, and at the end the event time");
}

#[test]
fn the_time_of_a_match_is_event_time() {
    let sql = format!(
        "INSERT INTO counts SELECT auction, SUM(n), window_time FROM TABLE(TUMBLE(DATA => ({CHARGES}), TIMECOL => DESCRIPTOR(at), \
         SIZE => INTERVAL '1' HOUR)) GROUP BY auction, window_start, window_end, window_time"
    );
    let view = format!(
        "CREATE VIEW found AS {CHARGES};
        INSERT INTO counts SELECT auction, COUNT(*), TUMBLE_ROWTIME(at, INTERVAL '1' HOUR) FROM found GROUP BY auction, TUMBLE(at, INTERVAL '1' HOUR)"
    );
    for sql in [sql, view] {
        let text = explain(&plan_of(&sql), 2);
        assert!(text.contains("windows: tumble, size 1 h on at"), "{text}");
    }
}

#[test]
fn queries_views_and_joins_may_stand_around_it() {
    let pattern = "MATCH_RECOGNIZE (PARTITION BY auction ORDER BY `dateTime` MEASURES LAST(A.price) AS p, FIRST(A.price + 1) AS q PATTERN (A+ B) DEFINE A AS price > 1)";
    let forms = [
        format!(
            "SELECT T.auction, T.p FROM (SELECT auction, price, `dateTime` FROM bid WHERE price > 2) {pattern} AS T"
        ),
        format!("SELECT p FROM bid AS b {pattern} WHERE auction = 5"),
        format!("WITH found AS (SELECT * FROM bid {pattern}) SELECT COUNT(*) FROM found"),
        format!("SELECT T.p, bid.price FROM bid JOIN bid {pattern} AS T ON bid.auction = T.auction"),
        format!(
            "SELECT m FROM (SELECT * FROM (SELECT * FROM bid) {}) MATCH_RECOGNIZE (ORDER BY at MEASURES SUM(X.p) AS m PATTERN (X Y) DEFINE X AS p > 1)",
            pattern.replace("MEASURES", "MEASURES MATCH_ROWTIME() AS at,")
        ),
    ];
    for sql in forms {
        let plan = plan_of(&format!("EXPLAIN {sql}"));
        assert!(plan.graph.nodes.iter().any(|node| matches!(node.op.kind, OperatorKind::PatternMatch(_))));
    }
}

#[test]
fn what_is_not_supported_is_refused_by_place() {
    let ordered = |rest: &str| clause(&format!("ORDER BY `dateTime` {rest}"));
    let cases = [
        (
            clause("PARTITION BY auction MEASURES A.price AS p PATTERN (A) DEFINE A AS price > 1"),
            "sql-window 1:15 MATCH_RECOGNIZE needs ORDER BY the event time: rows without an order match nothing",
        ),
        (
            clause("ORDER BY price MEASURES A.price AS p PATTERN (A) DEFINE A AS price > 1"),
            "sql-window 1:45 MATCH_RECOGNIZE must be ordered by event time first: a column with a WATERMARK, as it is",
        ),
        (
            clause("ORDER BY p_time MEASURES A.price AS p PATTERN (A) DEFINE A AS price > 1"),
            "sql-window 1:45 MATCH_RECOGNIZE must be ordered by event time first: a column with a WATERMARK, as it is",
        ),
        (
            clause("ORDER BY `dateTime` DESC MEASURES A.price AS p PATTERN (A) DEFINE A AS price > 1"),
            "sql-window 1:45 MATCH_RECOGNIZE goes from the oldest row to the newest; take out DESC",
        ),
        (
            clause("PARTITION BY MOD(auction, 3) ORDER BY `dateTime` PATTERN (A) DEFINE A AS price > 1"),
            "sql-unsupported 1:49 PARTITION BY of MATCH_RECOGNIZE takes columns as they are; compute them in a view or sub-query below",
        ),
        (
            ordered("MEASURES A.price AS p ALL ROWS PER MATCH PATTERN (A) DEFINE A AS price > 1"),
            "sql-unsupported 1:78 ALL ROWS PER MATCH is not supported; ONE ROW PER MATCH is, with MEASURES that aggregate",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A) SUBSET X = (A) DEFINE A AS price > 1"),
            "sql-unsupported 1:90 SUBSET is not supported; name the variables one by one",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A (B | C)) DEFINE A AS price > 1"),
            "sql-unsupported 1:92 alternatives (|) are not supported in PATTERN; write a condition with OR, or two queries",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (PERMUTE(A, B)) DEFINE A AS price > 1"),
            "sql-unsupported 1:87 PERMUTE is not supported in PATTERN; write the variables in one order",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (^ A B) DEFINE A AS price > 1"),
            "sql-unsupported 1:87 ^ is not supported in PATTERN: a stream has no first row to wait for",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A {- B -} C) DEFINE A AS price > 1"),
            "sql-unsupported 1:89 exclusion ({- -}) is not supported in PATTERN",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A (B C)+ D) DEFINE A AS price > 1"),
            "sql-unsupported 1:90 a quantifier of several variables is not supported in PATTERN; only that of a single one is",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B?? C) DEFINE A AS price > 1"),
            "sql-unsupported 1:89 a reluctant 'B??' is not supported in PATTERN; use 'B*?'",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B+) DEFINE A AS price > 1"),
            "sql-unsupported 1:89 PATTERN cannot end with the greedy 'B', because a stream always may have one more row for it; end it with a variable of one row, or a reluctant quantifier such as '+?'",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A* B*?) DEFINE A AS price > 1"),
            "sql-unsupported 1:87 PATTERN could match no rows at all; at least one variable must take a row",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A{0} B) DEFINE A AS price > 1"),
            "sql-syntax 1:87 'A' would take no row at all; take it out of PATTERN",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A{3,2} B) DEFINE A AS price > 1"),
            "sql-syntax 1:87 the least number of rows of 'A' is greater than the greatest",
        ),
        (
            ordered("MEASURES A.price AS p AFTER MATCH SKIP TO FIRST A PATTERN (A B) DEFINE A AS price > 1"),
            "sql-unsupported 1:104 'A' is always the first row of a match, so that the next match would be the same; skip TO NEXT ROW",
        ),
        (
            ordered("MEASURES A.price AS p AFTER MATCH SKIP TO LAST X PATTERN (A B) DEFINE A AS price > 1"),
            "sql-name 1:103 the pattern has no variable 'X'; did you mean 'A'?",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE C AS price > 1"),
            "sql-name 1:99 the pattern has no variable 'C'; did you mean 'A'?",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE A AS price > 1, A AS price > 2"),
            "sql-name 1:115 'A' is defined twice",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE A AS price"),
            "sql-type 1:104 DEFINE needs a condition for 'A', this is of type BIGINT",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE A AS PREV(A.price) > 1"),
            "sql-unsupported 1:104 PREV is not supported, as in Flink; LAST(variable.column, 1) is the row before the last one",
        ),
        (
            ordered("MEASURES CLASSIFIER() AS p PATTERN (A B) DEFINE A AS price > 1"),
            "sql-unsupported 1:65 CLASSIFIER is not supported, as in Flink; name the variable of each measure",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE B AS LAST(A.price + B.price, 1) > 1"),
            "sql-unsupported 1:104 LAST takes columns of one variable",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE B AS SUM(A.price * B.price) > 1"),
            "sql-unsupported 1:104 SUM takes columns of one variable, as in Flink",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE B AS LAST(A.price, B.price) > 1"),
            "sql-unsupported 1:104 the distance of LAST must be a constant whole number",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE B AS `dateTime` > NOW()"),
            "sql-unsupported 1:104 DEFINE cannot read the clock or the watermark: after a restart other rows would match",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) DEFINE B AS prize > 1"),
            "sql-name 1:104 unknown column 'prize' in DEFINE; did you mean 'price'?",
        ),
        (
            ordered("MEASURES X.price AS p PATTERN (A B) DEFINE B AS price > 1"),
            "sql-name 1:65 'X' in 'X.price' is no variable of the pattern; did you mean 'A'?",
        ),
        (
            ordered("MEASURES A.price AS p, B.price AS p PATTERN (A B) DEFINE B AS price > 1"),
            "sql-name 1:90 two columns of MATCH_RECOGNIZE are named 'p'; give one another name",
        ),
        (
            ordered("PATTERN (A B) DEFINE B AS price > 1"),
            "sql-unsupported 1:15 MATCH_RECOGNIZE gives no columns; add MEASURES or PARTITION BY",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) WITHIN INTERVAL '1' MONTH DEFINE B AS price > 1"),
            "sql-window 1:92 the length of WITHIN is in months or years, whose lengths differ; give it in days or less",
        ),
        (
            ordered("MEASURES A.price AS p PATTERN (A B) WITHIN INTERVAL '0' SECOND DEFINE B AS price > 1"),
            "sql-window 1:92 the length of WITHIN must be positive",
        ),
        (
            "SELECT * FROM (SELECT auction, MAX(price) AS price, MAX(`dateTime`) AS `dateTime` FROM bid GROUP BY auction) MATCH_RECOGNIZE (ORDER BY `dateTime` MEASURES A.price AS p PATTERN (A) DEFINE A AS price > 1)".to_owned(),
            "sql-window 1:136 MATCH_RECOGNIZE must be ordered by event time first: a column with a WATERMARK, as it is",
        ),
    ];
    for (sql, expected) in cases {
        refused(&sql, expected);
    }
    let deep = format!("MEASURES A.price AS p PATTERN ({}A{}) DEFINE A AS price > 1", "(".repeat(60), ")".repeat(60));
    refused(&ordered(&deep), "sql-limit 1:137 PATTERN is nested deeper than 50");
}
