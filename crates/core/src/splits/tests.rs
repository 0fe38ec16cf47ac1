//! Splits: events in, messages out.

use super::*;
use crate::ids::{Epoch, OperatorId};

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(7), index }
}

fn split(name: &str) -> SourceSplit {
    SourceSplit { id: SplitId(name.to_owned()), payload: format!("{name}.csv") }
}

fn unread(name: &str) -> SplitState {
    SplitState { split: split(name), progress: None }
}

fn reading(name: &str, position: u32, watermark: i64) -> SplitState {
    let progress = SplitProgress::Reading { position: position.to_string(), watermark: Timestamp(watermark) };
    SplitState { split: split(name), progress: Some(progress) }
}

fn finished(name: &str) -> SplitState {
    SplitState { split: split(name), progress: Some(SplitProgress::Finished) }
}

fn remembered(name: &str) -> SplitState {
    SplitState::remembered(SplitId(name.to_owned()))
}

fn floor(name: &str, position: Option<u32>, watermark: i64) -> Floor {
    let (split, position) = (SplitId(name.to_owned()), position.map(|p| p.to_string()));
    Floor { split, position, watermark: Timestamp(watermark) }
}

/// What a subtask contributes to a checkpoint besides its splits.
fn part(floors: Vec<Floor>, watermark: i64) -> OperatorSnapshot {
    OperatorSnapshot { floors, watermark: Some(Timestamp(watermark)), ..OperatorSnapshot::default() }
}

fn assigner(bounded: bool, restored: Option<&[SplitState]>) -> SplitAssigner {
    SplitAssigner::new(BTreeSet::from([subtask(0), subtask(1)]), bounded, restored, false)
}

fn assign(index: u32, split: SplitState) -> SplitCommand {
    SplitCommand::Assign { subtask: subtask(index), splits: vec![split] }
}

fn bound(bound: Timestamp) -> SplitCommand {
    SplitCommand::Bound { bound }
}

fn requested(index: u32) -> SplitEvent {
    SplitEvent::Requested { subtask: subtask(index) }
}

fn discovered(names: &[&str]) -> SplitEvent {
    SplitEvent::Discovered { splits: names.iter().map(|n| split(n)).collect() }
}

fn names(splits: &[SplitState]) -> Vec<&str> {
    splits.iter().map(|s| s.split.id.0.as_str()).collect()
}

#[test]
fn the_bound_rises_after_the_last_assignment_and_the_end_is_told_once() {
    let mut assigner = assigner(true, None);
    assert_eq!(assigner.start(), vec![]);
    assert_eq!(assigner.on(requested(0)), vec![]);
    let first = assigner.on(discovered(&["a", "b", "c"]));
    assert_eq!(first, vec![assign(0, unread("a")), bound(Timestamp::MIN)]);
    assert_eq!(assigner.on(requested(1)), vec![assign(1, unread("b"))]);
    let last = assigner.on(requested(1));
    assert_eq!(last, vec![assign(1, unread("c")), bound(Timestamp::MAX), SplitCommand::NoMoreSplits]);
    assert_eq!(assigner.on(requested(0)), vec![]);
    assert_eq!(assigner.on(discovered(&["a", "b", "c"])), vec![]);
}

#[test]
fn an_unbounded_source_gives_new_splits_to_those_who_wait() {
    let mut assigner = assigner(false, None);
    assert_eq!(assigner.on(discovered(&[])), vec![bound(Timestamp::MAX)]);
    // Asking twice is asking once.
    assigner.on(requested(1));
    assigner.on(requested(1));
    assert_eq!(assigner.on(discovered(&["a", "b"])), vec![assign(1, unread("a")), bound(Timestamp::MIN)]);
    assert_eq!(assigner.on(requested(0)), vec![assign(0, unread("b")), bound(Timestamp::MAX)]);
    assert_eq!(assigner.on(SplitEvent::Requested { subtask: subtask(9) }), vec![]);
}

#[test]
fn a_restore_hands_out_begun_splits_first_with_their_progress() {
    let restored = [unread("n"), finished("f"), reading("r", 5, 40), reading("s", 6, 30)];
    let mut assigner = assigner(true, Some(&restored));
    assert_eq!(assigner.start(), vec![bound(Timestamp::MIN)]);
    assert_eq!(assigner.on(requested(0)), vec![assign(0, reading("r", 5, 40))]);
    assert_eq!(assigner.on(requested(0)), vec![assign(0, reading("s", 6, 30))]);
    let last = assigner.on(requested(1));
    assert_eq!(last, vec![assign(1, unread("n")), bound(Timestamp::MAX), SplitCommand::NoMoreSplits]);
    // A finished split is known: it is not read again.
    assert_eq!(assigner.on(discovered(&["f", "n"])), vec![]);
}

#[test]
fn a_waiting_split_that_was_begun_holds_the_bound_at_its_watermark() {
    let mut assigner = assigner(false, Some(&[reading("r", 5, 40), reading("s", 6, 30)]));
    assert_eq!(assigner.start(), vec![bound(Timestamp(30))]);
    assigner.on(requested(0));
    assert_eq!(assigner.on(requested(1)), vec![assign(1, reading("s", 6, 30)), bound(Timestamp::MAX)]);
}

#[test]
fn nothing_left_at_the_restore_ends_the_input_at_once() {
    let mut assigner = assigner(true, Some(&[finished("a")]));
    assert_eq!(assigner.start(), vec![bound(Timestamp::MAX), SplitCommand::NoMoreSplits]);
}

#[test]
fn a_cut_joined_with_the_reports_holds_every_split_once() {
    let mut assigner = assigner(true, Some(&[finished("f"), unread("a"), unread("b"), unread("c")]));
    assigner.start();
    assigner.on(requested(0));
    let cut = assigner.cut();
    // Handed out after the barrier: in this checkpoint it still waits.
    assigner.on(requested(1));
    let report0 = [reading("a", 3, 1)];
    let merged = cut.merge(&[], [(subtask(0), &report0[..]), (subtask(1), &[][..])]).expect("consistent");
    assert_eq!(merged, vec![reading("a", 3, 1), unread("b"), unread("c"), remembered("f")]);

    let next = assigner.cut();
    let report0 = [finished("a")];
    let report1 = [unread("b")];
    let merged = next.merge(&[], [(subtask(0), &report0[..]), (subtask(1), &report1[..])]).expect("consistent");
    assert_eq!(names(&merged), vec!["b", "c", "a", "f"]);
    let (zero, one) = (part(vec![floor("a", Some(3), 9)], 30), part(vec![floor("b", None, 20)], 20));
    let before = [reading("a", 3, 1), unread("b"), unread("c"), finished("f")];
    let epoch = SourceEpoch::between(&before, &merged, &next, &[&zero, &one]);
    let expected = SourceEpoch {
        changed: vec![finished("a")],
        floors: vec![floor("a", Some(3), 9), floor("b", None, 20)],
        watermark: Timestamp(20),
        bound: Some(Timestamp::MIN),
        no_more: false,
    };
    assert_eq!(epoch, expected);

    // The next barrier comes before that checkpoint is complete; the subtask has told of its end already.
    let early = assigner.cut().merge(&merged, [(subtask(1), &report1[..])]).expect("consistent");
    assert_eq!(names(&early), vec!["b", "c", "f", "a"]);
    assert_eq!(SourceEpoch::between(&merged, &early, &assigner.cut(), &[]).changed, vec![]);

    assigner.on(SplitEvent::EpochComplete { splits: merged });
    let merged = assigner.cut().merge(&early, [(subtask(1), &report1[..])]).expect("consistent");
    assert_eq!(merged, vec![unread("b"), unread("c"), remembered("a"), remembered("f")]);
    assert_eq!(assigner.finished(), 2);
}

/// A complete checkpoint of an assigner whose splits are all finished.
fn checkpoint(assigner: &mut SplitAssigner) -> Vec<SplitState> {
    let splits = assigner.cut().merge(&[], []).expect("nothing is owned");
    assigner.on(SplitEvent::EpochComplete { splits: splits.clone() });
    splits
}

#[test]
fn a_finished_split_is_forgotten_when_it_is_gone_and_a_checkpoint_says_so() {
    let mut assigner = assigner(false, Some(&[finished("a"), finished("b")]));
    assigner.start();
    assigner.on(requested(0));
    // The barrier of a checkpoint that still names it comes first.
    let earlier = assigner.cut().merge(&[], []).expect("nothing is owned");
    assigner.on(discovered(&["b"]));
    // Back before it is forgotten: every checkpoint so far says that it has been read.
    assert_eq!(assigner.on(discovered(&["a", "b"])), vec![]);
    let cut = assigner.cut().merge(&[], []).expect("nothing is owned");
    assigner.on(SplitEvent::EpochComplete { splits: earlier });
    assert_eq!(assigner.on(discovered(&["a", "b"])), vec![]);
    assert_eq!(cut, vec![remembered("b")]);
    assigner.on(SplitEvent::EpochComplete { splits: cut });
    assert_eq!(assigner.finished(), 1);
    // From here on the name stands for a new split.
    assert_eq!(assigner.on(discovered(&["a", "b"])), vec![assign(0, unread("a"))]);
    assert_eq!(assigner.on(discovered(&["a", "b"])), vec![]);
}

#[test]
fn a_search_that_finds_nothing_at_all_forgets_nothing() {
    let mut assigner = assigner(false, Some(&[finished("a"), finished("b")]));
    assigner.start();
    assigner.on(discovered(&[]));
    assert_eq!(checkpoint(&mut assigner), vec![remembered("a"), remembered("b")]);
    assigner.on(discovered(&["c"]));
    assert_eq!(checkpoint(&mut assigner), vec![unread("c")]);
    assert_eq!(assigner.finished(), 0);
}

#[test]
fn a_split_that_waits_or_is_read_is_not_forgotten() {
    let mut assigner = assigner(false, Some(&[reading("r", 5, 40), unread("n")]));
    assigner.start();
    assigner.on(requested(0));
    assigner.on(discovered(&["other"]));
    let report = [reading("r", 6, 50)];
    let splits = assigner.cut().merge(&[], [(subtask(0), &report[..])]).expect("consistent");
    assert_eq!(names(&splits), vec!["r", "n", "other"]);
    assigner.on(SplitEvent::EpochComplete { splits });
    assert_eq!(assigner.on(discovered(&["r", "n", "other"])), vec![]);
}

#[test]
fn a_replay_reads_the_new_split_of_a_forgotten_name() {
    // Restored from before the split was forgotten; the epochs to run again forgot it and found another one.
    let subtasks = BTreeSet::from([subtask(0)]);
    let mut assigner = SplitAssigner::new(subtasks, false, Some(&[finished("a"), finished("b")]), true);
    assigner.start();
    assigner.on(discovered(&["a", "b"]));
    let barrier = |epoch| Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(99) };
    let nothing = SourceEpoch { bound: Some(Timestamp::MAX), ..SourceEpoch::default() };
    assigner.on(SplitEvent::Replay { barrier: barrier(4), epoch: nothing });
    let before = checkpoint(&mut assigner);
    assert_eq!(before, vec![remembered("a"), remembered("b")]);
    let bound = Some(Timestamp::MAX);
    let epoch = SourceEpoch { changed: vec![finished("a")], bound, ..SourceEpoch::default() };
    let commands = assigner.on(SplitEvent::Replay { barrier: barrier(5), epoch: epoch.clone() });
    assert_eq!(commands[0], assign(0, unread("a")));
    assert!(matches!(&commands[1], SplitCommand::ReplayTo { .. }), "{commands:?}");
    let cut = assigner.cut();
    let report = [finished("a")];
    let splits = cut.merge(&before, [(subtask(0), &report[..])]).expect("consistent");
    assert_eq!(splits, vec![finished("a"), remembered("b")]);
    // What is recorded of the second run is what was recorded of the first.
    assert_eq!(SourceEpoch::between(&before, &splits, &cut, &[]), epoch);
    assigner.on(SplitEvent::EpochComplete { splits });
    assert_eq!(assigner.on(SplitEvent::ReplayDone), vec![]);
    assert_eq!(assigner.finished(), 2);
}

#[test]
fn reports_that_do_not_fit_are_refused() {
    let mut assigner = assigner(true, Some(&[unread("a"), unread("b")]));
    assigner.on(requested(0));
    assigner.on(requested(1));
    let cut = assigner.cut();
    let (a, b) = ([unread("a")], [unread("b")]);
    let id = |name: &str| SplitId(name.to_owned());
    assert_eq!(cut.merge(&[], [(subtask(0), &a[..])]), Err(CutError::Missing(id("b"))));
    assert_eq!(
        cut.merge(&[], [(subtask(0), &a[..]), (subtask(1), &a[..])]),
        Err(CutError::Foreign(id("a"), subtask(1)))
    );
    let twice = [unread("a"), unread("a")];
    assert_eq!(cut.merge(&[], [(subtask(0), &twice[..]), (subtask(1), &b[..])]), Err(CutError::Doubled(id("a"))));
}

#[test]
fn a_replay_hands_everything_out_then_names_the_positions() {
    let restored = [reading("a", 1, 10), unread("b")];
    let subtasks = BTreeSet::from([subtask(0), subtask(1)]);
    let mut assigner = SplitAssigner::new(subtasks, true, Some(&restored), true);
    assert_eq!(assigner.start(), vec![]);
    assert_eq!(assigner.on(requested(1)), vec![]);
    let barrier = Barrier { epoch: Epoch(4), next_epoch_now: Timestamp(99) };
    let floors = [floor("a", Some(1), 15), floor("b", None, 7), floor("c", None, 12), floor("a", Some(2), 20)];
    let epoch = SourceEpoch {
        changed: vec![reading("a", 2, 20), unread("c")],
        floors: floors.to_vec(),
        watermark: Timestamp(12),
        bound: Some(Timestamp::MIN),
        no_more: false,
    };
    let commands = assigner.on(SplitEvent::Replay { barrier, epoch });
    let [a, b, c, a_again] = floors;
    let watermark = Timestamp(12);
    let zero = ReplayPart { splits: vec![reading("a", 2, 20)], floors: vec![a, c, a_again], watermark };
    let one = ReplayPart { splits: vec![], floors: vec![b], watermark };
    let expected = vec![
        SplitCommand::Assign { subtask: subtask(0), splits: vec![reading("a", 1, 10), unread("c")] },
        SplitCommand::Assign { subtask: subtask(1), splits: vec![unread("b")] },
        bound(Timestamp::MIN),
        SplitCommand::ReplayTo { subtask: subtask(0), barrier, part: zero },
        SplitCommand::ReplayTo { subtask: subtask(1), barrier, part: one },
    ];
    assert_eq!(commands, expected);
    assert_eq!(assigner.on(SplitEvent::ReplayDone), vec![bound(Timestamp::MAX), SplitCommand::NoMoreSplits]);
}

#[test]
fn splits_that_are_read_side_by_side_are_shared_with_who_comes_late() {
    let all = |assigner: &mut SplitAssigner, index| {
        let mut taken = Vec::new();
        loop {
            let commands = assigner.on(requested(index));
            let before = taken.len();
            for command in commands {
                if let SplitCommand::Assign { subtask: to, splits } = command {
                    taken.extend(splits.into_iter().map(|state| (to.index, state.split.id.0)));
                }
            }
            if taken.len() == before {
                return taken;
            }
        }
    };
    let of = |index: u32, names: &[&str]| names.iter().map(|name| (index, (*name).to_owned())).collect::<Vec<_>>();
    let mut alone = assigner(false, None);
    alone.on(discovered(&["a", "b", "c"]));
    assert_eq!(all(&mut alone, 0), of(0, &["a", "b", "c"]), "files are read by whoever has time");
    let mut shared = assigner(false, None).read_side_by_side(true);
    shared.on(discovered(&["a", "b", "c"]));
    assert_eq!(all(&mut shared, 0), of(0, &["a", "b"]));
    assert_eq!(shared.waiting(), 1);
    assert_eq!(all(&mut shared, 1), of(1, &["c"]));
    // Both wait for more. The first new one goes to who has fewer, though the other one has waited longer.
    let assigned = |commands: Vec<SplitCommand>| {
        let to = |command: &SplitCommand| match command {
            SplitCommand::Assign { subtask, .. } => Some(subtask.index),
            _ => None,
        };
        commands.iter().filter_map(to).collect::<Vec<_>>()
    };
    assert_eq!(assigned(shared.on(discovered(&["a", "b", "c", "d"]))), [1]);
    assert_eq!(assigned(shared.on(discovered(&["a", "b", "c", "d", "e"]))), [0]);
}
