//! Rows that are asked for by key: for each batch one question for all of its keys that are not in the cache. The thread
//! waits for the answer; its other tasks go on elsewhere meanwhile.

mod cache;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use hashbrown::{HashMap, HashSet};
use mainstem_connectors::{ConnectorError, Lookup};
use mainstem_plan::operator::{LookupByKey, LookupJoin as Spec};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use self::cache::Cache;
use super::table::LookupTable;
use crate::error::EngineError;
use crate::join::key_index::{KeyFormat, Keys};

/// Keys that are asked for at once.
const KEYS_MAX: usize = 4096;
/// Wait before a lookup is tried again, times the number of tries.
const RETRY_WAIT_MS: u64 = 200;

/// See the module.
pub(crate) struct KeyedLookup {
    name: String,
    table: String,
    lookup: Arc<Mutex<Box<dyn Lookup>>>,
    /// Columns of the left side that are compared, and their types on the right.
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    key_schema: SchemaRef,
    /// Columns of the rows that are found.
    schema: SchemaRef,
    converter: RowConverter,
    cache: Option<Cache>,
    retries_max: u32,
}

impl KeyedLookup {
    /// `name`: of the operator; `table`: of the table that is looked up.
    pub(crate) fn new(
        name: &str,
        table: &str,
        spec: &Spec,
        by_key: &LookupByKey,
        lookup: Box<dyn Lookup>,
    ) -> Result<KeyedLookup, EngineError> {
        let schema = spec.on.right_schema.clone();
        let types: Vec<DataType> =
            spec.on.right_keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
        let fields: Vec<Field> = types
            .iter()
            .enumerate()
            .map(|(at, data_type)| Field::new(format!("k{at}"), data_type.clone(), true))
            .collect();
        let sort = types.into_iter().map(SortField::new).collect();
        Ok(KeyedLookup {
            name: name.to_owned(),
            table: table.to_owned(),
            lookup: Arc::new(Mutex::new(lookup)),
            left_keys: spec.on.left_keys.clone(),
            right_keys: spec.on.right_keys.clone(),
            key_schema: Arc::new(Schema::new(fields)),
            schema,
            converter: RowConverter::new(sort).map_err(|e| EngineError::arrow(name, &e))?,
            cache: by_key.cache.clone().map(Cache::new),
            retries_max: by_key.retries_max,
        })
    }

    /// Asks for nothing, which shows that the table is there and as it was declared.
    pub(super) fn check(&self) -> impl Future<Output = Result<(), EngineError>> + Send + 'static {
        let (lookup, table) = (self.lookup.clone(), self.table.clone());
        let nothing = RecordBatch::new_empty(self.key_schema.clone());
        async move {
            let found = lookup.lock().await.find(&nothing).await;
            found.map(|_| ()).map_err(|error| EngineError::Connector { table, error })
        }
    }

    /// The rows that have the keys of a batch of the left side.
    pub(super) fn look_up(
        &mut self,
        rows: &RecordBatch,
        keys: &Keys,
        format: &KeyFormat,
        now_ms: i64,
    ) -> Result<LookupTable, EngineError> {
        let name = self.name.clone();
        let failed = |e| EngineError::arrow(&name, &e);
        let columns = self.key_columns(rows).map_err(failed)?;
        let texts = self.converter.convert_columns(&columns).map_err(failed)?;
        let mut known = HashSet::new();
        let mut found = Vec::new();
        let mut asked = Vec::new();
        for row in (0..rows.num_rows()).filter(|row| !keys.is_never_equal(*row)) {
            let key = texts.row(row).owned();
            if !known.insert(key.clone()) {
                continue;
            }
            match self.cache.as_mut().and_then(|cache| cache.get(&key, now_ms)) {
                Some(cached) => found.push(cached),
                None => asked.push((u32::try_from(row).unwrap_or(u32::MAX), key)),
            }
        }
        for asked in asked.chunks(KEYS_MAX) {
            let positions = UInt32Array::from_iter_values(asked.iter().map(|(row, _)| *row));
            let taken = columns.iter().map(|column| compute::take(column, &positions, None));
            let taken = taken.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let wanted = RecordBatch::try_new(self.key_schema.clone(), taken).map_err(failed)?;
            let answer = self.ask(&wanted)?;
            let answer = RecordBatch::try_new(self.schema.clone(), answer.columns().to_vec()).map_err(failed)?;
            if self.cache.is_some() {
                self.keep(asked, &answer, now_ms).map_err(failed)?;
            }
            found.push(answer);
        }
        let table = compute::concat_batches(&self.schema, &found).map_err(failed)?;
        LookupTable::new(table, format)
    }

    fn key_columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let fields = self.key_schema.fields().iter();
        self.left_keys
            .iter()
            .zip(fields)
            .map(|(key, field)| compute::cast(rows.column(*key), field.data_type()))
            .collect()
    }

    fn ask(&self, keys: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let asked = async {
            let mut lookup = self.lookup.lock().await;
            let mut tries = 0;
            loop {
                match lookup.find(keys).await {
                    Ok(found) => return Ok(found),
                    Err(error) if error.is_retryable() && tries < self.retries_max => {
                        tries += 1;
                        tracing::warn!(table = self.table, %error, tries, "a lookup failed, trying again");
                        let wait_ms = RETRY_WAIT_MS * u64::from(tries);
                        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let answer: Result<RecordBatch, ConnectorError> =
            tokio::task::block_in_place(|| Handle::current().block_on(asked));
        answer.map_err(|error| EngineError::Connector { table: self.table.clone(), error })
    }

    /// Puts an answer into the cache, key by key.
    fn keep(&mut self, asked: &[(u32, OwnedRow)], answer: &RecordBatch, now_ms: i64) -> Result<(), ArrowError> {
        let columns: Vec<ArrayRef> = self.right_keys.iter().map(|key| answer.column(*key).clone()).collect();
        let keys = self.converter.convert_columns(&columns)?;
        let mut rows_of: HashMap<OwnedRow, Vec<u32>> = HashMap::new();
        for row in 0..answer.num_rows() {
            rows_of.entry(keys.row(row).owned()).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let Some(cache) = &mut self.cache else { return Ok(()) };
        for (_, key) in asked {
            let rows = rows_of.remove(key).unwrap_or_default();
            cache.put(key.clone(), compute::take_record_batch(answer, &UInt32Array::from(rows))?, now_ms);
        }
        Ok(())
    }
}
