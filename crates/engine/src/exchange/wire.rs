//! Elements as bytes between workers. One connection carries many channels; each frame begins with its kind and
//! its channel's number. Rows are Arrow's IPC stream format, one stream a channel, with the columns beside the rows
//! in front.
//!
//! ```text
//! frame   = kind u8, channel u32 LE, body
//! open    = key (JSON)                                 sender to receiver
//! batch   = units u32 LE, flags u8, rows u32 LE, [kinds i8 * rows], [watermarks i64 LE * rows], IPC messages
//! element = watermark, latency marker, barrier or end (JSON)
//! close   =
//! credit  = units u32 LE                               receiver to sender
//! refused = reason (UTF-8)
//! ```

use std::sync::Arc;

use arrow::array::{Int8Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::{Buf, Bytes};
use mainstem_core::alignment::BarrierMark;
use mainstem_core::cluster::messages::AttemptId;
use mainstem_core::latency::LatencyMarker;
use mainstem_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

const OPEN: u8 = 0;
const BATCH: u8 = 1;
const ELEMENT: u8 = 2;
const CLOSE: u8 = 3;
const CREDIT: u8 = 4;
const REFUSED: u8 = 5;

const HAS_CHANGES: u8 = 1;
const HAS_OWN_WATERMARK: u8 = 2;

/// A channel by what both of its ends know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ChannelKey {
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Position of the edge in the job's graph.
    pub(crate) edge: usize,
    /// Index of the sending subtask.
    pub(crate) sender: u32,
    /// Index of the receiving subtask.
    pub(crate) receiver: u32,
}

/// Anything but rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SmallElement {
    Watermark(Timestamp),
    Marker(Box<LatencyMarker>),
    Barrier(BarrierMark),
    End,
}

/// A frame that came.
#[derive(Debug)]
pub(super) enum Frame {
    Open { channel: u32, key: ChannelKey },
    Element { channel: u32, payload: Payload, units: u32 },
    Close { channel: u32 },
    Credit { channel: u32, units: u32 },
    Refused { channel: u32, reason: String },
}

/// An element whose rows are not decoded yet.
#[derive(Debug)]
pub(super) enum Payload {
    Batch(Bytes),
    Small(SmallElement),
}

impl Payload {
    /// Set where it is a barrier.
    pub(super) fn mark(&self) -> Option<BarrierMark> {
        match self {
            Payload::Small(SmallElement::Barrier(mark)) => Some(*mark),
            _ => None,
        }
    }
}

/// A frame to write, in parts: the columns of a batch are sent from where they lie.
#[derive(Debug)]
pub(super) struct Parts {
    head: Vec<u8>,
    body: Vec<Buffer>,
}

impl Parts {
    fn new(head: Vec<u8>, body: Vec<u8>) -> Parts {
        Parts { head, body: vec![Buffer::from_vec(body)] }
    }

    /// All bytes of the frame, in order.
    pub(super) fn slices(&self) -> Vec<&[u8]> {
        let mut slices = Vec::with_capacity(1 + self.body.len());
        slices.push(&self.head[..]);
        slices.extend(self.body.iter().map(Buffer::as_slice));
        slices
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.iter().map(Buffer::len).sum::<usize>()
    }
}

impl Frame {
    /// Reads a frame, but for its rows.
    pub(super) fn parse(mut bytes: Bytes) -> Result<Frame, String> {
        if bytes.len() < 5 {
            return Err(format!("a frame of {} bytes", bytes.len()));
        }
        let (kind, channel) = (bytes.get_u8(), bytes.get_u32_le());
        match kind {
            OPEN => match serde_json::from_slice(&bytes) {
                Ok(key) => Ok(Frame::Open { channel, key }),
                Err(error) => Err(format!("a channel is opened by {error}")),
            },
            BATCH | CREDIT if bytes.len() < 4 => Err("a frame without its credit".to_owned()),
            BATCH => {
                let units = bytes.get_u32_le();
                Ok(Frame::Element { channel, payload: Payload::Batch(bytes), units })
            }
            ELEMENT => match serde_json::from_slice(&bytes) {
                Ok(small) => Ok(Frame::Element { channel, payload: Payload::Small(small), units: 1 }),
                Err(error) => Err(format!("an element that is none: {error}")),
            },
            CLOSE => Ok(Frame::Close { channel }),
            CREDIT => Ok(Frame::Credit { channel, units: bytes.get_u32_le() }),
            REFUSED => Ok(Frame::Refused { channel, reason: String::from_utf8_lossy(&bytes).into_owned() }),
            other => Err(format!("a frame of unknown kind {other}")),
        }
    }
}

fn head(kind: u8, channel: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(16);
    head.push(kind);
    head.extend_from_slice(&channel.to_le_bytes());
    head
}

pub(super) fn open(channel: u32, key: &ChannelKey) -> Parts {
    Parts::new(head(OPEN, channel), serde_json::to_vec(key).expect("plain data"))
}

pub(super) fn close(channel: u32) -> Parts {
    Parts { head: head(CLOSE, channel), body: Vec::new() }
}

pub(super) fn credit(channel: u32, units: u32) -> Parts {
    Parts::new(head(CREDIT, channel), units.to_le_bytes().to_vec())
}

pub(super) fn refused(channel: u32, reason: &str) -> Parts {
    Parts::new(head(REFUSED, channel), reason.as_bytes().to_vec())
}

/// Turns the elements of one channel into frames.
pub(super) struct Encoder {
    channel: u32,
    options: IpcWriteOptions,
    /// None before the first rows.
    rows: Option<StreamEncoder>,
}

impl Encoder {
    pub(super) fn new(channel: u32, options: IpcWriteOptions) -> Encoder {
        Encoder { channel, options, rows: None }
    }

    /// The frame of an element, which has rows where it is a batch; `units` is the credit that it takes.
    pub(super) fn encode(&mut self, element: &StreamElement, units: u32) -> Result<Parts, EngineError> {
        let small = match element {
            StreamElement::Batch(batch) => {
                return self.batch(batch, units).map_err(|error| EngineError::arrow("exchange", &error));
            }
            StreamElement::Watermark(watermark) => SmallElement::Watermark(*watermark),
            StreamElement::Marker(marker) => SmallElement::Marker(marker.clone()),
            StreamElement::Barrier(mark) => SmallElement::Barrier(*mark),
            StreamElement::End => SmallElement::End,
        };
        Ok(Parts::new(head(ELEMENT, self.channel), serde_json::to_vec(&small).expect("plain data")))
    }

    fn batch(&mut self, batch: &StreamBatch, units: u32) -> Result<Parts, ArrowError> {
        let rows = u32::try_from(batch.rows.num_rows()).expect("a batch has few rows");
        let mut flags = 0;
        let mut beside = Vec::new();
        if let Some(changes) = &batch.changes {
            flags |= HAS_CHANGES;
            beside.extend(changes.values().iter().map(|kind| kind.to_le_bytes()[0]));
        }
        if let Some(own_watermark) = &batch.own_watermark {
            flags |= HAS_OWN_WATERMARK;
            beside.extend(own_watermark.values().iter().flat_map(|watermark| watermark.to_le_bytes()));
        }
        let mut head = head(BATCH, self.channel);
        head.extend_from_slice(&units.to_le_bytes());
        head.push(flags);
        head.extend_from_slice(&rows.to_le_bytes());
        head.extend_from_slice(&beside);
        if batch.rows.num_columns() == 0 {
            return Ok(Parts { head, body: Vec::new() });
        }
        let encoder = match &mut self.rows {
            Some(encoder) => encoder,
            None => {
                let schema = batch.rows.schema();
                self.rows.insert(StreamEncoder::try_new_with_options(&schema, self.options.clone())?)
            }
        };
        Ok(Parts { head, body: encoder.encode(&batch.rows)? })
    }
}

/// Turns the frames of one channel back into elements.
pub(super) struct Decoder {
    decoder: StreamDecoder,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { decoder: StreamDecoder::new() }
    }

    pub(super) fn decode(&mut self, payload: Payload) -> Result<StreamElement, EngineError> {
        match payload {
            Payload::Batch(bytes) => self.batch(bytes).map(StreamElement::Batch),
            Payload::Small(SmallElement::Watermark(watermark)) => Ok(StreamElement::Watermark(watermark)),
            Payload::Small(SmallElement::Marker(marker)) => Ok(StreamElement::Marker(marker)),
            Payload::Small(SmallElement::Barrier(mark)) => Ok(StreamElement::Barrier(mark)),
            Payload::Small(SmallElement::End) => Ok(StreamElement::End),
        }
    }

    fn batch(&mut self, mut bytes: Bytes) -> Result<StreamBatch, EngineError> {
        let torn = || EngineError::Bug("another worker sent a batch that is cut short".to_owned());
        if bytes.len() < 5 {
            return Err(torn());
        }
        let (flags, rows) = (bytes.get_u8(), bytes.get_u32_le() as usize);
        let mut part = |has: u8, width: usize| match flags & has {
            0 => Ok(None),
            _ if bytes.len() < rows * width => Err(torn()),
            _ => Ok(Some(bytes.split_to(rows * width))),
        };
        let changes = part(HAS_CHANGES, 1)?;
        let own_watermark = part(HAS_OWN_WATERMARK, 8)?;
        let watermark = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let batch = self.rows(bytes, rows).map_err(|error| EngineError::arrow("exchange", &error))?;
        Ok(StreamBatch {
            rows: batch.filter(|batch| batch.num_rows() == rows).ok_or_else(torn)?,
            own_watermark: own_watermark.map(|all| all.chunks_exact(8).map(watermark).collect::<Int64Array>()),
            changes: changes.map(|all| all.iter().map(|kind| i8::from_le_bytes([*kind])).collect::<Int8Array>()),
        })
    }

    /// The rows in the IPC messages; none where they are cut short. Without messages there are no columns.
    fn rows(&mut self, bytes: Bytes, rows: usize) -> Result<Option<RecordBatch>, ArrowError> {
        if bytes.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            return RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).map(Some);
        }
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut buffer)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::ipc::CompressionType;
    use mainstem_core::ids::{Epoch, OperatorId, SubtaskId};
    use mainstem_core::latency::Hop;
    use mainstem_core::protocol::Barrier;

    use super::*;

    fn batch(from: i64, rows: i64) -> StreamBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((from..from + rows).map(|n| (n % 3 > 0).then_some(n))));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|n| "x".repeat(n as usize % 7))));
        StreamBatch::on_time(RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap())
    }

    fn through(encoder: &mut Encoder, decoder: &mut Decoder, element: &StreamElement) -> StreamElement {
        let parts = encoder.encode(element, 3).unwrap();
        let Frame::Element { channel: 7, payload, units } = Frame::parse(parts.slices().concat().into()).unwrap()
        else {
            panic!("another frame");
        };
        assert_eq!(units, if matches!(element, StreamElement::Batch(_)) { 3 } else { 1 });
        decoder.decode(payload).unwrap()
    }

    #[test]
    fn elements_come_out_as_they_went_in() {
        let lz4 = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
        for options in [IpcWriteOptions::default(), lz4] {
            let (mut encoder, mut decoder) = (Encoder::new(7, options), Decoder::new());
            let mut changed = batch(5, 100);
            changed.changes = Some((0..100).map(|n| n % 4).collect());
            let mut late = batch(7, 10);
            late.own_watermark = Some((0..10).map(|n| i64::from(n) - 3).collect());
            let mut both = changed.clone();
            both.own_watermark = Some((0..100_i64).collect());
            let sliced = batch(0, 1000);
            let sliced = sliced.with_rows(sliced.rows.slice(100, 7));
            for batch in [batch(0, 10), changed, late, both, sliced] {
                let StreamElement::Batch(back) =
                    through(&mut encoder, &mut decoder, &StreamElement::Batch(batch.clone()))
                else {
                    panic!("another element");
                };
                assert_eq!((back.rows, back.changes), (batch.rows, batch.changes));
                assert_eq!(back.own_watermark, batch.own_watermark);
            }
            let barrier = Barrier { epoch: Epoch(3), next_epoch_now: Timestamp(9) };
            let task = SubtaskId { operator: OperatorId(1), index: 3 };
            let hop = Hop { subtask: task, began_at: Timestamp(6), left_at: Timestamp(7) };
            let marker = |trace| LatencyMarker { source: task, number: 9, read_at: Timestamp(5), trace };
            for element in [
                StreamElement::Watermark(Timestamp::MAX),
                StreamElement::Marker(Box::new(marker(None))),
                StreamElement::Marker(Box::new(marker(Some(vec![hop])))),
                StreamElement::Barrier(BarrierMark { barrier, last: true, waited_ms: 7 }),
                StreamElement::End,
            ] {
                assert_eq!(format!("{:?}", through(&mut encoder, &mut decoder, &element)), format!("{element:?}"));
            }
        }
    }

    #[test]
    fn rows_without_columns_keep_their_number() {
        let (mut encoder, mut decoder) = (Encoder::new(7, IpcWriteOptions::default()), Decoder::new());
        let options = RecordBatchOptions::new().with_row_count(Some(42));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        let element = StreamElement::Batch(StreamBatch::on_time(rows));
        let StreamElement::Batch(back) = through(&mut encoder, &mut decoder, &element) else { panic!("no batch") };
        assert_eq!(back.rows.num_rows(), 42);
    }

    #[test]
    fn damaged_frames_are_refused() {
        for bytes in
            [b"".as_slice(), b"\x01\0\0\0\0", b"\x09\0\0\0\0", b"\0\0\0\0\0{", b"\x04\0\0\0\0abc", b"\x02\0\0\0\0{}"]
        {
            assert!(Frame::parse(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        let mut encoder = Encoder::new(7, IpcWriteOptions::default());
        let parts = encoder.encode(&StreamElement::Batch(batch(0, 10)), 3).unwrap().slices().concat();
        for length in [9, 12, 15, 40, parts.len() - 1] {
            let Ok(Frame::Element { payload, .. }) = Frame::parse(Bytes::copy_from_slice(&parts[..length])) else {
                panic!("no element");
            };
            assert!(Decoder::new().decode(payload).is_err(), "{length} of {}", parts.len());
        }
    }
}
