//! Names of the sink's files, and what the checkpoint says about each file. Called by the writer and by the
//! committer; the only place that makes or reads such names.

use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::sink::WriterContext;

/// Directory of files that are not yet visible, within the sink's. Readers pass over names that begin with a dot.
pub(super) const TEMPORARY_DIRECTORY: &str = ".mainstem-tmp";
const TEMPORARY_EXTENSION: &str = ".tmp";

/// A closed, durable file that waits to be published: the payload of a committable. Paths are relative to the
/// sink's directory, with `/` between parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingFile {
    /// Where it lies.
    pub(super) temporary: String,
    /// Where it belongs.
    pub(super) path: String,
    /// Size in bytes.
    pub(super) size: u64,
    pub(super) rows: u64,
    /// CRC-32C of the whole file.
    pub(super) crc32c: u32,
}

impl PendingFile {
    pub(super) fn to_committable(&self) -> Committable {
        Committable { payload: serde_json::to_string(self).expect("names and numbers have a JSON form") }
    }

    /// Reads a committable back. One that names something outside of the sink's directory is refused.
    pub(super) fn of_committable(committable: &Committable) -> Result<PendingFile, ConnectorError> {
        let file: Option<PendingFile> = serde_json::from_str(&committable.payload).ok();
        let inside = |path: &str| path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        file.filter(|f| inside(&f.temporary) && inside(&f.path)).ok_or_else(|| {
            let payload = &committable.payload;
            ConnectorError::data(format!(
                "the checkpoint describes a file of a filesystem sink as '{payload}', which this version cannot read"
            ))
        })
    }
}

/// Name of the `number`-th temporary file of a writer, relative to the sink's directory. The epoch is not part
/// of it, since a file is begun before its epoch has a number.
pub(super) fn temporary(ctx: &WriterContext, number: u64) -> String {
    let prefix = attempt_prefix(&ctx.job, ctx.operator);
    format!("{TEMPORARY_DIRECTORY}/{prefix}{}-{}-{number}{TEMPORARY_EXTENSION}", ctx.generation, ctx.subtask)
}

/// Name of the `number`-th file of an epoch, relative to its partition's directory.
pub(super) fn published(ctx: &WriterContext, epoch: Epoch, number: u64, extension: &str) -> String {
    let prefix = attempt_prefix(&ctx.job, ctx.operator);
    format!("part-{prefix}{}-{}-{epoch}-{number}{extension}", ctx.generation, ctx.subtask)
}

/// The attempt that a temporary file of this job and operator belongs to; `None` for all other names.
pub(super) fn generation_of(file_name: &str, job: &JobId, operator: OperatorId) -> Option<Generation> {
    let numbers = file_name.strip_prefix(&attempt_prefix(job, operator))?.strip_suffix(TEMPORARY_EXTENSION)?;
    let mut numbers = numbers.split('-');
    let mut number = || numbers.next().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse::<u64>().ok();
    let (generation, _subtask, _number) = (number()?, number()?, number()?);
    // More parts: the name of another job that only begins like this one.
    numbers.next().is_none().then_some(Generation(generation))
}

/// The epoch that a visible file of this job and operator belongs to; `None` for all other names.
pub(super) fn epoch_of(file_name: &str, job: &JobId, operator: OperatorId) -> Option<Epoch> {
    let numbers = file_name.strip_prefix("part-")?.strip_prefix(&attempt_prefix(job, operator))?;
    let mut numbers = numbers.split('.').next()?.split('-');
    let mut number = || numbers.next().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse::<u64>().ok();
    let (_generation, _subtask, epoch, _number) = (number()?, number()?, number()?, number()?);
    numbers.next().is_none().then_some(Epoch(epoch))
}

fn attempt_prefix(job: &JobId, operator: OperatorId) -> String {
    format!("{job}-{operator}-g")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_jobs_apart() {
        let job = JobId::new("a").unwrap();
        let ctx = WriterContext {
            job: job.clone(),
            operator: OperatorId(3),
            subtask: 1,
            generation: Generation(2),
            working_dir: "/".into(),
            changes: mainstem_core::change::ChangeMode::Append,
            staging: crate::staging::Staging::nowhere(),
        };
        assert_eq!(temporary(&ctx, 7), ".mainstem-tmp/a-op3-g2-1-7.tmp");
        assert_eq!(published(&ctx, Epoch(5), 0, ".json.gz"), "part-a-op3-g2-1-5-0.json.gz");
        assert_eq!(generation_of("a-op3-g2-1-7.tmp", &job, OperatorId(3)), Some(Generation(2)));
        for foreign in [
            "a-op33-g2-1-7.tmp",
            "b-op3-g2-1-7.tmp",
            "a-op3-g2-1-7",
            "a-op3-g2-1.tmp",
            "a-op3-g2-1-7-op3-g1-0-0.tmp",
            "a-op3-g-1-7.tmp",
        ] {
            assert_eq!(generation_of(foreign, &job, OperatorId(3)), None, "{foreign}");
        }
        assert_eq!(epoch_of("part-a-op3-g2-1-5-0.json.gz", &job, OperatorId(3)), Some(Epoch(5)));
        for foreign in
            ["part-b-op3-g2-1-5-0.json", "part-a-op33-g2-1-5-0.json", "part-a-op3-g2-1-5.json", "a-op3-g2-1-7.tmp"]
        {
            assert_eq!(epoch_of(foreign, &job, OperatorId(3)), None, "{foreign}");
        }
        let escaping =
            Committable { payload: r#"{"temporary":"a","path":"../b","size":1,"rows":1,"crc32c":1}"#.to_owned() };
        assert!(PendingFile::of_committable(&escaping).is_err());
    }
}
