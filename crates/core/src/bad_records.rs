//! When a source has seen too many wrong records to go on. Called by the source operators of the engine, which stop the
//! job then. Counts only: what a wrong record is, others have decided.
//!
//! Old records weigh less and less, so that a job that was right for a year and goes wrong is stopped as soon as one that
//! is wrong from the start: whenever twice the least number of records has been looked at, the counts are halved.

/// Which part of the records may be wrong.
#[derive(Clone, Debug)]
pub struct BadRecordBudget {
    max_fraction: f64,
    min_records: u64,
    seen: u64,
    bad: u64,
}

/// Too many records are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSpent {
    /// How many of the newest are wrong.
    pub bad: u64,
    /// How many those are.
    pub seen: u64,
}

impl BadRecordBudget {
    /// Accepts a part of at most `max_fraction` (0 to 1), taken over at least `min_records` records.
    #[must_use]
    pub fn new(max_fraction: f64, min_records: u64) -> BadRecordBudget {
        assert!((0.0..=1.0).contains(&max_fraction), "{max_fraction} is no part");
        BadRecordBudget { max_fraction, min_records: min_records.max(1), seen: 0, bad: 0 }
    }

    /// Looks at some more records, of which some are wrong. The same records in the same portions give the same answers.
    pub fn look(&mut self, records: u64, bad: u64) -> Option<BudgetSpent> {
        assert!(bad <= records, "{bad} of {records} records are wrong");
        self.seen += records;
        self.bad += bad;
        let spent = BudgetSpent { bad: self.bad, seen: self.seen };
        // Counts are far below 2^53.
        let is_spent = self.seen >= self.min_records && self.bad as f64 > self.max_fraction * self.seen as f64;
        while self.seen >= self.min_records.saturating_mul(2) {
            self.seen /= 2;
            self.bad /= 2;
        }
        is_spent.then_some(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_judged_before_enough_was_seen() {
        let mut budget = BadRecordBudget::new(0.1, 100);
        for _ in 0..99 {
            assert_eq!(budget.look(1, 1), None);
        }
        assert_eq!(budget.look(1, 0), Some(BudgetSpent { bad: 99, seen: 100 }));
    }

    #[test]
    fn the_part_itself_is_accepted_and_none_above_it() {
        assert_eq!(BadRecordBudget::new(0.1, 100).look(1000, 100), None);
        assert_eq!(BadRecordBudget::new(0.1, 100).look(1000, 101), Some(BudgetSpent { bad: 101, seen: 1000 }));
        assert_eq!(BadRecordBudget::new(0.0, 1).look(10, 0), None);
        assert_eq!(BadRecordBudget::new(0.0, 1).look(10, 1), Some(BudgetSpent { bad: 1, seen: 10 }));
    }

    #[test]
    fn a_long_good_past_excuses_nothing() {
        let mut budget = BadRecordBudget::new(0.5, 1000);
        for _ in 0..10_000 {
            assert_eq!(budget.look(8192, 0), None);
        }
        let stopped = (1..).find(|_| budget.look(1, 1).is_some());
        assert!(stopped.is_some_and(|records| records <= 2_000), "{stopped:?}");
    }

    #[test]
    fn a_steady_part_below_the_limit_never_stops_a_job() {
        let mut budget = BadRecordBudget::new(0.1, 1000);
        for round in 0..100_000 {
            assert_eq!(budget.look(100, 9), None, "round {round}");
        }
    }
}
