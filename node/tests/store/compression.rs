//! What is stored compressed: it takes less room, reads back in every range and form, and survives.

use bytes::Bytes;
use zimcache_config::Compression;
use zimcache_node::testing::SimDisk;
use zimcache_store::{
    ByteRange, CreateOptions, Encoding, EntryMeta, Precondition,
    testing::conformance::{Content, content},
};
use zimcache_types::{Digest, Function};

use crate::{
    harness::{Rig, config},
    ops::{key, team},
};

fn rig(compression: Compression) -> Rig {
    let mut config = config(64);
    config.compression = compression;
    Rig::open(SimDisk::new(1), config).unwrap()
}

fn put(rig: &Rig, body: &Bytes) -> Digest {
    let digest = Digest::of(Function::Sha256, body);
    let put = async {
        let stores = rig.stores();
        let options = CreateOptions::default();
        stores
            .put_blob(team(), &digest, body, 70_000, options)
            .await
    };
    rig.wait(put).unwrap().unwrap();
    digest
}

/// The blob in the form it is stored in.
fn stored_form(rig: &Rig, digest: &Digest, range: ByteRange) -> (Encoding, Bytes) {
    let read = async {
        let open = rig.node().blobs().open(team(), digest, range).await;
        let (form, reader) = open.unwrap().unwrap().into_stored();
        let announced = reader.remaining_bytes();
        let bytes = reader.read_all(1 << 30).await.unwrap();
        assert_eq!(bytes.len() as u64, announced, "the length is known before");
        (form, bytes)
    };
    rig.wait(read).unwrap()
}

const SIZES: [usize; 7] = [
    1025,
    4096,
    70_000,
    128 << 10,
    (128 << 10) + 1,
    700_000,
    (3 << 20) + 17,
];

#[test]
fn text_takes_a_fraction_of_its_size_and_noise_its_own() {
    for (compression, kind, least) in [
        (Compression::Auto, Content::Text, 2.0),
        (Compression::Zstd, Content::Text, 2.0),
        (Compression::Lz4, Content::Text, 1.5),
        (Compression::Off, Content::Text, 1.0),
        (Compression::Auto, Content::Noise, 1.0),
    ] {
        let rig = rig(compression);
        for size in SIZES {
            put(&rig, &content(kind, 1, size));
        }
        let stats = rig.stats();
        let ratio = stats.raw_bytes as f64 / stats.stored_bytes as f64;
        assert!(ratio >= least, "{compression:?} {kind:?}: {ratio}");
        let fixed = least <= 1.0;
        assert!(!fixed || ratio < 1.001, "{compression:?} {kind:?}: {ratio}");
        let sum: usize = SIZES.iter().sum();
        assert!(stats.raw_bytes >= sum as u64, "{stats:?}");
    }
}

#[test]
fn a_value_stored_as_zstd_goes_out_as_it_is_and_decodes_to_itself() {
    let mut rig = rig(Compression::Zstd);
    for (seed, kind) in [(7, Content::Text), (8, Content::Mixed)] {
        for size in SIZES {
            let body = content(kind, seed, size);
            let digest = put(&rig, &body);
            let (form, bytes) = stored_form(&rig, &digest, ByteRange::Full);
            assert_eq!(form, Encoding::Zstd, "{kind:?} {size}");
            assert!(bytes.len() < size, "{kind:?} {size} {}", bytes.len());
            let decoded = decode_frames(&bytes, size);
            assert!(decoded == body, "{kind:?} {size}");
            // Read often, a small value is in RAM as it was put.
            for _ in 0..3 {
                let (form, bytes) = stored_form(&rig, &digest, ByteRange::Full);
                match form {
                    Encoding::Zstd => assert!(decode_frames(&bytes, size) == body),
                    Encoding::Identity => assert!(size <= 64 << 10 && bytes == body),
                }
            }
            let part = ByteRange::From {
                first: 1,
                last: None,
            };
            let (form, bytes) = stored_form(&rig, &digest, part);
            assert_eq!(form, Encoding::Identity, "a range is never encoded");
            assert!(bytes == body.slice(1..));
        }
        rig.restart().unwrap();
    }
}

/// Several frames, one after the other, as every zstd decoder reads them.
fn decode_frames(bytes: &[u8], size: usize) -> Vec<u8> {
    zstd::bulk::decompress(bytes, size).unwrap()
}

#[test]
fn what_is_not_zstd_goes_out_as_it_was_put() {
    for (compression, kind) in [
        (Compression::Zstd, Content::Noise),
        (Compression::Lz4, Content::Text),
        (Compression::Off, Content::Text),
    ] {
        let rig = rig(compression);
        for size in SIZES {
            let body = content(kind, 9, size);
            let digest = put(&rig, &body);
            let (form, bytes) = stored_form(&rig, &digest, ByteRange::Full);
            assert_eq!(form, Encoding::Identity, "{compression:?} {size}");
            assert!(bytes == body);
        }
    }
}

#[test]
fn an_entry_keeps_its_metadata_beside_a_compressed_value_and_is_listed_by_its_size() {
    let rig = rig(Compression::Auto);
    let meta = EntryMeta {
        content_type: Some("text/x-thing".into()),
        client: vec![("x-artifact-tag".into(), "abc".into())],
    };
    for (place, size) in [(20, 1500), (21, 60_000), (22, 400_000)] {
        let body = content(Content::Text, place as u64, size);
        let call = async {
            let stores = rig.stores();
            let put = stores.put_entry(
                key(place),
                &body,
                9000,
                meta.clone(),
                Precondition::None,
                None,
            );
            put.await.unwrap();
            for _ in 0..4 {
                let entry = stores.entries.get(key(place), ByteRange::Full).await;
                let entry = entry.unwrap().unwrap();
                assert_eq!(entry.meta, meta);
                assert!(entry.value.read_all(1 << 20).await.unwrap() == body);
            }
            let text = &key(place).text;
            let kind = key(place).kind;
            let rows = stores.entries.list(team(), kind, text, None, 9).await;
            assert_eq!(rows.unwrap()[0].size_bytes, size as u64);
        };
        rig.wait(call).unwrap();
    }
    assert!(rig.stats().stored_bytes * 2 < rig.stats().raw_bytes);
}

#[test]
fn a_store_written_with_one_codec_is_read_with_any_setting() {
    let bodies: Vec<Bytes> = SIZES
        .iter()
        .map(|size| content(Content::Mixed, *size as u64, *size))
        .collect();
    let mut rig = rig(Compression::Off);
    let mut digests = Vec::new();
    for (body, compression) in bodies.iter().zip(
        [
            Compression::Zstd,
            Compression::Lz4,
            Compression::Auto,
            Compression::Off,
        ]
        .into_iter()
        .cycle(),
    ) {
        rig.config.compression = compression;
        rig.restart().unwrap();
        digests.push(put(&rig, body));
    }
    rig.kill(3).unwrap();
    for (body, digest) in bodies.iter().zip(&digests) {
        let read = async { rig.stores().blob(team(), digest, ByteRange::Full).await };
        assert!(rig.wait(read).unwrap().unwrap().as_ref() == Some(body));
    }
}
