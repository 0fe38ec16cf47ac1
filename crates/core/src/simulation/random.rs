//! The one source of chance of a run, and what a run leaves behind to be compared.

/// Marsaglia's xorshift, 64 bits.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number below the bound, which is at least 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// What happened, as a number that two equal runs share and, where asked for, as text.
pub(super) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(with_text: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: with_text.then(Vec::new) }
    }

    pub(super) fn mark(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Costs nothing where nobody reads it.
    pub(super) fn say(&mut self, now: i64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let line = format!("{now:>7} {}", line());
            line.bytes().for_each(|byte| self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
            lines.push(line);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

impl Drop for Trace {
    /// Shows what happened before a check failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lines().iter().for_each(|line| println!("{line}"));
        }
    }
}
