//! A directory with all directories below it: `ContentAddressableStorage.GetTree`.
//!
//! The directories come breadth first, each once however often it is named, in the bytes in which they are stored. What is
//! missing is left out, but for the root. A page names the last directory in it, and the walk can be taken up behind
//! that: the token of a page holds for its tree alone. No tree has cycles, because a directory is named by its hash.
//! Invariants: a message stays below the 4 MiB that every client takes; what the walks of all calls remember is bounded
//! by [`Budget`]; a client that does not read stops its walk.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use zimcache_auth::Scope;
use zimcache_proto::{
    reapi::GetTreeRequest,
    status::{GrpcCode, retry_info},
};
use zimcache_telemetry::task;
use zimcache_types::{Digest, Hash, Namespace};

use super::{batch, digests, room_of};
use crate::{
    Shared, action,
    body::Body,
    call::Call,
    grpc::{self, Messages, Outcome, Pieces, Status},
};

/// A page is sent when it has so many bytes.
const PAGE_BYTES: usize = 512 << 10;
/// Longest directory that fits in a message.
const MOST_DIRECTORY_BYTES: usize = batch::MOST_BYTES;
/// Directories read side by side: so many, of so many bytes together.
const AT_ONCE: usize = 32;
const AT_ONCE_BYTES: u64 = 1 << 20;
/// Pages that wait for a client to read.
const PAGES_AHEAD: usize = 1;
/// Directories that a walk may remember per permit: less than 1 MiB.
const PER_PERMIT: usize = 4096;
/// Permits for all walks together: what they remember stays below 128 MiB.
const PERMITS: usize = 128;
/// When a walk that found no memory may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Numbers of `directories` and `next_page_token` in an answer.
const DIRECTORIES: u32 = 1;
const NEXT_PAGE_TOKEN: u32 = 2;

/// Memory for the walks of all calls.
#[derive(Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(PERMITS)))
    }
}

/// Answers `GetTree`.
pub(super) async fn get(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: GetTreeRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    room.require(Scope::Read)?;
    let root = reader.required(request.root_digest.as_ref())?;
    let page_size = usize::try_from(request.page_size)
        .map_err(|_| Status::invalid("the page size is negative"))?;
    let namespace = room.namespace().clone();
    let found = shared
        .cache
        .directory(&namespace, &root.digest, root.certain);
    let (root, encoded) = found
        .await?
        .ok_or_else(|| Status::not_found("there is no such directory"))?;
    let encoded = encoded.map_err(Status::invalid)?;
    let after = read_token(&request.page_token, &root)?;
    let permits = Arc::clone(&shared.trees.0).acquire_owned().await;
    let (pages, receiver) = mpsc::channel(PAGES_AHEAD);
    let walk = Walk {
        shared: Arc::clone(shared),
        namespace,
        root,
        after,
        queue: VecDeque::new(),
        seen: HashSet::from([root]),
        permits: permits.map_err(|_| no_memory())?,
        page: Page::new(if page_size == 0 {
            usize::MAX
        } else {
            page_size
        }),
        pages,
    };
    task::spawn("tree", walk.run(encoded));
    Ok(grpc::streamed(receiver))
}

/// A walk under way.
#[derive(Debug)]
struct Walk {
    shared: Arc<Shared>,
    namespace: Namespace,
    root: Digest,
    /// Nothing up to this directory is sent.
    after: Option<Digest>,
    queue: VecDeque<Digest>,
    seen: HashSet<Digest>,
    permits: OwnedSemaphorePermit,
    page: Page,
    pages: mpsc::Sender<Outcome<Pieces>>,
}

impl Walk {
    async fn run(mut self, root: Bytes) {
        let walked = self.walk(root).await;
        let last = walked.map(|()| self.page.message(""));
        // Nobody may be there to read it.
        self.pages.send(last).await.ok();
    }

    async fn walk(&mut self, root: Bytes) -> Outcome<()> {
        self.take(self.root, Some(root)).await?;
        while !self.queue.is_empty() {
            let group = self.next_group();
            for (digest, encoded) in self.read(group).await? {
                self.take(digest, encoded).await?;
            }
        }
        match self.after {
            Some(_) => Err(foreign_token()),
            None => Ok(()),
        }
    }

    /// The directories to be read next.
    fn next_group(&mut self) -> Vec<Digest> {
        let mut bytes = 0;
        let fits = |digest: &&Digest| {
            bytes += digest.size_bytes.unwrap_or(0);
            bytes <= AT_ONCE_BYTES
        };
        let behind_the_first = self.queue.iter().skip(1).take(AT_ONCE - 1);
        let count = 1 + behind_the_first.take_while(fits).count();
        self.queue.drain(..count).collect()
    }

    async fn read(&self, group: Vec<Digest>) -> Outcome<Vec<(Digest, Option<Bytes>)>> {
        let (cache, namespace) = (&self.shared.cache, &self.namespace);
        let reading = stream::iter(group).map(|digest| async move {
            let found = cache.directory(namespace, &digest, true).await?;
            let encoded = found.map(|(_, encoded)| encoded.map_err(Status::invalid));
            Ok((digest, encoded.transpose()?))
        });
        reading.buffered(AT_ONCE).try_collect().await
    }

    /// Takes a directory: puts those in it in the queue, and itself on the page.
    async fn take(&mut self, digest: Digest, encoded: Option<Bytes>) -> Outcome<()> {
        if let Some(encoded) = encoded {
            self.remember(&encoded)?;
            if self.after.is_none() {
                self.add(digest, &encoded).await?;
            }
        }
        if self.after == Some(digest) {
            self.after = None;
        }
        Ok(())
    }

    fn remember(&mut self, encoded: &Bytes) -> Outcome<()> {
        let function = self.root.hash.function();
        let (_, directories) =
            action::parse_directory(encoded, Some(function)).map_err(Status::invalid)?;
        for directory in directories {
            if self.seen.insert(directory) {
                self.queue.push_back(directory);
            }
        }
        if self.seen.len() > action::MAX_REFERENCES {
            return Err(too_large("the tree has too many directories"));
        }
        while self.seen.len() > self.permits.num_permits() * PER_PERMIT {
            let more = Arc::clone(self.permits.semaphore()).try_acquire_owned();
            self.permits.merge(more.map_err(|_| no_memory())?);
        }
        Ok(())
    }

    async fn add(&mut self, digest: Digest, encoded: &Bytes) -> Outcome<()> {
        if encoded.len() > MOST_DIRECTORY_BYTES {
            return Err(too_large("a directory is larger than a message may be"));
        }
        if !self.page.has_room(encoded.len()) {
            let next = Page::new(self.page.most);
            let full = std::mem::replace(&mut self.page, next);
            let token = full.last.map(|last| write_token(&self.root, &last));
            let message = full.message(&token.unwrap_or_default());
            let sent = self.pages.send(Ok(message)).await;
            sent.map_err(|_| Status::new(GrpcCode::Cancelled, "the caller is gone"))?;
        }
        self.page.add(digest, encoded);
        Ok(())
    }
}

/// The answer that is being put together.
#[derive(Debug)]
struct Page {
    /// Most directories in it.
    most: usize,
    count: usize,
    bytes: usize,
    last: Option<Digest>,
    pieces: Pieces,
}

impl Page {
    fn new(most: usize) -> Page {
        Page {
            most,
            count: 0,
            bytes: 0,
            last: None,
            pieces: Pieces::with_capacity(0),
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.count == 0 || (self.count < self.most && self.bytes + bytes <= PAGE_BYTES)
    }

    fn add(&mut self, digest: Digest, encoded: &Bytes) {
        self.pieces.small_field(DIRECTORIES, encoded);
        self.count += 1;
        self.bytes += encoded.len();
        self.last = Some(digest);
    }

    fn message(mut self, token: &str) -> Pieces {
        if !token.is_empty() {
            self.pieces.small_field(NEXT_PAGE_TOKEN, token.as_bytes());
        }
        self.pieces
    }
}

/// A token says of which tree it is, and which directory was sent last.
fn write_token(root: &Digest, last: &Digest) -> String {
    let size = last.size_bytes.unwrap_or(0);
    format!("{}-{}-{size}", root.hash, last.hash)
}

fn read_token(token: &str, root: &Digest) -> Outcome<Option<Digest>> {
    if token.is_empty() {
        return Ok(None);
    }
    let function = root.hash.function();
    let read = || {
        let (of, last) = token.split_once('-')?;
        let (hash, size) = last.split_once('-')?;
        let last = Digest::sized(Hash::parse(function, hash).ok()?, size.parse().ok()?);
        (Hash::parse(function, of).ok()? == root.hash).then_some(last)
    };
    read().map(Some).ok_or_else(foreign_token)
}

fn foreign_token() -> Status {
    Status::invalid("the page token is of no page of this tree")
}

fn too_large(message: &'static str) -> Status {
    Status::new(GrpcCode::FailedPrecondition, message)
}

fn no_memory() -> Status {
    Status::new(
        GrpcCode::Unavailable,
        "too many large trees are read at once",
    )
    .with(retry_info(RETRY_AFTER))
}
