//! A disk in memory that knows what is safe: for tests of power cuts, and for the simulation of whole clusters. What was
//! not synced may be lost, kept or torn.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

/// What is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A change that is not on the platter yet.
#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// What is safe, and what a power cut may lose, keep or tear.
#[derive(Debug, Default)]
struct Platter {
    safe: Vec<u8>,
    pending: Vec<Change>,
    now: Vec<u8>,
    /// It was taken out of its machine: nothing that still runs there reaches it.
    is_gone: bool,
    /// There is no room for another byte.
    is_full: bool,
    latency: Duration,
}

/// A disk. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Syncs that still succeed, less one; 0 for a disk that never fails.
    pub(crate) syncs_left: Arc<AtomicU64>,
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => image.resize(*length as usize, 0),
        Change::Write(offset, bytes) => {
            let (from, to) = (*offset as usize, *offset as usize + bytes.len());
            if image.len() < to {
                image.resize(to, 0);
            }
            image[from..to].copy_from_slice(bytes);
        }
    }
}

impl Disk {
    /// An empty disk on which each piece of work takes so long.
    #[must_use]
    pub fn new(latency: Duration) -> Disk {
        let disk = Disk::default();
        disk.lock().latency = latency;
        disk
    }

    /// The disk as the next process finds it when this one was killed. What still runs of this one reaches it no more.
    #[must_use]
    pub fn after_kill(&self) -> Disk {
        let image = self.lock().now.clone();
        self.replaced_by(image)
    }

    /// The same after a power cut.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Disk {
        let image = self.image_after_power_cut(&mut SmallRng::seed_from_u64(seed));
        self.replaced_by(image)
    }

    /// From here on nothing more can be written; or it can again.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether nothing was ever written to it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().now.is_empty()
    }

    /// How long each piece of work on it takes.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.lock().latency
    }

    /// Of what was not synced, some is there, some is not, and some is torn.
    pub(crate) fn image_after_power_cut(&self, random: &mut SmallRng) -> Vec<u8> {
        let platter = self.lock();
        let mut image = platter.safe.clone();
        for change in &platter.pending {
            match change {
                Change::Length(_) => apply(&mut image, change),
                Change::Write(offset, bytes) => {
                    for (sector, piece) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if random.random_bool(0.5) {
                            let at = offset + (sector * SECTOR_BYTES) as u64;
                            apply(&mut image, &Change::Write(at, piece.to_vec()));
                        }
                    }
                }
            }
        }
        image
    }

    /// A disk of which all is safe.
    pub(crate) fn of(image: Vec<u8>) -> Disk {
        let disk = Disk::default();
        let mut platter = disk.lock();
        (platter.safe, platter.now) = (image.clone(), image);
        drop(platter);
        disk
    }

    fn replaced_by(&self, image: Vec<u8>) -> Disk {
        let mut platter = self.lock();
        platter.is_gone = true;
        let next = Disk::of(image);
        next.lock().latency = platter.latency;
        next
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut platter = self.present()?;
        if platter.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut platter.now, &change);
        platter.pending.push(change);
        Ok(())
    }

    fn present(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.lock();
        if platter.is_gone { Err(io::Error::other("the disk is gone")) } else { Ok(platter) }
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.present()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.present()?;
        let from = offset as usize;
        let read = platter.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(read);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let left = self.syncs_left.load(Ordering::Relaxed);
        let mut platter = self.present()?;
        if left == 1 {
            // Once; a second attempt would seem to succeed, as it does on Linux.
            self.syncs_left.store(0, Ordering::Relaxed);
            platter.pending.clear();
            return Err(io::Error::other("the disk failed"));
        }
        self.syncs_left.store(left.saturating_sub(1), Ordering::Relaxed);
        for change in std::mem::take(&mut platter.pending) {
            apply(&mut platter.safe, &change);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }
}
