//! Row 7: a disk that is full or hands out no more files refuses writes, shows nothing half-written, and goes on as
//! soon as there is room.

use std::{path::Path, process::Command, sync::Arc};

use zimcache_node::{
    Node, RealDisk,
    testing::{Fault, FaultKind, OpKind, SimDisk, SimRng},
};
use zimcache_store::{ByteRange, CreateOptions, testing::conformance::pattern};
use zimcache_types::{Code, Digest, Function};

use crate::{
    harness::{Rig, clock, config, runtime, stores},
    ops::{Mix, Model, Op, Value, sequence, team},
    volume::Row,
};

#[test]
fn a_disk_that_is_smaller_than_the_store_fills_up_without_harm() {
    let mix = Mix {
        large_permille: 500,
        recover: true,
    };
    Row::new("row 7, small disk", 60, 15).run(|seed| {
        let mut rng = SimRng::new(seed);
        let disk = SimDisk::new(seed);
        disk.set_capacity((18 + rng.below(40)) << 20);
        let mut rig = Rig::open(disk, config(64)).map_err(|error| format!("{error:?}"))?;
        let mut model = Model::default();
        for op in sequence(&mut rng, 120, mix) {
            model.apply(&mut rig, op)?;
        }
        model.observe(&rig)?;
        rig.disk.set_capacity(1 << 40);
        model.recover(&mut rig, Rig::restart)?;
        model.apply(
            &mut rig,
            Op::Put(
                16,
                Value {
                    number: 7000,
                    size: 300_000,
                },
            ),
        )?;
        model.observe(&rig).map(drop)
    });
}

#[test]
fn space_that_ends_while_the_store_runs_costs_nothing_acknowledged() {
    let mix = Mix {
        large_permille: 300,
        recover: false,
    };
    for (name, op, number) in [
        ("ENOSPC", OpKind::Write, 28),
        ("EMFILE", OpKind::Create, 24),
    ] {
        Row::new("row 7, errors", 60, 8).run(|seed| {
            let mut rng = SimRng::new(seed);
            let mut rig = Rig::fresh(seed);
            let mut model = Model::default();
            let fault = Fault::always(op, FaultKind::Errno(number)).on("segments/");
            let fault = Fault {
                skip: rng.below(40),
                times: 1 + rng.below(20),
                ..fault
            };
            rig.disk.inject(fault);
            model.refusals_are_fine = true;
            for op in sequence(&mut rng, 80, mix) {
                model
                    .apply(&mut rig, op)
                    .map_err(|why| format!("{name}: {why}"))?;
            }
            model.observe(&rig)?;
            rig.disk.heal();
            model.recover(&mut rig, |rig| rig.crash(seed))?;
            model.refusals_are_fine = false;
            model.apply(
                &mut rig,
                Op::Put(
                    16,
                    Value {
                        number: 7000,
                        size: 10,
                    },
                ),
            )?;
            model.observe(&rig).map(drop)
        });
    }
}

/// A small ext4 file system in a file, mounted; unmounted when dropped.
struct LoopDisk {
    folder: tempfile::TempDir,
}

impl LoopDisk {
    fn new(mib: u64) -> Result<LoopDisk, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &text(&image)])?;
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", &text(&image), &text(&mount)])?;
        Ok(LoopDisk { folder })
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("mount")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run("umount", &[&text(&self.path())]).ok();
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output
        .status
        .success()
        .then_some(())
        .ok_or(format!("{program}: {error}"))
}

#[test]
fn a_full_file_system_is_survived_and_used_again_once_there_is_room() {
    let disk = match LoopDisk::new(256) {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED row 7 on a loop file system: {why}"),
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![7; 190 << 20]).unwrap();
    let runtime = runtime();
    let open = || {
        let folder = RealDisk::open(&disk.path().join("store"), true).unwrap();
        Node::open(&config(200), Arc::new(folder), clock()).unwrap()
    };
    let node = open();
    let found = stores(&node, &clock());
    let body = |number: u64| pattern(number, 1_500_000);
    let put = async |number: u64| {
        let body = body(number);
        let digest = Digest::of(Function::Sha256, &body);
        let put = found.put_blob(team(), &digest, &body, 1 << 20, CreateOptions::default());
        put.await.map_err(|error| error.code())
    };
    let mut acked = 0;
    runtime.block_on(async {
        for number in 0..80 {
            // Somebody else fills the rest of the disk.
            if number == 10 {
                let rest = vec![7; 60 << 20];
                std::fs::write(disk.path().join("more"), rest).ok();
            }
            match put(number).await {
                Ok(_) => acked += 1,
                Err(code) => assert_eq!(code, Code::OutOfSpace),
            }
        }
        for number in 0..80 {
            let digest = Digest::of(Function::Sha256, &body(number));
            let blob = found.blob(team(), &digest, ByteRange::Full).await.unwrap();
            assert!(blob.is_none_or(|bytes| bytes == body(number)));
        }
    });
    println!(
        "row 7: {acked} of 80 puts on a full file system; {:?}",
        node.admin().stats()
    );
    assert!(acked >= 10, "it evicts rather than refuses");
    std::fs::remove_file(&ballast).unwrap();
    runtime.block_on(put(1000)).unwrap();
    drop(found);
    node.close();
    let node = open();
    let digest = Digest::of(Function::Sha256, &body(1000));
    let blob = runtime.block_on(stores(&node, &clock()).blob(team(), &digest, ByteRange::Full));
    assert!(blob.unwrap() == Some(body(1000)));
    node.close();
}
