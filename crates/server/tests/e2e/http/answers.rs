//! What a receiver can say, and what the job makes of it: waits, stops with a message, or drops and counts.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{counts, numbers};
use crate::support::http::{Answer, Receiver};
use crate::support::{Sandbox, assert_says, text};

const TOKEN: &str = "tok-9c41fe-SECRET";

#[test]
fn a_receiver_that_is_down_for_a_while_gets_all() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let receiver = Receiver::start(move |_, _| match is_up.load(Ordering::Relaxed) {
        true => Answer::Take,
        false => Answer::Refuse(503, "Retry-After: 1\r\n", String::new()),
    });
    let sandbox = Sandbox::new(&numbers(&receiver, 2_000, 0, "'batch-size' = '100'"));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--json"];
    let job = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while receiver.seen().is_empty() && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    std::thread::sleep(Duration::from_millis(1_500));
    up.store(true, Ordering::Relaxed);
    let seconds_down = asked.elapsed().as_secs() as usize;
    let output = job.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let taken = receiver.taken_once();
    assert!(counts(taken.values()).into_iter().eq((1..=2_000).map(|id| (id, 1))));
    let refused = receiver.seen().iter().filter(|seen| !seen.taken).count();
    // Eight requests at once, each again after a second; the last may have been on their way.
    assert!(
        refused <= 8 * (seconds_down + 2),
        "it was asked {refused} times although it wanted to be left alone for a second"
    );
}

#[test]
fn what_is_refused_for_good_stops_the_job_or_is_dropped_and_counted() {
    let refuses = |_: usize, seen: &crate::support::http::Seen| match seen.body.contains("\"id\":7}") {
        true => Answer::Refuse(422, "", format!("no sevens, {TOKEN}, {}", "x".repeat(5_000))),
        false => Answer::Take,
    };
    let receiver = Receiver::start(refuses);
    let options = "'headers.Authorization' = 'Bearer ${file:token}', 'headers.X-Source' = 'tests'";
    let sandbox = Sandbox::new(&numbers(&receiver, 20, 0, options));
    sandbox.write("token", TOKEN);
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["table 'hook'", "422", "no sevens", "http://127.0.0.1", "'on-rejected' = 'drop'"]);
    assert!(!message.contains(TOKEN) && message.len() < 3_000, "{message}");
    let seen = receiver.seen();
    assert!(seen.iter().all(|seen| seen.head.contains(&format!("authorization: bearer {}", TOKEN.to_lowercase()))));
    assert!(seen.iter().all(|seen| seen.head.contains("x-source: tests")));
    assert!(seen.iter().all(|seen| seen.head.contains("content-type: application/json")));
    let state = crate::support::visible_files(&sandbox.path(".mainstem"));
    assert!(!state.is_empty());
    for file in state {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()), "{}", file.display());
    }
    for delivery in ["exactly-once", "at-least-once"] {
        let receiver = Receiver::start(refuses);
        let options = format!("{options}, 'on-rejected' = 'drop', 'delivery' = '{delivery}'");
        let sandbox = Sandbox::new(&numbers(&receiver, 20, 0, &options));
        sandbox.write("token", TOKEN);
        let output = sandbox.run_ok(&["run", "job.sql", "--json"]);
        let said = text(&output.stderr);
        assert_says(&said, &["\"dropped_records\":1", "\"outcome\":\"finished\""]);
        assert!(!said.contains(TOKEN), "{said}");
        assert_eq!(receiver.seen().iter().filter(|seen| seen.taken).count(), 19);
    }
}

#[test]
fn best_effort_goes_on_without_what_failed() {
    let receiver = Receiver::start(|number, _| match number {
        2..=5 => Answer::Refuse(500, "", String::new()),
        _ => Answer::Take,
    });
    let options = "'delivery' = 'best-effort', 'retry.max' = '1', 'retry.delay' = '1 ms', 'requests-in-flight' = '1'";
    let sandbox = Sandbox::new(&numbers(&receiver, 20, 0, options));
    let output = sandbox.run_ok(&["run", "job.sql", "--json", "--parallelism", "1"]);
    assert_says(&text(&output.stderr), &["\"dropped_records\":2", "\"outcome\":\"finished\""]);
    assert_eq!(receiver.seen().iter().filter(|seen| seen.taken).count(), 18);
}

#[test]
fn nobody_there_and_wrong_options_say_what_to_do() {
    let sql = |options: &str| {
        format!(
            "SET 'restart-strategy.type' = 'none';
             CREATE TABLE hook (id BIGINT) WITH ('connector' = 'http', 'format' = 'json', {options});
             INSERT INTO hook VALUES (1);"
        )
    };
    let at = |url: &str, more: &str| sql(&format!("'url' = '{url}'{more}"));
    let quick = ", 'retry.max' = '1', 'retry.delay' = '1 ms', 'delivery' = 'at-least-once'";
    for (sql, parts) in [
        (at("http://127.0.0.1:1/secret-path", quick), &["http://127.0.0.1:1:", "refused", "tried 2 times"][..]),
        (at("http://127.0.0.1:1/", ", 'batch-size' = '0'"), &["'batch-size'", "from 1 to"]),
        (at("http://127.0.0.1:1/", ", 'retries' = '1'"), &["unknown option 'retries'", "retry.max"]),
        (sql("'method' = 'POST'"), &["needs the option 'url'"]),
        (at("https://127.0.0.1:1/", ", 'tls.ca-file' = '/no/such.pem'"), &["'/no/such.pem'", "check the path"]),
    ] {
        let message = Sandbox::new(&sql).run_err(&["run", "job.sql"]);
        assert_says(&message, parts);
        assert!(!message.contains("secret-path"), "{message}");
    }
    let retracts = "CREATE TABLE n (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '5');
         CREATE TABLE hook (c BIGINT) WITH ('connector' = 'http', 'url' = 'http://127.0.0.1:1/', 'format' = 'json');
         INSERT INTO hook SELECT COUNT(*) FROM n;";
    let message = Sandbox::new(retracts).run_err(&["check", "job.sql"]);
    assert_says(&message, &["hook"]);
}
