//! The HTTP port of real processes: what is told of a job that runs, what may be asked for, and by whom.

mod access;
mod certificates;
mod cluster;
mod cluster_preview;
mod latency;
mod metrics;
mod preview;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::support::http_client::HttpClient;
use crate::support::known::windows;

/// Rows of jobs that do not end by themselves within a test.
pub(crate) const ENDLESS: u64 = 100_000_000;

/// `mainstem run` with its HTTP port.
pub(crate) struct Served {
    child: Child,
    pub(crate) client: HttpClient,
    /// What it has said on stderr since it said where it listens.
    said: Arc<Mutex<String>>,
}

impl Served {
    pub(crate) fn start(sandbox: &Sandbox, more: &[&str]) -> Served {
        let arguments = [&["run", "job.sql", "-p", "2", "--http", "0"][..], more].concat();
        let mut child = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| line.split_once("http://").map(|(_, rest)| rest.trim_end_matches('/').to_owned()));
        let said = Arc::<Mutex<String>>::default();
        let kept = said.clone();
        // A full pipe would stall the process.
        std::thread::spawn(move || lines.for_each(|line| *kept.lock().unwrap() += &(line + "\n")));
        Served { child, client: HttpClient::new(&address.expect("it says where it listens")), said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has ended by itself, well or not.
    fn wait(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(begun.elapsed() < Duration::from_secs(180), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn published(json: &Value) -> u64 {
    json["job"]["checkpoint"]["published"].as_u64().unwrap_or_default()
}

#[test]
fn http_api_of_one_process() {
    let sandbox = Sandbox::new(&windows(ENDLESS, 20_000, true, "none"));
    let mut served = Served::start(&sandbox, &[]);
    let client = served.client.clone();
    // Rates are there once there were two samples, and windows close once their watermark has come.
    let job = client.wait_for("/api/v1/jobs/job", |json| {
        let job = &json["job"];
        let rate = job["rows_in_per_second"].as_f64();
        published(json) > 2 && job["busy"].is_number() && rate > Some(0.0) && job["rows_out"].as_u64() > Some(0)
    });
    let job = &job["job"];
    assert_eq!(
        (job["state"].as_str(), job["parallelism"].as_u64(), &job["end"]),
        (Some("running"), Some(2), &Value::Null)
    );
    assert!(job["rows_in"].as_u64() > job["rows_out"].as_u64(), "{job}");
    let jobs = client.get_json("/api/v1/jobs");
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1));

    the_graph_shows_what_runs(&client);
    checkpoints_have_phases(&client);
    the_other_parts_answer(&client);
    events_are_told_as_they_happen(&client);
    sql_is_judged_and_not_run(&client);
    the_page_is_served(&client);
    wrong_requests_are_refused(&client);

    // What a process with one job cannot do.
    for (method, path, body) in [
        ("POST", "/api/v1/jobs", json!({ "sql": windows(1, 1, false, "none"), "name": "other" })),
        ("POST", "/api/v1/jobs/job/rescale", json!({ "parallelism": 3 })),
        ("GET", "/api/v1/coordinators", Value::Null),
        ("GET", "/api/v1/audit", Value::Null),
    ] {
        let answer = client.ask(method, path, &[], Some(&body).filter(|body| !body.is_null()));
        assert_eq!((answer.status, answer.code().as_str()), (501, "not_here"), "{path}: {}", answer.text);
    }
    let directory = sandbox.path("savepoints").display().to_string();
    let taken = client.post("/api/v1/jobs/job/savepoints", &json!({ "directory": directory }));
    assert_eq!(taken.status, 202, "{}", taken.text);
    let done = client.wait_for("/api/v1/jobs/job", |json| json["job"]["savepoints"][0]["outcome"].is_string());
    assert_eq!(done["job"]["savepoints"][0]["id"], taken.json()["id"]);
    assert!(done["job"]["savepoints"][0]["path"].as_str().is_some_and(|path| path.starts_with(&directory)), "{done}");
    let stopped = client.post("/api/v1/jobs/job/stop", &json!({}));
    assert_eq!((stopped.status, stopped.json()["asked"].as_str()), (202, Some("stop")));
    assert!(served.wait(), "a job that is stopped ends well");
}

fn the_graph_shows_what_runs(client: &HttpClient) {
    let graph = client.get_json("/api/v1/jobs/job/graph");
    let operators = graph["operators"].as_array().unwrap();
    let of_kind = |kind: &str| operators.iter().find(|operator| operator["kind"] == kind).unwrap();
    let (source, sink) = (of_kind("source"), of_kind("sink"));
    assert_eq!((source["table"].as_str(), source["connector"].as_str()), (Some("bid"), Some("nexmark")));
    assert_eq!((sink["table"].as_str(), sink["parallelism"].as_u64()), (Some("counts"), Some(2)));
    for operator in operators {
        let subtasks = operator["subtasks"].as_array().unwrap();
        assert_eq!(subtasks.len(), 2, "{operator}");
        // They are read while rows go by.
        for field in ["rows_in", "rows_out"] {
            let sum = subtasks.iter().map(|subtask| subtask[field].as_u64().unwrap()).sum::<u64>();
            assert!(sum > 0 && Some(sum) <= operator[field].as_u64(), "{field}: {operator}");
        }
        for subtask in subtasks {
            let parts = ["busy", "backpressured", "idle"].map(|part| subtask[part].as_f64().unwrap_or(-1.0));
            assert!((0.98..=1.02).contains(&parts.iter().sum::<f64>()), "{parts:?} are all of its time: {operator}");
        }
    }
    assert!(source["rows_out"].as_u64() >= sink["rows_in"].as_u64(), "{graph}");
    assert!(source["watermark_ms"].is_number(), "{source}");
    let window = of_kind("window_final");
    assert!(window["state_rows"].is_number() && window["watermark_ms"].is_number(), "{window}");
    let edges = graph["edges"].as_array().unwrap();
    assert!(edges.iter().any(|edge| edge["exchange"] == "hash" && edge["chained"] == false), "{graph}");
    assert!(edges.iter().all(|edge| edge["from"].as_u64() < edge["to"].as_u64()));
}

fn checkpoints_have_phases(client: &HttpClient) {
    let answer = client.get_json("/api/v1/jobs/job/checkpoints");
    let checkpoints = answer["checkpoints"].as_array().unwrap();
    let published: Vec<&Value> = checkpoints.iter().filter(|checkpoint| checkpoint["state"] == "published").collect();
    assert!(published.len() > 1 && checkpoints[0]["epoch"].as_u64() > checkpoints[1]["epoch"].as_u64(), "{answer}");
    for checkpoint in published {
        let ms = |phase: &str| checkpoint[phase].as_i64().unwrap_or_else(|| panic!("{phase}: {checkpoint}"));
        let phases = ms("snapshot_ms") + ms("manifest_ms") + ms("record_ms");
        assert_eq!(ms("duration_ms"), phases, "phases follow each other: {checkpoint}");
        assert!(
            ms("publish_ms") >= 0 && ms("alignment_ms") <= ms("snapshot_ms") + 1 && ms("bytes") >= 0,
            "{checkpoint}"
        );
        assert_eq!(checkpoint["acknowledged"], checkpoint["subtasks"]);
        let slowest = &checkpoint["slowest"];
        assert!(slowest["name"].is_string(), "{checkpoint}");
        let phases = ["capture_ms", "wait_ms", "upload_ms"].map(|phase| slowest[phase].as_i64().unwrap());
        // Each is rounded down, by another clock; so they may only be less.
        let spent = phases.iter().sum::<i64>() + slowest["alignment_ms"].as_i64().unwrap_or(0);
        assert!(Some(spent) <= slowest["ms"].as_i64().map(|ms| ms + 4), "{checkpoint}");
    }
    // The first ones may come before the first rows.
    assert!(checkpoints.iter().any(|checkpoint| checkpoint["bytes"].as_i64() > Some(0)), "{answer}");
    assert!(answer["totals"]["completed"].as_u64() >= Some(2), "{answer}");
    let commits = client.get_json("/api/v1/jobs/job/commits");
    assert!(commits["commits"][0]["published_at_ms"].is_number(), "{commits}");
}

fn the_other_parts_answer(client: &HttpClient) {
    let exceptions = client.get_json("/api/v1/jobs/job/exceptions");
    assert_eq!((&exceptions["exceptions"], &exceptions["restarts"]), (&json!([]), &json!(0)));
    let bad = client.get_json("/api/v1/jobs/job/bad-records");
    assert_eq!((&bad["dropped"], &bad["operators"]), (&json!(0), &json!([])));
    assert!(client.get_json("/api/v1/jobs/job/lag")["sources"].is_array());
    let timeline = client.get_json("/api/v1/jobs/job/timeline");
    assert!(!timeline["points"].as_array().unwrap().is_empty(), "{timeline}");
    let configuration = client.get_json("/api/v1/jobs/job/configuration");
    assert_eq!(configuration["options"]["interval_ms"], 200);
    assert_eq!(configuration["tables"][0]["options"]["connector"], "nexmark");
    let session = client.get_json("/api/v1/session");
    assert_eq!(
        (session["mode"].as_str(), session["role"].as_str(), &session["authenticated"]),
        (Some("run"), Some("admin"), &json!(false))
    );
    assert_eq!(client.get_json("/health")["status"], "ok");
    assert_eq!(client.get_json("/ready")["status"], "ok");
}

fn events_are_told_as_they_happen(client: &HttpClient) {
    let mut seen = Vec::new();
    let path = "/api/v1/jobs/job/events";
    client.events(path, &[], |id, kind, event| {
        seen.push((id.to_owned(), kind.to_owned(), event.clone()));
        // Several epochs may be complete before one of them is published.
        !["checkpoint", "published"].iter().all(|wanted| seen.iter().any(|(_, kind, _)| kind == wanted))
    });
    assert_eq!((seen[0].1.as_str(), seen[0].2["state"].as_str()), ("state", Some("running")));
    let of = |kind: &str| seen.iter().find(|(_, known, _)| known == kind).map(|(_, _, event)| event.clone()).unwrap();
    assert!(of("checkpoint")["duration_ms"].is_number() && of("published")["epoch"].is_number());
    // Whoever was cut off goes on behind what it has seen.
    let [.., (last, _, event), _] = &seen[..] else { panic!("{seen:?}") };
    client.events(path, &[("Last-Event-ID", last)], |_, _, next| {
        assert_eq!(next["seq"].as_u64(), event["seq"].as_u64().map(|seq| seq + 1));
        false
    });
}

fn sql_is_judged_and_not_run(client: &HttpClient) {
    let sql = windows(1, 1, false, "none");
    let valid = client.post("/api/v1/validate", &json!({ "sql": sql })).json();
    assert_eq!((&valid["valid"], &valid["sinks"]), (&json!(true), &json!(1)));
    let wrong = client
        .post("/api/v1/validate", &json!({ "sql": format!("{sql}\nINSERT INTO counts\nSELECT nothing FROM bid;") }));
    let error = &wrong.json()["error"];
    let line = sql.lines().count() as u64 + 2;
    assert_eq!((error["line"].as_u64(), error["column"].as_u64()), (Some(line), Some(8)), "{error}");
    let plan = client.post("/api/v1/explain", &json!({ "sql": sql, "parallelism": 3 })).json();
    assert!(plan["plan"].as_str().is_some_and(|plan| plan.contains("guarantees")), "{plan}");
    assert_eq!(plan["graph"]["operators"][0]["parallelism"], 3);
    let refused = client.post("/api/v1/explain", &json!({ "sql": "SELEC 1" }));
    assert_eq!(
        (refused.status, refused.code().as_str(), &refused.json()["error"]["line"]),
        (422, "invalid_sql", &json!(1))
    );
}

fn the_page_is_served(client: &HttpClient) {
    let page = client.get("/");
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"), "{:?}", page.headers);
    let script = client.get("/app.js");
    assert_eq!((script.status, script.headers["cache-control"].as_str()), (200, "no-cache"));
    let again = client.ask("GET", "/app.js", &[("If-None-Match", &script.headers["etag"])], None);
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    for outside in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/app.js/..", "/FILES"] {
        assert_eq!(client.get(outside).status, 404, "{outside}");
    }
}

fn wrong_requests_are_refused(client: &HttpClient) {
    const NONE: &[(&str, &str)] = &[];
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nested: Value = json!({ "sql": deep });
    for (method, path, headers, body, status, code) in [
        ("GET", "/api/v1/jobs/other", NONE, Value::Null, 404, "not_found"),
        ("POST", "/api/v1/jobs/other/cancel", &[], json!({}), 404, "not_found"),
        ("GET", "/api/v1/jobs/a%20b", &[], Value::Null, 400, "bad_request"),
        ("GET", "/api/v1/nothing", &[], Value::Null, 404, "not_found"),
        ("PUT", "/api/v1/jobs", &[], json!({}), 405, "method_not_allowed"),
        ("POST", "/api/v1/validate", &[], json!({ "sqll": "" }), 400, "bad_request"),
        ("POST", "/api/v1/validate", &[], json!({ "sql": "", "parallelism": 0 }), 400, "bad_request"),
        ("POST", "/api/v1/validate", &[("Content-Type", "text/plain")], json!({}), 415, "bad_request"),
        ("POST", "/api/v1/explain", &[], nested, 422, "invalid_sql"),
        ("POST", "/api/v1/explain", &[], json!({ "sql": "x".repeat(2 << 20) }), 422, "invalid_sql"),
        ("POST", "/api/v1/explain", &[], json!({ "sql": "x".repeat(5 << 20) }), 413, "too_large"),
        ("POST", "/api/v1/jobs/job/savepoints", &[], json!({ "directory": "relative" }), 400, "bad_request"),
        // A page of somebody else, and a name that was made to mean this machine.
        ("POST", "/api/v1/jobs/job/cancel", &[("Origin", "http://evil.example")], Value::Null, 403, "forbidden"),
        ("GET", "/api/v1/jobs", &[("Host", "evil.example")], Value::Null, 403, "forbidden"),
        ("GET", "/", &[("Host", "evil.example")], Value::Null, 403, "forbidden"),
    ] {
        let answer = client.ask(method, path, headers, Some(&body).filter(|body| !body.is_null()));
        let said = answer.text.chars().take(300).collect::<String>();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path} {headers:?}: {said}");
    }
}
