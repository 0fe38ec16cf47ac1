//! Property test: random data, windows and aggregates; the job is killed and restored at other parallelisms; its
//! output must equal what DataFusion's batch engine says of the same rows. Which rows are late, and which windows
//! a row belongs to, is computed here, independently of the product.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::Sandbox;

/// 2026-01-01 00:00:00 UTC.
const BASE_MS: i64 = 1_767_225_600_000;

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    k: Option<&'static str>,
    g: Option<i64>,
    v: Option<i64>,
    d: f64,
    ts: i64,
}

#[derive(Clone, Copy, Debug)]
enum Window {
    Tumble(i64),
    Hop(i64, i64),
    Cumulate(i64, i64),
    Session(i64),
}

#[derive(Debug)]
struct Case {
    files: Vec<Vec<Row>>,
    format: &'static str,
    delay: i64,
    window: Window,
    grouped: bool,
    keys: Vec<&'static str>,
    filter: Option<&'static str>,
    aggregates: Vec<(&'static str, &'static str)>,
}

/// Aggregates whose result does not depend on order, and is exact on the data.
const AGGREGATES: [(&str, &str); 14] = [
    ("n", "COUNT(*)"),
    ("nv", "COUNT(v)"),
    ("sv", "SUM(v)"),
    ("minv", "MIN(v)"),
    ("maxd", "MAX(d)"),
    ("avgd", "AVG(d)"),
    ("dg", "COUNT(DISTINCT g)"),
    ("sdg", "SUM(DISTINCT g)"),
    ("fv", "SUM(v) FILTER (WHERE g > 2)"),
    ("fn", "COUNT(*) FILTER (WHERE v IS NOT NULL AND d < 50)"),
    ("mink", "MIN(k)"),
    ("bits", "BIT_OR(v)"),
    ("med", "MEDIAN(d)"),
    ("ex", "MAX(v * 2 + g)"),
];

fn case(seed: u64) -> Case {
    let mut random = SmallRng::seed_from_u64(seed);
    let delay = random.random_range(0..4000);
    let step = random.random_range(1..60);
    let disorder = random.random_range(0..6000);
    // Some are large enough to be killed in the middle.
    let rows =
        if random.random_bool(0.2) { random.random_range(20_000..60_000) } else { random.random_range(50..4000) };
    let mut files = vec![Vec::new(); random.random_range(1..5)];
    let keys = ["a", "b", "c", "ä ö", "", "quote\"d, x"];
    for id in 0..rows {
        let mut ts = BASE_MS + id * step + random.random_range(0..=disorder);
        if random.random_bool(0.01) {
            ts -= random.random_range(0..20_000);
        }
        let row = Row {
            id,
            k: (!random.random_bool(0.05)).then(|| keys[random.random_range(0..keys.len())]),
            g: (!random.random_bool(0.1)).then(|| random.random_range(-3..6)),
            v: (!random.random_bool(0.1)).then(|| random.random_range(-1000..100_000)),
            // Whole numbers: their sums are exact in any order.
            d: random.random_range(0..100) as f64,
            ts,
        };
        let file = random.random_range(0..files.len());
        files[file].push(row);
    }
    let slide = random.random_range(1..5) * 1000;
    let window = match random.random_range(0..4) {
        0 => Window::Tumble(slide),
        1 => Window::Hop(slide, slide * random.random_range(1..5)),
        2 => Window::Cumulate(slide, slide * random.random_range(1..5)),
        _ => Window::Session(random.random_range(100..3000)),
    };
    let keys = [vec![], vec!["k"], vec!["g"], vec!["k", "g"]][random.random_range(0..4)].clone();
    let filter = [None, Some("v > 1000"), Some("g IS NOT NULL AND d < 70")][random.random_range(0..3)];
    let count = random.random_range(1..6);
    let mut aggregates: Vec<_> = (0..count).map(|_| AGGREGATES[random.random_range(0..AGGREGATES.len())]).collect();
    aggregates.sort_unstable();
    aggregates.dedup();
    let grouped = random.random_bool(0.3) && !matches!(window, Window::Cumulate(..));
    let format = ["json", "csv", "json.gz"][random.random_range(0..3)];
    Case { files, format, delay, window, grouped, keys, filter, aggregates }
}

impl Case {
    fn sql(&self) -> String {
        let format = if self.format == "csv" { "'csv', 'csv.null-literal' = 'NULL'" } else { "'json'" };
        let mut sql = format!(
            "CREATE TABLE t (id BIGINT, k STRING, g BIGINT, v BIGINT, d DOUBLE, ts TIMESTAMP(3),
             WATERMARK FOR ts AS ts - INTERVAL '{}.{:03}' SECOND)
             WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = {format});\n",
            self.delay / 1000,
            self.delay % 1000
        );
        let types: HashMap<_, _> =
            [("k", "STRING"), ("mink", "STRING"), ("maxd", "DOUBLE"), ("med", "DOUBLE"), ("avgd", "DOUBLE")].into();
        let type_of = |name: &str| *types.get(name).unwrap_or(&"BIGINT");
        let outputs = self.keys.iter().copied().chain(self.aggregates.iter().map(|(name, _)| *name));
        let columns: String = outputs.map(|name| format!("{name} {}, ", type_of(name))).collect();
        writeln!(
            sql,
            "CREATE TABLE o ({columns} ws TIMESTAMP(3), we TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');"
        )
        .unwrap();
        let keys: String = self.keys.iter().map(|k| format!("{k}, ")).collect();
        let aggregates: String = self.aggregates.iter().map(|(_, call)| format!("{call}, ")).collect();
        let filter = self.filter.map(|f| format!("WHERE {f}")).unwrap_or_default();
        if self.grouped {
            let (name, args) = match self.window {
                Window::Tumble(size) => ("TUMBLE", interval(size)),
                Window::Hop(slide, size) => ("HOP", format!("{}, {}", interval(slide), interval(size))),
                Window::Session(gap) => ("SESSION", interval(gap)),
                Window::Cumulate(..) => unreachable!("there is no such grouped function"),
            };
            let start = format!("{name}_START(ts, {args})");
            let end = format!("{name}_END(ts, {args})");
            writeln!(sql, "INSERT INTO o SELECT {keys} {aggregates} {start}, {end} FROM t {filter} GROUP BY {keys} {name}(ts, {args});").unwrap();
        } else {
            let by = self.keys.join(", ");
            let tvf = match self.window {
                Window::Tumble(size) => format!("TUMBLE(TABLE t, DESCRIPTOR(ts), {})", interval(size)),
                Window::Hop(slide, size) => {
                    format!("HOP(TABLE t, DESCRIPTOR(ts), {}, {})", interval(slide), interval(size))
                }
                Window::Cumulate(step, size) => {
                    format!("CUMULATE(TABLE t, DESCRIPTOR(ts), {}, {})", interval(step), interval(size))
                }
                Window::Session(gap) if by.is_empty() => {
                    format!("SESSION(TABLE t, DESCRIPTOR(ts), {})", interval(gap))
                }
                Window::Session(gap) => {
                    format!("SESSION(TABLE t PARTITION BY {by}, DESCRIPTOR(ts), {})", interval(gap))
                }
            };
            writeln!(sql, "INSERT INTO o SELECT {keys} {aggregates} window_start, window_end FROM TABLE({tvf}) {filter} GROUP BY {keys} window_start, window_end;").unwrap();
        }
        sql
    }

    fn write_input(&self, sandbox: &Sandbox) {
        for (n, rows) in self.files.iter().enumerate() {
            let mut content = String::new();
            for row in rows {
                let time = chrono_text(row.ts);
                let null = "null".to_owned();
                let (g, v) = (row.g.map_or(null.clone(), |g| g.to_string()), row.v.map_or(null, |v| v.to_string()));
                if self.format == "csv" {
                    let k = row.k.map_or("NULL".to_owned(), |k| format!("\"{}\"", k.replace('"', "\"\"")));
                    writeln!(
                        content,
                        "{},{k},{},{},{:.1},{time}",
                        row.id,
                        g.replace("null", "NULL"),
                        v.replace("null", "NULL"),
                        row.d
                    )
                    .unwrap();
                } else {
                    let k = row.k.map_or("null".to_owned(), |k| format!("\"{}\"", k.replace('"', "\\\"")));
                    writeln!(content, r#"{{"id":{},"k":{k},"g":{g},"v":{v},"d":{:.1},"ts":"{time}"}}"#, row.id, row.d)
                        .unwrap();
                }
            }
            let name = format!("in/part-{n}.{}", self.format);
            if self.format == "json.gz" {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content.as_bytes()).unwrap();
                sandbox.write(&name, encoder.finish().unwrap());
            } else {
                sandbox.write(&name, content);
            }
        }
    }

    fn passes(&self, row: &Row) -> bool {
        match self.filter {
            Some("v > 1000") => row.v.is_some_and(|v| v > 1000),
            Some(_) => row.g.is_some() && row.d < 70.0,
            None => true,
        }
    }

    /// Rows that are on time, each with each of its windows.
    fn assigned(&self) -> Vec<(Row, i64, i64)> {
        let mut assigned = Vec::new();
        let mut for_sessions: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for rows in &self.files {
            let mut watermark = i64::MIN;
            for row in rows {
                let open = |end: i64| end - 1 > watermark;
                if self.passes(row) {
                    match self.window {
                        Window::Tumble(size) => each_hop(size, size, row, open, &mut assigned),
                        Window::Hop(slide, size) => each_hop(slide, size, row, open, &mut assigned),
                        Window::Cumulate(step, size) => {
                            let start = row.ts.div_euclid(size) * size;
                            let first = (row.ts - start).div_euclid(step) + 1;
                            let ends = (first..=size / step).map(|n| start + n * step);
                            assigned.extend(ends.filter(|e| open(*e)).map(|end| (row.clone(), start, end)));
                        }
                        Window::Session(_) if row.ts > watermark => {
                            let key = |name: &&str| match *name {
                                "k" => format!("{:?}", row.k),
                                _ => format!("{:?}", row.g),
                            };
                            let key = self.keys.iter().map(key).collect::<Vec<_>>().join("|");
                            for_sessions.entry(key).or_default().push(row.clone());
                        }
                        Window::Session(_) => {}
                    }
                }
                watermark = watermark.max(row.ts - self.delay);
            }
        }
        if let Window::Session(gap) = self.window {
            for mut rows in for_sessions.into_values() {
                rows.sort_by_key(|r| r.ts);
                for session in rows.chunk_by(|a, b| b.ts - a.ts <= gap) {
                    let (start, end) = (session[0].ts, session[session.len() - 1].ts + gap);
                    assigned.extend(session.iter().map(|row| (row.clone(), start, end)));
                }
            }
        }
        assigned
    }

    /// What batch SQL says of the assigned rows, as sorted lines.
    async fn expected(&self) -> Vec<String> {
        let rows = self.assigned();
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("k", Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0.k))) as _, true),
            ("g", Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0.g))) as _, true),
            ("v", Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0.v))) as _, true),
            ("d", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.0.d))) as _, true),
            ("ws", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.1))) as _, false),
            ("we", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.2))) as _, false),
        ])
        .unwrap();
        let context = SessionContext::new();
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let keys: String = self.keys.iter().map(|k| format!("{k}, ")).collect();
        let aggregates: String = self.aggregates.iter().map(|(name, call)| format!("{call} AS {name}, ")).collect();
        let sql = format!("SELECT {keys} {aggregates} ws, we FROM t GROUP BY {keys} ws, we");
        let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let mut writer = arrow::json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_timestamp_format("%Y-%m-%d %H:%M:%S%.3f".to_owned())
            .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
        batches.iter().for_each(|b| writer.write(b).unwrap());
        writer.finish().unwrap();
        normalise(std::str::from_utf8(&writer.into_inner()).unwrap().lines())
    }
}

fn each_hop(slide: i64, size: i64, row: &Row, open: impl Fn(i64) -> bool, assigned: &mut Vec<(Row, i64, i64)>) {
    let last_start = row.ts.div_euclid(slide) * slide;
    let starts = (0..size / slide).map(|n| last_start - n * slide);
    assigned.extend(starts.filter(|s| open(s + size)).map(|start| (row.clone(), start, start + size)));
}

fn interval(ms: i64) -> String {
    format!("INTERVAL '{}.{:03}' SECOND", ms / 1000, ms % 1000)
}

fn chrono_text(ms: i64) -> String {
    let (days, rest) = ((ms - BASE_MS).div_euclid(86_400_000), (ms - BASE_MS).rem_euclid(86_400_000));
    // The data stay within a few hours around the first day of 2026.
    let date = if days < 0 { "2025-12-31".to_owned() } else { format!("2026-01-{:02}", days + 1) };
    let (s, ms) = (rest / 1000, rest % 1000);
    format!("{date} {:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// JSON lines with sorted keys and one form of numbers, sorted.
fn normalise<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let normal = |line: &str| {
        let mut object: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        for value in object.values_mut() {
            if let Some(number) = value.as_f64() {
                *value = serde_json::json!((number * 1e6).round() / 1e6);
            }
        }
        for time in ["ws", "we"] {
            // Zeros at the end of the fraction of a second are not written.
            let text = object[time].as_str().unwrap();
            let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
            let short = serde_json::json!(short);
            object.insert(time.to_owned(), short);
        }
        serde_json::to_string(&object).unwrap()
    };
    let mut lines: Vec<String> = lines.map(normal).collect();
    lines.sort_unstable();
    lines
}

async fn run_case(seed: u64) -> usize {
    let case = case(seed);
    // Half of them do not align: what is in flight at a barrier, behind slow sinks, is part of the checkpoint.
    let aligned = ["none", "0 ms"][usize::from(seed % 2 == 1)];
    let set = format!("SET 'execution.checkpointing.aligned-checkpoint-timeout' = '{aligned}';\n");
    let sandbox = Sandbox::new(&(set + &case.sql()));
    sandbox.slow_sinks(seed % 2);
    case.write_input(&sandbox);
    let mut random = SmallRng::seed_from_u64(!seed);
    let mut kills = 0;
    for _ in 0..random.random_range(0..4) {
        let parallelism = random.random_range(1..5).to_string();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "5 ms", "-p", &parallelism];
        let killed = sandbox.run_and_kill(&arguments, Duration::from_millis(random.random_range(10..120)));
        if !killed {
            break;
        }
        kills += 1;
    }
    sandbox.slow_sinks(0);
    let parallelism = random.random_range(1..5).to_string();
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "5 ms", "-p", &parallelism]);
    let lines = sandbox.lines("out");
    let found: Vec<&str> = lines.iter().flat_map(|(line, n)| std::iter::repeat_n(line.as_str(), *n)).collect();
    let found = normalise(found.into_iter());
    let expected = case.expected().await;
    if found != expected {
        let kept = sandbox.dir.keep();
        let missing: Vec<_> = expected.iter().filter(|l| !found.contains(l)).take(3).collect();
        let surplus: Vec<_> = found.iter().filter(|l| !expected.contains(l)).take(3).collect();
        panic!(
            "seed {seed}: {} rows, expected {}; missing {missing:?}; unexpected {surplus:?}\n{}\nkept in {}",
            found.len(),
            expected.len(),
            case.sql(),
            kept.display()
        );
    }
    kills
}

/// Repeat one case with `MAINSTEM_SEED=n cargo test -p mainstem --test e2e generated`; more of them with
/// `MAINSTEM_CASES=n`.
#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_equal_batch() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let seeds = match number("MAINSTEM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MAINSTEM_CASES").unwrap_or(100),
    };
    let mut kills = 0;
    let cases = seeds.clone().count();
    for seed in seeds {
        kills += run_case(seed).await;
    }
    println!("{cases} generated cases, {kills} kills");
}
