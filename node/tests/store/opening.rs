//! Opening what is not quite a store of ours: in use, of another capacity or version, with foreign, missing, cut or
//! damaged files. It opens with what is good, or refuses with a sentence.

use std::sync::Arc;

use zimcache_node::{Node, OpenError, RealDisk, testing::SimDisk};
use zimcache_store::{ByteRange, CreateOptions, GcOptions, testing::conformance::pattern};
use zimcache_types::{Digest, Function};

use crate::{
    harness::{Rig, clock, config, runtime, stores},
    ops::{BLOBS, Model, Op, PLACES, Value, team},
};

/// A store with some blobs and entries, stopped.
fn stopped() -> (Rig, Model) {
    let mut rig = Rig::fresh(1);
    let mut model = Model::default();
    for place in 0..PLACES {
        let size = 100 + 1000 * place as u32;
        let value = if place < BLOBS {
            Value::of_blob(place)
        } else {
            Value {
                number: 5000 + place as u32,
                size,
            }
        };
        model.apply(&mut rig, Op::Put(place, value)).unwrap();
    }
    rig.close();
    (rig, model)
}

/// Opens the disk again and checks that all is there.
fn opens_whole(rig: &Rig, model: &Model, mib: u64) {
    let again = Rig::open(rig.disk.after_kill(1), config(mib)).unwrap();
    let mut model = model.clone();
    let before = model.states();
    assert_eq!(model.observe(&again).unwrap(), before);
}

#[test]
fn two_processes_cannot_open_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = RealDisk::open(folder.path(), true).unwrap();
    let node = Node::open(&config(64), Arc::new(first), clock()).unwrap();
    let second = RealDisk::open(folder.path(), true).unwrap_err();
    assert!(second.to_string().contains("in use"), "{second}");
    node.close();
    drop(RealDisk::open(folder.path(), true).unwrap());
}

#[test]
fn another_process_cannot_open_the_store_either() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path(), true).unwrap();
    let lock = folder.path().join("lock");
    let tried = std::process::Command::new("flock")
        .args(["--nonblock", "--exclusive"])
        .arg(&lock)
        .arg("true")
        .status();
    match tried {
        Ok(status) => assert!(!status.success(), "another process took the lock"),
        Err(error) => println!("SKIPPED: no flock program: {error}"),
    }
    drop(disk);
}

#[test]
fn a_store_opens_with_a_larger_capacity() {
    let (rig, model) = stopped();
    opens_whole(&rig, &model, 200);
}

#[test]
fn a_store_opens_with_a_smaller_capacity_and_shrinks_to_it() {
    let disk = SimDisk::new(1);
    let rig = Rig::open(disk, config(128)).unwrap();
    let found = rig.stores();
    for number in 0..1000 {
        let body = pattern(number, 100_000);
        let digest = Digest::of(Function::Sha256, &body);
        let put = found.put_blob(team(), &digest, &body, 100_000, CreateOptions::default());
        rig.wait(put).unwrap().unwrap();
    }
    let rig = Rig::open(rig.disk.after_kill(2), config(64)).unwrap();
    let found = rig.stores();
    for number in 2000..2100 {
        let body = pattern(number, 100_000);
        let digest = Digest::of(Function::Sha256, &body);
        let put = found.put_blob(team(), &digest, &body, 100_000, CreateOptions::default());
        rig.wait(put).unwrap().unwrap();
        let blob = rig
            .wait(found.blob(team(), &digest, ByteRange::Full))
            .unwrap();
        assert!(blob.unwrap() == Some(body));
    }
    rig.wait(found.admin.gc(GcOptions::default()))
        .unwrap()
        .unwrap();
    let stats = rig.stats();
    assert!(stats.disk_bytes <= 64 << 20, "{stats:?}");
}

#[test]
fn a_wish_for_another_segment_size_does_not_harm_an_existing_store() {
    let (rig, model) = stopped();
    let mut wish = config(64);
    wish.segment_size = Some(zimcache_types::ByteSize::mib(4));
    let again = Rig::open(rig.disk.after_kill(1), wish).unwrap();
    let mut seen = model.clone();
    assert_eq!(seen.observe(&again).unwrap(), model.states());
}

#[test]
fn a_store_of_another_format_version_is_refused_and_left_alone() {
    let (rig, _) = stopped();
    let mut meta = rig.disk.file_bytes("store.meta").unwrap();
    for copy in meta.chunks_mut(4096) {
        copy[12..16].copy_from_slice(&77u32.to_le_bytes());
        let sum = crc_fast::crc32_iscsi(&copy[12..64]);
        copy[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    let disk = rig.disk.after_kill(1);
    disk.plant_file("store.meta", &meta);
    let before = disk.counts().changes;
    let error: OpenError = Rig::open(disk.clone(), config(64)).err().expect("refused");
    assert!(error.to_string().contains("77"), "{error}");
    assert_eq!(disk.counts().changes, before, "nothing was written");
}

#[test]
fn one_damaged_copy_of_the_identity_is_survived_and_two_are_refused() {
    let (rig, model) = stopped();
    for offset in [0, 4096] {
        let disk = rig.disk.after_kill(1);
        disk.flip_bit("store.meta", offset + 20, 3);
        let again = Rig::open(disk, config(64)).unwrap();
        assert_eq!(model.clone().observe(&again).unwrap(), model.states());
    }
    let disk = rig.disk.after_kill(1);
    disk.flip_bit("store.meta", 20, 3);
    disk.flip_bit("store.meta", 4096 + 20, 3);
    let before = disk.counts().changes;
    let error = Rig::open(disk.clone(), config(64)).err().expect("refused");
    assert!(!error.to_string().is_empty());
    assert_eq!(
        disk.counts().changes,
        before,
        "a store that cannot be read is not overwritten"
    );
}

#[test]
fn segments_without_their_identity_are_not_overwritten() {
    let (rig, _) = stopped();
    let disk = rig.disk.after_kill(1);
    zimcache_node::Disk::remove(&disk, "store.meta").unwrap();
    let before: Vec<_> = disk
        .names()
        .iter()
        .map(|name| disk.file_bytes(name))
        .collect();
    if let Err(error) = Rig::open(disk.clone(), config(64)) {
        println!("refused: {error}");
        let after: Vec<_> = disk
            .names()
            .iter()
            .map(|name| disk.file_bytes(name))
            .collect();
        assert!(before == after);
        return;
    }
    panic!("segments of a lost store were taken for free space");
}

#[test]
fn foreign_files_are_left_alone() {
    let (rig, model) = stopped();
    let disk = rig.disk.after_kill(1);
    let foreign = [
        "notes.txt",
        "segments/core",
        "segments/1.seg",
        "segments/00000x.seg",
        "segments/000001.seg.bak",
    ];
    for name in foreign {
        disk.plant_file(name, b"not ours");
    }
    let again = Rig::open(disk.clone(), config(64)).unwrap();
    assert_eq!(model.clone().observe(&again).unwrap(), model.states());
    for name in foreign {
        assert_eq!(disk.file_bytes(name).unwrap(), b"not ours", "{name}");
    }
}

#[test]
fn a_segment_file_full_of_foreign_bytes_does_no_harm() {
    let (rig, model) = stopped();
    let disk = rig.disk.after_kill(1);
    disk.plant_file("segments/000900.seg", &pattern(1, 1 << 20));
    disk.plant_file("segments/000901.seg", b"");
    disk.plant_file("segments/000902.seg", &pattern(2, 5000));
    let again = Rig::open(disk, config(64)).unwrap();
    assert_eq!(model.clone().observe(&again).unwrap(), model.states());
}

#[test]
fn segments_of_another_store_do_no_harm() {
    let (rig, model) = stopped();
    let other = Rig::fresh(99);
    let found = other.stores();
    let body = pattern(77, 50_000);
    let digest = Digest::of(Function::Sha256, &body);
    other
        .wait(found.put_blob(team(), &digest, &body, 999, CreateOptions::default()))
        .unwrap()
        .unwrap();
    let disk = rig.disk.after_kill(1);
    for (number, name) in other
        .disk
        .names()
        .iter()
        .filter(|name| name.starts_with("segments/"))
        .enumerate()
    {
        let bytes = other.disk.file_bytes(name).unwrap();
        disk.plant_file(&format!("segments/{:06}.seg", 500 + number), &bytes);
    }
    let again = Rig::open(disk, config(64)).unwrap();
    assert_eq!(model.clone().observe(&again).unwrap(), model.states());
    let blob = again
        .wait(again.stores().blob(team(), &digest, ByteRange::Full))
        .unwrap();
    assert_eq!(blob.unwrap(), None, "another store's blob is not ours");
}

#[test]
fn cut_and_missing_segments_lose_only_what_was_in_them() {
    let (rig, model) = stopped();
    let names: Vec<String> = rig
        .disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("segments/"))
        .collect();
    for name in &names {
        let bytes = rig.disk.file_bytes(name).unwrap();
        for length in [0, 100, 4096, 5000, bytes.len() / 2, bytes.len() - 1] {
            let disk = rig.disk.after_kill(1);
            disk.plant_file(name, &bytes[..length]);
            let again = Rig::open(disk, config(64)).unwrap();
            let mut model = model.clone().lossy();
            model
                .observe(&again)
                .unwrap_or_else(|why| panic!("{name} cut to {length} bytes: {why}"));
            model
                .apply(
                    &mut { again },
                    Op::Put(
                        16,
                        Value {
                            number: 8000,
                            size: 5,
                        },
                    ),
                )
                .unwrap();
        }
        let disk = rig.disk.after_kill(1);
        zimcache_node::Disk::remove(&disk, name).unwrap();
        let again = Rig::open(disk, config(64)).unwrap();
        let mut model = model.clone().lossy();
        model.observe(&again).unwrap();
    }
}

#[test]
fn a_new_store_reports_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path(), true).unwrap();
    let node = Node::open(&config(64), Arc::new(disk), clock()).unwrap();
    let report = node.report();
    assert_eq!((report.blobs, report.entries, report.live_bytes), (0, 0, 0));
    assert!(report.capacity_bytes <= 64 << 20);
    let found = stores(&node, &clock());
    let body = pattern(1, 300_000);
    let digest = Digest::of(Function::Sha256, &body);
    let put = found.put_blob(team(), &digest, &body, 999, CreateOptions::default());
    runtime().block_on(put).unwrap();
    drop(found);
    node.close();
    let disk = RealDisk::open(folder.path(), true).unwrap();
    let node = Node::open(&config(64), Arc::new(disk), clock()).unwrap();
    let report = node.report();
    assert_eq!((report.blobs, report.clean), (1, true));
    assert!(report.live_bytes >= 300_000);
}
