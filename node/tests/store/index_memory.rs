//! Row 13: the index takes at most twenty bytes of RAM for an entry, and finds every one of them.

use bytes::Bytes;
use zimcache_node::testing::SimDisk;
use zimcache_store::{CreateOptions, Touch};
use zimcache_types::{ByteSize, Digest, Function};

use crate::{
    harness::{Rig, config},
    ops::team,
    volume::scaled,
};

fn body(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

#[test]
fn many_tiny_blobs_take_twenty_bytes_each_in_the_index() {
    let count = scaled(300_000);
    let mut config = config(64 + count * 120 / (1 << 20) * 2);
    config.segment_size = Some(ByteSize::mib(4));
    let mut rig = Rig::open(SimDisk::new(1), config).unwrap();
    let (stores, team) = (rig.stores(), team());
    let digests: Vec<Digest> = (0..count)
        .map(|number| Digest::of(Function::Blake3, &body(number)))
        .collect();
    let mut worst = 0.0f64;
    for (group, digests) in digests.chunks(512).enumerate() {
        let puts = digests.iter().enumerate().map(|(number, digest)| {
            let body = body((group * 512 + number) as u64);
            let (stores, team) = (&stores, &team);
            async move {
                stores
                    .put_blob(team, digest, &body, 8, CreateOptions::default())
                    .await
            }
        });
        for put in rig.wait(futures_util::future::join_all(puts)).unwrap() {
            put.unwrap();
        }
        let stats = rig.stats();
        if stats.blobs > count / 4 {
            worst = worst.max(stats.index_bytes as f64 / stats.blobs as f64);
        }
    }
    let stats = rig.stats();
    let end = stats.index_bytes as f64 / stats.blobs as f64;
    println!(
        "row 13: {count} blobs, {end:.2} bytes of index each at the end, {worst:.2} at worst while growing"
    );
    assert_eq!(stats.blobs, count, "{stats:?}");
    let missing = rig
        .wait(stores.blobs.missing(team, &digests, Touch::No))
        .unwrap()
        .unwrap();
    assert!(!missing.contains(&true));
    assert!(end <= 20.0, "{end}");
    rig.kill(1).unwrap();
    let stats = rig.stats();
    let reopened = stats.index_bytes as f64 / stats.blobs as f64;
    println!(
        "row 13: {reopened:.2} bytes each after recovery, which took {} ms",
        stats.recovery_millis
    );
    assert_eq!(stats.blobs, count);
    assert!(reopened <= 20.0, "{reopened}");
}
