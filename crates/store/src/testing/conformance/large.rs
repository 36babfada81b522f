//! Promises about large blobs: odd chunks, interrupted uploads taken up again, hostile uploads over good blobs.

use bytes::Bytes;
use zimcache_types::{Code, Namespace};

use super::{Stores, checks, pattern, refused, room, sha};
use crate::{ByteRange, CreateOptions};

checks!(
    large_blobs_stream_in_odd_chunks,
    an_interrupted_upload_continues_where_it_stopped,
    an_interrupted_upload_of_another_name_starts_from_nothing,
    a_resumed_upload_with_other_bytes_is_refused,
    a_refused_upload_starts_again_from_nothing,
    a_hostile_upload_over_a_large_blob_changes_nothing,
);

fn resume(name: &str) -> CreateOptions {
    CreateOptions {
        resume_as: Some(name.into()),
        ..CreateOptions::default()
    }
}

/// Starts an upload, writes all of `bytes`, and loses the connection.
async fn interrupt(stores: &Stores, team: &Namespace, whole: &Bytes, bytes: Bytes, name: &str) {
    let mut writer = stores
        .blobs
        .create(team, &sha(whole), resume(name))
        .await
        .unwrap();
    for chunk in bytes.chunks(200_003) {
        writer.write(bytes.slice_ref(chunk)).await.unwrap();
    }
}

async fn large_blobs_stream_in_odd_chunks(stores: &Stores) {
    let team = room("team");
    let body = pattern(30, (5 << 20) + 12_345);
    for chunk in [1_000_003, 65_537, 4097, (3 << 20) + 1, usize::MAX >> 1] {
        let digest = sha(&body);
        let put = stores.put_blob(&team, &digest, &body, chunk, CreateOptions::default());
        assert_eq!(put.await.unwrap(), body.len() as u64);
        let mut reader = stores
            .blobs
            .open(&team, &sha(&body), ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        let mut position = 0;
        while let Some(bytes) = reader.next_chunk().await {
            let bytes = bytes.unwrap();
            assert!(!bytes.is_empty(), "a chunk has at least one byte");
            assert!(bytes == body.slice(position..position + bytes.len()));
            position += bytes.len();
            assert_eq!(reader.remaining_bytes(), (body.len() - position) as u64);
        }
        assert_eq!(position, body.len());
        assert!(stores.blobs.delete(&team, &sha(&body)).await.unwrap());
    }
}

async fn an_interrupted_upload_continues_where_it_stopped(stores: &Stores) {
    let team = room("team");
    let body = pattern(31, (6 << 20) + 77);
    let sent = (3 << 20) + 500_000;
    interrupt(stores, &team, &body, body.slice(..sent), "upload-1").await;
    assert!(!stores.has(&team, &sha(&body)).await);
    let mut writer = stores
        .blobs
        .create(&team, &sha(&body), resume("upload-1"))
        .await
        .unwrap();
    let held = writer.offset() as usize;
    assert!(
        (1..=sent).contains(&held),
        "{held} bytes are held of {sent} that were sent"
    );
    writer.write(body.slice(held..)).await.unwrap();
    assert_eq!(writer.commit().await.unwrap(), body.len() as u64);
    let found = stores
        .blob(&team, &sha(&body), ByteRange::Full)
        .await
        .unwrap();
    assert!(found == Some(body), "the two halves fit together");
}

async fn an_interrupted_upload_of_another_name_starts_from_nothing(stores: &Stores) {
    let team = room("team");
    let body = pattern(32, 4 << 20);
    interrupt(stores, &team, &body, body.slice(..3 << 20), "upload-1").await;
    for (namespace, name) in [(&team, "upload-2"), (&room("other"), "upload-1")] {
        let writer = stores
            .blobs
            .create(namespace, &sha(&body), resume(name))
            .await;
        assert_eq!(writer.unwrap().offset(), 0);
    }
    let writer = stores
        .blobs
        .create(&team, &sha(&body), CreateOptions::default())
        .await;
    assert_eq!(writer.unwrap().offset(), 0);
}

async fn a_resumed_upload_with_other_bytes_is_refused(stores: &Stores) {
    let team = room("team");
    let (body, other) = (pattern(33, 5 << 20), pattern(34, 5 << 20));
    interrupt(stores, &team, &body, other.slice(..4 << 20), "upload-1").await;
    let put = stores
        .put_blob(&team, &sha(&body), &body, 1 << 20, resume("upload-1"))
        .await;
    assert_eq!(refused(put), Code::Invalid);
    assert!(!stores.has(&team, &sha(&body)).await);
}

async fn a_refused_upload_starts_again_from_nothing(stores: &Stores) {
    let team = room("team");
    let (body, other) = (pattern(35, 4 << 20), pattern(36, 4 << 20));
    let put = stores
        .put_blob(&team, &sha(&body), &other, 1 << 20, resume("upload-1"))
        .await;
    assert_eq!(refused(put), Code::Invalid);
    let writer = stores
        .blobs
        .create(&team, &sha(&body), resume("upload-1"))
        .await
        .unwrap();
    assert_eq!(writer.offset(), 0, "bytes that proved wrong are not kept");
    drop(writer);
    let put = stores
        .put_blob(&team, &sha(&body), &body, 1 << 20, resume("upload-1"))
        .await;
    assert_eq!(put.unwrap(), body.len() as u64);
}

async fn a_hostile_upload_over_a_large_blob_changes_nothing(stores: &Stores) {
    let team = room("team");
    let (body, other) = (pattern(37, 8 << 20), pattern(38, 8 << 20));
    let digest = stores.add(&team, &body).await;
    interrupt(stores, &team, &body, other.slice(..5 << 20), "upload-1").await;
    let put = stores
        .put_blob(&team, &digest, &other, 1 << 20, resume("upload-2"))
        .await;
    assert_eq!(refused(put), Code::Invalid);
    let longer = Bytes::from([body.as_ref(), b"x"].concat());
    let put = stores
        .put_blob(&team, &digest, &longer, 1 << 20, CreateOptions::default())
        .await;
    assert_eq!(refused(put), Code::Invalid);
    let found = stores.blob(&team, &digest, ByteRange::Full).await.unwrap();
    assert!(found == Some(body), "the visible blob keeps its bytes");
}
