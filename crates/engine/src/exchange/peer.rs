//! The connection over which the subtasks of this worker send to those of another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arrow::ipc::writer::IpcWriteOptions;
use mainstem_core::cluster::messages::WorkerOffer;
use mainstem_net::{Connection, FRAME_BYTES_MAX, FrameReader, FrameWriter, Hello, NetError, Transport};
use tokio::sync::mpsc;

use super::channel::units;
use super::cut::{Cut, Ended};
use super::wire::{self, ChannelKey, Encoder, Frame, Parts};
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

/// Frames that may wait to be written to one connection; what they hold is bounded by the credit of the channels.
const FRAMES_MAX: usize = 64;
/// A larger batch goes in several frames of about this size.
const PIECE_BYTES: usize = 8 << 20;

/// The sending end of a channel to another worker.
pub(crate) struct RemoteSender {
    key: ChannelKey,
    channel: u32,
    opened: bool,
    peer: Arc<Peer>,
    credit: Arc<Credit>,
    encoder: Encoder,
}

/// What a sender may still send, and why it may not any more.
#[derive(Default)]
struct Credit(Mutex<CreditState>);

#[derive(Default)]
struct CreditState {
    /// Below zero where more was sent.
    units: i64,
    has_ended: bool,
    /// Why; told once.
    reason: Option<EngineError>,
    sender: Option<Waker>,
    /// Who wants to know when it ends.
    watcher: Option<Waker>,
}

/// One connection to another worker.
pub(super) struct Peer {
    frames: mpsc::Sender<Parts>,
    state: Mutex<PeerState>,
}

#[derive(Default)]
struct PeerState {
    next: u32,
    open: BTreeMap<u32, Arc<Credit>>,
    /// Set when the connection is gone.
    gone: Option<Gone>,
}

#[derive(Clone, Debug)]
enum Gone {
    Unreachable(String),
    Lost(String),
}

impl Gone {
    fn error(&self) -> EngineError {
        match self {
            Gone::Unreachable(reason) => EngineError::Unreachable(reason.clone()),
            Gone::Lost(reason) => EngineError::PeerLost(reason.clone()),
        }
    }
}

impl Peer {
    /// Starts to connect; what is sent meanwhile waits. `cut` is told where the network between the two fails.
    pub(super) fn start(transport: Transport, to: &WorkerOffer, hello: Hello, cut: Arc<Cut>) -> Arc<Peer> {
        let (frames, mut waiting) = mpsc::channel(FRAMES_MAX);
        let peer = Arc::new(Peer { frames, state: Mutex::default() });
        let weak = Arc::downgrade(&peer);
        let WorkerOffer { worker, data_address: address, .. } = to.clone();
        tokio::spawn(async move {
            let unreachable =
                |reason: String| Gone::Unreachable(format!("{} cannot reach {worker}: {reason}", hello.node));
            let gone = match transport.connect(&address, &hello).await {
                Err(error) => unreachable(error.to_string()),
                Ok(connection) => {
                    // What waits is closed with this task: who finds it closed finds the reason as well.
                    let ended = carry(connection, &mut waiting, |frame| {
                        // Nobody sends any more where the peer is gone.
                        weak.upgrade().map_or(Ok(()), |peer| peer.on_frame(frame))
                    })
                    .await;
                    match ended {
                        Ended::Cut(reason) => unreachable(reason),
                        Ended::Closed(reason) => {
                            Gone::Lost(format!("the connection to worker {worker} at {address} is lost: {reason}"))
                        }
                    }
                }
            };
            if matches!(gone, Gone::Unreachable(_)) {
                cut.note(worker);
            }
            if let Some(peer) = weak.upgrade() {
                peer.end(&gone);
            }
        });
        peer
    }

    /// A channel over this connection.
    pub(super) fn sender(self: &Arc<Peer>, key: ChannelKey, options: IpcWriteOptions) -> RemoteSender {
        let credit = Arc::new(Credit::default());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = state.next;
        state.next += 1;
        match &state.gone {
            Some(gone) => credit.end(gone.error()),
            None => _ = state.open.insert(channel, credit.clone()),
        }
        RemoteSender {
            key,
            channel,
            opened: false,
            peer: self.clone(),
            credit,
            encoder: Encoder::new(channel, options),
        }
    }

    /// Whether it can still be used.
    pub(super) fn is_alive(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).gone.is_none()
    }

    fn on_frame(&self, frame: Frame) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match frame {
            Frame::Credit { channel, units } => {
                if let Some(credit) = state.open.get(&channel) {
                    credit.give(units);
                }
                Ok(())
            }
            Frame::Refused { channel, reason } => {
                if let Some(credit) = state.open.remove(&channel) {
                    credit.end(EngineError::PeerLost(reason));
                }
                Ok(())
            }
            other => Err(format!("it sent what only a sender sends: {other:?}")),
        }
    }

    fn end(&self, gone: &Gone) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone = Some(gone.clone());
        for credit in std::mem::take(&mut state.open).into_values() {
            credit.end(gone.error());
        }
    }
}

impl Credit {
    fn lock(&self) -> MutexGuard<'_, CreditState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, units: u32) {
        let mut state = self.lock();
        state.units += i64::from(units);
        let waker = if state.units > 0 { state.sender.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes credit, be there any or not.
    fn take(&self, units: u32) -> Result<(), EngineError> {
        let mut state = self.lock();
        if state.has_ended {
            return Err(state.why_ended());
        }
        state.units -= i64::from(units);
        Ok(())
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.units > 0 || state.has_ended {
            return Poll::Ready(());
        }
        state.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&self, error: EngineError) {
        let mut state = self.lock();
        state.has_ended = true;
        state.reason.get_or_insert(error);
        let wakers = [state.sender.take(), state.watcher.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EngineError> {
        let mut state = self.lock();
        if state.has_ended {
            return Poll::Ready(state.why_ended());
        }
        state.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    fn error(&self) -> EngineError {
        self.lock().why_ended()
    }
}

impl CreditState {
    fn why_ended(&mut self) -> EngineError {
        self.reason.take().unwrap_or(EngineError::PeerGone)
    }
}

impl RemoteSender {
    /// Ready when there is credit for more, or an error that sending will tell. Cancel-safe.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.opened {
            // The receiver gives credit when it hears of the channel, which the first element tells it.
            return Poll::Ready(());
        }
        self.credit.poll_ready(cx)
    }

    /// Ready with the reason when nothing more can be sent, for those who have nothing to send just now. Cancel-safe.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EngineError> {
        self.credit.poll_ended(cx)
    }

    /// Credit that was sent beyond what there was.
    pub(super) fn overdraft_units(&self) -> u64 {
        u64::try_from(-self.credit.lock().units).unwrap_or(0)
    }

    pub(super) async fn send(&mut self, element: StreamElement) -> Result<(), EngineError> {
        if !self.opened {
            self.opened = true;
            self.write(wire::open(self.channel, &self.key)).await?;
        }
        let units = match &element {
            StreamElement::Batch(batch) => return self.send_batch(batch).await,
            _ => 1,
        };
        self.send_piece(&element, units).await
    }

    /// A batch that is too large for a frame goes in pieces.
    async fn send_batch(&mut self, batch: &StreamBatch) -> Result<(), EngineError> {
        let rows = batch.rows.num_rows();
        let pieces = batch.size_bytes().div_ceil(PIECE_BYTES).clamp(1, rows.max(1));
        let step = rows.div_ceil(pieces);
        let mut from = 0;
        while from < rows {
            let piece = if step == rows { batch.clone() } else { batch.slice(from, step.min(rows - from)) };
            let units = units(&piece);
            self.send_piece(&StreamElement::Batch(piece), units).await?;
            from += step;
        }
        Ok(())
    }

    async fn send_piece(&mut self, element: &StreamElement, units: u32) -> Result<(), EngineError> {
        // It comes back from the receiver.
        self.credit.take(units)?;
        let parts = self.encoder.encode(element, units)?;
        let bytes = parts.len();
        if bytes > FRAME_BYTES_MAX {
            let message = format!(
                "a row of {bytes} bytes is too large to be sent to another worker; at most {FRAME_BYTES_MAX} are"
            );
            return Err(EngineError::Data { operator: "exchange".to_owned(), message });
        }
        self.write(parts).await
    }

    async fn write(&self, parts: Parts) -> Result<(), EngineError> {
        self.peer.frames.send(parts).await.map_err(|_| self.credit.error())
    }
}

impl Drop for RemoteSender {
    fn drop(&mut self) {
        self.peer.state.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.channel);
        if self.opened {
            // Where the connection is behind, the receiver learns from the coordinator that the attempt is over.
            let _ = self.peer.frames.try_send(wire::close(self.channel));
        }
    }
}

/// Writes frames and reads what comes, until either ends.
async fn carry(
    connection: Connection,
    frames: &mut mpsc::Receiver<Parts>,
    mut on_frame: impl FnMut(Frame) -> Result<(), String>,
) -> Ended {
    let Connection { mut reader, mut writer, .. } = connection;
    tokio::select! {
        written = write(&mut writer, frames) => match written {
            Ok(()) => Ended::Closed("nothing more is sent".to_owned()),
            Err(error) => error.into(),
        },
        ended = read(&mut reader, &mut on_frame) => ended,
    }
}

/// Ends well when nobody has a channel over this connection any more.
async fn write(writer: &mut FrameWriter, frames: &mut mpsc::Receiver<Parts>) -> Result<(), NetError> {
    while let Some(first) = frames.recv().await {
        writer.write(&first.slices()).await?;
        while let Ok(next) = frames.try_recv() {
            writer.write(&next.slices()).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

async fn read(reader: &mut FrameReader, on_frame: &mut impl FnMut(Frame) -> Result<(), String>) -> Ended {
    loop {
        let frame = match reader.read().await {
            Ok(Some(bytes)) => Frame::parse(bytes),
            Ok(None) => return Ended::Closed("it was closed by the other side".to_owned()),
            Err(error) => return error.into(),
        };
        if let Err(reason) = frame.and_then(&mut *on_frame) {
            return Ended::Closed(format!("bug: {reason}; please report it"));
        }
    }
}
