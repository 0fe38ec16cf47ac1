//! What the parts of an operator do that takes time, step by step: the chain asks for the next step where it can wait, and
//! hands on what the step gives before it asks again.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use hashbrown::HashSet;
use mainstem_core::ids::Epoch;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::memory;
use mainstem_core::protocol::StateHandle;
use mainstem_core::time::Timestamp;

use super::deferred::Slice;
use super::{Content, Part, Parts, in_order, narrowed, united};
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, PendingHandle, Release, written};

/// State is loaded in the middle of an epoch only where so large a part of the memory for state stays free, so that it is
/// not put aside again at once: a fourth.
const ROOM_OF_MEMORY: u64 = 4;
/// A part is cut while it works off rows where it takes more than such a part of the share: a fourth.
const GROWN_OF_SHARE: u64 = 4;
/// Rows that wait may take such a part of the share in memory: an eighth, within bounds.
const DEFERRED_OF_SHARE: u64 = 8;
const DEFERRED_BYTES_MIN: u64 = 1 << 20;
const DEFERRED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of rows that wait on disk; beyond it they are worked off, whatever it costs.
const SCRATCH_BYTES_MAX: u64 = 8 << 30;
/// State in memory takes about so many times the bytes of its files, where builds of before have not said how much.
const MEMORY_OF_FILES: u64 = 3;
/// State is loaded when it is needed, instead of before the first row, where its files have more than so many bytes,
const LAZY_BYTES: u64 = 32 << 20;
/// or it may take more than such a part of the share: a half.
const LAZY_OF_SHARE: u64 = 2;

/// A part that works off what was put off.
pub(super) struct Work {
    /// Its first key group.
    pub(super) start: u16,
    slices: VecDeque<Slice>,
}

impl Parts {
    /// Takes back the state with which the attempt begins. Large state is not read before it is needed.
    /// `memory_bytes`: what it took when it was captured, where that is known.
    pub(crate) async fn begin(
        &mut self,
        metas: Vec<String>,
        files: Vec<StateHandle>,
        memory_bytes: Option<u64>,
    ) -> Result<(), EngineError> {
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        let estimate = memory_bytes.unwrap_or(bytes * MEMORY_OF_FILES);
        // Others that begin see what it is about to hold.
        self.of.account.set(usize::try_from(estimate).unwrap_or(usize::MAX));
        let share = self.of.account.share();
        let groups = self.of.own.end - self.of.own.start;
        let is_lazy = bytes > LAZY_BYTES || estimate > share / LAZY_OF_SHARE;
        let due = self.template.next_due().map(|_| Timestamp::MIN);
        // Later than all of them: files that count after one another in one part must do so in what is united.
        self.epoch = files.iter().map(|file| file.epoch.next()).max().unwrap_or(self.epoch);
        self.template.restore_meta(&metas)?;
        self.metas = metas;
        self.note_order(in_order(&files));
        self.parts[0].content = Content::Cold { files, due };
        self.parts[0].bytes = estimate;
        if is_lazy {
            self.cut(0, memory::pieces(estimate, groups, share));
            tracing::info!(operator = self.of.name, bytes, parts = self.parts.len(), "state is read when it is needed");
        } else {
            self.load(0, false).await?;
        }
        self.set_routes();
        self.measure();
        Ok(())
    }

    /// Before a barrier: works off the next piece of what was put off, gives a cold part the watermark that waits, or puts
    /// state aside to do so. None: nothing is left to do.
    pub(crate) async fn settle(&mut self) -> Result<Option<Collector>, EngineError> {
        if self.work.is_some() {
            return self.work_on(true).await.map(Some);
        }
        let watermark = self.pending.unwrap_or(Timestamp::MIN);
        let needs = |part: &Part| self.deferred.waits(part.range.start) || part.is_due(watermark);
        // Those in memory first: no other has to make room for them.
        let hot = self.parts.iter().position(|part| part.is_hot() && needs(part));
        let Some(next) = hot.or_else(|| self.parts.iter().position(needs)) else {
            if self.deferred.disk_bytes() > 0 {
                self.deferred.clear()?;
            }
            return Ok(None);
        };
        self.begin_work(next).await.map(Some)
    }

    /// Between rows: puts aside what is too much, moves rows that wait to the disk, works off some where there is room.
    /// None: nothing is left to do for now.
    pub(crate) async fn relieve(&mut self) -> Result<Option<Collector>, EngineError> {
        if self.work.is_some() {
            return self.work_on(false).await.map(Some);
        }
        self.measure();
        let bytes = self.of.account.must_put_aside()?;
        if bytes > 0
            && let Some(at) = memory::to_put_aside(&self.uses(), bytes).first()
        {
            let mut out = Collector::default();
            self.put_aside(*at, &mut out).await?;
            return Ok(Some(out));
        }
        if self.deferred.is_empty() {
            if self.deferred.disk_bytes() > 0 {
                self.deferred.clear()?;
            }
            return Ok(None);
        }
        self.bound_deferred().await?;
        let Some(next) = self.deferred.longest().map(|start| self.part_at(start)) else { return Ok(None) };
        let needed = self.parts[next].bytes.saturating_add(self.of.account.all_bytes_max() / ROOM_OF_MEMORY);
        let has_room = u64::try_from(self.of.account.room()).is_ok_and(|room| room >= needed);
        if has_room || self.deferred.disk_bytes() > SCRATCH_BYTES_MAX {
            return self.begin_work(next).await.map(Some);
        }
        Ok(None)
    }

    /// Begins to work off what waits for a part.
    async fn begin_work(&mut self, at: usize) -> Result<Collector, EngineError> {
        let mut out = Collector::default();
        let start = self.parts[at].range.start;
        if !self.parts[at].is_hot() {
            self.make_room(start, &mut out).await?;
            let at = self.part_at(start);
            self.load(at, true).await?;
            self.catch_up(at, &mut out)?;
        }
        self.work = Some(Work { start, slices: self.deferred.take(start)? });
        self.set_routes();
        self.measure();
        Ok(out)
    }

    /// Tells a part that was not in memory of the watermarks that were nothing to it.
    fn catch_up(&mut self, at: usize, out: &mut Collector) -> Result<(), EngineError> {
        let (released, part) = (self.released, &mut self.parts[at]);
        if part.told < released
            && let Content::Hot { operator, .. } = &mut part.content
        {
            while operator.on_watermark(released, out)? == Release::Continue {}
            part.told = released;
        }
        Ok(())
    }

    /// Puts others aside so that a part fits, as far as there are others.
    async fn make_room(&mut self, start: u16, out: &mut Collector) -> Result<(), EngineError> {
        loop {
            self.measure();
            let needed = i64::try_from(self.parts[self.part_at(start)].bytes).unwrap_or(i64::MAX);
            let missing = needed.saturating_sub(self.of.account.room());
            let uses = self.uses();
            let Some(other) = memory::to_put_aside(&uses, u64::try_from(missing).unwrap_or(0)).first().copied() else {
                return Ok(());
            };
            self.put_aside(other, out).await?;
        }
    }

    /// The next step of the work at hand. `is_last`: the epoch ends, so the part gets the watermark that waits.
    async fn work_on(&mut self, is_last: bool) -> Result<Collector, EngineError> {
        let mut out = Collector::default();
        let has_more = self.has_more();
        let Some(work) = &mut self.work else { return Ok(out) };
        let (start, slice) = (work.start, if has_more { None } else { work.slices.pop_front() });
        let at = self.part_at(start);
        if let Some(slice) = slice {
            let (input, batches) = self.deferred.read(slice).await?;
            self.routed.extend(batches.into_iter().map(|batch| (at, input, batch)));
        }
        if self.has_more() {
            self.go_on(&mut out)?;
            if !self.has_more() {
                self.cut_if_grown(at, &mut out).await?;
            }
            return Ok(out);
        }
        let part = &mut self.parts[at];
        if let Some(watermark) = self.pending.filter(|watermark| is_last && part.told < *watermark) {
            let operator = part.operator().expect("a part at work is in memory");
            if operator.on_watermark(watermark, &mut out)? == Release::Done {
                part.told = watermark;
            }
            return Ok(out);
        }
        self.work = None;
        self.measure();
        self.check_size(at)?;
        if is_last {
            self.make_fit(&mut out).await?;
        }
        Ok(out)
    }

    /// A part that has become large by what it works off is cut, and the rest of it waits again.
    async fn cut_if_grown(&mut self, at: usize, out: &mut Collector) -> Result<(), EngineError> {
        let (part, share) = (&self.parts[at], self.of.account.share());
        let Content::Hot { operator, .. } = &part.content else { return Ok(()) };
        let (bytes, groups) = (operator.state_bytes() as u64, part.range.end - part.range.start);
        if bytes < share / GROWN_OF_SHARE || memory::pieces(bytes, groups, share) < 2 {
            return Ok(());
        }
        let slices = self.work.take().map(|work| work.slices).unwrap_or_default();
        self.put_aside(at, out).await?;
        for slice in slices {
            let (input, batches) = self.deferred.read(slice).await?;
            for batch in batches {
                self.route(input, &batch, out)?;
            }
            self.bound_deferred().await?;
        }
        Ok(())
    }

    /// Rows that wait go to the disk where they are many.
    async fn bound_deferred(&mut self) -> Result<(), EngineError> {
        let max = (self.of.account.share() / DEFERRED_OF_SHARE).clamp(DEFERRED_BYTES_MIN, DEFERRED_BYTES_MAX);
        if self.deferred.memory_bytes() as u64 > max { self.deferred.move_to_disk().await } else { Ok(()) }
    }

    /// Puts aside what is too much.
    async fn make_fit(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        loop {
            let bytes = self.of.account.must_put_aside()?;
            let Some(at) = memory::to_put_aside(&self.uses(), bytes).first().copied() else { return Ok(()) };
            self.put_aside(at, out).await?;
        }
    }

    /// One key group cannot be cut: it has to fit.
    fn check_size(&self, at: usize) -> Result<(), EngineError> {
        let Part { range, bytes, .. } = &self.parts[at];
        if range.end - range.start == 1 && *bytes > self.of.account.fixed_bytes_max() {
            return Err(self.of.account.too_much(*bytes));
        }
        Ok(())
    }

    /// Writes what has changed in a part and drops it.
    pub(super) async fn put_aside(&mut self, at: usize, out: &mut Collector) -> Result<(), EngineError> {
        self.of.account.press();
        let operator = self.parts[at].operator().expect("only parts in memory are put aside");
        operator.flush_held(out)?;
        let files = self.capture_part(at, self.epoch).await?;
        let part = &mut self.parts[at];
        let Content::Hot { operator, .. } = &part.content else { return Ok(()) };
        part.bytes = operator.state_bytes() as u64;
        let due = operator.next_due();
        part.content = Content::Cold { files, due };
        let (bytes, groups) = (part.bytes, part.range.end - part.range.start);
        self.cut(at, memory::pieces(bytes, groups, self.of.account.share()));
        self.set_routes();
        self.measure();
        Ok(())
    }

    /// Cuts a cold part into so many.
    pub(super) fn cut(&mut self, at: usize, pieces: u16) {
        if pieces < 2 {
            return;
        }
        let Part { range, content, bytes, rows, live_rows, told, captured } = self.parts.remove(at);
        let Content::Cold { files, due } = content else { unreachable!("a part in memory has no list of files") };
        let groups = u32::from(range.end - range.start);
        let bound =
            |piece: u16| range.start + u16::try_from(groups * u32::from(piece) / u32::from(pieces)).expect("within");
        let piece = |number: u16| {
            let range = KeyGroupRange { start: bound(number), end: bound(number + 1) };
            let of = u64::from(pieces);
            // Nobody knows how it is spread; the sum is right.
            let live_rows = if number == 0 { live_rows - live_rows / of * (of - 1) } else { live_rows / of };
            Part {
                range,
                content: Content::Cold { files: narrowed(&files, range), due },
                bytes: bytes / of,
                rows: rows / of,
                live_rows,
                told,
                captured: captured.clone(),
            }
        };
        self.parts.splice(at..at, (0..pieces).map(piece));
        self.set_routes();
    }

    /// Reads the state of a cold part. `counts`: it was put aside before, or not read at the beginning.
    async fn load(&mut self, at: usize, counts: bool) -> Result<(), EngineError> {
        let mut operator = self.without_state()?;
        let part = &mut self.parts[at];
        let Content::Cold { files, .. } = &part.content else { return Ok(()) };
        match &part.captured {
            Some(meta) => operator.restore_meta(std::slice::from_ref(meta))?,
            None => operator.restore_meta(&self.metas)?,
        }
        for file in files.clone() {
            let (restored, bytes, origin) = self.of.files.read(file).await?;
            if part.captured.is_none() {
                self.of.metrics.count_restored(bytes, origin);
            }
            operator.restore(restored)?;
        }
        operator.restored()?;
        self.loads += 1;
        part.content = Content::Hot { operator, since: self.loads };
        if counts {
            self.of.metrics.part_loads.fetch_add(1, Ordering::Relaxed);
        }
        self.set_routes();
        Ok(())
    }

    /// Ends the epoch for all parts; what has changed is durable on return.
    pub(crate) async fn capture_all(&mut self, epoch: Epoch) -> Result<Capture, EngineError> {
        assert!(self.deferred.is_empty() && self.work.is_none() && self.pending.is_none(), "settled before");
        let mut files = Vec::with_capacity(self.parts.len());
        for at in 0..self.parts.len() {
            files.push(match &self.parts[at].content {
                Content::Cold { files, .. } => files.clone(),
                Content::Hot { .. } => self.capture_part(at, epoch).await?,
            });
            self.parts[at].rows /= 2;
        }
        let files = united(files, &self.order);
        for path in std::mem::take(&mut self.unnamed) {
            if !files.iter().any(|file| file.path == path) {
                self.of.files.delete(&path).await;
            }
        }
        self.forget_order(&files);
        self.epoch = epoch.next();
        self.measure();
        let live_rows = self.parts.iter().map(|part| part.live_rows).sum();
        let retained = files.into_iter().map(written).collect();
        Ok(Capture {
            retained,
            tables: Vec::new(),
            handle: PendingHandle::default(),
            meta: self.template.capture(epoch)?.map(|capture| capture.meta).unwrap_or_default(),
            live_rows,
            memory_bytes: self.parts.iter().map(|part| part.bytes).sum(),
            merge: None,
        })
    }

    /// Freezes a part in memory and writes what has changed; gives all files that it needs.
    async fn capture_part(&mut self, at: usize, epoch: Epoch) -> Result<Vec<StateHandle>, EngineError> {
        let part = &mut self.parts[at];
        let Some(operator) = part.operator() else { return Ok(Vec::new()) };
        let Some(capture) = operator.capture(epoch)? else { return Ok(Vec::new()) };
        let mut files = Vec::with_capacity(capture.retained.len() + 1);
        for handle in &capture.retained {
            // Those of checkpoints that are being uploaded.
            while handle.get().is_none() {
                self.uploaded.changed().await.map_err(|_| EngineError::UploadsEnded)?;
            }
            files.extend(handle.get().cloned());
        }
        let start = part.range.start;
        (part.live_rows, part.captured) = (capture.live_rows, Some(capture.meta));
        self.files_written += 1;
        let name = format!("p{start}_{}", self.files_written);
        if let Some(file) = self.of.files.write(epoch, &name, capture.tables).await? {
            capture.handle.set(file.clone()).map_err(|_| EngineError::Bug("a state file is written twice".into()))?;
            self.unnamed.push(file.path.clone());
            files.push(file);
        }
        self.note_order(files.iter().map(|file| file.path.as_str()));
        Ok(files)
    }

    /// Notes files that have come: all that are known count before them.
    fn note_order<'a>(&mut self, paths: impl IntoIterator<Item = &'a str>) {
        for path in paths {
            if !self.order.contains_key(path) {
                self.files_noted += 1;
                self.order.insert(path.to_owned(), self.files_noted);
            }
        }
    }

    /// Forgets files that nobody names any more.
    fn forget_order(&mut self, files: &[StateHandle]) {
        let named: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        self.order.retain(|path, _| named.contains(path.as_str()));
    }

    fn without_state(&self) -> Result<Box<dyn Operator>, EngineError> {
        (self.of.make)()
    }
}
