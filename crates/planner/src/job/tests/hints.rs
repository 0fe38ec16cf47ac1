//! `SELECT /*+ STATE_TTL(...) */`: which operator heeds it, and what is refused.

use super::errors::all_refused;
use super::*;

/// The times to live (ms) of all operators that can have one; of a join those of its sides.
fn ttls(sql: &str) -> Vec<Option<u64>> {
    let nodes = planned(sql).graph.nodes;
    let ttls = nodes.iter().flat_map(|node| match &node.op.kind {
        OperatorKind::Join(join) => vec![join.left_ttl_ms, join.right_ttl_ms],
        OperatorKind::GroupAggregate(aggregate) => vec![aggregate.ttl_ms],
        OperatorKind::Rank(rank) => vec![rank.ttl_ms],
        OperatorKind::OverAggregate(over) => vec![over.ttl_ms],
        _ => vec![],
    });
    ttls.collect()
}

const HOUR: u64 = 3_600_000;

#[test]
fn each_side_of_a_join_has_its_time_to_live() {
    let join = |hint: &str, from: &str| format!("SELECT {hint} b.auction, b.price FROM {from}");
    let from = "bid AS b JOIN plain ON b.auction = plain.k";
    assert_eq!(ttls(&join("/*+ STATE_TTL('b' = '1 h', 'plain' = '2h') */", from)), [HOUR, 2 * HOUR].map(Some).to_vec());
    assert_eq!(ttls(&join("/*+ state_ttl(PLAIN = '1 d') */ DISTINCT", from)), vec![None, Some(24 * HOUR), None]);
    // What the hint does not name has the time to live of the job; 0 is for ever.
    let job = format!("SET 'table.exec.state.ttl' = '5 min'; {}", join("/*+ STATE_TTL('b' = '0 s') */", from));
    assert_eq!(ttls(&job), vec![None, Some(300_000)]);
    // Filters and projections may lie between.
    let filtered = format!("{from} WHERE b.price > 7 AND plain.s = 'x' AND b.bidder + 1 > 2");
    assert_eq!(ttls(&join("/*+ STATE_TTL('b' = '1 h') STATE_TTL('plain' = '1 h') */", &filtered)), vec![Some(HOUR); 2]);
    let query = "(SELECT k, s FROM plain WHERE v > 1) AS p JOIN bid b ON b.auction = p.k";
    assert_eq!(ttls(&join("/*+ STATE_TTL('p' = '1 h') */", query)), vec![Some(HOUR), None]);
}

#[test]
fn the_left_side_of_a_second_join_has_the_time_to_live_of_the_job() {
    let sql = "SELECT /*+ STATE_TTL('a' = '1 h', 'b' = '2 h', 'c' = '3 h') */ a.auction
        FROM bid a JOIN plain b ON a.auction = b.k JOIN plain c ON a.bidder = c.k";
    assert_eq!(ttls(sql), vec![Some(HOUR), Some(2 * HOUR), None, Some(3 * HOUR)]);
    let comma = "SELECT /*+ STATE_TTL('a' = '1 h', 'b' = '2 h') */ a.auction FROM bid a, plain b WHERE a.auction = b.k";
    assert_eq!(ttls(comma), vec![Some(HOUR), Some(2 * HOUR)]);
}

#[test]
fn sub_queries_have_hints_of_their_own() {
    let sql = "SELECT /*+ STATE_TTL('b' = '1 h') */ auction FROM bid b
        WHERE b.auction IN (SELECT /*+ STATE_TTL('plain' = '2 h') */ k FROM plain WHERE plain.v > b.price)";
    assert_eq!(ttls(sql), vec![Some(HOUR), Some(2 * HOUR)]);
    let nested = "SELECT /*+ STATE_TTL('n' = '3 h') */ n.c, plain.s
        FROM (SELECT /*+ STATE_TTL('bid' = '1 h') */ auction, COUNT(*) AS c FROM bid GROUP BY auction) AS n
        JOIN plain ON n.auction = plain.k";
    assert_eq!(ttls(nested), vec![Some(HOUR), Some(3 * HOUR), None]);
    let view =
        "CREATE VIEW v AS SELECT /*+ STATE_TTL('bid' = '1 h') */ auction, COUNT(*) AS c FROM bid GROUP BY auction;
        SELECT /*+ STATE_TTL('v' = '2 h') */ c, COUNT(*) FROM v GROUP BY c";
    assert_eq!(ttls(view), vec![Some(HOUR), Some(2 * HOUR)]);
}

#[test]
fn aggregations_and_orders_heed_hints() {
    let hint = "/*+ STATE_TTL('bid' = '1 h') */";
    for sql in [
        format!("SELECT {hint} auction, COUNT(*) FROM bid WHERE price > 1 GROUP BY auction"),
        format!("SELECT {hint} DISTINCT auction FROM bid"),
        format!(
            "SELECT auction FROM (SELECT {hint} auction, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price) AS n
             FROM bid) WHERE n <= 3"
        ),
        format!("SELECT {hint} auction, SUM(price) OVER (PARTITION BY auction ORDER BY `dateTime`) FROM bid"),
    ] {
        assert_eq!(ttls(&sql), vec![Some(HOUR)], "{sql}");
    }
}

#[test]
fn explain_says_what_is_given_up() {
    let sql = "SELECT /*+ STATE_TTL('b' = '90 min') */ b.auction FROM bid AS b JOIN plain ON b.auction = plain.k";
    let shown = explain(&planned(sql), 1);
    let state = "state: rows of the left side, forgotten when unchanged for 90 min (time to live: later partners do not \
                 find them); rows of the right side, for the life of the job";
    assert!(shown.contains(state), "{shown}");
}

#[test]
fn hints_that_mean_nothing_are_refused() {
    let of = |hint: &str| format!("SELECT /*+ {hint} */ k FROM plain AS p GROUP BY k");
    let form = "a hint looks like /*+ STATE_TTL('table' = '1 h', 'other' = '30 min') */";
    all_refused(
        "sql-name",
        &[
            (
                of("STATE_TTL('p' = '1 h', 'plane' = '1 h')"),
                "1:35 STATE_TTL names 'plane', which is no table or alias of this FROM; there are: p",
            ),
            (
                of("\n  STATE_TTL('bid' = '1 h')"),
                "2:13 STATE_TTL names 'bid', which is no table or alias of this FROM; there are: p",
            ),
            (of("STATE_TTL('p' = '1 h'), STATE_TTL(p = '2 h')"), "1:46 STATE_TTL names 'p' twice"),
        ],
    );
    all_refused(
        "sql-option",
        &[(
            of("STATE_TTL('p' = 'soon')"),
            "1:28 STATE_TTL of 'p' is 'soon': expected a duration such as '1 h' or '7 d'",
        )],
    );
    all_refused(
        "sql-syntax",
        &[
            (of("STATE_TTL('p')"), format!("1:25 {form}; here is ')'").as_str()),
            (of("STATE_TTL('p' = 1)"), format!("1:28 {form}; here is '1'").as_str()),
            (of("STATE_TTL('p' = '1 h'"), format!("1:28 {form}; here is its end").as_str()),
        ],
    );
    let behind = "a hint (/*+ ... */) stands right behind SELECT, or is OPTIONS right behind a table";
    let unused = |name: &str| {
        format!(
            "STATE_TTL has no effect on '{name}': its rows go to no join, aggregation, Top-N or OVER that keeps them \
             without a bound in time; leave the hint out"
        )
    };
    all_refused(
        "sql-unsupported",
        &[
            (of("BROADCAST(p)"), "1:12 the hint 'BROADCAST' is not supported; STATE_TTL is"),
            ("SELECT k FROM plain /*+ STATE_TTL('a' = 'b') */".to_owned(), format!("1:21 {behind}").as_str()),
            (
                "SELECT /*+ STATE_TTL('plain' = '1 h') */ k FROM plain".to_owned(),
                format!("1:22 {}", unused("plain")).as_str(),
            ),
            (
                "SELECT /*+ STATE_TTL('a' = '1 h') */ a.auction FROM bid a JOIN bid b ON a.auction = b.auction
                 AND a.`dateTime` BETWEEN b.`dateTime` - INTERVAL '1' HOUR AND b.`dateTime`"
                    .to_owned(),
                format!("1:22 {}", unused("a")).as_str(),
            ),
        ],
    );
}

#[test]
fn other_comments_are_no_hints() {
    let sql = "SELECT --+ STATE_TTL('x' = '1 h')\n /*a+b*/ /* + */ k FROM plain GROUP BY k /* + */";
    assert_eq!(ttls(sql), vec![None]);
}
