//! Servers that go away and come back, and a writer beside the job.

use std::sync::Arc;
use std::time::Duration;

use super::exactly_once::{ARGUMENTS, Feeder, complete, distinct, sql};
use crate::kafka::Running;
use crate::support::Sandbox;
use crate::support::nats::Server;

#[test]
fn a_server_that_is_killed_and_comes_back_costs_no_row() {
    let server = Arc::new(Server::start("", async_nats::ConnectOptions::new()));
    server.create("IN");
    server.create("OUT");
    let sandbox = Sandbox::new(&sql(&server, "IN", "OUT"));
    let mut job = Running::start(&sandbox, &ARGUMENTS);
    let mut rows = 0;
    for _ in 0..3 {
        server.publish((rows..rows + 1000).map(|id| (format!("in.{}", id % 2), format!(r#"{{"id":{id}}}"#))));
        rows += 1000;
        // In the middle of what it brings about, most of the time.
        std::thread::sleep(Duration::from_millis(120));
        server.kill();
        std::thread::sleep(Duration::from_secs(2));
        server.go();
        job.until(&sandbox, "rows after the server has come back", || distinct(&server.read("OUT")) as i64 >= 2 * rows);
    }
    complete(&server, &sandbox, job, "OUT", rows);
}

#[test]
fn others_may_write_to_the_stream_at_the_same_time() {
    let server = Server::shared();
    server.create("BESIDEIN");
    server.create("BESIDEOUT");
    let sandbox = Sandbox::new(&sql(&server, "BESIDEIN", "BESIDEOUT"));
    let feeder = Feeder::start(&server, "BESIDEIN", 2);
    // To subjects of the same stream, which are none of the job's.
    let noise = Feeder::start(&server, "BESIDEOUT", 3);
    for _ in 0..3 {
        assert!(sandbox.kill_at(&ARGUMENTS, "output-sending", 3));
    }
    let rows = feeder.end();
    let beside = noise.end();
    complete(&server, &sandbox, Running::start(&sandbox, &ARGUMENTS), "BESIDEOUT", rows);
    assert_eq!(server.read("BESIDEOUT").len() as i64, 2 * rows + beside);
}
