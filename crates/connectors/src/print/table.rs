//! Rows as an aligned table. Called by the print sink. The first rows fix the widths of the columns; the
//! header comes once. A stream of changes has the kind of each row as its first column, `op`.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;

use super::Kinds;
use crate::error::ConnectorError;
use crate::format::JsonOptions;
use crate::format::encode::{ColumnView, JsonEncoder, Value, write_plain_value};

/// Widest column, in characters; longer texts are cut.
pub const CELL_WIDTH_MAX: usize = 40;
/// How NULL is shown.
pub(crate) const NULL: &str = "NULL";

/// The widths of columns, in characters.
pub(super) struct TableLayout {
    widths: Vec<usize>,
}

/// One line a row; the header first where there is no layout yet.
pub(super) fn write_rows(
    layout: &mut Option<TableLayout>,
    rows: &RecordBatch,
    kinds: Kinds<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ConnectorError> {
    let mut columns: Vec<Vec<String>> = rows.columns().iter().map(|c| texts(c.as_ref())).collect::<Result<_, _>>()?;
    let mut names: Vec<String> = rows.schema_ref().fields().iter().map(|f| table_cell(f.name())).collect();
    let mut numbers: Vec<bool> = rows.columns().iter().map(|c| is_number(c.data_type())).collect();
    if kinds.updating {
        columns.insert(0, (0..rows.num_rows()).map(|row| kinds.symbol(row).to_owned()).collect());
        names.insert(0, "op".to_owned());
        numbers.insert(0, false);
    }
    let layout = match layout {
        Some(layout) => layout,
        None => {
            let width =
                |name: &str, texts: &[String]| texts.iter().map(|t| length(t)).chain([length(name)]).max().unwrap_or(0);
            let widths = names.iter().zip(&columns).map(|(name, texts)| width(name, texts)).collect();
            let layout = layout.insert(TableLayout { widths });
            write_line(layout, names.iter().map(|n| (n.as_str(), false)), out);
            let rule: Vec<_> = layout.widths.iter().map(|w| "-".repeat(w + 2)).collect();
            out.extend_from_slice(rule.join("+").as_bytes());
            out.push(b'\n');
            layout
        }
    };
    for row in 0..rows.num_rows() {
        write_line(layout, columns.iter().zip(&numbers).map(|(texts, number)| (texts[row].as_str(), *number)), out);
    }
    Ok(())
}

/// Cells with bars between them; numbers to the right.
fn write_line<'a>(layout: &TableLayout, cells: impl Iterator<Item = (&'a str, bool)>, out: &mut Vec<u8>) {
    let mut line = String::new();
    for (index, ((text, right), width)) in cells.zip(&layout.widths).enumerate() {
        line.push_str(if index > 0 { " | " } else { " " });
        let padding = " ".repeat(width.saturating_sub(length(text)));
        if right {
            line.push_str(&padding);
        }
        line.push_str(text);
        if !right {
            line.push_str(&padding);
        }
    }
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

fn texts(column: &dyn arrow::array::Array) -> Result<Vec<String>, ConnectorError> {
    let shown = |text: &Option<String>| table_cell(text.as_deref().unwrap_or(NULL));
    Ok(whole_texts(column)?.iter().map(shown).collect())
}

/// The values, however long; none where they are NULL.
pub(super) fn whole_texts(column: &dyn arrow::array::Array) -> Result<Vec<Option<String>>, ConnectorError> {
    let view = ColumnView::new(column)?;
    let json = JsonEncoder::new(&JsonOptions { encode_decimal_as_plain_number: true, ..JsonOptions::default() });
    let mut bytes = Vec::new();
    let text = |row| {
        bytes.clear();
        match view.value(row) {
            Value::Null => return None,
            nested @ (Value::Row(..) | Value::List(..) | Value::Map(..)) => json.write_value(&nested, &mut bytes),
            plain => write_plain_value(&plain, &mut bytes),
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok((0..column.len()).map(text).collect())
}

/// Cuts a long text and shows line ends and other control characters as escapes, so that a row stays one line.
#[must_use]
pub fn table_cell(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(CELL_WIDTH_MAX + 1) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if length(&shown) > CELL_WIDTH_MAX {
        shown = shown.chars().take(CELL_WIDTH_MAX - 1).collect();
        shown.push('…');
    }
    shown
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}
