//! Polykit's artifacts, made here byte by byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zimcache_auth::{Anonymous, Scope};
use zimcache_store::EntryStore;
use zimcache_types::{EntryKey, EntryKind, Namespace};

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Reply, Server, get, put, sha256},
};

const KEY: &str = "aabbccdd11223344556677889900aabbccddeeff";

fn path() -> String {
    format!("/v1/artifacts/{KEY}")
}

/// A member of a GNU tar archive.
fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn metadata(key: &str) -> Value {
    json!({"package_name": "app", "task_name": "build", "command": "tsc", "cache_key_hash": key, "created_at": 7, "version": 1})
}

fn manifest(files: &[(&str, &[u8])]) -> Value {
    let hashes: BTreeMap<_, _> = files
        .iter()
        .map(|(name, body)| (*name, sha256(body)))
        .collect();
    let total: usize = files.iter().map(|(_, body)| body.len()).sum();
    json!({"files": hashes, "total_size": total})
}

fn document(name: &str, document: &Value) -> Vec<u8> {
    member(name, 0, document.to_string().as_bytes())
}

fn outputs(files: &[(&str, &[u8])]) -> Vec<u8> {
    let members = files
        .iter()
        .map(|(name, body)| member(&format!("outputs/{name}"), b'0', body));
    members.collect::<Vec<_>>().concat()
}

/// The members with what ends an archive, compressed.
fn packed(members: &[Vec<u8>]) -> Vec<u8> {
    let archive = [members.concat(), vec![0; 1024]].concat();
    zstd::stream::encode_all(archive.as_slice(), 3).unwrap()
}

const FILES: [(&str, &[u8]); 2] = [("dist/a.js", b"let a"), ("dist/b.js", b"")];

fn artifact(key: &str) -> Vec<u8> {
    packed(&[
        document("metadata.json", &metadata(key)),
        document("manifest.json", &manifest(&FILES)),
        outputs(&FILES),
    ])
}

fn error_of(reply: &Reply) -> String {
    let document: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(document.as_object().unwrap().len(), 1, "{document}");
    document["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_artifact_is_put_once_and_read_with_its_hash() {
    let server = Server::start().await;
    let reply = server.get(&path()).await;
    assert_eq!(
        (reply.status, error_of(&reply).as_str()),
        (404, "Artifact not found")
    );
    assert_eq!(server.call("HEAD", &path(), &[], b"").await.status, 404);
    let body = artifact(KEY);
    let reply = server.put(&path(), &body).await;
    assert_eq!(
        (reply.status, reply.body.len()),
        (201, 0),
        "{}",
        reply.text()
    );
    let (length, hash) = (body.len().to_string(), sha256(&body));
    for method in ["GET", "HEAD"] {
        let reply = server.call(method, &path(), &[], b"").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/zstd"));
        assert_eq!(reply.header("content-length"), Some(length.as_str()));
        assert_eq!(reply.header("x-artifact-hash"), Some(hash.as_str()));
    }
    assert_eq!(server.get(&path()).await.body, body);
    let reply = server.put(&path(), &body).await;
    assert_eq!(reply.status, 409);
    assert!(!error_of(&reply).is_empty());
}

#[tokio::test]
async fn an_artifact_that_exists_is_refused_before_its_body_is_asked_for() {
    let server = Server::start().await;
    assert_eq!(server.put(&path(), &artifact(KEY)).await.status, 201);
    let mut client = server.connect().await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
        path()
    );
    client.send(head).await;
    assert_eq!(client.reply().await.status, 409);
}

#[tokio::test]
async fn the_hash_is_right_also_when_its_record_is_gone_or_of_another_version() {
    let server = Server::start().await;
    let body = artifact(KEY);
    server.put(&path(), &body).await;
    let note = EntryKey::new(
        Namespace::default(),
        EntryKind::Polykit,
        format!("{KEY}.sha256"),
    )
    .unwrap();
    assert!(server.store.delete(&note).await.unwrap());
    let reply = server.get(&path()).await;
    assert_eq!(
        reply.header("x-artifact-hash"),
        Some(sha256(&body).as_str())
    );
    assert_eq!(reply.body, body);
    assert_eq!(
        server
            .get(&format!("/v1/artifacts/{KEY}.sha256"))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn members_may_come_in_any_order_with_folders_and_long_names() {
    let server = Server::start().await;
    let long = format!("{}/x.js", "d".repeat(150));
    let files: [(&str, &[u8]); 1] = [(&long, b"content")];
    let body = packed(&[
        member("outputs/", b'5', b""),
        member(
            "././@LongLink",
            b'L',
            format!("outputs/{long}\0").as_bytes(),
        ),
        member("outputs/cut", b'0', b"content"),
        document("manifest.json", &manifest(&files)),
        document("metadata.json", &metadata(KEY)),
    ]);
    let reply = server.put(&path(), &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// Bodies that are no artifact for the key, and a word of what is said of each.
fn flawed() -> Vec<(Vec<u8>, &'static str)> {
    let meta = || document("metadata.json", &metadata(KEY));
    let list = |files| document("manifest.json", &manifest(files));
    let good = artifact(KEY);
    let changed: [(&str, &[u8]); 2] = [FILES[0], ("dist/b.js", b"let b")];
    let total = |total: u64| {
        let mut document = manifest(&FILES);
        document["total_size"] = total.into();
        document
    };
    let archive = [meta(), list(&FILES), outputs(&FILES), vec![0; 1024]].concat();
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
    let mut wrong_sum = archive.clone();
    wrong_sum[0] = b'n';
    vec![
        (b"".to_vec(), "no zstd"),
        (b"no zstd".to_vec(), "no zstd"),
        (zstd(b"no tar"), "no zstd"),
        (good[..good.len() - 1].to_vec(), "cut short"),
        ([good.as_slice(), b"more"].concat(), "no zstd"),
        (zstd(&archive[..archive.len() - 1024]), "cut short"),
        (
            zstd(&[archive.as_slice(), b"more"].concat()),
            "follows the end",
        ),
        (zstd(&wrong_sum), "sum"),
        (artifact(&KEY.to_uppercase()), "another key"),
        (
            packed(&[list(&FILES), outputs(&FILES)]),
            "metadata.json is missing",
        ),
        (
            packed(&[meta(), outputs(&FILES)]),
            "manifest.json is missing",
        ),
        (
            packed(&[meta(), meta(), list(&FILES), outputs(&FILES)]),
            "twice",
        ),
        (
            packed(&[meta(), list(&FILES), outputs(&FILES), outputs(&FILES)]),
            "twice",
        ),
        (
            packed(&[meta(), list(&FILES[..1]), outputs(&FILES)]),
            "not in the manifest",
        ),
        (
            packed(&[meta(), list(&FILES), outputs(&FILES[..1])]),
            "missing",
        ),
        (
            packed(&[meta(), list(&FILES), outputs(&changed)]),
            "not what the manifest says",
        ),
        (
            packed(&[
                meta(),
                document("manifest.json", &total(0)),
                outputs(&FILES),
            ]),
            "total size",
        ),
        (
            packed(&[
                meta(),
                document("manifest.json", &total(6)),
                outputs(&FILES),
            ]),
            "total size",
        ),
        (
            packed(&[
                member("metadata.json", 0, b"{}"),
                list(&FILES),
                outputs(&FILES),
            ]),
            "document",
        ),
        (
            packed(&[
                meta(),
                list(&FILES),
                outputs(&FILES),
                member("other", b'0', b""),
            ]),
            "neither",
        ),
        (
            packed(&[meta(), list(&[]), member("outputs/link", b'2', b"")]),
            "neither a file",
        ),
        (
            packed(&[
                meta(),
                list(&FILES),
                outputs(&FILES),
                member("outputs/../x", b'0', b""),
            ]),
            "leads out",
        ),
        (
            packed(&[
                meta(),
                list(&[]),
                member("././@LongLink", b'L', &[b'x'; 5000]),
            ]),
            "too long",
        ),
    ]
}

#[tokio::test]
async fn what_is_no_artifact_for_its_key_is_422_and_stores_nothing() {
    let server = Server::start().await;
    for (body, said) in flawed() {
        let reply = server.put(&path(), &body).await;
        assert_eq!(reply.status, 422, "{said}: {}", reply.text());
        assert!(error_of(&reply).contains(said), "{said}: {}", reply.text());
    }
    assert!(server.store.entry_keys().is_empty());
    assert_eq!(server.put(&path(), &artifact(KEY)).await.status, 201);
}

#[tokio::test]
async fn what_unpacks_to_too_much_is_422_before_it_is_unpacked() {
    let server = Server::with(|config| config.max_blob_size.0 = 64 << 10).await;
    let huge = vec![0_u8; 4 << 20];
    let files: [(&str, &[u8]); 1] = [("zeros", &huge)];
    let body = packed(&[
        document("metadata.json", &metadata(KEY)),
        document("manifest.json", &manifest(&files)),
        outputs(&files),
    ]);
    let reply = server.put(&path(), &body).await;
    assert_eq!(reply.status, 422);
    assert!(error_of(&reply).contains("too much"), "{}", reply.text());
    let mut far = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    far.window_log(24).unwrap();
    far.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut far, &artifact(KEY)).unwrap();
    assert_eq!(
        server.put(&path(), &far.finish().unwrap()).await.status,
        422
    );
}

#[tokio::test]
async fn an_artifact_over_the_limit_is_413_announced_or_not() {
    let body = artifact(KEY);
    let server = Server::with(|config| config.max_blob_size.0 = body.len() as u64 - 1).await;
    let reply = server.put(&path(), &body).await;
    assert_eq!(reply.status, 413);
    assert!(!error_of(&reply).is_empty());
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        path(),
        body.len()
    );
    let chunked = [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(server.ask(chunked).await.status, 413);
    assert!(server.store.entry_keys().is_empty());
}

#[tokio::test]
async fn keys_keep_their_case_and_malformed_ones_are_400() {
    let server = Server::start().await;
    assert_eq!(server.put(&path(), &artifact(KEY)).await.status, 201);
    let upper = format!("/v1/artifacts/{}", KEY.to_uppercase());
    assert_eq!(server.get(&upper).await.status, 404);
    let long = "a".repeat(129);
    for key in [
        "",
        "abc",
        &KEY[..31],
        "zzbbccdd11223344556677889900aabbccddeeff",
        "..%2f",
        &long,
    ] {
        let path = format!("/v1/artifacts/{key}");
        let reply = server.get(&path).await;
        assert_eq!(reply.status, 400, "{path}");
        assert!(!error_of(&reply).is_empty());
        assert_eq!(server.put(&path, b"x").await.status, 400, "{path}");
    }
    for method in ["DELETE", "POST"] {
        let reply = server.call(method, &path(), &[], b"").await;
        assert_eq!((reply.status, reply.body.len()), (405, 0), "{method}");
    }
}

#[tokio::test]
async fn a_part_of_an_artifact_is_206_with_the_hash_of_the_whole() {
    let server = Server::start().await;
    let body = artifact(KEY);
    server.put(&path(), &body).await;
    let reply = server
        .call("GET", &path(), &["Range: bytes=0-3"], b"")
        .await;
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[..4]));
    assert_eq!(
        reply.header("x-artifact-hash"),
        Some(sha256(&body).as_str())
    );
}

#[tokio::test]
async fn callers_get_what_their_credential_allows() {
    let server = Server::with_policy(one_secret(Scope::Read, Anonymous::None)).await;
    let reply = server.get(&path()).await;
    assert_eq!(reply.status, 401);
    assert!(!error_of(&reply).is_empty());
    assert_eq!(
        server.ask(with_token(get(&path()), SECRET)).await.status,
        404
    );
    let refused = server
        .ask(with_token(put(&path(), &artifact(KEY)), SECRET))
        .await;
    assert_eq!(refused.status, 403);
}
