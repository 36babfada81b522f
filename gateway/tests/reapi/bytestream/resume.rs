//! Writes that break off and are taken up again, and two of one name.

use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use tonic::{Code, transport::Channel};

use crate::support::{
    OpenWrite, Server, bytestream, code, held, message, messages, packed_name, pattern, read,
    read_name, send, within, write, write_name,
};

const SIZE: usize = 3 << 20;

/// Waits until a write is known to hold so much: a cut is heard of a little later.
async fn held_at_least(client: &mut ByteStreamClient<Channel>, name: &str, least: usize) -> usize {
    within(async {
        loop {
            let known = held(client, name).await.unwrap();
            assert!(!known.complete);
            let size = known.committed_size as usize;
            if size >= least {
                return size;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Begins a write, sends so many bytes, and breaks it off.
async fn break_off(client: &mut ByteStreamClient<Channel>, name: &str, data: &[u8]) {
    let open = OpenWrite::begin(client);
    let mut all = messages(name, 0, data, 100_000);
    if let Some(last) = all.last_mut() {
        last.finish_write = false;
    }
    for message in all {
        assert!(open.send(message).await);
    }
    open.cut().await;
}

#[tokio::test]
async fn of_a_write_that_nobody_knows_nothing_is_held() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [0, 1000, SIZE] {
        let blob = pattern(300, size);
        for name in [write_name(&blob), packed_name(&blob)] {
            let known = held(&mut client, &name).await.unwrap();
            // The empty blob is always there.
            assert_eq!((known.committed_size, known.complete), (0, size == 0));
        }
    }
}

#[tokio::test]
async fn a_write_is_complete_when_the_blob_is_there() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1000, SIZE] {
        let blob = pattern(301, size);
        server.stock(&blob).await;
        for name in [write_name(&blob), packed_name(&blob)] {
            let known = held(&mut client, &name).await.unwrap();
            assert_eq!((known.committed_size, known.complete), (size as i64, true));
        }
    }
}

#[tokio::test]
async fn a_write_that_broke_off_goes_on_where_it_is_held() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(302, SIZE);
    let name = write_name(&blob);
    break_off(&mut client, &name, &blob[..2 << 20]).await;
    let from = held_at_least(&mut client, &name, 1).await;
    assert!(from <= 2 << 20);
    let rest = messages(&name, from, &blob[from..], 64 << 10);
    assert_eq!(send(&mut client, rest).await.unwrap(), SIZE as i64);
    assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
}

#[tokio::test]
async fn a_compressed_write_goes_on_at_a_byte_of_the_blob() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(303, SIZE);
    let name = packed_name(&blob);
    let first = super::packed::incompressible(&blob[..2 << 20]);
    break_off(&mut client, &name, &first).await;
    let from = held_at_least(&mut client, &name, 1).await;
    let rest = zstd::bulk::compress(&blob[from..], 1).unwrap();
    let committed = send(&mut client, messages(&name, from, &rest, 8 << 10)).await;
    assert_eq!(committed.unwrap(), (from + rest.len()) as i64);
    assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
}

#[tokio::test]
async fn a_write_may_begin_anywhere_in_front_of_what_is_held() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for (seed, is_packed) in [(304, false), (305, true)] {
        for from in [0, 1_000_000] {
            let blob = pattern(seed + from as u64, SIZE);
            let name = write_name(&blob);
            break_off(&mut client, &name, &blob[..2 << 20]).await;
            held_at_least(&mut client, &name, from + 1).await;
            let (name, rest, expected) = if is_packed {
                let rest = zstd::bulk::compress(&blob[from..], 1).unwrap();
                let expected = from + rest.len();
                (packed_name(&blob), rest, expected)
            } else {
                (name, blob[from..].to_vec(), SIZE)
            };
            let committed = send(&mut client, messages(&name, from, &rest, 64 << 10)).await;
            assert_eq!(committed.unwrap(), expected as i64);
            assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
        }
    }
}

#[tokio::test]
async fn a_write_must_not_begin_behind_what_is_held() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(306, SIZE);
    let name = write_name(&blob);
    let outcome = send(
        &mut client,
        messages(&name, 1 << 20, &blob[1 << 20..], 64 << 10),
    )
    .await;
    assert_eq!(code(outcome), Code::InvalidArgument);
    break_off(&mut client, &name, &blob[..1 << 20]).await;
    let from = held_at_least(&mut client, &name, 1).await + 1;
    let outcome = send(&mut client, messages(&name, from, &blob[from..], 64 << 10)).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
}

#[tokio::test]
async fn a_write_of_another_name_shares_nothing() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(307, SIZE);
    let name = write_name(&blob);
    break_off(&mut client, &name, &blob[..2 << 20]).await;
    held_at_least(&mut client, &name, 1).await;
    for other in [
        name.replace("uploads/9", "uploads/8"),
        format!("instance/{name}"),
    ] {
        let known = held(&mut client, &other).await.unwrap();
        assert_eq!(
            (known.committed_size, known.complete),
            (0, false),
            "{other}"
        );
    }
}

#[tokio::test]
async fn after_wrong_bytes_a_write_begins_anew() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let (blob, other) = (pattern(308, SIZE), pattern(309, SIZE));
    let name = write_name(&blob);
    let outcome = write(&mut client, &name, &other).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
    let known = held(&mut client, &name).await.unwrap();
    assert_eq!((known.committed_size, known.complete), (0, false));
    let committed = write(&mut client, &name, &blob).await;
    assert_eq!(committed.unwrap(), SIZE as i64);
}

#[tokio::test]
async fn of_two_writes_of_one_name_the_newer_goes_on() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for is_packed in [false, true] {
        let blob = pattern(310 + u64::from(is_packed), SIZE);
        let name = write_name(&blob);
        let (name, data) = if is_packed {
            (packed_name(&blob), super::packed::incompressible(&blob))
        } else {
            (name, blob.clone())
        };
        // A client of its own: what was not sent yet would hold up the newer one.
        let older = OpenWrite::begin(&bytestream(&server));
        let mut offset = 0;
        for chunk in data[..1 << 20].chunks(100_000) {
            let named = if offset == 0 { name.as_str() } else { "" };
            assert!(older.send(message(named, offset, chunk, false)).await);
            offset += chunk.len();
        }
        let committed = write(&mut client, &name, &data).await;
        assert_eq!(committed.unwrap(), data.len() as i64);
        assert_eq!(code(older.answer().await), Code::Aborted);
        assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
    }
}

#[tokio::test]
async fn who_asks_about_a_write_under_way_does_not_disturb_it() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(312, SIZE);
    let name = write_name(&blob);
    let open = OpenWrite::begin(&client);
    assert!(open.send(message(&name, 0, &blob[..1000], false)).await);
    let known = held(&mut client, &name).await.unwrap();
    assert_eq!((known.committed_size, known.complete), (0, false));
    assert!(open.send(message("", 1000, &blob[1000..], true)).await);
    assert_eq!(open.close().await.unwrap(), SIZE as i64);
}

#[tokio::test]
async fn what_is_held_never_becomes_less_while_a_write_goes_on() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(313, SIZE);
    let name = write_name(&blob);
    break_off(&mut client, &name, &blob[..1 << 20]).await;
    let before = held_at_least(&mut client, &name, 1).await;
    let open = OpenWrite::begin(&client);
    assert!(
        open.send(message(&name, before, &blob[before..before + 1000], false))
            .await
    );
    for _ in 0..20 {
        let known = held(&mut client, &name).await.unwrap();
        assert!(known.committed_size as usize >= before);
    }
    open.cut().await;
    let after = held_at_least(&mut client, &name, before).await;
    assert!(after <= before + 1000);
}
