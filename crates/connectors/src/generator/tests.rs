//! Tests of how numbers are dealt out and paced.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;

use super::*;

/// Gives the numbers themselves.
struct Numbers;

impl RowGenerator for Numbers {
    fn generate(&mut self, cursor: &mut Cursor, rows: usize) -> Result<RecordBatch, ConnectorError> {
        let mut numbers = Vec::new();
        while numbers.len() < rows {
            let run = cursor.run();
            if run.is_empty() {
                break;
            }
            let end = run.end.min(run.start + (rows - numbers.len()) as u64);
            numbers.extend(run.start..end);
            cursor.advance_to(end);
        }
        let column: ArrayRef = Arc::new(UInt64Array::from(numbers));
        Ok(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }
}

fn schedule(end: Option<u64>, pace_per_second: Option<u64>, splits: Option<u32>) -> Schedule {
    Schedule { end, pace_per_second, due_from_ms: None, splits }
}

async fn drain(reader: &mut GeneratorReader<Numbers>) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        if let ReaderEvent::Batch { rows, .. } = event {
            all.extend(rows.column(0).as_primitive::<UInt64Type>().values());
        }
    }
    all
}

#[tokio::test]
async fn splits_share_all_numbers_and_advance_together() {
    let schedule = schedule(Some(12_345), None, Some(3));
    let splits = schedule.enumerator(1).discover().await.unwrap();
    assert_eq!(splits.len(), 3);
    assert_eq!(splits, schedule.enumerator(1).discover().await.unwrap());
    let mut reader = GeneratorReader::new(Numbers, schedule, 700);
    for split in splits {
        reader.add_split(split, None).unwrap();
    }
    let mut all = drain(&mut reader).await;
    let disorder =
        all.iter().scan(0, |high, n| (*high < *n).then(|| *high = *n).map_or(Some(*high - n), |()| Some(0))).max();
    assert!(disorder.unwrap() <= 3 * BLOCK_MAX, "{disorder:?}");
    all.sort_unstable();
    assert_eq!(all, (0..12_345).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_goes_on_where_it_was_given() {
    let schedule = schedule(Some(5_000), None, Some(2));
    let splits = schedule.enumerator(1).discover().await.unwrap();
    let mut reader = GeneratorReader::new(Numbers, schedule.clone(), 300);
    reader.add_split(splits[1].clone(), None).unwrap();
    let Some(ReaderEvent::Batch { position, rows, .. }) = reader.next().await.unwrap() else { panic!("a batch") };
    assert_eq!((rows.num_rows(), position.as_str()), (300, "1300"));
    let mut resumed = GeneratorReader::new(Numbers, schedule.clone(), 300);
    resumed.add_split(splits[1].clone(), Some(position)).unwrap();
    assert_eq!(drain(&mut resumed).await, drain(&mut reader).await);
    assert!(reader.next().await.unwrap().is_none());
    let mut replay = GeneratorReader::new(Numbers, schedule.clone(), 300);
    replay.add_split_until(splits[1].clone(), Some("1300".to_owned()), "3500".to_owned()).unwrap();
    assert_eq!(drain(&mut replay).await, (1300..2000).chain(3000..3500).collect::<Vec<_>>());
    assert!(replay.add_split_until(splits[1].clone(), None, "?".to_owned()).is_err());
    for bad in ["x", "-1", "99999999999999999999"] {
        let error = resumed.add_split(splits[0].clone(), Some(bad.to_owned())).unwrap_err();
        assert!(error.message.contains("position"), "{error}");
    }
    let broken = SourceSplit { payload: r#"{"index":2,"splits":2,"block":0}"#.to_owned(), ..splits[0].clone() };
    assert!(resumed.add_split(broken, None).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_paced_reader_keeps_to_the_clock() {
    let schedule = schedule(Some(500), Some(100), Some(1));
    let split = schedule.enumerator(1).discover().await.unwrap().remove(0);
    let mut reader = GeneratorReader::new(Numbers, schedule, 1000);
    reader.add_split(split, None).unwrap();
    let start = Instant::now();
    assert_eq!(drain(&mut reader).await.len(), 500);
    let seconds = start.elapsed().as_secs_f64();
    assert!((4.9..5.2).contains(&seconds), "{seconds}");
}

#[test]
fn rows_can_be_due_by_the_clock() {
    let known = Instant::now();
    let due = |late_ms: i128, after_ms: u64| {
        let pace = Pace { known, late_us: late_ms * 1000, first: 0, per_second: 100 };
        pace.due(known + Duration::from_millis(after_ms))
    };
    assert_eq!([due(-20, 0), due(-20, 19), due(-20, 20), due(-20, 30)], [0, 0, 1, 2]);
    assert_eq!([due(0, 0), due(3_600_000, 10)], [1, 360_002]);
}

#[tokio::test(start_paused = true)]
async fn rows_whose_time_has_passed_come_at_once() {
    let due_from_ms = Some(SystemClock::new().now().0 - 3_600_000);
    let schedule = Schedule { due_from_ms, ..schedule(Some(500), Some(100), Some(1)) };
    let split = schedule.enumerator(1).discover().await.unwrap().remove(0);
    let mut reader = GeneratorReader::new(Numbers, schedule, 1000);
    reader.add_split(split, None).unwrap();
    let start = Instant::now();
    assert_eq!(drain(&mut reader).await.len(), 500);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_never_keeps_its_caller_waiting() {
    let schedule = schedule(None, Some(1), Some(1));
    let split = schedule.enumerator(1).discover().await.unwrap().remove(0);
    let mut reader = GeneratorReader::new(Numbers, schedule, 1000);
    reader.add_split(split, None).unwrap();
    let mut rows = 0;
    for _ in 0..10 {
        let before = Instant::now();
        let Some(ReaderEvent::Batch { rows: batch, position, .. }) = reader.next().await.unwrap() else {
            panic!("a batch")
        };
        rows += batch.num_rows();
        assert_eq!(position, rows.to_string());
        assert!(before.elapsed() <= Duration::from_millis(PACE_WAIT_MS_MAX + 5));
    }
    assert!(rows <= 2, "{rows}");
}
