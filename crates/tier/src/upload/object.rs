//! One record on its way into the bucket: blobs once, entries only forwards.
//!
//! Every attempt opens the record anew, so a failed one leaves nothing behind. A blob is written if there is none; an
//! object that is there already is made young when it is past half of its life, and written over when it may be swept
//! at any moment. An entry is written only over a lower version, by condition, so that a lost marker or a slow node
//! never brings an old version back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zimcache_store::{ByteRange, Reader, Record, RecordKey, RecordKind, Replica, Version};
use zimcache_types::{Function, Hasher};

use crate::{
    Bucket, Error, Figures, Operation, Result, Stat,
    bucket::{Condition, Copied, PART_BYTES, PartSource, Refusal, sha256},
    budget::Budget,
    front::{self, Front, PEEK_BYTES, SUM_BYTES},
};

/// Values up to this size are written with one request, in bytes.
const WHOLE_BYTES: u64 = 2 * PART_BYTES;
/// Attempts at one record before it is put off.
const ATTEMPTS: u32 = 8;

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uploaded {
    /// The bucket has this version now, or had it already, or has a newer one.
    Yes(Version),
    /// There is no such record any more.
    Gone,
}

/// Why a record is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is dirty.
    Dirty,
    /// It is used and its object gets old.
    Old,
}

/// How long an object may still be counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// At least half of it.
    Young,
    /// Less, but it is safe from the sweep.
    Old,
    /// The bucket's rules may remove it at any moment.
    Over,
}

/// Uploads records of one node.
#[derive(Debug, Clone)]
pub(crate) struct Ship {
    pub(crate) bucket: Bucket,
    pub(crate) replica: Arc<dyn Replica>,
    pub(crate) memory: Budget,
    pub(crate) figures: Arc<Figures>,
}

/// What an attempt came to.
enum Attempt {
    Done(Uploaded),
    /// Look again and decide anew.
    Again,
}

impl Bucket {
    /// How long an object may still be counted on.
    pub(crate) fn life(&self, stat: &Stat) -> Life {
        let Some(ttl) = self.settings().ttl else {
            return Life::Young;
        };
        let age = self.age(stat.modified);
        if age < ttl / 2 {
            Life::Young
        } else if age < ttl {
            Life::Old
        } else {
            Life::Over
        }
    }
}

impl Ship {
    /// Sees to it that the bucket has a record.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`, `NoBucket`, `Contended`, `Store`.
    pub(crate) async fn upload(&self, key: &RecordKey, reason: Reason) -> Result<Uploaded> {
        let name = self.bucket.keys().object(key);
        for failures in 0..ATTEMPTS {
            let Some(record) = self.replica.open_record(key, ByteRange::Full).await? else {
                return Ok(Uploaded::Gone);
            };
            if reason == Reason::Dirty && !record.pins.dirty {
                return Ok(Uploaded::Gone);
            }
            let attempt = match key.kind {
                RecordKind::Blob(function) => {
                    let look = reason == Reason::Old || failures > 0;
                    self.blob(key, function, &name, record, look).await?
                }
                RecordKind::Entry(_) => self.entry(&name, record).await?,
            };
            match attempt {
                Attempt::Done(uploaded) => return Ok(uploaded),
                Attempt::Again => self.bucket.pause(failures).await,
            }
        }
        Err(Error::Contended)
    }

    async fn blob(
        &self,
        key: &RecordKey,
        function: Function,
        name: &str,
        record: Record,
        look: bool,
    ) -> Result<Attempt> {
        let done = Attempt::Done(Uploaded::Yes(record.head.version));
        let size = record.value.total_bytes();
        let mut condition = Condition::Absent;
        // A large body is not sent to learn that it was not needed.
        if look || size > WHOLE_BYTES {
            match self.bucket.head(name).await? {
                None => {}
                Some(stat) if stat.size_bytes != size => condition = Condition::Always,
                Some(stat) if self.keep_alive(name, &stat).await? => {
                    self.figures.add_uploads_spared(1);
                    return Ok(done);
                }
                Some(_) => condition = Condition::Always,
            }
        }
        let sum = (function == Function::Sha256).then_some(key.id);
        let mut source = Source::blob(record.value);
        let sent = self.send(name, size, &mut source, sum, &condition).await?;
        self.judge(sent, size, done)
    }

    /// Whether an object that is there already will do; makes it young if need be.
    pub(crate) async fn keep_alive(&self, name: &str, stat: &Stat) -> Result<bool> {
        let kept = match self.bucket.life(stat) {
            Life::Young => true,
            Life::Over => false,
            Life::Old => {
                let copied = self.bucket.renew(name, stat.size_bytes).await?;
                self.figures.add_refreshes(1);
                copied == Copied::Yes
            }
        };
        Ok(kept)
    }

    async fn entry(&self, name: &str, record: Record) -> Result<Attempt> {
        let version = record.head.version;
        let done = Attempt::Done(Uploaded::Yes(version));
        let condition = match self.stored_version(name).await? {
            None => Condition::Absent,
            Some((stored, stat)) => {
                let spared = stored > version
                    || (stored == version && self.bucket.life(&stat) == Life::Young);
                if spared {
                    self.figures.add_uploads_spared(1);
                    return Ok(done);
                }
                Condition::Unchanged(stat.etag)
            }
        };
        let front = Front {
            head: record.head,
            created: record.created,
        };
        let mut source = Source::entry(front.encode()?, record.value);
        let size = source.size_bytes;
        let sent = self.send(name, size, &mut source, None, &condition).await?;
        self.judge(sent, size, done)
    }

    /// The version of an entry in the bucket, by its first bytes. Bytes that are no entry count as the lowest version:
    /// they are written over.
    async fn stored_version(&self, name: &str) -> Result<Option<(Version, Stat)>> {
        let start = ByteRange::From {
            first: 0,
            last: Some(PEEK_BYTES - 1),
        };
        let opened = match self.bucket.get(name, start).await {
            // An empty object has no first byte.
            Err(Error::RangeInvalid { .. }) => {
                let stat = self.bucket.head(name).await?;
                return Ok(stat.map(|stat| (Version::default(), stat)));
            }
            opened => opened?,
        };
        let Some(mut object) = opened else {
            return Ok(None);
        };
        let mut bytes = BytesMut::with_capacity(PEEK_BYTES as usize);
        while let Some(chunk) = object.next_chunk().await {
            bytes.extend_from_slice(&chunk?);
        }
        let version = front::peek(&bytes).unwrap_or_default();
        Ok(Some((version, object.stat().clone())))
    }

    async fn send(
        &self,
        name: &str,
        size_bytes: u64,
        source: &mut Source,
        sum: Option<[u8; 32]>,
        condition: &Condition,
    ) -> Result<Result<(), Refusal>> {
        if size_bytes > WHOLE_BYTES {
            let memory = &self.memory;
            let sent = self
                .bucket
                .put_parts(name, size_bytes, source, memory, condition);
            return sent.await;
        }
        let _room = self.memory.take(size_bytes).await?;
        let body = source.part(size_bytes).await?;
        if body.len() as u64 != size_bytes {
            return Err(Error::Corrupt("a value shorter than its record says"));
        }
        let sum = sum.unwrap_or_else(|| sha256(&body));
        Ok(self.bucket.put(name, body, sum, condition).await)
    }

    fn judge(&self, sent: Result<(), Refusal>, size_bytes: u64, done: Attempt) -> Result<Attempt> {
        match sent {
            Ok(()) => {
                self.figures.add_uploads(1);
                self.figures.add_upload_bytes(size_bytes);
                Ok(done)
            }
            // Whether it took effect, or who was faster, shows when the object is looked at.
            Err(Refusal::Condition | Refusal::Absent) => Ok(Attempt::Again),
            Err(refusal) if refusal.is_passing() => Ok(Attempt::Again),
            Err(refusal) => Err(refusal.into_error(Operation::Put)),
        }
    }
}

/// The bytes of an object: a front, the value, a sum over both.
struct Source {
    size_bytes: u64,
    pending: BytesMut,
    reader: Reader,
    sum: Option<Hasher>,
}

impl Source {
    fn blob(reader: Reader) -> Source {
        Source {
            size_bytes: reader.total_bytes(),
            pending: BytesMut::new(),
            reader,
            sum: None,
        }
    }

    fn entry(front: Bytes, reader: Reader) -> Source {
        let size_bytes = front.len() as u64 + reader.total_bytes() + SUM_BYTES;
        let mut sum = Hasher::with_size(Function::Sha256, size_bytes - SUM_BYTES);
        sum.update(&front);
        Source {
            size_bytes,
            pending: BytesMut::from(&front[..]),
            reader,
            sum: Some(sum),
        }
    }

    /// More bytes into `pending`; false at the end.
    async fn more(&mut self) -> Result<bool> {
        if let Some(chunk) = self.reader.next_chunk().await {
            let chunk = chunk?;
            if let Some(sum) = &mut self.sum {
                sum.update(&chunk);
            }
            self.pending.extend_from_slice(&chunk);
            return Ok(true);
        }
        let Some(sum) = self.sum.take() else {
            return Ok(false);
        };
        self.pending.extend_from_slice(sum.finish().as_bytes());
        Ok(true)
    }
}

#[async_trait::async_trait]
impl PartSource for Source {
    async fn part(&mut self, size_bytes: u64) -> Result<Bytes> {
        let wanted = size_bytes as usize;
        while self.pending.len() < wanted && self.more().await? {}
        let length = wanted.min(self.pending.len());
        Ok(self.pending.split_to(length).freeze())
    }
}
