//! Previews: the first rows of a query, with nothing written and nothing left behind.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ENDLESS, Served};
use crate::support::Sandbox;
use crate::support::http_client::{Answer, HttpClient};
use crate::support::known::windows;

const PATH: &str = "/api/v1/preview";
const ORDERS: &str =
    "{\"customer\":\"ada\",\"amount\":1}\n{\"customer\":\"bob\"}\n{\"customer\":\"ada\",\"amount\":4}\n";
const TABLES: &str = "CREATE TABLE orders (customer STRING, amount INT)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE copies (customer STRING, amount BIGINT) WITH ('connector' = 'filesystem', 'path' = 'copies', 'format' = 'json');
CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '20');
";

/// A server beside whose job queries are shown.
struct Beside {
    sandbox: Sandbox,
    served: Served,
}

impl Beside {
    fn start() -> Beside {
        let mut sandbox = Sandbox::new(&windows(ENDLESS, 1_000, true, "none"));
        sandbox.write("in/orders.json", ORDERS);
        sandbox.write("scratch/kept", "");
        let scratch = sandbox.path("scratch").display().to_string();
        sandbox.environment.push(("TMPDIR".to_owned(), scratch));
        let served = Served::start(&sandbox, &[]);
        Beside { sandbox, served }
    }

    fn client(&self) -> &HttpClient {
        &self.served.client
    }

    /// Asks for the rows of a query behind the tables.
    fn ask(&self, query: &str, more: Value) -> Answer {
        self.client().post(PATH, &body(query, more))
    }

    #[track_caller]
    fn shown(&self, query: &str, more: Value) -> Value {
        let answer = self.ask(query, more);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        answer.json()
    }

    /// Nothing is left of any query, and the job has not noticed.
    fn check_traces(&self) {
        assert!(!self.sandbox.path("copies").exists(), "a preview has written to a table");
        assert_eq!(std::fs::read_to_string(self.sandbox.path("in/orders.json")).unwrap(), ORDERS);
        assert_eq!(names(&self.sandbox, "in"), ["orders.json"]);
        assert_eq!(previews_left(&self.sandbox), 0, "{:?}", names(&self.sandbox, "scratch"));
        assert_eq!(names(&self.sandbox, ".mainstem/jobs"), ["job"]);
        let jobs = self.client().get_json("/api/v1/jobs");
        assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
        let job = &jobs["jobs"][0];
        assert_eq!((&job["state"], &job["generation"], &job["restarts"]), (&json!("running"), &json!(1), &json!(0)));
    }
}

fn body(query: &str, more: Value) -> Value {
    let mut body = json!({ "sql": format!("{TABLES}{query}"), "time_ms": 30_000 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn names(sandbox: &Sandbox, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.path(directory)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn previews_left(sandbox: &Sandbox) -> usize {
    names(sandbox, "scratch").iter().filter(|name| name.starts_with("mainstem-preview")).count()
}

/// Kinds and values, each row in a word.
fn rows(answer: &Value) -> Vec<String> {
    let value = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    let row = |row: &Value| {
        let values: Vec<String> = row["values"].as_array().unwrap().iter().map(value).collect();
        format!("{} {}", row["kind"].as_str().unwrap(), values.join(" "))
    };
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn http_api_previews_rows_and_writes_nothing() {
    let beside = Beside::start();
    beside.client().wait_for("/api/v1/jobs/job", |json| json["job"]["state"] == "running");

    // What an INSERT would write, with the types of its table; nothing is there to be written to.
    let copied = beside.shown("INSERT INTO copies\nSELECT customer, amount FROM orders;", json!({}));
    assert_eq!(rows(&copied), ["+I ada 1", "+I bob null", "+I ada 4"]);
    let columns = json!([{ "name": "customer", "type": "STRING" }, { "name": "amount", "type": "BIGINT" }]);
    assert_eq!((&copied["table"], &copied["line"], &copied["columns"]), (&json!("copies"), &json!(5), &columns));
    assert_eq!(
        (&copied["end"], &copied["updating"], &copied["rows_read"]),
        (&json!("finished"), &json!(false), &json!(3))
    );

    // Without an end: as many rows as are wanted, or what comes in the time.
    let counted = beside.shown("SELECT COUNT(*) AS n FROM ticks;", json!({ "rows": 5 }));
    let kinds: Vec<&str> =
        counted["rows"].as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["+I", "-U", "+U", "-U", "+U"], "{counted}");
    let values = |row: usize| counted["rows"][row]["values"][0].clone();
    assert_eq!((values(1), values(3)), (values(0), values(2)), "what is taken back was given before: {counted}");
    assert_eq!((&counted["end"], &counted["updating"]), (&json!("rows"), &json!(true)));
    let usual = beside.shown("SELECT n FROM ticks;", json!({}));
    assert_eq!((usual["rows"].as_array().map(Vec::len), &usual["end"]), (Some(20), &json!("rows")));
    // A machine that is busy needs some of the time to begin.
    let timed = [1_000, 4_000, 16_000].into_iter().find_map(|time_ms| {
        let timed = beside.ask("SELECT n FROM ticks;", json!({ "rows": 1_000, "time_ms": time_ms })).json();
        let came = timed["rows"].as_array().map_or(0, Vec::len);
        (came > 0).then_some((time_ms, came, timed))
    });
    let (time_ms, came, timed) = timed.expect("rows come in sixteen seconds");
    assert!(timed["end"] == "time" && came < 1_000 && timed["duration_ms"].as_u64() >= Some(time_ms), "{timed}");
    let bytes = beside.shown(
        "SELECT REPEAT('x', 3000) AS x FROM ticks a, UNNEST(ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) AS u (i);",
        json!({ "rows": 1_000 }),
    );
    let long = bytes["rows"][0]["values"][0].as_str().unwrap().chars().count();
    assert!(bytes["end"] == "bytes" && long == 2_001 && bytes["cut_values"].as_u64() > Some(400), "{}", bytes["end"]);

    // One of several queries, by the line of the cursor; others may be half written.
    let two = "SELECT customer FROM orders;\nINSERT INTO copies SELECT customer, nothing FROM orders;";
    assert_eq!(rows(&beside.shown(two, json!({ "line": 5, "rows": 1 }))), ["+I ada"]);
    let wrong = beside.ask(two, json!({}));
    let error = &wrong.json()["error"];
    assert_eq!(
        (wrong.status, &error["code"], &error["line"], &error["column"]),
        (422, &json!("invalid_sql"), &json!(6), &json!(37))
    );
    let files = json!([{ "name": "tables.sql", "sql": TABLES }, { "name": "q.sql", "sql": "SELECT 1 AS one;\nSELECT nothing FROM orders;" }]);
    let first = beside.client().post(PATH, &json!({ "files": files, "line": 1, "time_ms": 30_000 })).json();
    assert_eq!((rows(&first), &first["line"]), (vec!["+I 1".to_owned()], &json!(1)), "{first}");
    let second = beside.client().post(PATH, &json!({ "files": files, "line": 2 })).json();
    assert_eq!((&second["error"]["line"], &second["error"]["column"]), (&json!(2), &json!(8)), "{second}");

    what_fails_is_told(&beside);
    beside.check_traces();
}

fn what_fails_is_told(beside: &Beside) {
    let absent = "CREATE TABLE gone (a INT) WITH ('connector' = 'filesystem', 'path' = 'absent', 'format' = 'json'); SELECT a FROM gone;";
    // Nothing listens at port 1.
    let silent = "CREATE TABLE silent (a INT) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json', \
                  'properties.bootstrap.servers' = '127.0.0.1:1', 'scan.startup.mode' = 'earliest-offset'); SELECT a FROM silent;";
    let changes = "CREATE TABLE changes (a INT PRIMARY KEY NOT ENFORCED) WITH ('connector' = 'postgres-cdc', 'hostname' = '127.0.0.1', \
                   'database-name' = 'd', 'schema-name' = 'public', 'table-name' = 't', 'username' = 'u', 'slot.name' = 's'); SELECT a FROM changes;";
    for (query, more, status, code, said) in [
        ("SELECT 1 / (amount - 1) AS x FROM orders;", json!({}), 422, "failed", "Divide by zero"),
        (absent, json!({}), 422, "failed", "'absent'"),
        (silent, json!({ "time_ms": 1_000 }), 422, "failed", "nothing has come from 'silent'"),
        (changes, json!({}), 409, "refused", "replication slot"),
        ("", json!({}), 422, "invalid_sql", "no INSERT and no SELECT"),
        ("SELECT 1;", json!({ "rows": 0 }), 400, "bad_request", "between 1 and 1000"),
        ("SELECT 1;", json!({ "rows": 1_001 }), 400, "bad_request", "between 1 and 1000"),
        ("SELECT 1;", json!({ "time_ms": 30_001 }), 400, "bad_request", "between 1 and 30000"),
        ("SELECT 1;", json!({ "limit": 1 }), 400, "bad_request", "limit"),
    ] {
        let answer = beside.ask(query, more);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}: {}", answer.text);
        assert!(answer.text.contains(said), "{query}: {}", answer.text);
    }
}

/// Two at a time; who goes away ends theirs, long before its time is over.
#[test]
fn http_api_previews_end_with_their_callers() {
    let beside = Beside::start();
    let patience = Duration::from_secs(180);
    let endless = body("SELECT n FROM ticks WHERE n IS NULL;", json!({}));
    let begun = Instant::now();
    let callers: Vec<TcpStream> =
        (0..2).map(|_| beside.client().send("POST", PATH, &[], Some(&endless)).unwrap()).collect();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(begun.elapsed() < patience, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("both run", &|| previews_left(&beside.sandbox) == 2);
    let refused = beside.ask("SELECT 1;", json!({}));
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many"));
    drop(callers);
    let (took, gone) = (begun.elapsed(), Instant::now());
    until("both have ended with their callers", &|| previews_left(&beside.sandbox) == 0);
    // They would have ended by themselves thirty seconds after they began.
    assert!(took > Duration::from_secs(8) || gone.elapsed() < Duration::from_secs(20), "{:?}", gone.elapsed());
    until("there is room again", &|| beside.ask("SELECT 1;", json!({})).status == 200);
    beside.check_traces();
}
