//! `t /*+ OPTIONS(...) */`: where it may stand, and what is read and written then.

use super::errors::all_refused;
use super::*;

/// The names and the option 'path' of all sources and sinks.
fn paths(sql: &str) -> Vec<String> {
    let tables = planned(sql).graph.nodes.into_iter().filter_map(|node| match node.op.kind {
        OperatorKind::Source(source) => Some(source.table),
        OperatorKind::Sink(sink) => Some(sink.table),
        _ => None,
    });
    tables.map(|table| format!("{}: {}", table.name, table.options["path"])).collect()
}

#[test]
fn options_count_for_one_use_and_no_other() {
    let (other, same) = ("/*+ OPTIONS('path' = 'x.json') */", "/*+ options ( 'path'='x.json' ) */");
    let into = "INSERT INTO out_files";
    let (plain, hinted) = ("plain: plain.json", "plain with path: x.json");
    let out = "out_files: out";
    for (sql, expected) in [
        (format!("{into} SELECT k, k FROM plain {other}"), vec![hinted, out]),
        (format!("{into} SELECT plain.k, k FROM plain {other} WHERE plain.k > 1"), vec![hinted, out]),
        (format!("{into} SELECT p.k, k FROM plain {other} p"), vec![hinted, out]),
        (format!("{into} SELECT p.k, k FROM `plain` {other} AS p"), vec![hinted, out]),
        (format!("{into} SELECT plain.k, p.k FROM plain JOIN plain {other} AS p ON p.k = plain.k"), vec![plain, hinted, out]),
        (format!("{into} SELECT a.k, b.k FROM plain {other} a JOIN plain {same} b ON a.k = b.k"), vec![hinted, out]),
        (
            format!("{into} SELECT a.k, b.k FROM plain {other} a JOIN plain /*+ OPTIONS('path' = 'y') */ b ON a.k = b.k"),
            vec![hinted, "plain with path (2): y", out],
        ),
        (
            format!("INSERT INTO out_files {} SELECT k, k FROM plain", "/*+ OPTIONS('path' = 'there') */"),
            vec![plain, "out_files with path: there"],
        ),
        (
            format!(
                "{into} SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid {other}, DESCRIPTOR(`dateTime`), INTERVAL '1' HOUR))
                 GROUP BY auction, window_start, window_end"
            ),
            vec!["bid with path: x.json", out],
        ),
        (
            format!("CREATE VIEW v AS SELECT k FROM plain {other}; {into} SELECT v.k, plain.k FROM v JOIN plain ON v.k = plain.k"),
            vec![hinted, plain, out],
        ),
    ] {
        assert_eq!(paths(&sql), expected, "{sql}");
    }
}

#[test]
fn what_is_wrong_with_options_is_told_with_its_place() {
    let form = "OPTIONS stands right behind the name of a table: t /*+ OPTIONS('key' = 'value') */";
    all_refused(
        "sql-unsupported",
        &[
            ("SELECT /*+ OPTIONS('a' = 'b') */ k FROM plain", format!("1:8 {form}").as_str()),
            ("SELECT k FROM plain WHERE /*+ OPTIONS('a' = 'b') */ k > 1", format!("1:27 {form}").as_str()),
            ("SELECT k FROM plain /*+ OPTIONS('a' = 'b'), X */", "1:43 only OPTIONS stands here, found ','"),
        ],
    );
    all_refused(
        "sql-syntax",
        &[(
            "SELECT k FROM plain /*+\nOPTIONS(a = 'b') */",
            "2:9 expected an option's name in single quotes, found 'a'",
        )],
    );
    all_refused(
        "sql-name",
        &[
            ("SELECT k FROM plane /*+ OPTIONS('a' = 'b') */", "1:15 unknown table 'plane'; did you mean 'plain'?"),
            (
                "CREATE VIEW v AS SELECT k FROM plain; SELECT k FROM v /*+ OPTIONS('a' = 'b') */",
                "1:53 'v' is a view; LIKE and OPTIONS take a table",
            ),
        ],
    );
}
