//! The markers of written epochs, which systems keep beside what is written to them. What they say of an epoch that is to
//! be written is decided here, without I/O. Called by the committers of such systems.

use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use serde::{Deserialize, Serialize};

use super::StagedFile;
use crate::error::{ConnectorError, ErrorKind};

/// A marker: an epoch that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) epoch: Epoch,
    /// The attempt that staged its rows.
    pub(crate) generation: Generation,
    /// Of the staged files.
    pub(crate) digest: String,
}

/// What is to be done with an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is written.
    Skip,
    /// It follows what is written.
    Write,
    /// It is of a job of the same name that was started anew: the markers of the one before go.
    WriteAnew,
}

/// How a sink is called among the markers.
pub(crate) fn sink_name(declared: &str, operator: OperatorId) -> String {
    format!("{declared}/{operator}")
}

impl Marker {
    /// The marker of staged files, which are all of one attempt.
    pub(crate) fn of(epoch: Epoch, files: &[StagedFile]) -> Marker {
        let generation = files.iter().map(|file| file.generation).max().unwrap_or_default();
        let mut digest = 0;
        for file in files {
            let text = format!("{} {} {} {} {:08x}\n", file.name, file.nonce, file.size, file.rows, file.crc32c);
            digest = crc32c::crc32c_append(digest, text.as_bytes());
        }
        Marker { epoch, generation, digest: format!("{digest:08x}") }
    }
}

/// Decides about an epoch, given the markers that are kept, newest epoch first.
///
/// Epochs of a job are published in order, and later ones are staged by the same attempt or a later one. A job that is
/// started anew counts epochs from one again, and attempts on. So an epoch that is not behind the newest marker is new only
/// if its attempt is.
///
/// # Errors
/// Where the epoch is of an older attempt than what is written: another job of the same name has gone on here.
pub(crate) fn decide(epoch: &Marker, kept: &[Marker], job: &JobId, place: &str) -> Result<Decision, ConnectorError> {
    if kept.contains(epoch) {
        return Ok(Decision::Skip);
    }
    let Some(newest) = kept.first() else { return Ok(Decision::Write) };
    if epoch.epoch > newest.epoch && epoch.generation >= newest.generation {
        return Ok(Decision::Write);
    }
    if epoch.generation > newest.generation {
        return Ok(Decision::WriteAnew);
    }
    let message = format!(
        "epoch {} of attempt {} of job '{job}' is refused, because {place} says that epoch {} of attempt {} is written: a \
         newer run of the job writes here, or an earlier job of the same name has, whose state is gone; choose another job \
         name, or delete what {place} holds of that job if it is gone for good",
        epoch.epoch, epoch.generation, newest.epoch, newest.generation
    );
    Err(ConnectorError::new(ErrorKind::External, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(epoch: u64, generation: u64, digest: &str) -> Marker {
        Marker { epoch: Epoch(epoch), generation: Generation(generation), digest: digest.to_owned() }
    }

    #[test]
    fn an_epoch_is_written_once_by_the_newest_job() {
        let job = JobId::new("j").unwrap();
        let kept = [marker(7, 3, "c"), marker(5, 3, "b"), marker(4, 1, "a")];
        let decide = |epoch: Marker, kept: &[Marker]| decide(&epoch, kept, &job, "t").ok();
        assert_eq!(decide(marker(1, 1, "x"), &[]), Some(Decision::Write));
        assert_eq!(decide(marker(8, 3, "d"), &kept), Some(Decision::Write));
        assert_eq!(decide(marker(8, 4, "d"), &kept), Some(Decision::Write));
        for written in &kept {
            assert_eq!(decide(written.clone(), &kept), Some(Decision::Skip));
        }
        assert_eq!(decide(marker(2, 4, "x"), &kept), Some(Decision::WriteAnew), "started anew");
        assert_eq!(decide(marker(7, 4, "x"), &kept), Some(Decision::WriteAnew));
        for refused in [marker(8, 2, "x"), marker(7, 3, "x"), marker(6, 3, "x"), marker(1, 1, "x")] {
            assert_eq!(decide(refused.clone(), &kept), None, "{refused:?}");
        }
    }
}
