//! PostgreSQL's texts to Arrow columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, NullBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};

use crate::error::ConnectorError;
use crate::format::{ScalarColumn, TimestampFormat, type_name};

/// Collects rows whose values come as texts.
pub(crate) struct RowsBuilder {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Scalar(ScalarColumn),
    List { field: FieldRef, elements: ScalarColumn, ends: Vec<i32>, nulls: NullBufferBuilder, nullable: bool },
}

impl RowsBuilder {
    /// A builder of rows with the columns of a schema.
    ///
    /// # Errors
    /// Where a type cannot be read from PostgreSQL.
    pub(crate) fn new(schema: SchemaRef) -> Result<RowsBuilder, ConnectorError> {
        let column = |field: &FieldRef| {
            Column::new(field.data_type(), field.is_nullable()).ok_or_else(|| {
                ConnectorError::option(format!(
                    "column '{}' has the type {}, which cannot be read from PostgreSQL; declare it as STRING",
                    field.name(),
                    type_name(field.data_type())
                ))
            })
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        Ok(RowsBuilder { schema, columns, rows: 0 })
    }

    /// How many rows it holds.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Adds a row: a text for each column, none for NULL.
    pub(crate) fn push<'a>(
        &mut self,
        values: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) -> Result<(), ConnectorError> {
        let mut values = values.into_iter();
        for (position, column) in self.columns.iter_mut().enumerate() {
            let Some(value) = values.next() else {
                return Err(ConnectorError::data("a row from PostgreSQL has fewer values than columns"));
            };
            column.push(value).map_err(|what| {
                let name = self.schema.field(position).name();
                ConnectorError::data(format!("a value of PostgreSQL's column '{name}' cannot be read: {what}"))
            })?;
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows; the builder begins anew.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ConnectorError> {
        let wrong = |e| ConnectorError::data(format!("rows from PostgreSQL do not fit the declared columns: {e}"));
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(wrong)
    }
}

impl Column {
    fn new(data_type: &DataType, nullable: bool) -> Option<Column> {
        match data_type {
            DataType::List(field) => Some(Column::List {
                field: field.clone(),
                elements: ScalarColumn::new(field.data_type(), field.is_nullable(), TimestampFormat::Sql)?,
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
                nullable,
            }),
            _ => ScalarColumn::new(data_type, nullable, TimestampFormat::Sql).map(Column::Scalar),
        }
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), String> {
        match self {
            Column::Scalar(column) => push_scalar(column, value),
            Column::List { elements, ends, nulls, nullable, .. } => {
                match value {
                    None if !*nullable => return Err("NULL in a NOT NULL column".to_owned()),
                    None => nulls.append_null(),
                    Some(text) => {
                        for element in split_array(text)? {
                            push_scalar(elements, element.as_deref())?;
                        }
                        nulls.append_non_null();
                    }
                }
                ends.push(i32::try_from(elements.len()).map_err(|_| "there are too many elements".to_owned())?);
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, arrow::error::ArrowError> {
        match self {
            Column::Scalar(column) => column.finish(),
            Column::List { field, elements, ends, nulls, .. } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                let list = ListArray::try_new(field.clone(), offsets, elements.finish()?, nulls.finish())?;
                Ok(Arc::new(list))
            }
        }
    }
}

fn push_scalar(column: &mut ScalarColumn, value: Option<&[u8]>) -> Result<(), String> {
    let Some(text) = value else { return column.append_null().map_err(|fault| fault.describe()) };
    let appended = match column.data_type() {
        DataType::Boolean if matches!(text, b"t" | b"true") => column.append_boolean(true),
        DataType::Boolean if matches!(text, b"f" | b"false") => column.append_boolean(false),
        DataType::Binary => {
            let bytes = text.strip_prefix(b"\\x").and_then(hex).ok_or("it is no bytea in hexadecimal digits")?;
            column.append_bytes(&bytes)
        }
        // With TimeZone UTC, and in front of which a dot and digits may stand.
        DataType::Timestamp(_, Some(_)) => match text.strip_suffix(b"+00") {
            Some(local) => column.append_text(&[local, b"Z"].concat()),
            None => column.append_text(text),
        },
        _ => column.append_text(text),
    };
    appended.map_err(|fault| fault.describe())
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if text.len().is_multiple_of(2) { text.chunks(2).map(pair).collect() } else { None }
}

/// The elements of an array literal of one dimension.
fn split_array(text: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let wrong = || format!("'{}' is no array of one dimension", String::from_utf8_lossy(text));
    // `[2:3]={..}`: bounds that are not those of every array.
    let body = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b'=').map(|at| &text[at + 1..]).ok_or_else(wrong)?,
        _ => text,
    };
    let body = body.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).ok_or_else(wrong)?;
    let mut elements = Vec::new();
    if body.is_empty() {
        return Ok(elements);
    }
    let mut at = 0;
    loop {
        let mut element = Vec::new();
        let quoted = body.get(at) == Some(&b'"');
        at += usize::from(quoted);
        loop {
            match body.get(at) {
                Some(b'\\') => {
                    element.push(*body.get(at + 1).ok_or_else(wrong)?);
                    at += 2;
                }
                Some(b'"') if quoted => {
                    at += 1;
                    break;
                }
                Some(b'{' | b'}') if !quoted => return Err(wrong()),
                Some(b',') | None if !quoted => break,
                None => return Err(wrong()),
                Some(byte) => {
                    element.push(*byte);
                    at += 1;
                }
            }
        }
        elements.push((quoted || !element.eq_ignore_ascii_case(b"null")).then_some(element));
        match body.get(at) {
            None => return Ok(elements),
            Some(b',') => at += 1,
            Some(_) => return Err(wrong()),
        }
    }
}

/// The fields of a line of COPY, without its line end; none for NULL.
pub(crate) fn split_line(line: &[u8]) -> Vec<Option<Vec<u8>>> {
    line.split(|byte| *byte == b'\t').map(|field| if field == b"\\N" { None } else { Some(unescape(field)) }).collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => text.extend(bytes.next().map(|letter| match letter {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                b'b' => 0x08,
                b'v' => 0x0b,
                b'f' => 0x0c,
                other => *other,
            })),
            other => text.push(*other),
        }
    }
    text
}
