//! `zim cache put`, `get`, `ls` and `rm`: against a real server, and against one that misbehaves.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    thread::{self, JoinHandle},
};

use serde_json::Value;
use zimcache_types::{Digest, Function};

use crate::process::{Folder, Server, ended, run, zim};

/// Larger than any buffer on the way, and no multiple of one.
fn content() -> Vec<u8> {
    let words = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(3_000_001).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(Function::Sha256, bytes).hash.to_hex()
}

/// A Gradle value under a key that starts so.
fn put_gradle(server: &Server, start: &str) -> String {
    let key = format!("{start:0<32}");
    let put = server.request("PUT", &format!("/cache/{key}"), b"outputs");
    assert_eq!(put.0, 200);
    key
}

#[test]
fn a_file_goes_in_and_comes_out_the_same() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let (source, target) = (folder.path().join("in"), folder.path().join("out"));
    fs::write(&source, content()).unwrap();
    let put = server.ask(&["put", source.to_str().unwrap()]);
    assert_eq!((put.code, &*put.err), (0, ""));
    let hash = put.out.trim();
    assert_eq!(hash, sha256(&content()));
    for _ in 0..2 {
        let got = server.ask(&["get", hash, "-o", target.to_str().unwrap()]);
        assert_eq!((got.code, &*got.err), (0, ""));
        assert_eq!(fs::read(&target).unwrap(), content());
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 3, "the store, both files, and nothing partial");
    let again = server.ask(&["put", source.to_str().unwrap()]);
    assert_eq!(again.out.trim(), hash);
    assert_eq!(server.ask(&["rm", hash]).code, 0);
    let gone = server.ask(&["get", hash, "-o", target.to_str().unwrap()]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("no such thing"), "{}", gone.err);
}

#[test]
fn pipes_go_in_and_out() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let mut put = zim(&["cache", "put", "-", "--url", &server.url()]);
    let mut put = put
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(&content()).unwrap();
    let hash = String::from_utf8(put.wait_with_output().unwrap().stdout).unwrap();
    let hash = hash.trim();
    assert_eq!(hash, sha256(&content()));
    let got = zim(&["cache", "get", hash, "--url", &server.url()])
        .output()
        .unwrap();
    assert!(got.status.success());
    assert_eq!(got.stdout, content());
}

#[test]
fn a_namespace_is_a_room_of_its_own() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let file = folder.path().join("in");
    fs::write(&file, "value").unwrap();
    let file = file.to_str().unwrap();
    let put = server.ask(&["put", file, "--namespace", "team/a"]);
    assert_eq!(put.code, 0, "{}", put.err);
    let hash = put.out.trim();
    assert_eq!(
        server.ask(&["get", hash, "--namespace", "team/a"]).out,
        "value"
    );
    assert_eq!(server.ask(&["get", hash, "--namespace", "team/b"]).code, 1);
    assert!(
        server
            .ask(&["ls", "--namespace", "team/a"])
            .out
            .contains(hash)
    );
    assert_eq!(server.ask(&["ls", "--namespace", "team/b"]).out, "");
}

#[test]
fn a_listing_is_narrowed_by_tool_and_key_and_ends_at_its_limit() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let blob = server.put(b"a blob");
    let keys = ["a1", "a2", "b1"].map(|start| put_gradle(&server, start));
    let all = server.ask(&["ls"]).out;
    assert_eq!(all.lines().count(), 4, "{all}");
    assert!(all.contains(blob.trim_start_matches("/cas/")), "{all}");
    let gradle = server.ask(&["ls", "--tool", "gradle", "--prefix", "a"]).out;
    assert_eq!(gradle.lines().count(), 2, "{gradle}");
    let row = gradle.lines().next().unwrap();
    assert!(
        row.starts_with("gradle  7B  2") && row.ends_with(&keys[0]),
        "{row}"
    );
    let json = server
        .ask(&["ls", "--tool", "gradle", "--limit", "2", "--json"])
        .out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["entries"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&json["more"], &json["entries"][1]["key"]),
        (&true.into(), &keys[1].as_str().into())
    );
    assert_eq!(server.ask(&["ls", "--tool", "gradel"]).code, 1);
}

#[test]
fn one_entry_or_a_whole_namespace_is_removed_and_the_latter_only_when_confirmed() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let keys = ["a1", "a2"].map(|start| put_gradle(&server, start));
    let removed = server.ask(&["rm", &keys[0], "--tool", "gradle"]);
    assert_eq!((removed.code, &*removed.out), (0, "removed\n"));
    assert_eq!(
        server.request("GET", &format!("/cache/{}", keys[0]), b"").0,
        404
    );
    assert_eq!(
        server.request("GET", &format!("/cache/{}", keys[1]), b"").0,
        200
    );
    assert_eq!(
        server.ask(&["rm", &keys[0], "--tool", "gradle"]).code,
        1,
        "it is gone"
    );
    let all = ["rm", "--namespace", "default", "--all"];
    let asked = server.ask(&all);
    assert_eq!(asked.code, 2);
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    assert_eq!(server.ask(&["ls"]).out.lines().count(), 1);
    let purged = server.ask(&[&all[..], &["--yes"]].concat());
    assert_eq!(purged.code, 0, "{}", purged.err);
    assert_eq!(server.ask(&["ls"]).out, "");
    assert_eq!(server.ask(&["rm", "--all"]).code, 2, "of which namespace?");
}

#[test]
fn figures_of_a_window_and_the_most_used_tools_are_told() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let key = put_gradle(&server, "a1");
    assert_eq!(server.request("GET", &format!("/cache/{key}"), b"").0, 200);
    let rate = server.ask(&["stats", "--metric", "hit-rate", "--window", "7d"]);
    assert!(
        rate.out.contains("last 7d") && rate.out.contains("100.0 %"),
        "{}",
        rate.out
    );
    let top = server.ask(&["stats", "--metric", "top"]);
    assert!(
        top.out.contains("gradle ") && top.out.contains("1 look-up,"),
        "{}",
        top.out
    );
    assert_eq!(server.ask(&["stats", "--window", "soon"]).code, 2);
}

#[test]
fn a_collection_by_age_spares_the_young_and_a_dry_one_everything() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    put_gradle(&server, "a1");
    let young = server.ask(&["gc", "--older-than", "30d"]);
    assert!(
        young.out.contains("too old      0 records"),
        "{}",
        young.out
    );
    let dry = server.ask(&["gc", "--older-than", "0s", "--dry-run", "--json"]);
    let dry: Value = serde_json::from_str(&dry.out).unwrap();
    assert_eq!(
        (&dry["dry_run"], &dry["expired_records"]),
        (&true.into(), &1.into())
    );
    assert_eq!(server.ask(&["ls"]).out.lines().count(), 1);
    let other = server.ask(&["gc", "--older-than", "0s", "--namespace", "other"]);
    assert_eq!(other.code, 0, "{}", other.err);
    assert_eq!(server.ask(&["ls"]).out.lines().count(), 1);
    assert_eq!(server.ask(&["gc", "--older-than", "0s"]).code, 0);
    assert_eq!(server.ask(&["ls"]).out, "");
}

/// Answers one request with these bytes and closes; gives back what was asked.
fn answer_once(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        connection.write_all(&answer).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, asked)
}

fn ok_with(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let folder = Folder::new();
    let content = b"first half, second half";
    let hash = sha256(content);
    let target = folder.path().join("out");
    let partial = folder.path().join(format!("out.{hash}.part"));
    let get = |address: SocketAddr| {
        let url = format!("http://{address}");
        run(&[
            "cache",
            "get",
            &hash,
            "-o",
            target.to_str().unwrap(),
            "--url",
            &url,
        ])
    };
    let (address, asked) = answer_once(ok_with(content.len(), &content[..10]));
    let broken = get(address);
    assert_eq!(broken.code, 1);
    assert!(broken.err.contains("broke off"), "{}", broken.err);
    assert!(
        !asked.join().unwrap().contains("range"),
        "nothing to go on from"
    );
    assert_eq!(fs::read(&partial).unwrap(), &content[..10]);
    assert!(!target.exists());
    let rest = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-22/23\r\nContent-Length: 13\r\n\r\n";
    let (address, asked) = answer_once([rest.as_bytes(), &content[10..]].concat());
    let resumed = get(address);
    assert_eq!((resumed.code, &*resumed.err), (0, ""));
    assert!(asked.join().unwrap().contains("range: bytes=10-"));
    assert_eq!(fs::read(&target).unwrap(), content);
    assert!(!partial.exists());
}

#[test]
fn a_real_server_completes_a_partial_file_and_mends_one_that_is_too_long() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let path = server.put(&content());
    let hash = path.trim_start_matches("/cas/");
    let target = folder.path().join("out");
    let partial = folder.path().join(format!("out.{hash}.part"));
    let longer = [content(), vec![0]].concat();
    for found in [&content()[..1_000_000], &content(), &longer] {
        fs::write(&partial, found).unwrap();
        let got = server.ask(&["get", hash, "-o", target.to_str().unwrap()]);
        assert_eq!((got.code, &*got.err), (0, ""), "{}", found.len());
        assert_eq!(fs::read(&target).unwrap(), content());
        assert!(!partial.exists());
    }
}

#[test]
fn a_wrong_content_is_thrown_away() {
    let folder = Folder::new();
    let hash = sha256(b"right");
    let target = folder.path().join("out");
    let (address, asked) = answer_once(ok_with(5, b"wrong"));
    let url = format!("http://{address}");
    let got = run(&[
        "cache",
        "get",
        &hash,
        "-o",
        target.to_str().unwrap(),
        "--url",
        &url,
    ]);
    asked.join().unwrap();
    assert_eq!(got.code, 1);
    assert!(got.err.contains(&sha256(b"wrong")), "{}", got.err);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn who_may_only_read_is_told_so_before_a_large_file_is_sent() {
    let folder = Folder::new();
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap();
    let words = [
        "token",
        "create",
        "--namespace",
        "n",
        "--scope",
        "read",
        "--file",
        file,
    ];
    let token = run(&words).out;
    let server = Server::start(&folder, &["--tokens", file]);
    let source = folder.path().join("in");
    fs::write(&source, content()).unwrap();
    let mut put = zim(&[
        "cache",
        "put",
        source.to_str().unwrap(),
        "--url",
        &server.url(),
    ]);
    let put = ended(
        put.args(["--namespace", "n"])
            .env("ZIMCACHE_TOKEN", token.trim()),
    );
    assert_eq!(put.code, 1);
    assert!(put.err.contains("does not allow this"), "{}", put.err);
}
