//! Tables that are kept in Redis. Changes of an epoch are staged; when the epoch is complete, the committer writes them by
//! a script that looks at the sink's marker, writes, and moves the marker on, in one step of the server. A large epoch takes
//! several steps, and the marker says how far it has come.
//!
//! Invariants:
//! - Nothing is written unless the marker is the one that was read, so who was overtaken writes nothing.
//! - An epoch is written only if it is new by its number and the attempt that staged it ([`decide`](crate::staging::decide)).

mod changes;
mod committer;
mod marks;
mod staged;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeMode;

use crate::error::ConnectorError;
use crate::format::encode::check_columns;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::options::{Mode, RedisOptions};

use changes::FIELDS_MAX;
use committer::RedisCommitter;
use staged::StagedWriter;

/// The table as one that is kept in Redis.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let options = RedisOptions::read(table)?;
    check_columns(&table.schema, "redis", true)?;
    if options.mode == Mode::Hash && table.schema.fields().len() > FIELDS_MAX {
        return Err(ConnectorError::option(format!(
            "table '{}' has {} columns, a hash takes at most {FIELDS_MAX}; set 'mode' = 'string'",
            table.name,
            table.schema.fields().len()
        )));
    }
    let key = table.primary_key.iter().filter_map(|name| table.schema.index_of(name).ok()).collect();
    Ok(Arc::new(RedisSink(Arc::new(Target { name: table.name.clone(), schema: table.schema.clone(), key, options }))))
}

/// What is written, and how.
struct Target {
    /// Name of the declared table.
    name: String,
    schema: SchemaRef,
    /// Positions of the primary key's columns.
    key: Vec<usize>,
    options: RedisOptions,
}

struct RedisSink(Arc<Target>);

impl Sink for RedisSink {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Upsert
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let how = "the changes of an epoch are staged with the checkpoint, and written when it is complete by a script that \
                   moves a marker on in the same step";
        (Delivery::ExactlyOnce, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        Box::new(StagedWriter::new(self.0.clone(), &ctx))
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        Some(Box::new(RedisCommitter::new(self.0.clone(), ctx)))
    }
}
