//! What goes wrong in a run. Every run leaves some kinds of faults out, so that the others are seen alone too.

use std::time::Duration;

use super::plan::Plan;
use super::random::Random;
use super::world::World;
use crate::checkpoint::CheckpointOptions;
use crate::cluster::state::{Command, Submission, Wish};
use crate::ids::{Epoch, JobId};
use crate::job_record::JobEnd;
use crate::retry::RetryPolicy;
use crate::time::Timestamp;

use super::plan::KEY_GROUPS;

pub(super) struct Faults {
    workers: bool,
    coordinators: bool,
    pub(super) elections: bool,
    cuts: bool,
    stalls: bool,
    /// Writes that seem to fail, and damaged checkpoints.
    pub(super) store: bool,
    pub(super) duplicates: bool,
    clocks: bool,
    /// The user stops, cancels and rescales.
    user: bool,
    options: CheckpointOptions,
}

impl Faults {
    pub(super) fn new(random: &mut Random) -> Faults {
        let restart = RetryPolicy { first_delay_ms: 5, delay_ms_max: 60, retries_max: 8, quiet_ms: 3_000 };
        let options = CheckpointOptions {
            interval_ms: 1 + random.below(30) as i64,
            min_pause_ms: random.below(10) as i64,
            timeout_ms: 1_500,
            in_flight_max: 1 + random.below(3) as u32,
            retained: 1 + random.below(3) as u32,
            restart,
            ..CheckpointOptions::default()
        };
        let mut on = || !random.one_in(3);
        Faults {
            workers: on(),
            coordinators: on(),
            elections: on(),
            cuts: on(),
            stalls: on(),
            store: on(),
            duplicates: on(),
            clocks: on(),
            user: on(),
            options,
        }
    }

    pub(super) fn plan(&self, random: &mut Random) -> Plan {
        let idle = random.one_in(2).then_some(Duration::from_millis(100));
        let splits = 1 + random.below(4).min(random.below(4)) as u8;
        Plan { splits, rows: 6 + random.below(14) as u8, idle }
    }
}

impl World {
    pub(super) fn fault_turn(&mut self) {
        if self.random.one_in(30) {
            self.mend_something();
        }
        if !self.random.one_in(50) {
            return;
        }
        let at = self.random.below(3);
        let other = (at + 1 + self.random.below(2)) % 3;
        match self.random.below(12) {
            0 | 1 if self.faults.workers => self.crash_worker(at),
            2 if self.faults.coordinators => self.crash_coordinator(at),
            3 if self.faults.elections => {
                self.say(|| format!("c{at} wants to lead"));
                self.raft.elect(at);
            }
            5 if self.faults.cuts => self.raft.cut(at, other, true),
            6 if self.faults.cuts => {
                // The leader alone, and some worker that loses its connection.
                let leader = (0..3).find(|member| self.raft.claims(*member)).unwrap_or(at);
                (0..3).filter(|member| *member != leader).for_each(|member| self.raft.cut(leader, member, true));
                self.workers[other].session = None;
            }
            7 if self.faults.cuts => self.cut_off[at] = true,
            8 if self.faults.cuts => _ = self.data_cuts.insert((at.min(other), at.max(other))),
            9 if self.faults.stalls => {
                let until = self.now + self.random.below(900) as i64;
                if self.random.one_in(2) {
                    self.workers[at].stalled_until = until;
                } else {
                    self.coordinators[at].stalled_until = until;
                }
            }
            10 if self.faults.clocks => {
                self.coordinators[at].skew_ms = self.random.below(4_000) as i64 - 2_000;
            }
            11 if self.faults.store => self.damage(),
            _ => {}
        }
    }

    /// Something that is down comes up, or a cut ends.
    fn mend_something(&mut self) {
        let at = self.random.below(3);
        match self.random.below(5) {
            0 => self.workers[at].up = true,
            1 => self.raft.members[at].up = true,
            2 => self.raft.cut(at, (at + 1) % 3, false),
            3 => self.cut_off[at] = false,
            _ => _ = self.data_cuts.pop_first(),
        }
    }

    /// No more faults: everything is up again and reaches everything.
    pub(super) fn heal(&mut self) {
        self.say(|| "no more faults".to_owned());
        for at in 0..3 {
            // Others come for those that were drained.
            if self.workers[at].draining {
                self.crash_worker(at);
            }
            self.workers[at].up = true;
            self.workers[at].stalled_until = 0;
            self.raft.members[at].up = true;
            self.coordinators[at].stalled_until = 0;
            self.cut_off[at] = false;
            (0..3).for_each(|other| self.raft.cut(at, other, false));
        }
        self.data_cuts.clear();
        self.faults.store = false;
        self.faults.user = false;
    }

    fn crash_worker(&mut self, at: usize) {
        self.say(|| format!("w{at} dies"));
        self.saw("a worker died");
        let unwritten = self.workers[at].crash();
        unwritten.into_iter().for_each(|effect| self.leave_behind(effect));
    }

    fn crash_coordinator(&mut self, at: usize) {
        self.say(|| format!("c{at} dies"));
        self.saw("a coordinator died");
        self.stand_down(at);
        self.raft.crash(at);
        self.coordinators[at].boot += 1;
    }

    /// The newest checkpoint of some job becomes unreadable, where one before it can still be read.
    fn damage(&mut self) {
        let Some(entry) = self.judge.state.jobs.values().next() else { return };
        if self.faults.options.retained < 2 {
            return;
        }
        let newest = entry.record.epochs.iter().rev();
        let mut newest = newest.map(|(epoch, record)| (*epoch, record.manifest.path.clone()));
        let Some((epoch, path)) = newest.next() else { return };
        let fallback = newest.next().map_or(epoch == Epoch(1), |(_, before)| self.store.manifest(&before).is_some());
        if fallback {
            self.say(|| format!("damages {path}"));
            self.saw("a checkpoint was damaged");
            self.store.damaged.insert(path);
        }
    }

    /// A user wants something.
    pub(super) fn user_turn(&mut self) {
        let at = self.random.below(self.coordinators.len());
        if self.raft.leads(at).is_none() {
            return;
        }
        let jobs: Vec<JobId> = self.plans.keys().cloned().collect();
        let job = jobs[self.random.below(jobs.len())].clone();
        let entry = self.raft.members[at].state.jobs.get(&job);
        let is_active = entry.is_some_and(|entry| entry.active);
        // Some ask for what has finished, and must be refused.
        let finished = entry.is_some_and(|entry| entry.record.end == Some(JobEnd::Finished));
        if finished && !self.faults.user {
            return;
        }
        if self.faults.user && self.random.one_in(60) {
            let worker = self.random.below(3);
            return self.drain(at, worker);
        }
        let parallelism = 1 + self.random.below(3) as u32;
        let command = match self.random.below(50) {
            _ if !is_active => Command::Submit { job, submission: Box::new(self.submission(parallelism)) },
            0..=3 | 6 if self.faults.user => Command::Rescale { job, parallelism },
            4 if self.faults.user => Command::Wish { job, wish: Wish::Stop },
            5 if self.faults.user => Command::Wish { job, wish: Wish::Cancel },
            _ => return,
        };
        self.say(|| format!("a user asks c{at} for {command:?}"));
        // Whatever comes of it: the user looks, and asks again.
        self.raft.propose(at, command);
    }

    fn submission(&self, parallelism: u32) -> Submission {
        Submission {
            graph_json: String::new(),
            sql_hash: "query".to_owned(),
            key_groups: KEY_GROUPS,
            parallelism,
            options: self.faults.options.clone(),
            working_dir: String::new(),
            submitted_at: Timestamp(self.now),
            restore: None,
        }
    }
}
