//! A lane: one stream of writes with its own thread, open segment and sync. Group commit without added delay.
//!
//! While one group of records is being synced the next one collects in the queue. A group is decided (preconditions,
//! versions), laid out, written with one `pwritev`, synced once, published in the index, and only then acknowledged.
//! Preconditions are decided here because a lane is the one place where writes of a key have an order.
//! A failed write or sync is never repeated on the same segment: the group goes once to a fresh segment, and when
//! that fails too the store becomes read-only.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use zimcache_store::{Error, Result};

use super::{
    buffers::PartBuf,
    record::Header,
    shared::{Key, LaneId, Newest, Shared, new_view},
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
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Always, as the newest version.
    Newest,
    /// Only if the key has no live record.
    IfAbsent,
    /// Only if the key has one: for tombstones.
    IfPresent,
    /// Only if the slot still is this one: the record moves, its version stays.
    Moved(View),
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Synced and published under this version.
    Written(u64),
    /// The rule did not hold; nothing was written.
    Refused,
}

/// A record on its way to the disk. Only lanes give versions, except to records that move.
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

/// A group that has been decided: what to write, and who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// To be written, in this order.
    pub(crate) writes: Vec<Write>,
    /// Refused; told after the sync, because what they collided with may be in this group.
    refused: Vec<Write>,
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
        let mut group = self.decide(collected);
        if !group.writes.is_empty() {
            match self.tail.append(&self.shared, &mut group.writes) {
                Ok(locations) => self.publish(group.writes, &locations),
                Err(error) => fail(group.writes, &error),
            }
        }
        for write in group.refused {
            answer(write, Ok(Outcome::Refused));
        }
    }

    /// Gives versions, and sorts out what its rule refuses.
    fn decide(&self, collected: Vec<Write>) -> Group {
        let mut group = Group::default();
        let mut live_here = HashSet::new();
        for mut write in collected {
            match self.holds(&write, &live_here) {
                Ok(true) => {
                    if !matches!(write.rule, Rule::Moved(_)) {
                        write.header.version = self.shared.next_version();
                    }
                    if matches!(write.rule, Rule::Newest | Rule::IfAbsent) {
                        live_here.insert(write.hash);
                    } else if write.header.is_tombstone() {
                        live_here.remove(&write.hash);
                    }
                    if write.header.is_tombstone() && matches!(write.rule, Rule::IfPresent) {
                        write.header.raw_size = self.shared.tombstone_fence();
                    }
                    group.writes.push(write);
                }
                Ok(false) => group.refused.push(write),
                Err(error) => answer(write, Err(error)),
            }
        }
        group
    }

    fn holds(&self, write: &Write, live_here: &HashSet<KeyHash>) -> Result<bool> {
        let has = |counts: &dyn Fn(&Newest) -> bool| -> Result<bool> {
            if live_here.contains(&write.hash) {
                return Ok(true);
            }
            let newest = self.shared.newest(&Key::of(&write.header), write.hash)?;
            Ok(newest.is_some_and(|newest| !newest.header.is_tombstone() && counts(&newest)))
        };
        match write.rule {
            Rule::Newest => Ok(true),
            Rule::IfAbsent => Ok(!has(&|newest| {
                !self.shared.is_over(&newest.header, &newest.view)
            })?),
            // Also when its time is over: it must not come back if that is raised.
            Rule::IfPresent => has(&|_| true),
            Rule::Moved(view) => Ok(self
                .shared
                .index
                .find(write.hash)
                .iter()
                .any(|now| now.location == view.location)),
        }
    }

    fn publish(&self, writes: Vec<Write>, locations: &[Location]) {
        for (write, location) in writes.into_iter().zip(locations) {
            let published = match write.rule {
                Rule::Moved(from) => {
                    self.publish_move(&write, from, *location);
                    Ok(())
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
            .replace(write.hash, from.location, new, clock)
        {
            self.shared
                .segments
                .sub_live(from.location.segment, from.size.bytes());
            self.shared.segments.add_live(to.segment, new.size.bytes());
        }
    }
}

fn answer(write: Write, outcome: Result<Outcome>) {
    // Whoever asked may have gone; the record stays all the same.
    write.done.send(outcome).ok();
}

/// Tells everybody of a failure that hit the whole group.
fn fail(writes: Vec<Write>, error: &Error) {
    for write in writes {
        let copy = match error {
            Error::OutOfSpace(why) => Error::OutOfSpace(why),
            Error::ReadOnly(why) => Error::ReadOnly(why),
            Error::Disk { action, source } => Error::Disk {
                action,
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
            _ => Error::Stopping,
        };
        answer(write, Err(copy));
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
