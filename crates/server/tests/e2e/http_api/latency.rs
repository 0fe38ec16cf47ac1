//! How long rows take, as it is told by the port of a real process: by histograms, by the API, and on a cluster by `mainstem
//! status`. What is known of it is that no row can take less than the sink takes for its batch.

use serde_json::Value;

use super::{ENDLESS, Served, published};
use crate::support::cluster::LocalCluster;
use crate::support::http_client::HttpClient;
use crate::support::ports::free_port;
use crate::support::{Sandbox, text};

/// The sink takes so long for each batch.
const DELAY_MS: u64 = 150;

/// Rows of a generator, counted by key behind an exchange: each batch gives one to the sink. Barriers wait for nothing.
fn rows(interval: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '400 ms';
         SET 'execution.checkpointing.aligned-checkpoint-timeout' = '0 ms';
         SET 'metrics.latency.interval' = '{interval}';
         CREATE TABLE bid (auction BIGINT)
         WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '{ENDLESS}', 'rate.limited' = 'true',
             'first-event.rate' = '2000', 'next-event.rate' = '2000');
         CREATE TABLE counts (auction BIGINT, bids BIGINT)
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'debezium-json');
         INSERT INTO counts SELECT auction, COUNT(*) FROM bid GROUP BY auction;"
    )
}

fn latency(json: &Value) -> &Value {
    &json["job"]["latency"][0]
}

/// The value of a series.
fn value(scrape: &str, series: &str) -> f64 {
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {scrape}")).parse().unwrap()
}

/// Bounds and cumulative counts of a histogram of a sink.
fn buckets(scrape: &str, name: &str, labels: &str) -> Vec<(f64, f64)> {
    let (head, tail) = (format!("{name}_bucket{{le=\""), format!("\",{labels}}} "));
    let of = |line: &str| {
        let (bound, count) = line.strip_prefix(&head)?.split_once(&tail)?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        Some((bound, count.parse().unwrap()))
    };
    scrape.lines().filter_map(of).collect()
}

#[test]
fn http_api_latency_of_rows_is_at_least_what_a_slow_sink_takes() {
    let sandbox = Sandbox::new(&rows("50 ms"));
    sandbox.slow_sinks(DELAY_MS);
    let served = Served::start(&sandbox, &[]);
    let json = served.client.wait_for("/api/v1/jobs/job", |json| {
        published(json) > 3
            && latency(json)["markers"].as_u64() > Some(20)
            && latency(json)["visible_p99_ms"].is_number()
    });
    let of = |figure: &str| latency(&json)[figure].as_f64().unwrap_or_else(|| panic!("no {figure}: {json}"));
    // A quantile is somewhere in its bucket, which begins at 100 ms.
    assert!(of("p50_ms") >= 100.0 && of("p99_ms") >= of("p50_ms"), "{json}");
    // Some that have come to the sink are not visible yet, so the two cannot be compared one by one.
    assert!(of("visible_p50_ms") >= 100.0 && of("visible_p99_ms") >= of("visible_p50_ms"), "{json}");
    assert_eq!(latency(&json)["table"], "counts");

    let scrape = served.client.get("/metrics").text;
    let sink = latency(&json)["operator"].as_u64().unwrap();
    let labels = format!("job=\"job\",operator=\"{sink}\"");
    for name in ["mainstem_row_latency_seconds", "mainstem_row_visible_latency_seconds"] {
        assert!(scrape.contains(&format!("# TYPE {name} histogram\n")), "{scrape}");
        let buckets = buckets(&scrape, name, &labels);
        assert!(buckets.len() > 10 && buckets.last().unwrap().0.is_infinite(), "{buckets:?}");
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "cumulative: {buckets:?}");
        let (count, sum) =
            (value(&scrape, &format!("{name}_count{{{labels}}}")), value(&scrape, &format!("{name}_sum{{{labels}}}")));
        assert_eq!(buckets.last().unwrap().1, count);
        let mean = sum / count;
        assert!(count > 3.0 && mean > DELAY_MS as f64 / 2_000.0, "{name}: {sum} s of {count}");
    }
    for name in ["mainstem_checkpoint_duration_seconds", "mainstem_publish_duration_seconds"] {
        let buckets = buckets(&scrape, name, "job=\"job\"");
        assert!(buckets.last().is_some_and(|(_, count)| *count > 2.0), "{name}: {scrape}");
    }
    let points = served.client.wait_for("/api/v1/jobs/job/timeline", |json| {
        json["points"].as_array().is_some_and(|points| points.iter().any(|point| point["latency_p99_ms"].is_number()))
    });
    assert!(points.to_string().contains("visible_latency_p99_ms"), "{points}");
}

#[test]
fn http_api_latency_is_not_measured_where_nobody_wants_it() {
    let wrong = Sandbox::new(&rows("5 ms"));
    let said = wrong.run_err(&["run", "job.sql"]);
    assert!(said.contains("metrics.latency.interval") && said.contains("at least 10 ms"), "{said}");
    let sandbox = Sandbox::new(&rows("0"));
    let served = Served::start(&sandbox, &[]);
    let json = served.client.wait_for("/api/v1/jobs/job", |json| published(json) > 2);
    assert_eq!(json["job"]["latency"].as_array().map(Vec::len), Some(0), "{json}");
    assert!(!served.client.get("/metrics").text.contains("mainstem_row_latency"));
}

#[test]
fn http_api_latency_of_a_cluster_is_told_by_its_leader() {
    let sandbox = Sandbox::new(&rows("50 ms"));
    let port = free_port();
    let cluster = LocalCluster::start_as(&sandbox, 1, 2, 1, &[], &[&format!("--http={port}")]);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    let client = HttpClient::new(&format!("127.0.0.1:{port}"));
    let json = client.wait_for("/api/v1/jobs/job", |json| {
        latency(json)["markers"].as_u64() > Some(5) && latency(json)["visible_p50_ms"].is_number()
    });
    assert!(latency(&json)["p50_ms"].is_number(), "{json}");
    let shown = text(&sandbox.run_ok(&["status", "job"]).stdout);
    let line = shown.lines().find(|line| line.starts_with("latency ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains("counts: p50 ") && line.contains("until visible p50 "), "{line}");
    drop(cluster);
}
