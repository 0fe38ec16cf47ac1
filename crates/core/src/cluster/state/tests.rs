//! What the coordinators agree on, command by command.

use crate::ids::{Epoch, SavepointId};

use super::*;

pub(super) fn job() -> JobId {
    JobId::new("j").unwrap()
}

fn submit(state: &mut ClusterState, hash: &str, parallelism: u32) -> Answer {
    let submission = Submission {
        graph_json: format!("graph of {hash}"),
        sql_hash: hash.to_owned(),
        key_groups: 8,
        parallelism,
        options: CheckpointOptions::default(),
        working_dir: "/".to_owned(),
        submitted_at: Timestamp(1),
        restore: None,
    };
    state.apply_command(Command::Submit { job: job(), submission: Box::new(submission) })
}

fn record(state: &mut ClusterState, record: Record) -> Answer {
    state.apply_command(Command::Record { job: job(), record: Box::new(record) })
}

fn started(generation: u64) -> Record {
    let (restored_from, reason, at) = (Epoch(0), String::new(), Timestamp(2));
    Record::GenerationStarted { generation: Generation(generation), restored_from, reason, at }
}

fn ended(generation: u64, end: JobEnd) -> Record {
    Record::Ended { generation: Generation(generation), end, at: Timestamp(3), counters: BTreeMap::new() }
}

#[test]
fn a_job_runs_once_at_a_time_and_goes_on_with_the_same_query_only() {
    let mut state = ClusterState::default();
    submit(&mut state, "a", 2).unwrap();
    assert!(submit(&mut state, "a", 2).unwrap_err().contains("runs already"));
    record(&mut state, started(1)).unwrap();
    record(&mut state, ended(1, JobEnd::Stopped)).unwrap();
    assert!(record(&mut state, started(2)).unwrap_err().contains("does not run"), "a driver of before");
    assert!(submit(&mut state, "b", 2).unwrap_err().contains("another query"));
    submit(&mut state, "a", 4).unwrap();
    assert_eq!((state.jobs[&job()].submission.parallelism, state.jobs[&job()].active), (4, true));
    record(&mut state, started(2)).unwrap();
    assert!(record(&mut state, ended(1, JobEnd::Stopped)).is_err(), "of an older attempt");
    record(&mut state, ended(2, JobEnd::Finished)).unwrap();
    assert!(submit(&mut state, "a", 2).unwrap_err().contains("finished"));
}

#[test]
fn records_are_checked_where_they_are_applied() {
    let mut state = ClusterState::default();
    assert!(record(&mut state, started(1)).unwrap_err().contains("no job"));
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(2)).unwrap();
    // What a leader of before has proposed arrives late.
    assert!(record(&mut state, started(1)).is_err());
    assert!(record(&mut state, Record::EpochCommitted { generation: Generation(1), epoch: Epoch(1) }).is_err());
}

#[test]
fn a_cancel_outdoes_a_stop_and_only_a_running_job_is_asked() {
    let mut state = ClusterState::default();
    let wish = |state: &mut ClusterState, wish| state.apply_command(Command::Wish { job: job(), wish });
    assert!(wish(&mut state, Wish::Stop).is_err());
    submit(&mut state, "a", 2).unwrap();
    wish(&mut state, Wish::Cancel).unwrap();
    wish(&mut state, Wish::Stop).unwrap();
    assert_eq!(state.jobs[&job()].wish, Wish::Cancel);
    record(&mut state, started(1)).unwrap();
    record(&mut state, ended(1, JobEnd::Stopped)).unwrap();
    assert!(wish(&mut state, Wish::Stop).unwrap_err().contains("does not run"));
    submit(&mut state, "a", 2).unwrap();
    assert_eq!(state.jobs[&job()].wish, Wish::Run);
    let rescale = |parallelism| Command::Rescale { job: job(), parallelism };
    assert!(state.apply_command(rescale(9)).unwrap_err().contains("key groups"));
    state.apply_command(rescale(3)).unwrap();
}

fn savepoint(id: u64, stop: bool) -> Command {
    let request = SavepointRequest { id: SavepointId::of(id), directory: "/s".to_owned(), stop };
    Command::Savepoint { job: job(), request }
}

fn outcome(id: u64, generation: u64, end: Option<JobEnd>) -> Record {
    let outcome = SavepointOutcome::Failed { reason: "disk full".to_owned() };
    let savepoint = SavepointRecord { id: SavepointId::of(id), outcome, at: Timestamp(4) };
    Record::Savepoint { generation: Generation(generation), savepoint, end, counters: BTreeMap::new() }
}

#[test]
fn a_savepoint_is_wanted_until_its_outcome_is_recorded_and_once() {
    let mut state = ClusterState::default();
    assert!(state.apply_command(savepoint(1, false)).unwrap_err().contains("no job"));
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(1)).unwrap();
    for _ in 0..2 {
        state.apply_command(savepoint(1, false)).unwrap();
    }
    assert!(state.apply_command(savepoint(2, false)).unwrap_err().contains("is being taken to '/s'"));
    // A driver of before, and one that takes what nobody has asked for.
    record(&mut state, started(2)).unwrap();
    assert!(record(&mut state, outcome(1, 1, None)).is_err());
    assert!(record(&mut state, outcome(2, 2, None)).unwrap_err().contains("nobody has asked for"));
    record(&mut state, outcome(1, 2, None)).unwrap();
    assert!(record(&mut state, outcome(1, 2, None)).is_err(), "once");
    // What is said again, because its answer was lost, is done already.
    state.apply_command(savepoint(1, false)).unwrap();
    assert_eq!(state.jobs[&job()].savepoint, None);
    assert_eq!(state.jobs[&job()].record.savepoints.len(), 1);
}

#[test]
fn a_job_ends_with_its_savepoint_by_one_record_and_a_job_that_ends_otherwise_takes_none() {
    let mut state = ClusterState::default();
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(1)).unwrap();
    state.apply_command(savepoint(1, true)).unwrap();
    record(&mut state, outcome(1, 1, Some(JobEnd::Stopped))).unwrap();
    let entry = &state.jobs[&job()];
    assert_eq!((entry.active, &entry.record.end, entry.wish), (false, &Some(JobEnd::Stopped), Wish::Run));
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(2)).unwrap();
    state.apply_command(savepoint(2, false)).unwrap();
    record(&mut state, ended(2, JobEnd::Stopped)).unwrap();
    let entry = &state.jobs[&job()];
    assert_eq!(entry.savepoint, None);
    let SavepointOutcome::Failed { reason } = &entry.record.savepoints[1].outcome else { panic!("{entry:?}") };
    assert!(reason.contains("ended before"), "{reason}");
    submit(&mut state, "a", 2).unwrap();
    state.apply_command(Command::Wish { job: job(), wish: Wish::Stop }).unwrap();
    assert!(state.apply_command(savepoint(3, false)).unwrap_err().contains("being stopped"));
}

#[test]
fn a_removed_job_is_known_no_more_and_its_name_goes_on_counting() {
    let mut state = ClusterState::default();
    let remove = || Command::Remove { job: job() };
    assert!(state.apply_command(remove()).unwrap_err().contains("no job"));
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(7)).unwrap();
    assert!(state.apply_command(remove()).unwrap_err().contains("runs; stop or cancel it first"));
    record(&mut state, ended(7, JobEnd::Finished)).unwrap();
    state.apply_command(remove()).unwrap();
    assert_eq!((state.jobs.len(), state.removed.get(&job())), (0, Some(&Generation(7))));
    assert!(submit(&mut state, "b", 2).unwrap_err().contains("being deleted"));
    state.apply_command(Command::Removed { job: job() }).unwrap();
    submit(&mut state, "b", 2).unwrap();
    assert_eq!(state.jobs[&job()].generation_floor, Generation(7));
}

#[test]
fn a_job_that_exists_begins_with_no_other_savepoint() {
    let mut state = ClusterState::default();
    let restore = |id: u64| Some(RestoreFrom { path: "/s".to_owned(), id: SavepointId::of(id) });
    submit(&mut state, "a", 2).unwrap();
    let mut submission = state.jobs[&job()].submission.clone();
    record(&mut state, ended(0, JobEnd::Stopped)).unwrap();
    let mut again = |restore| {
        submission.restore = restore;
        state.apply_command(Command::Submit { job: job(), submission: Box::new(submission.clone()) })
    };
    assert!(again(restore(1)).unwrap_err().contains("mainstem remove j"));
    again(None).unwrap();
    // One that failed before its savepoint was copied is tried again with the same one.
    let mut state = ClusterState::default();
    let mut from = |state: &mut ClusterState, id| {
        submission.restore = restore(id);
        state.apply_command(Command::Submit { job: job(), submission: Box::new(submission.clone()) })
    };
    from(&mut state, 1).unwrap();
    record(&mut state, ended(0, JobEnd::Failed { reason: "missing".to_owned() })).unwrap();
    assert!(from(&mut state, 2).is_err());
    from(&mut state, 1).unwrap();
}

#[test]
fn of_a_job_that_runs_the_newest_attempt_may_run_and_of_one_that_has_ended_none() {
    let mut state = ClusterState::default();
    submit(&mut state, "a", 2).unwrap();
    record(&mut state, started(3)).unwrap();
    assert_eq!(state.fences(), BTreeMap::from([(job(), Generation(3))]));
    record(&mut state, ended(3, JobEnd::Stopped)).unwrap();
    assert_eq!(state.fences(), BTreeMap::from([(job(), Generation(4))]));
}
