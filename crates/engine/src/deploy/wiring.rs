//! The channels between the subtasks of a job.

use std::collections::BTreeMap;

use mainstem_core::graph::{Chain, Exchange};
use mainstem_core::ids::{OperatorId, SubtaskId};
use mainstem_plan::operator::JobGraph;

use crate::exchange::{GateInput, OutputEdge, channel};

/// The ends of all channels, until the subtasks take them.
#[derive(Default)]
pub(crate) struct Wiring {
    /// Inputs of each subtask.
    pub(crate) inputs: BTreeMap<SubtaskId, Vec<GateInput>>,
    /// Outputs of each subtask.
    pub(crate) outputs: BTreeMap<SubtaskId, Vec<OutputEdge>>,
}

/// Makes a channel for each pair of subtasks that an edge between chains connects.
pub(crate) fn wire(graph: &JobGraph, chains: &[Chain], parallelism: u32) -> Wiring {
    let head_of: BTreeMap<OperatorId, OperatorId> =
        chains.iter().flat_map(|c| c.operators.iter().map(|o| (*o, c.head()))).collect();
    let mut wiring = Wiring::default();
    for edge in graph.edges.iter().filter(|e| head_of[&e.from] != head_of[&e.to]) {
        let (from, to) = (head_of[&edge.from], head_of[&edge.to]);
        let receivers = graph.parallelism(edge.to, parallelism);
        let input = graph.inputs(edge.to).position(|other| other == edge).expect("an edge is an input of its end");
        for sender in 0..graph.parallelism(edge.from, parallelism) {
            let mut ends = Vec::new();
            for receiver in 0..receivers {
                if edge.exchange == Exchange::Forward && receiver != sender {
                    continue;
                }
                let (sending, receiving) = channel();
                ends.push(sending);
                let subtask = SubtaskId { operator: to, index: receiver };
                wiring.inputs.entry(subtask).or_default().push(GateInput { input, receiver: receiving });
            }
            let output = OutputEdge { port: edge.port, exchange: edge.exchange.clone(), receivers: ends, turn: 0 };
            wiring.outputs.entry(SubtaskId { operator: from, index: sender }).or_default().push(output);
        }
    }
    wiring
}
