//! Whose word a worker obeys: the leader of the newest term, and of each job only the newest attempt (I3).

use std::collections::{BTreeMap, BTreeSet};

use super::messages::AttemptId;
use crate::bug::{Bug, is_put_back};
use crate::ids::{Generation, JobId};

/// What a worker does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceCommand {
    /// Stop an attempt at once.
    Stop(AttemptId),
    /// Start an attempt, when those to stop have stopped.
    Start(AttemptId),
    /// Do not do what was asked, and say why.
    Refuse {
        /// Why.
        reason: String,
    },
}

/// A worker's memory of what must not run any more. It lasts as long as the process, as does whatever could
/// have to be stopped.
#[derive(Clone, Debug, Default)]
pub struct Fences {
    term: u64,
    least: BTreeMap<JobId, Generation>,
    running: BTreeSet<AttemptId>,
}

impl Fences {
    /// A coordinator says that it leads in `term`.
    ///
    /// # Errors
    /// Where a newer leader is known.
    pub fn on_leader(&mut self, term: u64) -> Result<(), String> {
        if term < self.term && !is_put_back(Bug::OlderLeaderObeyed) {
            return Err(format!("it leads in term {term}, and term {} has a leader", self.term));
        }
        self.term = term;
        Ok(())
    }

    /// Nothing of the job below `generation` may run.
    pub fn on_fence(&mut self, job: &JobId, generation: Generation) -> Vec<FenceCommand> {
        let least = self.least.entry(job.clone()).or_default();
        *least = generation.max(*least);
        let least = *least;
        let stopped: Vec<AttemptId> =
            self.running.iter().filter(|a| a.job == *job && a.generation < least).cloned().collect();
        for attempt in &stopped {
            self.running.remove(attempt);
        }
        stopped.into_iter().map(FenceCommand::Stop).collect()
    }

    /// An attempt shall run here.
    pub fn on_deploy(&mut self, attempt: &AttemptId) -> Vec<FenceCommand> {
        if !self.may_run(attempt) && !is_put_back(Bug::OlderAttemptStarts) {
            let least = self.least[&attempt.job];
            return vec![FenceCommand::Refuse {
                reason: format!("{attempt} is older than attempt {least}, which is known"),
            }];
        }
        if self.running.contains(attempt) {
            return vec![FenceCommand::Refuse { reason: format!("{attempt} runs here already") }];
        }
        let mut commands = self.on_fence(&attempt.job, attempt.generation);
        self.running.insert(attempt.clone());
        commands.push(FenceCommand::Start(attempt.clone()));
        commands
    }

    /// Whether anything of the attempt may run here, or send rows to here.
    #[must_use]
    pub fn may_run(&self, attempt: &AttemptId) -> bool {
        self.least.get(&attempt.job).is_none_or(|least| attempt.generation >= *least)
    }

    /// All subtasks of an attempt have ended by themselves.
    pub fn on_ended(&mut self, attempt: &AttemptId) {
        self.running.remove(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(job: &str, generation: u64) -> AttemptId {
        AttemptId { job: JobId::new(job).unwrap(), generation: Generation(generation) }
    }

    #[test]
    fn a_newer_attempt_stops_the_older_and_the_older_never_comes_back() {
        let mut fences = Fences::default();
        assert_eq!(fences.on_deploy(&attempt("a", 3)), [FenceCommand::Start(attempt("a", 3))]);
        assert_eq!(fences.on_deploy(&attempt("b", 1)), [FenceCommand::Start(attempt("b", 1))]);
        let newer = fences.on_deploy(&attempt("a", 5));
        assert_eq!(newer, [FenceCommand::Stop(attempt("a", 3)), FenceCommand::Start(attempt("a", 5))]);
        for late in [attempt("a", 4), attempt("a", 3), attempt("a", 5)] {
            assert!(matches!(fences.on_deploy(&late)[..], [FenceCommand::Refuse { .. }]), "{late}");
        }
        for (job, generation) in [("a", 5), ("b", 1)] {
            let fenced = fences.on_fence(&JobId::new(job).unwrap(), Generation(9));
            assert_eq!(fenced, [FenceCommand::Stop(attempt(job, generation))], "nothing else runs");
        }
    }

    #[test]
    fn a_fence_holds_for_what_was_never_here_and_never_goes_back() {
        let mut fences = Fences::default();
        let job = JobId::new("a").unwrap();
        assert_eq!(fences.on_fence(&job, Generation(7)), []);
        assert_eq!(fences.on_fence(&job, Generation(2)), []);
        assert!(!fences.may_run(&attempt("a", 6)));
        assert!(fences.may_run(&attempt("a", 7)));
        assert!(matches!(fences.on_deploy(&attempt("a", 6))[..], [FenceCommand::Refuse { .. }]));
        assert_eq!(fences.on_deploy(&attempt("a", 7)), [FenceCommand::Start(attempt("a", 7))]);
        assert_eq!(fences.on_fence(&job, Generation(8)), [FenceCommand::Stop(attempt("a", 7))]);
        assert_eq!(fences.on_fence(&job, Generation(9)), [], "stopped once");
    }

    #[test]
    fn an_older_leader_is_not_obeyed() {
        let mut fences = Fences::default();
        fences.on_leader(4).unwrap();
        fences.on_leader(4).unwrap();
        assert!(fences.on_leader(3).is_err());
        fences.on_leader(6).unwrap();
        assert!(fences.on_leader(4).is_err());
    }
}
