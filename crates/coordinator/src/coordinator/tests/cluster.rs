//! Subtasks that outlive the process which drives them, and processes that end at a given step: with a record that is
//! written or not, with messages to the subtasks on their way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mainstem_core::cluster::KeptReports;
use mainstem_core::cluster::messages::SlotFiles;
use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::protocol::{FromSubtask, ToSubtask};
use tokio::sync::mpsc;

use crate::meta_log::{JobRecord, MetaLog, MetaLogError, Record};
use crate::spec::{Attempt, AttemptHold};

/// Where a process ends: at its so-and-so-many-th step of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record is about to be written.
    BeforeRecord(u64),
    /// A record was written, which nobody has been told.
    AfterRecord(u64),
    /// A message to a subtask, which is lost, as are those after it.
    Message(u64),
    /// A report of a subtask, which is lost.
    Report(u64),
}

/// Counts a process's steps and ends it at one of them.
#[derive(Debug)]
pub(super) struct Steps {
    last: Step,
    crash: mpsc::Sender<()>,
    records: AtomicU64,
    messages: AtomicU64,
    reports: AtomicU64,
}

impl Steps {
    pub(super) fn new(last: Step, crash: mpsc::Sender<()>) -> Steps {
        Steps { last, crash, records: AtomicU64::new(0), messages: AtomicU64::new(0), reports: AtomicU64::new(0) }
    }

    /// Ends the process where this is its last step; gives whether it has ended.
    fn is_over(&self, here: Step) -> bool {
        if here == self.last {
            let _ = self.crash.try_send(());
        }
        match (here, self.last) {
            (Step::Message(here), Step::Message(last)) | (Step::Report(here), Step::Report(last)) => here >= last,
            _ => here == self.last,
        }
    }
}

fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

/// A log that ends the process at a record, if it is told to, and never in the middle of one: what a dropped process has
/// begun to write is written before the next one opens the file.
pub(super) struct CountingLog {
    pub(super) inner: Arc<tokio::sync::Mutex<Box<dyn MetaLog>>>,
    pub(super) state: JobRecord,
    pub(super) steps: Option<Arc<Steps>>,
}

#[async_trait]
impl MetaLog for CountingLog {
    fn state(&self) -> &JobRecord {
        &self.state
    }

    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        let number = self.steps.as_ref().map_or(0, |steps| next(&steps.records));
        let is_over = |step: Step| self.steps.as_ref().is_some_and(|steps| steps.is_over(step));
        if is_over(Step::BeforeRecord(number)) {
            std::future::pending::<()>().await;
        }
        let mut inner = self.inner.clone().lock_owned().await;
        let written = record.clone();
        tokio::spawn(async move { inner.append(written).await }).await.unwrap()?;
        self.state.apply(record);
        if is_over(Step::AfterRecord(number)) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The workers, as one.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    generation: Generation,
    subtasks: BTreeMap<SubtaskId, mpsc::Sender<ToSubtask>>,
    kept: KeptReports,
    /// How many processes have driven it; only the newest is obeyed, and hears what there is to say.
    leaders: u64,
    listener: Option<(mpsc::Sender<FromSubtask>, Option<Arc<Steps>>)>,
}

impl Cluster {
    /// An attempt begins to run, in the place of the one before.
    pub(super) fn take_in(self: &Arc<Self>, generation: Generation, attempt: Attempt) {
        let Attempt { subtasks, mut events, .. } = attempt;
        let running = Running { generation, subtasks, kept: KeptReports::new(generation), leaders: 0, listener: None };
        *self.running.lock().unwrap() = Some(running);
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let listener = {
                    let mut running = cluster.running.lock().unwrap();
                    let Some(running) = running.as_mut().filter(|r| r.generation == generation) else { return };
                    running.kept.note(&event);
                    running.listener.clone()
                };
                let Some((listener, steps)) = listener else { continue };
                if steps.is_none_or(|steps| !steps.is_over(Step::Report(next(&steps.reports)))) {
                    let _ = listener.send(event).await;
                }
            }
        });
    }

    /// A process comes to drive the attempt.
    pub(super) fn lend(self: &Arc<Self>, generation: Generation, steps: Option<Arc<Steps>>) -> Result<Attempt, String> {
        let (sender, events) = mpsc::channel(256);
        let mut held = self.running.lock().unwrap();
        let running = held.as_mut().filter(|r| r.generation == generation).ok_or("it does not run")?;
        running.leaders += 1;
        for report in running.kept.repeat().unwrap() {
            sender.try_send(report).unwrap();
        }
        running.listener = Some((sender, steps.clone()));
        let (leader, subtasks) = (running.leaders, running.subtasks.keys().copied());
        let relays =
            subtasks.map(|subtask| (subtask, self.relay(generation, leader, subtask, steps.clone()))).collect();
        let hold = Lent { cluster: self.clone(), generation };
        Ok(Attempt { subtasks: relays, events, slots: Some(Vec::new()), hold: Box::new(hold) })
    }

    pub(super) fn complete(&self, epoch: Epoch) {
        if let Some(running) = self.running.lock().unwrap().as_mut() {
            running.kept.on_complete(epoch);
        }
    }

    /// The way of a process to a subtask.
    fn relay(
        self: &Arc<Self>,
        generation: Generation,
        leader: u64,
        subtask: SubtaskId,
        steps: Option<Arc<Steps>>,
    ) -> mpsc::Sender<ToSubtask> {
        let (sender, mut messages) = mpsc::channel::<ToSubtask>(64);
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if steps.as_ref().is_some_and(|steps| steps.is_over(Step::Message(next(&steps.messages)))) {
                    continue;
                }
                let running = cluster.running.lock().unwrap();
                let current = running.as_ref().filter(|r| r.generation == generation && r.leaders == leader);
                if let Some(sender) = current.and_then(|r| r.subtasks.get(&subtask)) {
                    let _ = sender.try_send(message);
                }
            }
        });
        sender
    }
}

/// A process's hold on the subtasks.
struct Lent {
    cluster: Arc<Cluster>,
    generation: Generation,
}

impl AttemptHold for Lent {
    fn complete(&self, epoch: Epoch, _files: &SlotFiles) {
        self.cluster.complete(epoch);
    }

    fn end(&mut self) {
        self.cluster.running.lock().unwrap().take_if(|running| running.generation == self.generation);
    }
}
