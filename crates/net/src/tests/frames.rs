//! Frames: sizes, pieces, ends, and what strangers send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::soon;
use crate::{FrameReader, FrameWriter, NetError};

/// Time for which a silent peer is borne with here.
const SILENCE: Duration = Duration::from_millis(50);

/// Bytes that tell where they come from.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn frames_of_every_size_and_number_of_parts_arrive_whole_and_in_order() {
    let (near, far) = duplex(10_000);
    let (mut writer, mut reader) = (FrameWriter::new(near, "far"), FrameReader::new(far, "near"));
    let sizes = [0, 1, 3, 4096, 16 << 10, (16 << 10) + 1, 70_000, 1 << 20, 5];
    let sent = async move {
        for size in sizes {
            let bytes = pattern(size);
            let (head, tail) = bytes.split_at(size / 3);
            writer.write(&[head, &[], tail]).await?;
        }
        writer.flush().await?;
        writer.close().await
    };
    let received = async move {
        for size in sizes {
            let frame = reader.read().await?.expect("another frame");
            assert_eq!(frame.as_ref(), pattern(size), "a frame of {size} bytes");
        }
        reader.read().await
    };
    let (sent, received) = soon(async { tokio::join!(sent, received) }).await;
    sent.expect("all is sent");
    assert!(received.expect("a clean end").is_none());
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    let (mut near, far) = duplex(1024);
    let mut reader = FrameReader::new(far, "near");
    let mut stream = 5u32.to_le_bytes().to_vec();
    stream.extend_from_slice(b"hello");
    for byte in stream {
        let given_up = timeout(Duration::from_millis(1), reader.read()).await;
        assert!(given_up.is_err(), "the frame is not whole yet");
        near.write_all(&[byte]).await.expect("a byte");
    }
    let frame = soon(reader.read()).await.expect("no error").expect("a frame");
    assert_eq!(frame.as_ref(), b"hello");
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_on_both_sides() {
    let (near, far) = duplex(1024);
    let (mut writer, mut reader) = (FrameWriter::new(near, "far"), FrameReader::new(far, "near"));
    reader.set_frame_bytes_max(10);
    writer.write(&[&[0; 11]]).await.expect("the writer's own limit is higher");
    writer.flush().await.expect("sent");
    let error = soon(reader.read()).await.expect_err("too large");
    assert!(matches!(error, NetError::FrameTooLarge { direction: "from", bytes: 11, bytes_max: 10, .. }), "{error}");

    writer.set_frame_bytes_max(10);
    let error = writer.write(&[&[0; 6], &[0; 5]]).await.expect_err("too large");
    assert!(matches!(error, NetError::FrameTooLarge { direction: "to", bytes: 11, bytes_max: 10, .. }), "{error}");
    writer.write(&[&[0; 10]]).await.expect("nothing of the other was sent, so the writer is as good as before");
}

#[tokio::test]
async fn the_length_of_a_frame_is_believed_only_up_to_a_bound() {
    let (mut near, far) = duplex(1 << 20);
    let mut reader = FrameReader::new(far, "near");
    near.write_all(&(64u32 << 20).to_le_bytes()).await.expect("a length");
    near.write_all(&[7; 1000]).await.expect("a beginning");
    assert!(timeout(Duration::from_millis(20), reader.read()).await.is_err(), "the rest is missing");
    assert!(reader.capacity() <= 2 << 20, "{} bytes are held for 1004", reader.capacity());
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_no_clean_end() {
    let (mut near, far) = duplex(1024);
    near.write_all(&[9, 0, 0, 0, 1]).await.expect("a beginning");
    drop(near);
    let error = soon(FrameReader::new(far, "near").read()).await.expect_err("cut off");
    assert!(matches!(error, NetError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn after_a_write_that_was_given_up_nothing_more_is_sent() {
    let (near, _far) = duplex(100);
    let mut writer = FrameWriter::new(near, "far");
    let large = pattern(100_000);
    assert!(timeout(Duration::from_millis(20), writer.write(&[&large])).await.is_err(), "nobody reads");
    let error = writer.write(&[b"next"]).await.expect_err("the frame before is not whole");
    assert!(matches!(error, NetError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn messages_are_json_and_a_bad_one_spoils_only_itself() {
    let (near, far) = duplex(1024);
    let (mut writer, mut reader) = (FrameWriter::new(near, "far"), FrameReader::new(far, "near"));
    writer.write_message("text").await.expect("sent");
    writer.write_message(&7).await.expect("sent");
    let error = soon(reader.read_message::<u32>()).await.expect_err("no number");
    assert!(matches!(error, NetError::Message { .. }), "{error}");
    assert_eq!(soon(reader.read_message::<u32>()).await.expect("a number"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
    let (near, mut far) = duplex(100);
    let mut writer = FrameWriter::new(near, "far");
    writer.set_write_timeout(SILENCE);
    let slow = async {
        let mut taken = [0; 100];
        for _ in 0..10 {
            tokio::time::sleep(SILENCE / 2).await;
            far.read_exact(&mut taken).await.expect("there is more");
        }
    };
    let frame = pattern(20_000);
    let parts = [frame.as_slice()];
    let (written, ()) = soon(async { tokio::join!(writer.write(&parts), slow) }).await;
    let error = written.expect_err("nothing is taken after the first kilobyte");
    assert!(matches!(error, NetError::Silent { .. }), "{error}");
    assert_eq!(error.to_string().split(';').next(), Some("'far' takes nothing and says nothing any more"));
    assert!(matches!(writer.flush().await, Err(NetError::Broken { .. })), "nothing can follow half a frame");
}
