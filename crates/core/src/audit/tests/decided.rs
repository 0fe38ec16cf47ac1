//! What a cluster decides, and what the trail says of it.

use std::collections::BTreeMap;

use super::*;
use crate::checkpoint::CheckpointOptions;
use crate::cluster::messages::{WorkerId, WorkerOffer};
use crate::cluster::proposal::{Note, Proposal, Stamp};
use crate::cluster::state::{Answer, ClusterState, Command, Submission, Wish};
use crate::ids::{Epoch, SavepointId};
use crate::job_record::{
    DeployedAttempt, EpochRecord, JobCreated, JobEnd, JobRecord, Record, SavepointOutcome, SavepointRecord,
    SavepointRequest,
};
use crate::protocol::ManifestRef;

/// A cluster, the time, and who leads it.
struct Cluster {
    state: ClusterState,
    now: i64,
    node: u64,
    term: u64,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { state: ClusterState::default(), now: 100, node: 1, term: 1 }
    }

    fn propose(&mut self, user: Option<&str>, command: Command) -> Answer {
        self.now += 1;
        let stamp = Stamp { at: Timestamp(self.now), node: self.node, term: self.term, user: user.map(str::to_owned) };
        self.state.apply(Proposal { stamp, command })
    }

    fn user(&mut self, command: Command) -> Answer {
        self.propose(Some("ada at 10.0.0.1:5"), command)
    }

    fn record(&mut self, record: Record) {
        self.propose(None, Command::Record { job: job(), record: Box::new(record) }).unwrap();
    }

    fn note(&mut self, note: Note) {
        self.propose(None, Command::Notes { notes: vec![note] }).unwrap();
    }

    /// Each record since this one, as `what fact=value … (reason)`.
    fn since(&self, seq: u64) -> Vec<String> {
        let line = |record: &AuditRecord| {
            let facts = record.facts.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
            format!("{}{facts} ({})", record.what, record.reason)
        };
        self.state.audit.newest(1_000, |record| record.seq > seq).iter().map(line).collect()
    }

    /// What is new after doing something.
    fn after(&mut self, act: impl FnOnce(&mut Cluster)) -> Vec<String> {
        let seq = self.state.audit.head().seq;
        act(self);
        self.since(seq)
    }
}

fn submit(parallelism: u32) -> Command {
    let submission = Submission {
        graph_json: "{}".to_owned(),
        sql_hash: "h".to_owned(),
        key_groups: 8,
        parallelism,
        options: CheckpointOptions::default(),
        working_dir: "/".to_owned(),
        submitted_at: Timestamp(1),
        restore: None,
    };
    Command::Submit { job: job(), submission: Box::new(submission) }
}

fn started(generation: u64, epoch: u64, reason: &str) -> Record {
    let (generation, restored_from) = (Generation(generation), Epoch(epoch));
    Record::GenerationStarted { generation, restored_from, reason: reason.to_owned(), at: Timestamp(1) }
}

fn complete(epoch: u64, generation: u64) -> Record {
    Record::EpochComplete(EpochRecord {
        epoch: Epoch(epoch),
        generation: Generation(generation),
        manifest: ManifestRef { path: "m".to_owned(), size: 1, crc32c: 2 },
        epoch_now: Timestamp(1),
        next_epoch_now: Timestamp(1),
        sources: BTreeMap::new(),
        committables: BTreeMap::new(),
        end: None,
        state_bytes: 7,
        unaligned: false,
        completed_at: Timestamp(1),
    })
}

fn ended(generation: u64, end: JobEnd) -> Record {
    Record::Ended { generation: Generation(generation), end, at: Timestamp(1), counters: BTreeMap::new() }
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

#[test]
fn the_life_of_a_job_stands_in_the_trail_with_its_reasons() {
    let mut cluster = Cluster::new();
    cluster.user(submit(2)).unwrap();
    cluster.record(started(1, 0, "started"));
    let slot = |name: &str| WorkerOffer { worker: worker(name), data_address: "a:1".into(), slots: 2, draining: false };
    cluster.record(Record::AttemptDeployed(DeployedAttempt {
        generation: Generation(1),
        restored: Epoch(0),
        parallelism: 2,
        first_epoch_now: Timestamp(1),
        replay_until: None,
        slots: vec![slot("w2"), slot("w1"), slot("w2")],
    }));
    cluster.record(complete(1, 1));
    cluster.record(Record::EpochCommitted { generation: Generation(1), epoch: Epoch(1) });
    (cluster.node, cluster.term) = (2, 3);
    cluster.record(Record::AttemptAdopted { generation: Generation(1), at: Timestamp(1) });
    cluster.user(Command::Rescale { job: job(), parallelism: 4 }).unwrap();
    cluster.record(started(2, 1, "parallelism 4 instead of 2"));
    cluster.user(Command::Wish { job: job(), wish: Wish::Cancel }).unwrap();
    cluster.record(ended(2, JobEnd::Stopped));
    cluster.user(Command::Remove { job: job() }).unwrap();
    cluster.propose(None, Command::Removed { job: job() }).unwrap();
    assert_eq!(
        cluster.since(0),
        [
            "leader-changed coordinator=1 term=1 (a majority has elected it; it is the first that this trail knows of)",
            "job-submitted key-groups=8 parallelism=2 query=h submission=1 (a new job)",
            "attempt-started attempt=1 from-epoch=0 (started)",
            "attempt-deployed attempt=1 parallelism=2 workers=w1,w2 (every worker runs its part)",
            "checkpoint-completed attempt=1 epoch=1 state-bytes=7 unaligned=false (the parts of all subtasks and the \
             manifest are durable)",
            "output-published attempt=1 epoch=1 (its checkpoint is complete)",
            "leader-changed coordinator=2 term=3 (a majority has elected it; coordinator 1 led in term 1)",
            "attempt-adopted attempt=1 (another coordinator leads; every worker of the attempt has come to it and runs \
             its part)",
            "rescale-asked from=2 to=4 (a user wants another parallelism)",
            "attempt-started attempt=2 from-epoch=1 (parallelism 4 instead of 2)",
            "cancel-asked (a user wants it to stop at once)",
            "job-ended as=stopped attempt=2 (a user wanted it to stop at once)",
            "job-forgotten (a user wants it forgotten)",
            "checkpoints-deleted (the job is known no more)",
        ]
    );
    let records = cluster.state.audit.newest(1_000, |_| true);
    let (submitted, started) = (&records[1], &records[2]);
    assert_eq!((submitted.by.as_str(), submitted.at), ("ada at 10.0.0.1:5 through coordinator 1", Timestamp(101)));
    assert_eq!((started.by.as_str(), &started.job), ("coordinator 1", &Some(job())));
    for pair in records.windows(2) {
        assert_eq!((pair[1].seq, pair[1].before), (pair[0].seq + 1, pair[0].hash));
    }
}

#[test]
fn what_is_refused_or_changes_nothing_is_no_decision() {
    let mut cluster = Cluster::new();
    cluster.user(submit(2)).unwrap();
    let nothing = cluster.after(|cluster| {
        assert!(cluster.user(submit(2)).is_err());
        assert!(cluster.user(Command::Rescale { job: job(), parallelism: 99 }).is_err());
        assert!(cluster.user(Command::Remove { job: job() }).is_err());
        cluster.user(Command::Rescale { job: job(), parallelism: 2 }).unwrap();
        cluster.user(Command::Wish { job: job(), wish: Wish::Run }).unwrap();
        cluster.propose(None, Command::Removed { job: job() }).unwrap();
        cluster.propose(None, Command::Settle).unwrap();
        cluster.record(started(1, 0, "started"));
    });
    assert_eq!(nothing, ["attempt-started attempt=1 from-epoch=0 (started)"]);
    let older = Command::Record { job: job(), record: Box::new(started(1, 0, "late")) };
    assert_eq!(cluster.after(|cluster| assert!(cluster.propose(None, older).is_err())), [""; 0]);
}

/// The trail and the state decide separately which wish counts: they must agree.
#[test]
fn a_wish_is_a_decision_where_it_changes_what_is_wanted() {
    for known in [Wish::Run, Wish::Stop, Wish::Cancel] {
        for wish in [Wish::Run, Wish::Stop, Wish::Cancel] {
            let mut cluster = Cluster::new();
            cluster.user(submit(2)).unwrap();
            cluster.user(Command::Wish { job: job(), wish: known }).unwrap();
            let said = cluster.after(|cluster| cluster.user(Command::Wish { job: job(), wish }).unwrap());
            let is = cluster.state.jobs[&job()].wish;
            assert_eq!(said.len(), usize::from(is != known), "{known:?}, {wish:?}: {said:?}");
        }
    }
}

#[test]
fn savepoints_are_asked_for_once_and_have_one_outcome() {
    let mut cluster = Cluster::new();
    cluster.user(submit(2)).unwrap();
    cluster.record(started(1, 0, "started"));
    let request = |stop| SavepointRequest { id: SavepointId::of(1), directory: "/s".to_owned(), stop };
    let outcome = |outcome| SavepointRecord { id: SavepointId::of(1), outcome, at: Timestamp(1) };
    let said = cluster.after(|cluster| {
        for _ in 0..2 {
            cluster.user(Command::Savepoint { job: job(), request: request(true) }).unwrap();
        }
        cluster.record(complete(1, 1));
        cluster.record(Record::EpochCommitted { generation: Generation(1), epoch: Epoch(1) });
        let taken = SavepointOutcome::Taken { path: "/s/x".to_owned(), epoch: Epoch(1), files: 2, bytes: 3 };
        let (generation, end, counters) = (Generation(1), Some(JobEnd::Stopped), BTreeMap::new());
        cluster.record(Record::Savepoint { generation, savepoint: outcome(taken), end, counters });
    });
    assert_eq!(
        said[0],
        "savepoint-asked directory=/s savepoint=0000000000000001 (a user wants it, and the job to end with it)"
    );
    assert_eq!(
        said[3..],
        [
            "savepoint-taken attempt=1 bytes=3 epoch=1 files=2 path=/s/x savepoint=0000000000000001 (it was asked for, and its \
         output is visible)",
            "job-ended as=stopped attempt=1 (a user wanted it to stop)",
        ]
    );
    assert_eq!(
        cluster.after(|cluster| {
            cluster.user(submit(2)).unwrap();
            assert!(cluster.user(Command::Savepoint { job: job(), request: request(true) }).is_ok(), "known");
        }),
        ["job-submitted key-groups=8 parallelism=2 query=h submission=2 (it goes on from where it was)"]
    );
}

#[test]
fn a_finished_job_that_makes_room_is_said_to_be_forgotten() {
    let mut cluster = Cluster::new();
    let mut said = Vec::new();
    for number in 0..=100 {
        let name = JobId::new(format!("job{number}")).unwrap();
        let Command::Submit { submission, .. } = submit(1) else { unreachable!() };
        cluster.user(Command::Submit { job: name.clone(), submission }).unwrap();
        let record = Box::new(ended(0, JobEnd::Finished));
        said = cluster.after(|cluster| cluster.propose(None, Command::Record { job: name, record }).unwrap());
    }
    assert_eq!(said[1..], ["job-forgotten (it has finished, as have many jobs after it)"]);
    assert_eq!(cluster.state.audit.newest(1, |_| true)[0].job, Some(JobId::new("job0").unwrap()));
}

#[test]
fn workers_come_and_go_once() {
    let mut cluster = Cluster::new();
    let joined = |name: &str| Note::WorkerJoined { worker: worker(name), address: "a:1".to_owned(), slots: 2 };
    let lost = |name: &str| Note::WorkerLost { worker: worker(name), reason: "it is silent".to_owned() };
    cluster.note(joined("w1"));
    let again = cluster.after(|cluster| {
        cluster.note(joined("w1"));
        cluster.note(lost("w2"));
    });
    assert_eq!(again, [""; 0], "a new leader meets a worker that is known");
    let said = cluster.after(|cluster| {
        let notes =
            vec![joined("w2"), lost("w2"), lost("w1"), joined("w1"), Note::WorkerDrained { worker: worker("w1") }];
        cluster.propose(None, Command::Notes { notes }).unwrap();
    });
    let whats: Vec<&str> = said.iter().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(
        whats,
        [
            "worker-joined address=a:1 slots=2 worker=w2",
            "worker-lost worker=w2",
            "worker-lost worker=w1",
            "worker-joined address=a:1 slots=2 worker=w1",
            "worker-drained worker=w1",
        ]
    );
    assert_eq!(cluster.state.audit.workers().collect::<Vec<_>>(), [&worker("w1")]);
}

#[test]
fn members_are_compared_with_those_of_before() {
    let mut cluster = Cluster::new();
    let members = |ids: &[u64]| ids.iter().map(|id| (*id, format!("host{id}:1"))).collect::<BTreeMap<_, _>>();
    let early = cluster.after(|cluster| cluster.state.on_members(&members(&[1, 2])));
    assert_eq!(early, [""; 0], "another node may have this in a snapshot without a trail");
    cluster.propose(None, Command::Settle).unwrap();
    let first = cluster.after(|cluster| cluster.note(Note::Members { members: members(&[1, 2, 3]) }));
    assert_eq!(first.len(), 3);
    assert_eq!(
        first[2],
        "member-added address=host3:1 coordinator=3 (it is among the first members that this trail knows of)"
    );
    assert_eq!(cluster.after(|cluster| cluster.note(Note::Members { members: members(&[9]) })), [""; 0]);
    let changed = cluster.after(|cluster| {
        cluster.state.on_members(&members(&[1, 2, 3]));
        cluster.state.on_members(&members(&[1, 3, 4]));
    });
    let agreed = "a majority of the old and of the new members has agreed";
    assert_eq!(
        changed,
        [
            format!("member-added address=host4:1 coordinator=4 ({agreed})"),
            format!("member-removed address=host2:1 coordinator=2 ({agreed})"),
        ]
    );
}

/// Raft's log and the snapshot together give the same chain as the log alone.
#[test]
fn the_chain_goes_on_over_a_snapshot_and_one_without_a_trail_begins_it() {
    let mut cluster = Cluster::new();
    cluster.user(submit(2)).unwrap();
    let json = serde_json::to_string(&cluster.state).unwrap();
    let mut installed = Cluster { state: serde_json::from_str(&json).unwrap(), ..Cluster::new() };
    installed.now = cluster.now;
    cluster.record(started(1, 0, "started"));
    installed.record(started(1, 0, "started"));
    assert_eq!(cluster.state, installed.state);
    let mut old: serde_json::Value = serde_json::from_str(&json).unwrap();
    old.as_object_mut().unwrap().remove("audit");
    let mut old: ClusterState = serde_json::from_value(old).unwrap();
    old.apply(Proposal { stamp: Stamp::unknown(), command: Command::Wish { job: job(), wish: Wish::Stop } }).unwrap();
    assert_eq!((old.audit.head().seq, old.jobs[&job()].wish), (0, Wish::Stop), "what an older release decided");
}

#[test]
fn one_process_says_from_where_it_goes_on() {
    let said = |log: &JobRecord| {
        let mut trail = Trail::default();
        trail.add(Timestamp(1), "this process", decisions::run_began(&job(), log));
        let record = trail.newest(1, |_| true).remove(0);
        format!("{:?} {}", record.facts.values().collect::<Vec<_>>(), record.reason)
    };
    let mut log = JobRecord::default();
    assert_eq!(said(&log), r#"["0", "0", "0"] the job has no log yet: it begins anew"#);
    let (graph_json, sql_hash) = ("{}".to_owned(), "h".to_owned());
    log.apply(Record::JobCreated(JobCreated { graph_json, sql_hash, key_groups: 8, created_at: Timestamp(1) }));
    log.apply(started(3, 0, "x"));
    log.apply(complete(1, 3));
    assert_eq!(said(&log), r#"["3", "1", "0"] the process before did not end the job in order"#);
    log.apply(ended(3, JobEnd::Stopped));
    assert_eq!(said(&log), r#"["3", "1", "0"] the job was stopped before"#);
}
