//! Tests of the filesystem sink: round trips through the source, and what a crash between any two steps leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::compute::concat_batches;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::lag::SplitLags;
use crate::source::{EnumeratorContext, ReaderContext, ReaderEvent};
use crate::staging::Staging;

fn rows(first: i64, count: i64) -> RecordBatch {
    let n = first..first + count;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(n.clone()))),
        (
            "day",
            Arc::new(StringArray::from_iter(
                n.clone().map(|i| (i % 3 != 2).then(|| format!("2026-01-0{}", i % 3 + 1))),
            )),
        ),
        ("text", Arc::new(StringArray::from_iter_values(n.clone().map(|i| format!("say \"{i}\",\nor é"))))),
        ("flag", Arc::new(BooleanArray::from_iter(n.clone().map(|i| (i % 5 != 0).then_some(i % 2 == 0))))),
        ("double", Arc::new(Float64Array::from_iter_values(n.clone().map(|i| i as f64 / 7.0)))),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter_values(n.clone().map(i128::from)).with_precision_and_scale(20, 9).unwrap(),
            ),
        ),
        ("at", Arc::new(TimestampMillisecondArray::from_iter_values(n.clone().map(|i| 1_767_225_600_000 + i * 37)))),
        ("instant", Arc::new(TimestampMillisecondArray::from_iter_values(n.map(|i| i * 1000)).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn table(path: &Path, options: &[(&str, &str)], partition_keys: &[&str]) -> TableSpec {
    let mut all = BTreeMap::from([
        ("connector".to_owned(), "filesystem".to_owned()),
        ("path".to_owned(), path.display().to_string()),
    ]);
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let partition_keys = partition_keys.iter().map(|&k| k.to_owned()).collect();
    TableSpec { name: "out".to_owned(), schema: rows(0, 1).schema(), primary_key: vec![], partition_keys, options: all }
}

fn job() -> JobId {
    JobId::new("job-1").unwrap()
}

fn context(generation: u64, subtask: u32) -> WriterContext {
    WriterContext {
        job: job(),
        operator: OperatorId(4),
        subtask,
        generation: Generation(generation),
        working_dir: "/nowhere".into(),
        changes: ChangeMode::Append,
        staging: Staging::nowhere(),
    }
}

fn committer(table: &TableSpec) -> Box<dyn Committer> {
    let ctx = CommitterContext { job: job(), operator: OperatorId(4), staging: Staging::nowhere() };
    sink(table).unwrap().committer(ctx).unwrap()
}

/// Writes batches as epoch 1 of attempt 1 and gives what is to be committed.
async fn write(table: &TableSpec, batches: &[RecordBatch]) -> Vec<Committable> {
    let mut writer = sink(table).unwrap().writer(context(1, 0));
    for batch in batches {
        writer.write(batch, None).await.unwrap();
    }
    writer.seal(Epoch(1)).await.unwrap().await.unwrap()
}

/// All files below a directory that are not hidden, by their relative paths.
fn visible(directory: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, files: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut files = Vec::new();
    walk(directory, directory, &mut files);
    files.sort();
    files
}

async fn read_back(table: &TableSpec) -> RecordBatch {
    let source = crate::filesystem::source(table).unwrap();
    let count = || Arc::new(AtomicU64::new(0));
    let columns = (0..table.schema.fields().len()).collect();
    let mut reader = source.reader(ReaderContext {
        columns,
        batch_rows: 1000,
        with_origins: false,
        bytes_read: count(),
        lags: SplitLags::default(),
    });
    for split in source.enumerator(EnumeratorContext { parallelism: 1 }).discover().await.unwrap() {
        reader.add_split(split, None).unwrap();
    }
    let mut batches = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        if let ReaderEvent::Batch { rows, .. } = event {
            batches.push(rows);
        }
    }
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let order = arrow::compute::sort_to_indices(all.column(0), None, None).unwrap();
    arrow::compute::take_record_batch(&all, &order).unwrap()
}

#[tokio::test]
async fn the_source_reads_back_what_every_format_wrote() {
    let cases: &[&[(&str, &str)]] = &[
        &[("format", "json")],
        &[("format", "json"), ("compression", "gzip"), ("json.timestamp-format.standard", "ISO-8601")],
        &[("format", "json"), ("compression", "zstd"), ("json.encode.ignore-null-fields", "true")],
        &[("format", "csv"), ("csv.null-literal", "NULL")],
        &[
            ("format", "csv"),
            ("csv.null-literal", ""),
            ("csv.field-delimiter", ";"),
            ("csv.header", "true"),
            ("compression", "gzip"),
        ],
        &[("format", "parquet")],
        &[("format", "parquet"), ("compression", "none")],
    ];
    for options in cases {
        let directory = TempDir::new().unwrap();
        let table = table(&directory.path().join("out"), options, &[]);
        let committables = write(&table, &[rows(0, 700), rows(700, 1), rows(701, 299)]).await;
        assert_eq!(visible(&directory.path().join("out")), Vec::<String>::new(), "nothing shows before the commit");
        committer(&table).commit(Epoch(1), &committables).await.unwrap();
        let files = visible(&directory.path().join("out"));
        assert!(files.len() == 1 && files[0].starts_with("part-job-1-op4-g1-0-1-0."), "{files:?}");
        assert!(read_back(&table).await == rows(0, 1000), "{options:?}");
    }
}

#[tokio::test]
async fn partitions_are_directories_and_leave_the_rows() {
    let directory = TempDir::new().unwrap();
    let table = table(directory.path(), &[("format", "json")], &["day"]);
    let committables = write(&table, &[rows(0, 10), rows(10, 10)]).await;
    assert_eq!(committables.len(), 3);
    committer(&table).commit(Epoch(1), &committables).await.unwrap();
    assert_eq!(
        visible(directory.path()),
        [
            "day=2026-01-01/part-job-1-op4-g1-0-1-0.json",
            "day=2026-01-02/part-job-1-op4-g1-0-1-1.json",
            "day=__DEFAULT_PARTITION__/part-job-1-op4-g1-0-1-2.json"
        ]
    );
    let text = fs::read_to_string(directory.path().join("day=2026-01-02/part-job-1-op4-g1-0-1-1.json")).unwrap();
    assert_eq!(text.lines().count(), 7);
    assert!(!text.contains("\"day\"") && text.starts_with("{\"id\":1,\"text\":"), "{text}");
    assert!(!directory.path().join(TEMPORARY).exists(), "an empty temporary directory is removed");
}

const TEMPORARY: &str = ".mainstem-tmp";

#[tokio::test]
async fn a_commit_can_be_repeated_and_goes_on_after_a_crash() {
    let directory = TempDir::new().unwrap();
    let table = table(directory.path(), &[("format", "csv")], &["day"]);
    let committables = write(&table, &[rows(0, 30)]).await;
    let files: Vec<_> = committables.iter().map(|c| name::PendingFile::of_committable(c).unwrap()).collect();
    assert_eq!(files.iter().map(|f| f.rows).sum::<u64>(), 30);
    // The crash came after the first rename.
    let (temporary, path) = (directory.path().join(&files[0].temporary), directory.path().join(&files[0].path));
    assert_eq!(crc32c::crc32c(&fs::read(&temporary).unwrap()), files[0].crc32c);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::rename(&temporary, &path).unwrap();
    for _ in 0..3 {
        committer(&table).commit(Epoch(1), &committables).await.unwrap();
        assert_eq!(visible(directory.path()).len(), 3);
    }
    // Both names, as a file system may show them after a power failure.
    fs::create_dir_all(temporary.parent().unwrap()).unwrap();
    fs::copy(&path, &temporary).unwrap();
    committer(&table).commit(Epoch(1), &committables).await.unwrap();
    assert!(!temporary.exists() && path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_coordinators_may_publish_the_same_at_once() {
    for _ in 0..20 {
        let directory = TempDir::new().unwrap();
        let table = table(directory.path(), &[("format", "csv")], &["id"]);
        let committables = write(&table, &[rows(0, 60)]).await;
        let publish = || {
            let (mut committer, committables) = (committer(&table), committables.clone());
            tokio::spawn(async move { committer.commit(Epoch(1), &committables).await })
        };
        let (one, other) = (publish(), publish());
        one.await.unwrap().unwrap();
        other.await.unwrap().unwrap();
        assert_eq!(visible(directory.path()).len(), 60);
    }
}

#[tokio::test]
async fn what_was_changed_from_outside_is_reported() {
    let directory = TempDir::new().unwrap();
    let table = table(directory.path(), &[("format", "csv")], &[]);
    let committables = write(&table, &[rows(0, 30)]).await;
    let file = name::PendingFile::of_committable(&committables[0]).unwrap();
    let (temporary, path) = (directory.path().join(&file.temporary), directory.path().join(&file.path));
    // A file of an earlier job stands in the way.
    fs::write(&path, "other").unwrap();
    let error = committer(&table).commit(Epoch(1), &committables).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(error.message.contains("another file has that name"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "other", "it is not overwritten");
    fs::remove_file(&path).unwrap();
    // The temporary file was cut.
    fs::File::options().write(true).open(&temporary).unwrap().set_len(3).unwrap();
    let error = committer(&table).commit(Epoch(1), &committables).await.unwrap_err();
    assert!(error.kind == ErrorKind::Lost && error.message.contains("3 bytes instead of"), "{error}");
    // And is gone.
    fs::remove_file(&temporary).unwrap();
    let error = committer(&table).commit(Epoch(1), &committables).await.unwrap_err();
    assert!(error.kind == ErrorKind::Lost && error.message.contains("part-job-1-op4-g1-0-1-0.csv"), "{error}");
}

#[tokio::test]
async fn clean_up_removes_only_what_earlier_attempts_left() {
    let directory = TempDir::new().unwrap();
    let table = table(directory.path(), &[("format", "json")], &[]);
    let done = write(&table, &[rows(0, 5)]).await;
    committer(&table).commit(Epoch(1), &done).await.unwrap();
    // Attempt 1 dies in its second epoch; attempt 2 begins; another job works beside them.
    let mut first = sink(&table).unwrap().writer(context(1, 1));
    first.write(&rows(5, 5), None).await.unwrap();
    drop(first);
    let mut second = sink(&table).unwrap().writer(context(2, 0));
    second.write(&rows(5, 5), None).await.unwrap();
    let temporary = directory.path().join(TEMPORARY);
    for foreign in ["job-10-op4-g1-0-0.tmp", "job-1-op5-g1-0-0.tmp", "note"] {
        fs::write(temporary.join(foreign), "x").unwrap();
    }
    committer(&table).clean_up(Generation(0)..Generation(2)).await.unwrap();
    let mut left: Vec<_> =
        fs::read_dir(&temporary).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["job-1-op4-g2-0-0.tmp", "job-1-op5-g1-0-0.tmp", "job-10-op4-g1-0-0.tmp", "note"]);
    // Attempt 2 lives on.
    let files = second.seal(Epoch(2)).await.unwrap().await.unwrap();
    committer(&table).commit(Epoch(2), &files).await.unwrap();
    assert_eq!(visible(directory.path()), ["part-job-1-op4-g1-0-1-0.json", "part-job-1-op4-g2-0-2-0.json"]);
    // What is newer than a savepoint, and nothing of a job from which this one went on.
    let (later, count) = committer(&table).visible_after(&job(), Epoch(1)).await.unwrap();
    assert!(count == 1 && later[0].ends_with("part-job-1-op4-g2-0-2-0.json"), "{later:?}");
    assert_eq!(committer(&table).visible_after(&job(), Epoch(2)).await.unwrap(), (vec![], 0));
    fs::create_dir_all(&temporary).unwrap();
    for generation in [4, 5, 6] {
        fs::write(temporary.join(format!("job-1-op4-g{generation}-0-0.tmp")), "x").unwrap();
    }
    committer(&table).clean_up(Generation(5)..Generation(6)).await.unwrap();
    let left = ["job-1-op4-g4-0-0.tmp", "job-1-op4-g6-0-0.tmp"];
    assert!(left.iter().all(|name| temporary.join(name).exists()));
    assert!(!temporary.join("job-1-op4-g5-0-0.tmp").exists());
    // A directory that is not there is clean.
    let absent = self::table(&directory.path().join("absent"), &[("format", "json")], &[]);
    committer(&absent).clean_up(Generation(0)..Generation(2)).await.unwrap();
}

#[tokio::test]
async fn epochs_do_not_mix_and_empty_ones_make_no_files() {
    let directory = TempDir::new().unwrap();
    let table = table(directory.path(), &[("format", "csv"), ("csv.null-literal", "-")], &[]);
    let mut writer = sink(&table).unwrap().writer(context(1, 0));
    assert_eq!(writer.seal(Epoch(1)).await.unwrap().await.unwrap(), vec![]);
    writer.write(&rows(0, 3), None).await.unwrap();
    let second = writer.seal(Epoch(2)).await.unwrap();
    // Rows of the next epoch come before the files of this one are durable.
    writer.write(&rows(3, 2), None).await.unwrap();
    let second = second.await.unwrap();
    let third = writer.seal(Epoch(3)).await.unwrap().await.unwrap();
    let mut committer = committer(&table);
    committer.commit(Epoch(1), &[]).await.unwrap();
    committer.commit(Epoch(2), &second).await.unwrap();
    committer.commit(Epoch(3), &third).await.unwrap();
    assert_eq!(visible(directory.path()), ["part-job-1-op4-g1-0-2-0.csv", "part-job-1-op4-g1-0-3-0.csv"]);
    assert!(read_back(&table).await == rows(0, 5));
}

#[tokio::test]
async fn large_epochs_and_many_partitions_are_bounded() {
    let directory = TempDir::new().unwrap();
    let options = [("format", "csv"), ("csv.null-literal", "-"), ("sink.rolling-policy.file-size", "64 kb")];
    let table = table(directory.path(), &options, &[]);
    let committables = write(&table, &(0..10).map(|i| rows(i * 1000, 1000)).collect::<Vec<_>>()).await;
    assert!(committables.len() > 3, "{}", committables.len());
    committer(&table).commit(Epoch(1), &committables).await.unwrap();
    assert!(read_back(&table).await == rows(0, 10_000));

    let directory = TempDir::new().unwrap();
    let table = self::table(directory.path(), &[("format", "parquet")], &["id"]);
    let committables = write(&table, &[rows(0, 150), rows(0, 150)]).await;
    // 64 files are open at once, so the second round finds none of its partitions open.
    assert_eq!(committables.len(), 300);
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_reported() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let mut writer = sink(&table(&path, &[("format", "json")], &[])).unwrap().writer(context(1, 0));
        let error = writer.write(&rows(0, 1), None).await.unwrap_err();
        assert!(error.kind == ErrorKind::External && error.message.contains("choose another 'path'"), "{error}");
    }
    // Two runs under one name.
    let table = table(&directory.path().join("out"), &[("format", "json")], &[]);
    let mut writers = [sink(&table).unwrap().writer(context(1, 0)), sink(&table).unwrap().writer(context(1, 0))];
    writers[0].write(&rows(0, 1), None).await.unwrap();
    let error = writers[1].write(&rows(0, 1), None).await.unwrap_err();
    assert!(error.kind == ErrorKind::External && error.message.contains("same name"), "{error}");
}

#[tokio::test]
async fn a_null_in_a_not_null_column_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut table = table(directory.path(), &[("format", "json")], &[]);
    let fields = table.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(f.name() != "flag"));
    table.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let error = sink(&table).unwrap().writer(context(1, 0)).write(&rows(0, 6), None).await.unwrap_err();
    assert!(error.kind == ErrorKind::Data && error.message.contains("flag"), "{error}");
}

#[test]
fn options_are_checked() {
    let refused = |options: &[(&str, &str)], keys: &[&str], part: &str| {
        let error = sink(&table(Path::new("/out"), options, keys)).err().expect("an error");
        assert_eq!(error.kind, ErrorKind::Option);
        assert!(error.message.contains(part), "{error}");
    };
    refused(&[], &[], "'format'");
    refused(&[("format", "xml")], &[], "json, csv, parquet, debezium-json, upsert-json");
    refused(&[("format", "json"), ("compression", "lz4")], &[], "gzip");
    refused(&[("format", "json"), ("sink.rolling-policy.file-size", "1")], &[], "at least");
    refused(&[("format", "json"), ("csv.header", "true")], &[], "unknown option 'csv.header'");
    refused(&[("format", "json")], &["nothing"], "'nothing'");
    refused(
        &[("format", "json")],
        &["id", "day", "text", "flag", "double", "price", "at", "instant"],
        "no columns besides",
    );
    refused(&[("format", "json"), ("auto-compaction", "true")], &[], "not supported");
    let sink = sink(&table(Path::new("/out"), &[("format", "json"), ("source.monitor-interval", "1 s")], &[])).unwrap();
    assert_eq!(sink.strongest_delivery().0, Delivery::ExactlyOnce);
}
