//! The machines that are made anew are the ones that there were.

use super::*;
use crate::ids::SplitId;
use crate::protocol::{OperatorSnapshot, SplitProgress};
use crate::splits::SplitEvent;
use crate::time::Timestamp;

const SOURCE: OperatorId = OperatorId(7);

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: SOURCE, index }
}

fn split(number: u64) -> SourceSplit {
    SourceSplit { id: SplitId(format!("s{number:03}")), payload: format!("{number}.csv") }
}

fn unread(number: u64) -> SplitState {
    SplitState { split: split(number), progress: None }
}

fn barrier(epoch: u64) -> Barrier {
    Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(epoch as i64) }
}

fn begun(epoch: u64, end: Option<End>) -> Decision {
    Decision::EpochBegun { barrier: barrier(epoch), end }
}

fn assigned(splits: &[(u64, u32)]) -> Decision {
    let splits = splits.iter().map(|(number, index)| (split(*number).id, subtask(*index))).collect();
    Decision::SplitsAssigned { operator: SOURCE, splits }
}

fn sources(splits: &[SplitState]) -> BTreeMap<OperatorId, ResumedSource<'_>> {
    let subtasks = BTreeSet::from([subtask(0), subtask(1)]);
    BTreeMap::from([(SOURCE, ResumedSource { subtasks, bounded: false, side_by_side: false, splits })])
}

/// Numbers that look random, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// An epoch that has begun, as its first leader knows it, with what the subtasks report at its barrier.
struct Open {
    cut: SplitCut,
    reports: BTreeMap<SubtaskId, Vec<SplitState>>,
}

/// A leader with its subtasks, who do at once what they are told, and the journal that a successor would find.
struct Leader {
    assigner: SplitAssigner,
    journal: Journal,
    held: BTreeMap<SubtaskId, BTreeMap<SplitId, SplitState>>,
    open: BTreeMap<Epoch, Open>,
    /// Splits as of the newest complete epoch.
    complete: (Epoch, Vec<SplitState>),
    found: u64,
}

impl Leader {
    fn new() -> Leader {
        let initial: Vec<_> = (0..3).map(unread).collect();
        let mut assigner = SplitAssigner::new(BTreeSet::from([subtask(0), subtask(1)]), false, Some(&initial), false);
        assigner.start();
        let held = BTreeMap::from([(subtask(0), BTreeMap::new()), (subtask(1), BTreeMap::new())]);
        let (journal, open, complete) = (Journal::new(Epoch(0)), BTreeMap::new(), (Epoch(0), initial));
        Leader { assigner, journal, held, open, complete, found: 3 }
    }

    fn record(&mut self, decision: Decision) {
        self.journal.check(&decision).unwrap();
        self.journal.record(decision);
    }

    fn split_event(&mut self, event: SplitEvent) {
        let news = self.assigner.news(&event);
        if !news.is_empty() {
            self.record(Decision::SplitsFound { operator: SOURCE, splits: news });
        }
        for command in self.assigner.on(event) {
            let SplitCommand::Assign { subtask, splits } = command else { continue };
            let pairs = splits.iter().map(|state| (state.split.id.clone(), subtask)).collect();
            self.record(Decision::SplitsAssigned { operator: SOURCE, splits: pairs });
            let held = self.held.get_mut(&subtask).unwrap();
            held.extend(splits.into_iter().map(|state| (state.split.id.clone(), state)));
        }
    }

    fn find(&mut self, more: u64) {
        self.found += more;
        self.split_event(SplitEvent::Discovered { splits: (0..self.found).map(split).collect() });
    }

    fn read(&mut self, random: &mut Random) {
        for state in self.held.values_mut().flat_map(BTreeMap::values_mut).filter(|state| !state.is_finished()) {
            state.progress = Some(match random.below(3) {
                0 => SplitProgress::Finished,
                position => SplitProgress::Reading { position: position.to_string(), watermark: Timestamp(5) },
            });
        }
    }

    fn begin(&mut self) {
        let epoch = self.journal.last_begun.next();
        self.record(begun(epoch.0, None));
        let cut = self.assigner.cut();
        let reports = self.held.iter().map(|(subtask, held)| (*subtask, held.values().cloned().collect()));
        self.open.insert(epoch, Open { cut, reports: reports.collect() });
        self.held.values_mut().for_each(|held| held.retain(|_, state| !state.is_finished()));
    }

    fn complete(&mut self) {
        let Some((epoch, open)) = self.open.pop_first() else { return };
        let before = std::mem::take(&mut self.complete.1);
        let merged = merge(&open.cut, &before, &open.reports);
        let effect = SourceEpoch::between(&before, &merged, &open.cut, &[&OperatorSnapshot::default()]);
        self.journal.complete(epoch, &BTreeMap::from([(SOURCE, effect)]));
        self.split_event(SplitEvent::EpochComplete { splits: merged.clone() });
        self.complete = (epoch, merged);
    }
}

fn merge(cut: &SplitCut, before: &[SplitState], reports: &BTreeMap<SubtaskId, Vec<SplitState>>) -> Vec<SplitState> {
    let reports = reports.iter().map(|(subtask, splits)| (*subtask, splits.as_slice()));
    let mut merged = cut.merge(before, reports).unwrap();
    merged.sort_by(|a, b| a.split.id.cmp(&b.split.id));
    merged
}

#[test]
fn at_every_step_a_successor_has_the_same_assignments_and_the_same_cuts() {
    let (mut under_way, mut handed_out) = (0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut leader = Leader::new();
        for _ in 0..60 {
            match random.below(7) {
                0 => leader.find(random.below(4)),
                1 | 2 => leader.split_event(SplitEvent::Requested { subtask: subtask(random.below(2) as u32) }),
                3 | 4 => leader.read(&mut random),
                5 => leader.begin(),
                _ => leader.complete(),
            }
            let (complete, splits) = &leader.complete;
            let resumed = leader.journal.resume(*complete, &sources(splits)).unwrap();
            // What is under way comes to the same checkpoints.
            assert_eq!(resumed.begun.len(), leader.open.len(), "seed {seed}");
            let mut before = splits.clone();
            for (again, (epoch, first)) in resumed.begun.iter().zip(&leader.open) {
                assert_eq!(again.barrier.epoch, *epoch);
                let merged = merge(&first.cut, &before, &first.reports);
                assert_eq!(merge(&again.cuts[&SOURCE], &before, &first.reports), merged, "seed {seed}");
                before = merged;
                under_way += 1;
            }
            // And so does what comes next.
            let held = leader.held.iter().map(|(subtask, held)| (*subtask, held.values().cloned().collect())).collect();
            let next = merge(&leader.assigner.cut(), &before, &held);
            assert_eq!(merge(&resumed.assigners[&SOURCE].cut(), &before, &held), next, "seed {seed}");
            assert_eq!(resumed.assigners[&SOURCE].waiting(), leader.assigner.waiting(), "seed {seed}");
            handed_out += resumed.repeats.iter().filter(|repeat| is_assignment(repeat)).count();
        }
    }
    assert!(under_way > 1_000 && handed_out > 1_000, "{under_way} {handed_out}");
}

fn is_assignment(repeat: &Repeat) -> bool {
    matches!(repeat, Repeat::Splits { command: SplitCommand::Assign { .. }, .. })
}

#[test]
fn messages_are_repeated_in_the_order_of_the_decisions() {
    let initial: Vec<_> = (0..4).map(unread).collect();
    let mut journal = Journal::new(Epoch(0));
    let found = Decision::SplitsFound { operator: SOURCE, splits: vec![split(4)] };
    for decision in [assigned(&[(0, 0), (1, 1), (2, 0)]), begun(1, None), assigned(&[(3, 1)]), found] {
        journal.check(&decision).unwrap();
        journal.record(decision);
    }
    let resumed = journal.resume(Epoch(0), &sources(&initial)).unwrap();
    let splits = |after, command| Repeat::Splits { operator: SOURCE, after: Epoch(after), command };
    let assign = |index, numbers: &[u64]| SplitCommand::Assign {
        subtask: subtask(index),
        splits: numbers.iter().copied().map(unread).collect(),
    };
    let expected = [
        splits(0, assign(0, &[0, 2])),
        splits(0, assign(1, &[1])),
        splits(0, SplitCommand::Bound { bound: Timestamp::MIN }),
        Repeat::Barrier { barrier: barrier(1), last: false },
        splits(1, assign(1, &[3])),
    ];
    assert_eq!(resumed.repeats, expected);
    assert_eq!(resumed.begun.len(), 1);
    // After the first checkpoint only what came behind its barrier is left.
    let reading = SplitProgress::Reading { position: "1".to_owned(), watermark: Timestamp(5) };
    let mut complete = initial.clone();
    complete[0].progress = Some(SplitProgress::Finished);
    complete[1].progress = Some(reading);
    let effect = SourceEpoch { changed: complete[..2].to_vec(), ..SourceEpoch::default() };
    journal.complete(Epoch(1), &BTreeMap::from([(SOURCE, effect)]));
    let resumed = journal.resume(Epoch(1), &sources(&complete)).unwrap();
    assert_eq!(resumed.repeats, [expected[4].clone(), splits(1, SplitCommand::Bound { bound: Timestamp::MIN })]);
    assert_eq!((resumed.begun.len(), resumed.assigners[&SOURCE].waiting()), (0, 1));
}

#[test]
fn epochs_begin_in_their_order_and_none_after_the_last() {
    let mut journal = Journal::new(Epoch(4));
    assert!(journal.check(&begun(4, None)).is_err());
    assert!(journal.check(&begun(6, None)).is_err());
    journal.record(begun(5, Some(End::Stop)));
    assert!(journal.check(&begun(6, None)).unwrap_err().contains("last one"));
    journal.check(&assigned(&[(0, 0)])).unwrap();
}

#[test]
fn what_contradicts_itself_is_not_gone_on_with() {
    let initial = [unread(0)];
    let check = |decisions: &[Decision], complete: u64, said: &str| {
        let mut journal = Journal::new(Epoch(0));
        decisions.iter().cloned().for_each(|decision| journal.record(decision));
        let error = journal.resume(Epoch(complete), &sources(&initial)).unwrap_err();
        assert!(error.contains(said), "{error}");
    };
    check(&[assigned(&[(0, 5)])], 0, "does not have");
    check(&[assigned(&[(9, 0)])], 0, "was not there");
    check(&[assigned(&[(0, 0)]), assigned(&[(0, 1)])], 0, "was not there");
    check(&[begun(1, None)], 3, "epoch 3 was the one before");
    let other = Decision::SplitsFound { operator: OperatorId(1), splits: vec![split(1)] };
    check(&[other], 0, "is no source");
}
