//! What a member answers.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use zimcache_link::{
    Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing, usage_to_json,
};
use zimcache_ring::Document;
use zimcache_store::{
    ByteRange, GcOptions, GcReport, Pins, Precondition, RecordKey, RecordKind, Version,
};
use zimcache_types::{Code, Digest, EntryKey, Hash, Namespace};

use crate::{
    DurableTier, Member,
    member::Inner,
    pull::broken,
    values::{self, Taking},
};

/// Questions to the durable tier under way for one call.
const ASKED_AT_ONCE: usize = 16;

impl Inner {
    /// Whether this node may have missed something while it was away.
    pub(crate) fn is_unsure(&self) -> bool {
        self.catching_up.load(Ordering::Acquire)
    }

    /// What this node says about what it does not have.
    fn absent(&self) -> Presence {
        if self.is_unsure() {
            Presence::Unknown
        } else {
            Presence::Absent
        }
    }

    /// Entries are not read or written under a ring older than the one for which everything was handed over.
    fn check_epoch(&self, kind: RecordKind, epoch: u64) -> Result<()> {
        let is_entry = matches!(kind, RecordKind::Entry(_));
        if is_entry && epoch < self.synced_epoch.load(Ordering::Acquire) {
            let ring = self.parts.rings.document();
            return Err(Error::StaleRing { ring });
        }
        Ok(())
    }

    /// What has to reach every member is not begun under an older ring than this node's: it may lack a member, which
    /// would keep what all others forget.
    fn check_members(&self, epoch: u64) -> Result<()> {
        if epoch < self.parts.rings.epoch() {
            let ring = self.parts.rings.document();
            return Err(Error::StaleRing { ring });
        }
        Ok(())
    }

    /// Follows a ring that somebody else knows of, if it is newer.
    pub(crate) async fn adopt(&self, ring: Option<Bytes>) {
        let Some(ring) = ring.filter(|ring| !ring.is_empty()) else {
            return;
        };
        let text = std::str::from_utf8(&ring).unwrap_or_default();
        match Document::parse(text) {
            Ok(document) => drop(self.parts.rings.adopt(document).await),
            Err(error) => tracing::warn!(%error, "another node's ring cannot be followed"),
        }
    }

    /// Opens a record of the durable tier, which keeps it here; or says that there is none.
    async fn fill(&self, key: &RecordKey, range: ByteRange) -> Result<Found> {
        let mut found = match &self.parts.tier {
            Some(tier) if self.deletions.forbid(key, Instant::now()) => {
                Found::No(after_deletion(&**tier, key).await)
            }
            Some(tier) => tier.fill(key, range).await?,
            None => Found::No(Presence::Absent),
        };
        match &mut found {
            Found::No(said @ Presence::Absent) => *said = self.absent(),
            Found::Yes { is_unsure, .. } => *is_unsure = self.is_unsure(),
            Found::No(_) => {}
        }
        Ok(found)
    }

    /// Looks for those that are missing here in the durable tier.
    async fn find_in_tier(&self, keys: &[RecordKey], said: &mut [Presence]) {
        let Some(tier) = &self.parts.tier else { return };
        let asked = keys.iter().zip(said);
        let asked = asked.filter(|(_, said)| **said != Presence::Present);
        let asked: Vec<_> = asked.collect();
        let keys: Vec<&RecordKey> = asked.iter().map(|(key, _)| *key).collect();
        let may = asked.into_iter().zip(tier.may_hold(&keys));
        let mut asked: Vec<_> = may.filter_map(|(it, may)| may.then_some(it)).collect();
        // Often the tier has answered before: so it is shares that wait together, not single blobs.
        let share = asked.len().div_ceil(ASKED_AT_ONCE).max(1);
        let shares = asked.chunks_mut(share).map(async |share| {
            for (key, said) in share {
                find_one(&**tier, key, said).await;
            }
        });
        futures_util::future::join_all(shares).await;
    }

    /// How this node is, as far as that takes no time.
    fn standing(&self) -> Status {
        let parts = &self.parts;
        Status {
            id: parts.id.clone(),
            store_id: parts.replica.store_id(),
            version: parts.version.clone(),
            epoch: parts.rings.epoch(),
            synced_epoch: self.synced_epoch.load(Ordering::Acquire),
            catching_up: self.catching_up.load(Ordering::Acquire),
            draining: self.draining.load(Ordering::Acquire),
            pinned: parts.replica.pinned(),
            in_flight: Arc::strong_count(&self.busy) as u64 - 1,
            tier_reachable: parts.tier.as_ref().map(|tier| tier.is_reachable()),
            ..Status::default()
        }
    }

    async fn status(self: &Arc<Self>, question: StatusQuestion) -> Result<Status> {
        let (parts, asked_epoch) = (&self.parts, epoch_of(question.ring.as_ref()));
        self.adopt(question.ring).await;
        let nothing_for_member = match &question.for_member {
            Some((member, store)) => self.owes_nothing(member, *store).await,
            None => false,
        };
        let mut status = Status {
            nothing_for_member,
            ring: (parts.rings.epoch() > asked_epoch).then(|| parts.rings.document()),
            ..self.standing()
        };
        if question.with_figures {
            status.stats = parts.admin.stats();
            status.usage = usage_to_json(&parts.admin.usage().await?);
        }
        Ok(status)
    }

    /// A row of a listing with the version that counts in a cluster; `None` when it is gone meanwhile.
    async fn listed(
        &self,
        key: EntryKey,
        row: zimcache_store::EntryInfo,
    ) -> Result<Option<ListedEntry>> {
        let name = RecordKey::entry(&key);
        let record = self
            .parts
            .replica
            .open_record(&name, ByteRange::Full)
            .await?;
        let live = record.filter(|record| !record.head.deleted);
        Ok(live.map(|record| ListedEntry {
            text: row.text,
            size_bytes: row.size_bytes,
            version: record.head.version,
            created: row.created,
        }))
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        let Listing::Entries {
            namespace,
            kind,
            prefix,
            after,
            limit,
        } = listing
        else {
            return Err(invalid("this lists entries"));
        };
        let entries = &self.parts.entries;
        let rows = entries
            .list(&namespace, kind, &prefix, after.as_deref(), limit)
            .await?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let key = EntryKey::new(namespace.clone(), kind, row.text.clone());
            if let Some(key) = key {
                listed.extend(self.listed(key, row).await?);
            }
        }
        Ok(listed)
    }
}

/// Asks the durable tier for a blob that is missing here. What it cannot tell stays missing: that costs another upload,
/// and "unknown" would cost a build.
async fn find_one(tier: &dyn DurableTier, key: &RecordKey, said: &mut Presence) {
    match tier.holds(key).await {
        Ok(true) => *said = Presence::Present,
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "the durable tier cannot tell what it has"),
    }
}

/// What is said of a record that was deleted a moment ago. If the durable tier has it, it was put again, or uploaded by an
/// owner that the deletion has not reached yet.
async fn after_deletion(tier: &dyn DurableTier, key: &RecordKey) -> Presence {
    match tier.holds(key).await {
        Ok(false) => return Presence::Absent,
        Ok(true) => {}
        Err(error) => tracing::debug!(%error, "the durable tier cannot tell what it has"),
    }
    Presence::Unknown
}

/// Epoch of a document; 0 when there is none or it does not parse.
fn epoch_of(ring: Option<&Bytes>) -> u64 {
    let text = ring.and_then(|ring| std::str::from_utf8(ring).ok());
    let document = text.and_then(|text| Document::parse(text).ok());
    document.map_or(0, |document| document.epoch())
}

fn invalid(message: &str) -> Error {
    Error::Refused {
        code: Code::Invalid,
        message: message.into(),
    }
}

/// The digest of a blob, as far as its record's name tells it.
pub(crate) fn digest(key: &RecordKey) -> Option<Digest> {
    let RecordKind::Blob(function) = key.kind else {
        return None;
    };
    let hash = Hash::from_bytes(function, key.id.get(..function.hash_len())?)?;
    Some(Digest::unsized_(hash))
}

fn json(document: &impl serde::Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(document);
    bytes
        .map(Bytes::from)
        .map_err(|error| broken(&error.to_string()))
}

impl Member {
    /// How this node is: without figures, and without what it knows of others.
    pub fn standing(&self) -> Status {
        self.0.standing()
    }

    /// Collects garbage here, and in the durable tier if that is this node's task.
    ///
    /// # Errors
    /// As [`zimcache_store::StoreAdmin::gc`]; when the durable tier cannot be asked.
    pub async fn collect(&self, options: GcOptions) -> Result<GcReport> {
        let (whole, dry_run) = (options.namespace.is_none(), options.dry_run);
        let mut report = self.0.parts.admin.gc(options).await?;
        if let Some(tier) = self
            .0
            .parts
            .tier
            .as_ref()
            .filter(|_| whole && self.sweeps())
        {
            (report.swept_objects, report.swept_bytes) = tier.sweep(dry_run).await?;
        }
        Ok(report)
    }

    /// Whether this node is the one that sweeps the durable tier: the first of the ring that is there.
    pub fn sweeps(&self) -> bool {
        let Some(ring) = self.0.parts.rings.get() else {
            return false;
        };
        let mut there = ring.members().filter(|(_, member)| !member.state.is_gone());
        there
            .next()
            .is_some_and(|(_, first)| *first.id == *self.0.parts.id)
    }
}

#[async_trait]
impl Peer for Member {
    async fn read(&self, read: Read) -> Result<Found> {
        let (this, key) = (&self.0, &read.key);
        this.check_epoch(key.kind, read.epoch)?;
        if let Some(record) = this.open(key, read.range).await? {
            if let Some(tier) = &this.parts.tier {
                tier.touched(key);
            }
            return Ok(values::found(record, this.is_unsure(), &this.busy));
        }
        if read.fill {
            return this.fill(key, read.range).await;
        }
        Ok(Found::No(this.absent()))
    }

    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        let this = &self.0;
        this.check_epoch(write.key.kind, write.epoch)?;
        if this.draining.load(Ordering::Acquire) {
            return Err(broken("the node is about to leave"));
        }
        if write.options.precondition == Precondition::Absent && this.is_unsure() {
            return Err(broken(
                "the node was away and cannot tell what is absent yet",
            ));
        }
        let replica = &this.parts.replica;
        let writer = replica
            .write_record(&write.key, write.head, write.options)
            .await?;
        Ok(Box::new(Taking {
            writer,
            dirty: this.parts.tier.is_some(),
            _busy: Arc::clone(&this.busy),
        }))
    }

    async fn find(&self, find: Find) -> Result<Vec<Presence>> {
        let sizes: Vec<u64> = find.sizes.iter().map(|size| size.unwrap_or(0)).collect();
        let replica = &self.0.parts.replica;
        let missing = replica
            .missing_records(&find.keys, &sizes, find.touch)
            .await?;
        let absent = self.0.absent();
        let presence = |missing| if missing { absent } else { Presence::Present };
        let mut said: Vec<Presence> = missing.into_iter().map(presence).collect();
        self.0.find_in_tier(&find.keys, &mut said).await;
        Ok(said)
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        let _busy = Arc::clone(&self.0.busy);
        Ok(self.0.pull_all(&pull).await)
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        self.0.parts.replica.settle(&records, pins).await?;
        if let Some(tier) = self.0.parts.tier.as_ref().filter(|_| pins.dirty) {
            let keys: Vec<RecordKey> = records.into_iter().map(|(key, _)| key).collect();
            tier.learn(&keys);
        }
        Ok(())
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        self.0.check_members(epoch)?;
        let digest = digest(&key);
        let digest = digest.ok_or_else(|| invalid("the name of this blob is not its hash"))?;
        self.0.deletions.note(&key);
        let delete = || self.0.parts.blobs.delete(&key.namespace, &digest);
        let mut was_here = delete().await?;
        if let Some(tier) = &self.0.parts.tier {
            tier.delete(&key).await?;
            // It may have been on its way from there.
            was_here |= delete().await?;
        }
        Ok(was_here)
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        self.0.check_members(epoch)?;
        self.0.deletions.note_purge(&namespace);
        self.0.parts.entries.purge(&namespace).await?;
        // It may have taken a while.
        self.0.deletions.note_purge(&namespace);
        match &self.0.parts.tier {
            Some(tier) => tier.purge(&namespace).await,
            None => Ok(()),
        }
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        self.0.list_entries(listing).await
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        let Listing::Blobs {
            namespace,
            after,
            limit,
        } = listing
        else {
            return Err(invalid("this lists blobs"));
        };
        let admin = &self.0.parts.admin;
        Ok(admin.list_blobs(&namespace, after.as_ref(), limit).await?)
    }

    async fn status(&self, question: StatusQuestion) -> Result<Status> {
        self.0.status(question).await
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        let admin = &self.0.parts.admin;
        match work {
            Manage::Gc(options) => json(&self.collect(options).await?),
            Manage::Verify => json(&admin.verify(Box::new(|_| {})).await?),
            Manage::Drain(drains) => {
                self.0.draining.store(drains, Ordering::Release);
                self.0.hints_wanted.notify_one();
                self.0.hand_over_wanted.notify_one();
                Ok(Bytes::new())
            }
        }
    }
}
