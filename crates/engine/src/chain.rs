//! The operators of a task one behind the other, and what stands at their end: outputs to other tasks, or a
//! sink's writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, TryFutureExt};
use mainstem_connectors::{ConnectorError, SinkWriter};
use mainstem_core::alignment::BarrierMark;
use mainstem_core::ids::{Epoch, OperatorId};
use mainstem_core::latency::{Arrival, Arrivals, EpochArrivals, LatencyMarker};
use mainstem_core::protocol::Committable;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_rt::failpoint;

use crate::budget::Account;
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;
use crate::exchange::{InputGate, Outputs};
use crate::markers::Stamp;
use crate::metrics::{Doing, OperatorMetrics, TimeSpent};
use crate::operator::{Capture, Collector, Operator, Release};
use crate::parts::Parts;

/// Bytes beyond the credit up to which a step in the middle of which a barrier is to overtake goes on without waiting.
const HURRY_BYTES_MAX: u64 = 64 << 20;
/// What operators hold is looked at once for so many batches, but for each where memory is short.
const MEASURE_EVERY: u32 = 8;

/// An operator with its identity.
pub(crate) struct Link {
    /// Its id.
    pub(crate) id: OperatorId,
    /// The operator.
    pub(crate) operator: Box<dyn Operator>,
    /// Its counters.
    pub(crate) metrics: Arc<OperatorMetrics>,
    /// What it holds in memory; an operator with parts knows for itself.
    pub(crate) account: Option<Account>,
}

/// A sink at the end of a chain.
pub(crate) struct SinkEnd {
    /// Its id.
    pub(crate) id: OperatorId,
    /// Name of the table.
    pub(crate) table: String,
    /// The writer of this subtask.
    pub(crate) writer: Box<dyn SinkWriter>,
    /// Its counters.
    pub(crate) metrics: Arc<OperatorMetrics>,
    /// Records that it had dropped at the last look.
    pub(crate) dropped_records: u64,
    /// Latency markers of the epoch.
    pub(crate) arrivals: Arrivals,
}

/// What takes the rows that the last operator gives.
pub(crate) enum ChainEnd {
    /// Other tasks.
    Outputs(Outputs),
    /// A table.
    Sink(SinkEnd),
}

/// What is still to be done before a task takes something else.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each batch")]
pub(crate) enum Step {
    /// Rows go to an operator, or to what follows the last one.
    Rows { at: usize, input: usize, batch: StreamBatch },
    /// An operator gives more of the rows that it has taken.
    More { at: usize },
}

/// A sink's part of a checkpoint, still to be made durable.
pub(crate) type Sealed = BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>;

/// What a chain contributes to a checkpoint.
pub(crate) struct ChainCapture {
    /// State of its operators.
    pub(crate) captures: Vec<(OperatorId, Capture)>,
    /// Output of its sink.
    pub(crate) sealed: Option<(OperatorId, String, Sealed)>,
    /// Latency markers that came to its sink in the epoch.
    pub(crate) arrivals: EpochArrivals,
}

/// See the module.
pub(crate) struct Chain {
    /// The operators, first to last, without the sink.
    pub(crate) links: Vec<Link>,
    /// What follows.
    pub(crate) end: ChainEnd,
    /// The cells that functions such as `NOW()` read.
    pub(crate) context: EvalContext,
    /// Index of the subtask.
    pub(crate) subtask: u32,
    /// The next step is the last of them. Empty wherever a task does not wait in the middle of rows.
    pub(crate) steps: Vec<Step>,
    /// Batches since the last look at what operators hold.
    pub(crate) unmeasured: u32,
    /// Where the task notes how it spends its time.
    pub(crate) time: Arc<TimeSpent>,
    /// What latency markers are told of the task.
    pub(crate) stamp: Stamp,
}

impl Chain {
    /// What the operators need before the first row; none: they need nothing. Called once, after restore.
    pub(crate) fn prepare(&mut self) -> Option<BoxFuture<'static, Result<(), EngineError>>> {
        let needed: Vec<_> = self.links.iter_mut().filter_map(|link| link.operator.prepare()).collect();
        (!needed.is_empty()).then(|| try_join_all(needed).map_ok(|_| ()).boxed())
    }

    /// Ready when what stands at the end takes more. Before, the task gives the chain no rows and no watermark. Cancel-safe.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.end {
            ChainEnd::Outputs(outputs) => outputs.poll_ready(cx),
            ChainEnd::Sink(_) => Poll::Ready(()),
        }
    }

    /// Whether what stands at the end takes more.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Notes that the task waits from here on: for something to do, or, where it is not ready, for room.
    pub(crate) fn note_waiting(&self, is_ready: bool) {
        self.time.note(if is_ready { Doing::Idle } else { Doing::Backpressured });
    }

    /// Notes that the task works from here on.
    pub(crate) fn note_working(&self) {
        self.time.note(Doing::Busy);
    }

    /// What the clock says by which the parts of a checkpoint are timed.
    pub(crate) fn monotonic(&self) -> Timestamp {
        self.stamp.monotonic()
    }

    /// Waits until [`Chain::poll_ready`] is. Cancel-safe.
    pub(crate) async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Ready with the reason when a worker behind the chain is gone. A task that waits has to look: it may have nothing to
    /// send until the others hear of it, and the others nothing until it does. Cancel-safe.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EngineError> {
        match &self.end {
            ChainEnd::Outputs(outputs) => outputs.poll_ended(cx),
            ChainEnd::Sink(_) => Poll::Pending,
        }
    }

    /// Waits for room, if that is wanted, or for the end of a worker behind. Cancel-safe.
    pub(crate) async fn room(&mut self, is_wanted: bool) -> Result<(), EngineError> {
        std::future::poll_fn(|cx| match self.poll_ended(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if is_wanted => self.poll_ready(cx).map(Ok),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The same in the middle of a step, and no longer than until a barrier is to overtake at the gate; without a gate
    /// barriers come any time.
    async fn ready_or_hurried(&mut self, gate: &mut Option<&mut InputGate>) {
        let ChainEnd::Outputs(outputs) = &mut self.end else { return };
        let poll = |cx: &mut Context<'_>| {
            if outputs.poll_ready(cx).is_ready() {
                return Poll::Ready(());
            }
            let hurried = gate.as_mut().is_none_or(|gate| gate.poll_hurry(cx).is_ready());
            if hurried && outputs.overdraft_bytes() < HURRY_BYTES_MAX { Poll::Ready(()) } else { Poll::Pending }
        };
        self.time.note(Doing::Backpressured);
        std::future::poll_fn(poll).await;
        self.time.note(Doing::Busy);
    }

    /// Runs rows through all operators; the first one takes them from its input of that number. `gate`: as for
    /// [`Chain::watermark`].
    pub(crate) async fn push(
        &mut self,
        input: usize,
        batch: StreamBatch,
        gate: Option<&mut InputGate>,
    ) -> Result<(), EngineError> {
        self.stamp.begin();
        self.steps.push(Step::Rows { at: 0, input, batch });
        self.drive(Collector::default(), gate).await?;
        self.unmeasured += 1;
        let is_short = self.parts().is_some_and(|parts| !parts.is_whole());
        if self.unmeasured < MEASURE_EVERY && !is_short { Ok(()) } else { self.relieve().await }
    }

    /// Looks at what operators hold. Those with parts put aside what is too much, or work off what was put off.
    async fn relieve(&mut self) -> Result<(), EngineError> {
        self.unmeasured = 0;
        self.measure()?;
        while let Some(parts) = self.parts() {
            let Some(out) = parts.relieve().await? else { break };
            self.hand_on(0, out, None).await?;
        }
        match self.parts().and_then(Parts::take_pending) {
            Some(watermark) => self.release_all(watermark, &mut None).await,
            None => Ok(()),
        }
    }

    /// What operators without parts hold must fit.
    fn measure(&mut self) -> Result<(), EngineError> {
        for link in &self.links {
            if let Some(account) = &link.account {
                account.set(link.operator.state_bytes());
                account.must_put_aside()?;
            }
        }
        Ok(())
    }

    /// The first operator, where its state may be in parts: rows come to it by key.
    pub(crate) fn parts(&mut self) -> Option<&mut Parts> {
        self.links.first_mut().and_then(|link| link.operator.parts())
    }

    /// Hands a latency marker on behind the rows that were given before it; a sink notes it. Rows that operators keep are
    /// not waited for: how long they are kept is what they compute.
    pub(crate) async fn mark(&mut self, mut marker: Box<LatencyMarker>) -> Result<(), EngineError> {
        let at = self.stamp.pass(&mut marker);
        match &mut self.end {
            ChainEnd::Outputs(outputs) => outputs.send_marker(marker).await,
            ChainEnd::Sink(sink) => {
                sink.metrics.count_latency(at.since_ms(marker.read_at));
                sink.arrivals.note(Arrival { marker: *marker, at });
                Ok(())
            }
        }
    }

    /// Sends rows of the first operator's side output, which is the last one where it has such rows.
    pub(crate) async fn push_aside(&mut self, batch: StreamBatch) -> Result<(), EngineError> {
        assert!(self.links.is_empty(), "an operator with several outputs ends its chain");
        self.deliver(Collector::aside(vec![batch])).await
    }

    /// Lets the watermark release what it releases, operator by operator, and passes it on. `gate`: from where the chain
    /// gets its elements; none for a source.
    pub(crate) async fn watermark(
        &mut self,
        watermark: Timestamp,
        mut gate: Option<&mut InputGate>,
    ) -> Result<(), EngineError> {
        if self.parts().is_some_and(|parts| parts.puts_off(watermark)) {
            return Ok(());
        }
        self.release_all(watermark, &mut gate).await
    }

    async fn release_all(
        &mut self,
        watermark: Timestamp,
        gate: &mut Option<&mut InputGate>,
    ) -> Result<(), EngineError> {
        let mut watermark = watermark;
        let links = self.links.iter();
        let passed_on = links.fold(watermark, |watermark, link| link.operator.watermark_out(watermark));
        self.context.watermark.store(passed_on.0, Ordering::Relaxed);
        for at in 0..self.links.len() {
            if watermark == Timestamp::MAX {
                // Nothing may follow the last watermark, so what is held back goes before it.
                self.flush_at(at).await?;
            }
            self.release(at, watermark, gate).await?;
            self.links[at].metrics.set_watermark(self.subtask, watermark);
            watermark = self.links[at].operator.watermark_out(watermark);
        }
        match &mut self.end {
            ChainEnd::Outputs(outputs) => outputs.broadcast(&StreamElement::Watermark(watermark)).await,
            ChainEnd::Sink(sink) => {
                sink.metrics.set_watermark(self.subtask, watermark);
                Ok(())
            }
        }
    }

    async fn release(
        &mut self,
        at: usize,
        watermark: Timestamp,
        gate: &mut Option<&mut InputGate>,
    ) -> Result<(), EngineError> {
        loop {
            let mut out = Collector::default();
            let release = self.links[at].operator.on_watermark(watermark, &mut out)?;
            self.hand_on(at, out, gate.as_deref_mut()).await?;
            if release == Release::Done {
                return Ok(());
            }
            self.ready_or_hurried(gate).await;
        }
    }

    /// Ends an epoch: everything is flushed, state is frozen, the barrier passed on.
    pub(crate) async fn barrier(&mut self, mark: BarrierMark) -> Result<ChainCapture, EngineError> {
        let barrier = mark.barrier;
        self.settle().await?;
        self.flush().await?;
        self.advance_processing_time(barrier.next_epoch_now).await?;
        self.measure()?;
        let mut captures = Vec::new();
        for link in &mut self.links {
            let capture = match link.operator.parts().filter(|parts| !parts.is_whole()) {
                Some(parts) => Some(parts.capture_all(barrier.epoch).await?),
                None => link.operator.capture(barrier.epoch)?.map(|capture| {
                    let memory_bytes = link.operator.state_bytes() as u64;
                    Capture { memory_bytes, ..capture }
                }),
            };
            captures.extend(capture.map(|capture| (link.id, capture)));
        }
        self.context.now.store(barrier.next_epoch_now.0, Ordering::Relaxed);
        let (sealed, arrivals) = match &mut self.end {
            ChainEnd::Outputs(outputs) => {
                outputs.broadcast(&StreamElement::Barrier(mark)).await?;
                (None, EpochArrivals::default())
            }
            ChainEnd::Sink(sink) => (Some(sink.seal(barrier.epoch).await?), sink.arrivals.take()),
        };
        Ok(ChainCapture { captures, sealed, arrivals })
    }

    /// Before the barrier: what was put off belongs to the epoch. May take long, and may be given up where the task ends.
    pub(crate) async fn settle(&mut self) -> Result<(), EngineError> {
        while let Some(parts) = self.parts() {
            let Some(out) = parts.settle().await? else { break };
            self.hand_on(0, out, None).await?;
            self.ready().await;
        }
        match self.parts().and_then(Parts::take_pending) {
            Some(watermark) => self.release_all(watermark, &mut None).await,
            None => Ok(()),
        }
    }

    /// Passes on a barrier that takes no snapshot: [`mainstem_core::alignment::RESUME`].
    pub(crate) async fn pass_on(&mut self, mark: BarrierMark) -> Result<(), EngineError> {
        self.broadcast(&StreamElement::Barrier(mark)).await
    }

    /// How long rows may be held back by an operator of the chain before [`Chain::flush`] is due.
    pub(crate) fn hold_ms(&self) -> Option<u64> {
        self.links.iter().filter_map(|link| link.operator.hold_ms()).min()
    }

    /// Hands on what operators hold back.
    pub(crate) async fn flush(&mut self) -> Result<(), EngineError> {
        for at in 0..self.links.len() {
            self.flush_at(at).await?;
        }
        Ok(())
    }

    async fn flush_at(&mut self, at: usize) -> Result<(), EngineError> {
        let mut out = Collector::default();
        self.links[at].operator.flush_held(&mut out)?;
        self.hand_on(at, out, None).await
    }

    /// Lets the clock of the next epoch release what it releases.
    async fn advance_processing_time(&mut self, now: Timestamp) -> Result<(), EngineError> {
        for at in 0..self.links.len() {
            loop {
                let mut out = Collector::default();
                let release = self.links[at].operator.on_processing_time(now, &mut out)?;
                self.hand_on(at, out, None).await?;
                if release == Release::Done {
                    break;
                }
                self.ready().await;
            }
        }
        Ok(())
    }

    /// Passes on that the stream has ended.
    pub(crate) async fn finish(&mut self) -> Result<(), EngineError> {
        if self.parts().is_some_and(|parts| parts.waits()) {
            return Err(EngineError::Bug("a stream has ended behind rows that wait, without a barrier".into()));
        }
        self.broadcast(&StreamElement::End).await
    }

    /// Tells the tasks behind this one something that is no business of a sink.
    async fn broadcast(&mut self, element: &StreamElement) -> Result<(), EngineError> {
        match &mut self.end {
            ChainEnd::Outputs(outputs) => outputs.broadcast(element).await,
            ChainEnd::Sink(_) => Ok(()),
        }
    }

    /// What operator `at` has given goes through the operators behind it.
    async fn hand_on(
        &mut self,
        at: usize,
        mut out: Collector,
        gate: Option<&mut InputGate>,
    ) -> Result<(), EngineError> {
        self.count_out(at, &out);
        let done = Collector::aside(std::mem::take(&mut out.late));
        self.queue(at + 1, out);
        self.drive(done, gate).await
    }

    /// Does all steps. What they have made leaves when an operator has more to give than it may make at once, or there is
    /// much of it; then the task waits until it may make more.
    async fn drive(&mut self, mut done: Collector, mut gate: Option<&mut InputGate>) -> Result<(), EngineError> {
        while let Some(step) = self.steps.pop() {
            if matches!(step, Step::More { .. }) || done.is_full() {
                self.deliver(std::mem::take(&mut done)).await?;
                self.ready_or_hurried(&mut gate).await;
                // A sink may always be ready, and what a step gives may all be filtered out.
                tokio::task::yield_now().await;
            }
            self.step(step, &mut done)?;
        }
        self.deliver(done).await
    }

    fn step(&mut self, step: Step, done: &mut Collector) -> Result<(), EngineError> {
        let mut out = Collector::default();
        let at = match step {
            Step::Rows { at, input, batch } => {
                let Some(link) = self.links.get_mut(at) else {
                    done.main.push(batch);
                    return Ok(());
                };
                link.metrics.count_in(self.subtask, batch.rows.num_rows());
                link.operator.process(input, batch, &mut out)?;
                at
            }
            Step::More { at } => {
                self.links[at].operator.go_on(&mut out)?;
                at
            }
        };
        self.count_out(at, &out);
        done.late.append(&mut out.late);
        if self.links[at].operator.has_more() {
            self.steps.push(Step::More { at });
        }
        self.queue(at + 1, out);
        Ok(())
    }

    /// The next steps: what was given goes to operator `at`, in its order.
    fn queue(&mut self, at: usize, out: Collector) {
        self.steps.extend(out.main.into_iter().rev().map(|batch| Step::Rows { at, input: 0, batch }));
    }

    fn count_out(&self, at: usize, out: &Collector) {
        let rows: usize = out.main.iter().map(|b| b.rows.num_rows()).sum();
        self.links[at].metrics.count_out(self.subtask, rows);
    }

    async fn deliver(&mut self, done: Collector) -> Result<(), EngineError> {
        match &mut self.end {
            ChainEnd::Outputs(outputs) => {
                for batch in done.main {
                    outputs.send_batch(0, batch).await?;
                }
                for batch in done.late {
                    outputs.send_batch(1, batch).await?;
                }
                Ok(())
            }
            ChainEnd::Sink(sink) => {
                for batch in done.main {
                    sink.write(self.subtask, batch).await?;
                }
                Ok(())
            }
        }
    }
}

impl SinkEnd {
    async fn write(&mut self, subtask: u32, batch: StreamBatch) -> Result<(), EngineError> {
        self.metrics.count_in(subtask, batch.rows.num_rows());
        failpoint::slow(failpoint::SINK_WRITE).await;
        let written = self.writer.write(&batch.rows, batch.changes.as_ref()).await;
        written.map_err(|error| EngineError::Connector { table: self.table.clone(), error })?;
        self.metrics.count_out(subtask, batch.rows.num_rows());
        self.count_dropped();
        Ok(())
    }

    async fn seal(&mut self, epoch: Epoch) -> Result<(OperatorId, String, Sealed), EngineError> {
        let sealed = self.writer.seal(epoch).await;
        let sealed = sealed.map_err(|error| EngineError::Connector { table: self.table.clone(), error })?;
        self.count_dropped();
        Ok((self.id, self.table.clone(), sealed))
    }

    /// Takes over what the writer has dropped since the last look.
    fn count_dropped(&mut self) {
        let dropped = self.writer.dropped_records();
        let before = std::mem::replace(&mut self.dropped_records, dropped);
        self.metrics.dropped_records.fetch_add(dropped.saturating_sub(before), Ordering::Relaxed);
    }
}
