//! Records on their way from a segment that is being emptied to a new place: sent to a lane, waited for in portions.
//!
//! A move is decided again by the lane when it is written, so a record that was replaced meanwhile stays where it is
//! and dies there. What finds no room is evicted if it may be.

use bytes::Bytes;
use tokio::sync::oneshot;
use zimcache_store::{Error, Result};

use super::{
    lane::{Body, Message, Outcome, Rule, Write},
    record::{Header, flag},
    segment::{Class, Segment},
    shared::{LaneId, Shared},
    slot::{KeyHash, View},
    verdict::{Emptied, Spare, Verdict},
};

/// Bytes on their way to a new place at once.
const MOVING_BYTES: usize = 8 << 20;

/// Records on their way to a new place.
pub(crate) struct Moving<'a> {
    shared: &'a Shared,
    lane: LaneId,
    bytes: usize,
    sent: Vec<Sent>,
}

/// A record that was sent to its new place.
struct Sent {
    outcome: oneshot::Receiver<Result<Outcome>>,
    hash: KeyHash,
    view: View,
    header: Header,
    verdict: Verdict,
}

impl<'a> Moving<'a> {
    pub(crate) fn new(shared: &'a Shared, segment: &'a Segment) -> Moving<'a> {
        let entries = segment.class == Class::Entries;
        shared.space.set_moving_entries(entries);
        let lane = if entries {
            LaneId::Entries
        } else {
            LaneId::Main
        };
        Moving {
            shared,
            lane,
            bytes: 0,
            sent: Vec::new(),
        }
    }

    pub(crate) fn send(
        &mut self,
        hash: KeyHash,
        mut header: Header,
        payload: Bytes,
        view: View,
        verdict: Verdict,
        emptied: &mut Emptied,
    ) -> Result<()> {
        // In its new place a lease counts from now after a restart: later, which is safe. One that ended early stays one
        // that will have been broken.
        header.flags &= !flag::LEASED;
        if self.shared.lease_clock().is_open(&view) {
            header.flags |= flag::LEASED;
        }
        let mut as_moved = view;
        as_moved.freq = view.freq.saturating_sub(1);
        let (done, outcome) = oneshot::channel();
        self.bytes += header.record_len();
        let write = Write {
            hash,
            header,
            body: Body::Pieces(vec![payload]),
            rule: Rule::Moved(as_moved),
            done,
        };
        self.shared.lanes[self.lane as usize]
            .blocking_send(Message::Write(write))
            .map_err(|_| Error::Stopping)?;
        self.sent.push(Sent {
            outcome,
            hash,
            view,
            header,
            verdict,
        });
        if self.bytes >= MOVING_BYTES {
            self.finish(emptied)
        } else {
            Ok(())
        }
    }

    /// Waits for everything sent. What found no room is evicted if it may be.
    pub(crate) fn finish(&mut self, emptied: &mut Emptied) -> Result<()> {
        self.bytes = 0;
        let mut failed = None;
        for sent in self.sent.drain(..) {
            match sent.outcome.blocking_recv().unwrap_or(Err(Error::Stopping)) {
                Ok(_) => emptied.moved_bytes += sent.view.size.bytes() as u64,
                Err(error @ Error::OutOfSpace(_)) if sent.verdict != Verdict::Pinned => {
                    let (hash, view) = (sent.hash, sent.view);
                    let spare = Spare::Nothing;
                    if !self.shared.evict(hash, view, &sent.header, spare, emptied) {
                        failed = Some(error);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.shared.space.set_moving_entries(false);
    }
}
