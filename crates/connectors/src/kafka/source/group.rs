//! Tells the consumer group how far a table has been read, for the tools that show lag. Offsets are those of
//! complete checkpoints; when the brokers are slow some are left out, since newer ones follow.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use mainstem_core::protocol::{SplitProgress, SplitState};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::source::CheckpointListener;

use super::KafkaTable;
use super::split::{PartitionSplit, Position};

/// Commits offsets, on a thread of its own that begins with the first.
pub(super) struct GroupOffsets {
    table: Arc<KafkaTable>,
    commits: Option<SyncSender<TopicPartitionList>>,
}

impl GroupOffsets {
    /// For a table that names a group.
    pub(super) fn new(table: Arc<KafkaTable>) -> GroupOffsets {
        GroupOffsets { table, commits: None }
    }

    fn begin(&self) -> Option<SyncSender<TopicPartitionList>> {
        let (sender, receiver) = sync_channel(1);
        let table = self.table.clone();
        let name = format!("kafka-group-{}", table.spec.name);
        // Without a thread the group learns nothing, and the job is none the worse for it.
        std::thread::Builder::new().name(name).spawn(move || commit_all(&table, &receiver)).ok()?;
        Some(sender)
    }
}

impl CheckpointListener for GroupOffsets {
    fn complete(&mut self, splits: &[SplitState]) {
        let mut offsets = TopicPartitionList::new();
        for state in splits {
            let Some(SplitProgress::Reading { position, .. }) = &state.progress else { continue };
            let (Ok(split), Ok(position)) =
                (PartitionSplit::parse(&state.split), Position::parse(position, &state.split.id))
            else {
                continue;
            };
            // Fails for reserved offsets only, which no position is.
            let _ = offsets.add_partition_offset(&split.topic, split.partition, Offset::Offset(position.offset));
        }
        if offsets.count() == 0 {
            return;
        }
        if self.commits.is_none() {
            self.commits = self.begin();
        }
        // Where an earlier commit is under way still, a later checkpoint brings newer offsets.
        let _ = self.commits.as_ref().map(|commits| commits.try_send(offsets));
    }
}

fn commit_all(table: &KafkaTable, commits: &Receiver<TopicPartitionList>) {
    let cluster = &table.options.cluster;
    let consumer = match cluster.consumer() {
        Ok(consumer) => consumer,
        Err(error) => {
            tracing::warn!(table = cluster.table, %error, "offsets are not committed to the group");
            return;
        }
    };
    let mut complained = false;
    while let Ok(offsets) = commits.recv() {
        // What the client has to say is listened to, so that it does not pile up.
        consumer.poll(Duration::ZERO);
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                let error = cluster.consumer_failed("commit offsets to its group", &error, &consumer);
                tracing::warn!(table = cluster.table, %error, "lag of the group is not up to date");
            }
            Err(_) => {}
        }
    }
}
