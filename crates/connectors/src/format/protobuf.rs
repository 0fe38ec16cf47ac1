//! Protobuf messages to rows and back, by descriptors: from a file, or compiled from a `.proto` text that a file or a registry
//! holds. A message type is resolved against the table once ([`plan`]); the plan reads the wire straight into columns ([`read`]),
//! with no message in between, and takes back what it has appended where a message is broken. Never trusts a byte.

mod derive;
mod encode;
mod options;
mod plan;
mod read;
mod schema;
mod wire;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::block::{RecordDecoder, RecordEnd, whole};
use super::fault::Faulty;
use super::message::LearningDecoder;
use super::registered::{HEAD, Learned, LearnedSchemas, SchemaKey, id_of, resolved};
use super::tree::TreeColumn;
use crate::schema_registry::{RegisteredSchema, SchemaKind, SchemaRegistry};

use plan::{MessagePlan, Resolver};

pub(crate) use options::ProtobufOptions;

/// Decodes messages.
pub(crate) struct ProtobufDecoder {
    schema: SchemaRef,
    columns: Vec<TreeColumn>,
    options: ProtobufOptions,
    /// For messages of the one type that the user names.
    plain: Option<MessagePlan>,
    /// For those that name theirs.
    learned: LearnedSchemas<MessagePlan>,
    /// Rows so far.
    rows: usize,
}

impl ProtobufDecoder {
    /// A decoder of `columns` of the table's `schema`; an error names what does not fit.
    pub(crate) fn new(
        table: &SchemaRef,
        columns: &[usize],
        options: &ProtobufOptions,
    ) -> Result<ProtobufDecoder, String> {
        let schema = Arc::new(table.project(columns).map_err(|error| error.to_string())?);
        let plain = match options.message.descriptor() {
            None => None,
            Some(message) => {
                let mut resolver = Resolver { defaults: options.read_default_values, notes: Vec::new() };
                Some(resolver.message(message, schema.fields(), "")?)
            }
        };
        let columns = TreeColumn::of_fields(schema.fields())?;
        let (options, learned) = (options.clone(), LearnedSchemas::default());
        Ok(ProtobufDecoder { schema, columns, options, plain, learned, rows: 0 })
    }

    /// The registry that records name their schemas of.
    pub(crate) fn registry(&self) -> Option<Arc<SchemaRegistry>> {
        self.options.registry.clone()
    }
}

impl LearningDecoder for ProtobufDecoder {
    fn unknown(&self, record: &[u8]) -> Option<SchemaKey> {
        self.learned.unknown(head(record).ok()?.0)
    }

    fn make_room(&mut self, wanted: usize) {
        self.learned.make_room(wanted);
    }

    fn learn(&mut self, registry: &SchemaRegistry, key: SchemaKey, found: Option<&RegisteredSchema>) {
        let ProtobufDecoder { schema, options, .. } = self;
        let learned = resolved(registry, key, SchemaKind::Protobuf, found, |found| {
            let message = schema::registered(found, &wire::unpack_indexes(key.message))?;
            let mut resolver = Resolver { defaults: options.read_default_values, notes: Vec::new() };
            let plan = resolver.message(&message, schema.fields(), "")?;
            Ok((plan, resolver.notes))
        });
        self.learned.learn(key, learned);
    }
}

/// What a record names: its schema, which message of it, and where the message begins.
fn head(record: &[u8]) -> Faulty<(SchemaKey, usize)> {
    let id = id_of(record)?;
    let (message, start) = wire::indexes(record, HEAD)?;
    Ok((SchemaKey { id, message }, start))
}

impl RecordDecoder for ProtobufDecoder {
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        whole(rest)
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn takes_any_bytes(&self) -> bool {
        true
    }

    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        let ProtobufDecoder { columns, plain, learned, rows, .. } = self;
        let (plan, start) = match plain {
            Some(plan) => (&*plan, 0),
            None => {
                let (key, start) = head(record)?;
                match learned.plan(key)? {
                    Learned::Plan(plan) => (plan, start),
                    Learned::Refused(fault) => return Err(fault.clone()),
                }
            }
        };
        plan.read(columns, *rows, record, start..record.len())?;
        *rows += 1;
        Ok(1)
    }

    fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(TreeColumn::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }
}

#[cfg(test)]
mod tests;
