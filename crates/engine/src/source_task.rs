//! The task of a source subtask: reads its splits, tracks their watermarks, puts barriers into the stream where
//! the coordinator says, and runs the operators that are chained to it.

mod reading;
mod splits;

use std::sync::Arc;
use std::time::Duration;

use mainstem_core::ids::{Epoch, SplitId, SubtaskId};
use mainstem_core::protocol::{Barrier, FromSubtask, SplitProgress, SplitState, ToSubtask};
use tokio::sync::mpsc;

pub(crate) use self::reading::SourceInput;
use self::reading::{ReadEvent, Readers};
use self::splits::OwnedSplits;
use crate::chain::Chain;
use crate::error::EngineError;
use crate::source::SourceStage;
use crate::task::{Uploads, prepared};

/// How often idle splits are looked for, as a fraction of the idle time-out.
const IDLE_CHECKS: u32 = 4;

/// See the module.
pub(crate) struct SourceTask {
    pub(crate) subtask: SubtaskId,
    pub(crate) stage: SourceStage,
    pub(crate) chain: Chain,
    pub(crate) uploads: Uploads,
    pub(crate) control: mpsc::Receiver<ToSubtask>,
    pub(crate) events: mpsc::Sender<FromSubtask>,
    pub(crate) input: Arc<SourceInput>,
    /// Epochs up to this one are replayed exactly as recorded, before the source reads freely.
    pub(crate) replay_until: Option<Epoch>,
}

/// What the loop does next.
enum Next {
    Go,
    /// The coordinator has cancelled.
    Cancelled,
    /// The last barrier has been sent.
    Stopped,
}

/// The running state of the loop.
struct Running {
    task: SourceTask,
    splits: OwnedSplits,
    readers: Readers,
    /// A replayed epoch that is being read, with the splits that are still short of its end.
    replaying: Option<(Barrier, Vec<SplitId>)>,
    requested: bool,
    exhausted: bool,
}

impl SourceTask {
    /// Runs until the last barrier, or until the coordinator cancels. `Ok(true)` when it has ended as it should.
    pub(crate) async fn run(self) -> Result<bool, EngineError> {
        let readers = Readers::new(self.input.clone());
        let splits = OwnedSplits::new(self.stage.idle_timeout());
        let mut running = Running { task: self, splits, readers, replaying: None, requested: false, exhausted: false };
        let cancelled = running.run().await?;
        if cancelled {
            return Ok(false);
        }
        running.task.chain.finish().await?;
        running.task.uploads.drain().await.map(|()| true)
    }
}

impl Running {
    async fn run(&mut self) -> Result<bool, EngineError> {
        let idle_check = self.splits.idle_timeout().map_or(Duration::from_secs(3600), |t| t / IDLE_CHECKS);
        let mut idle_ticks = tokio::time::interval(idle_check.max(Duration::from_millis(1)));
        self.request_split().await;
        let mut preparing = self.task.chain.prepare();
        loop {
            let next = tokio::select! {
                biased;
                message = self.task.control.recv() => match message {
                    Some(message) => self.on_message(message).await?,
                    None => Next::Cancelled,
                },
                failed = self.task.uploads.failed() => return Err(failed),
                prepared = prepared(&mut preparing), if preparing.is_some() => {
                    prepared?;
                    preparing = None;
                    Next::Go
                }
                event = self.readers.next(), if preparing.is_none() => self.on_read(event).await?,
                _ = idle_ticks.tick() => {
                    self.splits.tick(idle_check);
                    self.advance().await?;
                    Next::Go
                }
            };
            match next {
                Next::Go => {}
                Next::Cancelled => return Ok(true),
                Next::Stopped => return Ok(false),
            }
        }
    }

    async fn on_message(&mut self, message: ToSubtask) -> Result<Next, EngineError> {
        match message {
            ToSubtask::InjectBarrier { barrier, last } => self.barrier(barrier, last).await,
            ToSubtask::AssignSplits { splits } => {
                self.requested = false;
                for state in splits {
                    self.add_split(state)?;
                }
                self.request_split().await;
                self.after_news().await
            }
            ToSubtask::UnassignedWatermark { bound } => {
                self.splits.bound_unassigned(bound);
                self.after_news().await
            }
            ToSubtask::NoMoreSplits => {
                self.splits.no_more();
                self.after_news().await
            }
            ToSubtask::ReplayTo { barrier, splits } => self.replay_to(barrier, splits).await,
            ToSubtask::Cancel => Ok(Next::Cancelled),
        }
    }

    fn add_split(&mut self, state: SplitState) -> Result<(), EngineError> {
        // While epochs are replayed, splits are read by `replay_to` only.
        if self.task.replay_until.is_none() {
            self.open(&state, None)?;
        }
        self.splits.add(state);
        Ok(())
    }

    fn open(&mut self, state: &SplitState, until: Option<String>) -> Result<(), EngineError> {
        match &state.progress {
            Some(SplitProgress::Finished) => Ok(()),
            Some(SplitProgress::Reading { position, .. }) => {
                self.readers.open(state.split.clone(), Some(position.clone()), until)
            }
            None => self.readers.open(state.split.clone(), None, until),
        }
    }

    async fn on_read(&mut self, event: ReadEvent) -> Result<Next, EngineError> {
        match event {
            // A source that keeps a pace says so with no rows; that is not activity.
            ReadEvent::Batch { rows, .. } if rows.num_rows() == 0 => Ok(Next::Go),
            ReadEvent::Batch { split, rows, changes, position } => {
                let watermark = self.splits.watermark_of(&split);
                let staged = self.task.stage.process(&rows, changes, watermark)?;
                self.splits.progress(&split, position, staged.watermark);
                if let Some(batch) = staged.batch {
                    self.task.chain.push(0, batch).await?;
                }
                self.advance().await?;
                Ok(Next::Go)
            }
            ReadEvent::Finished { split } => {
                if self.replaying.is_some() {
                    return self.on_replayed(&split).await;
                }
                self.splits.finish(&split);
                self.request_split().await;
                self.after_news().await
            }
            ReadEvent::Failed(error) => Err(error),
        }
    }

    async fn barrier(&mut self, barrier: Barrier, last: bool) -> Result<Next, EngineError> {
        let captured = self.task.chain.barrier(barrier, last).await?;
        let splits = Some((self.task.subtask.operator, self.splits.report()));
        self.task.uploads.submit(barrier.epoch, captured, splits).await?;
        Ok(if last { Next::Stopped } else { Next::Go })
    }

    /// Reads the splits exactly up to where a recorded epoch ended, then sends its barrier.
    async fn replay_to(&mut self, barrier: Barrier, ends: Vec<SplitState>) -> Result<Next, EngineError> {
        let mut short = Vec::new();
        for end in ends {
            let Some(owned) = self.splits.state(&end.split.id) else {
                return Err(EngineError::Bug(format!("split '{}' is replayed before it is assigned", end.split.id)));
            };
            if owned.progress == end.progress || owned.progress == Some(SplitProgress::Finished) {
                continue;
            }
            let until = match &end.progress {
                Some(SplitProgress::Reading { position, .. }) => Some(position.clone()),
                Some(SplitProgress::Finished) => None,
                None => continue,
            };
            let finishes = until.is_none();
            self.open(&owned, until)?;
            self.splits.set_replay_end(&end.split.id, finishes);
            short.push(end.split.id);
        }
        self.replaying = Some((barrier, short));
        self.replay_step().await
    }

    async fn on_replayed(&mut self, split: &SplitId) -> Result<Next, EngineError> {
        if self.splits.replay_finishes(split) {
            self.splits.finish(split);
        }
        if let Some((_, short)) = &mut self.replaying {
            short.retain(|id| id != split);
        }
        self.replay_step().await
    }

    async fn replay_step(&mut self) -> Result<Next, EngineError> {
        let Some((barrier, short)) = &self.replaying else { return Ok(Next::Go) };
        if !short.is_empty() {
            return Ok(Next::Go);
        }
        let barrier = *barrier;
        self.replaying = None;
        self.advance().await?;
        self.barrier(barrier, false).await?;
        if self.task.replay_until == Some(barrier.epoch) {
            self.task.replay_until = None;
            for state in self.splits.states() {
                self.open(&state, None)?;
            }
            self.request_split().await;
        }
        self.after_news().await
    }

    /// Asks for a split when there is room for one.
    async fn request_split(&mut self) {
        let room = self.splits.active() < self.task.input.splits_at_once();
        if room && !self.requested && !self.splits.is_complete() && self.task.replay_until.is_none() {
            self.requested = true;
            let request = FromSubtask::RequestSplit { subtask: self.task.subtask };
            // Without a coordinator the control channel closes as well, which ends the task.
            let _ = self.task.events.send(request).await;
        }
    }

    async fn after_news(&mut self) -> Result<Next, EngineError> {
        self.advance().await?;
        if self.splits.is_exhausted() && !self.exhausted && self.task.replay_until.is_none() {
            self.exhausted = true;
            let _ = self.task.events.send(FromSubtask::InputExhausted { subtask: self.task.subtask }).await;
        }
        Ok(Next::Go)
    }

    /// Sends the watermark on when it has advanced.
    async fn advance(&mut self) -> Result<(), EngineError> {
        match self.splits.advance() {
            Some(status) => self.task.chain.watermark(status).await,
            None => Ok(()),
        }
    }
}
