//! Collects changes of the table as rows with their kinds. Pure.

use std::collections::BTreeMap;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeKind;

use super::pgoutput::{Old, Relation, Tuple, Value};
use crate::error::ConnectorError;
use crate::postgres::text::RowsBuilder;

/// A key, as texts.
type Key = Vec<Option<Vec<u8>>>;

/// See the module.
pub(super) struct Changes {
    builder: RowsBuilder,
    kinds: Vec<i8>,
    schema: SchemaRef,
    /// The declared key.
    key_names: Vec<String>,
    /// None before the table was described.
    columns: Option<Columns>,
    /// What became of keys in transactions whose rows the copy holds in a newer version: whether they are gone.
    folded: BTreeMap<Key, bool>,
    table: String,
}

/// Where the columns stand in the tuples of the table, as the server has described them last.
struct Columns {
    relation: u32,
    read: Vec<usize>,
    key: Vec<usize>,
}

/// A change of a row.
pub(super) enum Change {
    Insert(Tuple),
    Update(Option<Old>, Tuple),
    Delete(Old),
}

impl Changes {
    /// Nothing yet. `schema`: what is read; `key`: the declared key; `table`: name for messages.
    pub(super) fn new(schema: SchemaRef, key: &[String], table: &str) -> Result<Changes, ConnectorError> {
        Ok(Changes {
            builder: RowsBuilder::new(schema.clone())?,
            kinds: Vec::new(),
            schema,
            key_names: key.to_vec(),
            columns: None,
            folded: BTreeMap::new(),
            table: table.to_owned(),
        })
    }

    /// Takes note of how tuples of the table look from here on.
    pub(super) fn describe(&mut self, relation: &Relation) -> Result<(), ConnectorError> {
        let position = |name: &String| {
            relation.columns.iter().position(|column| column == name).ok_or_else(|| {
                ConnectorError::data(format!(
                    "the column '{name}' of PostgreSQL's table {}.{} is there no more; declare the table as it is, and start \
                     the job anew",
                    relation.schema, relation.name
                ))
            })
        };
        let read = self.schema.fields().iter().map(|field| position(field.name())).collect::<Result<_, _>>()?;
        let key = self.key_names.iter().map(position).collect::<Result<_, _>>()?;
        self.columns = Some(Columns { relation: relation.id, read, key });
        Ok(())
    }

    /// Whether a change is of the table.
    pub(super) fn is_of(&self, relation: u32) -> bool {
        self.columns.as_ref().is_some_and(|columns| columns.relation == relation)
    }

    /// The columns that are read.
    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// How many rows are collected.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Adds a change.
    pub(super) fn add(&mut self, change: &Change) -> Result<(), ConnectorError> {
        match change {
            Change::Insert(new) => self.push(ChangeKind::Insert, new, None, false),
            Change::Delete(old) => self.push(ChangeKind::Delete, old.tuple(), None, true),
            Change::Update(old, new) => {
                let moved = match old {
                    Some(old) => self.key_of(old.tuple()) != self.key_of(new),
                    None => false,
                };
                if let Some(old) = old.as_ref().filter(|_| moved) {
                    self.push(ChangeKind::Delete, old.tuple(), None, true)?;
                }
                let whole = match old {
                    Some(Old::Row(row)) => Some(row),
                    _ => None,
                };
                self.push(ChangeKind::UpdateAfter, new, whole, false)
            }
        }
    }

    /// Takes note only of what became of the keys.
    pub(super) fn fold(&mut self, change: &Change) {
        match change {
            Change::Insert(new) => self.note(new, false),
            Change::Delete(old) => self.note(old.tuple(), true),
            Change::Update(old, new) => {
                if let Some(old) = old {
                    self.note(old.tuple(), true);
                }
                self.note(new, false);
            }
        }
    }

    /// Adds deletes of the keys that are gone, and forgets the others.
    pub(super) fn unfold(&mut self) -> Result<(), ConnectorError> {
        let gone = std::mem::take(&mut self.folded).into_iter().filter(|(_, gone)| *gone);
        for (key, _) in gone {
            let names = &self.key_names;
            let value = |name: &String| names.iter().position(|key| key == name).and_then(|at| key[at].as_deref());
            let values: Vec<_> = self.schema.fields().iter().map(|field| value(field.name())).collect();
            self.builder.push(values)?;
            self.kinds.push(ChangeKind::Delete as i8);
        }
        Ok(())
    }

    /// The rows and their kinds; begins anew.
    pub(super) fn finish(&mut self) -> Result<(RecordBatch, Int8Array), ConnectorError> {
        let kinds = std::mem::take(&mut self.kinds);
        Ok((self.builder.finish()?, Int8Array::from(kinds)))
    }

    fn note(&mut self, tuple: &Tuple, gone: bool) {
        if let Some(key) = self.key_of(tuple) {
            self.folded.insert(key, gone);
        }
    }

    fn key_of(&self, tuple: &Tuple) -> Option<Key> {
        let columns = self.columns.as_ref()?;
        let text = |at: &usize| match tuple.get(*at) {
            Some(Value::Text(text)) => Some(text.to_vec()),
            _ => None,
        };
        Some(columns.key.iter().map(text).collect())
    }

    /// `old`: the row before, from which unchanged values are taken; `key_only`: of a row that goes only the key counts.
    fn push(
        &mut self,
        kind: ChangeKind,
        tuple: &Tuple,
        old: Option<&Tuple>,
        key_only: bool,
    ) -> Result<(), ConnectorError> {
        let Some(columns) = &self.columns else {
            return Err(ConnectorError::data("PostgreSQL sent a row of a table that it did not describe"));
        };
        let mut values = Vec::with_capacity(columns.read.len());
        for at in &columns.read {
            if key_only && !columns.key.contains(at) {
                values.push(None);
                continue;
            }
            let known = match tuple.get(*at) {
                Some(Value::Unchanged) => old.and_then(|old| old.get(*at)),
                known => known,
            };
            values.push(match known {
                Some(Value::Text(text)) => Some(text.as_ref()),
                Some(Value::Null) => None,
                Some(Value::Unchanged) | None => {
                    let name = self.schema.field(values.len()).name();
                    return Err(ConnectorError::data(format!(
                        "an update of PostgreSQL's table {} leaves out the long value of column '{name}', which it did not \
                         change: ALTER TABLE {} REPLICA IDENTITY FULL, which sends it from then on; to get over this update, \
                         start the job anew (--fresh)",
                        self.table, self.table
                    )));
                }
            });
        }
        self.builder.push(values)?;
        self.kinds.push(kind as i8);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use bytes::Bytes;

    use super::*;

    fn changes() -> Changes {
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("note", DataType::Utf8, true)]);
        let mut changes = Changes::new(Arc::new(schema), &["id".to_owned()], "t").unwrap();
        let columns = ["other", "note", "id"].map(str::to_owned).to_vec();
        changes.describe(&Relation { id: 7, schema: "s".into(), name: "t".into(), columns }).unwrap();
        changes
    }

    fn text(text: &str) -> Value {
        Value::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn row(id: &str, note: Value) -> Tuple {
        vec![Value::Null, note, text(id)]
    }

    fn shown(changes: &mut Changes) -> Vec<String> {
        let (rows, kinds) = changes.finish().unwrap();
        let (ids, notes) =
            (rows.column(0).as_primitive::<Int64Type>().clone(), rows.column(1).as_string::<i32>().clone());
        let line = |at: usize| {
            let note = notes.iter().nth(at).unwrap().unwrap_or("-");
            format!("{}{} {note}", ChangeKind::from_number(kinds.value(at)).unwrap().symbol(), ids.value(at))
        };
        (0..rows.num_rows()).map(line).collect()
    }

    #[test]
    fn changes_become_rows_by_key() {
        let mut changes = changes();
        assert!(changes.is_of(7) && !changes.is_of(8));
        changes.add(&Change::Insert(row("1", text("a")))).unwrap();
        changes.add(&Change::Update(None, row("1", text("b")))).unwrap();
        changes.add(&Change::Update(Some(Old::Key(row("1", Value::Null))), row("2", text("c")))).unwrap();
        changes.add(&Change::Update(Some(Old::Row(row("2", text("c")))), row("2", Value::Unchanged))).unwrap();
        changes.add(&Change::Delete(Old::Row(row("2", text("c"))))).unwrap();
        assert_eq!(shown(&mut changes), ["+I1 a", "+U1 b", "-D1 -", "+U2 c", "+U2 c", "-D2 -"]);
        let error = changes.add(&Change::Update(None, row("2", Value::Unchanged))).unwrap_err();
        assert!(error.message.contains("'note'") && error.message.contains("REPLICA IDENTITY FULL"), "{error}");
    }

    #[test]
    fn of_what_the_copy_holds_only_the_end_counts() {
        let mut changes = changes();
        changes.fold(&Change::Insert(row("1", text("a"))));
        changes.fold(&Change::Delete(Old::Key(row("1", Value::Null))));
        changes.fold(&Change::Delete(Old::Key(row("2", Value::Null))));
        changes.fold(&Change::Insert(row("2", text("again"))));
        changes.fold(&Change::Update(Some(Old::Key(row("3", Value::Null))), row("4", text("moved"))));
        changes.unfold().unwrap();
        assert_eq!(shown(&mut changes), ["-D1 -", "-D3 -"]);
        changes.unfold().unwrap();
        assert_eq!(changes.len(), 0);
    }
}
