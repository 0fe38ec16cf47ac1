//! The task of a subtask that takes from other tasks: gate, chain, uploader.

use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use mainstem_core::alignment::{Aligned, RESUME};
use mainstem_core::protocol::ToSubtask;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{Instrument, error_span};

use crate::chain::Chain;
use crate::error::EngineError;
use crate::exchange::{GateEvent, InputGate};
use crate::uploader::{CaptureTimes, UPLOADS_MAX, Upload, Uploader};

/// Rows are not handed on more often than this on account of the time that they have been held back.
const HOLD_MIN: Duration = Duration::from_millis(1);
/// The period of a timer that nobody waits for.
const NEVER: Duration = Duration::from_secs(3600);

/// Runs until the inputs end, or the coordinator cancels. `Ok(true)` when it has ended as it should.
pub(crate) async fn run(
    mut gate: InputGate,
    mut chain: Chain,
    mut uploads: Uploads,
    mut control: mpsc::Receiver<ToSubtask>,
) -> Result<bool, EngineError> {
    match obey(&mut gate, &mut chain, &mut uploads, &mut control).await {
        Ok(true) => uploads.drain().await.map(|()| true),
        Ok(false) => Ok(false),
        Err(EngineError::UploadsEnded) => Err(uploads.failed().await),
        Err(error) => Err(error),
    }
}

async fn obey(
    gate: &mut InputGate,
    chain: &mut Chain,
    uploads: &mut Uploads,
    control: &mut mpsc::Receiver<ToSubtask>,
) -> Result<bool, EngineError> {
    let hold = chain.hold_ms().map(Duration::from_millis);
    let mut flushes = tokio::time::interval(hold.unwrap_or(NEVER).max(HOLD_MIN));
    flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut preparing = chain.prepare();
    loop {
        let is_ready = chain.is_ready();
        chain.note_waiting(is_ready);
        let event = tokio::select! {
            biased;
            message = control.recv() => match message {
                Some(ToSubtask::Cancel) | None => return Ok(false),
                // All other messages are for sources.
                Some(_) => continue,
            },
            failed = uploads.failed() => return Err(failed),
            _ = flushes.tick(), if hold.is_some() => {
                chain.note_working();
                chain.flush().await?;
                continue;
            }
            prepared = prepared(&mut preparing), if preparing.is_some() => {
                prepared?;
                preparing = None;
                continue;
            }
            event = next(gate, chain), if preparing.is_none() => event?,
        };
        chain.note_working();
        match event {
            GateEvent::Batch { input, batch } => tokio::select! {
                biased;
                // Nearly always at once; where rows are multiplied it may take long.
                pushed = chain.push(input, batch, Some(gate)) => pushed?,
                () = cancelled(control) => return Ok(false),
            },
            GateEvent::Marker(marker) => chain.mark(marker).await?,
            GateEvent::Watermark(watermark) => chain.watermark(watermark, Some(gate)).await?,
            GateEvent::Barrier { barrier: Aligned { mark, .. }, .. } if mark.barrier.epoch == RESUME => {
                chain.pass_on(mark).await?;
            }
            GateEvent::Barrier { barrier: Aligned { mark, took_ms }, overtaken } => {
                let (epoch, began) = (mark.barrier.epoch, chain.monotonic());
                tokio::select! {
                    biased;
                    () = cancelled(control) => return Ok(false),
                    settled = chain.settle() => settled?,
                }
                let span = error_span!("checkpoint", epoch = epoch.0);
                let captured = chain.barrier(mark).instrument(span).await?;
                let (alignment_ms, source) = (Some(took_ms), None);
                let times = CaptureTimes { began, ended: chain.monotonic() };
                uploads.submit(Upload { epoch, chain: captured, source, alignment_ms, times, overtaken }).await?;
            }
            GateEvent::End => {
                chain.finish().await?;
                return Ok(true);
            }
        }
    }
}

/// Waits until the coordinator cancels. Cancel-safe.
async fn cancelled(control: &mut mpsc::Receiver<ToSubtask>) {
    // All other messages are for sources.
    while !matches!(control.recv().await, Some(ToSubtask::Cancel) | None) {}
}

/// The next event, or the end of a worker behind. While the receivers have no room for more, nothing but a barrier that
/// overtakes. Cancel-safe.
async fn next(gate: &mut InputGate, chain: &mut Chain) -> Result<GateEvent, EngineError> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = chain.poll_ended(cx) {
            return Poll::Ready(Err(ended));
        }
        let may_take = chain.poll_ready(cx).is_ready();
        gate.poll(cx, may_take)
    })
    .await
}

/// Waits for what [`Chain::prepare`] gave; for ever where that is nothing. Cancel-safe.
pub(crate) async fn prepared(
    preparing: &mut Option<BoxFuture<'static, Result<(), EngineError>>>,
) -> Result<(), EngineError> {
    match preparing {
        Some(preparing) => preparing.await,
        None => std::future::pending().await,
    }
}

/// The way to the uploader of a subtask.
pub(crate) struct Uploads {
    sender: mpsc::Sender<Upload>,
    task: JoinHandle<Result<(), EngineError>>,
}

impl Uploads {
    /// Starts the uploader.
    pub(crate) fn start(uploader: Uploader) -> Self {
        let (sender, receiver) = mpsc::channel(UPLOADS_MAX);
        Uploads { sender, task: tokio::spawn(uploader.run(receiver).in_current_span()) }
    }

    /// Hands over a checkpoint part.
    pub(crate) async fn submit(&mut self, upload: Upload) -> Result<(), EngineError> {
        match self.sender.send(upload).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed().await),
        }
    }

    /// Waits until the uploader has failed; for ever while it works.
    pub(crate) async fn failed(&mut self) -> EngineError {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => EngineError::Bug("the uploader has ended before its subtask".into()),
            Err(panic) => EngineError::Bug(format!("the uploader failed: {panic}")),
        }
    }

    /// Waits until everything that was handed over is durable.
    pub(crate) async fn drain(self) -> Result<(), EngineError> {
        drop(self.sender);
        self.task.await.map_err(|panic| EngineError::Bug(format!("the uploader failed: {panic}")))?
    }
}
