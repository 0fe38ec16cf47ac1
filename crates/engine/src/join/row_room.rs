//! How many partners one row may have at once: their references are in memory together, before rows are made of them.

use mainstem_plan::eval::EvalContext;

use crate::error::EngineError;

/// One row may take such a part of the worker's memory: a fourth.
const OF_MEMORY: u64 = 4;

/// See the module.
pub(crate) struct RowRoom {
    operator: String,
    bytes_max: u64,
    /// What a reference to a partner takes.
    partner_bytes: u64,
}

impl RowRoom {
    /// For the named operator.
    pub(crate) fn new(operator: &str, partner_bytes: usize, context: &EvalContext) -> RowRoom {
        let (operator, bytes_max) = (operator.to_owned(), context.memory_bytes / OF_MEMORY);
        RowRoom { operator, bytes_max, partner_bytes: partner_bytes as u64 }
    }

    /// Whether a row may have so many.
    ///
    /// # Errors
    /// Where it may not.
    pub(crate) fn check(&self, partners: usize) -> Result<(), EngineError> {
        let bytes = (partners as u64).saturating_mul(self.partner_bytes);
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(EngineError::TooManyPartners {
            operator: self.operator.clone(),
            partners: partners as u64,
            bytes,
            bytes_max: self.bytes_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_may_have_partners_for_a_fourth_of_the_memory() {
        let context = EvalContext { memory_bytes: 4000, ..EvalContext::default() };
        let room = RowRoom::new("join", 10, &context);
        room.check(100).unwrap();
        let refused = room.check(101).unwrap_err().to_string();
        assert!(
            refused.starts_with("join: a row has at least 101 partners") && refused.contains("--memory"),
            "{refused}"
        );
    }
}
