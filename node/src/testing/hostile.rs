//! Stores with encoded records that lie, whose checksums pass all the same; and stores of format 1.

use std::sync::Arc;

use bytes::Bytes;
use zimcache_config::{Compression, StoreConfig};
use zimcache_store::{ByteRange, Encoding as Form, Error, Touch};
use zimcache_types::{ByteSize, Digest, Function, ManualClock, Namespace, Timestamp};

use super::{
    SimDisk,
    codec::CodecProbe,
    crafted::{HASH_KEY, SALT, SEGMENT_BYTES, STORE_ID},
};
use crate::{
    Node,
    engine::{
        batch::{self, BatchHeader},
        blobs::blob_key,
        manifest::part_key,
        meta::{self, Found, Meta},
        page::PAGE,
        record::{self, Encoding, Header, Kind, MAX_PAYLOAD},
        segment::{Class, SegmentHeader, file_name},
        shared::{Key, hash_key},
    },
};

const UPLOAD: [u8; 16] = [3; 16];

/// A disk with one segment of these records, in a store of this format.
fn disk_with(format: u32, records: &[(Header, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new(1);
    let meta = Meta {
        store_id: STORE_ID,
        hash_key: HASH_KEY,
        segment_bytes: SEGMENT_BYTES,
        created_millis: 0,
        format,
    };
    disk.plant_file(meta::NAME, meta::encode(&meta).bytes());
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    let segment = SegmentHeader {
        class: Class::Entries,
        lane: 2,
        salt: SALT,
    };
    segment.encode(STORE_ID, &mut bytes);
    let mut start = PAGE;
    for ((header, payload), number) in records.iter().zip(1..) {
        let at = start + batch::HEADER;
        let place = &mut bytes[at..at + header.record_len()];
        place[header.payload_offset()..][..payload.len()].copy_from_slice(payload);
        record::seal(place, header, SALT, at as u64);
        let end = (at + header.record_len()).next_multiple_of(PAGE);
        let batch = BatchHeader {
            lane: 2,
            records: 1,
            number,
            time_millis: 1,
            bytes: (end - start) as u32,
            durable_upto: number - 1,
        };
        batch::seal(&mut bytes[start..], &batch, SALT, start as u64);
        start = end;
    }
    disk.plant_file(&file_name(0), &bytes);
    disk
}

fn team() -> Namespace {
    Namespace::new("team").unwrap()
}

fn header(kind: Kind, key: &Key, stored: usize, raw_size: usize) -> Header {
    Header {
        kind,
        function: key.function,
        encoding: Encoding::Identity,
        flags: 0,
        namespace: 1,
        part: 0,
        stored: stored as u32,
        raw_size: raw_size as u64,
        version: 1 << 20,
        writer: 0,
        writing: 0,
        key: key.bytes,
    }
}

fn namespace() -> (Header, Vec<u8>) {
    let name = team().as_str().as_bytes().to_vec();
    let mut key = [0; 32];
    key.copy_from_slice(Digest::of(Function::Sha256, &name).hash.as_bytes());
    let header = Header {
        kind: Kind::Namespace,
        function: 0,
        encoding: Encoding::Identity,
        flags: 4,
        namespace: 0,
        part: 1,
        stored: name.len() as u32,
        raw_size: name.len() as u64,
        version: 1,
        writer: 0,
        writing: 0,
        key,
    };
    (header, name)
}

fn open(disk: &SimDisk) -> Node {
    let config = StoreConfig {
        max_size: ByteSize::mib(64),
        scrub_interval: None,
        ..StoreConfig::default()
    };
    let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
    Node::open(&config, Arc::new(disk.clone()), clock).unwrap()
}

fn text(len: usize) -> Bytes {
    let bytes = b"the same words again, and once more; ".iter().cycle();
    bytes.copied().take(len).collect()
}

fn encoded(mode: Compression, raw: &[u8]) -> (Encoding, Vec<u8>) {
    let (number, stored) = CodecProbe::new(mode).encode(raw).expect("text shrinks");
    (Encoding::from_number(number).unwrap(), stored)
}

/// What a read of the blob comes to, the way every client reads.
async fn read(node: &Node, digest: &Digest) -> Result<Option<Bytes>, Error> {
    match node.blobs().open(&team(), digest, ByteRange::Full).await? {
        Some(reader) => reader.read_all(1 << 30).await.map(Some),
        None => Ok(None),
    }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// Reads until the blob is gone: never a wrong byte, never more than a few refusals.
async fn is_refused_and_lost(node: &Node, digest: &Digest, what: &str) {
    let mut refusals = 0;
    loop {
        match read(node, digest).await {
            Ok(None) => break,
            Err(Error::Corrupt(_)) => refusals += 1,
            other => panic!("{what}: {other:?}"),
        }
        assert!(refusals < 4, "{what}: a corrupt record is not served again");
    }
    let missing = node.blobs().missing(&team(), &[*digest], Touch::Use).await;
    assert_eq!(missing.unwrap(), [true], "{what}");
    assert!(node.admin().stats().corrupt_records > 0, "{what}");
}

#[test]
fn an_encoded_record_that_lies_about_its_size_is_corrupt_and_lost() {
    for mode in [Compression::Zstd, Compression::Lz4] {
        for raw_len in [5000, 90_000, 700_000] {
            let raw = text(raw_len);
            let (encoding, stored) = encoded(mode, &raw);
            let digest = Digest::of(Function::Sha256, &raw);
            let key = blob_key(1, &digest);
            let cut = &stored[..stored.len() - 1];
            for (what, stored, size) in [
                ("said to be shorter", stored.as_slice(), raw_len - 1),
                ("said to be longer", stored.as_slice(), raw_len + 1),
                ("a bomb", stored.as_slice(), 64),
                (
                    "said to be as large as can be",
                    stored.as_slice(),
                    MAX_PAYLOAD,
                ),
                ("cut", cut, raw_len),
                ("empty", &[], raw_len),
            ] {
                let lie = Header {
                    encoding,
                    ..header(Kind::Blob, &key, stored.len(), size)
                };
                let disk = disk_with(meta::FORMAT, &[namespace(), (lie, stored.to_vec())]);
                let unsized_ = Digest::unsized_(digest.hash);
                run(async {
                    let node = open(&disk);
                    is_refused_and_lost(&node, &unsized_, what).await;
                });
            }
        }
    }
}

#[test]
fn a_record_said_to_decode_to_more_than_a_record_holds_is_never_found() {
    let raw = text(200_000);
    let (encoding, stored) = encoded(Compression::Zstd, &raw);
    let digest = Digest::unsized_(Digest::of(Function::Sha256, &raw).hash);
    let key = blob_key(1, &digest);
    for size in [MAX_PAYLOAD + 1, usize::MAX >> 1] {
        let lie = Header {
            encoding,
            ..header(Kind::Blob, &key, stored.len(), size)
        };
        let disk = disk_with(meta::FORMAT, &[namespace(), (lie, stored.clone())]);
        run(async {
            let node = open(&disk);
            assert_eq!(read(&node, &digest).await.unwrap(), None);
        });
    }
}

#[test]
fn verification_finds_a_frame_that_does_not_decode() {
    let raw = text(50_000);
    let (encoding, stored) = encoded(Compression::Zstd, &raw);
    let digest = Digest::of(Function::Sha256, &raw);
    let lie = Header {
        encoding,
        ..header(Kind::Blob, &blob_key(1, &digest), stored.len(), 50_001)
    };
    let disk = disk_with(meta::FORMAT, &[namespace(), (lie, stored)]);
    run(async {
        let node = open(&disk);
        let report = node.admin().verify(Box::new(|_| {})).await.unwrap();
        assert_eq!(report.damaged, 1, "{report:?}");
        assert!(report.examples[0].contains("does not decode"), "{report:?}");
    });
}

/// A blob in two parts of 128 KiB, the manifest as format 1 wrote it or with the length of its zstd form.
fn in_parts(
    parts: [(Encoding, Vec<u8>, usize); 2],
    raw: &Bytes,
    zstd_bytes: Option<u64>,
) -> Vec<(Header, Vec<u8>)> {
    let digest = Digest::of(Function::Sha256, raw);
    let key = blob_key(1, &digest);
    let owner = hash_key(&HASH_KEY, &key);
    let mut records = vec![namespace()];
    for ((encoding, stored, size), number) in parts.into_iter().zip(0..) {
        let header = Header {
            encoding,
            part: number,
            key: part_key(UPLOAD, owner),
            ..header(Kind::Part, &key, stored.len(), size)
        };
        records.push((header, stored));
    }
    let mut payload: Vec<u8> = zstd_bytes.map_or(Vec::new(), |bytes| bytes.to_le_bytes().into());
    payload.extend_from_slice(&UPLOAD);
    payload.extend_from_slice(&(128u32 << 10).to_le_bytes());
    records.push((
        header(Kind::Manifest, &key, payload.len(), raw.len()),
        payload,
    ));
    records
}

#[test]
fn a_part_that_lies_about_its_size_loses_the_value() {
    let raw = text(200 << 10);
    let (first, rest) = raw.split_at(128 << 10);
    let (encoding, stored) = encoded(Compression::Zstd, first);
    let digest = Digest::of(Function::Sha256, &raw);
    for (what, encoding, stored) in [
        ("another codec", Encoding::Lz4, stored.clone()),
        ("cut", encoding, stored[..stored.len() / 2].to_vec()),
    ] {
        let parts = [
            (encoding, stored, first.len()),
            (Encoding::Identity, rest.to_vec(), rest.len()),
        ];
        let disk = disk_with(meta::FORMAT, &in_parts(parts, &raw, Some(9)));
        run(async {
            let node = open(&disk);
            is_refused_and_lost(&node, &digest, what).await;
        });
    }
}

#[test]
fn a_manifest_that_lies_about_its_zstd_form_ends_the_stream_with_an_error() {
    let raw = text(200 << 10);
    let (first, rest) = raw.split_at(128 << 10);
    let (encoding, stored) = encoded(Compression::Zstd, first);
    let digest = Digest::of(Function::Sha256, &raw);
    for said in [1, 1 << 30] {
        let parts = [
            (encoding, stored.clone(), first.len()),
            (Encoding::Identity, rest.to_vec(), rest.len()),
        ];
        let disk = disk_with(meta::FORMAT, &in_parts(parts, &raw, Some(said)));
        run(async {
            let node = open(&disk);
            let open = node.blobs().open(&team(), &digest, ByteRange::Full).await;
            let (form, reader) = open.unwrap().unwrap().into_stored();
            assert_eq!((form, reader.remaining_bytes()), (Form::Zstd, said));
            let read = reader.read_all(1 << 40).await;
            assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
        });
    }
}

#[test]
fn a_store_of_format_1_opens_reads_back_and_says_format_2_from_then_on() {
    let raw = text(200 << 10);
    let (first, rest) = raw.split_at(128 << 10);
    let parts = [first, rest].map(|part| (Encoding::Identity, part.to_vec(), part.len()));
    let small = text(3000);
    let small_digest = Digest::of(Function::Sha256, &small);
    let mut records = in_parts(parts, &raw, None);
    let blob = header(
        Kind::Blob,
        &blob_key(1, &small_digest),
        small.len(),
        small.len(),
    );
    records.push((blob, small.to_vec()));
    let disk = disk_with(1, &records);
    run(async {
        let node = open(&disk);
        let digest = Digest::of(Function::Sha256, &raw);
        assert!(read(&node, &digest).await.unwrap() == Some(raw));
        assert!(read(&node, &small_digest).await.unwrap() == Some(small));
        let open = node.blobs().open(&team(), &digest, ByteRange::Full).await;
        let (form, _) = open.unwrap().unwrap().into_stored();
        assert_eq!(form, Form::Identity);
    });
    let bytes = disk.file_bytes(meta::NAME).unwrap();
    let Found::Current(meta) = meta::decode(&bytes) else {
        panic!("the meta file does not pass");
    };
    assert_eq!(meta.format, meta::FORMAT);
}
