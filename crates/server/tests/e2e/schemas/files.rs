//! Files of Avro, written and read, with kills in between.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Sandbox, assert_says, visible_files};

#[test]
fn rows_go_through_files_of_avro_once_each() {
    let columns = "id BIGINT, k INT, ts TIMESTAMP(3)";
    let table = |name: &str, path: &str, more: &str| {
        format!("CREATE TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'path' = '{path}', {more});\n")
    };
    let json = "'format' = 'json'";
    let sandbox = Sandbox::new(&format!(
        "{}{}INSERT INTO o SELECT id, k, ts FROM t;",
        table("t", "in", json),
        table("o", "avro", "'format' = 'avro', 'avro.codec' = 'zstandard'")
    ));
    sandbox.write_events(60_000, 3, 10, 1_000);
    let arguments = ["run", "job.sql", "--checkpoint-interval", "40 ms", "--parallelism", "2"];
    // Slow enough that also a fast machine is not through before it is killed.
    sandbox.slow_sinks(200);
    let mut kills = 0;
    for after in [250, 400, 600] {
        kills += usize::from(sandbox.run_and_kill(&arguments, Duration::from_millis(after)));
    }
    sandbox.slow_sinks(0);
    sandbox.run_ok(&arguments);
    assert!(kills > 0, "it was through before it could be killed");
    let files = visible_files(&sandbox.path("avro"));
    assert!(files.iter().all(|file| file.extension().is_some_and(|end| end == "avro")), "{files:?}");

    sandbox.write(
        "back.sql",
        format!(
            "{}{}INSERT INTO o SELECT id, k, ts FROM t;",
            table("t", "avro", "'format' = 'avro'"),
            table("o", "back", json)
        ),
    );
    let arguments = ["run", "back.sql", "--checkpoint-interval", "40 ms", "--parallelism", "2"];
    sandbox.slow_sinks(200);
    for after in [250, 400] {
        sandbox.run_and_kill(&arguments, Duration::from_millis(after));
    }
    sandbox.slow_sinks(0);
    sandbox.run_ok(&arguments);
    let keys = |lines: BTreeMap<String, usize>| -> BTreeMap<i64, usize> {
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
        lines.iter().map(|(line, count)| (id(line), *count)).collect()
    };
    let (given, back) = (keys(sandbox.lines("in")), keys(sandbox.lines("back")));
    assert_eq!(back.len(), 60_000);
    let not_once = back.iter().filter(|(_, count)| **count != 1).take(10).collect::<Vec<_>>();
    assert!(given == back, "not once: {not_once:?}");

    // A file that is damaged says so, whatever becomes of bad records.
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes.truncate(bytes.len() - 3);
    sandbox.write("damaged/a.avro", bytes);
    let reading = table("t", "damaged", "'format' = 'avro', 'bad-records' = 'drop'");
    sandbox.write("job2.sql", format!("{reading}{}INSERT INTO o SELECT id, k, ts FROM t;", table("o", "out2", json)));
    let message = sandbox.run_err(&["run", "job2.sql"]);
    assert_says(&message, &["damaged/a.avro' cannot be read as Avro (it ends within"]);
}
