//! moon's `api: http`: Bazel's paths with action results as JSON.

use serde_json::{Value, json};
use zimcache_proto::{
    Message, Timestamp,
    reapi::{ActionResult, Digest, ExecutedActionMetadata, OutputFile},
};

use crate::support::{Server, guarded, put, sha256};

const ACTION: &str =
    "/moon-outputs/ac/f23f0c3c82eb74fdb422f9083460414a8d08f7e91622fc3b84b637bdff916688";
const SENT: &[&str] = &["Content-Type: application/json"];
const WANTED: &[&str] = &["Accept: application/json"];

async fn put_blob(server: &Server, body: &[u8]) {
    let path = format!("/moon-outputs/cas/{}", sha256(body));
    assert_eq!(server.put(&path, body).await.status, 200);
}

/// A result as moon writes it, of one file and what was printed.
fn result() -> Value {
    json!({
        "outputFiles": [{
            "path": "dist/words.txt",
            "digest": { "hash": sha256(b"words"), "sizeBytes": "5" },
            "nodeProperties": {
                "mtime": "2026-11-21T02:42:38.844974723+00:00",
                "unixMode": 33188,
            },
        }],
        "stdoutDigest": { "hash": sha256(b"") },
        "executionMetadata": { "worker": "moon" },
    })
}

async fn put_json(server: &Server, result: &Value) -> u16 {
    let body = result.to_string();
    let reply = server.call("PUT", ACTION, SENT, body.as_bytes()).await;
    reply.status
}

#[tokio::test]
async fn a_result_in_json_comes_back_in_json_once_it_is_complete() {
    let server = Server::start().await;
    assert_eq!(put_json(&server, &result()).await, 200);
    let reply = server.call("GET", ACTION, WANTED, b"").await;
    assert_eq!((reply.status, reply.body.len()), (404, 0));
    put_blob(&server, b"words").await;
    for method in ["GET", "HEAD"] {
        let reply = server.call(method, ACTION, WANTED, b"").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("vary"), Some("Accept"));
        if method == "GET" {
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(body, result());
        }
    }
}

#[tokio::test]
async fn clients_of_both_forms_share_a_result() {
    let server = Server::start().await;
    put_blob(&server, b"words").await;
    assert_eq!(put_json(&server, &result()).await, 200);
    let reply = server.call("GET", ACTION, &["Accept: */*"], b"").await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/octet-stream")
    );
    let binary = ActionResult::decode(&reply.body[..]).unwrap();
    assert_eq!(binary.output_files[0].path, "dist/words.txt");
    assert_eq!(binary.execution_metadata.unwrap().worker, "moon");
    let other = ActionResult {
        output_files: vec![OutputFile {
            path: "lib.a".into(),
            digest: Some(Digest {
                hash: sha256(b"words"),
                size_bytes: 5,
            }),
            is_executable: true,
            ..OutputFile::default()
        }],
        exit_code: 3,
        ..ActionResult::default()
    };
    assert_eq!(server.put(ACTION, &other.encode_to_vec()).await.status, 200);
    let reply = server.call("GET", ACTION, WANTED, b"").await;
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let digest = json!({ "hash": sha256(b"words"), "sizeBytes": "5" });
    let file = json!({ "path": "lib.a", "digest": digest, "isExecutable": true });
    assert_eq!(body, json!({ "outputFiles": [file], "exitCode": 3 }));
}

#[tokio::test]
async fn the_two_forms_have_tags_and_ranges_of_their_own() {
    let server = Server::start().await;
    put_blob(&server, b"words").await;
    put_json(&server, &result()).await;
    let json = server.call("GET", ACTION, WANTED, b"").await;
    let binary = server.get(ACTION).await;
    let (of_json, of_binary) = (json.header("etag").unwrap(), binary.header("etag").unwrap());
    assert_ne!(of_json, of_binary);
    for (tag, status) in [(of_json, 304), (of_binary, 200)] {
        let tag = format!("If-None-Match: {tag}");
        let reply = server.call("GET", ACTION, &[WANTED[0], &tag], b"").await;
        assert_eq!(reply.status, status);
    }
    let range = [WANTED[0], "Range: bytes=0-0"];
    let reply = server.call("GET", ACTION, &range, b"").await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "{"));
}

#[tokio::test]
async fn json_that_is_no_acceptable_result_is_400_and_says_why() {
    let server = Server::start().await;
    let digest = json!({ "hash": sha256(b"x"), "sizeBytes": "1" });
    let file =
        |path: &str| json!({ "outputFiles": [{ "path": path, "digest": digest }] }).to_string();
    for (body, why) in [
        (String::new(), "EOF while parsing"),
        ("{".into(), "EOF while parsing"),
        ("[]".into(), "expected an action result"),
        (r#"{"outputs":[]}"#.into(), "unknown field `outputs`"),
        (
            r#"{"outputFiles":[{"path":"a"}]}"#.into(),
            "an output file has no digest",
        ),
        (file("/etc/passwd"), "an output path is absolute"),
        (file("../a"), "an output path leaves the working directory"),
        (
            file("a").replace(&sha256(b"x"), "abc"),
            "a digest's hash is malformed",
        ),
        (
            file("a").replace("\"1\"", "\"-1\""),
            "a digest's size is negative",
        ),
    ] {
        let reply = server.call("PUT", ACTION, SENT, body.as_bytes()).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.text().contains(why), "{body}: {}", reply.text());
    }
    assert_eq!(server.store.entry_keys().len(), 0);
    let binary = server.put(ACTION, result().to_string().as_bytes()).await;
    assert_eq!(binary.status, 400);
}

#[tokio::test]
async fn a_result_that_json_cannot_write_is_a_miss_for_who_wants_json() {
    let server = Server::start().await;
    let late = Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    let result = ActionResult {
        execution_metadata: Some(ExecutedActionMetadata {
            queued_timestamp: Some(late),
            ..ExecutedActionMetadata::default()
        }),
        ..ActionResult::default()
    };
    assert_eq!(
        server.put(ACTION, &result.encode_to_vec()).await.status,
        200
    );
    assert_eq!(server.call("GET", ACTION, WANTED, b"").await.status, 404);
    assert_eq!(server.get(ACTION).await.status, 200);
}

#[tokio::test]
async fn json_over_the_limit_is_413() {
    let server = Server::with(|config| config.max_blob_size.0 = 100).await;
    let body = result().to_string();
    let reply = server.call("PUT", ACTION, SENT, body.as_bytes()).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn the_empty_blob_comes_without_any_length() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let path = format!("/moon-outputs/cas/{}", sha256(b""));
    client
        .send(format!("PUT {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .await;
    assert_eq!(client.reply().await.status, 200);
    client.send(put(&path, b"")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn status_refuses_a_token_that_nobody_made_so_that_moon_leaves_the_cache_out() {
    let (policy, tokens) = guarded("moon-outputs");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    assert_eq!(server.get("/status").await.status, 401);
    for (token, status) in [(&*tokens.read, 200), (&tokens.write, 200), ("wrong", 401)] {
        let reply = server.call("GET", "/status", &[&bearer(token)], b"").await;
        assert_eq!(reply.status, status);
    }
    let read = [&*bearer(&tokens.read), SENT[0]];
    let reply = server.call("PUT", ACTION, &read, b"{}").await;
    assert_eq!(reply.status, 403);
}
