//! Orders in, copies out.

use std::path::Path;

use mainstem_core::cluster::messages::AttemptId;
use mainstem_core::ids::OperatorId;
use mainstem_state::LocalCopies;

use super::*;

/// A store with state files of another worker, and a worker that follows.
struct World {
    stored: tempfile::TempDir,
    _copied: tempfile::TempDir,
    store: Arc<CheckpointStore>,
    following: Following,
    _run: JoinSet<()>,
}

fn job() -> JobId {
    JobId::new("j").unwrap()
}

impl World {
    fn new(bytes_max: u64) -> World {
        let (stored, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let copies = LocalCopies::open(copied.path(), bytes_max).unwrap();
        let store = Arc::new(CheckpointStore::local(stored.path()).unwrap().with_copies(copies));
        let following = Following::default();
        let mut run = JoinSet::new();
        run.spawn(following.clone().run());
        World { stored, _copied: copied, store, following, _run: run }
    }

    /// A file that another worker has written.
    async fn write(&self, epoch: u64, slot: u32) -> StateHandle {
        let other = CheckpointStore::local(self.stored.path()).unwrap();
        let written = other.write_state(&job(), Generation(1), Epoch(epoch), OperatorId(0), slot, "", Vec::new()).await;
        written.unwrap()
    }

    fn order(&self, generation: u64, epoch: u64, slots: &[(u32, &[&StateHandle])]) {
        let files_of = |(slot, files): &(u32, &[&StateHandle])| (*slot, files.iter().map(|f| (*f).clone()).collect());
        let order = FollowOrder {
            attempt: AttemptId { job: job(), generation: Generation(generation) },
            epoch: Epoch(epoch),
            store: "s".to_owned(),
            slots: slots.iter().map(files_of).collect(),
        };
        self.following.follow(order, self.store.clone());
    }

    /// Slot, epoch and files that wait, of each slot.
    fn told(&self) -> Vec<(u32, Option<u64>, u64)> {
        let report = self.following.report();
        let slots = report.iter().flat_map(|followed| &followed.slots);
        slots.map(|(slot, f)| (*slot, f.epoch.map(|epoch| epoch.0), f.files_waiting)).collect()
    }

    async fn until(&self, told: &[(u32, Option<u64>, u64)]) {
        let reached = async {
            while self.told() != told {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{:?} instead of {told:?}", self.told());
    }

    fn object(&self, handle: &StateHandle) -> std::path::PathBuf {
        self.stored.path().join("jobs/j").join(Path::new(&handle.path))
    }
}

#[tokio::test]
async fn what_is_ordered_is_fetched_and_told() {
    let world = World::new(1 << 20);
    let (one, two) = (world.write(1, 0).await, world.write(1, 1).await);
    world.order(1, 1, &[(0, &[&one]), (1, &[&two])]);
    world.until(&[(0, Some(1), 0), (1, Some(1), 0)]).await;
    let next = world.write(2, 0).await;
    world.order(1, 2, &[(0, &[&one, &next])]);
    world.until(&[(0, Some(2), 0)]).await;
    assert!([&one, &two, &next].iter().all(|handle| world.store.has_copy(&job(), handle)));
    // The same once more, and an older one.
    world.order(1, 2, &[(0, &[&one, &next])]);
    world.order(1, 1, &[(0, &[&one]), (1, &[&two])]);
    assert_eq!(world.told(), [(0, Some(2), 0)]);
    world.order(1, 3, &[]);
    assert_eq!(world.told(), []);
}

#[tokio::test]
async fn orders_of_an_attempt_that_is_fenced_are_not_followed() {
    let world = World::new(1 << 20);
    let one = world.write(1, 0).await;
    world.following.fence(&job(), Generation(2));
    world.order(1, 1, &[(0, &[&one])]);
    assert_eq!(world.told(), []);
    world.order(2, 1, &[(0, &[&one])]);
    world.until(&[(0, Some(1), 0)]).await;
    world.following.fence(&job(), Generation(2));
    assert_eq!(world.told(), [(0, Some(1), 0)]);
    world.following.fence(&job(), Generation(3));
    assert_eq!(world.told(), []);
}

#[tokio::test]
async fn what_cannot_be_fetched_leaves_it_behind_until_the_next_order() {
    let world = World::new(1 << 20);
    let (one, two, three) = (world.write(1, 0).await, world.write(2, 0).await, world.write(3, 0).await);
    world.order(1, 1, &[(0, &[&one])]);
    world.until(&[(0, Some(1), 0)]).await;
    // Damaged, and gone.
    let mut bytes = std::fs::read(world.object(&two)).unwrap();
    bytes[9] ^= 1;
    std::fs::write(world.object(&two), bytes).unwrap();
    std::fs::remove_file(world.object(&three)).unwrap();
    let four = world.write(4, 0).await;
    world.order(1, 4, &[(0, &[&one, &two, &three, &four])]);
    world.until(&[(0, Some(1), 2)]).await;
    assert!(!world.store.has_copy(&job(), &two) && world.store.has_copy(&job(), &four));
    world.order(1, 5, &[(0, &[&one, &four])]);
    world.until(&[(0, Some(5), 0)]).await;
}

#[tokio::test]
async fn what_has_no_room_is_left_out_and_nothing_goes_for_it() {
    let probe = World::new(1 << 20);
    let size = probe.write(1, 0).await.size;
    let world = World::new(2 * size);
    let files = [world.write(1, 0).await, world.write(2, 0).await, world.write(3, 0).await];
    world.order(1, 3, &[(0, &[&files[0], &files[1], &files[2]])]);
    world.until(&[(0, None, 1)]).await;
    let copied = |handle: &&StateHandle| world.store.has_copy(&job(), handle);
    let there: Vec<&StateHandle> = files.iter().filter(copied).collect();
    world.order(1, 4, &[(0, &there)]);
    world.until(&[(0, Some(4), 0)]).await;
}
