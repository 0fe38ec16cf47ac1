//! What is known of each group besides its key and its aggregates: how many rows it has, whether its row stands
//! downstream, and what has happened to it lately.

use crate::memory;

/// See the module.
pub(super) struct Groups {
    lives: Vec<Life>,
    /// There are no keys: the one group stays when its last row is gone.
    global: bool,
    /// Groups that have changed since the last checkpoint.
    changed: Vec<u32>,
    /// No group has been unchanged for longer than since this time; `i64::MAX` where there are none.
    oldest_ms: i64,
}

#[derive(Clone, Copy, Default)]
struct Life {
    /// Rows in the group. Where rows only come: 1.
    rows: i64,
    /// Time of the last change.
    changed_ms: i64,
    /// Its row stands downstream.
    present: bool,
    /// Its changes have not been given yet.
    pending: bool,
    /// It is among `changed`.
    changed: bool,
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
        memory::of_vec(&self.lives) + memory::of_vec(&self.changed)
    }

    /// No groups. `global`: there are no keys.
    pub(super) fn new(global: bool) -> Self {
        Groups { lives: Vec::new(), global, changed: Vec::new(), oldest_ms: i64::MAX }
    }

    /// Makes room for slots.
    pub(super) fn grow(&mut self, slots: usize) {
        self.lives.resize(slots.max(self.lives.len()), Life::default());
    }

    /// Rows come. Calls `touched` with each group whose changes are to be given and whether its row stands
    /// downstream, once.
    pub(super) fn add(&mut self, slots: &[u32], now_ms: i64, mut touched: impl FnMut(u32, bool)) {
        self.oldest_ms = self.oldest_ms.min(now_ms);
        for slot in slots {
            let life = &mut self.lives[*slot as usize];
            life.rows += 1;
            if !life.pending {
                touch(life, *slot, now_ms, &mut self.changed, &mut touched);
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
            let known = sign > 0 || life.rows > 0;
            taken.unknown += u64::from(!known);
            taken.known.push(known);
            taken.signs.push(sign);
            if known {
                life.rows += i64::from(sign);
            }
            if !life.pending {
                touch(life, *slot, now_ms, &mut self.changed, &mut touched);
            }
        }
        taken
    }

    /// The changes of a group are given now: whether its row stands downstream from here on.
    pub(super) fn settle(&mut self, slot: u32) -> bool {
        let life = &mut self.lives[slot as usize];
        life.pending = false;
        life.present = life.rows > 0 || (self.global && life.present);
        life.present
    }

    /// Whether the group's row stands downstream.
    pub(super) fn is_present(&self, slot: u32) -> bool {
        self.lives[slot as usize].present
    }

    /// Rows of the group and the time of its last change.
    pub(super) fn life(&self, slot: u32) -> (i64, i64) {
        let life = &self.lives[slot as usize];
        (life.rows, life.changed_ms)
    }

    /// A group as it was stored.
    pub(super) fn restore(&mut self, slot: u32, rows: i64, changed_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(changed_ms);
        self.lives[slot as usize] = Life { rows, changed_ms, present: true, pending: false, changed: false };
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
        self.oldest_ms = i64::MAX;
        for (slot, life) in self.lives.iter_mut().enumerate().filter(|(_, life)| life.present) {
            if life.changed_ms > until_ms {
                self.oldest_ms = self.oldest_ms.min(life.changed_ms);
                continue;
            }
            (life.rows, life.present) = (0, false);
            if !life.changed {
                life.changed = true;
                self.changed.push(slot as u32);
            }
            expired(slot as u32);
        }
    }

    /// Groups that have changed since the last call, each once, in the order in which they did.
    pub(super) fn take_changed(&mut self) -> Vec<u32> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().for_each(|slot| self.lives[*slot as usize].changed = false);
        changed
    }

    /// All groups whose row stands downstream.
    pub(super) fn present(&self) -> Vec<u32> {
        let lives = self.lives.iter().enumerate().filter(|(_, life)| life.present);
        lives.map(|(slot, _)| slot as u32).collect()
    }
}

fn touch(life: &mut Life, slot: u32, now_ms: i64, changed: &mut Vec<u32>, touched: &mut impl FnMut(u32, bool)) {
    life.pending = true;
    life.changed_ms = now_ms;
    if !life.changed {
        life.changed = true;
        changed.push(slot);
    }
    touched(slot, life.present);
}
