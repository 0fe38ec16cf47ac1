//! Tells workers what they stand by for. Who stands by for what is decided by [`mainstem_core::cluster::Fleet`].

use mainstem_core::cluster::StandbyStatus;
use mainstem_core::cluster::messages::ToWorker;
use mainstem_core::ids::JobId;

use super::{FleetService, Inner};

impl FleetService {
    /// Who stands by for a job; none where nobody is to.
    pub(crate) fn standbys(&self, job: &JobId) -> Option<StandbyStatus> {
        self.lock().fleet.standbys(job)
    }
}

impl Inner {
    /// Sees to it that slots have their standbys, and that these know what to follow. Never waits for one.
    pub(super) fn tell_standbys(&mut self) {
        for (worker, order) in self.fleet.stand_by() {
            let job = order.attempt.job.clone();
            let follow = ToWorker::Follow(Box::new(order));
            let told = self.links.get(&worker).is_some_and(|(_, outbox)| outbox.try_send(follow).is_ok());
            if !told {
                self.fleet.on_untold(&worker, &job);
            }
        }
    }
}
