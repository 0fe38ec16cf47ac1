//! What a pattern allows: which of its elements may take the next row of a match under way. Pure; how many rows each
//! element has taken is given as *counts*, for the elements up to the one that took the last row.

use mainstem_plan::operator::PatternElement;

/// The elements of a pattern.
pub(super) struct Elements {
    elements: Vec<PatternElement>,
    /// The last that must take a row. What is behind it is reluctant, and so never takes one.
    last: usize,
}

impl Elements {
    /// The planner has checked that a row must be taken, and that the end is not greedy.
    pub(super) fn new(elements: &[PatternElement]) -> Self {
        let last = elements.iter().rposition(|element| element.min > 0).unwrap_or(0);
        Elements { elements: elements.to_vec(), last }
    }

    /// The variable of an element.
    pub(super) fn variable(&self, element: usize) -> usize {
        self.elements[element].variable
    }

    /// The element that took the last row, and how many it has taken. Before the first row: the first one, none.
    fn current(counts: &[u32]) -> (usize, u32) {
        match counts {
            [] => (0, 0),
            [.., last] => (counts.len() - 1, *last),
        }
    }

    fn may_take(&self, element: usize, count: u32) -> bool {
        self.elements[element].max.is_none_or(|max| count < max)
    }

    /// The elements that might take the next row, if their conditions hold: consecutive ones.
    pub(super) fn reachable(&self, counts: &[u32]) -> std::ops::Range<usize> {
        let (current, count) = Self::current(counts);
        let first = if self.may_take(current, count) { current } else { current + 1 };
        if count < self.elements[current].min {
            return current..current + 1;
        }
        let behind = (current + 1..=self.last).find(|element| self.elements[*element].min > 0);
        first..behind.unwrap_or(self.last) + 1
    }

    /// The elements that take the next row, the preferred one first. `accepts`: whether the conditions of an
    /// element that is reachable hold.
    pub(super) fn takers(&self, counts: &[u32], accepts: &impl Fn(usize) -> bool, takers: &mut Vec<usize>) {
        let (current, count) = Self::current(counts);
        self.takers_from(current, count, accepts, takers);
    }

    fn takers_from(&self, current: usize, count: u32, accepts: &impl Fn(usize) -> bool, takers: &mut Vec<usize>) {
        let element = &self.elements[current];
        let takes = self.may_take(current, count) && accepts(current);
        let leaves = count >= element.min && current < self.last;
        if takes && element.greedy {
            takers.push(current);
            if element.is_greedy_loop() {
                // As in Flink: what it can take, the next one does not get.
                return;
            }
        }
        if leaves {
            self.takers_from(current + 1, 0, accepts, takers);
        }
        if takes && !element.greedy {
            takers.push(current);
        }
    }

    /// The counts when a reachable element has taken one more row.
    pub(super) fn taken(mut counts: Vec<u32>, element: usize) -> Vec<u32> {
        counts.resize(element + 1, 0);
        counts[element] += 1;
        counts
    }

    /// Whether the match is at its end.
    pub(super) fn is_complete(&self, counts: &[u32]) -> bool {
        let (current, count) = Self::current(counts);
        current == self.last && count >= self.elements[current].min
    }
}
