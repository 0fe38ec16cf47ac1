//! ROW with other names for its fields. The planner calls it where a ROW is written to a table that has other names:
//! Flink goes by the order of the fields, DataFusion's CAST by their names.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Name of the function. Its second argument is what [`field_names`] gives.
pub const RENAME_FIELDS: &str = "flink_row";

/// The names of all fields of rows within a type, from the outside in, as a JSON array; none: there are no rows.
#[must_use]
pub fn field_names(of: &DataType) -> Option<String> {
    let mut names = Vec::new();
    collect(of, &mut names);
    (!names.is_empty()).then(|| serde_json::Value::from(names).to_string())
}

fn collect(of: &DataType, names: &mut Vec<String>) {
    match of {
        DataType::Struct(fields) => {
            for field in fields {
                names.push(field.name().clone());
                collect(field.data_type(), names);
            }
        }
        DataType::List(item) => collect(item.data_type(), names),
        DataType::Map(entries, _) => inside_map(entries).iter().for_each(|field| collect(field.data_type(), names)),
        _ => {}
    }
}

/// Key and value of a map. The row that holds them has names of its own.
fn inside_map(entries: &FieldRef) -> &[FieldRef] {
    match entries.data_type() {
        DataType::Struct(fields) => fields,
        _ => &[],
    }
}

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(RenameFields { signature: Signature::user_defined(Volatility::Immutable) }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RenameFields {
    signature: Signature,
}

impl ScalarUDFImpl for RenameFields {
    fn name(&self) -> &str {
        RENAME_FIELDS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [_, names] if names.is_string() => Ok(types.to_vec()),
            _ => Err(DataFusionError::Plan("FLINK_ROW takes a row and the names of its fields".to_owned())),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal("the type of FLINK_ROW depends on the names".to_owned()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let (Some(row), Some(Some(names))) = (args.arg_fields.first(), args.scalar_arguments.get(1)) else {
            return Err(DataFusionError::Plan("FLINK_ROW takes a row and the names of its fields".to_owned()));
        };
        let renamed = renamed_type(row.data_type(), &mut read(names)?.into_iter())?;
        Ok(Arc::new(Field::new(self.name(), renamed, row.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = args.return_field.data_type();
        Ok(match &args.args[0] {
            ColumnarValue::Array(array) => ColumnarValue::Array(renamed(array, of)?),
            ColumnarValue::Scalar(value) => {
                let array = renamed(&value.to_array()?, of)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
        })
    }
}

fn read(names: &ScalarValue) -> Result<Vec<String>> {
    let read = names.try_as_str().flatten().and_then(|text| serde_json::from_str(text).ok());
    read.ok_or_else(|| DataFusionError::Plan(format!("FLINK_ROW: {names} are no names")))
}

fn renamed_type(of: &DataType, names: &mut impl Iterator<Item = String>) -> Result<DataType> {
    let inner = |field: &FieldRef, names: &mut _| -> Result<FieldRef> {
        let of = renamed_type(field.data_type(), names)?;
        Ok(Arc::new(field.as_ref().clone().with_data_type(of)))
    };
    Ok(match of {
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                let name = names.next();
                let name = name.ok_or_else(|| DataFusionError::Plan("FLINK_ROW: a name is missing".to_owned()))?;
                let field = inner(field, names)?;
                Ok(Arc::new(field.as_ref().clone().with_name(name)))
            });
            DataType::Struct(fields.collect::<Result<_>>()?)
        }
        DataType::List(item) => DataType::List(inner(item, names)?),
        DataType::Map(entries, sorted) => {
            let fields = inside_map(entries).iter().map(|field| inner(field, names)).collect::<Result<_>>()?;
            let entries = entries.as_ref().clone().with_data_type(DataType::Struct(fields));
            DataType::Map(Arc::new(entries), *sorted)
        }
        other => other.clone(),
    })
}

/// The array in a type that differs in names alone.
fn renamed(array: &ArrayRef, of: &DataType) -> Result<ArrayRef> {
    if array.data_type() == of {
        return Ok(Arc::clone(array));
    }
    Ok(match of {
        DataType::Struct(fields) => {
            let rows = array.as_struct();
            let columns = rows.columns().iter().zip(fields).map(|(column, field)| renamed(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, rows.nulls().cloned(), rows.len())?)
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let items = renamed(list.values(), item.data_type())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), items, list.nulls().cloned())?)
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let rows: ArrayRef = Arc::new(map.entries().clone());
            let rows = renamed(&rows, entries.data_type())?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, rows.as_struct().clone(), nulls, *sorted)?)
        }
        _ => Arc::clone(array),
    })
}
