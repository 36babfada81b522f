//! Figures of a cluster and of the durable tier for the metrics page; docs/metrics.md names them.
//!
//! Not here: figures of the store and of requests (`zimcache_gateway`), and who counts.

use std::sync::Arc;

use zimcache_cluster::Cluster;
use zimcache_member::Member;
use zimcache_ring::Ring;
use zimcache_telemetry::metrics::{Figure, Kind, Registry};
use zimcache_tier::Tier;

const fn gauge(name: &'static str, help: &'static str) -> Figure {
    Figure {
        kind: Kind::Gauge,
        name,
        help,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Figure {
    Figure {
        kind: Kind::Counter,
        name,
        help,
    }
}

const OF_RING: &[Figure] = &[
    gauge("zimcache_ring_epoch", "Epoch of the ring that is followed."),
    gauge("zimcache_ring_members", "Nodes of all open placements."),
    gauge(
        "zimcache_ring_placements",
        "Open placements: 2 while a change of the ring is under way.",
    ),
    gauge(
        "zimcache_ring_replicas",
        "Copies that are wanted of everything.",
    ),
];

fn of_ring(ring: Option<&Ring>) -> Vec<u64> {
    let Some(ring) = ring.map(Ring::document) else {
        return vec![0; OF_RING.len()];
    };
    vec![
        ring.epoch(),
        ring.members().count() as u64,
        1 + u64::from(ring.previous().is_some()),
        u64::from(ring.replicas()),
    ]
}

const OF_NODE: &[Figure] = &[
    gauge(
        "zimcache_ring_synced_epoch",
        "Epoch of the last placement for which everything was handed to its owners.",
    ),
    gauge(
        "zimcache_node_catching_up",
        "1 while the node has not heard from every other what it missed.",
    ),
    gauge(
        "zimcache_node_draining",
        "1 while the node is about to leave.",
    ),
    gauge(
        "zimcache_dirty_records",
        "Records that are not in the durable tier yet.",
    ),
    gauge("zimcache_dirty_bytes", "Bytes of them."),
    gauge(
        "zimcache_hinted_records",
        "Records that another owner may lack.",
    ),
    gauge("zimcache_hinted_bytes", "Bytes of them."),
    gauge(
        "zimcache_node_calls",
        "Calls of gateways and nodes under way.",
    ),
    gauge(
        "zimcache_replication_refills",
        "Members with a new disk that are being given what they own.",
    ),
    counter(
        "zimcache_replication_copied_records_total",
        "Records fetched from other nodes.",
    ),
    counter("zimcache_replication_copied_bytes_total", "Bytes of them."),
    counter(
        "zimcache_replication_copy_failures_total",
        "Records that could not be fetched; they are asked for again.",
    ),
    counter(
        "zimcache_replication_hints_delivered_total",
        "Hinted records that every owner holds now.",
    ),
    counter(
        "zimcache_replication_handed_over_total",
        "Copies that new owners took at ring changes.",
    ),
    counter(
        "zimcache_replication_refilled_total",
        "Copies that members with a new disk took.",
    ),
];

fn of_node(member: &Member) -> Vec<u64> {
    let (status, figures) = (member.standing(), member.figures());
    vec![
        status.synced_epoch,
        u64::from(status.catching_up),
        u64::from(status.draining),
        status.pinned.dirty,
        status.pinned.dirty_bytes,
        status.pinned.hints,
        status.pinned.hint_bytes,
        status.in_flight,
        member.refilling(),
        figures.copied,
        figures.copied_bytes,
        figures.copies_failed,
        figures.hints_delivered,
        figures.handed_over,
        figures.refilled,
    ]
}

/// Shows how a node stands.
pub(super) fn show_node(registry: &Registry, member: Member) {
    let follower = member.clone();
    registry.figures(OF_RING, move || of_ring(follower.ring().as_ref()));
    registry.figures(OF_NODE, move || of_node(&member));
}

const OF_CLUSTER: &[Figure] = &[
    gauge("zimcache_cluster_nodes", "Nodes in the ring."),
    gauge(
        "zimcache_cluster_nodes_unreachable",
        "Nodes in the ring that do not answer this gateway.",
    ),
    counter(
        "zimcache_cluster_unproven_misses_total",
        "Misses of entries and of look-ups that were answered without the word of every owner.",
    ),
    counter(
        "zimcache_cluster_hedges_total",
        "Second nodes asked because the first one was slow.",
    ),
    counter(
        "zimcache_cluster_switches_total",
        "Values that went on from another node after one broke off.",
    ),
    counter(
        "zimcache_cluster_stand_ins_total",
        "Copies put on a stand-in because an owner was away.",
    ),
    counter(
        "zimcache_cluster_repairs_total",
        "Copies asked for after a node was found to lack them.",
    ),
    counter(
        "zimcache_cluster_repairs_dropped_total",
        "Repairs let go because too many were waiting.",
    ),
    counter(
        "zimcache_cluster_ram_hits_total",
        "Reads answered from this gateway's RAM.",
    ),
    counter(
        "zimcache_cluster_joined_total",
        "Reads that joined one that was under way.",
    ),
];

fn of_cluster(cluster: &Cluster) -> Vec<u64> {
    let figures = cluster.figures();
    let report = cluster.admin().cluster().unwrap_or_default();
    let unreachable = report.members.iter().filter(|member| !member.reachable);
    vec![
        report.members.len() as u64,
        unreachable.count() as u64,
        figures.unproven_misses,
        figures.hedges,
        figures.switches,
        figures.stand_ins,
        figures.repairs,
        figures.repairs_dropped,
        figures.ram_hits,
        figures.joined,
    ]
}

/// Shows what a gateway sees of its cluster.
pub(super) fn show_cluster(registry: &Registry, cluster: Cluster) {
    let follower = cluster.clone();
    registry.figures(OF_RING, move || of_ring(Some(&follower.ring())));
    registry.figures(OF_CLUSTER, move || of_cluster(&cluster));
}

const OF_TIER: &[Figure] = &[
    gauge("zimcache_s3_reachable", "1 while the bucket answers."),
    gauge(
        "zimcache_s3_listed",
        "1 while it is known what the bucket has: then a miss costs no request.",
    ),
    counter(
        "zimcache_s3_failed_total",
        "Requests without an answer, or with one that says that the server cannot now.",
    ),
    counter(
        "zimcache_s3_held_back_total",
        "Requests that were not sent because the server is known to be away.",
    ),
    counter(
        "zimcache_s3_uploads_total",
        "Records written to the bucket.",
    ),
    counter("zimcache_s3_upload_bytes_total", "Bytes of them."),
    counter(
        "zimcache_s3_upload_failures_total",
        "Uploads that failed and are tried again.",
    ),
    counter("zimcache_s3_fills_total", "Values fetched from the bucket."),
    counter("zimcache_s3_fill_bytes_total", "Bytes of them."),
    counter(
        "zimcache_s3_fills_shared_total",
        "Readers that shared the fetch of another one.",
    ),
    counter(
        "zimcache_s3_absent_for_free_total",
        "Look-ups answered with \"not there\" without a request.",
    ),
    counter("zimcache_s3_corrupt_total", "Objects with wrong bytes."),
    counter(
        "zimcache_s3_refreshes_total",
        "Objects whose life was prolonged.",
    ),
    gauge("zimcache_s3_uploads_running", "Uploads under way."),
    counter(
        "zimcache_s3_sweeps_total",
        "Sweeps that removed from the bucket what nobody used for its whole life.",
    ),
    counter("zimcache_s3_swept_total", "Objects that sweeps removed."),
    counter("zimcache_s3_swept_bytes_total", "Bytes of them."),
];

fn of_tier(tier: &Tier) -> Vec<u64> {
    let (requests, figures) = (tier.bucket().requests(), tier.figures());
    vec![
        u64::from(tier.bucket().is_reachable()),
        u64::from(tier.presence().is_loaded()),
        requests.failed(),
        requests.held_back(),
        figures.uploads(),
        figures.upload_bytes(),
        figures.upload_failures(),
        figures.fills(),
        figures.fill_bytes(),
        figures.fills_shared(),
        figures.absent_for_free(),
        figures.corrupt(),
        figures.refreshes(),
        figures.uploads_running(),
        figures.sweeps(),
        figures.swept(),
        figures.swept_bytes(),
    ]
}

/// Shows what the durable tier did.
pub(super) fn show_tier(registry: &Registry, tier: Arc<Tier>) {
    tier.bucket().requests().show(registry);
    registry.figures(OF_TIER, move || of_tier(&tier));
}
