//! Bugs around a node, or around a gateway's way to one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use zimcache_link::{
    Body, Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing,
};
use zimcache_store::{Pins, RecordKey, RecordKind, Version, Written};
use zimcache_types::Namespace;

use crate::{bug::Bug, disk::Disk};

/// A peer with a bug.
#[derive(Debug)]
pub(crate) struct Saboteur {
    peer: Arc<dyn Peer>,
    bug: Bug,
    random: Mutex<StdRng>,
    /// The disk of the node, where the saboteur is on it.
    disk: Option<Disk>,
    last_read: Mutex<Option<RecordKey>>,
}

impl Saboteur {
    /// Puts a bug around a peer, if there is one.
    pub(crate) fn around(
        peer: Arc<dyn Peer>,
        bug: Option<Bug>,
        random: StdRng,
        disk: Option<Disk>,
    ) -> Arc<dyn Peer> {
        let Some(bug) = bug else { return peer };
        Arc::new(Saboteur {
            peer,
            bug,
            random: Mutex::new(random),
            disk,
            last_read: Mutex::new(None),
        })
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == bug && self.disk.is_some()
    }

    fn is_on_the_way(&self, bug: Bug) -> bool {
        self.bug == bug && self.disk.is_none()
    }

    /// The epoch that the node is told: with a ring that is never renewed one that no node refuses.
    fn epoch(&self, epoch: u64) -> u64 {
        if self.is_on_the_way(Bug::FollowsStaleRing) {
            u64::from(u32::MAX)
        } else {
            epoch
        }
    }

    fn happens(&self, chance: f64) -> bool {
        self.random.lock().random_bool(chance)
    }

    /// Another key of the kind that was read lately.
    fn other_than(&self, key: &RecordKey) -> Option<RecordKey> {
        let last = self.last_read.lock().replace(key.clone());
        last.filter(|last| last != key && last.kind == key.kind)
    }

    fn sabotage_found(&self, found: Found) -> Found {
        match found {
            Found::Yes {
                head,
                created,
                pins,
                total_bytes,
                is_unsure,
                body,
            } if self.is(Bug::CutsBodies) && total_bytes > 1 && self.happens(0.1) => Found::Yes {
                head,
                created,
                pins,
                total_bytes: total_bytes / 2,
                is_unsure,
                body: Box::new(Cut {
                    body,
                    left: usize::try_from(total_bytes / 2).unwrap(),
                }),
            },
            Found::Yes {
                head,
                created,
                pins,
                total_bytes,
                is_unsure,
                body,
            } if self.is(Bug::FlipsBits) && self.happens(0.1) => Found::Yes {
                head,
                created,
                pins,
                total_bytes,
                is_unsure,
                body: Box::new(Flipped {
                    body,
                    is_done: false,
                }),
            },
            found => found,
        }
    }
}

#[async_trait]
impl Peer for Saboteur {
    async fn read(&self, mut read: Read) -> Result<Found> {
        read.epoch = self.epoch(read.epoch);
        let other = self.other_than(&read.key);
        let is_swapped = self.is(Bug::ServesAnotherValue) && self.happens(0.1);
        let asked = match other {
            Some(key) if is_swapped => Read {
                key,
                ..read.clone()
            },
            _ => read,
        };
        match self.peer.read(asked).await {
            Ok(found) => Ok(self.sabotage_found(found)),
            Err(Error::Unreachable { .. }) if self.is_on_the_way(Bug::TakesSilenceForAbsence) => {
                Ok(Found::No(Presence::Absent))
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, mut write: Write) -> Result<Box<dyn Writing>> {
        write.epoch = self.epoch(write.epoch);
        let sent = write.head.version;
        let writing = self.peer.write(write).await?;
        if self.is_on_the_way(Bug::VersionsByWallClock) {
            return Ok(Box::new(Blind { writing, sent }));
        }
        let is_lost = self.is_on_the_way(Bug::CountsUnsentCopies) || self.is(Bug::KeepsNothing);
        if is_lost && self.happens(0.3) {
            return Ok(Box::new(Unsent { bytes: 0, sent }));
        }
        Ok(writing)
    }

    async fn find(&self, mut find: Find) -> Result<Vec<Presence>> {
        find.epoch = self.epoch(find.epoch);
        let mut said = self.peer.find(find).await?;
        for presence in &mut said {
            if self.is(Bug::FindsEverything) {
                *presence = Presence::Present;
            }
        }
        Ok(said)
    }

    async fn pull(&self, mut pull: Pull) -> Result<Vec<bool>> {
        pull.epoch = self.epoch(pull.epoch);
        if self.is(Bug::FetchesNothing) {
            return Ok(vec![true; pull.keys.len()]);
        }
        self.peer.pull(pull).await
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        self.peer.settle(records, pins).await
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        if self.is(Bug::DeletesNothing) {
            return Ok(true);
        }
        self.peer.delete(self.epoch(epoch), key).await
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        let Some(disk) = self.disk.as_ref().filter(|_| self.is(Bug::PurgesBlobsOnly)) else {
            return self.peer.purge(self.epoch(epoch), namespace).await;
        };
        let held = disk.records().records().into_keys();
        let is_blob = |key: &RecordKey| matches!(key.kind, RecordKind::Blob(_));
        for key in held.filter(|key| key.namespace == namespace && is_blob(key)) {
            disk.records().forget(&key);
        }
        Ok(())
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        self.peer.list_entries(listing).await
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        self.peer.list_blobs(listing).await
    }

    async fn status(&self, mut question: StatusQuestion) -> Result<Status> {
        if self.is(Bug::OwesNothing) {
            question.for_member = None;
        }
        let mut status = self.peer.status(question).await?;
        status.nothing_for_member |= self.is(Bug::OwesNothing);
        if self.is_on_the_way(Bug::FollowsStaleRing) {
            status.ring = None;
        }
        Ok(status)
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        self.peer.manage(work).await
    }
}

/// A body that ends early.
#[derive(Debug)]
struct Cut {
    body: Box<dyn Body>,
    left: usize,
}

#[async_trait]
impl Body for Cut {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        let next = self.body.next().await?;
        Some(next.map(|mut chunk| {
            chunk.truncate(self.left);
            self.left -= chunk.len();
            chunk
        }))
    }
}

/// A body whose first byte is another one.
#[derive(Debug)]
struct Flipped {
    body: Box<dyn Body>,
    is_done: bool,
}

#[async_trait]
impl Body for Flipped {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let next = self.body.next().await?;
        Some(next.map(|chunk| {
            if std::mem::replace(&mut self.is_done, true) || chunk.is_empty() {
                return chunk;
            }
            let mut wrong = chunk.to_vec();
            wrong[0] ^= 1;
            wrong.into()
        }))
    }
}

/// A write whose writer does not look at what the node holds.
#[derive(Debug)]
struct Blind {
    writing: Box<dyn Writing>,
    sent: Version,
}

#[async_trait]
impl Writing for Blind {
    fn offset(&self) -> u64 {
        self.writing.offset()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.writing.write(chunk).await
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let written = self.writing.commit(pins).await?;
        Ok(Written {
            version: self.sent,
            ..written
        })
    }
}

/// A write that goes nowhere.
#[derive(Debug)]
struct Unsent {
    bytes: u64,
    sent: Version,
}

#[async_trait]
impl Writing for Unsent {
    fn offset(&self) -> u64 {
        0
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    async fn commit(self: Box<Self>, _: Pins) -> Result<Written> {
        Ok(Written {
            size_bytes: self.bytes,
            version: self.sent,
        })
    }
}
