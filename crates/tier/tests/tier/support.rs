//! What the tests share: a tier over records in RAM, polling, and owners that say what they are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use zimcache_store::{ByteRange, RecordKey, Version};
use zimcache_tier::{
    Bucket, BucketSettings, Error, Fill, Filled, Owners, Tier, TierParts, TierSettings,
};
use zimcache_types::SystemClock;

use crate::{replica::MemoryReplica, server::Server};

/// Longest time anything here may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Owners under control of the test.
#[derive(Debug, Default)]
pub(crate) struct TestOwners {
    not_first: AtomicBool,
    settled: Mutex<Vec<(RecordKey, Version)>>,
}

impl TestOwners {
    pub(crate) fn second() -> Arc<TestOwners> {
        let owners = TestOwners::default();
        owners.not_first.store(true, Ordering::SeqCst);
        Arc::new(owners)
    }

    pub(crate) fn settled_keys(&self) -> Vec<RecordKey> {
        let mut keys: Vec<_> = self
            .settled
            .lock()
            .iter()
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        keys
    }
}

#[async_trait]
impl Owners for TestOwners {
    fn owns(&self, _key: &RecordKey) -> bool {
        true
    }

    fn is_first_owner(&self, _key: &RecordKey) -> bool {
        !self.not_first.load(Ordering::SeqCst)
    }

    async fn settled(&self, records: &[(RecordKey, Version)]) {
        self.settled.lock().extend_from_slice(records);
    }
}

/// A tier and what it works on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) tier: Tier,
    pub(crate) replica: MemoryReplica,
    pub(crate) owners: Arc<TestOwners>,
}

pub(crate) async fn bucket(settings: BucketSettings) -> Bucket {
    let clock = Arc::new(SystemClock);
    Bucket::connect(settings, clock, 11).await.unwrap()
}

pub(crate) async fn node(server: &Server) -> Node {
    node_with(
        server.settings(),
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    )
    .await
}

/// One whose filter is loaded.
pub(crate) async fn loaded_node(server: &Server) -> Node {
    let node = node(server).await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    node
}

pub(crate) async fn node_with(
    bucket_settings: BucketSettings,
    settings: TierSettings,
    owners: Arc<TestOwners>,
    replica: MemoryReplica,
) -> Node {
    let parts = TierParts {
        bucket: bucket(bucket_settings).await,
        replica: Arc::new(replica.clone()),
        owners: Arc::clone(&owners) as Arc<dyn Owners>,
        clock: Arc::new(SystemClock),
        seed: 12,
    };
    Node {
        tier: Tier::start(settings, parts),
        replica,
        owners,
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Node {
    pub(crate) async fn is_clean(&self) {
        use zimcache_store::Replica;
        eventually("nothing is dirty", || self.replica.pinned().dirty == 0).await;
    }

    /// Opens all of a value that has to be there.
    pub(crate) async fn open(&self, key: &RecordKey) -> Filled {
        found(self.tier.fill(key, ByteRange::Full).await.unwrap())
    }

    pub(crate) async fn read(&self, key: &RecordKey) -> Result<Vec<u8>, Error> {
        match self.tier.fill(key, ByteRange::Full).await? {
            Fill::Found(filled) => drink(filled).await,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn found(fill: Fill) -> Filled {
    match fill {
        Fill::Found(filled) => filled,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn drink(mut filled: Filled) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(chunk) = filled.next_chunk().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

/// Bytes that no compression and no luck makes equal.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
