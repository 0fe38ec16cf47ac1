//! Tests of the `nexmark` source: determinism, proportions, splits, declared columns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType};

use super::*;
use crate::error::ErrorKind;
use crate::lag::SplitLags;
use crate::source::ReaderEvent;

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

fn table(columns: Vec<(&str, DataType)>, options: &[(&str, &str)]) -> TableSpec {
    let fields: Vec<_> = columns.into_iter().map(|(name, ty)| Field::new(name, ty, true)).collect();
    let mut all = BTreeMap::from([("connector".to_owned(), "nexmark".to_owned())]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    TableSpec {
        name: "events".to_owned(),
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec![],
        partition_keys: vec![],
        options: all,
    }
}

fn bid_columns() -> Vec<(&'static str, DataType)> {
    let text = || DataType::Utf8;
    let number = || DataType::Int64;
    vec![
        ("auction", number()),
        ("bidder", number()),
        ("price", number()),
        ("channel", text()),
        ("url", text()),
        ("dateTime", time()),
        ("extra", text()),
    ]
}

fn context(columns: Vec<usize>, batch_rows: usize) -> ReaderContext {
    let count = || Arc::new(AtomicU64::new(0));
    ReaderContext { columns, batch_rows, with_origins: false, bytes_read: count(), lags: SplitLags::default() }
}

/// All rows, read by one reader that owns every split.
async fn read(table: &TableSpec, columns: Vec<usize>, batch_rows: usize, parallelism: u32) -> RecordBatch {
    let source = source(table).unwrap();
    let mut reader = source.reader(context(columns, batch_rows));
    for split in source.enumerator(EnumeratorContext { parallelism }).discover().await.unwrap() {
        reader.add_split(split, None).unwrap();
    }
    let mut batches = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        if let ReaderEvent::Batch { rows, .. } = event {
            batches.push(rows);
        }
    }
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Rows as text, sorted, so that the order between splits does not matter.
fn sorted(batch: &RecordBatch) -> Vec<String> {
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| arrow::util::display::ArrayFormatter::try_new(c, &Default::default()).unwrap())
        .collect();
    let mut rows: Vec<_> = (0..batch.num_rows())
        .map(|r| columns.iter().map(|c| c.value(r).to_string()).collect::<Vec<_>>().join("|"))
        .collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn rows_do_not_depend_on_splits_batches_or_columns() {
    let table = table(bid_columns(), &[("table", "bid"), ("events.num", "7777")]);
    let one = read(&table, (0..7).collect(), 4096, 1).await;
    assert_eq!(one.num_rows(), 7777 / 50 * 46 + 23);
    let three = read(&table, (0..7).collect(), 77, 3).await;
    assert_eq!(sorted(&one), sorted(&three));
    let some = read(&table, vec![2, 4], 1000, 1).await;
    assert_eq!(some, one.project(&[2, 4]).unwrap());
    let none = read(&table, vec![], 1000, 2).await;
    assert_eq!((none.num_rows(), none.num_columns()), (one.num_rows(), 0));
}

#[tokio::test]
async fn bids_look_like_those_of_the_benchmark() {
    let table =
        table(bid_columns(), &[("table", "bid"), ("events.num", "100000"), ("base-time", "2026-01-01 00:00:00")]);
    let bids = read(&table, (0..7).collect(), 4096, 1).await;
    assert_eq!(bids.num_rows(), 92_000);
    let rows = bids.num_rows() as f64;
    let times = bids.column(5).as_primitive::<TimestampMillisecondType>().values();
    assert_eq!((times[0], times[times.len() - 1]), (1_767_225_600_000, 1_767_225_600_000 + 9_999));
    assert!(times.is_sorted());
    let auctions = bids.column(0).as_primitive::<Int64Type>().values();
    let hot = auctions.iter().filter(|a| **a % 100 == 0).count() as f64 / rows;
    assert!((0.49..0.52).contains(&hot), "{hot}");
    let bidders = bids.column(1).as_primitive::<Int64Type>().values();
    let hot = bidders.iter().filter(|a| **a % 100 == 1).count() as f64 / rows;
    assert!((0.74..0.77).contains(&hot), "{hot}");
    assert!(auctions.iter().all(|a| (1000..1000 + 6_010).contains(a)));
    assert!(bidders.iter().all(|a| (1000..1000 + 2_010).contains(a)));
    let prices = bids.column(2).as_primitive::<Int64Type>().values();
    assert!(prices.iter().all(|p| (100..=100_000_000).contains(p)));
    let below_dollar_1000 = prices.iter().filter(|p| **p < 100_000).count() as f64 / rows;
    assert!((0.49..0.51).contains(&below_dollar_1000), "{below_dollar_1000}");
    let channels = bids.column(3).as_string::<i32>();
    let apple = channels.iter().flatten().filter(|c| *c == "Apple").count() as f64 / rows;
    assert!((0.12..0.13).contains(&apple), "{apple}");
    let urls = bids.column(4).as_string::<i32>();
    for (channel, url) in channels.iter().flatten().zip(urls.iter().flatten()).take(1000) {
        assert!(url.starts_with("https://www.nexmark.com/") && url.contains("/item.htm?query=1"), "{url}");
        assert_eq!(url.split('/').count(), 7, "{url}");
        assert!(channel.starts_with("channel-") || !url.contains("channel_id"), "{channel} {url}");
    }
    let extra = bids.column(6).as_string::<i32>().values().len() as f64 / rows;
    assert!((67.0..69.0).contains(&extra), "{extra}");
}

#[tokio::test]
async fn the_single_table_holds_the_same_events_as_the_three() {
    let bid: Fields = bid_columns().into_iter().map(|(n, t)| Field::new(n, t, true)).collect();
    let person =
        Fields::from(vec![Field::new("state", DataType::Utf8, false), Field::new("id", DataType::Int64, true)]);
    let auction = Fields::from(vec![Field::new("expires", time(), true), Field::new("seller", DataType::Int64, true)]);
    let columns = vec![
        ("bid", DataType::Struct(bid)),
        ("event_type", DataType::Int32),
        ("auction", DataType::Struct(auction)),
        ("person", DataType::Struct(person)),
    ];
    let all = read(&table(columns, &[("events.num", "5000")]), vec![0, 1, 2, 3], 512, 1).await;
    assert_eq!(all.num_rows(), 5000);
    let types = all.column(1).as_primitive::<Int32Type>();
    let count = |t| types.values().iter().filter(|v| **v == t).count();
    assert_eq!((count(0), count(1), count(2)), (100, 300, 4600));
    let people = all.column(3).as_struct();
    assert_eq!((people.null_count(), people.is_valid(0), people.is_valid(1)), (4900, true, false));
    let ids = people.column(1).as_primitive::<Int64Type>();
    assert_eq!((ids.value(0), ids.value(50)), (1000, 1001));
    assert_eq!((ids.null_count(), ids.is_valid(1)), (4900, false), "a field of a NULL row is NULL");

    let flat = read(&table(bid_columns(), &[("table", "bid"), ("events.num", "5000")]), (0..7).collect(), 512, 1).await;
    let bids = arrow::compute::filter(all.column(0), &arrow::compute::is_not_null(all.column(0)).unwrap()).unwrap();
    assert_eq!(RecordBatch::from(bids.as_struct()).columns(), flat.columns());
}

#[tokio::test]
async fn auctions_and_people_are_whole() {
    let number = || DataType::Int64;
    let text = || DataType::Utf8;
    let columns = vec![
        ("id", number()),
        ("itemName", text()),
        ("description", text()),
        ("initialBid", number()),
        ("reserve", number()),
        ("dateTime", time()),
        ("expires", time()),
        ("seller", number()),
        ("category", number()),
        ("extra", text()),
    ];
    let auctions =
        read(&table(columns, &[("table", "auction"), ("events.num", "20000")]), (0..10).collect(), 4096, 2).await;
    assert_eq!(auctions.num_rows(), 1200);
    let number = |i: usize| auctions.column(i).as_primitive::<Int64Type>().values().clone();
    let time = |i: usize| auctions.column(i).as_primitive::<TimestampMillisecondType>().values().clone();
    let mut ids = number(0).to_vec();
    ids.sort_unstable();
    assert_eq!(ids, (1000..2200).collect::<Vec<i64>>());
    assert!(number(4).iter().zip(number(3).iter()).all(|(reserve, bid)| reserve > bid));
    assert!(time(6).iter().zip(time(5).iter()).all(|(expires, start)| expires > start));
    assert!(number(8).iter().all(|c| (10..15).contains(c)));
    for description in auctions.column(2).as_string::<i32>().iter().flatten() {
        assert!((3..100).contains(&description.len()) && description.trim() == description, "'{description}'");
    }
    let bytes: usize = [1, 2, 9].iter().map(|i| auctions.column(*i).as_string::<i32>().values().len()).sum();
    assert!((430..475).contains(&(bytes / 1200)), "{}", bytes / 1200);

    let columns = vec![
        ("creditCard", text()),
        ("emailAddress", text()),
        ("name", text()),
        ("city", text()),
        ("extra", text()),
        ("state", text()),
    ];
    let people =
        read(&table(columns, &[("table", "person"), ("events.num", "20000")]), (0..6).collect(), 4096, 2).await;
    assert_eq!(people.num_rows(), 400);
    let card = people.column(0).as_string::<i32>().value(7);
    assert!(card.len() == 19 && card.split(' ').all(|part| part.len() == 4 && part.parse::<u16>().is_ok()), "{card}");
    let bytes: usize = (0..6).map(|i| people.column(i).as_string::<i32>().values().len()).sum();
    assert!((185..200).contains(&(bytes / 400)), "{}", bytes / 400);
}

#[tokio::test]
async fn shuffled_events_are_the_same_events() {
    let options = [("table", "bid"), ("events.num", "5000")];
    let straight = read(&table(bid_columns(), &options), (0..7).collect(), 512, 1).await;
    let shuffled = [&options[..], &[("out-of-order-group-size", "100")]].concat();
    let shuffled = read(&table(bid_columns(), &shuffled), (0..7).collect(), 512, 2).await;
    assert_ne!(straight, shuffled);
    assert_eq!(sorted(&straight), sorted(&shuffled));
}

#[tokio::test]
async fn a_reader_resumes_in_the_middle() {
    let table = table(bid_columns(), &[("table", "bid"), ("events.num", "4000"), ("splits", "2")]);
    let source = source(&table).unwrap();
    let split = source.enumerator(EnumeratorContext { parallelism: 9 }).discover().await.unwrap().remove(1);
    let mut first = source.reader(context((0..7).collect(), 100));
    first.add_split(split.clone(), None).unwrap();
    for _ in 0..7 {
        first.next().await.unwrap();
    }
    let Some(ReaderEvent::Batch { position, .. }) = first.next().await.unwrap() else { panic!("a batch") };
    let mut second = source.reader(context((0..7).collect(), 100));
    second.add_split(split, Some(position)).unwrap();
    loop {
        let (a, b) = (first.next().await.unwrap(), second.next().await.unwrap());
        match (a, b) {
            (
                Some(ReaderEvent::Batch { rows: a, position: p, .. }),
                Some(ReaderEvent::Batch { rows: b, position: q, .. }),
            ) => {
                assert_eq!((a, p), (b, q));
            }
            (Some(ReaderEvent::SplitFinished { .. }), Some(ReaderEvent::SplitFinished { .. })) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wrong_tables_are_refused_with_what_is_legal() {
    let refused = |columns, options: &[(&str, &str)], part: &str| {
        let error = source(&table(columns, options)).err().expect("an error");
        assert_eq!(error.kind, ErrorKind::Option);
        assert!(error.message.contains(part), "{error}");
    };
    refused(vec![("Auction", DataType::Int64)], &[("table", "bid")], "legal are: auction BIGINT, bidder BIGINT");
    refused(vec![("auction", DataType::Int32)], &[("table", "bid")], "auction BIGINT");
    refused(vec![("auction", DataType::Int64)], &[], "event_type INT, person ROW<id BIGINT");
    refused(bid_columns(), &[("table", "bids")], "person, auction, bid");
    refused(bid_columns(), &[("table", "bid"), ("bid.proportion", "0")], "'bid.proportion' is 0");
    refused(
        bid_columns(),
        &[("table", "bid"), ("first-event.rate", "10"), ("next-event.rate", "20")],
        "make them equal",
    );
    refused(bid_columns(), &[("table", "bid"), ("bid.hot-ratio.auctions", "0")], "between 1 and");
    refused(bid_columns(), &[("table", "bid"), ("base-time", "soon")], "base-time");
    refused(bid_columns(), &[("table", "bid"), ("speed", "1")], "unknown option 'speed'");
}
