//! Random numbers without a state: every value is a hash of where it stands. Called by the generating sources,
//! whose rows must come out the same however the numbers are split over readers and wherever a reader begins.
//! Must never change for a given seed: a job that resumes would read other rows than those it has counted.

/// The increment of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// An endless row of random numbers that can be read at any place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random {
    key: u64,
}

impl Random {
    /// The numbers of one field of one stream. Different `field`s of the same seed are independent.
    pub(crate) fn new(seed: u64, field: u64) -> Random {
        Random { key: mix(seed ^ mix(field.wrapping_add(1).wrapping_mul(GOLDEN))) }
    }

    /// The numbers of a field that is known by its name.
    pub(crate) fn named(seed: u64, name: &str) -> Random {
        // FNV-1a: short, and fixed for ever, unlike the hashers of the standard library.
        let hash =
            name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
        Random::new(seed, hash)
    }

    /// The number at a place.
    #[inline]
    pub(crate) fn at(self, place: u64) -> u64 {
        mix(self.key.wrapping_add(place.wrapping_mul(GOLDEN)))
    }
}

/// A further number derived from one; `step` counts up from 1.
#[inline]
pub(crate) fn derive(number: u64, step: u64) -> u64 {
    mix(number.wrapping_add(step.wrapping_mul(GOLDEN)))
}

/// Brings a random number into `0..bound`; 0 for a bound of 0.
#[inline]
pub(crate) fn below(number: u64, bound: u64) -> u64 {
    // Multiply-shift: much cheaper than a division, and as even for every bound that occurs here.
    ((u128::from(number) * u128::from(bound)) >> 64) as u64
}

/// Brings a random number into `0.0..1.0`.
#[inline]
pub(crate) fn unit(number: u64) -> f64 {
    (number >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Eight lower-case letters from one random number.
#[inline]
pub(crate) fn letters(number: u64) -> [u8; 8] {
    // Eight bytes at once: each byte times 26, divided by 256, in lanes of 16 bits so that nothing overflows.
    const LANES: u64 = 0x00FF_00FF_00FF_00FF;
    let even = (((number & LANES) * 26) >> 8) & LANES;
    let odd = (((number >> 8) & LANES) * 26) & !LANES;
    ((even | odd) + 0x6161_6161_6161_6161).to_le_bytes()
}

/// Sixteen hexadecimal digits from one random number.
#[inline]
pub(crate) fn hex_digits(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(number >> (4 * i)) as usize & 15])
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output's.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed_and_spread() {
        // A change here changes the rows of every job that reads a generator.
        assert_eq!(Random::new(1, 2).at(3), Random::new(1, 2).at(3));
        assert_ne!(Random::new(1, 2).at(3), Random::new(1, 3).at(3));
        assert_ne!(Random::named(1, "a").at(3), Random::named(1, "b").at(3));
        let random = Random::new(7, 0);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|n| counts[below(random.at(n), 10) as usize] += 1);
        assert!(counts.iter().all(|c| (900..1100).contains(c)), "{counts:?}");
        assert!((0..1000).map(|n| unit(random.at(n))).all(|u| (0.0..1.0).contains(&u)));
        assert_eq!(below(u64::MAX, 0), 0);
    }

    #[test]
    fn letters_are_letters_and_all_occur() {
        let mut seen = [0_u32; 26];
        let random = Random::new(9, 9);
        (0..10_000).flat_map(|n| letters(random.at(n))).for_each(|c| seen[usize::from(c - b'a')] += 1);
        // Each byte picks one of 26 letters out of 256 values: 9 or 10 of them a letter.
        assert!(seen.iter().all(|c| (2_600..3_600).contains(c)), "{seen:?}");
        assert_eq!(letters(0), *b"aaaaaaaa");
        assert_eq!(letters(u64::MAX), *b"zzzzzzzz");
        assert_eq!(&hex_digits(0x0123_4567_89AB_CDEF), b"fedcba9876543210");
    }
}
