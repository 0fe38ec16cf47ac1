//! Savepoints: taken while the job runs or to stop it, whatever fails meanwhile, and another job that goes on from them
//! when nothing of the first one is left.

use std::path::{Path, PathBuf};

use mainstem_core::ids::{Epoch, SavepointId};
use mainstem_core::job::JobState;
use tokio::sync::mpsc;

use super::world::{Crash, Job};
use super::{failure, flip_a_bit};
use crate::meta_log::{SavepointOutcome, SavepointRecord};
use crate::spec::{Control, JobOutcome, RestoreFrom, SavepointRequest};

const ID: u64 = 7;

pub(super) fn ask(directory: &Path, stop: bool) -> mpsc::Receiver<Control> {
    let (sender, control) = mpsc::channel(1);
    let request = SavepointRequest { id: SavepointId::of(ID), directory: directory.display().to_string(), stop };
    sender.try_send(Control::Savepoint(request)).unwrap();
    control
}

pub(super) fn taken(record: Option<SavepointRecord>) -> (PathBuf, Epoch) {
    let Some(SavepointRecord { outcome: SavepointOutcome::Taken { path, epoch, .. }, .. }) = record else {
        panic!("{record:?}")
    };
    (path.into(), epoch)
}

fn refused(record: Option<SavepointRecord>) -> String {
    let Some(SavepointRecord { outcome: SavepointOutcome::Failed { reason }, .. }) = record else {
        panic!("{record:?}")
    };
    reason
}

/// A job that begins with a savepoint, beside another one, of which nothing is left.
fn successor(job: Job, savepoint: &Path, directory: &Path) -> Job {
    let mut next = job.beside(directory);
    std::fs::remove_dir_all(&job.directory).unwrap();
    next.restore = Some(RestoreFrom { path: savepoint.display().to_string(), id: SavepointId::of(ID) });
    next
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_job_goes_on_with_a_savepoint_when_nothing_else_of_it_is_left() {
    let (first, second, kept) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = Job::new(first.path());
    let (outcome, status) = job.run_with(ask(kept.path(), true)).await;
    assert_eq!((outcome, status.state), (Some(JobOutcome::Stopped), JobState::Stopped));
    assert_eq!(job.staged(), 0);
    let (path, epoch) = taken(status.last_savepoint);
    assert_eq!((Some(epoch), status.last_committed), (status.last_complete, Some(epoch)));
    // The directory that holds it will do.
    for given in [kept.path().to_owned(), path.clone()] {
        mainstem_state::OpenSavepoint::open(&given).await.unwrap();
    }
    let next = successor(job, kept.path(), second.path());
    // Crashes before anything new is complete, and after.
    for crash in [Crash::BeforeSnapshot(epoch.0 + 1), Crash::BeforeCommit(epoch.0 + 2)] {
        next.world().crash = Some(crash);
        assert_eq!(next.run().await.0, None, "{crash:?}");
    }
    let deployed = next.world().deployments[1].clone();
    assert_eq!(deployed.restore.epoch, Some(epoch));
    // Once it exists, the savepoint is not asked for any more.
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(next.run().await.0, Some(JobOutcome::Finished));
    next.assert_exactly_once();
    let generations: Vec<_> = next.world().deployments.iter().map(|d| d.generation).collect();
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
}

#[tokio::test]
async fn a_savepoint_of_a_running_job_changes_nothing_and_outlives_its_checkpoints() {
    let (first, second, kept) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = Job::new(first.path());
    let (outcome, status) = job.run_with(ask(kept.path(), false)).await;
    assert_eq!((outcome, status.savepoint), (Some(JobOutcome::Finished), None));
    job.assert_exactly_once();
    let (path, epoch) = taken(status.last_savepoint);
    assert!(Some(epoch) < status.last_committed);
    // In a world of its own the second job gives what came after the savepoint.
    let before: usize = job.world().publications.iter().filter(|published| **published <= epoch).count();
    let mut next = Job::new(second.path());
    next.restore = Some(RestoreFrom { path: path.display().to_string(), id: SavepointId::of(ID) });
    std::fs::remove_dir_all(first.path()).unwrap();
    assert_eq!(next.run().await.0, Some(JobOutcome::Finished));
    assert!(next.world().publications.iter().all(|published| *published > epoch));
    assert_eq!(before as u64, epoch.0);
}

#[tokio::test]
async fn a_savepoint_is_asked_for_again_where_its_attempt_fails() {
    for stop in [false, true] {
        let (directory, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let job = Job::new(directory.path());
        // The very epoch of the savepoint, whichever it is of the first two.
        job.world().failure = Some((1, failure("connection lost", true)));
        let (outcome, status) = job.run_with(ask(kept.path(), stop)).await;
        assert_eq!(outcome, Some(if stop { JobOutcome::Stopped } else { JobOutcome::Finished }));
        assert_eq!(status.restarts, 1);
        let (path, _) = taken(status.last_savepoint);
        assert_eq!(names(kept.path()), [path.file_name().unwrap().to_str().unwrap()], "and nothing else");
        if stop {
            assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
        }
        job.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_job_goes_on_where_there_is_no_place_for_its_savepoint() {
    for stop in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut job = Job::new(directory.path());
        job.options.operation.retries_max = 1;
        let file = directory.path().join("file");
        std::fs::write(&file, "not a directory").unwrap();
        let (outcome, status) = job.run_with(ask(&file.join("below"), stop)).await;
        assert_eq!((outcome, status.restarts), (Some(JobOutcome::Finished), 0));
        let reason = refused(status.last_savepoint);
        assert!(reason.starts_with("cannot take the savepoint: cannot create the directory"), "{reason}");
        job.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_takes_no_savepoint_and_says_so() {
    let (directory, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = Job::new(directory.path());
    let (sender, control) = mpsc::channel(2);
    let request =
        SavepointRequest { id: SavepointId::of(ID), directory: kept.path().display().to_string(), stop: true };
    sender.send(Control::Savepoint(request)).await.unwrap();
    sender.send(Control::Cancel).await.unwrap();
    let (outcome, status) = job.run_with(control).await;
    assert_eq!(outcome, Some(JobOutcome::Stopped));
    assert_eq!(refused(status.last_savepoint), "the job ended before it was taken");
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_damaged_or_foreign_savepoint_is_refused_and_nothing_runs() {
    let (directory, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = Job::new(directory.path());
    let (_, status) = job.run_with(ask(kept.path(), true)).await;
    let (path, _) = taken(status.last_savepoint);
    let state = std::fs::read_dir(path.join("state")).unwrap().next().unwrap().unwrap().path();
    let shown = state.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = std::fs::read(&state).unwrap();
    let description = path.join("savepoint");
    let described = std::fs::read(&description).unwrap();
    let refusal = async |parts: &[&str]| {
        let elsewhere = tempfile::tempdir().unwrap();
        let mut next = Job::new(elsewhere.path());
        next.restore = Some(RestoreFrom { path: path.display().to_string(), id: SavepointId::of(ID) });
        let (outcome, _) = next.run().await;
        let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
        for part in parts {
            assert!(failure.message.contains(part), "'{part}' is missing in: {}", failure.message);
        }
        assert_eq!(next.world().deployments.len(), 0);
    };
    flip_a_bit(&state);
    refusal(&[&shown, "is damaged", "checksum", "use another one"]).await;
    std::fs::write(&state, &whole[1..]).unwrap();
    refusal(&[&shown, "bytes and was written with"]).await;
    std::fs::remove_file(&state).unwrap();
    refusal(&[&shown, "is missing"]).await;
    std::fs::write(&state, &whole).unwrap();
    for at in [3, 30, described.len() - 5] {
        let mut changed = described.clone();
        changed[at] ^= 1;
        std::fs::write(&description, changed).unwrap();
        refusal(&["its file 'savepoint' is damaged"]).await;
    }
    std::fs::remove_file(&description).unwrap();
    refusal(&["its file 'savepoint' is missing"]).await;
    std::fs::write(&description, &described).unwrap();
    let unfinished = kept.path().join(format!(".unfinished-{}", path.file_name().unwrap().to_str().unwrap()));
    std::fs::rename(&path, &unfinished).unwrap();
    refusal(&["there is no savepoint in", "no such directory"]).await;
    let error = mainstem_state::OpenSavepoint::open(kept.path()).await.unwrap_err().to_string();
    assert!(error.contains("is unfinished"), "{error}");
    std::fs::rename(&unfinished, &path).unwrap();
    // Another one in the same place.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut next = Job::new(elsewhere.path());
    next.restore = Some(RestoreFrom { path: path.display().to_string(), id: SavepointId::of(ID + 1) });
    let (outcome, _) = next.run().await;
    assert!(matches!(&outcome, Some(JobOutcome::Failed(f)) if f.message.contains("another savepoint")), "{outcome:?}");
}
