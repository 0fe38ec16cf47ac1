//! What must hold, checked at every decision of the coordinators and at everything done to the outside. Judges by its
//! own books: by the records that were decided, in their order, and by what is on the store.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::plan::{Out, Plan, SINK, is_closed, split_number, window_of};
use super::store::{Effect, Manifest, Store, output_name};
use crate::checkpoint::End;
use crate::cluster::state::{ClusterState, Command, Wish};
use crate::ids::{Epoch, Generation, JobId, OperatorId};
use crate::job_record::{EpochRecord, JobEnd, Record};
use crate::protocol::Committable;
use crate::time::Timestamp;

/// An epoch as it was when it first became complete; what comes later must be the same.
struct FirstRun {
    positions: Vec<u8>,
    watermark: Timestamp,
    next_epoch_now: Timestamp,
    committables: BTreeMap<OperatorId, Vec<Committable>>,
    rows: Vec<Out>,
}

#[derive(Default)]
struct Books {
    generation: Generation,
    epochs: BTreeMap<Epoch, FirstRun>,
    /// Objects of each checkpoint that may be restored.
    named: BTreeMap<Epoch, BTreeSet<String>>,
    /// The newest epoch of which something is visible.
    visible: Epoch,
    finished: bool,
    cancelled: bool,
}

pub(super) struct Judge {
    /// What is decided adds up to this.
    pub(super) state: ClusterState,
    plans: BTreeMap<JobId, Plan>,
    books: BTreeMap<JobId, Books>,
    pub(super) epochs: u64,
    pub(super) replays: u64,
    pub(super) ends: BTreeMap<&'static str, u64>,
}

impl Judge {
    pub(super) fn new(plans: BTreeMap<JobId, Plan>) -> Judge {
        let books = plans.keys().map(|job| (job.clone(), Books::default())).collect();
        Judge { state: ClusterState::default(), plans, books, epochs: 0, replays: 0, ends: BTreeMap::new() }
    }

    pub(super) fn generation(&self, job: &JobId) -> Generation {
        self.books[job].generation
    }

    pub(super) fn is_finished(&self, job: &JobId) -> bool {
        self.books[job].finished
    }

    /// A command was decided.
    pub(super) fn on_decided(&mut self, command: &Command, store: &Store) {
        if self.state.apply_command(command.clone()).is_err() {
            return;
        }
        match command {
            Command::Submit { job, .. } => self.books.get_mut(job).expect("planned").cancelled = false,
            Command::Wish { job, wish: Wish::Cancel } => self.books.get_mut(job).expect("planned").cancelled = true,
            Command::Record { job, record } => self.on_record(job, record, store),
            // Savepoints have a simulation of their own, beside the checkpoints'.
            Command::Savepoint { .. } | Command::Remove { .. } | Command::Removed { .. } => {}
            Command::Wish { .. } | Command::Rescale { .. } | Command::Settle | Command::Notes { .. } => {}
        }
        for (job, _) in self.books.iter().filter(|(_, books)| books.cancelled) {
            assert_eq!(self.state.jobs[job].wish, Wish::Cancel, "what the user wanted was forgotten");
        }
    }

    fn on_record(&mut self, job: &JobId, record: &Record, store: &Store) {
        let books = self.books.get_mut(job).expect("planned");
        let by = match record {
            Record::GenerationStarted { generation, .. } => {
                assert!(*generation > books.generation, "attempt {generation} after attempt {}", books.generation);
                assert!(!books.finished, "a finished job starts again");
                books.generation = *generation;
                return;
            }
            Record::JobCreated(_) | Record::JobRestored(_) | Record::Snapshot(_) => return,
            Record::SplitsDiscovered { generation, .. }
            | Record::Decided { generation, .. }
            | Record::AttemptAdopted { generation, .. }
            | Record::EpochCommitted { generation, .. }
            | Record::EpochsRetired { generation, .. }
            | Record::Savepoint { generation, .. }
            | Record::Ended { generation, .. } => *generation,
            Record::AttemptDeployed(deployed) => deployed.generation,
            Record::EpochComplete(epoch) => epoch.generation,
        };
        assert_eq!(by, books.generation, "I3: an attempt that is not the newest has written {record:?}");
        match record {
            Record::EpochComplete(record) => {
                self.epochs += 1;
                self.on_complete(job, record, store);
            }
            Record::EpochCommitted { epoch, .. } => {
                let run = &books.epochs[epoch];
                let names = run.committables.values().flatten();
                let missing = names.map(|c| &c.payload).find(|name| !store.published.contains_key(*name));
                assert_eq!(missing, None, "I2: epoch {epoch} counts as visible");
            }
            Record::EpochsRetired { epochs, .. } => epochs.iter().for_each(|epoch| {
                books.named.remove(epoch);
                assert!(!books.named.is_empty(), "I4: no checkpoint is left");
            }),
            Record::Ended { end, .. } => self.on_ended(job, end, store),
            _ => {}
        }
    }

    fn on_complete(&mut self, job: &JobId, record: &EpochRecord, store: &Store) {
        let (plan, books) = (&self.plans[job], self.books.get_mut(job).expect("planned"));
        let epoch = record.epoch;
        let manifest = store.manifest(&record.manifest.path);
        let manifest = manifest.unwrap_or_else(|| panic!("I1: epoch {epoch} is complete without its manifest"));
        let mut named = manifest.state_paths();
        let missing = named.iter().find(|path| !store.objects.contains_key(*path));
        assert_eq!(missing, None, "I1, I4: epoch {epoch} is complete without a file");
        named.insert(record.manifest.path.clone());
        let run = first_run(plan, job, record, &manifest, store);
        if let Some(first) = books.epochs.get(&epoch) {
            self.replays += 1;
            assert!(record.committables.is_empty(), "I2: epoch {epoch} would be published again");
            assert_eq!(run.positions, first.positions, "I6: epoch {epoch} was run again over other rows");
            assert_eq!(run.watermark, first.watermark, "I6: the watermark of epoch {epoch} run again");
            assert_eq!(run.next_epoch_now, first.next_epoch_now, "I6: the time of epoch {epoch} run again");
            assert_eq!(run.rows, first.rows, "I6: the output of epoch {epoch} run again");
        } else {
            let before = books.epochs.last_key_value();
            let newest = before.map_or(Epoch(0), |(epoch, _)| *epoch);
            assert_eq!(epoch, newest.next(), "I2: epochs become complete in their order");
            check_step(plan, epoch, before.map(|(_, run)| run), &run, record.epoch_now);
            books.epochs.insert(epoch, run);
        }
        books.named.insert(epoch, named);
    }

    fn on_ended(&mut self, job: &JobId, end: &JobEnd, store: &Store) {
        let books = self.books.get_mut(job).expect("planned");
        books.cancelled = false;
        let record = &self.state.jobs[job].record;
        match end {
            JobEnd::Finished => {
                *self.ends.entry("finished").or_default() += 1;
                books.finished = true;
                assert_eq!(record.newest(), record.committed, "the job has finished and something is not visible");
                let newest = books.epochs.last_key_value().expect("a finished job has a checkpoint").0;
                assert_eq!(record.epochs[newest].end, Some(End::InputEnd));
                self.check_output(job, store);
            }
            JobEnd::Stopped => {
                *self.ends.entry("stopped").or_default() += 1;
                assert_ne!(self.state.jobs[job].wish, Wish::Run, "nobody wanted the job to stop");
            }
            JobEnd::Failed { reason } => {
                *self.ends.entry("failed").or_default() += 1;
                let is_legal = !reason.contains("bug") && !reason.contains("no checkpoint");
                assert!(is_legal, "{reason}");
            }
        }
    }

    /// Before something is done to the outside.
    pub(super) fn on_effect(&mut self, effect: &Effect, store: &Store) {
        match effect {
            Effect::Publish { job, epoch, committables } => self.on_publish(job, *epoch, committables, store),
            Effect::Delete { paths } => paths.iter().for_each(|path| self.check_unneeded(path)),
            Effect::RemoveOrphans { job, named, below } => {
                store.orphans(job, named, *below).iter().for_each(|path| self.check_unneeded(path));
            }
            Effect::CleanUp { job, below } => {
                for (epoch, run) in &self.books[job].epochs {
                    for Committable { payload } in run.committables.values().flatten() {
                        let goes = store.staged.get(payload).is_some_and(|staged| staged.generation < *below);
                        assert!(!goes, "I2: output of epoch {epoch} is thrown away before it was published");
                    }
                }
            }
            Effect::Put { .. } | Effect::Stage { .. } => {}
        }
    }

    fn on_publish(
        &mut self,
        job: &JobId,
        epoch: Epoch,
        committables: &BTreeMap<OperatorId, Vec<Committable>>,
        store: &Store,
    ) {
        let books = self.books.get_mut(job).expect("planned");
        let run = books.epochs.get(&epoch);
        let run = run.unwrap_or_else(|| panic!("I1: epoch {epoch} is published and not recorded as complete"));
        let names = committables.values().flatten().map(|c| &c.payload);
        let is_new = names.clone().any(|name| !store.published.contains_key(name));
        if committables.is_empty() {
            return;
        }
        assert_eq!(*committables, run.committables, "I2: epoch {epoch} is published with other output");
        if is_new {
            let between = books.epochs.range(books.visible.next()..epoch);
            let skipped = between.filter(|(_, run)| !run.committables.is_empty()).map(|(epoch, _)| *epoch).next();
            let partly = epoch == books.visible;
            assert!(epoch > books.visible || partly, "I2: epoch {epoch} is published after epoch {}", books.visible);
            assert_eq!(skipped, None, "I2: epochs are published in their order");
            books.visible = epoch;
        }
    }

    fn check_unneeded(&self, path: &str) {
        for (job, books) in &self.books {
            let needs = books.named.iter().find(|(_, named)| named.contains(path)).map(|(epoch, _)| epoch);
            assert_eq!(needs, None, "I4: {path} of job '{job}' is deleted while an epoch needs it");
        }
    }

    /// Everything that is visible of a finished job, against the rows of its splits.
    fn check_output(&self, job: &JobId, store: &Store) {
        let (plan, books) = (&self.plans[job], &self.books[job]);
        let names = books.epochs.values().flat_map(|run| run.committables.values().flatten()).map(|c| &c.payload);
        let mut rows = BTreeSet::new();
        let mut counted = BTreeMap::new();
        for out in names.flat_map(|name| store.published[name].iter()) {
            assert!(rows.insert(*out), "I2: {out:?} is visible twice");
            match *out {
                Out::Row { split, position, late: true } => {
                    let row = plan.row(split, position);
                    *counted.entry((window_of(row.time), row.key)).or_insert(0) += 1;
                }
                Out::Row { .. } => {}
                Out::Window { start, key, count } => *counted.entry((start, key)).or_insert(0) += count,
            }
        }
        let mut expected = BTreeMap::new();
        for row in (0..plan.splits).flat_map(|split| (0..plan.rows).map(move |at| plan.row(split, at))) {
            *expected.entry((window_of(row.time), row.key)).or_insert(0) += 1;
            let shown = |late| rows.contains(&Out::Row { split: row.split, position: row.position, late });
            assert!(shown(true) != shown(false), "{row:?} is not visible once");
        }
        assert_eq!(counted, expected, "counts by window and key, with the late rows");
    }
}

/// What a complete epoch holds.
fn first_run(plan: &Plan, job: &JobId, record: &EpochRecord, manifest: &Rc<Manifest>, store: &Store) -> FirstRun {
    let epoch = record.epoch;
    let mut positions = vec![None; usize::from(plan.splits)];
    for split in &manifest.splits {
        let place = &mut positions[usize::from(split_number(&split.split.id))];
        assert_eq!(*place, None, "split '{}' stands twice in epoch {epoch}", split.split.id);
        *place = Some(plan.position(split));
    }
    let lost = positions.iter().position(Option::is_none);
    assert_eq!(lost, None, "a split is missing in epoch {epoch}");
    let [source] = record.sources.values().collect::<Vec<_>>()[..] else { panic!("one source") };
    let mut rows = Vec::new();
    for index in 0..manifest.parallelism {
        // Whether it is published or only run again, the output lies under the name of its attempt.
        let name = output_name(job, epoch, record.generation, index);
        rows.extend(store.output(&name).into_iter().flat_map(|rows| rows.iter().copied()));
    }
    let names = record.committables.get(&SINK).into_iter().flatten();
    names.for_each(|c| assert!(store.output(&c.payload).is_some(), "I1: {} is complete and not durable", c.payload));
    rows.sort_unstable();
    FirstRun {
        positions: positions.into_iter().flatten().collect(),
        watermark: source.watermark,
        next_epoch_now: record.next_epoch_now,
        committables: record.committables.clone(),
        rows,
    }
}

/// From one epoch to the next: nothing goes back, and the output is that of exactly the rows between.
fn check_step(plan: &Plan, epoch: Epoch, before: Option<&FirstRun>, run: &FirstRun, epoch_now: Timestamp) {
    let start = vec![0; usize::from(plan.splits)];
    let from = before.map_or(&start, |run| &run.positions);
    let watermark = before.map_or(Timestamp::MIN, |run| run.watermark);
    assert!(run.watermark >= watermark, "the watermark goes back in epoch {epoch}");
    let reached = (0..plan.splits).zip(&run.positions).filter(|(_, position)| **position > 0);
    let greatest = reached.map(|(split, position)| plan.row(split, position - 1).time - 1).max();
    let over = run.positions.iter().all(|position| *position == plan.rows);
    let legal = over || run.watermark <= Timestamp(greatest.unwrap_or(i64::MIN));
    assert!(legal, "the watermark {} of epoch {epoch} is ahead of every row", run.watermark);
    assert!(before.is_none_or(|run| run.next_epoch_now == epoch_now), "the time of epoch {epoch} is another one");
    assert!(run.next_epoch_now >= epoch_now, "the time goes back after epoch {epoch}");
    let mut rows = 0;
    for out in &run.rows {
        match *out {
            Out::Row { split, position, late } => {
                assert!(!late || plan.idle.is_some(), "{out:?}: no split was idle, so no row can be late");
                let split = usize::from(split);
                assert!(from[split] <= position && position < run.positions[split], "{out:?} is not of epoch {epoch}");
                rows += 1;
            }
            Out::Window { start, .. } => {
                let fits = is_closed(start, run.watermark) && !is_closed(start, watermark);
                assert!(
                    fits,
                    "{out:?} closes in epoch {epoch}, whose watermark goes from {watermark} to {}",
                    run.watermark
                );
            }
        }
    }
    let read: u32 = from
        .iter()
        .zip(&run.positions)
        .map(|(from, to)| {
            assert!(from <= to, "a position goes back in epoch {epoch}");
            u32::from(to - from)
        })
        .sum();
    assert_eq!(rows, read, "output of epoch {epoch} for the rows that it has read");
    let twice = run.rows.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "twice in epoch {epoch}");
}
