//! Writes that go on after the server was gone, and what they leave on the disk.

use rustix::process::Signal;

use crate::support::{
    Host, OpenWrite, held, message, messages, pattern, place, read, send, travelling, upload,
    within,
};

const SIZE: usize = 6 << 20;

/// Sends a part of an upload, and waits until the store holds so many bytes of it.
async fn begin(host: &Host, name: &str, data: &[u8], least: usize) -> usize {
    let mut client = host.client();
    let open = OpenWrite::begin(&client);
    for mut message in messages(name, 0, data) {
        message.finish_write = false;
        assert!(open.send(message).await);
    }
    open.cut().await;
    within(async {
        loop {
            let known = held(&mut client, name).await;
            assert!(!known.complete);
            let size = usize::try_from(known.committed_size).unwrap();
            if size >= least {
                return size;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_on_after_the_server_was_killed() {
    for (seed, is_packed) in [(1, false), (2, true)] {
        let mut host = Host::start();
        let blob = pattern(seed, SIZE);
        let name = upload("u", is_packed, &blob);
        let front = travelling(&blob[..4 << 20], is_packed);
        let before = begin(&host, &name, &front, 1 << 20).await;
        host.restart(Signal::KILL);
        let mut client = host.client();
        let known = held(&mut client, &name).await;
        assert_eq!(usize::try_from(known.committed_size).unwrap(), before);
        assert_eq!(before % (64 << 10), 0, "the store holds whole parts");
        let rest = travelling(&blob[before..], is_packed);
        let committed = send(&mut client, messages(&name, before, &rest)).await;
        let expected = if is_packed { before + rest.len() } else { SIZE };
        assert_eq!(committed.unwrap(), i64::try_from(expected).unwrap());
        let whole = read(&mut client, format!("blobs/{}", place(&blob))).await;
        assert!(whole.unwrap() == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let mut host = Host::start();
    let mut client = host.client();
    let blobs: Vec<_> = [1, 1000, 300_000, SIZE]
        .into_iter()
        .map(|size| pattern(3, size))
        .collect();
    for (at, blob) in blobs.iter().enumerate() {
        let is_packed = at % 2 == 1;
        let name = upload("u", is_packed, blob);
        let data = travelling(blob, is_packed);
        send(&mut client, messages(&name, 0, &data)).await.unwrap();
    }
    host.restart(Signal::KILL);
    let mut client = host.client();
    for blob in &blobs {
        let name = format!("blobs/{}", place(blob));
        assert!(read(&mut client, name).await.unwrap() == *blob);
        assert!(held(&mut client, &upload("v", true, blob)).await.complete);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_writes_goes_on_where_the_older_one_was() {
    let host = Host::start();
    let blob = pattern(4, SIZE);
    let name = upload("u", false, &blob);
    let older = OpenWrite::begin(&host.client());
    for mut message in messages(&name, 0, &blob[..3 << 20]) {
        message.finish_write = false;
        assert!(older.send(message).await);
    }
    let newer = send(&mut host.client(), messages(&name, 0, &blob)).await;
    assert_eq!(newer.unwrap(), i64::try_from(SIZE).unwrap());
    assert_eq!(
        older.close().await.unwrap_err().code(),
        tonic::Code::Aborted
    );
    let whole = read(&mut host.client(), format!("blobs/{}", place(&blob))).await;
    assert!(whole.unwrap() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_as_zstd_comes_back_as_zstd_and_resumes_in_the_middle() {
    let host = Host::start();
    let mut client = host.client();
    let blob = pattern(5, SIZE);
    let data = travelling(&blob, true);
    let name = upload("u", true, &blob);
    send(&mut client, messages(&name, 0, &data)).await.unwrap();
    let name = format!("compressed-blobs/zstd/{}", place(&blob));
    let packed = read(&mut client, name.clone()).await.unwrap();
    assert!(packed.len() < SIZE * 3 / 4, "{} bytes", packed.len());
    assert!(zstd::decode_all(&packed[..]).unwrap() == blob);
    let plain = read(&mut client, format!("blobs/{}", place(&blob))).await;
    assert!(plain.unwrap() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_end_is_answered_with_what_the_disk_holds() {
    let host = Host::start();
    let mut client = host.client();
    let blob = pattern(6, SIZE);
    let name = upload("u", false, &blob);
    let all = vec![
        message(&name, 0, &blob[..3_000_000], false),
        message("", 3_000_000, &blob[3_000_000..5_000_000], false),
    ];
    let committed = send(&mut client, all).await.unwrap();
    assert!((0..=5_000_000).contains(&committed));
    assert_eq!(committed % (64 << 10), 0, "the store holds whole parts");
    assert_eq!(held(&mut client, &name).await.committed_size, committed);
}
