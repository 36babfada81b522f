//! Taking an interrupted blob upload up again, also after a restart.
//!
//! The client's name for the upload leads to an internal entry that holds the upload's id. Whatever parts of it are
//! still there, from the first one without a gap, need not be sent again; they are read and hashed once more.
//!
//! Invariant: the parts of an id are written by one writer at a time, and by none once a manifest names them. Whoever
//! finds the id of another starts afresh under one of its own.

use std::sync::Arc;

use bytes::Bytes;
use zimcache_store::Result;
use zimcache_types::{Digest, EntryKind, Function, Hasher};

use super::{
    lane::{Body, Rule},
    manifest::PartsOf,
    record::{Encoding, Header, KeyClass, Kind, flag},
    shared::{Key, LaneId, Shared},
    slot::KeyHash,
    upload::{Claim, Target, Upload},
    value::PartsSource,
};

/// Where the id of an upload is written down.
#[derive(Debug)]
pub(crate) struct Resume {
    key: Key,
    hash: KeyHash,
    /// The blob that is being uploaded.
    blob: Key,
}

impl Resume {
    /// The place for this name. It has the blob's hash too: a name reused for another blob starts afresh.
    pub(crate) fn new(shared: &Shared, blob: Key, hash: &str, name: &str) -> Resume {
        let text = format!("upload {} {hash} {name}", blob.function);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(
            Digest::of(Function::Sha256, text.as_bytes())
                .hash
                .as_bytes(),
        );
        let function = EntryKind::Internal.number();
        let key = Key {
            class: KeyClass::Entry,
            function,
            namespace: blob.namespace,
            part: 0,
            bytes,
        };
        Resume {
            key,
            hash: shared.hash(&key),
            blob,
        }
    }

    /// An upload that goes on where the last one of this name ended; `hasher` has seen what is there.
    pub(crate) async fn take_up(
        &self,
        shared: &Arc<Shared>,
        target: Target,
        hasher: &mut Hasher,
    ) -> Result<Upload> {
        let claim = self.claim(shared, &target).await?;
        let Some(claim) = claim else {
            return Ok(Upload::new(Arc::clone(shared), target));
        };
        let (shared_too, id, fresh) = (Arc::clone(shared), claim.id(), hasher.clone());
        let reading = move || read_parts(&shared_too, target, id, fresh);
        let read = tokio::task::spawn_blocking(reading).await;
        let (parts, seen) = read.unwrap_or_else(|_| (0, hasher.clone()));
        *hasher = seen;
        Ok(Upload::resumed(claim, target, parts))
    }

    /// The id of an upload that was interrupted, if nobody else has it.
    async fn claim(&self, shared: &Arc<Shared>, target: &Target) -> Result<Option<Claim>> {
        let Some(id) = self.known(shared).await? else {
            return Ok(None);
        };
        let Some(claim) = Claim::take(shared, id) else {
            return Ok(None);
        };
        // The writer that was interrupted may still have parts on their way to the disk, or their manifest.
        shared.settle(LaneId::Bulk).await?;
        shared.settle(LaneId::Small).await?;
        let blob = shared.load(self.blob, target.owner, None).await?;
        let visible = blob.filter(|loaded| loaded.header.kind == Kind::Manifest);
        let visible = visible
            .and_then(|loaded| PartsOf::decode(&loaded.payload(), target.owner, &loaded.header));
        // It came to its end, but not to forgetting its name.
        let is_visible = visible.is_some_and(|parts| parts.upload == id);
        Ok((!is_visible).then_some(claim))
    }

    /// The id that is written down under the name.
    async fn known(&self, shared: &Arc<Shared>) -> Result<Option<[u8; 16]>> {
        let known = shared.load(self.key, self.hash, None).await?;
        Ok(known.and_then(|loaded| loaded.payload().as_ref().try_into().ok()))
    }

    /// Writes down the id of an upload.
    pub(crate) async fn announce(&self, shared: &Arc<Shared>, id: [u8; 16]) -> Result<()> {
        let body = Body::Pieces(vec![Bytes::copy_from_slice(&id)]);
        let header = self.header(0, id.len() as u32);
        shared
            .write(LaneId::Entries, self.hash, header, body, Rule::Newest)
            .await
            .map(drop)
    }

    /// Removes what [`Resume::announce`] wrote for this id. A writer that came later has put its own there.
    pub(crate) async fn forget(&self, shared: &Arc<Shared>, id: [u8; 16]) -> Result<()> {
        if self.known(shared).await? != Some(id) {
            return Ok(());
        }
        let body = Body::Pieces(Vec::new());
        let header = self.header(flag::TOMBSTONE, 0);
        shared
            .write(LaneId::Entries, self.hash, header, body, Rule::IfPresent)
            .await
            .map(drop)
    }

    fn header(&self, flags: u16, stored: u32) -> Header {
        Header {
            kind: Kind::Entry,
            function: self.key.function,
            encoding: Encoding::Identity,
            flags,
            namespace: self.key.namespace,
            part: 0,
            stored,
            raw_size: u64::from(stored),
            version: 0,
            writer: 0,
            writing: 0,
            key: self.key.bytes,
        }
    }
}

/// Hashes the full parts that are there from the first one on; says how many.
fn read_parts(
    shared: &Arc<Shared>,
    target: Target,
    upload: [u8; 16],
    mut hasher: Hasher,
) -> (u32, Hasher) {
    use zimcache_store::ChunkSource as _;
    let part_bytes = shared.geometry.part_bytes as u64;
    let parts = PartsOf {
        upload,
        part_bytes: part_bytes as u32,
        total: u64::MAX,
        zstd_bytes: 0,
        version: 0,
        namespace: target.namespace,
        function: target.function,
        owner: target.owner,
    };
    let source = PartsSource::new(Arc::clone(shared), parts);
    let mut count = 0;
    loop {
        let (mut position, end) = (
            u64::from(count) * part_bytes,
            u64::from(count + 1) * part_bytes,
        );
        let before = hasher.clone();
        while position < end {
            let Ok(bytes) = source.read_blocking(position, end) else {
                return (count, before);
            };
            hasher.update(&bytes);
            position += bytes.len() as u64;
        }
        count += 1;
    }
}
