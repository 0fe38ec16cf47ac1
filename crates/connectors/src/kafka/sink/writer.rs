//! Stages the messages of one sink subtask: objects of a few megabytes, put into the job's stage while the epoch goes on.
//! Sends nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::protocol::Committable;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{SinkWriter, WriterContext};

use super::KafkaTable;
use super::encode::MessageEncoder;
use super::publisher;
use super::records::RecordBuffer;

/// Objects of a writer that are being put away at once.
const STAGING_MAX: usize = 3;

/// An object of staged messages: the payload of a committable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StagedObject {
    /// Its name in the stage.
    pub(super) name: String,
    /// The attempt that wrote it.
    pub(super) generation: u64,
    /// The subtask that wrote it.
    pub(super) subtask: u32,
    /// Messages in it.
    pub(super) messages: u64,
    /// CRC-32C of its bytes.
    pub(super) crc32c: u32,
}

impl StagedObject {
    /// The attempt that wrote it.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    fn to_committable(&self) -> Committable {
        Committable { payload: serde_json::to_string(self).expect("names and numbers have a JSON form") }
    }

    /// Reads a committable back.
    pub(super) fn of_committable(committable: &Committable) -> Result<StagedObject, ConnectorError> {
        serde_json::from_str(&committable.payload).map_err(|error| {
            let payload = &committable.payload;
            ConnectorError::data(format!(
                "the checkpoint describes output of a kafka sink as '{payload}', which this version cannot read: {error}"
            ))
        })
    }
}

/// See the module.
pub(super) struct StagingWriter {
    table: Arc<KafkaTable>,
    ctx: WriterContext,
    /// Made with the first rows.
    encoder: Option<MessageEncoder>,
    buffer: RecordBuffer,
    staging: VecDeque<JoinHandle<Result<StagedObject, ConnectorError>>>,
    /// Objects of the current epoch that are durable.
    staged: Vec<StagedObject>,
    /// Objects of this writer so far.
    objects: u64,
}

impl StagingWriter {
    /// A writer for one subtask of one attempt.
    pub(super) fn new(table: Arc<KafkaTable>, ctx: WriterContext) -> StagingWriter {
        StagingWriter {
            table,
            ctx,
            encoder: None,
            buffer: RecordBuffer::default(),
            staging: VecDeque::new(),
            staged: Vec::new(),
            objects: 0,
        }
    }

    /// Puts the messages so far away.
    fn stage(&mut self) {
        if self.buffer.count() == 0 {
            return;
        }
        self.objects += 1;
        let WriterContext { operator, subtask, generation, .. } = self.ctx;
        let name = format!("{}-g{generation}-{operator}-{subtask}.staged", self.objects);
        let buffer = std::mem::take(&mut self.buffer);
        let staging = self.ctx.staging.clone();
        self.staging.push_back(tokio::spawn(async move {
            let messages = buffer.count();
            let packed = spawn_blocking(move || buffer.pack()).await.map_err(|error| stopped(&error))?;
            let packed = packed.map_err(|error| ConnectorError::io("pack", &name, &error))?;
            let object =
                StagedObject { name, generation: generation.0, subtask, messages, crc32c: crc32c::crc32c(&packed) };
            staging.store().put(&object.name, Bytes::from(packed)).await?;
            Ok(object)
        }));
    }
}

#[async_trait]
impl SinkWriter for StagingWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if self.encoder.is_none() {
            let KafkaTable { spec, layout, kind, options } = self.table.as_ref();
            let mut encoder = MessageEncoder::new(spec, layout, *kind)?;
            // Who is told now that the topic is not there need not wait for the end of the epoch.
            publisher::check_topic(self.table.clone()).await?;
            encoder.register(&options.topic).await?;
            self.encoder = Some(encoder);
        }
        let encoder = self.encoder.as_mut().expect("made above");
        let buffer = &mut self.buffer;
        encoder.encode(rows, changes, &mut |record| buffer.push(record))?;
        if self.buffer.is_full() {
            self.stage();
            while self.staging.len() > STAGING_MAX {
                let oldest = self.staging.pop_front().expect("there are more than the maximum");
                self.staged.push(joined(oldest).await?);
            }
        }
        Ok(())
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        self.stage();
        let staging = std::mem::take(&mut self.staging);
        let mut staged = std::mem::take(&mut self.staged);
        let durable = async move {
            // In the order in which they were written, which is that of the messages of each key.
            for object in staging {
                staged.push(joined(object).await?);
            }
            Ok(staged.iter().map(StagedObject::to_committable).collect())
        };
        Ok(durable.boxed())
    }
}

async fn joined(task: JoinHandle<Result<StagedObject, ConnectorError>>) -> Result<StagedObject, ConnectorError> {
    task.await.map_err(|error| stopped(&error))?
}

fn stopped(error: &tokio::task::JoinError) -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, format!("the task that stages messages was stopped: {error}"))
}
