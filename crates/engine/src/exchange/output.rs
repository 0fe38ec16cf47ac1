//! The outputs of a task: every batch goes to each edge of its port, and there to the receivers that own its
//! rows. Watermarks, barriers and the end go to everyone. Sending does not wait for credit: the task asks whether
//! there is some before it makes more.

use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, UInt32Array};
use mainstem_core::graph::Exchange;
use mainstem_core::key_group::{group_of_hash, owner};

use super::channel::ChannelSender;
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;
use crate::key_hash::hash_rows;

/// A stream to the subtasks of one operator.
pub(crate) struct OutputEdge {
    /// The output of the sender that it carries.
    pub(crate) port: u8,
    /// How rows find their receiver.
    pub(crate) exchange: Exchange,
    /// The receivers, by subtask index. For a forward edge: the one with the sender's index.
    pub(crate) receivers: Vec<ChannelSender>,
    /// Next receiver of a rebalanced batch.
    pub(crate) turn: usize,
}

/// All outputs of one task.
pub(crate) struct Outputs {
    pub(crate) edges: Vec<OutputEdge>,
    pub(crate) key_groups: u16,
}

impl Outputs {
    /// Sends rows of an output to their receivers, whatever the credit.
    pub(crate) async fn send_batch(&mut self, port: u8, batch: StreamBatch) -> Result<(), EngineError> {
        let key_groups = self.key_groups;
        for edge in self.edges.iter_mut().filter(|e| e.port == port) {
            edge.send(&batch, key_groups).await?;
        }
        Ok(())
    }

    /// Ready when there is credit for more to every receiver. Cancel-safe.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        for receiver in self.edges.iter().flat_map(|e| &e.receivers) {
            ready!(receiver.poll_ready(cx));
        }
        Poll::Ready(())
    }

    /// Ready with the reason when a receiver can be sent nothing more. Cancel-safe.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EngineError> {
        let mut receivers = self.edges.iter().flat_map(|e| &e.receivers);
        let ended = receivers.find_map(|receiver| match receiver.poll_ended(cx) {
            Poll::Ready(error) => Some(error),
            Poll::Pending => None,
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// Bytes that were sent beyond the credit, to the receiver where it is most.
    pub(crate) fn overdraft_bytes(&self) -> u64 {
        self.edges.iter().flat_map(|e| &e.receivers).map(ChannelSender::overdraft_bytes).max().unwrap_or(0)
    }

    /// Sends anything but rows to every receiver of every output.
    pub(crate) async fn broadcast(&mut self, element: &StreamElement) -> Result<(), EngineError> {
        for receiver in self.edges.iter_mut().flat_map(|e| &mut e.receivers) {
            receiver.send(element.clone()).await?;
        }
        Ok(())
    }
}

impl OutputEdge {
    async fn send(&mut self, batch: &StreamBatch, key_groups: u16) -> Result<(), EngineError> {
        if let [only] = self.receivers.as_mut_slice() {
            return only.send(StreamElement::Batch(batch.clone())).await;
        }
        match &self.exchange {
            Exchange::Hash { keys } => {
                let parts = partition(batch, keys, key_groups, self.receivers.len())?;
                for (receiver, part) in self.receivers.iter_mut().zip(parts) {
                    if let Some(part) = part {
                        receiver.send(StreamElement::Batch(part)).await?;
                    }
                }
                Ok(())
            }
            Exchange::Rebalance | Exchange::Forward => {
                self.turn = (self.turn + 1) % self.receivers.len();
                self.receivers[self.turn].send(StreamElement::Batch(batch.clone())).await
            }
        }
    }
}

/// Splits a batch by the owner of each row's key group; nothing for receivers without rows. Rows of one key
/// stay in order.
fn partition(
    batch: &StreamBatch,
    keys: &[usize],
    key_groups: u16,
    receivers: usize,
) -> Result<Vec<Option<StreamBatch>>, EngineError> {
    let failed = |e| EngineError::arrow("exchange", &e);
    let columns: Vec<ArrayRef> = keys.iter().map(|k| batch.rows.column(*k).clone()).collect();
    let hashes = hash_rows(&columns, batch.rows.num_rows()).map_err(failed)?;
    let parallelism = u32::try_from(receivers).expect("far fewer subtasks");
    let mut positions = vec![Vec::new(); receivers];
    for (row, hash) in hashes.iter().enumerate() {
        let receiver = owner(group_of_hash(*hash, key_groups), key_groups, parallelism);
        positions[receiver as usize].push(row as u32);
    }
    let part = |rows: Vec<u32>| match rows.len() {
        0 => Ok(None),
        n if n == batch.rows.num_rows() => Ok(Some(batch.clone())),
        _ => batch.take(&UInt32Array::from(rows)).map(Some),
    };
    positions.into_iter().map(|rows| part(rows).map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn each_row_reaches_the_owner_of_its_key_group_in_order() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1000).map(|i| i % 37)));
        let order: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = StreamBatch::on_time(RecordBatch::try_from_iter([("k", keys), ("n", order)]).unwrap());
        let parts = partition(&batch, &[0], 256, 3).unwrap();
        let mut seen = 0;
        for (receiver, part) in parts.into_iter().enumerate() {
            let rows = part.unwrap().rows;
            seen += rows.num_rows();
            let hashes = hash_rows(&rows.columns()[..1], rows.num_rows()).unwrap();
            assert!(hashes.iter().all(|h| owner(group_of_hash(*h, 256), 256, 3) as usize == receiver));
            assert!(rows.column(1).as_primitive::<Int64Type>().values().is_sorted());
        }
        assert_eq!(seen, 1000);
    }
}
