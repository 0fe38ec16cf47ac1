//! Bounds on the jobs that are known. A job that has finished is of no more use than to be looked at; one that was
//! stopped or has failed holds state that somebody may want, so it goes only when its user says so.

use super::state::ClusterState;
use crate::ids::JobId;
use crate::job_record::JobEnd;

/// Jobs that have finished and are still known.
pub(super) const FINISHED_MAX: usize = 100;
/// All jobs. Beyond it no new one is taken.
pub(super) const JOBS_MAX: usize = 1_000;

/// Lets the jobs that finished first go, where there are too many.
pub(super) fn forget_finished(state: &mut ClusterState) {
    let finished = state.jobs.iter().filter(|(_, entry)| !entry.active && entry.record.end == Some(JobEnd::Finished));
    let mut finished: Vec<(u64, JobId)> = finished.map(|(job, entry)| (entry.ended, job.clone())).collect();
    finished.sort_unstable();
    let surplus = finished.len().saturating_sub(FINISHED_MAX);
    for (_, job) in finished.drain(..surplus) {
        state.forget(&job);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::state::{Answer, Command, Submission};
    use super::*;
    use crate::checkpoint::CheckpointOptions;
    use crate::ids::Generation;
    use crate::job_record::Record;
    use crate::time::Timestamp;

    fn submit(state: &mut ClusterState, job: &JobId) -> Answer {
        let submission = Submission {
            graph_json: "{}".to_owned(),
            sql_hash: "h".to_owned(),
            key_groups: 8,
            parallelism: 1,
            options: CheckpointOptions::default(),
            working_dir: "/".to_owned(),
            submitted_at: Timestamp(1),
            restore: None,
        };
        state.apply_command(Command::Submit { job: job.clone(), submission: Box::new(submission) })
    }

    fn end(state: &mut ClusterState, job: &JobId, end: JobEnd) {
        let record = Record::Ended { generation: Generation(0), end, at: Timestamp(1), counters: BTreeMap::new() };
        state.apply_command(Command::Record { job: job.clone(), record: Box::new(record) }).unwrap();
    }

    fn name(number: usize) -> JobId {
        // Not in the order in which they end.
        JobId::new(format!("job{}", (number * 7_919) % 10_007)).unwrap()
    }

    #[test]
    fn the_newest_finished_jobs_are_known_and_all_that_hold_state() {
        let mut state = ClusterState::default();
        let stopped = name(5_000);
        submit(&mut state, &stopped).unwrap();
        end(&mut state, &stopped, JobEnd::Stopped);
        for number in 0..FINISHED_MAX + 20 {
            submit(&mut state, &name(number)).unwrap();
            end(&mut state, &name(number), JobEnd::Finished);
        }
        assert_eq!((state.jobs.len(), state.removed.len()), (FINISHED_MAX + 1, 20));
        assert!(state.jobs.contains_key(&stopped));
        for number in 0..20 {
            assert!(state.removed.contains_key(&name(number)));
        }
    }

    #[test]
    fn there_is_a_limit_and_it_says_what_to_do() {
        let mut state = ClusterState::default();
        for number in 0..JOBS_MAX {
            submit(&mut state, &name(number)).unwrap();
            end(&mut state, &name(number), JobEnd::Stopped);
        }
        assert!(submit(&mut state, &name(JOBS_MAX)).unwrap_err().contains("mainstem remove"));
        state.apply_command(Command::Remove { job: name(3) }).unwrap();
        submit(&mut state, &name(JOBS_MAX)).unwrap();
    }
}
