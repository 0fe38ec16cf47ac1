//! Whole rows as bytes that compare as an order says: first the columns of the order, then all others, so that two
//! rows are equal only if they are the same. For operators that must find a row again when it is taken away.

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use mainstem_plan::operator::SortKey;

use crate::rank::sort_options;

/// A row in its order. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowBytes {
    bytes: Arc<[u8]>,
    /// How many of them say the place in the order.
    order: u32,
}

impl RowBytes {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the rows are equal in the order.
    pub(crate) fn is_tie(&self, other: &RowBytes) -> bool {
        self.bytes[..self.order as usize] == other.bytes[..other.order as usize]
    }
}

/// Makes bytes of rows, and rows of them again.
pub(crate) struct RowCodec {
    whole: RowConverter,
    /// The columns of the order alone; absent: there are none.
    order: Option<RowConverter>,
    /// Positions of the columns in the bytes.
    columns: Vec<usize>,
    ordered: usize,
}

impl RowCodec {
    /// For rows with the columns of `schema`.
    pub(crate) fn new(schema: &Schema, order: &[SortKey]) -> Result<Self, ArrowError> {
        let mut columns: Vec<usize> = Vec::new();
        let mut fields = Vec::new();
        let data_type = |column: usize| schema.field(column).data_type().clone();
        for key in order {
            if !columns.contains(&key.column) {
                columns.push(key.column);
                fields.push(SortField::new_with_options(data_type(key.column), sort_options(key)));
            }
        }
        let ordered = columns.len();
        let order = if ordered == 0 { None } else { Some(RowConverter::new(fields.clone())?) };
        for column in
            (0..schema.fields().len()).filter(|column| !columns[..ordered].contains(column)).collect::<Vec<_>>()
        {
            columns.push(column);
            fields.push(SortField::new(data_type(column)));
        }
        if fields.is_empty() {
            fields.push(SortField::new(DataType::Null));
        }
        Ok(RowCodec { whole: RowConverter::new(fields)?, order, columns, ordered })
    }

    /// The bytes of each row.
    pub(crate) fn encode(&self, rows: &RecordBatch) -> Result<Vec<RowBytes>, ArrowError> {
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let order = self.order.as_ref().map(|order| order.convert_columns(&columns[..self.ordered])).transpose()?;
        if columns.is_empty() {
            columns.push(Arc::new(NullArray::new(rows.num_rows())));
        }
        let whole = self.whole.convert_columns(&columns)?;
        let length = |row: usize| order.as_ref().map_or(0, |order| order.row(row).data().len() as u32);
        Ok(whole.iter().enumerate().map(|(n, row)| RowBytes { bytes: row.data().into(), order: length(n) }).collect())
    }

    /// The columns of rows.
    pub(crate) fn decode<'a>(&self, rows: impl Iterator<Item = &'a RowBytes>) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.whole.parser();
        let rows: Vec<&RowBytes> = rows.collect();
        let decoded = self.whole.convert_rows(rows.iter().map(|row| parser.parse(&row.bytes)))?;
        let mut columns = vec![None; self.columns.len()];
        self.columns.iter().zip(decoded).for_each(|(position, column)| columns[*position] = Some(column));
        Ok(columns.into_iter().map(|column| column.expect("each column has one place")).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn bytes_sort_as_the_order_says_and_become_rows_again() {
        let columns: [(&str, ArrayRef); 3] = [
            ("a", Arc::new(Int64Array::from(vec![1, 2, 1, 2]))),
            ("b", Arc::new(StringArray::from(vec![Some("x"), None, Some("y"), Some("z")]))),
            ("c", Arc::new(Int64Array::from(vec![5, 6, 7, 8]))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let key = |column, descending| SortKey { column, descending, nulls_first: false };
        let codec = RowCodec::new(rows.schema_ref(), &[key(1, true), key(0, false), key(1, false)]).unwrap();
        let encoded = codec.encode(&rows).unwrap();
        let mut sorted: Vec<usize> = (0..4).collect();
        sorted.sort_by_key(|row| encoded[*row].clone());
        assert_eq!(sorted, [3, 2, 0, 1]);
        assert_eq!(codec.decode(encoded.iter()).unwrap(), rows.columns());
        let by_a = RowCodec::new(rows.schema_ref(), &[key(0, false)]).unwrap().encode(&rows).unwrap();
        assert!(by_a[0].is_tie(&by_a[2]) && !by_a[0].is_tie(&by_a[1]) && by_a[0] != by_a[2]);
    }
}
