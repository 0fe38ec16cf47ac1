//! Bugs that other systems had, to be put back on purpose: the simulation must find each of them, or it proves little.
//! A machine asks [`is_put_back`] at the place where the bug would be; outside of this crate's own tests the answer is
//! a constant no.

/// A bug that is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Output is published before it is recorded that its epoch is complete.
    CommitBeforeRecord,
    /// The last epoch of a job is not published.
    LastEpochNotPublished,
    /// A later epoch is published before an earlier one.
    CommitsOvertake,
    /// A report that comes twice counts for a subtask that has not reported.
    WrongSubtaskCounted,
    /// A late report of an older attempt counts in the newer one.
    OlderReportCounts,
    /// Files that newer checkpoints share are deleted with an old one.
    SharedFilesDeleted,
    /// An epoch that is run again is published again.
    ReplayPublishedAgain,
    /// The time of day goes back with the clock of the leader.
    ClockGoesBack,
    /// Rows behind a barrier are taken while other inputs have still to deliver theirs.
    RowsOvertakeBarrier,
    /// A split that is handed out around a barrier is in no part of the checkpoint.
    SplitLostAtBarrier,
    /// Splits that were restored and wait are not part of the next checkpoint.
    RestoredSplitsForgotten,
    /// Finished splits are handed out again after a restore.
    FinishedSplitsReadAgain,
    /// A key group lies with another subtask than its state.
    KeyGroupElsewhere,
    /// A split that comes back from being idle is not raised to what its subtask has sent.
    ReturningSplitNotRaised,
    /// A subtask that is idle says that it is at the end of time.
    IdleIsEndOfTime,
    /// The watermark is not restored.
    WatermarkNotRestored,
    /// The fastest split of a subtask sets its watermark.
    FastestSplitLeads,
    /// A later wish of the user takes the place of a stronger one.
    WishOverwritten,
    /// A job that has finished can be started again.
    FinishedJobRunsAgain,
    /// Records of a driver are taken after a newer attempt has begun.
    OlderDriverWrites,
    /// A worker obeys a leader of an older term.
    OlderLeaderObeyed,
    /// A worker starts an attempt that is older than one that it knows.
    OlderAttemptStarts,
    /// Orphans are looked for although a manifest cannot be read that would say what it names.
    #[cfg(test)]
    CleanUpBesideDamage,
    /// A recovery takes an epoch for published without doing so.
    #[cfg(test)]
    RecoveryDoesNotPublish,
    /// A failed publication is passed over.
    #[cfg(test)]
    FailedCommitSkipped,
    /// A new leader's driver begins from what this coordinator knew before.
    #[cfg(test)]
    LeaderTrustsOldState,
}

/// Whether the bug is put back.
#[cfg(not(test))]
pub(crate) const fn is_put_back(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PUT_BACK: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether the bug is put back on this thread.
#[cfg(test)]
pub(crate) fn is_put_back(bug: Bug) -> bool {
    PUT_BACK.get() == Some(bug)
}

/// Puts a bug back on this thread, or takes it out.
#[cfg(test)]
pub(crate) fn put_back(bug: Option<Bug>) {
    PUT_BACK.set(bug);
}
