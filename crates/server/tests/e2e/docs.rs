//! The examples of the connectors' pages, run as they stand there against real servers; only the address of the server is
//! another one. That every example can be planned, and that every option has one, is checked by `scripts/check-docs`.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::postgres::server::Server;
use crate::support::Sandbox;
use crate::support::http::{Answer, Receiver};
use crate::support::kafka::Broker;
use crate::support::redis::{PASSWORD, Redis};
use crate::support::s3::S3;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

const ORDERS: &str = r#"{"id":1,"customer":"ada","amount":150.25}
{"id":2,"customer":"eva","amount":99.00}
{"id":3,"customer":"ada","amount":200.50}
"#;

/// The `number`-th block of SQL of a page below docs/, with its texts replaced. Each of them must be there.
#[track_caller]
fn example(page: &str, number: usize, replaced: &[(&str, &str)]) -> Sandbox {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let blocks: Vec<&str> = text.split("```sql\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    let mut sql = blocks[number].to_owned();
    for (from, to) in replaced {
        assert!(sql.contains(from), "{page}: '{from}' is not in the block\n{sql}");
        sql = sql.replace(from, to);
    }
    Sandbox::new(&sql)
}

/// Runs a job without end until something holds.
#[track_caller]
fn run_until(sandbox: &Sandbox, what: &str, mut holds: impl FnMut() -> bool) {
    let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
    let mut command = sandbox.command(&["run", "job.sql", "--checkpoint-interval", "100 ms"]);
    let mut job = Job(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let begun = Instant::now();
    while !holds() {
        let log = || std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
        assert!(job.0.try_wait().unwrap().is_none(), "the job ended before {what}: {}", log());
        assert!(begun.elapsed() < PATIENCE, "waited too long for: {what}: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn http() {
    let receiver = Receiver::start(|_, _| Answer::Take);
    let mut sandbox = example("connectors/http.md", 0, &[("https://hooks.example/orders", &receiver.url())]);
    sandbox.environment.push(("HOOK_TOKEN".to_owned(), "sesame".to_owned()));
    sandbox.write("orders/a.json", ORDERS);
    sandbox.run_ok(&["run", "job.sql"]);
    let bodies: Vec<String> = receiver.taken_once().into_values().collect();
    assert_eq!(bodies, [r#"[{"id":1,"customer":"ada","amount":150.25},{"id":3,"customer":"ada","amount":200.50}]"#]);
    assert!(receiver.seen()[0].head.contains("authorization: bearer sesame"));
}

#[test]
fn redis() {
    let server = Redis::start();
    let address = format!("127.0.0.1:{}", server.port);
    let mut sandbox = example("connectors/redis.md", 0, &[("redis.example:6379", &address)]);
    sandbox.environment.push(("REDIS_PASSWORD".to_owned(), PASSWORD.to_owned()));
    sandbox.write("orders/a.json", ORDERS);
    sandbox.run_ok(&["run", "job.sql"]);
    let found = server.hashes("totals:");
    assert_eq!(found.len(), 2);
    assert_eq!((found["totals:ada"]["orders"].as_str(), found["totals:ada"]["amount"].as_str()), ("2", "350.75"));
}

/// The user that the pages of PostgreSQL name.
const PAGE_USER: &str = "CREATE ROLE mainstem LOGIN SUPERUSER PASSWORD 'page-password'";

#[test]
fn postgres() {
    let server = Server::start();
    server.query("postgres", PAGE_USER);
    server.database(
        "shop",
        "CREATE TABLE customers (id int PRIMARY KEY, name text); INSERT INTO customers VALUES (1, 'ada'), (2, 'eva');
         CREATE SCHEMA report; CREATE TABLE report.totals (name text PRIMARY KEY, amount numeric(38, 2))",
    );
    let address = format!("127.0.0.1:{}", server.port);
    let mut sandbox = example("connectors/postgres.md", 0, &[("db.example:5432", &address)]);
    sandbox.environment.push(("PG_PASSWORD".to_owned(), "page-password".to_owned()));
    sandbox.write("orders/a.json", ORDERS.replace("\"ada\"", "1").replace("\"eva\"", "2"));
    sandbox.run_ok(&["run", "job.sql"]);
    let totals = server.query("shop", "SELECT name, amount FROM report.totals ORDER BY name");
    assert_eq!(totals, [["ada", "350.75"], ["eva", "99.00"]]);
}

#[test]
fn postgres_cdc() {
    let server = Server::start();
    server.query("postgres", PAGE_USER);
    server.database(
        "bank",
        "CREATE TABLE accounts (id int PRIMARY KEY, region text, balance numeric(12, 2));
         INSERT INTO accounts VALUES (1, 'north', 10), (2, 'north', 20), (3, 'south', 5)",
    );
    let host = format!("'hostname' = '127.0.0.1', 'port' = '{}'", server.port);
    let mut sandbox = example("connectors/postgres-cdc.md", 0, &[("'hostname' = 'db.example'", &host)]);
    sandbox.environment.push(("PG_PASSWORD".to_owned(), "page-password".to_owned()));
    let newest =
        |balance: &str| format!(r#"{{"key":{{"region":"north"}},"value":{{"region":"north","balance":{balance}}}}}"#);
    run_until(&sandbox, "the copy is summed up", || sandbox.lines("totals").contains_key(&newest("30.00")));
    server.query("bank", "UPDATE accounts SET balance = 21.5 WHERE id = 2");
    run_until(&sandbox, "the change is summed up", || sandbox.lines("totals").contains_key(&newest("31.50")));
}

#[test]
fn kafka() {
    let broker = Broker::shared();
    broker.create("orders", 2);
    broker.create("revenue", 1);
    let producer = broker.producer();
    for id in 0..60 {
        let order = format!(r#"{{"id":{id},"customer":"ada","amount":1.50,"ts":"2026-01-01 00:00:{id:02}"}}"#);
        producer.send("orders", Some(id % 2), None, Some(&order));
    }
    // What closes the window, in both partitions.
    for partition in 0..2 {
        let late = r#"{"id":99,"customer":"eva","amount":7.00,"ts":"2026-01-01 00:05:00"}"#;
        producer.send("orders", Some(partition), None, Some(late));
    }
    producer.flush();
    let servers = broker.servers();
    let sandbox = example("connectors/kafka.md", 0, &[("broker-1:9092,broker-2:9092", &servers)]);
    run_until(&sandbox, "the first window is sent", || !broker.read("revenue").is_empty());
    let seen = broker.read("revenue");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].key.as_deref(), Some(r#"{"customer":"ada"}"#));
    assert_eq!(seen[0].value.as_deref(), Some(r#"{"customer":"ada","w":"2026-01-01 00:00:00","total":90.00}"#));
}

#[test]
fn object_stores() {
    let server = S3::shared();
    server.put("docs/orders/a.json", "{\"ts\":\"2026-01-01 00:00:00\",\"customer\":\"ada\",\"amount\":1.50}\n");
    let place = server.url("docs/orders/*.json");
    let declared = [("s3://streams/orders/*.json.gz", place.as_str())];
    let mut sandbox = example("object-stores.md", 0, &declared);
    sandbox.environment = server.environment();
    let table = std::fs::read_to_string(sandbox.path("job.sql")).unwrap();
    sandbox.write("job.sql", format!("{table}\nSELECT customer, amount FROM orders;"));
    let output = sandbox.run_ok(&["run", "job.sql"]);
    assert!(crate::support::text(&output.stdout).contains("ada"));
}
