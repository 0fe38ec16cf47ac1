//! Finds where the splits of a table begin and end, beside the coordinator, when a job first starts.

use std::sync::Arc;

use async_nats::datetime;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream::{Info, RetentionPolicy};
use async_trait::async_trait;
use futures::StreamExt;
use mainstem_core::protocol::SourceSplit;

use crate::error::{ConnectorError, ErrorKind};
use crate::source::SplitEnumerator;

use super::super::connection::{ANSWER_MAX, Connection, created};
use super::super::error::silence;
use super::NatsTable;
use super::options::{Start, Stop};
use super::split::StreamSplit;

/// See the module.
pub(super) struct NatsEnumerator {
    table: Arc<NatsTable>,
}

impl NatsEnumerator {
    /// For a table.
    pub(super) fn new(table: Arc<NatsTable>) -> NatsEnumerator {
        NatsEnumerator { table }
    }

    fn refused(&self, what: String) -> ConnectorError {
        let NatsTable { spec, address, .. } = self.table.as_ref();
        ConnectorError::new(
            ErrorKind::External,
            format!("table '{}' cannot read the {}: {what}", spec.name, address.place()),
        )
    }

    /// The sequence at which reading begins.
    async fn start(&self, connection: &Connection, info: &Info) -> Result<u64, ConnectorError> {
        let (first, behind) = (info.state.first_sequence.max(1), info.state.last_sequence + 1);
        match self.table.options.start {
            Start::Earliest => Ok(first),
            Start::Latest => Ok(behind),
            Start::Timestamp(ms) => first_since(connection, ms, behind).await,
            Start::Sequence(sequence) if (first..=behind).contains(&sequence) => Ok(sequence),
            Start::Sequence(sequence) => Err(self.refused(format!(
                "it is to begin with sequence {sequence}, and the stream holds {first} to {}; choose another 'scan.startup.sequence'",
                behind - 1
            ))),
        }
    }

    /// The sequence before which reading ends.
    fn stop(&self, info: &Info) -> Result<Option<u64>, ConnectorError> {
        let behind = info.state.last_sequence + 1;
        match self.table.options.stop {
            None => Ok(None),
            Some(Stop::Latest) => Ok(Some(behind)),
            Some(Stop::Sequence(sequence)) if sequence < behind => Ok(Some(sequence + 1)),
            Some(Stop::Sequence(sequence)) => Err(self.refused(format!(
                "it is to end with sequence {sequence}, and the stream ends with {}; choose another 'scan.bounded.sequence'",
                behind - 1
            ))),
        }
    }
}

/// The sequence of the first message that was stored at or after a time.
async fn first_since(connection: &Connection, ms: i64, behind: u64) -> Result<u64, ConnectorError> {
    let what = "find the first message since a time";
    let failed = |reason: String| silence(&connection.address, what, &reason, connection.heard());
    let time = datetime::from_nanos(i128::from(ms) * 1_000_000).map_err(|_| {
        ConnectorError::option(format!(
            "option 'scan.startup.timestamp-millis' of table '{}' has the value '{ms}', which is no time",
            connection.address.table
        ))
    })?;
    let consumer = connection.consumer(what, DeliverPolicy::ByStartTime { start_time: time }, None, true).await?;
    let mut found = consumer.fetch().max_messages(1).messages().await.map_err(|error| failed(error.to_string()))?;
    let next = tokio::time::timeout(ANSWER_MAX, found.next()).await;
    match next.map_err(|_| failed("no answer in time".to_owned()))? {
        None => Ok(behind),
        Some(message) => {
            let message = message.map_err(|error| failed(error.to_string()))?;
            Ok(message.info().map_err(|error| failed(error.to_string()))?.stream_sequence)
        }
    }
}

#[async_trait]
impl SplitEnumerator for NatsEnumerator {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        // Of its own, and gone with the call: a job looks once.
        let connection = Connection::open(self.table.address.clone()).await?;
        let info = connection.stream("look where its stream begins and ends").await?;
        if info.config.retention != RetentionPolicy::Limits {
            return Err(self.refused(
                "its retention removes messages once they are acknowledged, so that none can be read again after a failure; read from a stream with the retention 'limits', such as a mirror of this one".to_owned(),
            ));
        }
        let (start, stop) = (self.start(&connection, &info).await?, self.stop(&info)?);
        let split = |subject: Option<String>| {
            let (stream, created) = (self.table.address.stream.clone(), created(&info));
            let earliest = self.table.options.start == Start::Earliest;
            StreamSplit { stream, subject, created, start, earliest, stop }.to_split()
        };
        let subjects = &self.table.options.subjects;
        Ok(match subjects.is_empty() {
            true => vec![split(None)],
            false => subjects.iter().map(|subject| split(Some(subject.clone()))).collect(),
        })
    }
}
