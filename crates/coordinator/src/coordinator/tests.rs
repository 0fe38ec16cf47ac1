//! The driver with a tiny job: whatever crashes, fails or is damaged, the world sees every row once, or the job
//! stops and says why.

mod adoption;
mod cluster;
mod flaky;
mod savepoints;
mod slow;
mod world;

use std::path::Path;

use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::job::JobState;
use mainstem_core::protocol::Failure;
use tokio::sync::mpsc;

use self::world::{Crash, Job};
use crate::spec::{Control, JobOutcome};

fn failure(message: &str, retryable: bool) -> Failure {
    Failure { message: message.to_owned(), retryable, consequence: false }
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// One that the attempt was about to delete when it crashed may be gone.
fn truncate(path: &Path) {
    let Ok(bytes) = std::fs::read(path) else { return };
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    let (outcome, status) = job.run().await;
    assert_eq!(outcome, Some(JobOutcome::Finished));
    assert_eq!((status.state, status.restarts, status.splits_waiting), (JobState::Finished, 0, 0));
    assert!(status.last_committed >= Some(Epoch(4)) && status.last_committed == status.last_complete, "{status:?}");
    job.assert_exactly_once();
    assert_eq!(job.files("manifests").len(), 2);
    assert_eq!(job.files("state").len(), 2);
    assert_eq!(job.run().await.0, Some(JobOutcome::AlreadyFinished));
    assert_eq!(job.world().deployments.len(), 1);
}

#[tokio::test]
async fn a_crash_at_any_step_of_any_epoch_loses_and_doubles_nothing() {
    for epoch in 1..=9 {
        for crash in [Crash::BeforeSnapshot(epoch), Crash::BeforeCommit(epoch), Crash::AfterCommit(epoch)] {
            let directory = tempfile::tempdir().unwrap();
            let job = Job::new(directory.path());
            job.world().crash = Some(crash);
            assert_eq!(job.run().await.0, None, "{crash:?}");
            let (outcome, _) = job.run().await;
            assert_eq!(outcome, Some(JobOutcome::Finished), "{crash:?}");
            job.assert_exactly_once();
            assert_eq!(job.staged(), 0, "{crash:?}");
            assert_eq!(job.files("state").len(), 2, "{crash:?}");
            let generations: Vec<_> = job.world().deployments.iter().map(|d| d.generation).collect();
            assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
        }
    }
}

#[tokio::test]
async fn a_crash_in_each_epoch_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    for epoch in 1..=7 {
        let crashes = [Crash::BeforeSnapshot(epoch), Crash::BeforeCommit(epoch), Crash::AfterCommit(epoch)];
        job.world().crash = Some(crashes[epoch as usize % 3]);
        assert_eq!(job.run().await.0, None, "{epoch}");
    }
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_failure_restarts_from_the_last_checkpoint_and_its_root_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().failure = Some((3, failure("connection lost", true)));
    job.world().failing_commits = 3;
    let (outcome, status) = job.run().await;
    assert_eq!(outcome, Some(JobOutcome::Finished));
    assert_eq!((status.restarts, status.last_failure.as_deref()), (1, Some("connection lost")));
    job.assert_exactly_once();
    let world = job.world();
    assert_eq!(world.deployments[1].restore.epoch, Some(Epoch(2)));
    assert_eq!(world.deployments[1].generation, Generation(2));
}

#[tokio::test]
async fn a_final_failure_ends_the_job_and_the_next_start_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().failure = Some((3, failure("line 7 cannot be read", false)));
    let (outcome, status) = job.run().await;
    assert_eq!(outcome, Some(JobOutcome::Failed(failure("line 7 cannot be read", false))));
    assert_eq!(status.state, JobState::Failed);
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn commits_that_go_on_failing_end_the_job_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().failing_commits = u32::MAX;
    let (outcome, _) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert!(failure.message.contains("busy") && failure.message.contains("gave up"), "{}", failure.message);
    job.world().failing_commits = 0;
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_stop_publishes_what_was_read_and_the_next_start_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    for _ in 0..3 {
        let (sender, control) = mpsc::channel(1);
        sender.send(Control::Stop).await.unwrap();
        let (outcome, status) = job.run_with(control).await;
        assert_eq!((outcome, status.state), (Some(JobOutcome::Stopped), JobState::Stopped));
        assert_eq!(job.staged(), 0);
    }
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_cancel_ends_at_once_and_without_anybody_to_ask_the_job_runs_on() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    let (sender, control) = mpsc::channel(1);
    sender.send(Control::Cancel).await.unwrap();
    assert_eq!(job.run_with(control).await.0, Some(JobOutcome::Stopped));
    let (_, control) = mpsc::channel(1);
    assert_eq!(job.run_with(control).await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named_and_the_one_before_is_used_without_doubling_anything() {
    for epoch in 2..=8 {
        for crash in [Crash::BeforeCommit(epoch), Crash::AfterCommit(epoch), Crash::BeforeSnapshot(epoch + 1)] {
            for (directory_of_file, damage) in [("state", flip_a_bit as fn(&Path)), ("manifests", truncate)] {
                let directory = tempfile::tempdir().unwrap();
                let job = Job::new(directory.path());
                job.world().crash = Some(crash);
                assert_eq!(job.run().await.0, None);
                let file =
                    job.files(directory_of_file).into_iter().rfind(|f| name(f).starts_with(&format!("{epoch}-")));
                let file = file.unwrap();
                damage(&file);
                let (outcome, status) = job.run().await;
                assert_eq!(outcome, Some(JobOutcome::Finished), "{crash:?}");
                assert_eq!(status.damaged.len(), 1, "{crash:?}");
                assert!(status.damaged[0].contains(name(&file)), "{:?}", status.damaged);
                job.assert_exactly_once();
                let world = job.world();
                assert_eq!(world.deployments[1].restore.epoch, Some(Epoch(epoch - 1)));
                assert_eq!(world.deployments[1].replay_until, Some(Epoch(epoch)));
            }
        }
    }
}

#[tokio::test]
async fn what_an_attempt_has_just_written_is_read_as_a_whole_only_after_a_restore_from_it_has_failed() {
    for (damage, restored) in [(flip_a_bit as fn(&Path), [4, 3].as_slice()), (truncate, &[3])] {
        let directory = tempfile::tempdir().unwrap();
        let job = Job::new(directory.path());
        let file = directory.path().join("jobs/j/state/4-g1-op1-0.state");
        {
            let mut world = job.world();
            world.failure = Some((5, failure("connection lost", true)));
            world.failure_after_commits = 4;
            world.damage = Some((file.clone(), damage));
        }
        let (outcome, status) = job.run().await;
        assert_eq!(outcome, Some(JobOutcome::Finished));
        assert_eq!(status.restarts as usize, restored.len());
        assert!(status.damaged.len() == 1 && status.damaged[0].contains(name(&file)), "{:?}", status.damaged);
        let epochs: Vec<_> = job.world().deployments[1..].iter().map(|d| d.restore.epoch.map(|e| e.0)).collect();
        assert_eq!(epochs, restored.iter().map(|epoch| Some(*epoch)).collect::<Vec<_>>());
        assert_eq!(job.world().deployments.last().map(|d| d.replay_until), Some(Some(Epoch(4))));
        job.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_crash_during_the_replay_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.retained = 4;
    job.world().crash = Some(Crash::BeforeSnapshot(7));
    assert_eq!(job.run().await.0, None);
    for file in job.files("state").iter().filter(|f| name(f) >= "5-") {
        flip_a_bit(file);
    }
    // Epochs 5 and 6 are replayed from checkpoint 4; the process dies in the middle of it.
    job.world().crash = Some(Crash::BeforeSnapshot(6));
    assert_eq!(job.run().await.0, None);
    assert_eq!(job.world().deployments[1].restore.epoch, Some(Epoch(4)));
    let (outcome, _) = job.run().await;
    assert_eq!(outcome, Some(JobOutcome::Finished));
    assert_eq!(job.world().deployments[2].restore.epoch, Some(Epoch(5)));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_taken_for_damaged_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.restart.retries_max = 1;
    job.world().crash = Some(Crash::BeforeSnapshot(5));
    assert_eq!(job.run().await.0, None);
    // The disk is not mounted: the directory is there, and empty.
    let (mounted, away) = (directory.path().join("jobs/j"), directory.path().join("away"));
    for name in ["state", "manifests", "store"] {
        std::fs::create_dir_all(&away).unwrap();
        std::fs::rename(mounted.join(name), away.join(name)).unwrap();
    }
    let (outcome, status) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    for part in ["of which 4 is the newest", "jobs/j", "is not mounted", "mount it"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(status.damaged, Vec::<String>::new());
    for name in ["state", "manifests", "store"] {
        std::fs::rename(away.join(name), mounted.join(name)).unwrap();
    }
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn without_a_readable_checkpoint_the_job_stops_and_says_so_unless_all_can_be_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().crash = Some(Crash::BeforeSnapshot(5));
    assert_eq!(job.run().await.0, None);
    let files = job.files("state");
    files.iter().filter(|f| !name(f).starts_with("5-")).for_each(|f| truncate(f));
    let (outcome, _) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    for part in ["3-g1-op1-0.state", "4-g1-op1-0.state", "--fresh"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }

    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.retained = 100;
    job.world().crash = Some(Crash::BeforeSnapshot(5));
    assert_eq!(job.run().await.0, None);
    job.files("state").iter().for_each(|f| truncate(f));
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    let replay_until = job.world().deployments[1].replay_until;
    assert_eq!(replay_until, Some(Epoch(4)));
    job.assert_exactly_once();
}

#[tokio::test]
async fn an_epoch_whose_barrier_has_overtaken_rows_is_not_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().unaligned = Some(4);
    job.world().crash = Some(Crash::BeforeSnapshot(5));
    assert_eq!(job.run().await.0, None);
    let file = job.files("state").into_iter().find(|f| name(f).starts_with("4-")).unwrap();
    let intact = std::fs::read(&file).unwrap();
    flip_a_bit(&file);
    let (outcome, _) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    for part in [name(&file), "epoch 4 has overtaken rows", "backup", "--fresh"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    // With the file back the job goes on.
    std::fs::write(&file, intact).unwrap();
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.unaligned_checkpoints), (Some(JobOutcome::Finished), 0));
    job.assert_exactly_once();
}

#[tokio::test]
async fn rows_in_flight_are_worked_off_at_the_parallelism_at_which_they_were_in_flight() {
    for (crash, parallelism) in [(5, 3), (5, 1), (6, 3)] {
        let directory = tempfile::tempdir().unwrap();
        let mut job = Job::new(directory.path());
        job.world().unaligned = Some(4);
        job.world().crash = Some(Crash::BeforeSnapshot(crash));
        assert_eq!(job.run().await.0, None);
        job.world().unaligned = None;
        job.parallelism = parallelism;
        assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
        job.assert_exactly_once();
        let ran: Vec<u32> = job.world().deployments.iter().map(|deployment| deployment.parallelism).collect();
        let expected = if crash == 5 { vec![2, 2, parallelism] } else { vec![2, parallelism] };
        assert_eq!(ran, expected, "only where the restored checkpoint has rows in flight");
    }
}
