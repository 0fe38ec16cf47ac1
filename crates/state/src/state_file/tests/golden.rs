//! A state file as each version of the format has it: a column of each type, a table in several blocks, one without a key, and
//! rows in flight.

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, MapBuilder, StringBuilder, StructArray, Time32MillisecondArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow::array::{Int64Builder, MapFieldNames};
use arrow::datatypes::{DataType, Field, Int64Type};

use super::*;
use crate::golden::{assert_still_written, golden};

/// Of the first version, in which every column has its own type.
const FIRST: &str = "state-file-1.state";
const FILE: &str = "state-file-2.state";

/// Two rows, the second of NULLs where there can be some.
fn every_type() -> TableDelta {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("one");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("in"), None]));
    let inner = StructArray::from(vec![(Arc::new(Field::new("s", DataType::Utf8, true)), text)]);
    let decimal = Decimal128Array::from(vec![Some(-12_345_i128), None]).with_precision_and_scale(12, 2).unwrap();
    let columns: [(&str, ArrayRef); 18] = [
        ("boolean", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("tinyint", Arc::new(Int8Array::from(vec![Some(-8), None]))),
        ("smallint", Arc::new(Int16Array::from(vec![Some(-16), None]))),
        ("int", Arc::new(Int32Array::from(vec![Some(-32), None]))),
        ("bigint", Arc::new(Int64Array::from(vec![Some(-64), None]))),
        ("count", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("float", Arc::new(Float32Array::from(vec![Some(1.5), None]))),
        ("double", Arc::new(Float64Array::from(vec![Some(-0.25), None]))),
        ("decimal", Arc::new(decimal)),
        ("string", Arc::new(StringArray::from(vec![Some("grün"), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255][..]), None]))),
        ("date", Arc::new(Date32Array::from(vec![Some(20_000), None]))),
        ("time", Arc::new(Time32MillisecondArray::from(vec![Some(3_600_000), None]))),
        ("timestamp", Arc::new(TimestampMillisecondArray::from(vec![Some(1_700_000_000_123), None]))),
        (
            "timestamp_ltz",
            Arc::new(TimestampMillisecondArray::from(vec![Some(1_700_000_000_123), None]).with_timezone("UTC")),
        ),
        ("array", Arc::new(list)),
        ("map", Arc::new(map.finish())),
        ("row", Arc::new(inner)),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    TableDelta { table: "types".to_owned(), version: 3, key: vec![4, 9], key_groups: vec![2, 7], rows }
}

/// Two key groups of two MiB and more each, so each has a block.
fn two_blocks() -> TableDelta {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["a", "b"].map(|text| text.repeat(2_200_000))));
    let rows = RecordBatch::try_from_iter_with_nullable([("text", texts, false)]).unwrap();
    TableDelta { table: "blocks".to_owned(), version: 1, key: vec![0], key_groups: vec![0, 255], rows }
}

/// A channel with what a barrier has overtaken; without a key, as all tables were before keys were told.
fn in_flight() -> TableDelta {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![5, 5, 6]));
    let kinds: ArrayRef = Arc::new(Int8Array::from(vec![1, 2, 0]));
    let watermarks: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(900), Some(901)]));
    let columns = [("id", ids, false), ("kind", kinds, false), ("own_watermark", watermarks, true)];
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    TableDelta { table: "4-1".to_owned(), version: 1, key: vec![], key_groups: vec![2, 2, 2], rows }
}

#[test]
fn each_version_is_read_and_the_last_one_written_as_ever() {
    let tables = [every_type(), two_blocks(), in_flight()];
    let (written, key_groups) = encode(&tables).unwrap();
    assert_eq!(key_groups, KeyGroupRange { start: 0, end: 256 });
    let [types, blocks, channel] = &tables;
    let part = |row: usize| TableDelta {
        key_groups: vec![blocks.key_groups[row]],
        rows: blocks.rows.slice(row, 1),
        ..blocks.clone()
    };
    for file in [FIRST, FILE] {
        let read = decode(&golden(file, &written), ALL).unwrap();
        assert_eq!(read, [types.clone(), part(0), part(1), channel.clone()], "{file}");
    }
    assert_still_written(FILE, &golden(FILE, &written), &written, "docs/formats/state-file.md");
}

#[test]
fn each_byte_is_where_the_document_says() {
    let (written, _) = encode(&[every_type(), two_blocks(), in_flight()]).unwrap();
    let golden = golden(FILE, &written);
    let number = |at: usize| u32::from_le_bytes(golden[at..at + 4].try_into().unwrap());
    let size = golden.len();
    assert_eq!((&golden[..8], &golden[size - 8..]), (&b"MSSTATE\x02"[..], &b"MSSTEND\x02"[..]));
    let footer = &golden[size - 16 - number(size - 16) as usize..size - 16];
    assert_eq!(number(size - 12), crc32c::crc32c(footer));
    let footer: serde_json::Value = serde_json::from_slice(footer).unwrap();
    let tables = footer["tables"].as_array().unwrap();
    let heads: Vec<_> = tables.iter().map(|table| (&table["name"], &table["version"], table.get("key"))).collect();
    let (name, number) = (serde_json::Value::from, serde_json::Value::from);
    let keys: [serde_json::Value; 2] = [vec![4, 9].into(), vec![0].into()];
    assert_eq!(
        heads,
        [
            (&name("types"), &number(3), Some(&keys[0])),
            (&name("blocks"), &number(1), Some(&keys[1])),
            (&name("4-1"), &number(1), None)
        ]
    );
    let mut end = 8;
    let mut runs = Vec::new();
    for block in tables.iter().flat_map(|table| table["blocks"].as_array().unwrap()) {
        let (offset, length) = (block["offset"].as_u64().unwrap() as usize, block["length"].as_u64().unwrap() as usize);
        assert_eq!((offset, block["crc32c"].as_u64()), (end, Some(crc32c::crc32c(&golden[end..end + length]).into())));
        end += length;
        runs.push(block["runs"].to_string());
    }
    assert_eq!(runs, ["[[2,1],[7,1]]", "[[0,1]]", "[[255,1]]", "[[2,3]]"]);
}
