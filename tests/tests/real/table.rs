//! The statuses that clients rely on, one row each, against the real binary: Bazel's routes and ccache's.
//!
//! Wire details (header forms, malformed framing) are in `hostile.rs`; here requests are well formed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{Connection, Response};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};

const MAX_BLOB: usize = 1 << 20;
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Sends one request and demands one of some statuses.
struct Table {
    connection: Connection,
    rows: u32,
}

impl Table {
    fn new(server: &Server) -> Result<Table> {
        Ok(Table {
            connection: Connection::open(server.address())?,
            rows: 0,
        })
    }

    fn row(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
        accepted: &[u16],
    ) -> Result<Response> {
        self.row_with(method, path, &[], body, accepted)
    }

    fn row_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&[u8]>,
        accepted: &[u16],
    ) -> Result<Response> {
        self.rows += 1;
        let what = || format!("{method} {path} {headers:?}");
        let response = self
            .connection
            .request(method, path, headers, body)
            .with_context(what)?;
        ensure!(
            accepted.contains(&response.status),
            "{}: {} {:?}, not one of {accepted:?}",
            what(),
            response.status,
            response.text()
        );
        if response.status == 404 {
            // Several clients take anything else for a hit or a failure.
            ensure!(
                response.header("content-length") == Some("0"),
                "{}: a miss with a body",
                what()
            );
        }
        if response.status == 405 {
            ensure!(
                response.header("allow").is_some(),
                "{}: 405 without Allow",
                what()
            );
        }
        if response.header("connection") == Some("close") {
            let address = self.connection.peer()?;
            self.connection = Connection::open(address)?;
        }
        Ok(response)
    }
}

fn serve(name: &str) -> Result<(tempfile::TempDir, Server)> {
    let folder = scratch(name)?;
    let serve = Serve::on(&folder.path().join("store"), "256MB");
    let server = serve.flags(&["--max-blob-size", "1MiB"]).start()?;
    Ok((folder, server))
}

/// A length-delimited field of a protocol buffer, for lengths below 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![
        number << 3 | 2,
        u8::try_from(bytes.len()).expect("a short field"),
    ];
    field.extend_from_slice(bytes);
    field
}

/// An ActionResult with one output file.
fn action_result(path: &str, hash: &str, size_bytes: u8) -> Vec<u8> {
    let mut digest = field(1, hash.as_bytes());
    digest.extend_from_slice(&[2 << 3, size_bytes]);
    let mut file = field(1, path.as_bytes());
    file.extend_from_slice(&field(2, &digest));
    field(2, &file)
}

#[test]
fn blobs_answer_as_bazel_expects_with_and_without_an_instance() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_folder, server) = serve("table")?;
    let mut table = Table::new(&server)?;
    for (seed, prefix) in ["", "/team", "/team/linux-x86.64", "/a/b/c"]
        .into_iter()
        .enumerate()
    {
        blob_rows(&mut table, prefix, seed as u64).context(prefix)?;
        too_large_rows(&mut table, prefix).context(prefix)?;
    }
    let rows = table.rows;
    server.stop()?;
    say(&format!("table: {rows} rows about blobs"));
    Ok(())
}

fn blob_rows(table: &mut Table, prefix: &str, seed: u64) -> Result<()> {
    let body = content::body(seed, 10_000);
    let hash = content::sha256(&body);
    let path = format!("{prefix}/cas/{hash}");
    table.row("GET", &path, None, &[404])?;
    table.row("HEAD", &path, None, &[404])?;
    table.row("DELETE", &path, None, &[404])?;
    table.row("PUT", &path, Some(b"other bytes"), &[400])?;
    table.row("GET", &path, None, &[404])?;
    table.row("PUT", &path, Some(&body), &[200])?;
    table.row("PUT", &path, Some(&body), &[200])?;
    table.row("PUT", &path, Some(b"other bytes, and it exists"), &[400])?;
    let response = table.row("GET", &path, None, &[200])?;
    ensure!(response.body == body, "other bytes");
    let response = table.row("HEAD", &path, None, &[200])?;
    ensure!(
        response.header("content-length") == Some("10000"),
        "HEAD's length"
    );
    for method in ["POST", "PATCH", "PROPFIND", "BREW"] {
        table.row(method, &path, None, &[405])?;
    }
    range_rows(table, &path, &body)?;
    etag_rows(table, &path)?;
    table.row("DELETE", &path, None, &[204])?;
    table.row("GET", &path, None, &[404])?;
    table.row("DELETE", &path, None, &[404])?;
    let empty = format!("{prefix}/cas/{EMPTY_SHA256}");
    let response = table.row("GET", &empty, None, &[200])?;
    ensure!(response.body.is_empty(), "the empty blob has bytes");
    table.row("PUT", &empty, Some(b""), &[200])?;
    // Neither a length nor chunks: a body of no bytes.
    table.row("PUT", &empty, None, &[200])?;
    table.row("PUT", &path, None, &[400])?;
    malformed_rows(table, prefix)
}

fn malformed_rows(table: &mut Table, prefix: &str) -> Result<()> {
    let long = "a".repeat(200);
    let not_hex = "g".repeat(64);
    for kind in ["cas", "ac"] {
        for key in [not_hex.as_str(), &long, "..%2f..%2fetc%2fpasswd", "%00"] {
            let path = format!("{prefix}/{kind}/{key}");
            table.row("GET", &path, None, &[400])?;
            table.row("PUT", &path, Some(b"x"), &[400])?;
            table.row("DELETE", &path, None, &[400])?;
        }
        for key in ["", "abc", "0"] {
            let path = format!("{prefix}/{kind}/{key}");
            table.row("GET", &path, None, &[400, 404])?;
            table.row("PUT", &path, Some(b"x"), &[400, 404])?;
        }
    }
    Ok(())
}

fn range_rows(table: &mut Table, path: &str, body: &[u8]) -> Result<()> {
    let size = body.len();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=9000-", 9_000, size),
        ("bytes=-10", size - 10, size),
        ("bytes=-99999", 0, size),
        ("bytes=9999-20000", 9_999, size),
    ] {
        let header = format!("Range: {range}");
        let response = table.row_with("GET", path, &[&header], None, &[206])?;
        ensure!(response.body == body[start..end], "{range}: other bytes");
        let expected = format!("bytes {start}-{}/{size}", end - 1);
        ensure!(
            response.header("content-range") == Some(&expected),
            "{range}: Content-Range"
        );
    }
    for range in ["bytes=10000-", "bytes=10000-10001", "bytes=-0"] {
        let header = format!("Range: {range}");
        let response = table.row_with("GET", path, &[&header], None, &[416])?;
        ensure!(
            response.header("content-range") == Some("bytes */10000"),
            "{range}"
        );
    }
    // What is no range of bytes is ignored; one that ends before it starts may be refused as well.
    for (range, accepted) in [
        ("lines=1-2", &[200][..]),
        ("bytes=x-y", &[200]),
        ("bytes=5-2", &[200, 416]),
    ] {
        let header = format!("Range: {range}");
        let response = table.row_with("GET", path, &[&header], None, accepted)?;
        ensure!(
            response.status == 416 || response.body == body,
            "{range}: other bytes"
        );
    }
    Ok(())
}

fn etag_rows(table: &mut Table, path: &str) -> Result<()> {
    let response = table.row("GET", path, None, &[200])?;
    let tag = response.header("etag").context("no ETag")?.to_owned();
    for value in [tag.as_str(), "*", &format!("\"other\", {tag}")] {
        let header = format!("If-None-Match: {value}");
        table.row_with("GET", path, &[&header], None, &[304])?;
    }
    let response = table.row_with("GET", path, &["If-None-Match: \"other\""], None, &[200])?;
    ensure!(!response.body.is_empty(), "an empty answer to another ETag");
    Ok(())
}

fn too_large_rows(table: &mut Table, prefix: &str) -> Result<()> {
    let exact = content::body(77, MAX_BLOB);
    let path = format!("{prefix}/cas/{}", content::sha256(&exact));
    table.row("PUT", &path, Some(&exact), &[200])?;
    let over = content::body(78, MAX_BLOB + 1);
    let path = format!("{prefix}/cas/{}", content::sha256(&over));
    let address = table.connection.peer()?;
    let refused = table.row("PUT", &path, Some(&over), &[413])?;
    ensure!(refused.status == 413);
    table.connection = Connection::open(address)?;
    table.row("GET", &path, None, &[404])?;
    // In chunks the size shows only on the way.
    let mut connection = Connection::open(address)?;
    connection.send_raw(
        format!("PUT {path} HTTP/1.1\r\nHost: cache.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    )?;
    let chunk = [
        format!("{:x}\r\n", over.len()).as_bytes(),
        &over,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    // The server may stop reading at the limit.
    let _ = connection.send_raw(&chunk);
    let response = connection.response(false).context("too large, in chunks")?;
    ensure!(
        response.status == 413,
        "too large, in chunks: {}",
        response.status
    );
    table.row("GET", &path, None, &[404])?;
    Ok(())
}

#[test]
fn action_results_are_validated_and_hidden_until_complete() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_folder, server) = serve("action")?;
    let mut table = Table::new(&server)?;
    for (seed, prefix) in ["", "/team"].into_iter().enumerate() {
        action_rows(&mut table, prefix, seed as u64).context(prefix)?;
    }
    let rows = table.rows;
    server.stop()?;
    say(&format!("table: {rows} rows about action results"));
    Ok(())
}

fn action_rows(table: &mut Table, prefix: &str, seed: u64) -> Result<()> {
    let output = content::body(seed, 100);
    let hash = content::sha256(&output);
    let result = action_result("out/lib.a", &hash, 100);
    let path = format!("{prefix}/ac/{}", content::sha256(&seed.to_le_bytes()));
    table.row("GET", &path, None, &[404])?;
    table.row(
        "PUT",
        &path,
        Some(b"\xff\xffthis is no action result"),
        &[400],
    )?;
    table.row("PUT", &path, Some(&result), &[200])?;
    // Its output is missing: a hit would break the build.
    table.row("GET", &path, None, &[404])?;
    table.row("HEAD", &path, None, &[404])?;
    let blob = format!("{prefix}/cas/{hash}");
    table.row("PUT", &blob, Some(&output), &[200])?;
    let response = table.row("GET", &path, None, &[200])?;
    ensure!(response.body == result, "other bytes than were stored");
    table.row("HEAD", &path, None, &[200])?;
    etag_rows(table, &path)?;
    table.row("DELETE", &blob, None, &[204])?;
    table.row("GET", &path, None, &[404])?;
    table.row("PUT", &blob, Some(&output), &[200])?;
    table.row("GET", &path, None, &[200])?;
    for bad in ["/etc/passwd", "../outside", "a/../../b"] {
        let result = action_result(bad, &hash, 100);
        table
            .row("PUT", &path, Some(&result), &[400])
            .context(bad)?;
    }
    let response = table.row("GET", &path, None, &[200])?;
    ensure!(response.body == result, "a refused write changed the entry");
    for method in ["POST", "PATCH"] {
        table.row(method, &path, None, &[405])?;
    }
    table.row("DELETE", &path, None, &[204])?;
    table.row("DELETE", &path, None, &[404])?;
    table.row("GET", &path, None, &[404])?;
    Ok(())
}

#[test]
fn ccache_objects_answer_in_every_layout_and_key_text() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_folder, server) = serve("ccache-table")?;
    let mut table = Table::new(&server)?;
    let hex = &content::sha256(b"new key text")[..40];
    let old = format!("{}{}", &hex[..4], "0123456789abcdefghijklmnopqrs");
    let doubled = format!("{hex}{}", &hex[..24]);
    let paths = [
        format!("/ccache/{}/{}", &hex[..2], &hex[2..]),
        format!("/ccache/{}/{}", &old[..2], &old[2..]),
        format!("/ccache/{old}"),
        format!("/ccache/{}", content::sha256(b"flat").split_at(40).0),
        format!("/ccache/ac/{doubled}"),
    ];
    for (number, path) in paths.iter().enumerate() {
        ccache_rows(&mut table, path, number as u64).with_context(|| path.clone())?;
    }
    for key in [
        "",
        "abc",
        "zz/zz",
        &"A".repeat(40),
        "ac/abc",
        &format!("{}%2f", &hex[..39]),
    ] {
        let path = format!("/ccache/{key}");
        table.row("GET", &path, None, &[400, 404])?;
        table.row("PUT", &path, Some(b"x"), &[400, 404])?;
        table.row("GET", &path, None, &[400, 404])?;
    }
    let rows = table.rows;
    server.stop()?;
    say(&format!("table: {rows} rows about ccache"));
    Ok(())
}

fn ccache_rows(table: &mut Table, path: &str, seed: u64) -> Result<()> {
    table.row("DELETE", path, None, &[204, 404])?;
    table.row("GET", path, None, &[404])?;
    table.row("HEAD", path, None, &[404])?;
    // Values are opaque, in the layout that looks like Bazel's too; the newest wins.
    for round in 0..3 {
        let value = content::body(seed * 10 + round, 10_000 + round as usize);
        table.row("PUT", path, Some(&value), &[200])?;
        let response = table.row("GET", path, None, &[200])?;
        ensure!(response.body == value, "round {round}: other bytes");
    }
    let large = content::body(seed, 900_000);
    table.row("PUT", path, Some(&large), &[200])?;
    let response = table.row("GET", path, None, &[200])?;
    ensure!(response.body == large, "a large value: other bytes");
    let response = table.row("HEAD", path, None, &[200])?;
    ensure!(
        response.header("content-length") == Some("900000"),
        "HEAD's length"
    );
    let value = content::body(seed, 10_000);
    table.row("PUT", path, Some(&value), &[200])?;
    range_rows(table, path, &value)?;
    etag_rows(table, path)?;
    for method in ["POST", "PATCH"] {
        table.row(method, path, None, &[405])?;
    }
    table.row("DELETE", path, None, &[204])?;
    table.row("DELETE", path, None, &[404])?;
    table.row("GET", path, None, &[404])?;
    Ok(())
}

/// What the names of metrics begin with: ours, those of the systems that ours stands in for, and what every process has.
const FAMILIES: [&str; 5] = [
    "zimcache_",
    "zim_cache_",
    "builder_cache_",
    "plasma_",
    "process_",
];

#[test]
fn pages_for_operators_answer_on_the_same_port() -> Result<()> {
    let _turn = Turn::shared()?;
    let (_folder, server) = serve("pages")?;
    let mut table = Table::new(&server)?;
    let health = table.row("GET", "/health", None, &[200])?;
    serde_json::from_slice::<serde_json::Value>(&health.body).context("/health is JSON")?;
    let body = content::body(1, 1_000);
    let path = format!("/cas/{}", content::sha256(&body));
    table.row("PUT", &path, Some(&body), &[200])?;
    table.row("GET", &path, None, &[200])?;
    let stats = table.row("GET", "/api/v1/stats", None, &[200])?;
    serde_json::from_slice::<serde_json::Value>(&stats.body).context("/api/v1/stats is JSON")?;
    let metrics = table.row("GET", "/metrics", None, &[200])?.text();
    let names: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    ensure!(names.len() > 5, "few metrics: {names:?}");
    for name in names {
        let known = FAMILIES.iter().any(|family| name.starts_with(family));
        ensure!(known, "a metric named {name}");
    }
    table.row("GET", "/nothing/here", None, &[404])?;
    table.row("POST", "/health", None, &[405])?;
    table.row("GET", "/api/v1/gc", None, &[405])?;
    // Doubled slashes come from base URLs that end in one.
    table.row("GET", &format!("/{path}"), None, &[200])?;
    server.stop()
}
