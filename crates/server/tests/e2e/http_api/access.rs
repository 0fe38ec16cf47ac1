//! Tokens and roles: every route that is described asks for the role that its description names.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ENDLESS, Served};
use crate::support::Sandbox;
use crate::support::http_client::HttpClient;
use crate::support::known::windows;

/// Paths that need no token, all of which say next to nothing.
const PUBLIC: [&str; 2] = ["/health", "/ready"];

#[test]
fn http_api_asks_for_a_token_on_every_route() {
    let sandbox = Sandbox::new(&windows(ENDLESS, 2_000, true, "none"));
    let users = [("viewer", "viewer-token-0123"), ("operator", "operator-token-01"), ("admin", "admin-token-01234")];
    let lines: String = users.map(|(role, token)| format!("{role}-user {role} {token}\n")).concat();
    sandbox.write("tokens", format!("# name role token\n{lines}"));
    let served = Served::start(&sandbox, &["--http-token-file", "tokens"]);
    let anyone = &served.client;
    let viewer = anyone.with_token(users[0].1);
    viewer.wait_for("/api/v1/jobs", |json| json["jobs"][0]["state"] == "running");

    let description = viewer.get_json("/api/v1/openapi.json");
    let mut walked = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(_, operation)| operation.is_object())
        {
            let needed = operation["security"][0]["token"][0].as_str();
            assert_eq!(needed.is_none(), PUBLIC.contains(&path.as_str()), "{method} {path} needs a role");
            let Some(needed) = needed else { continue };
            let method = method.to_uppercase();
            let (path, body) = request(path, operation, &description);
            let ask = |client: &HttpClient| client.ask(&method, &path, &[], body.as_ref());
            let answer = ask(anyone);
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{method} {path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert_eq!(ask(&anyone.with_token("viewer-token-0124")).status, 401, "{method} {path}");
            let rank = |role: &str| users.iter().position(|(known, _)| *known == role).unwrap();
            for (role, token) in users.iter().filter(|(role, _)| rank(role) < rank(needed)) {
                let answer = ask(&anyone.with_token(token));
                assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path} as {role}");
            }
            walked += 1;
            // What only looks answers with its example; the rest would end the job.
            if method == "GET" && !path.ends_with("/events") {
                let answer = ask(&anyone.with_token(users[rank(needed)].1));
                let only_in_clusters = ["/api/v1/coordinators", "/api/v1/audit"].contains(&path.as_str());
                assert_eq!(answer.status, if only_in_clusters { 501 } else { 200 }, "{path}: {}", answer.text);
            }
        }
    }
    assert!(walked >= 25, "only {walked} routes are described");
    assert_eq!(anyone.get("/").status, 200, "the page must be there before its user can give a token");
    assert_eq!(viewer.get_json("/api/v1/session")["user"], "viewer-user");
    let admin = anyone.with_token(users[2].1).get("/api/v1/configuration").text;
    assert!(!admin.contains("token-0"), "{admin}");
}

/// A request as the description gives it, with its examples.
fn request(path: &str, operation: &Value, description: &Value) -> (String, Option<Value>) {
    let path = path.replace("{job}", "job").replace("{name}", "w1").replace("{id}", "4");
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let body = schema.is_object().then(|| serde_json::json!({}));
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        assert!(description["components"]["schemas"][name].is_object(), "{name} is not described");
    }
    (path, body)
}

#[test]
fn http_api_is_not_open_to_others_without_tokens() {
    let sandbox = Sandbox::new(&windows(10, 10, false, "none"));
    let refused = sandbox.run_err(&["run", "job.sql", "--http", "0.0.0.0:0"]);
    assert!(refused.contains("--http-token-file"), "{refused}");
    sandbox.write("tokens", "ada admin hunter2\n");
    let refused = sandbox.run_err(&["run", "job.sql", "--http", "0", "--http-token-file", "tokens"]);
    assert!(
        refused.contains("line 1: a token has at least 16 characters") && !refused.contains("hunter2"),
        "{refused}"
    );
    assert!(sandbox.run_err(&["run", "job.sql", "--http-token-file", "tokens"]).contains("no effect without --http"));
}

#[test]
fn http_api_reads_tokens_anew_that_have_changed() {
    let sandbox = Sandbox::new(&windows(ENDLESS, 100, true, "none"));
    sandbox.write("tokens", "ada viewer old-token-0123456\n");
    let served = Served::start(&sandbox, &["--http-token-file", "tokens"]);
    let old = served.client.with_token("old-token-0123456");
    let new = served.client.with_token("new-token-0123456");
    let status = |client: &HttpClient| client.get("/api/v1/session").status;
    assert_eq!((status(&old), status(&new)), (200, 401));
    let stream = old.clone();
    let followed = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut ended = String::new();
        let mut open = stream.send("GET", "/api/v1/jobs/job/events", &[], None).unwrap();
        std::io::Read::read_to_string(&mut open, &mut ended).unwrap();
        begun.elapsed()
    });

    // As a mounted secret is changed: another file takes its name.
    sandbox.write("tokens.new", "ada viewer new-token-0123456\n");
    std::fs::rename(sandbox.path("tokens.new"), sandbox.path("tokens")).unwrap();
    wait_until("the new token is known", || status(&new) == 200);
    assert_eq!(status(&old), 401, "one that is not in the file any more");
    assert!(followed.join().unwrap() < Duration::from_secs(60), "a stream that was opened with it has ended");

    sandbox.write("tokens", "ada viewer bad\n");
    wait_until("the file is refused", || served.said().contains("stay in force"));
    assert_eq!((status(&old), status(&new)), (401, 200));
    let said = served.said();
    let line = said.lines().find(|line| line.contains("stay in force")).unwrap();
    assert!(line.contains(" WARN ") && line.contains("token file 'tokens': line 1: a token has at least"), "{line}");

    sandbox.write("tokens", "ada viewer old-token-0123456\nbob admin new-token-0123456\n");
    wait_until("both are known", || status(&old) == 200);
    assert_eq!(new.get_json("/api/v1/session")["role"], "admin");
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(180), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
