//! The contract suite: every store and every layer passes it, by [`run`].
//!
//! Each check is a function whose name is the promise; it gets a fresh store and panics when the promise is broken.
//! Not here: what only a store on disk promises (restarts, faults), what only one engine does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a contract suite reports by panicking"
)]

mod admin;
mod blobs;
mod entries;
mod large;
mod retention;

use std::{any::Any, cell::Cell, future::Future, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use zimcache_types::{Code, Digest, EntryKey, EntryKind, Function, ManualClock, Namespace};

use crate::{
    BlobStore, ByteRange, CreateOptions, EntryMeta, EntryStore, Precondition, Result, StoreAdmin,
    Touch,
};

/// A store under test.
#[derive(Debug)]
pub struct Stores {
    /// Its blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// Its entries.
    pub entries: Arc<dyn EntryStore>,
    /// Its figures.
    pub admin: Arc<dyn StoreAdmin>,
    /// The clock it reads.
    pub clock: Arc<ManualClock>,
    /// Whatever has to live as long.
    pub keep: Option<Box<dyn KeepAlive>>,
}

/// Something a store under test depends on, such as its folder.
pub trait KeepAlive: Any + Send + Sync + std::fmt::Debug {}

impl<T: Any + Send + Sync + std::fmt::Debug> KeepAlive for T {}

/// Sizes at which stores change their ways: nothing, one byte, an action result, a checksum block, a part, a few.
pub const SIZES: [usize; 12] = [
    0,
    1,
    79,
    4096,
    (64 << 10) - 1,
    64 << 10,
    (64 << 10) + 1,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (4 << 20) - 1,
    (4 << 20) + 1,
];

/// What the bodies of the checks are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes that no codec makes smaller.
    Noise,
    /// Lines of text.
    Text,
    /// Stretches of both.
    Mixed,
}

thread_local! {
    static CONTENT: Cell<Content> = const { Cell::new(Content::Noise) };
}

/// Runs every check on a store of its own, with bodies that do not compress.
///
/// # Panics
/// At the end, when the store broke its contract, with the names of all broken promises.
pub async fn run(make: &dyn Fn() -> Stores) {
    run_with(Content::Noise, make).await;
}

/// Runs every check on a store of its own. Needs a runtime that stays on this thread.
///
/// # Panics
/// At the end, when the store broke its contract, with the names of all broken promises.
pub async fn run_with(content: Content, make: &dyn Fn() -> Stores) {
    CONTENT.set(content);
    let mut broken = Vec::new();
    blobs::run(make, &mut broken).await;
    large::run(make, &mut broken).await;
    entries::run(make, &mut broken).await;
    admin::run(make, &mut broken).await;
    retention::run(make, &mut broken).await;
    CONTENT.set(Content::Noise);
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}

/// Runs each check on a fresh store and notes which ones broke.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        /// Runs the checks of this file.
        pub(super) async fn run(
            make: &dyn Fn() -> $crate::testing::conformance::Stores,
            broken: &mut Vec<String>,
        ) {
            $(
                let stores = make();
                let check = Box::pin($check(&stores));
                $crate::testing::conformance::judge(stringify!($check), check, broken).await;
            )*
        }
    };
}
use checks;

/// Runs the checks of blobs and entries alone, for a store whose figures and retention are those of others behind it.
/// Needs a runtime that stays on this thread.
///
/// # Panics
/// At the end, when the store broke its contract, with the names of all broken promises.
pub async fn run_data(make: &dyn Fn() -> Stores) {
    let mut broken = Vec::new();
    blobs::run(make, &mut broken).await;
    large::run(make, &mut broken).await;
    entries::run(make, &mut broken).await;
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}

async fn judge(name: &str, check: impl Future<Output = ()>, broken: &mut Vec<String>) {
    if AssertUnwindSafe(check).catch_unwind().await.is_err() {
        broken.push(name.replace('_', " "));
    }
}

/// So many bytes that differ from place to place and from seed to seed, of the kind the checks are run with.
pub fn pattern(seed: u64, len: usize) -> Bytes {
    content(CONTENT.get(), seed, len)
}

/// So many bytes of a kind that differ from place to place and from seed to seed.
pub fn content(kind: Content, seed: u64, len: usize) -> Bytes {
    const TEXT_BYTES: usize = 160 << 10;
    const CYCLE_BYTES: usize = TEXT_BYTES + (224 << 10);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let text = match kind {
            Content::Noise => false,
            Content::Text => true,
            Content::Mixed => bytes.len() % CYCLE_BYTES < TEXT_BYTES,
        };
        if text {
            let line = format!("{state:016x}: pub fn item(value: &Value) -> Result<()> {{\n");
            bytes.extend_from_slice(line.as_bytes());
        } else {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.truncate(len);
    bytes.into()
}

fn room(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn sha(body: &[u8]) -> Digest {
    Digest::of(Function::Sha256, body)
}

fn action(text: &str) -> EntryKey {
    key(&room("team"), EntryKind::ActionResult, text)
}

fn key(namespace: &Namespace, kind: EntryKind, text: &str) -> EntryKey {
    EntryKey::new(namespace.clone(), kind, text).unwrap()
}

/// The code of a refusal; success is a broken promise.
fn refused<T>(outcome: Result<T>) -> Code {
    match outcome {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error.code(),
    }
}

/// Checks that a task is over: `future` completes although nobody else moves.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    futures_util::future::join(a, b).await
}

impl Stores {
    /// The same, keeping something alive.
    #[must_use]
    pub fn kept_by(self, keep: impl KeepAlive) -> Stores {
        Stores {
            keep: Some(Box::new(keep)),
            ..self
        }
    }

    /// The same, keeping one more thing alive.
    #[must_use]
    pub fn with(mut self, more: impl KeepAlive) -> Stores {
        let kept = self.keep.take();
        self.kept_by((kept, more))
    }

    /// Uploads a blob in chunks of this size.
    ///
    /// # Errors
    /// What the store answered.
    pub async fn put_blob(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        body: &Bytes,
        chunk: usize,
        options: CreateOptions,
    ) -> Result<u64> {
        let mut writer = self.blobs.create(namespace, digest, options).await?;
        let mut position = writer.offset() as usize;
        while position < body.len() {
            let end = body.len().min(position + chunk);
            writer.write(body.slice(position..end)).await?;
            position = end;
        }
        writer.commit().await
    }

    /// Uploads a blob under its SHA-256 in one chunk.
    async fn add(&self, namespace: &Namespace, body: &Bytes) -> Digest {
        let digest = sha(body);
        let size = self
            .put_blob(
                namespace,
                &digest,
                body,
                usize::MAX >> 1,
                CreateOptions::default(),
            )
            .await
            .unwrap();
        assert_eq!(size, body.len() as u64, "a commit tells the size");
        digest
    }

    /// The bytes of a blob, or a range of it.
    ///
    /// # Errors
    /// What the store answered.
    pub async fn blob(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Bytes>> {
        match self.blobs.open(namespace, digest, range).await? {
            Some(reader) => reader.read_all(u64::MAX).await.map(Some),
            None => Ok(None),
        }
    }

    async fn has(&self, namespace: &Namespace, digest: &Digest) -> bool {
        let found = self.blob(namespace, digest, ByteRange::Full).await.unwrap();
        let digests = [*digest];
        let missing = self.blobs.missing(namespace, &digests, Touch::No).await;
        assert_eq!(
            missing.unwrap(),
            [found.is_none()],
            "open and missing agree on {digest:?}"
        );
        found.is_some()
    }

    /// Puts an entry in chunks of this size.
    ///
    /// # Errors
    /// What the store answered.
    pub async fn put_entry(
        &self,
        key: &EntryKey,
        body: &Bytes,
        chunk: usize,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<u64> {
        let mut writer = self
            .entries
            .put(key, meta, precondition, limit_bytes)
            .await?;
        let mut position = 0;
        while position < body.len() {
            let end = body.len().min(position.saturating_add(chunk));
            writer.write(body.slice(position..end)).await?;
            position = end;
        }
        writer.commit().await
    }

    async fn set(&self, key: &EntryKey, body: &Bytes) -> u64 {
        let meta = EntryMeta::default();
        self.put_entry(key, body, usize::MAX, meta, Precondition::None, None)
            .await
            .unwrap()
    }

    /// The value of an entry, or a range of it.
    ///
    /// # Errors
    /// What the store answered.
    pub async fn value(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Bytes>> {
        match self.entries.get(key, range).await? {
            Some(entry) => entry.value.read_all(u64::MAX).await.map(Some),
            None => Ok(None),
        }
    }
}
