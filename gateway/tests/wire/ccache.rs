//! ccache's HTTP storage.

use crate::support::{Server, get, put};

const OLD: &str = "4e5f0123456789abcdefghijklmnopqrs";
const NEW: &str = "0123456789abcdef0123456789abcdef01234567";
/// Begins like an object of ccache.
const VALUE: &[u8] = b"\xcc\xac\x01\x00 opaque";

fn layouts(key: &str) -> Vec<String> {
    let mut paths = vec![
        format!("/ccache/{key}"),
        format!("/ccache/{}/{}", &key[..2], &key[2..]),
        format!("//ccache//{key}"),
    ];
    if key.len() == 40 {
        paths.push(format!("/ccache/ac/{key}{}", &key[..24]));
    }
    paths
}

#[tokio::test]
async fn all_layouts_of_a_key_name_one_object() {
    let server = Server::start().await;
    for key in [OLD, NEW] {
        for path in layouts(key) {
            assert_eq!(server.put(&path, path.as_bytes()).await.status, 200);
            for other in layouts(key) {
                let reply = server.get(&other).await;
                assert_eq!((reply.status, reply.text()), (200, path.clone()));
            }
        }
    }
    assert_eq!(server.store.entry_keys().len(), 2);
}

#[tokio::test]
async fn an_object_is_put_looked_at_read_and_deleted_on_one_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let path = &layouts(OLD)[1];
    let bare = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(bare("HEAD")).await;
    assert_eq!(client.reply_to("HEAD").await.status, 404);
    client.send(put(path, VALUE)).await;
    assert_eq!(client.reply().await.status, 200);
    client.send(bare("HEAD")).await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(reply.header("content-length"), Some("11"));
    client.send(get(path)).await;
    assert_eq!(client.reply().await.body, VALUE);
    client.send(bare("DELETE")).await;
    assert_eq!(client.reply().await.status, 204);
    client.send(bare("DELETE")).await;
    assert_eq!(client.reply().await.status, 404);
    client.send(get(path)).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (404, Some("0"))
    );
}

#[tokio::test]
async fn malformed_keys_and_wrong_methods_are_refused() {
    let server = Server::start().await;
    let upper = NEW.to_uppercase();
    let long = format!("{NEW}0");
    let wrong = format!("zz{}", &OLD[2..]);
    let flat64 = format!("{NEW}{}", &NEW[..24]);
    for key in ["", "a", "ab/", &upper, &long, &wrong, &flat64, "..%2f"] {
        let path = format!("/ccache/{key}");
        assert_eq!(server.get(&path).await.status, 400, "{path}");
        assert_eq!(server.put(&path, VALUE).await.status, 400, "{path}");
    }
    for key in ["ab/cd/ef", "abc/def", "cas/0123"] {
        assert_eq!(
            server.get(&format!("/ccache/{key}")).await.status,
            404,
            "{key}"
        );
    }
    let post = format!("POST /ccache/{NEW} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    let reply = server.ask(post).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
}

#[tokio::test]
async fn values_of_the_bazel_layout_are_opaque_here() {
    let server = Server::start().await;
    let path = layouts(NEW)[3].clone();
    assert_eq!(server.put(&path, b"no action result").await.status, 200);
    assert_eq!(server.get(&path).await.text(), "no action result");
    let bazel = path.strip_prefix("/ccache").unwrap();
    assert_eq!(server.get(bazel).await.status, 404);
}

#[tokio::test]
async fn any_64_digits_are_a_key_in_the_bazel_layout() {
    let server = Server::start().await;
    let path = format!("/ccache/ac/{NEW}{}", &NEW[1..25]);
    assert_eq!(server.put(&path, VALUE).await.status, 200);
    assert_eq!(server.get(&path).await.body, VALUE);
    assert_eq!(server.get(&layouts(NEW)[3]).await.status, 404);
}

#[tokio::test]
async fn an_object_over_the_limit_is_413() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    let path = &layouts(NEW)[0];
    assert_eq!(server.put(path, VALUE).await.status, 413);
    assert_eq!(server.get(path).await.status, 404);
}
