//! The connection to a coordinator.

use std::time::Duration;

use mainstem_core::cluster::messages::{FromWorker, ToWorker, WorkerOffer};
use mainstem_core::protocol::FromSubtask;
use mainstem_net::{Connection, FrameReader, FrameWriter, Hello, Service, Transport};
use tokio::sync::mpsc;

use crate::attempts::{Attempts, Counters};
use crate::following::Following;
use crate::uplink::Uplink;

/// How often the coordinator hears of this worker.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// A coordinator that takes longer to answer the registration is not waited for.
const WELCOME_WITHIN: Duration = Duration::from_secs(3);

/// How a connection to a coordinator came to its end.
pub(crate) enum Met {
    /// It led; and why the connection ended.
    Leader { reason: String },
    /// It does not lead, and says who does if it knows.
    Follower { leader: Option<String> },
    /// Nobody answered.
    Nobody { reason: String },
}

/// What a connection to a coordinator needs.
pub(crate) struct Session<'a> {
    pub(crate) address: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) transport: &'a Transport,
    pub(crate) uplink: &'a Uplink,
}

impl Session<'_> {
    /// Connects, and does what the coordinator says until the connection ends.
    pub(crate) async fn run(&self, attempts: &mut Attempts, offer: &mut WorkerOffer) -> Met {
        let nobody = |reason: String| Met::Nobody { reason };
        let hello = Hello::new(Service::Worker, &offer.worker.0, self.cluster);
        let connection = match self.transport.connect(self.address, &hello).await {
            Ok(connection) => connection,
            Err(error) => return nobody(error.to_string()),
        };
        let Connection { mut reader, mut writer, .. } = connection;
        if let Err(error) = writer.write_message(&FromWorker::Register(offer.clone())).await {
            return nobody(error.to_string());
        }
        let silence = match tokio::time::timeout(WELCOME_WITHIN, reader.read_message::<ToWorker>()).await {
            Ok(Ok(Some(ToWorker::Welcome { term, silence_ms, fences }))) => {
                if let Err(reason) = attempts.on_leader(term) {
                    return nobody(reason);
                }
                for (job, generation) in &fences {
                    attempts.fence(job, *generation);
                }
                Duration::from_millis(silence_ms)
            }
            Ok(Ok(Some(ToWorker::NotLeader { leader }))) => return Met::Follower { leader },
            Ok(Ok(_)) => return nobody("it did not answer the registration".to_owned()),
            Ok(Err(error)) => return nobody(error.to_string()),
            Err(_) => return nobody("it did not answer the registration in time".to_owned()),
        };
        tracing::info!(coordinator = self.address, "joined");
        let words = self.uplink.connect();
        let told = Told { counters: attempts.counters(), following: attempts.following() };
        let reason = tokio::select! {
            reason = obey(&mut reader, attempts, offer, silence) => reason,
            reason = report(&mut writer, words, told) => reason,
        };
        self.uplink.disconnect();
        Met::Leader { reason }
    }
}

async fn obey(reader: &mut FrameReader, attempts: &mut Attempts, offer: &mut WorkerOffer, silence: Duration) -> String {
    loop {
        let message = match tokio::time::timeout(silence, reader.read_message::<ToWorker>()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return "it closed the connection".to_owned(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("nothing was heard of it for {} ms", silence.as_millis()),
        };
        match message {
            ToWorker::Welcome { .. } | ToWorker::NotLeader { .. } | ToWorker::Alive => {}
            ToWorker::Drain => offer.draining = true,
            ToWorker::Fence { job, generation } => attempts.fence(&job, generation),
            ToWorker::Deploy(order) => attempts.deploy(*order).await,
            ToWorker::Adopt { attempt, subtasks, complete } => attempts.adopt(&attempt, &subtasks, complete).await,
            ToWorker::Complete { attempt, epoch } => attempts.complete(&attempt, epoch),
            ToWorker::Follow(order) => attempts.follow(*order),
            ToWorker::Tell { attempt, subtask, message } => attempts.tell(&attempt, subtask, message).await,
        }
    }
}

/// What a heartbeat tells.
struct Told {
    counters: Counters,
    following: Option<Following>,
}

impl Told {
    fn heartbeat(&self) -> FromWorker {
        let followed = self.following.as_ref().map(Following::report);
        FromWorker::Heartbeat { counters: self.counters.read(), followed }
    }
}

/// Sends what there is to say, and now and then that the worker is alive, however busy its subtasks are.
async fn report(writer: &mut FrameWriter, mut words: mpsc::Receiver<FromWorker>, told: Told) -> String {
    let mut heartbeats = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        let message = tokio::select! {
            biased;
            _ = heartbeats.tick() => told.heartbeat(),
            message = words.recv() => match message {
                Some(message) => message,
                None => return "another connection took over".to_owned(),
            },
        };
        // What a subtask that ends has counted is known before its end is.
        let counted = is_end(&message).then(|| told.heartbeat());
        for message in counted.iter().chain([&message]) {
            if let Err(error) = writer.write_message(message).await {
                return error.to_string();
            }
        }
    }
}

fn is_end(message: &FromWorker) -> bool {
    let FromWorker::Report { event, .. } = message else { return false };
    matches!(event, FromSubtask::Finished { .. } | FromSubtask::Failed { .. })
}
