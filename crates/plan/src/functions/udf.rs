//! How Flink's functions are written down: a name, the parameter lists that it takes, the type that it gives,
//! and one function over columns. Everything that DataFusion asks of a function follows from that.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit, TimestampMicrosecondType};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::types::sql_type_name;

/// What a parameter takes, and the type in which the function sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string: `Utf8`.
    Text,
    /// Anything that has a simple text form: `Utf8`.
    Printable,
    /// An integer: `Int64`.
    Integer,
    /// A number: `Float64`.
    Double,
    /// A number in its own type.
    Number,
    /// A timestamp with or without zone, in its own unit; a date or a string becomes a timestamp.
    Timestamp,
    /// A timestamp or a date in its own type; a string becomes a timestamp.
    Temporal,
    /// Bytes; a string becomes its UTF-8.
    Bytes,
    /// Anything, in its own type.
    Any,
}

/// A function: one row of the tables in the modules beside this one.
pub(crate) struct Definition {
    /// Lower case.
    pub(crate) name: &'static str,
    /// Further names, lower case.
    pub(crate) aliases: &'static [&'static str],
    /// The parameter lists.
    pub(crate) forms: &'static [&'static [Kind]],
    /// Whether the last parameter of a list may be repeated.
    pub(crate) variadic: bool,
    /// The type of the result, from the types of the arguments after coercion.
    pub(crate) returns: fn(&[DataType]) -> DataType,
    /// The result: as many rows as [`Arguments::rows`].
    pub(crate) eval: fn(&Arguments) -> Result<ArrayRef>,
}

impl Definition {
    /// A function without aliases.
    pub(crate) const fn new(
        name: &'static str,
        forms: &'static [&'static [Kind]],
        returns: fn(&[DataType]) -> DataType,
        eval: fn(&Arguments) -> Result<ArrayRef>,
    ) -> Self {
        Definition { name, aliases: &[], forms, variadic: false, returns, eval }
    }

    /// The same with further names.
    pub(crate) const fn also(self, aliases: &'static [&'static str]) -> Self {
        Definition { aliases, ..self }
    }

    /// The same, the last parameter repeatable.
    pub(crate) const fn repeated(self) -> Self {
        Definition { variadic: true, ..self }
    }
}

/// Result types.
pub(crate) fn text(_: &[DataType]) -> DataType {
    DataType::Utf8
}
pub(crate) fn bytes(_: &[DataType]) -> DataType {
    DataType::Binary
}
pub(crate) fn integer(_: &[DataType]) -> DataType {
    DataType::Int64
}
pub(crate) fn double(_: &[DataType]) -> DataType {
    DataType::Float64
}
pub(crate) fn boolean(_: &[DataType]) -> DataType {
    DataType::Boolean
}
pub(crate) fn date(_: &[DataType]) -> DataType {
    DataType::Date32
}
pub(crate) fn timestamp(_: &[DataType]) -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}
pub(crate) fn timestamp_ltz(_: &[DataType]) -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// An error about a value; fails the job.
pub(crate) fn failed<T>(message: String) -> Result<T> {
    Err(DataFusionError::Execution(message))
}

/// The evaluated arguments of a call. A constant has one row, whatever the number of rows of the batch.
pub(crate) struct Arguments {
    columns: Vec<(ArrayRef, bool)>,
    /// Rows of the result.
    pub(crate) rows: usize,
}

/// One argument, by row.
pub(crate) struct Values<'a, A> {
    array: &'a A,
    constant: bool,
}

impl<A: Array> Values<'_, A> {
    fn index(&self, row: usize) -> Option<usize> {
        let index = if self.constant { 0 } else { row };
        self.array.is_valid(index).then_some(index)
    }
}

impl<'a> Values<'a, StringArray> {
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        self.index(row).map(|i| self.array.value(i))
    }
}

impl<T: ArrowPrimitiveType> Values<'_, PrimitiveArray<T>> {
    /// The value of all rows, where it is a constant and not NULL.
    pub(crate) fn constant(&self) -> Option<T::Native> {
        if self.constant { self.get(0) } else { None }
    }

    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        self.index(row).map(|i| self.array.value(i))
    }
}

impl Arguments {
    /// Number of arguments.
    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Type of an argument.
    pub(crate) fn data_type(&self, index: usize) -> &DataType {
        self.columns[index].0.data_type()
    }

    /// An argument of kind text.
    pub(crate) fn text(&self, index: usize) -> Values<'_, StringArray> {
        let (array, constant) = &self.columns[index];
        Values { array: array.as_string::<i32>(), constant: *constant }
    }

    /// An argument of kind text, if it was given.
    pub(crate) fn optional_text(&self, index: usize) -> Option<Values<'_, StringArray>> {
        (index < self.columns.len()).then(|| self.text(index))
    }

    /// An argument of kind integer.
    pub(crate) fn integer(&self, index: usize) -> Values<'_, Int64Array> {
        let (array, constant) = &self.columns[index];
        Values { array: array.as_primitive(), constant: *constant }
    }

    /// An argument of kind integer, if it was given.
    pub(crate) fn optional_integer(&self, index: usize) -> Option<Values<'_, Int64Array>> {
        (index < self.columns.len()).then(|| self.integer(index))
    }

    /// An argument of kind double.
    pub(crate) fn double(&self, index: usize) -> Values<'_, Float64Array> {
        let (array, constant) = &self.columns[index];
        Values { array: array.as_primitive(), constant: *constant }
    }

    /// An argument of kind bytes, by row.
    pub(crate) fn bytes(&self, index: usize, row: usize) -> Option<&[u8]> {
        let (array, constant) = &self.columns[index];
        let array = array.as_binary::<i32>();
        let row = if *constant { 0 } else { row };
        array.is_valid(row).then(|| array.value(row))
    }

    /// An argument of kind timestamp, in microseconds since 1970 (of its own clock, where it has no zone).
    pub(crate) fn microseconds(&self, index: usize) -> Result<Microseconds> {
        let (array, constant) = &self.columns[index];
        let zone = match array.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
        Ok(Microseconds { array: array.as_primitive::<TimestampMicrosecondType>().clone(), constant: *constant })
    }

    /// An argument, as many rows as the result.
    pub(crate) fn column(&self, index: usize) -> Result<ArrayRef> {
        let (array, constant) = &self.columns[index];
        if *constant && self.rows != 1 {
            return ScalarValue::try_from_array(array, 0)?.to_array_of_size(self.rows);
        }
        Ok(array.clone())
    }

    /// A column of strings, from what each row gives.
    pub(crate) fn map_text<S: AsRef<str>>(&self, row: impl FnMut(usize) -> Option<S>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(row).collect::<StringArray>()))
    }

    /// The same where a row may fail the job.
    pub(crate) fn try_map_text<S: AsRef<str>>(&self, row: impl FnMut(usize) -> Result<Option<S>>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(row).collect::<Result<StringArray>>()?))
    }

    /// A column of integers.
    pub(crate) fn map_integer(&self, row: impl FnMut(usize) -> Option<i64>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(row).collect::<Int64Array>()))
    }

    /// A column of doubles.
    pub(crate) fn map_double(&self, row: impl FnMut(usize) -> Option<f64>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(row).collect::<Float64Array>()))
    }

    /// A column of booleans.
    pub(crate) fn map_boolean(&self, row: impl FnMut(usize) -> Option<bool>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(row).collect::<BooleanArray>()))
    }
}

/// Timestamps in microseconds.
pub(crate) struct Microseconds {
    array: TimestampMicrosecondArray,
    constant: bool,
}

impl Microseconds {
    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then(|| self.array.value(row))
    }
}

/// A [`Definition`] as DataFusion wants it.
#[derive(Debug)]
pub(crate) struct Function {
    definition: &'static Definition,
    aliases: Vec<String>,
    signature: Signature,
}

impl Function {
    pub(crate) fn new(definition: &'static Definition) -> Self {
        let aliases = definition.aliases.iter().map(|a| (*a).to_owned()).collect();
        Function { definition, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.definition, other.definition)
    }
}
impl Eq for Function {}
impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(self.definition.name, self.definition.forms, self.definition.variadic, types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok((self.definition.returns)(types))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let columns = args.args.into_iter().map(|arg| match arg {
            ColumnarValue::Scalar(value) => Ok((value.to_array()?, true)),
            ColumnarValue::Array(array) => Ok((array, false)),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let arguments = Arguments { columns, rows: if constant { 1 } else { args.number_rows } };
        let result = (self.definition.eval)(&arguments)?;
        if constant {
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        } else {
            Ok(ColumnarValue::Array(result))
        }
    }
}

/// The types in which a function sees its arguments, or what it would have taken.
pub(crate) fn coerce(name: &str, forms: &[&[Kind]], variadic: bool, types: &[DataType]) -> Result<Vec<DataType>> {
    let fits =
        |form: &&&[Kind]| form.len() == types.len() || (variadic && !form.is_empty() && form.len() < types.len());
    let accept = |form: &&[Kind]| {
        let kinds = form.iter().chain(std::iter::repeat(form.last().unwrap_or(&Kind::Any)));
        kinds.zip(types).map(|(kind, t)| kind.accept(t)).collect::<Option<Vec<_>>>()
    };
    if let Some(accepted) = forms.iter().filter(fits).find_map(accept) {
        return Ok(accepted);
    }
    let written = |kinds: &&[Kind]| {
        let words: Vec<&str> = kinds.iter().map(|k| k.word()).collect();
        format!("{}({}{})", name.to_uppercase(), words.join(", "), if variadic { ", .." } else { "" })
    };
    let given: Vec<String> = types.iter().map(sql_type_name).collect();
    let forms: Vec<String> = forms.iter().map(written).collect();
    let message =
        format!("{}({}) does not exist; it is called as {}", name.to_uppercase(), given.join(", "), forms.join(" or "));
    Err(DataFusionError::Plan(message))
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Printable | Kind::Any => "any",
            Kind::Integer => "integer",
            Kind::Double | Kind::Number => "number",
            Kind::Timestamp => "timestamp",
            Kind::Temporal => "timestamp or date",
            Kind::Bytes => "bytes or string",
        }
    }

    /// The type in which an argument of the given type is passed, if it may be passed at all.
    fn accept(self, data_type: &DataType) -> Option<DataType> {
        let data_type = match data_type {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let null = data_type.is_null();
        let string = data_type.is_string();
        match self {
            Kind::Text => (string || null).then_some(DataType::Utf8),
            Kind::Printable => (!data_type.is_nested() && !is_binary(data_type)).then_some(DataType::Utf8),
            Kind::Integer => (data_type.is_integer() || null).then_some(DataType::Int64),
            Kind::Double => (data_type.is_numeric() || null).then_some(DataType::Float64),
            Kind::Number if null => Some(DataType::Int64),
            Kind::Number => data_type.is_numeric().then(|| data_type.clone()),
            Kind::Timestamp | Kind::Temporal => match data_type {
                DataType::Timestamp(..) => Some(data_type.clone()),
                DataType::Date32 if self == Kind::Temporal => Some(DataType::Date32),
                DataType::Date32 | DataType::Date64 => Some(timestamp(&[])),
                _ => (string || null).then(|| timestamp(&[])),
            },
            Kind::Bytes => (string || null || is_binary(data_type)).then_some(DataType::Binary),
            Kind::Any => Some(crate::types::plain_type(data_type)),
        }
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}
