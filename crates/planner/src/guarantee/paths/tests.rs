//! Each cause by a query that has it, and that a query without any has none.

use mainstem_connectors::Delivery;

use super::*;

const TABLES: &str = "CREATE TABLE t (k BIGINT, v BIGINT, ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE side (k BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'side', 'format' = 'json');
CREATE TABLE once (k BIGINT, n BIGINT) WITH ('connector' = 'postgres', 'url' = 'postgres://u:p@h/d', 'table-name' = 'once');
CREATE TABLE out (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'debezium-json');
CREATE TABLE shown (k BIGINT, n BIGINT) WITH ('connector' = 'print');
CREATE TABLE less (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'l', 'format' = 'json', 'delivery' = 'at-least-once');
";

fn all(sql: &str) -> Vec<PathGuarantee> {
    let sql = format!("{TABLES}{sql}");
    let plan = crate::plan(&sql).unwrap_or_else(|error| panic!("{}", error.render(&sql)));
    paths(&plan)
}

/// The causes of the first path, with their lines; those that every time query has are left out.
fn causes(sql: &str) -> Vec<(CauseKind, Effect, u64)> {
    let causes = all(sql).swap_remove(0).causes;
    causes.into_iter().map(|cause| (cause.kind, cause.effect, cause.line)).collect()
}

#[track_caller]
fn check(sql: &str, expected: &[(CauseKind, Effect)]) {
    let found: Vec<_> = causes(sql).into_iter().map(|(kind, effect, _)| (kind, effect)).collect();
    assert_eq!(found, expected, "{sql}");
}

#[test]
fn a_function_of_the_rows_has_no_cause() {
    let paths = all("INSERT INTO out SELECT k, SUM(v) FROM t GROUP BY k;");
    let [path] = paths.as_slice() else { panic!("{paths:?}") };
    assert_eq!((path.source.as_str(), path.sink.as_str(), path.delivery), ("t", "out", Delivery::ExactlyOnce));
    assert_eq!((path.source_line, path.sink_line, path.statement_line), (1, 5, 8));
    assert_eq!(path.causes, []);
    assert!(!path.operators.is_empty());
}

#[test]
fn the_delivery_is_limited_by_the_sink_its_option_and_the_source() {
    let at_least = Effect::Delivery(Delivery::AtLeastOnce);
    let best = Effect::Delivery(Delivery::BestEffort);
    let found = causes("INSERT INTO shown SELECT k, v FROM t;");
    assert_eq!(found, [(CauseKind::Sink, at_least, 6)], "by the line of the table");
    assert_eq!(causes("INSERT INTO less SELECT k, v FROM t;"), [(CauseKind::DeliveryOption, at_least, 7)]);
    assert_eq!(causes("INSERT INTO out SELECT k, n FROM once;"), [(CauseKind::Source, best, 4)]);
    // A bare query is printed, in its own line.
    assert_eq!(causes("\nSELECT k, v FROM t;"), [(CauseKind::Sink, at_least, 9)]);
    let joined = all("INSERT INTO out SELECT t.k, once.n FROM t JOIN once ON t.k = once.k;");
    let [of_t, of_once] = joined.as_slice() else { panic!("{joined:?}") };
    assert_eq!((of_t.delivery, of_once.delivery), (Delivery::ExactlyOnce, Delivery::BestEffort));
    assert_eq!(of_t.causes.iter().map(|cause| cause.kind).collect::<Vec<_>>(), [CauseKind::OtherSource]);
}

#[test]
fn what_a_replay_may_change_is_named() {
    let lookup =
        "INSERT INTO out SELECT t.k, CHAR_LENGTH(s.name) FROM t JOIN side FOR SYSTEM_TIME AS OF t.p AS s ON t.k = s.k;";
    let found = causes(lookup);
    assert!(found.contains(&(CauseKind::LookupJoin, Effect::MayDiffer, 8)), "{found:?}");
    check(
        "INSERT INTO out SELECT k, LAST_VALUE(v) FROM t GROUP BY k;",
        &[(CauseKind::ArrivalOrder, Effect::MayDiffer)],
    );
    let first = "INSERT INTO out SELECT k, v FROM (SELECT k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY p) AS n FROM t) WHERE n = 1;";
    let kinds = causes(first);
    assert!(kinds.contains(&(CauseKind::ArrivalOrder, Effect::MayDiffer, 8)), "{kinds:?}");
}

#[test]
fn what_depends_on_the_clock_is_named_with_the_line_of_its_statement() {
    let found = causes("\n\nINSERT INTO out SELECT k, EXTRACT(SECOND FROM NOW()) FROM t;");
    assert_eq!(found, [(CauseKind::ClockFunction, Effect::DependsOnTime, 10)]);
    let windows = "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k, TUMBLE(p, INTERVAL '1' SECOND);";
    let found = causes(windows);
    assert!(found.contains(&(CauseKind::ProcessingTime, Effect::DependsOnTime, 8)), "{found:?}");
    check(
        "SET 'table.exec.state.ttl' = '1 h'; INSERT INTO out SELECT k, SUM(v) FROM t GROUP BY k;",
        &[(CauseKind::TimeToLive, Effect::DependsOnTime)],
    );
}

#[test]
fn rows_that_are_left_out_are_named() {
    let windows = "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k, TUMBLE(ts, INTERVAL '1' SECOND);";
    check(windows, &[(CauseKind::LateRows, Effect::LeavesOut)]);
    let sessions = "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k, SESSION(ts, INTERVAL '1' SECOND);";
    check(sessions, &[(CauseKind::LateRows, Effect::LeavesOut)]);
    let idle = format!("SET 'table.exec.source.idle-timeout' = '1 s'; {windows}");
    check(&idle, &[(CauseKind::IdleTimeout, Effect::DependsOnTime), (CauseKind::LateRows, Effect::LeavesOut)]);
    let drop = "CREATE TABLE d (k BIGINT, v BIGINT) WITH ('connector' = 'filesystem', 'path' = 'd', 'format' = 'json', 'bad-records' = 'drop');
        INSERT INTO out SELECT k, v FROM d;";
    check(drop, &[(CauseKind::BadRecords, Effect::LeavesOut)]);
}

#[test]
fn chance_is_refused_with_its_place() {
    let sql = format!("{TABLES}EXPLAIN GUARANTEES INSERT INTO out SELECT k, CAST(RAND() * 10 AS BIGINT) FROM t");
    let error = crate::plan(&sql).unwrap_err().to_string();
    assert!(error.starts_with("line 8, column "), "{error}");
    assert!(error.contains("RAND"), "{error}");
}

#[test]
fn the_statement_explains_one_output_or_all_and_runs_none() {
    let plan = |sql: &str| crate::plan(&format!("{TABLES}{sql}")).unwrap();
    let one = plan("EXPLAIN GUARANTEES INSERT INTO out SELECT k, v FROM t");
    assert!(one.explain_only && one.explain_guarantees);
    let all = plan("EXPLAIN GUARANTEES; INSERT INTO out SELECT k, v FROM t; INSERT INTO shown SELECT k, v FROM t;");
    assert!(all.explain_only && all.explain_guarantees);
    let text = crate::explain_guarantees(&all, &|line| format!("line {line}"));
    assert!(
        text.contains("t (line 1) -> out (line 5), statement at line 8: exactly-once\n  how: files stay hidden"),
        "{text}"
    );
    assert!(
        text.contains("-> shown (line 6), statement at line 8: at-least-once\n  not more: the connector 'print' "),
        "{text}"
    );
    assert!(text.contains("result: a function of the rows alone"), "{text}");
    let not = plan("INSERT INTO out SELECT k, v FROM t");
    assert!(!not.explain_only && !not.explain_guarantees);
    let error = crate::plan("EXPLAIN GUARANTEES CREATE TABLE x (a INT)").unwrap_err().to_string();
    assert!(error.contains("EXPLAIN takes a SELECT or an INSERT"), "{error}");
}
