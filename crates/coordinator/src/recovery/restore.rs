//! A job that begins with a savepoint: its files are copied to where the job keeps its checkpoints, then one record
//! says that the job exists and that this is its first checkpoint. Before the record nothing counts, and all of it can
//! be repeated, by another coordinator too; after it, the savepoint is not needed any more.

use std::collections::BTreeMap;
use std::path::Path;

use mainstem_core::ids::Generation;
use mainstem_core::protocol::Failure;
use mainstem_core::time::Timestamp;
use mainstem_state::{ManifestRef, OpenSavepoint, SavepointError, SavepointProgress};

use super::{graph_hash, hash_of};
use crate::coordinator::{Driver, Halt, fatal};
use crate::meta_log::{EpochRecord, JobCreated, JobRestored, Record, RestoredFrom};
use crate::spec::{Deployer, RestoreFrom};

/// The first second of 2026 UTC, since 1970.
const BASE_SECOND: i64 = 1_767_225_600;

/// Lets a job that does not exist yet begin with the savepoint that it was given, if it was given one.
pub(super) async fn begin_with_savepoint<D: Deployer>(driver: &mut Driver<D>) -> Result<(), Halt> {
    let Some(from) = driver.spec.restore.clone() else { return Ok(()) };
    if driver.home.log.state().created.is_some() {
        return Ok(());
    }
    let (store, retry) = (driver.home.checkpoints.clone(), driver.retry.clone());
    let (job, graph_hash, key_groups) = (driver.spec.job.clone(), graph_hash(&driver.spec), driver.spec.key_groups);
    let (status, path) = (driver.status.clone(), from.path.clone());
    let told = move |copied: SavepointProgress| {
        let SavepointProgress { files, files_all, .. } = copied;
        let waiting = format!("copies the savepoint '{path}': {files} of {files_all} files");
        status.send_modify(|s| s.waiting = Some(waiting));
    };
    let floor = driver.home.generation_floor;
    let copy = async {
        let mut tries = retry.tries(format!("begin with the savepoint '{}'", from.path));
        loop {
            let tried = async {
                let opened = OpenSavepoint::open(Path::new(&from.path)).await?;
                let generation = first_generation(&opened, floor);
                let written = opened.copy_into(&store, &job, &graph_hash, generation, &told).await?;
                Ok::<_, SavepointError>((opened, written))
            };
            match tried.await {
                Ok(done) => return Ok(done),
                Err(error) => tries.wait(error.into()).await?,
            }
        }
    };
    let copied = driver.attend(copy).await;
    driver.status.send_modify(|s| s.waiting = None);
    let (opened, written) = copied?;
    check(&opened, &from, key_groups)?;
    let record = record(driver, &opened, written);
    driver.home.log.append(Record::JobRestored(Box::new(record))).await?;
    Ok(())
}

/// Whether it is the savepoint for which the job was checked when it was handed in.
fn check(opened: &OpenSavepoint, from: &RestoreFrom, key_groups: u16) -> Result<(), Failure> {
    let savepoint = opened.savepoint();
    if savepoint.id != from.id {
        return Err(fatal(format!(
            "'{}' holds another savepoint than when the job was handed in; hand the job in anew",
            from.path
        )));
    }
    if savepoint.manifest.graph_hash != hash_of(&savepoint.graph_json) {
        return Err(fatal(format!("the savepoint '{}' has state of another dataflow than it says", from.path)));
    }
    if savepoint.manifest.key_groups != key_groups {
        let of_savepoint = savepoint.manifest.key_groups;
        return Err(fatal(format!("bug: {key_groups} key groups instead of the savepoint's {of_savepoint}")));
    }
    Ok(())
}

fn record<D: Deployer>(driver: &Driver<D>, opened: &OpenSavepoint, written: ManifestRef) -> JobRestored {
    let (manifest, now) = (&opened.savepoint().manifest, driver.clock.now());
    let generation = first_generation(opened, driver.home.generation_floor);
    let created = JobCreated {
        graph_json: driver.spec.graph_json.clone(),
        sql_hash: driver.spec.sql_hash.clone(),
        key_groups: driver.spec.key_groups,
        created_at: now,
    };
    let epoch = EpochRecord {
        epoch: manifest.epoch,
        generation,
        manifest: written,
        epoch_now: manifest.next_epoch_now,
        next_epoch_now: manifest.next_epoch_now,
        sources: BTreeMap::new(),
        committables: BTreeMap::new(),
        end: None,
        state_bytes: manifest.state_bytes(),
        unaligned: manifest.in_flight_bytes().is_some(),
        completed_at: manifest.created_at,
    };
    let base = base(now, generation);
    let from = RestoredFrom {
        id: opened.savepoint().id.clone(),
        job: manifest.job.clone(),
        epoch: manifest.epoch,
        path: opened.directory().display().to_string(),
        base,
    };
    JobRestored { created, epoch, from }
}

/// The attempt of which the job's first checkpoint is, and which its files have in their names: above all of a job of this
/// name that was removed, whose files may still be being deleted. The same for every coordinator that copies the
/// savepoint, so that copying it twice leaves nothing.
fn first_generation(opened: &OpenSavepoint, floor: Generation) -> Generation {
    opened.savepoint().manifest.generation.max(floor.next())
}

/// Attempts count from here on: above all of the savepoint, and apart from those that the job of which it was taken,
/// or another one that began with it, has made since under the same name elsewhere. Names of output carry the attempt,
/// so two such jobs that write to one place never want the same name.
fn base(now: Timestamp, first: Generation) -> Generation {
    let seconds = (now.0 / 1_000 - BASE_SECOND).max(0);
    Generation(seconds.unsigned_abs()).max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_of_restored_jobs_are_apart_from_each_other() {
        let at = |seconds: i64| Timestamp((BASE_SECOND + seconds) * 1_000);
        assert_eq!(base(at(77), Generation(4)), Generation(77));
        assert_eq!(base(at(77), Generation(100)), Generation(100));
        assert_eq!(base(Timestamp(0), Generation(4)), Generation(4), "a clock that was never set");
    }
}
