//! Promises about blobs of any size.

use bytes::Bytes;
use zimcache_types::{Code, Digest, Function, Hash};

use super::{SIZES, Stores, both, checks, pattern, refused, room, sha};
use crate::{ByteRange, CreateOptions, Touch};

checks!(
    blobs_of_every_size_come_back_as_they_were,
    blobs_of_every_function_come_back,
    a_function_that_starts_with_the_size_needs_it,
    nothing_is_visible_before_the_commit,
    a_dropped_writer_leaves_nothing,
    a_wrong_hash_is_refused_and_leaves_nothing,
    a_wrong_size_is_refused_and_leaves_nothing,
    the_body_is_verified_although_the_blob_exists,
    a_commit_of_an_existing_blob_succeeds,
    two_uploads_of_one_digest_both_succeed,
    ranges_give_exactly_their_bytes,
    ranges_behind_the_end_are_refused,
    the_empty_blob_is_always_there,
    a_right_hash_with_a_wrong_size_names_nothing,
    a_hash_of_another_function_names_nothing,
    bodies_over_the_limit_are_refused,
    uploads_into_a_room_nobody_knows_yet_all_arrive,
    rooms_are_apart,
    missing_answers_in_order_and_touching_changes_nothing,
    a_deleted_blob_is_gone_and_can_be_put_again,
    a_purge_forgets_one_room_only,
);

const PLAIN: CreateOptions = CreateOptions {
    resume_as: None,
    limit_bytes: None,
    lease: false,
};

async fn blobs_of_every_size_come_back_as_they_were(stores: &Stores) {
    let team = room("team");
    let bodies: Vec<Bytes> = SIZES
        .iter()
        .map(|size| pattern(*size as u64, *size))
        .collect();
    for body in &bodies {
        for chunk in [body.len().max(1), 65_521] {
            let put = stores.put_blob(&team, &sha(body), body, chunk, PLAIN).await;
            assert_eq!(put.unwrap(), body.len() as u64);
        }
    }
    for body in &bodies {
        for digest in [sha(body), Digest::unsized_(sha(body).hash)] {
            let reader = stores.blobs.open(&team, &digest, ByteRange::Full).await;
            let reader = reader.unwrap().expect("what was committed is there");
            assert_eq!(reader.total_bytes(), body.len() as u64);
            assert_eq!(reader.remaining_bytes(), body.len() as u64);
            let bytes = reader.read_all(u64::MAX).await.unwrap();
            assert!(bytes == body, "a blob of {} bytes differs", body.len());
        }
    }
}

async fn blobs_of_every_function_come_back(stores: &Stores) {
    let team = room("team");
    let body = pattern(1, 1000);
    for function in Function::ALL {
        let digest = Digest::of(function, &body);
        assert!(!stores.has(&team, &digest).await, "{function:?}");
        stores
            .put_blob(&team, &digest, &body, 999, PLAIN)
            .await
            .unwrap();
        let found = stores.blob(&team, &digest, ByteRange::Full).await;
        assert_eq!(found.unwrap().as_ref(), Some(&body), "{function:?}");
    }
}

async fn a_function_that_starts_with_the_size_needs_it(stores: &Stores) {
    let team = room("team");
    for size in [1000, (2 << 20) + 5] {
        let body = pattern(size as u64, size);
        let digest = Digest::of(Function::GitSha1, &body);
        let bare = Digest::unsized_(digest.hash);
        let put = stores.put_blob(&team, &bare, &body, 65_521, PLAIN).await;
        assert_eq!(refused(put), Code::Invalid);
        let wrong = Digest::sized(digest.hash, size as u64 + 1);
        let put = stores.put_blob(&team, &wrong, &body, 65_521, PLAIN).await;
        assert_eq!(refused(put), Code::Invalid);
        let put = stores.put_blob(&team, &digest, &body, 65_521, PLAIN).await;
        assert_eq!(put.unwrap(), size as u64);
        let found = stores.blob(&team, &bare, ByteRange::Full).await;
        assert_eq!(found.unwrap(), Some(body), "reading needs no size");
    }
}

async fn nothing_is_visible_before_the_commit(stores: &Stores) {
    let team = room("team");
    for size in [10, 70_000, 3 << 20] {
        let body = pattern(2, size);
        let mut writer = stores
            .blobs
            .create(&team, &sha(&body), PLAIN)
            .await
            .unwrap();
        assert_eq!(writer.offset(), 0);
        writer.write(body.clone()).await.unwrap();
        assert!(!stores.has(&team, &sha(&body)).await);
        writer.commit().await.unwrap();
        assert!(stores.has(&team, &sha(&body)).await);
    }
}

async fn a_dropped_writer_leaves_nothing(stores: &Stores) {
    let team = room("team");
    for size in [10, 70_000, 3 << 20] {
        let body = pattern(3, size);
        let mut writer = stores
            .blobs
            .create(&team, &sha(&body), PLAIN)
            .await
            .unwrap();
        writer.write(body.clone()).await.unwrap();
        drop(writer);
        assert!(!stores.has(&team, &sha(&body)).await);
        stores.add(&team, &body).await;
    }
}

async fn a_wrong_hash_is_refused_and_leaves_nothing(stores: &Stores) {
    let team = room("team");
    for size in [1, 70_000, (2 << 20) + 5] {
        let (body, other) = (pattern(4, size), pattern(5, size));
        let announced = sha(&other);
        for digest in [announced, Digest::unsized_(announced.hash)] {
            let put = stores.put_blob(&team, &digest, &body, 1 << 20, PLAIN).await;
            assert_eq!(refused(put), Code::Invalid);
        }
        assert!(!stores.has(&team, &announced).await);
        assert!(!stores.has(&team, &sha(&body)).await);
    }
}

async fn a_wrong_size_is_refused_and_leaves_nothing(stores: &Stores) {
    let team = room("team");
    for size in [1usize, 70_000, (2 << 20) + 5] {
        let body = pattern(6, size);
        for announced in [size as u64 - 1, size as u64 + 1, u64::MAX, 0] {
            let digest = Digest::sized(sha(&body).hash, announced);
            let put = stores.put_blob(&team, &digest, &body, 1 << 20, PLAIN).await;
            let code = refused(put);
            let impossible = announced == u64::MAX && code != Code::Invalid;
            assert!(
                code == Code::Invalid
                    || (impossible && matches!(code, Code::TooLarge | Code::OutOfSpace)),
                "{size} bytes announced as {announced}: {code:?}"
            );
        }
        assert!(!stores.has(&team, &sha(&body)).await);
    }
}

async fn the_body_is_verified_although_the_blob_exists(stores: &Stores) {
    let team = room("team");
    for size in [100, (2 << 20) + 5] {
        let (body, other) = (pattern(7, size), pattern(8, size));
        let digest = stores.add(&team, &body).await;
        let put = stores
            .put_blob(&team, &digest, &other, 1 << 20, PLAIN)
            .await;
        assert_eq!(refused(put), Code::Invalid);
        let short = body.slice(..size - 1);
        let put = stores
            .put_blob(&team, &digest, &short, 1 << 20, PLAIN)
            .await;
        assert_eq!(refused(put), Code::Invalid);
        let found = stores.blob(&team, &digest, ByteRange::Full).await.unwrap();
        assert!(found == Some(body), "the visible bytes are left alone");
    }
}

async fn a_commit_of_an_existing_blob_succeeds(stores: &Stores) {
    let team = room("team");
    for size in [100, (2 << 20) + 5] {
        let body = pattern(9, size);
        let digest = stores.add(&team, &body).await;
        let mut reader = stores
            .blobs
            .open(&team, &digest, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        let first = reader.next_chunk().await.unwrap().unwrap();
        stores.add(&team, &body).await;
        let rest = reader.read_all(u64::MAX).await.unwrap();
        assert!(
            [first, rest].concat() == body,
            "an open reader is undisturbed"
        );
    }
    assert_eq!(stores.admin.stats().blobs, 2, "stored once each");
}

async fn two_uploads_of_one_digest_both_succeed(stores: &Stores) {
    let team = room("team");
    for size in [100, (2 << 20) + 5] {
        let body = pattern(10, size);
        let digest = sha(&body);
        let put = || stores.put_blob(&team, &digest, &body, 300_000, PLAIN);
        let (one, other) = both(put(), put()).await;
        assert_eq!((one.unwrap(), other.unwrap()), (size as u64, size as u64));
        let found = stores.blob(&team, &digest, ByteRange::Full).await.unwrap();
        assert!(found == Some(body));
    }
}

async fn ranges_give_exactly_their_bytes(stores: &Stores) {
    let team = room("team");
    for size in [1usize, 79, (64 << 10) + 1, (1 << 20) + 1, (4 << 20) + 1] {
        let body = pattern(11, size);
        let digest = stores.add(&team, &body).await;
        for edge in [
            0,
            1,
            64 << 10,
            128 << 10,
            1 << 20,
            2 << 20,
            4 << 20,
            size - 1,
        ] {
            for first in [edge.saturating_sub(1), edge, edge + 1] {
                if first < size {
                    for len in [1, 2, 70_000, 2 << 20] {
                        let last = (first + len - 1) as u64;
                        let range = ByteRange::From {
                            first: first as u64,
                            last: Some(last),
                        };
                        let found = stores.blob(&team, &digest, range).await.unwrap().unwrap();
                        assert!(
                            found == body.slice(first..size.min(first + len)),
                            "{len} bytes from {first} of {size}"
                        );
                    }
                }
            }
        }
        let tail = stores.blob(&team, &digest, ByteRange::Suffix(70_000)).await;
        assert!(tail.unwrap().unwrap() == body.slice(size.saturating_sub(70_000)..));
        let open_end = ByteRange::From {
            first: size as u64 / 2,
            last: None,
        };
        let half = stores
            .blob(&team, &digest, open_end)
            .await
            .unwrap()
            .unwrap();
        assert!(half == body.slice(size / 2..));
    }
}

async fn ranges_behind_the_end_are_refused(stores: &Stores) {
    let team = room("team");
    for size in [10, (2 << 20) + 5] {
        let digest = stores.add(&team, &pattern(12, size)).await;
        for first in [size as u64, u64::MAX] {
            let range = ByteRange::From { first, last: None };
            let answer = stores.blob(&team, &digest, range).await;
            assert_eq!(refused(answer), Code::RangeInvalid);
        }
        let answer = stores.blob(&team, &digest, ByteRange::Suffix(0)).await;
        assert_eq!(refused(answer), Code::RangeInvalid);
    }
    let absent = sha(b"absent");
    let range = ByteRange::From {
        first: 99,
        last: None,
    };
    let answer = stores.blob(&team, &absent, range).await;
    assert_eq!(answer.unwrap(), None, "absence comes before the range");
}

async fn the_empty_blob_is_always_there(stores: &Stores) {
    let team = room("team");
    for function in Function::ALL {
        let empty = Digest::of(function, b"");
        for digest in [empty, Digest::unsized_(empty.hash)] {
            assert!(stores.has(&team, &digest).await, "{function:?}");
            let put = stores
                .put_blob(&team, &digest, &Bytes::new(), 1, PLAIN)
                .await;
            assert_eq!(put.unwrap(), 0);
            let body = Bytes::from_static(b"x");
            let put = stores.put_blob(&team, &digest, &body, 1, PLAIN).await;
            assert_eq!(refused(put), Code::Invalid);
        }
        stores.blobs.delete(&team, &empty).await.unwrap();
        assert!(stores.has(&team, &empty).await, "it cannot be removed");
    }
}

async fn a_right_hash_with_a_wrong_size_names_nothing(stores: &Stores) {
    let team = room("team");
    for size in [100, (2 << 20) + 5] {
        let digest = stores.add(&team, &pattern(13, size)).await;
        for wrong in [0, size as u64 - 1, size as u64 + 1] {
            let other = Digest::sized(digest.hash, wrong);
            // `missing` may answer from a summary that knows sizes only roughly; reading must not.
            let found = stores.blob(&team, &other, ByteRange::Full).await;
            assert_eq!(found.unwrap(), None, "{wrong} bytes");
            assert!(!stores.blobs.delete(&team, &other).await.unwrap());
        }
        assert!(stores.has(&team, &digest).await);
    }
}

async fn a_hash_of_another_function_names_nothing(stores: &Stores) {
    let team = room("team");
    let digest = stores.add(&team, &pattern(14, 100)).await;
    let other: Hash = digest.hash.reinterpret(Function::Blake3).unwrap();
    assert!(!stores.has(&team, &Digest::unsized_(other)).await);
}

async fn bodies_over_the_limit_are_refused(stores: &Stores) {
    let team = room("team");
    for limit in [10usize, (2 << 20) + 5] {
        let options = CreateOptions {
            limit_bytes: Some(limit as u64),
            ..PLAIN
        };
        let (fits, over) = (pattern(15, limit), pattern(16, limit + 1));
        let put = stores
            .put_blob(&team, &sha(&fits), &fits, 65_521, options.clone())
            .await;
        assert_eq!(put.unwrap(), limit as u64);
        for digest in [sha(&over), Digest::unsized_(sha(&over).hash)] {
            let put = stores
                .put_blob(&team, &digest, &over, 65_521, options.clone())
                .await;
            assert_eq!(refused(put), Code::TooLarge);
        }
        assert!(!stores.has(&team, &sha(&over)).await);
    }
}

async fn uploads_into_a_room_nobody_knows_yet_all_arrive(stores: &Stores) {
    for round in 0..20 {
        let team = room(&format!("room-{round}"));
        let bodies = [pattern(21, 300), pattern(22, 300)];
        both(stores.add(&team, &bodies[0]), stores.add(&team, &bodies[1])).await;
        for body in &bodies {
            assert!(stores.has(&team, &sha(body)).await, "round {round}");
        }
    }
}

async fn rooms_are_apart(stores: &Stores) {
    let (team, other) = (room("team"), room("team/other"));
    let body = pattern(17, 500);
    let digest = stores.add(&team, &body).await;
    assert!(!stores.has(&other, &digest).await);
    stores.add(&other, &body).await;
    assert!(stores.blobs.delete(&team, &digest).await.unwrap());
    assert!(stores.has(&other, &digest).await);
}

async fn missing_answers_in_order_and_touching_changes_nothing(stores: &Stores) {
    let team = room("team");
    let bodies: Vec<Bytes> = (0..40).map(|n| pattern(100 + n, 50 + n as usize)).collect();
    for body in bodies.iter().step_by(2) {
        stores.add(&team, body).await;
    }
    let digests: Vec<Digest> = bodies.iter().map(|body| sha(body)).collect();
    let expected: Vec<bool> = (0..40).map(|n| n % 2 == 1).collect();
    for touch in [Touch::No, Touch::Use, Touch::Lease, Touch::No] {
        let answer = stores.blobs.missing(&team, &digests, touch).await.unwrap();
        assert_eq!(answer, expected);
    }
    assert!(
        stores
            .blobs
            .missing(&team, &[], Touch::Use)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_deleted_blob_is_gone_and_can_be_put_again(stores: &Stores) {
    let team = room("team");
    for size in [100, (2 << 20) + 5] {
        let body = pattern(18, size);
        let digest = sha(&body);
        assert!(!stores.blobs.delete(&team, &digest).await.unwrap());
        stores.add(&team, &body).await;
        assert!(stores.blobs.delete(&team, &digest).await.unwrap());
        assert!(!stores.has(&team, &digest).await);
        assert!(!stores.blobs.delete(&team, &digest).await.unwrap());
        stores.add(&team, &body).await;
        assert!(stores.has(&team, &digest).await);
    }
}

async fn a_purge_forgets_one_room_only(stores: &Stores) {
    let (team, other) = (room("team"), room("other"));
    let bodies = [pattern(19, 300), pattern(20, (1 << 20) + 9)];
    for body in &bodies {
        stores.add(&team, body).await;
        stores.add(&other, body).await;
    }
    stores.entries.purge(&team).await.unwrap();
    for body in &bodies {
        assert!(!stores.has(&team, &sha(body)).await);
        assert!(stores.has(&other, &sha(body)).await);
        stores.add(&team, body).await;
        assert!(
            stores.has(&team, &sha(body)).await,
            "a purged room can be used again"
        );
    }
}
