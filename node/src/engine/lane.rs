//! A lane: one stream of writes with its own thread, open segment and sync. Group commit without added delay.
//!
//! While one group of records is being synced the next one collects in the queue. A group is decided (preconditions,
//! versions), laid out, written with one `pwritev`, synced once, published in the index, and only then acknowledged.
//! What is written and under which version is decided in `decide`.
//! A failed write or sync is never repeated on the same segment: the group goes once to a fresh segment, and when
//! that fails too the store becomes read-only.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use zimcache_store::{Error, Precondition, Result, Version};

use super::{
    buffers::PartBuf,
    decide::{Deciding, Group},
    record::Header,
    settle::PinChange,
    shared::{LaneId, Shared, new_view},
    slot::{KeyHash, Location, View},
    tail::Tail,
};

/// Writes waiting in a lane's queue.
pub(crate) const QUEUE: usize = 1024;
/// Most records of one group.
const GROUP_RECORDS: usize = super::batch::MAX_RECORDS;

/// The payload of a record to be written.
#[derive(Debug)]
pub(crate) enum Body {
    /// Pieces one after the other, to be packed with other records.
    Pieces(Vec<Bytes>),
    /// A buffer of its own, written as it is.
    Part(PartBuf),
}

/// When a write takes effect.
#[derive(Debug)]
pub(crate) enum Rule {
    /// Always, as the newest version.
    Newest,
    /// Only if the key has no live record.
    IfAbsent,
    /// Only if the key has one: for tombstones.
    IfPresent,
    /// Only if the slot still is this one: the record moves, its version stays.
    Moved(View),
    /// As the version its header says, unless a higher one is held.
    Given(Precondition),
    /// Always: a note of pins that change; they change once it is synced.
    Pins(Box<PinChange>),
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Synced and published under this version.
    Written(u64),
    /// Nothing was written: this version, or the higher one named, is held already.
    Held(Version),
    /// The rule did not hold; nothing was written.
    Refused,
}

/// A record on its way to the disk. Only lanes give versions, except to records that move or come from elsewhere.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) hash: KeyHash,
    pub(crate) header: Header,
    pub(crate) body: Body,
    pub(crate) rule: Rule,
    pub(crate) done: oneshot::Sender<Result<Outcome>>,
}

/// What a lane's queue carries.
#[derive(Debug)]
pub(crate) enum Message {
    Write(Write),
    /// Nothing came for a while: vouch for the last batch.
    Vouch,
    /// Tell when everything sent before is settled.
    Settle(oneshot::Sender<()>),
    /// Finish what is queued and end.
    Stop,
}

impl Write {
    /// Bytes of the record.
    pub(crate) fn record_len(&self) -> usize {
        self.header.record_len()
    }
}

impl Shared {
    /// Sends a record to a lane and waits until it is durable and visible, or refused.
    pub(crate) async fn write(
        &self,
        lane: LaneId,
        hash: KeyHash,
        header: Header,
        body: Body,
        rule: Rule,
    ) -> Result<Outcome> {
        self.submit(lane, hash, header, body, rule)
            .await?
            .await
            .unwrap_or(Err(Error::Stopping))
    }

    /// Waits until everything sent to a lane so far is settled.
    pub(crate) async fn settle(&self, lane: LaneId) -> Result<()> {
        let (settled, done) = oneshot::channel();
        let message = Message::Settle(settled);
        self.lanes[lane as usize]
            .send(message)
            .await
            .map_err(|_| Error::Stopping)?;
        done.await.map_err(|_| Error::Stopping)
    }

    /// Sends a record to a lane; the receiver tells when it is durable and visible.
    pub(crate) async fn submit(
        &self,
        lane: LaneId,
        hash: KeyHash,
        header: Header,
        body: Body,
        rule: Rule,
    ) -> Result<oneshot::Receiver<Result<Outcome>>> {
        self.check_writable()?;
        let (done, outcome) = oneshot::channel();
        let write = Message::Write(Write {
            hash,
            header,
            body,
            rule,
            done,
        });
        self.lanes[lane as usize]
            .send(write)
            .await
            .map_err(|_| Error::Stopping)?;
        Ok(outcome)
    }
}

/// The thread of one lane.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Message>,
    /// Taken from the queue but not part of the last group.
    carried: Option<Message>,
    tail: Tail,
}

impl Lane {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: LaneId,
        queue: mpsc::Receiver<Message>,
        last_batch: u64,
    ) -> Lane {
        Lane {
            shared,
            queue,
            carried: None,
            tail: Tail::new(id, last_batch),
        }
    }

    /// Runs until told to stop, then finishes what is queued.
    pub(crate) fn run(mut self) {
        while let Some(message) = self.carried.take().or_else(|| self.queue.blocking_recv()) {
            match message {
                Message::Write(first) => {
                    let group = self.collect(first);
                    self.commit(group);
                }
                Message::Vouch => self.tail.vouch(&self.shared),
                // Who asked may have gone.
                Message::Settle(settled) => drop(settled.send(())),
                Message::Stop => self.queue.close(),
            }
        }
        self.tail.vouch(&self.shared);
        self.tail.close(&self.shared);
    }

    /// Everything that is waiting, up to a group's bounds.
    fn collect(&mut self, first: Write) -> Vec<Write> {
        let limit = self.shared.geometry.group_bytes;
        let mut bytes = first.record_len();
        let mut group = vec![first];
        while group.len() < GROUP_RECORDS {
            match self.queue.try_recv() {
                Ok(Message::Write(next)) if bytes + next.record_len() <= limit => {
                    bytes += next.record_len();
                    group.push(next);
                }
                Ok(other) => {
                    self.carried = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    fn commit(&mut self, collected: Vec<Write>) {
        let mut group = Deciding::of(&self.shared, collected);
        let mut failed = None;
        if !group.writes.is_empty() {
            match self.tail.append(&self.shared, &mut group.writes) {
                Ok(locations) => self.publish(std::mem::take(&mut group.writes), &locations),
                Err(error) => failed = Some(error),
            }
        }
        self.shared.pinned.let_go(&group.rewritten);
        tell(group, failed.as_ref());
    }

    fn publish(&self, writes: Vec<Write>, locations: &[Location]) {
        for (write, location) in writes.into_iter().zip(locations) {
            let published = match &write.rule {
                Rule::Moved(from) => {
                    self.publish_move(&write, *from, *location);
                    Ok(())
                }
                Rule::Pins(change) => {
                    let noted = self.shared.publish(write.hash, &write.header, *location);
                    noted.and_then(|()| self.shared.apply_pins(change))
                }
                _ => self.shared.publish(write.hash, &write.header, *location),
            };
            let outcome = published.map(|()| Outcome::Written(write.header.version));
            answer(write, outcome);
        }
    }

    fn publish_move(&self, write: &Write, from: View, to: Location) {
        let clock = self.shared.lease_clock();
        let mut new = new_view(&write.header, to, clock);
        (new.freq, new.touch, new.leased) = (from.freq, from.touch, from.leased);
        if self
            .shared
            .index
            .relocate(write.hash, from.location, new, clock)
        {
            self.shared
                .segments
                .sub_live(from.location.segment, from.size.bytes());
            self.shared.segments.add_live(to.segment, new.size.bytes());
        }
    }
}

pub(crate) fn answer(write: Write, outcome: Result<Outcome>) {
    // Whoever asked may have gone; the record stays all the same.
    write.done.send(outcome).ok();
}

/// Tells everybody who has not been told: of a failure those too who gave way to what was not written after all.
fn tell(group: Group, failed: Option<&Error>) {
    for write in group.writes {
        answer(write, Err(failed.map_or(Error::Stopping, copy_of)));
    }
    for refused in group.refused {
        let outcome = match failed {
            Some(error) if refused.by_the_group => Err(copy_of(error)),
            _ => Ok(refused.outcome),
        };
        answer(refused.write, outcome);
    }
}

fn copy_of(error: &Error) -> Error {
    match error {
        Error::OutOfSpace(why) => Error::OutOfSpace(why),
        Error::ReadOnly(why) => Error::ReadOnly(why),
        Error::Disk { action, source } => Error::Disk {
            action,
            source: std::io::Error::new(source.kind(), source.to_string()),
        },
        _ => Error::Stopping,
    }
}

/// Bytes of a group's records that came in pieces, packed into one batch; nothing if none did.
pub(crate) fn packed_bytes(writes: &[Write]) -> usize {
    let pieces = writes
        .iter()
        .filter(|write| matches!(write.body, Body::Pieces(_)));
    let records: usize = pieces.map(Write::record_len).sum();
    if records == 0 {
        0
    } else {
        super::batch::HEADER + records
    }
}
