//! Tests of the print sink, into a buffer.

use std::collections::BTreeMap;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};

use super::*;

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn print(style: &Style, rows: &RecordBatch) -> String {
    print_changes(style, rows, Kinds { updating: false, changes: None })
}

fn print_changes(style: &Style, rows: &RecordBatch, kinds: Kinds<'_>) -> String {
    let mut out = Vec::new();
    style.format(rows, kinds, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn people() -> RecordBatch {
    rows(vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), Some(20), None]))),
        ("name", Arc::new(StringArray::from(vec![Some("foo"), None, Some("a\nb")]))),
    ])
}

#[test]
fn rows_look_as_in_flink() {
    let row = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![None, Some(2)])) as ArrayRef,
    )]);
    let rows = rows(vec![
        ("id", Arc::new(Int64Array::from(vec![1, -2]))),
        ("name", Arc::new(StringArray::from(vec![Some("foo"), None]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000, 1_767_225_605_020]))),
        ("instant", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500]).with_timezone("UTC"))),
        ("share", Arc::new(Float64Array::from(vec![0.5, -12_345_678.0]))),
        ("small", Arc::new(Float64Array::from(vec![1e-4, f64::INFINITY]))),
        ("bytes", Arc::new(BinaryArray::from(vec![&[1_u8, 255][..], &[]]))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]))),
        ("row", Arc::new(row)),
    ]);
    let style = Style::Row { prefix: "out> ".to_owned() };
    assert_eq!(
        print(&style, &rows),
        "out> +I[1, foo, 2026-01-01T00:00, 1970-01-01T00:00:00Z, 0.5, 1.0E-4, [1, -1], [1, null], +I[null]]\n\
         out> +I[-2, null, 2026-01-01T00:00:05.020, 1970-01-01T00:00:01.500Z, -1.2345678E7, Infinity, [], null, +I[2]]\n"
    );
}

#[test]
fn a_table_has_one_header_and_aligned_columns() {
    let style = Style::Table(Arc::new(Mutex::new(None)));
    assert_eq!(print(&style, &people()), " id   | name\n------+------\n    1 | foo\n   20 | NULL\n NULL | a\\nb\n");
    let long = rows(vec![
        ("id", Arc::new(Int64Array::from(vec![7]))),
        ("name", Arc::new(StringArray::from(vec!["x".repeat(50)]))),
    ]);
    assert_eq!(print(&style, &long), format!("    7 | {}…\n", "x".repeat(39)));
}

#[test]
fn json_is_one_object_a_line() {
    assert_eq!(
        print(&Style::Json, &people()),
        "{\"id\":1,\"name\":\"foo\"}\n{\"id\":20,\"name\":null}\n{\"id\":null,\"name\":\"a\\nb\"}\n"
    );
}

#[test]
fn changes_show_their_kind_in_every_style() {
    let changes = Int8Array::from(vec![ChangeKind::UpdateBefore as i8, ChangeKind::UpdateAfter as i8, 3]);
    let kinds = Kinds { updating: true, changes: Some(&changes) };
    let row = Style::Row { prefix: "x> ".to_owned() };
    assert_eq!(print_changes(&row, &people(), kinds), "x> -U[1, foo]\nx> +U[20, null]\nx> -D[null, a\nb]\n");
    assert_eq!(
        print_changes(&Style::Json, &people(), kinds),
        "{\"op\":\"-U\",\"id\":1,\"name\":\"foo\"}\n{\"op\":\"+U\",\"id\":20,\"name\":null}\n\
         {\"op\":\"-D\",\"id\":null,\"name\":\"a\\nb\"}\n"
    );
    let table = Style::Table(Arc::new(Mutex::new(None)));
    // The first rows of a stream of changes may all be inserts.
    assert_eq!(
        print_changes(&table, &people().slice(0, 1), Kinds { updating: true, changes: None }),
        " op | id | name\n----+----+------\n +I |  1 | foo\n"
    );
    assert_eq!(print_changes(&table, &people(), kinds), " -U |  1 | foo\n +U | 20 | NULL\n -D | NULL | a\\nb\n");
    let taken = rows(vec![("op", Arc::new(Int64Array::from(vec![1])))]);
    let kinds = Kinds { updating: true, changes: None };
    assert_eq!(print_changes(&Style::Json, &taken, kinds), "{\"__op\":\"+I\",\"op\":1}\n");
}

#[tokio::test]
async fn a_writer_prints_at_once_and_reports_a_closed_pipe() {
    let buffer = Arc::new(Mutex::new(Vec::new()));
    let mut writer = PrintWriter {
        style: Style::Row { prefix: String::new() },
        target: Target::Buffer(buffer.clone()),
        updating: false,
    };
    writer.write(&people(), None).await.unwrap();
    assert_eq!(
        String::from_utf8(buffer.lock().unwrap().clone()).unwrap(),
        "+I[1, foo]\n+I[20, null]\n+I[null, a\nb]\n"
    );
    assert_eq!(writer.seal(Epoch(1)).await.unwrap().await.unwrap(), vec![]);

    writer.target = Target::Closed;
    let error = writer.write(&people(), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(error.message.contains("has ended"), "{error}");
}

#[test]
fn options_are_checked() {
    let table = |options: &[(&str, &str)]| TableSpec {
        name: "out".to_owned(),
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        primary_key: vec![],
        partition_keys: vec![],
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
    };
    assert!(sink(&table(&[("print-identifier", "x"), ("standard-error", "true")])).is_ok());
    assert!(sink(&table(&[("print-identifier", "x"), ("print.style", "table")])).is_err());
    for bad in [("print.style", "xml"), ("standard-error", "maybe"), ("colour", "red")] {
        assert_eq!(sink(&table(&[bad])).err().expect("an error").kind, ErrorKind::Option);
    }
    let sink = sink(&table(&[])).unwrap();
    assert_eq!((sink.strongest_delivery().0, sink.accepts()), (Delivery::AtLeastOnce, ChangeMode::Retract));
}
