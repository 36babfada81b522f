//! Fetching records from another node: the one primitive of replication.
//!
//! Values stream from the other node to the store, some chunks at a time. Idempotent: what is here already is not
//! fetched, and an older version changes nothing.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use std::sync::Arc;
use tokio::time::Instant;
use zimcache_link::{Body, Error, Found, Peer, Pull, Read, Result};
use zimcache_store::{
    ByteRange, Pins, RecordHead, RecordKey, RecordKind, RecordOptions, Touch, Version,
};
use zimcache_types::Code;

use crate::{member::Inner, peer::digest, values};

/// Records of one call that are fetched at once.
const AT_ONCE: usize = 8;

impl Inner {
    /// Fetches records; for each whether it is held durably now, or a newer one.
    pub(crate) async fn pull_all(&self, pull: &Pull) -> Vec<bool> {
        let source = self.peer(&pull.from);
        let pulls = pull.keys.iter().cloned().map(|key| {
            let source = &source;
            async move {
                let pulled = self.pull_one(source, pull, &key).await;
                pulled.unwrap_or_else(|error| {
                    tracing::debug!(%error, from = &*pull.from, "a record cannot be fetched");
                    self.counters.copy_failed();
                    false
                })
            }
        });
        stream::iter(pulls).buffered(AT_ONCE).collect().await
    }

    async fn pull_one(&self, source: &Arc<dyn Peer>, pull: &Pull, key: &RecordKey) -> Result<bool> {
        let permit = self.pulls.acquire().await;
        let _permit = permit.map_err(|_| broken("the node is stopping"))?;
        let began = Instant::now();
        if self.deletions.forbid(key, began) {
            return Ok(false);
        }
        let held = self.held_version(key).await?;
        if held.is_some() && matches!(key.kind, RecordKind::Blob(_)) {
            return self.pin(key, pull.pins).await;
        }
        let read = Read {
            epoch: pull.epoch.max(self.parts.rings.epoch()),
            key: key.clone(),
            range: ByteRange::Full,
            fill: false,
        };
        let found = match source.read(read).await {
            Err(Error::StaleRing { ring }) => {
                self.adopt(Some(ring)).await;
                return Ok(false);
            }
            found => found?,
        };
        let Found::Yes {
            head,
            pins,
            total_bytes,
            body,
            ..
        } = found
        else {
            // What is here is all there is.
            return Ok(held.is_some());
        };
        if held.is_some_and(|held| held > head.version) {
            return Ok(true);
        }
        if held == Some(head.version) && pull.pins == Pins::default() {
            return Ok(true);
        }
        let pins = Pins {
            dirty: pull.pins.dirty || (pins.dirty && self.parts.tier.is_some()),
            hint: pull.pins.hint,
        };
        let found = (head, total_bytes, body);
        if !self.store(key, found, pins, began).await? {
            return Ok(false);
        }
        self.counters.copied(total_bytes);
        self.is_kept(key, began).await
    }

    /// Whether what was fetched may stay: a blob's deletion may have come meanwhile, before there was anything to delete.
    async fn is_kept(&self, key: &RecordKey, began: Instant) -> Result<bool> {
        if !self.deletions.forbid(key, began) {
            return Ok(true);
        }
        if let Some(digest) = digest(key) {
            self.parts.blobs.delete(&key.namespace, &digest).await?;
        }
        Ok(false)
    }

    /// The version held of a record; of a blob the default.
    async fn held_version(&self, key: &RecordKey) -> Result<Option<Version>> {
        let replica = &self.parts.replica;
        if let RecordKind::Blob(_) = key.kind {
            let missing = replica
                .missing_records(std::slice::from_ref(key), &[0], Touch::No)
                .await?;
            return Ok((missing == [false]).then(Version::default));
        }
        let record = self.open(key, ByteRange::Full).await?;
        Ok(record.map(|record| record.head.version))
    }

    /// Gives a blob that is here the pins it lacks; whether it is here.
    async fn pin(&self, key: &RecordKey, pins: Pins) -> Result<bool> {
        if pins == Pins::default() {
            return Ok(true);
        }
        let record = self.open(key, ByteRange::Full).await?;
        let Some(record) = record else {
            return Ok(false);
        };
        let Found::Yes {
            head,
            total_bytes,
            body,
            ..
        } = values::found(record, false, &self.busy)
        else {
            return Ok(false);
        };
        let found = (head, total_bytes, body);
        self.store(key, found, pins, Instant::now()).await
    }

    /// Stores a value that streams in: its head, length and bytes; false when it was deleted since fetching it began.
    async fn store(
        &self,
        key: &RecordKey,
        (head, size_bytes, mut body): (RecordHead, u64, Box<dyn Body>),
        pins: Pins,
        began: Instant,
    ) -> Result<bool> {
        let deleted = head.deleted;
        let options = RecordOptions {
            size_bytes: (!deleted).then_some(size_bytes),
            ..RecordOptions::default()
        };
        let mut writer = self.parts.replica.write_record(key, head, options).await?;
        // A purge that begins after this takes along what is written here.
        if self.deletions.forbid(key, began) {
            return Ok(false);
        }
        let mut left = if deleted { 0 } else { size_bytes };
        while left > 0 {
            let chunk: Bytes = match body.next().await {
                Some(chunk) => chunk?,
                None => return Err(broken("the value breaks off")),
            };
            left = left.saturating_sub(chunk.len() as u64);
            writer.write(chunk).await?;
        }
        writer.commit(pins).await?;
        Ok(true)
    }
}

pub(crate) fn broken(message: &str) -> Error {
    Error::Refused {
        code: Code::Unavailable,
        message: message.into(),
    }
}
