//! Stores whose segments somebody else wrote: records, batches and tables of contents made from arbitrary bytes, with
//! the right checksums, so that what lies behind the checksums is reached.
//!
//! Nothing on a disk that was only damaged looks like this; it is what a defect or a hostile hand would leave.

#![allow(clippy::unwrap_used, reason = "a fuzz target reports by panicking")]

use std::{sync::Arc, time::Duration};

use zimcache_config::StoreConfig;
use zimcache_store::{BlobStore, ByteRange, CreateOptions, GcOptions, Touch};
use zimcache_types::{
    ByteSize, Digest, EntryKey, EntryKind, Function, Hash, ManualClock, Namespace, Timestamp,
};

use super::SimDisk;
use crate::{
    Node,
    engine::{
        batch::{self, BatchHeader},
        checksum::Salt,
        meta::{self, Meta},
        page::PAGE,
        record::{self, Encoding, Header, Kind},
        segment::{Class, SegmentHeader, TocRow, encode_footer, file_name},
        shared::{Key, hash_key},
    },
};

/// Identity of every crafted store.
pub(super) const STORE_ID: [u8; 16] = *b"a crafted store!";
pub(super) const HASH_KEY: [u8; 16] = [7; 16];
/// Size of its segments.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;
/// Salt of its first segment.
pub(super) const SALT: Salt = Salt {
    generation: 9,
    seed: 0x1234_5678_9abc_def0,
};
/// Longest a store may take to open and answer, in seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A reader of arbitrary bytes that never ends: behind the end come zeros.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        // Small numbers, large ones and those near limits are all likely.
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => u64::from(self.byte()) << (8 * (self.byte() % 8)),
            2 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A store made of `data` opens, answers and takes writes, or is refused; it never panics, hangs, or serves a blob
/// under a digest that was put by us with other bytes.
pub(super) fn recovery(data: &[u8]) {
    let disk = SimDisk::new(1);
    let meta = Meta {
        store_id: STORE_ID,
        hash_key: HASH_KEY,
        segment_bytes: SEGMENT_BYTES,
        created_millis: 0,
        format: meta::FORMAT,
    };
    disk.plant_file(meta::NAME, meta::encode(&meta).bytes());
    let mut source = Source(data);
    for id in 0..=u32::from(source.byte() % 3) {
        disk.plant_file(&file_name(id), &segment(&mut source, id));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let config = StoreConfig {
        max_size: ByteSize::mib(64),
        scrub_interval: None,
        ..StoreConfig::default()
    };
    let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
    let Ok(node) = Node::open(&config, Arc::new(disk.clone()), clock.clone()) else {
        return;
    };
    let asked = async { tokio::time::timeout(PATIENCE, ask(&node)).await };
    assert!(runtime.block_on(asked).is_ok(), "a crafted store hangs");
    node.close();
    drop(Node::open(&config, Arc::new(disk.after_kill(2)), clock));
}

/// A segment file: raw bytes, or well-formed batches of arbitrary records, sealed or not.
fn segment(source: &mut Source<'_>, id: u32) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    let class =
        [Class::Probation, Class::Main, Class::Entries, Class::Free][source.byte() as usize % 4];
    let header = SegmentHeader {
        class,
        lane: source.byte() % 6,
        salt: Salt {
            generation: SALT.generation + u64::from(id),
            ..SALT
        },
    };
    header.encode(STORE_ID, &mut bytes);
    let (sealed, raw) = (
        source.byte().is_multiple_of(2),
        source.byte().is_multiple_of(8),
    );
    let mut rows = Vec::new();
    let mut at = PAGE;
    let mut number = 0;
    while !source.is_empty() && at + 16 * PAGE < bytes.len() && number < 64 {
        number += 1;
        if raw {
            bytes[at] = source.byte();
            at += 1 + usize::from(source.byte());
        } else {
            at = put_batch(source, &mut bytes, at, &header, number, &mut rows);
        }
    }
    if sealed {
        let (pages, offset) = encode_footer(&rows, SEGMENT_BYTES, STORE_ID, &header, 1, number);
        bytes[offset as usize..].copy_from_slice(pages.bytes());
    }
    let cut = source.byte();
    if cut > 250 {
        bytes.truncate(usize::from(cut - 250) * 100_000);
    }
    bytes
}

/// One batch of arbitrary records; says where it ends.
fn put_batch(
    source: &mut Source<'_>,
    bytes: &mut [u8],
    start: usize,
    header: &SegmentHeader,
    number: u64,
    rows: &mut Vec<TocRow>,
) -> usize {
    let mut at = start + batch::HEADER;
    let mut records = 0;
    for _ in 0..source.byte() % 6 {
        let (record, payload) = arbitrary_record(source);
        let place = &mut bytes[at..at + record.record_len()];
        place[record.payload_offset()..][..payload.len()].copy_from_slice(&payload);
        record::seal(place, &record, header.salt, at as u64);
        let hash = hash_key(&HASH_KEY, &Key::of(&record));
        rows.push(TocRow::new(hash, at as u64, &record));
        at += record.record_len();
        records += 1;
    }
    let end = at.next_multiple_of(PAGE);
    let lie = u32::from(source.byte() == 1) * 1000;
    let batch = BatchHeader {
        lane: header.lane,
        records: records + lie,
        number,
        time_millis: source.word(),
        bytes: (end - start) as u32,
        durable_upto: source.word(),
    };
    batch::seal(&mut bytes[start..], &batch, header.salt, start as u64);
    end
}

fn arbitrary_record(source: &mut Source<'_>) -> (Header, Vec<u8>) {
    let kinds = [
        Kind::Blob,
        Kind::Part,
        Kind::Manifest,
        Kind::Entry,
        Kind::EntryManifest,
        Kind::Namespace,
    ];
    let kind = kinds[source.byte() as usize % kinds.len()];
    let name = source.byte() % 4;
    let payload: Vec<u8> = match kind {
        // Without names of rooms nothing else would ever be asked for.
        Kind::Namespace => room().as_str().into(),
        _ => (0..source.byte()).map(|_| source.byte()).collect(),
    };
    let stored = payload.len() as u32;
    let function = source.byte() % 10;
    let bits = source.byte();
    let encodings = [
        Encoding::Identity,
        Encoding::Identity,
        Encoding::Zstd,
        Encoding::Lz4,
    ];
    let header = Header {
        kind,
        function,
        encoding: encodings[usize::from(bits >> 4) % encodings.len()],
        flags: u16::from(bits % 16),
        namespace: u32::from(source.byte() % 3),
        part: source.word() as u32,
        stored,
        raw_size: source.word(),
        version: source.word(),
        writer: 0,
        writing: 0,
        key: key_of(kind, name),
    };
    (header, payload)
}

/// A key that somebody asks for later.
fn key_of(kind: Kind, name: u8) -> [u8; 32] {
    let text = match kind {
        Kind::Entry | Kind::EntryManifest => entry_text(name),
        Kind::Namespace => room().as_str().to_owned(),
        _ => return [name; 32],
    };
    let digest = Digest::of(Function::Sha256, text.as_bytes());
    digest.hash.as_bytes().try_into().unwrap_or([0; 32])
}

fn entry_text(name: u8) -> String {
    format!("action-{name}")
}

fn room() -> Namespace {
    Namespace::default()
}

/// Asks everything there is to ask. Refusals are fine.
async fn ask(node: &Node) {
    let (blobs, entries, admin) = (node.blobs(), node.entries(), node.admin());
    for name in 0..4 {
        let hash = Hash::from_bytes(Function::Sha256, &[name; 32]).unwrap();
        let digest = Digest::unsized_(hash);
        if let Ok(Some(reader)) = blobs.open(&room(), &digest, ByteRange::Full).await {
            drop(reader.read_all(1 << 20).await);
        }
        drop(blobs.missing(&room(), &[digest], Touch::Lease).await);
        let key = EntryKey::new(room(), EntryKind::ActionResult, entry_text(name)).unwrap();
        if let Ok(Some(entry)) = entries.get(&key, ByteRange::Suffix(10)).await {
            drop(entry.value.read_all(1 << 20).await);
        }
        if name % 2 == 0 {
            drop(entries.delete(&key).await);
            drop(blobs.delete(&room(), &digest).await);
        }
    }
    drop(
        entries
            .list(&room(), EntryKind::ActionResult, "", None, 10)
            .await,
    );
    drop(admin.verify(Box::new(|_| {})).await);
    let evict_all = GcOptions {
        target_bytes: Some(0),
        ..GcOptions::default()
    };
    drop(admin.gc(evict_all).await);
    write_and_read(blobs.as_ref()).await;
    drop(entries.purge(&room()).await);
    let _figures = admin.stats();
}

/// Whatever else is there: what is put now is read back.
async fn write_and_read(blobs: &dyn BlobStore) {
    let body = bytes::Bytes::from_static(b"a body of our own");
    let digest = Digest::of(Function::Sha256, &body);
    let room = Namespace::new("another/room").unwrap();
    let Ok(mut writer) = blobs.create(&room, &digest, CreateOptions::default()).await else {
        return;
    };
    if writer.write(body.clone()).await.is_err() || writer.commit().await.is_err() {
        return;
    }
    let reader = blobs.open(&room, &digest, ByteRange::Full).await;
    let found = reader.unwrap().unwrap().read_all(100).await.unwrap();
    assert_eq!(found, body);
}
