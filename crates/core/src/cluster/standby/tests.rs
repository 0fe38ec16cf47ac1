//! Workers come and go, epochs complete, and what is chosen and told follows.

use super::*;
use crate::cluster::messages::{Followed, WorkerOffer};
use crate::cluster::{Fleet, FleetConfig};
use crate::key_group::KeyGroupRange;
use crate::protocol::StateHandle;
use crate::time::Timestamp;

const STORE: &str = "/store";

/// The standbys of a job, and the workers around it.
struct World {
    standbys: Standbys,
    running: Vec<(WorkerId, Option<String>)>,
    candidates: BTreeMap<WorkerId, Candidate>,
    generation: Generation,
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn job() -> JobId {
    JobId::new("j").unwrap()
}

/// A file of each slot.
fn files(epoch: u64, slots: u32) -> SlotFiles {
    let file = |slot: u32| StateHandle {
        path: format!("state/{epoch}-{slot}.state"),
        size: 10,
        crc32c: 0,
        key_groups: KeyGroupRange { start: 0, end: 1 },
        epoch: Epoch(epoch),
    };
    (0..slots).map(|slot| (slot, vec![file(slot)])).collect()
}

impl World {
    /// A job whose slots run on these workers, and wants so many standbys; others with their free slots, at `host` where a
    /// name is `name@host`.
    fn new(wanted: u32, running: &str, candidates: &[(&str, u32)]) -> World {
        let mut world = World {
            standbys: Standbys::new(wanted, STORE),
            running: Vec::new(),
            candidates: BTreeMap::new(),
            generation: Generation(1),
        };
        world.candidates(candidates);
        world.start(wanted, running);
        world
    }

    fn start(&mut self, wanted: u32, running: &str) {
        self.running = running.split_whitespace().map(|name| (worker(name), Some(host(name)))).collect();
        self.standbys.on_attempt(self.generation, self.running.len(), wanted, STORE);
    }

    /// The job starts anew on these slots.
    fn restart(&mut self, running: &str) {
        self.standbys.on_released();
        self.generation = self.generation.next();
        self.start(self.standbys.wanted, running);
    }

    fn candidates(&mut self, candidates: &[(&str, u32)]) {
        let candidate = |(name, free): &(&str, u32)| (worker(name), Candidate { free: *free, host: host(name) });
        self.candidates = candidates.iter().map(candidate).collect();
    }

    /// An epoch is complete; gives what is told.
    fn complete(&mut self, epoch: u64) -> String {
        let slots = u32::try_from(self.running.len()).unwrap();
        self.standbys.on_complete(self.generation, Epoch(epoch), files(epoch, slots));
        self.told()
    }

    /// What is told now: `worker:slots@epoch`.
    fn told(&mut self) -> String {
        self.standbys.review(&self.running, &self.candidates);
        let orders = self.standbys.orders(&job());
        let said = |(worker, order): &(WorkerId, FollowOrder)| {
            assert_eq!((order.attempt.generation, order.store.as_str()), (self.generation, STORE));
            for (slot, files) in &order.slots {
                assert_eq!(files[0].path, format!("state/{}-{slot}.state", order.epoch));
            }
            let slots: Vec<String> = order.slots.keys().map(u32::to_string).collect();
            format!("{}:{}@{}", worker.0, slots.join(","), order.epoch)
        };
        orders.iter().map(said).collect::<Vec<_>>().join(" ")
    }

    fn followed(&mut self, name: &str, slot: u32, epoch: u64, files_waiting: u64) {
        let followed = FollowedSlot { epoch: Some(Epoch(epoch)), files_waiting, bytes_waiting: 10 * files_waiting };
        self.standbys.on_followed(&worker(name), self.generation, &BTreeMap::from([(slot, followed)]));
    }

    /// Who stands by for each slot, the best first.
    fn chosen(&self) -> String {
        let word = |of_slot: &Vec<WorkerId>| match of_slot.as_slice() {
            [] => "-".to_owned(),
            workers => workers.iter().map(|worker| worker.0.as_str()).collect::<Vec<_>>().join("+"),
        };
        self.standbys.by_slot().iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

fn host(name: &str) -> String {
    name.split_once('@').map_or("one", |(_, host)| host).to_owned()
}

#[test]
fn slots_are_spread_over_those_who_have_room_for_them() {
    let mut world = World::new(1, "a b a b", &[("a", 2), ("b", 2), ("c", 2), ("d", 2)]);
    assert_eq!(world.told(), "", "there is nothing to follow before the first epoch");
    assert_eq!(world.complete(1), "a:1@1 b:0@1 c:2@1 d:3@1");
    // Two slots of one worker need two slots of who takes both over.
    let mut world = World::new(1, "a a a", &[("b", 1), ("c", 1)]);
    assert_eq!(world.complete(1), "b:0@1 c:1@1");
    let status = world.standbys.status();
    assert_eq!((status.wanted, status.missing), (1, 1));
    let lacking = status.lacking.unwrap();
    assert!(lacking.starts_with("slots 2 have fewer than 1: no other worker"), "{lacking}");
    // Slots of several workers may be followed by one that has one slot: they do not fail together.
    let mut world = World::new(1, "a b", &[("c", 1)]);
    assert_eq!(world.complete(1), "c:0,1@1");
}

#[test]
fn another_machine_comes_first_and_every_slot_has_one_before_any_has_two() {
    let mut world = World::new(1, "a@x", &[("b@x", 9), ("c@y", 1)]);
    assert_eq!(world.complete(1), "c@y:0@1");
    let mut world = World::new(2, "a@x b@y", &[("c@z", 2), ("d@z", 2), ("e@y", 2)]);
    world.complete(1);
    assert_eq!(world.chosen(), "c@z+e@y d@z+c@z", "the second one is on a machine of its own where there is one");
    let mut world = World::new(2, "a a", &[("b", 1), ("c", 1)]);
    world.complete(1);
    assert_eq!(world.chosen(), "b c");
    assert_eq!(world.standbys.status().missing, 2);
}

#[test]
fn each_epoch_is_told_once_and_anew_to_who_comes_again() {
    let mut world = World::new(1, "a b", &[("c", 2), ("d", 2)]);
    assert_eq!(world.complete(1), "c:0@1 d:1@1");
    assert_eq!(world.told(), "");
    assert_eq!(world.complete(2), "c:0@2 d:1@2");
    world.standbys.on_untold(&worker("c"));
    assert_eq!(world.told(), "c:0@2");
    // It has connected anew.
    world.standbys.on_gone(&worker("d"));
    assert_eq!(world.told(), "d:1@2");
    // An attempt of before says nothing any more.
    world.standbys.on_complete(Generation(0), Epoch(9), files(9, 2));
    assert_eq!(world.told(), "");
}

#[test]
fn who_is_gone_or_has_no_room_any_more_is_replaced_and_told_so() {
    let mut world = World::new(1, "a b", &[("c", 1), ("d", 1)]);
    world.complete(1);
    assert_eq!(world.chosen(), "c d");
    world.standbys.on_gone(&worker("c"));
    world.candidates(&[("d", 1)]);
    assert_eq!(world.told(), "d:0,1@1");
    world.candidates(&[("d", 0), ("e", 1)]);
    assert_eq!(world.told(), "d:@1 e:0,1@1", "d has other work now");
    world.candidates(&[]);
    assert_eq!(world.told(), "e:@1");
    assert_eq!(world.standbys.status().missing, 2);
    world.candidates(&[("a", 1), ("b", 1)]);
    assert_eq!(world.told(), "a:1@1 b:0@1", "those who run the other slot");
}

#[test]
fn the_next_attempt_is_placed_by_the_newest_epoch_and_gets_new_standbys() {
    let mut world = World::new(2, "a b", &[("c", 2), ("d", 2)]);
    world.complete(1);
    for (name, epoch, files) in [("c", 1, 0), ("d", 1, 0)] {
        world.followed(name, 0, epoch, files);
    }
    assert_eq!(world.complete(2), "c:0,1@2 d:0,1@2");
    world.followed("d", 0, 2, 0);
    world.followed("c", 0, 1, 1);
    world.followed("c", 1, 2, 0);
    assert_eq!(world.chosen(), "d+c c+d");
    let status = world.standbys.status();
    let behind: Vec<_> = status.slots.iter().map(|s| (s.slot, s.worker.0.as_str(), s.epochs_behind)).collect();
    assert_eq!(behind, [(0, "c", 1), (0, "d", 0), (1, "d", 2), (1, "c", 0)]);
    assert_eq!((status.slots[0].files_waiting, status.slots[0].bytes_waiting), (1, 10));
    // What a worker forgets of an epoch it had is not forgotten here: only the order of them matters.
    world.followed("d", 0, 1, 1);
    assert_eq!(world.chosen(), "d+c c+d");
    // The worker of slot 0 is lost, d takes it over; the others follow on, told of the new attempt at once.
    world.standbys.on_gone(&worker("a"));
    world.standbys.on_released();
    assert_eq!(world.chosen(), "d+c c+d", "who places the next attempt asks now");
    assert_eq!(world.told(), "", "no attempt runs");
    world.restart("d b");
    world.candidates(&[("c", 2), ("d", 1)]);
    assert_eq!(world.told(), "c:0,1@2 d:1@2");
    assert_eq!(world.chosen(), "c c+d");
    // Other slots have other files.
    world.restart("b b d");
    assert_eq!((world.told().as_str(), world.chosen().as_str()), ("", "- - -"));
    assert_eq!(world.standbys.status().lacking.as_deref(), Some("no epoch is complete yet that could be followed"));
}

#[test]
fn a_new_leader_stays_with_those_who_follow_already() {
    let mut world = World::new(1, "a b", &[("c", 2), ("d", 2)]);
    world.followed("d", 0, 4, 0);
    world.followed("c", 0, 4, 0);
    world.standbys.on_followed(&worker("c"), Generation(7), &BTreeMap::from([(1, FollowedSlot::default())]));
    world.followed("c", 9, 4, 0);
    assert_eq!(world.chosen(), "d -", "one is enough, and another attempt is another one");
    assert_eq!(world.complete(5), "c:1@5 d:0@5");
    // Without a wish for so many, one of them goes.
    world.standbys.on_attempt(Generation(1), 2, 0, STORE);
    assert_eq!(world.told(), "c:@5 d:@5");
}

#[test]
fn a_fleet_gives_a_lost_slot_to_who_stands_by_for_it() {
    let mut fleet = Fleet::new(FleetConfig::default());
    for (name, slots) in [("a", 1), ("b", 1), ("c", 1), ("d", 4)] {
        let offer = WorkerOffer { worker: worker(name), data_address: format!("{name}:1"), slots, draining: false };
        fleet.on_joined(Timestamp(0), offer);
    }
    let attempt = |generation| AttemptId { job: job(), generation: Generation(generation) };
    let place = |fleet: &mut Fleet| {
        let slots = fleet.place(&job(), 2).unwrap();
        slots.into_iter().map(|slot| slot.worker.0).collect::<Vec<_>>().join(" ")
    };
    let told = |fleet: &mut Fleet| {
        let orders = fleet.stand_by();
        orders.iter().map(|(worker, order)| format!("{}:{}", worker.0, order.slots.len())).collect::<Vec<_>>().join(" ")
    };
    // On a and b, since d takes nothing yet.
    fleet.drain("d");
    assert_eq!(place(&mut fleet), "a b");
    fleet.on_attempt(&attempt(1), 1, STORE);
    fleet.on_complete(&attempt(1), Epoch(1), &files(1, 2));
    assert_eq!(told(&mut fleet), "", "nobody is known to keep copies");
    fleet.on_followed(&worker("b"), None);
    fleet.on_followed(&worker("c"), Some(&[]));
    assert_eq!(told(&mut fleet), "c:2");
    let d = WorkerOffer { worker: worker("d"), data_address: "d:1".to_owned(), slots: 4, draining: false };
    fleet.on_joined(Timestamp(0), d);
    fleet.on_followed(&worker("d"), Some(&[]));
    assert_eq!(told(&mut fleet), "", "who stands by stays");
    let slots = BTreeMap::from([(1, FollowedSlot { epoch: Some(Epoch(1)), ..FollowedSlot::default() })]);
    fleet.on_followed(&worker("c"), Some(&[Followed { attempt: attempt(1), slots }]));
    assert_eq!(fleet.standbys(&job()).unwrap().slots[1].epochs_behind, 0);
    fleet.on_closed(&worker("b"), "killed");
    fleet.release(&job());
    assert_eq!(place(&mut fleet), "a c", "d has more free slots");
    fleet.on_attempt(&attempt(2), 1, STORE);
    assert_eq!(told(&mut fleet), "c:0 d:2", "c runs what it stood by for, and has no slot for the other one");
    fleet.forget(&job());
    assert_eq!(fleet.standbys(&job()), None);
    assert_eq!(place(&mut fleet), "d d", "another job of this name");
}

#[test]
fn a_new_leader_hears_of_standbys_before_it_goes_on_with_the_attempt() {
    let mut fleet = Fleet::new(FleetConfig::default());
    fleet.occupy(&job(), vec![worker("a")]);
    for name in ["a", "b", "c"] {
        let offer = WorkerOffer { worker: worker(name), data_address: format!("{name}:1"), slots: 1, draining: false };
        fleet.on_joined(Timestamp(0), offer);
        let attempt = AttemptId { job: job(), generation: Generation(1) };
        let slots = BTreeMap::from([(0, FollowedSlot { epoch: Some(Epoch(4)), ..FollowedSlot::default() })]);
        let followed = Followed { attempt, slots };
        fleet.on_followed(&worker(name), Some(if name == "c" { std::slice::from_ref(&followed) } else { &[] }));
    }
    let attempt = AttemptId { job: job(), generation: Generation(1) };
    fleet.on_attempt(&attempt, 1, STORE);
    fleet.on_complete(&attempt, Epoch(5), &files(5, 1));
    let told: Vec<WorkerId> = fleet.stand_by().into_iter().map(|(worker, _)| worker).collect();
    assert_eq!(told, [worker("c")], "b has as much room, and nothing of the state");
    fleet.on_ended(&job());
    assert!(fleet.standbys(&job()).is_none() && fleet.stand_by().is_empty());
}
