//! Values of any types as bytes that can be kept and compared, and back.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion_common::Result;

/// See the module.
pub(super) struct RowCodec {
    converter: RowConverter,
    types: Vec<DataType>,
    /// The row in which all is null.
    null: Rows,
}

impl RowCodec {
    /// For rows of these types; all can be put in order.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?;
        let nulls: Vec<ArrayRef> = types.iter().map(|t| new_null_array(t, 1)).collect();
        let null = converter.convert_columns(&nulls)?;
        Ok(RowCodec { converter, types: types.to_vec(), null })
    }

    /// Types of the columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The rows as bytes.
    pub(super) fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The columns of rows; nothing: all is null.
    pub(super) fn decode<'a>(&'a self, rows: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let null = self.null.row(0);
        Ok(self.converter.convert_rows(rows.map(|row| row.map_or(null, |row| parser.parse(row))))?)
    }
}
