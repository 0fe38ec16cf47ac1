//! Running a recorded epoch again: each split is read piece by piece, from one recorded floor to the next, then
//! to where the epoch ended.

use std::collections::{BTreeMap, VecDeque};

use super::OwnedSplits;
use crate::ids::SplitId;
use crate::protocol::{Floor, ReplayPart, SplitProgress, SplitState};
use crate::time::Timestamp;

/// A stretch of a split that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The split, with the position to begin at.
    pub from: SplitState,
    /// Where to stop; none: at the end of the split.
    pub until: Option<String>,
}

/// What of a split is still to come in the epoch.
#[derive(Clone, Debug, Default)]
struct Rest {
    floors: VecDeque<Floor>,
    /// Its progress at the end of the epoch; none where the epoch did not move it.
    end: Option<SplitProgress>,
}

/// The epochs that are run again.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    watermark: Timestamp,
    unread: BTreeMap<SplitId, Rest>,
}

impl Replay {
    /// Before the first epoch.
    pub(super) fn new(start: Timestamp) -> Replay {
        Replay { watermark: start, unread: BTreeMap::new() }
    }

    /// The source's watermark at the end of the running epoch; between epochs, of the one before.
    pub(super) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Whether all of the running epoch has been read.
    pub(super) fn is_read(&self) -> bool {
        self.unread.is_empty()
    }
}

impl OwnedSplits {
    /// Begins to run a recorded epoch again; gives the first piece of every split that is to be read.
    ///
    /// # Errors
    /// What does not fit together: our own mistake.
    pub fn replay(&mut self, part: ReplayPart) -> Result<Vec<Piece>, String> {
        let mut unread = BTreeMap::<SplitId, Rest>::new();
        for floor in part.floors {
            unread.entry(floor.split.clone()).or_default().floors.push_back(floor);
        }
        for end in part.splits {
            unread.entry(end.split.id).or_default().end = end.progress;
        }
        let ids: Vec<SplitId> = unread.keys().cloned().collect();
        if let Some(id) = ids.iter().find(|id| !self.splits.contains_key(id)) {
            return Err(format!("split '{id}' is replayed before it is assigned"));
        }
        // What is sent never goes back, so neither does the mark that it is held to.
        self.replay = Some(Replay { watermark: part.watermark.max(self.emitted), unread });
        let mut pieces = Vec::new();
        for id in ids {
            pieces.extend(self.next_piece(&id)?);
        }
        Ok(pieces)
    }

    /// Whether recorded epochs are being run again, or are still to be.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether every split has been read to where the epoch that is run again ended.
    #[must_use]
    pub fn is_epoch_read(&self) -> bool {
        self.replay.as_ref().is_some_and(Replay::is_read)
    }

    /// A piece has been read to its end; gives the split's next one.
    ///
    /// # Errors
    /// The replay has come to something else than the record.
    pub fn piece_read(&mut self, id: &SplitId) -> Result<Option<Piece>, String> {
        let Some(rest) = self.replay.as_ref().and_then(|r| r.unread.get(id)) else {
            return Err(format!("split '{id}' has been read, which the replay did not ask for"));
        };
        let position = match (rest.floors.front(), &rest.end) {
            (Some(floor), _) => floor.position.clone(),
            (None, Some(SplitProgress::Reading { position, .. })) => Some(position.clone()),
            (None, Some(SplitProgress::Finished) | None) => None,
        };
        match position {
            // In the very words of the record, by which floors find their place.
            Some(position) => self.progress(id, position, Timestamp::MIN),
            None => self.finish(id),
        }
        self.next_piece(id)
    }

    /// Every recorded epoch has been run again: from here on splits are read freely, and idle ones join anew.
    pub fn end_replay(&mut self) {
        self.replay = None;
        let ids: Vec<SplitId> = self.splits.keys().cloned().collect();
        ids.iter().for_each(|id| self.raise(id, self.emitted));
    }

    /// Gives the split the floors that it has reached, then says what is to be read of it.
    fn next_piece(&mut self, id: &SplitId) -> Result<Option<Piece>, String> {
        let Some(rest) = self.replay.as_mut().and_then(|r| r.unread.get_mut(id)) else { return Ok(None) };
        let split = &self.splits[id];
        let here = |floor: &Floor| floor.position.is_none() || floor.position.as_ref() == split.position();
        let reached = rest.floors.iter().take_while(|floor| here(floor)).count();
        let reached: Vec<Floor> = rest.floors.drain(..reached).collect();
        let (next, end) = (rest.floors.front().and_then(|floor| floor.position.clone()), rest.end.clone());
        for floor in reached {
            self.raise(id, floor.watermark);
        }
        let from = self.splits[id].state.clone();
        if next.is_some() {
            return Ok(Some(Piece { from, until: next }));
        }
        match (from.progress.clone(), end) {
            (now, end) if end.is_none() || now == end || now == Some(SplitProgress::Finished) => {
                if let Some(replay) = &mut self.replay {
                    replay.unread.remove(id);
                }
                Ok(None)
            }
            (_, Some(SplitProgress::Reading { position, watermark })) => match &from.progress {
                Some(SplitProgress::Reading { position: here, watermark: found }) if *here == position => Err(format!(
                    "split '{id}' was run again up to position {position} and has the watermark {found}, not {watermark}"
                )),
                _ => Ok(Some(Piece { from, until: Some(position) })),
            },
            _ => Ok(Some(Piece { from, until: None })),
        }
    }
}
