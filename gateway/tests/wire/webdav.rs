//! Files over WebDAV, as sccache asks for them and as others may.

use crate::support::{Failure, Reply, Server, guarded, put};

const PROBE: &str = "/webdav/.sccache_check";
const OBJECT: &str = "/webdav/a/b/c/abc0123";
const DEPTH_0: &[&str] = &["Depth: 0", "Content-Type: application/xml"];
const DEPTH_1: &[&str] = &["Depth: 1"];
const ALLPROP: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\" ?><D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>";

async fn propfind(server: &Server, path: &str, headers: &[&str]) -> Reply {
    server.call("PROPFIND", path, headers, ALLPROP).await
}

/// The paths in a list of properties, folders with their slash.
fn hrefs(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 207);
    let kind = reply.header("content-type");
    assert_eq!(kind, Some("application/xml; charset=utf-8"));
    let text = reply.text();
    let pieces = text.split("<D:href>").skip(1);
    pieces
        .map(|piece| piece.split_once("</D:href>").unwrap().0.to_owned())
        .collect()
}

#[tokio::test]
async fn sccache_starts_and_stores_on_one_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut ask = async |method: &str, path: &str, headers: &[&str], body: &[u8]| {
        let request = crate::support::request(method, path, headers, body);
        client.send(request).await;
        client.reply_to(method).await
    };
    let miss = ask("GET", PROBE, &[], b"").await;
    assert_eq!(
        (miss.status, miss.header("content-length")),
        (404, Some("0"))
    );
    let root = ask("PROPFIND", "/webdav/", DEPTH_0, ALLPROP).await;
    assert_eq!(hrefs(&root), ["/webdav/"]);
    assert!(root.text().contains("<D:collection/>"));
    assert!(
        root.text()
            .contains("<D:getlastmodified>Thu, 01 Jan 1970 00:00:00 GMT<")
    );
    assert_eq!(ask("PUT", PROBE, &[], b"Hello, World!").await.status, 200);
    assert_eq!(ask("GET", PROBE, &[], b"").await.text(), "Hello, World!");
    let folder = ask("PROPFIND", "/webdav/a/b/c/", DEPTH_0, ALLPROP).await;
    assert_eq!(hrefs(&folder), ["/webdav/a/b/c/"]);
    assert_eq!(ask("MKCOL", "/webdav/a/", &[], b"").await.status, 201);
    assert_eq!(ask("PUT", OBJECT, &[], b"one").await.status, 200);
    assert_eq!(ask("PUT", OBJECT, &[], b"two").await.status, 200);
    assert_eq!(ask("GET", OBJECT, &[], b"").await.text(), "two");
    let head = ask("HEAD", OBJECT, &[], b"").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("3"))
    );
    assert!(head.header("last-modified").unwrap().ends_with(" GMT"));
    assert_eq!(ask("DELETE", OBJECT, &[], b"").await.status, 204);
    assert_eq!(ask("DELETE", OBJECT, &[], b"").await.status, 404);
}

#[tokio::test]
async fn properties_of_a_file_are_those_of_its_get() {
    let server = Server::start().await;
    server.put(OBJECT, b"12345").await;
    server.put("/webdav/empty", b"").await;
    let got = server.get(OBJECT).await;
    let reply = propfind(&server, OBJECT, DEPTH_0).await;
    assert_eq!(hrefs(&reply), [OBJECT]);
    let text = reply.text();
    let changed = got.header("last-modified").unwrap();
    let etag = got.header("etag").unwrap();
    for part in [
        "<D:resourcetype/>".to_owned(),
        "<D:getcontentlength>5</D:getcontentlength>".to_owned(),
        format!("<D:getlastmodified>{changed}</D:getlastmodified>"),
        format!("<D:getetag>{etag}</D:getetag>"),
        "<D:status>HTTP/1.1 200 OK</D:status>".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    let empty = propfind(&server, "/webdav/empty", DEPTH_1).await;
    assert!(empty.text().contains("<D:getcontentlength>0<"));
}

#[tokio::test]
async fn a_name_without_a_slash_is_a_file_or_a_folder_that_holds_something_or_a_miss() {
    let server = Server::start().await;
    server.put(OBJECT, b"x").await;
    let folder = propfind(&server, "/webdav/a/b", DEPTH_0).await;
    assert_eq!(hrefs(&folder), ["/webdav/a/b/"]);
    assert_eq!(
        hrefs(&propfind(&server, "/webdav", DEPTH_0).await),
        ["/webdav/"]
    );
    for absent in ["/webdav/a/b/x", "/webdav/a/b/c/abc", "/webdav/b"] {
        let reply = propfind(&server, absent, DEPTH_0).await;
        assert_eq!((reply.status, reply.body.len()), (404, 0), "{absent}");
    }
    assert_eq!(server.get("/webdav/a/b/").await.status, 404);
    assert_eq!(server.get("/webdav/a/b").await.status, 404);
}

#[tokio::test]
async fn a_folder_lists_what_lies_directly_in_it_once_and_escaped() {
    let server = Server::start().await;
    let base = "/ns/team/webdav";
    for path in [
        "a/1",
        "a/b/2",
        "a/b/3",
        "a/b-/4",
        "a/b%26%3Cc%20%C3%BC",
        "a/z/y/x",
        "ab",
    ] {
        let put = server.put(&format!("{base}/{path}"), b"x").await;
        assert_eq!(put.status, 200, "{path}");
    }
    let reply = propfind(&server, &format!("{base}/a/"), DEPTH_1).await;
    let expected = ["", "1", "b%26%3Cc%20%C3%BC", "b-/", "b/", "z/"];
    let expected = expected.map(|name| format!("{base}/a/{name}"));
    let mut found = hrefs(&reply);
    found.sort();
    assert_eq!(found, expected);
    for href in &found[1..3] {
        assert_eq!(server.get(href).await.text(), "x", "{href}");
    }
    assert_eq!(hrefs(&propfind(&server, base, DEPTH_1).await).len(), 3);
    assert_eq!(
        hrefs(&propfind(&server, "/webdav/a/", DEPTH_1).await),
        ["/webdav/a/"]
    );
}

#[tokio::test]
async fn a_long_folder_is_listed_whole_and_a_longer_one_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut fill = async |names: std::ops::Range<u32>, depth: &str| {
        for name in names {
            client
                .send(put(&format!("/webdav/long/{name:05}{depth}"), b""))
                .await;
            assert_eq!(client.reply().await.status, 200);
        }
    };
    fill(0..600, "").await;
    fill(600..1200, "/below").await;
    let mut expected: Vec<_> = (0..600)
        .map(|name| format!("/webdav/long/{name:05}"))
        .collect();
    expected.extend((600..1200).map(|name| format!("/webdav/long/{name:05}/")));
    expected.insert(0, "/webdav/long/".into());
    assert_eq!(
        hrefs(&propfind(&server, "/webdav/long/", DEPTH_1).await),
        expected
    );
    fill(1200..4097, "").await;
    let reply = propfind(&server, "/webdav/long/", DEPTH_1).await;
    assert_eq!(reply.status, 507);
    assert!(
        reply
            .text()
            .contains("<D:number-of-matches-within-limits/>")
    );
}

#[tokio::test]
async fn depth_is_0_or_1() {
    let server = Server::start().await;
    for headers in [&["Depth: infinity"][..], &["Depth: 2"], &[]] {
        let reply = propfind(&server, "/webdav/", headers).await;
        assert_eq!(reply.status, 403, "{headers:?}");
        assert!(reply.text().contains("<D:propfind-finite-depth/>"));
    }
}

#[tokio::test]
async fn options_tell_the_class_without_credentials() {
    let (policy, _) = guarded("team");
    let server = Server::with_policy(policy).await;
    for path in ["/webdav", "/webdav/", OBJECT] {
        let reply = server.call("OPTIONS", path, &[], b"").await;
        assert_eq!(
            (reply.status, reply.header("dav")),
            (200, Some("1")),
            "{path}"
        );
        assert!(reply.header("allow").unwrap().contains("PROPFIND"));
    }
}

#[tokio::test]
async fn what_is_not_supported_is_405_and_names_what_is() {
    let server = Server::start().await;
    server.put(OBJECT, b"x").await;
    for method in ["MOVE", "COPY", "LOCK", "UNLOCK", "PROPPATCH", "POST"] {
        for path in [OBJECT, "/webdav/a/"] {
            let headers = ["Destination: /webdav/elsewhere"];
            let reply = server.call(method, path, &headers, b"").await;
            assert_eq!(reply.status, 405, "{method} {path}");
            assert!(reply.header("allow").unwrap().contains("PROPFIND"));
        }
    }
    for method in ["PUT", "DELETE"] {
        let reply = server.call(method, "/webdav/a/", &[], b"").await;
        assert_eq!(reply.status, 405, "{method}");
    }
    assert_eq!(server.call("MKCOL", OBJECT, &[], b"").await.status, 405);
    assert_eq!(server.call("MKCOL", "/webdav/", &[], b"").await.status, 405);
    assert_eq!(server.get(OBJECT).await.text(), "x");
}

#[tokio::test]
async fn a_reader_reads_and_finds_and_is_told_403_where_it_writes() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (read, write) = (bearer(&tokens.read), bearer(&tokens.write));
    assert_eq!(server.call("PUT", PROBE, &[&write], b"x").await.status, 200);
    let cases = [
        ("GET", PROBE, 200),
        ("PROPFIND", "/webdav/", 207),
        ("MKCOL", "/webdav/a/", 201),
        ("PUT", PROBE, 403),
        ("DELETE", PROBE, 403),
        // Of another namespace it learns nothing, and sccache starts.
        ("GET", "/ns/other/webdav/.sccache_check", 404),
    ];
    for (method, path, status) in cases {
        let reply = server.call(method, path, &[&read, "Depth: 0"], b"").await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
    for (method, path, _) in cases {
        let wrong = ["Authorization: Bearer wrong", "Depth: 0"];
        let reply = server.call(method, path, &wrong, b"").await;
        assert_eq!(reply.status, 401, "{method} {path}");
        assert!(reply.header("www-authenticate").is_some());
    }
}

#[tokio::test]
async fn a_path_is_decoded_once_and_leaves_its_folder_never() {
    let server = Server::start().await;
    for (stored, same) in [
        ("/webdav/a%2Fb", "/webdav/a/b"),
        ("/webdav/%61%20c", "/webdav/a%20c"),
        ("/webdav//d///e", "//webdav/d/e"),
        ("/webdav/%252e%252e", "/webdav/%252e%252e"),
    ] {
        assert_eq!(server.put(stored, stored.as_bytes()).await.status, 200);
        assert_eq!(server.get(same).await.text(), stored);
    }
    let long = "x".repeat(1025);
    for bad in [
        "..",
        "a/../b",
        "a/%2e%2e/b",
        "%2E",
        "a%2F%2Fb",
        "%2Fa",
        "a%00b",
        "%ff",
        &long,
    ] {
        for method in ["GET", "PUT", "DELETE", "PROPFIND", "MKCOL"] {
            let path = format!("/webdav/{bad}");
            let reply = server.call(method, &path, DEPTH_0, b"").await;
            assert_eq!(reply.status, 400, "{method} {path}");
        }
    }
    assert_eq!(
        server
            .put(&format!("/webdav/{}", &long[1..]), b"")
            .await
            .status,
        200
    );
    assert_eq!(server.get("/webdavx").await.status, 404);
}

#[tokio::test]
async fn a_store_that_fails_lets_sccache_start_and_tells_the_writes() {
    for (failure, status) in [
        (Failure::Disk, 503),
        (Failure::Full, 507),
        (Failure::Corrupt, 503),
    ] {
        let server = Server::failing(failure).await;
        assert_eq!(server.get(PROBE).await.status, 404, "{failure:?}");
        assert_eq!(server.put(PROBE, b"x").await.status, status, "{failure:?}");
        // Folders are known without the store.
        let folder = propfind(&server, "/webdav/a/", DEPTH_0).await;
        assert_eq!(folder.status, 207);
    }
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    assert_eq!(server.put(PROBE, &[0; 11]).await.status, 413);
}

#[tokio::test]
async fn a_range_of_a_file_is_206() {
    let server = Server::start().await;
    server.put(OBJECT, b"0123456789").await;
    let reply = server.call("GET", OBJECT, &["Range: bytes=3-5"], b"").await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "345"));
    assert_eq!(reply.header("content-range"), Some("bytes 3-5/10"));
}
