//! Which segment files may be taken into use: free ones, and new ones while the store is below its limit.
//!
//! Two segments are always held back for moving survivors during reclaim (one for blobs, one for entries), so that
//! making room never needs room. Invariant: every file counts against the limit from its creation to its removal.

use std::{io, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use zimcache_store::Error;

use super::{
    checksum::Salt,
    disk::{Disk, DiskFile},
    segment::{Class, SegmentHeader, file_name},
};

/// Segments held back from new blobs.
const HELD_FROM_BLOBS: usize = 2;
/// Segments held back from new entries.
const HELD_FROM_ENTRIES: usize = 1;
/// Reclaim starts when no more than this many can be taken.
const RECLAIM_BELOW: usize = 4;
/// How long a writer waits for reclaim before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who asks for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    NewBlobs,
    NewEntries,
    /// Survivors of a segment that is being reclaimed.
    Moving,
}

/// The pool of segment files.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    hash_key: [u8; 16],
    pool: Mutex<Pool>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pool {
    free: Vec<(u32, Arc<dyn DiskFile>)>,
    /// Numbers below `next` whose files were removed.
    holes: Vec<u32>,
    next: u32,
    files: usize,
    limit: usize,
    grows: bool,
    generation: u64,
    moving_entries: bool,
    stuck: bool,
    stopping: bool,
}

/// A file that has been taken for a segment.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
}

impl Space {
    /// A pool of `limit` files, of which `found` exist; `free` of them may be used at once.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        hash_key: [u8; 16],
        limit: usize,
        found: &[u32],
        free: Vec<(u32, Arc<dyn DiskFile>)>,
        generation: u64,
    ) -> Space {
        let next = found.iter().max().map_or(0, |id| id + 1);
        let holes = (0..next).filter(|id| !found.contains(id)).collect();
        let pool = Pool {
            free,
            holes,
            next,
            files: found.len(),
            limit,
            grows: true,
            generation,
            moving_entries: false,
            stuck: false,
            stopping: false,
        };
        Space {
            disk,
            hash_key,
            pool: Mutex::new(pool),
            changed: Condvar::new(),
        }
    }

    /// Takes a segment into use; waits for reclaim where that can help.
    pub(crate) fn take(&self, purpose: Purpose, class: Class, lane: u8) -> Result<Taken, Error> {
        let until = std::time::Instant::now() + PATIENCE;
        let mut pool = self.pool.lock();
        loop {
            if pool.stopping {
                return Err(Error::Stopping);
            }
            let purpose = match purpose {
                Purpose::NewEntries if pool.moving_entries => Purpose::Moving,
                other => other,
            };
            if pool.available() > purpose.held_back() {
                return self.take_now(&mut pool, class, lane);
            }
            if purpose == Purpose::Moving || pool.stuck {
                return Err(Error::OutOfSpace(
                    "everything in the store is pinned or in use",
                ));
            }
            if self.changed.wait_until(&mut pool, until).timed_out() {
                return Err(Error::OutOfSpace("no segment became free in time"));
            }
        }
    }

    fn take_now(&self, pool: &mut Pool, class: Class, lane: u8) -> Result<Taken, Error> {
        let (id, file) = match pool.free.pop() {
            Some(free) => free,
            None => self.create(pool)?,
        };
        pool.generation += 1;
        let generation = pool.generation;
        let salt = Salt {
            generation,
            seed: self.seed(generation),
        };
        Ok(Taken {
            id,
            file,
            header: SegmentHeader { class, lane, salt },
        })
    }

    fn create(&self, pool: &mut Pool) -> Result<(u32, Arc<dyn DiskFile>), Error> {
        let id = pool.holes.pop().unwrap_or(pool.next);
        let made = self.disk.create(&file_name(id)).and_then(|file| {
            self.disk.sync_names()?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                pool.next = pool.next.max(id + 1);
                pool.files += 1;
                Ok((id, file))
            }
            Err(error) => {
                pool.holes.push(id);
                pool.next = pool.next.max(id + 1);
                pool.grows &= !ends_growth(&error);
                Err(Error::disk("create a segment", error))
            }
        }
    }

    /// Unpredictable from outside, reproducible for a given store.
    fn seed(&self, generation: u64) -> u64 {
        use std::hash::Hasher as _;
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&self.hash_key);
        hasher.write(b"seed");
        hasher.write_u64(generation);
        hasher.finish()
    }

    /// Gives back a file whose header says *free*, durably. `false`: there are more files than allowed, remove it.
    pub(crate) fn give_back(&self, id: u32, file: Arc<dyn DiskFile>) -> bool {
        let mut pool = self.pool.lock();
        pool.stuck = false;
        let keep = pool.files <= pool.limit;
        if keep {
            pool.free.push((id, file));
        } else {
            pool.files -= 1;
            pool.holes.push(id);
        }
        self.changed.notify_all();
        keep
    }

    /// Files may no longer be added: the disk is full.
    pub(crate) fn stop_growing(&self) {
        let mut pool = self.pool.lock();
        pool.grows = false;
        self.changed.notify_all();
    }

    /// Files may be added again once the disk has room for `bytes`.
    pub(crate) fn grow_again_with_room(&self, bytes: u64) {
        if self.pool.lock().grows {
            return;
        }
        if self.disk.free_bytes().is_ok_and(|free| free >= bytes) {
            let mut pool = self.pool.lock();
            pool.grows = true;
            pool.stuck = false;
            self.changed.notify_all();
        }
    }

    /// Whether segments should be reclaimed.
    pub(crate) fn is_short(&self) -> bool {
        let pool = self.pool.lock();
        pool.available() <= RECLAIM_BELOW || pool.files > pool.limit
    }

    /// Whether not even survivors of a reclaim would find a segment.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.pool.lock().available() == 0
    }

    /// Reclaim found nothing it may free; writers need not wait. Undone by the next [`Space::give_back`].
    pub(crate) fn set_stuck(&self) {
        self.pool.lock().stuck = true;
        self.changed.notify_all();
    }

    /// Whether the lane of entries is taking in survivors: it may use what is held back, and must not wait.
    pub(crate) fn set_moving_entries(&self, moving: bool) {
        self.pool.lock().moving_entries = moving;
        self.changed.notify_all();
    }

    /// Wakes and refuses everybody.
    pub(crate) fn stop(&self) {
        self.pool.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Highest generation handed out.
    pub(crate) fn generation(&self) -> u64 {
        self.pool.lock().generation
    }

    /// Files there are, and may be.
    pub(crate) fn files_and_limit(&self) -> (usize, usize) {
        let pool = self.pool.lock();
        (pool.files, pool.limit)
    }
}

/// Whether no further file can be made for now; any other failure says nothing about the next file.
fn ends_growth(error: &io::Error) -> bool {
    let too_many_files = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) || too_many_files.contains(&error.raw_os_error())
}

impl Pool {
    fn available(&self) -> usize {
        let growth = if self.grows {
            self.limit.saturating_sub(self.files)
        } else {
            0
        };
        self.free.len() + growth
    }
}

impl Purpose {
    const fn held_back(self) -> usize {
        match self {
            Purpose::NewBlobs => HELD_FROM_BLOBS,
            Purpose::NewEntries => HELD_FROM_ENTRIES,
            Purpose::Moving => 0,
        }
    }
}
