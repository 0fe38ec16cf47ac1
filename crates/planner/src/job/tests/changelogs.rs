//! Tables of changes: as sources, and as sinks.

use super::*;

const CHANGES: &str = "CREATE TABLE cdc (id BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', 'path' = 'cdc.json', 'format' = 'debezium-json');
CREATE TABLE keyed (n BIGINT NOT NULL, id BIGINT, region STRING, ts TIMESTAMP(3), twice AS n * 2, WATERMARK FOR ts AS ts, PRIMARY KEY (id, region) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'keyed.json', 'format' = 'upsert-json');
CREATE TABLE out_keyed (region STRING, id BIGINT, n BIGINT, PRIMARY KEY (id, region) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
CREATE TABLE out_cdc (id BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'debezium-json');
";

fn checked(sql: &str, expected: &str) {
    check(&format!("{CHANGES}{sql}"), expected);
}

#[track_caller]
fn refused(sql: &str, expected: &str) {
    let error = plan(&format!("{CHANGES}{sql}")).unwrap_err();
    let line = error.line.saturating_sub(u64::try_from(CHANGES.lines().count()).unwrap());
    assert_eq!(format!("{} {line}:{} {}", error.code, error.column, error.message), expected, "{sql}");
}

#[test]
fn a_complete_changelog_is_read_as_it_is() {
    checked(
        "INSERT INTO out_cdc SELECT id, v FROM cdc WHERE v > 3",
        "
        [0] source cdc
            reads: cdc by filesystem, columns id, v, ts
            columns: id, v
            changes: +I, -U, +U, -D
        [1] filter and project
            from [0] forward
            where: v > 3
            columns: id, v AS n
            changes: +I, -U, +U, -D
        [2] sink out_cdc
            from [1] forward
            writes: out_cdc by filesystem, columns id, n
            changes: +I, -U, +U, -D
        ",
    );
}

#[test]
fn changes_by_key_are_completed_first() {
    // The key is read though nobody asks for all of it.
    checked(
        "SELECT twice, region FROM keyed",
        "
        [0] source keyed
            reads: keyed by filesystem, columns n, id, region, ts
            columns: id, region, n * 2 AS twice
            changes: +I, +U, -D
        [1] newest row of each key
            from [0] hash(id, region)
            key: id, region
            changes: +I, -U, +U, -D
        [2] project
            from [1] forward
            columns: twice, region
            changes: +I, -U, +U, -D
        [3] sink select 1, parallelism 1
            from [2] to one subtask
            writes: select 1 by print, columns twice, region
            changes: +I, -U, +U, -D
        ",
    );
    let plan = planned(&format!("{CHANGES}SELECT n FROM keyed"));
    let nullable = |id: usize| {
        let fields = plan.graph.nodes[id].op.schema.fields().clone();
        fields.iter().map(|field| (field.name().clone(), field.is_nullable())).collect::<Vec<_>>()
    };
    let fields = |n| vec![("n".to_owned(), n), ("id".to_owned(), false), ("region".to_owned(), false)];
    assert_eq!((nullable(0), nullable(1)), (fields(true), fields(false)), "a delete knows only its key");
}

#[test]
fn a_sink_by_the_same_key_takes_the_changes_as_they_come() {
    checked(
        "INSERT INTO out_keyed SELECT region, id, n FROM keyed",
        "
        [0] source keyed
            reads: keyed by filesystem, columns n, id, region, ts
            columns: n, id, region
            changes: +I, +U, -D
        [1] newest row of each key
            from [0] hash(id, region)
            key: id, region
            changes: +I, +U, -D
        [2] project
            from [1] forward
            columns: region, id, n
            changes: +I, +U, -D
        [3] sink out_keyed
            from [2] forward
            writes: out_keyed by filesystem, columns region, id, n
            changes: +I, +U, -D
        ",
    );
}

#[test]
fn a_sink_by_another_key_gets_the_newest_row_of_each() {
    // Only what is behind the new operator may leave out what is replaced.
    checked(
        "INSERT INTO out_keyed SELECT 'x', v, id FROM cdc",
        "
        [0] source cdc
            reads: cdc by filesystem, columns id, v, ts
            columns: id, v
            changes: +I, -U, +U, -D
        [1] project
            from [0] forward
            columns: 'x' AS region, v AS id, id AS n
            changes: +I, -U, +U, -D
        [2] newest row of each key
            from [1] hash(region, id)
            key: region, id
            changes: +I, +U, -D
        [3] sink out_keyed
            from [2] forward
            writes: out_keyed by filesystem, columns region, id, n
            changes: +I, +U, -D
        ",
    );
}

#[test]
fn what_needs_rows_that_never_change_refuses_changes() {
    for (table, source) in [("cdc", "cdc"), ("keyed", "keyed")] {
        refused(
            &format!("SELECT count(*) FROM {table} GROUP BY tumble(INTERVAL '1' SECOND)"),
            &format!(
                "sql-unsupported 1:1 an aggregation over windows needs rows that never change, and 'source {source}' changes rows that it gave before"
            ),
        );
    }
    refused(
        "CREATE TABLE f (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'f', 'format' = 'csv');\nINSERT INTO f SELECT id FROM cdc",
        "sql-unsupported 2:1 table 'f' takes new rows only, and this query changes rows that it gave before (+I, -U, +U, -D from 'source cdc'); aggregate over windows, which give each result once, or write to a table that takes changes (such as 'format' = 'debezium-json' or 'connector' = 'print')",
    );
}

#[test]
fn changes_by_key_need_a_key() {
    refused(
        "CREATE TABLE u (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'f',\n'format' = 'upsert-json');\nSELECT id FROM u",
        "sql-option 2:1 option 'format' of table 'u' has the value 'upsert-json', whose rows replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED",
    );
    refused(
        "CREATE TABLE u (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'f', 'format' = 'debezium-json',\n'debezium-json.upsert' = 'true');\nSELECT id FROM u",
        "sql-option 2:1 option 'debezium-json.upsert' of table 'u' lets rows replace each other by key: declare PRIMARY KEY (...) NOT ENFORCED",
    );
    refused(
        "CREATE TABLE u (id BIGINT, k AS id + 1, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'f', 'format' = 'upsert-json');\nSELECT id FROM u",
        "sql-option 1:14 the PRIMARY KEY of table 'u' names 'k', which is computed; it can only name columns that are in the data",
    );
}
