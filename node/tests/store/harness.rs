//! A node on a simulated disk, with a runtime and a clock of its own.
//!
//! [`Rig::crash`] and [`Rig::kill`] end the node as a power cut and a killed process would, and open the next one on
//! the disk as found. No call may take longer than [`PATIENCE`]: a hang is a failure, not a stuck test run.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::runtime::Runtime;
use zimcache_config::{Compression, StoreConfig};
use zimcache_node::{Disk, Node, OpenError, testing::SimDisk};
use zimcache_store::{StoreStats, testing::conformance::Stores};
use zimcache_types::{ByteSize, ManualClock, Timestamp};

/// Longest time one call of a store may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A store of this size with the smallest segments.
pub(crate) fn config(mib: u64) -> StoreConfig {
    StoreConfig {
        max_size: ByteSize::mib(mib),
        segment_size: Some(ByteSize::mib(1)),
        index_memory: Some(ByteSize::mib(64)),
        scrub_interval: None,
        ..StoreConfig::default()
    }
}

/// The same store with a codec that the seed chooses.
pub(crate) fn compressing(seed: u64, config: StoreConfig) -> StoreConfig {
    let codecs = [
        Compression::Off,
        Compression::Auto,
        Compression::Zstd,
        Compression::Lz4,
    ];
    StoreConfig {
        compression: codecs[seed as usize % codecs.len()],
        ..config
    }
}

/// A clock that shows some day of 2027.
pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)))
}

/// A runtime for the calls of one test.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

/// The contracts of a node.
pub(crate) fn stores(node: &Node, clock: &Arc<ManualClock>) -> Stores {
    Stores {
        blobs: node.blobs(),
        entries: node.entries(),
        admin: node.admin(),
        clock: Arc::clone(clock),
        keep: None,
    }
}

/// A node at work.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: StoreConfig,
    pub(crate) runtime: Runtime,
    node: Option<Node>,
    /// Records that earlier nodes of this rig evicted, and leases that they broke.
    evicted_before: u64,
    broken_before: u64,
}

impl Rig {
    /// Makes a store on this disk, or opens the one that is there.
    pub(crate) fn open(disk: SimDisk, config: StoreConfig) -> Result<Rig, OpenError> {
        let mut rig = Rig {
            disk,
            clock: clock(),
            config,
            runtime: runtime(),
            node: None,
            evicted_before: 0,
            broken_before: 0,
        };
        rig.start()?;
        Ok(rig)
    }

    /// A new store of 64 MiB on a disk whose reads sometimes have to wait; the seed chooses the codec, too.
    pub(crate) fn fresh(seed: u64) -> Rig {
        let disk = SimDisk::new(seed);
        disk.set_read_now_misses(100);
        Rig::open(disk, compressing(seed, config(64))).expect("a new store opens")
    }

    fn start(&mut self) -> Result<(), OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let _context = self.runtime.enter();
        self.node = Some(Node::open(&self.config, disk, self.clock.clone())?);
        Ok(())
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("the node is open")
    }

    pub(crate) fn stores(&self) -> Stores {
        stores(self.node(), &self.clock)
    }

    pub(crate) fn stats(&self) -> StoreStats {
        self.node().admin().stats()
    }

    /// Records evicted so far, by all nodes of this rig.
    pub(crate) fn evicted_records(&self) -> u64 {
        let node = self.node.as_ref();
        self.evicted_before + node.map_or(0, |node| node.admin().stats().evicted_records)
    }

    /// Leases broken so far, by all nodes of this rig.
    pub(crate) fn leases_broken(&self) -> u64 {
        let node = self.node.as_ref();
        self.broken_before + node.map_or(0, |node| node.admin().stats().leases_broken)
    }

    /// Takes over from another rig what it evicted.
    pub(crate) fn inherit(&mut self, earlier: &Rig) {
        self.evicted_before += earlier.evicted_records();
        self.broken_before += earlier.leases_broken();
    }

    /// Ends the node somehow; what it evicts while it ends counts too.
    fn end(&mut self, how: impl FnOnce(Node)) {
        if let Some(node) = self.node.take() {
            let admin = node.admin();
            how(node);
            let stats = admin.stats();
            self.evicted_before += stats.evicted_records;
            self.broken_before += stats.leases_broken;
        }
    }

    /// Runs a call to its end.
    pub(crate) fn wait<F: Future>(&self, call: F) -> Result<F::Output, String> {
        let bounded = async { tokio::time::timeout(PATIENCE, call).await };
        self.runtime
            .block_on(bounded)
            .map_err(|_| format!("a call hangs; the disk's last calls:\n{}", self.disk_log()))
    }

    /// The end of the disk's log, as text.
    pub(crate) fn disk_log(&self) -> String {
        let log = self.disk.log();
        let last = log.len().saturating_sub(40);
        let lines: Vec<String> = log[last..].iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// Stops the node in an orderly way and opens it again.
    pub(crate) fn restart(&mut self) -> Result<(), OpenError> {
        self.close();
        self.start()
    }

    /// Stops the node in an orderly way.
    pub(crate) fn close(&mut self) {
        self.end(Node::close);
    }

    /// Cuts the power, tears the disk, opens what is left.
    pub(crate) fn crash(&mut self, seed: u64) -> Result<(), OpenError> {
        self.disk.cut_power();
        self.end(drop);
        self.disk = self.disk.after_crash(seed);
        self.start()
    }

    /// Kills the process and starts the next one; what was written is there.
    pub(crate) fn kill(&mut self, seed: u64) -> Result<(), OpenError> {
        let next = self.disk.after_kill(seed);
        self.end(drop);
        self.disk = next;
        self.start()
    }

    /// Ends the node without another look at the disk.
    pub(crate) fn abandon(&mut self) {
        self.disk.cut_power();
        self.end(drop);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.abandon();
    }
}
