//! The `blackhole` sink: takes rows and drops them, for measuring a pipeline without its sink. Called by the
//! registry.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use crate::error::ConnectorError;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

/// The table as a sink that drops all rows.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    table.options().finish()?;
    Ok(Arc::new(Blackhole))
}

struct Blackhole;

#[async_trait]
impl SinkWriter for Blackhole {
    async fn write(&mut self, _rows: &RecordBatch, _changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        Ok(async { Ok(Vec::new()) }.boxed())
    }
}

impl Sink for Blackhole {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Retract
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        (Delivery::ExactlyOnce, "every row is dropped, so none can be seen twice".to_owned())
    }

    fn writer(&self, _ctx: WriterContext) -> Box<dyn SinkWriter> {
        Box::new(Blackhole)
    }

    fn committer(&self, _ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        None
    }
}
