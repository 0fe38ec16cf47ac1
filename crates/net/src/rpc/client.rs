//! The calling side. One task owns the connection, opens it when there is something to say, and gives it up when the other
//! side no longer shows signs of life; callers only wait, each within its own bound.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{FAILED, NUMBER_BYTES, PING, SUCCEEDED, split_number};
use crate::error::NetError;
use crate::frame::{FrameReader, FrameWriter};
use crate::hello::Hello;
use crate::transport::Transport;

/// Calls that may wait to be sent; further callers wait for their turn.
const QUEUED_MAX: usize = 64;
/// Calls that may wait for an answer on one connection; further ones fail at once.
const PENDING_MAX: usize = 1024;
/// The distance of signs of life while calls wait for answers.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// After so many of them without a byte from the other side the connection is given up.
const PINGS_UNANSWERED_MAX: u32 = 4;

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The call was never sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection was lost after the call was sent; it may or may not have been done.
    #[error("the connection to '{peer}' was lost before the answer came: {reason}")]
    Lost {
        /// The other side's address.
        peer: String,
        /// How it was lost.
        reason: String,
    },
    /// No answer in time; the call may or may not have been done.
    #[error("'{peer}' gave no answer within {timeout_ms} ms")]
    TimedOut {
        /// The other side's address.
        peer: String,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The other side says that it has not done the call, and why.
    #[error("'{peer}' did not do it: {reason}")]
    Refused {
        /// The other side's address.
        peer: String,
        /// Its own words.
        reason: String,
    },
    /// The request or the answer is not what it should be.
    #[error("a call to '{peer}' or its answer cannot be understood: {reason}")]
    Malformed {
        /// The other side's address.
        peer: String,
        /// Why not.
        reason: String,
    },
}

/// Where the JSON of an answer goes.
type Reply = oneshot::Sender<Result<Vec<u8>, RpcError>>;

/// A call on its way.
struct Call {
    body: Vec<u8>,
    reply: Reply,
}

/// Calls another node. Cheap to clone; clones share one connection, which is opened by the first call and again by the
/// next one after it was lost. Ends with its last clone.
#[derive(Clone)]
pub struct RpcClient {
    calls: mpsc::Sender<Call>,
    peer: Arc<str>,
}

impl RpcClient {
    /// A client of the node at this address. Must be made within a runtime, on which its connection then lives.
    #[must_use]
    pub fn new(transport: Transport, address: &str, hello: Hello) -> RpcClient {
        let (calls, queue) = mpsc::channel(QUEUED_MAX);
        let peer: Arc<str> = address.into();
        tokio::spawn(run(transport, peer.clone(), hello, queue));
        RpcClient { calls, peer }
    }

    /// Asks and waits for the answer, at most this long. Dropping it gives up the wait, not the call.
    ///
    /// # Errors
    /// [`RpcError`], which says whether the call may have been done.
    pub async fn call<Q, A>(&self, request: &Q, time_max: Duration) -> Result<A, RpcError>
    where
        Q: Serialize + ?Sized,
        A: DeserializeOwned,
    {
        let malformed =
            |error: serde_json::Error| RpcError::Malformed { peer: self.peer.to_string(), reason: error.to_string() };
        let body = serde_json::to_vec(request).map_err(malformed)?;
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + time_max;
        let asked = async {
            let ended = |_| RpcError::Unreachable(format!("the client of '{}' has ended", self.peer));
            self.calls.send(Call { body, reply }).await.map_err(|_| ended(()))?;
            answer.await.map_err(|_| ended(()))?
        };
        match timeout_at(deadline, asked).await {
            Ok(answered) => serde_json::from_slice(&answered?).map_err(malformed),
            Err(_) => {
                let timeout_ms = u64::try_from(time_max.as_millis()).unwrap_or(u64::MAX);
                Err(RpcError::TimedOut { peer: self.peer.to_string(), timeout_ms })
            }
        }
    }
}

async fn run(transport: Transport, peer: Arc<str>, hello: Hello, mut queue: mpsc::Receiver<Call>) {
    while let Some(first) = queue.recv().await {
        let connection = match transport.connect(&peer, &hello).await {
            Ok(connection) => connection,
            Err(error) => {
                let unreachable = RpcError::Unreachable(error.to_string());
                // Those who asked meanwhile would hear the same; the next one makes another attempt.
                let _ = first.reply.send(Err(unreachable.clone()));
                while let Ok(call) = queue.try_recv() {
                    let _ = call.reply.send(Err(unreachable.clone()));
                }
                continue;
            }
        };
        let live = Live { peer: peer.clone(), pending: Mutex::default(), unanswered: AtomicU32::new(0) };
        let ended = tokio::select! {
            ended = live.read(connection.reader) => ended,
            ended = live.write(connection.writer, first, &mut queue) => ended,
        };
        live.fail(&ended.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string()));
    }
}

/// A connection in use.
struct Live {
    peer: Arc<str>,
    pending: Mutex<BTreeMap<u64, Reply>>,
    /// Signs of life sent since anything came back.
    unanswered: AtomicU32,
}

impl Live {
    async fn read(&self, mut reader: FrameReader) -> Result<(), NetError> {
        let malformed = || NetError::Message { peer: self.peer.to_string(), reason: "a short answer".to_owned() };
        while let Some(frame) = reader.read().await? {
            self.unanswered.store(0, Ordering::Relaxed);
            let (number, rest) = split_number(&frame).ok_or_else(malformed)?;
            if number == PING {
                continue;
            }
            let (&outcome, body) = rest.split_first().ok_or_else(malformed)?;
            // Nobody waits any more where the call ran out of time.
            let Some(reply) = self.pending().remove(&number) else { continue };
            let _ = reply.send(if outcome == SUCCEEDED { Ok(body.to_vec()) } else { Err(self.refusal(outcome, body)) });
        }
        Ok(())
    }

    fn refusal(&self, outcome: u8, body: &[u8]) -> RpcError {
        let peer = self.peer.to_string();
        match serde_json::from_slice(body) {
            Ok(reason) if outcome == FAILED => RpcError::Refused { peer, reason },
            _ => RpcError::Malformed { peer, reason: format!("an answer of kind {outcome}") },
        }
    }

    /// Ends well when nobody can call any more.
    async fn write(
        &self,
        mut writer: FrameWriter,
        first: Call,
        queue: &mut mpsc::Receiver<Call>,
    ) -> Result<(), NetError> {
        let mut next_number = PING + 1;
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Some(first);
        loop {
            if let Some(call) = next.take() {
                self.send(&mut writer, next_number, call).await?;
                next_number += 1;
                while let Ok(call) = queue.try_recv() {
                    self.send(&mut writer, next_number, call).await?;
                    next_number += 1;
                }
                writer.flush().await?;
            }
            tokio::select! {
                call = queue.recv() => match call {
                    Some(call) => next = Some(call),
                    None => return Ok(()),
                },
                _ = pings.tick() => self.ping(&mut writer).await?,
            }
        }
    }

    async fn send(&self, writer: &mut FrameWriter, number: u64, call: Call) -> Result<(), NetError> {
        if call.reply.is_closed() {
            return Ok(());
        }
        let refuse = |call: Call, reason: String| {
            let _ = call.reply.send(Err(RpcError::Unreachable(reason)));
            Ok(())
        };
        if self.pending().len() >= PENDING_MAX {
            let reason = format!("{PENDING_MAX} calls to '{}' wait for answers; it is overloaded", self.peer);
            return refuse(call, reason);
        }
        if call.body.len() + NUMBER_BYTES > writer.frame_bytes_max() {
            let reason = format!("a call of {} bytes to '{}' is too large", call.body.len(), self.peer);
            return refuse(call, reason);
        }
        self.pending().insert(number, call.reply);
        writer.write(&[&number.to_le_bytes(), &call.body]).await
    }

    async fn ping(&self, writer: &mut FrameWriter) -> Result<(), NetError> {
        let waiting = {
            let mut pending = self.pending();
            pending.retain(|_, reply| !reply.is_closed());
            !pending.is_empty()
        };
        // Judged also where the callers have given up: the next one should not meet a dead connection.
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered >= PINGS_UNANSWERED_MAX {
            return Err(NetError::Silent { peer: self.peer.to_string() });
        }
        if !waiting && unanswered == 0 {
            return Ok(());
        }
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        writer.write(&[&PING.to_le_bytes()]).await?;
        writer.flush().await
    }

    fn fail(&self, reason: &str) {
        for (_, reply) in std::mem::take(&mut *self.pending()) {
            let _ = reply.send(Err(RpcError::Lost { peer: self.peer.to_string(), reason: reason.to_owned() }));
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, Reply>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
