//! Nodes of a cluster that die at named places: in the middle of an epoch, of a recovery, of a change of parallelism. One
//! place after the other, in random order, while a job runs whose answer is known.

use std::time::{Duration, Instant};

use mainstem_rt::failpoint;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::support::Sandbox;
use crate::support::cluster::LocalCluster;
use crate::support::known::{Forward, difference, seed, undisturbed, windows};

/// What makes the job come by a place.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// Nothing: it does with each epoch.
    Epoch,
    /// The death of a worker.
    Recovery,
    /// A change of parallelism.
    Rescale,
}

const PLACES: [(&str, By); 14] = [
    (failpoint::SNAPSHOT_DURABLE, By::Epoch),
    (failpoint::SNAPSHOTS_DURABLE, By::Epoch),
    (failpoint::MANIFEST_DURABLE, By::Epoch),
    (failpoint::EPOCH_COMPLETE, By::Epoch),
    (failpoint::PUBLISHING, By::Epoch),
    (failpoint::PUBLISHED, By::Epoch),
    (failpoint::ATTEMPT_RECORDED, By::Recovery),
    (failpoint::ORDERS_SENT, By::Recovery),
    (failpoint::ORDER_RECEIVED, By::Recovery),
    (failpoint::SUBTASKS_STARTED, By::Recovery),
    (failpoint::SUBTASKS_STOP, By::Recovery),
    (failpoint::ATTEMPT_DEPLOYED, By::Recovery),
    (failpoint::RESCALE_AGREED, By::Rescale),
    (failpoint::RESCALE_BEGINS, By::Rescale),
];

/// From the death of a node to output again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(90);
/// From a command to the begin of what it asks for.
const RESCALES_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn cluster_nodes_die_at_named_places() {
    const PER_SECOND: u64 = 5_000;
    const EVENTS: u64 = 90 * PER_SECOND;
    let seed = seed();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut places = PLACES;
    places.shuffle(&mut random);
    let expected = undisturbed(EVENTS, PER_SECOND);
    let sandbox = Sandbox::new(&windows(EVENTS, PER_SECOND, true, "0 ms"));
    let cluster = LocalCluster::start(&sandbox, 3, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "3"]);
    let mut forward = Forward::new(&sandbox.path(".mainstem-cluster/state"));
    let (mut parallelism, begun) = (3, Instant::now());
    let mut until = |what: &str, holds: &mut dyn FnMut(&Forward) -> bool| {
        let begun = Instant::now();
        loop {
            let ended = forward.look(cluster.jobs().as_ref());
            if holds(&forward) || ended {
                return ended;
            }
            assert!(begun.elapsed() < RECOVERS_WITHIN, "{what}: not within {RECOVERS_WITHIN:?}\n{}", cluster.story());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("the first epoch is published", &mut |forward| forward.published > 0);
    for (place, by) in places {
        cluster.arm(place);
        match by {
            By::Epoch => {}
            By::Recovery => {
                // Those that have died before are being started again.
                let jobs = cluster.wait_until("all workers", |jobs| {
                    jobs.leads() && jobs.workers() == 3 && !jobs.used_workers().is_empty()
                });
                // An attempt that began on two workers stays there when the leader changes.
                let used = jobs.used_workers();
                let (name, _) = used[random.random_range(0..used.len())].split_once('@').unwrap();
                cluster.signal(name, "KILL");
            }
            By::Rescale => {}
        }
        let mut asked = None::<Instant>;
        let ended = until(place, &mut |_| {
            // Asked again where it was done by an attempt that began with it: there was nothing to change then.
            if by == By::Rescale && asked.is_none_or(|asked| asked.elapsed() > RESCALES_WITHIN) {
                // Always another one than before.
                parallelism = 7 - parallelism;
                // Who is to answer may die of it.
                sandbox.run(&["rescale", "job", "-p", &parallelism.to_string()]);
                asked = Some(Instant::now());
            }
            !cluster.is_armed(place)
        });
        assert!(!ended, "the job ended before anybody died at '{place}'");
        let mut before = None;
        until("output after it", &mut |forward| forward.published > *before.get_or_insert(forward.published));
    }
    println!("all places after {:?}", begun.elapsed());
    while !until("the end", &mut |_| true) {
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{} attempts, {} epochs, {} compared", forward.attempt, forward.published, forward.compared);
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    assert_eq!(
        difference(&expected, &sandbox.lines("out")),
        (0, 0),
        "of {} lines\n{}",
        expected.len(),
        cluster.story()
    );
}
