//! Columns of any type under construction, for formats whose values come one after the other with a type of their own
//! (Avro, Protobuf): scalars, and ROW, ARRAY and MAP, which hold columns themselves. What reads a value appends it to the
//! parts of its column and closes it; a column that has refused a value may hold a part of it, until it is truncated.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, NullBufferBuilder, StructArray};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::column::{ScalarColumn, type_name};
use super::fault::{Fault, Faulty};
use super::offsets::{last, length, renew};
use super::options::TimestampFormat;

/// A column of any type.
pub(super) enum TreeColumn {
    Scalar(ScalarColumn),
    Row(Box<RowColumn>),
    List(Box<ListColumn>),
    Map(Box<MapColumn>),
}

/// Values of type ROW.
pub(super) struct RowColumn {
    pub(super) fields: Fields,
    nullable: bool,
    pub(super) columns: Vec<TreeColumn>,
    nulls: NullBufferBuilder,
}

/// Values of type ARRAY.
pub(super) struct ListColumn {
    pub(super) item: FieldRef,
    nullable: bool,
    pub(super) items: TreeColumn,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

/// Values of type MAP.
pub(super) struct MapColumn {
    entries: FieldRef,
    sorted: bool,
    nullable: bool,
    pub(super) keys: TreeColumn,
    pub(super) values: TreeColumn,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl TreeColumn {
    /// A column of the type; an error says which type cannot be held.
    pub(super) fn new(data_type: &DataType, nullable: bool) -> Result<TreeColumn, String> {
        if let Some(column) = ScalarColumn::new(data_type, nullable, TimestampFormat::Sql) {
            return Ok(TreeColumn::Scalar(column));
        }
        let nulls = NullBufferBuilder::new(0);
        match data_type {
            DataType::Struct(fields) => {
                let columns = TreeColumn::of_fields(fields)?;
                Ok(TreeColumn::Row(Box::new(RowColumn { fields: fields.clone(), nullable, columns, nulls })))
            }
            DataType::List(item) => {
                let items = TreeColumn::new(item.data_type(), item.is_nullable())?;
                let (item, offsets) = (Arc::clone(item), vec![0]);
                Ok(TreeColumn::List(Box::new(ListColumn { item, nullable, items, offsets, nulls })))
            }
            DataType::Map(entries, sorted) => {
                let (key, value) = map_parts(entries)?;
                let keys = TreeColumn::new(key.data_type(), false)?;
                let values = TreeColumn::new(value.data_type(), value.is_nullable())?;
                let (entries, sorted, offsets) = (Arc::clone(entries), *sorted, vec![0]);
                Ok(TreeColumn::Map(Box::new(MapColumn { entries, sorted, nullable, keys, values, offsets, nulls })))
            }
            other => Err(format!("the type {} cannot be read", type_name(other))),
        }
    }

    /// A column for each field; an error names the one whose type cannot be held.
    pub(super) fn of_fields(fields: &Fields) -> Result<Vec<TreeColumn>, String> {
        let column = |field: &FieldRef| {
            TreeColumn::new(field.data_type(), field.is_nullable())
                .map_err(|reason| format!("column '{}': {reason}", field.name()))
        };
        fields.iter().map(column).collect()
    }

    /// How many values it holds.
    pub(super) fn len(&self) -> usize {
        match self {
            TreeColumn::Scalar(column) => column.len(),
            TreeColumn::Row(column) => column.nulls.len(),
            TreeColumn::List(column) => column.nulls.len(),
            TreeColumn::Map(column) => column.nulls.len(),
        }
    }

    /// Appends NULL, which a NOT NULL column refuses.
    pub(super) fn append_null(&mut self) -> Faulty<()> {
        let nullable = match self {
            TreeColumn::Scalar(column) => return column.append_null(),
            TreeColumn::Row(column) => column.nullable,
            TreeColumn::List(column) => column.nullable,
            TreeColumn::Map(column) => column.nullable,
        };
        if !nullable {
            return Err(Fault::new(0, "NULL in a NOT NULL column"));
        }
        self.append_masked();
        Ok(())
    }

    /// Appends a value that nobody sees because the row around it is NULL.
    pub(super) fn append_masked(&mut self) {
        match self {
            TreeColumn::Scalar(column) => column.append_masked(),
            TreeColumn::Row(column) => {
                column.columns.iter_mut().for_each(TreeColumn::append_masked);
                column.nulls.append_null();
            }
            TreeColumn::List(column) => {
                column.offsets.push(last(&column.offsets));
                column.nulls.append_null();
            }
            TreeColumn::Map(column) => {
                column.offsets.push(last(&column.offsets));
                column.nulls.append_null();
            }
        }
    }

    /// Drops all values but the first `rows`, and parts of values.
    pub(super) fn truncate(&mut self, rows: usize) {
        match self {
            TreeColumn::Scalar(column) => column.truncate(rows),
            TreeColumn::Row(column) => {
                column.columns.iter_mut().for_each(|part| part.truncate(rows));
                column.nulls.truncate(rows);
            }
            TreeColumn::List(column) => {
                column.offsets.truncate(rows + 1);
                column.items.truncate(length(&column.offsets));
                column.nulls.truncate(rows);
            }
            TreeColumn::Map(column) => {
                column.offsets.truncate(rows + 1);
                column.keys.truncate(length(&column.offsets));
                column.values.truncate(length(&column.offsets));
                column.nulls.truncate(rows);
            }
        }
    }

    /// The values as an array; the column begins anew.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        match self {
            TreeColumn::Scalar(column) => column.finish(),
            TreeColumn::Row(column) => {
                let rows = column.nulls.len();
                let parts = column.columns.iter_mut().map(TreeColumn::finish).collect::<Result<_, _>>()?;
                let nulls = column.nulls.finish();
                Ok(Arc::new(StructArray::try_new_with_length(column.fields.clone(), parts, nulls, rows)?))
            }
            TreeColumn::List(column) => {
                let items = column.items.finish()?;
                let (item, offsets) = (Arc::clone(&column.item), renew(&mut column.offsets));
                Ok(Arc::new(ListArray::try_new(item, offsets, items, column.nulls.finish())?))
            }
            TreeColumn::Map(column) => {
                let DataType::Struct(fields) = column.entries.data_type() else {
                    unreachable!("checked when the column was made")
                };
                let parts = vec![column.keys.finish()?, column.values.finish()?];
                let entries = StructArray::try_new(fields.clone(), parts, None)?;
                let offsets = renew(&mut column.offsets);
                let nulls = column.nulls.finish();
                let array = MapArray::try_new(Arc::clone(&column.entries), offsets, entries, nulls, column.sorted)?;
                Ok(Arc::new(array))
            }
        }
    }
}

impl RowColumn {
    /// Ends a row, each of whose parts has been given a value.
    pub(super) fn close(&mut self) {
        self.nulls.append_non_null();
    }
}

impl ListColumn {
    /// Ends a list; its items are those that were appended since the last one.
    pub(super) fn close(&mut self) -> Faulty<()> {
        close(&mut self.offsets, self.items.len())?;
        self.nulls.append_non_null();
        Ok(())
    }
}

impl MapColumn {
    /// Ends a map; its entries are those that were appended since the last one.
    pub(super) fn close(&mut self) -> Faulty<()> {
        close(&mut self.offsets, self.values.len())?;
        self.nulls.append_non_null();
        Ok(())
    }
}

/// The fields of a map's keys and values.
pub(super) fn map_parts(entries: &FieldRef) -> Result<(&FieldRef, &FieldRef), String> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok((&fields[0], &fields[1])),
        _ => Err("the type MAP has no key and value".to_owned()),
    }
}

fn close(offsets: &mut Vec<i32>, items: usize) -> Faulty<()> {
    let end = i32::try_from(items).map_err(|_| Fault::new(0, "a batch holds more than 2^31 elements"))?;
    offsets.push(end);
    Ok(())
}
