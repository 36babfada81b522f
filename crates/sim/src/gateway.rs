//! A gateway of the simulation, with its clients in the same process; the sweep in the end.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::sync::watch;
use zimcache_cluster::Cluster;
use zimcache_ring::Document;
use zimcache_telemetry::task;

use crate::{
    bug::Bug,
    client::Client,
    saboteur::Saboteur,
    world::{Stage, World, gateway_name},
};

/// How often the source of rings is looked at, and how far the run has come.
const LOOK: Duration = Duration::from_millis(250);

/// Runs a gateway and its clients until it is killed.
pub(crate) async fn run(world: Arc<World>, number: u32) -> turmoil::Result {
    let name = gateway_name(number);
    let (rings, seen) = watch::channel(Arc::new(world.ring_seen_by(&name)));
    drop(task::spawn(
        "publish rings",
        follow(Arc::clone(&world), name.clone(), rings),
    ));
    let ways = world.ways();
    let mut random = world.random(&name);
    let way_of = Arc::clone(&world);
    // A ring that is followed too long is the bug of one gateway.
    let bug = world
        .bug
        .filter(|bug| *bug != Bug::FollowsStaleRing || number == 0);
    let connect = move |member: &zimcache_ring::Member| {
        let address = member.address.as_deref().unwrap_or_default();
        Saboteur::around(Arc::new(ways(address)), bug, way_of.random("bug"), None)
    };
    let cluster = Cluster::new(
        world.plan.cluster.clone(),
        seen,
        connect,
        world.clock(&name),
        random.random(),
    );
    for _ in 0..world.plan.clients {
        let client = Client::new(Arc::clone(&world), number, &cluster);
        drop(task::spawn("client", client.work()));
    }
    while world.stage() < Stage::Sweep {
        tokio::time::sleep(LOOK).await;
    }
    Client::new(Arc::clone(&world), number, &cluster)
        .sweep()
        .await;
    world
        .swept
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::future::pending().await
}

async fn follow(world: Arc<World>, name: String, rings: watch::Sender<Arc<Document>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let seen = world.ring_seen_by(&name);
        rings.send_if_modified(|held| {
            let is_new = held.epoch() != seen.epoch();
            if is_new {
                *held = Arc::new(seen);
            }
            is_new
        });
    }
}
