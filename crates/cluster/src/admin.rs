//! The cluster for the people who run it: figures and usage summed, work done on every node, listings merged.
//!
//! How long things are kept is set on the nodes, which age what they hold by themselves: [`StoreAdmin::set_retention`]
//! changes nothing here.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde_json::{Value, from_slice};
use zimcache_link::{Listing, Manage, StatusQuestion};
use zimcache_ring::Member;
use zimcache_store::{
    BlobInfo, ClusterReport, GcOptions, GcReport, MemberReport, Progress, Result, Retention,
    StoreAdmin, StoreStats, Usage, UsageKind, VerifyReport, admin::OnProgress,
};
use zimcache_types::{Digest, EntryKind, Namespace};

use crate::{
    node::{Node, store_error, unavailable},
    shared::Shared,
    view::View,
};

/// Examples of damaged records that are shown.
const EXAMPLES: usize = 20;

/// The keeper's view of the cluster.
#[derive(Debug)]
pub(crate) struct Admin(pub(crate) Arc<Shared>);

#[async_trait]
impl StoreAdmin for Admin {
    fn stats(&self) -> StoreStats {
        let view = self.0.view();
        let known = view.present().filter_map(|node| node.status());
        known.fold(StoreStats::default(), |sum, status| add(sum, status.stats))
    }

    async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        let view = self.0.view();
        let all: u64 = self.stats().live_bytes;
        let work = view.present().map(|node| {
            let mut options = options.clone();
            let live = node.status().map_or(0, |status| status.stats.live_bytes);
            options.target_bytes = options.target_bytes.map(|target| share(target, live, all));
            self.manage(node, Manage::Gc(options))
        });
        let mut sum = GcReport {
            dry_run: options.dry_run,
            ..GcReport::default()
        };
        for report in futures_util::future::try_join_all(work).await? {
            let report: GcReport = from_slice(&report).map_err(|_| unreadable())?;
            sum.before_bytes += report.before_bytes;
            sum.after_bytes += report.after_bytes;
            sum.evicted_records += report.evicted_records;
            sum.evicted_bytes += report.evicted_bytes;
            sum.expired_records += report.expired_records;
            sum.expired_bytes += report.expired_bytes;
            sum.compacted_bytes += report.compacted_bytes;
            sum.swept_objects += report.swept_objects;
            sum.swept_bytes += report.swept_bytes;
        }
        Ok(sum)
    }

    fn set_retention(&self, _: Retention) {}

    fn cluster(&self) -> Option<ClusterReport> {
        let view = self.0.view();
        let ring = view.ring();
        let document = ring.document();
        let both = view.seats().iter().zip(ring.members());
        Some(ClusterReport {
            epoch: document.epoch(),
            replicas: document.replicas(),
            changing: document.previous().is_some(),
            waiting_for: waiting_for(&view),
            members: both
                .map(|(seat, (_, member))| report(&seat.node, member))
                .collect(),
            ring: document
                .to_json()
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok()),
        })
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        let view = self.0.view();
        let limit = self.0.config.timing.answer;
        let calls = view.present().map(|node| {
            let question = StatusQuestion {
                with_figures: true,
                ..StatusQuestion::default()
            };
            node.call(limit, async { node.peer.status(question).await })
        });
        let mut sums: BTreeMap<(Namespace, UsageKind), (u64, u64)> = BTreeMap::new();
        for status in futures_util::future::join_all(calls).await {
            let status = status.map_err(store_error)?;
            if status.usage.is_empty() {
                continue;
            }
            for row in usage_rows(&status.usage)? {
                let (count, bytes) = sums.entry((row.namespace, row.kind)).or_default();
                *count += row.count;
                *bytes += row.bytes;
            }
        }
        let row = |((namespace, kind), (count, bytes))| Usage {
            namespace,
            kind,
            count,
            bytes,
        };
        Ok(sums.into_iter().map(row).collect())
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let page = Listing::Blobs {
            namespace: namespace.clone(),
            after: after.copied(),
            limit,
        };
        let (answers, _) = self
            .0
            .listed(|node| {
                let (node, page) = (Arc::clone(node), page.clone());
                async move { node.peer.list_blobs(page).await }
            })
            .await?;
        let mut merged = BTreeMap::new();
        for row in answers.into_iter().flat_map(|(_, rows)| rows) {
            let hash = row.digest.hash;
            let place = (hash.function().number(), hash.as_bytes().to_vec());
            merged.entry(place).or_insert(row);
        }
        Ok(merged.into_values().take(limit).collect())
    }

    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport> {
        let view = self.0.view();
        let total_bytes = self.stats().live_bytes;
        let done = std::sync::atomic::AtomicU64::new(0);
        let work = view.present().map(|node| async {
            let report = self.manage(node, Manage::Verify).await?;
            let report: VerifyReport = from_slice(&report).map_err(|_| unreadable())?;
            let before = done.fetch_add(report.bytes, std::sync::atomic::Ordering::AcqRel);
            on_progress(Progress {
                done_bytes: before + report.bytes,
                total_bytes,
            });
            Ok::<_, zimcache_store::Error>(report)
        });
        let mut sum = VerifyReport::default();
        for report in futures_util::future::try_join_all(work).await? {
            sum.records += report.records;
            sum.bytes += report.bytes;
            sum.damaged += report.damaged;
            sum.examples.extend(report.examples);
        }
        sum.examples.truncate(EXAMPLES);
        Ok(sum)
    }
}

impl Admin {
    async fn manage(&self, node: &Arc<Node>, work: Manage) -> Result<bytes::Bytes> {
        let limit = self.0.config.timing.manage;
        let done = node.call(limit, node.peer.manage(work)).await;
        done.map_err(store_error)
    }
}

/// Members that a change of the placement waits for, by what they last said.
fn waiting_for(view: &View) -> Vec<String> {
    let document = view.ring().document();
    let said = view.seats().iter().zip(view.ring().members());
    let reports = said.filter_map(|(seat, (_, member))| {
        Some((member.id.clone(), seat.node.status()?.synced_epoch))
    });
    let reports = reports.collect();
    let waiting = document.waiting_for(&reports).into_iter();
    waiting.map(str::to_owned).collect()
}

/// How a member stands, by what it last said.
fn report(node: &Node, member: &Member) -> MemberReport {
    let status = node.status().unwrap_or_default();
    MemberReport {
        id: member.id.clone(),
        address: member.address.clone().unwrap_or_default(),
        zone: member.zone.clone(),
        weight: member.weight,
        state: member.state.as_str().to_owned(),
        reachable: !node.is_suspect() && node.status().is_some(),
        version: status.version.into(),
        epoch: status.epoch,
        synced_epoch: status.synced_epoch,
        catching_up: status.catching_up,
        dirty: status.pinned.dirty,
        dirty_bytes: status.pinned.dirty_bytes,
        hints: status.pinned.hints,
        hint_bytes: status.pinned.hint_bytes,
        calls: status.in_flight,
        capacity_bytes: status.stats.capacity_bytes,
        live_bytes: status.stats.live_bytes,
        blobs: status.stats.blobs,
        entries: status.stats.entries,
        tier_reachable: status.tier_reachable,
    }
}

/// A node's share of a target for the whole cluster: as its part of what is live.
fn share(target: u64, live: u64, all: u64) -> u64 {
    let part = u128::from(target) * u128::from(live) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The rows of a node's usage. Those of kinds that are not known are left out: the node is of a newer version.
fn usage_rows(document: &[u8]) -> Result<Vec<Usage>> {
    let rows: Vec<Value> = from_slice(document).map_err(|_| unreadable())?;
    let entries = EntryKind::ALL.map(UsageKind::Entry);
    let kinds: Vec<UsageKind> = [UsageKind::Blob].into_iter().chain(entries).collect();
    let mut known = Vec::new();
    for row in &rows {
        let name = row["kind"].as_str();
        let Some(kind) = kinds.iter().find(|kind| name == Some(kind.as_str())) else {
            continue;
        };
        let namespace = row["namespace"]
            .as_str()
            .and_then(|name| Namespace::new(name).ok());
        known.push(Usage {
            namespace: namespace.ok_or_else(unreadable)?,
            kind: *kind,
            count: row["count"].as_u64().ok_or_else(unreadable)?,
            bytes: row["bytes"].as_u64().ok_or_else(unreadable)?,
        });
    }
    Ok(known)
}

fn unreadable() -> zimcache_store::Error {
    unavailable("a node sent a report that cannot be read")
}

/// Both figures as those of one store.
fn add(sum: StoreStats, more: StoreStats) -> StoreStats {
    StoreStats {
        capacity_bytes: sum.capacity_bytes + more.capacity_bytes,
        live_bytes: sum.live_bytes + more.live_bytes,
        disk_bytes: sum.disk_bytes + more.disk_bytes,
        blobs: sum.blobs + more.blobs,
        entries: sum.entries + more.entries,
        index_bytes: sum.index_bytes + more.index_bytes,
        pinned_bytes: sum.pinned_bytes + more.pinned_bytes,
        raw_bytes: sum.raw_bytes + more.raw_bytes,
        stored_bytes: sum.stored_bytes + more.stored_bytes,
        written_payload_bytes: sum.written_payload_bytes + more.written_payload_bytes,
        written_disk_bytes: sum.written_disk_bytes + more.written_disk_bytes,
        syncs: sum.syncs + more.syncs,
        evicted_records: sum.evicted_records + more.evicted_records,
        evicted_bytes: sum.evicted_bytes + more.evicted_bytes,
        expired_records: sum.expired_records + more.expired_records,
        leases_broken: sum.leases_broken + more.leases_broken,
        corrupt_records: sum.corrupt_records + more.corrupt_records,
        read_only: sum.read_only.or(more.read_only),
        recovery_millis: sum.recovery_millis.max(more.recovery_millis),
    }
}

impl Shared {
    /// What every member answers that can be reached, and whether that is all of them. One may be missing where
    /// everything has two copies.
    ///
    /// # Errors
    /// `Unavailable` when too few can be reached; what a node says about the request itself.
    pub(crate) async fn listed<T, F>(
        &self,
        work: impl Fn(&Arc<Node>) -> F,
    ) -> Result<(Vec<(Arc<Node>, T)>, bool)>
    where
        F: Future<Output = zimcache_link::Result<T>>,
    {
        let view = self.view();
        let limit = self.config.timing.answer;
        let calls = view.present().map(|node| node.call(limit, work(node)));
        let answers = futures_util::future::join_all(calls).await;
        let mut missing = view
            .seats()
            .iter()
            .filter(|seat| seat.state.is_gone())
            .count();
        let mut given = Vec::new();
        for (node, answer) in view.present().zip(answers) {
            match answer {
                Ok(answer) => given.push((Arc::clone(node), answer)),
                Err(error) if crate::node::is_of_the_node(&error) => missing += 1,
                Err(error) => return Err(store_error(error)),
            }
        }
        let replicas = view.ring().document().replicas() as usize;
        if missing > 0 && missing >= replicas.min(2) {
            return Err(unavailable(
                "too few nodes can be reached to list everything",
            ));
        }
        Ok((given, missing == 0))
    }
}
