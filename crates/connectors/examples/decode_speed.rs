//! How fast the filesystem source decodes: writes files of flat records of some 200 bytes, reads them through
//! the public API on one executor thread, and prints megabytes and records a second. One file is read at a
//! time and one thread decodes, so the figures are those of one core. Then the same records as messages, in memory: JSON, Avro
//! and Protobuf, whose bytes are fewer, so that records a second are what compares. Build it with `--release`; the first
//! argument is the number of records (default 1,000,000).

// A benchmark measures the machine's own time.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mainstem_connectors::{
    EnumeratorContext, ReaderContext, ReaderEvent, SplitLags, TableSpec, decode_messages, source,
};

/// Each measurement is repeated, and the best is printed: the first one warms the page cache.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let records: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("bids.json");
    let csv = directory.path().join("bids.csv");
    fs::write(&json, text(records, json_record))?;
    fs::write(&csv, text(records, csv_record))?;
    let debezium = directory.path().join("bids.debezium.json");
    let upsert = directory.path().join("bids.upsert.json");
    fs::write(
        &debezium,
        text(records, |out, number| wrapped(out, number, "{\"before\":null,\"after\":", ",\"op\":\"c\"}")),
    )?;
    let key = |number| format!("{{\"key\":{{\"auction\":{number}}},\"value\":");
    fs::write(&upsert, text(records, |out, number| wrapped(out, number, &key(number), "}")))?;
    let all: Vec<usize> = (0..schema().fields().len()).collect();
    for (name, path, format, columns) in [
        ("json, all columns", &json, "json", all.clone()),
        ("json, auction, price and time", &json, "json", vec![0, 2, 5]),
        ("json, no column", &json, "json", vec![]),
        ("csv, all columns", &csv, "csv", all.clone()),
        ("csv, auction, price and time", &csv, "csv", vec![0, 2, 5]),
        ("debezium-json, all columns", &debezium, "debezium-json", all.clone()),
        ("upsert-json, all columns", &upsert, "upsert-json", all),
    ] {
        let bytes = fs::metadata(path)?.len();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let rows = runtime.block_on(read(path, format, &columns))?;
            best = best.min(start.elapsed().as_secs_f64());
            assert_eq!(rows as u64, records, "every record gives a row");
        }
        println!(
            "{name:30} {:7.0} MB/s {:8.2} M records/s ({} bytes a record)",
            bytes as f64 / best / 1e6,
            records as f64 / best / 1e6,
            bytes / records.max(1)
        );
    }
    let proto = directory.path().join("bid.proto");
    fs::write(&proto, PROTO)?;
    let proto = proto.to_str().ok_or("a path of valid UTF-8")?;
    let of_proto: &[(&str, &str)] = &[("protobuf.message-name", "Bid"), ("protobuf.schema-file", proto)];
    let formats: [MessageFormat<'_>; 3] =
        [("json", &[], json_message), ("avro", &[], avro_message), ("protobuf", of_proto, proto_message)];
    let mut json_seconds = None;
    for (format, options, encode) in formats {
        let messages: Vec<Vec<u8>> = (0..records).map(encode).collect();
        let bytes: usize = messages.iter().map(Vec::len).sum();
        let table = table(&[&[("format", format)][..], options].concat());
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let rows = decode_messages(&table, &messages)?;
            best = best.min(start.elapsed().as_secs_f64());
            assert_eq!(rows as u64, records, "every message gives a row");
        }
        let json = *json_seconds.get_or_insert(best);
        println!(
            "{:30} {:7.0} MB/s {:8.2} M records/s ({} bytes a record), {:.2} times json",
            format!("{format}, messages"),
            bytes as f64 / best / 1e6,
            records as f64 / best / 1e6,
            bytes as u64 / records.max(1),
            json / best
        );
    }
    Ok(())
}

/// A format, its options, and what makes the message of a number.
type MessageFormat<'a> = (&'a str, &'a [(&'a str, &'a str)], fn(u64) -> Vec<u8>);

/// The message of a bid.
const PROTO: &str = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\";
message Bid { int64 auction = 1; int64 bidder = 2; int64 price = 3; string channel = 4; string url = 5;
google.protobuf.Timestamp dateTime = 6; string extra = 7; }";

/// The columns of a Nexmark bid.
fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![
        Field::new("auction", DataType::Int64, true),
        Field::new("bidder", DataType::Int64, true),
        Field::new("price", DataType::Int64, true),
        Field::new("channel", DataType::Utf8, true),
        Field::new("url", DataType::Utf8, true),
        Field::new("dateTime", timestamp, true),
        Field::new("extra", DataType::Utf8, true),
    ]))
}

async fn read(path: &Path, format: &str, columns: &[usize]) -> Result<usize, Box<dyn Error>> {
    let options =
        [("connector", "filesystem"), ("path", path.to_str().ok_or("a path of valid UTF-8")?), ("format", format)];
    let table = table(&options);
    let source = source(&table)?;
    let ctx = ReaderContext {
        columns: columns.to_vec(),
        batch_rows: 4096,
        with_origins: false,
        bytes_read: Arc::default(),
        lags: SplitLags::default(),
    };
    let mut reader = source.reader(ctx);
    for split in source.enumerator(EnumeratorContext { parallelism: 1 }).discover().await? {
        reader.add_split(split, None)?;
    }
    let mut rows = 0;
    while let Some(event) = reader.next().await? {
        if let ReaderEvent::Batch { rows: batch, .. } = event {
            rows += batch.num_rows();
        }
    }
    Ok(rows)
}

fn table(options: &[(&str, &str)]) -> TableSpec {
    TableSpec {
        name: "bid".to_owned(),
        schema: schema(),
        primary_key: vec!["auction".to_owned()],
        partition_keys: vec![],
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
    }
}

fn json_message(number: u64) -> Vec<u8> {
    let mut text = String::new();
    json_record(&mut text, number);
    text.into_bytes()
}

/// By the schema that Flink derives: each field a union with null, of which it is the second.
fn avro_message(number: u64) -> Vec<u8> {
    let Bid { auction, bidder, price, channel, url, ms, extra, .. } = Bid::new(number);
    let mut out = Vec::new();
    let long = |value: u64, out: &mut Vec<u8>| varint(value << 1, out);
    for number in [auction, bidder, price] {
        out.push(2);
        long(number, &mut out);
    }
    for (text, is_last) in [(channel, false), (&url, true)] {
        out.push(2);
        long(text.len() as u64, &mut out);
        out.extend_from_slice(text.as_bytes());
        if is_last {
            out.push(2);
            long(EPOCH_MS + ms, &mut out);
        }
    }
    out.push(2);
    long(extra.len() as u64, &mut out);
    out.extend_from_slice(extra.as_bytes());
    out
}

fn proto_message(number: u64) -> Vec<u8> {
    let Bid { auction, bidder, price, channel, url, ms, extra, .. } = Bid::new(number);
    let mut out = Vec::new();
    for (field, number) in [(1, auction), (2, bidder), (3, price)] {
        varint(field << 3, &mut out);
        varint(number, &mut out);
    }
    let mut time = vec![0x08];
    varint((EPOCH_MS + ms) / 1_000, &mut time);
    time.push(0x10);
    varint(ms % 1_000 * 1_000_000, &mut time);
    for (field, bytes) in [(4, channel.as_bytes()), (5, url.as_bytes()), (6, &time), (7, extra.as_bytes())] {
        varint(field << 3 | 2, &mut out);
        varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
    }
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(records: u64, record: impl Fn(&mut String, u64)) -> String {
    let mut text = String::new();
    (0..records).for_each(|number| record(&mut text, number));
    text
}

fn json_record(out: &mut String, number: u64) {
    let Bid { auction, bidder, price, channel, url, time, extra, .. } = Bid::new(number);
    writeln!(
        out,
        "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"channel\":\"{channel}\",\"url\":\"{url}\",\"dateTime\":\"{time}\",\"extra\":\"{extra}\"}}"
    )
    .expect("a string takes any text");
}

/// A JSON record inside of another.
fn wrapped(out: &mut String, number: u64, before: &str, after: &str) {
    let mut record = String::new();
    json_record(&mut record, number);
    writeln!(out, "{before}{}{after}", record.trim_end()).expect("a string takes any text");
}

fn csv_record(out: &mut String, number: u64) {
    let Bid { auction, bidder, price, channel, url, time, extra, .. } = Bid::new(number);
    writeln!(out, "{auction},{bidder},{price},{channel},{url},{time},{extra}").expect("a string takes any text");
}

struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'static str,
    url: String,
    time: String,
    ms: u64,
    extra: String,
}

/// 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

impl Bid {
    fn new(number: u64) -> Bid {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let ms = number / 10;
        let (hour, minute, second) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
        Bid {
            auction: 1_000 + number / 50,
            bidder: 1_000 + mixed % 100_000,
            price: mixed % 10_000_000,
            channel: ["Google", "Facebook", "Baidu", "Apple"][(mixed % 4) as usize],
            url: format!("https://www.nexmark.com/item.htm?query=1&channel_id={}", mixed % 1_000_000_000),
            ms,
            time: format!("2026-01-01 {hour:02}:{minute:02}:{second:02}.{:03}", ms % 1_000),
            extra: "abcdefghijklmnopqrstuvwxyz"[..(mixed % 26) as usize].to_owned(),
        }
    }
}
