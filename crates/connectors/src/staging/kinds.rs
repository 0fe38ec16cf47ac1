//! Changes as they are staged: rows, with the kind of each in a last column. Called by sinks that write by key.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mainstem_core::change::ChangeKind;

use crate::error::ConnectorError;

/// Name of the last column.
const KIND: &str = "mainstem kind";

/// The schema of rows together with the kind of each, as they are staged.
pub(crate) fn with_kinds(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Field::new(KIND, DataType::Int8, false).into());
    Schema::new(fields).into()
}

/// Rows and their kinds as one batch.
pub(crate) fn add_kinds(
    rows: &RecordBatch,
    schema: &SchemaRef,
    changes: Option<&Int8Array>,
) -> Result<RecordBatch, ConnectorError> {
    let inserts = || Int8Array::from_value(ChangeKind::Insert as i8, rows.num_rows());
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(changes.cloned().unwrap_or_else(inserts)));
    let joined = RecordBatch::try_new(schema.clone(), columns);
    joined.map_err(|e| ConnectorError::data(format!("changes do not fit their rows: {e}")))
}
