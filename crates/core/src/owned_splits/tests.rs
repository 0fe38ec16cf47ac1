//! Splits of a subtask: what it sends, what it records, and that a replay repeats it.

use super::*;
use crate::protocol::{ReplayPart, SourceSplit};

const SECOND: Duration = Duration::from_secs(1);

fn id(name: &str) -> SplitId {
    SplitId(name.to_owned())
}

fn split(name: &str) -> SplitState {
    SplitState { split: SourceSplit { id: id(name), payload: String::new() }, progress: None }
}

fn reading(name: &str, position: &str, watermark: i64) -> SplitState {
    let progress = SplitProgress::Reading { position: position.to_owned(), watermark: Timestamp(watermark) };
    SplitState { progress: Some(progress), ..split(name) }
}

fn finished(name: &str) -> SplitState {
    SplitState { progress: Some(SplitProgress::Finished), ..split(name) }
}

fn floor(name: &str, position: Option<&str>, watermark: i64) -> Floor {
    Floor { split: id(name), position: position.map(str::to_owned), watermark: Timestamp(watermark) }
}

fn active(watermark: i64) -> SourceStatus {
    SourceStatus::Active { watermark: Timestamp(watermark) }
}

fn idle(greatest: i64) -> SourceStatus {
    SourceStatus::Idle { greatest: Timestamp(greatest) }
}

fn free(idle_timeout: Option<Duration>) -> OwnedSplits {
    let mut splits = OwnedSplits::new(idle_timeout, Timestamp::MIN, false);
    splits.bound_unassigned(Timestamp::MAX);
    splits
}

/// Rows come up to a position; gives the watermark they were judged by, and what is sent.
fn read(splits: &mut OwnedSplits, name: &str, position: &str, watermark: i64) -> (Timestamp, Option<Timestamp>) {
    let judged = splits.wake(&id(name));
    splits.progress(&id(name), position.to_owned(), Timestamp(watermark));
    (judged, splits.advance())
}

fn sent(splits: &mut OwnedSplits, name: &str, position: &str, watermark: i64) -> Option<i64> {
    read(splits, name, position, watermark).1.map(|w| w.0)
}

#[test]
fn a_split_that_nobody_has_begun_holds_the_watermark_back() {
    let mut splits = OwnedSplits::new(None, Timestamp::MIN, false);
    splits.add(split("a"));
    assert_eq!(sent(&mut splits, "a", "1", 10), None);
    splits.bound_unassigned(Timestamp::MAX);
    assert_eq!(splits.advance(), Some(Timestamp(10)));
    assert_eq!(splits.status(), active(10));
    splits.finish(&id("a"));
    assert_eq!((splits.advance(), splits.status()), (None, idle(10)), "more splits may come");
    splits.bound_unassigned(Timestamp::MIN);
    assert_eq!(splits.status(), active(10), "there are splits that nobody has begun");
    splits.no_more();
    let ended = SourceStatus::Ended { greatest: Timestamp(10) };
    assert_eq!((splits.advance(), splits.status()), (Some(Timestamp::MAX), ended));
}

#[test]
fn what_was_read_while_other_splits_waited_is_not_forgotten() {
    let mut splits = OwnedSplits::new(None, Timestamp::MIN, false);
    splits.add(split("a"));
    splits.bound_unassigned(Timestamp::MIN);
    assert_eq!(sent(&mut splits, "a", "1", 90), None);
    splits.finish(&id("a"));
    splits.add(split("b"));
    splits.bound_unassigned(Timestamp::MAX);
    assert_eq!(sent(&mut splits, "b", "1", 30), Some(30));
    splits.finish(&id("b"));
    assert_eq!((splits.advance(), splits.status()), (None, idle(90)));
}

#[test]
fn a_split_that_comes_late_is_raised_to_what_was_sent() {
    let mut splits = free(None);
    splits.add(split("a"));
    assert_eq!(sent(&mut splits, "a", "1", 10), Some(10));
    splits.add(split("b"));
    assert_eq!(sent(&mut splits, "a", "2", 20), None, "b has shown nothing since it came");
    let part = splits.end_epoch();
    assert_eq!((part.floors, part.watermark), (vec![floor("b", None, 10)], Some(Timestamp(10))));
    assert_eq!(part.splits, vec![reading("a", "2", 20), split("b")]);
    assert_eq!(read(&mut splits, "b", "1", 3), (Timestamp(10), None), "its rows are judged by the floor");
    assert_eq!(splits.advance(), None);
    // The checkpoint knew nothing of b's watermark, so the next epoch says it again.
    let part = splits.end_epoch();
    assert_eq!((part.floors, part.splits[1].clone()), (vec![floor("b", None, 10)], reading("b", "1", 10)));
    assert_eq!(splits.end_epoch().floors, vec![]);
}

#[test]
fn an_idle_split_holds_nobody_back_and_comes_back_at_what_was_sent() {
    let mut splits = free(Some(SECOND));
    splits.add(split("a"));
    splits.add(split("b"));
    assert_eq!(sent(&mut splits, "a", "1", 10), None);
    assert_eq!(sent(&mut splits, "b", "1", 2), Some(2));
    splits.tick(2 * SECOND);
    assert_eq!(sent(&mut splits, "a", "2", 11), Some(11), "b is idle");
    assert_eq!(read(&mut splits, "b", "2", 5), (Timestamp(11), None), "b comes back behind");
    assert_eq!(sent(&mut splits, "a", "3", 30), None, "and holds again");
    assert_eq!(sent(&mut splits, "b", "3", 20), Some(20));
    assert_eq!(splits.end_epoch().floors, vec![floor("b", Some("1"), 11)]);
}

#[test]
fn an_idle_subtask_follows_and_never_goes_back() {
    let mut splits = free(Some(SECOND));
    splits.add(split("a"));
    assert_eq!(sent(&mut splits, "a", "1", 10), Some(10));
    splits.follow(Timestamp(50));
    assert_eq!(splits.advance(), None, "it is active");
    splits.tick(2 * SECOND);
    assert_eq!((splits.status(), splits.advance()), (idle(10), Some(Timestamp(50))));
    splits.follow(Timestamp(40));
    assert_eq!(splits.advance(), None);
    assert_eq!(read(&mut splits, "a", "2", 45), (Timestamp(50), None));
    assert_eq!(splits.status(), active(50));
    assert_eq!(sent(&mut splits, "a", "3", 60), Some(60));
}

#[test]
fn a_restored_subtask_begins_where_its_source_was() {
    let mut splits = OwnedSplits::new(Some(SECOND), Timestamp(100), false);
    assert_eq!(splits.advance(), Some(Timestamp(100)));
    splits.add(reading("was-idle", "7", 20));
    splits.add(reading("was-active", "8", 120));
    splits.bound_unassigned(Timestamp::MAX);
    assert_eq!(splits.advance(), None);
    assert_eq!(read(&mut splits, "was-idle", "9", 30).0, Timestamp(100));
    assert_eq!(read(&mut splits, "was-active", "9", 30).0, Timestamp(120));
    assert_eq!(splits.end_epoch().floors, vec![floor("was-idle", Some("7"), 100)]);
}

#[test]
fn a_replay_reads_from_floor_to_floor_and_sends_what_was_sent() {
    let mut splits = OwnedSplits::new(Some(SECOND), Timestamp(5), true);
    splits.add(reading("a", "1", 5));
    splits.add(split("b"));
    splits.add(split("c"));
    splits.bound_unassigned(Timestamp::MAX);
    assert_eq!((splits.advance(), splits.is_epoch_read()), (Some(Timestamp(5)), true));
    splits.tick(9 * SECOND);
    let floors = vec![floor("b", None, 7), floor("a", Some("1"), 8), floor("a", Some("3"), 20), floor("c", None, 9)];
    let ends = vec![reading("a", "4", 25), finished("b")];
    let part = ReplayPart { splits: ends.clone(), floors: floors.clone(), watermark: Timestamp(15) };
    let pieces = splits.replay(part).unwrap();
    let expected =
        [Piece { from: reading("a", "1", 8), until: Some("3".to_owned()) }, Piece { from: split("b"), until: None }];
    assert_eq!(pieces, expected);

    assert_eq!(read(&mut splits, "a", "2", 12).0, Timestamp(8), "raised where it began");
    assert_eq!(read(&mut splits, "b", "1", 30), (Timestamp(7), Some(Timestamp(9))), "c holds at its floor");
    assert_eq!(splits.piece_read(&id("b")).unwrap(), None);
    read(&mut splits, "a", "2b", 13);
    let next = splits.piece_read(&id("a")).unwrap();
    assert_eq!(next, Some(Piece { from: reading("a", "3", 20), until: Some("4".to_owned()) }));
    assert_eq!(read(&mut splits, "a", "4", 25).0, Timestamp(20));
    assert_eq!((splits.is_epoch_read(), splits.advance()), (false, None));
    assert_eq!(splits.piece_read(&id("a")).unwrap(), None);
    assert!(splits.is_epoch_read());
    assert_eq!(splits.advance(), Some(Timestamp(15)), "just what was sent then");

    let part = splits.end_epoch();
    let mut again = part.floors.clone();
    again.sort_by_key(|f| (f.split.clone(), f.watermark));
    let mut before = floors;
    before.sort_by_key(|f| (f.split.clone(), f.watermark));
    assert_eq!((again, part.watermark), (before, Some(Timestamp(15))), "the record stays what it was");
    assert_eq!(part.splits, [ends, vec![split("c")]].concat());

    splits.end_replay();
    assert_eq!(read(&mut splits, "c", "1", 40), (Timestamp(15), Some(Timestamp(25))), "c joins at what was sent");
    assert_eq!(splits.end_epoch().floors, vec![floor("c", None, 9), floor("c", None, 15)]);
}

#[test]
fn a_replay_that_comes_to_something_else_is_noticed() {
    let mut splits = OwnedSplits::new(None, Timestamp::MIN, true);
    splits.add(split("a"));
    let part = |end| ReplayPart { splits: vec![end], floors: Vec::new(), watermark: Timestamp(9) };
    assert!(splits.replay(part(reading("x", "1", 9))).unwrap_err().contains("'x'"));
    let pieces = splits.replay(part(reading("a", "1", 9))).unwrap();
    assert_eq!(pieces, vec![Piece { from: split("a"), until: Some("1".to_owned()) }]);
    read(&mut splits, "a", "1", 8);
    let error = splits.piece_read(&id("a")).unwrap_err();
    assert!(error.contains("8ms") && error.contains("9ms"), "{error}");
}

#[test]
fn splits_ahead_of_a_bound_are_held_and_are_not_silent_meanwhile() {
    let mut splits = free(Some(SECOND));
    splits.add(split("fast"));
    splits.add(split("slow"));
    read(&mut splits, "fast", "1", 100);
    read(&mut splits, "slow", "1", 10);
    assert_eq!(splits.hold_ahead_of(Timestamp(100)), []);
    assert_eq!(splits.hold_ahead_of(Timestamp(60)), [(id("fast"), true)]);
    assert_eq!(splits.hold_ahead_of(Timestamp(70)), [], "it is held already");
    assert!(splits.holds_any());
    splits.tick(2 * SECOND);
    assert_eq!(splits.advance(), Some(Timestamp(100)), "only the slow one is idle");
    assert_eq!(splits.hold_ahead_of(Timestamp(100)), [(id("fast"), false)]);
    assert!(!splits.holds_any());
    splits.hold_ahead_of(Timestamp(0));
    splits.finish(&id("fast"));
    assert_eq!(splits.hold_ahead_of(Timestamp(0)), [(id("fast"), false)], "what has ended is ahead of nobody");
}
