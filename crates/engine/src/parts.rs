//! Keyed state larger than memory: one operator of a subtask as several instances, each with a range of the key groups
//! and state files of its own. A part is in memory, or it is *cold*: then it is nothing but the list of its files.
//!
//! A subtask begins with one part, and nothing is different from an operator without parts. Where memory is short, a part
//! writes what has changed, as for a checkpoint, and is dropped; a large one comes back as several. Rows that come for a
//! cold part are put off. A part for which rows wait is loaded and works them off when there is room, and at the latest
//! before the barrier goes on (I6): what is put off is in no checkpoint. Until then watermarks are put off too, so
//! operators behind see them after all rows that came before. Rows may so be worked off before a watermark that came
//! earlier than they did; that is as if another channel had held it back.
//!
//! `process` never waits: what takes time is done step by step where the chain can wait (`parts::work`).

mod deferred;
mod scratch;
mod work;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, UInt32Array};
use hashbrown::{HashMap, HashSet};
use mainstem_core::ids::Epoch;
use mainstem_core::key_group::{KeyGroupRange, group_of_hash};
use mainstem_core::memory::PartUse;
use mainstem_core::protocol::StateHandle;
use mainstem_core::time::Timestamp;
use tokio::sync::watch;

use self::deferred::Deferred;
use self::work::Work;
use crate::budget::Account;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::key_hash::hash_rows;
use crate::metrics::OperatorMetrics;
use crate::operator::{Capture, Collector, Operator, Release};
use crate::state_files::StateFiles;

/// Makes an instance of the operator, without state.
pub(crate) type Factory = Box<dyn Fn() -> Result<Box<dyn Operator>, EngineError> + Send>;

/// What the parts of an operator are made of.
pub(crate) struct PartsOf {
    /// The operator's name.
    pub(crate) name: String,
    /// Columns by which the rows of each input are partitioned.
    pub(crate) keys: Vec<Vec<usize>>,
    /// Key groups of the subtask.
    pub(crate) own: KeyGroupRange,
    /// Makes an instance.
    pub(crate) make: Factory,
    /// Its state files.
    pub(crate) files: StateFiles,
    /// What it may hold.
    pub(crate) account: Account,
    /// Its counters.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

/// See the module.
pub(crate) struct Parts {
    of: PartsOf,
    /// An instance that never has rows and sees all watermarks, to be asked what holds for all.
    template: Box<dyn Operator>,
    /// By key group; together they have all of the subtask's.
    parts: Vec<Part>,
    /// The part of each key group of the subtask.
    routes: Vec<u16>,
    deferred: Deferred,
    /// Rows that their parts take in one of the next steps: position of the part, input, rows. No part comes or goes before.
    routed: VecDeque<(usize, usize, StreamBatch)>,
    /// The part that has more to give than a step may make.
    going_on: Option<usize>,
    work: Option<Work>,
    /// A watermark that was put off.
    pending: Option<Timestamp>,
    /// The last one that was not.
    released: Timestamp,
    /// Which part the watermark at hand is being given to.
    at: usize,
    /// The epoch under way, or one before it where no barrier has come yet. All files that were there when it began are
    /// older.
    epoch: Epoch,
    /// Files of this epoch that are in no checkpoint yet.
    unnamed: Vec<String>,
    /// In which order files count, by path. Two parts may have one file of an epoch, and one of them another that came before
    /// it, so the epoch does not tell.
    order: HashMap<String, u64>,
    /// What the attempt was restored with.
    metas: Vec<String>,
    files_written: u64,
    files_noted: u64,
    loads: u64,
    uploaded: watch::Receiver<()>,
    /// The other end, until the uploader takes it.
    uploads: Option<watch::Sender<()>>,
    shown: Shown,
}

/// One range of key groups.
struct Part {
    range: KeyGroupRange,
    content: Content,
    /// Bytes in memory; of a cold part, what it had or may have.
    bytes: u64,
    /// Rows that came lately.
    rows: u64,
    /// Rows that it keeps, as of its last capture.
    live_rows: u64,
    /// The last watermark that it was given.
    told: Timestamp,
    /// What it had beside its files when it was captured last.
    captured: Option<String>,
}

enum Content {
    Hot { operator: Box<dyn Operator>, since: u64 },
    Cold { files: Vec<StateHandle>, due: Option<Timestamp> },
}

impl Part {
    fn is_hot(&self) -> bool {
        matches!(self.content, Content::Hot { .. })
    }

    fn operator(&mut self) -> Option<&mut Box<dyn Operator>> {
        match &mut self.content {
            Content::Hot { operator, .. } => Some(operator),
            Content::Cold { .. } => None,
        }
    }

    /// Whether it is not in memory and has to see the watermark, which it has not yet: nothing is due after the last one
    /// either.
    fn is_due(&self, watermark: Timestamp) -> bool {
        matches!(&self.content, Content::Cold { due: Some(due), .. } if *due <= watermark && self.told < watermark)
    }
}

impl Parts {
    /// One part without state. `scratch`: the directory for rows that do not fit into memory.
    pub(crate) fn new(of: PartsOf, scratch: &Path) -> Result<Parts, EngineError> {
        let part = Part {
            range: of.own,
            content: Content::Hot { operator: (of.make)()?, since: 0 },
            bytes: 0,
            rows: 0,
            live_rows: 0,
            told: Timestamp::MIN,
            captured: None,
        };
        let (uploads, uploaded) = watch::channel(());
        let mut parts = Parts {
            template: (of.make)()?,
            deferred: Deferred::new(&of.name, scratch),
            parts: vec![part],
            routes: Vec::new(),
            routed: VecDeque::new(),
            going_on: None,
            work: None,
            pending: None,
            released: Timestamp::MIN,
            at: 0,
            epoch: Epoch(0),
            unnamed: Vec::new(),
            order: HashMap::new(),
            metas: Vec::new(),
            files_written: 0,
            files_noted: 0,
            loads: 0,
            uploaded,
            uploads: Some(uploads),
            shown: Shown { metrics: of.metrics.clone(), hot: 0, cold: 0 },
            of,
        };
        parts.set_routes();
        Ok(parts)
    }

    /// What the uploader touches after each checkpoint that it has made durable.
    pub(crate) fn uploads(&mut self) -> Option<watch::Sender<()>> {
        self.uploads.take()
    }

    /// Whether there is one part, in memory, that has not been put aside in this epoch: then it is an operator like any
    /// other.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts.len() == 1 && self.parts[0].is_hot() && self.unnamed.is_empty()
    }

    /// Whether rows or a watermark wait for something.
    pub(crate) fn waits(&self) -> bool {
        !self.deferred.is_empty() || self.work.is_some() || self.pending.is_some()
    }

    /// Whether the watermark has to wait because rows that came before it do, or a part that is not in memory has to see
    /// it. If so, it is put off.
    pub(crate) fn puts_off(&mut self, watermark: Timestamp) -> bool {
        let waits = !self.deferred.is_empty() || self.parts.iter().any(|part| part.is_due(watermark));
        self.pending = waits.then_some(watermark.max(self.pending.unwrap_or(Timestamp::MIN)));
        waits
    }

    /// The watermark that was put off, if nothing is in its way any more.
    pub(crate) fn take_pending(&mut self) -> Option<Timestamp> {
        let watermark = self.pending?;
        if self.puts_off(watermark) { None } else { Some(watermark) }
    }

    /// Where each key group is, after parts have been cut.
    fn set_routes(&mut self) {
        let parts = self.parts.iter().zip(0_u16..);
        let groups = parts.flat_map(|(part, at)| (part.range.start..part.range.end).map(move |_| at));
        self.routes = groups.collect();
        assert_eq!(self.routes.len(), usize::from(self.of.own.end - self.of.own.start), "parts have all key groups");
        let hot = self.parts.iter().filter(|part| part.is_hot()).count();
        self.shown.show(hot, self.parts.len() - hot);
    }

    /// The part that begins with a key group.
    fn part_at(&self, start: u16) -> usize {
        usize::from(self.routes[usize::from(start - self.of.own.start)])
    }

    /// What the parts in memory take, and says so.
    fn measure(&mut self) -> u64 {
        let mut bytes = 0;
        for part in &mut self.parts {
            if let Content::Hot { operator, .. } = &part.content {
                part.bytes = operator.state_bytes() as u64;
                bytes += part.bytes;
            }
        }
        self.of.account.set(usize::try_from(bytes).unwrap_or(usize::MAX) + self.deferred.memory_bytes());
        bytes
    }

    /// The parts in memory, but not the one that is at work.
    fn uses(&self) -> Vec<(usize, PartUse)> {
        let at_work = self.work.as_ref().map(|work| self.part_at(work.start));
        let parts = self.parts.iter().enumerate().filter(|(at, _)| Some(*at) != at_work);
        let hot = parts.filter_map(|(at, part)| match part.content {
            Content::Hot { since, .. } => Some((at, PartUse { bytes: part.bytes, rows: part.rows, since })),
            Content::Cold { .. } => None,
        });
        hot.collect()
    }

    /// Hands each row to its part; those of cold ones are put off.
    fn route(&mut self, input: usize, batch: &StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let rows = batch.rows.num_rows();
        let keys: Vec<ArrayRef> = self.of.keys[input].iter().map(|key| batch.rows.column(*key).clone()).collect();
        let hashes = hash_rows(&keys, rows).map_err(|e| EngineError::arrow(&self.of.name, &e))?;
        let mut of_parts: Vec<Vec<u32>> = vec![Vec::new(); self.parts.len()];
        let (mut cold, mut starts) = (Vec::new(), Vec::new());
        for (row, hash) in hashes.iter().enumerate() {
            let group = group_of_hash(*hash, self.of.files.key_groups);
            if !self.of.own.contains(group) {
                let (name, own) = (&self.of.name, self.of.own);
                return Err(EngineError::Bug(format!(
                    "{name}: a row of key group {group:?} on the subtask of {own:?}"
                )));
            }
            let at = self.routes[usize::from(group.0 - self.of.own.start)];
            let part = &mut self.parts[usize::from(at)];
            part.rows += 1;
            if part.is_hot() {
                of_parts[usize::from(at)].push(row as u32);
            } else {
                cold.push(row as u32);
                starts.push(part.range.start);
            }
        }
        let take = |positions: Vec<u32>| match positions.len() {
            all if all == rows => Ok(batch.clone()),
            _ => batch.take(&UInt32Array::from(positions)).map_err(|e| EngineError::arrow(&self.of.name, &e)),
        };
        if !cold.is_empty() {
            self.shown.metrics.deferred_rows.fetch_add(cold.len() as u64, Ordering::Relaxed);
            self.deferred.put_off(input, &take(cold)?, starts)?;
        }
        for (at, positions) in of_parts.into_iter().enumerate().filter(|(_, positions)| !positions.is_empty()) {
            self.routed.push_back((at, input, take(positions)?));
        }
        self.go_on(out)
    }

    /// Hands rows to a part in memory.
    fn hand_to(&mut self, at: usize, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let operator = self.parts[at].operator().expect("rows are sorted by it");
        operator.process(input, batch, out)?;
        self.going_on = operator.has_more().then_some(at);
        Ok(())
    }
}

impl Operator for Parts {
    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        match self.parts.as_mut_slice() {
            [Part { content: Content::Hot { .. }, .. }] => self.hand_to(0, input, batch, out),
            _ if batch.rows.num_rows() == 0 => Ok(()),
            _ => self.route(input, &batch, out),
        }
    }

    fn has_more(&self) -> bool {
        self.going_on.is_some() || !self.routed.is_empty()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        if let Some(at) = self.going_on {
            let operator = self.parts[at].operator().expect("it stays in memory until it has given all");
            operator.go_on(out)?;
            self.going_on = operator.has_more().then_some(at);
        }
        while self.going_on.is_none() && !out.is_full() {
            let Some((at, input, batch)) = self.routed.pop_front() else { break };
            self.hand_to(at, input, batch, out)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        while let Some(part) = self.parts.get_mut(self.at) {
            if let Some(operator) = part.operator() {
                if operator.on_watermark(watermark, out)? == Release::Continue {
                    return Ok(Release::Continue);
                }
                part.told = part.told.max(watermark);
            }
            self.at += 1;
            if !out.main.is_empty() && self.at < self.parts.len() {
                return Ok(Release::Continue);
            }
        }
        self.at = 0;
        self.released = self.released.max(watermark);
        while self.template.on_watermark(watermark, out)? == Release::Continue {}
        Ok(Release::Done)
    }

    fn watermark_out(&self, watermark: Timestamp) -> Timestamp {
        // Operators for which it depends on what they hold have no parts.
        self.template.watermark_out(watermark)
    }

    fn flush_held(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.parts.iter_mut().filter_map(Part::operator).try_for_each(|operator| operator.flush_held(out))
    }

    fn hold_ms(&self) -> Option<u64> {
        self.template.hold_ms()
    }

    fn state_bytes(&self) -> usize {
        let hot = self.parts.iter().map(|part| match &part.content {
            Content::Hot { operator, .. } => operator.state_bytes(),
            Content::Cold { .. } => 0,
        });
        hot.sum::<usize>() + self.deferred.memory_bytes()
    }

    /// Of the only part; several are captured by [`Parts::capture_all`].
    fn capture(&mut self, epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let [Part { content: Content::Hot { operator, .. }, .. }] = self.parts.as_mut_slice() else {
            return Err(EngineError::Bug(format!("{}: several parts are captured as one", self.of.name)));
        };
        let capture = operator.capture(epoch)?;
        self.epoch = epoch.next();
        Ok(capture)
    }

    fn parts(&mut self) -> Option<&mut Parts> {
        Some(self)
    }
}

/// The files in an order in which each comes after those that it comes after in some key group. Such is the order of
/// `files` in each key group, but not as a whole: those of an epoch, which several subtasks had before, are named in the order
/// of the first, which may lack one in the middle because it holds none of its key groups.
fn in_order(files: &[StateHandle]) -> Vec<&str> {
    let mut order = Vec::new();
    for of_epoch in files.chunk_by(|file, next| file.epoch == next.epoch) {
        // Those that wait for others, with these.
        let mut waiting: Vec<(&str, HashSet<&str>)> = Vec::new();
        for (number, file) in of_epoch.iter().enumerate() {
            let earlier = of_epoch[..number].iter();
            let before = earlier.filter(|other| other.path != file.path && other.key_groups.overlaps(&file.key_groups));
            let before = before.map(|other| other.path.as_str());
            match waiting.iter_mut().find(|(path, _)| *path == file.path) {
                Some((_, others)) => others.extend(before),
                None => waiting.push((&file.path, before.collect())),
            }
        }
        while !waiting.is_empty() {
            // There is no circle: one subtask wrote them, one after the other.
            let next = waiting.iter().position(|(_, others)| others.is_empty()).unwrap_or(0);
            let (path, _) = waiting.remove(next);
            for (_, others) in &mut waiting {
                others.remove(path);
            }
            order.push(path);
        }
    }
    order
}

/// The handles of all parts as one list, in the order of the files: pieces of one file that lie side by side are one again.
fn united(parts: Vec<Vec<StateHandle>>, order: &HashMap<String, u64>) -> Vec<StateHandle> {
    let mut all: Vec<StateHandle> = parts.into_iter().flatten().collect();
    // Stable: the pieces of a file stay in the order of their key groups.
    all.sort_by_key(|handle| order.get(&handle.path).copied());
    let mut united: Vec<StateHandle> = Vec::with_capacity(all.len());
    for handle in all {
        match united.last_mut() {
            Some(last) if last.path == handle.path && last.key_groups.end == handle.key_groups.start => {
                last.key_groups.end = handle.key_groups.end;
            }
            _ => united.push(handle),
        }
    }
    united
}

/// The files that hold some of the key groups, each for these alone.
fn narrowed(files: &[StateHandle], range: KeyGroupRange) -> Vec<StateHandle> {
    let overlapping = files.iter().filter(|file| file.key_groups.overlaps(&range));
    overlapping.map(|file| StateHandle { key_groups: file.key_groups.intersection(&range), ..file.clone() }).collect()
}

/// What is shown of the parts; taken back with them.
struct Shown {
    metrics: Arc<OperatorMetrics>,
    hot: u64,
    cold: u64,
}

impl Shown {
    fn show(&mut self, hot: usize, cold: usize) {
        let change = |shown: &AtomicU64, before: &mut u64, now: usize| {
            // Wraps to the difference, whatever its sign.
            shown.fetch_add((now as u64).wrapping_sub(*before), Ordering::Relaxed);
            *before = now as u64;
        };
        change(&self.metrics.parts_hot, &mut self.hot, hot);
        change(&self.metrics.parts_cold, &mut self.cold, cold);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}

#[cfg(test)]
mod tests;
