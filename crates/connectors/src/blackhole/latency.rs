//! How long rows were on their way: from the time that a column of theirs says to their arrival at the sink. Counted by
//! the millisecond and written to a file where an epoch ends, for `benches/latency.py`.

use std::path::PathBuf;

use arrow::array::{Array, AsArray, Int8Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use mainstem_core::change::ChangeKind;
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, SystemClock, run_blocking};
use serde::Serialize;

use crate::error::ConnectorError;
use crate::sink::WriterContext;
use crate::table::Options;

/// Rows that took so long (ms) or longer are counted together.
const MS_MAX: usize = 60_000;

/// `latency.column` and `latency.report`.
#[derive(Clone, Debug)]
pub(super) struct LatencyOptions {
    column: usize,
    report: PathBuf,
}

impl LatencyOptions {
    /// Reads the options; none where nothing is to be measured.
    pub(super) fn read(options: &mut Options<'_>) -> Result<Option<LatencyOptions>, ConnectorError> {
        let (column, report) = (options.get("latency.column"), options.get("latency.report"));
        let (column, report) = match (column, report) {
            (None, None) => return Ok(None),
            (Some(column), Some(report)) => (column, report),
            _ => {
                let message = "options 'latency.column' and 'latency.report' belong together: the time at which a row came \
                               to be, and the file that says how long rows were on their way";
                return Err(ConnectorError::option(message));
            }
        };
        let schema = &options.table().schema;
        let found = schema.index_of(column).ok();
        let found = found.filter(|column| matches!(schema.field(*column).data_type(), DataType::Timestamp(..)));
        let column = found.ok_or_else(|| {
            ConnectorError::option(format!(
                "option 'latency.column' names '{column}', which is no column of type TIMESTAMP"
            ))
        })?;
        Ok(Some(LatencyOptions { column, report: PathBuf::from(report) }))
    }
}

/// What one writer has seen.
pub(super) struct Latencies {
    column: usize,
    report: PathBuf,
    clock: SystemClock,
    /// Rows by milliseconds.
    rows: Vec<u64>,
}

/// The counts as of the end of an epoch.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    path: PathBuf,
    /// Rows that took so many milliseconds: pairs.
    milliseconds: Vec<(usize, u64)>,
}

impl Latencies {
    /// Nothing yet.
    pub(super) fn new(options: &LatencyOptions, ctx: &WriterContext) -> Latencies {
        let mut report = ctx.working_dir.join(&options.report).into_os_string();
        report.push(format!(".{}", ctx.subtask));
        let report = PathBuf::from(report);
        Latencies { column: options.column, report, clock: SystemClock::new(), rows: Vec::new() }
    }

    /// Counts rows that arrive now; not those that are taken away.
    pub(super) fn take(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        let now = self.clock.now();
        let failed = |error| ConnectorError::data(format!("the times of 'latency.column' cannot be read: {error}"));
        let times =
            cast(rows.column(self.column), &DataType::Timestamp(TimeUnit::Millisecond, None)).map_err(failed)?;
        let times = cast(&times, &DataType::Int64).map_err(failed)?;
        let times = times.as_primitive::<Int64Type>();
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let kind = changes.map_or(ChangeKind::Insert as i8, |changes| changes.value(row));
            if kind != ChangeKind::Insert as i8 && kind != ChangeKind::UpdateAfter as i8 {
                continue;
            }
            let ms = usize::try_from(now.since_ms(Timestamp(times.value(row)))).unwrap_or(0).min(MS_MAX);
            if self.rows.len() <= ms {
                self.rows.resize(ms + 1, 0);
            }
            self.rows[ms] += 1;
        }
        Ok(())
    }

    /// The counts so far.
    pub(super) fn report(&self) -> Report {
        let counted = self.rows.iter().copied().enumerate().filter(|(_, rows)| *rows > 0);
        Report { path: self.report.clone(), milliseconds: counted.collect() }
    }
}

impl Report {
    /// Puts it in the place of the one before.
    pub(super) async fn write(self) -> Result<(), ConnectorError> {
        let path = self.path.clone();
        let text = serde_json::to_string(&self).expect("numbers");
        let written = run_blocking(move || std::fs::write(&self.path, text)).await;
        let written = written.map_err(std::io::Error::other).and_then(|written| written);
        written.map_err(|error| ConnectorError::io("write the latencies to", path.display(), &error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::{Field, Schema};
    use mainstem_core::change::ChangeMode;
    use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};

    use super::super::sink;
    use super::*;
    use crate::staging::Staging;
    use crate::table::TableSpec;

    fn table(options: &[(&str, &str)]) -> TableSpec {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        TableSpec {
            name: "t".to_owned(),
            schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("ts", time, true)])),
            primary_key: vec![],
            partition_keys: vec![],
            options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn what_is_measured_is_a_time_and_has_a_file() {
        for (options, part) in [
            (vec![("latency.column", "ts")], "belong together"),
            (vec![("latency.report", "f")], "belong together"),
            (vec![("latency.column", "n"), ("latency.report", "f")], "TIMESTAMP"),
            (vec![("latency.column", "x"), ("latency.report", "f")], "TIMESTAMP"),
            (vec![("latency", "x")], "latency"),
        ] {
            let error = sink(&table(&options)).err().expect("refused");
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn rows_are_counted_by_how_long_they_took() {
        let directory = tempfile::tempdir().unwrap();
        let table = table(&[("latency.column", "ts"), ("latency.report", "report")]);
        let mut writer = sink(&table).unwrap().writer(WriterContext {
            job: JobId::new("j").unwrap(),
            operator: OperatorId(3),
            subtask: 1,
            generation: Generation(1),
            working_dir: directory.path().to_owned(),
            changes: ChangeMode::Retract,
            staging: Staging::nowhere(),
        });
        // Some time from the future, one from long ago twice, one that is none, one of a row that goes.
        let now = SystemClock::new().now().0;
        let times = [Some(now + 3_600_000), Some(now - 3_600_000), Some(0), None, Some(0)];
        let numbers = Arc::new(arrow::array::Int64Array::from(vec![0; 5]));
        let columns: Vec<arrow::array::ArrayRef> =
            vec![numbers, Arc::new(TimestampMillisecondArray::from(times.to_vec()))];
        let rows = RecordBatch::try_new(table.schema.clone(), columns).unwrap();
        let kinds =
            [ChangeKind::Insert, ChangeKind::UpdateAfter, ChangeKind::Insert, ChangeKind::Insert, ChangeKind::Delete];
        let kinds = Int8Array::from(kinds.map(|kind| kind as i8).to_vec());
        writer.write(&rows, Some(&kinds)).await.unwrap();
        writer.seal(Epoch(1)).await.unwrap().await.unwrap();
        writer.write(&rows.slice(1, 1), None).await.unwrap();
        writer.seal(Epoch(2)).await.unwrap().await.unwrap();
        let report = std::fs::read_to_string(directory.path().join("report.1")).unwrap();
        assert_eq!(report, r#"{"milliseconds":[[0,1],[60000,3]]}"#);
    }
}
