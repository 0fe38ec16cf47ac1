//! The driver of one job: keeps it running through attempts until it ends. What follows what is decided by
//! `mainstem_core::job`; one attempt is driven by [`crate::attempt`].

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mainstem_connectors::CheckpointListener;
use mainstem_core::checkpoint::{Cadence, End};
use mainstem_core::ids::{Epoch, Generation, OperatorId};
use mainstem_core::job::{JobCommand, JobEvent, JobLifecycle, JobState};
use mainstem_core::protocol::Failure;
use mainstem_rt::{Clock, failpoint};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, Span, error_span};

use crate::adoption;
use crate::attempt;
use crate::job_store::JobHome;
use crate::lane::{Discoverer, Lane, Publisher};
use crate::meta_log::{DeployedAttempt, JobCreated, JobEnd, MetaLogError, Record};
use crate::recovery;
use crate::retry::{Retry, random};
use crate::spec::{
    Attempt, Control, Deployer, Deployment, JobOutcome, JobSpec, JobStatus, SavepointRequest, SourceSpec,
};

/// Runs one job in this process.
pub struct JobCoordinator {
    pub(crate) spec: JobSpec,
    pub(crate) home: JobHome,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What every part of the driver needs.
pub(crate) struct Driver<D> {
    pub(crate) spec: JobSpec,
    pub(crate) home: JobHome,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) deployer: D,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) status: watch::Sender<JobStatus>,
    pub(crate) lifecycle: JobLifecycle,
    /// How operations on the outside are tried again.
    pub(crate) retry: Retry,
    /// Publishes output.
    pub(crate) publisher: Lane<Publisher>,
    /// What is known of each source.
    pub(crate) sources: BTreeMap<OperatorId, Source>,
    /// Whether the user has been told that very many finished splits are remembered.
    pub(crate) warned_of_finished: bool,
    /// Why there will be a new attempt, for its record.
    pub(crate) reason: String,
    /// At which parallelism the next attempt runs.
    pub(crate) wanted_parallelism: u32,
    /// The savepoint that was asked for, until its outcome is recorded.
    pub(crate) savepoint: Option<SavepointRequest>,
    /// Whether the record of a savepoint is that of the job's end too.
    pub(crate) ended_with_savepoint: bool,
    /// The epoch from which the newest attempt went on, or at which it was taken over, where there was one here.
    pub(crate) restored_from: Option<Epoch>,
    /// What was measured of checkpoints and failures here, where the time between checkpoints is to be chosen.
    pub(crate) cadence: Option<Cadence>,
    /// Whether an attempt that another coordinator has left behind was looked for.
    has_looked_back: bool,
}

/// A source, as the driver sees it.
pub(crate) struct Source {
    /// Looks for its splits.
    pub(crate) discovery: Lane<Discoverer>,
    /// How often; none: once.
    pub(crate) monitor_interval: Option<Duration>,
    /// See [`SourceSpec::side_by_side`].
    pub(crate) side_by_side: bool,
    /// See [`SourceSpec::group`].
    pub(crate) group: Option<OperatorId>,
    /// Is told how far the source has been read.
    pub(crate) listener: Option<Box<dyn CheckpointListener>>,
}

/// Why an attempt, or what comes before it, ended before its time.
pub(crate) enum Halt {
    /// The user wants it gone at once.
    Cancelled,
    /// The user wants another parallelism, and nothing runs yet that a checkpoint could save.
    Rescaled,
    /// It failed.
    Failed(Failure),
}

impl JobCoordinator {
    /// A coordinator for the job.
    #[must_use]
    pub fn new(spec: JobSpec, home: JobHome, clock: Arc<dyn Clock>) -> JobCoordinator {
        JobCoordinator { spec, home, clock }
    }

    /// Runs the job until it has finished, failed for good, or been stopped. Everything that it decided is
    /// durable on return.
    pub async fn run<D: Deployer>(
        self,
        deployer: D,
        control: mpsc::Receiver<Control>,
        status: watch::Sender<JobStatus>,
    ) -> JobOutcome {
        let span = error_span!("job", job = %self.spec.job);
        self.run_named(deployer, control, status).instrument(span).await
    }

    /// The same in a span that names the job in each log line.
    async fn run_named<D: Deployer>(
        mut self,
        deployer: D,
        control: mpsc::Receiver<Control>,
        status: watch::Sender<JobStatus>,
    ) -> JobOutcome {
        let lifecycle = JobLifecycle::new(self.spec.options.restart);
        let reason = "started".to_owned();
        let retry = Retry {
            job: self.spec.job.clone(),
            clock: self.clock.clone(),
            policy: self.spec.options.operation,
            timeout_ms: self.spec.options.operation_timeout_ms,
        };
        let committers = std::mem::take(&mut self.spec.committers);
        self.spec.history.publishes(committers.keys().copied());
        let publisher = Lane::start(Publisher { committers, retry: retry.clone(), status: status.clone() });
        let source = |(operator, spec): (OperatorId, SourceSpec)| {
            let listener = spec.enumerator.listener();
            let discovery = Lane::start(Discoverer { enumerator: spec.enumerator, retry: retry.clone() });
            let SourceSpec { monitor_interval, side_by_side, group, .. } = spec;
            (operator, Source { discovery, monitor_interval, side_by_side, group, listener })
        };
        let sources = std::mem::take(&mut self.spec.sources).into_iter().map(source).collect();
        let mut driver = Driver {
            wanted_parallelism: self.spec.parallelism,
            cadence: self.spec.options.auto.map(Cadence::new),
            spec: self.spec,
            home: self.home,
            clock: self.clock,
            deployer,
            control,
            status,
            lifecycle,
            retry,
            publisher,
            sources,
            warned_of_finished: false,
            reason,
            savepoint: None,
            ended_with_savepoint: false,
            restored_from: None,
            has_looked_back: false,
        };
        let outcome = driver.run().await;
        // Nothing of the job may go on when its lock is given up.
        driver.publisher.end().await;
        for source in driver.sources.into_values() {
            source.discovery.end().await;
        }
        outcome
    }
}

/// What each log line about an attempt names.
fn attempt_span(generation: Generation) -> Span {
    error_span!("attempt", generation = generation.0)
}

/// A failure that another attempt would meet again.
pub(crate) fn fatal(message: String) -> Failure {
    Failure { message, retryable: false, consequence: false }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Halt {
        Halt::Failed(failure)
    }
}

impl From<MetaLogError> for Halt {
    fn from(error: MetaLogError) -> Halt {
        Halt::Failed(error.into())
    }
}

impl From<MetaLogError> for Failure {
    fn from(error: MetaLogError) -> Failure {
        // A failed write may or may not be durable: only opening the log again can tell (RELIABILITY: a retry
        // of a failed fsync may "succeed" without the data).
        fatal(error.to_string())
    }
}

impl<D: Deployer> Driver<D> {
    async fn run(&mut self) -> JobOutcome {
        match self.create_job().await {
            Ok(true) => {}
            Ok(false) => return JobOutcome::AlreadyFinished,
            Err(failure) => return JobOutcome::Failed(failure),
        }
        if let Err(message) = self.spec.options.validate() {
            return JobOutcome::Failed(fatal(message));
        }
        let mut commands = self.lifecycle.on(self.clock.monotonic(), JobEvent::Start);
        loop {
            let mut event = None;
            for command in commands {
                match command {
                    JobCommand::StartAttempt => event = Some(self.run_attempt().await),
                    JobCommand::Wait { ms } => event = Some(self.wait(ms).await),
                    JobCommand::End { failure } => return self.end(failure).await,
                    // Only an attempt that runs is asked for these, and it handles them itself.
                    JobCommand::TakeLastCheckpoint | JobCommand::CancelAttempt => {}
                }
            }
            self.publish_state();
            let Some(event) = event else { return self.end(Some(fatal("bug: the job stands still".to_owned()))).await };
            commands = self.lifecycle.on(self.clock.monotonic(), event);
            self.publish_state();
        }
    }

    /// Records the job where it is new. False when it has finished before.
    async fn create_job(&mut self) -> Result<bool, Failure> {
        if self.home.log.state().end == Some(JobEnd::Finished) {
            return Ok(false);
        }
        // A job that begins with a savepoint is recorded when that has been copied.
        if self.home.log.state().created.is_none() && self.spec.restore.is_none() {
            let created = JobCreated {
                graph_json: self.spec.graph_json.clone(),
                sql_hash: self.spec.sql_hash.clone(),
                key_groups: self.spec.key_groups,
                created_at: self.clock.now(),
            };
            self.home.log.append(Record::JobCreated(created)).await?;
        }
        Ok(true)
    }

    async fn run_attempt(&mut self) -> JobEvent {
        self.publish_state();
        let mut ended = self.attempt().await;
        while let Err(Halt::Rescaled) = ended {
            ended = self.attempt().await;
        }
        let failure = match ended {
            Ok(End::InputEnd) => return JobEvent::InputEnded,
            Ok(End::Stop) => return JobEvent::LastCheckpointCommitted,
            Err(Halt::Cancelled) => return JobEvent::CancelRequested,
            Err(Halt::Failed(failure)) => failure,
            // Begun again above.
            Err(Halt::Rescaled) => fatal("bug: a change of parallelism ended the job; please report it".to_owned()),
        };
        let generation = self.home.log.state().generation;
        tracing::warn!(job = %self.spec.job, %generation, failure = %failure.message, "attempt failed");
        self.reason.clone_from(&failure.message);
        self.spec.history.attempt_failed(generation, &failure);
        if let Some(cadence) = &mut self.cadence {
            cadence.on_failure(self.clock.monotonic());
        }
        let restarts = self.lifecycle.restarts() + 1;
        self.status.send_modify(|s| {
            s.last_failure = Some(failure.message.clone());
            s.restarts = restarts;
        });
        JobEvent::AttemptFailed { failure, random: random(self.clock.as_ref()) }
    }

    async fn attempt(&mut self) -> Result<End, Halt> {
        self.identify();
        if !std::mem::replace(&mut self.has_looked_back, true)
            && let Some(adopted) = adoption::adopt(self).await?
        {
            let span = attempt_span(adopted.recovered.generation);
            return attempt::go_on(self, adopted).instrument(span).await;
        }
        self.scale();
        let recovered = recovery::recover(self).await?;
        let span = attempt_span(recovered.generation);
        attempt::run(self, recovered).instrument(span).await
    }

    /// Whether the newest attempt has made the checkpoint of the epoch, and told this driver. What was written a moment ago is not read as a
    /// whole before it is restored: how long a restart takes must not depend on the size of all state, most of which may
    /// lie on the workers. Where it is damaged after all, the attempt fails and has made no checkpoint of its own, so
    /// before the next one everything is read.
    pub(crate) fn has_made(&self, epoch: Epoch) -> bool {
        self.restored_from.is_some_and(|before| epoch > before)
    }

    /// Tells the history which job of its name this is.
    pub(crate) fn identify(&self) {
        self.spec.history.created(self.home.log.state().created.as_ref().map(|created| created.created_at));
    }

    /// Takes over the parallelism that is wanted.
    fn scale(&mut self) {
        if self.spec.parallelism != self.wanted_parallelism {
            failpoint::hit(failpoint::RESCALE_BEGINS);
            self.reason = format!("parallelism {} instead of {}", self.wanted_parallelism, self.spec.parallelism);
        }
        self.scale_to(self.wanted_parallelism);
    }

    /// Makes the job one of this parallelism.
    pub(crate) fn scale_to(&mut self, parallelism: u32) {
        self.spec.parallelism = parallelism;
        for task in self.spec.tasks.iter_mut().filter(|task| task.scales) {
            task.parallelism = parallelism;
        }
    }

    /// Runs the next attempt at this parallelism and then goes on at the one that is wanted.
    pub(crate) fn run_at(&mut self, parallelism: u32) {
        tracing::info!(
            job = %self.spec.job, parallelism, wanted = self.wanted_parallelism,
            "the checkpoint holds rows in flight, which are worked off at its parallelism first"
        );
        self.scale_to(parallelism);
    }

    /// Waits before the next attempt, unless the user wants none.
    async fn wait(&mut self, ms: u64) -> JobEvent {
        let deadline = self.clock.monotonic().plus_ms(i64::try_from(ms).unwrap_or(i64::MAX));
        loop {
            return tokio::select! {
                biased;
                // Without anybody who could ask for something, the job goes on by itself.
                Some(control) = self.control.recv() => match control {
                    Control::Stop => JobEvent::StopRequested,
                    Control::Cancel => JobEvent::CancelRequested,
                    Control::Rescale(parallelism) => {
                        self.wanted_parallelism = parallelism;
                        continue;
                    }
                    Control::Savepoint(request) => {
                        self.savepoint = Some(request);
                        continue;
                    }
                },
                () = self.clock.sleep_until(deadline) => JobEvent::WaitOver,
            };
        }
    }

    async fn end(&mut self, failure: Option<Failure>) -> JobOutcome {
        self.publish_state();
        self.spec.history.ended(self.home.log.state().generation, failure.as_ref());
        let (end, outcome) = match (self.lifecycle.state(), failure) {
            (_, Some(failure)) => (JobEnd::Failed { reason: failure.message.clone() }, JobOutcome::Failed(failure)),
            (JobState::Finished, None) => (JobEnd::Finished, JobOutcome::Finished),
            (_, None) => (JobEnd::Stopped, JobOutcome::Stopped),
        };
        if self.ended_with_savepoint {
            return outcome;
        }
        let (at, counters) = (self.clock.now(), self.deployer.counters());
        let generation = self.home.log.state().generation;
        let ended = match self.give_up_savepoint().await {
            Ok(()) => self.home.log.append(Record::Ended { generation, end, at, counters }).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => outcome,
            Err(error) => match outcome {
                JobOutcome::Failed(failure) => JobOutcome::Failed(failure),
                _ => JobOutcome::Failed(error.into()),
            },
        }
    }

    /// Waits until the outside says what there is to read, and goes on to listen. A stop ends the job, which has not begun: the
    /// outside may not answer for a long time.
    pub(crate) async fn attend_first<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Halt> {
        self.parts().told.attend(work, || true).await
    }

    /// Waits for slow work before an attempt runs, and goes on to listen: a cancel abandons the work, a stop is
    /// kept for the attempt.
    pub(crate) async fn attend<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Halt> {
        self.parts().told.attend(work, || false).await
    }

    /// Starts the subtasks of an attempt. Where that has to wait for workers, a stop ends the job: nothing has been read
    /// since its last checkpoint.
    pub(crate) async fn deploy(&mut self, deployment: Deployment) -> Result<Attempt, Halt> {
        let Parts { told, deployer, status } = self.parts();
        told.attend(deployer.deploy(deployment), || status.borrow().waiting.is_some()).await
    }

    /// Takes over the subtasks of an attempt that runs; or says why they cannot be.
    pub(crate) async fn adopt(
        &mut self,
        deployed: &DeployedAttempt,
        complete: Epoch,
    ) -> Result<Result<Attempt, String>, Halt> {
        let Parts { told, deployer, .. } = self.parts();
        told.attend(async { Ok(deployer.adopt(deployed, complete).await) }, || false).await
    }

    fn parts(&mut self) -> Parts<'_, D> {
        let told = Told {
            control: &mut self.control,
            lifecycle: &mut self.lifecycle,
            wanted_parallelism: &mut self.wanted_parallelism,
            savepoint: &mut self.savepoint,
            clock: self.clock.as_ref(),
        };
        Parts { told, deployer: &mut self.deployer, status: &self.status }
    }

    /// Records that an epoch is published.
    pub(crate) async fn record_committed(&mut self, generation: Generation, epoch: Epoch) -> Result<(), Failure> {
        self.home.log.append(Record::EpochCommitted { generation, epoch }).await?;
        self.status.send_modify(|s| s.last_committed = Some(epoch));
        self.spec.history.published(epoch, generation);
        Ok(())
    }

    /// Shows which epochs are recorded as complete and as published: another process may have taken them.
    pub(crate) fn tell_recorded(&self) {
        let record = self.home.log.state();
        let newest = record.epochs.values().next_back();
        self.status.send_modify(|s| {
            s.last_complete = newest.map(|epoch| epoch.epoch);
            s.last_checkpoint_at = newest.map(|epoch| epoch.completed_at);
            s.last_committed = Some(record.committed).filter(|epoch| *epoch > Epoch(0));
        });
    }

    /// Shows where the job stands.
    pub(crate) fn publish_state(&self) {
        let state = self.lifecycle.state();
        self.status.send_modify(|s| s.state = state);
        self.spec.history.state(self.home.log.state().generation, state);
    }
}

/// A driver that waits for something and listens meanwhile.
struct Parts<'a, D> {
    told: Told<'a>,
    deployer: &'a mut D,
    status: &'a watch::Sender<JobStatus>,
}

/// What the user says meanwhile goes here.
struct Told<'a> {
    control: &'a mut mpsc::Receiver<Control>,
    lifecycle: &'a mut JobLifecycle,
    wanted_parallelism: &'a mut u32,
    savepoint: &'a mut Option<SavepointRequest>,
    clock: &'a dyn Clock,
}

impl Told<'_> {
    async fn attend<T>(
        self,
        work: impl Future<Output = Result<T, Failure>>,
        stop_ends: impl Fn() -> bool,
    ) -> Result<T, Halt> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(control) = self.control.recv() => match control {
                    Control::Stop if stop_ends() => return Err(Halt::Cancelled),
                    Control::Stop => {
                        self.lifecycle.on(self.clock.monotonic(), JobEvent::StopRequested);
                    }
                    Control::Rescale(parallelism) if parallelism != *self.wanted_parallelism => {
                        *self.wanted_parallelism = parallelism;
                        return Err(Halt::Rescaled);
                    }
                    Control::Rescale(_) => {}
                    // The attempt that follows is asked for it.
                    Control::Savepoint(request) => *self.savepoint = Some(request),
                    Control::Cancel => return Err(Halt::Cancelled),
                },
                result = &mut work => return result.map_err(Halt::Failed),
            }
        }
    }
}

#[cfg(test)]
mod tests;
