//! Previews in a cluster of coordinators and a worker as processes of their own, with roles: any coordinator shows rows, whoever
//! leads and whether anybody does, and neither jobs nor what they share learn of it.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::{ENDLESS, published};
use crate::support::Sandbox;
use crate::support::http_client::HttpClient;
use crate::support::known::windows;
use crate::support::ports::{free_port, free_ports};

const PATH: &str = "/api/v1/preview";
const COORDINATORS: u16 = 3;
const VIEWER: &str = "viewer-token-0123";
const OPERATOR: &str = "operator-token-01";
const TABLES: &str = "CREATE TABLE orders (customer STRING, amount INT)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE copies (customer STRING, total BIGINT, PRIMARY KEY (customer) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = 'copies', 'format' = 'upsert-json');
";

/// Processes that end when this is dropped.
struct Nodes {
    http: u16,
    processes: Vec<Child>,
}

impl Nodes {
    fn start(sandbox: &Sandbox) -> Nodes {
        let (http, peers) = (free_ports(COORDINATORS), free_ports(COORDINATORS));
        let addresses: Vec<String> = (0..COORDINATORS).map(|n| format!("127.0.0.1:{}", peers + n)).collect();
        let members: Vec<String> = (1..).zip(&addresses).map(|(id, address)| format!("{id}={address}")).collect();
        let mut nodes = Nodes { http, processes: Vec::new() };
        for id in 1..=COORDINATORS {
            let arguments = [
                "coordinator".to_owned(),
                format!("--id={id}"),
                format!("--members={}", members.join(",")),
                format!("--data-dir=coordinator-{id}"),
                "--state-dir=state".to_owned(),
                format!("--http={}", http + id - 1),
                "--http-token-file=tokens".to_owned(),
            ];
            nodes.spawn(sandbox, &format!("coordinator-{id}.log"), &arguments);
        }
        let worker = [
            "worker".to_owned(),
            "--name=w".to_owned(),
            "--slots=1".to_owned(),
            format!("--listen=127.0.0.1:{}", free_port()),
            format!("--coordinators={}", addresses.join(",")),
            "--copies-dir=copies-of-state".to_owned(),
        ];
        nodes.spawn(sandbox, "worker.log", &worker);
        nodes
    }

    fn spawn(&mut self, sandbox: &Sandbox, log: &str, arguments: &[String]) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = std::fs::File::create(sandbox.path(log)).unwrap();
        let mut command = sandbox.command(&arguments);
        command.arg("--with-parent").stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.processes.push(command.spawn().unwrap());
    }

    /// Of a coordinator, from 1 on.
    fn client(&self, id: u16) -> HttpClient {
        HttpClient::new(&format!("127.0.0.1:{}", self.http + id - 1))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn wish(query: &str) -> Value {
    json!({ "sql": format!("{TABLES}{query}"), "time_ms": 30_000 })
}

#[track_caller]
fn check_rows(client: &HttpClient) {
    let query = "INSERT INTO copies SELECT customer, SUM(amount) FROM orders GROUP BY customer;";
    let answer = client.with_token(OPERATOR).post(PATH, &wish(query));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let shown = answer.json();
    // How many changes there are depends on what comes together; the last of each customer is its sum.
    let rows = shown["rows"].as_array().unwrap().iter();
    let added = rows.filter(|row| ["+I", "+U"].contains(&row["kind"].as_str().unwrap()));
    let last: BTreeMap<_, _> = added.map(|row| (row["values"][0].as_str(), row["values"][1].as_str())).collect();
    assert_eq!(last, BTreeMap::from([(Some("ada"), Some("5")), (Some("bob"), None)]), "{shown}");
    assert_eq!(
        (&shown["end"], &shown["rows_read"], &shown["table"]),
        (&json!("finished"), &json!(3), &json!("copies"))
    );
}

#[test]
fn http_api_previews_at_each_coordinator_of_a_cluster_by_role() {
    let mut sandbox = Sandbox::new("");
    sandbox.write(
        "in/orders.json",
        "{\"customer\":\"ada\",\"amount\":1}\n{\"customer\":\"bob\"}\n{\"customer\":\"ada\",\"amount\":4}\n",
    );
    sandbox.write("tokens", format!("eye viewer {VIEWER}\nhand operator {OPERATOR}\n"));
    sandbox.write("scratch/kept", "");
    let scratch = sandbox.path("scratch");
    sandbox.environment.push(("TMPDIR".to_owned(), scratch.display().to_string()));
    sandbox.environment.push(("MAINSTEM_LOG".to_owned(), "info,openraft=warn".to_owned()));
    let nodes = Nodes::start(&sandbox);
    let operator = nodes.client(1).with_token(OPERATOR);
    operator.wait_for("/api/v1/workers", |json| json["workers"].as_array().map(Vec::len) == Some(1));

    // A job has the only slot; previews need none.
    let submission = json!({ "sql": windows(ENDLESS, 1_000, true, "none"), "name": "job", "parallelism": 1,
        "working_dir": sandbox.dir.path() });
    let submitted = operator.insist("POST", "/api/v1/jobs", Some(&submission));
    assert!([201, 409].contains(&submitted.status), "{}", submitted.text);
    operator.wait_for("/api/v1/jobs/job", |json| published(json) > 0);
    for id in 1..=COORDINATORS {
        let client = nodes.client(id);
        check_rows(&client);
        let ask = |client: &HttpClient| {
            let answer = client.post(PATH, &wish("SELECT customer FROM orders;"));
            (answer.status, answer.code())
        };
        assert_eq!(ask(&client), (401, "unauthorized".to_owned()));
        assert_eq!(ask(&client.with_token("operator-token-00")), (401, "unauthorized".to_owned()));
        assert_eq!(ask(&client.with_token(VIEWER)), (403, "forbidden".to_owned()));
        let wrong = client.with_token(OPERATOR).post(PATH, &wish("SELECT nothing FROM orders;"));
        assert_eq!((wrong.status, wrong.code().as_str()), (422, "invalid_sql"), "{}", wrong.text);
    }
    let job = &operator.get_json("/api/v1/jobs")["jobs"];
    assert_eq!(job.as_array().map(Vec::len), Some(1), "{job}");
    assert_eq!(
        (&job[0]["state"], &job[0]["generation"], &job[0]["restarts"]),
        (&json!("running"), &json!(1), &json!(0))
    );
    let audit = operator.get_json("/api/v1/audit?limit=1000");
    let whats: Vec<_> = audit["records"].as_array().unwrap().iter().map(|record| record["job"].as_str()).collect();
    assert!(whats.iter().all(|of| matches!(of, None | Some("job"))), "{audit}");

    // Who asked stands in the node's log, at its level INFO.
    let log = std::fs::read_to_string(sandbox.path("coordinator-2.log")).unwrap();
    let line = log.lines().find(|line| line.contains("rows were previewed"));
    assert!(line.is_some_and(|line| line.contains("hand")), "{log}");

    // Alone, a coordinator decides nothing, and shows rows as ever.
    for other in &nodes.processes[1..usize::from(COORDINATORS)] {
        let stopped = std::process::Command::new("kill").args(["-STOP", &other.id().to_string()]).status();
        assert!(stopped.unwrap().success());
    }
    operator.wait_for("/api/v1/jobs", |json| json["stale"] == true);
    check_rows(&nodes.client(1));

    assert!(!sandbox.path("copies").exists(), "a preview has written to a table");
    let state: Vec<_> =
        std::fs::read_dir(sandbox.path("state/jobs")).unwrap().map(|job| job.unwrap().file_name()).collect();
    assert_eq!(state, ["job"]);
    let left = std::fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.starts_with("mainstem-preview")).collect();
    assert!(left.is_empty(), "{left:?}");
}
