//! The simulated disk keeps its own promises.

use std::{collections::BTreeSet, io, sync::Arc};

use super::{Fault, FaultKind, OpKind, SimDisk};
use crate::engine::{
    disk::{Disk, DiskFile},
    page::{PAGE, PageBuf},
};

fn pages(count: usize, fill: u8) -> PageBuf {
    let mut pages = PageBuf::zeroed(count);
    pages.bytes_mut().fill(fill);
    pages
}

fn write(file: &Arc<dyn DiskFile>, count: usize, fill: u8, offset: u64) -> io::Result<()> {
    file.write_at(&[pages(count, fill).as_pages()], offset)
}

fn synced_file(disk: &SimDisk) -> Arc<dyn DiskFile> {
    let file = disk.create("f").unwrap();
    write(&file, 4, 1, 0).unwrap();
    file.sync().unwrap();
    disk.sync_names().unwrap();
    file
}

#[test]
fn what_was_synced_survives_and_the_rest_survives_block_by_block() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..2000 {
        let disk = SimDisk::new(seed);
        let file = synced_file(&disk);
        write(&file, 1, 2, 0).unwrap();
        write(&file, 2, 3, 0).unwrap();
        write(&file, 1, 4, 4 * PAGE as u64).unwrap();
        let found = disk.after_crash(seed).file_bytes("f").unwrap();
        let heads: Vec<u8> = found.chunks(PAGE).map(|block| block[0]).collect();
        assert!(
            found
                .chunks(PAGE)
                .all(|b| b.iter().all(|byte| *byte == b[0]))
        );
        assert_eq!(heads[2..4], [1, 1]);
        outcomes.insert(heads);
    }
    // Block 0: 1, 2 or 3; block 1: 1 or 3; block 4: absent, a hole, or 4.
    assert_eq!(outcomes.len(), 3 * 2 * 3);
}

#[test]
fn names_that_were_not_synced_come_and_go() {
    let (mut kept, mut lost, mut revived) = (0, 0, 0);
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        drop(synced_file(&disk));
        disk.remove("f").unwrap();
        disk.create("g").unwrap().sync().unwrap();
        let names = disk.after_crash(seed).names();
        revived += usize::from(names.contains(&"f".to_owned()));
        kept += usize::from(names.contains(&"g".to_owned()));
        lost += usize::from(!names.contains(&"g".to_owned()));
        assert!(disk.is_off());
    }
    assert!(kept > 10 && lost > 10 && revived > 10);
}

#[test]
fn emptying_a_file_is_durable_once_it_is_synced() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        drop(synced_file(&disk));
        let file = disk.create("f").unwrap();
        write(&file, 1, 9, 0).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.after_crash(seed).file_bytes("f").unwrap(), [9; PAGE]);
    }
}

#[test]
fn the_power_goes_off_in_the_middle_of_the_chosen_change() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk);
    disk.cut_power_after(1);
    write(&file, 1, 2, 0).unwrap();
    assert!(!disk.is_off());
    assert!(file.sync().is_err());
    assert!(disk.is_off());
    assert!(file.read_at(&mut [0; 1], 0).is_err());
    let seen: BTreeSet<u8> = (0..20)
        .map(|seed| disk.after_crash(seed).file_bytes("f").unwrap()[0])
        .collect();
    assert_eq!(seen, BTreeSet::from([1, 2]), "the sync never finished");
}

#[test]
fn a_lying_sync_fails_once_and_then_loses_what_it_forgot() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk);
    write(&file, 1, 2, 0).unwrap();
    disk.inject(Fault::once(OpKind::Sync, 0, FaultKind::LyingSync));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(Fault::EIO));
    assert_eq!(disk.counts().used_after_failed_sync, 0);
    file.sync().unwrap();
    assert_eq!(disk.counts().used_after_failed_sync, 1);
    let mut byte = [0];
    file.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [2], "still in memory");
    let mut page = PageBuf::zeroed(1);
    file.read_direct(page.as_mut_pages(), 0).unwrap();
    assert_eq!(page.bytes()[0], 1, "but not on the disk");
    assert_eq!(disk.after_crash(3).file_bytes("f").unwrap()[0], 1);
}

#[test]
fn space_ends_and_comes_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(6 * PAGE as u64);
    let file = synced_file(&disk);
    assert_eq!(disk.free_bytes().unwrap(), 2 * PAGE as u64);
    let full = write(&file, 3, 1, 4 * PAGE as u64).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    write(&file, 4, 5, 0).unwrap();
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 6 * PAGE as u64);
}

#[test]
fn writes_get_lost_go_astray_and_reads_flip_by_rule() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk);
    disk.inject(Fault::once(OpKind::Write, 0, FaultKind::LostWrite));
    disk.inject(Fault::once(
        OpKind::Write,
        1,
        FaultKind::MisdirectedWrite(2),
    ));
    write(&file, 1, 7, 0).unwrap();
    write(&file, 1, 8, 0).unwrap();
    let heads: Vec<u8> = disk
        .file_bytes("f")
        .unwrap()
        .chunks(PAGE)
        .map(|b| b[0])
        .collect();
    assert_eq!(heads, [1, 1, 8, 1]);
    disk.inject(Fault::once(OpKind::Read, 0, FaultKind::FlippedRead).on("f"));
    let (mut bad, mut good) = ([0; 64], [0; 64]);
    file.read_at(&mut bad, 0).unwrap();
    file.read_at(&mut good, 0).unwrap();
    let ones = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| (byte ^ 1).count_ones())
            .sum::<u32>()
    };
    assert_eq!((ones(&bad), ones(&good)), (1, 0));
    assert!(disk.log().iter().any(|op| op.fault.is_some()));
}

#[test]
fn a_killed_process_leaves_its_writes_to_the_next_but_not_durably() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk);
    write(&file, 1, 2, 0).unwrap();
    let next = disk.after_kill(1);
    assert!(write(&file, 1, 9, 0).is_err());
    assert_eq!(next.file_bytes("f").unwrap()[0], 2);
    let seen: BTreeSet<u8> = (0..20)
        .map(|seed| next.after_crash(seed).file_bytes("f").unwrap()[0])
        .collect();
    assert_eq!(seen, BTreeSet::from([1, 2]));
}
