//! Many writes at once on one connection: they share its window, and none may keep what another one waits for.

use futures_util::future::join_all;

use crate::support::{Host, held, messages, pattern, place, read, send, travelling, upload};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_large_writes_on_one_connection_all_end() {
    let host = Host::start();
    for is_packed in [false, true] {
        let client = host.client();
        let blobs =
            (0..100).map(|seed| pattern(1000 + seed + 100 * u64::from(is_packed), 1_200_000));
        let blobs: Vec<_> = blobs.collect();
        let writes = blobs.iter().map(|blob| {
            let mut client = client.clone();
            let name = upload("u", is_packed, blob);
            let all = messages(&name, 0, &travelling(blob, is_packed));
            async move { send(&mut client, all).await }
        });
        for committed in join_all(writes).await {
            committed.unwrap();
        }
        let mut client = client.clone();
        for blob in blobs.iter().step_by(17) {
            assert!(held(&mut client, &upload("v", false, blob)).await.complete);
            let whole = read(&mut client, format!("blobs/{}", place(blob))).await;
            assert!(whole.unwrap() == *blob);
        }
    }
}
