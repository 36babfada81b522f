//! Maven's build cache extension.

use crate::support::{Failure, Server, guarded};

const FOLDER: &str = "/maven/v1.2/org.acme.app/core/0f3c9e";
const INFO: &str = "/maven/v1.2/org.acme.app/core/0f3c9e/buildinfo.xml";

#[tokio::test]
async fn a_module_is_missed_saved_and_hit_and_saved_again() {
    let server = Server::start().await;
    let miss = server.get(INFO).await;
    assert_eq!(
        (miss.status, miss.header("content-length")),
        (404, Some("0"))
    );
    let jar = format!("{FOLDER}/core-sources.jar");
    let report = "/maven/v1/org.acme.app/core/7d0e/build-cache-report.xml";
    for round in [&b"first"[..], b"second"] {
        for path in [&jar, INFO, report] {
            assert_eq!(server.put(path, round).await.status, 200, "{path}");
            let hit = server.get(path).await;
            assert_eq!((hit.status, &hit.body[..]), (200, round));
            assert!(hit.header("etag").is_some());
            assert!(hit.header("last-modified").unwrap().ends_with(" GMT"));
        }
    }
    let head = server.call("HEAD", &jar, &[], b"").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("6"))
    );
    assert_eq!(server.call("DELETE", INFO, &[], b"").await.status, 204);
    assert_eq!(server.get(INFO).await.status, 404);
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_will_be_stored() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let head = |token: &str| {
        let auth = format!("Authorization: Bearer {token}");
        format!(
            "PUT {INFO} HTTP/1.1\r\nHost: test\r\n{auth}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for (token, status) in [("wrong", 401), (&tokens.read, 403)] {
        let mut client = server.connect().await;
        client.send(head(token)).await;
        assert_eq!(client.reply().await.status, status);
    }
    let mut client = server.connect().await;
    client.send(head(&tokens.write)).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("xml").await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_get_without_credentials_is_challenged_so_that_maven_shows_its_own() {
    let (policy, _) = guarded("team");
    let server = Server::with_policy(policy).await;
    let reply = server.get(INFO).await;
    assert_eq!(reply.status, 401);
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
}

#[tokio::test]
async fn reading_goes_on_where_it_stopped_unless_the_file_changed() {
    let server = Server::start().await;
    server.put(INFO, b"0123456789").await;
    let changed = server.get(INFO).await;
    let changed = changed.header("last-modified").unwrap();
    let since = |date: &str| format!("If-Unmodified-Since: {date}");
    let (same, old) = (since(changed), since("Sat, 01 Jan 2000 00:00:00 GMT"));
    let later = since("Fri, 31 Dec 9999 23:59:59 GMT");
    let rest = "Range: bytes=4-";
    for known in [&same, &later] {
        let reply = server.call("GET", INFO, &[rest, known], b"").await;
        assert_eq!((reply.status, reply.text().as_str()), (206, "456789"));
        assert_eq!(reply.header("content-range"), Some("bytes 4-9/10"));
    }
    let behind = "Range: bytes=10-";
    for (headers, status) in [
        ([rest, &old], 412),
        ([behind, &old], 412),
        ([behind, &same], 416),
        (["Accept: */*", &old], 412),
        (["Accept: */*", &same], 200),
        ([rest, "If-Unmodified-Since: yesterday"], 206),
    ] {
        let reply = server.call("GET", INFO, &headers, b"").await;
        assert_eq!(reply.status, status, "{headers:?}");
        if status == 412 {
            assert_eq!(reply.header("content-length"), Some("0"));
        }
    }
    let absent = format!("{FOLDER}/absent");
    let reply = server.call("GET", &absent, &[rest, &old], b"").await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn folders_may_be_made_by_who_may_write() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let reply = server.call("OPTIONS", "/maven/", &[], b"").await;
    assert_eq!((reply.status, reply.header("dav")), (200, Some("1")));
    for (token, status) in [(&tokens.write, 201), (&tokens.read, 403)] {
        let auth = format!("Authorization: Bearer {token}");
        let reply = server
            .call("MKCOL", &format!("{FOLDER}/"), &[&auth], b"")
            .await;
        assert_eq!(reply.status, status);
    }
}

#[tokio::test]
async fn maven_waits_for_no_store_that_fails() {
    for (failure, status) in [
        (Failure::Disk, 500),
        (Failure::Full, 507),
        (Failure::Corrupt, 500),
    ] {
        let server = Server::failing(failure).await;
        assert_eq!(server.get(INFO).await.status, 404, "{failure:?}");
        let put = server.put(INFO, b"x").await;
        assert_eq!(put.status, status, "{failure:?}");
        assert!(!put.text().contains("sector"), "{}", put.text());
    }
}

#[tokio::test]
async fn malformed_paths_wrong_methods_and_large_files_are_refused() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    assert_eq!(server.put(INFO, &[0; 11]).await.status, 413);
    let long = "x".repeat(1025);
    for bad in ["", "..", "v1/../../etc", "v1/%2e%2e/x", "v1/", "%ff", &long] {
        for method in ["GET", "PUT", "DELETE"] {
            let path = format!("/maven/{bad}");
            let reply = server.call(method, &path, &[], b"").await;
            assert_eq!(reply.status, 400, "{method} {path}");
        }
    }
    for method in ["POST", "PROPFIND", "LOCK"] {
        let reply = server.call(method, INFO, &[], b"").await;
        let allowed = Some("GET, HEAD, PUT, DELETE, OPTIONS, MKCOL");
        assert_eq!((reply.status, reply.header("allow")), (405, allowed));
    }
}

#[tokio::test]
async fn files_of_maven_and_of_webdav_are_apart() {
    let server = Server::start().await;
    server.put("/maven/a/b", b"maven").await;
    assert_eq!(server.get("/webdav/a/b").await.status, 404);
}
