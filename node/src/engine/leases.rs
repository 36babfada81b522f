//! Leases that outlive the process: "present" is a promise, also across a crash.
//!
//! A blob that is written under a lease says so in its record. A lease that starts later is written down in a *touches*
//! record before the caller hears "present": the time is the record's version, the payload names blobs by shard and
//! fingerprint of their keyed hash, eight bytes each, so it holds wherever they move. In a leased slot the touch is the
//! time of the last lease that is on disk; a use does not change it. A lease is kept for [`LEASE_TICKS`] and renewed only
//! when less than four hours of it would be left, so a blob costs eight bytes on disk every eight hours at most, and
//! nothing while it is asked for again and again. Not here: what leases protect from (`verdict`), and when they end early.

use std::{io, sync::atomic::Ordering::Relaxed};

use bytes::{BufMut as _, BytesMut};
use zimcache_store::{Error, Result};
use zimcache_types::EntryKind;

use super::{
    lane::{Body, Rule},
    record::{self, Encoding, Header, Kind, flag},
    retention::put_millis,
    segment::Segment,
    shared::{Key, LEASE_TICKS, LaneId, Shared, TICK_MILLIS, tick_of},
    slot::{KeyHash, Location, Slot},
};

/// A lease is started anew when it is older than this: 4 h are left then.
const RENEW_TICKS: u16 = LEASE_TICKS - 4 * 15;
/// Most blobs in one record.
const MOST_NAMES: usize = 8 << 10;
const NAME_BYTES: usize = 8;
/// What the keys of these records begin with; the rest makes each its own.
const KEY_START: &[u8; 16] = b"zimcache touches";

/// Whether a record put at this time no longer keeps any lease.
pub(crate) fn is_over(now_millis: u64, version: u64) -> bool {
    now_millis.saturating_sub(put_millis(version)) >= u64::from(LEASE_TICKS) * TICK_MILLIS
}

impl Shared {
    /// Whether a slot's lease has to start anew, so that at least four hours of it are left.
    pub(crate) fn needs_lease(&self, slot: &Slot) -> bool {
        let view = slot.view();
        let held = self.lease_ticks.load(Relaxed);
        // While leases end early because they hold too much, what is left of them is shared out.
        let renew = if held >= LEASE_TICKS {
            RENEW_TICKS
        } else {
            held / 2
        };
        held > 0 && !(view.leased && self.tick().wrapping_sub(view.touch) <= renew)
    }

    /// Leases blobs durably. Tells of each whether it is still there.
    pub(crate) async fn lease(&self, namespace: u32, hashes: &[KeyHash]) -> Result<Vec<bool>> {
        match self.write_touches(namespace, hashes).await {
            // A store that takes no writes lets nothing go either.
            Ok(()) | Err(Error::ReadOnly(_)) => {}
            Err(error) => return Err(error),
        }
        let tick = self.tick();
        let mut there = vec![false; hashes.len()];
        self.index.find_each(hashes, |number, slot| {
            there[number] |= slot.lease(tick);
        });
        Ok(there)
    }

    async fn write_touches(&self, namespace: u32, hashes: &[KeyHash]) -> Result<()> {
        let mut sent = Vec::new();
        for names in hashes.chunks(MOST_NAMES) {
            let mut payload = BytesMut::with_capacity(names.len() * NAME_BYTES);
            for hash in names {
                payload.put_u64_le(hash.name());
            }
            let header = self.touches_header(namespace, payload.len());
            let hash = self.hash(&Key::of(&header));
            let body = Body::Pieces(vec![payload.freeze()]);
            let lane = LaneId::Entries;
            sent.push(self.submit(lane, hash, header, body, Rule::Newest).await?);
        }
        for outcome in sent {
            outcome.await.unwrap_or(Err(Error::Stopping))?;
        }
        Ok(())
    }

    fn touches_header(&self, namespace: u32, bytes: usize) -> Header {
        let mut key = [0; 32];
        key[..16].copy_from_slice(KEY_START);
        key[16..].copy_from_slice(&self.new_upload_id());
        Header {
            kind: Kind::Entry,
            function: EntryKind::Internal.number(),
            encoding: Encoding::Identity,
            flags: flag::TOUCHES,
            namespace,
            part: 0,
            stored: bytes as u32,
            raw_size: bytes as u64,
            version: 0,
            key,
        }
    }

    /// Leases what a touches record names, as of its time.
    pub(crate) fn recover_touches(
        &self,
        segment: &Segment,
        location: Location,
        header: &Header,
    ) -> io::Result<()> {
        if is_over(self.clock.now().0, header.version) {
            return Ok(());
        }
        let mut bytes = vec![0; header.record_len()];
        let read = segment.file.read_at(&mut bytes, location.offset)?;
        let record = &bytes[..read];
        let Some(found) = record::open(record, segment.salt, location.offset) else {
            return Ok(());
        };
        if !record::payload_is_sound(record, &found) {
            return Ok(());
        }
        let payload = &record[found.payload_offset()..][..found.stored as usize];
        let names = payload.chunks_exact(NAME_BYTES);
        let hashes: Vec<KeyHash> = names
            .filter_map(|name| name.try_into().ok())
            .map(|name| KeyHash::from_name(u64::from_le_bytes(name)))
            .collect();
        let tick = tick_of(put_millis(header.version));
        self.index.find_each(&hashes, |_, slot| {
            slot.lease_since(tick, self.tick());
        });
        Ok(())
    }
}
