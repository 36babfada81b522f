//! Who is counted, and what is remembered of them.
//!
//! One bounded table; the longest idle are forgotten first, which gives them a full bucket. Not here: which limits there
//! are (`limits`).

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quick_cache::sync::Cache;

use super::{Class, bucket::Bucket, conduct::Conduct};

/// Who is counted. An IPv6 customer has a whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(u32),
    V6(u64),
    Unix,
    Token(u64),
}

impl Key {
    pub(super) fn of(address: Option<IpAddr>) -> Key {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => Key::V4(address.to_bits()),
            Some(IpAddr::V6(address)) => Key::V6((address.to_bits() >> 64) as u64),
            None => Key::Unix,
        }
    }
}

/// What is remembered of one caller.
#[derive(Debug, Default)]
pub(super) struct Caller {
    all: Bucket,
    reads: Bucket,
    writes: Bucket,
    pages: Bucket,
    pub(super) conduct: Conduct,
}

/// One limit of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Layer {
    All,
    Of(Class),
}

/// One limit of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Everybody,
    Caller(Key, Layer),
}

impl fmt::Display for Name {
    /// As it is called in Redis.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, layer) = match self {
            Name::Everybody => return f.write_str("everybody"),
            Name::Caller(key, layer) => (key, layer),
        };
        match key {
            Key::V4(bits) => write!(f, "v4:{bits:08x}")?,
            Key::V6(bits) => write!(f, "v6:{bits:016x}")?,
            Key::Unix => f.write_str("unix")?,
            Key::Token(key) => write!(f, "token:{key:016x}")?,
        }
        f.write_str(match layer {
            Layer::All => ":all",
            Layer::Of(Class::Read) => ":reads",
            Layer::Of(Class::Write) => ":writes",
            Layer::Of(Class::Page) => ":pages",
        })
    }
}

impl Caller {
    pub(super) fn bucket(&self, layer: Layer) -> &Bucket {
        match layer {
            Layer::All => &self.all,
            Layer::Of(Class::Read) => &self.reads,
            Layer::Of(Class::Write) => &self.writes,
            Layer::Of(Class::Page) => &self.pages,
        }
    }
}

/// What outlives a change of the limits.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) callers: Cache<Key, Arc<Caller>>,
    pub(super) most: usize,
    pub(super) everybody: Bucket,
    pub(super) started: Instant,
    /// Time of the newest request, in nanoseconds since the start.
    newest: AtomicU64,
}

impl Memory {
    /// A memory of this many callers, on the clock of the one before.
    pub(super) fn new(most: usize, before: Option<&Memory>) -> Memory {
        Memory {
            callers: Cache::new(most),
            most,
            everybody: Bucket::default(),
            started: before.map_or_else(Instant::now, |before| before.started),
            newest: AtomicU64::new(0),
        }
    }

    /// The time of a request, for a decision: never before that of another one. Who was held up (the process stood
    /// still, say) would find a bucket that is full again in his future, and so empty.
    pub(super) fn time_of(&self, request: u64) -> u64 {
        self.newest
            .fetch_max(request, Ordering::Relaxed)
            .max(request)
    }

    pub(super) fn caller(&self, key: Key) -> Arc<Caller> {
        let found = self
            .callers
            .get_or_insert_with(&key, || Ok::<_, ()>(Arc::default()));
        found.unwrap_or_default()
    }
}
