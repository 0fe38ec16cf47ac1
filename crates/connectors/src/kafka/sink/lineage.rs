//! Who a sink is to the brokers, for the life of its job. A job that is started afresh under an old name counts its epochs
//! anew, so what the old one has published must not be taken for its own: each job draws a random number, kept in the
//! stage, which goes when the job does.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use mainstem_core::ids::{Generation, JobId, OperatorId};
use serde::{Deserialize, Serialize};

use crate::error::{ConnectorError, ErrorKind};
use crate::staging::StagingStore;

/// See the module. Stored as JSON; fields may be added with defaults, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lineage {
    /// The random number, in hexadecimal digits.
    pub(super) id: String,
    /// The topic that holds the progress.
    pub(super) progress_topic: String,
    /// Its partition; fixed, since partitions may be added to a topic.
    pub(super) progress_partition: i32,
}

impl Lineage {
    /// The sink's, if it has one already.
    pub(super) async fn find(
        store: &dyn StagingStore,
        operator: OperatorId,
    ) -> Result<Option<Lineage>, ConnectorError> {
        let suffix = suffix(operator);
        let names = store.list().await?;
        // Of two that were made at a time, which the names prevent, all would choose the same.
        let Some(name) = names.iter().find(|name| name.ends_with(&suffix)) else { return Ok(None) };
        match store.get(name).await? {
            Some(bytes) => parse(name, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps a new one; gives the one that holds. `generation` is that of the first output, so that whoever publishes it
    /// finds the same name.
    pub(super) async fn keep(
        self,
        store: &dyn StagingStore,
        operator: OperatorId,
        generation: Generation,
    ) -> Result<Lineage, ConnectorError> {
        let name = format!("0-g{generation}{}", suffix(operator));
        let bytes = Bytes::from(serde_json::to_vec(&self).expect("text and numbers are JSON"));
        let Err(error) = store.put(&name, bytes).await else { return Ok(self) };
        match store.get(&name).await? {
            Some(bytes) => parse(&name, &bytes),
            None => Err(error),
        }
    }

    /// A new one; `partitions` are those of the progress topic.
    pub(super) fn draw(progress_topic: &str, partitions: i32) -> Lineage {
        // The standard library seeds its hashers from the system's source of random numbers.
        let random = RandomState::new().hash_one(0u8);
        let partition = i32::try_from(random % u64::try_from(partitions.max(1)).unwrap_or(1)).unwrap_or(0);
        Lineage {
            id: format!("{random:016x}"),
            progress_topic: progress_topic.to_owned(),
            progress_partition: partition,
        }
    }

    /// The key of the progress record, and what the transactional id ends with.
    pub(super) fn key(&self, job: &JobId, operator: OperatorId) -> String {
        format!("{job}/{operator}/{}", self.id)
    }
}

fn suffix(operator: OperatorId) -> String {
    format!("-{operator}.lineage")
}

fn parse(name: &str, bytes: &[u8]) -> Result<Lineage, ConnectorError> {
    serde_json::from_slice(bytes).map_err(|error| {
        ConnectorError::new(ErrorKind::Lost, format!("the object '{name}' of a Kafka sink cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::testing::in_memory;

    #[tokio::test]
    async fn a_sink_keeps_the_number_that_was_drawn_first() {
        let staging = in_memory();
        let store = staging.store();
        let (one, other) = (OperatorId(1), OperatorId(11));
        assert_eq!(Lineage::find(store, one).await.unwrap(), None);
        let drawn = Lineage::draw("p", 16);
        assert!((0..16).contains(&drawn.progress_partition) && drawn.id.len() == 16);
        let kept = drawn.clone().keep(store, one, Generation(3)).await.unwrap();
        assert_eq!(kept, drawn);
        // Two that publish the same output name it alike, so the first one holds.
        let again = Lineage::draw("p", 16).keep(store, one, Generation(3)).await.unwrap();
        assert_eq!(again, drawn);
        assert_eq!(Lineage::find(store, one).await.unwrap(), Some(drawn));
        assert_eq!(Lineage::find(store, other).await.unwrap(), None);
    }
}
