//! The operator's contract over the reference store. Nothing is compacted here; what expires leaves when somebody asks.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_types::{Digest, EntryKey, Function, Hash, Namespace, Timestamp};

use super::{MemoryStore, State, StoredBlob};
use crate::{
    BlobInfo, GcOptions, GcReport, Progress, Result, Retention, StoreAdmin, StoreStats, Usage,
    UsageKind, VerifyReport, admin::OnProgress,
};

/// Something that a garbage collection may remove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    created: Timestamp,
    name: Name,
    bytes: u64,
    leased: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Blob((Namespace, Hash)),
    Entry(EntryKey),
}

impl Name {
    const fn namespace(&self) -> &Namespace {
        match self {
            Name::Blob((namespace, _)) => namespace,
            Name::Entry(key) => &key.namespace,
        }
    }
}

impl State {
    fn live_bytes(&self) -> u64 {
        let blobs = self.blobs.values().map(|blob| blob.value.len());
        let entries = self.entries.values().map(|stored| stored.value.len());
        (blobs.sum::<usize>() + entries.sum::<usize>()) as u64
    }

    /// Everything held, oldest first.
    fn candidates(&self, now: Timestamp) -> Vec<Candidate> {
        let blobs = self.blobs.iter().map(|(name, blob)| Candidate {
            created: blob.created,
            name: Name::Blob(name.clone()),
            bytes: blob.value.len() as u64,
            leased: now < blob.leased_until,
        });
        let entries = self.entries.iter().map(|(key, stored)| Candidate {
            created: stored.created,
            name: Name::Entry(key.clone()),
            bytes: stored.value.len() as u64,
            leased: false,
        });
        let mut all: Vec<Candidate> = blobs.chain(entries).collect();
        all.sort();
        all
    }

    fn remove(&mut self, name: &Name) {
        match name {
            Name::Blob(name) => drop(self.blobs.remove(name)),
            Name::Entry(key) => drop(self.entries.remove(key)),
        }
    }

    /// Whether a candidate's time is over, by its namespace's retention or by what is asked for.
    fn is_over(&self, candidate: &Candidate, options: &GcOptions, now: Timestamp) -> bool {
        let age = now.since(candidate.created);
        let over = |limit: Duration| age >= limit;
        let asked = options.older_than.is_some_and(over);
        let ttl = self.retention.ttl(candidate.name.namespace());
        !candidate.leased && (asked || ttl.is_some_and(over))
    }

    fn collect(&mut self, options: &GcOptions, now: Timestamp) -> GcReport {
        let before_bytes = self.live_bytes();
        let mut report = GcReport {
            dry_run: options.dry_run,
            before_bytes,
            after_bytes: before_bytes,
            ..GcReport::default()
        };
        let named = |candidate: &Candidate| {
            let asked = options.namespace.as_ref();
            asked.is_none_or(|namespace| namespace == candidate.name.namespace())
        };
        let mut candidates = self.candidates(now);
        candidates.retain(named);
        let mut held: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
        let (over, rest): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|candidate| self.is_over(candidate, options, now));
        let mut gone = over;
        report.expired_records = gone.len() as u64;
        report.expired_bytes = gone.iter().map(|candidate| candidate.bytes).sum();
        held -= report.expired_bytes;
        let target = options.target_bytes.unwrap_or(u64::MAX);
        let (leased, free): (Vec<_>, Vec<_>) = rest.into_iter().partition(|one| one.leased);
        for candidate in free.into_iter().chain(leased) {
            if held <= target {
                break;
            }
            held -= candidate.bytes;
            report.evicted_records += 1;
            report.evicted_bytes += candidate.bytes;
            gone.push(candidate);
        }
        report.after_bytes -= report.expired_bytes + report.evicted_bytes;
        if !options.dry_run {
            self.expired_records += report.expired_records;
            for candidate in &gone {
                self.remove(&candidate.name);
            }
        }
        report
    }
}

#[async_trait]
impl StoreAdmin for MemoryStore {
    fn stats(&self) -> StoreStats {
        let state = self.state.lock();
        let live_bytes = state.live_bytes();
        StoreStats {
            capacity_bytes: u64::MAX,
            live_bytes,
            raw_bytes: live_bytes,
            stored_bytes: live_bytes,
            blobs: state.blobs.len() as u64,
            entries: state.entries.len() as u64,
            expired_records: state.expired_records,
            ..StoreStats::default()
        }
    }

    async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        let now = self.clock.now();
        Ok(self.state.lock().collect(&options, now))
    }

    fn set_retention(&self, retention: Retention) {
        self.state.lock().retention = retention;
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        let state = self.state.lock();
        let blobs = state.blobs.iter().map(|((namespace, _), blob)| {
            let kind = UsageKind::Blob;
            ((namespace.clone(), kind), blob.value.len() as u64)
        });
        let entries = state.entries.iter().map(|(key, stored)| {
            let kind = UsageKind::Entry(key.kind);
            ((key.namespace.clone(), kind), stored.value.len() as u64)
        });
        let mut held: BTreeMap<(Namespace, UsageKind), (u64, u64)> = BTreeMap::new();
        for (row, size) in blobs.chain(entries) {
            let (count, bytes) = held.entry(row).or_default();
            *count += 1;
            *bytes += size;
        }
        let rows = held
            .into_iter()
            .map(|((namespace, kind), (count, bytes))| Usage {
                namespace,
                kind,
                count,
                bytes,
            });
        Ok(rows.collect())
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let state = self.state.lock();
        let (ttl, now) = (state.retention.ttl(namespace), self.clock.now());
        let listed = |hash: &Hash, blob: &StoredBlob| {
            hash.as_bytes().len() <= Function::Sha256.hash_len()
                && after.is_none_or(|after| *hash > after.hash)
                && blob.is_served(ttl, now)
        };
        let mut rows: Vec<(Hash, Timestamp, Bytes)> = state
            .blobs
            .iter()
            .filter(|((owner, hash), blob)| owner == namespace && listed(hash, blob))
            .map(|((_, hash), blob)| (*hash, blob.created, blob.value.clone()))
            .collect();
        rows.sort_by_key(|(hash, ..)| *hash);
        rows.truncate(limit);
        let row = |(hash, created, value): (Hash, Timestamp, Bytes)| BlobInfo {
            digest: Digest::sized(hash, value.len() as u64),
            size_bytes: value.len() as u64,
            created,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport> {
        let stats = self.stats();
        on_progress(Progress {
            done_bytes: stats.live_bytes,
            total_bytes: stats.live_bytes,
        });
        Ok(VerifyReport {
            records: stats.blobs + stats.entries,
            bytes: stats.live_bytes,
            ..VerifyReport::default()
        })
    }
}
