//! What every part of the engine shares: disk, clock, index, segments, lanes, counters; and the two questions asked
//! everywhere: what is the hash of this key, and which record is the newest of it.
//!
//! Lock order: `Space` before nothing; index shards and the segment table are leaves, never held across I/O.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher as _,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::sync::mpsc;
use zimcache_store::{Error, Result};
use zimcache_types::{Clock, Namespace};

use super::{
    buffers::Buffers,
    codec::Codec,
    disk::Disk,
    hot::Hot,
    index::Index,
    lane::Message,
    leases::LeaseClock,
    ledger::Ledger,
    meta::Meta,
    pins::Pinned,
    read::read_around_cache,
    record::{self, Encoding, Header, KeyClass, Kind, flag},
    retention::{Keeping, version_at},
    segment::{Segment, SegmentTable},
    slot::{self, KeyHash, Location, View},
    space::Space,
};

/// Milliseconds in a tick of the index's touch times.
pub(crate) const TICK_MILLIS: u64 = 4 * 60 * 1000;
/// How long a lease is kept, in ticks: 12 h, of which 4 h are promised to whoever hears of it last.
pub(crate) const LEASE_TICKS: u16 = 12 * 15;

/// The four streams of writes; each has its own open segment, thread and sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum LaneId {
    /// New blobs up to [`Geometry::small_bytes`], and manifests.
    Small = 0,
    /// Larger new blobs and parts.
    Bulk = 1,
    /// Entries, tombstones, namespaces.
    Entries = 2,
    /// Survivors of reclaimed blob segments.
    Main = 3,
}

impl LaneId {
    pub(crate) const ALL: [LaneId; 4] =
        [LaneId::Small, LaneId::Bulk, LaneId::Entries, LaneId::Main];
}

/// Sizes that follow from the segment size.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_field_names, reason = "every field says its unit")]
pub(crate) struct Geometry {
    pub(crate) segment_bytes: u64,
    /// Payload of one part; also the largest blob that is one record.
    pub(crate) part_bytes: usize,
    /// Most bytes of one group of records written and synced at once.
    pub(crate) group_bytes: usize,
    /// Largest blob that travels in pieces through the small lane.
    pub(crate) small_bytes: usize,
    /// Largest entry value kept inside its record.
    pub(crate) inline_bytes: usize,
}

impl Geometry {
    pub(crate) fn new(segment_bytes: u64) -> Geometry {
        let part_bytes = (segment_bytes as usize / 8).min(record::MAX_PAYLOAD);
        Geometry {
            segment_bytes,
            part_bytes,
            group_bytes: (segment_bytes as usize / 4).min(super::batch::MAX_BYTES),
            small_bytes: (part_bytes / 2).min(128 << 10),
            inline_bytes: (part_bytes / 2).min(64 << 10),
        }
    }
}

/// Counters since start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) evicted_records: AtomicU64,
    pub(crate) evicted_bytes: AtomicU64,
    pub(crate) expired_records: AtomicU64,
    pub(crate) leases_broken: AtomicU64,
    pub(crate) corrupt_records: AtomicU64,
}

/// The engine's common state.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meta: Meta,
    pub(crate) geometry: Geometry,
    pub(crate) index: Index,
    pub(crate) segments: SegmentTable,
    pub(crate) space: Space,
    pub(crate) lanes: [mpsc::Sender<Message>; 4],
    pub(crate) buffers: Buffers,
    pub(crate) hot: Hot,
    pub(crate) codec: Codec,
    pub(crate) counters: Counters,
    pub(crate) ledger: Ledger,
    pub(crate) keeping: Keeping,
    /// Namespace names and their numbers.
    pub(crate) namespaces: RwLock<HashMap<Namespace, u32>>,
    /// Highest namespace number given, 0 before the first since start; one naming at a time.
    pub(crate) numbering: tokio::sync::Mutex<u32>,
    /// Uploads under way: their parts have no manifest yet and must not be reclaimed.
    pub(crate) uploads: Mutex<HashSet<[u8; 16]>>,
    /// Values in parts that are being read, and by how many: their parts must not be reclaimed.
    pub(crate) reading: Mutex<HashMap<[u8; 16], u32>>,
    pub(crate) last_version: AtomicU64,
    /// Highest version that somebody else gave an entry.
    pub(crate) given: AtomicU64,
    /// What must stay until it is settled.
    pub(crate) pinned: Pinned,
    /// Set once when a sync failed twice: why writes are refused.
    pub(crate) read_only: OnceLock<&'static str>,
    /// Generations of segments on which a write or sync failed: readable, never written again.
    pub(crate) quarantined: Mutex<HashSet<u64>>,
    /// Generations of segments whose table of contents found no room on a full disk: fine but for that.
    pub(crate) unsealable: Mutex<HashSet<u64>>,
    /// Leases of this age in ticks or older have ended; [`LEASE_TICKS`], or less while the store is full of them.
    pub(crate) lease_ticks: AtomicU16,
    /// Generation at which leases were last surveyed.
    pub(crate) surveyed_at: AtomicU64,
    /// One reclaim, gc or verify at a time.
    pub(crate) reclaiming: Mutex<()>,
    /// Released segments that somebody still reads from.
    pub(crate) draining: Mutex<Vec<Arc<Segment>>>,
    /// Damaged records found at opening, until a verification has reported them.
    pub(crate) damaged_at_open: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) maintenance: crossbeam_channel::Sender<super::maintenance::Task>,
}

/// A key as records carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) class: KeyClass,
    pub(crate) function: u8,
    pub(crate) namespace: u32,
    pub(crate) part: u32,
    pub(crate) bytes: [u8; 32],
}

impl Key {
    /// The key of the record with this header.
    pub(crate) fn of(header: &Header) -> Key {
        let class = header.kind.class();
        Key {
            class,
            function: header.function,
            namespace: header.namespace,
            part: if class == KeyClass::Part {
                header.part
            } else {
                0
            },
            bytes: header.key,
        }
    }
}

/// The newest record of a key.
#[derive(Debug, Clone)]
pub(crate) struct Newest {
    pub(crate) view: View,
    pub(crate) header: Header,
    pub(crate) segment: Arc<Segment>,
}

impl Shared {
    /// The keyed hash of a key.
    pub(crate) fn hash(&self, key: &Key) -> KeyHash {
        hash_key(&self.meta.hash_key, key)
    }

    /// A version higher than any before.
    pub(crate) fn next_version(&self) -> u64 {
        let now = version_at(self.clock.now().0);
        let bump = |last: u64| Some(now.max(last + 1));
        match self.last_version.fetch_update(Relaxed, Relaxed, bump) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }

    /// Highest version that somebody else gave an entry: by a clock that may be ahead of the one here.
    pub(crate) fn highest_given(&self) -> u64 {
        self.given.load(Relaxed)
    }

    /// Notes a version that somebody else gave. It does not set the clock here: leases and ages go by that.
    pub(crate) fn note_given(&self, version: u64) {
        self.given.fetch_max(version, Relaxed);
    }

    /// Refuses when the store takes no writes.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if let Some(why) = self.read_only.get() {
            return Err(Error::ReadOnly(why));
        }
        if self.stopping.load(Relaxed) {
            return Err(Error::Stopping);
        }
        Ok(())
    }

    /// Refuses when a lane may not write any more. Unlike [`Shared::check_writable`], a stopping store still writes.
    pub(crate) fn check_writable_for_lanes(&self) -> Result<()> {
        self.read_only
            .get()
            .map_or(Ok(()), |why| Err(Error::ReadOnly(why)))
    }

    /// The highest generation in which an older version of a key deleted now may lie. Some slack covers segments
    /// taken into use while the tombstone is being written.
    pub(crate) fn tombstone_fence(&self) -> u64 {
        self.space.generation() + 16
    }

    /// Asks for maintenance soon; it also comes by itself every second.
    pub(crate) fn wake_maintenance(&self) {
        self.maintenance
            .try_send(super::maintenance::Task::Look)
            .ok();
    }

    /// Reads a record's header from the disk, waiting for it; `None` when it is not (or no longer) there.
    pub(crate) fn read_header(
        &self,
        location: Location,
    ) -> io::Result<Option<(Arc<Segment>, Header)>> {
        let Some(segment) = self.segments.get(location.segment) else {
            return Ok(None);
        };
        let mut bytes = [0; record::HEADER + 4 * 17];
        let read = segment.file.read_at(&mut bytes, location.offset)?;
        let open = |bytes: &[u8]| record::open(bytes, segment.salt, location.offset);
        let header = match open(&bytes[..read]) {
            Some(header) => Some(header),
            None => read_around_cache(&segment, location.offset, bytes.len())?
                .and_then(|again| open(&again)),
        };
        Ok(header.map(|header| (segment, header)))
    }

    /// The newest record of a key, waiting for the disk; its header was read and compared. Tombstones are found too.
    pub(crate) fn newest(&self, key: &Key, hash: KeyHash) -> Result<Option<Newest>> {
        for view in self.index.find(hash).iter() {
            let read = self.read_header(view.location);
            let read = read.map_err(|error| Error::disk("read a record's header", error))?;
            match read {
                Some((segment, header)) if Key::of(&header) == *key => {
                    return Ok(Some(Newest {
                        view,
                        header,
                        segment,
                    }));
                }
                Some(_) => {}
                None => self.forget_if_unreadable(hash, view.location),
            }
        }
        Ok(None)
    }

    /// A slot whose record's header does not pass: gone if the slot still points there.
    pub(crate) fn forget_if_unreadable(&self, hash: KeyHash, location: Location) {
        let still_there = self
            .index
            .find(hash)
            .iter()
            .any(|view| view.location == location);
        let in_use = self.segments.get(location.segment).is_some();
        if still_there && in_use && matches!(self.read_header(location), Ok(None)) {
            self.lose(hash, location, "header");
        }
    }

    /// A record failed verification: it is not served again, and people are told.
    pub(crate) fn lose(&self, hash: KeyHash, location: Location, what: &'static str) {
        self.lose_sized(hash, location, what, None);
    }

    /// [`Shared::lose`] of a record whose value is known to have so many bytes.
    pub(crate) fn lose_sized(
        &self,
        hash: KeyHash,
        location: Location,
        what: &'static str,
        value_bytes: Option<u64>,
    ) {
        if let Some(view) = self.index.remove(hash, location) {
            self.segments.sub_live(location.segment, view.size.bytes());
            self.pins_lost(&view, value_bytes);
            self.counters.corrupt_records.fetch_add(1, Relaxed);
            tracing::error!(
                segment = location.segment,
                offset = location.offset,
                what,
                "a record failed verification and is no longer served"
            );
        }
    }

    /// Removes a live record from the index; the bytes in its segment are dead from now on.
    pub(crate) fn forget(&self, hash: KeyHash, location: Location) -> Option<View> {
        self.forget_sized(hash, location, None)
    }

    /// [`Shared::forget`] of a record whose value is known to have so many bytes.
    pub(crate) fn forget_sized(
        &self,
        hash: KeyHash,
        location: Location,
        value_bytes: Option<u64>,
    ) -> Option<View> {
        let view = self.index.remove(hash, location)?;
        self.segments.sub_live(location.segment, view.size.bytes());
        self.pins_lost(&view, value_bytes);
        Some(view)
    }

    /// Makes a synced record the newest of its key, unless a newer one is there already. Waits for the disk only
    /// when the key, or one with its fingerprint, is known already.
    pub(crate) fn publish(&self, hash: KeyHash, header: &Header, location: Location) -> Result<()> {
        let clock = self.lease_clock();
        let new = new_view(header, location, clock);
        loop {
            let Some(old) = self.newest(&Key::of(header), hash)? else {
                self.add(hash, new);
                self.ledger.add(header);
                self.pins_came(&new, header);
                return Ok(());
            };
            if old.header.stamp() > header.stamp() {
                return Ok(());
            }
            if let Some(before) = self.index.replace(hash, old.view.location, new, clock) {
                self.pins_went(&before, &old.header);
                self.pins_came(&new, header);
                self.segments
                    .sub_live(old.view.location.segment, old.view.size.bytes());
                self.segments.add_live(location.segment, new.size.bytes());
                self.ledger.sub(&old.header);
                self.ledger.add(header);
                self.forget_parts(&old);
                return Ok(());
            }
        }
    }

    /// Adds a slot for a key that has none.
    pub(crate) fn add(&self, hash: KeyHash, view: View) {
        self.segments
            .add_live(view.location.segment, view.size.bytes());
        let clock = self.lease_clock();
        if let Some(dropped) = self.index.insert(hash, view, clock) {
            self.segments
                .sub_live(dropped.location.segment, dropped.size.bytes());
            self.counters.evicted_records.fetch_add(1, Relaxed);
            self.counters
                .evicted_bytes
                .fetch_add(dropped.size.bytes() as u64, Relaxed);
            let broken = u64::from(clock.holds(&dropped));
            self.counters.leases_broken.fetch_add(broken, Relaxed);
        }
    }
}

/// The slot of a record that was just written.
pub(crate) fn new_view(header: &Header, location: Location, clock: LeaseClock) -> View {
    let mut view = View::new(location, header.record_len(), slot_kind(header.kind));
    view.touch = clock.now;
    view.set_pins(header.pins());
    view.keep = is_kept(header);
    view.tombstone = header.is_tombstone();
    view.leased = header.flags & flag::LEASED != 0;
    view.size_low = (header.raw_size & slot::SIZE_LOW_MASK) as u8;
    view
}

/// Whether a record must not leave the index, however full that is.
pub(crate) fn is_kept(header: &Header) -> bool {
    header.flags & flag::KEEP != 0 || header.is_note() || header.kind == Kind::Namespace
}

/// The kind of slot a kind of record has.
pub(crate) const fn slot_kind(kind: Kind) -> slot::Kind {
    match kind {
        Kind::Blob => slot::Kind::Blob,
        Kind::Part => slot::Kind::Part,
        Kind::Manifest => slot::Kind::Manifest,
        Kind::Entry | Kind::EntryManifest | Kind::Namespace => slot::Kind::Entry,
    }
}

/// The tick in which a wall-clock time lies.
pub(crate) const fn tick_of(millis: u64) -> u16 {
    (millis / TICK_MILLIS) as u16
}

/// The keyed hash of a key.
pub(crate) fn hash_key(secret: &[u8; 16], key: &Key) -> KeyHash {
    let mut bytes = [0; 42];
    bytes[0] = key.class as u8;
    bytes[1] = key.function;
    bytes[2..6].copy_from_slice(&key.namespace.to_le_bytes());
    bytes[6..10].copy_from_slice(&key.part.to_le_bytes());
    bytes[10..].copy_from_slice(&key.bytes);
    let mut hasher = SipHasher13::new_with_key(secret);
    hasher.write(&bytes);
    KeyHash(hasher.finish128().as_u128())
}

impl View {
    /// What is known of a record whose header has rotted.
    pub(crate) fn header_of_unreadable(&self, version: u64) -> Header {
        let front = record::HEADER + 4;
        Header {
            kind: match self.kind {
                slot::Kind::Blob => Kind::Blob,
                slot::Kind::Part => Kind::Part,
                slot::Kind::Manifest => Kind::Manifest,
                slot::Kind::Entry => Kind::Entry,
            },
            function: 0,
            encoding: Encoding::Identity,
            flags: if self.tombstone { flag::TOMBSTONE } else { 0 },
            namespace: 0,
            part: 0,
            stored: self
                .size
                .bytes()
                .saturating_sub(front)
                .min(record::MAX_PAYLOAD) as u32,
            raw_size: 0,
            version,
            writer: 0,
            writing: 0,
            key: [0; 32],
        }
    }
}
