//! StreamGraph: the logical dataflow of a job, as the planner makes it and as it is stored with the job; and
//! its chaining into tasks. What an operator does is a type parameter: this crate only knows the shape.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::OperatorId;

/// How elements travel along an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// Subtask i sends to subtask i; both sides have the same parallelism. May be chained.
    Forward,
    /// By the key group of the named columns (positions in the sender's output). No columns: all rows go to
    /// the first subtask.
    Hash {
        /// Positions of the key columns in the sender's output.
        keys: Vec<usize>,
    },
    /// Round robin by batch, over all receivers.
    Rebalance,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node<Op> {
    /// Its id; the position in [`StreamGraph::nodes`].
    pub id: OperatorId,
    /// Short human name, such as `source bid` or `tumble aggregate`.
    pub name: String,
    /// A parallelism that this operator must have; otherwise the job's.
    pub parallelism: Option<u32>,
    /// What it does.
    pub op: Op,
}

/// A stream between two operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Sender.
    pub from: OperatorId,
    /// Which of the sender's outputs: 0 is the main one, others are side outputs (late rows).
    pub port: u8,
    /// Receiver.
    pub to: OperatorId,
    /// How rows find their receiver.
    pub exchange: Exchange,
}

/// The dataflow of a job: a directed acyclic graph whose edges always go from a lower to a higher id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamGraph<Op> {
    /// Operators; a node's id is its position.
    pub nodes: Vec<Node<Op>>,
    /// Streams.
    pub edges: Vec<Edge>,
}

impl<Op> Default for StreamGraph<Op> {
    fn default() -> Self {
        StreamGraph { nodes: Vec::new(), edges: Vec::new() }
    }
}

impl<Op> StreamGraph<Op> {
    /// Adds an operator and gives its id.
    pub fn add(&mut self, name: impl Into<String>, parallelism: Option<u32>, op: Op) -> OperatorId {
        let id = OperatorId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 operators"));
        self.nodes.push(Node { id, name: name.into(), parallelism, op });
        id
    }

    /// Adds a stream.
    ///
    /// # Panics
    /// Where the edge does not go from an earlier to a later operator of this graph.
    pub fn connect(&mut self, from: OperatorId, port: u8, to: OperatorId, exchange: Exchange) {
        assert!(
            from < to && (to.0 as usize) < self.nodes.len(),
            "edge {from} to {to} of {} operators",
            self.nodes.len()
        );
        self.edges.push(Edge { from, port, to, exchange });
    }

    /// The operator with that id.
    #[must_use]
    pub fn node(&self, id: OperatorId) -> &Node<Op> {
        &self.nodes[id.0 as usize]
    }

    /// Streams into an operator, in the order in which they were added.
    pub fn inputs(&self, id: OperatorId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |e| e.to == id)
    }

    /// Streams out of an operator, in the order in which they were added.
    pub fn outputs(&self, id: OperatorId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |e| e.from == id)
    }

    /// How many subtasks the operator has when the job runs at `job_parallelism`.
    #[must_use]
    pub fn parallelism(&self, id: OperatorId, job_parallelism: u32) -> u32 {
        self.node(id).parallelism.unwrap_or(job_parallelism)
    }

    /// Which operators hold each other's watermarks back: those from which the same operator that waits for
    /// watermarks is reached, and so on through all that they share. Gives for each its group, named by the
    /// least operator in it; an operator from which nobody who waits is reached is in none.
    #[must_use]
    pub fn watermark_groups(&self, waits: impl Fn(&Op) -> bool) -> BTreeMap<OperatorId, OperatorId> {
        let mut groups = BTreeMap::new();
        // Edges go from lower to higher ids.
        for node in self.nodes.iter().rev() {
            let leads_on = self.outputs(node.id).any(|edge| groups.contains_key(&edge.to));
            if leads_on || waits(&node.op) {
                groups.insert(node.id, node.id);
            }
        }
        let within = |edge: &&Edge| groups.contains_key(&edge.from) && groups.contains_key(&edge.to);
        let edges: Vec<&Edge> = self.edges.iter().filter(within).collect();
        for edge in edges {
            let (from, to) = (groups[&edge.from], groups[&edge.to]);
            let (least, other) = (from.min(to), from.max(to));
            groups.values_mut().filter(|group| **group == other).for_each(|group| *group = least);
        }
        groups
    }

    /// Groups operators into chains. A chain runs as one task: an operator joins its predecessor's chain when
    /// the edge is its only input, a forward edge, and the predecessor's only output. Chains are named by
    /// their first operator, and given in the order of it.
    #[must_use]
    pub fn chains(&self) -> Vec<Chain> {
        let mut inputs = BTreeMap::<OperatorId, usize>::new();
        let mut outputs = BTreeMap::<OperatorId, usize>::new();
        for edge in &self.edges {
            *inputs.entry(edge.to).or_default() += 1;
            *outputs.entry(edge.from).or_default() += 1;
        }
        let chained: BTreeMap<OperatorId, OperatorId> = self
            .edges
            .iter()
            .filter(|e| e.exchange == Exchange::Forward && e.port == 0 && inputs[&e.to] == 1 && outputs[&e.from] == 1)
            .filter(|e| self.node(e.from).parallelism == self.node(e.to).parallelism)
            .map(|e| (e.from, e.to))
            .collect();
        let followers: BTreeSet<OperatorId> = chained.values().copied().collect();
        let heads = self.nodes.iter().map(|n| n.id).filter(|id| !followers.contains(id));
        heads
            .map(|head| {
                let operators = std::iter::successors(Some(head), |id| chained.get(id).copied()).collect();
                Chain { operators }
            })
            .collect()
    }
}

/// Operators that run as one task, first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The operators; never empty.
    pub operators: Vec<OperatorId>,
}

impl Chain {
    /// The first operator, which names the chain.
    #[must_use]
    pub fn head(&self) -> OperatorId {
        self.operators[0]
    }

    /// The last operator, whose outputs are the chain's.
    #[must_use]
    pub fn tail(&self) -> OperatorId {
        self.operators[self.operators.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_meet_at_a_waiting_operator_are_one_group() {
        let mut graph = StreamGraph::<bool>::default();
        // Sources 0 to 3; 0 and 1 meet at the window 4, 3 has the window 5 alone, all end in sink 6.
        let ids: Vec<_> = [false, false, false, false, true, true, false].map(|op| graph.add("n", None, op)).to_vec();
        for (from, to) in [(0, 4), (1, 4), (3, 5), (2, 6), (4, 6), (5, 6)] {
            graph.connect(ids[from], 0, ids[to], Exchange::Forward);
        }
        let groups: Vec<(u32, u32)> = graph.watermark_groups(|op| *op).iter().map(|(o, g)| (o.0, g.0)).collect();
        assert_eq!(groups, vec![(0, 0), (1, 0), (3, 3), (4, 0), (5, 3)]);
    }

    #[test]
    fn chains_break_at_exchanges_and_at_shared_outputs() {
        let mut graph = StreamGraph::<()>::default();
        let ids: Vec<_> = (0..6).map(|i| graph.add(format!("n{i}"), None, ())).collect();
        graph.connect(ids[0], 0, ids[1], Exchange::Forward);
        graph.connect(ids[1], 0, ids[2], Exchange::Hash { keys: vec![0] });
        graph.connect(ids[2], 0, ids[3], Exchange::Forward);
        graph.connect(ids[3], 0, ids[4], Exchange::Forward);
        graph.connect(ids[3], 0, ids[5], Exchange::Forward);
        let chains: Vec<Vec<u32>> = graph.chains().iter().map(|c| c.operators.iter().map(|o| o.0).collect()).collect();
        assert_eq!(chains, vec![vec![0, 1], vec![2, 3], vec![4], vec![5]]);
    }
}
