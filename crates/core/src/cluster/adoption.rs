//! Whether a new leader goes on with an attempt or begins a new one. It goes on where every worker of the attempt comes
//! to it within a short time and still runs its part; where anything is missing or does not fit, it begins anew: that is
//! always right, and costs a restart.
//!
//! Driven by the deployer of the job. Gives one of [`AdoptionCommand::Adopt`] and [`AdoptionCommand::Restart`], once, and
//! nothing after it.

use std::collections::BTreeSet;

use super::messages::WorkerId;
use crate::time::Timestamp;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionEvent {
    /// A worker is there.
    Joined {
        /// Who.
        worker: WorkerId,
    },
    /// A worker runs its part of the attempt, or says why it does not.
    Answered {
        /// Who.
        worker: WorkerId,
        /// Whether it does.
        runs: Result<(), String>,
    },
    /// A worker is lost, or certainly does not live any more.
    Gone {
        /// Who.
        worker: WorkerId,
        /// How that is known, for the user.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionCommand {
    /// Ask a worker whether it runs its part.
    Ask {
        /// Whom.
        worker: WorkerId,
    },
    /// Go on with the attempt.
    Adopt,
    /// Begin a new attempt.
    Restart {
        /// Why, for the user.
        reason: String,
    },
}

/// See the module. One for each attempt that a new leader finds.
#[derive(Clone, Debug)]
pub struct Adoption {
    deadline: Timestamp,
    /// Workers that have not come yet.
    missing: BTreeSet<WorkerId>,
    /// Workers that were asked.
    asked: BTreeSet<WorkerId>,
    decided: bool,
}

impl Adoption {
    /// Nobody is there; `workers` are those of the attempt, who have until `deadline`.
    #[must_use]
    pub fn new(workers: BTreeSet<WorkerId>, deadline: Timestamp) -> Adoption {
        Adoption { deadline, missing: workers, asked: BTreeSet::new(), decided: false }
    }

    /// Until when an [`AdoptionEvent::Tick`] is not needed.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The workers that have not come yet.
    pub fn missing(&self) -> impl Iterator<Item = &WorkerId> {
        self.missing.iter()
    }

    /// Takes an event at `now` and gives what to do.
    pub fn on(&mut self, now: Timestamp, event: AdoptionEvent) -> Option<AdoptionCommand> {
        if self.decided {
            return None;
        }
        match event {
            AdoptionEvent::Joined { worker } => {
                if self.missing.remove(&worker) {
                    self.asked.insert(worker.clone());
                    return Some(AdoptionCommand::Ask { worker });
                }
            }
            AdoptionEvent::Answered { worker, runs: Ok(()) } => {
                self.asked.remove(&worker);
                if self.missing.is_empty() && self.asked.is_empty() {
                    self.decided = true;
                    return Some(AdoptionCommand::Adopt);
                }
            }
            AdoptionEvent::Answered { worker, runs: Err(reason) } => {
                return self.restart(format!("worker {worker} does not run its part any more: {reason}"));
            }
            AdoptionEvent::Gone { worker, reason } => {
                return self.restart(format!("worker {worker} is gone: {reason}"));
            }
            AdoptionEvent::Tick if now >= self.deadline => {
                let silent: Vec<_> = self.missing.iter().chain(&self.asked).map(|worker| worker.0.as_str()).collect();
                return self.restart(format!("nothing was heard in time of {}", silent.join(", ")));
            }
            AdoptionEvent::Tick => {}
        }
        None
    }

    fn restart(&mut self, reason: String) -> Option<AdoptionCommand> {
        self.decided = true;
        Some(AdoptionCommand::Restart { reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(10);

    fn worker(name: &str) -> WorkerId {
        WorkerId(name.to_owned())
    }

    fn adoption(names: &[&str]) -> Adoption {
        Adoption::new(names.iter().map(|name| worker(name)).collect(), Timestamp(100))
    }

    fn joined(name: &str) -> AdoptionEvent {
        AdoptionEvent::Joined { worker: worker(name) }
    }

    fn runs(name: &str) -> AdoptionEvent {
        AdoptionEvent::Answered { worker: worker(name), runs: Ok(()) }
    }

    fn ask(name: &str) -> Option<AdoptionCommand> {
        Some(AdoptionCommand::Ask { worker: worker(name) })
    }

    fn reason(command: Option<AdoptionCommand>) -> String {
        let Some(AdoptionCommand::Restart { reason }) = command else { panic!("{command:?}") };
        reason
    }

    #[test]
    fn an_attempt_is_adopted_when_every_worker_runs_its_part() {
        let mut adoption = adoption(&["a", "b"]);
        assert_eq!(adoption.on(NOW, joined("a")), ask("a"));
        assert_eq!(adoption.on(NOW, joined("c")), None, "it has no part in it");
        assert_eq!(adoption.on(NOW, runs("a")), None);
        assert_eq!(adoption.on(NOW, joined("a")), None, "asked once");
        assert_eq!(adoption.missing().collect::<Vec<_>>(), [&worker("b")]);
        assert_eq!(adoption.on(Timestamp(99), AdoptionEvent::Tick), None);
        assert_eq!(adoption.on(Timestamp(99), joined("b")), ask("b"));
        assert_eq!(adoption.on(Timestamp(99), runs("b")), Some(AdoptionCommand::Adopt));
        assert_eq!(adoption.on(Timestamp(100), AdoptionEvent::Tick), None, "decided once");
    }

    #[test]
    fn whatever_is_missing_begins_a_new_attempt() {
        let late = |asked: bool| {
            let mut adoption = adoption(&["a", "b"]);
            adoption.on(NOW, joined("a"));
            adoption.on(NOW, runs("a"));
            if asked {
                adoption.on(NOW, joined("b"));
            }
            reason(adoption.on(Timestamp(100), AdoptionEvent::Tick))
        };
        for asked in [false, true] {
            assert_eq!(late(asked), "nothing was heard in time of b");
        }
        let stopped = AdoptionEvent::Answered { worker: worker("a"), runs: Err("it was stopped".to_owned()) };
        let gone = AdoptionEvent::Gone { worker: worker("b"), reason: "its process has ended".to_owned() };
        for (event, said) in [(stopped, "it was stopped"), (gone, "its process has ended")] {
            let mut adoption = adoption(&["a", "b"]);
            adoption.on(NOW, joined("a"));
            assert!(reason(adoption.on(NOW, event)).contains(said));
            assert_eq!(adoption.on(NOW, joined("b")), None);
        }
    }
}
