//! Polykit's API by raw requests: what is stored and refused, bombs, and the same requests to the published server.
//!
//! Artifacts are written by `zimcache_tests::artifact`, byte by byte, since no client makes wrong ones. The published
//! client library runs for real in `polykit_client.rs`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use zimcache_tests::artifact::Artifact;
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{self, Connection, Response};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::zstd_frames;

const MAX_BYTES: usize = 1_000_000;

fn key(name: &str) -> String {
    content::sha256(name.as_bytes())
}

fn path(key: &str) -> String {
    format!("/v1/artifacts/{key}")
}

fn demand_error(response: &Response, status: u16) -> Result<()> {
    ensure!(
        response.status == status,
        "{} {}",
        response.status,
        response.text()
    );
    let error: Value = serde_json::from_slice(&response.body).context("an error in JSON")?;
    let members = error.as_object().context("an object")?;
    let alone = members.len() == 1 && members.get("error").is_some_and(Value::is_string);
    ensure!(alone, "one member `error` is wanted: {error}");
    Ok(())
}

#[test]
fn an_artifact_is_stored_once_and_read_with_the_hash_of_its_bytes() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "256MB").start()?;
    let mut connection = Connection::open(server.address())?;
    let key = key("stored");
    let body = Artifact::new(&key, 300_000).pack();
    let missing = connection.request("GET", &path(&key), &[], None)?;
    demand_error(&missing, 404)?;
    ensure!(
        missing.text().contains("Artifact not found"),
        "{}",
        missing.text()
    );
    ensure!(
        connection.request("HEAD", &path(&key), &[], None)?.status == 404,
        "HEAD of nothing"
    );
    let stored = connection.request("PUT", &path(&key), &[], Some(&body))?;
    ensure!(
        stored.status == 201 && stored.body.is_empty(),
        "{} {}",
        stored.status,
        stored.text()
    );
    // Refused before its body has come, so the connection ends with the answer.
    let refused = |key: &str| http::once(server.address(), "PUT", &path(key), &[], Some(&body));
    demand_error(&refused(&key)?, 409)?;
    let mut connection = Connection::open(server.address())?;
    for method in ["GET", "HEAD"] {
        let got = connection.request(method, &path(&key), &[], None)?;
        ensure!(got.status == 200, "{method}: {}", got.status);
        ensure!(
            got.header("content-type") == Some("application/zstd"),
            "{:?}",
            got.headers
        );
        let length = body.len().to_string();
        ensure!(
            got.header("content-length") == Some(length.as_str()),
            "{:?}",
            got.headers
        );
        let hash = content::sha256(&body);
        ensure!(
            got.header("x-artifact-hash") == Some(hash.as_str()),
            "{:?}",
            got.headers
        );
        ensure!(method == "HEAD" || got.body == body, "other bytes");
    }
    let upper = connection.request("GET", &path(&key.to_uppercase()), &[], None)?;
    demand_error(&upper, 404).context("a key in upper case is another key")?;
    for wrong in ["0123456789abcdef", &"x".repeat(64), &key[..31]] {
        demand_error(&connection.request("GET", &path(wrong), &[], None)?, 400)
            .context(wrong.to_owned())?;
        demand_error(&refused(wrong)?, 400)?;
    }
    server.stop()?;
    say("polykit: stored once, read, keys");
    Ok(())
}

/// Every way in which an artifact can be wrong, each under a key of its own, and a sound one.
fn wrong_artifacts() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut wrong = Vec::new();
    let mut add = |name: &'static str, change: &dyn Fn(&mut Artifact)| {
        let key = key(name);
        let mut artifact = Artifact::new(&key, 5_000);
        change(&mut artifact);
        wrong.push((name, key, artifact.pack()));
    };
    add("another key inside", &|artifact| {
        artifact.key = key("elsewhere");
    });
    add("no metadata", &|artifact| {
        artifact.left_out.push("metadata.json");
    });
    add("no manifest", &|artifact| {
        artifact.left_out.push("manifest.json");
    });
    add("a file that is not listed", &|artifact| {
        artifact.listed.pop();
    });
    add("a file that differs from its hash", &|artifact| {
        artifact.files[0].1[7] ^= 1;
    });
    add("a listed file that is missing", &|artifact| {
        artifact.files.pop();
    });
    add("files without a total", &|artifact| artifact.total_size = 0);
    let sound = |name: &str| Artifact::new(&key(name), 5_000).pack();
    let cut = sound("cut short");
    wrong.push(("cut short", key("cut short"), cut[..cut.len() / 2].to_vec()));
    wrong.push(("not zstd", key("not zstd"), content::body(1, 3_000)));
    wrong.push(("nothing at all", key("nothing at all"), Vec::new()));
    wrong.push((
        "zstd of no tar",
        key("zstd of no tar"),
        zstd_frames::compress(&content::body(2, 3_000)),
    ));
    wrong
}

#[test]
fn an_artifact_that_is_wrong_in_any_way_is_refused_and_not_stored() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let limit = MAX_BYTES.to_string();
    let serve =
        Serve::on(&storage.path().join("store"), "256MB").flags(&["--max-blob-size", &limit]);
    let server = serve.start()?;
    let mut connection = Connection::open(server.address())?;
    let wrong = wrong_artifacts();
    for (name, key, body) in &wrong {
        let refused = connection.request("PUT", &path(key), &[], Some(body))?;
        demand_error(&refused, 422).context(*name)?;
        let absent = connection.request("GET", &path(key), &[], None)?;
        ensure!(absent.status == 404, "{name}: stored after all");
    }
    let key = key("too large");
    let body = Artifact::new(&key, MAX_BYTES + 1).pack();
    let mut alone = Connection::open(server.address())?;
    demand_error(&alone.request("PUT", &path(&key), &[], Some(&body))?, 413)?;
    server.stop()?;
    say(&format!(
        "polykit: {} wrong artifacts and one too large",
        wrong.len()
    ));
    Ok(())
}

/// A tar of zeros is sound as far as it goes: only its size gives it away.
#[test]
fn artifacts_that_unpack_to_gigabytes_are_refused_in_little_memory() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let mut server = Serve::on(&storage.path().join("store"), "256MB").start()?;
    let mut connection = Connection::open(server.address())?;
    let key = key("bomb");
    let mut listed = Artifact::new(&key, 5_000);
    let sound = listed.tar();
    // A member whose header announces 7 GiB, all zeros; then only zeros behind a sound archive.
    let huge = (7_u64 << 30, format!("{:011o}", 7_u64 << 30));
    listed
        .listed
        .push(("dist/zeros".to_owned(), content::sha256(b"unknown")));
    listed.files.push(("dist/zeros".to_owned(), Vec::new()));
    let mut headers = listed.tar();
    headers.truncate(headers.len() - 1_024);
    let size_at = headers.len() - 512 + 124;
    headers[size_at..size_at + 11].copy_from_slice(huge.1.as_bytes());
    fix_sum(&mut headers[size_at - 124..]);
    let bombs = [
        ("a huge member", zstd_frames::bomb(&headers, huge.0)),
        ("zeros behind the end", zstd_frames::bomb(&sound, 16 << 30)),
        ("zeros alone", zstd_frames::bomb(b"", 16 << 30)),
    ];
    let before = server.peak_memory_bytes()?;
    for (name, body) in &bombs {
        let refused = connection.request("PUT", &path(&key), &[], Some(body))?;
        let status = refused.status;
        ensure!(
            [413, 422].contains(&status),
            "{name}: {status} {}",
            refused.text()
        );
    }
    let grown = server.peak_memory_bytes()?.saturating_sub(before);
    ensure!(grown < 128 << 20, "{grown} bytes more");
    ensure!(
        server.is_running(),
        "the server died: {}",
        server.log_tail()
    );
    server.stop()?;
    say(&format!(
        "polykit: {} bombs, {} KiB more memory",
        bombs.len(),
        grown >> 10
    ));
    Ok(())
}

/// Writes the sum of a tar header that was changed.
fn fix_sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
