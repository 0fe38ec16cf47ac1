//! Slow work on the outside that goes on beside the event loop of an attempt, one piece at a time and in the
//! order in which it was asked for: publishing output, looking for new input.
//!
//! A lane is a task that owns what it works with (the committers, an enumerator) for the life of the job. An
//! attempt only asks. So there is nothing to hand back when an attempt fails, and two publications of one sink
//! can never run side by side, whatever happens to the attempts that asked for them. Who drops the answer
//! abandons the work: the lane then drops it where it stands and takes the next.

mod discovery;
mod publisher;

use async_trait::async_trait;
use mainstem_core::protocol::Failure;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Instrument;

pub(crate) use self::discovery::{Discoverer, Discovery};
pub(crate) use self::publisher::{Publication, Publisher};
use crate::coordinator::fatal;

/// Requests that may wait. An attempt has one at a time; more come only from attempts that are gone.
const REQUESTS_MAX: usize = 4;

/// Does the work of a lane.
#[async_trait]
pub(crate) trait Worker: Send + 'static {
    /// What is asked for.
    type Work: Send + 'static;
    /// What comes of it.
    type Answer: Send + 'static;

    /// Does one piece of work, with retries. Must be safe to drop at any point: the next call follows then.
    async fn work(&mut self, work: Self::Work) -> Result<Self::Answer, Failure>;
}

/// A lane. Dropping it lets the work that somebody still waits for come to its end, and no more.
pub(crate) struct Lane<W: Worker> {
    requests: mpsc::Sender<Request<W>>,
    task: JoinHandle<()>,
}

struct Request<W: Worker> {
    work: W::Work,
    answer: oneshot::Sender<Result<W::Answer, Failure>>,
}

impl<W: Worker> Lane<W> {
    /// Starts the lane's task.
    pub(crate) fn start(worker: W) -> Lane<W> {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        Lane { requests, task: tokio::spawn(serve(worker, receiver).in_current_span()) }
    }

    /// Asks for a piece of work and waits for what comes of it. Dropping the future abandons the work.
    pub(crate) fn ask(&self, work: W::Work) -> impl Future<Output = Result<W::Answer, Failure>> + Send + use<W> {
        let requests = self.requests.clone();
        let gone = || fatal("bug: a task of the coordinator ended before the job; please report it".to_owned());
        async move {
            let (answer, reply) = oneshot::channel();
            requests.send(Request { work, answer }).await.map_err(|_| gone())?;
            reply.await.map_err(|_| gone())?
        }
    }

    /// Ends the lane once nobody waits for an answer any more. On return nothing of it runs.
    pub(crate) async fn end(self) {
        drop(self.requests);
        // Its only way to fail is a panic, of which whoever asked has been told.
        let _ = self.task.await;
    }
}

async fn serve<W: Worker>(mut worker: W, mut requests: mpsc::Receiver<Request<W>>) {
    while let Some(Request { work, mut answer }) = requests.recv().await {
        let result = tokio::select! {
            biased;
            () = answer.closed() => continue,
            result = worker.work(work) => result,
        };
        // Whoever asked may be gone by now: a later attempt asks again.
        let _ = answer.send(result);
    }
}
