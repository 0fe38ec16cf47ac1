//! Avro records to rows and back. Three ways to know the schema that a record was written with: plain records have that of
//! the table (`avro`), Confluent's have the id of one in a registry (`avro-confluent`, `debezium-avro-confluent`), and files
//! begin with theirs ([`container`]). Each schema is resolved against the table once ([`resolve`]); the plan that comes of it reads
//! records straight into columns ([`plan`]), which lets a broken record be taken back without those round it, and records of
//! several schemas stand in one batch. Never trusts a byte.

mod container;
mod derive;
mod encode;
mod envelope;
mod options;
mod plan;
mod resolve;
mod schema;
mod snappy;
mod wire;

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::block::{RecordDecoder, RecordEnd, whole};
use super::fault::{Fault, Faulty};
use super::json::Kinds;
use super::message::LearningDecoder;
use super::registered::{HEAD, Learned, LearnedSchemas, SchemaKey, id_of, resolved};
use super::tree::TreeColumn;
use crate::schema_registry::{RegisteredSchema, SchemaKind, SchemaRegistry};

use envelope::EnvelopePlan;
use resolve::{Resolver, RowPlan};
use schema::{AvroSchema, Shape};
use wire::Wire;

pub(crate) use container::{AvroContainer, ContainerEncoder, ContainerError, ContainerRows};
pub(crate) use options::AvroOptions;

/// Decodes messages.
pub(crate) struct AvroDecoder {
    schema: SchemaRef,
    columns: Vec<TreeColumn>,
    options: AvroOptions,
    /// For records of the table's own schema.
    plain: Option<RecordPlan>,
    /// For those that name theirs.
    learned: LearnedSchemas<RecordPlan>,
    kinds: Kinds,
}

/// How the records of a schema are read.
struct RecordPlan {
    schema: Arc<AvroSchema>,
    how: How,
}

enum How {
    Row(RowPlan),
    Change(EnvelopePlan),
}

impl AvroDecoder {
    /// A decoder of `columns` of the table's `schema`; an error names what Avro cannot hold.
    pub(crate) fn new(table: &SchemaRef, columns: &[usize], options: &AvroOptions) -> Result<AvroDecoder, String> {
        let schema = Arc::new(table.project(columns).map_err(|error| error.to_string())?);
        let schema = if options.upsert { nullable_but(&schema, &options.key) } else { schema };
        let plain = match &options.registry {
            Some(_) => {
                options.own_schema()?;
                None
            }
            None => {
                let own = Arc::new(options.table_schema(table.fields())?);
                let (plan, _) = RecordPlan::new(own, None, schema.fields(), options)?;
                Some(plan)
            }
        };
        let columns = TreeColumn::of_fields(schema.fields())?;
        let (options, kinds) = (options.clone(), Kinds::default());
        Ok(AvroDecoder { schema, columns, options, plain, learned: LearnedSchemas::default(), kinds })
    }

    /// The registry that records name their schemas of.
    pub(crate) fn registry(&self) -> Option<Arc<SchemaRegistry>> {
        self.options.registry.clone()
    }

    /// Appends the rows of the record at hand, of which there may be several.
    #[inline]
    fn read_from(&mut self, record: &[u8], wire: &mut Wire<'_>) -> Faulty<usize> {
        let AvroDecoder { schema, columns, plain, learned, kinds, .. } = self;
        let plan = match plain {
            Some(plan) => &*plan,
            None => match learned.plan(key_of(record)?)? {
                Learned::Plan(plan) => {
                    wire.at = HEAD;
                    plan
                }
                Learned::Refused(fault) => return Err(fault.clone()),
            },
        };
        match &plan.how {
            How::Row(row) => {
                row.read(&plan.schema, columns, &|index| schema.field(index).name(), wire)?;
                Ok(1)
            }
            How::Change(change) => change.read(&plan.schema, schema.fields(), columns, kinds, wire),
        }
    }
}

impl LearningDecoder for AvroDecoder {
    fn unknown(&self, record: &[u8]) -> Option<SchemaKey> {
        self.learned.unknown(key_of(record).ok()?)
    }

    fn make_room(&mut self, wanted: usize) {
        self.learned.make_room(wanted);
    }

    fn learn(&mut self, registry: &SchemaRegistry, key: SchemaKey, found: Option<&RegisteredSchema>) {
        let AvroDecoder { schema, options, .. } = self;
        let learned = resolved(registry, key, SchemaKind::Avro, found, |found| {
            let known: Vec<String> = found.references.iter().map(|(_, text)| text.clone()).collect();
            let writer = Arc::new(AvroSchema::parse(&found.text, &known)?);
            RecordPlan::new(writer, options.own_schema()?.as_ref(), schema.fields(), options)
        });
        self.learned.learn(key, learned);
    }
}

impl RecordPlan {
    /// A plan for records of a schema, and what of it differs from the table without harm.
    fn new(
        writer: Arc<AvroSchema>,
        reader: Option<&AvroSchema>,
        columns: &Fields,
        options: &AvroOptions,
    ) -> Result<(RecordPlan, Vec<String>), String> {
        let mut resolver = Resolver { writer: &writer, reader, notes: Vec::new() };
        let how = match options.envelope {
            true => How::Change(EnvelopePlan::new(&mut resolver, columns, options.upsert)?),
            false => {
                let Shape::Record(fields) = &writer.get(writer.root()).shape else {
                    return Err(format!("the schema is a {}, and rows need a record", writer.name(writer.root())));
                };
                How::Row(resolver.record(fields, columns, reader.map(AvroSchema::root), "")?)
            }
        };
        let notes = resolver.notes;
        Ok((RecordPlan { schema: writer, how }, notes))
    }
}

/// What a record names its schema by.
#[inline]
fn key_of(record: &[u8]) -> Faulty<SchemaKey> {
    Ok(SchemaKey { id: id_of(record)?, message: 0 })
}

/// The schema of rows that may be told by their key alone.
fn nullable_but(schema: &Schema, key: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match key.contains(field.name()) {
        true => Arc::clone(field),
        false => Arc::new(field.as_ref().clone().with_nullable(true)),
    });
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

impl RecordDecoder for AvroDecoder {
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
        let mut wire = Wire::new(record);
        let rows = self.read_from(record, &mut wire)?;
        match record.len() - wire.at {
            0 => Ok(rows),
            surplus => Err(Fault::new(wire.at, format!("{surplus} bytes come after the record"))),
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.kinds.truncate(rows);
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter_mut().map(TreeColumn::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }

    fn finish_changes(&mut self) -> Option<Int8Array> {
        self.kinds.finish()
    }
}

#[cfg(test)]
mod tests;
