//! Bugs that other systems had and that a simulation puts back, one at a time, to show that it would find them. Compiled in
//! only with the feature `simulation`, which nothing but tests turns on.

/// A record counts as recorded as soon as it is proposed.
pub const RECORDED_BY_HOPE: &str = "recorded-by-hope";
/// What earlier attempts left is removed before what was complete is published.
pub const CLEAN_UP_FIRST: &str = "clean-up-first";
/// What was complete when an attempt began counts as published.
pub const PUBLISHED_BY_HOPE: &str = "published-by-hope";
/// An attempt is not told that a worker is lost.
pub const LOSS_UNTOLD: &str = "loss-untold";

/// Whether the bug is put back.
#[cfg(feature = "simulation")]
#[must_use]
pub fn is_put_back(name: &str) -> bool {
    crate::simulation::is_put_back(name)
}

/// Never without the feature `simulation`.
#[cfg(not(feature = "simulation"))]
#[must_use]
pub const fn is_put_back(_name: &str) -> bool {
    false
}
