//! GitHub Actions' cache service, both protocols, and the storage behind its signed URLs.

use serde_json::{Value, json};
use zimcache_auth::{Anonymous, Scope};
use zimcache_gateway::SigningKey;
use zimcache_proto::{
    Message,
    actions::{
        CreateCacheEntryRequest, CreateCacheEntryResponse, FinalizeCacheEntryUploadRequest,
        FinalizeCacheEntryUploadResponse, GetCacheEntryDownloadUrlRequest,
        GetCacheEntryDownloadUrlResponse,
    },
};
use zimcache_types::EntryKind;

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Reply, Server, get, put, request},
};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const V1: &str = "/_apis/artifactcache/";
const VERSION: &str = "1f31fe8ae0ff6c2d1e21ec05b5dd03fb3aa5c1a4c5b1c5aab6cf5b7ce1c6ebf6";
/// `QQ==` and so on: identities of blocks as Azure's clients write them in a query.
const BLOCKS: [&str; 3] = ["QQ%3D%3D", "Qg%3D%3D", "Qw%3D%3D"];

fn json_call(procedure: &str, message: &Value) -> Vec<u8> {
    let path = format!("{SERVICE}{procedure}");
    request(
        "POST",
        &path,
        &["Content-Type: application/json"],
        message.to_string().as_bytes(),
    )
}

async fn call(server: &Server, procedure: &str, message: Value) -> (u16, Value) {
    answer_of(&server.ask(json_call(procedure, &message)).await)
}

fn answer_of(reply: &Reply) -> (u16, Value) {
    (
        reply.status,
        serde_json::from_slice(&reply.body).unwrap_or(Value::Null),
    )
}

/// The path and query of a URL of this server.
fn below<'a>(server: &Server, url: &'a str) -> &'a str {
    assert!(
        url.starts_with("http://test/"),
        "{url} at {}",
        server.address
    );
    &url["http://test".len()..]
}

async fn create(server: &Server, key: &str) -> String {
    let (status, answer) = call(
        server,
        "CreateCacheEntry",
        json!({"key": key, "version": VERSION}),
    )
    .await;
    assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
    below(server, answer["signed_upload_url"].as_str().unwrap()).to_owned()
}

async fn finalize(server: &Server, key: &str, size: usize) -> (u16, Value) {
    let message = json!({"key": key, "size_bytes": size.to_string(), "version": VERSION});
    call(server, "FinalizeCacheEntryUpload", message).await
}

async fn find(server: &Server, key: &str, restore_keys: &[&str]) -> Option<(String, String)> {
    let message = json!({"key": key, "restoreKeys": restore_keys, "version": VERSION});
    let (status, answer) = call(server, "GetCacheEntryDownloadURL", message).await;
    assert_eq!(status, 200, "{answer}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (answer["ok"] == true).then(|| (text("matched_key"), text("signed_download_url")))
}

async fn store(server: &Server, key: &str, body: &[u8]) {
    let url = create(server, key).await;
    assert_eq!(server.ask(put(&url, body)).await.status, 201);
    assert_eq!(finalize(server, key, body.len()).await.0, 200);
}

fn pieces(server: &Server) -> usize {
    let keys = server.store.entry_keys();
    keys.iter()
        .filter(|key| key.kind == EntryKind::ActionsBlock)
        .count()
}

#[tokio::test]
async fn an_entry_is_created_uploaded_finalized_found_and_downloaded() {
    let server = Server::start().await;
    let key = "sccache/a/b/c/abcdef";
    assert_eq!(find(&server, key, &[]).await, None);
    let upload = create(&server, key).await;
    let (path, _) = upload.split_once('?').unwrap();
    assert!(path.trim_matches('/').split('/').count() >= 2);
    let headers = ["x-ms-blob-type: BlockBlob", "x-ms-version: 2019-12-12"];
    let reply = server
        .ask(request("PUT", &upload, &headers, b"object"))
        .await;
    assert_eq!((reply.status, reply.body.len()), (201, 0));
    assert_eq!(reply.header("x-ms-version"), Some("2019-12-12"));
    for name in ["etag", "last-modified", "x-ms-request-id"] {
        assert!(reply.header(name).is_some(), "{name}");
    }
    assert_eq!(
        find(&server, key, &[]).await,
        None,
        "not before it is finalized"
    );
    let (status, answer) = finalize(&server, key, 6).await;
    assert_eq!((status, &answer["ok"]), (200, &json!(true)));
    assert!(answer["entry_id"].as_str().unwrap().parse::<i64>().unwrap() >= 0);
    let (matched, url) = find(&server, key, &[]).await.unwrap();
    assert_eq!(matched, key);
    let reply = server.get(below(&server, &url)).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "object"));
    assert_eq!(reply.header("x-ms-blob-type"), Some("BlockBlob"));
    assert_eq!(pieces(&server), 0);
}

#[tokio::test]
async fn the_same_in_protocol_buffers() {
    let server = Server::start().await;
    let send = async |procedure: &str, message: Vec<u8>| {
        let path = format!("{SERVICE}{procedure}");
        let reply = server
            .ask(request(
                "POST",
                &path,
                &["Content-Type: application/protobuf"],
                &message,
            ))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/protobuf"));
        reply.body
    };
    let (key, version) = ("k".to_owned(), VERSION.to_owned());
    let get = GetCacheEntryDownloadUrlRequest {
        key: key.clone(),
        version: version.clone(),
        ..Default::default()
    };
    let body = send("GetCacheEntryDownloadURL", get.encode_to_vec()).await;
    assert_eq!(body, b"", "everything is false or empty");
    let create = CreateCacheEntryRequest {
        key: key.clone(),
        version: version.clone(),
    };
    let body = send("CreateCacheEntry", create.encode_to_vec()).await;
    let created = CreateCacheEntryResponse::decode(body.as_slice()).unwrap();
    let upload = below(&server, &created.signed_upload_url);
    assert_eq!(server.ask(put(upload, b"object")).await.status, 201);
    let finalize = FinalizeCacheEntryUploadRequest {
        key,
        size_bytes: 6,
        version,
    };
    let body = send("FinalizeCacheEntryUpload", finalize.encode_to_vec()).await;
    assert!(
        FinalizeCacheEntryUploadResponse::decode(body.as_slice())
            .unwrap()
            .ok
    );
    let body = send("GetCacheEntryDownloadURL", get.encode_to_vec()).await;
    let found = GetCacheEntryDownloadUrlResponse::decode(body.as_slice()).unwrap();
    assert!(found.ok);
    assert_eq!(
        server
            .get(below(&server, &found.signed_download_url))
            .await
            .text(),
        "object"
    );
}

#[tokio::test]
async fn blocks_come_in_any_order_and_the_list_says_theirs() {
    let server = Server::start().await;
    let upload = create(&server, "big").await;
    let [a, b, c] = BLOCKS.map(|block| format!("{upload}&comp=block&blockid={block}"));
    for (url, body) in [(&c, "three"), (&a, "wrong"), (&b, "two "), (&a, "one ")] {
        assert_eq!(server.ask(put(url, body.as_bytes())).await.status, 201);
    }
    let list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>QQ==</Latest><Uncommitted>Qg==</Uncommitted><Latest>Qw==</Latest></BlockList>";
    let url = format!("{upload}&comp=blocklist");
    let reply = server.ask(put(&url, list.as_bytes())).await;
    assert_eq!(reply.status, 201);
    assert_eq!(find(&server, "big", &[]).await, None);
    assert_eq!(finalize(&server, "big", 13).await.0, 200);
    let (_, url) = find(&server, "big", &[]).await.unwrap();
    assert_eq!(
        server.get(below(&server, &url)).await.text(),
        "one two three"
    );
    assert_eq!(pieces(&server), 0);
}

#[tokio::test]
async fn a_list_of_blocks_that_did_not_come_or_no_list_at_all_is_400() {
    let server = Server::start().await;
    let upload = create(&server, "big").await;
    let url = format!("{upload}&comp=blocklist");
    for list in [
        "<BlockList><Latest>QQ==</Latest></BlockList>",
        "",
        "<BlockList><Latest>QQ==",
        "\u{0}",
    ] {
        assert_eq!(
            server.ask(put(&url, list.as_bytes())).await.status,
            400,
            "{list}"
        );
    }
    for wrong in [
        "&comp=block",
        "&comp=block&blockid=",
        "&comp=block&blockid=%2E%2E",
        "&comp=page",
    ] {
        let url = format!("{upload}{wrong}");
        assert_eq!(server.ask(put(&url, b"x")).await.status, 400, "{wrong}");
    }
    let page = request("PUT", &upload, &["x-ms-blob-type: PageBlob"], b"x");
    assert_eq!(server.ask(page).await.status, 400);
    assert_eq!(finalize(&server, "big", 1).await.0, 400);
    assert_eq!(find(&server, "big", &[]).await, None);
}

#[tokio::test]
async fn the_last_upload_counts_whether_it_is_whole_or_in_blocks() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    let block = format!("{upload}&comp=block&blockid=QQ%3D%3D");
    let list = format!("{upload}&comp=blocklist");
    server.ask(put(&block, b"blocks")).await;
    server
        .ask(put(&list, b"<BlockList><Latest>QQ==</Latest></BlockList>"))
        .await;
    server.ask(put(&upload, b"whole")).await;
    assert_eq!(finalize(&server, "k", 5).await.0, 200);
    let (_, url) = find(&server, "k", &[]).await.unwrap();
    assert_eq!(server.get(below(&server, &url)).await.text(), "whole");
}

#[tokio::test]
async fn a_size_that_is_not_the_one_that_came_makes_no_entry() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    server.ask(put(&upload, b"object")).await;
    let (status, answer) = finalize(&server, "k", 7).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid_argument")));
    assert_eq!(find(&server, "k", &[]).await, None);
    assert_eq!(finalize(&server, "k", 6).await.0, 200);
    assert_eq!(
        finalize(&server, "k", 6).await.0,
        200,
        "asked again, it is done"
    );
    assert_eq!(finalize(&server, "k", 7).await.0, 400);
    assert_eq!(finalize(&server, "other", 6).await.0, 400);
}

#[tokio::test]
async fn an_entry_is_never_replaced() {
    let server = Server::start().await;
    let first = create(&server, "k").await;
    let second = create(&server, "k").await;
    assert_ne!(first, second);
    server.ask(put(&first, b"first")).await;
    server.ask(put(&second, b"other")).await;
    assert_eq!(finalize(&server, "k", 5).await.0, 200);
    let message = json!({"key": "k", "version": VERSION});
    let (status, answer) = call(&server, "CreateCacheEntry", message).await;
    assert_eq!((status, &answer["code"]), (409, &json!("already_exists")));
    let other = json!({"key": "k", "version": "other"});
    assert_eq!(call(&server, "CreateCacheEntry", other).await.0, 200);
}

#[tokio::test]
async fn restore_keys_find_the_newest_entry_that_begins_so() {
    let server = Server::start().await;
    for key in ["linux-npm-2", "linux-npm-1", "mac-npm-9"] {
        store(&server, key, key.as_bytes()).await;
    }
    let matched =
        async |key: &str, restore: &[&str]| find(&server, key, restore).await.map(|(key, _)| key);
    assert_eq!(
        matched("linux-npm-2", &["mac-"]).await.as_deref(),
        Some("linux-npm-2")
    );
    assert_eq!(
        matched("linux-npm", &[]).await,
        None,
        "a key is a whole name"
    );
    assert_eq!(
        matched("linux-npm-3", &["linux-npm-", "mac-"])
            .await
            .as_deref(),
        Some("linux-npm-1")
    );
    assert_eq!(
        matched("x", &["win-", "mac-"]).await.as_deref(),
        Some("mac-npm-9")
    );
    let other = json!({"key": "x", "restore_keys": ["linux-"], "version": "other"});
    assert_eq!(
        call(&server, "GetCacheEntryDownloadURL", other).await.1["ok"],
        false
    );
    let many = vec!["a"; 33];
    let many = json!({"key": "x", "restore_keys": many, "version": VERSION});
    assert_eq!(call(&server, "GetCacheEntryDownloadURL", many).await.0, 400);
}

#[tokio::test]
async fn a_download_can_be_looked_at_and_asked_for_a_part() {
    let server = Server::start().await;
    store(&server, "k", b"0123456789").await;
    let (_, url) = find(&server, "k", &[]).await.unwrap();
    let path = below(&server, &url);
    let mut client = server.connect().await;
    client
        .send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("10"))
    );
    for name in ["Range", "x-ms-range"] {
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: test\r\n{name}: bytes=2-4\r\n\r\n"
            ))
            .await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (206, "234"),
            "{name}"
        );
        assert_eq!(reply.header("content-range"), Some("bytes 2-4/10"));
    }
    assert_eq!(server.ask(put(path, b"x")).await.status, 405);
}

#[tokio::test]
async fn a_url_holds_for_what_it_was_signed_for_and_nothing_else() {
    let server = Server::start().await;
    store(&server, "k", b"object").await;
    store(&server, "l", b"secret").await;
    let upload = create(&server, "m").await;
    let (_, url) = find(&server, "k", &[]).await.unwrap();
    let download = below(&server, &url).to_owned();
    let other_upload = create(&server, "n").await;
    let (path, _) = upload.split_once('?').unwrap();
    let (_, other_query) = other_upload.split_once('?').unwrap();
    let (_, download_query) = download.split_once('?').unwrap();
    let another_second = |url: &str| {
        let (before, rest) = url.split_once("&se=").unwrap();
        let (until, sig) = rest.split_once('&').unwrap();
        format!("{before}&se={}&{sig}", until.parse::<u64>().unwrap() + 1)
    };
    for wrong in [
        path.to_owned(),
        format!("{path}?{other_query}"),
        format!("{path}?{download_query}"),
        upload.replace("ns=default", "ns=other"),
        upload.replace("sig=", "sig=A"),
        another_second(&upload),
    ] {
        assert_eq!(server.ask(put(&wrong, b"x")).await.status, 403, "{wrong}");
    }
    for wrong in [
        download.replace("%2Fk&", "%2Fl&"),
        download.replace("ns=default", "ns=other"),
        another_second(&download),
        "/twirp/download/blob".to_owned(),
    ] {
        assert_eq!(server.get(&wrong).await.status, 403, "{wrong}");
    }
    assert_eq!(
        server.get(&upload).await.status,
        405,
        "an upload is not for reading"
    );
    assert_eq!(server.get(&download).await.status, 200);
}

#[tokio::test]
async fn a_url_that_has_expired_or_was_signed_by_another_key_is_403() {
    let server = Server::start().await;
    server.gateway.set_signing_key(SigningKey::new(b"one"));
    let upload = create(&server, "k").await;
    assert_eq!(server.ask(put(&upload, b"x")).await.status, 201);
    server.gateway.set_signing_key(SigningKey::new(b"two"));
    assert_eq!(server.ask(put(&upload, b"x")).await.status, 403);
}

#[tokio::test]
async fn callers_get_what_their_credential_allows_and_urls_need_none() {
    let server = Server::with_policy(one_secret(Scope::Write, Anonymous::Read)).await;
    let message = json!({"key": "k", "version": VERSION});
    let (status, answer) = call(&server, "CreateCacheEntry", message.clone()).await;
    assert_eq!(
        (status, &answer["code"]),
        (403, &json!("permission_denied"))
    );
    let wrong = with_token(json_call("CreateCacheEntry", &message), "trout");
    let reply = server.ask(wrong).await;
    assert_eq!(answer_of(&reply).1["code"], "unauthenticated");
    assert_eq!(reply.status, 401);
    let (status, answer) = answer_of(
        &server
            .ask(with_token(json_call("CreateCacheEntry", &message), SECRET))
            .await,
    );
    assert_eq!(status, 200);
    let upload = below(&server, answer["signed_upload_url"].as_str().unwrap());
    assert_eq!(server.ask(put(upload, b"x")).await.status, 201);
}

#[tokio::test]
async fn urls_lead_to_the_namespace_they_were_asked_in() {
    let server = Server::start().await;
    let message = json!({"key": "k", "version": VERSION});
    let path = format!("/ns/team%2Fios{SERVICE}CreateCacheEntry");
    let reply = server
        .ask(request(
            "POST",
            &path,
            &["Content-Type: application/json"],
            message.to_string().as_bytes(),
        ))
        .await;
    let (_, answer) = answer_of(&reply);
    let upload = below(&server, answer["signed_upload_url"].as_str().unwrap());
    assert_eq!(server.ask(put(upload, b"x")).await.status, 201);
    let keys = server.store.entry_keys();
    assert!(
        keys.iter().all(|key| key.namespace.as_str() == "team/ios"),
        "{keys:?}"
    );
}

#[tokio::test]
async fn the_public_address_comes_first_in_urls() {
    let server =
        Server::with(|config| config.public_url = Some("https://cache.example/zim/".into())).await;
    let (_, answer) = call(
        &server,
        "CreateCacheEntry",
        json!({"key": "k", "version": VERSION}),
    )
    .await;
    let url = answer["signed_upload_url"].as_str().unwrap();
    assert!(
        url.starts_with("https://cache.example/zim/twirp/upload/"),
        "{url}"
    );
}

#[tokio::test]
async fn malformed_calls_are_refused_in_twirps_words() {
    let server = Server::start().await;
    let long = "x".repeat(513);
    for message in [
        json!({}),
        json!({"key": "k"}),
        json!({"key": "k", "version": "a/b"}),
        json!({"key": "a,b", "version": "v"}),
        json!({"key": long, "version": "v"}),
        json!({"key": 7, "version": "v"}),
        json!([]),
        json!(["k", "v", "v", "v"]),
    ] {
        for procedure in [
            "CreateCacheEntry",
            "FinalizeCacheEntryUpload",
            "GetCacheEntryDownloadURL",
        ] {
            let (status, answer) = call(&server, procedure, message.clone()).await;
            assert_eq!(
                (status, &answer["code"]),
                (400, &json!("invalid_argument")),
                "{message}"
            );
        }
    }
    let path = format!("{SERVICE}CreateCacheEntry");
    for kind in ["application/protobuf", "application/json", "text/plain"] {
        let header = format!("Content-Type: {kind}");
        let reply = server
            .ask(request("POST", &path, &[&header], b"\xff\xff"))
            .await;
        assert_eq!(reply.status, 400, "{kind}");
    }
    assert_eq!(
        server
            .ask(request("POST", &path, &[], &vec![b' '; 70_000]))
            .await
            .status,
        400
    );
    let large = request(
        "POST",
        &path,
        &["Content-Type: application/json"],
        &vec![b' '; 70_000],
    );
    assert_eq!(server.ask(large).await.status, 413);
    assert_eq!(server.get(&path).await.status, 405);
    assert_eq!(server.get(&format!("{SERVICE}Other")).await.status, 404);
    for path in ["/twirp/upload/x/blob", "/twirp/upload/..%2f/blob"] {
        assert_eq!(server.ask(put(path, b"x")).await.status, 400, "{path}");
    }
}

async fn v1(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> (u16, Value) {
    answer_of(
        &server
            .ask(request(method, &format!("{V1}{path}"), headers, body))
            .await,
    )
}

async fn reserve(server: &Server, key: &str) -> String {
    let body = json!({"key": key, "version": VERSION}).to_string();
    let (status, answer) = v1(server, "POST", "caches", &[], body.as_bytes()).await;
    assert_eq!(status, 201, "{answer}");
    let number = answer["cacheId"].as_u64().unwrap();
    assert!(number < 1 << 53);
    format!("caches/{number}")
}

async fn look_up(server: &Server, keys: &str) -> Option<(String, String)> {
    let reply = server
        .get(&format!("{V1}cache?keys={keys}&version={VERSION}"))
        .await;
    if reply.status == 204 {
        return None;
    }
    let (status, answer) = answer_of(&reply);
    assert_eq!(status, 200, "{answer}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    Some((text("cacheKey"), text("archiveLocation")))
}

#[tokio::test]
async fn v1_reserves_receives_ranges_commits_and_finds() {
    let server = Server::start().await;
    assert_eq!(look_up(&server, "k").await, None);
    let path = reserve(&server, "k%31").await;
    for (range, body) in [("bytes 4-6/*", "two"), ("bytes 0-3/*", "one ")] {
        let header = format!("Content-Range: {range}");
        assert_eq!(
            v1(&server, "PATCH", &path, &[&header], body.as_bytes())
                .await
                .0,
            204
        );
    }
    assert_eq!(look_up(&server, "k%2531").await, None);
    assert_eq!(
        v1(&server, "POST", &path, &[], b"{\"size\":8}").await.0,
        400
    );
    assert_eq!(
        v1(&server, "POST", &path, &[], b"{\"size\":7}").await.0,
        204
    );
    for keys in ["k%2531", "x,k", "k"] {
        let (key, url) = look_up(&server, keys).await.unwrap();
        assert_eq!(key, "k%31");
        assert_eq!(server.get(below(&server, &url)).await.text(), "one two");
    }
    let body = json!({"key": "k%31", "version": VERSION}).to_string();
    assert_eq!(
        v1(&server, "POST", "caches", &[], body.as_bytes()).await.0,
        409
    );
    assert_eq!(pieces(&server), 0);
    assert!(
        find(&server, "k%31", &[]).await.is_some(),
        "both protocols share their entries"
    );
}

#[tokio::test]
async fn v1_refuses_ranges_that_do_not_meet_and_uploads_nobody_began() {
    let server = Server::start().await;
    let path = reserve(&server, "k").await;
    for (range, body) in [("bytes 0-2/*", "one"), ("bytes 4-6/*", "two")] {
        let header = format!("Content-Range: {range}");
        assert_eq!(
            v1(&server, "PATCH", &path, &[&header], body.as_bytes())
                .await
                .0,
            204
        );
    }
    let (status, answer) = v1(&server, "POST", &path, &[], b"{\"size\":6}").await;
    assert_eq!(status, 400);
    assert!(answer["message"].is_string(), "{answer}");
    for range in [
        "",
        "bytes 0-5/*",
        "bytes 2-0/*",
        "bytes -1-0/*",
        "lines 0-2/*",
        "bytes 0-2",
    ] {
        let header = format!("Content-Range: {range}");
        assert_eq!(
            v1(&server, "PATCH", &path, &[&header], b"one").await.0,
            400,
            "{range}"
        );
    }
    let range = ["Content-Range: bytes 0-2/*"];
    assert_eq!(
        v1(&server, "PATCH", "caches/7", &range, b"one").await.0,
        400
    );
    assert_eq!(
        v1(&server, "POST", "caches/7", &[], b"{\"size\":3}")
            .await
            .0,
        400
    );
    assert_eq!(v1(&server, "POST", "caches", &[], b"{}").await.0, 400);
    assert_eq!(server.get(&format!("{V1}cache?keys=k")).await.status, 400);
    assert_eq!(server.get(&format!("{V1}caches")).await.status, 405);
    assert_eq!(server.get(&format!("{V1}caches/x")).await.status, 404);
}

#[tokio::test]
async fn v1_gives_readers_what_they_may_read() {
    let server = Server::with_policy(one_secret(Scope::Read, Anonymous::None)).await;
    let look = get(&format!("{V1}cache?keys=k&version=v"));
    assert_eq!(server.ask(&look).await.status, 401);
    assert_eq!(server.ask(with_token(&look, SECRET)).await.status, 204);
    let reserve = request(
        "POST",
        &format!("{V1}caches"),
        &[],
        b"{\"key\":\"k\",\"version\":\"v\"}",
    );
    assert_eq!(server.ask(with_token(reserve, SECRET)).await.status, 403);
}
