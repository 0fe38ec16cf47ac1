//! The marker of a sink in Redis: which epochs are written, and how far one has come that is being written. A text under a
//! key of its own, compared as a whole by the script. Pure.

use mainstem_core::ids::{Epoch, JobId};
use serde::{Deserialize, Serialize};

use crate::error::{ConnectorError, ErrorKind};
use crate::staging::{Decision, Marker, decide};

/// Epochs that a marker keeps: more than may be published again after a crash.
const KEPT_MAX: usize = 16;

/// See the module. Stored as JSON; fields may be added with defaults, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Epochs that are written, the newest first.
    pub(super) written: Vec<Marker>,
    /// The one that is being written, and how many of its changes are.
    pub(super) under_way: Option<(Marker, u64)>,
}

impl Marks {
    /// Reads the text of a marker; without one nothing is written yet.
    pub(super) fn parse(text: &str, key: &str) -> Result<Marks, ConnectorError> {
        if text.is_empty() {
            return Ok(Marks::default());
        }
        serde_json::from_str(text).map_err(|error| {
            let message = format!(
                "the key '{key}' in Redis, which says what is written, cannot be read: {error}; it was changed from \
                 outside, or written by a later version"
            );
            ConnectorError::new(ErrorKind::Lost, message)
        })
    }

    /// The text of the marker.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("names and numbers have a JSON form")
    }

    /// With how many of its changes an epoch goes on; none: it is written. Otherwise this is where it begins.
    ///
    /// # Errors
    /// The epoch is of an older attempt than what is written.
    pub(super) fn begin(&mut self, epoch: &Marker, job: &JobId, place: &str) -> Result<Option<u64>, ConnectorError> {
        if let Some((under_way, changes)) = &self.under_way
            && under_way == epoch
        {
            return Ok(Some(*changes));
        }
        // One that has come half the way keeps older ones out as if it were written.
        let mut kept: Vec<Marker> = self.under_way.iter().map(|(marker, _)| marker.clone()).collect();
        kept.extend(self.written.iter().cloned());
        match decide(epoch, &kept, job, place)? {
            Decision::Skip => return Ok(None),
            Decision::Write => {}
            Decision::WriteAnew => self.written.clear(),
        }
        self.under_way = None;
        Ok(Some(0))
    }

    /// The marker when so many changes of an epoch are written.
    pub(super) fn after(&self, epoch: &Marker, changes: u64, all: bool) -> Marks {
        let mut marks = self.clone();
        marks.under_way = (!all).then(|| (epoch.clone(), changes));
        if all {
            marks.written.insert(0, epoch.clone());
            marks.written.truncate(KEPT_MAX);
        }
        marks
    }

    /// Whether an epoch that was seen as written still is, as far as the marker tells.
    pub(super) fn knows(&self, epoch: &Marker) -> bool {
        let newest = self.under_way.iter().map(|(marker, _)| marker).chain(&self.written);
        self.written.contains(epoch) || newest.into_iter().any(|marker| marker.generation > epoch.generation)
    }

    /// Epochs that are written after one.
    pub(super) fn after_epoch(&self, epoch: Epoch) -> Vec<Epoch> {
        self.written.iter().map(|marker| marker.epoch).filter(|written| *written > epoch).collect()
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::Generation;

    use super::*;

    fn marker(epoch: u64, generation: u64) -> Marker {
        let digest = format!("{epoch}-{generation}");
        Marker { epoch: Epoch(epoch), generation: Generation(generation), digest }
    }

    fn begin(marks: &Marks, epoch: &Marker) -> Result<Option<u64>, String> {
        let begun = marks.clone().begin(epoch, &JobId::new("j").unwrap(), "p");
        begun.map_err(|error| error.message)
    }

    #[test]
    fn an_epoch_goes_on_where_it_was_and_is_written_once() {
        let none = Marks::parse("", "k").unwrap();
        let (first, second) = (marker(1, 1), marker(2, 1));
        assert_eq!(begin(&none, &first), Ok(Some(0)));
        let half = none.after(&first, 500, false);
        assert_eq!(begin(&half, &first), Ok(Some(500)));
        assert_eq!(begin(&half, &second), Ok(Some(0)), "the first was restored by a savepoint before it");
        let whole = half.after(&first, 700, true);
        assert_eq!(begin(&whole, &first), Ok(None));
        assert_eq!(begin(&whole, &second), Ok(Some(0)));
        assert_eq!(Marks::parse(&whole.text(), "k").unwrap(), whole);
        assert!(Marks::parse("{", "k").is_err());
        assert_eq!(whole.after_epoch(Epoch(0)), [Epoch(1)]);
    }

    #[test]
    fn who_was_overtaken_is_kept_out() {
        let marks = Marks::default().after(&marker(1, 3), 1, true).after(&marker(2, 3), 5, false);
        for late in [marker(2, 2), marker(3, 2), marker(1, 2)] {
            assert!(begin(&marks, &late).is_err(), "{late:?}");
        }
        assert_eq!(begin(&marks, &marker(1, 4)), Ok(Some(0)), "a job that was started anew");
        assert!(marks.knows(&marker(1, 3)) && !marks.knows(&marker(7, 3)), "7 is lost");
        assert!(marks.knows(&marker(7, 2)), "somebody newer writes here");
        assert!(!Marks::default().knows(&marker(1, 3)));
    }

    #[test]
    fn a_marker_does_not_grow_for_ever() {
        let marks = (1..100).fold(Marks::default(), |marks, epoch| marks.after(&marker(epoch, 1), 1, true));
        assert_eq!(marks.written.len(), KEPT_MAX);
        assert_eq!(marks.written[0].epoch, Epoch(99));
    }
}
