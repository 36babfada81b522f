//! Namespace names and the numbers records carry.
//!
//! A number is given durably before the first record of a namespace. Purging gives the name a new number: everything
//! under the old one can no longer be found, and reclaim drops it.

use std::sync::Arc;

use bytes::Bytes;
use zimcache_store::Result;
use zimcache_types::{Digest, Function, Namespace};

use super::{
    lane::{Body, Rule},
    record::{Encoding, Header, Kind, flag},
    shared::{Key, LaneId, Shared},
};

/// Whether a namespace that has a number gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    No,
    /// It is being purged.
    Yes,
}

/// Records of each namespace, in batches of their own: losing one must not lose everything in the namespace.
pub(crate) const COPIES: u8 = 2;

impl Shared {
    /// How many of the index's entries are namespaces.
    pub(crate) fn namespace_records(&self) -> u64 {
        self.namespaces.read().len() as u64 * u64::from(COPIES)
    }

    /// The number of a namespace; `None` when nothing was ever written to it.
    pub(crate) fn namespace_number(&self, namespace: &Namespace) -> Option<u32> {
        self.namespaces.read().get(namespace).copied()
    }

    /// The number of a namespace, given now if it has none.
    pub(crate) async fn namespace_for_writing(
        self: &Arc<Self>,
        namespace: &Namespace,
    ) -> Result<u32> {
        match self.namespace_number(namespace) {
            Some(number) => Ok(number),
            None => self.number_namespace(namespace, Fresh::No).await,
        }
    }

    /// Gives a namespace a number, durably; a new one if it has one already and `fresh` says so.
    pub(crate) async fn number_namespace(
        self: &Arc<Self>,
        namespace: &Namespace,
        fresh: Fresh,
    ) -> Result<u32> {
        let mut last = self.numbering.lock().await;
        if fresh == Fresh::No
            && let Some(number) = self.namespace_number(namespace)
        {
            return Ok(number);
        }
        if *last == 0 {
            *last = self.namespaces.read().values().copied().max().unwrap_or(0);
        }
        *last += 1;
        let number = *last;
        for copy in 0..COPIES {
            self.write_namespace(namespace, number, copy).await?;
        }
        self.namespaces.write().insert(namespace.clone(), number);
        self.apply_retention();
        Ok(number)
    }

    async fn write_namespace(&self, namespace: &Namespace, number: u32, copy: u8) -> Result<()> {
        let name = namespace.as_str().as_bytes();
        let mut key = [0; 32];
        key.copy_from_slice(Digest::of(Function::Sha256, name).hash.as_bytes());
        let header = Header {
            kind: Kind::Namespace,
            function: copy,
            encoding: Encoding::Identity,
            flags: flag::KEEP,
            namespace: 0,
            part: number,
            stored: name.len() as u32,
            raw_size: name.len() as u64,
            version: 0,
            writer: 0,
            writing: 0,
            key,
        };
        let body = Body::Pieces(vec![Bytes::copy_from_slice(name)]);
        let hash = self.hash(&Key::of(&header));
        self.write(LaneId::Entries, hash, header, body, Rule::Newest)
            .await
            .map(drop)
    }
}
