//! What must hold at every moment, whatever fails: coordinators that have applied the same have the same state, nothing that
//! was agreed on is lost, no attempt, epoch, offset or watermark goes back, and one coordinator leads a term.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstem_consensus::Consensus;
use mainstem_coordinator::cluster::Agreed;
use mainstem_coordinator::{EpochRecord, JobEnd, SavepointOutcome};
use mainstem_core::audit::Trail;
use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::cluster::state::{ClusterState, JobEntry};
use mainstem_core::ids::{Epoch, JobId, OperatorId, SavepointId, SplitId};
use mainstem_core::protocol::SplitProgress;
use mainstem_core::time::Timestamp;

use super::weather::{Host, Weather};

/// How far a source had come at the end of an epoch.
#[derive(Clone, Debug, Default)]
struct Progress {
    watermark: Option<Timestamp>,
    splits: BTreeMap<SplitId, u64>,
}

/// As much of an agreed state as tells it from others and tells whether another one may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Brief {
    hash: u64,
    jobs: BTreeMap<JobId, JobBrief>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct JobBrief {
    /// What never goes back: attempt, complete epoch, published epoch, submissions.
    numbers: [u64; 4],
    /// Attempts of the job are above this one; those of jobs of this name that were removed are not.
    floor: u64,
    active: bool,
    has_finished: bool,
    line: String,
}

#[derive(Default)]
struct Seen {
    /// The coordinators that run.
    running: BTreeMap<Host, Arc<Consensus<Agreed>>>,
    /// How far each had come when it was looked at last.
    looked_at: BTreeMap<Host, u64>,
    /// What the agreed state was at each index.
    states: BTreeMap<u64, Brief>,
    /// The jobs at the newest of them.
    jobs: BTreeMap<JobId, JobEntry>,
    /// Who led each term.
    leaders: BTreeMap<u64, Host>,
    /// Savepoints of which a user was told that they will be taken.
    promised: BTreeMap<SavepointId, JobId>,
    /// What became of savepoints.
    outcomes: BTreeMap<SavepointId, SavepointOutcome>,
    /// The worker of each slot of the newest attempt of each job.
    placed: BTreeMap<JobId, Vec<WorkerId>>,
    /// Who was seen to stand by for a slot, with its state.
    standbys: BTreeSet<(JobId, u32, WorkerId)>,
    /// What the newest epoch of each job says of its sources.
    progress: BTreeMap<JobId, (Epoch, BTreeMap<OperatorId, Progress>)>,
}

/// Sees all coordinators from outside.
#[derive(Clone)]
pub(super) struct Witness {
    weather: Weather,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    pub(super) fn new(weather: Weather) -> Witness {
        Witness { weather, seen: Arc::default() }
    }

    /// A coordinator runs.
    pub(super) fn watch(&self, host: Host, consensus: Arc<Consensus<Agreed>>) {
        self.lock().running.insert(host, consensus);
    }

    /// It runs no longer.
    pub(super) fn forget(&self, host: Host) {
        let mut seen = self.lock();
        seen.looked_at.remove(&host);
        let gone = seen.running.remove(&host);
        drop(seen);
        drop(gone);
    }

    /// Who leads, as far as the nodes themselves say; the newest term of several.
    pub(super) fn leader(&self) -> Option<Host> {
        let seen = self.lock();
        let leads = |(host, consensus): (&Host, &Arc<Consensus<Agreed>>)| {
            let leadership = consensus.leadership().borrow().clone();
            leadership.is_leader.then_some((leadership.term, *host))
        };
        seen.running.iter().filter_map(leads).max().map(|(_, host)| host)
    }

    /// A worker stands by for a slot of a job, and has state of it.
    pub(super) fn stands_by(&self, job: &JobId, slot: u32, worker: &WorkerId) {
        self.lock().standbys.insert((job.clone(), slot, worker.clone()));
    }

    /// A user was told that a savepoint will be taken.
    pub(super) fn promised(&self, job: &JobId, savepoint: &SavepointId) {
        self.lock().promised.insert(savepoint.clone(), job.clone());
    }

    /// Where each savepoint lies that was taken, as far as the coordinators know.
    pub(super) fn savepoints(&self) -> Vec<String> {
        let seen = self.lock();
        for (savepoint, job) in &seen.promised {
            if !seen.outcomes.contains_key(savepoint) {
                self.weather.violation(format!("savepoint {savepoint} of job '{job}' was promised and has no outcome"));
            }
        }
        let place = |outcome: &SavepointOutcome| match outcome {
            SavepointOutcome::Taken { path, .. } => Some(path.clone()),
            SavepointOutcome::Failed { .. } => None,
        };
        seen.outcomes.values().filter_map(place).collect()
    }

    /// Whether any coordinator has applied that the epoch is complete.
    pub(super) fn is_complete(&self, job: &JobId, epoch: Epoch) -> bool {
        let running = self.lock().running.clone();
        let knows = |state: &Agreed| state.jobs.get(job).is_some_and(|entry| entry.record.newest() >= epoch);
        running.values().any(|consensus| consensus.read_stale(knows))
    }

    /// A job as the coordinator that has come furthest knows it.
    pub(super) fn job(&self, job: &JobId) -> Option<JobEntry> {
        self.lock().jobs.get(job).cloned()
    }

    /// Looks at every coordinator.
    pub(super) fn look(&self) {
        let running = self.lock().running.clone();
        for (host, consensus) in running {
            let leadership = consensus.leadership().borrow().clone();
            if leadership.is_leader {
                self.led(host, leadership.term);
            }
            let index = *consensus.applied().borrow();
            if self.lock().looked_at.insert(host, index) != Some(index) {
                // Nothing runs meanwhile: the state is that of the index.
                self.applied(host, index, &consensus.read_stale(|state| state.clone()));
            }
        }
    }

    fn led(&self, host: Host, term: u64) {
        let known = *self.lock().leaders.entry(term).or_insert_with(|| {
            self.weather.note(&format!("{host} leads term {term}"));
            self.weather.count("leaders");
            host
        });
        if known != host {
            self.weather.violation(format!("{known} and {host} lead term {term}"));
        }
    }

    fn applied(&self, host: Host, index: u64, state: &ClusterState) {
        let mut seen = self.lock();
        let brief = Brief::of(state);
        if let Some(known) = seen.states.get(&index) {
            if *known != brief {
                self.weather.violation(format!("{host} has another state at {index} than another coordinator"));
            }
            return;
        }
        let before = seen.states.range(..index).next_back().map(|(_, brief)| brief.clone());
        let after = seen.states.range(index..).next().map(|(_, brief)| brief.clone());
        for (older, newer) in [(before.as_ref(), Some(&brief)), (Some(&brief), after.as_ref())] {
            if let (Some(older), Some(newer)) = (older, newer)
                && let Err(what) = goes_on(older, newer)
            {
                self.weather.violation(format!("{host} at {index}: {what}"));
            }
        }
        if after.is_none() {
            for (job, entry) in &state.jobs {
                if entry.submissions == 1 && !seen.jobs.contains_key(job) {
                    // Another life begins with what its savepoint says.
                    seen.progress.remove(job);
                }
                let line = &brief.jobs[job].line;
                if before.as_ref().and_then(|before| before.jobs.get(job)).map(|before| &before.line) != Some(line) {
                    self.weather.note(&format!("job '{job}' {line}"));
                }
                self.check_progress(&mut seen, job, entry);
                self.count_taken_over(&mut seen, job, entry);
                self.check_savepoints(&mut seen, entry);
            }
            seen.jobs.clone_from(&state.jobs);
        }
        seen.states.insert(index, brief);
    }

    /// Offsets and watermarks of the epochs that are new in the record.
    fn check_progress(&self, seen: &mut Seen, job: &JobId, entry: &JobEntry) {
        let (known, progress) = seen.progress.entry(job.clone()).or_default();
        for (epoch, record) in entry.record.epochs.range(known.next()..) {
            if record.unaligned {
                self.weather.count("unaligned epochs");
            }
            if let Err(what) = moves_on(progress, record) {
                self.weather.violation(format!("job '{job}', epoch {epoch}: {what}"));
            }
            *known = *epoch;
        }
    }

    /// What became of a savepoint stays so.
    fn check_savepoints(&self, seen: &mut Seen, entry: &JobEntry) {
        for record in &entry.record.savepoints {
            let known = seen.outcomes.entry(record.id.clone()).or_insert_with(|| record.outcome.clone());
            if *known != record.outcome {
                let (id, outcome) = (&record.id, &record.outcome);
                self.weather.violation(format!("savepoint {id} is {outcome:?} and was {known:?}"));
            }
        }
    }

    /// Slots of a new attempt that went to who stood by for them.
    fn count_taken_over(&self, seen: &mut Seen, job: &JobId, entry: &JobEntry) {
        let Some(running) = &entry.record.running else { return };
        let slots: Vec<WorkerId> = running.deployed.slots.iter().map(|offer| offer.worker.clone()).collect();
        let before = seen.placed.insert(job.clone(), slots.clone()).unwrap_or_default();
        for ((slot, before), worker) in (0..).zip(before).zip(slots) {
            if before != worker && seen.standbys.contains(&(job.clone(), slot, worker)) {
                self.weather.count("slots taken over by who stood by");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Brief {
    fn of(state: &ClusterState) -> Brief {
        // The head of the audit trail stands for all of it, which is long.
        let without_trail = ClusterState { audit: Trail::going_on_from(state.audit.head()), ..state.clone() };
        let text = serde_json::to_vec(&without_trail).expect("a snapshot is its JSON");
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        let jobs = state.jobs.iter().map(|(job, entry)| (job.clone(), JobBrief::of(entry))).collect();
        Brief { hash: hasher.finish(), jobs }
    }
}

impl JobBrief {
    fn of(entry: &JobEntry) -> JobBrief {
        let record = &entry.record;
        let numbers = [record.generation.0, record.newest().0, record.committed.0, entry.submissions];
        let end = match &record.end {
            None => String::new(),
            Some(JobEnd::Finished) => " finished".to_owned(),
            Some(JobEnd::Stopped) => " stopped".to_owned(),
            Some(JobEnd::Failed { reason }) => format!(" failed: {reason}"),
        };
        let [attempt, complete, published, submissions] = numbers;
        let parallelism = entry.submission.parallelism;
        let line = format!(
            "attempt {attempt}, epochs {complete}/{published}, parallelism {parallelism}, {:?}, submitted {submissions}{end}",
            entry.wish
        );
        let (floor, active) = (entry.generation_floor.0, entry.active);
        JobBrief { numbers, floor, active, has_finished: record.end == Some(JobEnd::Finished), line }
    }
}

/// Whether the newer state may follow the older.
fn goes_on(older: &Brief, newer: &Brief) -> Result<(), String> {
    for (job, was) in &older.jobs {
        let Some(is) = newer.jobs.get(job) else {
            // Users remove jobs that have ended.
            if was.active || was.has_finished {
                return Err(format!("job '{job}' is gone, and was '{}'", was.line));
            }
            continue;
        };
        if is.floor >= was.numbers[0].max(1) {
            // Another life of the job.
            continue;
        }
        if was.numbers.iter().zip(&is.numbers).any(|(was, is)| is < was) || (was.has_finished && was != is) {
            return Err(format!("job '{job}' goes back from '{}' to '{}'", was.line, is.line));
        }
    }
    Ok(())
}

/// Whether an epoch's sources have moved on only, and takes in how far.
fn moves_on(progress: &mut BTreeMap<OperatorId, Progress>, record: &EpochRecord) -> Result<(), String> {
    for (operator, source) in &record.sources {
        let known = progress.entry(*operator).or_default();
        if known.watermark.is_some_and(|watermark| source.watermark < watermark) {
            return Err(format!(
                "the watermark of {operator} goes back from {:?} to {}",
                known.watermark, source.watermark
            ));
        }
        known.watermark = Some(source.watermark);
        for state in &source.changed {
            let position = match &state.progress {
                None => 0,
                Some(SplitProgress::Reading { position, .. }) => position.parse().map_err(|_| position.clone())?,
                Some(SplitProgress::Finished) => u64::MAX,
            };
            let before = known.splits.insert(state.split.id.clone(), position).unwrap_or(0);
            if position < before {
                return Err(format!("split '{}' goes back from {before} to {position}", state.split.id));
            }
        }
    }
    Ok(())
}
