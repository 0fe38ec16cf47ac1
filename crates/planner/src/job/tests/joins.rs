//! FROM with several relations, sub-queries in expressions, sets, UNNEST and VALUES.

use mainstem_plan::operator::JoinKind;

use super::errors::all_refused;
use super::*;

const SINKS: &str = "CREATE TABLE b1 (x BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE b2 (x BIGINT, y STRING) WITH ('connector' = 'blackhole');
";

/// Those lines of the plan that begin like one of these, or that head an operator.
#[track_caller]
fn lines(sql: &str, beginnings: &[&str]) -> Vec<String> {
    let shown = operators(&format!("{SINKS}{sql}"));
    let wanted = |line: &&str| line.starts_with('[') || beginnings.iter().any(|begin| line.trim().starts_with(begin));
    shown.lines().filter(wanted).map(|line| line.trim().to_owned()).collect()
}

fn joins(sql: &str) -> Vec<JoinKind> {
    let nodes = planned(&format!("{SINKS}{sql}")).graph.nodes;
    let kinds = nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::Join(join) => Some(join.kind),
        _ => None,
    });
    kinds.collect()
}

#[test]
fn a_join_is_partitioned_by_its_keys_and_keeps_only_columns_that_are_needed() {
    check(
        "SELECT b.auction, p.v, s FROM bid b JOIN plain p ON b.auction = p.k AND b.price > p.v WHERE b.channel = 'x'",
        "
        [0] source bid
            reads: bid by filesystem, columns auction, price, channel, dateTime
            columns: auction, price, channel
        [1] filter and project
            from [0] forward
            where: channel = 'x'
            columns: auction, price
        [2] source plain
            reads: plain by filesystem, columns k, v, s
            columns: k, v, s
        [3] inner join
            from [1] hash(auction)
            from [2] hash(k)
            inner: left.auction = right.k
            condition: CAST(price AS DOUBLE) > v
        [4] project
            from [3] forward
            columns: auction, v, s
        [5] sink select 1, parallelism 1
            from [4] to one subtask
            writes: select 1 by print, columns auction, v, s
        ",
    );
}

#[test]
fn keys_that_are_expressions_become_columns() {
    assert_eq!(
        lines("INSERT INTO b1 SELECT x.k FROM plain x LEFT JOIN plain y ON x.k = y.k + 1", &["columns: ", "left: "]),
        [
            "[0] source plain",
            "columns: k",
            "[1] project",
            "columns: k, k + 1 AS __key_0",
            "[2] left join",
            "left: left.k = right.__key_0",
            "[3] project",
            "columns: k AS x",
            "[4] sink b1",
        ]
    );
}

#[test]
fn commas_cross_joins_and_parentheses_become_joins_by_their_conditions() {
    for from in
        ["bid, plain WHERE auction = k", "bid CROSS JOIN plain WHERE auction = k", "(bid JOIN plain ON auction = k)"]
    {
        let shown = operators(&format!("SELECT auction, v FROM {from}"));
        assert!(shown.contains("inner: left.auction = right.k\n"), "{shown}");
    }
    let shown = operators("SELECT COUNT(*) FROM (SELECT 1 AS one FROM plain a, plain b) AS c WHERE one > 0");
    assert!(shown.contains("inner: every row with every row"), "{shown}");
    // A row that WHERE asks something of has a partner.
    assert_eq!(joins("SELECT k FROM plain LEFT JOIN bid ON k = auction WHERE price > 3"), [JoinKind::Inner]);
    assert_eq!(joins("INSERT INTO b1 SELECT k FROM plain RIGHT JOIN bid ON k = auction"), [JoinKind::Right]);
}

#[test]
fn columns_of_using_stand_once_and_equal_names_are_told_apart() {
    let names = |sql: &str| {
        let plan = planned(sql);
        let fields = plan.graph.nodes.last().unwrap().op.schema.fields().clone();
        fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("SELECT * FROM plain a JOIN plain b USING (K)"), "k v d s t v0 d0 s0 t0");
    assert_eq!(names("SELECT b.*, a.k FROM plain a JOIN plain b ON a.k = b.k"), "k v d s t k0");
    assert_eq!(names("SELECT * FROM plain NATURAL JOIN plain p2"), "k v d s t");
    assert_eq!(names("SELECT k, a.v FROM plain a JOIN plain b USING (k) JOIN plain c USING (k)"), "k v");
    let full = "INSERT INTO b1 SELECT k FROM plain a FULL JOIN plain b USING (k)";
    assert!(
        lines(full, &["columns: CASE"])
            .contains(&"columns: CASE WHEN k IS NOT NULL THEN k ELSE k0 END AS x".to_owned())
    );
}

#[test]
fn sub_queries_in_expressions_become_joins() {
    assert_eq!(joins("SELECT auction FROM bid WHERE auction IN (SELECT k FROM plain WHERE v > 3)"), [JoinKind::Semi]);
    assert_eq!(
        joins("SELECT auction FROM bid B WHERE EXISTS (SELECT 1 FROM plain WHERE k = Auction AND S = b.channel)"),
        [JoinKind::Semi]
    );
    let anti = |null_aware| [JoinKind::Anti { null_aware }];
    let of = |condition: &str| format!("INSERT INTO b1 SELECT auction FROM bid b WHERE {condition}");
    assert_eq!(joins(&of("NOT EXISTS (SELECT 1 FROM plain WHERE k = auction)")), anti(false));
    assert_eq!(
        joins("INSERT INTO b1 SELECT k FROM plain WHERE k NOT IN (SELECT k FROM plain p)"),
        anti(false),
        "NOT NULL"
    );
    assert_eq!(joins(&of("NOT (auction IN (SELECT bidder FROM bid))")), anti(true));
    let correlated =
        lines(&of("bidder NOT IN (SELECT bidder FROM bid c WHERE c.price = b.price)"), &["anti", "condition"]);
    assert_eq!(correlated[3..5], ["anti: left.price = right.price", "condition: (bidder = bidder0) IS NOT FALSE"]);
    // All that the sub-query gives is equal: there must be nothing.
    for not_in in [
        "bidder NOT IN (SELECT price FROM bid c WHERE c.price = b.bidder)",
        "NOT (b.bidder IN (SELECT c.price FROM bid c WHERE bidder = b.Bidder AND b.Bidder = c.price))",
    ] {
        assert_eq!(joins(&of(not_in)), anti(false), "{not_in}");
    }
    // Beside OR, each row is kept with whether it has a partner.
    assert_eq!(joins(&of("price > 7 OR auction IN (SELECT k FROM plain)")).len(), 2);
    let value =
        lines(&of("price > (SELECT max(v) FROM plain WHERE k = b.auction)"), &["inner", "condition", "group by"]);
    assert!(value.contains(&"inner: left.auction = right.k".to_owned()), "{value:?}");
    assert!(value.contains(&"condition: CAST(price AS DOUBLE) > `max(v)`".to_owned()), "{value:?}");
}

#[test]
fn sets_are_unions_and_counts_of_rows() {
    assert_eq!(
        lines("SELECT k FROM plain INTERSECT SELECT auction FROM bid", &["from", "rows of"]),
        [
            "[0] source plain",
            "[1] source bid",
            "[2] intersect",
            "from [0] hash(k)",
            "from [1] hash(auction)",
            "rows of: left INTERSECT right",
            "[3] sink select 1, parallelism 1",
            "from [2] to one subtask",
        ]
    );
    let chain = "INSERT INTO b1 SELECT k FROM plain UNION ALL SELECT auction FROM bid UNION SELECT bidder FROM bid";
    let heads = lines(chain, &[]);
    assert_eq!(heads.iter().filter(|line| line.ends_with("] union")).count(), 1, "{heads:?}");
    assert_eq!(heads.iter().filter(|line| line.ends_with("] distinct")).count(), 1, "{heads:?}");
    let all = lines("INSERT INTO b1 SELECT k FROM plain EXCEPT ALL SELECT k FROM plain", &["rows of"]);
    assert_eq!(
        all,
        ["[0] source plain", "[1] copy", "[2] except", "rows of: left EXCEPT ALL right", "[3] project", "[4] sink b1"]
    );
}

#[test]
fn collections_are_unnested_beside_their_row() {
    assert_eq!(
        lines(
            "SELECT x, k, n, event_type FROM events CROSS JOIN UNNEST(tags) AS t(x)
            LEFT JOIN UNNEST(labels) WITH ORDINALITY AS l(k, v, n) ON TRUE WHERE event_type = 3",
            &["where", "elements", "columns"]
        ),
        [
            "[0] source events",
            "columns: event_type, tags, labels",
            "[1] filter and project",
            "where: event_type = 3",
            "columns: event_type, labels, tags AS __collection_10_58",
            "[2] unnest",
            "elements of: __collection_10_58",
            "columns: event_type, labels, x",
            "[3] unnest",
            "elements of: labels; rows without elements are kept",
            "columns: event_type, x, k, v, n",
            "[4] project",
            "columns: x, k, n, event_type",
            "[5] sink select 1, parallelism 1",
        ]
    );
    let windowed =
        "SELECT x, count(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND)), UNNEST(tags) AS t(x)
        GROUP BY x, window_start, window_end";
    assert!(lines(windowed, &[]).iter().any(|line| line.ends_with("window partial aggregate")), "windows pass through");
}

#[test]
fn rows_may_stand_in_the_text() {
    assert_eq!(
        lines("INSERT INTO out_small VALUES (1, 2), (3, 4.5)", &["reads", "columns"]),
        [
            "[0] values",
            "reads: values by values, columns column1, column2",
            "columns: column1, column2",
            "[1] project",
            "columns: CAST(column1 AS INT) AS k, CAST(column2 AS DOUBLE) AS v",
            "[2] sink out_small",
        ]
    );
    assert_eq!(lines("SELECT 1 AS a, UPPER('x') AS b", &["columns: 1"])[2], "columns: 1 AS a, 'X' AS b");
}

#[test]
fn mistakes_in_from_have_their_place() {
    let names = [
        (
            "SELECT k FROM plain a JOIN plain b ON a.k = b.k",
            "1:8 'k' may mean a column of several tables here: a.k or b.k; write it with its table's name",
        ),
        ("SELECT 1 FROM plain a JOIN plain b ON a.k = b.kk", "1:47 unknown column 'kk' in ON; did you mean 'k'?"),
        (
            "SELECT 1 FROM plain a JOIN plain b ON c.k = b.k",
            "1:39 'c' in 'c.k' is neither a table nor a column in ON; did you mean 'a'?",
        ),
        (
            "SELECT 1 FROM plain, plain",
            "1:22 two tables of this FROM are called 'plain'; give one of them an alias with AS",
        ),
        (
            "SELECT 1 FROM bid JOIN plain USING (k)",
            "1:37 the left side of the join has no column 'k'; it has: auction, bidder, price, channel, url, dateTime, extra, p_time",
        ),
        (
            "SELECT 1 FROM bid NATURAL JOIN plain",
            "1:32 NATURAL JOIN needs columns of the same name on both sides, and there are none",
        ),
        (
            "SELECT k FROM plain WHERE k IN (SELECT auction FROM bid WHERE prise > k)",
            "1:63 unknown column 'prise' in WHERE; did you mean 'price'?",
        ),
        ("SELECT 1 FROM events, UNNEST(tags) AS t(x, y)", "1:41 2 column names are given for 1 columns of UNNEST"),
    ];
    all_refused("sql-name", &names);
    let types = [
        ("SELECT 1 FROM bid JOIN plain ON auction + k", "1:33 ON needs a condition, this is of type BIGINT"),
        (
            "SELECT 1 FROM bid JOIN plain ON count(*) > k",
            "1:33 aggregates are not allowed in ON; conditions on them belong in HAVING",
        ),
        (
            "SELECT 1 FROM plain a JOIN (SELECT auction AS s FROM bid) b USING (s)",
            "1:68 column 's' is of type STRING on the left and of type BIGINT on the right; write ON with a CAST",
        ),
        (
            "SELECT k FROM plain WHERE k IN (SELECT auction, price FROM bid)",
            "1:33 a sub-query for IN must have one column, this one has 2",
        ),
        ("SELECT 1 FROM bid, UNNEST(price) AS t(x)", "1:27 UNNEST takes an array or a map, this is of type BIGINT"),
        (
            "SELECT * FROM (VALUES (1), ('x'))",
            "1:29 this value is of type STRING, those before it are BIGINT; write a CAST",
        ),
        ("SELECT * FROM (VALUES (1, 2), (3))", "1:32 this row has 1 values, the first has 2"),
        (
            "SELECT k FROM plain INTERSECT SELECT url FROM bid",
            "1:31 column 1 ('url') of this query of the INTERSECT is of type STRING, in the first query it is BIGINT; write a CAST",
        ),
    ];
    all_refused("sql-type", &types);
    let unsupported = [
        (
            "SELECT 1 FROM bid FOR SYSTEM_TIME AS OF `dateTime`",
            "1:15 FOR SYSTEM_TIME AS OF belongs to a table that is joined: FROM a JOIN b FOR SYSTEM_TIME AS OF a.ts ON ...",
        ),
        (
            "SELECT 1 FROM plain WHERE k = (SELECT auction FROM bid)",
            "1:32 a sub-query that stands for a value must give one row; aggregate it, for example by MAX(...)",
        ),
        (
            "SELECT k IN (SELECT auction FROM bid) FROM plain",
            "1:8 IN (SELECT ...) and EXISTS are conditions on rows; they belong in WHERE",
        ),
        (
            "SELECT 1 FROM plain WHERE v > 1 OR k NOT IN (SELECT auction FROM bid)",
            "1:36 this IN (SELECT ...) could be NULL in a place where that is not the same as false; put it beside AND or OR, NOT IN beside AND, or write EXISTS (SELECT ...)",
        ),
        (
            "SELECT 1 FROM plain JOIN bid ON k = auction AND k IN (SELECT bidder FROM bid)",
            "1:49 sub-queries cannot stand in ON; those in FROM, WHERE, HAVING and the SELECT list can",
        ),
        (
            "SELECT 1 FROM plain LEFT JOIN UNNEST(split(s, ',')) AS t(x) ON x = 'a'",
            "1:38 UNNEST can be joined by CROSS JOIN, INNER JOIN, or by LEFT JOIN with ON TRUE",
        ),
        (
            "SELECT 1 FROM plain, LATERAL (SELECT auction FROM bid) b",
            "1:31 LATERAL before a sub-query is not supported; before TABLE(UNNEST(...)) it is",
        ),
        ("SELECT *", "1:1 SELECT * needs a FROM"),
    ];
    all_refused("sql-unsupported", &unsupported);
}
