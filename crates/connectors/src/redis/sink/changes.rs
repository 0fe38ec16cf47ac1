//! Changes as arguments of the script. Called by the committer.

use arrow::array::{AsArray, Int8Array, RecordBatch};
use arrow::datatypes::Int8Type;

use super::Target;
use crate::error::{ConnectorError, ErrorKind};
use crate::format::JsonOptions;
use crate::format::encode::{ColumnView, JsonEncoder, JsonMember, Value, kind, updates, write_plain_value};
use crate::redis::options::Mode;

/// Writes changes if the marker is as expected, and moves it on. `KEYS[1]` is the marker, `ARGV` begins with what is expected
/// there (nothing: empty), what is to be there, and how many milliseconds rows live (0: for ever). Then come the changes: a
/// letter, the key, and what belongs to the letter:
/// `D` deletes; `S` value: sets a text; `H` n, m, n fields each with its value, m fields that go: sets a hash.
pub(super) const SCRIPT: &str = r"
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local ttl = tonumber(ARGV[3])
local at = 4
while at <= #ARGV do
  local letter, key = ARGV[at], ARGV[at + 1]
  at = at + 2
  if letter == 'D' then
    redis.call('DEL', key)
  elseif letter == 'S' then
    if ttl > 0 then redis.call('SET', key, ARGV[at], 'PX', ttl) else redis.call('SET', key, ARGV[at]) end
    at = at + 1
  else
    local sets, gone = 2 * tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    at = at + 2
    if sets > 0 then redis.call('HSET', key, unpack(ARGV, at, at + sets - 1)) end
    at = at + sets
    if gone > 0 then redis.call('HDEL', key, unpack(ARGV, at, at + gone - 1)) end
    at = at + gone
    if ttl > 0 then redis.call('PEXPIRE', key, ttl) end
  end
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
";

/// Fields that a hash may have: the script spreads them on its stack.
pub(super) const FIELDS_MAX: usize = 1_000;

/// Changes, encoded.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) values: Vec<Vec<u8>>,
    /// Bytes of the values.
    pub(super) bytes: usize,
}

impl Arguments {
    fn push(&mut self, value: impl Into<Vec<u8>>) {
        let value = value.into();
        self.bytes += value.len();
        self.values.push(value);
    }
}

/// Staged rows, ready to be encoded.
pub(super) struct Changes<'a> {
    target: &'a Target,
    rows: &'a RecordBatch,
    kinds: &'a Int8Array,
    columns: Vec<ColumnView<'a>>,
    /// For each row whether it is the first half of an update by the row behind it.
    replaced: Vec<bool>,
    json: JsonEncoder,
    /// The columns as members of a JSON object; none where rows are hashes.
    members: Vec<JsonMember<'a>>,
}

impl<'a> Changes<'a> {
    /// `rows` have their kinds as the last column.
    pub(super) fn new(target: &'a Target, rows: &'a RecordBatch) -> Result<Changes<'a>, ConnectorError> {
        let width = target.schema.fields().len();
        let kinds =
            (rows.num_columns() == width + 1).then(|| rows.column(width).as_primitive_opt::<Int8Type>()).flatten();
        let kinds = kinds.ok_or_else(|| {
            let message = format!("the staged output of table '{}' does not hold changes of this version", target.name);
            ConnectorError::new(ErrorKind::Lost, message)
        })?;
        let columns = rows.columns()[..width].iter().map(|column| ColumnView::new(column.as_ref()));
        let (json, members) = match &target.options.mode {
            Mode::Text(json) => (JsonEncoder::new(json), JsonEncoder::members(rows, 0..width)?),
            Mode::Hash => (JsonEncoder::new(&JsonOptions::default()), Vec::new()),
        };
        Ok(Changes {
            target,
            rows,
            kinds,
            columns: columns.collect::<Result<_, _>>()?,
            replaced: updates(rows, Some(kinds), &target.key)?,
            json,
            members,
        })
    }

    /// Appends what a row does; an update does nothing in its first half.
    pub(super) fn encode(&self, row: usize, to: &mut Arguments) -> Result<(), ConnectorError> {
        if self.replaced.get(row) == Some(&true) {
            return Ok(());
        }
        let key = self.target.options.pattern.key(&self.columns, row, self.rows)?;
        if !kind(Some(self.kinds), row).is_addition() {
            to.push("D");
            to.push(key);
            return Ok(());
        }
        match &self.target.options.mode {
            Mode::Text(_) => {
                let mut text = vec![b'{'];
                self.json.write_members(&self.members, row, &mut text);
                text.push(b'}');
                [b"S".to_vec(), key, text].into_iter().for_each(|value| to.push(value));
            }
            Mode::Hash => self.encode_hash(key, row, to),
        }
        Ok(())
    }

    fn encode_hash(&self, key: Vec<u8>, row: usize, to: &mut Arguments) {
        let name = |column: usize| self.rows.schema_ref().field(column).name().as_bytes().to_vec();
        let (gone, set): (Vec<usize>, Vec<usize>) =
            (0..self.columns.len()).partition(|column| matches!(self.columns[*column].value(row), Value::Null));
        to.push("H");
        to.push(key);
        to.push(set.len().to_string());
        to.push(gone.len().to_string());
        for column in set {
            let mut text = Vec::new();
            match self.columns[column].value(row) {
                Value::Bytes(bytes) => text.extend_from_slice(bytes),
                nested @ (Value::Row(..) | Value::List(..) | Value::Map(..)) => {
                    self.json.write_value(&nested, &mut text)
                }
                plain => write_plain_value(&plain, &mut text),
            }
            to.push(name(column));
            to.push(text);
        }
        gone.into_iter().for_each(|column| to.push(name(column)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::redis::options::RedisOptions;
    use crate::staging::{add_kinds, with_kinds};
    use crate::table::TableSpec;

    fn encoded(options: &[(&str, &str)], kinds: &[i8]) -> Vec<String> {
        let given = [("connector", "redis"), ("url", "redis://h")];
        let schema =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]));
        let table = TableSpec {
            name: "t".into(),
            schema: schema.clone(),
            primary_key: vec!["id".into()],
            partition_keys: Vec::new(),
            options: given.iter().chain(options).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let options = RedisOptions::read(&table).unwrap_or_else(|error| panic!("{error}"));
        let target = Target { name: "t".into(), schema: schema.clone(), key: vec![0], options };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 1, 2, 3])),
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("c")])),
        ];
        let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let rows = add_kinds(&rows, &with_kinds(&schema), Some(&Int8Array::from(kinds.to_vec()))).unwrap();
        let changes = Changes::new(&target, &rows).unwrap();
        let mut arguments = Arguments::default();
        (0..4).for_each(|row| changes.encode(row, &mut arguments).unwrap());
        assert_eq!(arguments.bytes, arguments.values.iter().map(Vec::len).sum::<usize>());
        arguments.values.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn rows_become_hashes_and_texts() {
        let hashes = encoded(&[], &[1, 2, 0, 3]);
        let expected = "H t:1 2 0 id 1 v b H t:2 1 1 id 2 v D t:3";
        assert_eq!(hashes.join(" "), expected, "the first half of an update does nothing");
        let texts = encoded(
            &[("mode", "string"), ("json.encode.ignore-null-fields", "true"), ("format", "json")],
            &[0, 3, 2, 1],
        );
        assert_eq!(texts.join(" "), r#"S t:1 {"id":1,"v":"a"} D t:1 S t:2 {"id":2} D t:3"#);
    }
}
