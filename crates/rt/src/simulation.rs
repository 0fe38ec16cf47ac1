//! What the simulation of a whole cluster turns on for the code of its thread. Compiled in only with the feature
//! `simulation`, which nothing but tests turns on.

use std::cell::{Cell, RefCell};

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static BUG: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From here on this thread simulates, with this one of [`crate::bug`] put back; the empty name is none.
pub fn begin(bug: &str) {
    ON.set(true);
    BUG.with_borrow_mut(|known| bug.clone_into(known));
}

pub(crate) fn is_on() -> bool {
    ON.get()
}

pub(crate) fn is_put_back(bug: &str) -> bool {
    BUG.with_borrow(|known| known == bug)
}
