//! Counting the rows of tables by key and by key group.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{HotKey, KeyCount, Spread, TableContent};
use crate::state_file::TableDelta;
use crate::store::Piece;

/// All tables of an operator, by name and version.
#[derive(Default)]
pub(super) struct Tables {
    tables: BTreeMap<(String, u32), Counted>,
}

#[derive(Default)]
struct Counted {
    rows: u64,
    bytes: u64,
    columns: Vec<String>,
    groups: BTreeMap<u16, u64>,
    keys: Option<Keys>,
}

impl Tables {
    /// Counts some rows.
    pub(super) fn add(&mut self, piece: &Piece) {
        let TableDelta { table, version, key, key_groups, rows } = &piece.rows;
        let counted = self.tables.entry((table.clone(), *version)).or_insert_with(|| Counted::of(rows, key));
        counted.rows += rows.num_rows() as u64;
        counted.bytes += piece.bytes;
        for group in key_groups {
            *counted.groups.entry(*group).or_default() += 1;
        }
        // A file that was written before tables said what their key is cannot be counted, so none of them is.
        let columns: Option<Vec<ArrayRef>> = key.iter().map(|at| rows.columns().get(*at).cloned()).collect();
        let is_counted = match (&mut counted.keys, columns) {
            (Some(keys), Some(columns)) if !columns.is_empty() => keys.add(&columns).is_ok(),
            _ => false,
        };
        if !is_counted {
            counted.keys = None;
        }
    }

    /// What comes from here on is of other keys.
    pub(super) fn end_pass(&mut self, top: usize) {
        self.tables.values_mut().filter_map(|table| table.keys.as_mut()).for_each(|keys| keys.end_pass(top));
    }

    /// What was counted.
    pub(super) fn finish(self, key_groups: u16, top: usize) -> Vec<TableContent> {
        let content = |((table, version), counted): ((String, u32), Counted)| TableContent {
            table,
            version,
            rows: counted.rows,
            bytes: counted.bytes,
            columns: counted.columns,
            keys: counted.keys.map(Keys::finish),
            spread: spread(&counted.groups, key_groups, top),
        };
        self.tables.into_iter().map(content).collect()
    }
}

impl Counted {
    fn of(rows: &RecordBatch, key: &[usize]) -> Counted {
        let schema = rows.schema_ref();
        let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let keys = if key.is_empty() { None } else { Keys::of(rows, key).ok() };
        Counted { columns, keys, ..Counted::default() }
    }
}

/// The keys of a table. Those of the pass are held as bytes, of those before it only what is named.
struct Keys {
    columns: Vec<String>,
    converter: RowConverter,
    pass: HashMap<Box<[u8]>, u64>,
    count: u64,
    hot: Vec<HotKey>,
}

impl Keys {
    /// For the columns at these places.
    fn of(rows: &RecordBatch, key: &[usize]) -> Result<Keys, ArrowError> {
        let schema = rows.schema_ref();
        let fields = key.iter().map(|at| schema.fields().get(*at)).collect::<Option<Vec<_>>>();
        let fields = fields.ok_or_else(|| ArrowError::SchemaError("a key that is no column".to_owned()))?;
        let sorts = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Keys {
            columns: fields.iter().map(|field| field.name().clone()).collect(),
            converter: RowConverter::new(sorts)?,
            pass: HashMap::new(),
            count: 0,
            hot: Vec::new(),
        })
    }

    fn add(&mut self, columns: &[ArrayRef]) -> Result<(), ArrowError> {
        for row in &self.converter.convert_columns(columns)? {
            match self.pass.get_mut(row.data()) {
                Some(count) => *count += 1,
                None => {
                    self.pass.insert(row.data().into(), 1);
                }
            }
        }
        Ok(())
    }

    fn end_pass(&mut self, top: usize) {
        self.count += self.pass.len() as u64;
        let mut repeated: Vec<(u64, Box<[u8]>)> =
            self.pass.drain().filter(|(_, rows)| *rows > 1).map(|(key, rows)| (rows, key)).collect();
        // Of equal ones always the same.
        repeated.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        repeated.truncate(top);
        for (rows, key) in repeated {
            let parser = self.converter.parser();
            let shown = self.converter.convert_rows([parser.parse(&key)]).and_then(|columns| texts(&columns));
            self.hot.push(HotKey { key: shown.unwrap_or_else(|error| vec![error.to_string()]), rows });
        }
        self.hot.sort_by_key(|hot| std::cmp::Reverse(hot.rows));
        self.hot.truncate(top);
    }

    fn finish(self) -> KeyCount {
        KeyCount { columns: self.columns, keys: self.count, hot: self.hot }
    }
}

/// The first value of each column.
fn texts(columns: &[ArrayRef]) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let text = |column: &ArrayRef| Ok(ArrayFormatter::try_new(column.as_ref(), &options)?.value(0).to_string());
    columns.iter().map(text).collect()
}

fn spread(groups: &BTreeMap<u16, u64>, key_groups: u16, top: usize) -> Spread {
    let mut fullest: Vec<(u16, u64)> = groups.iter().map(|(group, rows)| (*group, *rows)).collect();
    fullest.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
    let rows: u64 = groups.values().sum();
    let average = rows as f64 / groups.len().max(1) as f64;
    let skew = fullest.first().map_or(0.0, |(_, most)| *most as f64 / average);
    fullest.truncate(top);
    Spread { key_groups, used: u16::try_from(groups.len()).unwrap_or(u16::MAX), skew, fullest }
}
