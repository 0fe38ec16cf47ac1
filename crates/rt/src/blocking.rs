//! Work that would hold up its executor: it goes to the runtime's threads for blocking work. Under the simulator it is done at
//! once and in place, because there nothing may depend on the speed of threads.

use tokio::task::JoinError;

/// Does the work elsewhere and gives what came of it. Dropping it gives up the wait, not the work.
///
/// # Errors
/// The work panicked, or the runtime is being shut down.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
