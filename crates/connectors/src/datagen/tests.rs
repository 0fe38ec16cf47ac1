//! Tests of the `datagen` source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field as ArrowField, Float64Type, Int8Type, Int64Type, Schema, TimeUnit,
    TimestampMillisecondType,
};

use super::*;
use crate::error::ErrorKind;
use crate::lag::SplitLags;
use crate::source::ReaderEvent;

fn table(columns: Vec<(&str, DataType)>, options: &[(&str, &str)]) -> TableSpec {
    let fields: Vec<_> = columns.into_iter().map(|(name, ty)| ArrowField::new(name, ty, true)).collect();
    let mut all = BTreeMap::from([
        ("connector".to_owned(), "datagen".to_owned()),
        ("rows-per-second".to_owned(), "0".to_owned()),
    ]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    TableSpec {
        name: "rows".to_owned(),
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec![],
        partition_keys: vec![],
        options: all,
    }
}

async fn read(table: &TableSpec, columns: Vec<usize>, batch_rows: usize, parallelism: u32) -> RecordBatch {
    let source = source(table).unwrap();
    let count = || Arc::new(AtomicU64::new(0));
    let mut reader = source.reader(ReaderContext {
        columns,
        batch_rows,
        with_origins: false,
        bytes_read: count(),
        lags: SplitLags::default(),
    });
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

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(ArrowField::new("item", element, true)))
}

fn map(key: DataType, value: DataType) -> DataType {
    let entries =
        DataType::Struct(vec![ArrowField::new("key", key, false), ArrowField::new("value", value, true)].into());
    DataType::Map(Arc::new(ArrowField::new("entries", entries, false)), false)
}

fn every_type() -> Vec<(&'static str, DataType)> {
    let row = DataType::Struct(
        vec![ArrowField::new("a", DataType::Int64, true), ArrowField::new("b", DataType::Utf8, true)].into(),
    );
    vec![
        ("flag", DataType::Boolean),
        ("tiny", DataType::Int8),
        ("small", DataType::Int16),
        ("int", DataType::Int32),
        ("big", DataType::Int64),
        ("float", DataType::Float32),
        ("double", DataType::Float64),
        ("price", DataType::Decimal128(10, 2)),
        ("text", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("at_nano", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        ("day", DataType::Date32),
        ("clock", DataType::Time32(TimeUnit::Millisecond)),
        ("row", row),
        ("list", list(DataType::Int32)),
        ("map", map(DataType::Int8, DataType::Utf8)),
    ]
}

#[tokio::test]
async fn rows_of_every_type_do_not_depend_on_splits_or_columns() {
    let table =
        table(every_type(), &[("number-of-rows", "3000"), ("fields.map.key.max", "1"), ("fields.map.key.min", "0")]);
    let all: Vec<usize> = (0..17).collect();
    let one = read(&table, all.clone(), 1024, 1).await;
    assert_eq!(one.num_rows(), 3000);
    let two = read(&table, all, 100, 2).await;
    assert_eq!(two.num_rows(), 3000);
    // Three blocks of 1000: with two splits, the middle one comes from the other split, in batches between.
    let sort = |batch: &RecordBatch| {
        let order = arrow::compute::sort_to_indices(batch.column(4), None, None).unwrap();
        arrow::compute::take_record_batch(batch, &order).unwrap()
    };
    assert_eq!(sort(&one), sort(&two));
    assert_eq!(read(&table, vec![4, 15], 1024, 1).await, one.project(&[4, 15]).unwrap());
    let text = one.column(8).as_string::<i32>();
    assert!(text.iter().flatten().all(|t| t.len() == 100 && t.bytes().all(|b| b.is_ascii_hexdigit())));
    let maps = one.column(16).as_map();
    assert!((0..3000).all(|i| (1..=2).contains(&maps.value_length(i))), "keys are distinct");
}

#[tokio::test]
async fn settings_of_fields_are_kept() {
    let table = table(
        every_type(),
        &[
            ("number-of-rows", "10000"),
            ("rows-per-second", "1000000000"),
            ("base-time", "2026-02-03 04:05:06"),
            ("fields.tiny.min", "-3"),
            ("fields.tiny.max", "3"),
            ("fields.double.min", "0"),
            ("fields.double.max", "1"),
            ("fields.price.min", "1.50"),
            ("fields.price.max", "2"),
            ("fields.big.null-rate", "0.25"),
            ("fields.at.max-past", "10 s"),
            ("fields.text.length", "7"),
            ("fields.list.length", "2"),
            ("fields.list.element.min", "5"),
            ("fields.list.element.max", "5"),
            ("fields.row.a.max", "0"),
        ],
    );
    let rows = read(&table, (0..17).collect(), 4096, 1).await;
    let tiny = rows.column(1).as_primitive::<Int8Type>().values();
    assert_eq!((tiny.iter().min(), tiny.iter().max()), (Some(&-3), Some(&3)));
    let doubles = rows.column(6).as_primitive::<Float64Type>().values();
    assert!(doubles.iter().all(|d| (0.0..=1.0).contains(d)));
    let prices = rows.column(7).as_primitive::<Decimal128Type>().values();
    assert_eq!((prices.iter().min(), prices.iter().max()), (Some(&150), Some(&200)));
    assert!((2300..2700).contains(&rows.column(4).null_count()));
    let base = 1_770_091_506_000;
    let times = rows.column(10).as_primitive::<TimestampMillisecondType>().values();
    assert!(times.iter().all(|t| (base - 10_000..=base).contains(t)));
    assert_eq!(rows.column(12).as_primitive::<Date32Type>().value(0), 20_487);
    assert!(rows.column(8).as_string::<i32>().iter().flatten().all(|t| t.len() == 7));
    assert_eq!(format!("{:?}", rows.column(15).as_list::<i32>().value(9)), "PrimitiveArray<Int32>\n[\n  5,\n  5,\n]");
    assert!(rows.column(14).as_struct().column(0).as_primitive::<Int64Type>().values().iter().all(|a| *a <= 0));
}

#[tokio::test]
async fn sequences_count_and_end_the_table() {
    let columns = vec![("n", DataType::Int64), ("t", DataType::Utf8), ("d", DataType::Decimal128(5, 2))];
    let mut options = Vec::new();
    for (field, start, end) in [("n", "10", "1509"), ("t", "1", "5000"), ("d", "0", "999")] {
        options.extend([
            (format!("fields.{field}.kind"), "sequence"),
            (format!("fields.{field}.start"), start),
            (format!("fields.{field}.end"), end),
        ]);
    }
    let options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let rows = read(&table(columns, &options), vec![0, 1, 2], 256, 1).await;
    assert_eq!(rows.num_rows(), 1000);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &(10..1010).collect::<Vec<i64>>()[..]);
    assert_eq!(rows.column(1).as_string::<i32>().value(999), "1000");
    assert_eq!(rows.column(2).as_primitive::<Decimal128Type>().value(999), 99_900);
}

#[test]
fn wrong_settings_are_refused() {
    let refused = |options: &[(&str, &str)], part: &str| {
        let error = source(&table(every_type(), options)).err().expect("an error");
        assert_eq!(error.kind, ErrorKind::Option);
        assert!(error.message.contains(part), "{error}");
    };
    refused(&[("fields.big.minimum", "1")], "'fields.big.minimum', which names no column");
    refused(&[("fields.big.length", "1")], "fields.big.length");
    refused(&[("fields.tiny.max", "128")], "too small");
    refused(&[("fields.big.min", "2"), ("fields.big.max", "1")], "min must not be above max");
    refused(&[("fields.big.kind", "sequence"), ("fields.big.start", "1")], "fields.big.end");
    refused(&[("fields.flag.kind", "sequence")], "numbers and strings");
    refused(&[("fields.price.max", "1e")], "DECIMAL(10, 2)");
    refused(&[("fields.at.max-past", "long")], "duration");
    refused(&[("fields.big.null-rate", "2")], "from 0 to 1");
    refused(&[("speed", "2")], "unknown option 'speed'");
}
