//! A blob being written to the cluster: hashed here on its way, so that a wrong body ends before any node keeps it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    BlobWriter, CreateOptions, Error, RecordHead, RecordKey, RecordOptions, Result,
};
use zimcache_types::{Digest, Hasher, Namespace};

use super::{
    commit::Commit,
    fan::{Fan, Order},
    fetch::Value,
    quorum::Quorum,
};
use crate::{
    config::Durability,
    node::store_error,
    shared::{Shared, under_the_newest_ring},
    view::{Candidate, Role},
};

/// A blob being written.
pub(crate) struct BlobPut {
    shared: Arc<Shared>,
    key: RecordKey,
    digest: Digest,
    limit: u64,
    /// Not for an upload that is taken up again: its first bytes were never here.
    hasher: Option<Hasher>,
    fan: Fan,
}

impl std::fmt::Debug for BlobPut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobPut")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl BlobPut {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        namespace: &Namespace,
        digest: Digest,
        hasher: Hasher,
        options: CreateOptions,
    ) -> Result<BlobPut> {
        let key = RecordKey::blob(namespace, &digest);
        let order = Order {
            key: key.clone(),
            head: RecordHead::default(),
            options: RecordOptions {
                size_bytes: digest.size_bytes,
                resume_as: options.resume_as,
                limit_bytes: options.limit_bytes,
                lease: options.lease,
                ..RecordOptions::default()
            },
        };
        let opened = under_the_newest_ring(&shared, || async {
            let plan = shared.plan(&key);
            let is_owner = |it: &&Candidate| it.current == Role::Owner;
            let owners = plan.candidates.iter().filter(is_owner).collect();
            let (_, stand_ins) = super::fan::owners_and_stand_ins(&plan);
            Fan::open(
                Arc::clone(&shared),
                order.clone(),
                plan.epoch,
                owners,
                stand_ins,
            )
            .await
        });
        let fan = opened.await.map_err(store_error)?;
        Ok(BlobPut {
            limit: options.limit_bytes.unwrap_or(u64::MAX),
            hasher: (fan.offset() == 0).then_some(hasher),
            shared,
            key,
            digest,
            fan,
        })
    }
}

#[async_trait]
impl BlobWriter for BlobPut {
    fn offset(&self) -> u64 {
        self.fan.offset()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.fan.sent() + chunk.len() as u64 > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.fan.write(chunk).await.map_err(store_error)
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        let actual = self.fan.sent();
        if let Some(expected) = self
            .digest
            .size_bytes
            .filter(|expected| *expected != actual)
        {
            return self.refuse(Error::SizeMismatch { expected, actual }).await;
        }
        if let Some(actual) = self.hasher.as_ref().map(|hasher| hasher.clone().finish()) {
            let expected = self.digest.hash;
            if actual != expected {
                return self
                    .refuse(Error::DigestMismatch { expected, actual })
                    .await;
            }
        }
        let class = self.shared.durability_of(&self.key.namespace);
        let is_local = class == Durability::Local;
        let how = Commit {
            is_hinted: is_local && self.shared.plan(&self.key).replicas > 1,
            is_first_enough: is_local,
        };
        let committed = self.fan.commit(how).await.map_err(store_error)?;
        let value = Value {
            shared: &self.shared,
            key: &self.key,
            size_bytes: committed.size_bytes,
            version: None,
        };
        Quorum::new(value, committed).reach().await?;
        Ok(actual)
    }
}

impl BlobPut {
    /// Refuses a body that is not what it was announced as. The nodes are told by a commit, which they refuse, so that
    /// they do not keep it for the next upload of its name.
    async fn refuse(self, why: Error) -> Result<u64> {
        let how = Commit {
            is_hinted: false,
            is_first_enough: false,
        };
        match self.fan.commit(how).await {
            Ok(_) => Err(Error::Retry(
                "a node took a body that is not what it was announced as",
            )),
            Err(_) => Err(why),
        }
    }
}

/// The empty blob being written: it is there already, but what is sent is checked.
#[derive(Debug)]
pub(crate) struct EmptyPut {
    digest: Digest,
    hasher: Hasher,
    actual: u64,
}

impl EmptyPut {
    pub(crate) const fn new(digest: Digest, hasher: Hasher) -> EmptyPut {
        EmptyPut {
            digest,
            hasher,
            actual: 0,
        }
    }
}

#[async_trait]
impl BlobWriter for EmptyPut {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.actual += chunk.len() as u64;
        self.hasher.update(&chunk);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        let actual = self.actual;
        if let Some(expected) = self
            .digest
            .size_bytes
            .filter(|expected| *expected != actual)
        {
            return Err(Error::SizeMismatch { expected, actual });
        }
        let expected = self.digest.hash;
        let actual = self.hasher.finish();
        if actual != expected {
            return Err(Error::DigestMismatch { expected, actual });
        }
        Ok(0)
    }
}
