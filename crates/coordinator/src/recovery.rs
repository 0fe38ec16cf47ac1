//! What comes before an attempt: fencing the one before by a higher number, finding a checkpoint that can be
//! read, publishing what was complete and is not visible yet, and removing what crashed attempts left.

mod restore;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::protocol::{Barrier, Failure};
use mainstem_core::splits::SourceEpoch;
use mainstem_core::time::Timestamp;
use mainstem_rt::{bug, failpoint};
use mainstem_state::{Manifest, StateError};

use crate::coordinator::{Driver, Halt, fatal};
use crate::lane::Publication;
use crate::meta_log::{EpochRecord, Record};
use crate::spec::{Deployer, JobSpec};

/// What an attempt starts from.
pub(crate) struct Recovered {
    /// The attempt.
    pub(crate) generation: Generation,
    /// The checkpoint; none: from nothing.
    pub(crate) manifest: Option<Manifest>,
    /// What the clock says in the first epoch.
    pub(crate) first_epoch_now: Timestamp,
    /// Epochs to run again, whose own checkpoints cannot be read, oldest first.
    pub(crate) replay: Vec<EpochRecord>,
    /// Readable checkpoints up to the one that is restored, with the objects that each names.
    pub(crate) retained: BTreeMap<Epoch, BTreeSet<String>>,
    /// Checkpoints before the one that is restored that cannot be read, with their manifests.
    pub(crate) unreadable: BTreeMap<Epoch, BTreeSet<String>>,
}

impl Recovered {
    /// The epoch that is restored; 0: none.
    pub(crate) fn epoch(&self) -> Epoch {
        self.manifest.as_ref().map_or(Epoch(0), |m| m.epoch)
    }

    /// The barriers of the epochs that are run again.
    pub(crate) fn barriers(&self) -> Vec<Barrier> {
        self.replay.iter().map(EpochRecord::barrier).collect()
    }

    /// What an epoch that is run again did to a source.
    pub(crate) fn source_epoch(&self, epoch: Epoch, operator: mainstem_core::ids::OperatorId) -> SourceEpoch {
        let record = self.replay.iter().find(|record| record.epoch == epoch);
        record.and_then(|r| r.sources.get(&operator)).cloned().unwrap_or_default()
    }
}

/// Prepares the next attempt.
pub(crate) async fn recover<D: Deployer>(driver: &mut Driver<D>) -> Result<Recovered, Halt> {
    driver.spec.history.preparing(&driver.reason, driver.home.log.state().generation);
    restore::begin_with_savepoint(driver).await?;
    driver.identify();
    let floor = driver.home.generation_floor;
    let generation = driver.home.log.state().generation.max(floor).next();
    find_store(driver, generation).await?;
    let found = find_checkpoint(driver).await?;
    if let Some(parallelism) = found.manifest.as_ref().and_then(|manifest| bound_to(manifest, &driver.spec)) {
        driver.run_at(parallelism);
    }
    let restored_from = found.manifest.as_ref().map_or(Epoch(0), |m| m.epoch);
    driver.restored_from = Some(restored_from);
    let (reason, at) = (driver.reason.clone(), driver.clock.now());
    // From here on no earlier attempt can record anything (I3).
    driver.home.log.append(Record::GenerationStarted { generation, restored_from, reason, at }).await?;
    failpoint::hit(failpoint::ATTEMPT_RECORDED);
    driver.status.send_modify(|s| {
        s.generation = generation;
        s.damaged.clone_from(&found.damaged);
    });
    driver.tell_recorded();
    if !bug::is_put_back(bug::CLEAN_UP_FIRST) {
        publish_complete(driver, generation).await?;
    }
    let since = driver.home.log.state().restored.as_ref().map_or(Generation(0), |from| from.base.next());
    let clean_up = driver.publisher.ask(Publication::CleanUp { generations: since..generation });
    driver.attend(clean_up).await?;
    if bug::is_put_back(bug::CLEAN_UP_FIRST) {
        publish_complete(driver, generation).await?;
    }
    remove_orphans(driver, generation, &found).await;
    let replay: Vec<EpochRecord> =
        driver.home.log.state().epochs.range(restored_from.next()..).map(|(_, record)| record.clone()).collect();
    let first_epoch_now = match (&found.manifest, replay.first()) {
        (Some(manifest), _) => manifest.next_epoch_now,
        (None, Some(first)) => first.epoch_now,
        (None, None) => driver.clock.now(),
    };
    let Found { manifest, retained, mut unreadable, .. } = found;
    // The others are run again, which gives them another manifest.
    unreadable.retain(|epoch, _| *epoch < restored_from);
    Ok(Recovered { generation, manifest, first_epoch_now, replay, retained, unreadable })
}

/// Makes sure that the job's checkpoints can be where they are looked for. An empty store, such as the directory on
/// which a disk is to be mounted, must not be taken for one whose files are damaged.
async fn find_store<D: Deployer>(driver: &Driver<D>, generation: Generation) -> Result<(), Failure> {
    let (store, job) = (&driver.home.checkpoints, &driver.spec.job);
    let failure =
        |error: StateError| Failure { message: error.to_string(), retryable: error.is_retryable(), consequence: false };
    let newest = driver.home.log.state().newest();
    if newest > Epoch(0) && !store.is_in_place(job).await.map_err(failure)? {
        let message = format!(
            "nothing of the job's checkpoints, of which {newest} is the newest, is in '{}': the disk of the state \
             directory is not mounted, or it is another directory than before; mount it, then start the job again",
            store.place_of(job)
        );
        return Err(Failure { message, retryable: true, consequence: false });
    }
    store.mark(job, generation).await.map_err(failure)
}

/// The newest checkpoint that can be read.
struct Found {
    manifest: Option<Manifest>,
    retained: BTreeMap<Epoch, BTreeSet<String>>,
    unreadable: BTreeMap<Epoch, BTreeSet<String>>,
    damaged: Vec<String>,
}

async fn find_checkpoint<D: Deployer>(driver: &Driver<D>) -> Result<Found, Failure> {
    let store = driver.home.checkpoints.clone();
    let (retained, unreadable) = (BTreeMap::new(), BTreeMap::new());
    let mut found = Found { manifest: None, retained, unreadable, damaged: Vec::new() };
    let records: Vec<EpochRecord> = driver.home.log.state().epochs.values().rev().cloned().collect();
    for record in &records {
        let read = async {
            let manifest = store.read_manifest(&driver.spec.job, &record.manifest).await?;
            // Only what will be restored is looked at as a whole; older checkpoints are checked when they are needed.
            match found.manifest {
                None if driver.has_made(record.epoch) => manifest.verify_sizes(&store).await?,
                None => manifest.verify_files(&store).await?,
                Some(_) => {}
            }
            Ok::<_, StateError>(manifest)
        };
        match read.await {
            Ok(manifest) if manifest.graph_hash != graph_hash(&driver.spec) => {
                let path = &record.manifest.path;
                return Err(fatal(format!(
                    "checkpoint '{path}' belongs to another dataflow than the one stored with the job; restore the job's directory from one backup"
                )));
            }
            Ok(manifest) => {
                found.retained.insert(record.epoch, manifest.objects(&record.manifest.path));
                found.manifest.get_or_insert(manifest);
            }
            Err(error) if !error.is_damage() => {
                let message = format!("cannot read the checkpoint of epoch {}: {error}", record.epoch);
                return Err(Failure { message, retryable: error.is_retryable(), consequence: false });
            }
            Err(error) => {
                tracing::warn!(job = %driver.spec.job, epoch = %record.epoch, %error, "checkpoint cannot be used; falling back to the one before");
                found.unreadable.insert(record.epoch, BTreeSet::from([record.manifest.path.clone()]));
                found.damaged.push(error.to_string());
            }
        }
    }
    let restored = found.manifest.as_ref().map_or(Epoch(0), |manifest| manifest.epoch);
    if let Some(record) = records.iter().find(|record| record.epoch > restored && record.unaligned) {
        let damage = found.damaged.join("; ");
        return Err(fatal(format!(
            "{damage}. The barrier of epoch {} has overtaken rows in flight, so what the epoch has published cannot be \
             told from epoch {restored}; restore the files from a backup, or give up the state with --fresh",
            record.epoch
        )));
    }
    let state = driver.home.log.state();
    if found.manifest.is_none() && (state.restored.is_some() || !state.can_run_again_after(Epoch(0))) {
        let damage = found.damaged.join("; ");
        return Err(fatal(format!(
            "no checkpoint of the job can be read: {damage}; restore the files from a backup, begin a new job with a savepoint (--from-savepoint), or give up the state with --fresh"
        )));
    }
    Ok(found)
}

/// The parallelism at which the job has to go on from the checkpoint, where that is another one than it has: rows in
/// flight are worked off by the subtasks to which they were on their way.
fn bound_to(manifest: &Manifest, spec: &JobSpec) -> Option<u32> {
    manifest.in_flight_bytes()?;
    let task = spec.tasks.iter().find(|task| task.scales)?;
    manifest.parallelism.get(&task.head).copied().filter(|parallelism| *parallelism != spec.parallelism)
}

/// What a manifest says of the dataflow whose state it lists.
pub(crate) fn graph_hash(spec: &JobSpec) -> String {
    hash_of(&spec.graph_json)
}

fn hash_of(graph_json: &str) -> String {
    format!("{:08x}", crc32c::crc32c(graph_json.as_bytes()))
}

/// Publishes every epoch that is complete and not visible yet (I2).
pub(crate) async fn publish_complete<D: Deployer>(driver: &mut Driver<D>, generation: Generation) -> Result<(), Halt> {
    let committed = driver.home.log.state().committed;
    let open: Vec<EpochRecord> =
        driver.home.log.state().epochs.range(committed.next()..).map(|(_, record)| record.clone()).collect();
    for record in open {
        let EpochRecord { epoch, generation: made_by, committables, .. } = record;
        driver.spec.history.publishing(epoch, made_by);
        let published = driver.publisher.ask(Publication::Epoch { epoch, committables });
        if !bug::is_put_back(bug::PUBLISHED_BY_HOPE) {
            driver.attend(published).await?;
        }
        driver.record_committed(generation, epoch).await?;
    }
    Ok(())
}

/// Removes objects that no checkpoint of the log names. Without a manifest to tell what it names, nothing goes.
async fn remove_orphans<D: Deployer>(driver: &Driver<D>, generation: Generation, found: &Found) {
    if !found.damaged.is_empty() {
        return;
    }
    let named = found.retained.values().flatten().cloned().collect();
    if let Err(error) = driver.home.checkpoints.clone().remove_orphans(&driver.spec.job, &named, generation).await {
        tracing::warn!(job = %driver.spec.job, %error, "cannot remove orphaned checkpoint files");
    }
}
