//! Columns of whole numbers as blocks hold them: each value less the least of the block, in as few bytes as the greatest
//! then needs (frame of reference: J. Goldstein, R. Ramakrishnan, U. Shaft, "Compressing Relations and Indexes", 1998). A
//! compressor that looks for repeated bytes takes many times as long for less.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
};
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, FieldRef, Int64Type, Schema, TimeUnit, UInt8Type, UInt16Type, UInt32Type};
use arrow::error::ArrowError;

/// Key of a field's metadata: the type that the column has outside the file, by the names of [`TYPES`].
const TYPE: &str = "mainstem.type";
/// Key of a field's metadata: what is added to each value of the column.
const BASE: &str = "mainstem.base";

/// Types that are narrowed, their names, and bytes of a value.
const TYPES: [(&str, DataType, usize); 7] = [
    ("int", DataType::Int32, 4),
    ("bigint", DataType::Int64, 8),
    ("date", DataType::Date32, 4),
    ("timestamp_s", DataType::Timestamp(TimeUnit::Second, None), 8),
    ("timestamp_ms", DataType::Timestamp(TimeUnit::Millisecond, None), 8),
    ("timestamp_us", DataType::Timestamp(TimeUnit::Microsecond, None), 8),
    ("timestamp_ns", DataType::Timestamp(TimeUnit::Nanosecond, None), 8),
];

/// The same rows with columns that are as narrow as can be; their fields say what they were.
pub(super) fn narrow(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    each_column(rows, |field, column| Ok(narrowed(field, column)?.unwrap_or_else(|| (field.clone(), column.clone()))))
}

/// Takes [`narrow`] back.
pub(super) fn widen(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if rows.schema_ref().fields().iter().all(|field| field.metadata().is_empty()) {
        return Ok(rows.clone());
    }
    each_column(rows, widened)
}

fn each_column(
    rows: &RecordBatch,
    made: impl Fn(&FieldRef, &ArrayRef) -> Result<(FieldRef, ArrayRef), ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema_ref();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| made(field, column));
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &count)
}

fn narrowed(field: &FieldRef, column: &ArrayRef) -> Result<Option<(FieldRef, ArrayRef)>, ArrowError> {
    let Some((name, _, width)) = TYPES.iter().find(|(_, of, _)| of == column.data_type()) else { return Ok(None) };
    let values = compute::cast(column, &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    let (Some(least), Some(greatest)) = (compute::min(values), compute::max(values)) else { return Ok(None) };
    let span = greatest.abs_diff(least);
    let column: ArrayRef = if span <= u64::from(u8::MAX) {
        Arc::new(less::<UInt8Type>(values, |value| value.wrapping_sub(least) as u8))
    } else if span <= u64::from(u16::MAX) {
        Arc::new(less::<UInt16Type>(values, |value| value.wrapping_sub(least) as u16))
    } else if span <= u64::from(u32::MAX) && *width > 4 {
        Arc::new(less::<UInt32Type>(values, |value| value.wrapping_sub(least) as u32))
    } else {
        return Ok(None);
    };
    let mut metadata = field.metadata().clone();
    metadata.extend([(TYPE.to_owned(), (*name).to_owned()), (BASE.to_owned(), least.to_string())]);
    let field = field.as_ref().clone().with_data_type(column.data_type().clone()).with_metadata(metadata);
    Ok(Some((Arc::new(field), column)))
}

/// What stands where there is a NULL does not matter.
fn less<T: ArrowPrimitiveType>(values: &Int64Array, of: impl Fn(i64) -> T::Native) -> PrimitiveArray<T> {
    values.unary(of)
}

fn widened(field: &FieldRef, column: &ArrayRef) -> Result<(FieldRef, ArrayRef), ArrowError> {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    let wrong = |what: String| ArrowError::ParseError(format!("column '{}': {what}", field.name()));
    let (name, base) = match (metadata.remove(TYPE), metadata.remove(BASE)) {
        (Some(name), Some(base)) => (name, base),
        (None, None) => return Ok((field.clone(), column.clone())),
        _ => return Err(wrong(format!("{TYPE} and {BASE} go together"))),
    };
    let (_, of, _) = TYPES
        .iter()
        .find(|(known, ..)| *known == name)
        .ok_or_else(|| wrong(format!("its type '{name}' is not known to this version")))?;
    let base: i64 = base.parse().map_err(|_| wrong(format!("'{base}' is no number")))?;
    let values: Int64Array = match column.data_type() {
        DataType::UInt8 => more(column.as_primitive::<UInt8Type>(), base),
        DataType::UInt16 => more(column.as_primitive::<UInt16Type>(), base),
        DataType::UInt32 => more(column.as_primitive::<UInt32Type>(), base),
        other => return Err(wrong(format!("a column of type {other} is not a narrow one"))),
    };
    let column = compute::cast_with_options(&values, of, &CastOptions { safe: false, ..CastOptions::default() })?;
    let field = field.as_ref().clone().with_data_type(of.clone()).with_metadata(metadata);
    Ok((Arc::new(field), column))
}

fn more<T: ArrowPrimitiveType<Native: Into<i64>>>(values: &PrimitiveArray<T>, base: i64) -> Int64Array {
    values.unary(|value| base.wrapping_add(value.into()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int32Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn rows(columns: Vec<ArrayRef>) -> RecordBatch {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(name, of)| (name, of, true)))
            .unwrap()
    }

    #[test]
    fn numbers_take_what_they_need_and_come_back() {
        let far =
            |span: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MIN + span)])) };
        let batch = rows(vec![
            far(255),
            far(256),
            far(65_536),
            far(1 << 32),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
            Arc::new(Int64Array::from(vec![None, None, None])),
            Arc::new(StringArray::from(vec!["x", "y", "z"])),
        ]);
        let narrow = narrow(&batch).unwrap();
        let types: Vec<_> = narrow.schema_ref().fields().iter().map(|field| field.data_type().clone()).collect();
        use DataType as T;
        assert_eq!(types, [T::UInt8, T::UInt16, T::UInt32, T::Int64, T::Int64, T::Int64, T::Utf8]);
        assert_eq!(widen(&narrow).unwrap(), batch);
    }

    #[test]
    fn each_type_comes_back_as_itself() {
        let batch = rows(vec![
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MIN + 1)])),
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX)])),
            Arc::new(Date32Array::from(vec![Some(-1), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(-5), Some(5)])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(-5), Some(5)]).with_timezone("UTC")),
        ]);
        let narrow = narrow(&batch).unwrap();
        let types: Vec<_> = narrow.schema_ref().fields().iter().map(|field| field.data_type().clone()).collect();
        use DataType as T;
        let zoned = T::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(types, [T::UInt8, T::Int32, T::UInt8, T::UInt8, zoned]);
        assert_eq!(widen(&narrow).unwrap(), batch);
        for (from, count) in [(0, 0), (1, 1)] {
            let part = batch.slice(from, count);
            assert_eq!(widen(&super::narrow(&part).unwrap()).unwrap(), part);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let batch = narrow(&rows(vec![Arc::new(Int32Array::from(vec![1, 2]))])).unwrap();
        let forged = [
            (TYPE, Some("interval"), "interval"),
            (BASE, Some("much"), "much"),
            (BASE, Some("3000000000"), "3000000000"),
            (BASE, None, "go together"),
        ];
        for (key, value, said) in forged {
            let field = batch.schema_ref().field(0);
            let mut metadata = field.metadata().clone();
            metadata.remove(key);
            metadata.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            let schema = Schema::new(vec![field.clone().with_metadata(metadata)]);
            let forged = RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec()).unwrap();
            let refused = widen(&forged).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
