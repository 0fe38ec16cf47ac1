//! The life of a job: its states, which may follow which, and what follows a failure. Called by the driver of
//! the job, which reports what happened and does what comes back. The legal transitions stand in one table,
//! [`JobState::may_become`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::Failure;
use crate::retry::{Backoff, RetryPolicy};
use crate::time::Timestamp;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Known, nothing done yet.
    Created,
    /// An attempt is being set up: recovery, commits that were left open, deployment.
    Starting,
    /// An attempt runs.
    Running,
    /// The last checkpoint of a stop that was asked for is being taken.
    Stopping,
    /// The last checkpoint before a change of parallelism is being taken.
    Rescaling,
    /// An attempt has failed, the next one comes after a wait.
    Restarting,
    /// All input has been read and all output is visible.
    Finished,
    /// Stopped on request; can be started again and goes on where it stopped.
    Stopped,
    /// Cannot go on by itself; can be started again when the cause is mended.
    Failed,
}

impl JobState {
    /// Every state, for tests and listings.
    pub const ALL: [JobState; 9] = [
        JobState::Created,
        JobState::Starting,
        JobState::Running,
        JobState::Stopping,
        JobState::Rescaling,
        JobState::Restarting,
        JobState::Finished,
        JobState::Stopped,
        JobState::Failed,
    ];

    /// Whether `next` may follow this state. A finished job never runs again: it would publish its output a
    /// second time.
    #[must_use]
    pub fn may_become(self, next: JobState) -> bool {
        use JobState::{Created, Failed, Finished, Rescaling, Restarting, Running, Starting, Stopped, Stopping};
        match self {
            Created => matches!(next, Starting | Stopped | Failed),
            Starting => matches!(next, Running | Restarting | Finished | Stopped | Failed),
            Running => matches!(next, Stopping | Rescaling | Restarting | Finished | Stopped | Failed),
            Stopping => matches!(next, Restarting | Finished | Stopped | Failed),
            Rescaling => matches!(next, Starting | Stopping | Restarting | Finished | Stopped | Failed),
            Restarting => matches!(next, Starting | Stopped | Failed),
            Stopped | Failed => next == Starting,
            Finished => false,
        }
    }

    /// Whether the job stays in this state until somebody starts it again.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, JobState::Finished | JobState::Stopped | JobState::Failed)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobState::Created => "created",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Stopping => "stopping",
            JobState::Rescaling => "rescaling",
            JobState::Restarting => "restarting",
            JobState::Finished => "finished",
            JobState::Stopped => "stopped",
            JobState::Failed => "failed",
        })
    }
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// Somebody wants it to run.
    Start,
    /// The attempt runs.
    Deployed,
    /// Somebody wants it to take a last checkpoint and stop.
    StopRequested,
    /// Somebody wants it to go on at another parallelism.
    RescaleRequested,
    /// Somebody wants it to stop now, without a checkpoint.
    CancelRequested,
    /// The attempt, or its set-up, has failed. `random` spreads the wait, see [`Backoff::on_failure`].
    AttemptFailed {
        /// The root cause.
        failure: Failure,
        /// Any number.
        random: u64,
    },
    /// The wait before the next attempt is over.
    WaitOver,
    /// All input has been read and all output is visible.
    InputEnded,
    /// The last checkpoint of a stop, or before a change of parallelism, is complete and its output visible.
    LastCheckpointCommitted,
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobCommand {
    /// Set up an attempt.
    StartAttempt,
    /// Ask the running attempt for its last checkpoint.
    TakeLastCheckpoint,
    /// End the running attempt at once.
    CancelAttempt,
    /// Report [`JobEvent::WaitOver`] after so many milliseconds.
    Wait {
        /// Length of the wait.
        ms: u64,
    },
    /// The job has ended in its present state; with the cause where it failed.
    End {
        /// Why it failed.
        failure: Option<Failure>,
    },
}

/// The life cycle of one job within one process.
#[derive(Clone, Debug)]
pub struct JobLifecycle {
    state: JobState,
    stop_requested: bool,
    restarts: u32,
    backoff: Backoff,
}

impl JobLifecycle {
    /// A job that was created and not started.
    #[must_use]
    pub fn new(restart: RetryPolicy) -> JobLifecycle {
        let backoff = Backoff::new(restart);
        JobLifecycle { state: JobState::Created, stop_requested: false, restarts: 0, backoff }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.state
    }

    /// Attempts that were followed by another one.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes an event at `now` (a time that never steps back) and gives what to do, in order. An event that
    /// means nothing in the present state gives nothing: it crossed a transition on its way.
    pub fn on(&mut self, now: Timestamp, event: JobEvent) -> Vec<JobCommand> {
        match event {
            JobEvent::Start | JobEvent::WaitOver => match self.state {
                JobState::Created | JobState::Restarting => {
                    self.become_state(JobState::Starting);
                    vec![JobCommand::StartAttempt]
                }
                _ => Vec::new(),
            },
            JobEvent::Deployed => self.on_deployed(),
            JobEvent::StopRequested => self.on_stop(),
            JobEvent::RescaleRequested => self.on_rescale(),
            JobEvent::CancelRequested => self.on_cancel(),
            JobEvent::AttemptFailed { failure, random } => self.on_failure(now, failure, random),
            JobEvent::InputEnded => self.end(JobState::Finished, None),
            JobEvent::LastCheckpointCommitted if self.state == JobState::Rescaling => {
                self.become_state(JobState::Starting);
                vec![JobCommand::StartAttempt]
            }
            // Nobody wants it to stop: it was to stop with a savepoint, which has failed.
            JobEvent::LastCheckpointCommitted if self.state == JobState::Running => {
                self.become_state(JobState::Restarting);
                self.become_state(JobState::Starting);
                vec![JobCommand::StartAttempt]
            }
            JobEvent::LastCheckpointCommitted => self.end(JobState::Stopped, None),
        }
    }

    fn on_deployed(&mut self) -> Vec<JobCommand> {
        if self.state != JobState::Starting {
            return Vec::new();
        }
        self.become_state(JobState::Running);
        // A stop that came while the attempt was set up.
        if self.stop_requested { self.on_stop() } else { Vec::new() }
    }

    /// An attempt that does not run yet is set up anew by the driver, without a checkpoint.
    fn on_rescale(&mut self) -> Vec<JobCommand> {
        if self.state != JobState::Running {
            return Vec::new();
        }
        self.become_state(JobState::Rescaling);
        vec![JobCommand::TakeLastCheckpoint]
    }

    fn on_stop(&mut self) -> Vec<JobCommand> {
        self.stop_requested = true;
        match self.state {
            JobState::Running => {
                self.become_state(JobState::Stopping);
                vec![JobCommand::TakeLastCheckpoint]
            }
            // Its checkpoint is the last one.
            JobState::Rescaling => {
                self.become_state(JobState::Stopping);
                Vec::new()
            }
            // Nothing runs, so there is nothing that a checkpoint could save.
            JobState::Created | JobState::Restarting => self.end(JobState::Stopped, None),
            _ => Vec::new(),
        }
    }

    fn on_cancel(&mut self) -> Vec<JobCommand> {
        if self.state.is_end() {
            return Vec::new();
        }
        let runs = self.runs();
        let mut commands = if runs { vec![JobCommand::CancelAttempt] } else { Vec::new() };
        commands.extend(self.end(JobState::Stopped, None));
        commands
    }

    fn on_failure(&mut self, now: Timestamp, failure: Failure, random: u64) -> Vec<JobCommand> {
        if !self.runs() {
            return Vec::new();
        }
        if !failure.retryable {
            return self.end(JobState::Failed, Some(failure));
        }
        let Some(ms) = self.backoff.on_failure(now, random) else {
            let tries = self.backoff.failures();
            let gave_up = if tries > 1 { format!(" (gave up after {tries} failures in a row)") } else { String::new() };
            let message = format!("{}{gave_up}", failure.message);
            return self.end(JobState::Failed, Some(Failure { message, ..failure }));
        };
        self.restarts = self.restarts.saturating_add(1);
        self.become_state(JobState::Restarting);
        vec![JobCommand::Wait { ms }]
    }

    fn runs(&self) -> bool {
        matches!(self.state, JobState::Starting | JobState::Running | JobState::Stopping | JobState::Rescaling)
    }

    fn end(&mut self, state: JobState, failure: Option<Failure>) -> Vec<JobCommand> {
        if self.state.is_end() {
            return Vec::new();
        }
        self.become_state(state);
        vec![JobCommand::End { failure }]
    }

    fn become_state(&mut self, next: JobState) {
        assert!(self.state.may_become(next), "a job that is {} cannot become {next}", self.state);
        self.state = next;
    }
}

/// The failure to show of all that an attempt reported, in the order of their arrival: the first that is not
/// the mere consequence of another, otherwise the first. None when nothing was reported.
#[must_use]
pub fn root_cause(failures: &[Failure]) -> Option<&Failure> {
    failures.iter().find(|failure| !failure.consequence).or_else(|| failures.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str, retryable: bool, consequence: bool) -> Failure {
        Failure { message: message.to_owned(), retryable, consequence }
    }

    fn started() -> JobLifecycle {
        let restart = RetryPolicy { first_delay_ms: 100, delay_ms_max: 100, retries_max: 2, quiet_ms: 1_000 };
        let mut job = JobLifecycle::new(restart);
        assert_eq!(job.on(Timestamp(0), JobEvent::Start), vec![JobCommand::StartAttempt]);
        job
    }

    fn fail(job: &mut JobLifecycle, now: i64, retryable: bool) -> Vec<JobCommand> {
        let failure = failure("disk full", retryable, false);
        job.on(Timestamp(now), JobEvent::AttemptFailed { failure, random: 0 })
    }

    #[test]
    fn the_table_of_transitions_is_what_was_decided() {
        let mut table = String::new();
        for from in JobState::ALL {
            let next: Vec<_> =
                JobState::ALL.into_iter().filter(|to| from.may_become(*to)).map(|s| s.to_string()).collect();
            table.push_str(&format!("{from}: {}\n", next.join(" ")));
        }
        assert_eq!(
            table,
            "created: starting stopped failed\n\
             starting: running restarting finished stopped failed\n\
             running: stopping rescaling restarting finished stopped failed\n\
             stopping: restarting finished stopped failed\n\
             rescaling: starting stopping restarting finished stopped failed\n\
             restarting: starting stopped failed\n\
             finished: \n\
             stopped: starting\n\
             failed: starting\n"
        );
    }

    #[test]
    fn every_event_in_every_reachable_state_keeps_to_the_table() {
        let events = [
            JobEvent::Start,
            JobEvent::Deployed,
            JobEvent::StopRequested,
            JobEvent::RescaleRequested,
            JobEvent::CancelRequested,
            JobEvent::AttemptFailed { failure: failure("x", true, false), random: 3 },
            JobEvent::AttemptFailed { failure: failure("x", false, false), random: 3 },
            JobEvent::WaitOver,
            JobEvent::InputEnded,
            JobEvent::LastCheckpointCommitted,
        ];
        // Every sequence of four events; `become_state` asserts each transition. An end is reported once.
        let count = events.len();
        for sequence in 0..count.pow(4) {
            let mut job = started();
            let mut ends = 0;
            for position in 0..4u32 {
                let event = events[sequence / count.pow(position) % count].clone();
                if matches!(event, JobEvent::InputEnded | JobEvent::LastCheckpointCommitted)
                    && job.state() == JobState::Restarting
                {
                    // Only an attempt reports these, and none runs.
                    continue;
                }
                let commands = job.on(Timestamp(i64::from(position)), event);
                ends += commands.iter().filter(|c| matches!(c, JobCommand::End { .. })).count();
            }
            assert_eq!(ends, usize::from(job.state().is_end()));
        }
    }

    #[test]
    fn failures_restart_until_the_limit_and_name_the_cause() {
        let mut job = started();
        assert_eq!(fail(&mut job, 0, true), vec![JobCommand::Wait { ms: 50 }]);
        assert_eq!(job.state(), JobState::Restarting);
        assert_eq!(job.on(Timestamp(50), JobEvent::WaitOver), vec![JobCommand::StartAttempt]);
        job.on(Timestamp(51), JobEvent::Deployed);
        assert_eq!(fail(&mut job, 60, true), vec![JobCommand::Wait { ms: 50 }]);
        job.on(Timestamp(110), JobEvent::WaitOver);
        let commands = fail(&mut job, 120, true);
        let [JobCommand::End { failure: Some(cause) }] = commands.as_slice() else { panic!("{commands:?}") };
        assert_eq!(cause.message, "disk full (gave up after 3 failures in a row)");
        assert_eq!((job.state(), job.restarts()), (JobState::Failed, 2));
    }

    #[test]
    fn a_final_failure_ends_the_job_at_once() {
        let mut job = started();
        job.on(Timestamp(1), JobEvent::Deployed);
        let commands = fail(&mut job, 2, false);
        assert_eq!(commands, vec![JobCommand::End { failure: Some(failure("disk full", false, false)) }]);
    }

    #[test]
    fn a_stop_during_set_up_is_kept_and_a_stop_during_a_wait_ends() {
        let mut job = started();
        assert_eq!(job.on(Timestamp(1), JobEvent::StopRequested), vec![]);
        assert_eq!(job.on(Timestamp(2), JobEvent::Deployed), vec![JobCommand::TakeLastCheckpoint]);
        assert_eq!(job.state(), JobState::Stopping);
        fail(&mut job, 3, true);
        assert_eq!(job.on(Timestamp(4), JobEvent::StopRequested), vec![JobCommand::End { failure: None }]);
        assert_eq!(job.state(), JobState::Stopped);
    }

    #[test]
    fn a_change_of_parallelism_takes_a_checkpoint_and_starts_again_unless_a_stop_comes() {
        let rescaling = || {
            let mut job = started();
            assert_eq!(job.on(Timestamp(1), JobEvent::Deployed), vec![]);
            assert_eq!(job.on(Timestamp(2), JobEvent::RescaleRequested), vec![JobCommand::TakeLastCheckpoint]);
            assert_eq!(job.state(), JobState::Rescaling);
            job
        };
        let mut job = rescaling();
        assert_eq!(job.on(Timestamp(3), JobEvent::LastCheckpointCommitted), vec![JobCommand::StartAttempt]);
        assert_eq!(job.on(Timestamp(4), JobEvent::Deployed), vec![]);
        let mut job = rescaling();
        assert_eq!(job.on(Timestamp(3), JobEvent::StopRequested), vec![]);
        let end = vec![JobCommand::End { failure: None }];
        assert_eq!(job.on(Timestamp(4), JobEvent::LastCheckpointCommitted), end);
        assert_eq!(job.state(), JobState::Stopped);
        let mut job = rescaling();
        assert_eq!(fail(&mut job, 3, true), vec![JobCommand::Wait { ms: 50 }]);
        assert_eq!(job.on(Timestamp(50), JobEvent::RescaleRequested), vec![], "the next attempt has it");
    }

    #[test]
    fn a_job_goes_on_after_a_last_checkpoint_unless_a_stop_is_wanted() {
        let mut job = started();
        job.on(Timestamp(1), JobEvent::Deployed);
        assert_eq!(job.on(Timestamp(2), JobEvent::LastCheckpointCommitted), vec![JobCommand::StartAttempt]);
        assert_eq!(job.state(), JobState::Starting);
        job.on(Timestamp(3), JobEvent::Deployed);
        job.on(Timestamp(4), JobEvent::StopRequested);
        let end = vec![JobCommand::End { failure: None }];
        assert_eq!(job.on(Timestamp(5), JobEvent::LastCheckpointCommitted), end);
    }

    #[test]
    fn the_root_cause_is_never_a_consequence_while_another_is_known() {
        let consequence = failure("neighbour gone", true, true);
        let root = failure("bad row", false, false);
        let later = failure("another", true, false);
        assert_eq!(root_cause(&[consequence.clone(), root.clone(), later]), Some(&root));
        assert_eq!(root_cause(std::slice::from_ref(&consequence)), Some(&consequence));
        assert_eq!(root_cause(&[]), None);
    }
}
