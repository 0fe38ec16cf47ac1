//! A cluster's coordinators: what they agree on ([`agreed`]), the leader's workers ([`fleet`]), the deployment of
//! attempts on them ([`deployer`]), the leader's duty to keep every job driven ([`jobs`]), and each coordinator's file of who
//! has decided what ([`audit`]).

mod agreed;
mod audit;
mod deployer;
mod fleet;
mod jobs;
mod proposer;
mod replicated_log;

pub use mainstem_core::cluster::state::{Answer, ClusterState, Command, JobEntry, Submission, Wish};

pub use self::agreed::Agreed;
pub use self::audit::keep_audit_files;
pub use self::fleet::{FleetService, WorkerStatus};
pub use self::jobs::{ClusterJobs, JobFactory, JobView};
