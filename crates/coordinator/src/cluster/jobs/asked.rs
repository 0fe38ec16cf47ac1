//! What users want is agreed on, with who wants it. What comes of it is the driver's business.

use mainstem_consensus::ProposeError;
use mainstem_core::cluster::proposal::Note;
use mainstem_core::cluster::state::{Answer, Command, Submission, Wish};
use mainstem_core::ids::JobId;

use super::{ClusterJobs, JobFactory};
use crate::spec::SavepointRequest;

impl<F: JobFactory> ClusterJobs<F> {
    /// Agrees on a job to run; `user` is who wants it.
    pub async fn submit(&self, user: &str, job: JobId, submission: Submission) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Submit { job, submission: Box::new(submission) }).await
    }

    /// Agrees on what a user wants of a job.
    pub async fn wish(&self, user: &str, job: JobId, wish: Wish) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Wish { job, wish }).await
    }

    /// Agrees on another parallelism of a job.
    pub async fn rescale(&self, user: &str, job: JobId, parallelism: u32) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Rescale { job, parallelism }).await
    }

    /// Agrees on a savepoint of a job.
    pub async fn savepoint(&self, user: &str, job: JobId, request: SavepointRequest) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Savepoint { job, request }).await
    }

    /// Agrees on forgetting a job that has ended.
    pub async fn remove(&self, user: &str, job: JobId) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Remove { job }).await
    }

    /// Drains the workers of this name, once it is agreed on that a user wants it.
    pub async fn drain(&self, user: &str, name: &str) -> Result<Answer, ProposeError> {
        let named = match self.fleet.named(name) {
            Ok(named) => named,
            Err(reason) => return Ok(Err(reason)),
        };
        let notes = named.into_iter().map(|worker| Note::WorkerDrained { worker }).collect();
        match self.note(user, notes).await? {
            Ok(()) => Ok(self.fleet.drain(name)),
            refused => Ok(refused),
        }
    }

    /// Agrees on what a user wants that is no job's.
    pub async fn note(&self, user: &str, notes: Vec<Note>) -> Result<Answer, ProposeError> {
        self.proposer.propose_for(Some(user), Command::Notes { notes }).await
    }
}
