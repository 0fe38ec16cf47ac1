//! Frames on a byte stream: a length (u32, little endian) and so many bytes. A length is believed only as far as its
//! bytes have arrived, so that four bytes of a stranger cannot make this node allocate.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::NetError;

/// Bytes of one frame, at most, unless a connection is told otherwise.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Bytes of the length before each frame.
const HEADER_BYTES: usize = 4;
/// What is read at once, at least.
const READ_BYTES_MIN: usize = 64 << 10;
/// So much room is made for a frame on the word of its length, so that nearly none is copied while it grows.
const CLAIMED_BYTES_MAX: usize = 1 << 20;
/// Frames up to this size are gathered in the writer's buffer; larger ones go out from where they are.
const GATHERED_BYTES_MAX: usize = 16 << 10;
/// The writer's buffer goes out when it holds this much.
const BUFFER_BYTES: usize = 64 << 10;
/// The other side takes some bytes within this time, or it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The receiving half of a connection.
pub struct FrameReader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    frame_bytes_max: usize,
    peer: Arc<str>,
}

impl FrameReader {
    /// Frames of this stream; `peer` is for messages.
    pub fn new(stream: impl AsyncRead + Send + Unpin + 'static, peer: &str) -> FrameReader {
        let buffer = BytesMut::new();
        FrameReader { stream: Box::new(stream), buffer, frame_bytes_max: FRAME_BYTES_MAX, peer: peer.into() }
    }

    /// Sets the largest frame that is taken, in bytes without its length.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The next frame; `None` when the other side has ended the stream between two frames. The bytes share one buffer
    /// with their neighbours: copy what is to be kept for long.
    ///
    /// Cancel safe: what has arrived is kept for the next call.
    ///
    /// # Errors
    /// A frame above the limit, a stream that ends within a frame, or what the system says. The stream is of no use
    /// afterwards.
    pub async fn read(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            let missing = match self.frame_length()? {
                Some(length) if self.buffer.len() >= HEADER_BYTES + length => {
                    self.buffer.advance(HEADER_BYTES);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                Some(length) => HEADER_BYTES + length - self.buffer.len(),
                None => HEADER_BYTES,
            };
            // Beyond that it grows with what has come, never by what the length claims.
            let arrived = self.buffer.len();
            self.buffer.reserve(missing.clamp(READ_BYTES_MIN, arrived.max(CLAIMED_BYTES_MAX)));
            let read = self.stream.read_buf(&mut self.buffer).await;
            match read {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(NetError::Closed { peer: self.peer.to_string(), place: "within a frame" }),
                Ok(_) => {}
                Err(source) => {
                    return Err(NetError::Io { action: "read from", peer: self.peer.to_string(), source });
                }
            }
        }
    }

    /// The next frame as JSON; `None` at the clean end of the stream. Cancel safe.
    ///
    /// # Errors
    /// As [`FrameReader::read`], and a frame that is not such a message; then the stream can be read on.
    pub async fn read_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        let Some(frame) = self.read().await? else { return Ok(None) };
        match serde_json::from_slice(&frame) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(NetError::Message { peer: self.peer.to_string(), reason: error.to_string() }),
        }
    }

    /// The other side, for messages.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// What has arrived and belongs to no whole frame yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// What is held for frames that are not whole yet, in bytes.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads and forgets, until the stream ends or one of the bounds is reached.
    pub(crate) async fn discard(&mut self, time_max: Duration, bytes_max: u64) {
        let mut rest = (&mut self.stream).take(bytes_max);
        // However it ends, nobody is interested in it any more.
        let _ = timeout(time_max, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }

    /// The length of the frame at the front, when its header is there.
    fn frame_length(&self) -> Result<Option<usize>, NetError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > self.frame_bytes_max {
            return Err(NetError::FrameTooLarge {
                direction: "from",
                peer: self.peer.to_string(),
                bytes: length as u64,
                bytes_max: self.frame_bytes_max as u64,
            });
        }
        Ok(Some(length))
    }
}

/// The sending half of a connection.
pub struct FrameWriter {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
    frame_bytes_max: usize,
    write_timeout: Duration,
    peer: Arc<str>,
    /// Set while bytes are on their way. Found set at the beginning of a call, an earlier one was dropped or failed half
    /// way, and what came next would be taken for the rest of its frame.
    broken: bool,
}

impl FrameWriter {
    /// Frames onto this stream; `peer` is for messages.
    pub fn new(stream: impl AsyncWrite + Send + Unpin + 'static, peer: &str) -> FrameWriter {
        FrameWriter {
            stream: Box::new(stream),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            frame_bytes_max: FRAME_BYTES_MAX,
            write_timeout: WRITE_TIMEOUT,
            peer: peer.into(),
            broken: false,
        }
    }

    /// Sets the largest frame that is sent, in bytes without its length; the other side has its own limit.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Sets how long the other side may take nothing.
    #[cfg(test)]
    pub(crate) fn set_write_timeout(&mut self, write_timeout: Duration) {
        self.write_timeout = write_timeout;
    }

    /// The largest frame that is sent, in bytes without its length.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Sends one frame made of these parts in order. Small frames wait in a buffer until [`FrameWriter::flush`] or until
    /// there are enough of them; large parts are sent from where they lie.
    ///
    /// Not cancel safe: when it is dropped before its end, every later call fails with [`NetError::Broken`].
    ///
    /// # Errors
    /// A frame above the limit, of which nothing is sent; [`NetError::Silent`] when the other side takes no byte for five
    /// seconds; or what the system says.
    pub async fn write(&mut self, parts: &[&[u8]]) -> Result<(), NetError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let header = u32::try_from(length).ok().filter(|_| length <= self.frame_bytes_max);
        let Some(header) = header else {
            return Err(NetError::FrameTooLarge {
                direction: "to",
                peer: self.peer.to_string(),
                bytes: length as u64,
                bytes_max: self.frame_bytes_max as u64,
            });
        };
        self.begin()?;
        self.buffer.extend_from_slice(&header.to_le_bytes());
        let written = if length <= GATHERED_BYTES_MAX {
            parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
            if self.buffer.len() >= BUFFER_BYTES { self.send(&[]).await } else { Ok(()) }
        } else {
            self.send(parts).await
        };
        self.end(written)
    }

    /// Sends what waits in the buffer. Not cancel safe, as [`FrameWriter::write`].
    ///
    /// # Errors
    /// [`NetError::Silent`], or what the system says.
    pub async fn flush(&mut self) -> Result<(), NetError> {
        self.begin()?;
        let written = match self.send(&[]).await {
            Ok(()) => taken(self.write_timeout, self.stream.flush()).await,
            failed => failed,
        };
        self.end(written)
    }

    /// Sends one frame of JSON at once. Not cancel safe, as [`FrameWriter::write`].
    ///
    /// # Errors
    /// As [`FrameWriter::write`], and a value that JSON cannot express.
    pub async fn write_message<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), NetError> {
        let frame = serde_json::to_vec(message)
            .map_err(|error| NetError::Message { peer: self.peer.to_string(), reason: error.to_string() })?;
        self.write(&[&frame]).await?;
        self.flush().await
    }

    /// Ends the stream, so that the other side reads its clean end. A writer that is merely dropped looks under TLS as if
    /// it had been cut off.
    ///
    /// # Errors
    /// [`NetError::Silent`], or what the system says.
    pub async fn close(&mut self) -> Result<(), NetError> {
        self.flush().await?;
        let written = taken(self.write_timeout, self.stream.shutdown()).await;
        self.end(written)?;
        self.broken = true;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), NetError> {
        if self.broken {
            return Err(NetError::Broken { peer: self.peer.to_string() });
        }
        self.broken = true;
        Ok(())
    }

    fn end(&mut self, written: std::io::Result<()>) -> Result<(), NetError> {
        match written {
            Ok(()) => {
                self.broken = false;
                Ok(())
            }
            Err(source) => {
                self.broken = true;
                let peer = self.peer.to_string();
                Err(match source.kind() {
                    std::io::ErrorKind::TimedOut => NetError::Silent { peer },
                    _ => NetError::Io { action: "write to", peer, source },
                })
            }
        }
    }

    /// The buffer and then these parts, down to the last byte.
    async fn send(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&self.buffer));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let sent = taken(self.write_timeout, self.stream.write_vectored(left)).await?;
            if sent == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, sent);
        }
        self.buffer.clear();
        Ok(())
    }
}

/// Waits until the other side takes something, for a bounded time.
async fn taken<T>(time_max: Duration, writing: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    timeout(time_max, writing).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
