//! `CREATE TABLE ... LIKE`: what becomes of the parts that one or both tables have.

use super::errors::all_refused;
use super::*;

const BASE: &str = "CREATE TABLE base (
    id BIGINT, price DECIMAL(10, 2), twice AS id * 2, part INT METADATA FROM 'partition' VIRTUAL, ts TIMESTAMP(3), day INT,
    WATERMARK FOR ts AS ts - INTERVAL '5' SECOND, CHECK (price > 0), PRIMARY KEY (id) NOT ENFORCED
) PARTITIONED BY (day) WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json', 'properties.bootstrap.servers' = 'b:1');
";

/// The columns of the last table of a text: name, type, and what else is known of each.
fn columns(sql: &str) -> String {
    let sql = format!("{BASE}{sql}");
    let declared = declared(&sql).unwrap_or_else(|error| panic!("{}", error.render(&sql)));
    let table = declared.last().expect("one at least");
    let columns = table.columns.iter().map(|column| {
        let null = if column.nullable { "" } else { " NOT NULL" };
        let key = if column.is_key { " KEY" } else { "" };
        let extras = if column.extras.is_empty() { String::new() } else { format!(" ({})", column.extras) };
        format!("{} {}{null}{key}{extras}", column.name, column.data_type)
    });
    columns.collect::<Vec<_>>().join(", ")
}

#[test]
fn everything_is_taken_unless_something_else_is_said() {
    let all = "id BIGINT NOT NULL KEY, price DECIMAL(10, 2), twice BIGINT NOT NULL (computed: id * 2), \
               part INT (metadata 'partition'), ts TIMESTAMP(3) (event time, watermark ts - INTERVAL '5 secs'), day INT";
    for sql in ["CREATE TABLE t LIKE base", "CREATE TABLE t WITH ('topic' = 'b') LIKE BASE (INCLUDING CONSTRAINTS)"] {
        assert_eq!(columns(sql), all, "{sql}");
    }
    let with = columns("CREATE TABLE t (more STRING, most AS UPPER(more)) LIKE base; CREATE TABLE u LIKE t");
    assert_eq!(with, format!("{all}, more STRING, most STRING (computed: UPPER(more))"));
}

#[test]
fn parts_are_left_out_and_overwritten() {
    assert_eq!(
        columns("CREATE TABLE t WITH ('connector' = 'blackhole') LIKE base (EXCLUDING ALL)"),
        "id BIGINT NOT NULL, price DECIMAL(10, 2), ts TIMESTAMP(3), day INT"
    );
    assert_eq!(
        columns(
            "CREATE TABLE t (twice AS id + id, part INT METADATA FROM 'offset', WATERMARK FOR ts AS ts)
             LIKE base (OVERWRITING GENERATED OVERWRITING METADATA OVERWRITING WATERMARKS EXCLUDING CONSTRAINTS)"
        ),
        "id BIGINT NOT NULL, price DECIMAL(10, 2), twice BIGINT NOT NULL (computed: id + id), part INT (metadata 'offset'), \
         ts TIMESTAMP(3) (event time, watermark ts), day INT"
    );
    let only = "CREATE TABLE t (PRIMARY KEY (day) NOT ENFORCED) WITH ('connector' = 'blackhole')
                LIKE base (EXCLUDING ALL INCLUDING GENERATED)";
    assert_eq!(
        columns(only),
        "id BIGINT NOT NULL, price DECIMAL(10, 2), twice BIGINT NOT NULL (computed: id * 2), ts TIMESTAMP(3), day INT NOT NULL KEY"
    );
}

#[test]
fn options_are_those_of_both_and_checks_too() {
    let sql = "CREATE TABLE copy (CHECK (v < 9)) WITH ('path' = 'other.json') LIKE checked;
               INSERT INTO out_small SELECT CAST(k AS INT), v FROM copy";
    let checked = "CREATE TABLE checked (k BIGINT, v DOUBLE, CONSTRAINT positive CHECK (v > 0)) \
                   WITH ('connector' = 'filesystem', 'path' = 'first.json', 'format' = 'json');";
    let plan = planned(&format!("{checked}{sql}"));
    let source = &plan.graph.nodes[0].op.kind;
    let OperatorKind::Source(source) = source else { panic!("{source:?}") };
    let option = |key: &str| source.table.options.get(key).map(String::as_str);
    assert_eq!((option("path"), option("format")), (Some("other.json"), Some("json")));
    let text = explain(&plan, 1);
    assert!(text.contains("positive") && text.contains("copy_check_2"), "{text}");
}

#[test]
fn what_both_have_and_cannot_have_is_refused_with_its_place() {
    let unknown = [
        ("CREATE TABLE t LIKE plane", "1:21 unknown table 'plane'; did you mean 'plain'?"),
        (
            "CREATE TABLE t (s INT) LIKE plain",
            "1:17 table 'plain' has a column 's' already; give this one another name",
        ),
        (
            "CREATE TABLE t (WATERMARK FOR `dateTime` AS `dateTime`) LIKE bid",
            "1:17 table 'bid' has a WATERMARK already; add (EXCLUDING or OVERWRITING WATERMARKS) to LIKE, or leave this one away",
        ),
        (
            "CREATE TABLE t (p_time AS PROCTIME()) LIKE bid",
            "1:17 table 'bid' has a column 'p_time' already; add (EXCLUDING or OVERWRITING GENERATED) to LIKE, or leave this one away",
        ),
        (
            "CREATE TABLE t WITH ('path' = 'x') LIKE bid (INCLUDING ALL)",
            "1:22 table 'bid' has the option 'path' already; add (EXCLUDING or OVERWRITING OPTIONS) to LIKE, or leave this one away",
        ),
        (
            "CREATE TABLE a (k INT PRIMARY KEY NOT ENFORCED) WITH ('connector' = 'blackhole');
             CREATE TABLE t (l INT PRIMARY KEY NOT ENFORCED) LIKE a",
            "2:30 table 'a' has a PRIMARY KEY already; add (EXCLUDING CONSTRAINTS) to LIKE, or leave this one away",
        ),
        (
            "CREATE VIEW v AS SELECT k FROM plain; CREATE TABLE t LIKE v",
            "1:59 'v' is a view; LIKE and OPTIONS take a table",
        ),
    ];
    all_refused("sql-name", &unknown);
    let syntax = [
        ("CREATE TABLE t", "1:14 expected the columns in parentheses, found 'EOF'"),
        (
            "CREATE TABLE t LIKE bid (OVERWRITING CONSTRAINTS)",
            "1:26 only GENERATED, METADATA, WATERMARKS and OPTIONS can be OVERWRITING; INCLUDING or EXCLUDING",
        ),
        ("CREATE TABLE t LIKE bid (INCLUDING OPTION)", "1:36 LIKE does not know 'OPTION'; did you mean 'OPTIONS'?"),
        ("CREATE TABLE t LIKE bid (INCLUDING ALL EXCLUDING ALL)", "1:40 each part of LIKE is named once at most"),
    ];
    all_refused("sql-syntax", &syntax);
    let place = "1:17 LIKE stands at the end: CREATE TABLE t (...) WITH (...) LIKE table";
    all_refused("sql-unsupported", &[("CREATE TABLE t (LIKE bid)", place)]);
}
