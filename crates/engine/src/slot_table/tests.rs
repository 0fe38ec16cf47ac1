//! The table agrees with a map of the standard library, whatever comes and goes.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Keys by number, as a caller has them.
struct Checked {
    table: SlotTable,
    keys: Vec<u64>,
    hash: fn(u64) -> u64,
}

impl Checked {
    fn find(&self, key: u64) -> Option<u32> {
        match self.search(key) {
            Found::At(_, slot) => Some(slot),
            Found::Free(_) => None,
        }
    }

    fn search(&self, key: u64) -> Found {
        let hash = (self.hash)(key);
        let is_meant = |slot: u32| self.keys[slot as usize] == key;
        // However far a look ahead has got, it leads there.
        let mut ahead = Vec::new();
        self.table.look_ahead(&[hash], &mut ahead);
        match (self.table.find(self.table.begin(hash), hash, is_meant), self.table.find(ahead[0], hash, is_meant)) {
            (Found::At(place, slot), Found::At(again, same)) => assert_eq!((place.0, slot), (again.0, same)),
            (Found::Free(place), Found::Free(again)) => assert_eq!(place.0, again.0),
            _ => panic!("a look ahead leads elsewhere"),
        }
        self.table.find(ahead[0], hash, is_meant)
    }

    fn insert(&mut self, key: u64, slot: u32) {
        self.keys.push(key);
        self.table.make_room(1);
        let Found::Free(place) = self.search(key) else { panic!("{key} is there") };
        self.table.insert(place, (self.hash)(key), slot);
    }
}

/// Takes in a key that is not there.
fn put(table: &mut SlotTable, hash: u64, slot: u32) {
    table.make_room(1);
    let Found::Free(place) = table.find(table.begin(hash), hash, |_| false) else { unreachable!("none is meant") };
    table.insert(place, hash, slot);
}

/// Random steps over so many keys.
fn check(seed: u64, range: u64, steps: usize, hash: fn(u64) -> u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut checked = Checked { table: SlotTable::new(), keys: Vec::new(), hash };
    let mut model: HashMap<u64, u32> = HashMap::new();
    for _ in 0..steps {
        let key = random.random_range(0..range);
        assert_eq!(checked.find(key), model.get(&key).copied(), "key {key} of seed {seed}");
        match model.remove(&key) {
            Some(slot) if random.random_bool(0.4) => {
                assert!(checked.table.remove(hash(key), slot));
                assert!(!checked.table.remove(hash(key), slot), "it is gone");
            }
            Some(slot) => drop(model.insert(key, slot)),
            None => {
                let slot = checked.keys.len() as u32;
                checked.insert(key, slot);
                model.insert(key, slot);
            }
        }
    }
    assert!((0..range).all(|key| checked.find(key) == model.get(&key).copied()), "seed {seed}");
    assert_eq!(checked.table.len, model.len());
}

#[test]
fn what_comes_and_goes_is_found_and_nothing_else() {
    for seed in 0..20 {
        check(seed, 3_000, 30_000, |key| crate::keys::hash_integer(key as i64));
        check(seed, 40, 2_000, |key| crate::keys::hash_integer(key as i64));
    }
}

/// Long ways, around the end of the table too: all begin in a few places, and some share the half of the hash that is kept.
#[test]
fn hashes_that_meet_are_told_apart() {
    for seed in 0..20 {
        check(seed, 60, 5_000, |key| ((key % 3) << 62) | (u64::MAX >> 2));
        check(seed, 60, 5_000, |_| u64::MAX);
        check(seed, 60, 5_000, |key| (0xffff_ffff_0000_0000 ^ ((key % 5) << 58)) | key);
    }
}

#[test]
fn a_look_ahead_sees_the_keys() {
    let mut table = SlotTable::new();
    let hashes: Vec<u64> = (0..100_000).map(crate::keys::hash_integer).collect();
    (0..).zip(&hashes).for_each(|(slot, hash)| put(&mut table, *hash, slot));
    let mut places = Vec::new();
    table.look_ahead(&hashes, &mut places);
    assert!((0..).zip(&places).filter(|(slot, place)| table.number_at(**place) == Some(*slot)).count() > 99_990);
    assert!(table.bytes() <= 100_000 * 8 * 3, "eight bytes a place, less than half of which are free");
}

/// Keys that have much in common, as identifiers and times have, come to lie nearly as apart as random ones, or more.
#[test]
fn searches_are_short_whatever_keys_have_in_common() {
    type Key = fn(u64) -> u64;
    let keys: [(&str, Key); 7] = [
        ("in order", |n| n),
        ("negative", |n| n.wrapping_neg()),
        ("times in milliseconds", |n| 1_767_225_600_000 + n * 1_000),
        ("times in nanoseconds", |n| 1_767_225_600_000_000_000 + n * 1_000_000),
        ("only upper bits", |n| n << 40),
        ("powers", |n| n * 65_536),
        ("two numbers in one", |n| ((n % 1_000) << 32) | (n / 1_000)),
    ];
    for (what, key) in keys {
        let mut table = SlotTable::new();
        // As full as it gets: three quarters of 2^17.
        (0..98_000).for_each(|n| put(&mut table, crate::keys::hash_integer(key(u64::from(n)) as i64), n));
        let mask = table.places.len() - 1;
        let used = table.places.iter().enumerate().filter(|(_, entry)| **entry != 0);
        let steps: usize = used.map(|(place, entry)| place.wrapping_sub(table.home(*entry)) & mask).sum();
        // At most twice the 1.5 of random ones.
        assert!(steps < 98_000 * 3, "{what}: {} steps a key", steps as f64 / 98_000.0);
    }
}
