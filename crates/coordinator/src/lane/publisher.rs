//! Publishes the output of epochs and clears away what failed attempts left of it.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use mainstem_connectors::Committer;
use mainstem_core::ids::{Epoch, Generation, OperatorId};
use mainstem_core::protocol::{Committable, Failure};
use mainstem_rt::failpoint;
use tokio::sync::watch;
use tracing::{Instrument, error_span};

use super::Worker;
use crate::coordinator::fatal;
use crate::retry::Retry;
use crate::spec::JobStatus;

/// Owns the committers of a job.
pub(crate) struct Publisher {
    pub(crate) committers: BTreeMap<OperatorId, Box<dyn Committer>>,
    pub(crate) retry: Retry,
    /// Where it is shown what they have dropped.
    pub(crate) status: watch::Sender<JobStatus>,
}

/// What the publisher is asked for.
#[derive(Debug)]
pub(crate) enum Publication {
    /// Make the output of a complete epoch visible; the committers see it in the order of their operators.
    Epoch {
        /// Which.
        epoch: Epoch,
        /// What each sink has to publish.
        committables: BTreeMap<OperatorId, Vec<Committable>>,
    },
    /// Remove what attempts before this one left hidden.
    CleanUp {
        /// Those attempts; the one that begins is not among them.
        generations: Range<Generation>,
    },
}

#[async_trait]
impl Worker for Publisher {
    type Work = Publication;
    type Answer = ();

    async fn work(&mut self, work: Publication) -> Result<(), Failure> {
        match work {
            Publication::Epoch { epoch, committables } => {
                let publishing =
                    self.publish(epoch, &committables).instrument(error_span!("publication", epoch = epoch.0));
                let published = publishing.await;
                self.show_dropped();
                published
            }
            Publication::CleanUp { generations } => {
                self.clean_up(&generations).await;
                Ok(())
            }
        }
    }
}

impl Publisher {
    async fn publish(
        &mut self,
        epoch: Epoch,
        committables: &BTreeMap<OperatorId, Vec<Committable>>,
    ) -> Result<(), Failure> {
        failpoint::hit(failpoint::EPOCH_COMPLETE);
        for (operator, committables) in committables {
            let Some(committer) = self.committers.get_mut(operator) else {
                return Err(fatal(format!("bug: {operator} has output to publish and no committer")));
            };
            let mut tries = self.retry.tries(format!("publish epoch {epoch}"));
            let mut progress = committer.progress();
            while let Err(error) = tries.within_timeout(committer.commit(epoch, committables)).await {
                let before = std::mem::replace(&mut progress, committer.progress());
                if progress > before {
                    tries.got_further();
                }
                tries.wait(error).await?;
            }
            failpoint::hit(failpoint::PUBLISHING);
        }
        failpoint::hit(failpoint::PUBLISHED);
        Ok(())
    }

    /// Shows how many records sinks have dropped, as the user chose.
    fn show_dropped(&self) {
        let dropped = self.committers.values().map(|committer| committer.dropped_records()).sum();
        self.status.send_if_modified(|status| std::mem::replace(&mut status.rejected_records, dropped) != dropped);
    }

    /// Left-overs are hidden and harmless: where one stays, the next start tries again.
    async fn clean_up(&mut self, generations: &Range<Generation>) {
        for (operator, committer) in &mut self.committers {
            let tries = self.retry.tries("remove left-overs");
            if let Err(error) = tries.within_timeout(committer.clean_up(generations.clone())).await {
                tracing::warn!(job = %self.retry.job, %operator, %error, "cannot remove what earlier attempts left");
            }
        }
    }
}
