//! A cluster by HTTP: every coordinator answers, whoever leads, and while leaders die.

use serde_json::{Value, json};

use super::{ENDLESS, published};
use crate::support::Sandbox;
use crate::support::cluster::LocalCluster;
use crate::support::http_client::HttpClient;
use crate::support::known::windows;
use crate::support::ports::free_ports;

#[test]
fn http_api_of_a_cluster_goes_on_when_its_leader_is_killed() {
    let sandbox = Sandbox::new("");
    let port = free_ports(3);
    let cluster = LocalCluster::start_as(&sandbox, 3, 2, 2, &[], &[&format!("--http={port}")]);
    let client = |node: &str| {
        let number: u16 = node.rsplit('-').next().unwrap().parse().unwrap();
        HttpClient::new(&format!("127.0.0.1:{}", port + number - 1))
    };
    let leader = cluster.leader().unwrap_or_else(|| "coordinator-1".to_owned());
    let followers: Vec<String> = cluster.nodes("coordinator").into_iter().filter(|node| *node != leader).collect();
    let follower = client(&followers[0]);

    // Whatever is asked of one that does not lead is done by the one that does.
    let submission = json!({ "sql": windows(ENDLESS, 10_000, true, "none"), "name": "job", "parallelism": 2,
        "working_dir": sandbox.dir.path() });
    let submitted = follower.insist("POST", "/api/v1/jobs", Some(&submission));
    // The answer to a first request may be lost with its connection, then it is there already.
    assert!([201, 409].contains(&submitted.status), "{}", submitted.text);
    assert_eq!(follower.insist("POST", "/api/v1/jobs", Some(&submission)).code(), "refused");
    let lives = |json: &Value| published(json) > 1 && json["job"]["rows_in_per_second"].as_f64() > Some(0.0);
    let job = follower.wait_for("/api/v1/jobs/job", lives);
    assert_eq!(job["stale"], false);
    let graph = follower.get_json("/api/v1/jobs/job/graph");
    let subtasks = graph["operators"][0]["subtasks"].as_array().unwrap();
    assert!(subtasks.len() == 2 && subtasks.iter().all(|subtask| subtask["worker"].is_string()), "{graph}");
    let workers = follower.get_json("/api/v1/workers");
    assert_eq!(workers["workers"][0]["jobs"], json!(["job"]), "{workers}");
    let coordinators = follower.get_json("/api/v1/coordinators");
    assert_eq!(coordinators["members"].as_array().map(Vec::len), Some(3));

    // The next leader goes on, and says so wherever it is asked.
    let before = published(&follower.get_json("/api/v1/jobs/job"));
    cluster.signal(&leader, "KILL");
    let goes_on = |json: &Value| json["stale"] == false && published(json) > before + 1;
    follower.wait_for("/api/v1/jobs/job", goes_on);
    let after = follower.wait_for("/api/v1/jobs/job/checkpoints", |json| json["checkpoints"][0]["state"].is_string());
    assert!(after["totals"]["completed"].as_u64() >= Some(1), "{after}");

    // What changes the job finds the new leader as well; the audit trail tells who asked.
    let wanted = json!({ "parallelism": 1 });
    let rescaled = client(&followers[1]).insist("POST", "/api/v1/jobs/job/rescale", Some(&wanted));
    assert!([202, 409].contains(&rescaled.status), "{}", rescaled.text);
    follower.wait_for("/api/v1/jobs/job/graph", |json| {
        json["parallelism"] == 1 && json["operators"][0]["subtasks"].as_array().map(Vec::len) == Some(1)
    });
    let audit = follower.get_json("/api/v1/audit?job=job&limit=1000");
    let by = |what: &str| {
        let records = audit["records"].as_array().unwrap().iter();
        records
            .filter(|record| record["what"] == what)
            .map(|record| record["by"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join(";")
    };
    assert!(by("job-submitted").contains("anyone at 127.0.0.1") && by("rescale-asked").contains("anyone"), "{audit}");

    assert_eq!(follower.insist("POST", "/api/v1/jobs/job/cancel", None).status, 202);
    let ended = follower.wait_for("/api/v1/jobs/job", |json| json["job"]["active"] == false);
    assert_eq!(ended["job"]["end"]["outcome"], "stopped");
    let removed = follower.insist("DELETE", "/api/v1/jobs/job", None);
    // 404 where it was done and the first answer got lost.
    assert!([202, 404].contains(&removed.status), "{}", removed.text);
    assert_eq!(follower.insist("GET", "/api/v1/jobs/job", None).code(), "not_found");
}

#[test]
fn http_api_says_what_is_old_and_tells_why_a_job_failed() {
    let sandbox = Sandbox::new("");
    let port = free_ports(3);
    let cluster = LocalCluster::start_as(&sandbox, 3, 1, 2, &[], &[&format!("--http={port}")]);
    let client = HttpClient::new(&format!("127.0.0.1:{port}"));
    let sql = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in.json', 'format' = 'json');
        CREATE TABLE s (a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
        INSERT INTO s SELECT a FROM t;";
    sandbox.write("in.json", "{\"a\": 1}\n{\"a\": \"none\"}\n");
    let submission = json!({ "sql": sql, "name": "wrong", "working_dir": sandbox.dir.path() });
    let submitted = client.insist("POST", "/api/v1/jobs", Some(&submission));
    // 409 where it was done and the first answer got lost.
    assert!([201, 409].contains(&submitted.status), "{}", submitted.text);
    let failed = client.wait_for("/api/v1/jobs/wrong", |json| json["job"]["active"] == false);
    assert_eq!(failed["job"]["state"], "failed");
    assert!(failed["job"]["end"]["reason"].as_str().is_some_and(|reason| reason.contains("in.json")), "{failed}");
    let exceptions = client.get_json("/api/v1/jobs/wrong/exceptions");
    let cause = &exceptions["exceptions"][0];
    assert_eq!((&cause["fatal"], &cause["subtask"]), (&json!(true), &json!(0)), "{exceptions}");
    assert!(cause["message"].as_str().is_some_and(|message| message.contains("in.json")), "{exceptions}");

    // The one that is asked is left alone: it knows what was agreed on, and that it may be old.
    for node in ["coordinator-2", "coordinator-3"] {
        cluster.signal(node, "STOP");
    }
    let old = client.wait_for("/api/v1/jobs", |json| json["stale"] == true);
    assert_eq!(old["jobs"][0]["job"], "wrong");
    assert_eq!(client.get("/api/v1/jobs").headers["mainstem-stale"], "true");
    let refused = client.ask("DELETE", "/api/v1/jobs/wrong", &[], None);
    assert!([503, 504].contains(&refused.status), "{}", refused.text);
}
