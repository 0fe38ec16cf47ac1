//! How far a job is behind its topics.

use super::{Running, newest_lag, with};
use crate::support::Sandbox;
use crate::support::kafka::Broker;

/// More than lies between a consumer and a sink.
const MANY: i32 = 200_000;

#[test]
fn lag_is_what_is_there_and_not_read_also_of_a_job_that_is_held_up() {
    let broker = Broker::shared();
    broker.create("lagging", 2);
    let send = || broker.send_together("lagging", true, (0..MANY).map(|n| (i32::from(n % 4 == 0), "row")));
    send();
    let options = "'format' = 'raw', 'scan.startup.mode' = 'earliest-offset'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (line STRING) {};
         CREATE TABLE o (line STRING) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT line FROM t;",
        with(&broker, "kafka", "lagging", options)
    ));
    sandbox.slow_sinks(4_000);
    let arguments = ["run", "job.sql", "--json", "--parallelism", "2", "--checkpoint-interval", "100 ms"];
    let mut job = Running::start(&sandbox, &arguments);
    let most = u64::try_from(MANY).unwrap();
    job.until(&sandbox, "the lag", || {
        let Some((total, splits)) = newest_lag(&sandbox) else { return false };
        assert!(total <= most && splits.iter().map(|(_, lag)| lag).sum::<u64>() == total, "{total}: {splits:?}");
        splits.len() == 2
    });
    // Its consumers do not ask for more, since nobody takes what they have.
    send();
    job.until(&sandbox, "what has come since", || newest_lag(&sandbox).is_some_and(|(total, _)| total > most));
    job.kill();
    sandbox.slow_sinks(0);
    let mut job = Running::start(&sandbox, &arguments);
    // What stands behind the last message is the mark of its transaction.
    job.until(&sandbox, "no lag", || {
        newest_lag(&sandbox).is_some_and(|(total, splits)| {
            let names: Vec<_> = splits.iter().map(|(name, _)| name.as_str()).collect();
            total == 0 && names == ["lagging/0", "lagging/1"]
        })
    });
}
