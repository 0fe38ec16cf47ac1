//! The driver of one job on the coordinator that leads: the real life cycle of the job, and around it what the
//! coordinator's own driver does, one step at a time. A record that is proposed holds up everything until its fate is
//! known; where it cannot be known the driver is dropped.

use std::collections::{BTreeMap, VecDeque};

use super::raft::{Outcome, Ticket};
use super::recovery::{Found, Recovered};
use super::running::Running;
use super::store::Effect;
use super::world::World;
use crate::bug::{Bug, is_put_back};
use crate::checkpoint::{CheckpointOptions, End};
use crate::cluster::messages::{AttemptId, WorkerId};
use crate::cluster::state::{Command, Wish};
use crate::ids::{Epoch, Generation, JobId};
use crate::job::{JobCommand, JobEvent, JobLifecycle, JobState};
use crate::job_record::{JobCreated, JobEnd, JobRecord, Record};
use crate::protocol::{Failure, FromSubtask};
use crate::time::Timestamp;

/// What the user wants of a job, as its driver is told.
pub(super) enum Control {
    Stop,
    Cancel,
    Rescale(u32),
}

/// Why an attempt, or what comes before it, ended before its time.
pub(super) enum Halt {
    Cancelled,
    Rescaled,
    Failed(Failure),
}

/// What follows when a record is taken.
pub(super) enum Then {
    Begin,
    Recover(Found),
    GoOn,
    Complete(Epoch),
    Committed(Epoch),
    Retired(Vec<Epoch>),
    Over,
}

enum Asked {
    Settle,
    Record(Box<Record>, Then),
}

pub(super) enum Stage {
    Unsettled,
    Recovering(Recovered),
    Placing(Recovered),
    Running(Box<Running>),
    Waiting { until: i64 },
    Over,
}

pub(super) struct Driver {
    pub(super) job: JobId,
    told: (Wish, u32),
    /// The attempt that was told to move to other workers.
    moving: Option<Generation>,
    controls: VecDeque<Control>,
    /// The job's records, as this driver knows them.
    pub(super) log: JobRecord,
    pub(super) options: CheckpointOptions,
    pub(super) lifecycle: JobLifecycle,
    pub(super) wanted: u32,
    pub(super) parallelism: u32,
    waits: Option<(Ticket, Asked)>,
    pub(super) stage: Stage,
    pub(super) events: VecDeque<FromSubtask>,
    pub(super) deployed: VecDeque<(WorkerId, Result<(), Failure>)>,
    /// Whether the attempt that is being set up waits for slots.
    pub(super) short: bool,
    /// This coordinator leads no longer.
    pub(super) lost: bool,
}

/// A failure after which another attempt may help.
pub(super) fn failure(message: &str) -> Failure {
    Failure { message: message.to_owned(), retryable: true, consequence: false }
}

impl Driver {
    pub(super) fn new(job: JobId, parallelism: u32) -> Driver {
        let options = CheckpointOptions::default();
        Driver {
            job,
            told: (Wish::Run, parallelism),
            moving: None,
            controls: VecDeque::new(),
            log: JobRecord::default(),
            lifecycle: JobLifecycle::new(options.restart),
            options,
            wanted: parallelism,
            parallelism,
            waits: None,
            stage: Stage::Unsettled,
            events: VecDeque::new(),
            deployed: VecDeque::new(),
            short: false,
            lost: false,
        }
    }

    pub(super) fn tell(&mut self, wish: Wish, parallelism: u32) {
        if self.told.1 != parallelism {
            self.told.1 = parallelism;
            self.controls.push_back(Control::Rescale(parallelism));
        }
        if self.told.0 != wish {
            self.told.0 = wish;
            match wish {
                Wish::Run => {}
                Wish::Stop => self.controls.push_back(Control::Stop),
                Wish::Cancel => self.controls.push_back(Control::Cancel),
            }
        }
    }

    pub(super) fn tell_to_move(&mut self, attempt: Generation) {
        if self.moving != Some(attempt) {
            self.moving = Some(attempt);
            self.controls.push_back(Control::Rescale(self.told.1));
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits.is_some()
    }

    /// Whether an attempt of it runs, or is being started.
    pub(super) fn has_slots(&self) -> bool {
        match &self.stage {
            Stage::Running(_) => true,
            Stage::Placing(recovered) => recovered.deployed.is_some(),
            _ => false,
        }
    }

    pub(super) fn attempt(&self) -> AttemptId {
        AttemptId { job: self.job.clone(), generation: self.log.generation }
    }

    /// What it was doing to the outside.
    pub(super) fn into_unfinished(self) -> impl Iterator<Item = Effect> {
        let (running, recovering) = match self.stage {
            Stage::Running(running) => (running.into_unfinished(), None),
            Stage::Recovering(recovered) => (Vec::new(), recovered.next_effect(&self.job, &self.log)),
            _ => (Vec::new(), None),
        };
        running.into_iter().chain(recovering)
    }

    /// A word of the user before an attempt runs. Gives what it ends.
    pub(super) fn attend(&mut self, now: i64) -> Option<Halt> {
        match self.controls.pop_front()? {
            Control::Stop if self.short => Some(Halt::Cancelled),
            Control::Stop => {
                self.lifecycle.on(Timestamp(now), JobEvent::StopRequested);
                None
            }
            Control::Rescale(parallelism) if parallelism != self.wanted => {
                self.wanted = parallelism;
                Some(Halt::Rescaled)
            }
            Control::Rescale(_) => None,
            Control::Cancel => Some(Halt::Cancelled),
        }
    }

    pub(super) fn next_control(&mut self) -> Option<Control> {
        self.controls.pop_front()
    }
}

impl World {
    /// Some driver of some coordinator that leads takes a step.
    pub(super) fn driver_turn(&mut self) {
        let leaders = self.coordinators.iter().filter(|coordinator| coordinator.leading.is_some()).count();
        if leaders == 0 {
            return;
        }
        let choice = self.random.below(leaders);
        let mut leaders = (0..self.coordinators.len()).filter(|at| self.coordinators[*at].leading.is_some());
        let at = leaders.nth(choice).expect("below their number");
        if self.coordinators[at].stalled_until > self.now || !self.raft.members[at].up {
            return;
        }
        let Some(leading) = &mut self.coordinators[at].leading else { return };
        if leading.drivers.is_empty() {
            return;
        }
        let choice = self.random.below(leading.drivers.len());
        let job = leading.drivers.keys().nth(choice).expect("below their number").clone();
        // Several steps, as it would take between two things from outside.
        for _ in 0..5 {
            let Some(mut driver) = self.leading(at).drivers.remove(&job) else { return };
            if self.drive(at, &mut driver) {
                self.leading(at).drivers.insert(job.clone(), driver);
            } else {
                return self.on_driver_over(at, driver);
            }
        }
    }

    /// False where the driver is over, or must be dropped.
    fn drive(&mut self, at: usize, driver: &mut Driver) -> bool {
        if let Some((ticket, asked)) = driver.waits.take() {
            return match self.raft.outcome(at, ticket) {
                // Now and then the wait is cut short, and the record may still be decided.
                Outcome::Pending => {
                    driver.waits = Some((ticket, asked));
                    !self.faults.elections || !self.random.one_in(150)
                }
                Outcome::Unknown => {
                    driver.waits = Some((ticket, asked));
                    false
                }
                Outcome::Answered(answer) => {
                    match asked {
                        Asked::Settle => self.on_settled(at, driver),
                        Asked::Record(record, then) => {
                            let agreed = &self.raft.members[at].state.jobs[&driver.job].record;
                            if let Err(reason) = answer {
                                // Others have led in between, and nobody has told this driver.
                                assert_ne!(driver.log, *agreed, "{record:?} was not taken: {reason}");
                                driver.lost = true;
                                self.saw("a driver was overtaken by others");
                                return false;
                            }
                            driver.log.apply(*record);
                            assert_eq!(driver.log, *agreed, "the driver knows something else than what was decided");
                            self.on_taken(at, driver, then);
                        }
                    }
                    !driver.lost && !matches!(driver.stage, Stage::Over)
                }
            };
        }
        match &mut driver.stage {
            Stage::Unsettled if is_put_back(Bug::LeaderTrustsOldState) => self.on_settled(at, driver),
            Stage::Unsettled => match self.raft.propose(at, Command::Settle) {
                Some(ticket) => driver.waits = Some((ticket, Asked::Settle)),
                None => driver.lost = true,
            },
            Stage::Recovering(_) => self.recover_step(at, driver),
            Stage::Placing(_) => self.place_step(at, driver),
            Stage::Running(_) => self.running_step(at, driver),
            Stage::Waiting { until } => {
                let over = *until <= self.now;
                let event = match driver.next_control() {
                    Some(Control::Stop) => JobEvent::StopRequested,
                    Some(Control::Cancel) => JobEvent::CancelRequested,
                    Some(Control::Rescale(parallelism)) => {
                        driver.wanted = parallelism;
                        return true;
                    }
                    None if over => JobEvent::WaitOver,
                    None => return true,
                };
                self.on_job_event(at, driver, event);
            }
            Stage::Over => {}
        }
        !driver.lost && !matches!(driver.stage, Stage::Over)
    }

    /// Everything that a driver of before has proposed is decided: begins from that.
    fn on_settled(&mut self, at: usize, driver: &mut Driver) {
        let entry = self.raft.members[at].state.jobs.get(&driver.job).filter(|entry| entry.active);
        let Some(entry) = entry else {
            driver.stage = Stage::Over;
            return;
        };
        driver.log = entry.record.clone();
        driver.options = entry.submission.options.clone();
        driver.lifecycle = JobLifecycle::new(driver.options.restart);
        driver.wanted = entry.submission.parallelism;
        driver.parallelism = driver.wanted;
        assert_ne!(driver.log.end, Some(JobEnd::Finished), "a finished job is driven");
        if driver.log.created.is_some() {
            return self.on_job_event(at, driver, JobEvent::Start);
        }
        let (graph_json, sql_hash) = (String::new(), "query".to_owned());
        let created = JobCreated { graph_json, sql_hash, key_groups: 8, created_at: Timestamp(self.now) };
        self.record(at, driver, Record::JobCreated(created), Then::Begin);
    }

    /// Proposes a record; the driver goes on when it is taken.
    pub(super) fn record(&mut self, at: usize, driver: &mut Driver, record: Record, then: Then) {
        let command = Command::Record { job: driver.job.clone(), record: Box::new(record.clone()) };
        match self.raft.propose(at, command) {
            Some(ticket) => driver.waits = Some((ticket, Asked::Record(Box::new(record), then))),
            None => driver.lost = true,
        }
    }

    fn on_taken(&mut self, at: usize, driver: &mut Driver, then: Then) {
        match then {
            Then::Begin => self.on_job_event(at, driver, JobEvent::Start),
            Then::Recover(found) => driver.stage = Stage::Recovering(Recovered::new(found)),
            Then::GoOn => {}
            Then::Complete(epoch) => self.on_complete_recorded(driver, epoch),
            Then::Committed(epoch) => self.on_commit_recorded(driver, epoch),
            Then::Retired(epochs) => self.on_retired_recorded(driver, epochs),
            Then::Over => driver.stage = Stage::Over,
        }
    }

    /// Tells the life cycle what has happened, and does what it says.
    fn on_job_event(&mut self, at: usize, driver: &mut Driver, event: JobEvent) {
        self.say(|| format!("c{at} job {}: {event:?}", driver.job));
        for command in driver.lifecycle.on(Timestamp(self.now), event) {
            match command {
                JobCommand::StartAttempt => self.begin_attempt(at, driver),
                JobCommand::Wait { ms } => driver.stage = Stage::Waiting { until: self.now + ms as i64 },
                JobCommand::End { failure } => self.end_job(at, driver, failure),
                JobCommand::TakeLastCheckpoint | JobCommand::CancelAttempt => {}
            }
        }
    }

    pub(super) fn begin_attempt(&mut self, at: usize, driver: &mut Driver) {
        driver.parallelism = driver.wanted;
        driver.short = false;
        driver.events.clear();
        driver.deployed.clear();
        match self.find_checkpoint(driver) {
            Ok(found) => {
                let generation = driver.log.generation.next();
                let restored_from = found.restored();
                let (reason, at_time) = (String::new(), Timestamp(self.now));
                let started = Record::GenerationStarted { generation, restored_from, reason, at: at_time };
                self.record(at, driver, started, Then::Recover(found));
            }
            Err(failure) => self.end_attempt(at, driver, Err(Halt::Failed(failure))),
        }
    }

    /// An attempt, or its set-up, is over.
    pub(super) fn end_attempt(&mut self, at: usize, driver: &mut Driver, ended: Result<End, Halt>) {
        match std::mem::replace(&mut driver.stage, Stage::Unsettled) {
            Stage::Running(running) => self.stop_running(at, *running),
            Stage::Placing(recovered) if recovered.deployed.is_some() => self.release(at, &driver.attempt()),
            _ => {}
        }
        let event = match ended {
            Ok(End::InputEnd) => JobEvent::InputEnded,
            Ok(End::Stop) => {
                self.saw("a last checkpoint was taken for a stop or a change of parallelism");
                JobEvent::LastCheckpointCommitted
            }
            Err(Halt::Cancelled) => JobEvent::CancelRequested,
            Err(Halt::Rescaled) => return self.begin_attempt(at, driver),
            Err(Halt::Failed(failure)) => {
                assert!(failure.retryable || failure.message.contains("no checkpoint"), "{}", failure.message);
                self.saw("an attempt failed");
                JobEvent::AttemptFailed { failure, random: self.random.next() }
            }
        };
        self.on_job_event(at, driver, event);
    }

    fn end_job(&mut self, at: usize, driver: &mut Driver, failure: Option<Failure>) {
        let end = match (driver.lifecycle.state(), failure) {
            (_, Some(failure)) => JobEnd::Failed { reason: failure.message },
            (JobState::Finished, None) => JobEnd::Finished,
            (_, None) => JobEnd::Stopped,
        };
        let generation: Generation = driver.log.generation;
        let ended = Record::Ended { generation, end, at: Timestamp(self.now), counters: BTreeMap::new() };
        self.record(at, driver, ended, Then::Over);
    }
}
