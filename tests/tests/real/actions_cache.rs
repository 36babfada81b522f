//! The GitHub Actions cache by raw requests, as `actions/cache` and large uploads send them: Twirp in JSON, an Azure blob
//! in blocks, version 1 in chunks.
//!
//! sccache sends protobuf and single uploads; it runs for real in `sccache_gha.rs`.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{Connection, Response};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::tokens::{self, Tokens};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService";
const VERSION: &str = "7bc3736f5e7a4195d5c5bba944d60de025ee85b3b9a2ff6d041fb6caefe3ea7d";
const BLOCK_BYTES: usize = 4 << 20;

/// A runner: its token and its connection.
struct Runner {
    connection: Connection,
    authorization: String,
}

impl Runner {
    fn new(server: &Server, token: &str) -> Result<Runner> {
        Ok(Runner {
            connection: Connection::open(server.address())?,
            authorization: format!("Authorization: Bearer {token}"),
        })
    }

    fn call(&mut self, method: &str, message: &Value) -> Result<Response> {
        let path = format!("{SERVICE}/{method}");
        let headers = ["Content-Type: application/json", &self.authorization];
        let body = message.to_string();
        let sent = self
            .connection
            .request("POST", &path, &headers, Some(body.as_bytes()));
        sent.with_context(|| format!("{method} {message}"))
    }

    /// Calls and demands 200 with `"ok": true`.
    fn call_ok(&mut self, method: &str, message: &Value) -> Result<Value> {
        let response = self.call(method, message)?;
        ensure!(
            response.status == 200,
            "{method}: {} {}",
            response.status,
            response.text()
        );
        let answer: Value = serde_json::from_slice(&response.body)?;
        ensure!(answer["ok"] == true, "{method}: {answer}");
        Ok(answer)
    }

    /// Sends to a signed URL, as Azure's client does: without the token.
    fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: Option<&[u8]>,
    ) -> Result<Response> {
        let sent = self.connection.request(method, target, headers, body);
        sent.with_context(|| format!("{method} {target}"))
    }

    fn reserve(&mut self, key: &str) -> Result<String> {
        let message = json!({ "key": key, "version": VERSION });
        let answer = self.call_ok("CreateCacheEntry", &message)?;
        path_of(&answer, "signed_upload_url")
    }

    fn finalize(&mut self, key: &str, size: usize) -> Result<Response> {
        let message = json!({ "key": key, "version": VERSION, "size_bytes": size.to_string() });
        self.call("FinalizeCacheEntryUpload", &message)
    }

    fn find(&mut self, key: &str, restore_keys: &[&str]) -> Result<Value> {
        let message = json!({ "key": key, "version": VERSION, "restore_keys": restore_keys });
        let response = self.call("GetCacheEntryDownloadURL", &message)?;
        ensure!(
            response.status == 200,
            "{} {}",
            response.status,
            response.text()
        );
        Ok(serde_json::from_slice(&response.body)?)
    }

    /// Uploads in blocks; their order is that of the list, not that of sending.
    fn upload_in_blocks(&mut self, target: &str, body: &[u8]) -> Result<()> {
        let blocks: Vec<(String, &[u8])> = body
            .chunks(BLOCK_BYTES)
            .enumerate()
            .map(|(number, block)| (block_id(number), block))
            .collect();
        for (id, block) in blocks.iter().rev() {
            let target = format!("{target}&comp=block&blockid={}", id.replace('=', "%3D"));
            let sent = self.send("PUT", &target, &["x-ms-version: 2024-11-04"], Some(block))?;
            ensure!(
                sent.status == 201,
                "a block: {} {}",
                sent.status,
                sent.text()
            );
        }
        let names: Vec<String> = blocks
            .iter()
            .map(|(id, _)| format!("<Latest>{id}</Latest>"))
            .collect();
        let head = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>"#;
        let list = format!("{head}<BlockList>{}</BlockList>", names.concat());
        let headers = ["x-ms-version: 2024-11-04", "Content-Type: application/xml"];
        let sent = self.send(
            "PUT",
            &format!("{target}&comp=blocklist"),
            &headers,
            Some(list.as_bytes()),
        )?;
        ensure!(
            sent.status == 201,
            "the list of blocks: {} {}",
            sent.status,
            sent.text()
        );
        Ok(())
    }

    fn download(&mut self, found: &Value) -> Result<Response> {
        ensure!(found["ok"] == true, "not found: {found}");
        let target = path_of(found, "signed_download_url")?;
        self.send("GET", &target, &[], None)
    }
}

/// Azure's clients make ids of equal length and encode them in base64.
fn block_id(number: usize) -> String {
    STANDARD.encode(format!("{number:06}-block"))
}

/// Path and query of a URL in an answer, under its name in the protocol or in lower camel case.
fn path_of(answer: &Value, name: &str) -> Result<String> {
    let camel: String = name
        .split('_')
        .enumerate()
        .map(|(at, word)| match at {
            0 => word.to_owned(),
            _ => word[..1].to_uppercase() + &word[1..],
        })
        .collect();
    let url = answer[name].as_str().or(answer[camel].as_str());
    let url = url.with_context(|| format!("no {name} in {answer}"))?;
    let rest = url.split_once("://").context("an absolute URL")?.1;
    let path = &rest[rest.find('/').context("a path")?..];
    let (steps, query) = path.split_once('?').context("a query")?;
    ensure!(
        steps.matches('/').count() >= 2,
        "fewer than two steps: {url}"
    );
    ensure!(!query.is_empty(), "no query: {url}");
    Ok(path.to_owned())
}

fn started() -> Result<(tempfile::TempDir, Server)> {
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "2GB").start()?;
    Ok((storage, server))
}

#[test]
fn an_object_uploaded_in_blocks_comes_back_in_the_order_of_its_list() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_storage, server) = started()?;
    let mut runner = Runner::new(&server, "any")?;
    let body = content::body(1, 3 * BLOCK_BYTES + 12_345);
    let target = runner.reserve("node-linux-1")?;
    runner.upload_in_blocks(&target, &body)?;
    ensure!(
        runner.find("node-linux-1", &[])?["ok"] != true,
        "visible before it was finalized"
    );
    let answer = runner.finalize("node-linux-1", body.len())?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let found = runner.find("node-linux-1", &[])?;
    ensure!(runner.download(&found)?.body == body, "other bytes");
    let target = path_of(&found, "signed_download_url")?;
    let part = runner.send("GET", &target, &["Range: bytes=4194304-4194403"], None)?;
    ensure!(
        part.status == 206 && part.body == body[4_194_304..4_194_404],
        "{}",
        part.status
    );
    let head = runner.send("HEAD", &target, &[], None)?;
    let length = body.len().to_string();
    ensure!(
        head.header("content-length") == Some(length.as_str()),
        "{:?}",
        head.headers
    );
    server.stop()?;
    say(&format!("actions cache: {length} bytes in 4 blocks"));
    Ok(())
}

#[test]
fn an_existing_key_is_a_conflict_and_a_restore_key_finds_the_newest_with_its_beginning()
-> Result<()> {
    let _turn = Turn::shared()?;
    let (_storage, server) = started()?;
    let mut runner = Runner::new(&server, "any")?;
    ensure!(
        runner.find("cargo-linux-a", &["cargo-linux-"])?["ok"] != true,
        "a hit on nothing"
    );
    for (key, seed) in [("cargo-linux-a", 1), ("cargo-linux-b", 2)] {
        let body = content::body(seed, 5_000);
        let target = runner.reserve(key)?;
        let headers = ["x-ms-blob-type: BlockBlob", "x-ms-version: 2024-11-04"];
        let sent = runner.send("PUT", &target, &headers, Some(&body))?;
        ensure!(sent.status == 201, "{} {}", sent.status, sent.text());
        ensure!(
            runner.finalize(key, body.len())?.status == 200,
            "not finalized"
        );
    }
    let again = runner.call(
        "CreateCacheEntry",
        &json!({ "key": "cargo-linux-a", "version": VERSION }),
    )?;
    ensure!(again.status == 409, "{} {}", again.status, again.text());
    let found = runner.find("cargo-linux-c", &["cargo-linux-", "cargo-"])?;
    let matched = found["matched_key"]
        .as_str()
        .or(found["matchedKey"].as_str());
    ensure!(matched == Some("cargo-linux-b"), "not the newest: {found}");
    ensure!(
        runner.download(&found)?.body == content::body(2, 5_000),
        "other bytes"
    );
    let other =
        json!({ "key": "cargo-linux-a", "version": "0".repeat(64), "restore_keys": ["cargo-"] });
    let answer = runner.call("GetCacheEntryDownloadURL", &other)?;
    ensure!(
        !answer.text().contains("\"ok\":true"),
        "another version hits: {}",
        answer.text()
    );
    server.stop()?;
    say("actions cache: conflict, restore keys, versions");
    Ok(())
}

#[test]
fn signed_urls_open_what_they_were_made_for_and_nothing_else() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let (write, read) = (
        tokens.create("team", "write")?,
        tokens.create("team", "read")?,
    );
    let other = tokens.create("rivals", "write")?;
    let serve = Serve::on(&storage.path().join("store"), "256MB").flags(&tokens.flags()?);
    let server = serve.start()?;
    let mut writer = Runner::new(&server, &write)?;
    let target = writer.reserve("secret")?;
    let headers = ["x-ms-blob-type: BlockBlob"];
    let sent = writer.send("PUT", &target, &headers, Some(b"of the team"))?;
    ensure!(sent.status == 201, "{}", sent.status);
    ensure!(
        writer.finalize("secret", 11)?.status == 200,
        "not finalized"
    );
    let found = Runner::new(&server, &read)?.find("secret", &[])?;
    ensure!(
        writer.download(&found)?.body == b"of the team",
        "other bytes"
    );

    ensure!(
        Runner::new(&server, &other)?.find("secret", &[])?["ok"] != true,
        "rivals see it"
    );
    let refused = Runner::new(&server, &read)?.call(
        "CreateCacheEntry",
        &json!({ "key": "x", "version": VERSION }),
    )?;
    ensure!(
        refused.status == 403,
        "a reader reserves: {}",
        refused.status
    );
    let unknown = Runner::new(&server, tokens::UNKNOWN)?.call(
        "CreateCacheEntry",
        &json!({ "key": "x", "version": VERSION }),
    )?;
    ensure!(
        unknown.status == 401,
        "a stranger reserves: {}",
        unknown.status
    );

    let download = path_of(&found, "signed_download_url")?;
    let written = writer.send("PUT", &download, &headers, Some(b"forged"))?;
    ensure!(
        written.status >= 400,
        "a URL for reading writes: {}",
        written.status
    );
    for cut in [1, 10] {
        let forged = format!("{}{}", &download[..download.len() - cut], "0".repeat(cut));
        let opened = writer.send("GET", &forged, &[], None)?;
        let same = forged == download;
        ensure!(
            same || (400..500).contains(&opened.status),
            "forged: {} {forged}",
            opened.status
        );
    }
    ensure!(
        writer.download(&found)?.body == b"of the team",
        "changed after all"
    );
    server.stop()?;
    say("actions cache: signed URLs, scopes, namespaces");
    Ok(())
}

#[test]
fn version_1_takes_chunks_with_their_ranges_and_says_204_for_a_miss() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_storage, server) = started()?;
    let mut runner = Runner::new(&server, "any")?;
    let accept = "Accept: application/json;api-version=6.0-preview.1";
    let look = format!("/_apis/artifactcache/cache?keys=npm-1%2Cnpm-&version={VERSION}");
    let missing = runner.send("GET", &look, &[accept], None)?;
    ensure!(
        [204, 404].contains(&missing.status),
        "a miss: {}",
        missing.status
    );

    let body = content::body(9, 300_000);
    let reserve =
        json!({ "key": "npm-1", "version": VERSION, "cacheSize": body.len() }).to_string();
    let headers = [accept, "Content-Type: application/json"];
    let reserved = runner.send(
        "POST",
        "/_apis/artifactcache/caches",
        &headers,
        Some(reserve.as_bytes()),
    )?;
    ensure!(
        [200, 201].contains(&reserved.status),
        "{} {}",
        reserved.status,
        reserved.text()
    );
    let reserved: Value = serde_json::from_slice(&reserved.body)?;
    let id = reserved["cacheId"].as_i64().context("a cacheId")?;
    let cache = format!("/_apis/artifactcache/caches/{id}");
    let mut from = 0;
    for chunk in body.chunks(100_000) {
        let range = format!("Content-Range: bytes {from}-{}/*", from + chunk.len() - 1);
        let headers = [accept, "Content-Type: application/octet-stream", &range];
        let sent = runner.send("PATCH", &cache, &headers, Some(chunk))?;
        ensure!(
            (200..300).contains(&sent.status),
            "a chunk: {} {}",
            sent.status,
            sent.text()
        );
        from += chunk.len();
    }
    let size = json!({ "size": body.len() }).to_string();
    let done = runner.send("POST", &cache, &headers, Some(size.as_bytes()))?;
    ensure!(
        (200..300).contains(&done.status),
        "{} {}",
        done.status,
        done.text()
    );

    let found = runner.send("GET", &look, &[accept], None)?;
    ensure!(found.status == 200, "{} {}", found.status, found.text());
    let found: Value = serde_json::from_slice(&found.body)?;
    ensure!(found["cacheKey"] == "npm-1", "{found}");
    let target = path_of(&found, "archiveLocation")?;
    ensure!(
        runner.send("GET", &target, &[], None)?.body == body,
        "other bytes"
    );
    let again = runner.send(
        "POST",
        "/_apis/artifactcache/caches",
        &headers,
        Some(reserve.as_bytes()),
    )?;
    ensure!(again.status == 409, "{} {}", again.status, again.text());
    server.stop()?;
    say("actions cache: version 1 in 3 chunks");
    Ok(())
}
