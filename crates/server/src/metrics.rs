//! The figures of a node for Prometheus, in its text form (OpenMetrics). Gathered when they are asked for; what runs only
//! counts. A coordinator that leads tells of jobs, checkpoints and the cluster; whoever runs subtasks (a worker,
//! `mainstem run`) tells of operators.

mod gather;
mod names;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mainstem_consensus::RaftStatus;
use mainstem_coordinator::cluster::WorkerStatus;
use mainstem_core::cluster::messages::OperatorCounters;
use mainstem_core::ids::{JobId, OperatorId};
use mainstem_core::latency::LatencyHistogram;
use mainstem_core::time::Timestamp;
use mainstem_engine::MemoryBudget;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as PrometheusUnit};

use self::names::{Kind, Metric, Unit};
use crate::figures::Known;
use crate::traces::Counts as TraceCounts;

/// What an answer says that it is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a node knows at the moment.
pub(crate) struct Scrape {
    pub(crate) mode: &'static str,
    pub(crate) now: Timestamp,
    /// Jobs that are driven here.
    pub(crate) jobs: Vec<Known>,
    /// What the attempts have counted whose subtasks run here.
    pub(crate) running: Vec<(JobId, BTreeMap<OperatorId, OperatorCounters>)>,
    /// Of a coordinator.
    pub(crate) cluster: Option<ClusterScrape>,
    /// Of what runs subtasks.
    pub(crate) memory: Option<Arc<MemoryBudget>>,
    /// None: nothing is traced here.
    pub(crate) traces: Option<Arc<TraceCounts>>,
}

/// What a coordinator knows of its cluster.
pub(crate) struct ClusterScrape {
    pub(crate) raft: RaftStatus,
    pub(crate) leads: bool,
    /// None: this coordinator does not lead.
    pub(crate) workers: Option<Vec<WorkerStatus>>,
}

/// Labels by name.
type Labels = Vec<(&'static str, String)>;

/// A number of a kind that its metric has, or what a histogram counts.
#[derive(Clone, Debug)]
enum Number {
    Whole(u64),
    Real(f64),
    Times(LatencyHistogram),
}

/// Metrics with what was found of them.
#[derive(Debug, Default)]
struct Page {
    families: Vec<(&'static Metric, Vec<(Labels, Number)>)>,
}

/// Everything that the node has to tell.
///
/// # Errors
/// None that is known of: it is written to memory.
pub(crate) fn text(scrape: Scrape) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(gather::page(scrape)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Page {
    /// Adds a series; those of one metric stand together.
    fn add(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], number: Number) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        match self.families.iter_mut().find(|(known, _)| known.name == metric.name) {
            Some((_, series)) => series.push((labels, number)),
            None => self.families.push((metric, vec![(labels, number)])),
        }
    }

    fn whole(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], number: u64) {
        self.add(metric, labels, Number::Whole(number));
    }

    fn times(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], times: &LatencyHistogram) {
        self.add(metric, labels, Number::Times(times.clone()));
    }

    fn real(&mut self, metric: &'static Metric, labels: &[(&'static str, &str)], number: f64) {
        self.add(metric, labels, Number::Real(number));
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (metric, series) in &self.families {
            let unit = match metric.unit {
                Unit::None => None,
                Unit::Bytes => Some(PrometheusUnit::Bytes),
                Unit::Seconds => Some(PrometheusUnit::Seconds),
            };
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            for (labels, number) in series {
                if labels.is_empty() {
                    write(&mut family, metric.kind, number)?;
                } else {
                    write(&mut family.encode_family(labels)?, metric.kind, number)?;
                }
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut MetricEncoder<'_>, kind: Kind, number: &Number) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Whole(number)) => encoder.encode_counter::<Labels, u64, u64>(number, None),
        (Kind::Counter, Number::Real(number)) => encoder.encode_counter::<Labels, f64, u64>(number, None),
        (Kind::Gauge, Number::Whole(number)) => encoder.encode_gauge(number),
        (Kind::Gauge, Number::Real(number)) => encoder.encode_gauge(number),
        (Kind::Histogram, Number::Times(times)) => {
            let bound = |ms: u64| ms as f64 / 1000.0;
            let buckets = times.buckets().map(|(ms, count)| (ms.map_or(f64::INFINITY, bound), count));
            let buckets: Vec<(f64, u64)> = buckets.collect();
            encoder.encode_histogram::<Labels>(times.sum_ms() as f64 / 1000.0, times.count(), &buckets, None)
        }
        (kind, number) => unreachable!("a {kind:?} of {number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::latency::BOUNDS_MS;

    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_wants_it_and_each_is_documented() {
        let docs = include_str!("../../../docs/metrics.md");
        let mut seen = std::collections::BTreeSet::new();
        for metric in names::ALL {
            let full = metric.full_name();
            assert!(seen.insert(full.clone()), "{full} is there twice");
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(full.chars().all(legal), "{full}");
            assert!(full.starts_with("mainstem_") || full.starts_with("process_"), "{full}");
            assert_eq!(full.ends_with("_total"), metric.kind == Kind::Counter, "{full}");
            assert!(metric.help.ends_with('.'), "{full}: {}", metric.help);
            assert!(docs.contains(&format!("| `{full}` |")), "docs/metrics.md does not tell of {full}");
        }
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_in_seconds_up_to_infinity_and_sum_and_count() {
        let mut times = LatencyHistogram::default();
        [0, 3, 40, 40, 7_200_000].into_iter().for_each(|ms| times.record(ms));
        let mut page = Page::default();
        page.times(&names::ROW_LATENCY, &[("job", "a"), ("operator", "3")], &times);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("# TYPE mainstem_row_latency_seconds histogram\n"), "{text}");
        assert!(text.contains("# UNIT mainstem_row_latency_seconds seconds\n"), "{text}");
        let of = |name: &str, le: &str| {
            let bound = if le.is_empty() { String::new() } else { format!("le=\"{le}\",") };
            let series = format!("mainstem_row_latency_seconds{name}{{{bound}job=\"a\",operator=\"3\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.unwrap_or_else(|| panic!("no {series} in {text}")).to_owned()
        };
        assert_eq!([of("_bucket", "0.001"), of("_bucket", "0.005"), of("_bucket", "0.05")], ["1", "2", "4"]);
        assert_eq!([of("_bucket", "3600.0"), of("_bucket", "+Inf"), of("_count", "")], ["4", "5", "5"]);
        assert_eq!(of("_sum", ""), "7200.083");
        assert_eq!(text.matches("_bucket{").count(), BOUNDS_MS.len() + 1);
    }

    #[test]
    fn series_of_a_metric_stand_together_under_its_name_and_unit() {
        let mut page = Page::default();
        page.whole(&names::ROWS_IN, &[("job", "a\"b"), ("operator", "0")], 7);
        page.real(&names::BUSY, &[("job", "a"), ("operator", "0")], 1.5);
        page.whole(&names::ROWS_IN, &[("job", "a"), ("operator", "1")], 8);
        page.whole(&names::WORKERS, &[], 3);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"mainstem_operator_rows_in_total{job="a\"b",operator="0"} 7"#,
                r#"mainstem_operator_rows_in_total{job="a",operator="1"} 8"#,
                r#"mainstem_operator_busy_seconds_total{job="a",operator="0"} 1.5"#,
                "mainstem_workers 3",
            ]
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
