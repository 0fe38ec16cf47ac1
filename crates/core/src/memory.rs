//! Who keeps to the memory of a worker, and how: which subtask has to put state aside, which parts of its state go,
//! in how many pieces, and which job has to end because what it holds cannot be put aside. Called by the engine, which
//! measures and does it.

use std::collections::VecDeque;

use crate::ids::JobId;

/// State and rows that are put off may take so much of the worker's memory, in percent. The rest is for rows on their way and
/// in work, for checkpoints while they are written and for state while it is read.
const STATE_PERCENT_MAX: u64 = 50;
/// Where that rest takes more, state has less, but not less than this.
const STATE_PERCENT_MIN: u64 = 10;
/// So much of the memory is to stay free.
const MARGIN_PERCENT: u64 = 5;
/// With less memory the program itself is most of what the process takes, and state has its share whatever that is.
const FOLLOWED_BYTES_MIN: u64 = 128 << 20;
/// Samples that count: at four a second the last three seconds, which is longer than the allocator keeps what was freed. State
/// that was put aside a moment ago is in memory that long, and must not be a reason to put more aside.
const SAMPLES: usize = 12;
/// State is put aside until so much of the memory for state is taken, in percent; so the next rows do not begin it again.
const PUT_ASIDE_TO_PERCENT: u64 = 80;
/// A part of the state is about so small a share of what its subtask may hold.
const PARTS_OF_SHARE: u64 = 16;
/// A part is not made smaller than this.
const PART_BYTES_MIN: u64 = 256 << 10;
/// Of the memory for state, what is left to those who can put theirs aside, in percent: below it they could do nothing.
const LEFT_PERCENT_MIN: u64 = 10;

/// What one operator of a subtask holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its job.
    pub job: JobId,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Whether it can put state aside.
    pub can_put_aside: bool,
}

/// What an operator has to do about its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Fits,
    /// Put so many bytes aside.
    PutAside {
        /// How many.
        bytes: u64,
    },
    /// Its job must end: it holds the most of what nobody can put aside.
    Fail {
        /// Bytes that the job holds and cannot put aside.
        job_bytes: u64,
    },
}

/// What the holder at `me` has to do where all of them together may hold `bytes_max`. Whoever holds more than its share
/// puts aside what is too much, so at least one does; a job is only ended for what cannot be put aside, and then the one
/// that holds the most of it.
///
/// # Panics
/// Where there is no such holder.
#[must_use]
pub fn verdict(bytes_max: u64, holders: &[Holder], me: usize) -> Verdict {
    let used: u64 = holders.iter().map(|holder| holder.bytes).sum();
    if used <= bytes_max {
        return Verdict::Fits;
    }
    let own = &holders[me];
    let fixed = |holder: &&Holder| !holder.can_put_aside;
    let fixed_bytes: u64 = holders.iter().filter(fixed).map(|holder| holder.bytes).sum();
    if own.can_put_aside {
        let spread = share(bytes_max, holders);
        if own.bytes < spread {
            return Verdict::Fits;
        }
        let aim = bytes_max / 100 * PUT_ASIDE_TO_PERCENT;
        return Verdict::PutAside { bytes: (used - aim.min(used)).min(own.bytes) };
    }
    if fixed_bytes <= bytes_max / 100 * (100 - LEFT_PERCENT_MIN) {
        return Verdict::Fits;
    }
    let of_job = |job: &JobId| -> u64 {
        holders.iter().filter(fixed).filter(|holder| holder.job == *job).map(|holder| holder.bytes).sum()
    };
    let job_bytes = of_job(&own.job);
    // Of two that hold the same, one is enough; of its operators the largest says it.
    let is_first = holders.iter().filter(fixed).all(|other| (of_job(&other.job), &other.job) <= (job_bytes, &own.job));
    let is_largest = holders.iter().filter(fixed).filter(|other| other.job == own.job).all(|o| o.bytes <= own.bytes);
    if is_first && is_largest { Verdict::Fail { job_bytes } } else { Verdict::Fits }
}

/// What each of those may hold who can put state aside and hold some, of `bytes_max` for all.
#[must_use]
pub fn share(bytes_max: u64, holders: &[Holder]) -> u64 {
    let fixed_bytes: u64 = holders.iter().filter(|holder| !holder.can_put_aside).map(|holder| holder.bytes).sum();
    let many = holders.iter().filter(|holder| holder.can_put_aside && holder.bytes > 0).count().max(1) as u64;
    let left = bytes_max.saturating_sub(fixed_bytes).max(bytes_max / 100 * LEFT_PERCENT_MIN);
    left / many
}

/// A part of the state that is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartUse {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Rows that have come for it lately.
    pub rows: u64,
    /// When it came into memory, counted in parts that did.
    pub since: u64,
}

/// What state may take by what the process really takes: not half of the memory where exchange, connectors and caches take
/// more than the other half.
#[derive(Clone, Debug)]
pub struct StateShare {
    bytes_max: u64,
    /// What was in memory beside state, in the last samples.
    others: VecDeque<u64>,
}

impl StateShare {
    /// Of a worker that may use so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        StateShare { bytes_max, others: VecDeque::with_capacity(SAMPLES) }
    }

    /// The most that state may ever take.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max / 100 * STATE_PERCENT_MAX
    }

    /// What state may take from here on: the process has `resident` bytes in memory, of which `state` are said to be state. It
    /// becomes less when all samples say so, and more as soon as one does.
    pub fn sample(&mut self, resident: u64, state: u64) -> u64 {
        if self.others.len() == SAMPLES {
            self.others.pop_front();
        }
        self.others.push_back(resident.saturating_sub(state));
        if self.others.len() < SAMPLES || self.bytes_max < FOLLOWED_BYTES_MIN {
            return self.bytes_max();
        }
        let others = self.others.iter().copied().min().unwrap_or(0);
        let percent = self.bytes_max / 100;
        let left = self.bytes_max.saturating_sub(others).saturating_sub(percent * MARGIN_PERCENT);
        left.clamp(percent * STATE_PERCENT_MIN, self.bytes_max())
    }
}

/// Which parts go so that `bytes` are free, by their positions: those for which few rows come first; among such for which
/// about as many come, those that came last, so that the others stay for good instead of all of them coming and going.
#[must_use]
pub fn to_put_aside(parts: &[(usize, PartUse)], bytes: u64) -> Vec<usize> {
    let mut order: Vec<&(usize, PartUse)> = parts.iter().collect();
    order.sort_by_key(|(at, part)| (part.rows.checked_ilog2(), std::cmp::Reverse(part.since), *at));
    let mut freed = 0;
    let needed = order.into_iter().take_while(|(_, part)| {
        let goes = freed < bytes;
        freed += part.bytes;
        goes
    });
    needed.map(|(at, _)| *at).collect()
}

/// Into how many pieces a part of so many bytes and key groups is cut when it is put aside.
#[must_use]
pub fn pieces(bytes: u64, key_groups: u16, share: u64) -> u16 {
    let wanted = bytes.div_ceil((share / PARTS_OF_SHARE).max(PART_BYTES_MIN));
    // A part that is a little too large stays one: cutting it gives two small ones.
    let wanted = if wanted <= 2 { 1 } else { wanted };
    u16::try_from(wanted).unwrap_or(u16::MAX).clamp(1, key_groups.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(job: &str, bytes: u64, can_put_aside: bool) -> Holder {
        Holder { job: JobId::new(job).unwrap(), bytes, can_put_aside }
    }

    #[test]
    fn whoever_holds_more_than_its_share_puts_it_aside() {
        let holders = [holder("a", 700, true), holder("b", 350, true), holder("b", 50, false)];
        assert_eq!(verdict(2000, &holders, 0), Verdict::Fits);
        assert_eq!(verdict(1000, &holders, 0), Verdict::PutAside { bytes: 300 });
        assert_eq!(verdict(1000, &holders, 1), Verdict::Fits);
        assert_eq!(verdict(1000, &holders, 2), Verdict::Fits);
        // Two that hold the same: both have to.
        let equal = [holder("a", 600, true), holder("b", 600, true)];
        assert_eq!(verdict(1000, &equal, 0), Verdict::PutAside { bytes: 400 });
        assert_eq!(verdict(1000, &equal, 1), Verdict::PutAside { bytes: 400 });
    }

    #[test]
    fn some_holder_always_acts() {
        let sizes = [0, 30, 350, 500, 900, 2000];
        let mut seen = [false; 2];
        // All ways to choose three sizes and two kinds.
        for choice in 0..6 * 6 * 6 * 4 {
            let size = |nth: u32| sizes[choice / 6_usize.pow(nth) % 6];
            let (x, y) = (choice / 216 % 2 == 0, choice / 432 == 0);
            let holders = [holder("a", size(0), x), holder("b", size(1), y), holder("b", size(2), true)];
            let verdicts: Vec<_> = (0..3).map(|me| verdict(1000, &holders, me)).collect();
            let over = holders.iter().map(|holder| holder.bytes).sum::<u64>() > 1000;
            let acts = verdicts.iter().any(|verdict| *verdict != Verdict::Fits);
            assert_eq!(acts, over, "{holders:?} {verdicts:?}");
            let failing = verdicts.iter().filter(|v| matches!(v, Verdict::Fail { .. })).count();
            assert!(failing <= 1, "{holders:?} {verdicts:?}");
            seen[0] |= failing == 1;
            seen[1] |= verdicts.iter().any(|v| matches!(v, Verdict::PutAside { .. }));
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn the_job_that_holds_the_most_fails_and_not_its_neighbour() {
        let holders = [holder("a", 300, false), holder("b", 400, false), holder("b", 350, false), holder("c", 9, true)];
        let verdicts: Vec<_> = (0..4).map(|me| verdict(1000, &holders, me)).collect();
        assert_eq!(verdicts, [Verdict::Fits, Verdict::Fail { job_bytes: 750 }, Verdict::Fits, Verdict::Fits]);
    }

    #[test]
    fn parts_without_rows_go_first_and_of_equal_ones_the_last_to_come() {
        let part = |bytes, rows, since| PartUse { bytes, rows, since };
        let parts = [(0, part(10, 900, 1)), (1, part(10, 1000, 2)), (2, part(10, 0, 3)), (3, part(10, 950, 4))];
        assert_eq!(to_put_aside(&parts, 1), [2]);
        assert_eq!(to_put_aside(&parts, 11), [2, 3]);
        assert_eq!(to_put_aside(&parts, 21), [2, 3, 1]);
        assert_eq!(to_put_aside(&parts, 1000).len(), 4);
        assert_eq!(to_put_aside(&parts, 0), Vec::<usize>::new());
    }

    #[test]
    fn state_has_what_the_rest_leaves_it() {
        let gigabyte = 100 * (10 << 20);
        let mut share = StateShare::new(gigabyte);
        let percent = |share: u64| share / (gigabyte / 100);
        let mut after = |others: u64, samples: usize| {
            let state = gigabyte / 5;
            (0..samples).map(|_| percent(share.sample(gigabyte / 100 * others + state, state))).last().unwrap()
        };
        assert_eq!(after(20, 20), 50);
        // What was put aside stays in memory for some time; that alone makes the share no smaller.
        assert_eq!(after(75, SAMPLES - 1), 50);
        assert_eq!(after(75, 1), 20);
        assert_eq!(after(60, 1), 35);
        assert_eq!((after(93, SAMPLES), after(300, SAMPLES)), (10, 10));
        assert_eq!(after(0, 1), 50);
        // What operators say may be more than there is.
        assert_eq!(StateShare::new(gigabyte).sample(0, gigabyte), gigabyte / 2);
        let mut small = StateShare::new(100 << 20);
        assert!((0..20).all(|_| small.sample(200 << 20, 0) == (100 << 20) / 100 * 50));
    }

    #[test]
    fn pieces_are_a_small_share_each() {
        assert_eq!(pieces(160 << 20, 256, 160 << 20), 16);
        assert_eq!(pieces(20 << 20, 16, 160 << 20), 1);
        assert_eq!(pieces(40 << 20, 16, 160 << 20), 4);
        assert_eq!(pieces(40 << 20, 1, 160 << 20), 1);
        assert_eq!(pieces(1 << 40, 256, 160 << 20), 256);
        assert_eq!(pieces(300 << 10, 256, 1), 1);
    }
}
