//! debug
use crate::harness::*;
use bytes::Bytes;
use zimcache_store::*;
use zimcache_types::*;
#[test]
fn dbg() {
    let rig = Rig::fresh(1);
    let ns = Namespace::default();
    let body = Bytes::from(vec![7u8; 60_000]);
    let d = Digest::of(Function::Sha256, &body);
    for i in 0..3 {
        rig.wait(async {
            let b = rig.node().blobs();
            let mut w = b.create(&ns, &d, CreateOptions::default()).await.unwrap();
            w.write(body.clone()).await.unwrap();
            w.commit().await.unwrap();
        })
        .unwrap();
        println!("{i} {:?}", rig.stats());
        println!(
            "{:?}",
            rig.wait(rig.node().blobs().missing(&ns, &[d], Touch::Lease))
        );
    }
    let k = EntryKey::new(ns.clone(), EntryKind::Ccache, "abc").unwrap();
    for i in 0..3 {
        let r = rig
            .wait(async {
                let b = rig.node().entries();
                let w = b
                    .put(&k, Default::default(), Precondition::Absent, None)
                    .await
                    .unwrap();
                w.commit().await
            })
            .unwrap();
        println!("{i} {r:?} {:?}", rig.stats());
    }
}
