//! Rows of the store itself, without a server: durable writes and warm reads against one file per blob, and the
//! memory of the index.
//!
//! Both sides do the same duty: hash the body, compare it with the key, make it durable before they say so. Threads
//! may run on every core. A file per blob means create, write, fdatasync, rename, fsync of the folder.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use zimcache_config::StoreConfig;
use zimcache_node::{Node, RealDisk};
use zimcache_store::{BlobStore, ByteRange, CreateOptions, StoreStats, Touch};
use zimcache_types::{ByteSize, Digest, Function, Hasher, Namespace, SystemClock};

use super::{
    Bench,
    corpus::{Blob, Payload},
    machine,
    random::Random,
    result::Sample,
    rows::Row,
    scale,
    subject::Subject,
};

/// Size of the blobs that are read.
const READ_BYTES: u64 = 4 << 10;
/// How many there are.
const READ_BLOBS: usize = 5_000;
/// Blobs that one index filler writes at once, so that a sync carries many.
const BATCH: usize = 64;
/// Threads that fill the index.
const FILLERS: usize = 32;
/// Size of the blobs that fill the index.
const INDEX_BYTES: u64 = 64;

/// Durable writes in turn: our store, a file per blob.
pub(super) fn put(
    bench: &Bench,
    row: &Row,
    writers: usize,
    size: u64,
) -> Result<Vec<(String, Sample)>> {
    machine::unpin()?;
    let payload = Payload::new(size);
    let segments = Segments::open(&bench.folder(&row.id, Subject::Store), &payload, size)?;
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let blobs = payload.uniform(write_count(bench, size), size, round as u64);
        for subject in bench.chosen(row) {
            let sample = if subject == Subject::Store {
                let before = segments.stats();
                let raced = race(writers, blobs.len(), bench.scale.store_measure, |index| {
                    segments.put(&blobs[index])
                })?;
                let after = segments.stats();
                raced
                    .sample(subject, round)
                    .with("written_per_payload", amplification(&before, &after))
                    .with(
                        "syncs_per_s",
                        raced.per_second_of(after.syncs - before.syncs),
                    )
            } else {
                let files = Files::create(&bench.folder(&row.id, subject), &payload)?;
                let raced = race(writers, blobs.len(), bench.scale.store_measure, |index| {
                    files.put(&blobs[index])
                })?;
                files.remove()?;
                raced.sample(subject, round)
            };
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    machine::pin_generator()?;
    segments.close();
    Ok(samples)
}

/// Warm reads in turn: our store, a file per blob.
pub(super) fn get(bench: &Bench, row: &Row, readers: usize) -> Result<Vec<(String, Sample)>> {
    machine::unpin()?;
    let payload = Payload::new(READ_BYTES);
    let blobs = payload.uniform(READ_BLOBS, READ_BYTES, 0);
    let segments = Segments::open(&bench.folder(&row.id, Subject::Store), &payload, READ_BYTES)?;
    let files = Files::create(&bench.folder(&row.id, Subject::FilePerBlob), &payload)?;
    race(8, blobs.len(), Duration::from_mins(10), |index| {
        segments.put(&blobs[index])?;
        files.put(&blobs[index])
    })?;
    // Direct writes leave nothing in memory: the first read brings it there.
    race(8, blobs.len(), Duration::from_mins(10), |index| {
        segments.get(&blobs[index])?;
        files.get(&blobs[index])
    })?;
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let mut random = Random::new(round as u64);
        let order: Vec<usize> = (0..1 << 20)
            .map(|_| random.below(READ_BLOBS as u64) as usize)
            .collect();
        for subject in bench.chosen(row) {
            let read = |index: usize| {
                let blob = &blobs[order[index & (order.len() - 1)]];
                if subject == Subject::Store {
                    segments.get(blob)
                } else {
                    files.get(blob)
                }
            };
            let raced = race(readers, usize::MAX, bench.scale.store_measure, read)?;
            let sample = raced.sample(subject, round);
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    machine::pin_generator()?;
    segments.close();
    Ok(samples)
}

/// Index memory per entry, as the store reports it and as the process grows.
pub(super) fn index(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    machine::unpin()?;
    let payload = Payload::new(INDEX_BYTES);
    let folder = bench.folder(&row.id, Subject::Store);
    let segments = Segments::open(&folder, &payload, INDEX_BYTES)?;
    let pid = std::process::id();
    let empty = machine::settled_rss_bytes(pid)?;
    let start = Instant::now();
    let mut filled = 0;
    while filled < bench.scale.index_entries {
        let count = (bench.scale.index_entries - filled).min(1 << 20);
        segments.fill(&payload.uniform(count, INDEX_BYTES, filled as u64))?;
        filled += count;
    }
    let seconds = start.elapsed().as_secs_f64();
    machine::pin_generator()?;
    let resident = machine::settled_rss_bytes(pid)?;
    let stats = segments.stats();
    ensure!(
        stats.blobs == filled as u64,
        "the store holds {} of {filled} blobs",
        stats.blobs
    );
    segments.close();
    let start = Instant::now();
    Segments::open(&folder, &payload, INDEX_BYTES)?.close();
    let entries = filled as f64;
    let sample = Sample::new(row.judged, 0, stats.index_bytes as f64 / entries)
        .with("entries", entries)
        .with("fill_s", seconds)
        .with("disk_bytes_per_entry", stats.disk_bytes as f64 / entries)
        .with(
            "process_bytes_per_entry",
            (resident as f64 - empty as f64) / entries,
        )
        .with("open_and_close_s", start.elapsed().as_secs_f64());
    bench.say(&row.id, row.unit, &sample);
    Ok(vec![(row.id.clone(), sample)])
}

/// More writes than either side manages in the time.
fn write_count(bench: &Bench, size: u64) -> usize {
    let most_per_second = 200_000.0_f64.min((4_u64 << 30) as f64 / size as f64);
    scale::whole(bench.scale.store_measure.as_secs_f64() * most_per_second) as usize
}

fn amplification(before: &StoreStats, after: &StoreStats) -> f64 {
    let written = after.written_disk_bytes - before.written_disk_bytes;
    let payload = after.written_payload_bytes - before.written_payload_bytes;
    written as f64 / payload.max(1) as f64
}

/// Our store, called directly.
pub(super) struct Segments {
    node: Node,
    blobs: Arc<dyn BlobStore>,
    runtime: Runtime,
    namespace: Namespace,
    shared: Bytes,
}

impl Segments {
    /// Opens a new store for blobs of this size.
    pub(super) fn open(folder: &Path, payload: &Payload, size: u64) -> Result<Segments> {
        fs::create_dir_all(folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let config = StoreConfig {
            max_size: ByteSize::gib(16),
            index_memory: Some(ByteSize::gib(1)),
            scrub_interval: None,
            ..StoreConfig::default()
        };
        let disk = Arc::new(RealDisk::open(folder, config.direct_io)?);
        let node = Node::open(&config, disk, Arc::new(SystemClock))?;
        Ok(Segments {
            blobs: node.blobs(),
            node,
            runtime,
            namespace: Namespace::default(),
            shared: Bytes::copy_from_slice(payload.shared(size)),
        })
    }

    fn stats(&self) -> StoreStats {
        self.node.admin().stats()
    }

    async fn write(&self, blob: &Blob) -> Result<()> {
        let digest = Digest::sized(blob.hash, blob.length);
        let options = CreateOptions::default();
        let mut writer = self.blobs.create(&self.namespace, &digest, options).await?;
        writer.write(self.shared.clone()).await?;
        writer
            .write(Bytes::copy_from_slice(blob.tail().as_bytes()))
            .await?;
        writer.commit().await?;
        Ok(())
    }

    fn put(&self, blob: &Blob) -> Result<()> {
        self.runtime.block_on(self.write(blob))
    }

    fn put_together(&self, blobs: &[Blob]) -> Result<()> {
        let writes = blobs.iter().map(|blob| self.write(blob));
        self.runtime
            .block_on(futures_util::future::join_all(writes))
            .into_iter()
            .collect()
    }

    /// Writes many blobs, as fast as they go.
    pub(super) fn fill(&self, blobs: &[Blob]) -> Result<()> {
        let batches: Vec<&[Blob]> = blobs.chunks(BATCH).collect();
        race(FILLERS, batches.len(), Duration::from_hours(1), |index| {
            self.put_together(batches[index])
        })?;
        Ok(())
    }

    /// Which of these are missing; the others are under a lease afterwards.
    pub(super) fn missing(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        let asked = self.blobs.missing(&self.namespace, digests, Touch::Lease);
        Ok(self.runtime.block_on(asked)?)
    }

    fn get(&self, blob: &Blob) -> Result<()> {
        let digest = Digest::sized(blob.hash, blob.length);
        let body = self.runtime.block_on(async {
            let reader = self
                .blobs
                .open(&self.namespace, &digest, ByteRange::Full)
                .await?;
            reader
                .context("a blob is gone")?
                .read_all(blob.length)
                .await
                .map_err(anyhow::Error::from)
        })?;
        ensure!(body.len() as u64 == blob.length, "a blob was cut short");
        Ok(())
    }

    /// Stops it.
    pub(super) fn close(self) {
        drop(self.blobs);
        self.node.close();
    }
}

/// One file per blob.
struct Files<'a> {
    root: PathBuf,
    payload: &'a Payload,
}

impl<'a> Files<'a> {
    fn create(root: &Path, payload: &'a Payload) -> Result<Files<'a>> {
        for byte in 0..=255 {
            fs::create_dir_all(root.join(format!("{byte:02x}")))?;
        }
        Ok(Files {
            root: root.to_owned(),
            payload,
        })
    }

    fn place(&self, blob: &Blob) -> (PathBuf, String) {
        let name = blob.hash.to_hex();
        (self.root.join(&name[..2]), name)
    }

    fn put(&self, blob: &Blob) -> Result<()> {
        let (folder, name) = self.place(blob);
        let tail = blob.tail();
        let pieces = [self.payload.shared(blob.length), tail.as_bytes()];
        let mut hasher = Hasher::new(Function::Sha256);
        let temporary = folder.join(format!("{name}.new"));
        let mut file = File::create(&temporary)?;
        for piece in pieces {
            hasher.update(piece);
            file.write_all(piece)?;
        }
        ensure!(hasher.finish() == blob.hash, "a body does not fit its key");
        file.sync_data()?;
        fs::rename(&temporary, folder.join(&name))?;
        File::open(&folder)?.sync_all()?;
        Ok(())
    }

    fn get(&self, blob: &Blob) -> Result<()> {
        let (folder, name) = self.place(blob);
        let mut body = vec![0; blob.length as usize];
        File::open(folder.join(name))?.read_exact(&mut body)?;
        Ok(())
    }

    fn remove(self) -> Result<()> {
        fs::remove_dir_all(self.root)?;
        Ok(())
    }
}

/// What several threads did together.
struct Raced {
    done: u64,
    elapsed: Duration,
    latency: Histogram<u64>,
}

impl Raced {
    fn per_second_of(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    fn sample(&self, subject: Subject, round: usize) -> Sample {
        let micros = |percentile| self.latency.value_at_percentile(percentile) as f64 / 1e3;
        Sample::new(subject, round, self.per_second_of(self.done))
            .with("p50_us", micros(50.0))
            .with("p99_us", micros(99.0))
    }
}

/// Threads take the numbers 0, 1, 2 ... in turn until `count` or the time is reached.
fn race(
    threads: usize,
    count: usize,
    limit: Duration,
    act: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Raced> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let work = || -> Result<Histogram<u64>> {
        let mut latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
        let mut before = Instant::now();
        while before.duration_since(start) < limit {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            act(index)?;
            let now = Instant::now();
            latency.saturating_record(now.duration_since(before).as_nanos() as u64);
            before = now;
        }
        Ok(latency)
    };
    let mut latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let own = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread failed"))??;
            latency.add(own)?;
        }
        Ok(())
    })?;
    Ok(Raced {
        done: latency.len(),
        elapsed: start.elapsed(),
        latency,
    })
}
