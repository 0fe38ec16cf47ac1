//! What Prometheus reads, and that the dashboard and the alerts ask for nothing else.

use std::collections::BTreeSet;

use super::{ENDLESS, Served, published};
use crate::support::Sandbox;
use crate::support::cluster::LocalCluster;
use crate::support::http_client::HttpClient;
use crate::support::known::windows;
use crate::support::ports::free_port;

const DASHBOARD: &str = include_str!("../../../../../deploy/grafana/mainstem.json");
const ALERTS: &str = include_str!("../../../../../deploy/prometheus/alerts.yml");

/// Names of metrics in a text that is no scrape.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mainstem_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Names of the series of a scrape, each of whose lines must be what it should be.
fn scraped(text: &str) -> BTreeSet<String> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| {
            let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
            let value = rest.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(!rest.contains("hunter2"), "{line}");
            name.to_owned()
        })
        .collect()
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// State may take some of the memory, and at most half of it.
fn assert_memory(text: &str) {
    let [all, state] =
        ["mainstem_memory_limit_bytes", "mainstem_state_memory_limit_bytes"].map(|name| value(text, name));
    assert!(state > 0.0 && state <= all / 2.0, "{state} of {all}");
    assert!(value(text, "mainstem_state_memory_bytes") <= state);
}

#[test]
fn http_api_metrics_are_those_that_the_dashboard_and_the_alerts_ask_for() {
    let sandbox = Sandbox::new(&windows(ENDLESS, 10_000, true, "none"));
    let served = Served::start(&sandbox, &[]);
    served.client.wait_for("/api/v1/jobs/job", |json| published(json) > 1 && json["job"]["watermark_ms"].is_number());
    let answer = served.client.get("/metrics");
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let first = answer.text;
    let mut found = scraped(&first);
    assert_eq!(value(&first, "mainstem_job_state{job=\"job\",state=\"running\"}"), 1.0);
    assert!(value(&first, "process_resident_memory_bytes") > 1e6 && value(&first, "process_open_fds") > 3.0);
    assert_memory(&first);
    let rows = "mainstem_operator_rows_in_total{job=\"job\",operator=\"0\"}";
    let busy = "mainstem_operator_busy_seconds_total{job=\"job\",operator=\"0\"}";
    served.client.wait_for("/api/v1/jobs/job", |json| json["job"]["rows_in"].as_f64() > Some(value(&first, rows)));
    let second = served.client.get("/metrics").text;
    for series in [rows, busy] {
        assert!(value(&second, series) > value(&first, series), "{series} grows");
    }
    for subtask in ["0", "1"] {
        let waited =
            format!("mainstem_subtask_backpressured_seconds_total{{job=\"job\",operator=\"0\",subtask=\"{subtask}\"}}");
        assert!(value(&second, &waited) >= 0.0, "{waited}");
    }
    assert_eq!(scraped(&second), found, "a series does not come and go");
    drop(served);

    // What only a cluster has to tell: of one coordinator and, at its own port, one worker.
    let port = free_port();
    let cluster = LocalCluster::start_as(&sandbox, 1, 1, 2, &[], &[&format!("--http={port}")]);
    found.extend(scraped(&HttpClient::new(&format!("127.0.0.1:{port}")).get("/metrics").text));
    drop(cluster);
    for (file, text) in [("the dashboard", DASHBOARD), ("the alerts", ALERTS)] {
        let asked: BTreeSet<String> = names(text);
        assert!(asked.len() > 10, "{file} asks for {asked:?}");
        let lag = |name: &&String| name.starts_with("mainstem_source_lag");
        // Of sources that this job does not have.
        let missing: Vec<&String> = asked.difference(&found).filter(|name| !lag(name)).collect();
        assert!(missing.is_empty(), "{file} asks for what is not there: {missing:?}");
    }
}
