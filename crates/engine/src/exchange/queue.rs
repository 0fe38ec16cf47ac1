//! What has come over a channel and has not been taken: a queue between one sender and one receiver that counts the
//! credit which lies in it, and in which barriers are seen while they still stand behind other elements.
//!
//! The queue itself refuses nothing. Its sender asks for room before it makes more ([`QueueSender::poll_ready`]), and
//! what it has made goes in whole: so a barrier never waits for the receiver to take something.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use mainstem_core::alignment::BarrierMark;
use tokio::task::coop;
use tokio::time::Instant;

use super::channel::CREDIT_UNITS;

/// Elements that may lie in one queue, whatever their size, before its sender makes no more.
const ELEMENTS_MAX: usize = 64;

/// The sending end. Dropping it ends the stream.
pub(super) struct QueueSender<T>(Arc<Shared<T>>);

/// The receiving end.
pub(super) struct QueueReceiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Barriers in the queue; read without the lock.
    barriers: AtomicUsize,
}

struct Queue<T> {
    elements: VecDeque<(T, u32, bool)>,
    /// Barriers among the elements, in order, and when they came.
    marks: VecDeque<(BarrierMark, Instant)>,
    /// Credit of elements that have not been released.
    units: u64,
    /// Elements that have not been released.
    unreleased: usize,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// The other end is gone.
pub(super) struct Closed;

/// A queue.
pub(super) fn queue<T>() -> (QueueSender<T>, QueueReceiver<T>) {
    let queue = Queue {
        elements: VecDeque::new(),
        marks: VecDeque::new(),
        units: 0,
        unreleased: 0,
        receiver: None,
        sender: None,
        sender_gone: false,
        receiver_gone: false,
    };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), barriers: AtomicUsize::new(0) });
    (QueueSender(shared.clone()), QueueReceiver(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Queue<T> {
    fn has_room(&self) -> bool {
        self.units < u64::from(CREDIT_UNITS) && self.unreleased < ELEMENTS_MAX
    }

    fn pop(&mut self, barriers: &AtomicUsize) -> Option<(T, u32)> {
        let (element, units, is_barrier) = self.elements.pop_front()?;
        if is_barrier {
            self.marks.pop_front();
            barriers.fetch_sub(1, Ordering::Release);
        }
        Some((element, units))
    }
}

impl<T> QueueSender<T> {
    /// Puts an element in, which takes so much credit; `mark` where it is a barrier. Gives the credit of everything that
    /// has not been released.
    pub(super) fn push(&self, element: T, units: u32, mark: Option<BarrierMark>) -> Result<u64, Closed> {
        let mut queue = self.0.lock();
        if queue.receiver_gone {
            return Err(Closed);
        }
        queue.elements.push_back((element, units, mark.is_some()));
        if let Some(mark) = mark {
            queue.marks.push_back((mark, Instant::now()));
            self.0.barriers.fetch_add(1, Ordering::Release);
        }
        queue.units += u64::from(units);
        queue.unreleased += 1;
        let (all, waker) = (queue.units, queue.receiver.take());
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(all)
    }

    /// Ready when there is room for more, or nobody takes it. Cancel-safe.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.has_room() || queue.receiver_gone {
            return Poll::Ready(());
        }
        queue.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The credit of everything that has not been released.
    pub(super) fn units(&self) -> u64 {
        self.0.lock().units
    }

    /// Whether nobody takes anything any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().receiver_gone
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.sender_gone = true;
        let waker = queue.receiver.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> QueueReceiver<T> {
    /// The next element, with its credit, which the caller gives back by [`QueueReceiver::release`]; none when the sender
    /// is gone. Cancel-safe.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<(T, u32)>> {
        // A task whose queues are never empty lets others run now and then.
        let coop = ready!(coop::poll_proceed(cx));
        let mut queue = self.0.lock();
        let popped = match queue.pop(&self.0.barriers) {
            None if queue.sender_gone => Poll::Ready(None),
            None => {
                queue.receiver = Some(cx.waker().clone());
                return Poll::Pending;
            }
            popped => Poll::Ready(popped),
        };
        coop.made_progress();
        popped
    }

    /// The next element, if it is there.
    pub(super) fn try_pop(&self) -> Option<(T, u32)> {
        self.0.lock().pop(&self.0.barriers)
    }

    /// Has the task woken when something comes.
    pub(super) fn watch(&self, cx: &mut Context<'_>) {
        self.0.lock().receiver = Some(cx.waker().clone());
    }

    /// An element has been dealt with: gives its credit back.
    pub(super) fn release(&self, units: u32) {
        let mut queue = self.0.lock();
        queue.units = queue.units.saturating_sub(u64::from(units));
        queue.unreleased -= 1;
        let waker = if queue.has_room() { queue.sender.take() } else { None };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The first barrier in the queue and when it came. Costs next to nothing where there is none.
    pub(super) fn announced(&self) -> Option<(BarrierMark, Instant)> {
        if self.0.barriers.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.0.lock().marks.front().copied()
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.receiver_gone = true;
        let elements = std::mem::take(&mut queue.elements);
        let waker = queue.sender.take();
        drop(queue);
        drop(elements);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use mainstem_core::ids::Epoch;
    use mainstem_core::protocol::Barrier;
    use mainstem_core::time::Timestamp;

    use super::*;

    fn is_ready(sender: &QueueSender<u32>) -> bool {
        sender.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_sender_is_stopped_by_credit_and_by_number_and_goes_on_when_something_is_released() {
        for (units, many) in [(CREDIT_UNITS / 4, 4), (0, ELEMENTS_MAX)] {
            let (sender, receiver) = queue::<u32>();
            for number in 0..many {
                assert!(is_ready(&sender));
                assert!(sender.push(number as u32, units, None).is_ok());
            }
            assert!(!is_ready(&sender));
            // What it has made goes in all the same.
            assert!(sender.push(999, units, None).is_ok());
            let popped = poll_fn(|cx| receiver.poll_pop(cx)).await;
            assert_eq!(popped, Some((0, units)));
            assert!(!is_ready(&sender), "it was taken, not dealt with");
            let waiting = tokio::spawn(async move {
                poll_fn(|cx| sender.poll_ready(cx)).await;
                sender
            });
            tokio::task::yield_now().await;
            receiver.release(units);
            receiver.release(units);
            let sender = waiting.await.unwrap();
            drop(receiver);
            assert!(is_ready(&sender) && sender.is_closed(), "sending tells it");
            assert!(sender.push(0, 0, None).is_err());
        }
    }

    #[tokio::test]
    async fn a_barrier_is_seen_until_it_is_taken() {
        let (sender, receiver) = queue::<u32>();
        let mark = |epoch| BarrierMark::new(Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(0) }, false);
        let epoch = |receiver: &QueueReceiver<u32>| receiver.announced().map(|(mark, _)| mark.barrier.epoch.0);
        for (element, mark) in [(1, None), (2, Some(mark(1))), (3, None), (4, Some(mark(2)))] {
            assert!(sender.push(element, 1, mark).is_ok());
        }
        let mut seen = Vec::new();
        while let Some((element, _)) = receiver.try_pop() {
            seen.push((element, epoch(&receiver)));
        }
        assert_eq!(seen, [(1, Some(1)), (2, Some(2)), (3, Some(2)), (4, None)]);
        drop(sender);
        assert_eq!(poll_fn(|cx| receiver.poll_pop(cx)).await, None);
    }
}
