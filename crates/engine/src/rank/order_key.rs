//! The order columns of a row as one value that is compared at once: a machine word where there is one column that
//! fits, else Arrow's comparable rows.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use mainstem_plan::operator::SortKey;

/// How NULLs and directions are sorted, as Arrow says it.
pub(crate) fn sort_options(key: &SortKey) -> SortOptions {
    SortOptions { descending: key.descending, nulls_first: key.nulls_first }
}

/// A value by which rows are ordered, least first.
pub(crate) trait OrderKey: Ord + Sized + Send {
    /// Reads the order columns of batches.
    type Reader: Send;
    /// The values of a batch.
    type Column;

    /// A reader of the given order over columns of these types.
    fn reader(order: &[SortKey], types: &[DataType]) -> Result<Self::Reader, ArrowError>;
    /// The values of a batch.
    fn read(reader: &Self::Reader, rows: &RecordBatch) -> Result<Self::Column, ArrowError>;
    /// The value of a row.
    fn of(column: &Self::Column, row: usize) -> Self;
    /// How the value stands to that of a row.
    fn compare(&self, column: &Self::Column, row: usize) -> Ordering;
}

/// Whether one word holds the order.
pub(crate) fn fits_word(order: &[SortKey], types: &[DataType]) -> bool {
    use DataType as T;
    let [one] = order else { return false };
    matches!(
        types[one.column],
        T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::Float32
            | T::Float64
            | T::Boolean
            | T::Date32
            | T::Date64
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(_, _)
    )
}

/// The value of one column as a number of the same order, and before it where NULL stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Word(u8, u64);

const SIGN: u64 = 1 << 63;

impl OrderKey for Word {
    type Reader = SortKey;
    type Column = Vec<Word>;

    fn reader(order: &[SortKey], _types: &[DataType]) -> Result<SortKey, ArrowError> {
        Ok(order[0])
    }

    fn read(reader: &SortKey, rows: &RecordBatch) -> Result<Vec<Word>, ArrowError> {
        let column = rows.column(reader.column);
        let turned = if reader.descending { u64::MAX } else { 0 };
        let null = Word(if reader.nulls_first { 0 } else { 2 }, 0);
        let word = |value: u64| Word(1, value ^ turned);
        Ok(if matches!(column.data_type(), DataType::Float32 | DataType::Float64) {
            let values = compute::cast(column, &DataType::Float64)?;
            let of_float = |value: f64| {
                // IEEE 754's total order: negative numbers are turned round.
                let bits = value.to_bits();
                word(if bits & SIGN == 0 { bits ^ SIGN } else { !bits })
            };
            values.as_primitive::<Float64Type>().iter().map(|value| value.map_or(null, of_float)).collect()
        } else {
            let values = compute::cast(column, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            let of_integer = |value: i64| word(value as u64 ^ SIGN);
            match values.null_count() {
                0 => values.values().iter().map(|value| of_integer(*value)).collect(),
                _ => values.iter().map(|value| value.map_or(null, of_integer)).collect(),
            }
        })
    }

    fn of(column: &Vec<Word>, row: usize) -> Word {
        column[row]
    }

    fn compare(&self, column: &Vec<Word>, row: usize) -> Ordering {
        self.cmp(&column[row])
    }
}

/// Any columns.
impl OrderKey for Box<[u8]> {
    type Reader = (RowConverter, Vec<usize>);
    type Column = Rows;

    fn reader(order: &[SortKey], types: &[DataType]) -> Result<Self::Reader, ArrowError> {
        let field = |key: &SortKey| SortField::new_with_options(types[key.column].clone(), sort_options(key));
        Ok((RowConverter::new(order.iter().map(field).collect())?, order.iter().map(|key| key.column).collect()))
    }

    fn read((converter, columns): &Self::Reader, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
        converter.convert_columns(&columns)
    }

    fn of(column: &Rows, row: usize) -> Self {
        column.row(row).data().into()
    }

    fn compare(&self, column: &Rows, row: usize) -> Ordering {
        self.as_ref().cmp(column.row(row).data())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn words_are_ordered_as_rows_are() {
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), None, Some(0), Some(7), Some(i64::MAX)])),
            Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), Some(-1.5), None, Some(0.0), Some(f64::NAN)])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ];
        for column in columns {
            let rows = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
            let types = [rows.column(0).data_type().clone()];
            for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
                let order = [SortKey { column: 0, descending, nulls_first }];
                assert!(fits_word(&order, &types));
                let words = Word::read(&Word::reader(&order, &types).unwrap(), &rows).unwrap();
                let bytes = Box::<[u8]>::read(&Box::<[u8]>::reader(&order, &types).unwrap(), &rows).unwrap();
                for left in 0..rows.num_rows() {
                    for right in 0..rows.num_rows() {
                        let expected = Box::<[u8]>::of(&bytes, left).compare(&bytes, right);
                        assert_eq!(words[left].compare(&words, right), expected, "{order:?}");
                    }
                }
            }
        }
    }
}
