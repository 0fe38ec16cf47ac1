//! The `blackhole` sink: takes rows and drops them, for measuring a pipeline without its sink. Called by the
//! registry.

mod latency;

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use self::latency::{Latencies, LatencyOptions};
use crate::error::ConnectorError;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

/// The table as a sink that drops all rows.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let mut options = table.options();
    let latency = LatencyOptions::read(&mut options)?;
    options.finish()?;
    Ok(Arc::new(Blackhole { latency }))
}

struct Blackhole {
    /// What is measured, if anything.
    latency: Option<LatencyOptions>,
}

struct Writer {
    latencies: Option<Latencies>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        match &mut self.latencies {
            Some(latencies) => latencies.take(rows, changes),
            None => Ok(()),
        }
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let report = self.latencies.as_ref().map(Latencies::report);
        Ok(async move {
            if let Some(report) = report {
                report.write().await?;
            }
            Ok(Vec::new())
        }
        .boxed())
    }
}

impl Sink for Blackhole {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Retract
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        (Delivery::ExactlyOnce, "every row is dropped, so none can be seen twice".to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        let latencies = self.latency.as_ref().map(|options| Latencies::new(options, &ctx));
        Box::new(Writer { latencies })
    }

    fn committer(&self, _ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        None
    }
}
