//! Everything that is refused, with its place. Places count from the line after the tables.

use super::*;

fn answer(sql: &str) -> String {
    match plan(&format!("{TABLES}{sql}")) {
        Ok(plan) => explain(&plan, 1),
        Err(error) => {
            let line = error.line.saturating_sub(u64::try_from(TABLES.lines().count()).unwrap());
            format!("{} {line}:{} {}", error.code, error.column, error.message)
        }
    }
}

#[track_caller]
fn refused(sql: &str, expected: &str) {
    assert_eq!(answer(sql), expected, "{sql}");
}

/// Shows all differences at once.
#[track_caller]
pub(super) fn all_refused<S: AsRef<str>>(code: &str, cases: &[(S, &str)]) {
    let wrong = cases.iter().filter(|(sql, expected)| answer(sql.as_ref()) != format!("{code} {expected}"));
    let wrong: Vec<String> = wrong
        .map(|(sql, expected)| {
            format!("{}\n  answer   {}\n  expected {code} {expected}", sql.as_ref(), answer(sql.as_ref()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn constructs_that_are_not_there_yet() {
    let cases = [
        (
            "SELECT x FROM bid, LATERAL TABLE(f(url)) AS t(x)",
            "1:28 this table function is not supported; TABLE(UNNEST(...)) is",
        ),
        (
            "SELECT ts FROM events MATCH_RECOGNIZE (ORDER BY ts MEASURES A.ts AS x PATTERN (A | B) DEFINE A AS TRUE)",
            "1:82 alternatives (|) are not supported in PATTERN; write a condition with OR, or two queries",
        ),
        (
            "SELECT auction FROM bid HAVING auction > 3",
            "1:32 HAVING needs a GROUP BY or aggregates; use WHERE for conditions on single rows",
        ),
        (
            "SELECT k FROM a.plain",
            "1:15 the name 'a.plain' has several parts; there are no catalogs and databases here, use a plain name",
        ),
        (
            "SELECT random() FROM bid",
            "1:8 RANDOM is not deterministic: after a failure a replay would give other results; take such values from the source",
        ),
    ];
    all_refused("sql-unsupported", &cases);
}

#[test]
fn names_that_are_not_there() {
    let cases = [
        ("SELECT prise FROM bid", "1:8 unknown column 'prise' in the SELECT list; did you mean 'price'?"),
        (
            "SELECT auction\nFROM bid WHERE b + 1 > 2",
            "2:16 unknown column 'b' in WHERE; known here are: auction, bidder, price, channel, url, dateTime, extra, p_time",
        ),
        ("SELECT x.prise FROM bid x", "1:10 unknown column 'prise' in the SELECT list; did you mean 'price'?"),
        (
            "SELECT y.price FROM plain x",
            "1:8 'y' in 'y.price' is neither a table nor a column in the SELECT list; did you mean 'x'?",
        ),
        ("SELECT person.nam FROM events", "1:15 'person' has no field 'nam'; did you mean 'name'?"),
        ("SELECT k.a FROM plain", "1:10 'k' is of type BIGINT and has no field 'a'"),
        ("SELECT z.* FROM plain pl", "1:8 unknown table 'z' in the SELECT list; known here are: pl"),
        ("SELECT k FROM plane", "1:15 unknown table 'plane'; did you mean 'plain'?"),
        (
            "INSERT INTO nowhere SELECT k FROM plain",
            "1:13 unknown table 'nowhere'; declared are: bid, events, plain, out_counts, out_small, out_late, out_files",
        ),
        (
            "INSERT INTO out_small (k, w) SELECT 1, 2 FROM plain",
            "1:27 table 'out_small' has no column 'w'; did you mean 'k'?",
        ),
        ("INSERT INTO out_small (k, K) SELECT 1, 2 FROM plain", "1:27 the column 'K' is given twice"),
        ("SELECT splitindex(url, '/', 3) FROM bid", "1:8 unknown function 'splitindex'; did you mean 'split_index'?"),
        (
            "CREATE TABLE plain (a INT); SELECT k FROM plain",
            "1:14 'plain' is declared twice; give one of the two another name",
        ),
        ("CREATE TABLE x (a INT, a INT); SELECT k FROM plain", "1:24 the column 'a' appears twice in table 'x'"),
        (
            "CREATE TABLE x (a BIGINT, b AS q + 1); SELECT k FROM plain",
            "1:32 unknown column 'q' in a computed column; did you mean 'a'?",
        ),
        (
            "CREATE VIEW v (a) AS SELECT k, v FROM plain; SELECT a FROM v",
            "1:16 1 column names are given for a query with 2 columns",
        ),
        (
            "CREATE VIEW v AS SELECT k FROM plain; INSERT INTO v SELECT 1 FROM plain",
            "1:51 'v' is a view; INSERT INTO needs a table",
        ),
        (
            "SELECT auction, price AS auction FROM bid",
            "1:26 two columns of this SELECT are named 'auction'; give one of them another name with AS",
        ),
        (
            "SELECT auction, price FROM bid GROUP BY auction, TUMBLE(`dateTime`, INTERVAL '10' SECOND)",
            "1:17 column 'bid.price' must be in GROUP BY or inside of an aggregate, because this SELECT aggregates",
        ),
        (
            "SET 'late-rows.table' = 'nope'; SELECT k FROM plain",
            "1:1 'late-rows.table' names the table 'nope': unknown table 'nope'; declared are: bid, events, plain, out_counts, out_small, out_late, out_files",
        ),
    ];
    all_refused("sql-name", &cases);
}

#[test]
fn types_that_do_not_fit() {
    let cases = [
        (
            "INSERT INTO out_small SELECT auction, price FROM bid",
            "1:30 column 'k' of table 'out_small' is of type INT, the query gives BIGINT; write CAST(auction AS INT) if that is meant",
        ),
        (
            "INSERT INTO out_small SELECT 3000000000, 1 FROM plain",
            "1:30 column 'k' of table 'out_small' is of type INT, the query gives BIGINT; write CAST(3000000000 AS INT) if that is meant",
        ),
        ("INSERT INTO out_small SELECT 1 FROM bid", "1:13 table 'out_small' takes 2 columns (k, v), the query gives 1"),
        (
            "CREATE TABLE n (a BIGINT NOT NULL, b STRING) WITH ('connector' = 'blackhole'); INSERT INTO n SELECT NULL, s FROM plain",
            "1:101 column 'a' of table 'n' is NOT NULL, the query gives NULL",
        ),
        (
            "CREATE TABLE n (a BIGINT NOT NULL, b STRING) WITH ('connector' = 'blackhole'); INSERT INTO n (b) SELECT s FROM plain",
            "1:92 column 'a' of table 'n' is NOT NULL and must be written",
        ),
        ("SELECT k FROM plain WHERE s", "1:27 WHERE needs a condition, this is of type STRING"),
        (
            "SELECT k FROM plain WHERE max(k) > 3",
            "1:27 aggregates are not allowed in WHERE; conditions on them belong in HAVING",
        ),
        (
            "SELECT k FROM plain UNION ALL SELECT s FROM plain",
            "1:31 column 1 ('s') of this query of the UNION ALL is of type STRING, in the first query it is BIGINT; write a CAST",
        ),
        (
            "SELECT k, v FROM plain UNION ALL SELECT k FROM plain",
            "1:34 this query of the UNION ALL has 1 columns, the first has 2",
        ),
        (
            "SET 'late-rows.table' = 'out_small'; SELECT count(*) FROM bid GROUP BY tumble(interval '1' second)",
            "0:14 table 'out_small' takes late rows and has the column 'k'; its columns can only be operator, event_time, watermark, row",
        ),
    ];
    all_refused("sql-type", &cases);
    refused(
        "SELECT CAST(k AS NUMBER) FROM plain",
        "sql-unsupported 1:13 the type 'NUMBER' is unknown; known are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL, CHAR, VARCHAR, STRING, BYTES, DATE, TIME, TIMESTAMP, TIMESTAMP_LTZ, ROW, ARRAY and MAP",
    );
}

#[test]
fn windows_that_cannot_be() {
    let over = |call: &str| format!("SELECT count(*) FROM TABLE({call}) GROUP BY window_start, window_end");
    let cases = [
        (over("TUMBLE(TABLE plain, DESCRIPTOR(t), INTERVAL '1' SECOND)"), "1:59 't' is not event time here; declare WATERMARK FOR t AS t - INTERVAL '5' SECOND in its table, and pass the column on unchanged"),
        (over("TUMBLE(TABLE bid, DESCRIPTOR(price), INTERVAL '1' SECOND)"), "1:57 'price' is of type BIGINT; a window needs an event-time column, which is a TIMESTAMP with a WATERMARK in its table"),
        (over("TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' MONTH)"), "1:79 the size of TUMBLE is in months or years, whose lengths differ; give it in days or less"),
        (over("TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), price)"), "1:70 the size of TUMBLE must be a constant interval such as INTERVAL '10' SECOND"),
        (over("TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`))"), "1:28 TUMBLE lacks the argument SIZE; write TUMBLE(TABLE t, DESCRIPTOR(ts), size)"),
        (over("HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '3' SECOND, INTERVAL '10' SECOND)"), "1:28 the size of HOP (10000 ms) must be a multiple of its slide (3000 ms)"),
        (over("TUMBLE(TABLE bid PARTITION BY bidder, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND)"), "1:28 PARTITION BY belongs to SESSION; TUMBLE takes keys from GROUP BY"),
        ("SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND)) GROUP BY window_end".to_owned(), "1:101 GROUP BY has window_end but not window_start; it needs both"),
        ("SELECT count(*) FROM bid GROUP BY tumble(price, interval '1' second)".to_owned(), "1:42 'price' is of type BIGINT; a window needs an event-time column, which is a TIMESTAMP with a WATERMARK in its table"),
        ("SELECT count(*) FROM plain GROUP BY tumble(interval '1' second)".to_owned(), "1:37 TUMBLE without an event-time argument needs an input with event time; declare a WATERMARK in the table, and pass the column on unchanged"),
        ("SELECT count(*) FROM bid GROUP BY hop(interval '1' second)".to_owned(), "1:35 HOP in GROUP BY takes the event time, which may be left out, and slide, size; write HOP(ts, slide, size) or HOP(slide, size)"),
        ("SELECT TUMBLE_START(`dateTime`, INTERVAL '5' SECOND) FROM bid GROUP BY TUMBLE(`dateTime`, INTERVAL '1' SECOND)".to_owned(), "1:8 TUMBLE_START must have the arguments of a TUMBLE(...) in GROUP BY"),
        ("SELECT TUMBLE(`dateTime`, INTERVAL '5' SECOND) FROM bid".to_owned(), "1:8 the window function TUMBLE belongs in GROUP BY; elsewhere it must repeat the one there"),
        ("CREATE TABLE g (k BIGINT, WATERMARK FOR k AS k); SELECT k FROM plain".to_owned(), "1:27 WATERMARK FOR needs a TIMESTAMP or TIMESTAMP_LTZ column, 'k' is of type BIGINT; declare a computed column such as ts AS TO_TIMESTAMP(k)"),
        ("CREATE TABLE g (ts TIMESTAMP(3), WATERMARK FOR ts AS 5); SELECT k FROM plain".to_owned(), "1:54 a watermark is a timestamp such as ts - INTERVAL '5' SECOND, this one is of type BIGINT"),
    ];
    all_refused("sql-window", &cases);
    let cases = [
        (over("SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND)"), "1:122 a SESSION window is made for each key of its PARTITION BY; GROUP BY must name just these keys besides window_start and window_end"),
        ("SELECT * FROM TABLE(SESSION(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND))".to_owned(), "1:21 a SESSION window needs an aggregation right over it: GROUP BY window_start, window_end and the keys of its PARTITION BY, with nothing between that computes with the window's columns"),
        ("SELECT TUMBLE_PROCTIME(`dateTime`, INTERVAL '5' SECOND) FROM bid GROUP BY TUMBLE(`dateTime`, INTERVAL '5' SECOND)".to_owned(), "1:8 TUMBLE_PROCTIME is not supported; select PROCTIME() instead"),
    ];
    all_refused("sql-unsupported", &cases);
}

#[test]
fn options_and_promises_that_cannot_be_kept() {
    refused(
        "CREATE TABLE p (a BIGINT) WITH ('connector' = 'print',\n  'delivery' = 'exactly-once'); INSERT INTO p SELECT auction FROM bid",
        "sql-delivery 2:3 table 'p' asks for 'delivery' = 'exactly-once', but at most at-least-once can be kept: rows are printed as they come, so those since the last checkpoint are printed again after a failure",
    );
    refused(
        "CREATE TABLE p (a BIGINT) WITH ('connector' = 'print', 'delivery' = 'twice'); SELECT auction FROM bid",
        "sql-option 1:56 option 'delivery' of table 'p' has the value 'twice': expected exactly-once, at-least-once or best-effort",
    );
    refused(
        "SET 'parallelism.default' = '500'; SELECT k FROM plain",
        "sql-option 1:1 'parallelism.default' is 500, above 'pipeline.max-parallelism', which is 256; raise that one too",
    );
    let unknown =
        plan("CREATE TABLE g (k BIGINT) WITH ('connector' = 'datagen', 'no-such-option' = '1');\nSELECT k FROM g")
            .unwrap_err();
    assert_eq!((unknown.code, unknown.line, unknown.column), (ErrorCode::Option, 1, 58));
    let unknown =
        plan("CREATE TABLE g (k BIGINT) WITH ('connector' = 'carrier-pigeon');\nSELECT k FROM g").unwrap_err();
    assert_eq!((unknown.code, unknown.line, unknown.column), (ErrorCode::Option, 1, 33));
    refused(
        "SET 'paralelism.default' = '4'",
        "sql-option 1:1 the setting 'paralelism.default' is unknown; did you mean 'parallelism.default'?",
    );
    refused(
        "SET 'late-rows.table' = 'out_late'; SELECT k FROM plain",
        "sql-option 1:1 'late-rows.table' is set, but no query of this file groups by a window, so that no row can be late",
    );
}

#[test]
fn files_that_run_nothing_or_both() {
    refused(
        "SET 'parallelism.default' = '4'",
        "sql-syntax 0:0 the file has no INSERT and no SELECT, so there is nothing to run",
    );
    refused(
        "SELECT k FROM plain;\nEXPLAIN SELECT k FROM plain",
        "sql-unsupported 2:1 EXPLAIN cannot stand beside statements that are to be run; put it before all of them or none",
    );
    assert!(planned("EXPLAIN SELECT k FROM plain").explain_only);
    refused("SELECT auction FROM bid WHERE", "sql-syntax 1:25 expected an expression, found: EOF");
    refused("SELECT 'abc FROM bid", "sql-syntax 1:8 Unterminated string literal");
}

#[test]
fn secrets_are_named_and_never_written_out() {
    let blackhole = |password: &str| {
        format!(
            "CREATE TABLE s (v BIGINT) WITH ('connector' = 'blackhole', 'x' = '{password}'); INSERT INTO s VALUES (1)"
        )
    };
    let cases = [(
        "CREATE SECRET p AS 'hunter2'".to_owned(),
        "1:20 a secret is declared by where its value is to be found, since this \
            text is stored with the job: CREATE SECRET p AS '${env:NAME}', or AS '${file:PATH}'",
    )];
    all_refused("sql-option", &cases);
    let unknown = answer(&format!("CREATE SECRET pass AS '${{env:P}}'; {}", blackhole("${secret:pas}")));
    assert!(
        unknown.contains("option 'x' names the secret 'pas'") && unknown.contains("did you mean 'pass'?"),
        "{unknown}"
    );
    let twice = answer("CREATE SECRET p AS '${env:P}'; CREATE SECRET p AS '${env:Q}'; SELECT 1");
    assert!(twice.contains("the secret 'p' is declared twice"), "{twice}");
    let sql = "CREATE SECRET IF NOT EXISTS p AS '${env:P}'; CREATE TABLE k (v BIGINT) WITH ('connector' = 'kafka', 'topic' = 't', \
               'properties.bootstrap.servers' = 'b:1', 'format' = 'json', 'properties.sasl.password' = 'a${secret:p}b'); \
               INSERT INTO k VALUES (1)";
    let graph = serde_json::to_string(&planned(sql).graph).unwrap();
    assert!(graph.contains("a${env:P}b") && !graph.contains("secret:p"), "{graph}");
}
