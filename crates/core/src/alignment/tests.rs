//! Barriers in, decisions out; and any interleaving of arrivals, takes and time-outs.

use std::collections::VecDeque;

use super::*;

const ALWAYS: AlignmentConfig = AlignmentConfig::ALWAYS;

/// Overtakes after 100 ms, but for epochs 0 to 2.
const AFTER_100: AlignmentConfig = AlignmentConfig { timeout_ms: Some(100), aligned_until: Epoch(2) };

fn at(ms: i64) -> Timestamp {
    Timestamp(ms)
}

fn barrier(epoch: u64) -> Barrier {
    Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(0) }
}

fn mark(epoch: u64) -> BarrierMark {
    BarrierMark::new(barrier(epoch), false)
}

fn complete(epoch: u64, waited_ms: u64, took_ms: u64) -> Alignment {
    Alignment::Complete(Aligned { mark: BarrierMark { waited_ms, ..mark(epoch) }, took_ms })
}

fn overtake(epoch: u64, waited_ms: u64, took_ms: u64, owing: &[usize]) -> Alignment {
    let barrier = Aligned { mark: BarrierMark { waited_ms, ..mark(epoch) }, took_ms };
    Alignment::Overtake { barrier, owing: owing.to_vec() }
}

#[test]
fn inputs_block_until_the_last_barrier() {
    let mut aligner = BarrierAligner::new(3, ALWAYS);
    assert_eq!(aligner.on_barrier(at(0), 1, mark(1)), Alignment::Wait);
    assert!(aligner.may_take(0) && !aligner.may_take(1) && aligner.may_take(2));
    assert_eq!(aligner.on_barrier(at(5), 0, mark(1)), Alignment::Wait);
    assert_eq!(aligner.overtake(at(1_000_000)), Alignment::Wait);
    assert_eq!(aligner.on_barrier(at(7), 2, mark(1)), complete(1, 7, 7));
    assert!((0..3).all(|i| aligner.may_take(i)));
}

#[test]
fn an_ended_input_does_not_hold_back_the_rest() {
    let mut aligner = BarrierAligner::new(2, ALWAYS);
    assert_eq!(aligner.on_barrier(at(0), 0, mark(1)), Alignment::Wait);
    assert_eq!(aligner.on_end(at(0), 1), complete(1, 0, 0));
    assert_eq!(aligner.on_barrier(at(1), 0, mark(2)), complete(2, 0, 0));
    assert_eq!(aligner.on_end(at(2), 0), Alignment::Ended);
}

#[test]
fn a_foreign_epoch_is_a_violation() {
    let mut aligner = BarrierAligner::new(2, ALWAYS);
    assert_eq!(aligner.on_barrier(at(0), 0, mark(1)), Alignment::Wait);
    assert_eq!(aligner.on_barrier(at(0), 1, mark(2)), Alignment::Violation(barrier(2)));
    let mut aligner = BarrierAligner::new(2, AFTER_100);
    assert_eq!(aligner.on_announced(at(0), 0, mark(3)), Alignment::Wait);
    assert_eq!(aligner.on_announced(at(0), 1, mark(4)), Alignment::Violation(barrier(4)));
}

#[test]
fn after_the_time_out_the_barrier_overtakes_what_is_in_flight() {
    let mut aligner = BarrierAligner::new(3, AFTER_100);
    assert_eq!(aligner.deadline(), None);
    assert_eq!(aligner.on_barrier(at(10), 0, mark(3)), Alignment::Wait);
    assert_eq!(aligner.deadline(), Some(at(110)));
    assert_eq!(aligner.on_announced(at(20), 1, mark(3)), Alignment::Wait);
    assert_eq!(aligner.overtake(at(109)), Alignment::Wait);
    assert_eq!(aligner.overtake(at(112)), overtake(3, 102, 102, &[1, 2]));
    // All inputs flow, and only once.
    assert!((0..3).all(|i| aligner.may_take(i)));
    assert_eq!((aligner.owes(0), aligner.owes(1), aligner.owes(2)), (false, true, true));
    assert_eq!(aligner.overtake(at(1_000)), Alignment::Wait);
    assert_eq!(aligner.on_barrier(at(113), 1, mark(3)), Alignment::Wait);
    assert_eq!(aligner.on_barrier(at(150), 2, mark(3)), Alignment::Stored(Epoch(3)));
    // The next one is aligned again.
    for (input, last) in [(1, false), (2, false), (0, true)] {
        let answer = aligner.on_barrier(at(200), input, mark(4));
        assert_eq!(answer, if last { complete(4, 0, 0) } else { Alignment::Wait });
    }
}

#[test]
fn the_time_out_counts_from_the_sources_on_and_not_at_each_subtask() {
    let mut aligner = BarrierAligner::new(2, AFTER_100);
    assert_eq!(aligner.on_announced(at(1_000), 0, BarrierMark { waited_ms: 30, ..mark(3) }), Alignment::Wait);
    assert_eq!(aligner.deadline(), Some(at(1_070)));
    // The other way took longer: the subtask there has stopped waiting.
    assert_eq!(aligner.on_announced(at(1_010), 1, BarrierMark { waited_ms: 105, ..mark(3) }), Alignment::Wait);
    assert_eq!(aligner.overtake(at(1_010)), overtake(3, 105, 10, &[0, 1]));
}

#[test]
fn the_barrier_of_the_next_epoch_waits_until_everything_of_the_one_before_has_come() {
    let mut aligner = BarrierAligner::new(2, AFTER_100);
    assert_eq!(aligner.on_barrier(at(0), 0, mark(3)), Alignment::Wait);
    assert_eq!(aligner.overtake(at(100)), overtake(3, 100, 100, &[1]));
    assert_eq!(aligner.on_barrier(at(110), 0, mark(4)), Alignment::Wait);
    assert_eq!((aligner.deadline(), aligner.overtake(at(500))), (None, Alignment::Wait));
    assert_eq!(aligner.on_barrier(at(510), 1, mark(4)), Alignment::Violation(barrier(4)), "it owes 3");
    assert_eq!(aligner.on_barrier(at(510), 1, mark(3)), Alignment::Stored(Epoch(3)));
    assert_eq!(aligner.overtake(at(510)), overtake(4, 400, 400, &[1]), "long due");
    assert_eq!(aligner.on_barrier(at(520), 1, mark(4)), Alignment::Stored(Epoch(4)));
}

#[test]
fn what_stands_behind_a_delivered_barrier_is_not_looked_at() {
    let mut aligner = BarrierAligner::new(2, AFTER_100);
    assert_eq!(aligner.on_barrier(at(0), 0, mark(3)), Alignment::Wait);
    assert_eq!(aligner.on_announced(at(1), 0, mark(4)), Alignment::Wait);
    assert_eq!(aligner.on_barrier(at(2), 1, mark(3)), complete(3, 2, 2));
    assert_eq!(aligner.on_announced(at(3), 0, mark(4)), Alignment::Wait);
    assert_eq!(aligner.deadline(), Some(at(103)));
}

#[test]
fn last_epochs_replayed_ones_and_the_resumption_are_aligned_however_long_it_takes() {
    for mark in [BarrierMark { last: true, ..mark(3) }, mark(2), BarrierMark::new(barrier(RESUME.0), false)] {
        let mut aligner = BarrierAligner::new(2, AFTER_100);
        assert_eq!(aligner.on_barrier(at(0), 0, mark), Alignment::Wait);
        assert_eq!((aligner.deadline(), aligner.overtake(at(1 << 40))), (None, Alignment::Wait), "{mark:?}");
        assert!(matches!(aligner.on_barrier(at(1 << 40), 1, mark), Alignment::Complete(_)));
    }
    let config = AlignmentConfig { timeout_ms: None, aligned_until: Epoch(0) };
    let mut aligner = BarrierAligner::new(1, config);
    assert_eq!(aligner.on_announced(at(0), 0, mark(7)), Alignment::Wait);
    assert_eq!(aligner.overtake(Timestamp::MAX), Alignment::Wait);
}

#[test]
fn without_a_time_to_wait_a_barrier_overtakes_as_soon_as_it_is_seen() {
    let mut aligner = BarrierAligner::new(2, AlignmentConfig { timeout_ms: Some(0), aligned_until: RESUME });
    assert_eq!(aligner.on_announced(at(5), 1, mark(1)), Alignment::Wait);
    assert_eq!(aligner.overtake(at(5)), overtake(1, 0, 0, &[0, 1]));
    assert_eq!(aligner.on_barrier(at(5), 1, mark(1)), Alignment::Wait);
    // The input that has delivered goes on to the next epoch meanwhile.
    assert_eq!(aligner.on_announced(at(6), 1, mark(2)), Alignment::Wait);
    assert_eq!(aligner.on_end(at(7), 0), Alignment::Violation(barrier(1)), "it ends and owes a barrier");
    assert_eq!(aligner.on_barrier(at(8), 0, mark(1)), Alignment::Stored(Epoch(1)));
    assert_eq!(aligner.overtake(at(9)), overtake(2, 3, 3, &[0, 1]));
}

/// Elements of one input, as a number each; `Err` is a barrier.
type Queue = VecDeque<Result<u64, BarrierMark>>;

/// Any interleaving of arrivals, takes and time-outs: what a snapshot has seen and what is stored beside it is
/// exactly what stands before the barriers, each element once.
#[test]
fn what_is_seen_and_what_is_stored_is_the_cut_of_the_barriers() {
    let mut overtaken_epochs = 0;
    for seed in 0..2_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let inputs = 1 + random(4) as usize;
        let timeout_ms = [None, Some(0), Some(20)][random(3) as usize];
        let mut aligner = BarrierAligner::new(inputs, AlignmentConfig { timeout_ms, aligned_until: Epoch(1) });
        // Three epochs of elements, then the end. Elements are numbered through; those of epoch e lie in e*1000...
        let sent =
            |input: u64, epoch: u64| (0..(seed + input + epoch) % 5).map(move |n| epoch * 1_000 + input * 100 + n);
        let mut coming: Vec<Queue> = (0..inputs as u64)
            .map(|input| {
                let of_epoch = |epoch| sent(input, epoch).map(Ok).chain([Err(mark(epoch))]);
                (1..=3).flat_map(of_epoch).collect()
            })
            .collect();
        let mut arrived = vec![Queue::new(); inputs];
        let (mut seen, mut stored) = (BTreeSet::new(), BTreeSet::<u64>::new());
        let mut snapshots = Vec::new();
        let (mut now, mut done) = (0, 0);
        let check = |snapshots: &[(Epoch, BTreeSet<u64>)], stored: &BTreeSet<u64>, epoch: Epoch| {
            let (of, seen) = snapshots.last().unwrap();
            assert_eq!((*of, snapshots.len() as u64), (epoch, epoch.0), "each epoch once, in their order");
            assert!(seen.is_disjoint(stored));
            let before = (0..inputs as u64).flat_map(|input| (1..=epoch.0).flat_map(move |epoch| sent(input, epoch)));
            assert_eq!(seen.union(stored).copied().collect::<BTreeSet<_>>(), before.collect());
        };
        while done < 3 {
            now += random(8) as i64;
            let input = random(inputs as u64) as usize;
            if random(2) == 0
                && let Some(element) = coming[input].pop_front()
            {
                match element {
                    Err(mark) if aligner.owes(input) => {
                        if let Alignment::Stored(epoch) = aligner.on_barrier(at(now), input, mark) {
                            check(&snapshots, &stored, epoch);
                            stored.clear();
                            done += 1;
                        }
                        continue;
                    }
                    Ok(number) if aligner.owes(input) => assert!(stored.insert(number)),
                    _ => {}
                }
                arrived[input].push_back(element);
            }
            for (input, queue) in arrived.iter().enumerate() {
                if let Some(Err(mark)) = queue.iter().find(|e| e.is_err())
                    && !aligner.owes(input)
                {
                    assert_eq!(aligner.on_announced(at(now), input, *mark), Alignment::Wait);
                }
            }
            if let Alignment::Overtake { barrier, owing } = aligner.overtake(at(now)) {
                overtaken_epochs += 1;
                snapshots.push((barrier.mark.barrier.epoch, seen.clone()));
                let mut last = Alignment::Wait;
                for input in owing {
                    let position = arrived[input].iter().position(Result::is_err);
                    let before = position.unwrap_or(arrived[input].len());
                    stored.extend(arrived[input].iter().take(before).map(|e| e.unwrap()));
                    if let Some(Err(mark)) = position.and_then(|at| arrived[input].remove(at)) {
                        last = aligner.on_barrier(at(now), input, mark);
                    }
                }
                if let Alignment::Stored(epoch) = last {
                    check(&snapshots, &stored, epoch);
                    stored.clear();
                    done += 1;
                }
            }
            if !aligner.may_take(input) {
                continue;
            }
            match arrived[input].pop_front() {
                Some(Ok(number)) => assert!(seen.insert(number)),
                Some(Err(mark)) => {
                    if let Alignment::Complete(aligned) = aligner.on_barrier(at(now), input, mark) {
                        snapshots.push((aligned.mark.barrier.epoch, seen.clone()));
                        check(&snapshots, &BTreeSet::new(), aligned.mark.barrier.epoch);
                        done += 1;
                    }
                }
                None => {}
            }
        }

        assert_eq!(snapshots.len(), 3);
    }
    assert!(overtaken_epochs > 1_000, "{overtaken_epochs}");
}
