//! Parquet rows as a table declares them: which columns of a file to read, and how each becomes the declared
//! type. Called by the filesystem source. Converts only where no value can change its meaning without an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::column::type_name;

/// How the columns of one file become the columns that are wanted.
#[derive(Clone, Debug)]
pub(crate) struct ParquetColumns {
    schema: SchemaRef,
    /// Positions in the file's schema of the columns to read, ascending.
    roots: Vec<usize>,
    /// For each wanted column its position among `roots`; none: the file does not have it.
    sources: Vec<Option<usize>>,
}

impl ParquetColumns {
    /// Matches the wanted columns with those of a file by name. An error names the column that the file lacks
    /// or holds in a type that does not fit.
    pub(crate) fn new(wanted: SchemaRef, file: &Schema) -> Result<ParquetColumns, String> {
        let mut places = Vec::new();
        for field in wanted.fields() {
            let place = file.fields().iter().position(|f| f.name() == field.name());
            match place {
                Some(place) if !fits(file.field(place).data_type(), field.data_type()) => {
                    let found = type_name(file.field(place).data_type());
                    return Err(format!(
                        "column '{}' is declared as {}, the file has {found}",
                        field.name(),
                        type_name(field.data_type())
                    ));
                }
                None if !field.is_nullable() => {
                    return Err(format!("the file has no column '{}', which is NOT NULL", field.name()));
                }
                place => places.push(place),
            }
        }
        let mut roots: Vec<usize> = places.iter().flatten().copied().collect();
        roots.sort_unstable();
        roots.dedup();
        let sources =
            places.iter().map(|place| place.and_then(|place| roots.iter().position(|&root| root == place))).collect();
        Ok(ParquetColumns { schema: wanted, roots, sources })
    }

    /// Positions in the file's schema of the columns to read.
    pub(crate) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// The columns that are wanted.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of the file, with the columns [`ParquetColumns::roots`], as the wanted columns.
    pub(crate) fn adapt(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        let columns = self.schema.fields().iter().zip(&self.sources).map(|(field, source)| {
            let column = match source {
                Some(source) => adapt(rows.column(*source), field),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            };
            column.map_err(|error| format!("column '{}': {error}", field.name()))
        });
        let columns = columns.collect::<Result<Vec<_>, String>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| error.to_string())
    }
}

/// Whether a type of a file may be read as a declared type.
fn fits(file: &DataType, declared: &DataType) -> bool {
    use DataType::{
        Binary, Date32, Decimal128, FixedSizeBinary, Float16, Float32, Float64, LargeBinary, LargeUtf8, List, Map,
        Struct, Time32, Time64, Timestamp, Utf8,
    };
    match (file, declared) {
        (Struct(file), Struct(declared)) => {
            declared.iter().all(|field| match file.iter().find(|f| f.name() == field.name()) {
                Some(found) => fits(found.data_type(), field.data_type()),
                None => field.is_nullable(),
            })
        }
        (List(file), List(declared)) => fits(file.data_type(), declared.data_type()),
        (Map(file, _), Map(declared, _)) => match (file.data_type(), declared.data_type()) {
            (Struct(file), Struct(declared)) => {
                file.len() == declared.len()
                    && file.iter().zip(declared).all(|(f, d)| fits(f.data_type(), d.data_type()))
            }
            _ => false,
        },
        (file, declared) if file == declared => true,
        (file, declared) if file.is_integer() && declared.is_integer() => true,
        (file, Decimal128(..)) if file.is_integer() => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (file, Decimal128(..)) if file.is_decimal() => true,
        (LargeUtf8, Utf8) | (LargeBinary | FixedSizeBinary(_), Binary) => true,
        (Timestamp(..), Timestamp(..)) | (Time32(_) | Time64(_), Time32(_)) => true,
        (Date32, Timestamp(..)) => true,
        _ => false,
    }
}

fn adapt(array: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if !field.is_nullable() && array.null_count() > 0 {
        return Err(ArrowError::CastError("NULL in a NOT NULL column".to_owned()));
    }
    let data_type = field.data_type();
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    match data_type {
        DataType::Struct(fields) => {
            let rows = array.as_struct();
            let columns = fields.iter().map(|field| match rows.column_by_name(field.name()) {
                Some(column) => adapt_inner(column, field),
                None => Ok(new_null_array(field.data_type(), rows.len())),
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, rows.nulls().cloned(), rows.len())?))
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let items = adapt_inner(list.values(), item)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), items, list.nulls().cloned())?))
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(ArrowError::CastError("the type MAP has no entries".to_owned()));
            };
            let columns =
                [map.keys(), map.values()].into_iter().zip(fields).map(|(column, field)| adapt_inner(column, field));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let adapted = StructArray::try_new(fields.clone(), columns, None)?;
            Ok(Arc::new(MapArray::try_new(
                Arc::clone(entries),
                map.offsets().clone(),
                adapted,
                map.nulls().cloned(),
                *sorted,
            )?))
        }
        _ => cast_with_options(array, data_type, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

/// Like [`adapt`], for columns inside others: NULL there is judged together with the rows around it, by the
/// constructor of the outer array.
fn adapt_inner(array: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    adapt(array, &field.clone().with_nullable(true))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Int64Type, TimeUnit};

    use super::*;

    fn schema(fields: Vec<Field>) -> SchemaRef {
        Arc::new(Schema::new(fields))
    }

    #[test]
    fn columns_are_matched_by_name_and_widened() {
        let file = schema(vec![
            Field::new("x", DataType::Utf8, true),
            Field::new("b", DataType::Int32, true),
            Field::new("a", DataType::Utf8, true),
        ]);
        let wanted = schema(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Int64, true),
            Field::new("c", DataType::Int64, true),
        ]);
        let columns = ParquetColumns::new(Arc::clone(&wanted), &file).unwrap();
        assert_eq!(columns.roots(), [1, 2]);
        let read: Vec<(&str, ArrayRef)> =
            vec![("b", Arc::new(Int32Array::from(vec![1, 2]))), ("a", Arc::new(StringArray::from(vec!["p", "q"])))];
        let rows = columns.adapt(&RecordBatch::try_from_iter(read).unwrap()).unwrap();
        assert_eq!(rows.schema(), wanted);
        assert_eq!(rows.column(1).as_primitive::<Int64Type>(), &Int64Array::from(vec![1, 2]));
        assert_eq!((rows.column(0).as_string::<i32>().value(1), rows.column(2).null_count()), ("q", 2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let text = schema(vec![Field::new("a", DataType::Utf8, true)]);
        let number = schema(vec![Field::new("a", DataType::Int32, true)]);
        let error = ParquetColumns::new(Arc::clone(&number), &text).unwrap_err();
        assert_eq!(error, "column 'a' is declared as INT, the file has STRING");
        let strict = schema(vec![Field::new("z", DataType::Int32, false)]);
        assert_eq!(ParquetColumns::new(strict, &text).unwrap_err(), "the file has no column 'z', which is NOT NULL");

        let wide = schema(vec![Field::new("a", DataType::Int64, true)]);
        let columns = ParquetColumns::new(number, &wide).unwrap();
        let rows = RecordBatch::try_new(wide, vec![Arc::new(Int64Array::from(vec![3_000_000_000]))]).unwrap();
        assert!(columns.adapt(&rows).unwrap_err().starts_with("column 'a': "));
        let required = schema(vec![Field::new("a", DataType::Int32, false)]);
        let nulls =
            RecordBatch::try_from_iter(vec![("a", Arc::new(Int32Array::from(vec![None, Some(1)])) as ArrayRef)])
                .unwrap();
        let columns = ParquetColumns::new(required, &nulls.schema()).unwrap();
        assert!(columns.adapt(&nulls).unwrap_err().contains("NULL in a NOT NULL column"));
    }

    #[test]
    fn nested_columns_are_adapted_inside() {
        let item = |data_type| Arc::new(Field::new("element", data_type, true));
        let row = |data_type: DataType| DataType::Struct(vec![Field::new("t", data_type, true)].into());
        let file = DataType::List(item(row(DataType::Timestamp(TimeUnit::Microsecond, None))));
        let declared =
            DataType::List(Arc::new(Field::new("item", row(DataType::Timestamp(TimeUnit::Millisecond, None)), true)));
        let wanted = schema(vec![Field::new("l", declared.clone(), true)]);
        let columns = ParquetColumns::new(wanted, &schema(vec![Field::new("l", file.clone(), true)])).unwrap();
        let rows = RecordBatch::try_from_iter_with_nullable(vec![("l", new_null_array(&file, 3), true)]).unwrap();
        assert_eq!(columns.adapt(&rows).unwrap().column(0).data_type(), &declared);
    }
}
