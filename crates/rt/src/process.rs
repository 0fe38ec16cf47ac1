//! What tells processes apart.

/// A number that differs between the processes of a host, to spread what they do at the same time. Under the simulator it is
/// always the same one, because there nothing may depend on anything but the seed.
#[must_use]
pub fn process_number() -> u32 {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return 1;
    }
    std::process::id()
}
