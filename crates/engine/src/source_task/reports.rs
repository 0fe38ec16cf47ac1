//! What a source subtask tells the coordinator of its watermark, so that idle subtasks can follow active ones.
//! Never waits: while the coordinator is behind, reports are left out, and the next one says all.

use std::mem::discriminant;
use std::time::Duration;

use mainstem_core::ids::SubtaskId;
use mainstem_core::protocol::{FromSubtask, SourceStatus};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Least time between two reports, except where the subtask becomes idle or active.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct WatermarkReports {
    subtask: SubtaskId,
    events: mpsc::Sender<FromSubtask>,
    /// The newest status; none before the first.
    status: Option<SourceStatus>,
    /// The status that was sent last.
    sent: Option<SourceStatus>,
    /// Whether the coordinator waits to hear that its last message has been taken.
    owes_answer: bool,
}

impl WatermarkReports {
    /// Nothing has been said yet.
    pub(crate) fn new(subtask: SubtaskId, events: mpsc::Sender<FromSubtask>) -> Self {
        WatermarkReports { subtask, events, status: None, sent: None, owes_answer: false }
    }

    /// Takes the newest status. Becoming idle or active, and the end, are said at once.
    pub(crate) fn note(&mut self, status: SourceStatus) {
        self.status = Some(status);
        if self.sent.is_none_or(|sent| discriminant(&sent) != discriminant(&status)) {
            self.flush();
        }
    }

    /// A watermark to follow has come.
    pub(crate) fn took_message(&mut self) {
        self.owes_answer = true;
    }

    /// Somebody else listens from here on, to whom nothing has been said.
    pub(crate) fn repeat(&mut self) {
        self.sent = None;
        self.flush();
    }

    /// Says what is still to be said. Called at each [`REPORT_INTERVAL`].
    pub(crate) fn flush(&mut self) {
        let Some(status) = self.status.filter(|status| self.owes_answer || self.sent != Some(*status)) else { return };
        let report = FromSubtask::SourceWatermark { subtask: self.subtask, status };
        // Without a coordinator the control channel closes as well, which ends the task.
        if !matches!(self.events.try_send(report), Err(TrySendError::Full(_))) {
            self.sent = Some(status);
            self.owes_answer = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::OperatorId;
    use mainstem_core::time::Timestamp;

    use super::*;

    const IDLE: SourceStatus = SourceStatus::Idle { greatest: Timestamp(9) };

    fn active(watermark: i64) -> SourceStatus {
        SourceStatus::Active { watermark: Timestamp(watermark) }
    }

    fn reports(room: usize) -> (WatermarkReports, mpsc::Receiver<FromSubtask>) {
        let (events, receiver) = mpsc::channel(room);
        (WatermarkReports::new(SubtaskId { operator: OperatorId(1), index: 0 }, events), receiver)
    }

    fn taken(receiver: &mut mpsc::Receiver<FromSubtask>) -> Vec<SourceStatus> {
        let mut taken = Vec::new();
        while let Ok(FromSubtask::SourceWatermark { status, .. }) = receiver.try_recv() {
            taken.push(status);
        }
        taken
    }

    #[test]
    fn changes_of_kind_are_said_at_once_and_progress_now_and_then() {
        let (mut reports, mut receiver) = reports(16);
        reports.note(active(1));
        assert_eq!(taken(&mut receiver), vec![active(1)]);
        reports.note(active(2));
        reports.note(active(3));
        assert_eq!(taken(&mut receiver), vec![]);
        reports.flush();
        reports.flush();
        assert_eq!(taken(&mut receiver), vec![active(3)]);
        reports.note(IDLE);
        assert_eq!(taken(&mut receiver), vec![IDLE]);
        reports.took_message();
        reports.note(IDLE);
        assert_eq!(taken(&mut receiver), vec![]);
        reports.flush();
        assert_eq!(taken(&mut receiver), vec![IDLE], "the answer");
    }

    #[test]
    fn a_new_listener_is_told_where_the_subtask_stands() {
        let (mut reports, mut receiver) = reports(16);
        reports.repeat();
        assert_eq!(taken(&mut receiver), vec![], "it does not know itself");
        reports.note(IDLE);
        assert_eq!(taken(&mut receiver), vec![IDLE]);
        reports.repeat();
        assert_eq!(taken(&mut receiver), vec![IDLE]);
    }

    #[test]
    fn the_newest_is_said_when_the_coordinator_has_room_again() {
        let (mut reports, mut receiver) = reports(1);
        reports.note(active(1));
        reports.note(IDLE);
        reports.flush();
        assert_eq!(taken(&mut receiver), vec![active(1)]);
        reports.flush();
        assert_eq!(taken(&mut receiver), vec![IDLE]);
    }
}
