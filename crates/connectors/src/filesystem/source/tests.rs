//! Tests of the reading of files: every block size, every position to resume from, broken and changed files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mainstem_core::protocol::SourceSplit;
use tempfile::TempDir;

use super::*;
use crate::bad_records::BAD_RECORD_ADVICE;
use crate::error::ErrorKind;
use crate::lag::SplitLags;
use crate::source::ReaderEvent;

type Row = (Option<i64>, Option<String>);

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Files {
        Files { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]))
}

fn spec(path: impl AsRef<Path>, options: &[(&str, &str)]) -> TableSpec {
    let path = path.as_ref().to_str().unwrap();
    let options = [("connector", "filesystem"), ("path", path)].into_iter().chain(options.iter().copied());
    TableSpec {
        name: "t".to_owned(),
        schema: schema(),
        primary_key: vec![],
        partition_keys: vec![],
        options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>(),
    }
}

fn table(path: impl AsRef<Path>, options: &[(&str, &str)], block_bytes: usize) -> FileSource {
    let source = FileSource::new(&spec(path, options)).unwrap();
    let mut table = Arc::into_inner(source.table).unwrap();
    table.block_bytes = block_bytes;
    FileSource { table: Arc::new(table), monitor_interval: source.monitor_interval }
}

fn context(batch_rows: usize) -> ReaderContext {
    ReaderContext {
        columns: vec![0, 1],
        batch_rows,
        with_origins: false,
        bytes_read: Arc::default(),
        lags: SplitLags::default(),
    }
}

async fn splits(source: &FileSource) -> Vec<SourceSplit> {
    source.enumerator(EnumeratorContext { parallelism: 2 }).discover().await.unwrap()
}

fn to_rows(batch: &RecordBatch) -> Vec<Row> {
    let numbers = batch.column(0).as_primitive::<Int64Type>().iter();
    let texts: &StringArray = batch.column(1).as_string();
    numbers.zip(texts.iter().map(|text| text.map(str::to_owned))).collect()
}

/// The rows of a split from a position on, each batch with the position after it.
async fn read(
    source: &FileSource,
    split: &SourceSplit,
    from: Option<&str>,
    batch_rows: usize,
) -> Result<Vec<(Vec<Row>, String)>, ConnectorError> {
    let mut reader = source.reader(context(batch_rows));
    reader.add_split(split.clone(), from.map(str::to_owned))?;
    read_all(reader, split).await
}

async fn read_all(
    mut reader: Box<dyn SourceReader>,
    split: &SourceSplit,
) -> Result<Vec<(Vec<Row>, String)>, ConnectorError> {
    let mut batches = Vec::new();
    loop {
        match reader.next().await? {
            Some(ReaderEvent::Batch { split: id, rows, position, .. }) => {
                assert_eq!(id, split.id);
                batches.push((to_rows(&rows), position));
            }
            Some(ReaderEvent::SplitFinished { split: id }) => assert_eq!(id, split.id),
            None => return Ok(batches),
        }
    }
}

async fn all_rows(source: &FileSource) -> Vec<Row> {
    let mut rows = Vec::new();
    for split in splits(source).await {
        rows.extend(read(source, &split, None, 1000).await.unwrap().into_iter().flat_map(|(rows, _)| rows));
    }
    rows
}

async fn failure(source: &FileSource) -> ConnectorError {
    let split = splits(source).await.remove(0);
    read(source, &split, None, 1000).await.unwrap_err()
}

/// Reads the file in batches of one row, then again from each position.
async fn check_resume(source: &FileSource, expected: &[Row]) {
    let split = splits(source).await.remove(0);
    let batches = read(source, &split, None, 1).await.unwrap();
    let rows: Vec<Row> = batches.iter().flat_map(|(rows, _)| rows.clone()).collect();
    assert_eq!(rows, expected);
    assert_eq!(batches.len(), rows.len());
    for (index, (_, position)) in batches.iter().enumerate() {
        let rest = read(source, &split, Some(position), 100).await.unwrap();
        let rest: Vec<Row> = rest.into_iter().flat_map(|(rows, _)| rows).collect();
        assert_eq!(rest, rows[index + 1..], "{position}");
        let mut reader = source.reader(context(2));
        reader.add_split_until(split.clone(), None, position.clone()).unwrap();
        let before = read_all(reader, &split).await.unwrap();
        assert_eq!(before.last().map(|(_, position)| position), Some(position));
        let before: Vec<Row> = before.into_iter().flat_map(|(rows, _)| rows).collect();
        assert_eq!(before, rows[..=index], "{position}");
    }
}

fn row(number: i64, text: &str) -> Row {
    (Some(number), Some(text.to_owned()))
}

const JSON: &str =
    "\u{feff}{\"a\":1,\"b\":\"x\"}\n\n{\"b\":\"ä\",\"a\":2}\r\n{\"a\":3,\"c\":[1,{}]}\n   \n{\"a\":4,\"b\":\"last\"}";

fn json_rows() -> Vec<Row> {
    vec![row(1, "x"), row(2, "ä"), (Some(3), None), row(4, "last")]
}

fn gzip(parts: &[&[u8]]) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in parts {
        let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    packed
}

#[tokio::test]
async fn json_lines_at_every_block_size_and_from_every_position() {
    let files = Files::new();
    let path = files.write("x.json", JSON);
    for block_bytes in 1..JSON.len() + 2 {
        check_resume(&table(&path, &[("format", "json")], block_bytes), &json_rows()).await;
    }
}

#[tokio::test]
async fn packed_files_read_like_plain_ones() {
    let files = Files::new();
    let (left, right) = JSON.as_bytes().split_at(20);
    let gz = files.write("x.json.gz", gzip(&[left, right]));
    let zst = files.write("x.json.zst", zstd::encode_all(JSON.as_bytes(), 1).unwrap());
    for path in [gz, zst] {
        for block_bytes in [1, 7, 30, 1 << 20] {
            check_resume(&table(&path, &[("format", "json")], block_bytes), &json_rows()).await;
        }
    }
    let unnamed = files.write("packed", gzip(&[JSON.as_bytes()]));
    assert_eq!(all_rows(&table(&unnamed, &[("format", "json"), ("compression", "gzip")], 100)).await, json_rows());
    let plain = files.write("plain.gz", JSON);
    assert_eq!(all_rows(&table(&plain, &[("format", "json"), ("compression", "none")], 100)).await, json_rows());
    let damaged = files.write("cut.json.gz", &gzip(&[JSON.as_bytes()])[..40]);
    let error = failure(&table(&damaged, &[("format", "json")], 100)).await;
    assert_eq!(error.kind, ErrorKind::Data);
    assert!(error.message.contains("cut.json.gz' cannot be unpacked"), "{error}");
    let wrong = failure(&table(&plain, &[("format", "json")], 100)).await;
    assert!(wrong.message.contains("cannot be unpacked"), "{wrong}");
}

#[tokio::test]
async fn csv_with_header_and_quoted_lines() {
    let files = Files::new();
    let text = "\u{feff}\"b\",z,a\n\"one\ntwo\",,1\n\"\"\"\",9,2\r\nplain,,\n";
    let path = files.write("x.csv", text);
    let expected = [row(1, "one\ntwo"), row(2, "\""), (None, Some("plain".to_owned()))];
    for block_bytes in 1..text.len() + 2 {
        check_resume(&table(&path, &[("format", "csv"), ("csv.header", "true")], block_bytes), &expected).await;
    }
    let other = files.write("y.csv", "p,q\n1,2\n");
    let error = failure(&table(other, &[("format", "csv"), ("csv.header", "true")], 100)).await;
    assert!(error.message.contains("the header has no field 'a'; it has p, q"), "{error}");
    let broken = files.write("z.csv", "b,z,a\nx,y,1\nx,y,one\n");
    let error = failure(&table(broken, &[("format", "csv"), ("csv.header", "true")], 100)).await;
    assert!(error.message.contains("line 3, byte 16: column 'a': expected BIGINT, found the text 'one'"), "{error}");
}

fn write_parquet(files: &Files, name: &str, rows: std::ops::Range<i32>, group_rows: usize) -> String {
    let path = files.write(name, "");
    let fields = vec![
        Field::new("b", DataType::Utf8, true),
        Field::new("x", DataType::Utf8, true),
        Field::new("a", DataType::Int32, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let texts: StringArray = rows.clone().map(|i| (i % 3 != 0).then(|| format!("t{i}"))).collect();
    let numbers = Int32Array::from_iter_values(rows);
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts.clone()), Arc::new(texts), Arc::new(numbers)])
            .unwrap();
    let properties =
        ::parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(File::create(&path).unwrap(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[tokio::test]
async fn parquet_row_groups_in_order_and_from_every_row() {
    let files = Files::new();
    let path = write_parquet(&files, "x.parquet", 0..23, 5);
    let expected: Vec<Row> = (0..23).map(|i| (Some(i), (i % 3 != 0).then(|| format!("t{i}")))).collect();
    let source = table(&path, &[("format", "parquet")], 1);
    check_resume(&source, &expected).await;

    let split = splits(&source).await.remove(0);
    let error = read(&source, &split, Some("{\"row\":24}"), 10).await.unwrap_err();
    assert!(error.message.contains("has 23 rows, but was read up to row 24"), "{error}");
    let error = read(&source, &split, Some("{\"offset\":1,\"line\":1}"), 10).await.unwrap_err();
    assert!(error.message.contains("cannot be read"), "{error}");

    let cut = files.write("cut.parquet", &fs::read(&path).unwrap()[..300]);
    let error = failure(&table(&cut, &[("format", "parquet")], 1)).await;
    assert!(error.message.contains("cut.parquet' cannot be read as Parquet"), "{error}");
}

#[tokio::test]
async fn no_columns_still_count_rows() {
    let files = Files::new();
    write_parquet(&files, "p/x.parquet", 0..7, 3);
    files.write("j/x.json", JSON);
    files.write("c/x.csv", "1,x\n2,y\n");
    for (directory, format, expected) in [("p", "parquet", 7), ("j", "json", 4), ("c", "csv", 2)] {
        let source = table(files.path().join(directory), &[("format", format)], 10);
        let mut reader = source.reader(ReaderContext { columns: vec![], ..context(2) });
        for split in splits(&source).await {
            reader.add_split(split, None).unwrap();
        }
        let mut rows = 0;
        while let Some(event) = reader.next().await.unwrap() {
            if let ReaderEvent::Batch { rows: batch, .. } = event {
                assert_eq!(batch.num_columns(), 0);
                rows += batch.num_rows();
            }
        }
        assert_eq!(rows, expected, "{format}");
    }
}

#[tokio::test]
async fn several_files_are_read_one_after_the_other() {
    let files = Files::new();
    for (name, number) in [("2.json", 2), ("sub/3.json", 3), ("1.json", 1), (".hidden", 9), ("_tmp/4.json", 9)] {
        files.write(name, format!("{{\"a\":{number}}}\n{{\"a\":{number}}}"));
    }
    files.write("empty.json", "");
    let source = table(files.path(), &[("format", "json")], 5);
    let mut reader = source.reader(context(1));
    for split in splits(&source).await {
        reader.add_split(split, None).unwrap();
    }
    let mut seen = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        seen.push(match event {
            ReaderEvent::Batch { rows, .. } => to_rows(&rows)[0].0.unwrap(),
            ReaderEvent::SplitFinished { .. } => 0,
        });
    }
    assert_eq!(seen, [1, 1, 0, 2, 2, 0, 0, 3, 3, 0]);
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn broken_records_fail_with_their_place_or_are_counted() {
    let files = Files::new();
    let path = files.write("x.json", "{\"a\":1}\n{\"a\":2}\n\n{\"a\":\"x\\ty\"}\n{\"a\":5}\n{\"a\":");
    for block_bytes in [1, 10, 1 << 20] {
        let source = table(&path, &[("format", "json")], block_bytes);
        let split = splits(&source).await.remove(0);
        let mut reader = source.reader(context(100));
        reader.add_split(split.clone(), None).unwrap();
        let mut rows = Vec::new();
        let error = loop {
            match reader.next().await {
                Ok(Some(ReaderEvent::Batch { rows: batch, .. })) => rows.extend(to_rows(&batch)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(rows, [(Some(1), None), (Some(2), None)]);
        assert_eq!(error.kind, ErrorKind::Data);
        let expected = format!(
            "cannot read the file '{path}', line 4, byte 22: column 'a': expected BIGINT, found the text 'x.y'; the record is: \
             {{\"a\":\"x\\ty\"}} -- {BAD_RECORD_ADVICE}"
        );
        assert_eq!(error.message, expected);

        let lenient = table(&path, &[("format", "json"), ("json.ignore-parse-errors", "true")], block_bytes);
        let ctx = context(100);
        let bytes: Arc<AtomicU64> = Arc::clone(&ctx.bytes_read);
        let mut reader = lenient.reader(ctx);
        reader.add_split(split, None).unwrap();
        let mut rows = Vec::new();
        let mut dropped = 0;
        while let Some(event) = reader.next().await.unwrap() {
            if let ReaderEvent::Batch { rows: batch, rejected, .. } = event {
                rows.extend(to_rows(&batch));
                dropped += rejected.count;
            }
        }
        assert_eq!(rows, [(Some(1), None), (Some(2), None), (Some(5), None)]);
        assert_eq!(dropped, 2);
        assert_eq!(bytes.load(Ordering::Relaxed), fs::metadata(&path).unwrap().len());
    }
}

#[tokio::test]
async fn a_record_without_end_is_named_with_its_line() {
    let files = Files::new();
    let path = files.write("x.json", format!("{{\"a\":1}}\n{{\"b\":\"{}", "x".repeat(RECORD_BYTES_TEST)));
    let error = failure(&table(path, &[("format", "json")], 1 << 20)).await;
    assert!(error.message.contains("line 2, byte 8: a record that begins here has no end within 16 MiB"), "{error}");
}

const RECORD_BYTES_TEST: usize = 18 << 20;

#[tokio::test]
async fn a_file_that_changed_is_not_trusted() {
    let files = Files::new();
    let path = files.write("x.json", JSON);
    let source = table(&path, &[("format", "json")], 10);
    let split = splits(&source).await.remove(0);
    let position = read(&source, &split, None, 1).await.unwrap()[1].1.clone();
    fs::write(&path, format!("{JSON}\n{{}}")).unwrap();
    for from in [None, Some(position.as_str())] {
        let error = read(&source, &split, from, 10).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::External);
        assert!(
            error.message.contains(&path) && error.message.contains("has changed since the job found it (it had"),
            "{error}"
        );
    }
    fs::write(&path, JSON).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let error = read(&source, &split, Some(&position), 10).await.unwrap_err();
    assert!(error.message.contains("its time of change differs"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = read(&source, &split, Some(&position), 10).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(error.message.contains("cannot open") && error.message.contains(&path), "{error}");

    let packed = files.write("y.json.gz", gzip(&[JSON.as_bytes()]));
    let source = table(&packed, &[("format", "json")], 10);
    let split = splits(&source).await.remove(0);
    let error = read(&source, &split, Some("{\"offset\":1000,\"line\":9}"), 10).await.unwrap_err();
    assert!(error.message.contains("ends before byte 1000"), "{error}");
}

#[tokio::test]
async fn paths_may_be_files_directories_and_globs() {
    let files = Files::new();
    for name in ["b/2.json", "a/1.json", "a/.x.json", "_s/3.json", "c.csv"] {
        files.write(name, "");
    }
    let names = async |path: String| {
        let found =
            table(path, &[("format", "json")], 10).enumerator(EnumeratorContext { parallelism: 1 }).discover().await;
        let prefix = format!("{}/", files.path().display());
        found.map(|splits| splits.into_iter().map(|s| s.id.0.replace(&prefix, "")).collect::<Vec<_>>())
    };
    let path = |rest: &str| format!("{}/{rest}", files.path().display());
    assert_eq!(names(path("")).await.unwrap(), ["a/1.json", "b/2.json", "c.csv"]);
    assert_eq!(names(path("*/*.json")).await.unwrap(), ["a/1.json", "b/2.json"]);
    assert_eq!(names(path("**/*.json")).await.unwrap(), ["a/1.json", "b/2.json"]);
    assert_eq!(names(path("_s/*")).await.unwrap(), ["_s/3.json"]);
    assert_eq!(names(path("_*/*")).await.unwrap(), ["_s/3.json"]);
    assert_eq!(names(path("[ab]")).await.unwrap(), ["a/1.json", "b/2.json"]);
    assert_eq!(names(format!("file://{}", path("c.csv"))).await.unwrap(), ["c.csv"]);

    for (rest, words) in [("none.json", "cannot read"), ("*.none", "matches no file"), ("a/***", "is not a glob")] {
        let error = names(path(rest)).await.unwrap_err();
        assert!(error.message.contains(words) && error.message.contains(rest), "{error}");
    }
    fs::create_dir(files.path().join("void")).unwrap();
    let error = names(path("void")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(error.message.contains("void' holds no file to read"), "{error}");
    let error = names("/dev/null".to_owned()).await.unwrap_err();
    assert!(error.message.contains("neither a file nor a directory"), "{error}");
}

#[tokio::test]
async fn files_that_appear_are_found_once_they_rest() {
    let files = Files::new();
    files.write("1.json", "");
    let source = table(files.path(), &[("format", "json"), ("source.monitor-interval", "1 s")], 10);
    assert_eq!(source.monitor_interval(), Some(Duration::from_secs(1)));
    let mut enumerator = source.enumerator(EnumeratorContext { parallelism: 1 });
    let mut count = async || enumerator.discover().await.unwrap().len();
    assert_eq!(count().await, 1);
    files.write("2.json", "{");
    assert_eq!(count().await, 1);
    files.write("2.json", "{}");
    assert_eq!(count().await, 1);
    assert_eq!(count().await, 2);
    // A change to a known file is no new file.
    files.write("1.json", "{}");
    assert_eq!(count().await, 2);
}

#[test]
fn options_are_checked() {
    let error = |options: &[(&str, &str)]| source(&spec("x", options)).err().unwrap().message;
    assert!(error(&[]).contains("needs the option 'format'"));
    assert!(error(&[("format", "xml")]).contains("expected one of json, csv, parquet"));
    assert!(error(&[("format", "json"), ("csv.header", "true")]).contains("unknown option 'csv.header'"));
    assert!(error(&[("format", "json"), ("source.monitor-interval", "0 s")]).contains("is zero"));
    assert!(error(&[("format", "csv"), ("csv.field-delimiter", "ab")]).contains("one ASCII character"));
    let fine = [
        ("format", "json"),
        ("sink.rolling-policy.file-size", "1 mb"),
        ("scan.watermark.idle-timeout", "1 s"),
        ("delivery", "exactly-once"),
    ];
    assert!(source(&spec("x", &fine)).is_ok());
    let mut nested = spec("x", &[("format", "csv")]);
    nested.schema = Arc::new(Schema::new(vec![Field::new(
        "r",
        DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into()),
        true,
    )]));
    let error = source(&nested).err().unwrap();
    assert_eq!(error.message, "table 't', column 'r': csv cannot hold the type ROW");
    assert!(source(&spec("ftp://bucket/x", &[("format", "json")])).err().unwrap().message.contains("scheme 'ftp'"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blocks_in_parallel_keep_their_order() {
    let files = Files::new();
    let lines: String = (0..20_000).map(|i| format!("{{\"a\":{i},\"b\":\"{}\"}}\n", "x".repeat(i % 50))).collect();
    let path = files.write("x.json", lines);
    let source = table(path, &[("format", "json")], 4_000);
    let split = splits(&source).await.remove(0);
    let mut next = 0;
    for (rows, position) in read(&source, &split, None, 64).await.unwrap() {
        for (number, text) in rows {
            assert_eq!((number, text.map(|t| t.len())), (Some(next), Some(next as usize % 50)));
            next += 1;
        }
        let position: split::TextPosition = serde_json::from_str(&position).unwrap();
        assert_eq!(position.line, next as u64 + 1);
    }
    assert_eq!(next, 20_000);
}

/// What was rejected, from a position up to another: position, line and bytes.
async fn rejected(
    source: &FileSource,
    split: &SourceSplit,
    from: Option<String>,
    until: Option<String>,
    batch_rows: usize,
) -> Vec<(Vec<(i64, i64, Vec<u8>)>, usize, String)> {
    let mut reader = source.reader(ReaderContext { with_origins: true, ..context(batch_rows) });
    match until {
        Some(until) => reader.add_split_until(split.clone(), from, until).unwrap(),
        None => reader.add_split(split.clone(), from).unwrap(),
    }
    let mut events = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        if let ReaderEvent::Batch { rows, rejected, origins, position, .. } = event {
            assert_eq!(rejected.count, rejected.letters.len() as u64);
            let letter = |letter: crate::DeadLetter| (letter.position, letter.line.unwrap(), letter.raw.unwrap());
            let origins = origins.map_or(0, |origins| origins.rows.len());
            assert!(origins == rows.num_rows(), "{origins} origins of {} rows", rows.num_rows());
            events.push((rejected.letters.into_iter().map(letter).collect(), rows.num_rows(), position));
        }
    }
    events
}

#[tokio::test]
async fn letters_are_given_once_from_every_position_and_up_to_each() {
    let files = Files::new();
    let mut text = String::new();
    let mut expected = Vec::new();
    for n in 0..60 {
        if n % 7 == 3 || (40..50).contains(&n) {
            let raw = format!("bad {n}");
            expected.push((text.len() as i64, n + 1, raw.as_bytes().to_vec()));
            text += &raw;
        } else {
            text += &format!("{{\"a\":{n}}}");
        }
        text.push('\n');
    }
    let path = files.write("x.json", text);
    let options = [("format", "json"), ("bad-records", "dead-letter"), ("bad-records.table", "t2")];
    for block_bytes in [1, 50, 1 << 20] {
        let source = table(&path, &options, block_bytes);
        let split = splits(&source).await.remove(0);
        let all = rejected(&source, &split, None, None, 5).await;
        let letters: Vec<_> = all.iter().flat_map(|(letters, ..)| letters.clone()).collect();
        assert_eq!(letters, expected);
        for (at, (_, _, position)) in all.iter().enumerate() {
            let before = rejected(&source, &split, None, Some(position.clone()), 3).await;
            let after = rejected(&source, &split, Some(position.clone()), None, 4).await;
            let joined: Vec<_> = before.into_iter().chain(after).flat_map(|(letters, ..)| letters).collect();
            assert_eq!(joined, expected, "{block_bytes} {at}");
        }
    }
}

#[tokio::test]
async fn rows_of_parquet_that_do_not_fit_are_rejected_alone() {
    let files = Files::new();
    // Every third text is NULL.
    let path = write_parquet(&files, "x.parquet", 0..23, 5);
    let strict = |options: &[(&str, &str)]| {
        let mut strict = spec(&path, options);
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, false)];
        strict.schema = Arc::new(Schema::new(fields));
        FileSource::new(&strict).unwrap()
    };
    let failing = strict(&[("format", "parquet")]);
    let error = failure(&failing).await;
    assert!(error.message.contains("row 1: column 'b'") && error.message.contains("NOT NULL"), "{error}");
    let dropping = strict(&[("format", "parquet"), ("bad-records", "drop")]);
    let split = splits(&dropping).await.remove(0);
    // Up to each row and from there on, as a replay would read it.
    for cut in 0..=23 {
        let mut found = Vec::new();
        let mut bad = 0;
        let until = format!("{{\"row\":{cut}}}");
        let parts = [(None, Some(until.clone())), (Some(until), None)];
        for (from, until) in parts {
            let mut reader = dropping.reader(ReaderContext { with_origins: true, ..context(4) });
            match until {
                Some(until) => reader.add_split_until(split.clone(), from, until).unwrap(),
                None => reader.add_split(split.clone(), from).unwrap(),
            }
            while let Some(event) = reader.next().await.unwrap() {
                let ReaderEvent::Batch { rows, rejected, origins, .. } = event else { continue };
                bad += rejected.count;
                let numbers: Vec<i64> = to_rows(&rows).into_iter().map(|(number, _)| number.unwrap()).collect();
                let positions: Vec<i64> = origins.unwrap().rows.iter().map(|origin| origin.position).collect();
                assert_eq!(numbers, positions);
                found.extend(numbers);
            }
        }
        let expected: Vec<i64> = (0..23).filter(|n| n % 3 != 0).collect();
        assert_eq!((found, bad), (expected, 8), "{cut}");
    }
}
