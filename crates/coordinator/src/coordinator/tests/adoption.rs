//! A driver that is dropped at any step, and the next one that goes on with its attempt: the same generation, and the
//! world sees every row once.

use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::job::JobState;
use tokio::sync::mpsc;

use super::cluster::Step;
use super::failure;
use super::savepoints::{ask, taken};
use super::world::{Crash, Job};
use crate::meta_log::LocalMetaLog;
use crate::spec::{Control, JobOutcome};
use crate::{JobRecord, MetaLog};

/// Records before the first attempt runs: the job, the attempt, its splits, and that it is deployed.
const RECORDS_BEFORE: u64 = 4;

fn job(directory: &std::path::Path, in_flight_max: u32) -> Job {
    let mut job = Job::new(directory);
    job.options.in_flight_max = in_flight_max;
    job.world().outlives = true;
    job
}

fn recorded(job: &Job) -> JobRecord {
    LocalMetaLog::open(&job.directory.join("jobs/j/log")).unwrap().state().clone()
}

/// Whether an attempt runs that the next driver can go on with. Between its end and the record of the job's end there is
/// none, though the log still has it.
fn runs(record: &JobRecord) -> bool {
    let is_over = record.epochs.values().next_back().is_some_and(|epoch| epoch.end.is_some());
    record.running.is_some() && !(is_over && record.committed == record.newest())
}

fn attempts(job: &Job) -> usize {
    job.world().deployments.len()
}

/// Manifests in the job's directory of which its log knows nothing.
fn left_manifests(job: &Job) -> Vec<String> {
    let record = recorded(job);
    let is_named = |name: &String| record.epochs.values().any(|epoch| epoch.manifest.path.ends_with(name.as_str()));
    let entries = std::fs::read_dir(job.directory.join("jobs/j/manifests")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !is_named(name)).collect()
}

/// Runs the job with a step at which its process ends, then to its end; false where it has ended before that step.
async fn crashed_and_adopted(step: Step, in_flight_max: u32) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let job = job(directory.path(), in_flight_max);
    job.world().crash_at_step = Some(step);
    let (outcome, _) = job.run().await;
    if let Some(outcome) = outcome {
        assert_eq!(outcome, JobOutcome::Finished);
        return false;
    }
    let record = recorded(&job);
    let (outcome, status) = job.run().await;
    let expected = if record.end.is_some() { JobOutcome::AlreadyFinished } else { JobOutcome::Finished };
    assert_eq!((outcome, status.restarts), (Some(expected), 0), "{step:?}");
    job.assert_exactly_once();
    assert_eq!(job.staged(), 0, "{step:?}");
    if runs(&record) {
        assert_eq!((attempts(&job), recorded(&job).generation), (1, Generation(1)), "{step:?}");
        assert_eq!(left_manifests(&job), Vec::<String>::new(), "{step:?}");
    }
    true
}

/// The same at each step of a kind, one after the other; gives the number of the first that there is not.
async fn crashes_at_each(kind: fn(u64) -> Step, in_flight_max: u32) -> u64 {
    let mut number = 1;
    while crashed_and_adopted(kind(number), in_flight_max).await {
        number += 1;
    }
    number
}

#[tokio::test]
async fn a_driver_that_ends_at_any_record_is_succeeded_without_a_new_attempt() {
    for in_flight_max in [1, 3] {
        for kind in [Step::BeforeRecord, Step::AfterRecord] {
            let number = crashes_at_each(kind, in_flight_max).await;
            assert!(number > 40, "only {number} records");
        }
    }
}

#[tokio::test]
async fn what_a_driver_has_not_told_any_more_is_told_by_the_next() {
    for in_flight_max in [1, 3] {
        let number = crashes_at_each(Step::Message, in_flight_max).await;
        assert!(number > 30, "only {number} messages");
    }
}

#[tokio::test]
async fn what_a_driver_has_not_heard_any_more_is_repeated_to_the_next() {
    for in_flight_max in [1, 3] {
        let number = crashes_at_each(Step::Report, in_flight_max).await;
        assert!(number > 40, "only {number} reports");
    }
}

#[tokio::test]
async fn drivers_that_end_one_after_the_other_go_on_with_one_attempt() {
    let mut adoptions = 0;
    for seed in 0..200_u64 {
        let directory = tempfile::tempdir().unwrap();
        let job = job(directory.path(), 1 + (seed % 3) as u32);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        let (mut deaths, mut at_the_end) = (0, false);
        loop {
            // The first process lives long enough to begin the attempt.
            let number = 1 + below(12) + if deaths == 0 { RECORDS_BEFORE } else { 0 };
            let step = match below(7) {
                0 | 1 => Step::BeforeRecord(number),
                2 | 3 => Step::AfterRecord(number),
                4 | 5 => Step::Message(number),
                _ => Step::Report(number),
            };
            job.world().crash_at_step = (deaths < 40).then_some(step);
            match job.run().await.0 {
                None => {
                    deaths += 1;
                    at_the_end |= !runs(&recorded(&job));
                }
                Some(JobOutcome::Finished | JobOutcome::AlreadyFinished) => break,
                Some(outcome) => panic!("seed {seed}: {outcome:?}"),
            }
        }
        job.assert_exactly_once();
        assert_eq!(job.staged(), 0, "seed {seed}");
        assert!(attempts(&job) == 1 || at_the_end, "seed {seed}");
        adoptions += if at_the_end { 0 } else { deaths };
    }
    assert!(adoptions > 200, "{adoptions}");
}

#[tokio::test]
async fn an_epoch_that_is_complete_is_published_by_the_next_driver() {
    for epoch in 1..=9 {
        for crash in [Crash::BeforeSnapshot(epoch), Crash::BeforeCommit(epoch), Crash::AfterCommit(epoch)] {
            let directory = tempfile::tempdir().unwrap();
            let job = job(directory.path(), 1);
            job.world().crash = Some(crash);
            assert_eq!(job.run().await.0, None, "{crash:?}");
            let (outcome, status) = job.run().await;
            assert_eq!(outcome, Some(JobOutcome::Finished), "{crash:?}");
            job.assert_exactly_once();
            assert_eq!((attempts(&job), job.staged()), (1, 0), "{crash:?}");
            let record = recorded(&job);
            assert_eq!(record.generation, Generation(1), "{crash:?}");
            // Also where the last one was taken by the driver before.
            let newest = record.epochs.values().next_back().unwrap();
            let shown = (status.last_complete, status.last_checkpoint_at);
            assert_eq!(shown, (Some(newest.epoch), Some(newest.completed_at)), "{crash:?}");
        }
    }
}

#[tokio::test]
async fn a_stop_goes_on_after_a_change_of_drivers() {
    for number in RECORDS_BEFORE + 1.. {
        let directory = tempfile::tempdir().unwrap();
        let job = job(directory.path(), 1);
        job.world().crash_at_step = Some(Step::AfterRecord(number));
        let stop = || {
            let (sender, control) = mpsc::channel(1);
            sender.try_send(Control::Stop).unwrap();
            control
        };
        if job.run_with(stop()).await.0.is_some() {
            assert!(number > RECORDS_BEFORE + 4);
            break;
        }
        // Who stopped is not in the log of the job: the user's wish is told again.
        let (outcome, status) = job.run_with(stop()).await;
        assert_eq!((outcome, status.state), (Some(JobOutcome::Stopped), JobState::Stopped), "{number}");
        assert_eq!(job.staged(), 0, "{number}");
        assert_eq!(job.run().await.0, Some(JobOutcome::Finished), "{number}");
        job.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_change_of_parallelism_goes_on_after_a_change_of_drivers() {
    let mut went_on = 0;
    for number in RECORDS_BEFORE + 1.. {
        let directory = tempfile::tempdir().unwrap();
        let mut job = job(directory.path(), 1);
        job.world().crash_at_step = Some(Step::AfterRecord(number));
        let (sender, control) = mpsc::channel(1);
        let rescale = async {
            while job.status().state != JobState::Running {
                tokio::task::yield_now().await;
            }
            sender.send(Control::Rescale(3)).await.unwrap();
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            (outcome, _) = Box::pin(job.run_with(control)) => outcome,
            () = rescale => unreachable!(),
        };
        if outcome.is_some() {
            assert!(number > RECORDS_BEFORE + 10);
            break;
        }
        job.parallelism = 3;
        let record = recorded(&job);
        let expected = if record.end.is_some() { JobOutcome::AlreadyFinished } else { JobOutcome::Finished };
        assert_eq!(job.run().await.0, Some(expected), "{number}");
        job.assert_exactly_once();
        assert_eq!(job.world().deployments.last().unwrap().parallelism, 3, "{number}");
        if record.generation == Generation(1) && runs(&record) {
            // A checkpoint was taken for it, by whichever of the two.
            assert_eq!((attempts(&job), recorded(&job).generation), (2, Generation(2)), "{number}");
            assert!(job.world().deployments[1].restore.epoch >= Some(Epoch(1)), "{number}");
            went_on += 1;
        }
    }
    assert!(went_on > 2, "{went_on}");
}

#[tokio::test]
async fn an_attempt_that_is_gone_or_cannot_be_known_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let gone = job(directory.path(), 1);
    gone.world().crash = Some(Crash::BeforeCommit(4));
    assert_eq!(gone.run().await.0, None);
    gone.world().cluster = std::sync::Arc::default();
    assert_eq!(gone.run().await.0, Some(JobOutcome::Finished));
    gone.assert_exactly_once();
    assert_eq!(gone.world().deployments[1].restore.epoch, Some(Epoch(4)));

    let directory = tempfile::tempdir().unwrap();
    let damaged = job(directory.path(), 1);
    damaged.world().crash = Some(Crash::BeforeSnapshot(5));
    assert_eq!(damaged.run().await.0, None);
    super::truncate(damaged.files("manifests").last().unwrap());
    assert_eq!(damaged.run().await.0, Some(JobOutcome::Finished));
    damaged.assert_exactly_once();
    assert_eq!(attempts(&damaged), 2);
}

#[tokio::test]
async fn a_failure_after_a_change_of_drivers_restarts_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let job = job(directory.path(), 1);
    job.world().crash = Some(Crash::BeforeCommit(2));
    assert_eq!(job.run().await.0, None);
    job.world().failure = Some((4, failure("connection lost", true)));
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.restarts), (Some(JobOutcome::Finished), 1));
    job.assert_exactly_once();
    assert_eq!(job.world().deployments[1].restore.epoch, Some(Epoch(3)));
}

#[tokio::test]
async fn a_savepoint_is_asked_for_anew_after_a_change_of_drivers() {
    for stop in [false, true] {
        let mut went_on = 0;
        for number in RECORDS_BEFORE + 1.. {
            let (directory, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let job = job(directory.path(), 1);
            job.world().crash_at_step = Some(Step::AfterRecord(number));
            if job.run_with(ask(kept.path(), stop)).await.0.is_some() {
                break;
            }
            let record = recorded(&job);
            if !record.savepoints.is_empty() {
                // Nobody asks for it any more.
                continue;
            }
            let (outcome, status) = job.run_with(ask(kept.path(), stop)).await;
            if stop && outcome == Some(JobOutcome::Finished) {
                // It has come to its end before the savepoint could begin.
                job.assert_exactly_once();
                continue;
            }
            let expected = if stop { JobOutcome::Stopped } else { JobOutcome::Finished };
            assert_eq!(outcome, Some(expected), "{stop} {number}");
            let (path, epoch) = taken(status.last_savepoint);
            mainstem_state::OpenSavepoint::open(&path).await.unwrap();
            assert!(Some(epoch) <= status.last_committed, "{stop} {number}");
            if stop {
                assert_eq!(Some(epoch), status.last_committed, "{number}");
                assert_eq!(job.run().await.0, Some(JobOutcome::Finished), "{number}");
            } else {
                assert_eq!(attempts(&job), 1, "{number}");
            }
            job.assert_exactly_once();
            went_on += u32::from(runs(&record));
        }
        assert!(went_on > 2, "{stop} {went_on}");
    }
}

#[tokio::test]
async fn a_part_of_a_checkpoint_with_rows_in_flight_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let job = job(directory.path(), 1);
    job.world().unaligned = Some(4);
    job.world().crash = Some(Crash::BeforeSnapshot(4));
    assert_eq!(job.run().await.0, None);
    let (outcome, status) = job.run().await;
    assert_eq!((outcome, status.unaligned_checkpoints), (Some(JobOutcome::Finished), 1));
    job.assert_exactly_once();
    assert_eq!((attempts(&job), recorded(&job).generation), (1, Generation(1)));
}

#[tokio::test]
async fn rows_in_flight_are_worked_off_before_the_parallelism_changes_under_whichever_driver() {
    let mut went_on = 0;
    for number in 1.. {
        let directory = tempfile::tempdir().unwrap();
        let mut job = Job::new(directory.path());
        job.world().unaligned = Some(4);
        job.world().crash = Some(Crash::BeforeSnapshot(5));
        assert_eq!(job.run().await.0, None);
        job.world().unaligned = None;
        job.world().outlives = true;
        job.parallelism = 3;
        job.world().crash_at_step = Some(Step::AfterRecord(number));
        if job.run().await.0.is_some() {
            break;
        }
        let record = recorded(&job);
        if record.end.is_some() {
            continue;
        }
        assert_eq!(job.run().await.0, Some(JobOutcome::Finished), "{number}");
        job.assert_exactly_once();
        let ran: Vec<u32> = job.world().deployments.iter().map(|deployment| deployment.parallelism).collect();
        if runs(&record) {
            assert_eq!(ran, [2, 2, 3], "{number}");
            went_on += u32::from(record.generation == Generation(2));
        }
        assert_eq!(ran.last(), Some(&3), "{number}");
    }
    assert!(went_on > 2, "{went_on}");
}
