//! Byte strings in large pages. Room of those that are removed is used again for others of about the same length.

use hashbrown::HashMap;

use crate::memory;

/// Room is given out in so many bytes.
const UNIT: usize = 16;
/// Units of a page: 1 MiB.
const PAGE_UNITS: usize = 1 << 16;

/// Where a byte string is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// First unit.
    at: u32,
    /// Length in bytes.
    len: u32,
}

/// See the module. Up to 64 GiB.
#[derive(Default)]
pub(crate) struct Slab {
    /// A string that is longer than a page has a page of its own, and empty pages behind it for the numbers of its
    /// units.
    pages: Vec<Vec<u8>>,
    /// First units of free room, by its units.
    free: HashMap<u32, Vec<u32>>,
}

impl Slab {
    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(memory::of_vec).sum::<usize>() + self.free.values().map(memory::of_vec).sum::<usize>()
    }

    /// Keeps a copy; none where the slab is full.
    pub(crate) fn insert(&mut self, bytes: &[u8]) -> Option<Slot> {
        let units = bytes.len().div_ceil(UNIT).max(1);
        let len = u32::try_from(bytes.len()).ok()?;
        if let Some(at) = self.free.get_mut(&(units as u32)).and_then(Vec::pop) {
            let (page, from) = place(at);
            self.pages[page][from..from + bytes.len()].copy_from_slice(bytes);
            return Some(Slot { at, len });
        }
        let capacity = units.max(PAGE_UNITS) * UNIT;
        let fits = match self.pages.as_slice() {
            // The first page grows: there are many with little in them.
            [only] => only.len() + units * UNIT <= PAGE_UNITS * UNIT,
            pages => pages.last().is_some_and(|page| page.capacity() - page.len() >= units * UNIT),
        };
        if !fits || units > PAGE_UNITS {
            let is_first = self.pages.is_empty() && units <= PAGE_UNITS;
            self.pages.push(if is_first { Vec::new() } else { Vec::with_capacity(capacity) });
        }
        let page = self.pages.len() - 1;
        let from = self.pages[page].len();
        let at = u32::try_from(page * PAGE_UNITS + from / UNIT).ok()?;
        self.pages[page].extend_from_slice(bytes);
        self.pages[page].resize(from + units * UNIT, 0);
        for _ in 1..units.div_ceil(PAGE_UNITS) {
            self.pages.push(Vec::new());
        }
        Some(Slot { at, len })
    }

    /// The bytes.
    pub(crate) fn get(&self, slot: Slot) -> &[u8] {
        let (page, from) = place(slot.at);
        &self.pages[page][from..from + slot.len as usize]
    }

    /// Gives the room free.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let units = (slot.len as usize).div_ceil(UNIT).max(1);
        self.free.entry(units as u32).or_default().push(slot.at);
    }
}

fn place(at: u32) -> (usize, usize) {
    let at = at as usize;
    (at / PAGE_UNITS, (at % PAGE_UNITS) * UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_lengths_stay_as_they_are_and_room_is_used_again() {
        let mut slab = Slab::default();
        let lengths = [0, 1, 15, 16, 17, 4_000, 1 << 20, (1 << 20) + 1, 3 << 20, 5];
        let text = |length: usize, round: usize| vec![(length + round) as u8; length];
        let mut slots: Vec<(usize, usize, Slot)> = Vec::new();
        for round in 0..50 {
            slots.extend(lengths.iter().map(|len| (*len, round, slab.insert(&text(*len, round)).unwrap())));
            assert!(slots.iter().all(|(len, round, slot)| slab.get(*slot) == text(*len, *round)), "round {round}");
            let odd = slots.iter().enumerate().filter(|(at, _)| at % 2 == round % 2).map(|(_, slot)| *slot);
            odd.collect::<Vec<_>>().into_iter().for_each(|(_, _, slot)| slab.remove(slot));
            let mut at = 0;
            slots.retain(|_| {
                at += 1;
                (at - 1) % 2 != round % 2
            });
        }
        assert!(slab.pages.len() < 80, "{} pages", slab.pages.len());
    }
}
