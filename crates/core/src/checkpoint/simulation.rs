//! A whole job in a test: the checkpoint coordinator and the split assigner, driven by a seeded scheduler that
//! delays, reorders and doubles messages, damages checkpoints and crashes at any step. Two source subtasks read
//! rows, a sink passes them on and counts them. A failed seed is named in the panic.
//!
//! Held on every step: an epoch is published only when it is recorded, once, in order (I1, I2); what an earlier
//! attempt says is refused (I3); nothing that a recorded checkpoint names, or that is copied for a savepoint, is deleted
//! (I4); a savepoint is of an epoch that is published, has one outcome, and where the job ends with it nothing is
//! published beyond it. Held at the end: the world has seen every row once, and the count that the sink carried through
//! all restores fits.

use super::*;
use crate::ids::{SavepointId, SplitId};
use crate::key_group::KeyGroupRange;
use crate::protocol::{OperatorSnapshot, ReplayPart, SourceSplit, SplitProgress, SplitState, StateHandle};
use crate::splits::{SourceEpoch, SplitAssigner, SplitCommand, SplitCut, SplitEvent};

const SEEDS: u64 = 3_000;
/// Steps after which nothing crashes any more, and steps after which the job must have finished.
const FAULTS_UNTIL: u64 = 1_500;
const STEPS_MAX: u64 = 60_000;
const SPLITS: usize = 4;
const ROWS: usize = 12;
const SOURCE: OperatorId = OperatorId(0);
const SINK: SubtaskId = SubtaskId { operator: OperatorId(1), index: 0 };

/// Marsaglia's xorshift, 64 bits.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

fn source(index: u32) -> SubtaskId {
    SubtaskId { operator: SOURCE, index }
}

fn progress(position: usize) -> Option<SplitProgress> {
    match position {
        0 => None,
        ROWS => Some(SplitProgress::Finished),
        _ => Some(SplitProgress::Reading { position: position.to_string(), watermark: Timestamp::MIN }),
    }
}

fn position(state: &SplitState) -> usize {
    match &state.progress {
        None => 0,
        Some(SplitProgress::Finished) => ROWS,
        Some(SplitProgress::Reading { position, .. }) => position.parse().unwrap(),
    }
}

/// What the log holds of an epoch.
#[derive(Clone)]
struct Recorded {
    barrier: Barrier,
    epoch_now: Timestamp,
    objects: BTreeSet<String>,
    state: Vec<String>,
    splits: Vec<SplitState>,
    source: SourceEpoch,
    committables: BTreeMap<OperatorId, Vec<Committable>>,
}

/// Everything that survives a crash.
#[derive(Default)]
struct Durable {
    /// State files with the rows that each counts; manifests with 0.
    objects: BTreeMap<String, i64>,
    /// Hidden output, by name.
    staged: BTreeMap<String, Vec<String>>,
    published: BTreeSet<String>,
    visible: Vec<String>,
    generation: u64,
    epochs: BTreeMap<Epoch, Recorded>,
    committed: Epoch,
    damaged: BTreeSet<(Epoch, u64)>,
    /// Which attempt recorded an epoch last.
    recorded_by: BTreeMap<Epoch, u64>,
    /// The savepoint that is wanted, and whether the job shall end with it.
    wanted: Option<(SavepointId, bool)>,
    /// Outcomes of savepoints: the epoch, or none where there is no savepoint.
    outcomes: BTreeMap<SavepointId, Option<Epoch>>,
    /// Whether the job has ended with a savepoint, until it is started again.
    ended: bool,
}

impl Durable {
    fn publish(&mut self, epoch: Epoch, committables: &BTreeMap<OperatorId, Vec<Committable>>) {
        assert!(self.epochs.contains_key(&epoch), "I1: epoch {epoch} is published and not recorded");
        assert!(epoch == self.committed.next() || epoch == self.committed, "I2: {epoch} after {}", self.committed);
        for Committable { payload } in committables.values().flatten() {
            if self.published.insert(payload.clone()) {
                let rows = self.staged.remove(payload).expect("I1: durable before the epoch is complete");
                self.visible.extend(rows);
            }
        }
    }

    fn delete(&mut self, path: &str) {
        let needed = self.epochs.iter().find(|(_, recorded)| recorded.objects.contains(path));
        assert!(needed.is_none(), "I4: {path} is deleted while epoch {} needs it", needed.unwrap().0);
        self.objects.remove(path);
    }
}

enum ToSource {
    Inject(Barrier, bool),
    Assign(Vec<SplitState>),
    ReplayTo(Barrier, ReplayPart),
    NoMore,
}

#[derive(Clone)]
enum Element {
    Row(String),
    Barrier(Barrier, bool),
}

#[derive(Clone)]
enum Event {
    Machine(CheckpointEvent),
    Request(SubtaskId),
}

#[derive(Default)]
struct Source {
    inbox: VecDeque<ToSource>,
    output: VecDeque<Element>,
    splits: BTreeMap<SplitId, SplitState>,
    requested: bool,
    no_more: bool,
    exhausted: bool,
    done: bool,
}

struct Upload {
    barrier: Barrier,
    last: bool,
    rows: Vec<String>,
    /// Name and rows of the file that this epoch adds; a compacted one holds all.
    file: (String, i64),
    files: Vec<String>,
}

#[derive(Default)]
struct Sink {
    blocked: BTreeMap<u32, (Barrier, bool)>,
    rows: Vec<String>,
    files: Vec<(String, i64)>,
    uploads: VecDeque<Upload>,
}

struct Open {
    cut: SplitCut,
    recorded: Option<Recorded>,
}

struct Attempt {
    generation: Generation,
    machine: CheckpointCoordinator,
    assigner: SplitAssigner,
    replay: BTreeMap<Epoch, SourceEpoch>,
    replay_until: Option<Epoch>,
    sources: BTreeMap<u32, Source>,
    sink: Sink,
    events: Vec<Event>,
    storage: VecDeque<CheckpointCommand>,
    open: BTreeMap<Epoch, Open>,
    last_splits: Vec<SplitState>,
    /// What is copied for a savepoint.
    held: BTreeSet<String>,
    finished: bool,
}

struct Simulation {
    random: Random,
    now: i64,
    durable: Durable,
    attempt: Attempt,
    /// Messages of earlier attempts that are still under way.
    stale: Vec<CheckpointEvent>,
    refused: u64,
    replays: u64,
    crashes: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut durable = Durable::default();
        let attempt = Attempt::start(&mut durable, &mut random, 0);
        let (stale, refused, replays, crashes) = (Vec::new(), 0, 0, 0);
        Simulation { random, now: 0, durable, attempt, stale, refused, replays, crashes }
    }

    fn run(mut self) -> Simulation {
        for step in 0..STEPS_MAX {
            if self.attempt.finished {
                self.check_end();
                return self;
            }
            if step < FAULTS_UNTIL && self.random.one_in(120) {
                self.crash();
            }
            if step < FAULTS_UNTIL && self.random.one_in(80) {
                self.want_savepoint();
            }
            self.step();
        }
        panic!("the job does not finish");
    }

    fn crash(&mut self) {
        self.crashes += 1;
        for event in self.attempt.events.drain(..) {
            if let Event::Machine(event @ CheckpointEvent::SnapshotDone { .. }) = event {
                self.stale.push(event);
            }
        }
        self.again();
    }

    /// The next attempt, or the job is started again where it had ended.
    fn again(&mut self) {
        self.durable.ended = false;
        let newest = self.durable.epochs.keys().next_back().copied();
        if let Some(newest) = newest
            && self.random.one_in(3)
        {
            self.durable.damaged.insert((newest, self.durable.recorded_by[&newest]));
        }
        self.attempt = Attempt::start(&mut self.durable, &mut self.random, self.now);
        self.replays += self.attempt.replay.len() as u64;
        self.ask_for_savepoint();
    }

    fn want_savepoint(&mut self) {
        if self.durable.wanted.is_none() && !self.durable.ended {
            let id = SavepointId::of(self.durable.outcomes.len() as u64);
            self.durable.wanted = Some((id, self.random.one_in(3)));
            self.ask_for_savepoint();
        }
    }

    fn ask_for_savepoint(&mut self) {
        if let Some((savepoint, stop)) = self.durable.wanted.clone() {
            self.feed(CheckpointEvent::SavepointRequested { savepoint, stop });
        }
    }

    fn step(&mut self) {
        match self.random.below(9) {
            0 => {
                self.now += self.random.below(40) as i64;
                self.feed(CheckpointEvent::Tick { wall: Timestamp(self.now) });
            }
            1 | 2 => self.deliver(),
            3 => {
                if !self.stale.is_empty() {
                    let event = self.stale.swap_remove(self.random.below(self.stale.len()));
                    let before = self.refused;
                    self.feed(event);
                    assert!(self.refused == before + 1 || self.attempt.finished, "I3: a stale message was taken");
                }
            }
            4 => self.store(),
            5 | 6 => self.source_step(),
            7 => self.sink_step(),
            _ => self.upload_step(),
        }
    }

    fn deliver(&mut self) {
        if self.attempt.events.is_empty() {
            return;
        }
        let position = self.random.below(self.attempt.events.len());
        // Some arrive twice.
        let event = if self.random.one_in(5) {
            self.attempt.events[position].clone()
        } else {
            self.attempt.events.swap_remove(position)
        };
        match event {
            Event::Machine(event) => {
                let recorded = matches!(event, CheckpointEvent::SavepointRecorded { .. });
                self.feed(event);
                if recorded {
                    // Another one may be wanted by now.
                    self.ask_for_savepoint();
                }
            }
            Event::Request(subtask) => {
                let commands = self.attempt.assigner.on(SplitEvent::Requested { subtask });
                self.attempt.send(commands);
            }
        }
    }

    fn feed(&mut self, event: CheckpointEvent) {
        for command in self.attempt.machine.on(Timestamp(self.now), event) {
            match command {
                CheckpointCommand::InjectBarrier { barrier, last } => {
                    let cut = self.attempt.assigner.cut();
                    self.attempt.open.insert(barrier.epoch, Open { cut, recorded: None });
                    for source in self.attempt.sources.values_mut() {
                        source.inbox.push_back(ToSource::Inject(barrier, last));
                    }
                }
                CheckpointCommand::Replay { barrier } => {
                    let epoch = self.attempt.replay.remove(&barrier.epoch).unwrap();
                    let commands = self.attempt.assigner.on(SplitEvent::Replay { barrier, epoch });
                    self.attempt.send(commands);
                    let cut = self.attempt.assigner.cut();
                    self.attempt.open.insert(barrier.epoch, Open { cut, recorded: None });
                }
                CheckpointCommand::ReplayDone => {
                    let commands = self.attempt.assigner.on(SplitEvent::ReplayDone);
                    self.attempt.send(commands);
                }
                CheckpointCommand::Refused { .. } => self.refused += 1,
                CheckpointCommand::Finish { end: End::InputEnd } => self.attempt.finished = true,
                // With its savepoint; or that has failed, and it goes on.
                CheckpointCommand::Finish { end: End::Stop } => return self.again(),
                CheckpointCommand::FailAttempt { failure } => panic!("{}", failure.message),
                CheckpointCommand::CopySavepoint { savepoint, epoch } => {
                    assert!(epoch <= self.durable.committed, "savepoint {savepoint} of epoch {epoch}, not published");
                    self.attempt.held = self.durable.epochs[&epoch].objects.clone();
                    self.attempt.storage.push_back(CheckpointCommand::CopySavepoint { savepoint, epoch });
                }
                storage => self.attempt.storage.push_back(storage),
            }
        }
    }

    /// Carries out the next storage command; its report comes some time later, or never.
    fn store(&mut self) {
        let Some(command) = self.attempt.storage.pop_front() else { return };
        let event = match command {
            CheckpointCommand::WriteManifest { barrier, epoch_now, snapshots, .. } => {
                let path = format!("manifest {}-g{}", barrier.epoch, self.attempt.generation);
                self.attempt.assemble(barrier, epoch_now, snapshots, &path);
                self.durable.objects.insert(path.clone(), 0);
                CheckpointEvent::ManifestDurable { epoch: barrier.epoch, path }
            }
            CheckpointCommand::RecordComplete { epoch } => self.record_complete(epoch),
            CheckpointCommand::Commit { epoch, committables } => {
                assert_eq!(epoch, self.durable.committed.next(), "I2: in order, once an attempt");
                self.durable.publish(epoch, &committables);
                CheckpointEvent::Committed { epoch }
            }
            CheckpointCommand::PrepareSavepoint { savepoint } => match self.random.one_in(6) {
                true => CheckpointEvent::SavepointFailed { savepoint, reason: "no place".to_owned() },
                false => CheckpointEvent::SavepointPrepared { savepoint },
            },
            CheckpointCommand::CopySavepoint { savepoint, .. } => {
                for object in &self.attempt.held {
                    assert!(self.durable.objects.contains_key(object), "I4: {object} is gone before it is copied");
                }
                match self.random.one_in(6) {
                    true => CheckpointEvent::SavepointFailed { savepoint, reason: "disk full".to_owned() },
                    false => CheckpointEvent::SavepointCopied { savepoint },
                }
            }
            CheckpointCommand::RecordSavepoint { savepoint, epoch, end } => {
                if end.is_some() {
                    assert_eq!(epoch, self.durable.committed, "published beyond the savepoint with which it ends");
                    let mut behind = self.attempt.storage.iter();
                    let is_record = |c: &CheckpointCommand| !matches!(c, CheckpointCommand::DeleteObjects { .. });
                    assert!(!behind.any(is_record), "{:?} follows the last record", self.attempt.storage);
                    self.durable.ended = true;
                }
                self.record_outcome(savepoint, Some(epoch))
            }
            CheckpointCommand::RecordSavepointFailure { savepoint, .. } => self.record_outcome(savepoint, None),
            CheckpointCommand::RecordCommitted { epoch } => {
                self.durable.committed = epoch;
                CheckpointEvent::CommitRecorded { epoch }
            }
            CheckpointCommand::RecordRetired { epochs } => {
                for epoch in &epochs {
                    assert!(*epoch <= self.durable.committed && self.durable.epochs.len() > 1, "I4");
                    self.durable.epochs.remove(epoch);
                }
                CheckpointEvent::RetiredRecorded { epochs }
            }
            CheckpointCommand::DeleteObjects { paths } => {
                let (failed, deleted): (Vec<_>, Vec<_>) = paths.into_iter().partition(|_| self.random.one_in(6));
                for path in &deleted {
                    assert!(!self.attempt.held.contains(path), "I4: {path} is deleted while it is copied");
                    self.durable.delete(path);
                }
                CheckpointEvent::Deleted { failed }
            }
            other => panic!("{other:?} is not for the store"),
        };
        self.attempt.events.push(Event::Machine(event));
    }

    fn record_outcome(&mut self, savepoint: SavepointId, epoch: Option<Epoch>) -> CheckpointEvent {
        assert!(self.durable.wanted.take().is_some_and(|(id, _)| id == savepoint), "nobody wants {savepoint}");
        assert!(self.durable.outcomes.insert(savepoint.clone(), epoch).is_none(), "{savepoint} has two outcomes");
        self.attempt.held.clear();
        CheckpointEvent::SavepointRecorded { savepoint }
    }

    fn record_complete(&mut self, epoch: Epoch) -> CheckpointEvent {
        let open = self.attempt.open.remove(&epoch).unwrap();
        let recorded = open.recorded.unwrap();
        for object in &recorded.objects {
            assert!(self.durable.objects.contains_key(object), "I1: {object} is not durable");
        }
        let newest = self.durable.epochs.keys().next_back().copied().unwrap_or_default();
        let is_next = epoch == newest.next();
        assert!(is_next || (epoch <= self.durable.committed && recorded.committables.is_empty()), "I2: {epoch}");
        let splits = recorded.splits.clone();
        self.durable.recorded_by.insert(epoch, self.attempt.generation.0);
        self.durable.epochs.insert(epoch, recorded);
        self.attempt.assigner.on(SplitEvent::EpochComplete { splits });
        CheckpointEvent::CompleteRecorded { epoch }
    }

    fn source_step(&mut self) {
        let index = self.random.below(2) as u32;
        let (generation, reads_freely) = (self.attempt.generation, self.attempt.replay_until.is_none());
        let source = self.attempt.sources.get_mut(&index).unwrap();
        let events = &mut self.attempt.events;
        if source.done {
            return;
        }
        if self.random.one_in(3) {
            match source.inbox.pop_front() {
                Some(ToSource::Assign(splits)) => {
                    source.requested = false;
                    source.splits.extend(splits.into_iter().map(|s| (s.split.id.clone(), s)));
                }
                Some(ToSource::NoMore) => source.no_more = true,
                Some(ToSource::Inject(barrier, last)) => source.barrier(index, generation, barrier, last, events),
                Some(ToSource::ReplayTo(barrier, part)) => {
                    for end in part.splits {
                        while position(&source.splits[&end.split.id]) < position(&end) {
                            source.read(&end.split.id);
                        }
                    }
                    source.barrier(index, generation, barrier, false, events);
                }
                None => {}
            }
        } else if reads_freely {
            let unread = source.splits.values().find(|s| position(s) < ROWS).map(|s| s.split.id.clone());
            match unread {
                Some(split) => source.read(&split),
                None if source.no_more && !source.exhausted => {
                    source.exhausted = true;
                    let subtask = SubtaskId { operator: SOURCE, index };
                    events.push(Event::Machine(CheckpointEvent::InputExhausted { subtask }));
                }
                None if !source.requested => {
                    source.requested = true;
                    events.push(Event::Request(SubtaskId { operator: SOURCE, index }));
                }
                None => {}
            }
        }
    }

    fn sink_step(&mut self) {
        let Attempt { sources, sink, generation, .. } = &mut self.attempt;
        let index = self.random.below(2) as u32;
        if sink.blocked.contains_key(&index) {
            return;
        }
        match sources.get_mut(&index).unwrap().output.pop_front() {
            Some(Element::Row(row)) => sink.rows.push(row),
            Some(Element::Barrier(barrier, last)) => {
                sink.blocked.insert(index, (barrier, last));
            }
            None => {}
        }
        if sink.blocked.len() == 2 {
            let aligned = std::mem::take(&mut sink.blocked);
            assert_eq!(aligned[&0], aligned[&1]);
            let (barrier, last) = aligned[&0];
            sink.capture(*generation, barrier, last, self.random.one_in(4));
            if self.attempt.replay_until == Some(barrier.epoch) {
                self.attempt.replay_until = None;
            }
        }
    }

    fn upload_step(&mut self) {
        let Some(upload) = self.attempt.sink.uploads.pop_front() else { return };
        let (generation, epoch) = (self.attempt.generation, upload.barrier.epoch);
        let name = format!("output {epoch}-g{generation}");
        self.durable.staged.insert(name.clone(), upload.rows);
        self.durable.objects.insert(upload.file.0, upload.file.1);
        let handle = |path: String| StateHandle {
            path,
            size: 0,
            crc32c: 0,
            key_groups: KeyGroupRange { start: 0, end: 1 },
            epoch,
        };
        let part = OperatorSnapshot {
            state: upload.files.into_iter().map(handle).collect(),
            committables: vec![Committable { payload: name }],
            ..OperatorSnapshot::default()
        };
        let snapshot = BTreeMap::from([(SINK.operator, part)]);
        let done = CheckpointEvent::SnapshotDone { subtask: SINK, generation, epoch, snapshot };
        self.attempt.events.push(Event::Machine(done));
        if upload.last {
            self.attempt.events.push(Event::Machine(CheckpointEvent::SubtaskFinished { subtask: SINK }));
        }
    }

    fn check_end(&self) {
        let (counts, mut rows): (Vec<_>, Vec<_>) = self.durable.visible.iter().partition(|r| r.starts_with('#'));
        rows.sort();
        let mut expected: Vec<String> = (0..SPLITS).flat_map(|s| (0..ROWS).map(move |r| format!("{s}:{r}"))).collect();
        expected.sort();
        assert_eq!(rows, expected.iter().collect::<Vec<_>>(), "every row once");
        assert_eq!(*counts.last().unwrap(), &format!("#{}", SPLITS * ROWS), "the state survived");
    }
}

impl Source {
    fn read(&mut self, split: &SplitId) {
        let state = self.splits.get_mut(split).unwrap();
        let at = position(state);
        state.progress = progress(at + 1);
        self.output.push_back(Element::Row(format!("{split}:{at}")));
    }

    fn barrier(&mut self, index: u32, generation: Generation, barrier: Barrier, last: bool, events: &mut Vec<Event>) {
        self.output.push_back(Element::Barrier(barrier, last));
        let splits = self.splits.values().cloned().collect();
        self.splits.retain(|_, split| !split.is_finished());
        let snapshot = BTreeMap::from([(SOURCE, OperatorSnapshot { splits, ..OperatorSnapshot::default() })]);
        let subtask = source(index);
        let done = CheckpointEvent::SnapshotDone { subtask, generation, epoch: barrier.epoch, snapshot };
        events.push(Event::Machine(done));
        if last {
            self.done = true;
            events.push(Event::Machine(CheckpointEvent::SubtaskFinished { subtask }));
        }
    }
}

impl Sink {
    /// Freezes the state: a file with what the epoch added, or at times one with everything instead of all.
    fn capture(&mut self, generation: Generation, barrier: Barrier, last: bool, compacts: bool) {
        let mut rows = std::mem::take(&mut self.rows);
        let before: i64 = self.files.iter().map(|(_, count)| count).sum();
        let count = rows.len() as i64;
        let name = format!("state {}-g{generation}", barrier.epoch);
        let file = if compacts { (name, before + count) } else { (name, count) };
        if compacts {
            self.files.clear();
        }
        self.files.push(file.clone());
        rows.push(format!("#{}", before + count));
        let files = self.files.iter().map(|(name, _)| name.clone()).collect();
        self.uploads.push_back(Upload { barrier, last, rows, file, files });
    }
}

impl Attempt {
    /// Recovery: publish what is complete, choose a checkpoint, remove orphans, begin.
    fn start(durable: &mut Durable, random: &mut Random, now: i64) -> Attempt {
        while let Some(recorded) = durable.epochs.get(&durable.committed.next()).cloned() {
            durable.publish(recorded.barrier.epoch, &recorded.committables);
            durable.committed = recorded.barrier.epoch;
        }
        durable.generation += 1;
        let generation = Generation(durable.generation);
        let is_good = |e: &Epoch| !durable.damaged.contains(&(*e, durable.recorded_by[e]));
        let oldest = durable.epochs.keys().next().copied();
        let restored = durable.epochs.keys().rev().copied().find(is_good);
        // Where nothing is readable, and not everything can be replayed, the damage is taken back: a real job
        // would stop here and say so.
        let restored = restored.or(oldest.filter(|epoch| *epoch > Epoch(1))).unwrap_or_default();
        let named: BTreeSet<String> = durable.epochs.values().flat_map(|r| &r.objects).cloned().collect();
        durable.objects.retain(|path, _| named.contains(path));
        let published = &durable.published;
        durable.staged.retain(|name, _| published.contains(name));

        let checkpoint = durable.epochs.get(&restored);
        let files = checkpoint.map(|r| r.state.iter().map(|path| (path.clone(), durable.objects[path])).collect());
        let replay: Vec<Recorded> = durable.epochs.range(restored.next()..).map(|(_, r)| r.clone()).collect();
        let retained = durable.epochs.range(..=restored).map(|(epoch, r)| (*epoch, r.objects.clone())).collect();
        let config = CheckpointConfig {
            interval_ms: 1 + random.below(60) as u64,
            min_pause_ms: random.below(20) as u64,
            timeout_ms: u64::MAX,
            in_flight_max: 1 + random.below(3),
            retained: 1 + random.below(3),
        };
        let sources = BTreeSet::from([source(0), source(1)]);
        let machine = CheckpointCoordinator::new(CheckpointStart {
            cadence: None,
            config,
            generation,
            subtasks: BTreeSet::from([source(0), source(1), SINK]),
            sources: sources.clone(),
            restored,
            epoch_now: replay.first().map_or(Timestamp(now), |r| r.epoch_now),
            replay: replay.iter().map(|r| r.barrier).collect(),
            retained,
            unreadable: BTreeMap::new(),
            started_at: Timestamp(now),
        });
        let all = (0..SPLITS).map(|s| SourceSplit { id: SplitId(s.to_string()), payload: String::new() });
        let last_splits = checkpoint.map(|r| r.splits.clone()).unwrap_or_default();
        let restored_splits = checkpoint.map(|r| r.splits.as_slice());
        let mut attempt = Attempt {
            generation,
            machine,
            assigner: SplitAssigner::new(sources, true, restored_splits, !replay.is_empty()),
            replay_until: replay.last().map(|r| r.barrier.epoch),
            replay: replay.into_iter().map(|r| (r.barrier.epoch, r.source)).collect(),
            sources: BTreeMap::from([(0, Source::default()), (1, Source::default())]),
            sink: Sink { files: files.unwrap_or_default(), ..Sink::default() },
            events: Vec::new(),
            storage: VecDeque::new(),
            open: BTreeMap::new(),
            last_splits,
            held: BTreeSet::new(),
            finished: false,
        };
        let mut commands = attempt.assigner.start();
        if checkpoint.is_none() {
            commands.extend(attempt.assigner.on(SplitEvent::Discovered { splits: all.collect() }));
        }
        attempt.send(commands);
        attempt
    }

    fn send(&mut self, commands: Vec<SplitCommand>) {
        for command in commands {
            match command {
                SplitCommand::Assign { subtask, splits } => {
                    self.sources.get_mut(&subtask.index).unwrap().inbox.push_back(ToSource::Assign(splits));
                }
                SplitCommand::ReplayTo { subtask, barrier, part } => {
                    let inbox = &mut self.sources.get_mut(&subtask.index).unwrap().inbox;
                    inbox.push_back(ToSource::ReplayTo(barrier, part));
                }
                SplitCommand::NoMoreSplits => {
                    self.sources.values_mut().for_each(|s| s.inbox.push_back(ToSource::NoMore));
                }
                SplitCommand::Bound { .. } => {}
            }
        }
    }

    fn assemble(
        &mut self,
        barrier: Barrier,
        epoch_now: Timestamp,
        snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
        manifest: &str,
    ) {
        let open = self.open.get_mut(&barrier.epoch).unwrap();
        let parts: Vec<_> = snapshots.iter().filter_map(|(s, parts)| Some((*s, parts.get(&SOURCE)?))).collect();
        let splits =
            open.cut.merge(&self.last_splits, parts.iter().map(|(s, part)| (*s, part.splits.as_slice()))).unwrap();
        let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
        let sink = &snapshots[&SINK][&SINK.operator];
        let state: Vec<String> = sink.state.iter().map(|h| h.path.clone()).collect();
        let mut objects: BTreeSet<String> = state.iter().cloned().collect();
        objects.insert(manifest.to_owned());
        let committables = match sink.committables.as_slice() {
            [] => BTreeMap::new(),
            some => BTreeMap::from([(SINK.operator, some.to_vec())]),
        };
        let source = SourceEpoch::between(&self.last_splits, &splits, &open.cut, &parts);
        self.last_splits.clone_from(&splits);
        open.recorded = Some(Recorded { barrier, epoch_now, objects, state, splits, source, committables });
    }
}

#[test]
fn under_any_schedule_every_row_is_seen_once() {
    let (mut refused, mut replays, mut crashes, mut taken, mut failed) = (0, 0, 0, 0, 0);
    for seed in 1..=SEEDS {
        let run = std::panic::catch_unwind(|| Simulation::new(seed).run());
        let Ok(run) = run else { panic!("seed {seed} failed, see above; run Simulation::new({seed}).run() alone") };
        refused += run.refused;
        replays += run.replays;
        crashes += run.crashes;
        let outcomes = run.durable.outcomes.values();
        taken += outcomes.clone().filter(|epoch| epoch.is_some()).count() as u64;
        failed += outcomes.filter(|epoch| epoch.is_none()).count() as u64;
    }
    assert!(taken > SEEDS && failed > SEEDS / 10, "{taken} {failed}");
    // The interesting states were reached.
    assert!(refused > SEEDS && replays > SEEDS / 10 && crashes > SEEDS, "{refused} {replays} {crashes}");
}
