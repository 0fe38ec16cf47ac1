//! What is known of each group besides its key and its aggregates: how many rows it has, whether its row stands
//! downstream, and what has happened to it lately.

use crate::memory;

/// See the module.
pub(super) struct Groups {
    lives: Vec<Life>,
    /// When each has changed last; none: nobody wants to know.
    changed_ms: Option<Vec<i64>>,
    /// There are no keys: the one group stays when its last row is gone.
    global: bool,
    /// Groups that have changed since the last checkpoint.
    changed: Vec<u32>,
    /// No group has been unchanged for longer than since this time; `i64::MAX` where there are none.
    oldest_ms: i64,
}

/// A group: its rows, and three flags, in one number. There is one of each group, and there may be very many.
#[derive(Clone, Copy, Default)]
struct Life(i64);

/// Its row stands downstream.
const PRESENT: i64 = 1;
/// Its changes have not been given yet.
const PENDING: i64 = 1 << 1;
/// It is among those that have changed since the last checkpoint.
const CHANGED: i64 = 1 << 2;
/// One row.
const ROW: i64 = 1 << 3;

impl Life {
    fn new(rows: i64, flags: i64) -> Life {
        Life((rows * ROW) | flags)
    }

    fn rows(self) -> i64 {
        self.0 >> ROW.trailing_zeros()
    }

    fn is(self, flag: i64) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: i64, value: bool) {
        self.0 = if value { self.0 | flag } else { self.0 & !flag };
    }
}

/// A batch of changes as the aggregates are to see it.
pub(super) struct Taken {
    /// 1: comes, -1: goes.
    pub(super) signs: Vec<i8>,
    /// Whether the row counts: a row that goes from a group without rows was forgotten long ago.
    pub(super) known: Vec<bool>,
    /// Number of rows that do not count.
    pub(super) unknown: u64,
}

impl Groups {
    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        memory::of_vec(&self.lives) + memory::of_vec(&self.changed) + self.changed_ms.as_ref().map_or(0, memory::of_vec)
    }

    /// No groups. `global`: there are no keys; `expire`: they go when they have not changed for long.
    pub(super) fn new(global: bool, expire: bool) -> Self {
        let changed_ms = expire.then(Vec::new);
        Groups { lives: Vec::new(), changed_ms, global, changed: Vec::new(), oldest_ms: i64::MAX }
    }

    /// So many are about to come.
    pub(super) fn reserve(&mut self, more: usize) {
        self.lives.reserve_exact(more);
        if let Some(changed_ms) = &mut self.changed_ms {
            changed_ms.reserve_exact(more);
        }
    }

    /// Makes room for slots.
    pub(super) fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.lives.len());
        self.lives.resize(slots, Life::default());
        if let Some(changed_ms) = &mut self.changed_ms {
            changed_ms.resize(slots, 0);
        }
    }

    /// Rows come. Calls `touched` with each group whose changes are to be given and whether its row stands
    /// downstream, once.
    pub(super) fn add(&mut self, slots: &[u32], now_ms: i64, mut touched: impl FnMut(u32, bool)) {
        self.oldest_ms = self.oldest_ms.min(now_ms);
        for slot in slots {
            let life = &mut self.lives[*slot as usize];
            life.0 += ROW;
            if !life.is(PENDING) {
                self.touch(*slot, now_ms, &mut touched);
            }
        }
    }

    /// Rows come and go: kinds of changes as batches carry them.
    pub(super) fn change(
        &mut self,
        slots: &[u32],
        kinds: &[i8],
        now_ms: i64,
        mut touched: impl FnMut(u32, bool),
    ) -> Taken {
        self.oldest_ms = self.oldest_ms.min(now_ms);
        let mut taken =
            Taken { signs: Vec::with_capacity(slots.len()), known: Vec::with_capacity(slots.len()), unknown: 0 };
        for (slot, kind) in slots.iter().zip(kinds) {
            let life = &mut self.lives[*slot as usize];
            // +I is 0, +U is 2.
            let sign = if kind & 1 == 0 { 1 } else { -1 };
            let known = sign > 0 || life.rows() > 0;
            taken.unknown += u64::from(!known);
            taken.known.push(known);
            taken.signs.push(sign);
            if known {
                life.0 += i64::from(sign) * ROW;
            }
            if !life.is(PENDING) {
                self.touch(*slot, now_ms, &mut touched);
            }
        }
        taken
    }

    /// The changes of a group are given now: whether its row stands downstream from here on.
    pub(super) fn settle(&mut self, slot: u32) -> bool {
        let life = &mut self.lives[slot as usize];
        let present = life.rows() > 0 || (self.global && life.is(PRESENT));
        life.set(PENDING, false);
        life.set(PRESENT, present);
        present
    }

    /// Whether the group's row stands downstream.
    pub(super) fn is_present(&self, slot: u32) -> bool {
        self.lives[slot as usize].is(PRESENT)
    }

    /// Rows of the group and the time of its last change, where that is of interest.
    pub(super) fn life(&self, slot: u32) -> (i64, i64) {
        let changed_ms = self.changed_ms.as_ref().map_or(0, |changed_ms| changed_ms[slot as usize]);
        (self.lives[slot as usize].rows(), changed_ms)
    }

    /// A group as it was stored.
    pub(super) fn restore(&mut self, slot: u32, rows: i64, changed_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(changed_ms);
        self.lives[slot as usize] = Life::new(rows, PRESENT);
        if let Some(times) = &mut self.changed_ms {
            times[slot as usize] = changed_ms;
        }
    }

    /// The group is gone.
    pub(super) fn forget(&mut self, slot: u32) {
        self.lives[slot as usize] = Life::default();
    }

    /// Forgets groups that have not changed since `until_ms`; calls `expired` with each. They are among the
    /// changed ones afterwards.
    pub(super) fn expire(&mut self, until_ms: i64, mut expired: impl FnMut(u32)) {
        if self.oldest_ms > until_ms {
            return;
        }
        let Some(times) = &self.changed_ms else { return };
        self.oldest_ms = i64::MAX;
        for (slot, life) in self.lives.iter_mut().enumerate().filter(|(_, life)| life.is(PRESENT)) {
            if times[slot] > until_ms {
                self.oldest_ms = self.oldest_ms.min(times[slot]);
                continue;
            }
            if !life.is(CHANGED) {
                self.changed.push(slot as u32);
            }
            *life = Life::new(0, (life.0 & PENDING) | CHANGED);
            expired(slot as u32);
        }
    }

    /// Groups that have changed since the last call, each once, in the order in which they did.
    pub(super) fn take_changed(&mut self) -> Vec<u32> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().for_each(|slot| self.lives[*slot as usize].set(CHANGED, false));
        changed
    }

    /// All groups whose row stands downstream.
    pub(super) fn present(&self) -> Vec<u32> {
        let lives = self.lives.iter().enumerate().filter(|(_, life)| life.is(PRESENT));
        lives.map(|(slot, _)| slot as u32).collect()
    }

    /// The first change of a group that is not given yet.
    fn touch(&mut self, slot: u32, now_ms: i64, touched: &mut impl FnMut(u32, bool)) {
        let life = &mut self.lives[slot as usize];
        if !life.is(CHANGED) {
            self.changed.push(slot);
        }
        life.set(PENDING | CHANGED, true);
        if let Some(changed_ms) = &mut self.changed_ms {
            changed_ms[slot as usize] = now_ms;
        }
        touched(slot, life.is(PRESENT));
    }
}
