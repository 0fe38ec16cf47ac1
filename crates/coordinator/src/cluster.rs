//! A cluster's coordinators: what they agree on ([`state`]), the leader's workers ([`fleet`]), the deployment of
//! attempts on them ([`deployer`]), and the leader's duty to keep every job driven ([`jobs`]).

mod deployer;
mod fleet;
mod jobs;
mod replicated_log;
mod state;

pub use self::fleet::{FleetService, WorkerStatus};
pub use self::jobs::{ClusterJobs, JobFactory, JobView};
pub use self::state::{Answer, ClusterState, Command, JobEntry, Submission, Wish};
