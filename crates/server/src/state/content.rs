//! What is told of checkpoints and savepoints, as data: the JSON that `--json` prints, and what the text is made of.

use std::collections::BTreeMap;

use mainstem_core::ids::OperatorId;
use mainstem_core::protocol::{SplitProgress, SplitState};
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_state::TableContent;
use serde::Serialize;

use super::target::{Checkpoint, Job};

/// A job in a list.
#[derive(Serialize)]
pub(super) struct ListedJob {
    pub(super) job: String,
    pub(super) checkpoints: usize,
    /// The newest, where there is any.
    pub(super) newest: Option<Listed>,
    /// What could not be read, and what is not known.
    pub(super) notes: Vec<String>,
}

/// A checkpoint or savepoint in a list.
#[derive(Serialize)]
pub(super) struct Listed {
    pub(super) job: String,
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) taken_at_ms: i64,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) operators: usize,
    pub(super) unaligned: bool,
    /// Whether the job's log says that it is complete; null where there is no log.
    pub(super) complete: Option<bool>,
    pub(super) place: String,
}

/// All that a checkpoint or savepoint holds.
#[derive(Serialize)]
pub(super) struct Content {
    #[serde(flatten)]
    pub(super) listed: Listed,
    pub(super) key_groups: u16,
    pub(super) in_flight_bytes: Option<u64>,
    pub(super) sources: Vec<SourceContent>,
    pub(super) state: Vec<OperatorContent>,
}

/// How far a source has been read.
#[derive(Serialize)]
pub(super) struct SourceContent {
    pub(super) operator: u32,
    pub(super) name: Option<String>,
    pub(super) splits: usize,
    pub(super) finished: usize,
    pub(super) reading: usize,
    pub(super) waiting: usize,
    /// The least of the splits that are being read.
    pub(super) watermark_ms: Option<i64>,
}

/// The state of an operator.
#[derive(Serialize)]
pub(super) struct OperatorContent {
    pub(super) operator: u32,
    pub(super) name: Option<String>,
    pub(super) subtasks: usize,
    /// Rows that it keeps, in its own form of them, where it says so.
    pub(super) rows: Option<u64>,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) tables: Vec<TableContent>,
}

/// A job and its newest checkpoint.
pub(super) fn job(job: &Job) -> ListedJob {
    let newest = job.checkpoints.iter().rev().find(|checkpoint| checkpoint.is_recorded != Some(false));
    ListedJob {
        job: job.job.to_string(),
        checkpoints: job.checkpoints.len(),
        newest: newest.or(job.checkpoints.last()).map(listed),
        notes: job.notes(),
    }
}

/// What the description of a checkpoint says.
pub(super) fn listed(checkpoint: &Checkpoint) -> Listed {
    let manifest = &checkpoint.manifest;
    Listed {
        job: manifest.job.to_string(),
        epoch: manifest.epoch.0,
        generation: manifest.generation.0,
        taken_at_ms: manifest.created_at.0,
        files: manifest.state_paths().len(),
        bytes: manifest.state_bytes(),
        operators: manifest.state_sizes().len(),
        unaligned: manifest.in_flight_bytes().is_some(),
        complete: checkpoint.is_recorded,
        place: checkpoint.place.clone(),
    }
}

/// What its files hold; all of them are read. `top`: so many keys and groups are named.
pub(super) async fn of(checkpoint: &Checkpoint, top: usize) -> anyhow::Result<Content> {
    let manifest = &checkpoint.manifest;
    let name = |id: OperatorId| {
        let node = checkpoint.graph.as_ref()?.nodes.get(id.0 as usize)?;
        Some(node.name.clone())
    };
    let sources = manifest.sources.iter().map(|(id, splits)| source(*id, name(*id), splits)).collect();
    let sizes = manifest.state_sizes();
    let mut state = Vec::new();
    for (id, parts) in &manifest.operators {
        let Some(size) = sizes.get(id) else { continue };
        let mut tables = checkpoint.files.tables(parts, manifest.key_groups, top).await?;
        for keys in tables.iter_mut().filter_map(|table| table.keys.as_mut()) {
            name_keys(&mut keys.columns, checkpoint.graph.as_ref(), *id);
        }
        let files: BTreeMap<&str, ()> =
            parts.iter().flat_map(|(_, part)| &part.state).map(|handle| (handle.path.as_str(), ())).collect();
        if files.is_empty() && size.rows == 0 {
            continue;
        }
        state.push(OperatorContent {
            operator: id.0,
            name: name(*id),
            subtasks: parts.len(),
            rows: parts.iter().any(|(_, part)| part.state_rows.is_some()).then_some(size.rows),
            files: files.len(),
            bytes: size.bytes,
            tables,
        });
    }
    let in_flight_bytes = manifest.in_flight_bytes();
    Ok(Content { listed: listed(checkpoint), key_groups: manifest.key_groups, in_flight_bytes, sources, state })
}

/// An aggregation stores its keys by number; the dataflow knows what they are called.
fn name_keys(columns: &mut [String], graph: Option<&JobGraph>, id: OperatorId) {
    let node = graph.and_then(|graph| graph.nodes.get(id.0 as usize));
    let Some(OperatorKind::GroupAggregate(aggregate)) = node.map(|node| &node.op.kind) else { return };
    for column in columns {
        let number = column.strip_prefix("key ").and_then(|number| number.parse::<usize>().ok());
        if let Some(position) = number.and_then(|number| aggregate.keys.get(number)) {
            *column = aggregate.input_schema.field(*position).name().clone();
        }
    }
}

fn source(id: OperatorId, name: Option<String>, splits: &[SplitState]) -> SourceContent {
    let finished = splits.iter().filter(|split| split.is_finished()).count();
    let watermarks: Vec<Timestamp> = splits
        .iter()
        .filter_map(|split| match &split.progress {
            Some(SplitProgress::Reading { watermark, .. }) => Some(*watermark),
            _ => None,
        })
        .collect();
    let known = watermarks.iter().copied().filter(|at| *at > Timestamp::MIN && *at < Timestamp::MAX);
    SourceContent {
        operator: id.0,
        name,
        splits: splits.len(),
        finished,
        reading: watermarks.len(),
        waiting: splits.len() - finished - watermarks.len(),
        watermark_ms: known.min().map(|at| at.0),
    }
}
