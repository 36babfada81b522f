//! A client with Builder's quirks against the real server: what it stores comes back, on one socket that lasts.
//!
//! Builder itself cannot be had here; the emulator is `zimcache_tests::builder_client`. Raw requests at the end ask for
//! what that client does not: browsers' preflights, validators, keys that are none.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use zimcache_tests::builder_client::{Client, Outcome};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{self, Connection};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::tokens::{self, Tokens};
use zimcache_tests::zstd_frames;

/// Shorter than the real client's 30 s, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// 64 upper-case digits, as its targets have.
fn key(name: &str) -> String {
    content::sha256(name.as_bytes()).to_uppercase()
}

/// Bytes that are sent compressed: long runs of zeros between others.
fn sparse(seed: u64, blocks: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in 0..blocks {
        bytes.extend(content::body(seed + block as u64, 3_000));
        bytes.resize(bytes.len() + 50_000, 0);
    }
    bytes
}

#[test]
fn a_client_with_the_quirks_of_builder_gets_back_what_it_stored_over_one_socket() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let mut client = Client::new(&format!("{}/some/path", server.url()), "", PATIENCE)?;
    let objects = [
        (key("record"), b"\x01\x00\x03abc".to_vec()),
        (key("empty"), Vec::new()),
        (key("random"), content::body(5, 90_000)),
        (key("sparse"), sparse(6, 4)),
        (key("large"), sparse(7, 60)),
        ("test123".to_owned(), b"short key".to_vec()),
    ];
    // Twice: the second time every object is there and is overwritten.
    for round in [Outcome::Miss, Outcome::Success(200, Vec::new())] {
        for (key, body) in &objects {
            ensure!(
                client.head(key) == round,
                "HEAD {key}: {:?}",
                client.head(key)
            );
            let put = client.put(key, body);
            ensure!(
                matches!(&put, Outcome::Success(_, body) if body.is_empty()),
                "PUT {key}: {put:?}"
            );
            ensure!(
                client.head(key) == Outcome::Success(200, Vec::new()),
                "HEAD {key}"
            );
            let got = client.get(key);
            ensure!(
                got == Outcome::Success(200, body.clone()),
                "GET {key}: {}",
                shown(&got)
            );
        }
    }
    let lower = key("record").to_lowercase();
    ensure!(client.get(&lower) == Outcome::Miss, "keys differ by case");
    ensure!(
        matches!(client.delete(&key("record")), Outcome::Success(..)),
        "DELETE"
    );
    ensure!(
        client.delete(&key("record")) == Outcome::Miss,
        "DELETE again"
    );
    ensure!(
        client.get(&key("record")) == Outcome::Miss,
        "GET after DELETE"
    );
    server.stop()?;
    say("builder: 6 objects, two rounds of HEAD, PUT, HEAD, GET and a DELETE on one socket");
    Ok(())
}

/// An outcome without its body.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success(status, body) => format!("{status} with {} bytes", body.len()),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_file_in_chunks_comes_back_by_its_manifest() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let mut client = Client::new(&server.url(), "", PATIENCE)?;
    let file = [sparse(1, 20), content::body(2, 400_000), sparse(3, 20)].concat();
    let hash = content::sha256(&file).to_uppercase();
    let mut chunks = Vec::new();
    for (number, chunk) in file.chunks(300_000).enumerate() {
        let hash = content::sha256(chunk).to_uppercase();
        ensure!(
            matches!(client.put(&hash, chunk), Outcome::Success(..)),
            "chunk {number}"
        );
        chunks.push(json!({ "offset": number * 300_000, "length": chunk.len(), "hash": hash }));
    }
    let manifest =
        json!({ "fileHash": hash, "totalSize": file.len(), "chunks": chunks }).to_string();
    let name = format!("{hash}.manifest");
    ensure!(
        manifest.len() > 1_024,
        "a manifest that would not be compressed"
    );
    ensure!(
        matches!(client.put(&name, manifest.as_bytes()), Outcome::Success(..)),
        "manifest"
    );
    let got = client.get(&name);
    ensure!(
        got == Outcome::Success(200, manifest.into_bytes()),
        "{}",
        shown(&got)
    );
    let mut joined = Vec::new();
    for chunk in &chunks {
        match client.get(chunk["hash"].as_str().unwrap_or_default()) {
            Outcome::Success(200, bytes) => joined.extend(bytes),
            other => anyhow::bail!("a chunk: {}", shown(&other)),
        }
    }
    ensure!(joined == file, "other bytes");
    server.stop()?;
    say(&format!(
        "builder: {} bytes in {} chunks and a manifest",
        file.len(),
        chunks.len()
    ));
    Ok(())
}

#[test]
fn builder_reads_with_a_read_only_token_and_is_forbidden_the_rest_without_losing_its_socket()
-> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let (write, read) = (
        tokens.create("team", "write")?,
        tokens.create("team", "read")?,
    );
    let other = tokens.create("rivals", "read")?;
    let serve = Serve::on(&storage.path().join("store"), "1GB").flags(&tokens.flags()?);
    let server = serve.start()?;
    let client = |token: &str| Client::new(&server.url(), token, PATIENCE);
    let body = sparse(9, 2);
    let (mut writer, mut reader) = (client(&write)?, client(&read)?);
    let mut stranger = client(tokens::UNKNOWN)?;
    ensure!(
        reader.put(&key("a"), &body) == Outcome::Forbidden,
        "a reader writes"
    );
    ensure!(
        reader.get(&key("a")) == Outcome::Miss,
        "a reader's socket after a refusal"
    );
    ensure!(
        matches!(writer.put(&key("a"), &body), Outcome::Success(..)),
        "a writer is refused"
    );
    for _ in 0..2 {
        ensure!(
            reader.get(&key("a")) == Outcome::Success(200, body.clone()),
            "a reader reads"
        );
        ensure!(
            reader.delete(&key("a")) == Outcome::Forbidden,
            "a reader deletes"
        );
        ensure!(
            stranger.get(&key("a")) == Outcome::Forbidden,
            "a stranger reads"
        );
        ensure!(
            stranger.put(&key("b"), &body) == Outcome::Forbidden,
            "a stranger writes"
        );
    }
    ensure!(
        client(&other)?.get(&key("a")) == Outcome::Miss,
        "another team's token sees it"
    );

    // Its socket is dead for ever then; a new client finds everything again.
    server.kill_9()?;
    let server = serve.start()?;
    ensure!(
        matches!(writer.get(&key("a")), Outcome::Failed(_)),
        "a dead socket answers"
    );
    let mut again = Client::new(&server.url(), &write, PATIENCE)?;
    ensure!(
        again.get(&key("a")) == Outcome::Success(200, body),
        "gone after kill -9"
    );
    server.stop()?;
    say("builder: read-only, wrong token, another team, a kill");
    Ok(())
}

/// Only Builder's own client gets the bytes back as they were before it compressed them without saying so.
#[test]
fn others_get_the_compressed_bytes_as_they_were_sent_and_heads_without_a_length() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let mut connection = Connection::open(server.address())?;
    let path = format!("/artifacts/{}", key("plain"));
    let body = sparse(4, 3);
    let frame = zstd_frames::compress(&body);
    let builder = "User-Agent: Builder/1.0";
    let sent = connection.request("PUT", &path, &[builder], Some(&frame))?;
    ensure!((200..300).contains(&sent.status), "{}", sent.status);
    let got = connection.request("GET", &path, &[], None)?;
    ensure!(
        got.body == frame,
        "another client: {} bytes",
        got.body.len()
    );
    let got = connection.request("GET", &path, &[builder], None)?;
    ensure!(got.body == body, "Builder: {} bytes", got.body.len());
    ensure!(
        got.header("transfer-encoding").is_none(),
        "chunked: {:?}",
        got.headers
    );
    let head = connection.request("HEAD", &path, &[builder], None)?;
    let length = head.header("content-length").unwrap_or("0");
    ensure!(
        head.status == 200 && length == "0",
        "{} {length}",
        head.status
    );
    for (method, path) in [
        ("GET", "/artifacts/a%2Fb"),
        ("GET", "/artifacts/..%2Fetc"),
        ("PUT", "/artifacts/"),
    ] {
        let refused = connection.request(method, path, &[builder], Some(b""))?;
        ensure!(
            [400, 404, 405].contains(&refused.status),
            "{method} {path}: {}",
            refused.status
        );
    }
    let missing = http::once(server.address(), "GET", "/artifacts/NONE", &[builder], None)?;
    ensure!(
        missing.status == 404 && missing.header("connection") != Some("close"),
        "{missing:?}"
    );
    server.stop()?;
    say("builder: raw requests");
    Ok(())
}

/// Announced small, unpacked large: such a body must neither fill the memory nor come back cut short as if whole.
#[test]
fn a_bomb_in_a_compressed_body_does_not_fill_the_memory() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let mut server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let path = format!("/artifacts/{}", key("bomb"));
    let builder = "User-Agent: Builder/1.0";
    let bomb = zstd_frames::bomb(b"", 64 << 30);
    let before = server.peak_memory_bytes()?;
    let mut connection = Connection::open(server.address())?;
    let sent = connection.request("PUT", &path, &[builder], Some(&bomb))?;
    if (200..300).contains(&sent.status) {
        let got = connection.request("GET", &path, &[builder], None)?;
        ensure!(
            got.status >= 400 || got.body == bomb,
            "{} with {} bytes",
            got.status,
            got.body.len()
        );
    }
    let grown = server.peak_memory_bytes()?.saturating_sub(before);
    ensure!(grown < 200 << 20, "{grown} bytes more");
    ensure!(
        server.is_running(),
        "the server died: {}",
        server.log_tail()
    );
    server.stop()?;
    say(&format!("builder: 64 GiB in {} bytes", bomb.len()));
    Ok(())
}
