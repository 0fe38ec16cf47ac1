//! Two workers on loopback, with real connections between them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use mainstem_core::alignment::BarrierMark;
use mainstem_core::cluster::messages::{AttemptId, WorkerId, WorkerOffer};
use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_core::protocol::Barrier;
use mainstem_core::time::Timestamp;
use mainstem_net::{Connection, Transport};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::channel::Overtaken;
use super::peer::RemoteSender;
use super::{ChannelKey, ChannelReceiver, DataPlane};
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

const LONG: Duration = Duration::from_secs(20);

fn attempt(generation: u64) -> AttemptId {
    AttemptId { job: JobId::new("j").unwrap(), generation: Generation(generation) }
}

fn key(generation: u64, sender: u32) -> ChannelKey {
    ChannelKey { attempt: attempt(generation), edge: 0, sender, receiver: 0 }
}

fn plane(name: &str) -> Arc<DataPlane> {
    Arc::new(DataPlane::new(WorkerId(name.to_owned()), "c".to_owned(), Transport::plain(), false).unwrap())
}

fn offer(address: &str) -> WorkerOffer {
    WorkerOffer { worker: WorkerId("there".to_owned()), data_address: address.to_owned(), slots: 1, draining: false }
}

/// A worker that listens; its address, and the task that serves its connections.
async fn listening(data: &Arc<DataPlane>) -> (String, JoinHandle<()>) {
    let mut listener = Transport::plain().listen("127.0.0.1:0").await.unwrap();
    let (address, data) = (listener.local_address(), data.clone());
    let serving = async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let connection: Connection = listener.accept().await.unwrap();
            let data = data.clone();
            connections.spawn(async move { data.serve(connection).await });
        }
    };
    (address, tokio::spawn(serving))
}

/// Sends when there is credit.
async fn send(sender: &mut RemoteSender, element: StreamElement) -> Result<(), EngineError> {
    poll_fn(|cx| sender.poll_ready(cx)).await;
    sender.send(element).await
}

async fn next(receiver: &mut ChannelReceiver) -> Option<Result<StreamElement, EngineError>> {
    timeout(LONG, poll_fn(|cx| receiver.poll(cx, None))).await.expect("an element in time")
}

fn batch(number: i64, rows: usize) -> StreamElement {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![number; rows]));
    StreamElement::Batch(StreamBatch::on_time(RecordBatch::try_from_iter([("n", column)]).unwrap()))
}

fn number(element: StreamElement) -> i64 {
    let StreamElement::Batch(batch) = element else { panic!("not a batch: {element:?}") };
    batch.rows.column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elements_of_many_channels_arrive_in_order_whoever_is_there_first() {
    let (here, there) = (plane("here"), plane("there"));
    let (address, serving) = listening(&there).await;
    let mut early = there.receiver(key(1, 0));
    let mut senders: Vec<_> = (0..8).map(|sender| here.sender(&offer(&address), key(1, sender))).collect();
    let sending: Vec<_> = senders
        .drain(..)
        .map(|mut sender| {
            tokio::spawn(async move {
                for number in 0..200 {
                    send(&mut sender, batch(number, 1 + number as usize)).await.unwrap();
                }
                send(&mut sender, StreamElement::End).await.unwrap();
                sender
            })
        })
        .collect();
    for number_wanted in 0..200 {
        assert_eq!(number(next(&mut early).await.unwrap().unwrap()), number_wanted);
    }
    assert!(matches!(next(&mut early).await, Some(Ok(StreamElement::End))));
    for sender in 1..8 {
        let mut receiver = there.receiver(key(1, sender));
        for number_wanted in 0..200 {
            assert_eq!(number(next(&mut receiver).await.unwrap().unwrap()), number_wanted);
        }
    }
    for task in sending {
        drop(timeout(LONG, task).await.unwrap().unwrap());
    }
    assert!(next(&mut early).await.is_none(), "the sender is gone");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_takes_nothing_stops_its_sender_and_no_other() {
    let (here, there) = (plane("here"), plane("there"));
    let (address, serving) = listening(&there).await;
    let (mut slow, mut quick) = (there.receiver(key(1, 0)), there.receiver(key(1, 1)));
    let mut stopped = here.sender(&offer(&address), key(1, 0));
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = sent.clone();
    // 64 KiB each: 64 of them are the whole credit.
    let task = tokio::spawn(async move {
        for number in 0..1_000 {
            send(&mut stopped, batch(number, 8 << 10)).await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let mut other = here.sender(&offer(&address), key(1, 1));
    for wanted in 0..500 {
        timeout(LONG, send(&mut other, batch(wanted, 8 << 10))).await.unwrap().unwrap();
        assert_eq!(number(next(&mut quick).await.unwrap().unwrap()), wanted);
    }
    let before = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=64).contains(&before), "{before} batches are in flight");
    for wanted in 0..1_000 {
        assert_eq!(number(next(&mut slow).await.unwrap().unwrap()), wanted);
    }
    timeout(LONG, task).await.unwrap().unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fenced_is_refused_and_what_is_gone_is_told() {
    let (here, there) = (plane("here"), plane("there"));
    let (address, serving) = listening(&there).await;
    there.fence(&attempt(1).job, Generation(3));
    let mut old = here.sender(&offer(&address), key(2, 0));
    old.send(StreamElement::Watermark(Timestamp(1))).await.unwrap();
    let refused = timeout(LONG, send(&mut old, batch(1, 1))).await.unwrap().unwrap_err();
    assert!(matches!(&refused, EngineError::PeerLost(reason) if reason.contains("older than attempt 3")), "{refused}");
    // Who waits for a sender of an attempt that is fenced meanwhile waits no longer.
    let mut waiting = there.receiver(key(3, 0));
    there.fence(&attempt(1).job, Generation(4));
    assert!(next(&mut waiting).await.is_none());
    // The receiving subtask ends.
    let receiver = there.receiver(key(4, 0));
    let mut sender = here.sender(&offer(&address), key(4, 0));
    sender.send(StreamElement::Watermark(Timestamp(1))).await.unwrap();
    drop(receiver);
    let told = async {
        loop {
            if let Err(error) = sender.send(batch(1, 1)).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = timeout(LONG, told).await.unwrap();
    assert!(matches!(&told, EngineError::PeerLost(reason) if reason.contains("has ended")), "{told}");
    // The other worker ends.
    let mut receiver = there.receiver(key(4, 1));
    let mut sender = here.sender(&offer(&address), key(4, 1));
    sender.send(batch(7, 1)).await.unwrap();
    assert_eq!(number(next(&mut receiver).await.unwrap().unwrap()), 7);
    serving.abort();
    let lost = async {
        loop {
            if let Err(error) = sender.send(batch(1, 1)).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let lost = timeout(LONG, lost).await.unwrap();
    assert!(matches!(&lost, EngineError::PeerLost(reason) if reason.contains(&address)), "{lost}");
    while let Some(element) = next(&mut receiver).await {
        element.unwrap();
    }
    // A worker that does not listen.
    let mut nobody = here.sender(&offer(&address), key(4, 2));
    let unreachable = async {
        // The first may go before anybody knows.
        match nobody.send(batch(1, 1)).await {
            Err(error) => error,
            Ok(()) => send(&mut nobody, batch(1, 1)).await.unwrap_err(),
        }
    };
    let unreachable = timeout(LONG, unreachable).await.unwrap();
    assert!(matches!(&unreachable, EngineError::Unreachable(reason) if reason.contains(&address)), "{unreachable}");
    // Whoever has nothing to send just now learns it too.
    let idle = here.sender(&offer(&address), key(4, 3));
    let told = timeout(LONG, poll_fn(|cx| idle.poll_ended(cx))).await.unwrap();
    assert!(matches!(&told, EngineError::Unreachable(reason) if reason.contains(&address)), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_passes_what_has_used_up_the_credit_and_what_it_overtakes_is_noted_once() {
    let (here, there) = (plane("here"), plane("there"));
    let (address, serving) = listening(&there).await;
    let mut receiver = there.receiver(key(1, 0));
    let mut sender = here.sender(&offer(&address), key(1, 0));
    // Far more than the credit, in one step: nothing is taken meanwhile.
    poll_fn(|cx| sender.poll_ready(cx)).await;
    for number in 0..300 {
        sender.send(batch(number, 8 << 10)).await.unwrap();
    }
    assert!(sender.overdraft_units() > 0);
    let barrier = Barrier { epoch: Epoch(5), next_epoch_now: Timestamp(0) };
    sender.send(StreamElement::Barrier(BarrierMark { barrier, last: false, waited_ms: 12 })).await.unwrap();
    sender.send(batch(300, 1)).await.unwrap();
    let announced = async {
        loop {
            poll_fn(|cx| {
                receiver.watch(cx);
                Poll::Ready(())
            })
            .await;
            if let Some((mark, _)) = receiver.announced() {
                return mark;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mark = timeout(LONG, announced).await.unwrap();
    assert_eq!((mark.barrier, mark.waited_ms), (barrier, 12));
    assert_eq!(number(next(&mut receiver).await.unwrap().unwrap()), 0);
    let mut overtaken = Overtaken::default();
    assert_eq!(receiver.overtake(&mut overtaken).unwrap().map(|mark| mark.barrier), Some(barrier));
    let noted = overtaken.batches.into_iter().map(|batch| number(StreamElement::Batch(batch)));
    assert!(noted.eq(1..300));
    // All of it is still taken, and then there is credit again.
    for wanted in 1..=300 {
        assert_eq!(number(next(&mut receiver).await.unwrap().unwrap()), wanted);
    }
    timeout(LONG, poll_fn(|cx| sender.poll_ready(cx))).await.unwrap();
    serving.abort();
}
