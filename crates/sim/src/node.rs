//! A node of the simulation: a member over its disk, offered on the network.

use std::{sync::Arc, time::Duration};

use zimcache_member::{Member, Notes, Parts, Rings};
use zimcache_store::memory::MemoryStore;
use zimcache_telemetry::task;

use crate::{net::SimListen, saboteur::Saboteur, world::World};

/// How often the source of rings is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a node until it is killed.
pub(crate) async fn run(world: Arc<World>, name: String) -> turmoil::Result {
    let disk = world.disk(&name);
    let rings = Arc::new(Rings::default());
    rings.adopt(world.ring_seen_by(&name)).await;
    let ways = world.ways();
    let member = Member::new(Parts {
        id: name.as_str().into(),
        version: "simulated".into(),
        replica: Arc::new(disk.clone()),
        blobs: Arc::new(disk.clone()),
        entries: Arc::new(disk.clone()),
        admin: Arc::new(MemoryStore::default()),
        rings: Arc::clone(&rings),
        peers: Arc::new(move |address| Arc::new(ways(address))),
        clock: world.clock(&name),
        tier: None,
        notes: Notes::on(disk.paper()).await?,
        settings: world.plan.member.clone(),
    });
    world.started(&name, member.clone());
    let _workers = member.start();
    let listener = SimListen::bind().await?;
    let source = Arc::clone(&world);
    let following = async move {
        loop {
            tokio::time::sleep(LOOK).await;
            rings.adopt(source.ring_seen_by(&name)).await;
        }
    };
    drop(task::spawn("follow the ring", following));
    let peer = Saboteur::around(Arc::new(member), world.bug, world.random("bug"), Some(disk));
    zimcache_link::serve(listener, peer, None, std::future::pending()).await;
    Ok(())
}
