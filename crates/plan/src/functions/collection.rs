//! Flink's functions on arrays and maps that DataFusion lacks or means otherwise.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapBuilder, MapFieldNames, StringBuilder, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion_common::Result;

use super::udf::{Arguments, Definition, Kind, failed, integer};
use crate::types::sql_type_name;

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("cardinality", &[&[Kind::Any]], integer, cardinality),
    Definition::new("element", &[&[Kind::Any]], element_type, element),
    Definition::new("str_to_map", &[&[Kind::Text], &[Kind::Text, Kind::Text, Kind::Text]], text_map, str_to_map),
];

/// Number of elements of an array, of entries of a map.
fn cardinality(args: &Arguments) -> Result<ArrayRef> {
    let column = args.column(0)?;
    let length: Box<dyn Fn(usize) -> usize> = match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>().clone();
            Box::new(move |row| list.value_length(row).unsigned_abs() as usize)
        }
        DataType::Map(..) => {
            let map = column.as_map().clone();
            Box::new(move |row| map.value_length(row).unsigned_abs() as usize)
        }
        DataType::Null => return args.map_integer(|_| None),
        other => return failed(format!("CARDINALITY takes an array or a map, not a {}", sql_type_name(other))),
    };
    args.map_integer(|row| column.is_valid(row).then(|| i64::try_from(length(row)).unwrap_or(i64::MAX)))
}

fn element_type(types: &[DataType]) -> DataType {
    match types.first() {
        Some(DataType::List(item)) => item.data_type().clone(),
        _ => DataType::Null,
    }
}

/// `ELEMENT(array)`: its only element, NULL where it is empty.
fn element(args: &Arguments) -> Result<ArrayRef> {
    let column = args.column(0)?;
    let Some(list) = column.as_list_opt::<i32>() else {
        return failed(format!("ELEMENT takes an array, not a {}", sql_type_name(column.data_type())));
    };
    let offsets = list.value_offsets();
    let position = |row: usize| match list.value_length(row) {
        _ if list.is_null(row) => Ok(None),
        0 => Ok(None),
        1 => Ok(Some(offsets[row].unsigned_abs())),
        more => failed(format!("ELEMENT takes an array of at most one element, this one has {more}")),
    };
    let positions = (0..args.rows).map(position).collect::<Result<UInt32Array>>()?;
    Ok(compute::take(list.values(), &positions, None)?)
}

fn entry_names() -> MapFieldNames {
    MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() }
}

fn text_map(_: &[DataType]) -> DataType {
    let key = Field::new("key", DataType::Utf8, false);
    let pair = Fields::from(vec![key, Field::new("value", DataType::Utf8, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

/// `STR_TO_MAP(s[, between pairs, between key and value])`; `,` and `=` unless said otherwise. A key that
/// comes again takes the last value.
fn str_to_map(args: &Arguments) -> Result<ArrayRef> {
    let (source, pairs, values) = (args.text(0), args.optional_text(1), args.optional_text(2));
    let mut builder = MapBuilder::new(Some(entry_names()), StringBuilder::new(), StringBuilder::new());
    for row in 0..args.rows {
        let pair = pairs.as_ref().map_or(Some(","), |p| p.get(row));
        let equal = values.as_ref().map_or(Some("="), |v| v.get(row));
        let call = source.get(row).zip(pair).zip(equal);
        if let Some(((source, pair), equal)) = call {
            let mut entries: Vec<(&str, Option<&str>)> = Vec::new();
            for part in source.split(pair).filter(|p| !p.is_empty()) {
                let (key, value) = part.split_once(equal).map_or((part, None), |(k, v)| (k, Some(v)));
                entries.retain(|(known, _)| *known != key);
                entries.push((key, value));
            }
            for (key, value) in entries {
                builder.keys().append_value(key);
                builder.values().append_option(value);
            }
        }
        builder.append(call.is_some())?;
    }
    Ok(Arc::new(builder.finish()))
}
