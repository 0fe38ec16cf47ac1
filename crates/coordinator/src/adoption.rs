//! Going on with an attempt whose subtasks have outlived the coordinator that drove it. The same generation, nothing is
//! restored, nothing read again. Wherever anything is missing or does not fit, there is a new attempt instead.

use std::collections::BTreeMap;

use mainstem_core::adoption::{Resumed, ResumedSource};
use mainstem_core::ids::{Epoch, OperatorId};
use mainstem_core::protocol::SplitState;
use mainstem_state::Manifest;

use crate::coordinator::{Driver, Halt};
use crate::meta_log::{EpochRecord, JobRecord, Record, RunningAttempt};
use crate::recovery::{self, Recovered};
use crate::spec::{Attempt, Deployer};

/// An attempt that is gone on with.
pub(crate) struct Adopted {
    /// The checkpoint that its machines start from, which is not restored by anybody.
    pub(crate) recovered: Recovered,
    /// Its subtasks.
    pub(crate) attempt: Attempt,
    /// Its machines.
    pub(crate) resumed: Resumed,
    /// How often a coordinator went on with it, this one included.
    pub(crate) adoptions: u32,
}

/// Goes on with the attempt that runs; none where there is none, or it cannot be gone on with.
pub(crate) async fn adopt<D: Deployer>(driver: &mut Driver<D>) -> Result<Option<Adopted>, Halt> {
    let Some(running) = driver.home.log.state().adoptable().cloned() else { return Ok(None) };
    let generation = running.deployed.generation;
    match try_adopt(driver, running).await? {
        Ok(adopted) => {
            tracing::info!(job = %driver.spec.job, %generation, "goes on with the attempt that runs");
            Ok(Some(adopted))
        }
        Err(reason) => {
            tracing::warn!(job = %driver.spec.job, %generation, reason, "the attempt cannot be gone on with; a new one begins");
            let reason =
                format!("another coordinator leads, and attempt {generation} could not be gone on with: {reason}");
            driver.reason.clone_from(&reason);
            driver.status.send_modify(|s| s.last_failure = Some(reason));
            Ok(None)
        }
    }
}

async fn try_adopt<D: Deployer>(
    driver: &mut Driver<D>,
    running: RunningAttempt,
) -> Result<Result<Adopted, String>, Halt> {
    let deployed = &running.deployed;
    driver.scale_to(deployed.parallelism);
    let records: Vec<EpochRecord> = driver.home.log.state().epochs.values().cloned().collect();
    let manifests = match read_manifests(driver, &records).await? {
        Ok(manifests) => manifests,
        Err(reason) => return Ok(Err(reason)),
    };
    let newest = manifests.last().map(|(_, manifest)| manifest);
    let complete = newest.map_or(Epoch(0), |manifest| manifest.epoch);
    if newest.is_some_and(|manifest| manifest.graph_hash != recovery::graph_hash(&driver.spec)) {
        return Ok(Err("its newest checkpoint is of another dataflow".to_owned()));
    }
    let resumed = match resume(driver, &running, newest) {
        Ok(resumed) => resumed,
        Err(reason) => return Ok(Err(format!("bug: {reason}; please report it"))),
    };
    // Before its reports come in, which wait meanwhile.
    recovery::publish_complete(driver, deployed.generation).await?;
    let mut attempt = match driver.adopt(deployed, complete).await? {
        Ok(attempt) => attempt,
        Err(reason) => return Ok(Err(reason)),
    };
    let (generation, at) = (deployed.generation, driver.clock.now());
    if let Err(error) = driver.home.log.append(Record::AttemptAdopted { generation, at }).await {
        attempt.hold.end();
        return Err(error.into());
    }
    driver.restored_from = Some(complete);
    driver.status.send_modify(|s| s.generation = generation);
    driver.tell_recorded();
    let first_epoch_now = newest.map_or(deployed.first_epoch_now, |manifest| manifest.next_epoch_now);
    let retained = manifests.iter().map(|(path, manifest)| (manifest.epoch, manifest.objects(path))).collect();
    let manifest = manifests.into_iter().next_back().map(|(_, manifest)| manifest);
    // Every one of them was read above.
    let (replay, unreadable) = (Vec::new(), BTreeMap::new());
    let recovered = Recovered { generation, manifest, first_epoch_now, replay, retained, unreadable };
    Ok(Ok(Adopted { recovered, attempt, resumed, adoptions: running.adoptions + 1 }))
}

/// The manifest of every complete checkpoint with its path, oldest first. What they refer to is not read: nothing is
/// restored.
async fn read_manifests<D: Deployer>(
    driver: &mut Driver<D>,
    records: &[EpochRecord],
) -> Result<Result<Vec<(String, Manifest)>, String>, Halt> {
    let (store, job) = (driver.home.checkpoints.clone(), driver.spec.job.clone());
    let read = async {
        let mut manifests = Vec::new();
        for record in records {
            match store.read_manifest(&job, &record.manifest).await {
                Ok(manifest) => manifests.push((record.manifest.path.clone(), manifest)),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(Ok(manifests))
    };
    driver.attend(read).await
}

/// The attempt's machines, out of its newest complete checkpoint and what was decided since.
fn resume<D>(driver: &Driver<D>, running: &RunningAttempt, newest: Option<&Manifest>) -> Result<Resumed, String> {
    let mut subtasks = driver.spec.source_subtasks();
    let mut splits = BTreeMap::new();
    for operator in driver.sources.keys() {
        splits.insert(*operator, splits_of(driver.home.log.state(), *operator, newest)?);
    }
    let mut sources = BTreeMap::new();
    for (operator, splits) in &splits {
        let source = &driver.sources[operator];
        let (bounded, side_by_side) = (source.monitor_interval.is_none(), source.side_by_side);
        let subtasks = subtasks.remove(operator).unwrap_or_default();
        sources.insert(*operator, ResumedSource { subtasks, bounded, side_by_side, splits });
    }
    running.journal.resume(newest.map_or(Epoch(0), |manifest| manifest.epoch), &sources)
}

/// All splits of a source as of the newest complete checkpoint; without one, as they were first found.
fn splits_of(state: &JobRecord, operator: OperatorId, newest: Option<&Manifest>) -> Result<Vec<SplitState>, String> {
    if let Some(manifest) = newest {
        return Ok(manifest.sources.get(&operator).cloned().unwrap_or_default());
    }
    let found = state.initial_splits.get(&operator).ok_or_else(|| format!("the splits of {operator} are not known"))?;
    Ok(found.iter().map(|split| SplitState { split: split.clone(), progress: None }).collect())
}
