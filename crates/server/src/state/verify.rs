//! Reading every byte of checkpoints and savepoints. What is damaged is named, and the rest is read on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::describe;
use super::target::{Checkpoint, Job};

/// What was found.
#[derive(Default, Serialize)]
pub(super) struct Report {
    /// Checkpoints and savepoints that were read.
    pub(super) verified: Vec<Verified>,
    /// What is not as it was written, by file.
    pub(super) damaged: Vec<String>,
    /// What is no damage.
    pub(super) notes: Vec<String>,
}

/// A checkpoint or savepoint that was read.
#[derive(Serialize)]
pub(super) struct Verified {
    pub(super) what: String,
    pub(super) place: String,
    pub(super) files: usize,
    pub(super) bytes: u64,
    /// Files that are not as they were written.
    pub(super) damaged: usize,
}

/// Reads the checkpoints of a job, or that of an epoch.
pub(super) async fn job(job: &Job, epoch: Option<u64>, report: &mut Report) -> anyhow::Result<()> {
    report.damaged.extend(job.unreadable.iter().cloned());
    if let Err(error) = &job.record {
        report.damaged.push(error.clone());
    }
    let wanted = |checkpoint: &&Checkpoint| epoch.is_none_or(|epoch| checkpoint.manifest.epoch.0 == epoch);
    // Most files are of several checkpoints.
    let mut read = BTreeMap::new();
    for checkpoint in job.checkpoints.iter().filter(wanted) {
        self::checkpoint(checkpoint, &mut read, report).await;
    }
    if let Ok(Some(record)) = &job.record {
        for (recorded, of_epoch) in record.epochs.iter().filter(|(recorded, _)| epoch.is_none_or(|e| recorded.0 == e)) {
            // What the manifest says of itself was read above.
            if let Err(error) = job.store.read_manifest(&job.job, &of_epoch.manifest).await {
                let known = report.damaged.iter().any(|damaged| damaged.contains(&of_epoch.manifest.path));
                if !known {
                    report.damaged.push(format!("epoch {recorded} of job '{}': {error}", job.job));
                }
            }
        }
    }
    match epoch {
        Some(epoch) if !job.checkpoints.iter().any(|checkpoint| checkpoint.manifest.epoch.0 == epoch) => {
            anyhow::bail!("there is no checkpoint of epoch {epoch} of job '{}'", job.job)
        }
        Some(_) => {}
        // Of manifests that cannot be read nobody knows what they name.
        None if !job.unreadable.is_empty() => {}
        None => {
            let named: BTreeSet<String> =
                job.checkpoints.iter().flat_map(|checkpoint| checkpoint.manifest.state_paths()).collect();
            let found = job.store.list(&job.job, "state").await?;
            let left = found.iter().filter(|path| !named.contains(*path)).count();
            if left > 0 {
                let job = &job.job;
                report.notes.push(format!(
                    "{left} state files of job '{job}' are named by no manifest: being written, or left by a crash; the \
                     next start removes those"
                ));
            }
        }
    }
    Ok(())
}

/// Reads savepoints.
pub(super) async fn savepoints(savepoints: &[Checkpoint]) -> Report {
    let mut report = Report::default();
    for savepoint in savepoints {
        checkpoint(savepoint, &mut BTreeMap::new(), &mut report).await;
    }
    report
}

/// `read`: whether a file, by path, size and checksum, is as it was written.
async fn checkpoint(checkpoint: &Checkpoint, read: &mut BTreeMap<(String, u64, u32), bool>, report: &mut Report) {
    let mut damaged = 0;
    for handle in checkpoint.manifest.files() {
        let key = (handle.path.clone(), handle.size, handle.crc32c);
        let is_sound = match read.get(&key) {
            Some(is_sound) => *is_sound,
            None => {
                let verified = checkpoint.files.verify(handle).await;
                let is_sound = verified.is_ok();
                report.damaged.extend(verified.err().map(|error| error.to_string()));
                read.insert(key, is_sound);
                is_sound
            }
        };
        damaged += usize::from(!is_sound);
    }
    report.verified.push(Verified {
        what: describe(checkpoint),
        place: checkpoint.place.clone(),
        files: checkpoint.manifest.state_paths().len(),
        bytes: checkpoint.manifest.state_bytes(),
        damaged,
    });
}
