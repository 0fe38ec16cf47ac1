//! The outputs of a task: every batch goes to each edge of its port, and there to the receivers that own its
//! rows. Watermarks, barriers and the end go to everyone, a latency marker to one. Sending does not wait for credit: the task asks whether
//! there is some before it makes more.

use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, UInt32Array};
use mainstem_core::graph::Exchange;
use mainstem_core::key_group::{group_of_hash, owner};
use mainstem_core::latency::LatencyMarker;

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
    /// Next receiver of a latency marker, over all edges.
    pub(crate) marker_turn: usize,
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

    /// Sends a latency marker behind what one receiver was sent before, of all receivers in turn: so there are not more of
    /// them after each exchange.
    pub(crate) async fn send_marker(&mut self, marker: Box<LatencyMarker>) -> Result<(), EngineError> {
        let receivers = self.edges.iter().map(|edge| edge.receivers.len()).sum::<usize>().max(1);
        let turn = self.marker_turn % receivers;
        self.marker_turn = turn + 1;
        match self.edges.iter_mut().flat_map(|edge| &mut edge.receivers).nth(turn) {
            Some(receiver) => receiver.send(StreamElement::Marker(marker)).await,
            None => Ok(()),
        }
    }

    /// Sends watermarks, barriers and the end to every receiver of every output.
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
    use std::future::poll_fn;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use mainstem_core::ids::{OperatorId, SubtaskId};
    use mainstem_core::time::Timestamp;

    use super::super::channel::channel;
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

    #[tokio::test]
    async fn a_latency_marker_goes_to_one_receiver_of_all_in_turn_and_behind_the_rows() {
        let mut receivers = Vec::new();
        let mut edge = |port, exchange, count: usize| {
            let (senders, of_edge): (Vec<_>, Vec<_>) = (0..count).map(|_| channel()).unzip();
            receivers.extend(of_edge);
            OutputEdge { port, exchange, receivers: senders, turn: 0 }
        };
        let edges = vec![edge(0, Exchange::Hash { keys: vec![0] }, 3), edge(0, Exchange::Forward, 1)];
        let mut outputs = Outputs { edges, key_groups: 256, marker_turn: 5 };
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let batch = StreamBatch::on_time(RecordBatch::try_from_iter([("k", keys)]).unwrap());
        outputs.send_batch(0, batch).await.unwrap();
        let source = SubtaskId { operator: OperatorId(0), index: 0 };
        for number in 0..8 {
            let marker = LatencyMarker { source, number, read_at: Timestamp(0), trace: None };
            outputs.send_marker(Box::new(marker)).await.unwrap();
        }
        drop(outputs);
        let mut seen = Vec::new();
        for receiver in &mut receivers {
            let mut of_receiver = Vec::new();
            while let Some(element) = poll_fn(|cx| receiver.poll(cx, None)).await {
                of_receiver.push(match element.unwrap() {
                    StreamElement::Marker(marker) => Some(marker.number),
                    _ => None,
                });
            }
            assert_eq!(of_receiver.remove(0), None, "rows first");
            seen.push(of_receiver.into_iter().flatten().collect::<Vec<_>>());
        }
        assert_eq!(seen, [[3, 7], [0, 4], [1, 5], [2, 6]]);
    }
}
