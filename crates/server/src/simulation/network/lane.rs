//! One direction of a connection: bytes on their way, and its two ends.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Network;
use crate::simulation::weather::Host;

/// Bytes on their way, at most; then the writer waits.
const BYTES_MAX: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(pub(super) u64);

/// One direction of a connection.
pub(super) struct Lane {
    pub(super) from: Host,
    pub(super) to: Host,
    /// The other direction.
    twin: LaneId,
    /// What is on its way, with the time at which it arrives.
    queue: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// When the writer's end of the stream arrives, where it has ended.
    end: Option<u64>,
    writer_is_gone: bool,
    reader_is_gone: bool,
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    pub(super) fn new(from: Host, to: Host, twin: LaneId) -> Lane {
        Lane {
            from,
            to,
            twin,
            queue: VecDeque::new(),
            bytes: 0,
            end: None,
            writer_is_gone: false,
            reader_is_gone: false,
            is_broken: false,
            reader: None,
            writer: None,
        }
    }

    /// Nobody holds an end of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.writer_is_gone && self.reader_is_gone
    }

    /// Wakes the reader where something has arrived.
    pub(super) fn deliver(&mut self, now_ms: u64) {
        let arrived = match self.queue.front() {
            Some((due, _)) => *due <= now_ms,
            None => self.end.is_some_and(|end| end <= now_ms),
        };
        if arrived && let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// What is on its way arrives no earlier.
    pub(super) fn hold(&mut self, due_ms: u64) {
        for (due, _) in &mut self.queue {
            *due = due_ms.max(*due);
        }
        self.end = self.end.map(|end| due_ms.max(end));
    }

    /// Fails on both ends.
    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// When the last of it arrives.
    fn last_due(&self) -> u64 {
        self.queue.back().map_or(0, |(due, _)| *due)
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Where a lane's bytes come out.
pub(super) struct ReadEnd {
    pub(super) network: Network,
    pub(super) lane: LaneId,
}

impl AsyncRead for ReadEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.network.lock();
        let now_ms = inner.now_ms;
        let cut = inner.lanes.get(&self.lane).is_some_and(|lane| inner.is_cut(lane.from, lane.to));
        let Some(lane) = inner.lanes.get_mut(&self.lane) else { return Poll::Ready(Err(reset())) };
        if lane.is_broken {
            return Poll::Ready(Err(reset()));
        }
        if !cut {
            if let Some((_, bytes)) = lane.queue.front_mut().filter(|(due, _)| *due <= now_ms) {
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                bytes.drain(..count);
                if bytes.is_empty() {
                    lane.queue.pop_front();
                }
                lane.bytes -= count;
                if let Some(writer) = lane.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            if lane.queue.is_empty() && lane.end.is_some_and(|end| end <= now_ms) {
                return Poll::Ready(Ok(()));
            }
        }
        lane.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        let mut inner = self.network.lock();
        if let Some(lane) = inner.lanes.get_mut(&self.lane) {
            lane.reader_is_gone = true;
            lane.reader = None;
            // Who waits to write learns what has become of the reader by trying.
            let writer = lane.writer.take();
            drop(inner);
            if let Some(writer) = writer {
                writer.wake();
            }
        }
    }
}

/// Where a lane's bytes go in.
pub(super) struct WriteEnd {
    pub(super) network: Network,
    pub(super) lane: LaneId,
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.network.lock();
        let Some(lane) = inner.lanes.get(&self.lane) else { return Poll::Ready(Err(reset())) };
        let (from, to, twin) = (lane.from, lane.to, lane.twin);
        if lane.is_broken || lane.end.is_some() {
            return Poll::Ready(Err(reset()));
        }
        if lane.reader_is_gone {
            if !inner.reaches(from, to) {
                // Nobody is there to say that it is for nobody.
                return Poll::Ready(Ok(data.len()));
            }
            for id in [self.lane, twin] {
                if let Some(lane) = inner.lanes.get_mut(&id) {
                    lane.break_off();
                }
            }
            return Poll::Ready(Err(reset()));
        }
        if lane.bytes >= BYTES_MAX {
            let lane = inner.lanes.get_mut(&self.lane).expect("looked at above");
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let due = self.network.due(&inner, from, to);
        inner.writes += 1;
        let lane = inner.lanes.get_mut(&self.lane).expect("looked at above");
        let due = due.max(lane.last_due());
        lane.queue.push_back((due, data.to_vec()));
        lane.bytes += data.len();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.end(self.lane);
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.network.end(self.lane);
        if let Some(lane) = self.network.lock().lanes.get_mut(&self.lane) {
            lane.writer_is_gone = true;
            lane.writer = None;
        }
    }
}

impl Network {
    /// The stream ends behind what is on its way; unless its host has lost power and can say nothing any more.
    fn end(&self, id: LaneId) {
        let mut inner = self.lock();
        let Some(lane) = inner.lanes.get(&id) else { return };
        let (from, to) = (lane.from, lane.to);
        if lane.end.is_some() || inner.dark.contains(&from) {
            return;
        }
        let due = self.due(&inner, from, to);
        let lane = inner.lanes.get_mut(&id).expect("looked at above");
        lane.end = Some(due.max(lane.last_due()));
    }
}
