//! What a barrier has overtaken, as rows of a state file: one table a channel, in which the rows stand in their order.
//! Read back by the subtask that has the same place in the next attempt.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema};
use arrow::error::ArrowError;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::SubtaskId;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_state::TableDelta;

use crate::deploy::Deployment;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::exchange::{ChannelPlace, InFlightChannel, InputGate};

/// Version of the layout: the columns of the rows, then kind of change and own watermark.
const VERSION: u32 = 1;
/// Rows of a batch that is fed back.
const BATCH_ROWS: usize = 8192;

/// The file's tables. `key_groups` are those of the subtask; which of them a row is filed under means nothing.
pub(crate) fn tables(channels: &[InFlightChannel], key_groups: KeyGroupRange) -> Result<Vec<TableDelta>, EngineError> {
    let with_rows = channels.iter().filter(|channel| !channel.batches.is_empty());
    let table = |channel: &InFlightChannel| {
        let rows = channel.batches.iter().map(to_rows).collect::<Result<Vec<_>, _>>()?;
        let rows = compute::concat_batches(rows[0].schema_ref(), &rows)?;
        let ChannelPlace { edge, sender } = channel.place;
        let key_groups = vec![key_groups.start; rows.num_rows()];
        Ok(TableDelta { table: format!("{edge}-{sender}"), version: VERSION, key: Vec::new(), key_groups, rows })
    };
    with_rows.map(table).collect::<Result<_, _>>().map_err(|e| EngineError::arrow("exchange", &e))
}

/// Puts what was in flight to a subtask before everything that its channels bring.
pub(crate) async fn resume(
    deployment: &Deployment,
    gate: &mut InputGate,
    subtask: SubtaskId,
) -> Result<(), EngineError> {
    for handle in deployment.in_flight_of(subtask) {
        for table in deployment.read_state(subtask.operator, handle).await? {
            if table.version != VERSION {
                let (path, found, known) = (handle.path.clone(), table.version, VERSION);
                return Err(EngineError::OtherVersion { path, table: table.table, found, known });
            }
            let unknown = || EngineError::Bug(format!("{}: there is no channel '{}'", handle.path, table.table));
            let batches = to_batches(&table.rows).map_err(|e| EngineError::arrow("exchange", &e))?;
            if !gate.resume(place_of(&table.table).ok_or_else(unknown)?, batches) {
                return Err(unknown());
            }
        }
    }
    Ok(())
}

fn place_of(table: &str) -> Option<ChannelPlace> {
    let (edge, sender) = table.split_once('-')?;
    Some(ChannelPlace { edge: edge.parse().ok()?, sender: sender.parse().ok()? })
}

/// The rows with what stands beside them as two more columns. The own watermark is null where a batch has none.
pub(crate) fn to_rows(batch: &StreamBatch) -> Result<RecordBatch, ArrowError> {
    let count = batch.rows.num_rows();
    let schema = batch.rows.schema();
    let beside = [Field::new("kind", DataType::Int8, false), Field::new("own_watermark", DataType::Int64, true)];
    let fields = schema.fields().iter().cloned().chain(beside.map(Arc::new));
    let kinds = batch.changes.clone().unwrap_or_else(|| Int8Array::from_value(ChangeKind::Insert as i8, count));
    let own_watermark = batch.own_watermark.clone().unwrap_or_else(|| Int64Array::new_null(count));
    let mut columns = batch.rows.columns().to_vec();
    columns.extend([Arc::new(kinds) as ArrayRef, Arc::new(own_watermark)]);
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}

/// The batches again: where a row has an own watermark, all of its batch have one.
pub(crate) fn to_batches(stored: &RecordBatch) -> Result<Vec<StreamBatch>, ArrowError> {
    let width = stored.num_columns().saturating_sub(2);
    let (Some(kinds), Some(watermarks)) = (
        stored.columns().get(width).and_then(|column| column.as_primitive_opt::<Int8Type>()),
        stored.columns().get(width + 1).and_then(|column| column.as_primitive_opt::<Int64Type>()),
    ) else {
        return Err(ArrowError::SchemaError("rows in flight have other columns".to_owned()));
    };
    let schema = Arc::new(stored.schema().project(&(0..width).collect::<Vec<_>>())?);
    let mut batches = Vec::new();
    let mut from = 0;
    while from < stored.num_rows() {
        let has_none = watermarks.is_null(from);
        let rows = (from..stored.num_rows()).take(BATCH_ROWS).take_while(|row| watermarks.is_null(*row) == has_none);
        let rows = rows.count();
        let columns = stored.columns()[..width].iter().map(|column| column.slice(from, rows)).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &count)?;
        batches.push(StreamBatch {
            own_watermark: (!has_none).then(|| watermarks.slice(from, rows)),
            ..StreamBatch::changelog(batch, kinds.slice(from, rows))
        });
        from += rows;
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn batch(from: i64, rows: i64) -> StreamBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        let texts: ArrayRef = Arc::new(StringArray::from_iter((0..rows).map(|n| (n % 3 > 0).then(|| "x".repeat(9)))));
        StreamBatch::on_time(
            RecordBatch::try_from_iter_with_nullable([("n", numbers, false), ("n", texts, true)]).unwrap(),
        )
    }

    #[test]
    fn batches_come_back_in_their_order_with_what_stands_beside_them() {
        let changed = StreamBatch::changelog(batch(10, 5).rows, Int8Array::from(vec![0, 1, 2, 3, 0]));
        let late = StreamBatch { own_watermark: Some((0..4_i64).collect()), ..batch(15, 4) };
        let place = ChannelPlace { edge: 3, sender: 7 };
        let batches = vec![batch(0, 10), changed.clone(), late, batch(19, 20_000)];
        let empty = InFlightChannel { place: ChannelPlace { edge: 4, sender: 0 }, batches: Vec::new() };
        let range = KeyGroupRange { start: 5, end: 9 };
        let tables = tables(&[empty, InFlightChannel { place, batches }], range).unwrap();
        let [table] = tables.as_slice() else { panic!("{}", tables.len()) };
        assert_eq!((place_of(&table.table), table.key_groups[0]), (Some(place), 5));
        let back = to_batches(&table.rows).unwrap();
        let numbers = back.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec());
        assert!(numbers.eq(0..20_019));
        assert_eq!(back[0].rows.schema(), changed.rows.schema());
        let changes = back[0].changes.as_ref().unwrap().values();
        assert_eq!((back[0].rows.num_rows(), &changes[..11], &changes[11..]), (15, &[0; 11][..], &[1, 2, 3, 0][..]));
        assert!(back[0].own_watermark.is_none());
        let own_watermark = back[1].own_watermark.as_ref().unwrap();
        assert_eq!((own_watermark.null_count(), own_watermark.values().as_ref()), (0, &[0, 1, 2, 3][..]));
        assert!(back[2..].iter().all(|b| b.changes.is_none() && b.own_watermark.is_none()));
    }

    #[test]
    fn rows_without_columns_keep_their_number() {
        let count = RecordBatchOptions::new().with_row_count(Some(42));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &count).unwrap();
        let back = to_batches(&to_rows(&StreamBatch::on_time(rows)).unwrap()).unwrap();
        assert_eq!((back.len(), back[0].rows.num_rows(), back[0].rows.num_columns()), (1, 42, 0));
    }

    #[test]
    fn other_columns_are_refused() {
        assert!(to_batches(&batch(0, 3).rows).is_err());
    }
}
