//! Copies are read where they are whole, and nothing depends on them.

use arrow::array::RecordBatch;
use mainstem_core::ids::{Epoch, Generation, OperatorId};
use mainstem_core::key_group::KeyGroupRange;

use super::*;
use crate::state_file::TableDelta;
use crate::store::tests::grouped;
use crate::store::{Origin, StatePiece, StateRead};

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 256 };

fn job() -> JobId {
    JobId::new("j").unwrap()
}

fn tables(rows: i64) -> Vec<TableDelta> {
    crate::store::tests::tables(rows)
}

/// A store in a directory, with copies in another.
struct Place {
    stored: tempfile::TempDir,
    copied: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { stored: tempfile::tempdir().unwrap(), copied: tempfile::tempdir().unwrap() }
    }

    fn store(&self, bytes_max: u64) -> CheckpointStore {
        let copies = LocalCopies::open(self.copied.path(), bytes_max).unwrap();
        CheckpointStore::local(self.stored.path()).unwrap().with_copies(Some(copies.expect("nobody else has it")))
    }

    /// The copies that lie there, by name.
    fn copies(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for store in entries(self.copied.path()).unwrap() {
            for job in entries(&store).unwrap() {
                found.extend(entries(&job).unwrap());
            }
        }
        found.sort();
        found
    }

    fn names(&self) -> Vec<String> {
        self.copies().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}

async fn write(store: &CheckpointStore, epoch: u64, rows: i64) -> StateHandle {
    let job = job();
    let written = store.write_state(&job, Generation(1), Epoch(epoch), OperatorId(0), 0, "", grouped(tables(rows)));
    written.await.unwrap()
}

/// Of each block with rows that were asked for: the table, and these rows.
fn rows_of(piece: &StatePiece) -> Vec<(String, RecordBatch)> {
    let blocks = piece.blocks.iter().filter(|block| !block.is_empty());
    let decoded = blocks.map(|block| (block.table().to_owned(), block.decode().unwrap(), block.len()));
    decoded.inspect(|(_, rows, len)| assert_eq!(rows.num_rows(), *len)).map(|(table, rows, _)| (table, rows)).collect()
}

async fn read(store: &CheckpointStore, handle: &StateHandle) -> StateRead {
    store.read_state(&job(), handle, ALL).await.unwrap()
}

fn counts(store: &CheckpointStore) -> CopyCounts {
    store.copies.as_ref().unwrap().counts()
}

/// Waits until the store's copies are as they should be.
async fn until(store: &CheckpointStore, what: &str, holds: impl Fn(CopyCounts) -> bool) {
    let poll = async {
        while !holds(counts(store)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), poll).await;
    assert!(in_time.is_ok(), "{what}: {:?}", counts(store));
}

#[tokio::test]
async fn a_copy_is_read_whole_or_in_part_and_without_one_the_store() {
    let place = Place::new();
    let store = place.store(1 << 20);
    let handle = write(&store, 5, 1_000).await;
    until(&store, "a copy", |counts| counts.written == 1).await;
    assert_eq!(place.names(), ["5-g1-op0-0.state"]);
    assert_eq!(store.copies.as_ref().unwrap().bytes(), handle.size);
    assert_eq!(read(&store, &handle).await, StateRead { tables: tables(1_000), origin: Origin::LocalCopy });
    let some = KeyGroupRange { start: 10, end: 12 };
    let plain = CheckpointStore::local(place.stored.path()).unwrap();
    let (here, there) = (store.read_state(&job(), &handle, some).await, plain.read_state(&job(), &handle, some).await);
    assert_eq!((here.as_ref().unwrap().origin, there.as_ref().unwrap().origin), (Origin::LocalCopy, Origin::Store));
    assert_eq!(here.unwrap().tables, there.unwrap().tables);
    assert_eq!(read(&plain, &handle).await, StateRead { tables: tables(1_000), origin: Origin::Store });
    // The file in the store is looked at where that is asked for, whatever lies here.
    fs::remove_file(place.stored.path().join("jobs/j").join(&handle.path)).unwrap();
    assert!(store.verify(&job(), &handle).await.unwrap_err().is_damage());
    assert!(store.verify_size(&job(), &handle).await.unwrap_err().is_damage());
}

#[tokio::test]
async fn a_copy_that_is_not_what_was_written_is_removed_and_the_store_is_read() {
    let place = Place::new();
    let store = place.store(1 << 20);
    let handle = write(&store, 5, 50).await;
    until(&store, "a copy", |counts| counts.written == 1).await;
    let path = place.copies().remove(0);
    let bytes = fs::read(&path).unwrap();
    let flipped = |position: usize| {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        Some(damaged)
    };
    let longer = [bytes.as_slice(), b"x"].concat();
    // Of the same name, and whole in itself.
    let other = fs::read(place.stored.path().join("jobs/j").join(write(&store, 6, 40).await.path)).unwrap();
    let damages = [
        flipped(0),
        flipped(100),
        flipped(bytes.len() - 1),
        Some(bytes[..60].to_vec()),
        Some(Vec::new()),
        Some(longer),
        Some(other),
        None,
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        until(&store, "a copy again", |counts| counts.written == 2 + index as u64).await;
        match damage {
            Some(damaged) => fs::write(&path, damaged).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let expected = StateRead { tables: tables(50), origin: Origin::Store };
        assert_eq!(read(&store, &handle).await, expected, "damage {index}");
        assert_eq!(counts(&store).damaged, index as u64 + 1);
    }
    until(&store, "a copy again", |counts| counts.written == 10).await;
    assert_eq!(read(&store, &handle).await.origin, Origin::LocalCopy);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn pieces_are_read_from_a_copy_and_from_the_store_and_damage_is_noticed() {
    let place = Place::new();
    let store = place.store(64 << 20);
    // Several blocks: of some only the footer says what they are.
    let handle = write(&store, 5, 1_200_000).await;
    until(&store, "a copy", |counts| counts.written == 1).await;
    let plain = CheckpointStore::local(place.stored.path()).unwrap();
    let path = place.copies().remove(0);
    let bytes = fs::read(&path).unwrap();
    let damages = [None, Some((0, "header")), Some((bytes.len() - 30, "footer")), Some((bytes.len() / 2, "a block"))];
    for (index, damage) in damages.into_iter().enumerate() {
        until(&store, "a copy again", |counts| counts.written == 1 + index.saturating_sub(1) as u64).await;
        if let Some((position, _)) = damage {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            fs::write(&path, damaged).unwrap();
        }
        let mut origins = Vec::new();
        for start in (0..100).step_by(25) {
            let handle = StateHandle { key_groups: KeyGroupRange { start, end: start + 25 }, ..handle.clone() };
            let read = store.read_state_piece(&job(), &handle).await.unwrap();
            let from_store = plain.read_state_piece(&job(), &handle).await.unwrap();
            assert_eq!(rows_of(&read), rows_of(&from_store), "{damage:?} {start}");
            assert!(!read.blocks.is_empty() && from_store.origin == Origin::Store);
            let all = plain.read_state(&job(), &handle, handle.key_groups).await.unwrap().tables;
            assert_eq!(rows_of(&read), all.into_iter().map(|table| (table.table, table.rows)).collect::<Vec<_>>());
            assert!(read.origin == Origin::Store || read.bytes < handle.size, "{damage:?} {start}");
            origins.push(read.origin);
        }
        assert_eq!(origins.contains(&Origin::Store), damage.is_some(), "{damage:?}");
    }
    // Another file of the same name and size.
    let other = fs::read(place.stored.path().join("jobs/j").join(&handle.path)).unwrap();
    until(&store, "a copy again", |counts| counts.written == 4).await;
    fs::write(&path, &other).unwrap();
    let expected = StateHandle { crc32c: handle.crc32c ^ 1, ..handle.clone() };
    let piece = StateHandle { key_groups: KeyGroupRange { start: 0, end: 8 }, ..expected };
    let damaged = counts(&store).damaged;
    assert!(store.read_state_piece(&job(), &piece).await.unwrap_err().is_damage());
    assert_eq!(counts(&store).damaged, damaged + 1);
}

#[tokio::test]
async fn copies_keep_to_their_bound() {
    let place = Place::new();
    let size = write(&CheckpointStore::in_memory(), 1, 50).await.size;
    let store = place.store(2 * size + size / 2);
    let first = write(&store, 1, 50).await;
    until(&store, "a copy", |counts| counts.written == 1).await;
    write(&store, 2, 50).await;
    until(&store, "a copy", |counts| counts.written == 2).await;
    assert_eq!(read(&store, &first).await.origin, Origin::LocalCopy);
    write(&store, 3, 50).await;
    until(&store, "one goes", |counts| counts.evicted == 1).await;
    assert_eq!(place.names(), ["1-g1-op0-0.state", "3-g1-op0-0.state"], "the one that was not used goes");
    let large = write(&store, 4, 50_000).await;
    until(&store, "it is not kept", |counts| counts.dropped == 1).await;
    assert_eq!(read(&store, &large).await, StateRead { tables: tables(50_000), origin: Origin::Store });
}

#[tokio::test]
async fn what_does_not_keep_up_is_dropped_and_counted() {
    let place = Place::new();
    let store = place.store(1 << 30);
    let shared = &store.copies.as_ref().unwrap().shared;
    let half = Bytes::from(vec![0; WAITING_BYTES_MAX as usize / 2]);
    assert!(shared.offer("s/j/1".to_owned(), half.clone().into()), "nobody writes");
    assert!(!shared.offer("s/j/2".to_owned(), half.clone().into()), "somebody will");
    assert_eq!(counts(&store).dropped, 0);
    assert!(!shared.offer("s/j/3".to_owned(), Bytes::from_static(b"x").into()));
    assert_eq!(counts(&store), CopyCounts { dropped: 1, ..CopyCounts::default() });
    shared.forget(&["s/j/1".to_owned()]);
    shared.write_all();
    assert_eq!(counts(&store), CopyCounts { dropped: 1, written: 1, ..CopyCounts::default() });
    assert_eq!(place.names(), ["2"]);
    assert_eq!(shared.lock().waiting_bytes, 0);
    for number in 0..=WAITING_FILES_MAX {
        shared.offer(format!("s/k/{number}"), PutPayload::new());
    }
    shared.write_all();
    let written = WAITING_FILES_MAX as u64 + 1;
    assert_eq!(counts(&store), CopyCounts { dropped: 2, written, ..CopyCounts::default() });
    // One that is larger than all that may wait, alone.
    assert!(shared.offer("s/j/4".to_owned(), [half.clone(), half.clone(), half].into_iter().collect()));
    assert!(!shared.offer("s/j/5".to_owned(), PutPayload::new()));
    assert_eq!(counts(&store).dropped, 3);
}

#[tokio::test]
async fn a_disk_that_refuses_copies_costs_nothing_else() {
    let place = Place::new();
    let store = place.store(1 << 20);
    // In the place of the directory for this store's copies.
    fs::write(place.copied.path().join(store.tag()), b"").unwrap();
    let handle = write(&store, 5, 50).await;
    until(&store, "it is dropped", |counts| counts.dropped == 1).await;
    assert_eq!(read(&store, &handle).await, StateRead { tables: tables(50), origin: Origin::Store });
}

#[tokio::test]
async fn the_next_process_goes_on_with_the_copies_and_drops_what_is_out_of_use() {
    let place = Place::new();
    let first = place.store(1 << 20);
    assert!(LocalCopies::open(place.copied.path(), 1).unwrap().is_none(), "one process at a time");
    let mut handles = Vec::new();
    for epoch in 1..=3 {
        handles.push(write(&first, epoch, 50).await);
    }
    until(&first, "copies", |counts| counts.written == 3).await;
    // With the same store, the copy goes with the file.
    first.delete(&job(), &handles[0].path).await.unwrap();
    assert_eq!(place.names(), ["2-g1-op0-0.state", "3-g1-op0-0.state"]);
    drop(first);
    let half = place.copies()[0].with_extension("state.part");
    fs::write(&half, b"half").unwrap();
    // Another process deletes a file.
    let other = CheckpointStore::local(place.stored.path()).unwrap();
    other.delete(&job(), &handles[1].path).await.unwrap();
    let opened = async {
        loop {
            // The task that has written may still be looking at the store.
            match LocalCopies::open(place.copied.path(), 1 << 20).unwrap() {
                Some(copies) => break copies,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let copies = tokio::time::timeout(Duration::from_secs(20), opened).await.expect("nobody has it any more");
    let second = CheckpointStore::local(place.stored.path()).unwrap().with_copies(Some(copies));
    assert!(!half.exists());
    assert_eq!(second.copies.as_ref().unwrap().bytes(), 2 * handles[1].size);
    assert_eq!(read(&second, &handles[2]).await.origin, Origin::LocalCopy);
    let fourth = write(&second, 4, 50).await;
    until(&second, "a copy", |counts| counts.written == 1).await;
    let swept = async {
        while place.names() != ["3-g1-op0-0.state", "4-g1-op0-0.state"] {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), swept).await;
    assert!(in_time.is_ok(), "{:?}", place.names());
    assert_eq!(read(&second, &fourth).await.origin, Origin::LocalCopy);
}

#[tokio::test]
async fn only_state_files_have_copies_and_stores_do_not_share_them() {
    let place = Place::new();
    let store = place.store(1 << 20);
    for path in ["manifests/1-g1.manifest", "state/../../x.state", "state/.x.state", "state/a/b.state", "state/x"] {
        assert!(store.copy_of(&job(), path).is_none(), "{path}");
    }
    let name = |store: &CheckpointStore| store.copy_of(&job(), "state/1.state").unwrap().1;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = CheckpointStore::local(elsewhere.path()).unwrap().with_copies(store.copies.clone());
    assert_ne!(name(&store), name(&other));
    assert!(name(&store).ends_with("/j/1.state"));
}

#[tokio::test]
async fn a_file_of_another_process_is_copied_ahead_where_there_is_room() {
    let place = Place::new();
    let other = CheckpointStore::local(place.stored.path()).unwrap();
    let handle = write(&other, 1, 300_000).await;
    assert!(handle.size > 2 << 20, "{} bytes are one piece", handle.size);
    let store = place.store(handle.size + 1);
    assert!(!store.has_copy(&job(), &handle));
    for _ in 0..2 {
        assert_eq!(store.fetch_copy(&job(), &handle).await.unwrap(), Copying::There);
    }
    assert!(store.has_copy(&job(), &handle));
    assert_eq!(counts(&store).written, 1);
    assert_eq!(read(&store, &handle).await.origin, Origin::LocalCopy);
    let next = write(&other, 2, 10).await;
    assert_eq!(store.fetch_copy(&job(), &next).await.unwrap(), Copying::NoRoom);
    assert_eq!(counts(&store).evicted, 0);
    assert_eq!(other.fetch_copy(&job(), &next).await.unwrap(), Copying::NoRoom, "it keeps none");
    // What is gone from the store makes room, and what is damaged there is not copied.
    fs::remove_file(place.stored.path().join("jobs/j").join(&handle.path)).unwrap();
    store.sweep_copies().await;
    assert!(!store.has_copy(&job(), &handle));
    assert!(matches!(store.fetch_copy(&job(), &handle).await, Err(StateError::Missing { .. })));
    let damaged = StateHandle { crc32c: next.crc32c ^ 1, ..next.clone() };
    assert!(matches!(store.fetch_copy(&job(), &damaged).await, Err(StateError::Corrupt { .. })));
    let damaged = StateHandle { size: next.size + 1, ..next.clone() };
    assert!(matches!(store.fetch_copy(&job(), &damaged).await, Err(StateError::Corrupt { .. })));
    assert_eq!(place.names(), Vec::<String>::new(), "nothing is left of either");
    assert_eq!(store.fetch_copy(&job(), &next).await.unwrap(), Copying::There);
}
