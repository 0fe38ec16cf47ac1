//! The task of a source subtask: reads its splits, tracks their watermarks, puts barriers into the stream where
//! the coordinator says, and runs the operators that are chained to it.

mod reading;
mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstem_connectors::{Phase, ReaderEvent};
use mainstem_core::alignment::BarrierMark;
use mainstem_core::ids::{Epoch, SplitId, SubtaskId};
use mainstem_core::owned_splits::{OwnedSplits, Piece};
use mainstem_core::protocol::{
    Barrier, FromSubtask, OperatorSnapshot, ReplayPart, SourceStatus, SplitProgress, SplitState, ToSubtask,
};
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{Instrument, error_span};

use self::reading::Readers;
pub(crate) use self::reading::SourceInput;
use self::reports::{REPORT_INTERVAL, WatermarkReports};
use crate::chain::Chain;
use crate::error::EngineError;
use crate::markers::Markers;
use crate::source::SourceStage;
use crate::task::{Uploads, prepared};
use crate::uploader::{CaptureTimes, Upload};
use crate::watermark_alignment::Member;

/// A timer that is not wanted.
const NEVER: Duration = Duration::from_secs(3600);
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
    /// The watermark that the source had reached in the checkpoint that was restored.
    pub(crate) start_watermark: Timestamp,
    /// Whether subtasks of this or another source may have to follow this one, or it them.
    pub(crate) reports_watermark: bool,
    /// Set where it keeps together with other sources or subtasks.
    pub(crate) aligned: Option<Member>,
    /// Set where the checkpoint that was restored holds elements in flight: sent first, it keeps new rows behind them.
    pub(crate) resume: Option<BarrierMark>,
    /// When a latency marker is due.
    pub(crate) markers: Markers,
    /// The time of day.
    pub(crate) clock: Arc<dyn Clock>,
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
    reports: WatermarkReports,
    /// The barrier of a replayed epoch that is being read.
    replaying: Option<Barrier>,
    /// The last epoch that was ended here; 0 before the first.
    last_barrier: Epoch,
    requested: bool,
    exhausted: bool,
    copied: Copied,
    /// Where the splits stood at the end of the epochs whose checkpoints may be restored, where somebody cares.
    positions: BTreeMap<Epoch, Vec<(SplitId, String)>>,
}

impl SourceTask {
    /// Runs until the last barrier, or until the coordinator cancels. `Ok(true)` when it has ended as it should.
    pub(crate) async fn run(self) -> Result<bool, EngineError> {
        let readers = Readers::new(self.input.clone(), self.clock.clone());
        let splits = OwnedSplits::new(self.stage.idle_timeout(), self.start_watermark, self.replay_until.is_some());
        let reports = WatermarkReports::new(self.subtask, self.events.clone());
        let (requested, exhausted, replaying, last_barrier) = (false, false, None, Epoch(0));
        let positions = BTreeMap::new();
        let copied = Copied::default();
        let mut running = Running {
            task: self,
            splits,
            readers,
            reports,
            replaying,
            last_barrier,
            requested,
            exhausted,
            copied,
            positions,
        };
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
        let idle_check = self.task.stage.idle_timeout().map_or(NEVER, |timeout| timeout / IDLE_CHECKS);
        let mut idle_ticks = ticks(idle_check.max(Duration::from_millis(1)));
        let mut report_ticks = ticks(if self.task.reports_watermark { REPORT_INTERVAL } else { NEVER });
        if let Some(resume) = self.task.resume {
            self.task.chain.pass_on(resume).await?;
        }
        let mut others = self.task.aligned.as_ref().map(Member::news);
        // What was sent before the checkpoint holds from the first row.
        self.advance().await?;
        self.request_split().await;
        let mut preparing = self.task.chain.prepare();
        loop {
            // While receivers have no room for more, nothing is read and no watermark sent; barriers go out all the same.
            let ready = self.is_ready();
            self.task.chain.note_waiting(ready);
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
                room = self.task.chain.room(!ready) => {
                    room?;
                    self.after_news().await?
                }
                event = self.readers.next(), if ready && preparing.is_none() => {
                    let (event, read_at) = event?;
                    self.on_read(event, read_at).await?
                },
                () = changed(&mut others), if self.splits.holds_any() => {
                    self.align();
                    Next::Go
                }
                // Time in which nothing is read is not silence of the splits.
                _ = idle_ticks.tick(), if ready => {
                    self.splits.tick(idle_check);
                    self.advance().await?;
                    Next::Go
                }
                _ = report_ticks.tick() => {
                    self.reports.flush();
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
        self.task.chain.note_working();
        match message {
            // A new leader does not know what has come of the words of the one before.
            ToSubtask::InjectBarrier { barrier, .. } if barrier.epoch <= self.last_barrier => Ok(Next::Go),
            ToSubtask::InjectBarrier { barrier, last } => self.barrier(barrier, last).await,
            ToSubtask::AssignSplits { after, .. } if after < self.last_barrier => Ok(Next::Go),
            ToSubtask::AssignSplits { mut splits, .. } => {
                splits.retain(|state| !self.splits.holds(&state.split.id));
                self.requested &= splits.is_empty();
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
            ToSubtask::FollowWatermark { watermark } => {
                self.splits.follow(watermark);
                self.reports.took_message();
                self.after_news().await
            }
            ToSubtask::Retired { below } => {
                self.retire(below);
                Ok(Next::Go)
            }
            ToSubtask::ReplayTo { barrier, part } => self.replay_to(barrier, part).await,
            ToSubtask::Resume => {
                self.repeat_wishes().await;
                Ok(Next::Go)
            }
            ToSubtask::Cancel => Ok(Next::Cancelled),
        }
    }

    /// Says again what only this subtask knows.
    async fn repeat_wishes(&mut self) {
        let subtask = self.task.subtask;
        if self.requested {
            let _ = self.task.events.send(FromSubtask::RequestSplit { subtask }).await;
        }
        if self.exhausted {
            let _ = self.task.events.send(FromSubtask::InputExhausted { subtask }).await;
        }
        self.reports.repeat();
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

    async fn on_read(&mut self, event: ReaderEvent, read_at: Timestamp) -> Result<Next, EngineError> {
        self.task.chain.note_working();
        match event {
            ReaderEvent::Batch { split, rows, changes, rejected, origins, phase, position } => {
                let screened = self.task.stage.screen.screen(&split, rows, changes, rejected, origins.as_ref())?;
                if let Some(letters) = screened.letters {
                    self.task.chain.push_aside(letters).await?;
                }
                let (rows, changes) = (screened.rows, screened.changes);
                // A source that keeps a pace says so with no rows; that is not activity. Records that were rejected are: where they
                // end must be known even if the split has nothing else, or a restart would send them aside once more.
                if rows.num_rows() == 0 && !screened.has_rejected {
                    self.splits.note_position(&split, position);
                    return Ok(Next::Go);
                }
                let watermark = self.splits.wake(&split);
                if rows.num_rows() == 0 {
                    let watermark = self.copied.time_after(&split, phase, watermark, watermark);
                    self.splits.progress(&split, position, watermark);
                    return Ok(Next::Go);
                }
                let staged = self.task.stage.process(&rows, changes, watermark, phase == Phase::Log)?;
                let watermark = self.copied.time_after(&split, phase, watermark, staged.watermark);
                self.splits.progress(&split, position, watermark);
                if let Some(batch) = staged.batch {
                    self.task.chain.push(0, batch, None).await?;
                }
                self.mark(read_at).await?;
                self.advance().await?;
                Ok(Next::Go)
            }
            ReaderEvent::SplitFinished { split } => {
                self.readers.finished(&split);
                if self.replaying.is_some() {
                    return self.on_replayed(&split).await;
                }
                self.splits.finish(&split);
                self.request_split().await;
                self.after_news().await
            }
        }
    }

    /// Sends a latency marker behind rows that were read then, if one is due. Rows of a replay were read long before.
    async fn mark(&mut self, read_at: Timestamp) -> Result<(), EngineError> {
        if self.task.replay_until.is_some() {
            return Ok(());
        }
        match self.task.markers.due(read_at) {
            Some(marker) => self.task.chain.mark(marker).await,
            None => Ok(()),
        }
    }

    async fn barrier(&mut self, barrier: Barrier, last: bool) -> Result<Next, EngineError> {
        self.last_barrier = barrier.epoch;
        let began = self.task.chain.monotonic();
        // What the rows of the epoch have brought about belongs to it, above all that the input has ended.
        self.send_watermark().await?;
        let span = error_span!("checkpoint", epoch = barrier.epoch.0);
        let chain = self.task.chain.barrier(BarrierMark::new(barrier, last)).instrument(span).await?;
        let ended = self.splits.end_epoch();
        if self.readers.keep_anything() {
            self.positions.insert(barrier.epoch, positions(&ended));
        }
        let source = Some((self.task.subtask.operator, ended));
        let times = CaptureTimes { began, ended: self.task.chain.monotonic() };
        let upload = Upload { epoch: barrier.epoch, chain, source, alignment_ms: None, times, overtaken: None };
        self.task.uploads.submit(upload).await?;
        Ok(if last { Next::Stopped } else { Next::Go })
    }

    /// Lets go what only checkpoints before an epoch need.
    fn retire(&mut self, below: Epoch) {
        let kept = self.positions.split_off(&below);
        self.positions = kept;
        // Without that very epoch nothing is known: it is of an attempt before.
        if let Some(positions) = self.positions.get(&below) {
            self.readers.release(positions);
        }
    }

    /// Reads the splits exactly up to where a recorded epoch ended, then sends its barrier.
    async fn replay_to(&mut self, barrier: Barrier, part: ReplayPart) -> Result<Next, EngineError> {
        let pieces = self.splits.replay(part).map_err(EngineError::Bug)?;
        self.replaying = Some(barrier);
        pieces.into_iter().try_for_each(|piece| self.open_piece(piece))?;
        self.replay_step().await
    }

    fn open_piece(&mut self, piece: Piece) -> Result<(), EngineError> {
        self.open(&piece.from, piece.until)
    }

    async fn on_replayed(&mut self, split: &SplitId) -> Result<Next, EngineError> {
        if let Some(piece) = self.splits.piece_read(split).map_err(EngineError::Bug)? {
            self.open_piece(piece)?;
        }
        self.replay_step().await
    }

    async fn replay_step(&mut self) -> Result<Next, EngineError> {
        let Some(barrier) = self.replaying.filter(|_| self.splits.is_epoch_read()) else { return Ok(Next::Go) };
        self.replaying = None;
        self.advance().await?;
        self.barrier(barrier, false).await?;
        if self.task.replay_until == Some(barrier.epoch) {
            self.task.replay_until = None;
            self.splits.end_replay();
            for state in self.splits.states() {
                self.open(&state, None)?;
            }
            self.request_split().await;
        }
        self.after_news().await
    }

    /// Asks for a split when there is room for one.
    async fn request_split(&mut self) {
        let room = self.splits.unfinished() < self.task.input.splits_at_once();
        if room && !self.requested && !self.splits.is_complete() && self.task.replay_until.is_none() {
            self.requested = true;
            let request = FromSubtask::RequestSplit { subtask: self.task.subtask };
            // Without a coordinator the control channel closes as well, which ends the task.
            let _ = self.task.events.send(request).await;
        }
    }

    async fn send_watermark(&mut self) -> Result<(), EngineError> {
        match self.splits.advance() {
            Some(watermark) => {
                self.task.stage.show_watermark(watermark);
                self.task.chain.watermark(watermark, None).await
            }
            None => Ok(()),
        }
    }

    /// Whether the receivers have room for more.
    fn is_ready(&mut self) -> bool {
        self.task.chain.is_ready()
    }

    async fn after_news(&mut self) -> Result<Next, EngineError> {
        self.task.chain.note_working();
        self.advance().await?;
        if self.splits.is_exhausted() && !self.exhausted && self.task.replay_until.is_none() {
            self.exhausted = true;
            let _ = self.task.events.send(FromSubtask::InputExhausted { subtask: self.task.subtask }).await;
        }
        Ok(Next::Go)
    }

    /// Sends the watermark on when it has advanced. Left for later, at the latest for the next barrier, while receivers
    /// have no room.
    async fn advance(&mut self) -> Result<(), EngineError> {
        if self.is_ready() {
            self.send_watermark().await?;
        }
        if self.task.reports_watermark && self.task.replay_until.is_none() {
            self.reports.note(self.splits.status());
        }
        self.align();
        Ok(())
    }

    /// Shows the others how far this subtask is, and holds the splits that are too far ahead of them.
    fn align(&mut self) {
        let Some(member) = self.task.aligned.as_ref().filter(|_| self.task.replay_until.is_none()) else { return };
        member.show(match self.splits.status() {
            SourceStatus::Active { watermark } => Some(watermark),
            SourceStatus::Idle { .. } | SourceStatus::Ended { .. } => None,
        });
        for (split, is_held) in self.splits.hold_ahead_of(member.bound()) {
            self.readers.hold(&split, is_held);
        }
    }
}

/// The greatest watermark that the rows of each copy under way have brought. A copy that is interrupted begins anew, so it is
/// part of no checkpoint.
#[derive(Default)]
struct Copied(BTreeMap<SplitId, Timestamp>);

impl Copied {
    /// The watermark of a split after rows before which it was `before`, and which have brought `brought`.
    fn time_after(&mut self, split: &SplitId, phase: Phase, before: Timestamp, brought: Timestamp) -> Timestamp {
        if phase == Phase::Log {
            return brought;
        }
        let greatest = self.0.remove(split).map_or(brought, |of_copy| of_copy.max(brought));
        if phase == Phase::CopyEnd {
            return greatest;
        }
        self.0.insert(split.clone(), greatest);
        before
    }
}

/// Where splits are read on.
fn positions(snapshot: &OperatorSnapshot) -> Vec<(SplitId, String)> {
    let position = |state: &SplitState| match &state.progress {
        Some(SplitProgress::Reading { position, .. }) => Some((state.split.id.clone(), position.clone())),
        _ => None,
    };
    snapshot.splits.iter().filter_map(position).collect()
}

/// Ready when other members have got on; never where there are none.
async fn changed(others: &mut Option<watch::Receiver<()>>) {
    let Some(others) = others else { return std::future::pending().await };
    if others.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A timer whose pauses are never cut short: time in which the task was held up by its receivers, and so did
/// not listen to its splits, is not silence of theirs.
fn ticks(pause: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
