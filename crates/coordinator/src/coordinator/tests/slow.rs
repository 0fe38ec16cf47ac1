//! Slow and failing work on the outside: nothing else waits for it, and it never runs twice at a time.

use std::time::Duration;

use mainstem_core::ids::Epoch;
use mainstem_core::job::JobState;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::world::{Crash, Job};
use super::{failure, flip_a_bit};
use crate::spec::{Control, JobOutcome};

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test]
async fn later_barriers_and_a_stop_do_not_wait_for_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.in_flight_max = 3;
    let (open_gate, gate) = watch::channel(false);
    job.world().commit_gate = Some(gate);
    let (sender, control) = mpsc::channel(1);
    let test = async {
        // Three in flight, and one whose output waits to become visible.
        until("four epochs have begun", || job.staged() == 4).await;
        until("four epochs are complete", || job.status().last_complete == Some(Epoch(4))).await;
        sender.send(Control::Stop).await.unwrap();
        until("the stop is heard", || job.status().state == JobState::Stopping).await;
        // No more than that, and nothing visible before its turn.
        assert_eq!((job.staged(), job.status().last_committed, job.world().commits_begun), (4, None, 1));
        open_gate.send(true).unwrap();
    };
    let ((outcome, status), ()) = tokio::join!(Box::pin(job.run_with(control)), test);
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Stopped), 0));
    assert_eq!(status.last_committed, status.last_complete);
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_failed_subtask_does_not_wait_for_a_commit_and_the_next_attempt_does_not_double_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.in_flight_max = 3;
    let (open_gate, gate) = watch::channel(false);
    job.world().commit_gate = Some(gate);
    job.world().failure = Some((3, failure("connection lost", true)));
    job.world().failure_after_commits = 1;
    let test = async {
        until("the failure is handled", || job.status().restarts == 1).await;
        until("the next attempt publishes first", || job.world().commits_begun == 2).await;
        assert_eq!((job.world().deployments.len(), job.status().last_committed), (1, None));
        open_gate.send(true).unwrap();
    };
    let ((outcome, status), ()) = tokio::join!(Box::pin(job.run()), test);
    assert_eq!(outcome, Some(JobOutcome::Finished));
    assert_eq!(status.last_failure.as_deref(), Some("connection lost"));
    // Whether the second epoch was recorded before the third one failed is a race.
    let restored = job.world().deployments[1].restore.epoch;
    assert!(restored == Some(Epoch(1)) || restored == Some(Epoch(2)), "{restored:?}");
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_cancel_ends_at_once_while_a_commit_hangs() {
    // In an attempt, and where an attempt begins by publishing what the one before had completed.
    for crash in [None, Some(Crash::BeforeCommit(2))] {
        let directory = tempfile::tempdir().unwrap();
        let job = Job::new(directory.path());
        if crash.is_some() {
            job.world().crash = crash;
            assert_eq!(job.run().await.0, None);
        }
        let deployments = job.world().deployments.len();
        let begun = job.world().commits_begun;
        job.world().hanging_commits = u32::MAX;
        let (sender, control) = mpsc::channel(2);
        let test = async {
            until("a commit hangs", || job.world().commits_begun > begun).await;
            sender.send(Control::Stop).await.unwrap();
            sender.send(Control::Cancel).await.unwrap();
        };
        let run = timeout(PATIENCE, Box::pin(job.run_with(control)));
        let (ended, ()) = tokio::join!(run, test);
        assert_eq!(ended.expect("the cancel ends it").0, Some(JobOutcome::Stopped));
        assert_eq!(job.world().committing, 0, "nothing goes on");
        assert_eq!(job.world().deployments.len(), deployments + usize::from(crash.is_none()));
        job.world().hanging_commits = 0;
        assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
        job.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_stop_while_an_attempt_begins_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().crash = Some(Crash::BeforeCommit(2));
    assert_eq!(job.run().await.0, None);
    let begun = job.world().commits_begun;
    let (open_gate, gate) = watch::channel(false);
    job.world().commit_gate = Some(gate);
    let (sender, control) = mpsc::channel(1);
    let test = async {
        until("a commit waits", || job.world().commits_begun > begun).await;
        sender.send(Control::Stop).await.unwrap();
        until("the stop is taken", || sender.capacity() == 1).await;
        open_gate.send(true).unwrap();
    };
    let ((outcome, _), ()) = tokio::join!(Box::pin(job.run_with(control)), test);
    assert_eq!(outcome, Some(JobOutcome::Stopped));
    assert_eq!(job.run().await.0, Some(JobOutcome::Finished));
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_commit_that_gives_no_answer_is_tried_again_and_at_last_fails() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.operation_timeout_ms = 20;
    job.world().hanging_commits = 3;
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Finished), 0));
    assert_eq!(job.world().hanging_commits, 0);
    job.assert_exactly_once();

    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.operation_timeout_ms = 20;
    job.options.operation.retries_max = 2;
    job.options.restart.retries_max = 1;
    job.world().hanging_commits = u32::MAX;
    let (outcome, _) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    let expected = "cannot publish epoch 1: no answer within 0.02 s; check the disk or the service behind it \
                    (tried 3 times) (gave up after 2 failures in a row)";
    assert_eq!(failure.message, expected);
    assert_eq!(job.world().commits_begun, 6);
}

#[tokio::test]
async fn a_commit_that_gets_further_with_each_try_is_not_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.operation_timeout_ms = 20;
    job.options.operation.retries_max = 1;
    job.world().hanging_commits = 5;
    job.world().hanging_commits_get_further = true;
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Finished), 0));
    assert_eq!(job.world().hanging_commits, 0);
    job.assert_exactly_once();
}

#[tokio::test]
async fn a_manifest_that_cannot_be_written_is_tried_again_and_at_last_fails() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new(directory.path());
    job.world().failing_manifests = 2;
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Finished), 0));
    assert_eq!(job.world().deployments.len(), 1);
    assert_eq!(job.world().failing_manifests, 0);
    job.assert_exactly_once();

    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.options.operation.retries_max = 2;
    job.options.restart.retries_max = 1;
    job.world().failing_manifests = u32::MAX;
    let (outcome, status) = job.run().await;
    let Some(JobOutcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    let parts = ["cannot complete checkpoint 1", "manifests/1-g2.manifest", "no storage space; free some space"];
    for part in parts {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!((status.last_complete, job.world().publications.len()), (None, 0));
}

#[tokio::test]
async fn a_search_for_new_input_that_hangs_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.monitor_interval = Some(Duration::from_millis(1));
    // The first look is the one at the start.
    job.world().hanging_discovery = Some(2);
    let (sender, control) = mpsc::channel(1);
    let test = async {
        until("a search hangs", || job.world().discoveries == 2).await;
        let before = job.status().last_committed;
        until("epochs go on", || job.status().last_committed > before.map(Epoch::next)).await;
        sender.send(Control::Stop).await.unwrap();
    };
    let ((outcome, _), ()) = tokio::join!(Box::pin(job.run_with(control)), test);
    assert_eq!(outcome, Some(JobOutcome::Stopped));
    assert_eq!(job.world().discoveries, 2, "one at a time");
}

#[tokio::test]
async fn a_file_that_is_gone_is_forgotten_and_one_that_takes_its_name_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::new(directory.path());
    job.monitor_interval = Some(Duration::from_millis(1));
    job.options.retained = 1_000;
    let (sender, control) = mpsc::channel(1);
    let test = async {
        until("all is read", || job.status().splits_finished == 5).await;
        job.world().gone_split = Some(3);
        until("the split is forgotten", || job.status().splits_finished == 4).await;
        job.world().gone_split = None;
        until("the new one is read", || job.times_seen("split3:16") == 2).await;
        sender.send(Control::Stop).await.unwrap();
    };
    let ((outcome, status), ()) = tokio::join!(Box::pin(job.run_with(control)), test);
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Stopped), 0));
    job.assert_seen(|split| if split == 3 { 2 } else { 1 });
    // Run again from the beginning, through both files of that name.
    job.files("state").iter().for_each(|file| flip_a_bit(file));
    let (sender, control) = mpsc::channel(1);
    let published = job.world().publications.len();
    let test = async {
        until("new epochs follow the old ones", || job.world().publications.len() > published + 3).await;
        sender.send(Control::Stop).await.unwrap();
    };
    let ((outcome, _), ()) = tokio::join!(Box::pin(job.run_with(control)), test);
    assert_eq!(outcome, Some(JobOutcome::Stopped));
    assert_eq!(job.world().deployments[1].restore.epoch, None);
    job.assert_seen(|split| if split == 3 { 2 } else { 1 });
}
