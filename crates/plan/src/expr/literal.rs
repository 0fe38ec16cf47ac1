//! A constant and its stored form. Common types are written readably and exactly (floats as text, since a
//! reader of JSON may be off by one bit); every other type as an Arrow stream of one row.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion_common::ScalarValue;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::functions::base64;
use crate::types::plain_type;

/// A constant. Never of a view type or a large type.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal(pub ScalarValue);

impl Literal {
    /// From a constant of the planner, whose type may be a view.
    pub(crate) fn plain(value: &ScalarValue) -> Result<Literal, datafusion_common::DataFusionError> {
        let (from, to) = (value.data_type(), plain_type(&value.data_type()));
        if from == to { Ok(Literal(value.clone())) } else { value.cast_to(&to).map(Literal) }
    }
}

/// What stands in the stored plan.
#[derive(Serialize, Deserialize)]
enum Stored {
    Null(DataType),
    Boolean(bool),
    Int32(i32),
    Int64(i64),
    Float64(String),
    Utf8(String),
    /// Unscaled digits as text, precision, scale.
    Decimal128(String, u8, i8),
    /// One row and one column as an Arrow stream, in base 64.
    Arrow(String),
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match &self.0 {
            value if value.is_null() => Stored::Null(value.data_type()),
            ScalarValue::Boolean(Some(value)) => Stored::Boolean(*value),
            ScalarValue::Int32(Some(value)) => Stored::Int32(*value),
            ScalarValue::Int64(Some(value)) => Stored::Int64(*value),
            // The shortest text that reads back as the same float; NaN and infinities have one too.
            ScalarValue::Float64(Some(value)) => Stored::Float64(value.to_string()),
            ScalarValue::Utf8(Some(value)) => Stored::Utf8(value.clone()),
            ScalarValue::Decimal128(Some(value), precision, scale) => {
                Stored::Decimal128(value.to_string(), *precision, *scale)
            }
            value => Stored::Arrow(to_arrow(value).map_err(S::Error::custom)?),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let damaged = |what: &str| D::Error::custom(format!("a stored constant has the value '{what}'"));
        let value = match Stored::deserialize(deserializer)? {
            Stored::Null(data_type) => ScalarValue::try_from(&data_type).map_err(D::Error::custom)?,
            Stored::Boolean(value) => ScalarValue::Boolean(Some(value)),
            Stored::Int32(value) => ScalarValue::Int32(Some(value)),
            Stored::Int64(value) => ScalarValue::Int64(Some(value)),
            Stored::Float64(text) => ScalarValue::Float64(Some(text.parse().map_err(|_| damaged(&text))?)),
            Stored::Utf8(value) => ScalarValue::Utf8(Some(value)),
            Stored::Decimal128(text, precision, scale) => {
                ScalarValue::Decimal128(Some(text.parse().map_err(|_| damaged(&text))?), precision, scale)
            }
            Stored::Arrow(text) => from_arrow(&text).map_err(D::Error::custom)?,
        };
        Ok(Literal(value))
    }
}

fn to_arrow(value: &ScalarValue) -> Result<String, Box<dyn std::error::Error>> {
    let array = value.to_array()?;
    let schema = Arc::new(Schema::new(vec![Field::new("value", array.data_type().clone(), true)]));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&RecordBatch::try_new(schema.clone(), vec![array])?)?;
    Ok(base64::encode(&writer.into_inner()?))
}

fn from_arrow(text: &str) -> Result<ScalarValue, Box<dyn std::error::Error>> {
    let bytes = base64::decode(text).ok_or("a stored constant is not base 64")?;
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let batch = reader.next().ok_or("a stored constant has no row")??;
    if batch.num_rows() != 1 || batch.num_columns() != 1 {
        return Err("a stored constant is not one row of one column".into());
    }
    Ok(ScalarValue::try_from_array(batch.column(0), 0)?)
}
