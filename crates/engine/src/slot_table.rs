//! A hash table of numbers: of each key it has the number that the caller gave it, and half of the key's hash, eight bytes
//! in all. The keys themselves are the caller's, who says which of those that a hash leads to is meant.
//!
//! Open addressing with linear probing, and deletion that moves entries back so that no marks stay behind (D. E. Knuth,
//! "The Art of Computer Programming", volume 3, section 6.4, algorithms L and R). An entry's place follows from the upper
//! bits of its hash, so entries lie in the order of their hashes: growing reads and writes memory in order, and needs no
//! key. Made for tables that are much larger than the caches, where a look-up waits for memory and does little else: see
//! [`SlotTable::look_ahead`].

/// The smallest table, in bits of the number of its places.
const BITS_MIN: u32 = 4;

/// See the module.
pub(crate) struct SlotTable {
    /// 0 for a free place, otherwise the upper half of the hash, and the number plus one.
    places: Vec<u64>,
    bits: u32,
    len: usize,
}

/// A place of the table.
#[derive(Clone, Copy)]
pub(crate) struct Place(usize);

/// What a search leads to.
pub(crate) enum Found {
    /// The key, with its number.
    At(Place, u32),
    /// A place where it may be taken in.
    Free(Place),
}

fn entry(hash: u64, slot: u32) -> u64 {
    (hash & !u64::from(u32::MAX)) | u64::from(slot + 1)
}

fn slot_of(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

impl SlotTable {
    pub(crate) fn new() -> SlotTable {
        SlotTable { places: vec![0; 1 << BITS_MIN], bits: BITS_MIN, len: 0 }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        crate::memory::of_vec(&self.places)
    }

    /// Where the search for a hash begins, or for that of an entry.
    fn home(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.bits)) as usize
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// Where the search for a hash begins.
    pub(crate) fn begin(&self, hash: u64) -> Place {
        Place(self.home(hash))
    }

    /// Where the search for each hash gets to without a look at keys: to an entry with the same upper half of a hash, or a
    /// free place. No read of where they begin waits for another, so that waits for memory go on at the same time, and what
    /// is read is in the caches when the keys are looked up one after the other.
    pub(crate) fn look_ahead(&self, hashes: &[u64], places: &mut Vec<Place>) {
        let all = hashes.iter().fold(0, |all, hash| all ^ self.places[self.home(*hash)]);
        std::hint::black_box(all);
        places.clear();
        places.extend(hashes.iter().map(|hash| match self.find(self.begin(*hash), *hash, |_| true) {
            Found::At(place, _) | Found::Free(place) => place,
        }));
    }

    /// The number that is at a place, if any.
    pub(crate) fn number_at(&self, place: Place) -> Option<u32> {
        let entry = self.places[place.0];
        (entry != 0).then(|| slot_of(entry))
    }

    /// Goes on with the search for the key with this hash of which `is_meant` is true. Places stay right until a key goes or
    /// there is [`SlotTable::make_room`].
    pub(crate) fn find(&self, from: Place, hash: u64, is_meant: impl Fn(u32) -> bool) -> Found {
        let Place(mut place) = from;
        loop {
            let entry = self.places[place];
            if entry == 0 {
                return Found::Free(Place(place));
            }
            if entry >> 32 == hash >> 32 && is_meant(slot_of(entry)) {
                return Found::At(Place(place), slot_of(entry));
            }
            place = self.after(place);
        }
    }

    /// So many keys may come now, one by one. At most three quarters of the places are in use: a search in vain looks at
    /// eight then.
    pub(crate) fn make_room(&mut self, more: usize) {
        let bits = ((self.len + more) * 4).div_ceil(3).next_power_of_two().trailing_zeros();
        if bits > self.bits {
            self.grow(bits);
        }
    }

    /// Takes in a key that is not there, at the free place to which the search for it led; numbers are below `u32::MAX`.
    pub(crate) fn insert(&mut self, place: Place, hash: u64, slot: u32) {
        let Place(place) = place;
        assert!(self.places[place] == 0, "the place of a new key is free");
        self.places[place] = entry(hash, slot);
        self.len += 1;
    }

    fn grow(&mut self, bits: u32) {
        self.bits = bits;
        let places = std::mem::replace(&mut self.places, vec![0; 1 << self.bits]);
        for entry in places.into_iter().filter(|entry| *entry != 0) {
            let mut place = self.home(entry);
            while self.places[place] != 0 {
                place = self.after(place);
            }
            self.places[place] = entry;
        }
    }

    /// Takes out the key with this hash and number; whether it was there.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let wanted = entry(hash, slot);
        let mut hole = self.home(hash);
        while self.places[hole] != wanted {
            if self.places[hole] == 0 {
                return false;
            }
            hole = self.after(hole);
        }
        let mask = self.places.len() - 1;
        let mut place = self.after(hole);
        while self.places[place] != 0 {
            // It may move back unless its search begins behind the hole.
            let from_home = place.wrapping_sub(self.home(self.places[place])) & mask;
            if from_home >= place.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.places[hole] = 0;
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests;
