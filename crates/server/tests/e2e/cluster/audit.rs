//! The audit trail of a cluster whose processes die: what was decided, in order and with its reason; the same from whoever
//! leads and in everybody's files; and no change of a file goes unseen.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::support::cluster::Jobs;

const EVENTS: u64 = 4_000_000;
const PER_SECOND: u64 = 30_000;

/// What a record says: what was decided, some facts, and a part of the reason.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// A record, or a line of a file with one.
struct Decision(Value);

impl Decision {
    fn is(&self, what: &str, facts: &[(&str, &str)], reason: &str) -> bool {
        let has = |(name, value): &(&str, &str)| {
            self.0["facts"][*name]
                .as_str()
                .is_some_and(|found| found == *value || found.starts_with(&format!("{value}@")))
        };
        self.0["what"] == what && facts.iter().all(has) && self.0["reason"].as_str().unwrap().contains(reason)
    }

    fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap()
    }

    fn hash(&self) -> &str {
        self.0["hash"].as_str().unwrap()
    }
}

/// What whoever leads says, and the number of the last decision.
fn decisions(cluster: &LocalCluster<'_>, arguments: &[&str]) -> (Vec<Decision>, u64) {
    let begun = Instant::now();
    loop {
        let text = cluster.command_ok(&[&["audit", "--json", "--limit", "2000"], arguments].concat());
        let view: Value = serde_json::from_str(&text).unwrap();
        if view["leads"] == true {
            let records = view["records"].as_array().unwrap().iter().cloned().map(Decision).collect();
            return (records, view["head"]["seq"].as_u64().unwrap());
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "nobody leads: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn files(sandbox: &Sandbox, directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sandbox.path(directory)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The records in the files of a directory; a line that is being written is none yet.
fn written(sandbox: &Sandbox, directory: &str) -> Vec<Decision> {
    let contents = files(sandbox, directory).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
    let lines: Vec<String> = contents.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let record = |line: &String| Some(Decision(serde_json::from_str::<Value>(line).ok()?.get("record")?.clone()));
    lines.iter().filter_map(record).collect()
}

fn verify(sandbox: &Sandbox, files: &[PathBuf]) -> std::process::Output {
    let files = files.iter().map(|path| path.to_str().unwrap());
    sandbox.run(&["audit", "verify"].into_iter().chain(files).collect::<Vec<_>>())
}

/// Waits until an attempt above this one runs, or as high; gives its number.
fn attempt(cluster: &LocalCluster<'_>, least: u64) -> u64 {
    let runs = |jobs: &Jobs| {
        jobs.number("job", "generation") >= least
            && jobs
                .job("job")
                .is_some_and(|job| job["status"]["state"] == "running" && job["status"]["waiting"].is_null())
    };
    cluster.wait_until("the attempt runs", runs).number("job", "generation")
}

/// Waits until something is published in a state of the cluster.
fn publishes(cluster: &LocalCluster<'_>) {
    let before = cluster.wait_until("somebody leads", |jobs| jobs.leads()).number("job", "committed");
    cluster.wait_until("it goes on", |jobs| jobs.leads() && jobs.number("job", "committed") > before + 1);
}

#[test]
fn cluster_decisions_stand_in_the_audit_trail() {
    let sandbox = Sandbox::new(&windows(EVENTS, PER_SECOND, true, "none"));
    let cluster = LocalCluster::start(&sandbox, 3, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    let first = attempt(&cluster, 1);
    cluster.signal("worker-2", "KILL");
    let second = attempt(&cluster, first + 1);
    publishes(&cluster);
    let leader = cluster.leader().unwrap();
    cluster.signal(&leader, "KILL");
    publishes(&cluster);
    cluster.command_ok(&["rescale", "job", "-p", "3"]);
    let third = attempt(&cluster, second + 1);
    publishes(&cluster);
    cluster.command_ok(&["cancel", "job"]);

    let (records, _) = decisions(&cluster, &[]);
    let attempts = [first, second, third].map(|attempt| attempt.to_string());
    let [first, second, third] = attempts.each_ref().map(String::as_str);
    let expected: [Expected<'_>; 13] = [
        ("leader-changed", &[], "a majority has elected it"),
        ("job-submitted", &[("parallelism", "4")], "a new job"),
        ("attempt-started", &[("attempt", first), ("from-epoch", "0")], "started"),
        ("attempt-deployed", &[("attempt", first), ("parallelism", "4")], "every worker runs its part"),
        ("attempt-started", &[("attempt", second)], "worker worker-2@"),
        ("attempt-deployed", &[("attempt", second), ("parallelism", "4")], "every worker runs its part"),
        ("leader-changed", &[], " led in term "),
        ("attempt-adopted", &[("attempt", second)], "another coordinator leads"),
        ("rescale-asked", &[("from", "4"), ("to", "3")], "a user wants another parallelism"),
        ("attempt-started", &[("attempt", third)], "parallelism 3 instead of 4"),
        ("attempt-deployed", &[("attempt", third), ("parallelism", "3")], "every worker runs its part"),
        ("cancel-asked", &[], "a user wants it to stop at once"),
        ("job-ended", &[("attempt", third), ("as", "stopped")], "a user wanted it to stop at once"),
    ];
    let all = || records.iter().map(|record| record.0.to_string()).collect::<Vec<_>>().join("\n");
    let mut found = records.iter();
    for (what, facts, reason) in expected {
        let next = found.find(|record| record.is(what, facts, reason));
        assert!(next.is_some(), "{what} {facts:?} '{reason}' is missing in\n{}\n{}", all(), cluster.story());
    }
    // What happens to workers is agreed on beside what follows from it.
    let place = |what: &str, facts: &[(&str, &str)], reason: &str| {
        let place = records.iter().position(|record| record.is(what, facts, reason));
        place.unwrap_or_else(|| panic!("{what} is missing in\n{}", all()))
    };
    let joined = place("worker-joined", &[("worker", "worker-2"), ("slots", "2")], "it has come");
    let deployed = [first, second].map(|attempt| place("attempt-deployed", &[("attempt", attempt)], ""));
    let lost = place("worker-lost", &[("worker", "worker-2")], "is lost: ");
    assert!(joined < deployed[0] && deployed[0] < lost && lost < deployed[1], "{}", all());
    let is_joined = |record: &&Decision| record.is("worker-joined", &[], "");
    let joined: Vec<String> = records.iter().filter(is_joined).map(|record| record.0["facts"].to_string()).collect();
    let different: std::collections::BTreeSet<&String> = joined.iter().collect();
    assert_eq!(joined.len(), different.len(), "a worker that comes to the next leader is no news\n{}", all());
    for record in &records {
        assert!(!record.0["reason"].as_str().unwrap().is_empty(), "{}", record.0);
        assert!(record.0["at"].as_i64().unwrap() > 1_600_000_000_000, "{}", record.0);
        let by = record.0["by"].as_str().unwrap();
        let asked = record.0["what"].as_str().unwrap().ends_with("-asked") || record.0["what"] == "job-submitted";
        assert_eq!(by.contains(" at 127.0.0.1:"), asked, "{}", record.0);
        assert!(by.contains("coordinator "), "{}", record.0);
    }
    let of_job = decisions(&cluster, &["--job", "job", "--routine"]).0;
    assert!(of_job.iter().all(|record| record.0["job"] == "job"));
    assert!(of_job.iter().any(|record| record.is("checkpoint-completed", &[], "")), "routine ones too");
    assert!(of_job.iter().any(|record| record.is("output-published", &[], "")));
    let shown = cluster.command_ok(&["audit", "--job", "job", "--limit", "2"]);
    assert_says(&shown, &[" cancel-asked job=job, by ", " job-ended job=job as=stopped", "chain: "]);
    assert_eq!(shown.lines().count(), 3, "{shown}");

    assert_same_from_everybody(&sandbox, &cluster);
    drop(cluster);
    assert_changes_are_found(&sandbox);
}

/// The same records, with the same hashes, from the next leader and in the files of all.
fn assert_same_from_everybody(sandbox: &Sandbox, cluster: &LocalCluster<'_>) {
    let (before, _) = decisions(cluster, &["--routine"]);
    let leads = |jobs: &Jobs| cluster.leading(jobs).filter(|_| jobs.leads());
    let old = leads(&cluster.wait_until("somebody leads", |jobs| leads(jobs).is_some()));
    let (node, _) = old.as_ref().expect("waited for above");
    cluster.signal(node, "KILL");
    cluster.wait_until("another one leads", |jobs| leads(jobs).is_some_and(|leader| Some(leader) != old));
    let (after, last) = decisions(cluster, &["--routine"]);
    let known: BTreeMap<u64, &str> = after.iter().map(|record| (record.seq(), record.hash())).collect();
    let of_both = before.iter().filter(|record| known.contains_key(&record.seq()));
    assert!(of_both.clone().count() > 20);
    for record in of_both {
        assert_eq!(record.hash(), known[&record.seq()], "{}", record.0);
    }
    let begun = Instant::now();
    for node in 1..=3 {
        let directory = format!(".mainstem-cluster/coordinator-{node}/audit");
        let mut records = written(sandbox, &directory);
        while records.last().is_none_or(|record| record.seq() < last) {
            assert!(begun.elapsed() < Duration::from_secs(180), "{directory} is behind\n{}", cluster.story());
            std::thread::sleep(Duration::from_millis(100));
            records = written(sandbox, &directory);
        }
        assert!(records.iter().zip(1..).all(|(record, seq)| record.seq() == seq), "{directory} has a gap");
        for record in records {
            assert!(known.get(&record.seq()).is_none_or(|hash| *hash == record.hash()), "{}", record.0);
        }
    }
}

fn assert_changes_are_found(sandbox: &Sandbox) {
    let directory = |node| format!(".mainstem-cluster/coordinator-{node}/audit");
    let all: Vec<PathBuf> = (1..=3).flat_map(|node| files(sandbox, &directory(node))).collect();
    let right = verify(sandbox, &all);
    assert!(right.status.success(), "{}", text(&right.stderr));
    let verdict = text(&right.stdout);
    assert_eq!(verdict.matches("files of 'cluster mainstem'").count(), 3, "{verdict}");
    assert!(!verdict.contains("missing"), "{verdict}");

    let whole = std::fs::read_to_string(&all[0]).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let seq = |line: usize| {
        let value: Value = serde_json::from_str(lines[line - 1]).unwrap();
        value["record"]["seq"].as_u64().unwrap()
    };
    let copy = sandbox.path("copy/audit-000001.jsonl");
    let check = |changed: String, parts: &[&str]| {
        sandbox.write("copy/audit-000001.jsonl", changed);
        let output = verify(sandbox, std::slice::from_ref(&copy));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        assert_says(&text(&output.stderr), &[&[copy.to_str().unwrap()], parts].concat());
    };
    let mut bytes = whole.clone().into_bytes();
    let start: usize = lines[..6].iter().map(|line| line.len() + 1).sum();
    let place = start + lines[6].find("\"reason\":\"").unwrap() + 12;
    bytes[place] ^= 1;
    check(String::from_utf8(bytes).unwrap(), &["line 7: ", &format!("record {} was changed", seq(7))]);
    let without = [&lines[..9], &lines[10..]].concat().join("\n") + "\n";
    check(without, &["line 10: ", &format!("record {} follows record {}", seq(11), seq(9))]);
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    check(swapped.join("\n") + "\n", &["line 5: ", &format!("record {} follows record {}", seq(6), seq(4))]);
}

#[test]
fn one_process_writes_an_audit_trail_over_its_deaths() {
    let sandbox = Sandbox::new(&windows(2_000_000, 300_000, true, "none"));
    assert!(sandbox.kill_at(&["run", "job.sql"], "published", 2), "it has ended already");
    sandbox.run_ok(&["run", "job.sql"]);
    let directory = ".mainstem/jobs/job/audit";
    let output = verify(&sandbox, &files(&sandbox, directory));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_says(&text(&output.stdout), &["1 files of 'job job'"]);
    let records = written(&sandbox, directory);
    let expected = [
        ("run-began", "the job has no log yet"),
        ("job-created", "it is about to begin"),
        ("attempt-started", "started"),
        ("checkpoint-completed", "durable"),
        ("output-published", "its checkpoint is complete"),
        ("run-began", "the process before did not end the job in order"),
        ("attempt-started", "started"),
        ("checkpoint-completed", "the last one, since all input is read"),
        ("job-ended", "all input is read and all output visible"),
    ];
    let mut found = records.iter();
    for (what, reason) in expected {
        assert!(found.any(|record| record.is(what, &[], reason)), "{what} '{reason}' is missing");
    }
}
