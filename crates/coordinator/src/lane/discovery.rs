//! Looks for the splits of one source.

use async_trait::async_trait;
use mainstem_connectors::SplitEnumerator;
use mainstem_core::protocol::{Failure, SourceSplit};

use super::Worker;
use crate::retry::Retry;

/// Owns the enumerator of a source.
pub(crate) struct Discoverer {
    pub(crate) enumerator: Box<dyn SplitEnumerator>,
    pub(crate) retry: Retry,
}

/// Which splits are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Those with which the job begins.
    First,
    /// Those that have come since.
    New,
}

#[async_trait]
impl Worker for Discoverer {
    type Work = Discovery;
    type Answer = Vec<SourceSplit>;

    async fn work(&mut self, work: Discovery) -> Result<Vec<SourceSplit>, Failure> {
        if work == Discovery::New {
            self.enumerator.go_on();
        }
        let mut tries = self.retry.tries("look for input");
        loop {
            match tries.within_timeout(self.enumerator.discover()).await {
                Ok(splits) => return Ok(splits),
                Err(error) => tries.wait(error).await?,
            }
        }
    }
}
