//! What is known of how far an epoch is published. No I/O: the publisher asks the stream and tells what it heard.

/// What is known of a stream: up to the sequence `last`, exactly the first `published` messages of the epoch are in it. True
/// for ever once it is true, since what a stream holds up to a sequence never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) last: u64,
    pub(super) published: u64,
}

/// Messages behind the last of ours that was found have been removed: some of ours may have been among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uncertain {
    /// The first sequence that is missing.
    pub(super) from: u64,
    /// Messages of the epoch that are known to be published.
    pub(super) published: u64,
}

impl Progress {
    /// The next message was stored as it should be.
    pub(super) fn stored(&mut self) {
        self.last += 1;
        self.published += 1;
    }
}

/// Goes through what a stream holds behind a known place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// Sequence of the message that comes next, if none is missing.
    next: u64,
    published: u64,
    /// The first that is missing behind the last message of ours.
    missing: Option<u64>,
}

impl Search {
    /// Begins behind what is known.
    pub(super) fn behind(known: Progress) -> Search {
        Search { next: known.last + 1, published: known.published, missing: None }
    }

    /// The next message of the stream; `own`: its number in the epoch, if it is one of ours.
    pub(super) fn found(&mut self, sequence: u64, own: Option<u64>) {
        self.pass(sequence);
        self.next = sequence + 1;
        // They were stored in order, so what is missing before one of ours were others, or ours that are removed.
        if let Some(number) = own.filter(|number| *number >= self.published) {
            self.published = number + 1;
            self.missing = None;
        }
    }

    /// The search is over: the stream ended with `last` when it began. `total`: messages of the epoch.
    pub(super) fn end(mut self, last: u64, total: u64) -> Result<Progress, Uncertain> {
        self.pass(last + 1);
        match self.missing {
            Some(from) if self.published < total => Err(Uncertain { from, published: self.published }),
            // What lies behind `last` has not been looked at in full.
            _ => Ok(Progress { last: last.max(self.next.saturating_sub(1)), published: self.published }),
        }
    }

    fn pass(&mut self, sequence: u64) {
        if sequence > self.next {
            self.missing.get_or_insert(self.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(found: &[(u64, Option<u64>)], last: u64) -> Result<Progress, Uncertain> {
        let mut search = Search::behind(Progress { last: 10, published: 2 });
        found.iter().for_each(|(sequence, own)| search.found(*sequence, *own));
        search.end(last, 5)
    }

    #[test]
    fn the_stream_tells_what_is_published_unless_it_has_lost_it() {
        assert_eq!(search(&[], 10), Ok(Progress { last: 10, published: 2 }));
        assert_eq!(search(&[(11, Some(2)), (12, None)], 12), Ok(Progress { last: 12, published: 3 }));
        // Removed before one of ours: those that came before it are published all the same.
        assert_eq!(search(&[(14, Some(3)), (15, None)], 15), Ok(Progress { last: 15, published: 4 }));
        // Removed behind the last of ours: the next may have been among them.
        assert_eq!(search(&[(11, Some(2)), (13, None)], 13), Err(Uncertain { from: 12, published: 3 }));
        assert_eq!(search(&[], 11), Err(Uncertain { from: 11, published: 2 }));
        // Nothing can follow the last of an epoch.
        assert_eq!(search(&[(14, Some(4))], 17), Ok(Progress { last: 17, published: 5 }));
        // Copies that somebody else makes of ours count for nothing.
        assert_eq!(search(&[(11, Some(2)), (12, Some(1))], 12), Ok(Progress { last: 12, published: 3 }));
    }
}
