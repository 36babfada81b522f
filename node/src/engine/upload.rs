//! A value on its way in: kept in pieces while it is small, cut into parts once it is not.
//!
//! Used by blobs and entries alike. Parts are written and synced while the body still arrives; they become visible
//! only with the record their owner writes afterwards, and without one they are garbage. Dropping an upload aborts
//! it. Memory is bounded: a small body reserves its share before its first byte, a large one waits for part buffers.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use zimcache_store::{Error, Result};

use super::{
    buffers::PartBuf,
    codec::{is_marked_compressed, wrapped_len},
    lane::{Body, Outcome, Rule},
    manifest::{PartsOf, part_key},
    packing::Packing,
    record::{Encoding, Header, Kind},
    shared::{LaneId, Shared},
    slot::KeyHash,
};

/// Parts of one upload with the codec while the next one is received.
const PACKED_AHEAD: usize = 1;

/// Whose value is being written, and its bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) owner: KeyHash,
    pub(crate) namespace: u32,
    pub(crate) function: u8,
    /// Largest value kept in pieces.
    pub(crate) pieces_bytes: usize,
    /// Largest value accepted.
    pub(crate) limit_bytes: u64,
}

/// A value being received.
#[derive(Debug)]
pub(crate) struct Upload {
    shared: Arc<Shared>,
    target: Target,
    total: u64,
    pieces: Vec<Bytes>,
    reserved: Option<OwnedSemaphorePermit>,
    part: Option<PartBuf>,
    /// Set once parts are being written.
    claim: Option<Claim>,
    next_part: u32,
    /// Parts being made smaller, in order.
    packing: VecDeque<(Header, Packing)>,
    in_flight: VecDeque<oneshot::Receiver<Result<Outcome>>>,
    /// The first part carries the mark of a compressed format: the others are not tried.
    opaque: bool,
    /// Bytes of the parts sent so far as zstd frames; `None` once one of them has none.
    zstd_form: Option<u64>,
    /// Whether any part was stored as zstd.
    has_zstd: bool,
}

/// The id of an upload in the hands of its writer. While it is held the parts are not reclaimed, and nobody else can
/// have it: a writer verifies only its own bytes, so no other may put parts beside them.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    id: [u8; 16],
}

impl Claim {
    /// Takes an id; `None` while another writer holds it.
    pub(crate) fn take(shared: &Arc<Shared>, id: [u8; 16]) -> Option<Claim> {
        let is_free = shared.uploads.lock().insert(id);
        is_free.then(|| Claim {
            shared: Arc::clone(shared),
            id,
        })
    }

    /// Takes an id that no upload of this store had before.
    fn fresh(shared: &Arc<Shared>) -> Claim {
        loop {
            if let Some(claim) = Claim::take(shared, shared.new_upload_id()) {
                return claim;
            }
        }
    }

    /// The id.
    pub(crate) const fn id(&self) -> [u8; 16] {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.uploads.lock().remove(&self.id);
    }
}

/// A value received in full; parts are synced.
#[derive(Debug)]
pub(crate) enum Received {
    Pieces(Vec<Bytes>, Option<OwnedSemaphorePermit>),
    /// Fits into one record of its own.
    One(PartBuf),
    Parts(PartsOf),
}

impl Upload {
    pub(crate) fn new(shared: Arc<Shared>, target: Target) -> Upload {
        Upload {
            shared,
            target,
            total: 0,
            pieces: Vec::new(),
            reserved: None,
            part: None,
            claim: None,
            next_part: 0,
            packing: VecDeque::new(),
            in_flight: VecDeque::new(),
            opaque: false,
            zstd_form: Some(0),
            has_zstd: false,
        }
    }

    /// An upload whose first `parts` parts are on the disk already.
    pub(crate) fn resumed(claim: Claim, target: Target, parts: u32) -> Upload {
        let shared = Arc::clone(&claim.shared);
        let total = u64::from(parts) * shared.geometry.part_bytes as u64;
        let mut upload = Upload::new(shared, target);
        (upload.claim, upload.next_part, upload.total) = (Some(claim), parts, total);
        // How the parts that are there are stored is not known here.
        upload.zstd_form = None;
        upload
    }

    /// Bytes received, resumed ones included.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The upload's id, given at its first part.
    pub(crate) fn id(&self) -> Option<[u8; 16]> {
        self.claim.as_ref().map(Claim::id)
    }

    /// Whether so many more bytes keep it in pieces.
    pub(crate) fn stays_small(&self, more: usize) -> bool {
        self.part.is_none()
            && self.claim.is_none()
            && self.total as usize + more <= self.target.pieces_bytes
    }

    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let limit = self.target.limit_bytes;
        if self.total + chunk.len() as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let small = self.stays_small(chunk.len());
        self.total += chunk.len() as u64;
        if small {
            self.reserve().await?;
            self.pieces.push(chunk);
            return Ok(());
        }
        for piece in std::mem::take(&mut self.pieces) {
            self.fill(&piece).await?;
        }
        self.reserved = None;
        self.fill(&chunk).await
    }

    /// Reserves memory for all that may come in pieces, once.
    async fn reserve(&mut self) -> Result<()> {
        if self.reserved.is_none() {
            let most = self.target.limit_bytes.min(self.target.pieces_bytes as u64) as usize;
            self.reserved = Some(self.shared.buffers.small(most).await?);
        }
        Ok(())
    }

    async fn fill(&mut self, mut chunk: &[u8]) -> Result<()> {
        while !chunk.is_empty() {
            if self.part.as_ref().is_some_and(PartBuf::is_full) {
                self.send_part().await?;
            }
            if self.part.is_none() {
                self.part = Some(self.buffer().await?);
            }
            let Some(part) = &mut self.part else {
                return Err(Error::Stopping);
            };
            let taken = part.fill(chunk);
            chunk = &chunk[taken..];
        }
        Ok(())
    }

    /// Memory for the next part. Who has to wait for it must hold none: all waiting for each other would be for ever.
    async fn buffer(&mut self) -> Result<PartBuf> {
        if let Some(part) = self.shared.buffers.part_at_once() {
            return Ok(part);
        }
        self.submit_packed(0).await?;
        self.shared.buffers.part().await
    }

    fn start_parts(&mut self) -> [u8; 16] {
        let shared = &self.shared;
        let claim = self.claim.get_or_insert_with(|| Claim::fresh(shared));
        claim.id()
    }

    async fn send_part(&mut self) -> Result<()> {
        let Some(part) = self.part.take() else {
            return Ok(());
        };
        let id = self.start_parts();
        self.collect_finished()?;
        let header = Header {
            kind: Kind::Part,
            function: self.target.function,
            encoding: Encoding::Identity,
            flags: 0,
            namespace: self.target.namespace,
            part: self.next_part,
            stored: part.filled() as u32,
            raw_size: part.filled() as u64,
            version: 0,
            writer: 0,
            writing: 0,
            key: part_key(id, self.target.owner),
        };
        if self.next_part == 0 {
            self.opaque = is_marked_compressed(part.payload());
        }
        self.next_part += 1;
        let packing = self.shared.start_packing(part, self.opaque).await?;
        self.packing.push_back((header, packing));
        self.submit_packed(PACKED_AHEAD).await
    }

    /// Sends packed parts to the lane until at most so many are still with the codec.
    async fn submit_packed(&mut self, left: usize) -> Result<()> {
        while let Some((_, first)) = self.packing.front()
            && (self.packing.len() > left || first.is_done())
        {
            let Some((mut header, packing)) = self.packing.pop_front() else {
                return Ok(());
            };
            let (encoding, part) = packing.finish().await?;
            (header.encoding, header.stored) = (encoding, part.filled() as u32);
            self.note_frame(encoding, part.filled());
            let hash = self.shared.hash(&super::shared::Key::of(&header));
            let sent = self
                .shared
                .submit(LaneId::Bulk, hash, header, Body::Part(part), Rule::Newest)
                .await?;
            self.in_flight.push_back(sent);
        }
        Ok(())
    }

    /// Adds up how long the value is as zstd frames.
    fn note_frame(&mut self, encoding: Encoding, stored: usize) {
        let frame = match encoding {
            Encoding::Zstd => Some(stored),
            Encoding::Identity => Some(wrapped_len(stored)),
            Encoding::Lz4 => None,
        };
        self.has_zstd |= encoding == Encoding::Zstd;
        let sum = |before: u64| frame.map(|frame| before + frame as u64);
        self.zstd_form = self.zstd_form.and_then(sum);
    }

    /// Notices failures of parts that have been written meanwhile.
    fn collect_finished(&mut self) -> Result<()> {
        while let Some(first) = self.in_flight.front_mut() {
            match first.try_recv() {
                Ok(outcome) => {
                    outcome?;
                    self.in_flight.pop_front();
                }
                Err(oneshot::error::TryRecvError::Empty) => break,
                Err(oneshot::error::TryRecvError::Closed) => return Err(Error::Stopping),
            }
        }
        Ok(())
    }

    /// Ends the body: all parts are synced when this returns. `one_record`: a value of one part needs no manifest.
    pub(crate) async fn finish(&mut self, one_record: bool) -> Result<Received> {
        if self.part.is_none() && self.claim.is_none() {
            return Ok(Received::Pieces(
                std::mem::take(&mut self.pieces),
                self.reserved.take(),
            ));
        }
        if one_record
            && self.claim.is_none()
            && let Some(part) = self.part.take()
        {
            return Ok(Received::One(part));
        }
        self.send_part().await?;
        self.submit_packed(0).await?;
        while let Some(sent) = self.in_flight.pop_front() {
            sent.await.unwrap_or(Err(Error::Stopping))?;
        }
        Ok(Received::Parts(PartsOf {
            upload: self.start_parts(),
            part_bytes: self.shared.geometry.part_bytes as u32,
            total: self.total,
            zstd_bytes: self.zstd_form.filter(|_| self.has_zstd).unwrap_or(0),
            version: 0,
            namespace: self.target.namespace,
            function: self.target.function,
            owner: self.target.owner,
        }))
    }
}

impl Shared {
    /// An id no other upload of this store has.
    pub(crate) fn new_upload_id(&self) -> [u8; 16] {
        let version = self.next_version();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&version.to_le_bytes());
        id[8..].copy_from_slice(&self.meta.store_id[..8]);
        id
    }
}
