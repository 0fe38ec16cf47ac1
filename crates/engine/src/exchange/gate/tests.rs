//! Gates over channels of this process: what is taken, what a barrier overtakes, and what a resumed gate takes first.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Waker;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use mainstem_core::alignment::{BarrierMark, RESUME};
use mainstem_core::ids::{Epoch, OperatorId, SubtaskId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::channel::{ChannelSender, channel};
use super::*;

fn config(timeout_ms: Option<u64>) -> AlignmentConfig {
    AlignmentConfig { timeout_ms, aligned_until: RESUME }
}

/// A gate over so many channels, all of input 0 and edge 3.
fn gate(channels: u32, timeout_ms: Option<u64>) -> (Vec<ChannelSender>, InputGate) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..channels).map(|_| channel()).unzip();
    let place = |sender| ChannelPlace { edge: 3, sender };
    let input = |(sender, receiver)| GateInput { input: 0, place: place(sender), shows: None, receiver };
    let inputs = (0..).zip(receivers).map(input).collect();
    (senders, InputGate::new(inputs, config(timeout_ms)))
}

fn rows(number: i64, count: usize) -> StreamBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![number; count]));
    StreamBatch::on_time(RecordBatch::try_from_iter([("n", column)]).unwrap())
}

fn batch(number: i64) -> StreamElement {
    StreamElement::Batch(rows(number, 1))
}

fn barrier(epoch: u64) -> StreamElement {
    let barrier = Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(0) };
    StreamElement::Barrier(BarrierMark::new(barrier, false))
}

fn marker(number: u64) -> StreamElement {
    let source = SubtaskId { operator: OperatorId(0), index: 0 };
    StreamElement::Marker(Box::new(LatencyMarker { source, number, read_at: Timestamp(0), trace: None }))
}

fn number(batch: &StreamBatch) -> i64 {
    batch.rows.column(0).as_primitive::<Int64Type>().value(0)
}

/// The next event; what it was, in short.
async fn next(gate: &mut InputGate, may_take: bool) -> (String, Option<oneshot::Receiver<Vec<InFlightChannel>>>) {
    match poll_fn(|cx| gate.poll(cx, may_take)).await.unwrap() {
        GateEvent::Batch { batch, .. } => (number(&batch).to_string(), None),
        GateEvent::Marker(marker) => (format!("m{}", marker.number), None),
        GateEvent::Watermark(watermark) => (format!("w{}", watermark.0), None),
        GateEvent::Barrier { barrier, overtaken } => (format!("b{}", barrier.mark.barrier.epoch), overtaken),
        GateEvent::End => ("end".to_owned(), None),
    }
}

fn is_pending(gate: &mut InputGate, may_take: bool) -> bool {
    gate.poll(&mut Context::from_waker(Waker::noop()), may_take).is_pending()
}

fn numbers(channels: &[InFlightChannel]) -> Vec<(u32, Vec<i64>)> {
    channels.iter().map(|channel| (channel.place.sender, channel.batches.iter().map(number).collect())).collect()
}

#[tokio::test]
async fn after_the_time_out_the_barrier_comes_first_and_the_rows_before_it_are_kept() {
    let (mut senders, mut gate) = gate(3, Some(200));
    for element in [batch(1), StreamElement::Watermark(Timestamp(5)), batch(2), barrier(1), batch(3)] {
        senders[0].send(element).await.unwrap();
    }
    senders[1].send(batch(11)).await.unwrap();
    senders[2].send(barrier(1)).await.unwrap();
    senders[2].send(batch(21)).await.unwrap();
    // The task takes nothing: its own receivers have no room.
    let begun = Instant::now();
    // The timer wakes the task.
    let (event, overtaken) = next(&mut gate, false).await;
    assert_eq!(event, "b1");
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    let mut overtaken = overtaken.expect("it has overtaken rows");
    assert!(overtaken.try_recv().is_err(), "channel 1 owes the barrier");
    senders[1].send(batch(12)).await.unwrap();
    senders[1].send(barrier(1)).await.unwrap();
    senders[1].send(batch(13)).await.unwrap();
    assert!(is_pending(&mut gate, false));
    // The third barrier stood at its turn: nothing was overtaken there.
    assert_eq!(numbers(&overtaken.try_recv().unwrap()), vec![(0, vec![1, 2]), (1, vec![11, 12])]);
    let mut taken = Vec::new();
    while !is_pending(&mut gate, false) || taken.len() < 7 {
        taken.push(next(&mut gate, true).await.0);
    }
    taken.sort();
    assert_eq!(taken, ["1", "11", "12", "13", "2", "21", "3"]);
}

#[tokio::test]
async fn what_is_aligned_in_time_overtakes_nothing() {
    let (mut senders, mut gate) = gate(2, Some(600_000));
    for sender in &mut senders {
        sender.send(batch(1)).await.unwrap();
        sender.send(barrier(1)).await.unwrap();
    }
    for wanted in ["1", "1", "b1"] {
        let (event, overtaken) = next(&mut gate, true).await;
        assert_eq!((event.as_str(), overtaken.is_none()), (wanted, true));
    }
    assert!(is_pending(&mut gate, true));
}

#[tokio::test]
async fn a_watermark_alone_is_told_as_overtaken() {
    let (mut senders, mut gate) = gate(1, Some(0));
    senders[0].send(StreamElement::Watermark(Timestamp(5))).await.unwrap();
    senders[0].send(barrier(1)).await.unwrap();
    let (event, overtaken) = next(&mut gate, true).await;
    assert_eq!((event.as_str(), numbers(&overtaken.unwrap().try_recv().unwrap())), ("b1", vec![(0, vec![])]));
    assert_eq!(next(&mut gate, true).await.0, "w5");
    // Nothing before it: as good as aligned.
    senders[0].send(barrier(2)).await.unwrap();
    let (event, overtaken) = next(&mut gate, true).await;
    assert_eq!((event.as_str(), overtaken.unwrap().try_recv().unwrap().len()), ("b2", 0));
}

#[tokio::test]
async fn a_latency_marker_stays_behind_its_rows_and_waits_for_a_barrier_as_they_do() {
    let (mut senders, mut gate) = gate(2, None);
    for element in [batch(1), marker(1), barrier(1), batch(2), marker(2)] {
        senders[0].send(element).await.unwrap();
    }
    for wanted in ["1", "m1"] {
        assert_eq!(next(&mut gate, true).await.0, wanted);
    }
    assert!(is_pending(&mut gate, true), "the barrier is being aligned");
    senders[1].send(marker(9)).await.unwrap();
    senders[1].send(barrier(1)).await.unwrap();
    for wanted in ["m9", "b1", "2", "m2"] {
        assert_eq!(next(&mut gate, true).await.0, wanted);
    }
}

#[tokio::test]
async fn a_latency_marker_that_is_overtaken_is_not_stored_and_comes_all_the_same() {
    let (mut senders, mut gate) = gate(2, Some(0));
    for element in [batch(1), marker(1), batch(2), barrier(1)] {
        senders[0].send(element).await.unwrap();
    }
    senders[1].send(marker(2)).await.unwrap();
    let (event, overtaken) = next(&mut gate, false).await;
    assert_eq!(event, "b1");
    // What comes before a barrier that is owed is looked at, too.
    senders[1].send(marker(3)).await.unwrap();
    senders[1].send(barrier(1)).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(next(&mut gate, true).await.0);
    }
    assert_eq!(numbers(&overtaken.unwrap().try_recv().unwrap()), [(0, vec![1, 2])], "of channel 1 nothing");
    taken.sort();
    assert_eq!(taken, ["1", "2", "m1", "m2", "m3"]);
}

#[tokio::test]
async fn a_step_under_way_is_hurried_when_a_barrier_is_to_overtake() {
    let (mut senders, mut gate) = gate(2, Some(50));
    senders[1].send(batch(1)).await.unwrap();
    senders[1].send(barrier(1)).await.unwrap();
    let begun = Instant::now();
    poll_fn(|cx| gate.poll_hurry(cx)).await;
    assert!(begun.elapsed() >= Duration::from_millis(45), "{:?}", begun.elapsed());
    assert_eq!(next(&mut gate, false).await.0, "b1");
    assert!(gate.poll_hurry(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn rows_that_a_checkpoint_has_kept_come_before_everything_new_on_any_channel() {
    let (mut senders, mut gate) = gate(2, Some(0));
    assert!(gate.resume(ChannelPlace { edge: 3, sender: 1 }, vec![rows(1, 1), rows(2, 1)]));
    assert!(!gate.resume(ChannelPlace { edge: 3, sender: 2 }, Vec::new()), "no such channel");
    let resume =
        StreamElement::Barrier(BarrierMark::new(Barrier { epoch: RESUME, next_epoch_now: Timestamp(0) }, false));
    for (sender, new) in senders.iter_mut().zip([10, 20]) {
        sender.send(resume.clone()).await.unwrap();
        sender.send(batch(new)).await.unwrap();
        sender.send(barrier(1)).await.unwrap();
    }
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(next(&mut gate, true).await.0);
    }
    assert_eq!(events, ["1", "2", "b0"]);
    // Only now another barrier may overtake.
    let (event, overtaken) = next(&mut gate, true).await;
    let overtaken = overtaken.unwrap().try_recv().unwrap();
    assert_eq!((event.as_str(), numbers(&overtaken)), ("b1", vec![(0, vec![10]), (1, vec![20])]));
}

/// Senders that are random steps ahead of a receiver that takes now and then, whatever the time-out: what was taken
/// before a barrier and what it has overtaken are together the rows before it, and all rows are taken in their order.
#[tokio::test]
async fn every_cut_is_whole_at_any_time_out() {
    let mut cuts_with_rows = 0;
    let (mut markers_sent, mut markers_taken) = (0, 0);
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let channels = random.random_range(1..5_u32);
        let timeout_ms = [None, Some(0), Some(0), Some(1)][random.random_range(0..4)];
        let (mut senders, mut gate) = gate(channels, timeout_ms);
        let mut sent = vec![0_i64; channels as usize];
        let mut epochs = vec![0_u64; channels as usize];
        // By channel and epoch: the next number when its barrier went out.
        let mut bounds = vec![vec![0_i64]; channels as usize];
        let mut taken = vec![0_i64; channels as usize];
        let mut open = VecDeque::new();
        let mut done = 0;
        while done < 6 {
            // A task that never yields is given nothing any more.
            tokio::task::yield_now().await;
            let at = random.random_range(0..channels as usize);
            match random.random_range(0..8) {
                0 if epochs[at] < 6 => {
                    epochs[at] += 1;
                    bounds[at].push(sent[at]);
                    senders[at].send(barrier(epochs[at])).await.unwrap();
                }
                1 => {
                    senders[at].send(marker(0)).await.unwrap();
                    markers_sent += 1;
                }
                2..5 => {
                    senders[at].send(batch(sent[at] * 10 + at as i64)).await.unwrap();
                    sent[at] += 1;
                }
                _ => {}
            }
            let poll = gate.poll(&mut Context::from_waker(Waker::noop()), random.random_range(0..3) > 0);
            match poll.map(Result::unwrap) {
                Poll::Ready(GateEvent::Batch { batch, .. }) => {
                    let (channel, nth) = ((number(&batch) % 10) as usize, number(&batch) / 10);
                    assert_eq!(nth, taken[channel], "in order");
                    taken[channel] += 1;
                }
                Poll::Ready(GateEvent::Barrier { barrier, overtaken }) => {
                    open.push_back((barrier.mark.barrier.epoch, taken.clone(), overtaken));
                }
                Poll::Ready(GateEvent::Marker(_)) => markers_taken += 1,
                Poll::Ready(_) => panic!("neither rows nor a barrier"),
                Poll::Pending => {}
            }
            let Some((epoch, before, mut overtaken)) = open.pop_front() else { continue };
            let stored = match &mut overtaken {
                None => Vec::new(),
                Some(waiting) => match waiting.try_recv() {
                    Ok(stored) => stored,
                    Err(_) => {
                        // The next barrier may be there already when the last rows of this one have come.
                        open.push_front((epoch, before, overtaken));
                        continue;
                    }
                },
            };
            let mut seen: BTreeSet<i64> = stored.iter().flat_map(|c| &c.batches).map(number).collect();
            cuts_with_rows += usize::from(!seen.is_empty());
            for (channel, before) in before.iter().enumerate() {
                seen.extend((0..*before).map(|nth| nth * 10 + channel as i64));
            }
            let bound = |channel: usize| bounds[channel][epoch.0 as usize];
            let wanted = (0..channels as usize).flat_map(|c| (0..bound(c)).map(move |nth| nth * 10 + c as i64));
            assert_eq!(seen, wanted.collect(), "seed {seed}, epoch {epoch}");
            done += 1;
        }
    }
    assert!(cuts_with_rows > 100, "{cuts_with_rows}");
    assert!(markers_taken > 100 && markers_taken <= markers_sent, "{markers_taken} of {markers_sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_at_any_instant_are_either_behind_the_snapshot_or_noted() {
    const ROWS: i64 = 200;
    for round in 0..100 {
        let (mut senders, mut gate) = gate(2, Some(0));
        senders[0].send(barrier(1)).await.unwrap();
        let mut sender = senders.pop().unwrap();
        let sending = tokio::spawn(async move {
            for row in 0..ROWS {
                sender.send(batch(row)).await.unwrap();
                (0..row % 40 * 10).for_each(|_| std::hint::spin_loop());
            }
            sender.send(barrier(1)).await.unwrap();
            sender
        });
        let mut before = Vec::new();
        let mut overtaken = loop {
            match next(&mut gate, true).await {
                (row, None) => before.push(row.parse().unwrap()),
                (_, Some(overtaken)) => break overtaken,
            }
        };
        let noted = loop {
            match overtaken.try_recv() {
                Ok(noted) => break noted,
                Err(_) => _ = poll_fn(|cx| Poll::Ready(gate.poll(cx, true).is_ready())).await,
            }
        };
        before.extend(noted.iter().flat_map(|channel| channel.batches.iter().map(number)));
        assert!(before.iter().copied().eq(0..ROWS), "round {round}: {before:?}");
        drop(sending.await.unwrap());
    }
}
