//! Decisions of a generator, kept on a tape: the same tape gives the same query, and a shorter or smaller tape gives a
//! simpler one. So a query that fails is made small without knowing how queries are built.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Longest time to look for a smaller tape.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(120);

/// See the module. Wherever a generator chooses, the first choice is the simplest.
pub(crate) struct Choices {
    tape: Vec<usize>,
    at: usize,
    /// Where the tape goes on; without it, with first choices.
    random: Option<SmallRng>,
}

impl Choices {
    pub(crate) fn random(seed: u64) -> Choices {
        Choices { tape: Vec::new(), at: 0, random: Some(SmallRng::seed_from_u64(seed)) }
    }

    pub(crate) fn replay(tape: Vec<usize>) -> Choices {
        Choices { tape, at: 0, random: None }
    }

    /// What has been decided.
    pub(crate) fn tape(self) -> Vec<usize> {
        self.tape
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if self.at == self.tape.len() {
            let next = self.random.as_mut().map_or(0, |random| random.random_range(0..end));
            self.tape.push(next);
        }
        self.at += 1;
        self.tape[self.at - 1].min(end - 1)
    }

    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True in so many of a hundred cases; false is simpler.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    pub(crate) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// One of several, each as often as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut rest = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if rest < *weight {
                return *choice;
            }
            rest -= weight;
        }
        unreachable!("the weights cover all numbers")
    }
}

/// The smallest tape found for which `fails` holds, as it does for `tape`.
pub(crate) async fn shrink(mut tape: Vec<usize>, mut fails: impl AsyncFnMut(&[usize]) -> bool) -> Vec<usize> {
    let begun = Instant::now();
    loop {
        let before = tape.clone();
        for size in [32, 8, 4, 2, 1] {
            let mut at = 0;
            while at < tape.len() && begun.elapsed() < SHRINK_TIME_MAX {
                let end = tape.len().min(at + size);
                let without = [&tape[..at], &tape[end..]].concat();
                let mut first = tape.clone();
                first[at..end].fill(0);
                if fails(&without).await {
                    tape = without;
                } else if first != tape && fails(&first).await {
                    tape = first;
                    at = end;
                } else {
                    at = end;
                }
            }
        }
        if tape == before || begun.elapsed() > SHRINK_TIME_MAX {
            return tape;
        }
    }
}

#[tokio::test]
async fn tapes_become_small() {
    let tape: Vec<usize> = (0..100).map(|n| n % 7).collect();
    let small = shrink(tape, async |tape| tape.iter().sum::<usize>() > 10 && tape.contains(&6)).await;
    assert!(small.len() <= 3, "{small:?}");
    let mut replayed = Choices::replay(vec![9, 1]);
    assert_eq!((replayed.below(4), replayed.below(4), replayed.below(4)), (3, 1, 0));
    assert_eq!(replayed.tape(), [9, 1, 0]);
}
