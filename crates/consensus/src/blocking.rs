//! Work that would hold up a node's timers. A simulated node does it in place: there nothing may depend on the speed of
//! threads, and its clock stands still meanwhile.

use tokio::task::JoinError;

/// Does the work on a thread for it.
pub(crate) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
