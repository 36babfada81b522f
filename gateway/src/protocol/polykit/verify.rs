//! Whether a body is an artifact for its key, found out while it streams.
//!
//! The chunks go to the store and, through a short queue, to a thread that unpacks them, hashes every file and compares
//! with the manifest inside. What it finds decides before the store makes anything visible. Not here: the archive's
//! format (`tar`). Invariants: the window is at most 8 MiB; what is unpacked, the documents and the names are bounded;
//! as many verifications run at once as there are permits. Cancellation: an upload that is dropped ends its thread.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use zimcache_store as store;
use zimcache_telemetry::task;
use zimcache_types::{Function, digest::Hasher};
use zstd::stream::read::Decoder;

use super::tar::{Archive, Flaw, flawed};
use crate::{Error, cache::Chunks, error::Result};

/// Largest window that is decoded, as a power of two.
const MAX_WINDOW_LOG: u32 = 23;
/// How many times what came an artifact may unpack to, so that a small one cannot keep a processor busy.
const MAX_RATIO: u64 = 1_024;
/// Largest document inside, and most names of files in all, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;
/// Chunks that may wait for the thread.
const WAITING_CHUNKS: usize = 4;
const OUTPUTS: &str = "outputs/";

/// An upload that ends well only when it is an artifact for its key.
#[derive(Debug)]
pub(super) struct Verified<'u, U> {
    upload: &'u mut U,
    hasher: Option<Hasher>,
    chunks: Option<mpsc::Sender<Bytes>>,
    verdict: JoinHandle<Result<(), Flaw>>,
    hash: Option<String>,
}

impl<'u, U: Chunks> Verified<'u, U> {
    /// Begins to verify, when it is this upload's turn. Nothing may unpack to more than `limit` bytes.
    ///
    /// # Errors
    /// `Unavailable` when the gateway stops.
    pub(super) async fn begin(
        upload: &'u mut U,
        key: &str,
        limit: u64,
        permits: &Arc<Semaphore>,
    ) -> Result<Verified<'u, U>> {
        let turn = Arc::clone(permits).acquire_owned().await;
        let turn = turn.map_err(|_| store::Error::Stopping)?;
        let (chunks, queue) = mpsc::channel(WAITING_CHUNKS);
        let key = key.to_owned();
        let verdict = task::spawn_blocking("verify", move || {
            let _turn = turn;
            let queue = Queue {
                queue,
                chunk: Bytes::new(),
            };
            verify(queue, &key, limit)
        });
        Ok(Verified {
            upload,
            hasher: Some(Hasher::new(Function::Sha256)),
            chunks: Some(chunks),
            verdict,
            hash: None,
        })
    }

    /// The SHA-256 of the whole, once all of it came.
    pub(super) fn hash(self) -> Option<String> {
        self.hash
    }

    async fn step(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.upload.next().await.transpose()? {
            let Some(chunks) = &self.chunks else {
                return Ok(None);
            };
            if chunks.send(chunk.clone()).await.is_err() {
                self.decide().await?;
                return Err(Error::Artifact("something follows its end"));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk);
            }
            return Ok(Some(chunk));
        }
        if self.chunks.is_some() {
            self.decide().await?;
            self.hash = self.hasher.take().map(|hasher| hasher.finish().to_hex());
        }
        Ok(None)
    }

    /// Waits for what the thread found.
    async fn decide(&mut self) -> Result<()> {
        self.chunks = None;
        let found = (&mut self.verdict)
            .await
            .map_err(|_| store::Error::Stopping)?;
        found.map_err(|Flaw(flaw)| Error::Artifact(flaw))
    }
}

impl<U: Chunks> Chunks for Verified<'_, U> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.step().await.transpose()
    }

    fn announced_bytes(&self) -> Option<u64> {
        self.upload.announced_bytes()
    }
}

/// The chunks as a stream that blocks.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Queue {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.queue.blocking_recv() else {
                return Ok(0);
            };
            self.chunk = chunk;
        }
        let n = self.chunk.len().min(buf.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// A stream that counts what was read of it.
#[derive(Debug)]
struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// What is unpacked, up to a bound.
struct Unpacked<R: Read> {
    decoder: Decoder<'static, BufReader<Counted<R>>>,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buf)?;
        self.bytes += n as u64;
        let received = self.decoder.get_ref().get_ref().bytes;
        let bound = received
            .saturating_mul(MAX_RATIO)
            .saturating_add(MAX_DOCUMENT_BYTES);
        if self.bytes > self.limit.min(bound) {
            return flawed("it unpacks to too much");
        }
        Ok(n)
    }
}

/// What the client's `metadata.json` has; all of it is needed for the client to read it.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "their presence is what is checked")]
struct Metadata {
    package_name: String,
    task_name: String,
    command: String,
    cache_key_hash: String,
    created_at: u64,
    version: u32,
}

/// What `manifest.json` has.
#[derive(Debug, Deserialize)]
struct Manifest {
    files: HashMap<String, String>,
    total_size: u64,
}

/// Whether all of a body is an artifact for this key, which unpacks to no more than this.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn verify<R: Read>(body: R, key: &str, limit: u64) -> Result<(), Flaw> {
    let contents = unpack(body, limit).map_err(|error| {
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<Flaw>());
        cause
            .copied()
            .unwrap_or(Flaw("it is no zstd of a tar archive, or cut short"))
    })?;
    contents.judge(key)
}

/// What was found inside.
#[derive(Debug, Default)]
struct Contents {
    metadata: Option<Metadata>,
    manifest: Option<Manifest>,
    /// Hash of every file, by its name.
    outputs: HashMap<String, String>,
    outputs_bytes: u64,
}

fn unpack<R: Read>(body: R, limit: u64) -> io::Result<Contents> {
    let mut decoder = Decoder::new(Counted {
        from: body,
        bytes: 0,
    })?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let mut archive = Archive::new(Unpacked {
        decoder,
        bytes: 0,
        limit,
    });
    let (mut contents, mut name_bytes) = (Contents::default(), 0);
    while let Some(member) = archive.next()? {
        name_bytes += member.name.len() as u64;
        if name_bytes > MAX_DOCUMENT_BYTES {
            return flawed("it has too many files");
        }
        match member.name.as_str() {
            _ if !member.is_file => {}
            "metadata.json" => once(&mut contents.metadata, document(&mut archive)?)?,
            "manifest.json" => once(&mut contents.manifest, document(&mut archive)?)?,
            name => {
                let Some(name) = name.strip_prefix(OUTPUTS) else {
                    return flawed("it has a file that is neither a document nor an output");
                };
                let (hash, bytes) = hash_of(&mut archive)?;
                contents.outputs_bytes += bytes;
                if contents.outputs.insert(name.to_owned(), hash).is_some() {
                    return flawed("it has a file twice");
                }
            }
        }
    }
    Ok(contents)
}

fn once<T>(place: &mut Option<T>, found: T) -> io::Result<()> {
    match place.replace(found) {
        None => Ok(()),
        Some(_) => flawed("it has a document twice"),
    }
}

fn document<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut text = Vec::new();
    from.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_DOCUMENT_BYTES {
        return flawed("a document is too large");
    }
    serde_json::from_slice(&text).or_else(|_| flawed("a document is not what it should be"))
}

fn hash_of(from: &mut impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Hasher::new(Function::Sha256);
    let mut piece = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        match from.read(&mut piece)? {
            0 => return Ok((hasher.finish().to_hex(), bytes)),
            n => {
                hasher.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
}

impl Contents {
    fn judge(self, key: &str) -> Result<(), Flaw> {
        let metadata = self.metadata.ok_or(Flaw("metadata.json is missing"))?;
        let manifest = self.manifest.ok_or(Flaw("manifest.json is missing"))?;
        if metadata.cache_key_hash != key {
            return Err(Flaw("it was made for another key"));
        }
        for (name, hash) in &self.outputs {
            match manifest.files.get(name) {
                None => return Err(Flaw("a file is not in the manifest")),
                Some(listed) if listed != hash => {
                    return Err(Flaw("a file is not what the manifest says"));
                }
                Some(_) => {}
            }
        }
        if manifest.files.len() != self.outputs.len() {
            return Err(Flaw("a file of the manifest is missing"));
        }
        let empty_by_name_only = manifest.total_size == 0 && !manifest.files.is_empty();
        if empty_by_name_only || manifest.total_size != self.outputs_bytes {
            return Err(Flaw("the manifest's total size is wrong"));
        }
        Ok(())
    }
}
