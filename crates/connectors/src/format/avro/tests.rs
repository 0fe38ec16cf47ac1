//! Tests of Avro: against arrow-avro, which reads and writes by itself; schemas that differ; records that are wrong.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, ListArray, MapBuilder, StringArray, StringBuilder, StructArray,
    Time32MillisecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema as OtherSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};

use super::*;
use crate::format::encode::TextEncoder;

fn timestamp(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, None)
}

/// Rows of all types, of which the second is NULL wherever it can be.
fn rows() -> RecordBatch {
    let parts = vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, false)];
    let row = StructArray::new(
        parts.clone().into(),
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, None])) as ArrayRef,
            Arc::new(StringArray::from(vec!["a", "", "c"])),
        ],
        Some(vec![true, false, true].into()),
    );
    let list =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None, Some(-3)]), None, Some(vec![])]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k");
    map.values().append_value("v");
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.append(true).unwrap();
    let map = map.finish();
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), true),
        ("small", Arc::new(Int16Array::from(vec![-7, 0, i16::MAX])), false),
        ("number", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(5)])), true),
        ("big", Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])), false),
        ("single", Arc::new(Float32Array::from(vec![Some(1.5), None, Some(-0.0)])), true),
        ("double", Arc::new(Float64Array::from(vec![Some(1e300), None, Some(f64::NAN)])), true),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![Some(-12_345), None, Some(99_999_999)])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            true,
        ),
        ("text", Arc::new(StringArray::from(vec![Some("schön"), None, Some("")])), true),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\xff\0"[..]), None, Some(b"")])), true),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)])), true),
        ("time", Arc::new(Time32MillisecondArray::from(vec![Some(1), None, Some(86_399_999)])), true),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None, Some(1_700_000_000_123)])), true),
        ("exact", Arc::new(TimestampMicrosecondArray::from(vec![1, 0, -1_700_000_000_123_456])), false),
        ("row", Arc::new(row), true),
        ("list", Arc::new(list), true),
        ("map", Arc::new(map), true),
    ];
    let fields = columns.iter().map(|(name, array, nullable)| Field::new(*name, array.data_type().clone(), *nullable));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, array, _)| array).collect()).unwrap()
}

fn encode(rows: &RecordBatch, options: &AvroOptions, id: Option<i32>) -> Vec<Vec<u8>> {
    let mut encoder = options.encoder(rows.schema_ref().fields()).unwrap();
    if let Some(id) = id {
        encoder.registered(id);
    }
    let (mut out, mut start, mut records) = (Vec::new(), 0, Vec::new());
    encoder.encode_each(rows, None, &mut out, &mut |_, end| records.push(end)).unwrap();
    records.into_iter().map(|end| out[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

fn decoder(schema: &SchemaRef) -> AvroDecoder {
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    AvroDecoder::new(schema, &columns, &AvroOptions::default()).unwrap()
}

/// A decoder of a table that reads records of another schema.
fn reading(schema: &SchemaRef, writer: &str, own: Option<&str>) -> Result<(AvroDecoder, Vec<String>), String> {
    let writer = Arc::new(AvroSchema::parse(writer, &[])?);
    let own = own.map(|own| AvroSchema::parse(own, &[])).transpose()?;
    let options = AvroOptions::default();
    let (plan, notes) = RecordPlan::new(writer, own.as_ref(), schema.fields(), &options)?;
    Ok((AvroDecoder { plain: Some(plan), ..decoder(schema) }, notes))
}

fn decode_all(decoder: &mut AvroDecoder, records: &[Vec<u8>]) -> RecordBatch {
    let rows: usize = records.iter().map(|record| decoder.decode(record).unwrap()).sum();
    decoder.finish(rows).unwrap()
}

#[test]
fn rows_come_back_and_any_column_can_be_left_out() {
    let rows = rows();
    let records = encode(&rows, &AvroOptions::default(), None);
    assert_eq!(decode_all(&mut decoder(&rows.schema()), &records), rows);
    for columns in [vec![], vec![3], vec![1, 13, 15]] {
        let mut decoder = AvroDecoder::new(&rows.schema(), &columns, &AvroOptions::default()).unwrap();
        assert_eq!(decode_all(&mut decoder, &records), rows.project(&columns).unwrap());
    }
}

#[test]
fn another_reader_understands_what_is_written() {
    let rows = rows();
    let options = AvroOptions::default();
    let schema = options.written_schema(rows.schema_ref().fields()).unwrap();
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(258), OtherSchema::new(schema)).unwrap();
    let mut other = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(100).build_decoder().unwrap();
    for record in encode(&rows, &options, Some(258)) {
        assert_eq!(other.decode(&record).unwrap(), record.len());
    }
    let read = other.flush().unwrap().unwrap();
    assert_eq!(read.num_columns(), rows.num_columns());
    for (index, field) in rows.schema().fields().iter().enumerate() {
        // It has no small integers, names the entries of maps otherwise, and puts times into UTC.
        let as_ours = arrow::compute::cast(read.column(index), field.data_type()).unwrap();
        assert_eq!(&as_ours, rows.column(index), "{}", field.name());
    }
}

#[test]
fn what_another_writer_writes_is_read() {
    use arrow_avro::writer::{WriterBuilder, format::AvroBinaryFormat};
    let rows = rows();
    // Not those that it writes as something else.
    let kept: Vec<usize> = (0..rows.num_columns())
        .filter(|&i| !matches!(rows.schema().field(i).name().as_str(), "small" | "map"))
        .collect();
    let rows = rows.project(&kept).unwrap();
    let text = AvroOptions::default().written_schema(rows.schema_ref().fields()).unwrap();
    let metadata = HashMap::from([(arrow_avro::schema::SCHEMA_METADATA_KEY.to_owned(), text)]);
    let ours = rows.schema();
    let utc = ours.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(unit, None) => {
            field.as_ref().clone().with_data_type(DataType::Timestamp(*unit, Some("+00:00".into())))
        }
        _ => field.as_ref().clone(),
    });
    let theirs = Schema::new_with_metadata(utc.collect::<Vec<_>>(), metadata);
    let columns = rows.columns().iter().zip(theirs.fields());
    let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).unwrap());
    let given = RecordBatch::try_new(Arc::new(theirs.clone()), columns.collect()).unwrap();
    let mut writer = WriterBuilder::new(theirs).build_encoder::<AvroBinaryFormat>().unwrap();
    writer.encode(&given).unwrap();
    let records: Vec<Vec<u8>> = writer.flush().iter().map(|record| record.to_vec()).collect();
    assert_eq!(decode_all(&mut decoder(&rows.schema()), &records), rows);
}

#[test]
fn schemas_that_differ_are_adapted_or_refused_with_all_reasons() {
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    let table = Arc::new(Schema::new(vec![
        field("a", DataType::Int64, false),
        field("b", DataType::Utf8, true),
        field("c", DataType::Float64, true),
        field("d", timestamp(TimeUnit::Millisecond), true),
    ]));
    let writer = r#"{"type":"record","name":"r","fields":[
        {"name":"more","type":{"type":"map","values":{"type":"array","items":["null","string"]}}},
        {"name":"a","type":"int"},
        {"name":"c","type":["float","null","string"]},
        {"name":"d","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;
    let (mut decoder, notes) = reading(&table, writer, None).unwrap();
    assert_eq!(
        notes,
        [
            "the field 'more' is no column and is ignored",
            "'a' is written as int and read as BIGINT",
            "'c' is written as float and read as DOUBLE",
            "the column 'b' is not in it and reads as NULL",
        ]
    );
    // A map with a block of one entry, whose value is an array; a is 4, c is 1.5, d is -1 µs.
    let record = [&[2, 2, b'k', 2, 2, 2, b'v', 0, 0, 8, 0][..], &1.5_f32.to_le_bytes(), &[1]].concat();
    let rows = decode_all(&mut decoder, std::slice::from_ref(&record));
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), 4);
    assert!(rows.column(1).is_null(0));
    assert_eq!(rows.column(3).as_primitive::<arrow::datatypes::TimestampMillisecondType>().value(0), -1);
    // The third branch of c fits nothing, which shows with the record that has it.
    let fault = decoder.decode(&[0, 8, 4, 2, b'x', 1]).unwrap_err();
    assert_eq!(fault.describe(), "column 'c': it is written as string, which does not fit DOUBLE");

    let wrong = r#"{"type":"record","name":"r","fields":[
        {"name":"b","type":"long"},{"name":"c","type":"string"},{"name":"d","type":"long"}]}"#;
    let reasons = reading(&table, wrong, None).err().unwrap();
    assert_eq!(
        reasons,
        "column 'b': it is written as long, which does not fit STRING; \
         column 'c': it is written as string, which does not fit DOUBLE; \
         column 'd': it is written as long, which does not fit TIMESTAMP(3); declare it as the number that it is and convert it in the query; \
         column 'a': it is NOT NULL and not in the schema; declare it without NOT NULL"
    );
    assert!(reading(&table, "\"int\"", None).err().unwrap().contains("rows need a record"));
}

#[test]
fn the_own_schema_has_defaults() {
    let table = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, false),
        Field::new("b", DataType::Utf8, false),
        Field::new("c", DataType::new_list(DataType::Int32, false), false),
    ]));
    let own = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"},
        {"name":"b","type":"string","default":"none"},{"name":"c","type":{"type":"array","items":"int"},"default":[1,2]}]}"#;
    let writer = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"}]}"#;
    let (mut decoder, notes) = reading(&table, writer, Some(own)).unwrap();
    let rows = decode_all(&mut decoder, &[vec![2], vec![4]]);
    assert_eq!(rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["none", "none"]);
    assert_eq!(rows.column(2).as_list::<i32>().value(1).as_primitive::<Int32Type>().values().to_vec(), [1, 2]);
    assert!(notes.iter().all(|note| note.contains("reads as its default")), "{notes:?}");
    assert!(reading(&table, writer, None).is_err());
}

#[test]
fn broken_records_are_taken_back_whole() {
    let rows = rows();
    let records = encode(&rows, &AvroOptions::default(), None);
    let mut decoder = decoder(&rows.schema());
    let mut good = 0;
    for record in &records {
        for length in 0..record.len() {
            assert!(decoder.decode(&record[..length]).is_err(), "{length}");
            decoder.truncate(good);
        }
        assert!(decoder.decode(&[record, &[0][..]].concat()).unwrap_err().describe().contains("1 bytes come after"));
        decoder.truncate(good);
        good += decoder.decode(record).unwrap();
        // Any byte may be wrong: it is a fault or another row, never a panic.
        for at in 0..record.len() {
            for flip in [1, 0x80, 0xff] {
                let mut wrong = record.clone();
                wrong[at] ^= flip;
                drop(decoder.decode(&wrong));
                decoder.truncate(good);
            }
        }
    }
    assert_eq!(decoder.finish(good).unwrap(), rows);
}

#[test]
fn values_that_do_not_fit_name_their_column() {
    let table = Arc::new(Schema::new(vec![
        Field::new("small", DataType::Int8, true),
        Field::new("money", DataType::Decimal128(4, 2), true),
        Field::new("name", DataType::Utf8, false),
    ]));
    let writer = r#"{"type":"record","name":"r","fields":[{"name":"small","type":"int"},
        {"name":"money","type":{"type":"fixed","size":3,"name":"f","logicalType":"decimal","precision":6,"scale":1}},
        {"name":"name","type":["null","string"]}]}"#;
    let (mut decoder, _) = reading(&table, writer, None).unwrap();
    let record = |small: i64, money: [u8; 3], name: &[u8]| {
        let mut out = Vec::new();
        wire::write_long(small, &mut out);
        out.extend_from_slice(&money);
        out.extend_from_slice(name);
        out
    };
    assert_eq!(decoder.decode(&record(-128, [0xff, 0xff, 0xff], &[2, 2, b'x'])).unwrap(), 1);
    for (record, message) in [
        (record(128, [0; 3], &[2, 0]), "column 'small': the number '128' is out of range for TINYINT"),
        (record(1, [1, 0, 0], &[2, 0]), "column 'money': the number '655360' is out of range for DECIMAL(4, 2)"),
        (record(1, [0; 3], &[0]), "column 'name': NULL in a NOT NULL column"),
        (record(1, [0; 3], &[2, 2, 0xff]), "column 'name': the text is not valid UTF-8"),
        (record(1, [0; 3], &[4]), "column 'name': a value has the branch 2, of 2"),
    ] {
        assert_eq!(decoder.decode(&record).unwrap_err().describe(), message);
        decoder.truncate(1);
    }
    let rows = decoder.finish(1).unwrap();
    assert_eq!(rows.column(1).as_primitive::<arrow::datatypes::Decimal128Type>().value(0), -10);
}

#[test]
fn changes_come_out_of_their_envelope() {
    let fields: Fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)].into();
    let table = Arc::new(Schema::new(fields.clone()));
    let options = AvroOptions { envelope: true, ..AvroOptions::default() };
    // As Debezium writes it: the row's type is named once, the source comes in between.
    let writer = r#"{"type":"record","name":"Envelope","fields":[
        {"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"long"},{"name":"v","type":["null","string"]}]}]},
        {"name":"after","type":["null","Value"]},
        {"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"lsn","type":"long"}]}},
        {"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"]}]}"#;
    let writer = Arc::new(AvroSchema::parse(writer, &[]).unwrap());
    let decoder_of = |options: &AvroOptions, table: &SchemaRef| {
        let (plan, notes) = RecordPlan::new(writer.clone(), None, table.fields(), options).unwrap();
        assert!(notes.is_empty());
        let schema = if options.upsert { nullable_but(table, &options.key) } else { table.clone() };
        let columns = TreeColumn::of_fields(schema.fields()).unwrap();
        AvroDecoder { schema, columns, plain: Some(plan), options: options.clone(), ..decoder(table) }
    };
    let row = |id: u8, v: &[u8]| [&[2, id * 2][..], v].concat();
    let change = |before: &[u8], after: &[u8], op: u8| [before, after, &[9, 2, op, 0]].concat();
    let (x, y) = (row(1, &[2, 2, b'x']), row(1, &[2, 2, b'y']));
    let records = [change(&[0], &x, b'c'), change(&x, &y, b'u'), change(&y, &[0], b'd'), change(&[0], &y, b'r')];
    let mut whole = decoder_of(&options, &table);
    let rows: usize = records.iter().map(|record| whole.decode(record).unwrap()).sum();
    let kinds = whole.finish_changes().unwrap();
    let read = whole.finish(rows).unwrap();
    assert_eq!(kinds.values().to_vec(), [0, 1, 2, 3, 0]);
    assert_eq!(read.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "x", "y", "y", "y"]);
    let fault = whole.decode(&change(&[0], &y, b'u')).unwrap_err().describe();
    assert!(fault.starts_with("an update has no 'before'; make the database send whole rows"), "{fault}");
    whole.truncate(0);
    assert_eq!(whole.decode(&change(&x, &y, b't')).unwrap_err().describe(), "the 'op' is 't', expected c, r, u or d");

    let upsert = AvroOptions { upsert: true, key: vec!["id".to_owned()], ..options };
    let mut keyed = decoder_of(&upsert, &table);
    let records = [change(&[0], &y, b'u'), change(&row(1, &[0]), &[0], b'd')];
    let rows: usize = records.iter().map(|record| keyed.decode(record).unwrap()).sum();
    assert_eq!(keyed.finish_changes().unwrap().values().to_vec(), [2, 3]);
    assert!(keyed.finish(rows).unwrap().column(1).is_null(1));
}

#[test]
fn changes_that_are_written_are_read() {
    let fields: Fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)].into();
    let options = AvroOptions { envelope: true, ..AvroOptions::default() };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, 1, 1])), Arc::new(StringArray::from(vec![Some("x"), Some("x"), None]))];
    let schema = Arc::new(Schema::new(fields.clone()));
    let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let mut encoder = options.encoder(&fields).unwrap();
    let (mut out, mut ends) = (Vec::new(), vec![0]);
    let kinds = Int8Array::from(vec![0, 1, 2]);
    encoder.encode_each(&rows, Some(&kinds), &mut out, &mut |_, end| ends.push(end)).unwrap();
    let writer = Arc::new(AvroSchema::parse(&options.written_schema(&fields).unwrap(), &[]).unwrap());
    let (plan, _) = RecordPlan::new(writer, None, &fields, &options).unwrap();
    let mut decoder = AvroDecoder { plain: Some(plan), ..decoder(&schema) };
    let count: usize = ends.windows(2).map(|pair| decoder.decode(&out[pair[0]..pair[1]]).unwrap()).sum();
    // Without a key an update is a delete and an insert, as in Flink.
    assert_eq!(decoder.finish_changes().unwrap().values().to_vec(), [0, 3, 0]);
    assert_eq!(decoder.finish(count).unwrap(), rows);
}

#[test]
fn files_come_back_however_they_are_packed() {
    let rows = rows();
    let schema = rows.schema();
    for codec in [options::Codec::Null, options::Codec::Deflate, options::Codec::Zstandard] {
        let options = AvroOptions { codec, ..AvroOptions::default() };
        let mut encoder = ContainerEncoder::new(schema.fields(), &options).unwrap();
        let mut file = Vec::new();
        encoder.begin_file(&mut file);
        encoder.encode(&rows, None, &mut file).unwrap();
        encoder.encode(&rows.slice(1, 2), None, &mut file).unwrap();
        let read = |bytes: Vec<u8>, from: u64| {
            let mut container = AvroContainer::open(Box::new(std::io::Cursor::new(bytes)), &schema, &options)?;
            let (mut first, mut batches) = (0, Vec::new());
            while let Some(block) = container.next_block(|count| first + count <= from)? {
                let skip = from.saturating_sub(first);
                first += block.count;
                if first > from {
                    container.decode(&block, skip, 2, true, &mut |rows| {
                        batches.push(rows.rows);
                        true
                    })?;
                }
            }
            Ok::<_, ContainerError>(arrow::compute::concat_batches(&schema, &batches).unwrap())
        };
        let whole = arrow::compute::concat_batches(&schema, [&rows, &rows.slice(1, 2)]).unwrap();
        for from in 0..=5 {
            assert_eq!(read(file.clone(), from).unwrap(), whole.slice(from as usize, 5 - from as usize));
        }
        for length in (0..file.len()).step_by(7) {
            let cut = read(file[..length].to_vec(), 0);
            assert!(
                matches!(cut, Err(ContainerError::Damaged(_))) || cut.is_ok_and(|rows| rows.num_rows() < 5),
                "{length}"
            );
        }
        if codec == options::Codec::Null {
            let other = ReaderBuilder::new().build(std::io::Cursor::new(file)).unwrap();
            let count: usize = other.map(|batch| batch.unwrap().num_rows()).sum();
            assert_eq!(count, 5);
        }
    }
}

#[test]
fn a_value_that_does_not_fit_is_passed_over_in_a_file() {
    let wide: Fields = vec![Field::new("a", DataType::Int32, false)].into();
    let values: ArrayRef = Arc::new(Int32Array::from(vec![1, 1_000, 2]));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(wide.clone())), vec![values]).unwrap();
    let options = AvroOptions::default();
    let mut encoder = ContainerEncoder::new(&wide, &options).unwrap();
    let mut file = Vec::new();
    encoder.begin_file(&mut file);
    encoder.encode(&rows, None, &mut file).unwrap();
    let narrow = Arc::new(Schema::new(vec![Field::new("a", DataType::Int8, false)]));
    let mut container = AvroContainer::open(Box::new(std::io::Cursor::new(file)), &narrow, &options).unwrap();
    let block = container.next_block(|_| false).unwrap().unwrap();
    let mut seen = Vec::new();
    let mut take = |rows: ContainerRows| {
        seen.push((rows.count, rows.rows.num_rows(), rows.bad));
        true
    };
    container.decode(&block, 0, 10, true, &mut take).unwrap();
    container.decode(&block, 0, 10, false, &mut take).unwrap();
    let bad = vec![(1, "column 'a': the number '1000' is out of range for TINYINT".to_owned())];
    assert_eq!(seen, [(3, 2, bad.clone()), (2, 1, bad)]);
}
