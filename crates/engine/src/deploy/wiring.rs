//! The channels between the subtasks of a job.

use std::collections::BTreeMap;

use mainstem_core::graph::{Chain, Exchange};
use mainstem_core::ids::{OperatorId, SubtaskId};

use super::{Deployment, Place};
use crate::exchange::{ChannelKey, ChannelPlace, ChannelReceiver, ChannelSender, GateInput, OutputEdge, channel};
use crate::watermark_alignment::AlignmentGroups;

/// The ends of all channels, until the subtasks take them.
#[derive(Default)]
pub(crate) struct Wiring {
    /// Inputs of each subtask.
    pub(crate) inputs: BTreeMap<SubtaskId, Vec<GateInput>>,
    /// Outputs of each subtask.
    pub(crate) outputs: BTreeMap<SubtaskId, Vec<OutputEdge>>,
}

/// Makes the ends that lie on this worker of each channel between two subtasks that an edge between chains connects.
pub(crate) fn wire(deployment: &Deployment, chains: &[Chain], aligned: &AlignmentGroups) -> Wiring {
    let graph = &deployment.graph;
    let head_of: BTreeMap<OperatorId, OperatorId> =
        chains.iter().flat_map(|c| c.operators.iter().map(|o| (*o, c.head()))).collect();
    let mut wiring = Wiring::default();
    for (position, edge) in graph.edges.iter().enumerate().filter(|(_, e)| head_of[&e.from] != head_of[&e.to]) {
        let (from, to) = (head_of[&edge.from], head_of[&edge.to]);
        let receivers = graph.parallelism(edge.to, deployment.parallelism);
        let input = graph.inputs(edge.to).position(|other| other == edge).expect("an edge is an input of its end");
        for sender in 0..graph.parallelism(edge.from, deployment.parallelism) {
            let mut ends = Vec::new();
            for receiver in 0..receivers {
                if edge.exchange == Exchange::Forward && receiver != sender {
                    continue;
                }
                let key = || ChannelKey { attempt: deployment.attempt(), edge: position, sender, receiver };
                let (sending, receiving) = ends_of(deployment, key, sender, receiver);
                ends.extend(sending);
                let subtask = SubtaskId { operator: to, index: receiver };
                let place = ChannelPlace { edge: position, sender };
                let receiving = receiving.map(|receiver| {
                    // A sender of this process shows itself.
                    let is_here = matches!(deployment.placement.place(sender), Place::Here);
                    let shows = if is_here { None } else { aligned.join(from, sender) };
                    GateInput { input, place, shows, receiver }
                });
                wiring.inputs.entry(subtask).or_default().extend(receiving);
            }
            let output = OutputEdge { port: edge.port, exchange: edge.exchange.clone(), receivers: ends, turn: 0 };
            wiring.outputs.entry(SubtaskId { operator: from, index: sender }).or_default().push(output);
        }
    }
    wiring
}

/// Those ends of a channel that lie on this worker.
fn ends_of(
    deployment: &Deployment,
    key: impl Fn() -> ChannelKey,
    sender: u32,
    receiver: u32,
) -> (Option<ChannelSender>, Option<ChannelReceiver>) {
    let placement = &deployment.placement;
    match (placement.place(sender), placement.place(receiver)) {
        (Place::Here, Place::Here) => {
            let (sending, receiving) = channel();
            (Some(sending), Some(receiving))
        }
        (Place::Here, Place::There { data, on }) => {
            (Some(ChannelSender::Remote(Box::new(data.sender(on, key())))), None)
        }
        (Place::There { data, .. }, Place::Here) => (None, Some(data.receiver(key()))),
        (Place::There { .. }, Place::There { .. }) => (None, None),
    }
}
