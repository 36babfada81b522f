//! Opening and closing an engine: meta file, limits, recovery, threads.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use zimcache_config::StoreConfig;
use zimcache_store::Retention;
use zimcache_types::{ByteSize, Clock};

use super::{
    buffers::Buffers,
    codec::Codec,
    disk::Disk,
    hot::Hot,
    index::Index,
    lane::{Lane, Message, QUEUE},
    ledger::Ledger,
    maintenance::{self, Task},
    meta::{self, Found, Meta},
    page::PAGE,
    pins::Pinned,
    recovery::{self, Files, InUse, Recovered},
    retention::Keeping,
    scrub::Scrub,
    segment::SegmentTable,
    shared::{Counters, Geometry, LEASE_TICKS, LaneId, Shared},
    slot::MAX_SEGMENTS,
    space::Space,
};

/// Fewest segments a store works with: open ones, held-back ones, and some to choose from.
const MIN_SEGMENTS: u64 = 14;
/// Smallest store.
const MIN_CAPACITY: ByteSize = ByteSize::mib(64);
/// Generations skipped at every opening, so that one handed out before a crash and never seen is not used again.
const GENERATION_GAP: u64 = 64;
/// Free space left to others on a disk that is smaller than the limit, in parts of 100.
const DISK_MARGIN_PERCENT: u64 = 5;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store was made by a version with another disk format.
    #[error(
        "the store has format {found}, this version reads format {}; use the version that wrote it, or an empty directory",
        meta::FORMAT
    )]
    Format {
        /// Format on the disk.
        found: u32,
    },
    /// The file that says what the store is fails its checksum, and there are segments.
    #[error(
        "{} is damaged and the directory has segment files; restore it, or move the directory away to start afresh",
        meta::NAME
    )]
    MetaDamaged,
    /// Less room than the smallest store needs.
    #[error(
        "the store would have {available} (limit {limit}, and what the disk has free), but needs at least {needed}; raise max-size or free disk space"
    )]
    TooSmall {
        /// Room there is.
        available: ByteSize,
        /// The configured limit.
        limit: ByteSize,
        /// Room needed.
        needed: ByteSize,
    },
    /// The segment size is not usable.
    #[error("segment-size {0} is not a power of two from 1MiB to 256MiB")]
    SegmentSize(ByteSize),
    /// A disk operation failed.
    #[error("cannot {action}")]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// What was found when the store was opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenReport {
    /// Most bytes the store may take: the configured limit, or less on a fuller disk.
    pub capacity_bytes: u64,
    /// Live blobs found.
    pub blobs: u64,
    /// Live entries found.
    pub entries: u64,
    /// Bytes of live records found.
    pub live_bytes: u64,
    /// How long opening took.
    pub recovery: Duration,
    /// Whether the last stop was clean: no segment had to be scanned.
    pub clean: bool,
    /// Damaged records found.
    pub damaged: u64,
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) report: OpenReport,
    lanes: Vec<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
    stop: crossbeam_channel::Sender<Task>,
}

impl Engine {
    /// Opens or makes the store on this disk, recovers it, and starts its threads.
    pub(crate) fn open(
        config: &StoreConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Engine, OpenError> {
        let started = clock.now();
        let failed = |action| move |source| OpenError::Disk { action, source };
        let meta = read_or_make_meta(config, disk.as_ref(), clock.as_ref())?;
        let files = recovery::find_files(disk.as_ref(), &meta)
            .map_err(failed("read the segments' headers"))?;
        let limit = segment_limit(config, disk.as_ref(), &meta, files.found.len())?;
        let (lane_ends, lane_queues): (Vec<_>, Vec<_>) =
            LaneId::ALL.iter().map(|_| mpsc::channel(QUEUE)).unzip();
        let (stop, tasks) = crossbeam_channel::bounded(16);
        let (shared, in_use) = build(
            config,
            disk,
            clock,
            meta,
            files,
            limit,
            &lane_ends,
            stop.clone(),
        );
        drop(lane_ends);
        let recovered = recovery::recover(&shared, in_use).map_err(failed("recover the store"))?;
        for id in &recovered.empty {
            if let Some(segment) = shared.segments.take(*id) {
                shared.space.give_back(*id, Arc::clone(&segment.file));
            }
        }
        shared.damaged_at_open.store(recovered.damaged, Relaxed);
        shared
            .counters
            .corrupt_records
            .store(recovered.damaged, Relaxed);
        shared.set_retention(Retention {
            default_ttl: config.retention,
            min_lifetime: config.min_lifetime,
            ..Retention::default()
        });
        let report = report(
            &shared,
            &recovered,
            limit,
            shared.clock.now().since(started),
        );
        let mut engine = Engine {
            shared,
            report,
            lanes: Vec::new(),
            maintenance: None,
            stop,
        };
        engine
            .start(lane_queues, &recovered, tasks, config.scrub_interval)
            .map_err(failed("start a thread"))?;
        Ok(engine)
    }

    fn start(
        &mut self,
        queues: Vec<mpsc::Receiver<Message>>,
        recovered: &Recovered,
        tasks: crossbeam_channel::Receiver<Task>,
        scrub_interval: Option<Duration>,
    ) -> io::Result<()> {
        for (id, queue) in LaneId::ALL.into_iter().zip(queues) {
            let last_batch = recovered.last_batch[id as usize];
            let lane = Lane::new(Arc::clone(&self.shared), id, queue, last_batch);
            let thread = std::thread::Builder::new().name(format!("lane-{id:?}").to_lowercase());
            self.lanes.push(thread.spawn(move || lane.run())?);
        }
        let shared = Arc::clone(&self.shared);
        let scrub = scrub_interval.map(Scrub::new);
        let thread = std::thread::Builder::new().name("maintenance".to_owned());
        self.maintenance = Some(thread.spawn(move || maintenance::run(&shared, &tasks, scrub))?);
        self.shared.wake_maintenance();
        Ok(())
    }

    /// Commits what is queued, seals what is open, stops the threads.
    pub(crate) fn close(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.space.stop();
        self.stop.send(Task::Stop).ok();
        if let Some(thread) = self.maintenance.take() {
            thread.join().ok();
        }
        for lane in &self.shared.lanes {
            // A full queue is being emptied: its lane runs until it is told to stop.
            while let Err(mpsc::error::TrySendError::Full(_)) = lane.try_send(Message::Stop) {
                std::thread::yield_now();
            }
        }
        for thread in self.lanes.drain(..) {
            thread.join().ok();
        }
        self.shared.seal_closed();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.maintenance.is_some() {
            self.close();
        }
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "assembles the one shared state; each argument is a component"
)]
fn build(
    config: &StoreConfig,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    meta: Meta,
    files: Files,
    limit: usize,
    lane_ends: &[mpsc::Sender<Message>],
    maintenance: crossbeam_channel::Sender<Task>,
) -> (Arc<Shared>, InUse) {
    let geometry = Geometry::new(meta.segment_bytes);
    let generation = files.generation + GENERATION_GAP;
    let space = Space::new(
        Arc::clone(&disk),
        meta.hash_key,
        limit,
        &files.found,
        files.free,
        generation,
    );
    let index_bytes = config
        .index_memory
        .map_or_else(default_index_bytes, ByteSize::as_u64);
    let shared = Shared {
        clock,
        meta,
        geometry,
        index: Index::new(index_bytes),
        segments: SegmentTable::default(),
        space,
        lanes: [0, 1, 2, 3].map(|lane: usize| lane_ends[lane].clone()),
        buffers: Buffers::new(config.upload_memory.as_u64(), geometry.part_bytes),
        hot: Hot::new(config.hot_memory.as_u64()),
        codec: Codec::new(config.compression),
        counters: Counters::default(),
        ledger: Ledger::default(),
        keeping: Keeping::default(),
        namespaces: RwLock::new(HashMap::new()),
        numbering: tokio::sync::Mutex::new(0),
        uploads: Mutex::new(HashSet::new()),
        reading: Mutex::new(HashMap::new()),
        last_version: AtomicU64::new(0),
        given: AtomicU64::new(0),
        pinned: Pinned::default(),
        read_only: OnceLock::new(),
        quarantined: Mutex::new(HashSet::new()),
        unsealable: Mutex::new(HashSet::new()),
        lease_ticks: AtomicU16::new(LEASE_TICKS),
        surveyed_at: AtomicU64::new(0),
        reclaiming: Mutex::new(()),
        draining: Mutex::new(Vec::new()),
        damaged_at_open: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        maintenance,
        disk,
    };
    (Arc::new(shared), files.in_use)
}

fn report(shared: &Shared, recovered: &Recovered, limit: usize, recovery: Duration) -> OpenReport {
    OpenReport {
        capacity_bytes: limit as u64 * shared.geometry.segment_bytes,
        blobs: shared.blob_count(),
        entries: shared.entry_count(),
        live_bytes: shared.live_bytes(),
        recovery,
        clean: recovered.scanned == 0,
        damaged: recovered.damaged,
    }
}

/// Reads `store.meta`; makes it in an empty folder.
fn read_or_make_meta(
    config: &StoreConfig,
    disk: &dyn Disk,
    clock: &dyn Clock,
) -> Result<Meta, OpenError> {
    let failed = |action| move |source| OpenError::Disk { action, source };
    if let Some(file) = disk
        .open(meta::NAME)
        .map_err(failed("open the store's meta file"))?
    {
        let mut bytes = vec![0; 2 * PAGE];
        let read = file
            .read_at(&mut bytes, 0)
            .map_err(failed("read the store's meta file"))?;
        match meta::decode(&bytes[..read]) {
            Found::Current(meta) if meta.format < meta::FORMAT => {
                return write_meta(
                    disk,
                    Meta {
                        format: meta::FORMAT,
                        ..meta
                    },
                );
            }
            Found::Current(meta) => return Ok(meta),
            Found::Format(found) => return Err(OpenError::Format { found }),
            Found::Damaged => {}
        }
    }
    // No file, or one that a crash left before it was whole: then there is no segment yet either.
    let names = disk.list().map_err(failed("list the store's files"))?;
    if names
        .iter()
        .any(|name| super::segment::parse_file_name(name).is_some())
    {
        return Err(OpenError::MetaDamaged);
    }
    make_meta(config, disk, clock)
}

fn make_meta(config: &StoreConfig, disk: &dyn Disk, clock: &dyn Clock) -> Result<Meta, OpenError> {
    let failed = |action| move |source| OpenError::Disk { action, source };
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| failed("get random bytes")(errno.into()))?;
    let (mut store_id, mut hash_key) = ([0; 16], [0; 16]);
    store_id.copy_from_slice(&random[..16]);
    hash_key.copy_from_slice(&random[16..]);
    let meta = Meta {
        store_id,
        hash_key,
        segment_bytes: segment_bytes(config)?,
        created_millis: clock.now().0,
        format: meta::FORMAT,
    };
    write_meta(disk, meta)
}

/// Writes both copies of the meta file; each lies in a page of its own, so one of old and new always passes.
fn write_meta(disk: &dyn Disk, meta: Meta) -> Result<Meta, OpenError> {
    let failed = |action| move |source| OpenError::Disk { action, source };
    let write = || {
        let file = match disk.open(meta::NAME)? {
            Some(file) => file,
            None => disk.create(meta::NAME)?,
        };
        file.write_at(&[meta::encode(&meta).as_pages()], 0)?;
        file.sync()?;
        disk.sync_names()
    };
    write().map_err(failed("write the store's meta file"))?;
    Ok(meta)
}

/// The segment size of a new store: the capacity's 128th part as a power of two, from 4 to 256 MiB.
fn segment_bytes(config: &StoreConfig) -> Result<u64, OpenError> {
    let Some(size) = config.segment_size else {
        let wanted = (config.max_size.as_u64() / 128).max(1);
        return Ok((1u64 << wanted.ilog2()).clamp(4 << 20, 256 << 20));
    };
    let bytes = size.as_u64();
    let usable = bytes.is_power_of_two() && (1 << 20..=256 << 20).contains(&bytes);
    if usable {
        Ok(bytes)
    } else {
        Err(OpenError::SegmentSize(size))
    }
}

/// How many segments the store may have: the configured limit, or what the disk can hold.
fn segment_limit(
    config: &StoreConfig,
    disk: &dyn Disk,
    meta: &Meta,
    files: usize,
) -> Result<usize, OpenError> {
    let free = disk.free_bytes().map_err(|source| OpenError::Disk {
        action: "ask for free disk space",
        source,
    })?;
    let held = files as u64 * meta.segment_bytes;
    let possible = held + free - free * DISK_MARGIN_PERCENT / 100;
    let effective = config.max_size.as_u64().min(possible);
    let limit =
        (effective.saturating_sub(2 * PAGE as u64) / meta.segment_bytes).min(MAX_SEGMENTS - 1);
    let needed = MIN_CAPACITY.as_u64().min(MIN_SEGMENTS * meta.segment_bytes);
    let configured = config.max_size.as_u64() / meta.segment_bytes;
    if limit < MIN_SEGMENTS && files > 0 && configured > MIN_SEGMENTS {
        // What the store holds is worth serving on a full disk; writes are refused until there is room.
        tracing::warn!(free_bytes = free, "the disk is full; the store cannot grow");
        return Ok(MIN_SEGMENTS as usize);
    }
    if limit < MIN_SEGMENTS {
        let needed = ByteSize(needed.max((MIN_SEGMENTS + 1) * meta.segment_bytes));
        return Err(OpenError::TooSmall {
            available: ByteSize(effective),
            limit: config.max_size,
            needed,
        });
    }
    Ok(limit as usize)
}

/// 2 % of the machine's RAM, at least 64 MiB.
fn default_index_bytes() -> u64 {
    let ram = rustix::system::sysinfo();
    #[allow(
        clippy::useless_conversion,
        reason = "the fields' width differs between targets"
    )]
    let total = u64::from(ram.totalram) * u64::from(ram.mem_unit);
    (total / 50).max(64 << 20)
}
