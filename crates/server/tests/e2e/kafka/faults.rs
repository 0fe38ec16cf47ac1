//! Brokers that go away and come back.

use std::sync::Arc;
use std::time::Duration;

use super::Running;
use super::exactly_once::{Feeder, complete, sql, whole_rows};
use crate::support::Sandbox;
use crate::support::kafka::Broker;

#[test]
fn a_broker_that_is_killed_and_comes_back_costs_no_row() {
    let broker = Arc::new(Broker::start());
    broker.create("in", 2);
    broker.create("out", 1);
    let sandbox = Sandbox::new(&sql(&broker, "in", "out", ""));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", "2"];
    let mut job = Running::start(&sandbox, &arguments);
    let feeder = Feeder::start(&broker, "in", 2);
    job.until(&sandbox, "some rows", || whole_rows(&broker.read("out")) > 200);
    broker.kill();
    std::thread::sleep(Duration::from_secs(3));
    broker.go();
    let before = whole_rows(&broker.read("out"));
    job.until(&sandbox, "rows after the broker has come back", || whole_rows(&broker.read("out")) > before + 200);
    let rows = feeder.end();
    complete(&broker, &sandbox, job, "out", rows);
}

#[test]
fn brokers_of_a_group_that_are_killed_in_turn_cost_no_row() {
    const BROKERS: usize = 3;
    // A third would show nothing else and take half as long again.
    const KILLED: usize = 2;
    let broker = Arc::new(Broker::start_group(BROKERS));
    broker.create("in", 3);
    broker.create("out", 1);
    let sandbox = Sandbox::new(&sql(&broker, "in", "out", ""));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", "2"];
    let mut job = Running::start(&sandbox, &arguments);
    let feeder = Feeder::start(&broker, "in", 3);
    let visible = || whole_rows(&broker.read("out"));
    job.until(&sandbox, "some rows", || visible() > 100);
    for down in 0..KILLED {
        broker.kill_one(down);
        let before = visible();
        job.until(&sandbox, &format!("rows without broker {down}"), || visible() > before + 100);
        broker.go_one(down);
    }
    let rows = feeder.end();
    complete(&broker, &sandbox, job, "out", rows);
}
