//! The second task of the simulated job: aligns barriers, merges watermarks, counts rows by key and window, and hands
//! what it shows to the sink that is chained to it. Its checkpoints are the counts that came in each epoch; now and
//! then one file with all that is alive replaces them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::plan::{COUNTER, Cell, Element, KEY_GROUPS, Out, Row, SINK, group_of_key, is_closed, window_of};
use super::random::Random;
use super::store::{self, Content, Effect, Object, Staged, Store};
use super::subtask::Upload;
use crate::alignment::{Alignment, AlignmentConfig, BarrierAligner, BarrierMark};
use crate::cluster::messages::AttemptId;
use crate::ids::OperatorId;
use crate::key_group::KeyGroupRange;
use crate::protocol::{Barrier, Committable, OperatorSnapshot, StateHandle};
use crate::time::Timestamp;
use crate::watermark::WatermarkMerger;

pub(super) struct CounterTask {
    attempt: AttemptId,
    index: u32,
    range: KeyGroupRange,
    aligner: BarrierAligner,
    merger: WatermarkMerger,
    /// Elements that have arrived, by sender.
    pub(super) inputs: Vec<VecDeque<Element>>,
    counts: BTreeMap<Cell, u32>,
    /// Counts that came in this epoch.
    added: BTreeMap<Cell, u32>,
    files: Vec<StateHandle>,
    watermark: Timestamp,
    out: Vec<Out>,
    /// The barrier that is aligned is the last one.
    last: bool,
    pub(super) ended: bool,
}

impl CounterTask {
    /// Restores its key groups; none where a file is gone.
    pub(super) fn start(
        attempt: &AttemptId,
        index: u32,
        parallelism: u32,
        restore: &BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
        store: &Store,
    ) -> Option<CounterTask> {
        let range = KeyGroupRange::of_subtask(KEY_GROUPS, parallelism, index);
        let parts = restore.get(&COUNTER).map(Vec::as_slice).unwrap_or_default();
        let metas: BTreeSet<i64> = parts.iter().filter_map(|(_, part)| part.meta.as_ref()?.parse().ok()).collect();
        assert!(metas.len() <= 1, "every subtask has seen the same watermark at the barrier");
        let watermark = metas.first().map_or(Timestamp::MIN, |ms| Timestamp(*ms));
        let files = files_of(parts, range);
        let mut counts = BTreeMap::new();
        for file in &files {
            for ((start, key), count) in store.state(&file.path)?.iter() {
                let counts_here = file.key_groups.contains(group_of_key(*key)) && !is_closed(*start, watermark);
                if counts_here {
                    *counts.entry((*start, *key)).or_default() += count;
                }
            }
        }
        let inputs = parallelism as usize;
        Some(CounterTask {
            attempt: attempt.clone(),
            index,
            range,
            aligner: BarrierAligner::new(inputs, AlignmentConfig::ALWAYS),
            merger: WatermarkMerger::new(inputs),
            inputs: (0..inputs).map(|_| VecDeque::new()).collect(),
            counts,
            added: BTreeMap::new(),
            files,
            watermark,
            out: Vec::new(),
            last: false,
            ended: false,
        })
    }

    /// Takes one element of some input.
    pub(super) fn step(&mut self, random: &mut Random, uploads: &mut VecDeque<Upload>) {
        let input = random.below(self.inputs.len());
        if self.ended || !self.aligner.may_take(input) {
            return;
        }
        let Some(element) = self.inputs[input].pop_front() else { return };
        let aligned = match element {
            Element::Row(row) => return self.count(row),
            Element::Watermark(watermark) => {
                if let Some(merged) = self.merger.update(input, watermark) {
                    self.advance(merged);
                }
                return;
            }
            Element::Barrier(barrier, last) => {
                self.last = last;
                self.aligner.on_barrier(Timestamp(0), input, BarrierMark::new(barrier, last))
            }
            Element::End => self.aligner.on_end(Timestamp(0), input),
        };
        match aligned {
            Alignment::Wait => {}
            Alignment::Complete(aligned) => self.capture(aligned.mark.barrier, random, uploads),
            Alignment::Overtake { .. } | Alignment::Stored(_) => unreachable!("every epoch is aligned"),
            Alignment::Ended => self.ended = true,
            Alignment::Violation(barrier) => panic!("barrier of epoch {} out of its order", barrier.epoch),
        }
    }

    fn count(&mut self, row: Row) {
        let Row { split, position, key, time, late } = row;
        let start = window_of(time);
        self.out.push(Out::Row { split, position, late });
        assert!(self.range.contains(group_of_key(key)), "{row:?} is with the wrong subtask");
        if !late {
            assert!(!is_closed(start, self.watermark), "I6: {row:?} is on time and its window has closed");
            *self.counts.entry((start, key)).or_default() += 1;
            *self.added.entry((start, key)).or_default() += 1;
        }
    }

    fn advance(&mut self, watermark: Timestamp) {
        // A restored source says again what it had said.
        if watermark <= self.watermark {
            return;
        }
        self.watermark = watermark;
        let out = &mut self.out;
        self.counts.retain(|(start, key), count| {
            let closes = is_closed(*start, watermark);
            if closes {
                out.push(Out::Window { start: *start, key: *key, count: *count });
            }
            !closes
        });
    }

    fn capture(&mut self, barrier: Barrier, random: &mut Random, uploads: &mut VecDeque<Upload>) {
        let AttemptId { job, generation } = self.attempt.clone();
        let epoch = barrier.epoch;
        let mut upload = Upload::new(epoch, BTreeMap::new());
        let mut added = std::mem::take(&mut self.added);
        if !added.is_empty() {
            if random.one_in(4) {
                self.files.clear();
                added.clone_from(&self.counts);
            }
            let path = store::state_path(&job, epoch, generation, self.index);
            let content = Content::State(Rc::new(added.into_iter().collect()));
            upload
                .effects
                .push(Effect::Put { path: path.clone(), object: Object { job: job.clone(), generation, content } });
            self.files.push(StateHandle { path, size: 0, crc32c: 0, key_groups: self.range, epoch });
        }
        let mut committables = Vec::new();
        if !self.out.is_empty() {
            let name = store::output_name(&job, epoch, generation, self.index);
            let rows = Rc::new(std::mem::take(&mut self.out));
            upload.effects.push(Effect::Stage { name: name.clone(), staged: Staged { job, generation, rows } });
            committables.push(Committable { payload: name });
        }
        let state = self.files.clone();
        let counter = OperatorSnapshot { state, meta: Some(self.watermark.0.to_string()), ..Default::default() };
        let sink = OperatorSnapshot { committables, ..Default::default() };
        upload.snapshot = BTreeMap::from([(COUNTER, counter), (SINK, sink)]);
        uploads.push_back(upload);
    }
}

/// The files that hold state of the key groups in `range`, each narrowed to what counts of it, as the engine does it.
fn files_of(parts: &[(u32, OperatorSnapshot)], range: KeyGroupRange) -> Vec<StateHandle> {
    let mut seen = BTreeSet::new();
    let mut files: Vec<StateHandle> = Vec::new();
    for handle in parts.iter().flat_map(|(_, part)| &part.state).filter(|h| h.key_groups.overlaps(&range)) {
        let key_groups = handle.key_groups.intersection(&range);
        if seen.insert((handle.path.clone(), key_groups.start)) {
            files.push(StateHandle { key_groups, ..handle.clone() });
        }
    }
    files.sort_by_key(|file| file.epoch);
    files
}
