//! The answering side: reads requests, runs a handler for each, writes the answers as they come.

use std::collections::BTreeMap;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::{FAILED, NUMBER_BYTES, PING, SUCCEEDED, split_number};
use crate::error::NetError;
use crate::frame::{FrameReader, FrameWriter};
use crate::transport::Connection;

/// Requests of one connection in work at a time; further ones are told so at once.
const HANDLERS_MAX: usize = 256;
/// Answers that may wait to be sent; when the caller does not read them, no more requests are read.
const ANSWERS_MAX: usize = 64;

/// Answers the calls of a connection until it ends; `handler` gives the answer, or in words why there is none. Requests
/// run beside each other. Dropping it ends those that run. A handler that panics fails its own call only.
///
/// # Errors
/// What ended the connection, where it was not a clean end.
pub async fn serve_rpc<Q, A, H, F>(connection: Connection, handler: H) -> Result<(), NetError>
where
    Q: DeserializeOwned,
    A: Serialize,
    H: Fn(Q) -> F,
    F: Future<Output = Result<A, String>> + Send + 'static,
{
    let (answers, queue) = mpsc::channel(ANSWERS_MAX);
    let Connection { reader, writer, .. } = connection;
    tokio::select! {
        ended = read(reader, handler, answers) => ended,
        ended = write(writer, queue) => ended,
    }
}

/// The bytes of an answer behind its number.
type Answer = (u64, Vec<u8>);

async fn read<Q, A, H, F>(mut reader: FrameReader, handler: H, answers: mpsc::Sender<Answer>) -> Result<(), NetError>
where
    Q: DeserializeOwned,
    A: Serialize,
    H: Fn(Q) -> F,
    F: Future<Output = Result<A, String>> + Send + 'static,
{
    let mut running: JoinSet<Vec<u8>> = JoinSet::new();
    let mut numbers: BTreeMap<Id, u64> = BTreeMap::new();
    loop {
        let answer = tokio::select! {
            Some(ended) = running.join_next_with_id() => finished(&mut numbers, ended),
            frame = reader.read() => {
                let Some(frame) = frame? else { return Ok(()) };
                let Some((number, body)) = split_number(&frame) else {
                    return Err(NetError::Message { peer: reader.peer().to_owned(), reason: "a short request".to_owned() });
                };
                match serde_json::from_slice(body) {
                    _ if number == PING => Some((PING, Vec::new())),
                    _ if running.len() >= HANDLERS_MAX => {
                        Some((number, failed(&format!("it is busy with {HANDLERS_MAX} requests of this connection"))))
                    }
                    Err(error) => Some((number, failed(&format!("the request cannot be understood: {error}")))),
                    Ok(request) => {
                        let work = handler(request);
                        let task = running.spawn(async move { encode(work.await) });
                        numbers.insert(task.id(), number);
                        None
                    }
                }
            }
        };
        // The writer ends only together with this loop.
        if let Some(answer) = answer
            && answers.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
}

fn finished(numbers: &mut BTreeMap<Id, u64>, ended: Result<(Id, Vec<u8>), JoinError>) -> Option<Answer> {
    match ended {
        Ok((task, answer)) => numbers.remove(&task).map(|number| (number, answer)),
        Err(error) => {
            tracing::error!(%error, "the handler of a call ended by a bug");
            let number = numbers.remove(&error.id())?;
            Some((number, failed("its handler ended by a bug; its log says more")))
        }
    }
}

fn encode<A: Serialize>(outcome: Result<A, String>) -> Vec<u8> {
    let encoded = outcome.and_then(|answer| {
        let mut bytes = vec![SUCCEEDED];
        serde_json::to_writer(&mut bytes, &answer).map_err(|error| format!("its answer is no JSON: {error}"))?;
        Ok(bytes)
    });
    encoded.unwrap_or_else(|reason| failed(&reason))
}

fn failed(reason: &str) -> Vec<u8> {
    let mut bytes = vec![FAILED];
    bytes.extend_from_slice(serde_json::Value::from(reason).to_string().as_bytes());
    bytes
}

async fn write(mut writer: FrameWriter, mut answers: mpsc::Receiver<Answer>) -> Result<(), NetError> {
    while let Some(first) = answers.recv().await {
        send(&mut writer, first).await?;
        while let Ok(answer) = answers.try_recv() {
            send(&mut writer, answer).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

async fn send(writer: &mut FrameWriter, (number, answer): Answer) -> Result<(), NetError> {
    let number = number.to_le_bytes();
    if answer.len() + NUMBER_BYTES > writer.frame_bytes_max() {
        let reason = format!("its answer of {} bytes is too large", answer.len());
        return writer.write(&[&number, &failed(&reason)]).await;
    }
    writer.write(&[&number, &answer]).await
}
