//! Reused memory: pages for bodies being uploaded (bounded, waited for) and read buffers (kept, up to a bound).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zimcache_store::{Error, Result};

use super::{
    batch,
    checksum::block_count,
    page::{PAGE, PageBuf},
    record,
};

/// Bytes of a pooled read buffer: one read of a large value, with its record's header.
pub(crate) const READ_BYTES: usize = 256 << 10;
const READ_CAPACITY: usize = READ_BYTES + 2 * PAGE;
/// Read buffers kept for reuse.
const READS_KEPT: usize = 64;
/// Buffers for whole decoded records kept for reuse.
const LARGE_KEPT: usize = 16;
/// Smallest read that uses a pooled buffer.
const POOLED_FROM: usize = 16 << 10;

/// All reused memory of a store.
#[derive(Debug)]
pub(crate) struct Buffers {
    part_pages: usize,
    part_bytes: usize,
    parts: Arc<Mutex<Vec<PageBuf>>>,
    parts_left: Arc<Semaphore>,
    small_left: Arc<Semaphore>,
    reads: Arc<Pool>,
    large: Arc<Pool>,
}

/// Units of the semaphore for small bodies.
const SMALL_UNIT: usize = 1 << 10;

impl Buffers {
    /// Memory for uploads of `upload_bytes` in all, in parts of `part_bytes`.
    pub(crate) fn new(upload_bytes: u64, part_bytes: usize) -> Buffers {
        let front = batch::HEADER + record::HEADER + 4 * block_count(part_bytes);
        let part_pages = (front + part_bytes).div_ceil(PAGE);
        let parts = (upload_bytes as usize * 3 / 4 / (part_pages * PAGE)).max(4);
        let small = (upload_bytes as usize / 4 / SMALL_UNIT).max(2 * part_bytes / SMALL_UNIT);
        Buffers {
            part_pages,
            part_bytes,
            parts: Arc::default(),
            parts_left: Arc::new(Semaphore::new(parts)),
            small_left: Arc::new(Semaphore::new(small)),
            reads: Pool::new(READ_CAPACITY, READS_KEPT),
            large: Pool::new(record::MAX_PAYLOAD, LARGE_KEPT),
        }
    }

    /// Waits for the memory of one part.
    pub(crate) async fn part(&self) -> Result<PartBuf> {
        let permit = Arc::clone(&self.parts_left).acquire_owned().await;
        Ok(self.part_with(permit.map_err(|_| Error::Stopping)?))
    }

    /// The memory of one part, if there is some now.
    pub(crate) fn part_at_once(&self) -> Option<PartBuf> {
        let permit = Arc::clone(&self.parts_left).try_acquire_owned().ok()?;
        Some(self.part_with(permit))
    }

    fn part_with(&self, permit: OwnedSemaphorePermit) -> PartBuf {
        let pages = self
            .parts
            .lock()
            .pop()
            .unwrap_or_else(|| PageBuf::zeroed(self.part_pages));
        let home = Arc::clone(&self.parts);
        PartBuf {
            pages: Some(pages),
            filled: 0,
            capacity: self.part_bytes,
            placed: false,
            home,
            _permit: permit,
        }
    }

    /// Waits for the memory of a small body; held until the permit is dropped.
    pub(crate) async fn small(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(SMALL_UNIT).max(1) as u32;
        let permit = Arc::clone(&self.small_left).acquire_many_owned(units).await;
        permit.map_err(|_| Error::Stopping)
    }

    /// Fills a buffer of `length` bytes by `read`, which says how many bytes it got, and gives those out as `Bytes`.
    pub(crate) fn read<E>(
        &self,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
    ) -> Result<Option<Bytes>, E> {
        if !(POOLED_FROM..=record::MAX_PAYLOAD).contains(&length) {
            let mut buffer = vec![0; length];
            let Some(got) = read(&mut buffer)? else {
                return Ok(None);
            };
            buffer.truncate(got);
            return Ok(Some(buffer.into()));
        }
        let pool = if length <= READ_CAPACITY {
            &self.reads
        } else {
            &self.large
        };
        let mut buffer = pool.take();
        let Some(got) = read(&mut buffer.bytes[..length])? else {
            return Ok(None);
        };
        Ok(Some(Bytes::from_owner(buffer).slice(..got)))
    }
}

/// Memory of one part, with room for batch header, record header and checksums in front of the payload.
pub(crate) struct PartBuf {
    pages: Option<PageBuf>,
    filled: usize,
    capacity: usize,
    /// Whether the payload was moved to where its final size wants it.
    placed: bool,
    home: Arc<Mutex<Vec<PageBuf>>>,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for PartBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartBuf({} of {} bytes)", self.filled, self.capacity)
    }
}

impl PartBuf {
    /// Payload bytes in it.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Whether no more fits.
    pub(crate) const fn is_full(&self) -> bool {
        self.filled == self.capacity
    }

    /// The payload as received.
    pub(crate) fn payload(&self) -> &[u8] {
        let at = payload_at(self.capacity);
        let pages = self.pages.as_ref();
        pages.map_or(&[], |pages| &pages.bytes()[at..at + self.filled])
    }

    /// Puts a shorter payload in the place of what was received.
    pub(crate) fn replace(&mut self, payload: &[u8]) {
        let at = payload_at(payload.len());
        if let Some(pages) = &mut self.pages {
            pages.bytes_mut()[at..at + payload.len()].copy_from_slice(payload);
            (self.filled, self.placed) = (payload.len(), true);
        }
    }

    /// Takes as much of `chunk` as fits; says how much.
    pub(crate) fn fill(&mut self, chunk: &[u8]) -> usize {
        let at = payload_at(self.capacity) + self.filled;
        let taken = chunk.len().min(self.capacity - self.filled);
        if let Some(pages) = &mut self.pages {
            pages.bytes_mut()[at..at + taken].copy_from_slice(&chunk[..taken]);
            self.filled += taken;
        }
        taken
    }

    /// The buffer as a batch of one record: the payload in its place, headers still to be written. Says how many
    /// bytes of it make whole pages.
    pub(crate) fn as_batch(&mut self) -> (&mut PageBuf, usize) {
        let (from, to) = (payload_at(self.capacity), payload_at(self.filled));
        let filled = self.filled;
        let pages = self.pages.get_or_insert_with(|| PageBuf::zeroed(1));
        let bytes = pages.bytes_mut();
        if from != to && !self.placed {
            bytes.copy_within(from..from + filled, to);
        }
        self.placed = true;
        let end = (to + filled).next_multiple_of(PAGE);
        bytes[to + filled..end].fill(0);
        (pages, end)
    }
}

/// Where in a part's buffer a payload of this length starts.
const fn payload_at(payload_bytes: usize) -> usize {
    batch::HEADER + record::HEADER + 4 * block_count(payload_bytes)
}

impl Drop for PartBuf {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.home.lock().push(pages);
        }
    }
}

/// Buffers of one size.
#[derive(Debug)]
struct Pool {
    capacity: usize,
    most_kept: usize,
    kept: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    fn new(capacity: usize, most_kept: usize) -> Arc<Pool> {
        Arc::new(Pool {
            capacity,
            most_kept,
            kept: Mutex::default(),
        })
    }

    fn take(self: &Arc<Self>) -> Pooled {
        let kept = self.kept.lock().pop();
        let bytes = kept.unwrap_or_else(|| vec![0; self.capacity].into_boxed_slice());
        Pooled {
            bytes,
            home: Arc::clone(self),
        }
    }
}

struct Pooled {
    bytes: Box<[u8]>,
    home: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut kept = self.home.kept.lock();
        if kept.len() < self.home.most_kept {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
