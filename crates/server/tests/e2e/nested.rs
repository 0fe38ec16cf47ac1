//! Rows within rows, in the whole binary.

use std::collections::BTreeMap;

use crate::support::{Sandbox, assert_says};

#[test]
fn rows_are_written_by_the_order_of_their_fields() {
    let sandbox = Sandbox::new(
        "CREATE TABLE t (id INT, name STRING, r ROW<a INT, b INT>)
         WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
         CREATE TABLE out (who ROW<`no` INT, called STRING>, swapped ROW<b BIGINT, a BIGINT>, l ARRAY<ROW<x INT>>,
           m MAP<STRING, ROW<y STRING>>, fixed ROW<z STRING>)
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         INSERT INTO out SELECT ROW(id, name), r, ARRAY[ROW(id), NULL], MAP['k', ROW(name)], ROW('c') FROM t;",
    );
    sandbox.write("in/a.json", "{\"id\":1,\"name\":\"ada\",\"r\":{\"a\":2,\"b\":3}}\n{\"id\":2}\n");
    sandbox.run_ok(&["run", "job.sql"]);
    let expected = [
        r#"{"who":{"no":1,"called":"ada"},"swapped":{"b":2,"a":3},"l":[{"x":1},null],"m":{"k":{"y":"ada"}},"fixed":{"z":"c"}}"#,
        r#"{"who":{"no":2,"called":null},"swapped":null,"l":[{"x":2},null],"m":{"k":{"y":null}},"fixed":{"z":"c"}}"#,
    ];
    assert_eq!(sandbox.lines("out"), BTreeMap::from(expected.map(|line| (line.to_owned(), 1))));
}

#[test]
fn rows_that_do_not_fit_are_refused_before_the_job_runs() {
    let sandbox = Sandbox::new(
        "CREATE TABLE t (id INT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
         CREATE TABLE out (r ROW<a INT, b INT>) WITH ('connector' = 'blackhole');
         INSERT INTO out SELECT ROW(id, name) FROM t;",
    );
    assert_says(&sandbox.run_err(&["check", "job.sql"]), &["line 3, column 33", "ROW<a INT, b INT>"]);
}
