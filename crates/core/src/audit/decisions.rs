//! What becomes a record of the audit trail: the decisions of a command, and those of a record of a job's metadata log. What
//! belongs to the inside of an epoch (barriers, who reads which split) does not; that is in the job's own log.

use std::collections::BTreeSet;

use super::{Event, What};
use crate::checkpoint::End;
use crate::cluster::messages::WorkerId;
use crate::cluster::proposal::Note;
use crate::cluster::state::{ClusterState, Command, JobEntry, Wish};
use crate::ids::{Epoch, Generation, JobId};
use crate::job_record::{
    DeployedAttempt, EpochRecord, JobEnd, JobRecord, Record, SavepointOutcome, SavepointRecord, SavepointRequest,
};

/// What a command decides, where it is taken; `state` is as it was before. What changes nothing is no decision.
#[must_use]
pub fn of_command(state: &ClusterState, command: &Command) -> Vec<Event> {
    match command {
        Command::Submit { job, submission } => {
            let again = state.jobs.get(job).map(|entry| entry.submissions + 1);
            let event = Event::new(What::JobSubmitted, Some(job))
                .fact("parallelism", submission.parallelism)
                .fact("key-groups", submission.key_groups)
                .fact("query", &submission.sql_hash)
                .fact("submission", again.unwrap_or(1));
            let reason = match (&submission.restore, again) {
                (_, Some(_)) => "it goes on from where it was".to_owned(),
                (Some(from), None) => format!("a new job, which begins with savepoint {}", from.path),
                (None, None) => "a new job".to_owned(),
            };
            vec![event.because(reason)]
        }
        Command::Wish { job, wish } => {
            state.jobs.get(job).and_then(|entry| wished(job, entry.wish, *wish)).into_iter().collect()
        }
        Command::Rescale { job, parallelism } => {
            let before = state.jobs.get(job).map_or(0, |entry| entry.submission.parallelism);
            let event = Event::new(What::RescaleAsked, Some(job)).fact("from", before).fact("to", parallelism);
            let event = event.because("a user wants another parallelism");
            Some(event).filter(|_| before != *parallelism).into_iter().collect()
        }
        Command::Savepoint { job, request } => {
            let is_known = state.jobs.get(job).is_some_and(|entry| knows_savepoint(entry, request));
            let event = Event::new(What::SavepointAsked, Some(job))
                .fact("savepoint", request.id.as_str())
                .fact("directory", &request.directory);
            let reason = if request.stop { "a user wants it, and the job to end with it" } else { "a user wants it" };
            Some(event.because(reason)).filter(|_| !is_known).into_iter().collect()
        }
        Command::Remove { job } => vec![forgotten(job, "a user wants it forgotten")],
        Command::Removed { job } => {
            let is_known = state.removed.contains_key(job);
            let event = Event::new(What::CheckpointsDeleted, Some(job)).because("the job is known no more");
            Some(event).filter(|_| is_known).into_iter().collect()
        }
        Command::Settle => Vec::new(),
        Command::Record { job, record } => {
            let wish = state.jobs.get(job).map_or(Wish::Run, |entry| entry.wish);
            of_record(job, record, wish)
        }
        Command::Notes { notes } => of_notes(state, notes),
    }
}

/// What a record of a job's log decides; `wish` is what the user wants of the job.
#[must_use]
pub fn of_record(job: &JobId, record: &Record, wish: Wish) -> Vec<Event> {
    let event = |what: What, generation: &Generation| Event::new(what, Some(job)).fact("attempt", generation);
    let single = match record {
        Record::JobCreated(created) => Event::new(What::JobCreated, Some(job))
            .fact("query", &created.sql_hash)
            .fact("key-groups", created.key_groups)
            .because("it is about to begin for the first time"),
        Record::JobRestored(restored) => Event::new(What::JobRestored, Some(job))
            .fact("savepoint", restored.from.id.as_str())
            .fact("epoch", restored.from.epoch)
            .fact("of-job", &restored.from.job)
            .because(format!("it was handed in to begin with savepoint {}", restored.from.path)),
        Record::GenerationStarted { generation, restored_from, reason, .. } => {
            event(What::AttemptStarted, generation).fact("from-epoch", restored_from).because(reason)
        }
        Record::AttemptDeployed(deployed) => deployment(job, deployed),
        Record::AttemptAdopted { generation, .. } => event(What::AttemptAdopted, generation)
            .because("another coordinator leads; every worker of the attempt has come to it and runs its part"),
        Record::EpochComplete(epoch) => completion(job, epoch),
        Record::EpochCommitted { generation, epoch } => {
            event(What::OutputPublished, generation).fact("epoch", epoch).because("its checkpoint is complete")
        }
        Record::EpochsRetired { generation, epochs } => event(What::CheckpointsRetired, generation)
            .fact("epochs", epochs.iter().map(Epoch::to_string).collect::<Vec<_>>().join(","))
            .because("newer checkpoints take their place"),
        Record::Savepoint { generation, savepoint, end, .. } => {
            let outcome = savepoint_outcome(job, *generation, savepoint);
            let end = end.as_ref().map(|end| ended(job, *generation, end, wish));
            return std::iter::once(outcome).chain(end).collect();
        }
        Record::Ended { generation, end, .. } => ended(job, *generation, end, wish),
        Record::SplitsDiscovered { .. } | Record::Decided { .. } | Record::Snapshot(_) => return Vec::new(),
    };
    vec![single]
}

/// A job is known no more.
#[must_use]
pub fn forgotten(job: &JobId, reason: &str) -> Event {
    Event::new(What::JobForgotten, Some(job)).because(reason)
}

/// One process takes up a job, as its log has it. What stood in the log and had no record yet when an earlier process died is
/// declared by this.
#[must_use]
pub fn run_began(job: &JobId, log: &JobRecord) -> Event {
    let event = Event::new(What::RunBegan, Some(job))
        .fact("attempts", log.generation)
        .fact("complete", log.newest())
        .fact("published", log.committed);
    let reason = match (&log.created, &log.end) {
        (None, _) => "the job has no log yet: it begins anew".to_owned(),
        (Some(_), None) => "the process before did not end the job in order".to_owned(),
        (Some(_), Some(end)) => format!("the job was {} before", end_name(end)),
    };
    event.because(reason)
}

/// As [`ClusterState::apply_command`] does it: a cancel is stronger than a stop, and neither is taken back.
fn wished(job: &JobId, known: Wish, wish: Wish) -> Option<Event> {
    let (what, reason) = match (known, wish) {
        (Wish::Run | Wish::Stop, Wish::Cancel) => (What::CancelAsked, "a user wants it to stop at once"),
        (Wish::Run, Wish::Stop) => (What::StopAsked, "a user wants it to take a last checkpoint and stop"),
        _ => return None,
    };
    Some(Event::new(what, Some(job)).because(reason))
}

fn knows_savepoint(entry: &JobEntry, request: &SavepointRequest) -> bool {
    let outcomes = entry.record.savepoints.iter().map(|outcome| &outcome.id);
    outcomes.chain(entry.savepoint.as_ref().map(|wanted| &wanted.id)).any(|id| *id == request.id)
}

fn of_notes(state: &ClusterState, notes: &[Note]) -> Vec<Event> {
    // As it will be, note by note.
    let mut workers: BTreeSet<WorkerId> = state.audit.workers.clone();
    let mut events = Vec::new();
    for note in notes {
        let event = match note {
            Note::WorkerJoined { worker, address, slots } => {
                let event = Event::new(What::WorkerJoined, None)
                    .fact("worker", worker)
                    .fact("address", address)
                    .fact("slots", slots)
                    .because("it has come to the coordinator that leads");
                workers.insert(worker.clone()).then_some(event)
            }
            Note::WorkerLost { worker, reason } => {
                let event = Event::new(What::WorkerLost, None).fact("worker", worker).because(reason);
                workers.remove(worker).then_some(event)
            }
            Note::Members { members } => {
                let is_news = !state.audit.knows_members();
                events.extend(members.iter().filter(|_| is_news).map(|(id, address)| {
                    Event::new(What::MemberAdded, None)
                        .fact("coordinator", id)
                        .fact("address", address)
                        .because("it is among the first members that this trail knows of")
                }));
                None
            }
            Note::WorkerDrained { worker } => Some(
                Event::new(What::WorkerDrained, None)
                    .fact("worker", worker)
                    .because("a user wants it to run nothing any more"),
            ),
            Note::MemberAddAsked { node, address } => Some(
                Event::new(What::MemberAddAsked, None)
                    .fact("coordinator", node)
                    .fact("address", address)
                    .because("a user wants it to be a member"),
            ),
            Note::MemberRemoveAsked { node } => Some(
                Event::new(What::MemberRemoveAsked, None)
                    .fact("coordinator", node)
                    .because("a user wants it to be no member any more"),
            ),
        };
        events.extend(event);
    }
    events
}

fn deployment(job: &JobId, deployed: &DeployedAttempt) -> Event {
    let workers: BTreeSet<&str> = deployed.slots.iter().map(|slot| slot.worker.0.as_str()).collect();
    Event::new(What::AttemptDeployed, Some(job))
        .fact("attempt", deployed.generation)
        .fact("parallelism", deployed.parallelism)
        .fact("workers", workers.into_iter().collect::<Vec<_>>().join(","))
        .because("every worker runs its part")
}

fn completion(job: &JobId, epoch: &EpochRecord) -> Event {
    let event = Event::new(What::CheckpointCompleted, Some(job))
        .fact("attempt", epoch.generation)
        .fact("epoch", epoch.epoch)
        .fact("state-bytes", epoch.state_bytes)
        .fact("unaligned", epoch.unaligned);
    event.because(match epoch.end {
        None => "the parts of all subtasks and the manifest are durable",
        Some(End::InputEnd) => "the last one, since all input is read; all parts and the manifest are durable",
        Some(End::Stop) => "the last one before the job stops; all parts and the manifest are durable",
    })
}

fn savepoint_outcome(job: &JobId, generation: Generation, savepoint: &SavepointRecord) -> Event {
    let event = |what| Event::new(what, Some(job)).fact("attempt", generation).fact("savepoint", savepoint.id.as_str());
    match &savepoint.outcome {
        SavepointOutcome::Taken { path, epoch, files, bytes } => event(What::SavepointTaken)
            .fact("epoch", epoch)
            .fact("files", files)
            .fact("bytes", bytes)
            .fact("path", path)
            .because("it was asked for, and its output is visible"),
        SavepointOutcome::Failed { reason } => event(What::SavepointFailed).because(reason),
    }
}

fn ended(job: &JobId, generation: Generation, end: &JobEnd, wish: Wish) -> Event {
    let event = Event::new(What::JobEnded, Some(job)).fact("attempt", generation).fact("as", end_name(end));
    event.because(match (end, wish) {
        (JobEnd::Finished, _) => "all input is read and all output visible",
        (JobEnd::Stopped, Wish::Cancel) => "a user wanted it to stop at once",
        (JobEnd::Stopped, Wish::Run | Wish::Stop) => "a user wanted it to stop",
        (JobEnd::Failed { reason }, _) => reason.as_str(),
    })
}

fn end_name(end: &JobEnd) -> &'static str {
    match end {
        JobEnd::Finished => "finished",
        JobEnd::Stopped => "stopped",
        JobEnd::Failed { .. } => "failed",
    }
}
