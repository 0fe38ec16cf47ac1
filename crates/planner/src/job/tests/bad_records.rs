//! Wrong records: where they go, and what is looked at.

use super::errors::all_refused;
use super::*;

const SOURCE: &str = "CREATE TABLE src (id BIGINT NOT NULL, v INT CHECK (v > 0), s STRING, ts TIMESTAMP(3), d AS v * 2,
        CONSTRAINT known CHECK (s IN ('a', 'b') OR d > 10), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json' /*more*/);
    CREATE TABLE dead (reason STRING, raw BYTES, `position` BIGINT, rejected_at TIMESTAMP_LTZ(3) NOT NULL)
    WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');
    CREATE TABLE o (id BIGINT) WITH ('connector' = 'print');
    ";

fn sql(more: &str, rest: &str) -> String {
    SOURCE.replace("/*more*/", more) + rest
}

const DEAD_LETTER: &str = ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'dead'";

#[test]
fn sources_share_the_table_that_takes_their_wrong_records() {
    let other = "CREATE TABLE other (x INT) WITH ('connector' = 'filesystem', 'path' = 'p', 'format' = 'csv',
        'bad-records' = 'dead-letter', 'bad-records.table' = 'DEAD', 'bad-records.max-fraction' = '0.25');";
    let plan = plan(&sql(
        DEAD_LETTER,
        &format!("{other} INSERT INTO o SELECT id FROM src; INSERT INTO o SELECT x FROM other"),
    ))
    .unwrap();
    let aside: Vec<_> = plan.graph.edges.iter().filter(|edge| edge.port == 1).collect();
    assert_eq!(aside.len(), 2);
    assert_eq!(aside[0].to, aside[1].to);
    assert_eq!(plan.sinks.last().unwrap().table, "dead");
    let sources: Vec<&str> = plan.sinks.last().unwrap().sources.iter().map(|source| source.table.as_str()).collect();
    assert_eq!(sources, ["src", "other"]);
    let text = explain(&plan, 1);
    for part in [
        "forward (bad records)",
        "bad records: sent on to dead\n",
        "bad records: sent on to DEAD, accepted up to 0.25 of 1000 or more records",
        "checks src_check_1: v > 0",
        "checks known: ",
        "writes: dead by filesystem, columns reason, raw, position, rejected_at",
    ] {
        assert!(text.contains(part), "'{part}' is missing in {text}");
    }
}

#[test]
fn what_is_decoded_does_not_depend_on_the_queries_where_it_matters() {
    let columns = |more: &str| {
        let plan = plan(&sql(more, "INSERT INTO o SELECT id FROM src")).unwrap();
        let OperatorKind::Source(source) = &plan.graph.nodes[0].op.kind else { panic!() };
        source.read_columns.clone()
    };
    // Those of the query, of the constraints and of the watermark.
    assert_eq!(columns(""), [0, 1, 2, 3]);
    assert_eq!(columns(", 'json.ignore-parse-errors' = 'true'"), [0, 1, 2, 3]);
    let narrow = |more: &str| {
        let table = format!(
            "CREATE TABLE t (a INT, b INT) WITH ('connector' = 'filesystem', 'path' = 'p', 'format' = 'json'{more});"
        );
        let plan = plan(&format!("{table} SELECT a FROM t")).unwrap();
        let OperatorKind::Source(source) = &plan.graph.nodes[0].op.kind else { panic!() };
        source.read_columns.clone()
    };
    assert_eq!((narrow(""), narrow(", 'bad-records' = 'drop'")), (vec![0], vec![0, 1]));
}

#[test]
fn mistakes_are_located() {
    let table = |columns: &str, rest: &str| {
        format!(
            "CREATE TABLE t ({columns}) WITH ('connector' = 'filesystem', 'path' = 'p', 'format' = 'json'{rest}); SELECT 1 FROM t"
        )
    };
    let cases = [
        (
            table("a INT, CHECK (a + 1)", ""),
            "sql-type 1:24 a CHECK is a condition such as (amount > 0), this one is of type BIGINT",
        ),
        (
            table("a INT, CHECK (SUM(a) > 1)", ""),
            "sql-unsupported 1:24 a CHECK is computed from one row; aggregates and windows are not allowed in it",
        ),
        (
            table("a INT, CONSTRAINT c CHECK (a > 1), CONSTRAINT c CHECK (a < 9)", ""),
            "sql-name 1:52 the constraint 'c' is given twice",
        ),
        (
            table("a INT, CHECK (a > 1) NOT ENFORCED", ""),
            "sql-unsupported 1:24 a CHECK is checked for each row that is read; leave NOT ENFORCED away",
        ),
    ];
    for (sql, expected) in &cases {
        let (code, rest) = expected.split_once(' ').unwrap();
        all_refused(code, &[(sql, rest)]);
    }
    let message = |sql: &str| plan(sql).unwrap_err().message;
    let dead = |columns: &str| {
        let taker = format!("CREATE TABLE taker ({columns}) WITH ('connector' = 'print');");
        let more = ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'taker'";
        message(&sql(more, &format!("{taker} INSERT INTO o SELECT id FROM src")))
    };
    for (found, part) in [
        (dead("reason STRING, colour STRING"), "has the column 'colour'; its columns can only be raw, raw_key, source"),
        (dead("`position` INT"), "column 'position' of table 'taker' takes wrong records and must be BIGINT, not INT"),
        (dead("raw BYTES NOT NULL"), "of which some have none: declare it without NOT NULL"),
        (
            message(&sql(&DEAD_LETTER.replace("'dead')", "").replace("= 'dead'", "= 'nobody'"), "SELECT id FROM src")),
            "'bad-records.table' of table 'src' names 'nobody': unknown table 'nobody'",
        ),
        (message(&sql(&DEAD_LETTER.replace("= 'dead'", "= 'src'"), "SELECT id FROM src")), "'src' has the constraint"),
        (message(&sql("", "INSERT INTO src SELECT id, 1, 'a', NULL FROM src")), "'src' has the constraint 'src_check_1', which is checked where a table is read"),
        (message(&sql(", 'bad-records.table' = 'dead'", "SELECT id FROM src")), "has no effect without 'bad-records' = 'dead-letter'"),
        (
            message(&sql(
                ", 'bad-records' = 'drop'",
                "CREATE TABLE look (id BIGINT, v INT, CHECK (v > 0)) WITH ('connector' = 'filesystem', 'path' = 'l', 'format' = 'json');
                 SELECT s.id, l.v FROM (SELECT id, PROCTIME() AS pt FROM src) AS s JOIN look FOR SYSTEM_TIME AS OF s.pt AS l ON s.id = l.id",
            )),
            "is looked up, where the constraint 'look_check_1' is not checked",
        ),
    ] {
        assert!(found.contains(part), "'{part}' is missing in {found}");
    }
}
