//! The entries of the cluster: the newest version wins, a deletion is an answer, a miss may be unproven.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use zimcache_link::{ListedEntry, Listing};
use zimcache_store::{
    ByteRange, Entry, EntryInfo, EntryMeta, EntryStore, EntryWriter, Error, Precondition,
    RecordKey, Result, Version,
};
use zimcache_types::{Code, EntryKey, EntryKind, Namespace};

use crate::{
    ask::Hit,
    blobs::others,
    node::{Node, store_error, unavailable},
    repair::Repair,
    search::{Findings, Wanted, search},
    shared::{Shared, count},
    source::Source,
    view::Role,
    write::{EntryPut, delete},
};

/// Rows of a listing that are looked up at once, where the nodes differ about them.
const CHECKED_AT_ONCE: usize = 16;

/// The entries of the cluster.
#[derive(Debug)]
pub(crate) struct Entries(pub(crate) Arc<Shared>);

/// The identity of a version in one number: the clock with the writer folded in, by an odd factor that spreads it.
pub(crate) const fn identity(version: Version) -> u64 {
    version.clock ^ (version.writer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[async_trait]
impl EntryStore for Entries {
    async fn get(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Entry>> {
        let record = RecordKey::entry(key);
        match find(&self.0, &record, range).await {
            Ok(entry) => Ok(entry.map(|entry| entry.1)),
            Err(error) if error.code() == Code::RangeInvalid => {
                let whole = find(&self.0, &record, ByteRange::Full).await?;
                let size = whole.map_or(0, |(_, entry)| entry.value.total_bytes());
                Err(Error::RangeInvalid { size })
            }
            Err(error) => Err(error),
        }
    }

    async fn put(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>> {
        let size = meta.size_bytes();
        if size > EntryMeta::MAX_BYTES {
            return Err(Error::MetadataTooLarge {
                size,
                limit: EntryMeta::MAX_BYTES,
            });
        }
        let put = EntryPut::new(Arc::clone(&self.0), key, meta, precondition, limit_bytes);
        Ok(Box::new(put))
    }

    async fn delete(&self, key: &EntryKey) -> Result<bool> {
        delete(&self.0, key).await
    }

    async fn list(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        let mut rows = Vec::new();
        let mut after: Option<Box<str>> = after.map(Into::into);
        while rows.len() < limit {
            let page = Listing::Entries {
                namespace: namespace.clone(),
                kind,
                prefix: prefix.into(),
                after: after.clone(),
                limit: limit - rows.len(),
            };
            let (found, last) = self.page(page, namespace, kind, limit - rows.len()).await?;
            rows.extend(found);
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        Ok(rows)
    }

    async fn purge(&self, namespace: &Namespace) -> Result<()> {
        let forget = || {
            self.0.ram.purge(namespace);
            self.0.flights.forget(|key| key.namespace == *namespace);
        };
        forget();
        let mut purged = self.purge_all_members(namespace).await;
        if purged.is_ok() {
            // Who was reached early and was restarted since may have been sent a copy by who was reached late.
            purged = self.purge_all_members(namespace).await;
        }
        forget();
        purged
    }
}

/// A row of a merged listing, and the nodes that gave it.
type Row = (ListedEntry, BTreeSet<Box<str>>);

impl Entries {
    async fn purge_all_members(&self, namespace: &Namespace) -> Result<()> {
        let purged = self.0.on_all_members(|node, epoch| {
            let (node, namespace) = (Arc::clone(node), namespace.clone());
            async move { node.peer.purge(epoch, namespace).await }
        });
        purged.await.map(drop)
    }

    /// The next rows of a listing that are live, and the last row that was looked at unless it was the end.
    async fn page(
        &self,
        page: Listing,
        namespace: &Namespace,
        kind: EntryKind,
        limit: usize,
    ) -> Result<(Vec<EntryInfo>, Option<Box<str>>)> {
        let (answers, is_complete) = self
            .0
            .listed(|node| {
                let (node, page) = (Arc::clone(node), page.clone());
                async move { node.peer.list_entries(page).await }
            })
            .await?;
        let asked: Vec<Arc<Node>> = answers.iter().map(|(node, _)| Arc::clone(node)).collect();
        let is_end = answers.iter().all(|(_, rows)| rows.len() < limit);
        let merged = merge(answers);
        let seen: Vec<(Box<str>, Row)> = merged.into_iter().take(limit).collect();
        let last = seen
            .last()
            .map(|(text, _)| text.clone())
            .filter(|_| !is_end || seen.len() == limit);
        let checks = seen.into_iter().map(|(text, (row, givers))| {
            let asked = &asked;
            async move {
                let key = EntryKey::new(namespace.clone(), kind, text);
                match key.map(|key| RecordKey::entry(&key)) {
                    Some(record) if !is_complete || self.is_disputed(&record, &givers, asked) => {
                        let found = find(&self.0, &record, ByteRange::Full).await?;
                        Ok(found.map(|(version, entry)| info(row.text, version, &entry)))
                    }
                    _ => Ok(Some(EntryInfo {
                        text: row.text,
                        size_bytes: row.size_bytes,
                        version: identity(row.version),
                        created: row.created,
                    })),
                }
            }
        });
        let checks = futures_util::stream::iter(checks).buffered(CHECKED_AT_ONCE);
        let rows: Vec<Option<EntryInfo>> = checks.try_collect().await?;
        Ok((rows.into_iter().flatten().collect(), last))
    }

    /// Whether an owner that was asked did not give a row in this version: it may know of its deletion.
    fn is_disputed(
        &self,
        key: &RecordKey,
        givers: &BTreeSet<Box<str>>,
        asked: &[Arc<Node>],
    ) -> bool {
        let plan = self.0.plan(key);
        let mut owners = plan
            .candidates
            .iter()
            .filter(|it| it.current == Role::Owner);
        owners.any(|owner| {
            let was_asked = asked.iter().any(|node| Arc::ptr_eq(node, &owner.node));
            !was_asked || !givers.contains(&owner.node.id)
        })
    }
}

/// Of each key the highest version, and who has it.
fn merge(answers: Vec<(Arc<Node>, Vec<ListedEntry>)>) -> BTreeMap<Box<str>, Row> {
    let mut merged: BTreeMap<Box<str>, Row> = BTreeMap::new();
    for (node, rows) in answers {
        for row in rows {
            let known = merged.entry(row.text.clone());
            let (best, givers) = known.or_insert_with(|| (row.clone(), BTreeSet::new()));
            if row.version > best.version {
                givers.clear();
                *best = row.clone();
            }
            if row.version == best.version {
                givers.insert(node.id.clone());
            }
        }
    }
    merged
}

fn info(text: Box<str>, version: Version, entry: &Entry) -> EntryInfo {
    EntryInfo {
        text,
        size_bytes: entry.value.total_bytes(),
        version: identity(version),
        created: entry.created,
    }
}

/// Looks for an entry; `None` when it is deleted, or when an owner lacks it and nobody has it.
async fn find(
    shared: &Arc<Shared>,
    key: &RecordKey,
    range: ByteRange,
) -> Result<Option<(Version, Entry)>> {
    let hedge = shared.latency.hedge_after();
    let searched = search(shared, Wanted { key, range, hedge }).await;
    let mut findings = searched.map_err(store_error)?;
    let Some(best) = take_newest(&mut findings) else {
        if !findings.is_denied() {
            return Err(unavailable("no owner of the entry can be reached"));
        }
        if !findings.is_proven(true) {
            count(&shared.counts.unproven_misses);
        }
        return Ok(None);
    };
    if shared.observe(best.head.version).is_err() {
        tracing::warn!("an entry has a version from the future; a clock in the cluster is wrong");
    }
    // An owner may know of a deletion that stand-ins missed.
    if !findings.is_known_to_an_owner() {
        return Err(unavailable("no owner of the entry can be reached"));
    }
    repair_older(shared, key, &findings, &best);
    if best.head.deleted {
        return Ok(None);
    }
    let others = others(&findings, &shared.config.zone);
    let (version, created, meta) = (best.head.version, best.created, best.head.meta.clone());
    let source = Source::new(Arc::clone(shared), key.clone(), best, others);
    let entry = Entry {
        version: identity(version),
        created,
        meta,
        value: source.into_reader(),
    };
    Ok(Some((version, entry)))
}

fn take_newest(findings: &mut Findings) -> Option<Hit> {
    let versions = findings.hits.iter().enumerate();
    let (newest, _) = versions.max_by_key(|(_, hit)| hit.head.version)?;
    Some(findings.hits.swap_remove(newest))
}

/// Has the newest version copied to those that were found to lack it.
fn repair_older(shared: &Shared, key: &RecordKey, findings: &Findings, best: &Hit) {
    let older = findings
        .hits
        .iter()
        .filter(|hit| hit.head.version < best.head.version);
    for target in older.map(|hit| &hit.node).chain(findings.lacking()) {
        shared.repair(Repair {
            key: key.clone(),
            target: Arc::clone(target),
            from: Arc::clone(&best.node),
            size_bytes: best.total,
        });
    }
}
